use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bulk_s3::{Checkpoint, Counts, Job, KeyRange, StretchDiff};

use crate::arguments::CheckpointArguments;
use crate::counted::counted;
use crate::exit::Failure;
use crate::report::Report;

/// A run that is killed does again what it did in this time.
const SAVE_EVERY: Duration = Duration::from_millis(50);

/// How far a comparison is, and what it has found; kept in a checkpoint, if it has one.
pub(crate) struct Headway {
    checkpoint: Option<Checkpoint>,
    /// What was left when it began.
    left: Vec<KeyRange>,
    counts: Counts,
    /// Whether something was done since it was saved.
    has_news: bool,
    saved: Instant,
}

impl Headway {
    /// `path` is where the checkpoint is kept, if it is.
    pub(crate) fn open(
        path: Option<&Path>,
        arguments: &CheckpointArguments,
        job: Job,
        report: &Report,
    ) -> Result<Self, Failure> {
        if let Some(path) = path.filter(|_| arguments.restart) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::usage(format!("cannot remove {}: {error}", path.display())));
                }
                _ => {}
            }
        }
        let checkpoint = match (path, &arguments.since_checkpoint) {
            // What this command has kept itself is newer.
            (Some(path), Some(theirs)) if !path.exists() => Some(Checkpoint::since_buildhub(path, job, theirs)?),
            (Some(path), _) => Some(Checkpoint::open(path, job)?),
            (None, Some(theirs)) => {
                let left = Checkpoint::since_buildhub("", job, theirs)?.left().to_vec();
                return Ok(Self::new(None, left));
            }
            (None, None) => None,
        };
        if let (Some(path), Some(checkpoint)) = (path, checkpoint.as_ref().filter(|checkpoint| checkpoint.is_resumed()))
        {
            let keys = checkpoint.counts.keys;
            report.note(format!(
                "goes on behind {} that an earlier run has dealt with ({})",
                counted(keys, "key", "keys"),
                path.display()
            ));
        }
        let left = checkpoint.as_ref().map_or_else(|| vec![KeyRange::all()], |checkpoint| checkpoint.left().to_vec());
        Ok(Self::new(checkpoint, left))
    }

    /// As [`open`](Self::open), with a checkpoint that nobody has named: it only spares a part of the listing, so one that
    /// cannot be used is as good as none.
    pub(crate) fn open_own(
        path: Option<&Path>,
        arguments: &CheckpointArguments,
        job: Job,
        report: &Report,
    ) -> Result<Self, Failure> {
        match (Self::open(path, arguments, job.clone(), report), path) {
            (Err(failure), Some(path)) if is_unusable(&failure) => {
                report.warn(format!("{:#}; the comparison begins anew", failure.error));
                let removed = std::fs::remove_file(path);
                removed.map_err(|error| Failure::usage(format!("cannot remove {}: {error}", path.display())))?;
                Self::open(Some(path), arguments, job, report)
            }
            (opened, _) => opened,
        }
    }

    fn new(checkpoint: Option<Checkpoint>, left: Vec<KeyRange>) -> Self {
        let counts = checkpoint.as_ref().map(|checkpoint| checkpoint.counts).unwrap_or_default();
        Self { checkpoint, left, counts, has_news: false, saved: Instant::now() }
    }

    pub(crate) fn left(&self) -> &[KeyRange] {
        &self.left
    }

    /// What was found, by earlier runs of the same job, too.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What was found in a stretch has had its effect.
    pub(crate) fn done(&mut self, stretch: &StretchDiff) -> Result<(), Failure> {
        self.counts.add(stretch);
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        checkpoint.done(&stretch.range);
        checkpoint.counts = self.counts;
        self.has_news = true;
        if self.saved.elapsed() >= SAVE_EVERY { self.save() } else { Ok(()) }
    }

    /// Writes what is not written yet.
    pub(crate) fn save(&mut self) -> Result<(), Failure> {
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| self.has_news) {
            checkpoint.save()?;
            self.has_news = false;
            self.saved = Instant::now();
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.checkpoint.map_or(Ok(()), |checkpoint| Ok(checkpoint.finish()?))
    }
}

/// Whether a checkpoint was read and is not what it should be.
fn is_unusable(failure: &Failure) -> bool {
    matches!(failure.error.downcast_ref(), Some(bulk_s3::Error::Checkpoint { source: None, .. }))
}
