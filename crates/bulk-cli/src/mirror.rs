use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulk_core::{DownloadOptions, download};
use bulk_pg::{
    FileIdentity, LeftOutReason, LoadOptions, Loaded, PostData, Schema, Session, TableName, apply_post_data,
    apply_pre_data, count_rows, find_loaded, prepare_ledger, restart,
};
use bulk_s3::{Object, Snapshot, Wanted, choose_snapshot};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::arguments::{Common, Mirror};
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::load::load_path;
use crate::report::{Report, size};
use crate::source::Place;

/// One file and where it goes.
struct Job {
    base: String,
    table: TableName,
    object: Object,
    identity: FileIdentity,
}

pub(crate) async fn run(mirror: &Mirror, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let started = Instant::now();
    let dataset = Dataset::find(&mirror.dataset)?;
    let tables = wanted_tables(&dataset, &mirror.tables)?;
    let fill = fills(&dataset, &mirror.fill)?;
    if mirror.connections == 0 || common.jobs == 0 {
        return Err(Failure::usage("--connections and --jobs must be 1 or more"));
    }
    let mut session = Session::connect(&mirror.db).await?;
    let arguments = dataset.bucket_arguments(&mirror.bucket);
    let place = Place::open(mirror.from.as_deref().unwrap_or(&dataset.source), &arguments, report)?;
    let snapshot = choose(&place, &dataset, &tables, mirror, report).await?;
    if common.dry_run {
        for (base, object) in &snapshot.files {
            report.result(&format!("{}\t{}\t{:#}", object.size, object.key, tables[base]));
        }
        return Ok(Exit::Done);
    }
    let mut exit = if snapshot.missing.is_empty() { Exit::Done } else { Exit::Incomplete };

    prepare_ledger(&session).await?;
    let wanted: Vec<TableName> = snapshot.files.keys().map(|base| tables[base].clone()).collect();
    if mirror.restart {
        restart(&mut session, &wanted).await?;
    }
    let schema = read_schema(&place, &snapshot, mirror, common, report).await?;
    let mut plan = schema.plan();
    let pre_data = apply_pre_data(&mut session, &mut plan, &wanted).await?;
    report.note(format!("schema: {} tables made, {} were there", pre_data.created.len(), pre_data.existing.len()));
    list_left_out(&plan.left_out, &pre_data.refused, report);

    let mut jobs = Vec::new();
    let (mut skipped, mut skipped_rows) = (0, 0);
    for (base, object) in snapshot.files.clone() {
        let table = tables[&base].clone();
        let identity = identity(&object);
        let options = load_options(mirror, &dataset, &snapshot, &fill, &table, report)?;
        match find_loaded(&session, &table, &identity, &options).await? {
            Some(records) => {
                skipped += 1;
                skipped_rows += records;
            }
            None => jobs.push(Job { base, table, object, identity }),
        }
    }
    if skipped > 0 {
        report.note(format!("{skipped} of {} files had been loaded ({skipped_rows} rows)", snapshot.files.len()));
    }
    // The largest first, so that the longest of all is not what everything waits for in the end.
    jobs.sort_by_key(|job| Reverse(job.object.size));
    let loaded_tables: Vec<TableName> = jobs.iter().map(|job| job.table.clone()).collect();

    let mut sessions = vec![session];
    while sessions.len() < mirror.connections {
        sessions.push(Session::connect(&mirror.db).await?);
    }
    let before = Instant::now();
    let run = Run { mirror, common, dataset: &dataset, snapshot: &snapshot, fill: &fill, report };
    let (mut sessions, totals) = load_all(&run, &place, jobs, sessions).await?;
    let data_time = before.elapsed();
    exit = exit.max(totals.exit);
    if totals.failed > 0 {
        report.warn(format!(
            "{} files are not loaded; indexes and constraints are left for the run that loads them",
            totals.failed
        ));
        return Ok(exit);
    }

    let before = Instant::now();
    let observer = report.clone();
    let post_data = apply_post_data(&mut sessions, &plan, &loaded_tables, &move |event: &bulk_pg::Event<'_>| {
        observer.on_load(event);
    })
    .await?;
    let post_time = before.elapsed();
    exit = exit.max(list_post_data(&post_data, report));

    let before = Instant::now();
    if loaded_tables.is_empty() {
        report.note("nothing to load: the database has this snapshot");
    }
    for table in &loaded_tables {
        let count = count_rows(&sessions[0], table).await?;
        if !count.matches() {
            report.warn(format!("{table:#} has {} rows, and its file has {}", count.rows, count.records));
            exit = Exit::Differs;
        }
    }
    let times = [("data", data_time), ("indexes and keys", post_time), ("verify", before.elapsed())];
    summarise(&snapshot, &totals, &times, started.elapsed(), report);
    Ok(exit)
}

fn wanted_tables(dataset: &Dataset, only: &[String]) -> Result<BTreeMap<String, TableName>, Failure> {
    let mut tables = dataset.tables()?;
    for base in only {
        if !tables.contains_key(base) {
            let known = tables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("--tables {base}: the data set has no such file; it has {known}")));
        }
    }
    if !only.is_empty() {
        tables.retain(|base, _| only.contains(base));
    }
    Ok(tables)
}

type Fill = BTreeMap<String, BTreeMap<String, String>>;

/// The data set's values for columns that are not exported, and above them those of the flags.
fn fills(dataset: &Dataset, flags: &[String]) -> Result<Fill, Failure> {
    let mut fill = dataset.fill.clone();
    for (column, value) in crate::load::fills(flags)? {
        let Some((table, column)) = column.split_once('.') else {
            return Err(Failure::usage(format!("--fill {column}={value}: that is not TABLE.COLUMN=VALUE")));
        };
        fill.entry(table.to_owned()).or_default().insert(column.to_owned(), value);
    }
    Ok(fill)
}

async fn choose(
    place: &Place,
    dataset: &Dataset,
    tables: &BTreeMap<String, TableName>,
    mirror: &Mirror,
    report: &Report,
) -> Result<Snapshot, Failure> {
    let listing = place.list().await?;
    let mut wanted = Wanted::default();
    // Who asks for a file by name wants it or an error.
    let is_optional = |base: &&String| mirror.tables.is_empty() && dataset.optional.contains(*base);
    wanted.optional = tables.keys().filter(is_optional).cloned().collect();
    wanted.bases = tables.keys().filter(|base| !is_optional(base)).cloned().collect();
    wanted.date = mirror.date;
    let objects = listing.len();
    let snapshot = choose_snapshot(listing, &wanted).map_err(|error| {
        let hint = format!("{} objects at {}; --date and --tables choose among them", objects, place.location());
        let failure = Failure::from(error);
        Failure { error: failure.error.context(hint), ..failure }
    })?;
    for passed in &snapshot.passed_over {
        report.warn(format!("passed over {passed}"));
    }
    for (base, lack) in &snapshot.missing {
        report.warn(format!("{base} of {} {lack}; it is not loaded", snapshot.date));
    }
    let bytes: u64 = snapshot.files.values().map(|object| object.size).sum();
    let text = format!(
        "{}: snapshot {} of {}, {} files, {}",
        dataset.title,
        snapshot.date,
        place.location(),
        snapshot.files.len(),
        size(bytes)
    );
    let fields = json!({"date": snapshot.date.to_string(), "files": snapshot.files.len(), "bytes": bytes});
    report.event("snapshot", &text, fields);
    Ok(snapshot)
}

/// The schema file of the flags, else of the snapshot, else none: then the tables must be there.
async fn read_schema(
    place: &Place,
    snapshot: &Snapshot,
    mirror: &Mirror,
    common: &Common,
    report: &Report,
) -> Result<Schema, Failure> {
    let path = match (&mirror.schema, &snapshot.schema) {
        (Some(path), _) => path.clone(),
        (None, Some(object)) => {
            let options = download_options(common, report);
            let mut files = download(place.source(), vec![object.request()], &mirror.dir, options);
            match files.next().await.map(|delivery| delivery.outcome) {
                Some(outcome) => outcome?.path,
                None => return Err(Failure::new(Exit::Failed, anyhow::anyhow!("the schema was not delivered"))),
            }
        }
        (None, None) => {
            report.warn("the snapshot has no schema file; the tables must be in the database");
            return Ok(Schema::default());
        }
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display())))?;
    let schema =
        Schema::parse(&text).map_err(|source| bulk_pg::Error::Schema { file: path.display().to_string(), source })?;
    if mirror.schema.is_none() && !mirror.keep_files {
        remove(&path, report);
    }
    Ok(schema)
}

/// What the schema file holds and the database does not get. Settings and owners are in every dump; they are only counted.
fn list_left_out(left_out: &[bulk_pg::LeftOut], refused: &[bulk_pg::Refused], report: &Report) {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for item in left_out {
        match &item.reason {
            LeftOutReason::Missing(_) => {
                let reason = "needs a function or table that is neither in the file nor in the database";
                *counted.entry(reason.to_owned()).or_default() += 1;
            }
            reason => *counted.entry(reason.to_string()).or_default() += 1,
        }
        report.detail(format!("left out: {item}"));
    }
    if !counted.is_empty() {
        report.note(format!("schema: {} statements left out (-v lists them):", left_out.len()));
    }
    const SHOWN: usize = 8;
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_by_key(|(_, count)| Reverse(*count));
    for (reason, count) in counted.iter().take(SHOWN) {
        report.note(format!("  {count:4} × {reason}"));
    }
    if let Some(more @ 1..) = counted.len().checked_sub(SHOWN) {
        report.note(format!("  and {more} other reasons"));
    }
    for item in refused {
        report.warn(format!("schema line {}: {}: {}", item.line, item.what, item.reason));
    }
}

fn list_post_data(post_data: &PostData, report: &Report) -> Exit {
    for orphans in &post_data.orphans {
        report.warn(format!(
            "{} of {:#} stays NOT VALID: {} rows refer to nothing in {:#} (such as {})",
            orphans.constraint,
            orphans.table,
            orphans.rows,
            orphans.references,
            orphans.examples.join("; ")
        ));
    }
    for (constraint, comment) in &post_data.known_orphans {
        report.note(format!("{constraint}: {comment}"));
    }
    for item in &post_data.refused {
        report.warn(format!("schema line {}: {}: {}", item.line, item.what, item.reason));
    }
    let is_clean = post_data.orphans.is_empty() && post_data.known_orphans.is_empty() && post_data.refused.is_empty();
    if is_clean { Exit::Done } else { Exit::Incomplete }
}

fn identity(object: &Object) -> FileIdentity {
    let etag = object.etag.as_ref().map(ToString::to_string);
    let version = etag.or_else(|| object.last_modified.map(|time| time.to_string()));
    FileIdentity::new(&object.key, version, object.size)
}

fn download_options(common: &Common, report: &Report) -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.concurrency = common.jobs;
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
    options
}

fn load_options(
    mirror: &Mirror,
    dataset: &Dataset,
    snapshot: &Snapshot,
    fill: &Fill,
    table: &TableName,
    report: &Report,
) -> Result<LoadOptions, Failure> {
    let mut options = LoadOptions::default();
    options.dialect = mirror.dialect;
    options.hint = dataset.dialect_hint(snapshot.date)?;
    options.fill = fill.get(table.name.as_str()).cloned().unwrap_or_default();
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    Ok(options)
}

struct Run<'a> {
    mirror: &'a Mirror,
    common: &'a Common,
    dataset: &'a Dataset,
    snapshot: &'a Snapshot,
    fill: &'a Fill,
    report: &'a Report,
}

struct Totals {
    files: usize,
    failed: usize,
    fetched: u64,
    rows: u64,
    bytes: u64,
    exit: Exit,
}

/// Downloads and loads: files arrive in order, and each goes to the next session that is free.
async fn load_all(
    run: &Run<'_>,
    place: &Place,
    jobs: Vec<Job>,
    sessions: Vec<Session>,
) -> Result<(Vec<Session>, Totals), Failure> {
    let report = run.report;
    let mut totals = Totals { files: 0, failed: 0, fetched: 0, rows: 0, bytes: 0, exit: Exit::Done };
    let requests: Vec<_> = jobs.iter().map(|job| job.object.request()).collect();
    let mut files = download(place.source(), requests, &run.mirror.dir, download_options(run.common, report));
    let ticker = report.ticker();
    let connections = sessions.len();
    let free = Arc::new(Mutex::new(sessions));
    let mut loads: JoinSet<(Job, PathBuf, Result<Loaded, Failure>)> = JoinSet::new();
    let settle = |totals: &mut Totals, (job, path, result): (Job, PathBuf, Result<Loaded, Failure>)| match result {
        Ok(loaded) => {
            totals.files += 1;
            totals.rows += loaded.sent;
            totals.bytes += loaded.bytes;
            if !run.mirror.keep_files {
                remove(&path, report);
            }
        }
        Err(failure) => {
            totals.failed += 1;
            totals.exit = totals.exit.max(failure.exit);
            let error = failure.error.context(job.base);
            report.failure(&Failure { error, ..failure });
        }
    };
    let mut jobs = jobs.into_iter();
    loop {
        if loads.len() == connections
            && let Some(joined) = loads.join_next().await
        {
            settle(&mut totals, joined.map_err(|error| Failure::new(Exit::Failed, error))?);
        }
        let (Some(delivery), Some(mut job)) = (files.next().await, jobs.next()) else { break };
        let staged = match delivery.outcome {
            Ok(staged) => staged,
            Err(error) => {
                totals.failed += 1;
                let failure = Failure::from(error);
                totals.exit = totals.exit.max(failure.exit);
                report.failure(&failure);
                continue;
            }
        };
        totals.fetched += staged.fetched;
        if let Some(etag) = &staged.etag {
            // Of an object that was replaced since it was listed, this is the version that came.
            job.identity = FileIdentity::new(&job.object.key, Some(etag.to_string()), staged.size);
        }
        let options = load_options(run.mirror, run.dataset, run.snapshot, run.fill, &job.table, report)?;
        let free = free.clone();
        loads.spawn(async move {
            let session = free.lock().await.pop();
            let Some(mut session) = session else {
                let what = anyhow::anyhow!("no session is free");
                return (job, staged.path, Err(Failure::new(Exit::Failed, what)));
            };
            let result = load_path(&mut session, &job.table, &staged.path, &job.identity, &options).await;
            free.lock().await.push(session);
            (job, staged.path, result)
        });
    }
    while let Some(joined) = loads.join_next().await {
        settle(&mut totals, joined.map_err(|error| Failure::new(Exit::Failed, error))?);
    }
    drop(ticker);
    let sessions = std::mem::take(&mut *free.lock().await);
    Ok((sessions, totals))
}

fn remove(path: &Path, report: &Report) {
    if let Err(error) = std::fs::remove_file(path) {
        report.warn(format!("cannot remove {}: {error}", path.display()));
    }
}

fn summarise(snapshot: &Snapshot, totals: &Totals, times: &[(&str, Duration)], elapsed: Duration, report: &Report) {
    let stages: Vec<_> = times.iter().map(|(stage, time)| format!("{stage} {:.1} s", time.as_secs_f64())).collect();
    let text = format!(
        "snapshot {}: {} files, {} fetched, {} rows, {} of CSV in {:.1} s ({})",
        snapshot.date,
        totals.files,
        size(totals.fetched),
        totals.rows,
        size(totals.bytes),
        elapsed.as_secs_f64(),
        stages.join(", ")
    );
    let stages: serde_json::Map<_, _> =
        times.iter().map(|(stage, time)| ((*stage).to_owned(), json!(time.as_secs_f64()))).collect();
    let fields = json!({
        "date": snapshot.date.to_string(), "files": totals.files, "fetched": totals.fetched, "rows": totals.rows,
        "bytes": totals.bytes, "seconds": elapsed.as_secs_f64(), "stages": stages,
    });
    report.event("summary", &text, fields);
}
