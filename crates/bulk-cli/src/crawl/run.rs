use std::time::Instant;

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
use crate::report::{Chain, NowAndThen, Report};

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
}

/// What the rows of a call are, by the places of their tables.
struct Kind<'a> {
    rows: Vec<(usize, &'a Rows)>,
    crawler: Crawler,
    /// Whether nothing goes on without it.
    is_needed: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(spec: &'a Spec, report: &'a Report) -> Self {
        let (started, said) = (Instant::now(), NowAndThen::new());
        Self { spec, report, started, said, calls: 0, requests: 0, rows: 0, failed: 0 }
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
            let crawler = api.of_single_records();
            // They are in the input, too, if they were asked for alone.
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
        while let Some(call) = calls.next().await {
            self.calls += 1;
            self.requests += u64::from(call.requests);
            self.load(call, kind, load).await?;
            if self.said.is_time() {
                self.say("progress");
            }
        }
        Ok(())
    }

    async fn load(&mut self, call: Crawled, kind: &Kind<'_>, load: &mut CrawlLoad) -> Result<(), Failure> {
        if let [CrawledRecord { input, outcome: Err(failure), .. }] = call.records.as_slice() {
            if kind.is_needed {
                return Err(failed(failure));
            }
            self.fail(failure);
            let noted = note(call.key.clone(), input, failure, call.requests);
            return Ok(load.quarantine(noted).await?);
        }
        let mut rows = load.call(&call.key);
        for CrawledRecord { input, outcome, .. } in &call.records {
            match outcome {
                Ok(pages) => {
                    for (table, spec) in &kind.rows {
                        for page in pages {
                            explode(&mut rows, *table, spec, input, page)?;
                        }
                    }
                }
                // Of a batch the others count.
                Err(failure) => {
                    self.fail(failure);
                    rows.quarantine(note(kind.crawler.key(input), input, failure, call.requests))?;
                }
            }
        }
        self.rows += rows.rows();
        Ok(rows.finish().await?)
    }

    fn fail(&mut self, failure: &Quarantined) {
        self.failed += 1;
        let text = format!("{}: {}", failure.request, Chain(&*failure.error));
        let fields = json!({"request": failure.request, "status": failure.status});
        match self.failed <= TOLD {
            true => self.report.alert("quarantined", &text, fields),
            false => self.report.minor_event("quarantined", &text, fields),
        }
    }

    fn say(&self, event: &str) {
        let Self { calls, requests, rows, failed, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = *requests as f64 / seconds.max(1e-3);
        let text = format!("{requests} requests in {seconds:.1} s ({rate:.1} a second), {rows} rows, {failed} failed");
        let fields = json!({"calls": calls, "requests": requests, "rows": rows, "failed": failed, "seconds": seconds});
        self.report.event(event, &text, fields);
    }

    /// Says what the round came to.
    pub(super) fn say_end(&self, outcome: &CrawlOutcome) -> Exit {
        let CrawlOutcome { is_complete, calls, rows, rejected, quarantined, watermark, .. } = outcome;
        self.say("crawled");
        let state = if *is_complete { "complete" } else { "not complete; the same command goes on" };
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

fn explode(
    rows: &mut bulk_pg::CallRows<'_>,
    table: usize,
    spec: &Rows,
    input: &Value,
    page: &Value,
) -> Result<(), Failure> {
    let exploded = spec.explode.rows(input, page).map_err(|error| Failure::new(Exit::Failed, error))?;
    for row in exploded {
        match row.fault() {
            None => _ = rows.row(table, row.values())?,
            Some(fault) => {
                rows.reject(table, row.values(), Some(&fault.column), DATA_EXCEPTION, &fault.to_string())?;
            }
        }
    }
    Ok(())
}

fn note(key: String, input: &Value, failure: &Quarantined, requests: u32) -> QuarantinedCall {
    let mut noted = QuarantinedCall::new(key, Chain(&*failure.error).to_string());
    noted.inputs = vec![input.clone()];
    noted.request = json!(failure.request);
    noted.response.clone_from(&failure.response);
    noted.attempts = u64::from(requests.max(1));
    noted
}
