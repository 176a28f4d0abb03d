//! Lists a bucket of dated files and chooses the newest snapshot that is whole (`bulk-s3`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example choose_snapshot
//! cargo run --release -p bulk-examples --example choose_snapshot -- com-courtlistener-storage bulk-data/ us-west-2
//! ```

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;

use bulk_s3::{Bucket, BucketOptions, DatedName, Object, Wanted, choose_snapshot};
use bulk_testkit::s3::{Server, Store};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    // Without credentials in the options requests are not signed, as public buckets want them.
    let mut options = BucketOptions::default();
    let (bucket, prefix, _server) = match arguments.next() {
        Some(name) => {
            let prefix = arguments.next().unwrap_or_default();
            options.region = arguments.next();
            (Bucket::new(name, options)?, prefix, None)
        }
        None => {
            // The newer of the two has a failed export: 14 bytes, the bzip2 of nothing.
            let store = Store::memory()
                .with("bulk-data/courts-2026-03-31.csv.bz2", vec![0; 80_000])
                .with("bulk-data/dockets-2026-03-31.csv.bz2", vec![0; 900_000])
                .with("bulk-data/courts-2026-06-30.csv.bz2", vec![0; 81_000])
                .with("bulk-data/dockets-2026-06-30.csv.bz2", vec![0; 14]);
            let server = Server::builder().bucket("demo", store).start()?;
            options.endpoint = Some(server.url());
            (Bucket::new("demo", options)?, "bulk-data/".to_owned(), Some(server))
        }
    };

    let listing: Vec<Object> = bucket.list(&prefix).try_collect().await?;
    println!("{} objects", listing.len());
    // All files that any date has are wanted here; a program knows the ones that it needs.
    let dated = |object: &Object| {
        let name = DatedName::parse(object.key.rsplit('/').next()?)?;
        name.extension.starts_with("csv").then(|| name.base.to_owned())
    };
    let wanted = Wanted::new(listing.iter().filter_map(dated));
    let snapshot = choose_snapshot(listing, &wanted)?;
    for passed in &snapshot.passed_over {
        println!("passed over {passed}");
    }
    println!("snapshot of {}:", snapshot.date);
    for object in snapshot.files.values() {
        println!("{:>12} {}", object.size, object.key);
    }
    Ok(())
}
