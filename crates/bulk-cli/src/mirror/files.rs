use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulk_core::{DownloadOptions, Event, FolderLock, Keep, StagedFile, remove_staged, stream};
use bulk_pg::{FileIdentity, LoadOptions, Loaded, Session, TableName, Verification};
use bulk_s3::{Object, Snapshot};
use futures::StreamExt;
use tokio::task::{JoinError, JoinSet};

use super::Run;
use super::indexer::Indexer;
use crate::counted::counted;
use crate::exit::{Exit, Failure, fetch_error};
use crate::kept::Kept;
use crate::load::{Arriving, Outcome, decode_options, file_report, load_body};
use crate::progress::Progress;
use crate::source::watched;

/// How far the download runs ahead of the load where nobody said how far: this share of the room on the disk, which the
/// database may share and needs for more than the files. The largest file, which comes last, is fetched while the others are
/// loaded.
const SHARE: u64 = 8;
/// It is at least this, to outlast the slow stretches of either.
const WINDOW: u64 = 4 << 30;

/// A file of this size is loaded over all sessions, its chunks side by side; smaller ones are loaded side by side, over
/// one each.
const LARGE: u64 = 8 << 20;

/// One file and where it goes.
pub(super) struct Job {
    pub(super) base: String,
    pub(super) table: TableName,
    pub(super) object: Object,
    pub(super) identity: FileIdentity,
    /// Whether it goes into a staging table first.
    pub(super) stage: bool,
}

/// A load that is over; its sessions are free again.
struct Ended {
    sessions: Vec<Session>,
    job: Job,
    result: Result<Loaded, Failure>,
    outcome: Arc<Outcome>,
    time: Duration,
}

fn joined(ended: Result<Ended, JoinError>) -> Result<Ended, Failure> {
    ended.map_err(|error| Failure::new(Exit::Failed, error))
}

/// What became of all files together.
pub(super) struct Totals {
    indexer: Option<Indexer>,
    /// Tables that have their indexes, and whose rows the server knows.
    pub(super) analyzed: Vec<TableName>,
    pub(super) files: usize,
    pub(super) failed: usize,
    pub(super) fetched: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) exit: Exit,
    kept: Kept,
    /// What may arrive yet, and is to be removed when it does no more: it is damaged, or enough of it is loaded.
    unwanted: Vec<Object>,
    /// Then there is no use in fetching the other files.
    is_database_lost: bool,
}

impl Totals {
    /// Counts a load, says how it failed, and gives back its sessions.
    fn add(&mut self, run: &Run<'_>, ended: Ended) -> Vec<Session> {
        let Ended { sessions, job, result, outcome, time } = ended;
        let is_stop = |failure: &Failure| failure.is_stop() && run.common.stop.is_cancelled();
        // What was interrupted has not failed.
        if !result.as_ref().is_err_and(is_stop) {
            let mut file = file_report(&job.object.key, &job.table, Some(job.object.size), &result);
            file.seconds = Some(time.as_secs_f64());
            run.report.file(file);
        }
        match result {
            Ok(loaded) => {
                self.files += 1;
                self.rows += loaded.sent;
                self.bytes += loaded.bytes;
                if let Some(indexer) = self.indexer.as_mut().filter(|_| !job.stage) {
                    indexer.add(&job.table);
                }
                if loaded.rejected > 0 {
                    let records = counted(loaded.rejected, "record was", "records were");
                    run.report.warn(format!("{}: {records} left out", job.object.key));
                }
                if run.mirror.keep_files {
                    self.kept.add(outcome.take_staged().and_then(StagedFile::into_space));
                } else if run.mirror.limit.is_some() {
                    self.unwanted.push(job.object);
                } else {
                    remove(run, &job.object);
                }
            }
            // Its chunks so far are kept; the exit status tells the rest.
            Err(failure) if is_stop(&failure) => {}
            Err(Failure { exit, mut error }) => {
                let is_fetch = error.chain().any(|cause| fetch_error(cause).is_some());
                self.is_database_lost |= !is_fetch && matches!(exit, Exit::Remote | Exit::Denied);
                if is_damage(&error) {
                    self.unwanted.push(job.object);
                    let hint =
                        "damaged; it is fetched again by the next run, and if that fails alike, it was published so";
                    error = error.context(hint);
                } else if error.chain().any(is_replacement) {
                    let hint = "replaced at its source while it was loaded; if the table has rows of the version before, \
                                the new one is loaded with --restart";
                    error = error.context(hint);
                }
                self.fail(run, Failure { exit, error: error.context(job.base) });
            }
        }
        sessions
    }

    fn fail(&mut self, run: &Run<'_>, failure: Failure) {
        self.failed += 1;
        self.exit = self.exit.max(failure.exit);
        run.report.failure(&failure);
    }
}

/// Downloads and loads: files arrive in order, and each goes to the sessions that are free, which read it while the rest of
/// it still arrives. The indexer is told of the tables that are loaded.
pub(super) async fn load_all(
    run: &Run<'_>,
    snapshot: &Snapshot,
    jobs: Vec<Job>,
    sessions: Vec<Session>,
    indexer: Option<Indexer>,
) -> Result<(Vec<Session>, Totals), Failure> {
    let report = run.report;
    let mut totals = Totals {
        indexer,
        analyzed: Vec::new(),
        files: 0,
        failed: 0,
        fetched: 0,
        rows: 0,
        bytes: 0,
        exit: Exit::Done,
        kept: Kept::default(),
        unwanted: Vec::new(),
        is_database_lost: false,
    };
    let requests: Vec<_> = jobs.iter().map(|job| job.object.request()).collect();
    let mut options = download_options(run);
    let fetched = Arc::new(AtomicU64::new(0));
    let (observer, sum) = (options.observer.clone(), fetched.clone());
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Progress { bytes, .. } = event {
            sum.fetch_add(*bytes, Ordering::Relaxed);
        }
        observer.event(event);
    });
    report.meters().meter_download(&mut options);
    let keep = if run.mirror.no_files { Keep::Nothing } else { Keep::File };
    let mut bodies = stream(watched(run.place.source(), report), requests, &run.mirror.dir, keep, options);
    let bytes = jobs.iter().map(|job| job.object.size).sum();
    let progress = Progress::start(report, bytes, bytes);
    let count = sessions.len();
    let mut free = sessions;
    let mut loads: JoinSet<Ended> = JoinSet::new();
    let mut jobs = jobs.into_iter();
    while !totals.is_database_lost {
        let delivery = tokio::select! {
            Some(ended) = loads.join_next() => {
                free.extend(totals.add(run, joined(ended)?));
                continue;
            }
            delivery = bodies.next() => delivery,
        };
        let (Some(delivery), Some(job)) = (delivery, jobs.next()) else { break };
        let body = match delivery.outcome {
            Ok(_) if run.common.stop.is_cancelled() => continue,
            Ok(body) => body,
            Err(bulk_core::Error::Interrupted { .. }) if run.common.stop.is_cancelled() => continue,
            Err(error) => {
                totals.fail(run, error.into());
                continue;
            }
        };
        let mut options = load_options(run, snapshot, &job.table)?;
        options.stage = job.stage;
        let wanted = if job.object.size >= LARGE { count } else { 1 };
        while free.len() < wanted
            && let Some(ended) = loads.join_next().await
        {
            free.extend(totals.add(run, joined(ended)?));
        }
        let mut sessions = free.split_off(free.len().saturating_sub(wanted));
        if sessions.is_empty() {
            return Err(Failure::usage("no connection to load by"));
        }
        let report = report.clone();
        let name = run.mirror.dir.join(&job.object.request().name).display().to_string();
        let decode = decode_options(Some(run.mirror.records.max_ratio));
        let arriving = Arriving { body, name, identity: job.identity.clone(), decode };
        loads.spawn(async move {
            let (outcome, begun) = (Arc::default(), Instant::now());
            let result = load_body(&mut sessions, &job.table, arriving, &outcome, &options, &report).await;
            Ended { sessions, job, result, outcome, time: begun.elapsed() }
        });
    }
    while let Some(ended) = loads.join_next().await {
        free.extend(totals.add(run, joined(ended)?));
    }
    drop(progress);
    drop(bodies);
    if let Some(indexer) = totals.indexer.take() {
        totals.analyzed = indexer.finish().await;
    }
    remove_all(run, std::mem::take(&mut totals.unwanted)).await?;
    totals.fetched = fetched.load(Ordering::Relaxed);
    if totals.is_database_lost {
        totals.failed += jobs.len();
    }
    Ok((free, totals))
}

pub(super) fn download_options(run: &Run<'_>) -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.concurrency = run.common.jobs();
    let room = run.budget.shortage(u64::MAX).map_or(0, |shortage| shortage.available);
    options.window = WINDOW.max(room / SHARE);
    options.evict_staged = !run.mirror.keep_files;
    run.mirror.disk.apply(run.budget, &mut options);
    options.stop = run.common.stop.clone();
    let observer = run.report.clone();
    options.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
    options
}

pub(super) fn load_options(run: &Run<'_>, snapshot: &Snapshot, table: &TableName) -> Result<LoadOptions, Failure> {
    let mut options = LoadOptions::default();
    options.dialect = run.mirror.dialect;
    options.hint = run.dataset.dialect_hint(snapshot.date)?;
    options.fill = run.fill.get(table.name.as_str()).cloned().unwrap_or_default();
    options.max_rejects = run.mirror.max_rejects;
    options.freeze = run.mirror.freeze;
    run.mirror.records.set(&mut options);
    run.selection.select(table, &mut options);
    options.hash_content = run.mirror.verify == Verification::Full;
    options.stop = run.common.stop.clone();
    let observer = run.report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    Ok(options)
}

/// Whether a file's content is not what a codec could have written.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(bulk_pg::Error::Read { source, .. }) => {
            matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    })
}

/// Whether an object became another one after some of its bytes had been read.
pub(crate) fn is_replacement(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(fetch_error(cause), Some(bulk_core::Error::Changed { .. }))
}

/// Removes files of which the rest is not fetched, once nobody writes to them.
async fn remove_all(run: &Run<'_>, objects: Vec<Object>) -> Result<(), Failure> {
    if objects.is_empty() {
        return Ok(());
    }
    let folder = run.mirror.dir.clone();
    let locked = tokio::task::spawn_blocking(move || FolderLock::of_staging(&folder)).await;
    // Without it, what comes behind the removal is found by the next run.
    let _lock = locked.map_err(|error| Failure::new(Exit::Failed, error))?;
    objects.iter().for_each(|object| remove(run, object));
    Ok(())
}

/// Removes a file that was fetched, and what is known of it.
pub(super) fn remove(run: &Run<'_>, object: &Object) {
    if let Err(error) = remove_staged(&run.mirror.dir, &object.request().name) {
        run.report.warn(format!("{:#}", anyhow::Error::from(error)));
    }
}
