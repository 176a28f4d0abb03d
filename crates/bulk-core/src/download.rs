use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::budget::Reservation;
use crate::finish::{Finisher, finish_all};
use crate::folder_lock::FolderLock;
use crate::leftovers;
use crate::meter::StageMeter;
use crate::queue::{Limits, Mode, Queue, Save};
use crate::run::Run;
use crate::span::{in_current_span, in_span};
use crate::worker::{blocking, work};
use crate::{Algorithm, Digest, DiskBudget, ETag, Error, Event, Observer, OrderedBody, Request, RetryPolicy, Source};

/// The knobs of [`download`] and [`stream`].
#[derive(Clone)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Requests under way at once, each over a connection of its own; several may serve one file. Default 8; 0 counts
    /// as 1.
    pub concurrency: usize,
    /// Bytes fetched or being fetched that the reader has not taken: how far work may run ahead of it, and so how much
    /// disk it takes. The file in front is fetched whatever its size. Default 64 GiB.
    pub window: u64,
    /// Bytes asked for in one request. Default `None`: what a connection brings in some seconds, from 1 to 64 MiB.
    pub segment: Option<u64>,
    /// The disk space that may be used. Default `None`: all of the staging folder's file system.
    pub budget: Option<DiskBudget>,
    /// How long the download may stand still for want of disk space before the file in front fails with
    /// [`Error::Space`]. Default 5 min.
    pub disk_patience: Duration,
    /// Whether whole files that earlier runs staged, and that stand further behind in the plan, may be removed to make room
    /// for the file in front, and fetched again in their place: for who takes files away as they come, so that it gets
    /// there. Default no: what is there stays, and the file in front fails when its patience ends.
    pub evict_staged: bool,
    /// Digests of each file to compute besides CRC-64/NVME, which costs next to nothing, and those that the source
    /// states, which are compared. SHA-256 takes 0.6 s of a core for a gigabyte. Default none.
    pub digests: Vec<Algorithm>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// The meter of the stage that fetches, whose workers are the connections and whose items are what they write at once:
    /// they work, wait for the network (the bytes of an answer), for the disk, for the server (an answer's head, with the way
    /// there and back, and where it asks for fewer requests or a pause, and before another attempt), for those who check and
    /// rename files that are whole (blocked), for room in the [`budget`](Self::budget), for the
    /// reader (where the [`window`](Self::window) is full: blocked), or have nothing to do (starved). Default none.
    pub meter: Option<StageMeter>,
    /// The meter of the stage behind that, which checks files that are whole, syncs and renames them; its items are such files.
    /// It works with the disk, and as many batches of files as are finished at once are its workers. Default none.
    pub finish_meter: Option<StageMeter>,
    /// Cancel it to stop with nothing lost: no file is begun any more, what arrived of those under way is synced, so
    /// that the next run resumes at the very byte, and each of them is delivered as [`Error::Interrupted`], or staged if
    /// it was whole by then. Then the stream ends. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            window: 64 << 30,
            evict_staged: false,
            segment: None,
            budget: None,
            disk_patience: Duration::from_secs(300),
            digests: Vec::new(),
            retry: RetryPolicy::default(),
            observer: Arc::new(()),
            meter: None,
            finish_meter: None,
            stop: CancellationToken::new(),
        }
    }
}

/// A file that is whole, synced and under its final name.
///
/// It counts against the [`DiskBudget`] until the last clone of it is dropped: drop it when its file is removed, or when
/// its disk space is no longer the download's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StagedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The version that was fetched, which is newer than the request's if the object changed in between.
    pub etag: Option<ETag>,
    /// When that version was made, by the server's clock.
    pub last_modified: Option<Timestamp>,
    /// Digests of its content, computed here when it was fetched.
    pub digests: Vec<Digest>,
    /// Bytes that came from the source in this run: less than `size` after a resume, 0 if the file was there.
    pub fetched: u64,
    pub(crate) _space: Option<Arc<Reservation>>,
}

/// One object of the plan, in its place: what came of it, or the reason why nothing did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery<T = StagedFile> {
    /// The object's place in the plan, from 0. Deliveries come with places 0, 1, 2 …
    pub place: u64,
    /// What was asked for.
    pub request: Arc<Request>,
    /// What became of it. A failure does not end the stream.
    pub outcome: Result<T, Error>,
}

/// Fetches `plan` into `folder` and delivers its files in the plan's order, each whole.
///
/// The plan is read as work proceeds, so it may be endless. Work starts with the call and goes on in tasks of the current
/// tokio runtime, ahead of the reader by `options.window` bytes. All connections serve the front of the order: they share
/// the first file by segments, then the next. A file that is there already, in the version asked for, is delivered
/// without being fetched; a part that an earlier run left is resumed, under `If-Match`, and begun anew if the object
/// changed. Names must be unique among the files under way.
///
/// The folder is locked until the stream has ended or is dropped, and the last file operation is over. While it is in use
/// by another download, each item is [`Error::Locked`].
///
/// Dropping the [`Download`] stops all work, without waiting for a file operation that is under way; parts stay for the
/// next run, which fetches what came in the last 5 s, or the last 64 MiB, of each again. [`DownloadOptions::stop`] is the
/// gentle way.
///
/// # Panics
///
/// Outside a tokio runtime. A panic of `plan`'s iterator, of the source or of the observer is passed on by the stream,
/// after the files before it.
pub fn download<P>(source: Arc<dyn Source>, plan: P, folder: impl Into<PathBuf>, options: DownloadOptions) -> Download
where
    P: IntoIterator<Item = Request>,
    P::IntoIter: Send + 'static,
{
    Download { work: Work::begin(source, Box::new(plan.into_iter()), folder.into(), options, Mode::Files) }
}

/// What becomes of an object's bytes when they are read from an [`OrderedBody`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// They stay, and the file gets its final name when it is whole, as with [`download`].
    #[default]
    File,
    /// Their disk space is given back as they are read, in pieces of 4 MiB, where the file system can punch holes
    /// (fallocate(2)); when the body is dropped, nothing is left. So an object needs no more disk than the window has
    /// bytes. What was read is fetched again by a run that resumes, which is one after a
    /// [`stop`](DownloadOptions::stop) alone.
    ///
    /// Compared are CRC-64/NVME and the digests that the source states beside the bytes, but not others that only
    /// [`Source::digests`] states: by then the bytes are gone.
    Nothing,
}

/// Fetches `plan` into `folder` and delivers its objects in the plan's order, each as soon as its first bytes can be
/// read, while the rest still arrives.
///
/// Otherwise as [`download`]. The window counts from where the readers are. A body that is not read holds up what is
/// behind it when the window is full, but never what is before it. Bodies may be read side by side.
///
/// The stream ends when all bodies are fetched or dropped, and not when the last one is delivered: read that before, or
/// beside, the call that gives `None`. Whoever first collects all bodies and then reads them waits for ever if they are
/// larger than the window. The folder stays locked as long as a body lives, also behind the stream's end.
///
/// Dropping the [`Bodies`] stops all work, also that for bodies that were delivered: what has arrived of them can be read
/// yet, and then a read fails with [`Error::Interrupted`].
///
/// # Panics
///
/// As [`download`].
pub fn stream<P>(
    source: Arc<dyn Source>,
    plan: P,
    folder: impl Into<PathBuf>,
    keep: Keep,
    options: DownloadOptions,
) -> Bodies
where
    P: IntoIterator<Item = Request>,
    P::IntoIter: Send + 'static,
{
    let mode = Mode::Bodies { drop_consumed: keep == Keep::Nothing };
    Bodies { work: Work::begin(source, Box::new(plan.into_iter()), folder.into(), options, mode) }
}

/// The stream of whole files that [`download`] returns.
pub struct Download {
    work: Work,
}

/// The stream of bodies that [`stream`] returns.
pub struct Bodies {
    work: Work,
}

impl Stream for Download {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.work.poll(context, |queue, _| {
            let place = queue.front;
            queue.is_awaited = true;
            let (request, outcome) = queue.take_file()?;
            queue.is_awaited = false;
            Some(Delivery { place, request, outcome })
        })
    }
}

impl Stream for Bodies {
    type Item = Delivery<OrderedBody>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.work.poll(context, |queue, run| {
            queue.is_awaited = true;
            let (place, request, outcome) = queue.take_body()?;
            queue.is_awaited = false;
            Some(Delivery { place, request, outcome: outcome.map(|()| OrderedBody::new(run.clone(), place)) })
        })
    }
}

/// The tasks of a download. Dropping it ends them.
struct Work {
    run: Arc<Run>,
    /// `None` once it has ended.
    supervisor: Option<JoinHandle<()>>,
}

impl Work {
    fn begin(
        source: Arc<dyn Source>,
        plan: Box<dyn Iterator<Item = Request> + Send>,
        folder: PathBuf,
        mut options: DownloadOptions,
        mode: Mode,
    ) -> Self {
        options.concurrency = options.concurrency.max(1);
        let limits = Limits {
            concurrency: options.concurrency as u64,
            window: options.window,
            evicts_staged: options.evict_staged,
            segment: options.segment.map(|segment| segment.max(1)),
            disk_patience: options.disk_patience,
        };
        let budget = options.budget.clone().unwrap_or_else(|| DiskBudget::new(&folder));
        let run = Arc::new(Run::new(source, folder, options, Queue::new(mode, limits, budget, plan)));
        let supervisor =
            Some(tokio::spawn(in_span!("download", { folder = %run.folder.display() }, supervise(run.clone()))));
        Self { run, supervisor }
    }

    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut Queue, &Arc<Run>) -> Option<T>,
    ) -> Poll<Option<T>> {
        self.run.consumer.register(context.waker());
        let mut queue = self.run.queue();
        if let Some(delivery) = take(&mut queue, &self.run) {
            drop(queue);
            // The window may have room again.
            self.run.news.notify_waiters();
            return Poll::Ready(Some(delivery));
        }
        if !queue.is_over() {
            return Poll::Pending;
        }
        drop(queue);
        let Some(supervisor) = &mut self.supervisor else { return Poll::Ready(None) };
        let ended = std::task::ready!(Pin::new(supervisor).poll(context));
        self.supervisor = None;
        // What is cut short by a panic must not look like one that is done.
        let panic = self.run.queue().panic.take();
        if let Some(panic) = panic.or_else(|| ended.err().and_then(|error| error.try_into_panic().ok())) {
            std::panic::resume_unwind(panic);
        }
        Poll::Ready(None)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.abort();
            self.run.end();
        }
    }
}

/// Runs the workers, and puts away what they leave.
async fn supervise(run: Arc<Run>) {
    // If the runtime ends before the work does, readers are not to wait for it.
    let mut last = Last(Some(run.clone()));
    let folder = run.folder.clone();
    // A folder that cannot be locked is one that cannot be used, which each file finds out for itself.
    let lock = blocking(&run, "", move || {
        let lock = FolderLock::of_staging(&folder)?;
        Ok((lock, leftovers::find(&folder)))
    })
    .await;
    run.lock(lock.map(|(lock, found)| {
        run.queue().left_over(found);
        lock
    }));
    let (finisher, finished) = Finisher::new();
    // Dropping a set aborts what is in it.
    let mut finishing = JoinSet::new();
    finishing.spawn(in_current_span!(finish_all(run.clone(), finished)));
    let mut workers = JoinSet::new();
    for _ in 0..run.options.concurrency {
        workers.spawn(in_current_span!(work(run.clone(), finisher.clone())));
    }
    drop(finisher);
    while let Some(ended) = workers.join_next().await {
        pass_on(&run, ended);
    }
    run.queue().is_deserted = true;
    run.changed();
    while let Some(ended) = finishing.join_next().await {
        pass_on(&run, ended);
    }
    let kept = run.queue().not_asked_for();
    for (name, bytes) in kept {
        run.event(&Event::Kept { name: &name, bytes });
    }
    let open = run.queue().open_places();
    for place in open {
        let save = run.queue().last_save(place);
        if let Some(Save { paths, part, record, turn }) = save {
            let name = record.key.clone();
            // If it fails, the record before it stays.
            let _ = blocking(&run, &name, move || {
                part.sync().and_then(|()| turn.take(|| paths.write_record(&record, true)))
            })
            .await;
        }
    }
    let source = run.source.clone();
    run.queue().interrupt(&|key| source.location(key));
    run.changed();
    last.0 = None;
}

/// Ends a run when it is dropped.
struct Last(Option<Arc<Run>>);

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(run) = &self.0 {
            run.end();
        }
    }
}

fn pass_on(run: &Run, ended: Result<(), tokio::task::JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        run.queue().panic = Some(panic);
        // Nobody does what that task was about.
        run.end();
    }
}
