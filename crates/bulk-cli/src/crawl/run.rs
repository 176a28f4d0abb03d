use std::collections::HashSet;
use std::num::NonZeroU64;

use bulk_core::crawl::{Crawl, Crawled, CrawledRecord, Crawler, Quarantined};
use bulk_core::{Error, FileReport, StageMeter, Wait, WorkerMeter};
use bulk_pg::{CrawlLoad, CrawlMarks, CrawlOutcome, QuarantinedCall};
use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::api::{Api, failed, reason, wrong};
use super::input::{self, Records};
use super::known::Known;
use super::spec::{Rows, Spec};
use super::status::{Status, Tally};
use crate::arguments::{Common, CrawlArguments};
use crate::counted::counted;
use crate::exit::{Exit, Failure, exit_of_fetch};
use crate::report::{Chain, Report};

/// Requests in quarantine that are read at once, at most.
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
    tally: Tally,
    /// What makes rows of what was answered.
    explode: StageMeter,
    /// How many records failed since the last one that did not, and how many of them are too many.
    in_a_row: u64,
    give_up_after: Option<NonZeroU64>,
    is_limited: bool,
    /// Whether any record has succeeded, and what all failures are, if they are alike.
    blame: Option<Exit>,
    /// Calls with a part that was not taken, whose other parts may come yet.
    cut_off: HashSet<String>,
}

/// What the rows of a call are, by the places of their tables.
struct Kind<'a> {
    rows: Vec<(usize, &'a Rows)>,
    /// Who asks.
    crawler: Crawler,
    /// Whether nothing goes on without it.
    is_needed: bool,
    /// Whether they have failed in an earlier run.
    is_again: bool,
    /// Who makes the rows.
    meter: &'a WorkerMeter,
}

impl<'a> Run<'a> {
    pub(super) fn new(spec: &'a Spec, arguments: &CrawlArguments, report: &'a Report) -> Self {
        let (give_up_after, is_limited) = (NonZeroU64::new(arguments.give_up_after), arguments.limit.is_some());
        let (tally, explode, cut_off) = (Tally::new(&spec.limits), report.meters().begin_crawl(), HashSet::new());
        let (in_a_row, blame) = (0, None);
        Self { spec, report, tally, explode, in_a_row, give_up_after, is_limited, blame, cut_off }
    }

    /// Makes all calls that are not done, and loads what comes of them.
    pub(super) async fn crawl(
        &mut self,
        arguments: &CrawlArguments,
        api: &Api<'_>,
        common: &Common,
        load: &mut CrawlLoad,
    ) -> Result<End, Failure> {
        self.tally.begin(api.limiter());
        let _status = Status::start(self.report, &self.tally);
        let meter = self.explode.worker();
        let calls = async {
            let end = self.make_calls(arguments, api, common, load, &meter).await?;
            meter.waiting(Wait::Output, load.flush()).await?;
            Ok(end)
        };
        meter.run(calls).await
    }

    /// Those in quarantine, those of the input, and the lists of what is to be deleted.
    async fn make_calls(
        &mut self,
        arguments: &CrawlArguments,
        api: &Api<'_>,
        common: &Common,
        load: &mut CrawlLoad,
        meter: &WorkerMeter,
    ) -> Result<End, Failure> {
        // What is wrong with it is said before any request.
        let records = Records::open(&self.spec.input, api, &arguments.database, common, self.report).await?;
        let known = Known::new(load.marks(), self.report.totals());
        let rows: Vec<_> = self.spec.rows.iter().enumerate().collect();
        let mut left = arguments.limit.unwrap_or(u64::MAX);
        let again = load.in_quarantine().min(left);
        let _counting = arguments.goal.finish_by.map(|_| {
            let most = arguments.limit.map(|limit| limit - again);
            let counted = input::count(self.spec.input.clone(), arguments.database.clone(), most);
            let totals = self.report.totals().clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                if let Some(count) = counted.await {
                    totals.expect_records(again.saturating_add(count));
                }
            }))
        });
        if again > 0 {
            let requests = counted(
                again,
                "request that failed in an earlier run is",
                "requests that failed in an earlier run are",
            );
            self.report.note(format!("{requests} made again"));
            let mut crawler = api.of_records();
            // They are in the input, too, and then taken.
            crawler.options.done = Some(known.done());
            let again = quarantined(load.marks()).take(whole(left));
            let calls = crawler.clone().crawl(again).map_err(wrong)?;
            let kind = Kind { rows: rows.clone(), crawler, is_needed: false, is_again: true, meter };
            left = left.saturating_sub(self.take(calls, &kind, load).await?);
            if common.stop.is_cancelled() {
                return Ok(End::Stopped);
            }
        }
        let mut crawler = api.of_records();
        crawler.options.done = Some(known.done());
        let (input, trouble) = records.stream(arguments.limit.is_some().then(|| whole(left)));
        let calls = crawler.clone().crawl(input).map_err(wrong)?;
        self.take(calls, &Kind { rows, crawler, is_needed: false, is_again: false, meter }, load).await?;
        if common.stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        if let Some(failure) = trouble.take() {
            return Err(failure);
        }
        if self.is_limited {
            return Ok(End::Limited);
        }
        for (place, deletes) in self.spec.deletes.iter().enumerate() {
            let mut crawler = api.of_list(&deletes.list);
            crawler.options.done = Some(known.done());
            let nothing = futures::stream::iter([Value::Object(Map::new())]);
            let calls = crawler.clone().crawl(nothing).map_err(wrong)?;
            let rows = vec![(self.spec.rows.len() + place, &deletes.rows)];
            self.take(calls, &Kind { rows, crawler, is_needed: true, is_again: false, meter }, load).await?;
            if common.stop.is_cancelled() {
                return Ok(End::Stopped);
            }
        }
        Ok(End::Whole)
    }

    /// Loads what comes of calls. Gives how many records they were of.
    async fn take(&mut self, mut calls: Crawl, kind: &Kind<'_>, load: &mut CrawlLoad) -> Result<u64, Failure> {
        let mut records = 0;
        while let Some(call) = kind.meter.waiting(Wait::Input, calls.next()).await {
            if call.next.is_none() {
                self.tally.add_call();
                records += call.records.len() as u64;
                self.report.totals().add_records_asked_for(call.records.len() as u64);
            }
            self.load(call, kind, load).await?;
        }
        Ok(records)
    }

    /// Each record counts by itself, so that it does not matter which others it was asked for with.
    async fn load(&mut self, call: Crawled, kind: &Kind<'_>, load: &mut CrawlLoad) -> Result<(), Failure> {
        let requests = u64::from(call.requests.max(1));
        let is_last = call.next.is_none();
        for CrawledRecord { input, outcome, .. } in &call.records {
            let key = kind.crawler.key(input);
            // Nothing goes on behind a part that was not taken.
            if self.cut_off.contains(&key) {
                if is_last {
                    self.cut_off.remove(&key);
                }
                continue;
            }
            let pages = match outcome {
                Ok(pages) => pages,
                Err(failure) if kind.is_needed => return Err(failed(failure)),
                Err(failure) => {
                    let what = reason(&failure.error);
                    let exit = exit_of_fetch(&failure.error);
                    self.blame = Some(self.blame.filter(|blame| *blame != exit).map_or(exit, |_| Exit::Incomplete));
                    let mut noted = note(key, input, &failure.request, &what, requests);
                    noted.response.clone_from(&failure.response);
                    kind.meter.waiting(Wait::Output, load.quarantine(noted)).await?;
                    self.fail(&failure.request, &what, failure.status);
                    // What is known to fail comes together here, and says nothing of the others: it would keep each run from
                    // coming to them.
                    if kind.is_again && is_of_call(&failure.error) {
                        continue;
                    }
                    self.in_a_row += 1;
                    if self.give_up_after.is_some_and(|most| self.in_a_row >= most.get()) {
                        return Err(self.gives_up(failure));
                    }
                    continue;
                }
            };
            self.in_a_row = 0;
            let mut rows = match &call.at {
                None => load.call(key.as_str()),
                Some(at) => load.call_at(key.as_str(), at),
            };
            match explode_all(&mut rows, kind, input, pages) {
                Ok(()) => {
                    let count = rows.rows();
                    let finished = async {
                        match &call.next {
                            None => rows.finish().await,
                            Some(next) => rows.finish_part(next).await,
                        }
                    };
                    kind.meter.waiting(Wait::Output, finished).await?;
                    kind.meter.add(count, 0);
                    self.tally.add_rows(count);
                }
                Err(what) if kind.is_needed => return Err(Failure::new(Exit::Failed, anyhow::anyhow!(what))),
                // Nothing of it is kept, and the others go on.
                Err(what) => {
                    drop(rows);
                    if !is_last {
                        self.cut_off.insert(key.clone());
                    }
                    let noted = load.quarantine(note(key, input, &call.request, &what, requests));
                    kind.meter.waiting(Wait::Output, noted).await?;
                    self.fail(&call.request, &what, None);
                }
            }
        }
        kind.meter.add(0, call.bytes);
        Ok(())
    }

    fn fail(&mut self, request: &str, what: &str, status: Option<u16>) {
        let failed = self.tally.add_failed();
        let text = format!("{request}: {what}");
        let fields = json!({"request": request, "status": status});
        let mut file = FileReport::default();
        (file.name, file.error) = (request.to_owned(), Some(what.to_owned()));
        self.report.file(file);
        match failed <= TOLD {
            true => self.report.alert("quarantined", &text, fields),
            false => self.report.minor_event("quarantined", &text, fields),
        }
    }

    /// Whatever is asked for fails, such as when a session has ended.
    fn gives_up(&self, failure: &Quarantined) -> Failure {
        let mut failed = failed(failure);
        let records = counted(self.in_a_row, "record", "records");
        failed.error = failed.error.context(format!("{records} in a row failed, the last of them"));
        failed
    }

    /// Says what the round came to, in all of its runs.
    pub(super) fn say_end(&self, outcome: &CrawlOutcome) -> Exit {
        let CrawlOutcome { is_complete, calls, rows, rejected, quarantined, watermark, .. } = outcome;
        let (text, fields) = self.tally.describe();
        self.report.event("crawled", &text, fields);
        let state = match (*is_complete, self.is_limited) {
            (true, _) => "complete",
            (false, true) => "not complete; without --limit it goes on",
            (false, false) => "not complete; the same command goes on",
        };
        let text = format!(
            "{}: {} with {} loaded, {} left out, {} in quarantine: {state}",
            self.spec.name,
            counted(*calls, "call", "calls"),
            counted(*rows, "row", "rows"),
            counted(*rejected, "row", "rows"),
            counted(*quarantined, "request", "requests"),
        );
        let fields = json!({
            "job": self.spec.name, "complete": is_complete, "calls": calls, "rows": rows, "rejected": rejected,
            "quarantined": quarantined, "watermark": watermark,
        });
        self.report.event("loaded", &text, fields);
        let mut file = FileReport::default();
        (file.name, file.records, file.rejected) = (self.spec.name.clone(), Some(self.tally.rows()), *rejected);
        file.table =
            Some(self.spec.rows.iter().map(|rows| format!("{:#}", rows.table.table)).collect::<Vec<_>>().join(", "));
        file.seconds = Some(self.tally.elapsed().as_secs_f64());
        self.report.file(file);
        if self.tally.failed() > TOLD {
            let more = self.tally.failed() - TOLD;
            self.report.warn(format!(
                "{} in bulk.quarantine, with what was answered",
                counted(more, "failed request more is", "failed requests more are")
            ));
        }
        if *rejected > 0 {
            self.report.warn("what was left out is in bulk.call_reject; --rejects DIR writes it to a file");
        }
        match self.blame {
            _ if *rejected == 0 && *quarantined == 0 => Exit::Done,
            // Where nothing of the round has succeeded yet, nothing is wrong with the records.
            Some(exit @ (Exit::Remote | Exit::Denied)) if *calls == 0 => exit,
            _ => Exit::Incomplete,
        }
    }
}

/// The records of what is in quarantine, some of which are in memory at a time.
fn quarantined(marks: CrawlMarks) -> impl Stream<Item = Value> + Send + 'static {
    let pages = futures::stream::unfold((marks, None), |(marks, last): (CrawlMarks, Option<String>)| async move {
        // An error is told by the load's next call.
        let calls = marks.quarantined(last.as_deref(), PAGE).await.ok()?;
        let last = calls.last()?.key.clone();
        let records: Vec<Value> = calls.into_iter().flat_map(|call| call.inputs).collect();
        Some((futures::stream::iter(records), (marks, Some(last))))
    });
    pages.flatten()
}

fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Whether a server that is there has answered, and its answer is about this very call.
fn is_of_call(error: &Error) -> bool {
    match error {
        Error::Exhausted { source, .. } => is_of_call(source),
        Error::Transport { .. } | Error::Truncated { .. } | Error::Unrepeatable { .. } | Error::Interrupted { .. } => {
            false
        }
        Error::Status { status, .. } => *status < 500 && !error.is_transient(),
        error => !error.is_throttle(),
    }
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
