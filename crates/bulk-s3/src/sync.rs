//! Fetches what changed, and hands it to a sink.

mod fetching;
mod folder;
mod lines;
mod object_path;
mod quarantine;
mod sink;
#[cfg(feature = "postgres")]
mod table;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bulk_core::{Algorithm, ETag, ObjectOptions, Source, StageMeter, Wait, WorkerMeter};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::fetching::{Place, Requests, Work};
#[cfg(feature = "postgres")]
pub use self::table::{BodyType, PathColumn, TableOptions, TableSink, UnknownBodyType};
pub use self::{
    folder::FolderSink,
    lines::LinesSink,
    object_path::{key_of_path, path_of_key},
    quarantine::{QuarantineReason, Quarantined},
    sink::{Refusal, Sink, SinkBatch, SyncedObject},
};
use crate::span::in_span;
use crate::{Change, Error, KnownObjects, ObjectRef, StretchDiff};

/// What becomes of objects that are known and gone from the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deletions {
    /// They are told, by [`SyncStep::Removed`], and stay where they are. As they stay known, each run tells them.
    #[default]
    Report,
    /// They are removed from the sink and are known no more; then they are told.
    Apply,
    /// Nothing.
    Ignore,
}

/// How changes are fetched and stored.
#[derive(Clone)]
#[non_exhaustive]
pub struct SyncOptions {
    /// How objects are fetched. SHA-256 is computed in any case. The budget holds all objects that are being fetched, wait
    /// for the sink, or are being stored; those that changed after they were listed have another one of the same size.
    /// Cancelling [`stop`](ObjectOptions::stop) ends the run with [`bulk_core::Error::Interrupted`], once what has come is
    /// stored.
    pub objects: ObjectOptions,
    /// What becomes of objects that are gone. Default: they are told.
    pub deletions: Deletions,
    /// How many objects and removals are given to the sink at a time; fewer, where no more are ready. Default 1000; 0
    /// counts as 1.
    pub batch: usize,
    /// How many stretches with changes may be under way at once, each with its changes in memory, a page at most. Default 64;
    /// 0 counts as 1.
    pub stretches: usize,
    /// The meter of the stage that stores, whose one worker waits for what the stage [states](StageMeter::wait) while the sink
    /// stores. Its items are objects that were stored. What is fetched has
    /// [its own](ObjectOptions::meter). Default none.
    pub meter: Option<StageMeter>,
}

impl Default for SyncOptions {
    fn default() -> Self {
        let (objects, deletions) = (ObjectOptions::default(), Deletions::Report);
        Self { objects, deletions, batch: 1000, stretches: 64, meter: None }
    }
}

/// What a [run](sync()) has to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncStep {
    /// All changes of a stretch have had their effect, or were quarantined: it is the time for
    /// [`Checkpoint::done`](crate::Checkpoint::done). Stretches come in any order.
    Done(Arc<StretchDiff>),
    /// An object could not be fetched or stored. Nothing else was kept from being so.
    Quarantined(Quarantined),
    /// A known object is gone from the bucket; with [`Deletions::Apply`] from the sink and the store, too.
    Removed {
        /// Its key.
        key: String,
        /// The ETag that it had, if it is known.
        etag: Option<ETag>,
    },
}

/// What a [run](sync()) has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncCounts {
    /// Objects that came whole.
    pub fetched: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the sink has stored.
    pub stored: u64,
    /// Objects that had the content that was known, so that only their ETag was taken.
    pub unchanged_content: u64,
    /// Objects that are gone from the bucket: removed, or only told.
    pub removed: u64,
    /// Objects that could not be fetched or stored.
    pub quarantined: u64,
}

/// Fetches what was added or modified in these stretches, such as those of [`diff_pages`](crate::diff_pages), and has `sink`
/// store it and mark it known.
///
/// - Objects are asked for with the ETag of the listing (`If-Match`). One that is another version by now is asked for again
///   without, once, and that version is taken: it comes in one answer, so it is whole, the sync is meant to bring what is
///   there, and to wait for the next run would not make it more consistent with the listing.
/// - What is marked known has the ETag of the answer. Objects are marked when the sink has stored them for good: in the same
///   transaction where it can, else after it. A run that was ended in whatever way fetches a batch or two again.
/// - A modified object with the SHA-256 that is [known](ObjectRef::content) of its key is not stored: it gets its new ETag.
/// - An object that cannot be had (gone, forbidden, too large, corrupt) or that the sink refuses is
///   [quarantined](SyncStep::Quarantined): it is not marked, so the next run tries again.
///
/// Fetching goes on while the sink stores. Memory is bounded by [`SyncOptions`].
///
/// Dropping the stream stops all requests; a batch that is being stored is stored and marked, or neither, or stored alone: see
/// the sink. Nobody is to use the sink or the store for the same bucket meanwhile.
///
/// ```
/// use std::sync::Arc;
///
/// use bulk_s3::{Bucket, BucketOptions, DiffOptions, FolderSink, ListOptions, MemoryKnown, SyncOptions, SyncStep};
/// use bulk_s3::{diff_pages, sync};
/// use futures::TryStreamExt;
///
/// # let store = [("builds/1.json", "{}"), ("builds/2.json", "[]")].into_iter().collect();
/// # let server = bulk_testkit::s3::Server::builder().bucket("my-bucket", store).start().unwrap();
/// # let mut options = BucketOptions::default();
/// # options.endpoint = Some(server.url());
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let bucket = Bucket::new("my-bucket", options)?;
/// let known = Arc::new(MemoryKnown::new()); // or one that lasts: `SqliteKnown`, `PostgresKnown`
/// let sink = Arc::new(FolderSink::open(path)?);
/// for fetched in [2, 0] {
///     let stretches = diff_pages(bucket.pages(ListOptions::default()), known.clone(), DiffOptions::default());
///     let mut run = sync(stretches, Arc::new(bucket.clone()), known.clone(), sink.clone(), SyncOptions::default());
///     while let Some(step) = run.try_next().await? {
///         match step {
///             SyncStep::Done(_stretch) => {} // time for `Checkpoint::done`
///             SyncStep::Quarantined(object) => println!("left out: {}: {}", object.key, object.reason),
///             SyncStep::Removed { key, .. } => println!("gone: {key}"),
///             _ => {}
///         }
///     }
///     assert_eq!(run.counts().fetched, fetched);
/// }
/// assert_eq!(std::fs::read_to_string(path.join("builds/2.json")).unwrap(), "[]");
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// An item that is an error is the last one: those of `stretches`, [`Error::Request`] if the source cannot be used any more (no
/// answer after all attempts, or refused credentials), [`Error::Sink`] and [`Error::Known`]. What was fetched before an error
/// of the first two is stored.
///
/// # Panics
///
/// If it is called outside a tokio runtime.
pub fn sync<S>(
    stretches: S,
    source: Arc<dyn Source>,
    known: Arc<dyn KnownObjects>,
    sink: Arc<dyn Sink>,
    options: SyncOptions,
) -> SyncRun
where
    S: Stream<Item = Result<StretchDiff, Error>> + Send + 'static,
{
    let SyncOptions { mut objects, deletions, batch, stretches: open, meter } = options;
    if !objects.digests.contains(&Algorithm::Sha256) {
        objects.digests.push(Algorithm::Sha256);
    }
    let batch = batch.max(1);
    let (sender, work) = mpsc::channel(batch);
    let open = Arc::new(Semaphore::new(open.clamp(1, Semaphore::MAX_PERMITS)));
    let requests = Requests::new(stretches.boxed(), deletions, open, sender);
    let mut fetching = JoinSet::new();
    requests.spawn(&mut fetching, source, objects);
    let counts = Arc::<Mutex<SyncCounts>>::default();
    let wait = meter.as_ref().map_or(Wait::Input, StageMeter::wait);
    let meter = meter.as_ref().map(StageMeter::worker);
    let storing = Storing {
        work,
        fetching,
        batch,
        deletions,
        known,
        sink,
        counts: counts.clone(),
        steps: VecDeque::new(),
        failure: None,
        meter,
        wait,
    };
    let steps = futures::stream::try_unfold(storing, |mut storing| async move {
        if let Some(meter) = &storing.meter {
            meter.wait_ends();
        }
        let step = storing.next().await?;
        if let Some(meter) = &storing.meter {
            meter.wait_begins(Wait::Output);
        }
        Ok(step.map(|step| (step, storing)))
    });
    SyncRun { steps: Some(steps.boxed()), counts }
}

/// A sync that is under way: see [`sync()`].
#[must_use = "a sync stops when this is dropped"]
pub struct SyncRun {
    steps: Option<BoxStream<'static, Result<SyncStep, Error>>>,
    counts: Arc<Mutex<SyncCounts>>,
}

impl SyncRun {
    /// What was done so far. All that was told by an item is counted.
    pub fn counts(&self) -> SyncCounts {
        *lock(&self.counts)
    }
}

impl Stream for SyncRun {
    type Item = Result<SyncStep, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(steps) = &mut self.steps else { return Poll::Ready(None) };
        let item = std::task::ready!(steps.poll_next_unpin(context));
        if !matches!(item, Some(Ok(_))) {
            self.steps = None;
        }
        Poll::Ready(item)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step that could panic leaves it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what was fetched, a batch at a time.
struct Storing {
    work: mpsc::Receiver<Work>,
    /// Its tasks, which end with this.
    fetching: JoinSet<()>,
    batch: usize,
    deletions: Deletions,
    known: Arc<dyn KnownObjects>,
    sink: Arc<dyn Sink>,
    counts: Arc<Mutex<SyncCounts>>,
    /// What is to be told before more is taken.
    steps: VecDeque<SyncStep>,
    /// What is to be told after that.
    failure: Option<Error>,
    meter: Option<WorkerMeter>,
    /// What the worker waits for while the sink stores.
    wait: Wait,
}

/// What a worker waits for until that is there, if it is metered.
async fn waiting<F: Future>(meter: Option<&WorkerMeter>, wait: Wait, future: F) -> F::Output {
    match meter {
        Some(meter) => meter.waiting(wait, future).await,
        None => future.await,
    }
}

impl Storing {
    async fn next(&mut self) -> Result<Option<SyncStep>, Error> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            let mut work = Vec::new();
            // What is ready, and not a full batch: objects that wait here hold the budget of those to come.
            let ready = self.work.recv_many(&mut work, self.batch);
            if waiting(self.meter.as_ref(), Wait::Input, ready).await > 0 {
                self.store(work).await?;
                continue;
            }
            let Some(ended) = self.fetching.join_next().await else { return Ok(None) };
            if let Err(lost) = ended {
                match lost.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down, and this task with it.
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }

    async fn store(&mut self, work: Vec<Work>) -> Result<(), Error> {
        let mut batch = SinkBatch::default();
        let mut places = Vec::new();
        let mut told = Vec::new();
        let mut done = SyncCounts::default();
        for work in work {
            match work {
                Work::Quiet(stretch) => self.steps.push_back(SyncStep::Done(stretch)),
                Work::Failed(error) => self.failure = Some(error),
                Work::Fetched(place, object) => {
                    done.fetched += 1;
                    done.bytes += object.bytes().len() as u64;
                    if content_before(&place).is_some_and(|content| content == object.content) {
                        done.unchanged_content += 1;
                        batch.unchanged.push(object.describe());
                    } else {
                        batch.objects.push(object);
                    }
                    places.push(place);
                }
                Work::Lost(place, quarantined) => {
                    told.push(SyncStep::Quarantined(quarantined));
                    places.push(place);
                }
                Work::Removed(place) => {
                    if let Some(Change::Removed(object)) = place.change() {
                        done.removed += 1;
                        let (key, etag) = (object.key.to_owned(), object.etag.map(ETag::new));
                        if self.deletions == Deletions::Apply {
                            batch.removed.push(key.clone());
                        }
                        told.push(SyncStep::Removed { key, etag });
                    }
                    places.push(place);
                }
            }
        }
        if !batch.is_empty() {
            let storing = self.sink.store(&batch, &*self.known);
            let storing = in_span!("store", { objects = batch.objects.len() }, storing);
            let refusals = waiting(self.meter.as_ref(), self.wait, storing).await?;
            if let Some(meter) = &self.meter {
                let bytes = batch.objects.iter().map(|object| object.bytes().len() as u64).sum();
                meter.add(batch.objects.len() as u64, bytes);
            }
            done.stored = batch.objects.len() as u64;
            for Refusal { key, reason } in refusals {
                let refused = batch.objects.iter().find(|object| object.key == key);
                match refused {
                    Some(_) => done.stored -= 1,
                    None => done.unchanged_content -= 1,
                }
                let etag = refused.and_then(|object| object.etag.clone());
                let reason = QuarantineReason::Refused(reason);
                told.push(SyncStep::Quarantined(Quarantined { key, etag, reason }));
            }
        }
        done.quarantined = told.iter().filter(|step| matches!(step, SyncStep::Quarantined(_))).count() as u64;
        {
            let mut counts = lock(&self.counts);
            counts.fetched += done.fetched;
            counts.bytes += done.bytes;
            counts.stored += done.stored;
            counts.unchanged_content += done.unchanged_content;
            counts.removed += done.removed;
            counts.quarantined += done.quarantined;
        }
        self.steps.extend(told);
        self.steps.extend(places.iter().filter_map(Place::finish).map(SyncStep::Done));
        Ok(())
    }
}

/// The SHA-256 of the version that was known.
fn content_before(place: &Place) -> Option<[u8; 32]> {
    match place.change()? {
        Change::Modified { before: ObjectRef { content, .. }, .. } => content,
        _ => None,
    }
}
