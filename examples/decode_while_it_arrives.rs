//! Decodes a compressed object while the rest of it still arrives over several connections (`bulk-core`, `bulk-archive`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example decode_while_it_arrives
//! cargo run --release -p bulk-examples --example decode_while_it_arrives -- https://example.org/data big.csv.bz2
//! ```
//!
//! It prints when the first line was there, and when all of them were. With `Keep::Nothing` bytes leave the disk as they
//! are read, so that an object of any size needs no more of it than the window has.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulk_archive::{DecodeOptions, Decoder};
use bulk_core::{DownloadOptions, HttpSource, Keep, OrderedBody, Request, stream};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (base, names, _server) = match arguments.next() {
        Some(base) => (base, arguments.collect(), None),
        None => {
            let store = Store::memory().with("numbers.csv.gz", numbers()?);
            let server = Server::builder().bucket("data", store).start()?;
            server.fault(Rule::new(Fault::Bandwidth(1_000_000)));
            (server.url() + "/data", vec!["numbers.csv.gz".to_owned()], Some(server))
        }
    };

    let folder = tempfile::tempdir()?;
    let source = Arc::new(HttpSource::new(&base)?);
    let plan: Vec<Request> = names.into_iter().map(|name: String| Request::new(name)).collect();
    let mut options = DownloadOptions::default();
    options.window = 256 << 20;
    let mut bodies = stream(source, plan, folder.path(), Keep::Nothing, options);
    while let Some(delivery) = bodies.next().await {
        let (name, body) = (delivery.request.name.clone(), delivery.outcome?);
        // Decoding is work for a thread; the connections go on meanwhile.
        tokio::task::spawn_blocking(move || read(&name, body)).await??;
    }
    Ok(())
}

fn read(name: &str, body: OrderedBody) -> std::io::Result<()> {
    let begun = Instant::now();
    let seconds = |elapsed: Duration| format!("{:.1} s", elapsed.as_secs_f64());
    let decoder = Decoder::new(body.into_blocking(), name, &DecodeOptions::default()).map_err(std::io::Error::other)?;
    let mut lines = 0;
    for line in BufReader::new(decoder).lines() {
        let line = line?;
        lines += 1;
        if lines == 1 {
            println!("{name}: the first line is {line:?}, after {}", seconds(begun.elapsed()));
        }
    }
    println!("{name}: {lines} lines after {}", seconds(begun.elapsed()));
    Ok(())
}

fn numbers() -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..500_000).try_for_each(|number| writeln!(encoder, "{number},{}", number * 7))?;
    encoder.finish()
}
