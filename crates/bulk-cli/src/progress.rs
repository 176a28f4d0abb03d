use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::counted::counted;
use crate::plain;
use crate::report::{Report, size};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often bars are drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often it is told what binds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After so long an older speed counts for a third.
const SPEED_OVER: Duration = Duration::from_secs(10);

/// What is done so far of a long job, counted by those who do it.
#[derive(Default)]
pub(crate) struct Totals {
    /// Bytes that are there, and those of them that came in this run.
    fetched: AtomicU64,
    arrived: AtomicU64,
    to_fetch: AtomicU64,
    /// Files whose size nobody told yet, so that it is not in `to_fetch`.
    unmeasured: AtomicU64,
    connections: AtomicU64,
    /// The files under way.
    files: Mutex<HashMap<String, FileSoFar>>,
    begun: AtomicU64,
    /// Where nobody tells it, it is the first of those under way.
    head: Mutex<Option<Head>>,
    paused: Mutex<Option<String>>,
    /// What binds, in a few words.
    bound: Mutex<Option<String>>,
    /// Compressed bytes of files that are loaded; those that are being read have counters of their own.
    read: AtomicU64,
    reading: Mutex<Vec<Arc<AtomicU64>>>,
    to_read: AtomicU64,
    /// Whether there is more to read than that, of which nobody knows how much it is.
    is_endless: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
    /// Of a crawl: the records that there will be, those that requests were made of, and those that were done before.
    expected: OnceLock<u64>,
    asked_for: AtomicU64,
    passed_over: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct FileSoFar {
    /// It was the so-many-th to begin.
    number: u64,
    bytes: u64,
    size: Option<u64>,
}

/// The file in front of the order, and what is done with it if it is there.
#[derive(Clone)]
struct Head {
    name: String,
    doing: Option<&'static str>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    pub(crate) fn begin_file(&self, name: &str, size: Option<u64>, there: u64) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(name.to_owned(), FileSoFar { number, bytes: there, size });
        self.fetched.fetch_add(there, Ordering::Relaxed);
        // What an earlier run left may tell it.
        if let Some(size) = size {
            self.measured(size);
        }
    }

    pub(crate) fn add_fetched_of(&self, name: &str, bytes: u64) {
        if let Some(file) = lock(&self.files).get_mut(name) {
            file.bytes += bytes;
        }
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was there of it is of no use.
    pub(crate) fn restart_file(&self, name: &str) {
        if let Some(file) = lock(&self.files).get_mut(name) {
            let lost = std::mem::take(&mut file.bytes);
            self.fetched.fetch_sub(lost, Ordering::Relaxed);
        }
    }

    pub(crate) fn end_file(&self, name: &str) {
        if lock(&self.files).remove(name).is_some_and(|file| file.size.is_none()) {
            self.measured(0);
        }
    }

    /// Tells of how many files it is not known how large they are.
    pub(crate) fn set_unmeasured(&self, files: usize) {
        self.unmeasured.store(files as u64, Ordering::Relaxed);
    }

    /// Tells whether there is something to load of which nobody knows how much it is.
    pub(crate) fn set_endless(&self, is_endless: bool) {
        self.is_endless.store(is_endless, Ordering::Relaxed);
    }

    /// Tells how large a file under way is, which the plan may not have known.
    pub(crate) fn measure_file(&self, name: &str, size: u64) {
        let mut files = lock(&self.files);
        let Some(file) = files.get_mut(name).filter(|file| file.size.is_none()) else { return };
        file.size = Some(size);
        self.measured(size);
    }

    /// Where the plan told sizes, they are in the total.
    fn measured(&self, size: u64) {
        let less = self.unmeasured.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |files| files.checked_sub(1));
        if less.is_ok() {
            self.to_fetch.fetch_add(size, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells which file the order waits for, and what is done with it, if it is there.
    pub(crate) fn set_head(&self, head: Option<(&str, Option<&'static str>)>) {
        *lock(&self.head) = head.map(|(name, doing)| Head { name: name.to_owned(), doing });
    }

    /// Tells why nothing goes on, or that it does.
    pub(crate) fn set_paused(&self, why: Option<String>) {
        *lock(&self.paused) = why;
    }

    /// Tells what binds of late, if anything does, in a few words.
    fn set_bound(&self, bound: Option<String>) {
        *lock(&self.bound) = bound;
    }

    pub(crate) fn add_loaded(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells how many records a crawl will have had.
    pub(crate) fn expect_records(&self, records: u64) {
        // A run counts them once.
        let _ = self.expected.set(records);
    }

    pub(crate) fn add_records_asked_for(&self, records: u64) {
        self.asked_for.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn pass_over_records(&self, records: u64) {
        self.passed_over.fetch_add(records, Ordering::Relaxed);
    }

    /// How many records of a crawl are left for each that it has asked for; `None` where that is not known.
    pub(crate) fn records_left(&self) -> Option<f64> {
        let expected = *self.expected.get()?;
        let [asked_for, passed_over] = [&self.asked_for, &self.passed_over].map(|total| total.load(Ordering::Relaxed));
        let left = expected.saturating_sub(asked_for + passed_over);
        (asked_for > 0).then(|| left as f64 / asked_for as f64)
    }

    /// Rows that were loaded.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// A file is being read; `counter` tells how far.
    pub(crate) fn begin_reading(&self, counter: Arc<AtomicU64>) {
        self.reading().push(counter);
    }

    /// No more will be read of the file of that counter.
    pub(crate) fn end_reading(&self, counter: &Arc<AtomicU64>) {
        let mut reading = self.reading();
        reading.retain(|other| !Arc::ptr_eq(other, counter));
        self.read.fetch_add(counter.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn reading(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        lock(&self.reading)
    }

    /// Where the head of the order is, in a few words.
    fn front(&self) -> Option<String> {
        let head = lock(&self.head).clone();
        let files = lock(&self.files);
        let first = || Some(Head { name: files.iter().min_by_key(|(_, file)| file.number)?.0.clone(), doing: None });
        let Head { name, doing } = head.or_else(first)?;
        let file = files.get(&name).copied();
        let is_there = file.is_some_and(|file| file.size.is_some_and(|size| file.bytes >= size));
        let is_loaded = self.to_read.load(Ordering::Relaxed) > 0;
        Some(match (doing.or((is_there && is_loaded).then_some("loading")), file) {
            (Some(doing), _) => format!("{doing} {name}"),
            (None, Some(FileSoFar { bytes, size: Some(size @ 1..), .. })) => {
                format!("{name} {}%", u128::from(bytes.min(size)) * 100 / u128::from(size))
            }
            (None, Some(FileSoFar { bytes, .. })) => format!("{name} {}", size(bytes)),
            (None, None) => name,
        })
    }

    /// How many bytes are to be fetched yet; `None` where that is not known.
    pub(crate) fn left_to_fetch(&self) -> Option<u64> {
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let is_known = load(&self.unmeasured) == 0 && load(&self.to_fetch) > 0;
        is_known.then(|| load(&self.to_fetch).saturating_sub(load(&self.fetched)))
    }

    /// Which part of what is to be read has been; `None` where that is not known, or nothing.
    pub(crate) fn read_part(&self) -> Option<f64> {
        let Sums { read, to_read, is_endless, .. } = self.now();
        (!is_endless && read > 0 && to_read > 0).then(|| read.min(to_read) as f64 / to_read as f64)
    }

    fn now(&self) -> Sums {
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let reading = self.reading();
        Sums {
            fetched: load(&self.fetched),
            arrived: load(&self.arrived),
            connections: load(&self.connections),
            front: self.front(),
            paused: lock(&self.paused).clone(),
            bound: lock(&self.bound).clone(),
            to_fetch: load(&self.to_fetch),
            unmeasured: load(&self.unmeasured),
            read: load(&self.read) + reading.iter().map(|counter| load(counter)).sum::<u64>(),
            to_read: load(&self.to_read),
            is_endless: self.is_endless.load(Ordering::Relaxed),
            records: load(&self.records),
            bytes: load(&self.bytes),
        }
    }
}

struct Sums {
    fetched: u64,
    arrived: u64,
    connections: u64,
    front: Option<String>,
    paused: Option<String>,
    bound: Option<String>,
    to_fetch: u64,
    unmeasured: u64,
    read: u64,
    to_read: u64,
    is_endless: bool,
    records: u64,
    bytes: u64,
}

impl Sums {
    fn line(&self, what: What, speed: f64) -> String {
        let mut parts = Vec::new();
        if self.to_fetch > 0 || self.unmeasured > 0 {
            parts.push(self.amount(what.done(), speed));
        }
        if self.is_endless {
            parts.push(self.loaded());
        } else if let Some(percent) = (self.read.min(self.to_read) * 100).checked_div(self.to_read) {
            let rows = counted(self.records, "row", "rows");
            // What is read may be far ahead of what is committed.
            parts.push(format!("{percent}% read, {rows} loaded, {} of CSV", size(self.bytes)));
        }
        parts.extend(self.status(what));
        format!("  … {}", parts.join("; "))
    }

    /// How much is loaded of what has no known end.
    fn loaded(&self) -> String {
        let rows = counted(self.records, "row", "rows");
        format!("{} read, {rows} loaded, {} of CSV", size(self.read), size(self.bytes))
    }

    /// How much is there, how fast it comes, and how long that may take.
    fn amount(&self, done: &str, speed: f64) -> String {
        let left = self.to_fetch.saturating_sub(self.fetched);
        let (all, is_all) = (size(self.to_fetch), self.unmeasured == 0);
        let mut text = match (is_all, left) {
            (true, _) => format!("{} of {all}{done}", size(self.fetched.min(self.to_fetch))),
            (false, 0) => format!("{}{done}", size(self.fetched)),
            (false, _) => format!("{} of {all} and more{done}", size(self.fetched)),
        };
        if speed >= 1.0 && (left > 0 || !is_all) && self.paused.is_none() {
            text += &format!(", {}/s", size(speed as u64));
            if is_all {
                text += &format!(", {} to go", span(left as f64 / speed));
            }
        }
        text
    }

    /// What the front of the order waits for, and what binds.
    fn status(&self, what: What) -> Option<String> {
        if let Some(why) = &self.paused {
            return Some(format!("paused: {why}"));
        }
        let front = self.front.as_ref().map(|front| match self.connections {
            _ if !what.counts_connections() => front.clone(),
            0 if self.unmeasured == 0 && self.fetched >= self.to_fetch => front.clone(),
            connections => format!("{}: {front}", counted(connections, "connection", "connections")),
        });
        match (front, &self.bound) {
            (Some(front), Some(bound)) => Some(format!("{front}; {bound}")),
            (front, bound) => front.or_else(|| bound.clone()),
        }
    }
}

/// Bytes a second, as a moving average.
struct Speed {
    at: Instant,
    arrived: u64,
    speed: f64,
}

impl Speed {
    fn new(totals: &Totals) -> Self {
        Self { at: Instant::now(), arrived: totals.now().arrived, speed: 0.0 }
    }

    fn update(&mut self, sums: &Sums) -> f64 {
        let seconds = self.at.elapsed().as_secs_f64();
        if seconds > 0.0 {
            let now = (sums.arrived - self.arrived) as f64 / seconds;
            let weight = if self.speed == 0.0 { 1.0 } else { 1.0 - (-seconds / SPEED_OVER.as_secs_f64()).exp() };
            self.speed += (now - self.speed) * weight;
            (self.at, self.arrived) = (Instant::now(), sums.arrived);
        }
        self.speed
    }
}

/// Seconds as people read them.
fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// What is done to the bytes that are counted as fetched.
#[derive(Clone, Copy)]
enum What {
    Fetch,
    Verify,
    Upload,
}

impl What {
    /// Nobody tells of those that upload.
    fn counts_connections(self) -> bool {
        !matches!(self, Self::Upload)
    }

    fn done(self) -> &'static str {
        match self {
            Self::Fetch => " fetched",
            Self::Verify => " verified",
            Self::Upload => " uploaded",
        }
    }
}

/// Shows the totals until it is dropped: bars on a terminal, else a line every few seconds.
pub(crate) struct Progress {
    task: tokio::task::JoinHandle<()>,
    bars: Option<Bars>,
}

impl Progress {
    /// `to_fetch` and `to_read` are bytes; 0 if nothing of that kind is to be done.
    pub(crate) fn start(report: &Report, to_fetch: u64, to_read: u64) -> Self {
        Self::of(report, What::Fetch, to_fetch, to_read)
    }

    /// Of files that are read again.
    pub(crate) fn start_verification(report: &Report, to_verify: u64) -> Self {
        Self::of(report, What::Verify, to_verify, 0)
    }

    /// Of files on their way into a bucket.
    pub(crate) fn start_upload(report: &Report, to_upload: u64) -> Self {
        Self::of(report, What::Upload, to_upload, 0)
    }

    fn of(report: &Report, what: What, to_fetch: u64, to_read: u64) -> Self {
        let totals = report.totals().clone();
        totals.to_fetch.store(to_fetch, Ordering::Relaxed);
        totals.to_read.store(to_read, Ordering::Relaxed);
        let is_endless = totals.is_endless.load(Ordering::Relaxed);
        let bars = report.screen().map(|screen| Bars::new(screen, what, to_fetch, to_read, is_endless));
        let (report, shown) = (report.clone(), bars.clone());
        let task = tokio::spawn(async move {
            let (mut speed, mut looked) = (Speed::new(&totals), Instant::now());
            loop {
                tokio::time::sleep(if shown.is_some() { DRAW_EVERY } else { LINE_EVERY }).await;
                if looked.elapsed() >= LOOK_EVERY {
                    looked = Instant::now();
                    totals.set_bound(report.meters().bound_of_late());
                }
                if let Some(bars) = &shown {
                    let sums = totals.now();
                    bars.update(what, &sums, speed.update(&sums));
                } else {
                    let sums = totals.now();
                    let fields = match what {
                        What::Upload => json!({
                            "uploaded": sums.fetched, "to_upload": sums.to_fetch, "head": sums.front,
                        }),
                        What::Fetch | What::Verify => json!({
                            "fetched": sums.fetched, "arrived": sums.arrived, "to_fetch": sums.to_fetch,
                            "read": sums.read, "to_read": sums.to_read, "records": sums.records, "bytes": sums.bytes,
                            "connections": sums.connections, "head": sums.front, "paused": sums.paused,
                            "bound": sums.bound,
                        }),
                    };
                    report.event("progress", &sums.line(what, speed.update(&sums)), fields);
                }
            }
        });
        Self { task, bars }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }
}

/// The screen that bars are drawn on, if standard error is one.
pub(crate) fn screen() -> Option<MultiProgress> {
    std::io::stderr().is_terminal().then(MultiProgress::new)
}

#[derive(Clone)]
struct Bars {
    fetch: Option<ProgressBar>,
    load: Option<ProgressBar>,
    status: ProgressBar,
}

impl Bars {
    fn new(screen: &MultiProgress, what: What, to_fetch: u64, to_read: u64, is_endless: bool) -> Self {
        let line = |template: &str, total: u64| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            screen.add(ProgressBar::new(total).with_style(style.progress_chars("=> ")))
        };
        // The bar takes what the words leave of the line.
        let fetch = match what {
            What::Fetch => "fetch [{wide_bar}] {msg}",
            What::Verify => "verify [{wide_bar}] {msg}",
            What::Upload => "upload [{wide_bar}] {msg}",
        };
        Self {
            // Where nothing is loaded there is something to fetch, though it may not be known how much.
            fetch: (to_fetch > 0 || (to_read == 0 && !is_endless)).then(|| line(fetch, to_fetch)),
            load: match (is_endless, to_read) {
                (true, _) => Some(line("load  {wide_msg}", 0)),
                (false, 0) => None,
                (false, _) => {
                    Some(line("read  [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {msg}, {eta} to go", to_read))
                }
            },
            status: line("      {wide_msg}", 0),
        }
    }

    fn update(&self, what: What, sums: &Sums, speed: f64) {
        if let Some(bar) = &self.fetch {
            // In this order: a bar without a length is drawn full.
            bar.set_length(sums.to_fetch.max(1));
            bar.set_position(sums.fetched.min(sums.to_fetch));
            bar.set_message(sums.amount("", speed));
            if self.load.is_some() && sums.fetched >= sums.to_fetch && !bar.is_finished() {
                bar.finish_and_clear();
            }
        }
        if let Some(bar) = &self.load {
            bar.set_message(match sums.is_endless {
                true => sums.loaded(),
                false => format!("{} loaded, {} of CSV", counted(sums.records, "row", "rows"), size(sums.bytes)),
            });
            bar.set_position(sums.read.min(sums.to_read));
        }
        self.status.set_message(plain::name(&sums.status(what).unwrap_or_default()).into_owned());
    }

    fn clear(&self) {
        for bar in self.fetch.iter().chain(&self.load).chain([&self.status]) {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_readable() {
        let spans = [0.0, 0.2, 59.0, 60.0, 3599.5, 5000.0, 90_000.0].map(span);
        assert_eq!(spans, ["0s", "1s", "59s", "1m 0s", "1h 0m", "1h 23m", "1d 1h"]);
    }

    #[test]
    fn what_is_not_measured_is_not_in_the_total() {
        let totals = Totals::default();
        totals.set_unmeasured(2);
        totals.begin_file("a.csv", None, 0);
        let line = || totals.now().line(What::Fetch, 1024.0);
        assert_eq!(line(), "  … 0 B fetched, 1.0 KiB/s; 0 connections: a.csv 0 B");
        totals.measure_file("a.csv", 2048);
        totals.measure_file("a.csv", 2048);
        totals.add_fetched_of("a.csv", 1024);
        assert_eq!(line(), "  … 1.0 KiB of 2.0 KiB and more fetched, 1.0 KiB/s; 0 connections: a.csv 50%");
        totals.begin_file("b.csv", Some(1024), 0);
        assert_eq!(line(), "  … 1.0 KiB of 3.0 KiB fetched, 1.0 KiB/s, 2s to go; 0 connections: a.csv 50%");
    }

    #[test]
    fn what_has_no_known_end_has_no_percentage() {
        let totals = Totals::default();
        totals.to_read.store(1024, Ordering::Relaxed);
        totals.set_endless(true);
        totals.read.store(2048, Ordering::Relaxed);
        totals.add_loaded(7, 4096);
        assert_eq!(totals.now().line(What::Fetch, 0.0), "  … 2.0 KiB read, 7 rows loaded, 4.0 KiB of CSV");
    }

    #[test]
    fn what_is_read_is_not_said_to_be_loaded() {
        let totals = Totals::default();
        totals.to_read.store(4096, Ordering::Relaxed);
        totals.read.store(4096, Ordering::Relaxed);
        totals.add_loaded(7, 2048);
        assert_eq!(totals.now().line(What::Fetch, 0.0), "  … 100% read, 7 rows loaded, 2.0 KiB of CSV");
        assert_eq!(totals.records(), 7);
    }

    #[test]
    fn what_is_there_is_being_loaded() {
        let totals = Totals::default();
        totals.to_fetch.store(2048, Ordering::Relaxed);
        totals.to_read.store(2048, Ordering::Relaxed);
        totals.begin_file("a.csv", Some(1024), 0);
        totals.begin_file("b.csv", Some(1024), 0);
        totals.add_fetched_of("a.csv", 1024);
        let status = || totals.now().status(What::Fetch).unwrap();
        assert_eq!(status(), "0 connections: loading a.csv");
        totals.add_fetched_of("b.csv", 1024);
        assert_eq!(status(), "loading a.csv");
        totals.end_file("a.csv");
        assert_eq!(status(), "loading b.csv");
    }

    #[test]
    fn of_an_upload_it_is_said_how_far_it_is() {
        let totals = Totals::default();
        totals.to_fetch.store(4 << 20, Ordering::Relaxed);
        totals.begin_file("a/b.tar.gz", Some(2 << 20), 0);
        totals.add_fetched_of("a/b.tar.gz", 1 << 20);
        let line = totals.now().line(What::Upload, f64::from(1 << 20));
        assert_eq!(line, "  … 1.0 MiB of 4.0 MiB uploaded, 1.0 MiB/s, 3s to go; a/b.tar.gz 50%");
    }

    #[test]
    fn the_line_says_how_far_it_is_and_what_the_front_waits_for() {
        let totals = Totals::default();
        totals.to_fetch.store(4 << 20, Ordering::Relaxed);
        totals.set_head(Some(("a.csv", None)));
        totals.begin_file("a.csv", Some(2 << 20), 1 << 20);
        totals.add_fetched_of("a.csv", 1 << 19);
        totals.add_connection();
        let line = |speed: f64| totals.now().line(What::Fetch, speed);
        assert_eq!(line(0.0), "  … 1.5 MiB of 4.0 MiB fetched; 1 connection: a.csv 75%");
        let fast = "  … 1.5 MiB of 4.0 MiB fetched, 1.0 MiB/s, 3s to go; 1 connection: a.csv 75%";
        assert_eq!(line(f64::from(1 << 20)), fast);
        totals.restart_file("a.csv");
        totals.remove_connection();
        totals.set_head(Some(("a.csv", Some("extracting"))));
        assert_eq!(line(0.0), "  … 0 B of 4.0 MiB fetched; 0 connections: extracting a.csv");
        totals.set_head(None);
        totals.begin_file("b.csv", None, 7);
        totals.begin_file("c.csv", Some(1), 0);
        totals.end_file("a.csv");
        assert_eq!(line(0.0), "  … 7 B of 4.0 MiB fetched; 0 connections: b.csv 7 B");
        totals.set_paused(Some("no room".to_owned()));
        assert_eq!(line(1024.0), "  … 7 B of 4.0 MiB fetched; paused: no room");
        totals.set_paused(None);
        *lock(&totals.bound) = Some("bound by decode (CPU, 97%)".to_owned());
        let bound = "  … 7 B of 4.0 MiB fetched; 0 connections: b.csv 7 B; bound by decode (CPU, 97%)";
        assert_eq!(line(0.0), bound);
    }
}
