//! A source of one's own: objects that a program holds, downloaded like any others (`bulk-core`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example own_source
//! ```
//!
//! A source makes one attempt for each call. Order, segments, retries and resume are the download's. Whether a source
//! keeps the rules, `bulk_core::conformance` (a feature) tells.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bulk_core::{Body, DownloadOptions, ETag, Get, Request, Source, download};
use bytes::Bytes;
use futures::StreamExt;

/// Objects in memory.
struct Memory {
    objects: BTreeMap<String, Bytes>,
}

#[async_trait]
impl Source for Memory {
    fn location(&self, key: &str) -> String {
        format!("memory:{key}")
    }

    async fn get(&self, get: &Get) -> Result<Body, bulk_core::Error> {
        let location = self.location(&get.key);
        let Some(object) = self.objects.get(&get.key) else { return Err(bulk_core::Error::NotFound { location }) };
        // The objects never change, so that one tag is enough.
        let etag = ETag::new("\"1\"");
        if get.if_match.as_ref().is_some_and(|wanted| *wanted != etag) {
            return Err(bulk_core::Error::Changed { location, what: "it has another ETag".to_owned() });
        }
        let size = object.len() as u64;
        if get.start > 0 && get.start >= size {
            return Err(bulk_core::Error::Changed { location, what: "it ends before the range".to_owned() });
        }
        let end = get.end.unwrap_or(size).min(size);
        let bytes = object.slice(get.start as usize..end as usize);
        let mut body = Body::new(get.start, futures::stream::iter([Ok(bytes)]).boxed());
        body.end = Some(end);
        body.size = Some(size);
        body.etag = Some(etag);
        body.has_ranges = true;
        Ok(body)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let objects = [("a", 3 << 20), ("b", 5)].map(|(key, len)| (key.to_owned(), Bytes::from(vec![b'.'; len])));
    let source = Arc::new(Memory { objects: objects.into() });
    let folder = tempfile::tempdir()?;
    let plan = ["b", "a", "c"].map(Request::new);
    let mut files = download(source, plan, folder.path(), DownloadOptions::default());
    while let Some(delivery) = files.next().await {
        match delivery.outcome {
            Ok(file) => println!("{}: {} bytes, {}", delivery.request.name, file.size, file.digests[0]),
            Err(error) => println!("{}: {error}", delivery.request.name),
        }
    }
    Ok(())
}
