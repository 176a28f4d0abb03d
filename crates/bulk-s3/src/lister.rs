use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bulk_core::{Pace, StageMeter, Wait, WorkerMeter};
use futures::Stream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::list::{Cursor, Fetched};
use crate::ranges::{Lane, Ranges};
use crate::span::in_span;
use crate::{Batch, Bucket, Error, KeyFilter, KeyRange};

/// Pages that wait for the reader beside the one that each connection has in hand.
const UNREAD: usize = 8;

/// What of a bucket is listed, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListOptions {
    /// What keys begin with. Default: nothing.
    pub prefix: String,
    /// Which stretches of the key space; they may not overlap. Default: all of it. A listing that goes on where another one
    /// ended has the stretches that it left.
    pub ranges: Vec<KeyRange>,
    /// Which keys are wanted; the others are counted. Default: all.
    pub filter: KeyFilter,
    /// How many pages are asked for at a time, at most. 0 counts as 1. Default 32.
    pub connections: usize,
    /// The meter of this stage. Its workers are the connections, which wait for what the stage [states](StageMeter::wait)
    /// from a request to the end of its answer, and work while they read that; its items are keys, its bytes those of the
    /// answers. Default none.
    pub meter: Option<StageMeter>,
}

impl Default for ListOptions {
    fn default() -> Self {
        let (ranges, filter) = (vec![KeyRange::all()], KeyFilter::all());
        Self { prefix: String::new(), ranges, filter, connections: 32, meter: None }
    }
}

/// A page of a listing: what there is in a stretch of the key space.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The stretch. Those of all pages together are the stretches that were asked for, and none overlaps another.
    pub range: KeyRange,
    /// The objects in it that the filter means, all of them, in the order of their keys.
    pub objects: Batch,
    /// How many keys there are in it, whatever the filter means.
    pub keys: u64,
    /// Which run through the key space it belongs to: the pages of one come in order, each beginning where the last ends.
    pub lane: u64,
    /// Whether it is the last one of its lane.
    pub is_last: bool,
}

impl Bucket {
    /// Lists over several connections at once. Pages come as they arrive; each says which stretch of the key space it is, so
    /// their order does not matter to what takes each of them by itself.
    ///
    /// The key space is cut while it is listed: a connection without work takes over what is behind a cut through the range
    /// that seems to have most before it. Where keys are is unknown, so a cut is a guess; one with no keys behind it costs
    /// one request. One request is made for each 1,000 keys, and one more at most for each cut.
    ///
    /// The listing runs on the caller's tokio runtime, ahead of the reader by a page for each connection and eight more at most.
    /// Dropping the stream stops it.
    ///
    /// # Errors
    ///
    /// An item that is an error is the last one: a request that failed for good ([`Error::Request`]), or an answer that is no
    /// listing or contradicts itself ([`Error::Listing`]): a key that does not sort behind the one before it, a page that
    /// names no next one though it says that there is one, a page that names itself, more than 1,000 pages without keys.
    pub fn pages(&self, options: ListOptions) -> Pages {
        let connections = options.connections.max(1);
        let ranges = Ranges::new(&options.prefix, options.ranges, connections);
        let shared = Arc::new(Shared {
            bucket: self.clone(),
            pace: Pace::sparing(connections, self.retry.timeout),
            prefix: options.prefix,
            filter: options.filter,
            ranges: Mutex::new(ranges),
            changed: Notify::new(),
        });
        let (sender, pages) = mpsc::channel(UNREAD.min(connections));
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            let (shared, sender) = (shared.clone(), sender.clone());
            let worker = Worker::new(options.meter.as_ref());
            workers.spawn(async move {
                if let Err(error) = shared.work(&sender, &worker).await {
                    // Nobody reads any more, or this is the last that is read.
                    let _ = sender.send(Err(error)).await;
                }
            });
        }
        Pages { pages, workers, has_failed: false, location: self.location_of_bucket() }
    }
}

/// The pages of a listing over several connections: see [`Bucket::pages`].
#[must_use = "a listing stops when this is dropped"]
pub struct Pages {
    pages: mpsc::Receiver<Result<Page, Error>>,
    workers: JoinSet<()>,
    has_failed: bool,
    location: String,
}

/// The runtime stopped.
pub(crate) fn interrupted(location: &str) -> Error {
    bulk_core::Error::Interrupted { location: location.to_owned() }.into()
}

impl Stream for Pages {
    type Item = Result<Page, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        let item = self.pages.poll_recv(context);
        match &item {
            Poll::Ready(Some(Ok(_))) => return item,
            Poll::Ready(Some(Err(_))) => {
                self.has_failed = true;
                self.workers.abort_all();
                return item;
            }
            // All workers have let go of their ends, or one may have done so by a panic: the others wait for what it was at.
            Poll::Ready(None) | Poll::Pending => {}
        }
        while let Poll::Ready(Some(ended)) = self.workers.poll_join_next(context) {
            if let Err(error) = ended {
                self.has_failed = true;
                match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Poll::Ready(Some(Err(interrupted(&self.location)))),
                }
            }
        }
        if item.is_ready() && !self.workers.is_empty() {
            return Poll::Pending;
        }
        item
    }
}

/// A connection, as it is metered.
struct Worker {
    meter: Option<WorkerMeter>,
    /// What it waits for between a request and the end of its answer.
    wait: Wait,
}

impl Worker {
    fn new(stage: Option<&StageMeter>) -> Self {
        Self { meter: stage.map(StageMeter::worker), wait: stage.map_or(Wait::Network, StageMeter::wait) }
    }

    /// What it waits for until that is there, if it is metered.
    async fn waiting<F: Future>(&self, wait: Wait, future: F) -> F::Output {
        match &self.meter {
            Some(meter) => meter.waiting(wait, future).await,
            None => future.await,
        }
    }

    fn add(&self, keys: u64, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.add(keys, bytes as u64);
        }
    }
}

struct Shared {
    bucket: Bucket,
    pace: Pace,
    prefix: String,
    filter: KeyFilter,
    ranges: Mutex<Ranges>,
    /// Wakes one worker that has no range.
    changed: Notify,
}

impl Shared {
    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists range after range until none is left.
    async fn work(&self, sender: &mpsc::Sender<Result<Page, Error>>, worker: &Worker) -> Result<(), Error> {
        while let Some((lane, range)) = worker.waiting(Wait::Input, self.take()).await {
            self.list(lane, range, sender, worker).await?;
        }
        Ok(())
    }

    /// A range; `None` when all is listed.
    async fn take(&self) -> Option<(Lane, KeyRange)> {
        loop {
            let changed = self.changed.notified();
            let (taken, is_done) = {
                let mut ranges = self.ranges();
                (ranges.take(), ranges.is_done())
            };
            if taken.is_some() {
                // There may be more for another.
                self.changed.notify_one();
                return taken;
            }
            if is_done {
                self.changed.notify_one();
                return None;
            }
            changed.await;
        }
    }

    async fn list(
        &self,
        lane: Lane,
        range: KeyRange,
        sender: &mpsc::Sender<Result<Page, Error>>,
        worker: &Worker,
    ) -> Result<(), Error> {
        let mut cursor = Cursor::new(self.bucket.clone(), &self.prefix, range.after, self.pace.clone());
        loop {
            let body = in_span!("page", { prefix = %self.prefix }, worker.waiting(worker.wait, cursor.fetch())).await?;
            let fetched = match cursor.read(&body, &self.filter)? {
                Fetched::Page(page) => page,
                Fetched::Again => continue,
                Fetched::FromTheStart if self.ranges().give_back(lane) => return Ok(()),
                Fetched::FromTheStart => {
                    cursor.skip();
                    continue;
                }
            };
            let bytes = body.len();
            drop(body);
            let advanced =
                self.ranges().advance(lane, fetched.first.as_deref(), fetched.last.as_deref(), fetched.has_more);
            let Some((range, goes_on)) = advanced else { return Ok(()) };
            self.changed.notify_one();
            let Some(range) = range else { continue };
            let page = fetched.within(range, lane.0, !goes_on);
            worker.add(page.keys, bytes);
            if worker.waiting(Wait::Output, sender.send(Ok(page))).await.is_err() || !goes_on {
                return Ok(());
            }
        }
    }
}
