use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulk_core::{
    Digest, ETag, Error as Cause, FetchedObject, ObjectBytes, ObjectOptions, Request, Source, fetch_objects,
};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::quarantine::{QuarantineReason, Quarantined};
use super::sink::SyncedObject;
use super::{Deletions, lock};
use crate::{Change, Error, ObjectRef, StretchDiff};

/// How many objects that have changed since they were listed are asked for a second time at once.
const SECOND_LOOKS: usize = 16;

/// What is to be stored or told.
pub(super) enum Work {
    /// A stretch in which there is nothing to do.
    Quiet(Arc<StretchDiff>),
    /// An object that came.
    Fetched(Place, SyncedObject),
    /// An object that cannot be had.
    Lost(Place, Quarantined),
    /// An object that is gone.
    Removed(Place),
    /// Nothing comes behind it.
    Failed(Error),
}

/// A change of a stretch.
#[derive(Clone)]
pub(super) struct Place {
    stretch: Arc<Open>,
    index: usize,
}

/// A stretch with changes that have not had their effect.
struct Open {
    diff: Arc<StretchDiff>,
    left: AtomicUsize,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn change(&self) -> Option<Change<'_>> {
        self.stretch.diff.change(self.index)
    }

    /// Counts the change as dealt with. Gives the stretch, if it was the last one of it.
    pub(super) fn finish(&self) -> Option<Arc<StretchDiff>> {
        let is_last = self.stretch.left.fetch_sub(1, Ordering::Relaxed) == 1;
        is_last.then(|| Arc::clone(&self.stretch.diff))
    }
}

/// The requests for what was added or modified. What needs none goes past them.
pub(super) struct Requests {
    stretches: BoxStream<'static, Result<StretchDiff, Error>>,
    deletions: Deletions,
    /// How many stretches may be open.
    open: Arc<Semaphore>,
    /// The stretch that requests are made of, and its next change.
    current: Option<(Arc<Open>, usize)>,
    work: mpsc::Sender<Work>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whose requests are under way, by their keys, of which none is in two stretches.
    asked: Mutex<HashMap<String, Place>>,
    /// Why there are no more stretches.
    failure: Mutex<Option<Error>>,
}

impl Requests {
    pub(super) fn new(
        stretches: BoxStream<'static, Result<StretchDiff, Error>>,
        deletions: Deletions,
        open: Arc<Semaphore>,
        work: mpsc::Sender<Work>,
    ) -> Self {
        Self { stretches, deletions, open, current: None, work, shared: Arc::default() }
    }

    /// Two tasks: one that makes requests, and one that fetches what they ask for and sends what becomes of them. Each waits
    /// for room in `work` on its own: a waiting one that was polled by the other would keep its turn from it for ever.
    pub(super) fn spawn(self, tasks: &mut JoinSet<()>, source: Arc<dyn Source>, options: ObjectOptions) {
        let (work, shared) = (self.work.clone(), self.shared.clone());
        let (requests, made) = mpsc::channel(1);
        tasks.spawn(self.make(requests));
        tasks.spawn(fetch(made, work, shared, source, options));
    }

    async fn make(mut self, requests: mpsc::Sender<Request>) {
        while let Some(request) = self.next().await {
            if requests.send(request).await.is_err() {
                break;
            }
        }
    }

    async fn next(&mut self) -> Option<Request> {
        loop {
            if let Some((stretch, next)) = &mut self.current {
                let place = Place { stretch: Arc::clone(stretch), index: *next };
                *next += 1;
                match place.change() {
                    Some(Change::Added(object) | Change::Modified { after: object, .. }) => {
                        let request = request(object);
                        lock(&self.shared.asked).insert(request.key.clone(), place.clone());
                        return Some(request);
                    }
                    Some(Change::Removed(_)) if self.deletions == Deletions::Ignore => {}
                    Some(Change::Removed(_)) => self.work.send(Work::Removed(place.clone())).await.ok()?,
                    None => self.current = None,
                }
                continue;
            }
            // It is never closed.
            let permit = Arc::clone(&self.open).acquire_owned().await.ok()?;
            let diff = match self.stretches.next().await? {
                Ok(mut diff) => {
                    diff.forget_unchanged();
                    Arc::new(diff)
                }
                Err(error) => {
                    *lock(&self.shared.failure) = Some(error);
                    return None;
                }
            };
            let is_ignored =
                |change: &Change<'_>| self.deletions == Deletions::Ignore && matches!(change, Change::Removed(_));
            let left = diff.changes().filter(|change| !is_ignored(change)).count();
            if left == 0 {
                self.work.send(Work::Quiet(diff)).await.ok()?;
            } else {
                self.current = Some((Arc::new(Open { diff, left: left.into(), _permit: permit }), 0));
            }
        }
    }
}

async fn fetch(
    requests: mpsc::Receiver<Request>,
    work: mpsc::Sender<Work>,
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    options: ObjectOptions,
) {
    let stop = options.stop.clone();
    let mut first = fetch_objects(source.clone(), received(requests), options.clone());
    let (again, asked_again) = mpsc::channel(SECOND_LOOKS);
    let mut second = fetch_objects(source.clone(), received(asked_again), options);
    let mut second_looks = 0;
    let mut is_over = false;
    while !is_over || second_looks > 0 {
        let (FetchedObject { request, outcome, .. }, is_second) = tokio::select! {
            fetched = second.next(), if second_looks > 0 => {
                second_looks -= 1;
                // None: it was told to stop.
                let Some(fetched) = fetched else { break };
                (fetched, true)
            }
            fetched = first.next(), if !is_over && second_looks < SECOND_LOOKS => {
                let Some(fetched) = fetched else {
                    is_over = true;
                    continue;
                };
                (fetched, false)
            }
        };
        if !is_second && matches!(outcome, Err(Cause::Changed { .. })) {
            // There is room: no more are sent than may be under way.
            if again.try_send(Request::new(request.key)).is_err() {
                break;
            }
            second_looks += 1;
            continue;
        }
        let Some(place) = lock(&shared.asked).remove(&request.key) else { continue };
        let message = match outcome {
            Ok(body) => Work::Fetched(place, object(request, body)),
            Err(error) => match QuarantineReason::of(error, &source.location("")) {
                Ok(reason) => {
                    let listed = match place.change() {
                        Some(Change::Added(object) | Change::Modified { after: object, .. }) => object.etag,
                        _ => None,
                    };
                    let etag = listed.map(ETag::new);
                    Work::Lost(place, Quarantined { key: request.key, etag, reason })
                }
                Err(error) => Work::Failed(error),
            },
        };
        let is_failure = matches!(message, Work::Failed(_));
        if work.send(message).await.is_err() || is_failure {
            return;
        }
    }
    let failure = lock(&shared.failure).take();
    // What was not begun is not done: that must not look like the end.
    let stopped = || stop.is_cancelled().then(|| Cause::Interrupted { location: source.location("") }.into());
    if let Some(failure) = failure.or_else(stopped) {
        // Who is gone does not want to know.
        let _ = work.send(Work::Failed(failure)).await;
    }
}

fn received(mut requests: mpsc::Receiver<Request>) -> impl Stream<Item = Request> + Send {
    stream::poll_fn(move |context| requests.poll_recv(context))
}

fn request(object: ObjectRef<'_>) -> Request {
    let mut request = Request::new(object.key);
    request.size = object.size;
    request.etag = object.etag.map(ETag::new);
    request.last_modified = object.last_modified;
    request
}

/// The version that came, as the answer describes it. What it leaves out is as in the listing, if it was asked for the version
/// that was listed. So is the time, which a listing has in milliseconds and an answer in seconds: it would differ ever after.
fn object(request: Request, body: ObjectBytes) -> SyncedObject {
    let sha256 = body.digests.iter().find_map(|digest| match digest {
        Digest::Sha256(sha256) => Some(*sha256),
        _ => None,
    });
    SyncedObject {
        key: request.key,
        etag: body.etag.clone().or(request.etag),
        last_modified: request.last_modified.or(body.last_modified),
        content: sha256.unwrap_or_else(|| unreachable!("it was asked for")),
        body,
    }
}
