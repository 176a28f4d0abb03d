//! `bulk sync`: what changed in a bucket is fetched, stored, and marked known.

mod left_out;
mod target;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bulk_core::{Algorithm, Digest, FileReport};
use bulk_pg::{Session, TableName, has_rows};
use bulk_s3::{
    Change, Deletions, Job, KeyRange, KnownObjects, Page, Quarantined, SyncCounts, SyncOptions, SyncStep, diff_pages,
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at};

use self::left_out::LeftOut;
use self::target::Target;
use crate::arguments::{Common, ComparisonArguments, Sync, SyncDeletions};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::headway::Headway;
use crate::keys::{Keys, Listed};
use crate::report::{Report, SAY_EVERY, size};
use crate::store::Place;

pub(crate) async fn run(sync: &Sync, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let ComparisonArguments { source, compare, checkpoint, store, keys, bucket } = &sync.comparison;
    let target = Target::of(&sync.target, common.json)?;
    let place = target.place_of_store(store)?;
    Place::check(store, *compare)?;
    let keys = Keys::open(source, bucket, keys, report).await?;
    if common.dry_run {
        let known = place.look(store, keys.bucket.name(), report).await?;
        return plan(sync, &keys, known, common, report).await;
    }
    let _folder = target.lock_folder()?;
    let store = place.open(store, keys.bucket.name(), true, report).await?;
    let sink = target.open(&sync.target, &store).await?;
    let table = target.lock_table().await?;
    if let (Target::Table { name, .. }, Some(session)) = (&target, &table) {
        warn_of_empty(name, session, &keys.prefix, &*store.known, report).await?;
    }
    let job = keys.job(*compare, &*store.known, format!("{}; deletions: {:?}", sink.identity(), sync.deletions));
    let headway = match &checkpoint.checkpoint {
        Some(path) => Headway::open(Some(path), checkpoint, job, report)?,
        None => Headway::open_own(place_of_checkpoint(&target, &place, &job)?.as_deref(), checkpoint, job, report)?,
    };
    let ranges = keys.split(headway.left().to_vec(), &*store.known).await?;
    let mut pages = keys.pages(ranges).peekable();
    if sync.deletions == SyncDeletions::Apply && !keys.asks_bucket() {
        refuse_empty(Pin::new(&mut pages).peek().await, source)?;
    }
    let mut comparison = keys.diff_options(*compare);
    comparison.meter = Some(report.meters().compare(keys.order(false), place.resource(), true));
    let stretches = diff_pages(pages, store.known.clone(), comparison);
    let mut options = options(sync, common, report);
    let meters = report.meters().sync(target.resource());
    (options.objects.meter, options.meter) = (Some(meters.0), Some(meters.1));
    let steps = bulk_s3::sync(stretches, Arc::new(keys.bucket.clone()), store.known, sink, options);
    let run = Run {
        headway,
        left_out: LeftOut::default(),
        listed: Listed::new(),
        unchanged: 0,
        is_removed: sync.deletions == SyncDeletions::Apply,
        report,
    };
    run.follow(steps, common).await
}

/// Warns of a table without rows where objects are known: they are not fetched again. It may be meant so, where they were
/// made known by an import.
async fn warn_of_empty(
    name: &TableName,
    session: &Session,
    prefix: &str,
    known: &dyn KnownObjects,
    report: &Report,
) -> Result<(), Failure> {
    if has_rows(session, name).await? {
        return Ok(());
    }
    let behind = KeyRange::new((!prefix.is_empty()).then(|| prefix.to_owned()), None);
    let first = known.scan(&behind, 1).await?;
    if !first.iter().next().is_some_and(|object| object.key.starts_with(prefix)) {
        return Ok(());
    }
    report.warn(format!(
        "{name:#} has no rows, but objects are known in {}: they are not fetched until they change; --known names another store",
        known.identity()
    ));
    Ok(())
}

/// Refuses a listing from elsewhere that has nothing: it is likelier to be of another bucket, or cut, than all to be gone.
fn refuse_empty(first: Option<&Result<Page, bulk_s3::Error>>, source: &str) -> Result<(), Failure> {
    match first {
        Some(Ok(page)) if page.range == KeyRange::all() && page.keys == 0 => Err(Failure::usage(format!(
            "the listing has no key of {source}: with --deletions apply all that is known would be removed"
        ))),
        _ => Ok(()),
    }
}

fn options(sync: &Sync, common: &Common, report: &Report) -> SyncOptions {
    let mut options = SyncOptions::default();
    options.objects.concurrency = common.jobs_of_small();
    options.objects.budget = sync.memory;
    let observer = report.clone();
    options.objects.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
    options.objects.stop = common.stop.clone();
    options.deletions = match sync.deletions {
        SyncDeletions::Report => Deletions::Report,
        SyncDeletions::Apply => Deletions::Apply,
        SyncDeletions::Ignore => Deletions::Ignore,
    };
    options
}

/// A sync under way.
struct Run<'a> {
    headway: Headway,
    left_out: LeftOut,
    listed: Listed,
    unchanged: u64,
    /// Whether what is gone is removed, and not only told.
    is_removed: bool,
    report: &'a Report,
}

impl Run<'_> {
    async fn follow(mut self, mut steps: bulk_s3::SyncRun, common: &Common) -> Result<Exit, Failure> {
        let mut ticks = interval_at(Instant::now() + SAY_EVERY, SAY_EVERY);
        loop {
            let step = tokio::select! {
                step = steps.next() => step,
                _ = ticks.tick() => {
                    self.headway.save()?;
                    self.say("progress", &steps.counts());
                    continue;
                }
            };
            match step {
                None => break,
                Some(Ok(step)) => self.take(step)?,
                Some(Err(error)) => {
                    self.headway.save()?;
                    self.say("progress", &steps.counts());
                    let is_stop = matches!(error, bulk_s3::Error::Request(bulk_core::Error::Interrupted { .. }));
                    return if is_stop && common.stop.is_cancelled() {
                        Ok(Exit::Interrupted)
                    } else {
                        Err(error.into())
                    };
                }
            }
        }
        let counts = steps.counts();
        self.say("synced", &counts);
        self.headway.finish()?;
        if counts.quarantined > 0 {
            let left_out = "left out; the next run tries";
            let (one, many) = (format!("object is {left_out} it again"), format!("objects are {left_out} them again"));
            self.report.warn(counted(counts.quarantined, &one, &many));
            return Ok(Exit::Incomplete);
        }
        Ok(Exit::Done)
    }

    fn take(&mut self, step: SyncStep) -> Result<(), Failure> {
        match step {
            SyncStep::Done(stretch) => {
                self.listed.add(stretch.keys);
                self.unchanged += stretch.unchanged;
                if !self.left_out.keeps_back(&stretch.range) {
                    self.headway.done(&stretch)?;
                }
            }
            SyncStep::Quarantined(Quarantined { key, etag, reason, .. }) => {
                let etag = etag.as_ref().map(|etag| etag.as_str());
                let version = etag.map(|etag| format!(" ({etag})")).unwrap_or_default();
                let text = format!("left out: {key:?}{version}: {reason}");
                let fields = json!({"key": key, "etag": etag, "reason": reason.to_string()});
                self.report.alert("quarantined", &text, fields);
                let mut file = FileReport::default();
                (file.name, file.error) = (key.clone(), Some(reason.to_string()));
                self.report.file(file);
                self.left_out.add(key);
            }
            SyncStep::Removed { key, etag } => {
                let text = match self.is_removed {
                    true => format!("removed: {key:?}"),
                    false => format!("gone from the bucket: {key:?}"),
                };
                let etag = etag.as_ref().map(|etag| etag.as_str());
                self.report.event("removed", &text, json!({"key": key, "etag": etag}));
            }
            _ => {}
        }
        Ok(())
    }

    fn say(&self, event: &str, counts: &SyncCounts) {
        let (keys, unchanged, seconds) = (self.listed.keys(), self.unchanged, self.listed.seconds());
        let gone = if self.is_removed { "removed" } else { "gone" };
        let text = format!(
            "{} compared in {seconds:.1} s, {unchanged} as they are known; {} fetched ({}), {} stored, {} of known content, {} {gone}, {} left out",
            counted(keys, "key", "keys"),
            counted(counts.fetched, "object", "objects"),
            size(counts.bytes),
            counts.stored,
            counts.unchanged_content,
            counts.removed,
            counts.quarantined,
        );
        let fields = json!({
            "keys": keys, "unchanged": unchanged, "fetched": counts.fetched, "bytes": counts.bytes,
            "stored": counts.stored, "unchanged_content": counts.unchanged_content, "removed": counts.removed,
            "quarantined": counts.quarantined, "seconds": seconds,
        });
        match event {
            "progress" => self.report.progress(text, fields),
            event => self.report.event(event, &text, fields),
        }
    }
}

/// Where it is kept how far this job has come. None if nobody says where such things are kept.
fn place_of_checkpoint(target: &Target<'_>, place: &Place, job: &Job) -> Result<Option<PathBuf>, Failure> {
    let text = serde_json::to_vec(job).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut name = Digest::of(Algorithm::Sha256, &text).to_hex();
    name.truncate(16);
    let name = format!("sync-{name}.checkpoint");
    let (folder, name) = match (target.state_folder(), place) {
        (Some(folder), _) => (folder, name),
        (None, Place::File(path)) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            (path.parent().unwrap_or(Path::new("")).to_owned(), format!("{file}-{name}"))
        }
        (None, Place::Database(_)) => match state_folder() {
            Some(folder) => (folder, name),
            None => return Ok(None),
        },
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::usage(format!("cannot keep a checkpoint in {}: {error}", folder.display())))?;
    Ok(Some(folder.join(name)))
}

/// <https://specifications.freedesktop.org/basedir/latest/>
fn state_folder() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    Some(state?.join("bulk"))
}

/// Says what a run would do, from the beginning.
async fn plan(
    sync: &Sync,
    keys: &Keys,
    known: Arc<dyn KnownObjects>,
    common: &Common,
    report: &Report,
) -> Result<Exit, Failure> {
    let ranges = keys.split(vec![KeyRange::all()], &*known).await?;
    let mut stretches = diff_pages(keys.pages(ranges), known, keys.diff_options(sync.comparison.compare));
    let mut listed = Listed::new();
    let mut counts = bulk_s3::Counts::default();
    let mut bytes = 0_u64;
    loop {
        let Some(stretch) = common.stop.run_until_cancelled(stretches.try_next()).await else {
            return Ok(Exit::Interrupted);
        };
        let Some(stretch) = stretch? else { break };
        counts.add(&stretch);
        for change in stretch.changes() {
            if let Change::Added(object) | Change::Modified { after: object, .. } = change {
                bytes = bytes.saturating_add(object.size.unwrap_or_default());
            }
        }
        listed.add(stretch.keys);
        listed.tell(counts.added + counts.modified + counts.removed, "changes found", report);
    }
    let gone = match sync.deletions {
        SyncDeletions::Report => format!("tell of {} gone, and ", counted(counts.removed, "that is", "that are")),
        SyncDeletions::Apply => format!("remove {} gone, and ", counted(counts.removed, "that is", "that are")),
        SyncDeletions::Ignore => String::new(),
    };
    let text = format!(
        "fetch {} and {} now ({}), {gone}leave {}, of {}",
        counted(counts.added, "new object", "new objects"),
        counted(counts.modified, "that is another", "that are others"),
        size(bytes),
        counted(counts.unchanged, "as it is", "as they are"),
        counted(counts.keys, "key", "keys"),
    );
    let mut fields = json!({
        "keys": counts.keys, "added": counts.added, "modified": counts.modified, "unchanged": counts.unchanged,
        "bytes": bytes,
    });
    if sync.deletions != SyncDeletions::Ignore {
        fields["removed"] = Value::from(counts.removed);
    }
    report.planned(&text, fields);
    Ok(Exit::Done)
}
