use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bulk_core::{InputState, MeteredStream, StageMeter};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::{Batch, Change, Compare, Error, KeyFilter, KeyRange, KnownObjects, ObjectRef, OutOfOrder, Page, diff};

/// Known objects that are read at a time, and the most that a piece has.
const SCAN: usize = 1000;
/// For how many lanes at most what was read beyond a page is kept.
const LANES: usize = 128;

/// What of a listing is compared with what is known, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiffOptions {
    /// What keys begin with: the listing's [prefix](crate::ListOptions::prefix). Default: nothing.
    pub prefix: String,
    /// Which objects are compared: the listing's [filter](crate::ListOptions::filter). Default: all.
    pub filter: KeyFilter,
    /// What makes an object another one. Default: its ETag.
    pub compare: Compare,
    /// When the listing was made, by the bucket's clock, if it is older than what is known may be, as an inventory is. An
    /// object that is known to be younger is taken as it is known, whatever the listing says. Default: it is of now.
    pub as_of: Option<Timestamp>,
    /// How many pages are compared at a time: while the store answers one, others are merged. 1 keeps them in the order in
    /// which they come; 0 counts as 1. Default 8.
    pub concurrency: usize,
    /// The meter of this stage, as of a [`MeteredStream`]: what it [states](StageMeter::wait) is what it waits for while the
    /// store is read. Its items are keys. Default none.
    pub meter: Option<StageMeter>,
}

impl Default for DiffOptions {
    fn default() -> Self {
        let (filter, compare) = (KeyFilter::all(), Compare::Etag);
        Self { prefix: String::new(), filter, compare, as_of: None, concurrency: 8, meter: None }
    }
}

/// The changes in a stretch of the key space.
#[derive(Debug)]
#[non_exhaustive]
pub struct StretchDiff {
    /// The stretch. Those of all items together are the stretches that were asked for, and none overlaps another.
    pub range: KeyRange,
    /// How many keys the bucket has in it, whatever the filter means.
    pub keys: u64,
    /// How many objects are as they were known.
    pub unchanged: u64,
    listed: Batch,
    known: Batch,
    changes: Vec<Side>,
}

/// Where the two versions of an object that has changed stand.
#[derive(Clone, Copy, Debug)]
enum Side {
    Listed(usize),
    Known(usize),
    Both { listed: usize, known: usize },
}

impl StretchDiff {
    /// The changes, in the order of their keys.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = Change<'_>> {
        self.changes.iter().map(|side| self.show(*side))
    }

    /// The change at `index`, from 0.
    pub(crate) fn change(&self, index: usize) -> Option<Change<'_>> {
        self.changes.get(index).map(|side| self.show(*side))
    }

    /// Lets go of the objects that have no change.
    pub(crate) fn forget_unchanged(&mut self) {
        let (mut listed, mut known) = (Batch::new(), Batch::new());
        let keep = |from: &Batch, to: &mut Batch, index: &mut usize| {
            to.push(at(from, *index));
            *index = to.len() - 1;
        };
        for side in &mut self.changes {
            match side {
                Side::Listed(index) => keep(&self.listed, &mut listed, index),
                Side::Known(index) => keep(&self.known, &mut known, index),
                Side::Both { listed: listed_index, known: known_index } => {
                    keep(&self.listed, &mut listed, listed_index);
                    keep(&self.known, &mut known, known_index);
                }
            }
        }
        (self.listed, self.known) = (listed, known);
    }

    fn show(&self, side: Side) -> Change<'_> {
        match side {
            Side::Listed(listed) => Change::Added(at(&self.listed, listed)),
            Side::Known(known) => Change::Removed(at(&self.known, known)),
            Side::Both { listed, known } => {
                Change::Modified { before: at(&self.known, known), after: at(&self.listed, listed) }
            }
        }
    }

    fn new(range: KeyRange, keys: u64, listed: Batch, known: Batch, merge: &Merge) -> Result<Self, OutOfOrder> {
        let mut changes = Vec::new();
        let mut younger = 0;
        let (mut next_listed, mut next_known) = (0, 0);
        let mut found = diff(listed.iter(), known.iter(), merge.compare);
        for change in found.by_ref() {
            let change = change?;
            if merge.is_younger(&change) {
                younger += 1;
                continue;
            }
            // Where a change stands is found again from the front: both sides are sorted.
            let key = change.key();
            let find = |batch: &Batch, next: &mut usize| {
                while batch.get(*next).is_some_and(|object| object.key < key) {
                    *next += 1;
                }
                batch.get(*next).is_some_and(|object| object.key == key).then_some(*next)
            };
            changes.extend(match (find(&listed, &mut next_listed), find(&known, &mut next_known)) {
                (Some(listed), Some(known)) => Some(Side::Both { listed, known }),
                (Some(listed), None) => Some(Side::Listed(listed)),
                (None, Some(known)) => Some(Side::Known(known)),
                (None, None) => None,
            });
        }
        let unchanged = found.unchanged() + younger;
        drop(found);
        Ok(Self { range, keys, unchanged, listed, known, changes })
    }
}

fn at(batch: &Batch, index: usize) -> ObjectRef<'_> {
    batch.get(index).unwrap_or_else(|| unreachable!("the place of a change was taken from this batch"))
}

/// Compares the pages of a listing, such as [`Bucket::pages`](crate::Bucket::pages), with what is known, stretch by stretch.
/// Memory grows neither with the listing nor with the store.
///
/// An item is whole in itself: once its changes have been dealt with, its [`range`](StretchDiff::range) is done, and a later
/// comparison may leave it out. The filter must be that of the listing: what only one side leaves out counts as added or
/// removed.
///
/// Dropping the stream drops the listing.
///
/// ```
/// use std::sync::Arc;
///
/// use bulk_s3::{Bucket, BucketOptions, Change, DiffOptions, KnownChange, KnownObjects, MemoryKnown, ObjectRef};
/// use bulk_s3::{ListOptions, diff_pages};
/// use futures::TryStreamExt;
///
/// # let store = [("a.json", "{}"), ("b.json", "[]")].into_iter().collect();
/// # let server = bulk_testkit::s3::Server::builder().bucket("my-bucket", store).start().unwrap();
/// # let mut options = BucketOptions::default();
/// # options.endpoint = Some(server.url());
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let known = Arc::new(MemoryKnown::new());
/// let (mut b, mut c) = (ObjectRef::new("b.json"), ObjectRef::new("c.json"));
/// (b.etag, c.etag) = (Some("another version"), Some("1"));
/// known.apply(&[KnownChange::Set(b), KnownChange::Set(c)]).await?;
///
/// let bucket = Bucket::new("my-bucket", options)?;
/// let mut stretches = diff_pages(bucket.pages(ListOptions::default()), known, DiffOptions::default());
/// let mut found = Vec::new();
/// while let Some(stretch) = stretches.try_next().await? {
///     found.extend(stretch.changes().map(|change| match change {
///         Change::Added(object) => format!("+ {}", object.key),
///         Change::Modified { after, .. } => format!("! {}", after.key),
///         Change::Removed(object) => format!("- {}", object.key),
///     }));
/// }
/// found.sort();
/// assert_eq!(found, ["! b.json", "+ a.json", "- c.json"]);
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// An item that is an error is the last one: those of the listing, [`Error::Known`] if the store cannot be read, and
/// [`Error::OutOfOrder`] if listing or store do not sort their keys by their bytes.
///
/// # Panics
///
/// If it is polled outside a tokio runtime.
pub fn diff_pages<S>(pages: S, known: Arc<dyn KnownObjects>, options: DiffOptions) -> StretchDiffs
where
    S: Stream<Item = Result<Page, Error>> + Send + 'static,
{
    let concurrency = options.concurrency.max(1);
    let merge = Arc::new(Merge {
        known,
        prefix: options.prefix,
        filter: options.filter,
        compare: options.compare,
        as_of: options.as_of,
        ahead: Mutex::default(),
    });
    let input = InputState::default();
    let pages = input.watch(pages.boxed());
    let stretches = pages.map_ok(move |page| pieces(merge.clone(), page));
    let stretches = if concurrency == 1 {
        stretches.try_flatten().boxed()
    } else {
        stretches.try_flatten_unordered(concurrency).boxed()
    };
    let stretches = match &options.meter {
        Some(meter) => MeteredStream::new(stretches, meter, input, |stretch: &StretchDiff| (stretch.keys, 0)).boxed(),
        None => stretches,
    };
    StretchDiffs { stretches: Some(stretches) }
}

/// A comparison that is under way: see [`diff_pages`].
#[must_use = "a comparison stops when this is dropped"]
pub struct StretchDiffs {
    stretches: Option<BoxStream<'static, Result<StretchDiff, Error>>>,
}

impl Stream for StretchDiffs {
    type Item = Result<StretchDiff, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stretches) = &mut self.stretches else { return Poll::Ready(None) };
        let item = std::task::ready!(stretches.poll_next_unpin(context));
        if !matches!(item, Some(Ok(_))) {
            self.stretches = None;
        }
        Poll::Ready(item)
    }
}

struct Merge {
    known: Arc<dyn KnownObjects>,
    prefix: String,
    filter: KeyFilter,
    compare: Compare,
    as_of: Option<Timestamp>,
    /// For each lane, what was read of the store beyond its last page.
    ahead: Mutex<HashMap<u64, Ahead>>,
}

/// Known objects that were read, and are not compared yet.
struct Ahead {
    /// The key that they follow.
    after: Option<String>,
    objects: Batch,
    /// The first one that is not compared.
    next: usize,
    /// Whether the store has no more behind them.
    is_all: bool,
}

/// A page in pieces, none of which has more than [`SCAN`] known objects.
fn pieces(merge: Arc<Merge>, page: Page) -> BoxStream<'static, Result<StretchDiff, Error>> {
    let lane = page.lane;
    let is_last = page.is_last;
    let taken = merge.lock().remove(&lane).filter(|ahead| ahead.after == page.range.after);
    let ahead = taken.unwrap_or_else(|| Ahead {
        after: page.range.after.clone(),
        objects: Batch::new(),
        next: 0,
        is_all: false,
    });
    let state = Some((page, ahead));
    futures::stream::try_unfold((merge, state), move |(merge, state)| async move {
        let Some((page, mut ahead)) = state else { return Ok(None) };
        let (known, end) = merge.read(&mut ahead, &page.range).await?;
        let Some(end) = end else {
            if !is_last {
                let mut kept = merge.lock();
                // Pages of a lane are compared side by side, so what was read for one may stay behind.
                if kept.len() >= LANES {
                    kept.clear();
                }
                kept.insert(lane, ahead);
            }
            let piece = StretchDiff::new(page.range, page.keys, page.objects, known, &merge)?;
            return Ok(Some((piece, (merge, None))));
        };
        // What of the page is behind the piece comes with the next one; its keys are counted once.
        let (front, back) = page.range.clone().split_behind(&end);
        let cut = page.objects.iter().take_while(|object| object.key <= end.as_str()).count();
        let rest: Batch = page.objects.iter().skip(cut).collect();
        let mut listed = page.objects;
        listed.truncate(cut);
        let piece = StretchDiff::new(front, 0, listed, known, &merge)?;
        let page = Page { range: back, objects: rest, keys: page.keys, lane, is_last };
        Ok(Some((piece, (merge, Some((page, ahead))))))
    })
    .boxed()
}

impl Merge {
    /// Whether it is about an object that is known in a version that the listing cannot have.
    fn is_younger(&self, change: &Change<'_>) -> bool {
        let (Change::Modified { before: known, .. } | Change::Removed(known)) = change else { return false };
        matches!((known.last_modified, self.as_of), (Some(known), Some(as_of)) if known > as_of)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The known objects in `range`, as far as they are meant; all of them, or those up to a key that is told. None of them
    /// is read twice, nor are those that are not meant kept.
    async fn read(&self, ahead: &mut Ahead, range: &KeyRange) -> Result<(Batch, Option<String>), Error> {
        let mut known = Batch::new();
        loop {
            while let Some(object) = ahead.objects.get(ahead.next) {
                if range.until.as_deref().is_some_and(|until| object.key > until) {
                    ahead.after.clone_from(&range.until);
                    return Ok((known, None));
                }
                if known.len() == SCAN {
                    let end = known.last().map(|last| last.key.to_owned());
                    ahead.after.clone_from(&end);
                    return Ok((known, end));
                }
                ahead.next += 1;
                if object.key.starts_with(self.prefix.as_str()) {
                    if self.filter.matches(object.key) {
                        known.push(object);
                    }
                } else if object.key > self.prefix.as_str() {
                    // Behind the last key with the prefix none has it.
                    ahead.is_all = true;
                    ahead.objects.truncate(ahead.next);
                }
            }
            if ahead.is_all {
                ahead.after.clone_from(&range.until);
                return Ok((known, None));
            }
            let last = ahead.objects.last().map(|last| last.key.to_owned());
            let from = last.or_else(|| ahead.after.clone()).or_else(|| before(&self.prefix)).max(before(&self.prefix));
            ahead.objects = scan(self.known.clone(), KeyRange::new(from, None)).await?;
            ahead.next = 0;
            ahead.is_all = ahead.objects.len() < SCAN;
        }
    }
}

/// Reads in a task of its own, so that a reader of stretches who waits for something else, such as a connection to the same
/// store, does not keep this from giving back what it holds.
async fn scan(known: Arc<dyn KnownObjects>, range: KeyRange) -> Result<Batch, Error> {
    // A set of one, as it ends its task when it is dropped.
    let mut task = JoinSet::new();
    task.spawn(async move { known.scan(&range, SCAN).await });
    match task.join_next().await {
        Some(Ok(found)) => found,
        Some(Err(lost)) => match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// A text that sorts before all keys with `prefix`, and before few others.
pub(crate) fn before(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    let last = text.pop()?;
    if last > '\0' {
        // Surrogates are no characters.
        let below = char::from_u32(u32::from(last) - 1).unwrap_or('\u{d7ff}');
        text.push(below);
        text.push(char::MAX);
    }
    Some(text)
}
