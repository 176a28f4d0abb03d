//! The record of a file on its way, and the end of one that is whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file_state::{Phase, Save};
use super::transfer::MAX_RESTARTS;
use super::{Mode, Queue};
use crate::part::{PartFile, Paths, Record, Turn};
use crate::{Digest, Error, Request, StagedFile};

/// How often the record of a file on its way is written: after so many bytes, or so much time.
pub(super) const SAVE_BYTES: u64 = 64 << 20;
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(5);

/// A file that is to be checked, synced and renamed.
pub(crate) struct Finish {
    pub(crate) place: u64,
    pub(crate) generation: u32,
    pub(crate) request: Arc<Request>,
    pub(crate) paths: Arc<Paths>,
    pub(crate) part: Option<Arc<PartFile>>,
    pub(crate) turn: Turn,
    pub(crate) size: u64,
    pub(crate) crc: Option<u64>,
    pub(crate) stated: Vec<Digest>,
    pub(crate) computed: Option<Vec<Digest>>,
    pub(crate) record: Record,
    pub(crate) started: Instant,
    pub(crate) fetched: u64,
}

impl Queue {
    /// The record to be written now, if it is time, or `at_once`.
    pub(crate) fn save(&mut self, place: u64, at_once: bool) -> Option<(u32, Save)> {
        // What is dropped after its record is written would be taken for what it was.
        if self.drops() {
            return None;
        }
        let file = self.files.get_mut(&place)?;
        let is_time = file.save.bytes >= SAVE_BYTES || (file.save.bytes > 0 && file.save.at.elapsed() >= SAVE_EVERY);
        if (file.save.is_running && !at_once)
            || !(is_time || (at_once && file.save.bytes > 0))
            || !matches!(file.phase, Phase::Open)
        {
            return None;
        }
        let save = file.to_save()?;
        (file.save.bytes, file.save.at, file.save.is_running) = (0, Instant::now(), true);
        Some((file.generation, save))
    }

    /// The record of a file that nobody works on any more.
    pub(crate) fn last_save(&mut self, place: u64) -> Option<Save> {
        let file = self.files.get_mut(&place).filter(|file| file.is_open() && file.ranges.total() > 0)?;
        file.reader.is_recorded = true;
        file.to_save()
    }

    /// What is to be done to finish a file, if all of it is there.
    pub(crate) fn complete(&mut self, place: u64) -> Option<Finish> {
        let file = self.files.get_mut(&place)?;
        let size = file.size()?;
        if !matches!(file.phase, Phase::Open) || !file.flights.is_empty() || !file.ranges.covers(size) {
            return None;
        }
        // A server that never told it has sent as much as was listed.
        file.version.as_mut()?.size = Some(size);
        // Whoever follows the bytes says so when it is done.
        if file.is_followed && file.followed.is_none() {
            return None;
        }
        let paths = file.paths.clone()?;
        let record = file.record()?;
        if self.mode == Mode::Files {
            // Nobody reads it before it has its name, and many may wait for that.
            file.part = None;
        }
        let part = file.part.clone();
        file.phase = Phase::Finishing;
        self.wanting.remove(&place);
        let file = self.files.get_mut(&place)?;
        Some(Finish {
            place,
            generation: file.generation,
            paths,
            part,
            size,
            crc: file.ranges.crc(size),
            turn: file.turn.next(),
            stated: file.digests.clone(),
            computed: file.followed.take(),
            record,
            started: file.started,
            fetched: file.fetched,
            request: file.request.clone(),
        })
    }

    /// Takes in up to where the digests of a file are computed.
    pub(crate) fn followed(&mut self, place: u64, generation: u32, position: u64) {
        if let Some(file) = self.file(place, generation) {
            file.followed_to = position;
            self.charge(place);
        }
    }

    /// Begins a file anew that proved corrupt when it was whole, if it may be: then this tells how much of it is discarded.
    pub(crate) fn corrupt(&mut self, place: u64, generation: u32) -> Option<u64> {
        let file = self.file(place, generation)?;
        if file.restarts >= MAX_RESTARTS || file.reader.is_begun {
            return None;
        }
        file.restarts += 1;
        let discarded = file.begin_anew();
        self.wanting.insert(place);
        self.charge(place);
        Some(discarded)
    }

    /// Takes in how finishing a file went.
    pub(crate) fn finished(&mut self, place: u64, generation: u32, result: Result<(PathBuf, Record), Error>) {
        let drops = self.drops();
        let Some(file) = self.file(place, generation) else { return };
        match result {
            Ok((path, record)) => {
                (file.room, file.is_unfinished) = (None, false);
                let extra = file.extra.take();
                if let (Some(space), Some(extra)) = (&mut file.space, extra) {
                    space.merge(extra);
                }
                // What is read gives its space back bit by bit.
                let space = if drops { None } else { file.space.take().map(Arc::new) };
                file.wake_reader();
                if !file.reader.is_delivered {
                    // Its reader opens it: many may wait for theirs.
                    file.part = None;
                }
                file.phase = Phase::Done(Ok(StagedFile {
                    path,
                    size: record.version.size.unwrap_or(0),
                    etag: record.version.etag,
                    last_modified: record.version.last_modified,
                    digests: record.digests,
                    fetched: file.fetched,
                    _space: space,
                }));
            }
            Err(error) => self.fail(place, error),
        }
    }

    /// Puts back a file that was to be finished, because the run ends before.
    pub(crate) fn reopen(&mut self, place: u64, generation: u32) {
        if let Some(file) = self.file(place, generation).filter(|file| matches!(file.phase, Phase::Finishing)) {
            (file.phase, file.is_unfinished) = (Phase::Open, false);
            if let (None, Some(paths)) = (&file.part, &file.paths) {
                // What cannot be opened is not noted, and fetched again.
                file.part = PartFile::open(&paths.part).ok().map(Arc::new);
            }
        }
    }
}
