use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::counted::counted;
use crate::meter::{StageMeter, Wait, WorkerMeter};
use crate::pace::Pace;
use crate::span::in_span;
use crate::{Algorithm, Body, Digest, ETag, Error, Event, Get, Hasher, Observer, Request, RetryPolicy, Source};

/// What memory is counted in.
const UNIT: u64 = 1024;
/// What is reserved for an object whose size nobody told.
const UNMEASURED: u64 = 1024 * 1024;
/// How many times as much is reserved next for one that had no room in that, and whose answer tells no size either.
const MORE: u64 = 8;

/// How objects are fetched into memory.
#[derive(Clone)]
#[non_exhaustive]
pub struct ObjectOptions {
    /// Requests under way at once. Default 64; 0 counts as 1.
    pub concurrency: usize,
    /// Bytes of objects that are being fetched or have not been dropped. A larger object fails with [`Error::TooLarge`].
    /// Default 64 MiB.
    pub budget: u64,
    /// Digests of each object to compute besides those that the source states, which are compared. Default none.
    pub digests: Vec<Algorithm>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Who is told of [retries](Event::Retry). Default nobody.
    pub observer: Arc<dyn Observer>,
    /// The meter of the stage that fetches, of which each object under way is a worker: it waits for
    /// [room in the budget](Wait::Budget), then for what the stage [states](StageMeter::wait), and works while it hashes.
    /// Its items are objects that came. Default none.
    pub meter: Option<StageMeter>,
    /// Cancel it to begin no more requests; those under way end as [`Error::Interrupted`]. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            budget: 64 * 1024 * 1024,
            digests: Vec::new(),
            retry: RetryPolicy::default(),
            observer: Arc::new(()),
            meter: None,
            stop: CancellationToken::new(),
        }
    }
}

/// What became of a request for a whole object.
#[derive(Debug)]
#[non_exhaustive]
pub struct FetchedObject {
    /// What was asked for.
    pub request: Request,
    /// The object, or why there is none.
    pub outcome: Result<ObjectBytes, Error>,
}

/// An object in memory. It counts against [`ObjectOptions::budget`] until it is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct ObjectBytes {
    /// All of it.
    pub bytes: Bytes,
    /// Its version, as the answer said.
    pub etag: Option<ETag>,
    /// When that version was made, by the server's clock.
    pub last_modified: Option<Timestamp>,
    /// The [digests](ObjectOptions::digests) that were asked for.
    pub digests: Vec<Digest>,
    _room: OwnedSemaphorePermit,
}

/// Fetches small objects by the thousand, whole, into memory, each in one request, and gives them as they come, in any
/// order. Those that name a version ([`Request::etag`]) are asked for under `If-Match`: an object that is another one by now
/// fails with [`Error::Changed`].
///
/// All requests slow down together where the server asks for it. What the source states of an object's content is compared
/// with it, as are its size and the [digests](Request::digests) that the request expects.
///
/// Requests are taken and sent as the stream is polled, and go on by themselves once they are sent. Memory is bounded by the
/// budget: who keeps objects to deal with several at a time must not wait for more of them to come, as none may come while
/// the budget is theirs: [`ready_chunks`](futures::StreamExt::ready_chunks) does not wait. Dropping the stream stops all
/// requests.
///
/// # Panics
///
/// If it is polled outside a tokio runtime.
pub fn fetch_objects<R>(
    source: Arc<dyn Source>,
    requests: R,
    options: ObjectOptions,
) -> BoxStream<'static, FetchedObject>
where
    R: Stream<Item = Request> + Send + 'static,
{
    let concurrency = options.concurrency.max(1);
    let budget =
        u32::try_from(options.budget.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS as u32);
    if let Some(meter) = &options.meter {
        meter.set_workers(concurrency);
    }
    let pace = Pace::new(concurrency, options.retry.timeout);
    let room = Arc::new(Semaphore::new(budget as usize));
    let fetcher = Arc::new(Fetcher { source, options, pace, room, budget });
    let stop = fetcher.options.stop.clone();
    requests
        .take_until(async move { stop.cancelled().await })
        .map(move |request| {
            let fetcher = fetcher.clone();
            let fetching = in_span!("object", { key = %request.key }, async move { fetcher.fetch(request).await });
            let task = tokio::spawn(fetching);
            async move {
                match AbortOnDropHandle::new(task).await {
                    Ok(fetched) => Some(fetched),
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime ends, and with it whoever would read this.
                        Err(_) => None,
                    },
                }
            }
        })
        .buffer_unordered(concurrency)
        .filter_map(std::future::ready)
        .boxed()
}

struct Fetcher {
    source: Arc<dyn Source>,
    options: ObjectOptions,
    pace: Pace,
    /// One permit for each [`UNIT`].
    room: Arc<Semaphore>,
    budget: u32,
}

impl Fetcher {
    async fn fetch(&self, request: Request) -> FetchedObject {
        let worker = self.options.meter.as_ref().map(StageMeter::worker);
        let outcome = tokio::select! {
            outcome = self.fetch_whole(&request, worker.as_ref()) => outcome,
            () = self.options.stop.cancelled() => {
                Err(Error::Interrupted { location: self.source.location(&request.key) })
            }
        };
        FetchedObject { request, outcome }
    }

    async fn fetch_whole(&self, request: &Request, worker: Option<&WorkerMeter>) -> Result<ObjectBytes, Error> {
        let location = || self.source.location(&request.key);
        let most = u64::from(self.budget) * UNIT;
        let mut size = request.size.unwrap_or(UNMEASURED.min(most));
        loop {
            let units = u32::try_from(size.div_ceil(UNIT)).ok().filter(|units| *units <= self.budget);
            let Some(units) = units else {
                return Err(Error::TooLarge { location: location(), size: Some(size), limit: most });
            };
            let room = waiting(worker, Wait::Budget, self.room.clone().acquire_many_owned(units)).await;
            // It is never closed.
            let room = room.map_err(|_| Error::Interrupted { location: location() })?;
            let on_retry = |attempt, delay, error: &Error| {
                self.options.observer.event(&Event::Retry { name: &request.key, attempt, delay, error });
            };
            let wait = self.options.meter.as_ref().map_or(Wait::Network, StageMeter::wait);
            let working = worker.map(|worker| (worker, wait));
            let attempt = || async { (self.attempt(request, u64::from(units) * UNIT, working).await, false) };
            match waiting(worker, wait, self.pace.retry(&self.options.retry, on_retry, attempt)).await {
                // It has more than was thought. What it holds is given back before more is asked for: two that wait for
                // each other would wait for ever.
                Err(Error::TooLarge { size: found, .. }) if request.size.is_none() && units < self.budget => {
                    size = found.unwrap_or_else(|| most.min(size * MORE));
                }
                Err(error) => return Err(error),
                Ok((bytes, etag, last_modified, digests)) => {
                    if let Some(worker) = worker {
                        worker.add(1, bytes.len() as u64);
                    }
                    return Ok(ObjectBytes { bytes, etag, last_modified, digests, _room: room });
                }
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        limit: u64,
        working: Option<(&WorkerMeter, Wait)>,
    ) -> Result<(Bytes, Option<ETag>, Option<Timestamp>, Vec<Digest>), Error> {
        let location = || self.source.location(&request.key);
        let changed = |what: String| Error::Changed { location: location(), what };
        let mut get = Get::new(&request.key);
        get.if_match.clone_from(&request.etag);
        let Body { size, etag, last_modified, digests: stated, bytes: mut body, .. } = self.source.get(&get).await?;
        if let (Some(wanted), Some(size)) = (request.size, size)
            && wanted != size
        {
            return Err(changed(format!("it had {} and has {size}", counted(wanted, "byte", "bytes"))));
        }
        let too_large = |size| Error::TooLarge { location: location(), size, limit };
        if size.is_some_and(|size| size > limit) {
            return Err(too_large(size));
        }
        let mut bytes = BytesMut::with_capacity(size.unwrap_or_default().try_into().unwrap_or_default());
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large(None));
            }
            bytes.extend_from_slice(&chunk);
        }
        let received = bytes.len() as u64;
        match (size, request.size) {
            (Some(expected), _) if expected != received => {
                return Err(Error::Truncated { location: location(), expected, received });
            }
            (None, Some(expected)) if expected != received => {
                return Err(changed(format!("it had {} and has {received}", counted(expected, "byte", "bytes"))));
            }
            _ => {}
        }
        let algorithms = |digests: &[Digest]| digests.iter().map(Digest::algorithm).collect::<Vec<_>>();
        let mut all = self.options.digests.clone();
        let computed = all.len();
        all.extend(algorithms(&stated).into_iter().chain(algorithms(&request.digests)));
        if let Some((worker, _)) = working {
            worker.wait_ends();
        }
        let mut hasher = Hasher::new(&all);
        hasher.update(&bytes);
        let mut found = hasher.finish();
        if let Some((worker, wait)) = working {
            worker.wait_begins(wait);
        }
        let compared = found.split_off(computed);
        for (expected, found) in stated.iter().zip(&compared) {
            if expected != found {
                let what = format!("the source states {expected}, and what came has {found}");
                return Err(Error::Corrupt { location: location(), what });
            }
        }
        for (expected, found) in request.digests.iter().zip(&compared[stated.len()..]) {
            if expected != found {
                let (expected, found) = (*expected, *found);
                return Err(Error::Unexpected { name: request.key.clone(), expected, found });
            }
        }
        Ok((bytes.freeze(), etag, last_modified, found))
    }
}

/// What a worker waits for until that is there, if it is metered.
async fn waiting<F: Future>(worker: Option<&WorkerMeter>, wait: Wait, future: F) -> F::Output {
    match worker {
        Some(worker) => worker.waiting(wait, future).await,
        None => future.await,
    }
}
