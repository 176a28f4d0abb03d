use std::io;
use std::sync::Arc;

use bulk_core::{DownloadOptions, download, remove_staged};
use bulk_pg::{FileIdentity, LoadOptions, Loaded, Session, TableName};
use bulk_s3::{Object, Snapshot};
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::Run;
use crate::exit::{Exit, Failure};
use crate::load::load_path;
use crate::progress::Progress;

/// One file and where it goes.
pub(super) struct Job {
    pub(super) base: String,
    pub(super) table: TableName,
    pub(super) object: Object,
    pub(super) identity: FileIdentity,
}

/// What became of all files together.
pub(super) struct Totals {
    pub(super) files: usize,
    pub(super) failed: usize,
    pub(super) fetched: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) exit: Exit,
}

/// Downloads and loads: files arrive in order, and each goes to the next session that is free.
pub(super) async fn load_all(
    run: &Run<'_>,
    snapshot: &Snapshot,
    jobs: Vec<Job>,
    sessions: Vec<Session>,
) -> Result<(Vec<Session>, Totals), Failure> {
    let report = run.report;
    let mut totals = Totals { files: 0, failed: 0, fetched: 0, rows: 0, bytes: 0, exit: Exit::Done };
    let requests: Vec<_> = jobs.iter().map(|job| job.object.request()).collect();
    let mut files = download(run.place.source(), requests, &run.mirror.dir, download_options(run));
    let bytes = jobs.iter().map(|job| job.object.size).sum();
    let progress = Progress::start(report, bytes, bytes);
    let connections = sessions.len();
    let free = Arc::new(Mutex::new(sessions));
    let mut loads: JoinSet<(Job, Result<Loaded, Failure>)> = JoinSet::new();
    let settle = |totals: &mut Totals, (job, result): (Job, Result<Loaded, Failure>)| match result {
        Ok(loaded) => {
            totals.files += 1;
            totals.rows += loaded.sent;
            totals.bytes += loaded.bytes;
            if !run.mirror.keep_files {
                remove(run, &job.object);
            }
        }
        // Its chunks so far are kept; the exit status tells the rest.
        Err(failure) if failure.is_stop() => {}
        Err(failure) => {
            totals.failed += 1;
            totals.exit = totals.exit.max(failure.exit);
            let mut error = failure.error;
            if is_damage(&error) {
                remove(run, &job.object);
                let hint = "damaged; it is fetched again by the next run, and if that fails alike, it was published so";
                error = error.context(hint);
            }
            let error = error.context(job.base);
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
            Ok(_) if run.common.stop.is_cancelled() => continue,
            Ok(staged) => staged,
            Err(bulk_core::Error::Interrupted { .. }) if run.common.stop.is_cancelled() => continue,
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
        let options = load_options(run, snapshot, &job.table)?;
        let report = report.clone();
        let free = free.clone();
        loads.spawn(async move {
            let session = free.lock().await.pop();
            let Some(mut session) = session else {
                let what = anyhow::anyhow!("no session is free");
                return (job, Err(Failure::new(Exit::Failed, what)));
            };
            let result = load_path(&mut session, &job.table, &staged.path, &job.identity, &options, &report).await;
            free.lock().await.push(session);
            (job, result)
        });
    }
    while let Some(joined) = loads.join_next().await {
        settle(&mut totals, joined.map_err(|error| Failure::new(Exit::Failed, error))?);
    }
    drop(progress);
    let sessions = std::mem::take(&mut *free.lock().await);
    Ok((sessions, totals))
}

pub(super) fn download_options(run: &Run<'_>) -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.concurrency = run.common.jobs;
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
    options.stop = run.common.stop.clone();
    let observer = run.report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    Ok(options)
}

/// Whether a file's content is not what a codec could have written.
fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(bulk_pg::Error::Read { source, .. }) => {
            matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    })
}

/// Removes a file that was fetched, and what is known of it.
pub(super) fn remove(run: &Run<'_>, object: &Object) {
    if let Err(error) = remove_staged(&run.mirror.dir, &object.request().name) {
        run.report.warn(format!("{:#}", anyhow::Error::from(error)));
    }
}
