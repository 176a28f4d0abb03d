//! What the consumer takes: files in their order, and how far it has read their bytes.

use std::sync::Arc;

use super::Queue;
use super::file_state::Phase;
use crate::part::PartFile;
use crate::{Error, Request, StagedFile};

/// Consumed bytes are dropped in pieces of this size, a power of two.
pub(super) const DROP_UNIT: u64 = 4 << 20;

impl Queue {
    /// Takes the file in front out of the queue, if it has come to its end.
    pub(crate) fn take_file(&mut self) -> Option<(Arc<Request>, Result<StagedFile, Error>)> {
        self.files.get(&self.front).filter(|file| file.is_done())?;
        let file = self.remove(self.front)?;
        self.front += 1;
        match file.phase {
            Phase::Done(outcome) => Some((file.request, outcome)),
            _ => None,
        }
    }

    /// The file in front, as soon as its bytes can be read; it stays in the queue.
    pub(crate) fn take_body(&mut self) -> Option<(u64, Arc<Request>, Result<(), Error>)> {
        let place = self.front;
        let file = self.files.get_mut(&place)?;
        if let Phase::Done(Err(_)) = file.phase {
            let (request, outcome) = self.take_file()?;
            return Some((place, request, outcome.map(drop)));
        }
        if !file.is_ready() {
            return None;
        }
        file.reader.is_delivered = true;
        self.front += 1;
        Some((place, file.request.clone(), Ok(())))
    }

    /// Takes in that a reader has read up to `position`.
    pub(crate) fn consumed(&mut self, place: u64, position: u64) {
        if let Some(file) = self.files.get_mut(&place) {
            file.reader.position = position;
            self.charge(place);
        }
    }

    /// The bytes behind the last ones dropped that a reader is done with, if they are worth a call.
    pub(crate) fn take_consumed(&mut self, place: u64) -> Option<(Arc<PartFile>, u64, u64)> {
        if !self.drops() {
            return None;
        }
        let file = self.files.get_mut(&place)?;
        if file.reader.is_recorded || file.was_staged {
            return None;
        }
        let (start, end) = (file.reader.dropped, file.consumed() & !(DROP_UNIT - 1));
        if end.saturating_sub(start) < DROP_UNIT {
            return None;
        }
        let part = file.part.clone()?;
        file.reader.dropped = end;
        Some((part, start, end))
    }

    /// Takes in that the disk space of so many bytes is free again.
    pub(crate) fn dropped(&mut self, place: u64, bytes: u64) {
        if let Some(space) = self.files.get_mut(&place).and_then(|file| file.space.as_mut()) {
            space.shrink(bytes);
        }
    }
}
