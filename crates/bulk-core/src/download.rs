use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::part::{Part, Prepared, Version};
use crate::{ETag, Error, Event, Get, Observer, Request, RetryPolicy, Source, retry};

/// Bytes between two syncs of a part: what a kill can cost.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;
/// Bytes that are gathered before a write.
const WRITE_BUFFER: usize = 1024 * 1024;
/// The window is counted in these.
const WINDOW_UNIT: u64 = 1024 * 1024;
/// Finished small files that may wait for the one in front, whatever the window.
const WAITING_FILES: usize = 1024;
/// How often an object may change under us before it counts as failed.
const MAX_RESTARTS: u32 = 3;

/// The knobs of [`download`].
#[derive(Clone)]
#[non_exhaustive]
pub struct DownloadOptions {
    /// Files fetched at once, each over one connection. Default 8; 0 counts as 1.
    pub concurrency: usize,
    /// Bytes of files begun, but not yet delivered: how far work may run ahead of the reader, and so how much disk it
    /// takes. A file larger than that runs alone. Default 64 GiB.
    pub window: u64,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
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
            retry: RetryPolicy::default(),
            observer: Arc::new(()),
            stop: CancellationToken::new(),
        }
    }
}

/// A file that is whole, synced and under its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StagedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The version that was fetched, which is newer than the request's if the object changed in between.
    pub etag: Option<ETag>,
    /// Bytes that came from the source in this run: less than `size` after a resume, 0 if the file was there.
    pub fetched: u64,
}

/// One file of the plan, in its place: staged, or the reason why not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The file's place in the plan, from 0. Deliveries come with places 0, 1, 2 …
    pub place: u64,
    /// What was asked for.
    pub request: Request,
    /// What became of it. A failure does not end the stream.
    pub outcome: Result<StagedFile, Error>,
}

/// Fetches `plan` into `folder` and delivers its files in the plan's order.
///
/// The plan is read as work proceeds, so it may be endless. Work starts with the call and goes on in tasks of the current
/// tokio runtime, ahead of the reader by `options.window` bytes. A file that is there already, in the version asked for,
/// is delivered without being fetched; a part that an earlier run left is resumed, under `If-Match`, and begun anew if
/// the object changed. Names must be unique within the plan.
///
/// Dropping the [`Download`] stops all work, without waiting for a file operation that is under way; parts stay for the
/// next run, which fetches at most the last 32 MiB of each again. [`DownloadOptions::stop`] is the gentle way.
///
/// # Panics
///
/// Outside a tokio runtime. A panic of `plan`'s iterator is passed on by the stream, after the files before it.
pub fn download<P>(source: Arc<dyn Source>, plan: P, folder: impl Into<PathBuf>, options: DownloadOptions) -> Download
where
    P: IntoIterator<Item = Request>,
    P::IntoIter: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_FILES);
    let shared = Arc::new(Shared { source, folder: folder.into(), options });
    let scheduler = tokio::spawn(schedule(shared, plan.into_iter(), sender));
    Download { receiver, front: None, place: 0, scheduler: Some(scheduler) }
}

/// The stream of [`Delivery`]s that [`download`] returns.
pub struct Download {
    receiver: mpsc::Receiver<Pending>,
    front: Option<Pending>,
    place: u64,
    /// `None` once it has ended.
    scheduler: Option<JoinHandle<()>>,
}

impl Stream for Download {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if self.front.is_none() {
            match std::task::ready!(self.receiver.poll_recv(context)) {
                Some(pending) => self.front = Some(pending),
                None => {
                    let Some(scheduler) = &mut self.scheduler else { return Poll::Ready(None) };
                    let ended = std::task::ready!(Pin::new(scheduler).poll(context));
                    self.scheduler = None;
                    // A plan that is cut short by a panic must not look like one that is done.
                    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                        std::panic::resume_unwind(panic);
                    }
                    return Poll::Ready(None);
                }
            }
        }
        let Some(pending) = &mut self.front else { return Poll::Ready(None) };
        let outcome = std::task::ready!(Pin::new(&mut pending.outcome).poll(context));
        let request = pending.request.clone();
        // The file's share of the window is given back here.
        self.front = None;
        let place = self.place;
        self.place += 1;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::Interrupted { location: request.key.clone() }));
        Poll::Ready(Some(Delivery { place, request, outcome }))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.abort();
        }
    }
}

/// A file whose turn has come or will come.
struct Pending {
    request: Request,
    outcome: oneshot::Receiver<Result<StagedFile, Error>>,
    _window: OwnedSemaphorePermit,
}

struct Shared {
    source: Arc<dyn Source>,
    folder: PathBuf,
    options: DownloadOptions,
}

async fn schedule(shared: Arc<Shared>, plan: impl Iterator<Item = Request>, deliveries: mpsc::Sender<Pending>) {
    let units = u32::try_from(shared.options.window / WINDOW_UNIT).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
    let window = Arc::new(Semaphore::new(units as usize));
    let connections = Arc::new(Semaphore::new(shared.options.concurrency.max(1)));
    let running = Arc::new(std::sync::Mutex::new(HashSet::new()));
    // Aborting this task drops the set, and that aborts the downloads.
    let mut tasks = JoinSet::new();
    let stop = shared.options.stop.clone();
    for request in plan {
        let share = u32::try_from(request.size.unwrap_or(0).div_ceil(WINDOW_UNIT)).unwrap_or(u32::MAX).clamp(1, units);
        let admitted = async {
            let window = window.clone().acquire_many_owned(share).await;
            (window, connections.clone().acquire_owned().await)
        };
        let (window, connection) = match stop.run_until_cancelled(admitted).await {
            // Both may come at once.
            Some((Ok(window), Ok(connection))) if !stop.is_cancelled() => (window, connection),
            // Neither semaphore is ever closed.
            _ => break,
        };
        while tasks.try_join_next().is_some() {}
        let (sender, outcome) = oneshot::channel();
        let (shared, running, task_request) = (shared.clone(), running.clone(), request.clone());
        tasks.spawn(async move {
            let outcome = match Claim::new(&running, &task_request.name) {
                Some(_claim) => fetch(&shared, &task_request).await,
                None => Err(Error::Name {
                    name: task_request.name.clone(),
                    reason: "another file of the plan has that name",
                }),
            };
            match &outcome {
                Ok(_) | Err(Error::Interrupted { .. }) => {}
                Err(error) => shared.options.observer.event(&Event::Failed { name: &task_request.name, error }),
            }
            drop(connection);
            // The reader may be gone.
            let _ = sender.send(outcome);
        });
        if deliveries.send(Pending { request, outcome, _window: window }).await.is_err() {
            return;
        }
    }
    drop(deliveries);
    while tasks.join_next().await.is_some() {}
}

/// A name in use by a running download; two of one name would write one part.
struct Claim<'a> {
    running: &'a std::sync::Mutex<HashSet<String>>,
    name: &'a str,
}

impl<'a> Claim<'a> {
    fn new(running: &'a std::sync::Mutex<HashSet<String>>, name: &'a str) -> Option<Self> {
        let inserted = running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.to_owned());
        inserted.then_some(Self { running, name })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(self.name);
    }
}

/// Brings one file to its final name, over as many attempts and versions as allowed.
async fn fetch(shared: &Shared, request: &Request) -> Result<StagedFile, Error> {
    let started = Instant::now();
    let observer = &*shared.options.observer;
    let name = request.name.as_str();
    let (folder, wanted) = (shared.folder.clone(), request.clone());
    let prepared = blocking(name, move || Part::prepare(&folder, &wanted)).await?;
    let (part, discarded) = match prepared {
        Prepared::Part { part, discarded } => (part, discarded),
        Prepared::Whole(version) => {
            let size = version.size.unwrap_or(0);
            observer.event(&Event::Started { name, size: Some(size), resumed: size });
            observer.event(&Event::Finished { name, size, fetched: 0, elapsed: started.elapsed() });
            return Ok(StagedFile { path: shared.folder.join(name), size, etag: version.etag, fetched: 0 });
        }
    };
    observer.event(&Event::Started { name, size: request.size, resumed: part.len });
    if let Some((reason, discarded)) = discarded {
        observer.event(&Event::Restarted { name, reason, discarded });
    }
    let stop = &shared.options.stop;
    let transfer = Transfer {
        source: &*shared.source,
        observer,
        request,
        stop,
        part: Mutex::new(part),
        fetched: AtomicU64::new(0),
    };
    let mut restarts = 0;
    // Whether the object may still be the one that was listed.
    let mut is_listed = true;
    loop {
        let on_retry = |attempt, delay, error: &Error| observer.event(&Event::Retry { name, attempt, delay, error });
        let attempts = retry(&shared.options.retry, on_retry, || transfer.attempt(is_listed));
        // An attempt sees for itself that it is to stop, and holds the part as long. This ends the waiting between two.
        let stopped = async {
            stop.cancelled().await;
            drop(transfer.part.lock().await);
        };
        let result = tokio::select! {
            biased;
            result = attempts => result,
            () = stopped => Err(transfer.interrupted()),
        };
        match result {
            Ok(()) => break,
            Err(Error::Changed { what, .. }) if restarts < MAX_RESTARTS => {
                restarts += 1;
                is_listed = false;
                let mut part = transfer.part.lock().await;
                observer.event(&Event::Restarted { name, reason: &what, discarded: part.len });
                part.restart()?;
            }
            Err(error) => return Err(error),
        }
    }
    let fetched = transfer.fetched.into_inner();
    let part = transfer.part.into_inner();
    let (size, etag) = (part.len, part.version.as_ref().and_then(|version| version.etag.clone()));
    let path = blocking(name, move || part.persist()).await?;
    observer.event(&Event::Finished { name, size, fetched, elapsed: started.elapsed() });
    Ok(StagedFile { path, size, etag, fetched })
}

/// One file on its way.
struct Transfer<'a> {
    source: &'a dyn Source,
    observer: &'a dyn Observer,
    request: &'a Request,
    stop: &'a CancellationToken,
    part: Mutex<Part>,
    fetched: AtomicU64,
}

impl Transfer<'_> {
    /// One request, from the part's end to the object's end; tells whether any byte of it was kept.
    async fn attempt(&self, is_listed: bool) -> (Result<(), Error>, bool) {
        let mut part = self.part.lock().await;
        let before = part.len;
        let result = self.run(&mut part, is_listed).await;
        (result, part.len > before)
    }

    async fn run(&self, part: &mut Part, is_listed: bool) -> Result<(), Error> {
        if part.version.as_ref().is_some_and(|version| version.size == Some(part.len)) {
            return Ok(());
        }
        let restarted = |reason, discarded| {
            self.observer.event(&Event::Restarted { name: &self.request.name, reason, discarded });
        };
        if part.len > 0 && !part.version.as_ref().is_some_and(Version::is_checkable) {
            restarted("the server names no version", part.len);
            part.restart()?;
        }
        let known = part.version.as_ref();
        let (listed_etag, listed_size) = match is_listed {
            true => (self.request.etag.as_ref(), self.request.size),
            false => (None, None),
        };
        let mut get = Get::new(&self.request.key);
        get.start = part.len;
        get.if_match = known.and_then(|version| version.etag.as_ref()).or(listed_etag).cloned();
        let body = self.stop.run_until_cancelled(self.source.get(&get)).await.ok_or_else(|| self.interrupted())??;
        if let Some(reason) = known.and_then(|version| version.mismatch_body(&body)) {
            return Err(self.changed(reason));
        }
        if let (Some(listed), Some(found)) = (listed_size, body.size)
            && listed != found
        {
            return Err(self.changed(format!("it was listed with {listed} bytes and has {found}")));
        }
        if body.start != part.len {
            if body.start != 0 {
                let what = format!("asked for bytes from {}, got them from {}", part.len, body.start);
                return Err(Error::Protocol { location: self.location(), what });
            }
            restarted("the server sends no ranges", part.len);
            part.restart()?;
        }
        match &mut part.version {
            Some(version) => version.size = version.size.or(body.size),
            None => {
                part.version = Some(Version::of(&self.request.key, &body));
                part.write_sidecar()?;
            }
        }
        let result = self.write(part, listed_size, body).await;
        if let (Ok(()), Some(version)) = (&result, &mut part.version) {
            // A body without a length is whole when its connection ends cleanly; its size is known only now.
            version.size = Some(part.len);
        }
        // Also after a failure: it may be the last attempt of this run, and the next one resumes behind it.
        result.and(part.write_sidecar())
    }

    /// Appends the body to the part. `part.len` counts what is safe in the file, also when the body breaks off.
    async fn write(&self, part: &mut Part, listed_size: Option<u64>, body: crate::Body) -> Result<(), Error> {
        let path = part.path().to_owned();
        let failed = |error| Error::io("write", &path, error);
        let announced = part.version.as_ref().and_then(|version| version.size);
        let mut file = BufWriter::with_capacity(WRITE_BUFFER, tokio::fs::File::from_std(part.open()?));
        let mut received = part.len;
        let mut bytes = body.bytes;
        let result = loop {
            let chunk = match self.stop.run_until_cancelled(bytes.next()).await {
                None => break Err(self.interrupted()),
                Some(None) => break Ok(()),
                Some(Some(Ok(chunk))) => chunk,
                Some(Some(Err(error))) => break Err(error),
            };
            if announced.is_some_and(|size| received + chunk.len() as u64 > size) {
                let what = "it sends more bytes than it announced".to_owned();
                break Err(Error::Protocol { location: self.location(), what });
            }
            file.write_all(&chunk).await.map_err(failed)?;
            received += chunk.len() as u64;
            self.fetched.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.observer.event(&Event::Progress { name: &self.request.name, bytes: chunk.len() as u64 });
            if received - part.len >= SYNC_EVERY {
                file.flush().await.map_err(failed)?;
                file.get_ref().sync_data().await.map_err(failed)?;
                part.advance(received)?;
            }
        };
        file.flush().await.map_err(failed)?;
        file.get_ref().sync_data().await.map_err(failed)?;
        part.advance(received)?;
        result?;
        match announced.or(listed_size) {
            Some(expected) if received < expected => {
                Err(Error::Truncated { location: self.location(), expected, received })
            }
            Some(listed) if received > listed => {
                Err(self.changed(format!("it was listed with {listed} bytes and has {received}")))
            }
            _ => Ok(()),
        }
    }

    fn location(&self) -> String {
        self.source.location(&self.request.key)
    }

    fn interrupted(&self) -> Error {
        Error::Interrupted { location: self.location() }
    }

    fn changed(&self, what: String) -> Error {
        Error::Changed { location: self.location(), what }
    }
}

/// Runs file system work that may take long where it stalls no connection.
async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let interrupted = |_| Error::Interrupted { location: name.to_owned() };
    tokio::task::spawn_blocking(work).await.map_err(interrupted)?
}
