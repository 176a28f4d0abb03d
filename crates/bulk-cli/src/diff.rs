use std::io::{self, BufWriter, Write};

use bulk_core::Source;
use bulk_s3::{Change, Checkpoint, DiffOptions, Job, KeyRange, ObjectRef, StretchDiff, diff_pages, in_order};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;

use crate::arguments::{Common, Deletions, Diff};
use crate::exit::{Exit, Failure};
use crate::keys::{Keys, Listed};
use crate::report::Report;
use crate::store;

pub(crate) async fn run(diff: &Diff, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let keys = Keys::open(&diff.source, &diff.bucket, &diff.keys, report)?;
    let known = store::open(&diff.store, keys.bucket.name(), false, report).await?;
    let mut job = Job::default();
    job.bucket = keys.bucket.identity("");
    job.prefix.clone_from(&keys.prefix);
    job.filter = keys.filter.identity();
    job.compare = diff.compare.to_string();
    job.store = known.identity();
    job.target = "diff".to_owned();
    let mut progress = Progress::open(diff, job)?;
    if common.dry_run {
        let left = progress.left().len();
        report.planned(&format!("compare {} with {}", diff.source, known.identity()), json!({"stretches": left}));
        return Ok(Exit::Done);
    }
    let ranges = progress.left().to_vec();
    let mut listed = Listed::new();
    let pages = keys.bucket.pages(keys.list_options(ranges.clone()));
    let mut options = DiffOptions::default();
    options.prefix.clone_from(&keys.prefix);
    options.filter = keys.filter.clone();
    options.compare = diff.compare;
    let pages = if diff.unsorted {
        pages.boxed()
    } else {
        options.concurrency = 1;
        in_order(pages, &ranges, &std::env::temp_dir())
    };
    let mut stretches = diff_pages(pages, known, options);
    let mut output = BufWriter::with_capacity(1 << 16, io::stdout());
    loop {
        let next = common.stop.run_until_cancelled(stretches.try_next()).await;
        let Some(stretch) = next else {
            progress.save()?;
            return Ok(Exit::Interrupted);
        };
        let Some(stretch) = stretch? else { break };
        let written = tokio::task::block_in_place(|| write(&mut output, &stretch, diff.deletions, common.json));
        match written {
            Ok(()) => {}
            // Whoever read it has enough; what it did not read is not done.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            Err(error) => return Err(Failure::new(Exit::Failed, anyhow::Error::from(error).context("cannot write"))),
        }
        listed.add(stretch.keys);
        progress.done(&stretch)?;
        let counts = progress.counts;
        listed.tell(counts.added + counts.modified + counts.removed, "changes found", report);
    }
    let counts = progress.counts;
    progress.finish()?;
    let text = format!(
        "{} added, {} modified, {} removed, {} unchanged, of {} keys",
        counts.added, counts.modified, counts.removed, counts.unchanged, counts.keys
    );
    let fields = json!({
        "keys": counts.keys, "added": counts.added, "modified": counts.modified, "removed": counts.removed,
        "unchanged": counts.unchanged,
    });
    report.event("compared", &text, fields);
    Ok(Exit::Done)
}

/// How far a comparison is, and what it has found.
struct Progress {
    checkpoint: Option<Checkpoint>,
    left: Vec<KeyRange>,
    counts: bulk_s3::Counts,
    saved: std::time::Instant,
}

impl Progress {
    fn open(diff: &Diff, job: Job) -> Result<Self, Failure> {
        let path = diff.checkpoint.as_deref();
        if let Some(path) = path.filter(|_| diff.restart) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::usage(format!("cannot remove {}: {error}", path.display())));
                }
                _ => {}
            }
        }
        let checkpoint = match (path, &diff.since_checkpoint) {
            // What this command has kept itself is newer.
            (Some(path), None) => Some(Checkpoint::open(path, job)?),
            (Some(path), Some(_)) if path.exists() => Some(Checkpoint::open(path, job)?),
            (Some(path), Some(theirs)) => Some(Checkpoint::since_buildhub(path, job, theirs)?),
            (None, Some(theirs)) => {
                let left = Checkpoint::since_buildhub("", job, theirs)?.left().to_vec();
                return Ok(Self::new(None, left));
            }
            (None, None) => None,
        };
        let left = checkpoint.as_ref().map_or_else(|| vec![KeyRange::all()], |checkpoint| checkpoint.left().to_vec());
        Ok(Self::new(checkpoint, left))
    }

    fn new(checkpoint: Option<Checkpoint>, left: Vec<KeyRange>) -> Self {
        let counts = checkpoint.as_ref().map(|checkpoint| checkpoint.counts).unwrap_or_default();
        Self { checkpoint, left, counts, saved: std::time::Instant::now() }
    }

    fn left(&self) -> &[KeyRange] {
        &self.left
    }

    fn done(&mut self, stretch: &StretchDiff) -> Result<(), Failure> {
        /// A run that is killed finds again what it found in this time.
        const SAVE_EVERY: std::time::Duration = std::time::Duration::from_millis(50);
        self.counts.add(stretch);
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        checkpoint.done(&stretch.range);
        checkpoint.counts = self.counts;
        if self.saved.elapsed() >= SAVE_EVERY {
            self.saved = std::time::Instant::now();
            checkpoint.save()?;
        }
        Ok(())
    }

    fn save(&self) -> Result<(), Failure> {
        self.checkpoint.as_ref().map_or(Ok(()), |checkpoint| Ok(checkpoint.save()?))
    }

    fn finish(self) -> Result<(), Failure> {
        self.checkpoint.map_or(Ok(()), |checkpoint| Ok(checkpoint.finish()?))
    }
}

/// A change as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    change: &'a str,
    key: &'a str,
    #[serde(flatten)]
    version: Version<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Version<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<jiff::Timestamp>,
}

impl<'a> From<ObjectRef<'a>> for Version<'a> {
    fn from(object: ObjectRef<'a>) -> Self {
        Self { etag: object.etag, size: object.size, last_modified: object.last_modified }
    }
}

/// Writes the changes of a stretch, so that all of them have left this program when it returns.
fn write(output: &mut impl Write, stretch: &StretchDiff, deletions: Deletions, is_event: bool) -> io::Result<()> {
    for change in stretch.changes() {
        let (kind, object, before) = match change {
            Change::Added(object) => ("added", object, None),
            Change::Modified { before, after } => ("modified", after, Some(Version::from(before))),
            Change::Removed(_) if deletions == Deletions::Ignore => continue,
            Change::Removed(object) => ("removed", object, None),
        };
        let event = is_event.then_some("change");
        let line = Line { event, change: kind, key: object.key, version: Version::from(object), before };
        serde_json::to_writer(&mut *output, &line)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}
