//! Which keys of a bucket, and the listing of them.

use std::time::{Duration, Instant};

use bulk_s3::{Bucket, KeyFilter, KeyRange, ListOptions};
use serde_json::json;

use crate::arguments::{BucketArguments, KeyArguments};
use crate::exit::Failure;
use crate::report::Report;
use crate::source::Place;

/// How often it is said how far a listing is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A bucket, and which of its keys are meant.
pub(crate) struct Keys {
    pub(crate) bucket: Bucket,
    pub(crate) prefix: String,
    pub(crate) filter: KeyFilter,
    pub(crate) listers: usize,
}

impl Keys {
    /// `s3://bucket/prefix`.
    pub(crate) fn open(
        source: &str,
        bucket: &BucketArguments,
        keys: &KeyArguments,
        report: &Report,
    ) -> Result<Self, Failure> {
        let Place::Bucket { bucket, prefix } = Place::open(source, bucket, report)? else {
            return Err(Failure::usage(format!(
                "{source}: a folder has no ETags to compare; a bucket is s3://bucket/prefix"
            )));
        };
        let filter = filter(keys, &prefix)?;
        Ok(Self { bucket: *bucket, prefix, filter, listers: keys.listers })
    }

    pub(crate) fn list_options(&self, ranges: Vec<KeyRange>) -> ListOptions {
        let mut options = ListOptions::default();
        options.prefix.clone_from(&self.prefix);
        options.filter = self.filter.clone();
        options.ranges = ranges;
        options.connections = self.listers;
        options
    }
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
    said: Instant,
    keys: u64,
}

impl Listed {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { started: now, said: now, keys: 0 }
    }

    pub(crate) fn add(&mut self, keys: u64) {
        self.keys += keys;
    }

    /// Says how far it is, if that was not said of late. `found` of `what` were found.
    pub(crate) fn tell(&mut self, found: u64, what: &str, report: &Report) {
        if self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            self.say("progress", found, what, report);
        }
    }

    pub(crate) fn end(&self, found: u64, what: &str, report: &Report) {
        self.say("listed", found, what, report);
    }

    fn say(&self, event: &str, found: u64, what: &str, report: &Report) {
        let keys = self.keys;
        let seconds = self.started.elapsed().as_secs_f64();
        let speed = keys as f64 / seconds.max(1e-3);
        let text = format!("{keys} keys listed in {seconds:.1} s ({speed:.0} a second), {found} {what}");
        report.event(event, &text, json!({"keys": keys, "found": found, "seconds": seconds}));
    }
}
