//! Which keys of a bucket, and the listing of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bulk_core::{InputState, MeteredStream, Source};
use bulk_s3::{
    Bucket, Compare, DiffOptions, FileListOptions, Inventory, InventoryOptions, Job, KeyFilter, KeyRange, KnownObjects,
    ListOptions, Page, file_pages, in_order, split_ranges,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use crate::arguments::{BucketArguments, KeyArguments};
use crate::counted::counted;
use crate::dataset::Dataset;
use crate::exit::Failure;
use crate::meters::Order;
use crate::report::{NowAndThen, Report};
use crate::source::Place;

/// A bucket, which of its keys are meant, and what tells of them.
pub(crate) struct Keys {
    pub(crate) bucket: Bucket,
    pub(crate) prefix: String,
    pub(crate) filter: KeyFilter,
    listing: Listing,
    report: Report,
}

/// Where a listing comes from.
enum Listing {
    /// The bucket itself, asked for so many pages at a time.
    Bucket {
        listers: usize,
    },
    Files(Vec<PathBuf>),
    Inventory {
        inventory: Box<Inventory>,
        manifest: String,
    },
}

impl Keys {
    /// `s3://bucket/prefix`, or a data set whose source is one.
    pub(crate) async fn open(
        source: &str,
        bucket: &BucketArguments,
        keys: &KeyArguments,
        report: &Report,
    ) -> Result<Self, Failure> {
        let (source, of_source) = Dataset::locate_bucket(source, bucket)?;
        if !source.starts_with("s3://") && !source.starts_with("file://") {
            // The rest of it may hold a password.
            let scheme = source.split_once("://").map_or("", |(scheme, _)| scheme);
            return Err(Failure::usage(format!("a bucket is s3://bucket/prefix, and not {scheme}://…")));
        }
        let (of_bucket, prefix) = match Place::open(&source, &of_source, report)? {
            Place::Bucket { bucket, prefix } => (*bucket, prefix),
            Place::Folder(_) => {
                return Err(Failure::usage(format!(
                    "{source}: a folder has no ETags to compare; a bucket is s3://bucket/prefix"
                )));
            }
        };
        let filter = filter(keys, &prefix)?;
        let listing = match (keys.listing.listing.as_slice(), &keys.listing.inventory) {
            ([], None) => Listing::Bucket { listers: keys.listers },
            (_, Some(manifest)) => {
                let inventory = inventory(manifest, bucket, report).await?;
                if inventory.bucket() != of_bucket.name() {
                    let (found, wanted) = (inventory.bucket(), of_bucket.name());
                    let what = format!("--inventory {manifest}: it is of the bucket {found:?}, and not of {wanted:?}");
                    return Err(Failure::usage(what));
                }
                if let Some(created) = inventory.created() {
                    report.note(format!("the inventory is of {created}"));
                }
                Listing::Inventory { inventory: Box::new(inventory), manifest: manifest.clone() }
            }
            (files, None) => {
                for file in files {
                    let opened = File::open(file);
                    opened.map_err(|error| Failure::usage(format!("--listing {}: {error}", file.display())))?;
                }
                Listing::Files(files.to_vec())
            }
        };
        Ok(Self { bucket: of_bucket, prefix, filter, listing, report: report.clone() })
    }

    /// Whether the bucket itself says what it has.
    pub(crate) fn asks_bucket(&self) -> bool {
        matches!(self.listing, Listing::Bucket { .. })
    }

    /// What there is in these stretches, as it comes.
    pub(crate) fn pages(&self, ranges: Vec<KeyRange>) -> BoxStream<'static, Result<Page, bulk_s3::Error>> {
        let (prefix, filter) = (self.prefix.clone(), self.filter.clone());
        match &self.listing {
            Listing::Bucket { listers } => {
                let mut options = ListOptions::default();
                (options.prefix, options.filter, options.ranges) = (prefix, filter, ranges);
                options.connections = *listers;
                options.meter = Some(self.report.meters().listing(true));
                self.bucket.pages(options).boxed()
            }
            Listing::Files(files) => {
                let mut options = FileListOptions::default();
                (options.prefix, options.filter, options.ranges) = (prefix, filter, ranges);
                options.bucket = Some(self.bucket.name().to_owned());
                options.meter = Some(self.report.meters().listing(false));
                file_pages(files, options)
            }
            Listing::Inventory { inventory, .. } => {
                let mut options = InventoryOptions::default();
                (options.prefix, options.filter, options.ranges) = (prefix, filter, ranges);
                let report = self.report.clone();
                options.download.observer = Arc::new(move |event: &bulk_core::Event<'_>| report.on_download(event));
                options.meter = Some(self.report.meters().listing(false));
                inventory.pages(options)
            }
        }
    }

    /// The same in the order of the keys.
    pub(crate) fn pages_in_order(&self, ranges: Vec<KeyRange>) -> BoxStream<'static, Result<Page, bulk_s3::Error>> {
        let pages = self.pages(ranges.clone());
        if self.order(true) == Order::Any {
            return pages;
        }
        let input = InputState::default();
        let merged = in_order(input.watch(pages), &ranges, &std::env::temp_dir());
        MeteredStream::new(merged, &self.report.meters().merge(), input, |page: &Page| (page.keys, 0)).boxed()
    }

    /// How pages come that are, or are not, asked for in order. From files they are in order anyway.
    pub(crate) fn order(&self, is_sorted: bool) -> Order {
        if is_sorted && self.asks_bucket() { Order::Merged } else { Order::Any }
    }

    /// Cuts stretches by what is known, so that all connections have work at once, and in the order of the keys: who wants
    /// them in that order does not have to keep much of what comes from behind.
    pub(crate) async fn split(
        &self,
        ranges: Vec<KeyRange>,
        known: &dyn KnownObjects,
    ) -> Result<Vec<KeyRange>, bulk_s3::Error> {
        const STRETCHES_EACH: usize = 16;
        match self.listing {
            Listing::Bucket { listers } => {
                split_ranges(known, ranges, &self.prefix, listers.saturating_mul(STRETCHES_EACH)).await
            }
            Listing::Files(_) | Listing::Inventory { .. } => Ok(ranges),
        }
    }

    pub(crate) fn diff_options(&self, compare: Compare) -> DiffOptions {
        let mut options = DiffOptions::default();
        options.prefix.clone_from(&self.prefix);
        options.filter = self.filter.clone();
        options.compare = compare;
        if let Listing::Inventory { inventory, .. } = &self.listing {
            options.as_of = inventory.created();
        }
        options
    }

    /// What a comparison of these keys is, for its checkpoint.
    pub(crate) fn job(&self, compare: Compare, known: &dyn KnownObjects, target: String) -> Job {
        let mut job = Job::default();
        job.bucket = self.bucket.identity("");
        match &self.listing {
            Listing::Bucket { .. } => {}
            Listing::Files(files) => job.bucket.push_str(&format!(" as {files:?} list it")),
            Listing::Inventory { manifest, .. } => job.bucket.push_str(&format!(" as {manifest:?} lists it")),
        }
        job.prefix.clone_from(&self.prefix);
        job.filter = self.filter.identity();
        job.compare = compare.to_string();
        job.store = known.identity();
        job.target = target;
        job
    }
}

/// `s3://bucket/…/manifest.json`, or a local one, which a folder may stand for.
async fn inventory(manifest: &str, arguments: &BucketArguments, report: &Report) -> Result<Inventory, Failure> {
    if manifest.starts_with("s3://") {
        return match Place::open(manifest, arguments, report)? {
            Place::Bucket { bucket, prefix } => Ok(Inventory::open(Arc::new(*bucket), &prefix).await?),
            Place::Folder(folder) => Ok(Inventory::open_folder(folder)?),
        };
    }
    let path = Path::new(manifest.strip_prefix("file://").unwrap_or(manifest));
    let is_named = path.file_name().is_some_and(|name| name == "manifest.json");
    let folder = match path.parent() {
        _ if path.is_dir() => path,
        Some(parent) if is_named && !parent.as_os_str().is_empty() => parent,
        Some(_) if is_named => Path::new("."),
        _ => {
            let what = "that is neither s3://bucket/…/manifest.json nor a manifest.json in a folder";
            return Err(Failure::usage(format!("--inventory {manifest}: {what}")));
        }
    };
    Ok(Inventory::open_folder(folder)?)
}

/// Which keys the flags mean.
pub(crate) fn filter(keys: &KeyArguments, prefix: &str) -> Result<KeyFilter, Failure> {
    let mut filter = KeyFilter::all().below(prefix);
    for suffix in &keys.suffix {
        filter = filter.suffix(suffix);
    }
    let usage = |flag: &str, error: bulk_s3::InvalidFilter| Failure::usage(format!("{flag}: {error}"));
    for glob in &keys.include {
        filter = filter.include(glob).map_err(|error| usage("--include", error))?;
    }
    for glob in &keys.exclude {
        filter = filter.exclude(glob).map_err(|error| usage("--exclude", error))?;
    }
    for expression in &keys.regex {
        filter = filter.regex(expression).map_err(|error| usage("--regex", error))?;
    }
    Ok(filter)
}

/// Says every few seconds how far a listing is, and in the end what it was.
pub(crate) struct Listed {
    started: Instant,
    said: NowAndThen,
    keys: u64,
}

impl Listed {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), said: NowAndThen::new(), keys: 0 }
    }

    pub(crate) fn add(&mut self, keys: u64) {
        self.keys += keys;
    }

    /// Says how far it is, if that was not said of late. `found` of `what` were found.
    pub(crate) fn tell(&mut self, found: u64, what: &str, report: &Report) {
        if self.said.is_time() {
            let (text, fields) = self.so_far(found, what);
            report.progress(text, fields);
        }
    }

    pub(crate) fn end(&self, found: u64, what: &str, report: &Report) {
        let (text, fields) = self.so_far(found, what);
        report.event("listed", &text, fields);
    }

    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    /// Since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn so_far(&self, found: u64, what: &str) -> (String, Value) {
        let keys = self.keys;
        let seconds = self.seconds();
        let speed = keys as f64 / seconds.max(1e-3);
        let text =
            format!("{} listed in {seconds:.1} s ({speed:.0} a second), {found} {what}", counted(keys, "key", "keys"));
        (text, json!({"keys": keys, "found": found, "seconds": seconds}))
    }
}
