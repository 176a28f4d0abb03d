use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};

use super::{StageMeter, Wait, WorkerMeter};

/// A [`Stream`] that is a stage with one worker: it works while it is polled, and is [blocked](Wait::Output) from an item to
/// the next poll. While it has none, it waits for its [input](MeteredInput), if that has none either, else for what its stage
/// [states](StageMeter::wait).
///
/// A poll costs two changes of a [`WorkerMeter`]. So items are to be chunks, such as the pages of a listing.
#[derive(Debug)]
pub struct MeteredStream<S, C> {
    inner: S,
    worker: WorkerMeter,
    wait: Wait,
    input: InputState,
    count: C,
}

/// The input of a [`MeteredStream`].
#[derive(Debug)]
pub struct MeteredInput<S> {
    inner: S,
    state: InputState,
}

/// Whether the input of a [`MeteredStream`] had nothing when it was last asked. Clones are of the same input.
#[derive(Clone, Debug, Default)]
pub struct InputState {
    is_pending: Arc<AtomicBool>,
}

impl InputState {
    /// `stream`, which tells from now on whether it has anything.
    pub fn watch<S>(&self, stream: S) -> MeteredInput<S> {
        MeteredInput { inner: stream, state: self.clone() }
    }
}

impl<S, C> MeteredStream<S, C> {
    /// A worker of `stage`, which begins now. `count` tells the items and bytes of what it gives; `input` is of what it gets
    /// that from, and one of nothing for a stream that has no stage before it.
    pub fn new(inner: S, stage: &StageMeter, input: InputState, count: C) -> Self {
        let worker = stage.worker();
        // Nobody has asked for anything.
        worker.wait_begins(Wait::Output);
        Self { inner, worker, wait: stage.wait(), input, count }
    }
}

impl<S, T, E, C> Stream for MeteredStream<S, C>
where
    S: Stream<Item = Result<T, E>> + Unpin,
    C: FnMut(&T) -> (u64, u64) + Unpin,
{
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { inner, worker, wait, input, count } = &mut *self;
        worker.wait_ends();
        let item = inner.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(item))) = &item {
            let (items, bytes) = count(item);
            worker.add(items, bytes);
        }
        worker.wait_begins(match &item {
            Poll::Ready(_) => Wait::Output,
            Poll::Pending if input.is_pending.load(Ordering::Relaxed) => Wait::Input,
            Poll::Pending => *wait,
        });
        item
    }
}

impl<S: Stream + Unpin> Stream for MeteredInput<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.inner.poll_next_unpin(context);
        self.state.is_pending.store(item.is_pending(), Ordering::Relaxed);
        item
    }
}
