//! A bucket's keys listed, and compared with what is known: `cargo bench -p bulk-benches --bench keys`.
//!
//! The pages are made before and sent over loopback by a thread that does nothing else, one connection and one page at a
//! time, so a listing is what our client makes of them: HTTP, XML, objects. The times of both are of the whole process, on
//! the wall. A comparison is of two sides in memory, of which one is an edition ahead. Whole programs, and the floor, are
//! measured by `compare-listing`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bulk_s3::{Batch, Bucket, BucketOptions, Compare, KeyFilter, ListOptions, ObjectRef, diff};
use bulk_testkit::s3::{KeySpace, Layout};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;

const KEYS: u64 = 50_000;
/// What S3 puts in a page.
const PAGE: usize = 1000;

fn keys(criterion: &mut Criterion) {
    let space = KeySpace::new(Layout::Builds, KEYS);
    let listed = batch(&KeySpace { edition: 1, ..space.clone() });
    let known = batch(&space);
    let mut group = criterion.benchmark_group("keys");
    group.throughput(Throughput::Elements(KEYS));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is room for one");
    let mut options = BucketOptions::default();
    options.endpoint = Some(serve(&listed));
    options.region = Some("us-east-1".to_owned());
    let bucket = Bucket::new("data", options).expect("the name is good");
    let list = async |filter: KeyFilter| {
        let mut options = ListOptions::default();
        options.connections = 1;
        options.filter = filter;
        let mut pages = bucket.pages(options);
        let mut wanted = 0;
        while let Some(page) = pages.next().await {
            wanted += page.expect("the page is good").objects.len();
        }
        wanted
    };
    group.bench_function("listed", |bencher| {
        bencher.iter(|| runtime.block_on(list(KeyFilter::all())));
    });
    group.bench_function("listed, 3% of them wanted", |bencher| {
        bencher.iter(|| runtime.block_on(list(KeyFilter::all().suffix("buildhub.json"))));
    });
    group.bench_function("compared", |bencher| {
        bencher.iter(|| diff(black_box(&listed).iter(), black_box(&known).iter(), Compare::Etag).count());
    });
    group.finish();
}

fn batch(keys: &KeySpace) -> Batch {
    let mut batch = Batch::new();
    for made in keys.objects() {
        let mut object = ObjectRef::new(&made.key);
        object.etag = Some(&made.etag);
        object.size = Some(made.size);
        object.last_modified = Some(made.last_modified);
        batch.push(object);
    }
    batch
}

/// Serves these objects on loopback until the program ends, and tells its address. The token of a page is its number.
fn serve(objects: &Batch) -> String {
    let objects: Vec<ObjectRef<'_>> = objects.iter().collect();
    let count = objects.len().div_ceil(PAGE);
    let pages: Arc<[String]> =
        objects.chunks(PAGE).enumerate().map(|(number, objects)| page(objects, number + 1, count)).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let pages = Arc::clone(&pages);
            // An end of the connection is the end of its thread, and the client says what it misses.
            thread::spawn(move || answer(&stream.expect("the connection is there"), &pages));
        }
    });
    format!("http://{address}")
}

fn answer(stream: &TcpStream, pages: &[String]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            head.push_str(&line);
        }
        let token = head.split_once("continuation-token=").map_or("0", |(_, rest)| rest);
        let digits = token.find(|character: char| !character.is_ascii_digit()).unwrap_or(token.len());
        let page = &pages[token[..digits].parse::<usize>().expect("tokens are ours")];
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", page.len());
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        stream.write_all(page.as_bytes())?;
    }
}

fn page(objects: &[ObjectRef<'_>], next: usize, count: usize) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>data</Name><Prefix></Prefix><KeyCount>{}</KeyCount><MaxKeys>{PAGE}</MaxKeys>\
         <EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>",
        objects.len(),
        next < count
    );
    if next < count {
        let _ = write!(xml, "<NextContinuationToken>{next}</NextContinuationToken>");
    }
    for object in objects {
        let _ = write!(
            xml,
            "<Contents><Key>{}</Key><LastModified>{:.3}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>",
            object.key,
            object.last_modified.expect("it is made up"),
            object.etag.expect("it is made up"),
            object.size.expect("it is made up"),
        );
    }
    xml + "</ListBucketResult>"
}

criterion_group!(benches, keys);
criterion_main!(benches);
