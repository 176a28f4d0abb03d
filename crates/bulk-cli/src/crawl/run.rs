use std::num::NonZeroU64;
use std::time::Instant;

use bulk_core::Limiter;
use bulk_core::crawl::{Crawl, Crawled, CrawledRecord, Crawler, Quarantined};
use bulk_pg::{CrawlLoad, CrawlOutcome, QuarantinedCall};
use futures::StreamExt;
use serde_json::{Map, Value, json};

use super::api::{Api, failed, wrong};
use super::input::Records;
use super::known::Known;
use super::spec::{Rows, Spec};
use crate::arguments::{Common, CrawlArguments};
use crate::exit::{Exit, Failure};
use crate::report::{Chain, NowAndThen, Report, SAY_EVERY};

/// Requests in quarantine that a run makes again, at most; the others wait for the next one.
const AGAIN: usize = 100_000;
/// Those that are read at once.
const PAGE: usize = 1000;
/// Failures that are told one by one. Those behind them are for whoever asks for more (`-v`, `--json`), and are counted.
const TOLD: u64 = 20;
/// What a row is refused by that lacks a value, or has two (PostgreSQL's class of data exceptions).
const DATA_EXCEPTION: &str = "22000";

/// How the calls of a run came to an end.
pub(super) enum End {
    /// All have been made.
    Whole,
    /// As many as were asked for.
    Limited,
    /// Somebody stopped it.
    Stopped,
}

/// What the calls of a run came to so far.
pub(super) struct Run<'a> {
    spec: &'a Spec,
    report: &'a Report,
    started: Instant,
    said: NowAndThen,
    calls: u64,
    requests: u64,
    rows: u64,
    failed: u64,
    /// How many records failed since the last one that did not, and how many of them are too many.
    in_a_row: u64,
    give_up_after: Option<NonZeroU64>,
    is_limited: bool,
}

/// What the rows of a call are, by the places of their tables.
struct Kind<'a> {
    rows: Vec<(usize, &'a Rows)>,
    /// Who asks.
    crawler: Crawler,
    /// Whether nothing goes on without it.
    is_needed: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(spec: &'a Spec, arguments: &CrawlArguments, report: &'a Report) -> Self {
        let (started, said) = (Instant::now(), NowAndThen::new());
        let (give_up_after, is_limited) = (NonZeroU64::new(arguments.give_up_after), arguments.limit.is_some());
        let (calls, requests, rows, failed, in_a_row) = (0, 0, 0, 0, 0);
        Self { spec, report, started, said, calls, requests, rows, failed, in_a_row, give_up_after, is_limited }
    }

    /// Makes all calls that are not done: those in quarantine, those of the input, and the lists of what is to be deleted.
    pub(super) async fn crawl(
        &mut self,
        arguments: &CrawlArguments,
        api: &Api<'_>,
        common: &Common,
        load: &mut CrawlLoad,
    ) -> Result<End, Failure> {
        // What is wrong with it is said before any request.
        let records = Records::open(&self.spec.input, api, &arguments.database, common, self.report).await?;
        let known = Known::new(load.marks());
        let rows: Vec<_> = self.spec.rows.iter().enumerate().collect();
        let again = quarantined(load).await?;
        if !again.is_empty() {
            self.report.note(format!("{} requests that failed in an earlier run are made again", again.len()));
            let crawler = api.of_records();
            // They are in the input, too.
            again.iter().for_each(|record| known.take(&crawler.key(record)));
            let calls = crawler.clone().crawl(futures::stream::iter(again)).map_err(wrong)?;
            self.take(calls, &Kind { rows: rows.clone(), crawler, is_needed: false }, load).await?;
            if common.stop.is_cancelled() {
                return Ok(End::Stopped);
            }
        }
        let mut crawler = api.of_records();
        crawler.options.done = Some(known.done());
        let limit = arguments.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (input, trouble) = records.stream(limit);
        let calls = crawler.clone().crawl(input).map_err(wrong)?;
        self.take(calls, &Kind { rows, crawler, is_needed: false }, load).await?;
        if common.stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        if let Some(failure) = trouble.take() {
            return Err(failure);
        }
        if limit.is_some() {
            return Ok(End::Limited);
        }
        for (place, deletes) in self.spec.deletes.iter().enumerate() {
            let mut crawler = api.of_list(&deletes.list);
            crawler.options.done = Some(known.done());
            let nothing = futures::stream::iter([Value::Object(Map::new())]);
            let calls = crawler.clone().crawl(nothing).map_err(wrong)?;
            let rows = vec![(self.spec.rows.len() + place, &deletes.rows)];
            self.take(calls, &Kind { rows, crawler, is_needed: true }, load).await?;
            if common.stop.is_cancelled() {
                return Ok(End::Stopped);
            }
        }
        Ok(End::Whole)
    }

    /// Loads what comes of calls.
    async fn take(&mut self, mut calls: Crawl, kind: &Kind<'_>, load: &mut CrawlLoad) -> Result<(), Failure> {
        loop {
            // Also when nothing comes for long, such as when all are asked to wait.
            let Ok(next) = tokio::time::timeout(SAY_EVERY, calls.next()).await else {
                self.say_progress(&kind.crawler.limiter);
                continue;
            };
            let Some(call) = next else { return Ok(()) };
            self.calls += 1;
            self.requests += u64::from(call.requests);
            self.load(call, kind, load).await?;
            if self.said.is_time() {
                self.say_progress(&kind.crawler.limiter);
            }
        }
    }

    /// Each record counts by itself, so that it does not matter which others it was asked for with.
    async fn load(&mut self, call: Crawled, kind: &Kind<'_>, load: &mut CrawlLoad) -> Result<(), Failure> {
        let requests = u64::from(call.requests.max(1));
        for CrawledRecord { input, outcome, .. } in &call.records {
            let key = kind.crawler.key(input);
            let pages = match outcome {
                Ok(pages) => pages,
                Err(failure) if kind.is_needed => return Err(failed(failure)),
                Err(failure) => {
                    let what = Chain(&*failure.error).to_string();
                    let mut noted = note(key, input, &failure.request, &what, requests);
                    noted.response.clone_from(&failure.response);
                    load.quarantine(noted).await?;
                    self.fail(&failure.request, &what, failure.status);
                    self.in_a_row += 1;
                    if self.give_up_after.is_some_and(|most| self.in_a_row >= most.get()) {
                        return Err(self.gives_up(failure));
                    }
                    continue;
                }
            };
            self.in_a_row = 0;
            let mut rows = load.call(key.as_str());
            match explode_all(&mut rows, kind, input, pages) {
                Ok(()) => {
                    self.rows += rows.rows();
                    rows.finish().await?;
                }
                Err(what) if kind.is_needed => return Err(Failure::new(Exit::Failed, anyhow::anyhow!(what))),
                // Nothing of it is kept, and the others go on.
                Err(what) => {
                    drop(rows);
                    load.quarantine(note(key, input, &call.request, &what, requests)).await?;
                    self.fail(&call.request, &what, None);
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, request: &str, what: &str, status: Option<u16>) {
        self.failed += 1;
        let text = format!("{request}: {what}");
        let fields = json!({"request": request, "status": status});
        match self.failed <= TOLD {
            true => self.report.alert("quarantined", &text, fields),
            false => self.report.minor_event("quarantined", &text, fields),
        }
    }

    /// Whatever is asked for fails, such as when a session has ended.
    fn gives_up(&self, failure: &Quarantined) -> Failure {
        let mut failed = failed(failure);
        let count = self.in_a_row;
        failed.error = failed.error.context(format!("{count} records in a row failed, the last of them"));
        failed
    }

    fn say_progress(&self, limiter: &Limiter) {
        let held = limiter.status().held;
        if !held.is_zero() {
            let seconds = held.as_secs_f64();
            self.report.note(format!("the API asks everybody to wait for {seconds:.0} s more"));
        }
        self.say("progress");
    }

    fn say(&self, event: &str) {
        let Self { calls, requests, rows, failed, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = *requests as f64 / seconds.max(1e-3);
        let text = format!("{requests} requests in {seconds:.1} s ({rate:.1} a second), {rows} rows, {failed} failed");
        let fields = json!({"calls": calls, "requests": requests, "rows": rows, "failed": failed, "seconds": seconds});
        self.report.event(event, &text, fields);
    }

    /// Says what the round came to, in all of its runs.
    pub(super) fn say_end(&self, outcome: &CrawlOutcome) -> Exit {
        let CrawlOutcome { is_complete, calls, rows, rejected, quarantined, watermark, .. } = outcome;
        self.say("crawled");
        let state = match (*is_complete, self.is_limited) {
            (true, _) => "complete",
            (false, true) => "not complete; without --limit it goes on",
            (false, false) => "not complete; the same command goes on",
        };
        let text = format!(
            "{}: {calls} calls with {rows} rows are loaded, {rejected} rows left out, {quarantined} requests in quarantine: {state}",
            self.spec.name
        );
        let fields = json!({
            "job": self.spec.name, "complete": is_complete, "calls": calls, "rows": rows, "rejected": rejected,
            "quarantined": quarantined, "watermark": watermark,
        });
        self.report.event("loaded", &text, fields);
        if self.failed > TOLD {
            let more = self.failed - TOLD;
            self.report.warn(format!("{more} failed requests more are in bulk.quarantine, with what was answered"));
        }
        if *rejected > 0 {
            self.report.warn("what was left out is in bulk.call_reject; --rejects FILE writes it to a file");
        }
        match *rejected == 0 && *quarantined == 0 {
            true => Exit::Done,
            false => Exit::Incomplete,
        }
    }
}

/// The records of what is in quarantine.
async fn quarantined(load: &mut CrawlLoad) -> Result<Vec<Value>, Failure> {
    let (mut records, mut last) = (Vec::new(), None);
    while records.len() < AGAIN {
        let calls = load.quarantined(last.as_deref(), PAGE).await?;
        let Some(call) = calls.last() else { break };
        last = Some(call.key.clone());
        records.extend(calls.into_iter().flat_map(|call| call.inputs));
    }
    Ok(records)
}

/// What is kept of a record that failed.
fn note(key: String, input: &Value, request: &str, what: &str, requests: u64) -> QuarantinedCall {
    let mut noted = QuarantinedCall::new(key, what);
    (noted.inputs, noted.request, noted.attempts) = (vec![input.clone()], json!(request), requests);
    noted
}

/// The rows of a record's pages.
fn explode_all(
    rows: &mut bulk_pg::CallRows<'_>,
    kind: &Kind<'_>,
    input: &Value,
    pages: &[Value],
) -> Result<(), String> {
    for (table, spec) in &kind.rows {
        for page in pages {
            let exploded = spec.explode.rows(input, page).map_err(|error| error.to_string())?;
            for row in exploded {
                let taken = match row.fault() {
                    None => rows.row(*table, row.values()).map(|_| ()),
                    Some(fault) => {
                        rows.reject(*table, row.values(), Some(&fault.column), DATA_EXCEPTION, &fault.to_string())
                    }
                };
                taken.map_err(|error| Chain(&error).to_string())?;
            }
        }
    }
    Ok(())
}
