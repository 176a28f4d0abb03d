use std::io::{self, Write};

use bulk_core::{FileReport, Wait};
use bulk_s3::{Change, ObjectRef, StretchDiff, diff_pages};
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::json;

use crate::arguments::{Common, ComparisonArguments, Deletions, Diff};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::headway::Headway;
use crate::keys::{Keys, Listed};
use crate::meters::COMPARE;
use crate::output::{Destination, is_closed_pipe};
use crate::report::Report;
use crate::store::Place;

pub(crate) async fn run(diff: &Diff, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let ComparisonArguments { source, compare, checkpoint, store, keys, bucket } = &diff.comparison;
    if checkpoint.restart && checkpoint.checkpoint.is_none() {
        return Err(Failure::usage("--restart needs --checkpoint FILE"));
    }
    let place = Place::required(store)?;
    Place::check(store, *compare)?;
    let keys = Keys::open(source, bucket, keys, report).await?;
    let known = place.open(store, keys.bucket.name(), false, report).await?.known;
    let job = keys.job(*compare, &*known, format!("diff; deletions: {:?}", diff.deletions));
    let mut headway = Headway::open(checkpoint.checkpoint.as_deref(), checkpoint, job, report)?;
    if common.dry_run {
        let left = headway.left().len();
        report.planned(&format!("compare {source} with {}", known.identity()), json!({"stretches": left}));
        return Ok(Exit::Done);
    }
    let ranges = keys.split(headway.left().to_vec(), &*known).await?;
    let mut listed = Listed::new();
    let mut options = keys.diff_options(*compare);
    options.meter = Some(report.meters().compare(keys.order(!diff.unsorted), place.resource(), false));
    let pages = if diff.unsorted {
        keys.pages(ranges)
    } else {
        options.concurrency = 1;
        keys.pages_in_order(ranges)
    };
    let mut stretches = diff_pages(pages, known, options);
    let (mut lines, output) = (Vec::new(), Destination::stdout());
    let (writer, mut found) = (report.meters().write(false, COMPARE), 0);
    loop {
        writer.wait_begins(Wait::Input);
        let next = common.stop.run_until_cancelled(stretches.try_next()).await;
        writer.wait_ends();
        let Some(stretch) = next else {
            headway.save()?;
            return Ok(Exit::Interrupted);
        };
        let Some(stretch) = stretch? else { break };
        let written = tokio::task::block_in_place(|| write(&mut lines, &stretch, diff.deletions, common.json));
        match written.map_err(|error| output.failed(error)) {
            Ok(()) => {}
            Err(error) => {
                let failure = Failure::from(error);
                // Whoever read it has enough; what it did not read is not done.
                return if is_closed_pipe(&failure) { Ok(Exit::Done) } else { Err(failure) };
            }
        }
        let written = stretch.changes().len() as u64;
        writer.add(written, lines.len() as u64);
        found += written;
        listed.add(stretch.keys);
        headway.done(&stretch)?;
        let counts = headway.counts();
        listed.tell(counts.added + counts.modified + counts.removed, "changes found", report);
    }
    drop(writer);
    let mut file = FileReport::default();
    (file.name, file.records, file.seconds) = ("standard output".to_owned(), Some(found), Some(listed.seconds()));
    report.file(file);
    let counts = headway.counts();
    headway.finish()?;
    let text = format!(
        "{} added, {} modified, {} removed, {} unchanged, of {}",
        counts.added,
        counts.modified,
        counts.removed,
        counts.unchanged,
        counted(counts.keys, "key", "keys")
    );
    let fields = json!({
        "keys": counts.keys, "added": counts.added, "modified": counts.modified, "removed": counts.removed,
        "unchanged": counts.unchanged,
    });
    report.event("compared", &text, fields);
    Ok(Exit::Done)
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

/// Writes the changes of a stretch, so that all of them have left this program when it returns, and that no event stands in
/// between. `lines` is room for them.
fn write(lines: &mut Vec<u8>, stretch: &StretchDiff, deletions: Deletions, is_event: bool) -> io::Result<()> {
    lines.clear();
    for change in stretch.changes() {
        let (kind, object, before) = match change {
            Change::Added(object) => ("added", object, None),
            Change::Modified { before, after } => ("modified", after, Some(Version::from(before))),
            Change::Removed(_) if deletions == Deletions::Ignore => continue,
            Change::Removed(object) => ("removed", object, None),
        };
        let event = is_event.then_some("change");
        let line = Line { event, change: kind, key: object.key, version: Version::from(object), before };
        serde_json::to_writer(&mut *lines, &line)?;
        lines.push(b'\n');
    }
    let mut output = io::stdout().lock();
    output.write_all(lines)?;
    output.flush()
}
