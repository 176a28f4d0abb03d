//! Fetches files over several connections and reads them in order, while later ones still arrive (`bulk-core`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example download_in_order
//! cargo run --release -p bulk-examples --example download_in_order -- https://example.org/data a.csv b.csv
//! ```
//!
//! Kill it and run it again with the same folder: what is there is not fetched again.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;
use std::sync::Arc;

use bulk_core::{DownloadOptions, HttpSource, Request, download};
use bulk_testkit::s3::{Server, Store};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (base, names, _server) = match arguments.next() {
        Some(base) => (base, arguments.collect(), None),
        None => {
            let files = [("big", 40 << 20), ("middle", 8 << 20), ("small", 1 << 10)];
            let store = files.iter().fold(Store::memory(), |store, (name, size)| store.with(name, vec![b'.'; *size]));
            let server = Server::builder().bucket("data", store).start()?;
            (server.url() + "/data", files.map(|(name, _)| name.to_owned()).to_vec(), Some(server))
        }
    };

    let folder = tempfile::tempdir()?;
    let source = Arc::new(HttpSource::new(&base)?);
    let plan: Vec<Request> = names.into_iter().map(|name: String| Request::new(name)).collect();
    let mut options = DownloadOptions::default();
    options.concurrency = 4;
    let mut files = download(source, plan, folder.path(), options);
    while let Some(delivery) = files.next().await {
        // One file that failed does not end the others.
        match delivery.outcome {
            Ok(file) => println!("{}: {} bytes in {}", delivery.place, file.size, file.path.display()),
            Err(error) => println!("{}: {error}", delivery.place),
        }
    }
    Ok(())
}
