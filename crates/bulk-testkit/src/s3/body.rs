//! The body of an answer, sent at its pace and cut where a fault says.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep},
};

use crate::wire::{Cut, CutSwitch};

use super::{answer::Answer, chunk::CHUNK, fault::BodyEffects, object::Content, record::Entry};

/// Its own record is finished when it is dropped.
pub(super) struct Body {
    reader: Reader,
    /// Read and not yet sent.
    ready: Bytes,
    /// The offset in the object of what is sent next.
    position: u64,
    left: u64,
    sent: u64,
    /// Whether the client is told how long the body is.
    is_sized: bool,
    corrupt: Vec<u64>,
    pace: Option<Pace>,
    end: Option<End>,
    switch: Arc<CutSwitch>,
    entry: Arc<Entry>,
}

/// Where the body ends too early, and what happens then.
struct End {
    after: u64,
    /// `None` leaves the connection open, and silent.
    cut: Option<Cut>,
    action: Option<Action>,
}

pub(super) type Action = Box<dyn FnOnce() + Send>;

impl Body {
    /// What the answer says, to the length that its headers say, if they do.
    pub(super) fn new(
        answer: &Answer,
        effects: BodyEffects,
        replace: impl FnOnce(super::Object) + Send + 'static,
        switch: Arc<CutSwitch>,
        entry: Arc<Entry>,
    ) -> Self {
        let Answer { position, len, .. } = *answer;
        let reset = effects.reset_after.map(|after| End { after, cut: Some(Cut::Reset), action: None });
        let close = effects.close_after.map(|after| End { after, cut: Some(Cut::Close), action: None });
        let stall = effects.stall_after.map(|after| End { after, cut: None, action: None });
        let replaced = effects.replace.map(|(after, object)| {
            let action: Action = Box::new(move || replace(object));
            End { after, cut: Some(Cut::Close), action: Some(action) }
        });
        let ends = [reset, close, stall, replaced].into_iter().flatten();
        Self {
            reader: Reader { content: answer.content.clone(), position, left: len, pending: None },
            ready: Bytes::new(),
            position,
            left: len,
            sent: 0,
            is_sized: answer.headers.contains_key(CONTENT_LENGTH),
            corrupt: effects.corrupt,
            pace: effects.bytes_per_second.map(Pace::new),
            end: ends.filter(|end| end.after < len).min_by_key(|end| end.after),
            switch,
            entry,
        }
    }

    /// Inverts the bytes to be corrupted in a chunk that starts at the current position.
    fn corrupted(&self, chunk: Bytes) -> Bytes {
        let range = self.position..self.position + chunk.len() as u64;
        let mut hits = self.corrupt.iter().filter(|offset| range.contains(offset)).peekable();
        if hits.peek().is_none() {
            return chunk;
        }
        let mut bytes = BytesMut::from(&chunk[..]);
        hits.for_each(|offset| bytes[(offset - range.start) as usize] ^= 0xff);
        bytes.freeze()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = &mut *self;
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let mut allowed = body.left;
        if let Some(end) = &mut body.end {
            allowed = end.after - body.sent;
            if allowed == 0 {
                if let Some(action) = end.action.take() {
                    action();
                }
                // Nothing wakes this body again: the connection ends when it has flushed what it got so far, or is left
                // to the client.
                if let Some(cut) = end.cut {
                    body.switch.set(cut);
                }
                return Poll::Pending;
            }
        }
        if body.ready.is_empty() {
            body.ready = ready!(body.reader.poll_next(cx))?;
        }
        let mut len = allowed.min(body.ready.len() as u64);
        if let Some(pace) = &mut body.pace {
            len = len.min(pace.step());
            ready!(pace.poll_due(cx, body.sent + len));
        }
        let chunk = body.ready.split_to(len as usize);
        let chunk = body.corrupted(chunk);
        body.position += len;
        body.left -= len;
        body.sent += len;
        body.entry.sent(chunk.len());
        if body.left == 0 {
            body.entry.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_sized { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.entry.finish();
    }
}

/// Chunks of a content in order; those of a file are read ahead by one, off the runtime's own threads.
struct Reader {
    content: Content,
    position: u64,
    left: u64,
    pending: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    /// The caller knows that bytes are left.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.content.is_blocking() {
            let chunk = self.content.read(self.position, self.left);
            return Poll::Ready(chunk.inspect(|chunk| self.advance(chunk.len() as u64)));
        }
        let read = self.pending.get_or_insert_with(|| read_later(&self.content, self.position, self.left));
        let chunk = ready!(Pin::new(read).poll(cx)).map_err(io::Error::other)??;
        self.advance(chunk.len() as u64);
        self.pending = (self.left > 0).then(|| read_later(&self.content, self.position, self.left));
        Poll::Ready(Ok(chunk))
    }

    fn advance(&mut self, by: u64) {
        self.position += by;
        self.left -= by;
    }
}

fn read_later(content: &Content, position: u64, left: u64) -> JoinHandle<io::Result<Bytes>> {
    let content = content.clone();
    tokio::task::spawn_blocking(move || content.read(position, left))
}

/// Lets bytes pass when their time has come, measured from the start of the body, so that errors do not add up.
struct Pace {
    bytes_per_second: u64,
    started: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, started: Instant::now(), sleep: None }
    }

    /// A fiftieth of a second, so that the flow is even.
    fn step(&self) -> u64 {
        (self.bytes_per_second / 50).clamp(1, CHUNK as u64)
    }

    fn poll_due(&mut self, cx: &mut Context<'_>, total: u64) -> Poll<()> {
        let wait = Duration::try_from_secs_f64(total as f64 / self.bytes_per_second as f64).ok();
        // Never, at no bytes a second: what remains is the end of the connection.
        let Some(due) = wait.and_then(|wait| self.started.checked_add(wait)) else { return Poll::Pending };
        if Instant::now() >= due {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        sleep.as_mut().reset(due);
        sleep.as_mut().poll(cx)
    }
}
