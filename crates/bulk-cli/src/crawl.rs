//! `bulk crawl`: an API asked for each record of an input, and its answers as rows.

mod input;
mod spec;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bulk_core::crawl::{Crawled, CrawledRecord, Crawler, Quarantined};
use bulk_core::{Algorithm, Digest, Event, Limiter};
use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMarks, CrawlOutcome, QuarantinedCall};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use self::input::Records;
use self::spec::{Rows, Spec};
use crate::arguments::{Common, CrawlArguments};
use crate::exit::{Exit, Failure};
use crate::report::{Chain, NowAndThen, Report};
use crate::source::http_client;

/// Records of which a dry run makes requests.
const SHOWN: usize = 3;
/// Requests in quarantine that a run makes again, at most; the others wait for the next one.
const AGAIN: usize = 100_000;
/// Those that are read at once.
const PAGE: usize = 1000;
/// What a row is refused by that lacks a value, or has two (PostgreSQL's class of data exceptions).
const DATA_EXCEPTION: &str = "22000";

pub(crate) async fn run(arguments: &CrawlArguments, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let spec = Spec::read(&arguments.spec)?;
    let job = job(&spec);
    if arguments.check {
        let session = arguments.database.connect().await?;
        job.check_tables(&session).await?;
        drop(Records::open(&spec.input, &arguments.database, common, report).await?);
        report.event("checked", "the spec fits the database", json!({"job": spec.name}));
        return Ok(Exit::Done);
    }
    if common.dry_run {
        return show(arguments, &spec, &job, common, report).await;
    }
    let session = arguments.database.connect().await?;
    let mut options = CrawlLoadOptions::default();
    options.max_rejects = arguments.max_rejects;
    options.max_quarantined = arguments.max_quarantined;
    options.restart = arguments.restart;
    options.stop = common.stop.clone();
    let mut load = CrawlLoad::begin(session, &job, options).await?;
    let mut run = Run::new(&spec, report);
    let ended = match load.is_published() {
        true => Ok(End::Whole),
        false => run.crawl(arguments, common, &mut load).await,
    };
    match ended {
        Ok(End::Whole) => {
            let outcome = load.finish().await?;
            Ok(run.say_end(&outcome))
        }
        Ok(end) => {
            let outcome = load.suspend().await?;
            run.say_end(&outcome);
            Ok(if matches!(end, End::Stopped) { Exit::Interrupted } else { Exit::Done })
        }
        Err(failure) => {
            // What has come is kept, if the database still takes it; the first failure is the one that counts.
            if let Ok(outcome) = load.suspend().await {
                run.say_end(&outcome);
            }
            Err(failure)
        }
    }
}

/// What the loader is told of the spec.
fn job(spec: &Spec) -> CrawlJob {
    let mut job = CrawlJob::new(&spec.name, spec.rows.iter().map(|rows| rows.table.clone()).collect());
    job.definition = Digest::of(Algorithm::Sha256, spec.definition.as_bytes()).to_string();
    job.after.clone_from(&spec.after);
    job
}

/// The crawler of the spec. Its limiter goes on where that of the last run stopped.
fn crawler(arguments: &CrawlArguments, spec: &Spec, common: &Common, report: &Report) -> Result<Crawler, Failure> {
    let file = arguments.limits_file.clone().unwrap_or_else(|| {
        let mut name: OsString = arguments.spec.clone().into();
        name.push(".limits");
        PathBuf::from(name)
    });
    let limiter = Limiter::open(spec.limits.clone(), file)?;
    let mut crawler = Crawler::new(http_client()?, limiter, spec.template.clone());
    crawler.success = spec.success.clone();
    crawler.pagination.clone_from(&spec.pagination);
    crawler.batch.clone_from(&spec.batch);
    if let Some(concurrency) = spec.concurrency {
        crawler.options.concurrency = concurrency;
    }
    crawler.options.stop = common.stop.clone();
    let observer = report.clone();
    crawler.options.observer = Arc::new(move |event: &Event<'_>| observer.on_download(event));
    Ok(crawler)
}

/// How the calls of a run came to an end.
enum End {
    /// All have been made.
    Whole,
    /// As many as were asked for.
    Limited,
    /// Somebody stopped it.
    Stopped,
}

/// What the calls of a run came to so far.
struct Run<'a> {
    spec: &'a Spec,
    report: &'a Report,
    started: Instant,
    said: NowAndThen,
    calls: u64,
    requests: u64,
    rows: u64,
    failed: u64,
}

impl<'a> Run<'a> {
    fn new(spec: &'a Spec, report: &'a Report) -> Self {
        let (started, said) = (Instant::now(), NowAndThen::new());
        Self { spec, report, started, said, calls: 0, requests: 0, rows: 0, failed: 0 }
    }

    async fn crawl(
        &mut self,
        arguments: &CrawlArguments,
        common: &Common,
        load: &mut CrawlLoad,
    ) -> Result<End, Failure> {
        let crawler = crawler(arguments, self.spec, common, self.report)?;
        let marks = load.marks();
        let again = self.quarantined(load).await?;
        let known = Arc::new(Known { marks, taken: Mutex::default() });
        if !again.is_empty() {
            let count = again.len();
            self.report.note(format!("{count} requests that failed in an earlier run are made again"));
            let mut alone = crawler.clone();
            alone.batch = None;
            // They are in the input, too, if they were asked for alone.
            let keys = again.iter().map(|record| digest(&alone.key(record))).collect();
            *known.lock() = keys;
            let calls = alone.clone().crawl(futures::stream::iter(again)).map_err(Failure::usage)?;
            if self.take(calls, &alone, common, load).await? {
                return Ok(End::Stopped);
            }
        }
        let mut crawler = crawler;
        crawler.options.done = Some({
            let known = known.clone();
            Arc::new(move |keys: Vec<String>| {
                let known = known.clone();
                async move { known.done(&keys).await }.boxed()
            })
        });
        let records = Records::open(&self.spec.input, &arguments.database, common, self.report).await?;
        let limit = arguments.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (input, trouble) = records.stream(limit);
        let calls = crawler.clone().crawl(input).map_err(Failure::usage)?;
        if self.take(calls, &crawler, common, load).await? {
            return Ok(End::Stopped);
        }
        if let Some(failure) = trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure);
        }
        Ok(if limit.is_some() { End::Limited } else { End::Whole })
    }

    /// The records of what is in quarantine.
    async fn quarantined(&self, load: &mut CrawlLoad) -> Result<Vec<Value>, Failure> {
        let (mut records, mut last) = (Vec::new(), None);
        while records.len() < AGAIN {
            let calls = load.quarantined(last.as_deref(), PAGE).await?;
            let Some(call) = calls.last() else { break };
            last = Some(call.key.clone());
            records.extend(calls.into_iter().flat_map(|call| call.inputs));
        }
        Ok(records)
    }

    /// Loads what comes of calls. Whether it was stopped before the last one.
    async fn take(
        &mut self,
        mut calls: bulk_core::crawl::Crawl,
        crawler: &Crawler,
        common: &Common,
        load: &mut CrawlLoad,
    ) -> Result<bool, Failure> {
        while let Some(call) = calls.next().await {
            self.calls += 1;
            self.requests += u64::from(call.requests);
            self.load(call, crawler, load).await?;
            if self.said.is_time() {
                self.say("progress");
            }
        }
        Ok(common.stop.is_cancelled())
    }

    async fn load(&mut self, call: Crawled, crawler: &Crawler, load: &mut CrawlLoad) -> Result<(), Failure> {
        if let [CrawledRecord { input, outcome: Err(failure), .. }] = call.records.as_slice() {
            self.fail(failure);
            let noted = quarantine(call.key.clone(), input, failure, call.requests);
            return Ok(load.quarantine(noted).await?);
        }
        let mut rows = load.call(&call.key);
        for CrawledRecord { input, outcome, .. } in &call.records {
            match outcome {
                Ok(pages) => {
                    for (table, spec) in self.spec.rows.iter().enumerate() {
                        for page in pages {
                            explode(&mut rows, table, spec, input, page)?;
                        }
                    }
                }
                // Of a batch the others count.
                Err(failure) => {
                    self.fail(failure);
                    rows.quarantine(quarantine(crawler.key(input), input, failure, call.requests))?;
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
        self.report.alert("quarantined", &text, fields);
    }

    fn say(&self, event: &str) {
        let Self { calls, requests, rows, failed, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = *requests as f64 / seconds.max(1e-3);
        let text = format!("{requests} requests in {seconds:.1} s ({rate:.1} a second), {rows} rows, {failed} failed");
        let fields = json!({"calls": calls, "requests": requests, "rows": rows, "failed": failed, "seconds": seconds});
        self.report.event(event, &text, fields);
    }

    fn say_end(&self, outcome: &CrawlOutcome) -> Exit {
        let CrawlOutcome { is_complete, calls, rows, rejected, quarantined, .. } = outcome;
        self.say("crawled");
        let state = if *is_complete { "complete" } else { "not complete; the same command goes on" };
        let text = format!(
            "{}: {calls} calls with {rows} rows are loaded, {rejected} rows left out, {quarantined} requests in quarantine: {state}",
            self.spec.name
        );
        let fields = json!({
            "job": self.spec.name, "complete": is_complete, "calls": calls, "rows": rows, "rejected": rejected,
            "quarantined": quarantined,
        });
        self.report.event("loaded", &text, fields);
        match *is_complete && *rejected == 0 && *quarantined == 0 {
            true => Exit::Done,
            false => Exit::Incomplete,
        }
    }
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

fn quarantine(key: String, input: &Value, failure: &Quarantined, requests: u32) -> QuarantinedCall {
    let mut noted = QuarantinedCall::new(key, Chain(&*failure.error).to_string());
    noted.inputs = vec![input.clone()];
    noted.request = json!(failure.request);
    noted.response.clone_from(&failure.response);
    noted.attempts = u64::from(requests.max(1));
    noted
}

/// Which calls need not be made.
struct Known {
    marks: CrawlMarks,
    /// Digests of the keys that this run has taken up: equal records are asked for once.
    taken: Mutex<HashSet<u64>>,
}

impl Known {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn done(&self, keys: &[String]) -> Vec<bool> {
        let texts: Vec<&str> = keys.iter().map(String::as_str).collect();
        // An error there is told by the load's next call.
        let done = self.marks.done(&texts).await.unwrap_or_else(|_| vec![false; keys.len()]);
        let mut taken = self.lock();
        done.into_iter().zip(keys).map(|(is_done, key)| !taken.insert(digest(key)) || is_done).collect()
    }
}

fn digest(key: &str) -> u64 {
    let Digest::Sha256(digest) = Digest::of(Algorithm::Sha256, key.as_bytes()) else { return 0 };
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Makes the requests of the first records, and prints the rows that they would give.
async fn show(
    arguments: &CrawlArguments,
    spec: &Spec,
    job: &CrawlJob,
    common: &Common,
    report: &Report,
) -> Result<Exit, Failure> {
    let session = arguments.database.connect().await?;
    job.check_tables(&session).await?;
    drop(session);
    let records = Records::open(&spec.input, &arguments.database, common, report).await?;
    let (input, trouble) = records.stream(Some(SHOWN));
    let mut crawler = crawler(arguments, spec, common, report)?;
    crawler.options.order = bulk_core::crawl::CrawlOrder::OfInput;
    let mut calls = crawler.crawl(input).map_err(Failure::usage)?;
    let mut exit = Exit::Done;
    while let Some(call) = calls.next().await {
        report.planned(&call.request, json!({"request": call.request}));
        for CrawledRecord { input, outcome, .. } in &call.records {
            let pages = match outcome {
                Ok(pages) => pages,
                Err(failure) => {
                    exit = Exit::Incomplete;
                    report.warn(format!("{}: {}", failure.request, Chain(&*failure.error)));
                    continue;
                }
            };
            for (rows, page) in spec.rows.iter().flat_map(|rows| pages.iter().map(move |page| (rows, page))) {
                let table = format!("{:#}", rows.table.table);
                let exploded = rows.explode.rows(input, page).map_err(|error| Failure::new(Exit::Failed, error))?;
                let (mut count, mut first) = (0_u64, Vec::new());
                for row in exploded {
                    count += 1;
                    if first.len() < SHOWN {
                        first.push(row.to_json());
                    }
                }
                for row in &first {
                    report.planned(&format!("  {table}: {row}"), json!({"table": table, "row": row}));
                }
                let more = count - first.len() as u64;
                if more > 0 {
                    report.planned(&format!("  {table}: {more} rows more"), json!({"table": table, "more": more}));
                }
            }
        }
    }
    if let Some(failure) = trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    Ok(exit)
}
