use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::report::{Report, size};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often bars are drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// What is done so far of a long job, counted by those who do it.
#[derive(Default)]
pub(crate) struct Totals {
    fetched: AtomicU64,
    to_fetch: AtomicU64,
    /// Compressed bytes of files that are loaded; those that are being read have counters of their own.
    read: AtomicU64,
    reading: Mutex<Vec<Arc<AtomicU64>>>,
    to_read: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Totals {
    pub(crate) fn add_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_loaded(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
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

    fn reading(&self) -> std::sync::MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Sums {
        let load = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let reading = self.reading();
        Sums {
            fetched: load(&self.fetched),
            to_fetch: load(&self.to_fetch),
            read: load(&self.read) + reading.iter().map(|counter| load(counter)).sum::<u64>(),
            to_read: load(&self.to_read),
            records: load(&self.records),
            bytes: load(&self.bytes),
        }
    }
}

struct Sums {
    fetched: u64,
    to_fetch: u64,
    read: u64,
    to_read: u64,
    records: u64,
    bytes: u64,
}

impl Sums {
    fn line(&self) -> String {
        let mut parts = Vec::new();
        if self.to_fetch > 0 {
            parts.push(format!("{} of {} fetched", size(self.fetched), size(self.to_fetch)));
        }
        if let Some(percent) = (self.read.min(self.to_read) * 100).checked_div(self.to_read) {
            parts.push(format!("{percent}% loaded: {} rows, {} of CSV", self.records, size(self.bytes)));
        }
        format!("  … {}", parts.join("; "))
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
        let totals = report.totals().clone();
        totals.to_fetch.store(to_fetch, Ordering::Relaxed);
        totals.to_read.store(to_read, Ordering::Relaxed);
        let bars = report.screen().map(|screen| Bars::new(screen, to_fetch, to_read));
        let (report, shown) = (report.clone(), bars.clone());
        let task = tokio::spawn(async move {
            loop {
                if let Some(bars) = &shown {
                    tokio::time::sleep(DRAW_EVERY).await;
                    bars.update(&totals.now());
                } else {
                    tokio::time::sleep(LINE_EVERY).await;
                    let sums = totals.now();
                    let fields = json!({
                        "fetched": sums.fetched, "to_fetch": sums.to_fetch, "read": sums.read,
                        "to_read": sums.to_read, "records": sums.records, "bytes": sums.bytes,
                    });
                    report.event("progress", &sums.line(), fields);
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
}

impl Bars {
    fn new(screen: &MultiProgress, to_fetch: u64, to_read: u64) -> Self {
        let bar = |name: &str, total: u64, tail: &str| {
            let template =
                format!("{name} [{{bar:30}}] {{binary_bytes}} of {{binary_total_bytes}}{tail}, {{eta}} to go");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            screen.add(ProgressBar::new(total).with_style(style.progress_chars("=> ")))
        };
        Self {
            fetch: (to_fetch > 0).then(|| bar("fetch", to_fetch, ", {binary_bytes_per_sec}")),
            load: (to_read > 0).then(|| bar("load ", to_read, ", {msg}")),
        }
    }

    fn update(&self, sums: &Sums) {
        if let Some(bar) = &self.fetch {
            bar.set_position(sums.fetched.min(sums.to_fetch));
            if sums.fetched >= sums.to_fetch && !bar.is_finished() {
                bar.finish_and_clear();
            }
        }
        if let Some(bar) = &self.load {
            bar.set_message(format!("{} rows, {} of CSV", sums.records, size(sums.bytes)));
            bar.set_position(sums.read.min(sums.to_read));
        }
    }

    fn clear(&self) {
        for bar in self.fetch.iter().chain(&self.load) {
            bar.finish_and_clear();
        }
    }
}
