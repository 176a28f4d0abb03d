//! Pages of a listing, out of objects that were read from files.

use bulk_core::{Wait, WorkerMeter};
use tokio::sync::mpsc;

use crate::{Batch, Error, KeyFilter, KeyRange, ObjectRef, Page};

/// A page has no more objects than this, and no more keys that the filter leaves out.
const OBJECTS: usize = 4096;
const KEYS: u64 = 1 << 16;

/// Which of the objects in files are asked for.
pub(crate) struct Selection {
    prefix: String,
    filter: KeyFilter,
    /// In order, and none of them empty.
    ranges: Vec<KeyRange>,
}

impl Selection {
    pub(crate) fn new(prefix: String, filter: KeyFilter, mut ranges: Vec<KeyRange>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by(|a, b| a.after.cmp(&b.after));
        Self { prefix, filter, ranges }
    }

    /// The place of the stretch that a key is in, and whether the filter means it; none if it is not asked for.
    pub(crate) fn find(&self, key: &str) -> Option<(usize, bool)> {
        if !key.starts_with(self.prefix.as_str()) {
            return None;
        }
        let below = |range: &KeyRange| range.until.as_deref().is_some_and(|until| until < key);
        let place = self.ranges.partition_point(below);
        self.ranges.get(place).filter(|range| range.contains(key))?;
        Some((place, self.filter.matches(key)))
    }

    pub(crate) fn ranges(&self) -> usize {
        self.ranges.len()
    }
}

/// Why no more pages are made.
pub(crate) enum Stop {
    /// Nobody reads them.
    Dropped,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Cuts pages from objects that come in order. Each stretch is a lane.
pub(crate) struct Pager<'a> {
    selection: &'a Selection,
    sender: &'a mpsc::Sender<Result<Page, Error>>,
    meter: Option<&'a WorkerMeter>,
    /// The stretch under way, and the border that its next page begins behind.
    place: usize,
    after: Option<String>,
    objects: Batch,
    keys: u64,
    /// The last key that counts to the page.
    last: Option<String>,
}

impl<'a> Pager<'a> {
    pub(crate) fn new(
        selection: &'a Selection,
        sender: &'a mpsc::Sender<Result<Page, Error>>,
        meter: Option<&'a WorkerMeter>,
    ) -> Self {
        let after = selection.ranges.first().and_then(|range| range.after.clone());
        Self { selection, sender, meter, place: 0, after, objects: Batch::new(), keys: 0, last: None }
    }

    /// Counts keys of the stretch at `place` that the filter leaves out, wherever they stand in it. To be called before
    /// an object of that stretch or of one behind it comes.
    pub(crate) fn count(&mut self, place: usize, keys: u64) -> Result<(), Stop> {
        self.reach(place)?;
        self.keys += keys;
        Ok(())
    }

    /// Takes the next object of the stretch at `place`.
    pub(crate) fn push(&mut self, place: usize, object: ObjectRef<'_>, is_meant: bool) -> Result<(), Stop> {
        self.reach(place)?;
        // Not when it becomes full: it may be the last one of its stretch.
        if (self.objects.len() >= OBJECTS || self.keys >= KEYS)
            && let Some(last) = self.last.take()
        {
            self.send(Some(last), false)?;
        }
        self.keys += 1;
        if is_meant {
            self.objects.push(object);
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.push_str(object.key);
        Ok(())
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) -> Result<(), Stop> {
        self.reach(self.selection.ranges.len())
    }

    /// Ends the stretches before that at `place`.
    fn reach(&mut self, place: usize) -> Result<(), Stop> {
        while self.place < place {
            let Some(range) = self.selection.ranges.get(self.place) else { return Ok(()) };
            self.send(range.until.clone(), true)?;
            self.last = None;
            self.place += 1;
            self.after = self.selection.ranges.get(self.place).and_then(|range| range.after.clone());
        }
        Ok(())
    }

    fn send(&mut self, until: Option<String>, is_last: bool) -> Result<(), Stop> {
        let page = Page {
            range: KeyRange::new(std::mem::replace(&mut self.after, until.clone()), until),
            objects: std::mem::take(&mut self.objects),
            keys: std::mem::take(&mut self.keys),
            lane: self.place as u64,
            is_last,
        };
        let keys = page.keys;
        let send = || self.sender.blocking_send(Ok(page)).map_err(|_| Stop::Dropped);
        match self.meter {
            Some(meter) => {
                meter.add(keys, 0);
                meter.wait(Wait::Output, send)
            }
            None => send(),
        }
    }
}
