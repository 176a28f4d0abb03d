//! How far a crawl is, for whoever looks on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bulk_core::{Limiter, LimiterOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::counted::counted;
use crate::report::{Report, SAY_EVERY};

/// How often a terminal is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// Limits over longer times are a quota, and no pace that a run could keep.
const PACE: Duration = Duration::from_secs(60);

/// What a run came to so far. Clones are one.
#[derive(Clone)]
pub(super) struct Tally(Arc<Counts>);

struct Counts {
    /// When the first call could be made.
    begun: OnceLock<Instant>,
    /// If they are a pace.
    limits: Option<LimiterOptions>,
    limiter: OnceLock<Limiter>,
    calls: AtomicU64,
    rows: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(super) fn new(limits: &LimiterOptions) -> Self {
        let is_paced = limits.limits.iter().all(|limit| limit.window() <= PACE);
        Self(Arc::new(Counts {
            begun: OnceLock::new(),
            limits: is_paced.then(|| limits.clone()),
            limiter: OnceLock::new(),
            calls: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// Calls are made from now on.
    pub(super) fn begin(&self, limiter: &Limiter) {
        // There is one limiter a run.
        let _ = self.0.limiter.set(limiter.clone());
        let _ = self.0.begun.set(Instant::now());
    }

    pub(super) fn add_call(&self) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_rows(&self, rows: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Gives how many failed, with this one.
    pub(super) fn add_failed(&self) -> u64 {
        self.0.failed.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    pub(super) fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.begun.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// For people and for machines.
    pub(super) fn describe(&self) -> (String, Value) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { calls, rows, failed, limits, limiter, .. } = &*self.0;
        let (calls, rows, failed) = (count(calls), count(rows), count(failed));
        // All that were sent, whatever came of them; and before the time that they had, which is to be no less.
        let requests = limiter.get().map_or(0, |limiter| limiter.status().granted);
        let elapsed = self.elapsed();
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let rate = requests as f64 / seconds;
        let permitted = limits.as_ref().filter(|_| limiter.get().is_some()).and_then(|limits| limits.most_in(elapsed));
        let part = permitted.map(|permitted| requests as f64 / permitted as f64);
        let of = part.map_or_else(String::new, |part| format!(", {:.0}% of the permitted rate", part * 100.0));
        let text = format!(
            "{} in {seconds:.1} s ({rate:.1} a second{of}), {}, {failed} failed",
            counted(requests, "request", "requests"),
            counted(rows, "row", "rows")
        );
        let fields = json!({
            "calls": calls, "requests": requests, "rows": rows, "failed": failed, "seconds": seconds,
            "of_permitted": part,
        });
        (text, fields)
    }

    /// The same with what bound it lately, and what all wait for.
    fn describe_now(&self, report: &Report) -> (String, Value) {
        let (mut text, mut fields) = self.describe();
        let bound = report.meters().bound_of_late();
        if let Some(bound) = &bound {
            text.push_str(&format!("; {bound}"));
        }
        let held = self.0.limiter.get().map(|limiter| limiter.status().held).filter(|held| !held.is_zero());
        if let Some(held) = held {
            text.push_str(&format!("; the API asks everybody to wait for {:.0} s more", held.as_secs_f64()));
        }
        fields["bound"] = json!(bound);
        (text, fields)
    }
}

/// Says every few seconds how far it is, or draws it on a terminal, until it is dropped.
pub(super) struct Status {
    _task: AbortOnDropHandle<()>,
    bar: Option<ProgressBar>,
}

impl Status {
    pub(super) fn start(report: &Report, tally: &Tally) -> Self {
        let bar = report.screen().map(|screen| {
            let style = ProgressStyle::with_template("crawl {wide_msg}");
            screen.add(ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        });
        let (report, tally, drawn) = (report.clone(), tally.clone(), bar.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(if drawn.is_some() { DRAW_EVERY } else { SAY_EVERY }).await;
                let (text, fields) = tally.describe_now(&report);
                match &drawn {
                    Some(bar) => bar.set_message(text),
                    None => report.event("progress", &text, fields),
                }
            }
        });
        Self { _task: AbortOnDropHandle::new(task), bar }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
