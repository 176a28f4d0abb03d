use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use bulk_pg::{LeftOutReason, NotRestored, PostData};
use bulk_s3::Snapshot;
use serde_json::json;

use super::files::Totals;
use crate::arguments::Orphans;
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::{Report, size};

/// What the schema file holds and the database does not get. Settings and owners are in every dump; they are only counted.
pub(super) fn list_left_out(left_out: &[bulk_pg::LeftOut], refused: &[bulk_pg::Refused], report: &Report) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for item in left_out {
        match &item.reason {
            LeftOutReason::Missing(_) => {
                let reason = "needs a function or table that is neither in the file nor in the database";
                *kinds.entry(reason.to_owned()).or_default() += 1;
            }
            reason => *kinds.entry(reason.to_string()).or_default() += 1,
        }
        report.detail(format!("left out: {item}"));
    }
    if !kinds.is_empty() {
        report
            .note(format!("schema: {} left out (-v lists them):", counted(left_out.len(), "statement", "statements")));
    }
    const SHOWN: usize = 8;
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, count)| Reverse(*count));
    for (reason, count) in kinds.iter().take(SHOWN) {
        report.note(format!("  {count:4} × {reason}"));
    }
    if let Some(more @ 1..) = kinds.len().checked_sub(SHOWN) {
        report.note(format!("  and {}", counted(more, "other reason", "other reasons")));
    }
    for item in refused {
        report.warn(format!("schema line {}: {}: {}", item.line, item.what, item.reason));
    }
}

/// What came of indexes, keys and triggers.
pub(crate) fn list_post_data(post_data: &PostData, report: &Report) -> Exit {
    for orphans in &post_data.orphans {
        report.warn(format!(
            "{} of {:#} stays NOT VALID: {} to nothing in {:#} (such as {})",
            orphans.constraint,
            orphans.table,
            counted(orphans.rows, "row refers", "rows refer"),
            orphans.references,
            orphans.examples.join("; ")
        ));
    }
    for orphans in &post_data.rejected {
        let rows: Vec<_> = orphans.rows.iter().map(|(table, rows)| format!("{rows} of {table:#}")).collect();
        report.warn(format!(
            "{} of {:#} is valid: rows that refer to nothing in {:#} are moved to bulk.reject, with those that refer to \
             them ({})",
            orphans.constraint,
            orphans.table,
            orphans.references,
            rows.join(", ")
        ));
    }
    for orphans in &post_data.kept {
        let bulk_pg::KeptOrphans { constraint, table, reason, .. } = orphans;
        report.warn(format!("{constraint} of {table:#}: its orphans cannot be moved: {reason}"));
    }
    for constraint in &post_data.repaired {
        report.note(format!("{constraint}: valid now"));
    }
    for (constraint, comment) in &post_data.known_orphans {
        // It is why the exit status is not 0, also for those who see only warnings.
        report.warn(format!("{constraint}: {comment}"));
    }
    for item in &post_data.refused {
        report.warn(format!("schema line {}: {}: {}", item.line, item.what, item.reason));
    }
    let is_clean = !has_orphans(post_data) && post_data.rejected.is_empty() && post_data.refused.is_empty();
    let exit = if is_clean { Exit::Done } else { Exit::Incomplete };
    exit.max(list_not_restored(&post_data.not_restored, report))
}

/// What was dropped for the load and the server would not make again.
fn list_not_restored(items: &[NotRestored], report: &Report) -> Exit {
    for NotRestored { table, name, statement, reason, .. } in items {
        report.warn(format!(
            "{name:#} of {table:#} was dropped for the load and cannot be made again ({reason}); it stays in \
             bulk.dropped, and the next run tries again: {statement}"
        ));
    }
    if items.is_empty() { Exit::Done } else { Exit::Incomplete }
}

/// An error if there are rows that a foreign key forbids, and that was asked for.
pub(super) fn refuse_orphans(orphans: Orphans, post_data: &PostData) -> Result<(), Failure> {
    if orphans == Orphans::Fail && has_orphans(post_data) {
        let what = anyhow::anyhow!("rows refer to nothing, and --orphans fail was asked for");
        return Err(Failure::new(Exit::Failed, what));
    }
    Ok(())
}

/// Whether there are rows that a foreign key forbids.
fn has_orphans(post_data: &PostData) -> bool {
    !post_data.orphans.is_empty() || !post_data.known_orphans.is_empty()
}

pub(super) fn summarise(
    snapshot: &Snapshot,
    totals: &Totals,
    times: &[(&str, Duration)],
    elapsed: Duration,
    report: &Report,
) {
    let stages: Vec<_> = times.iter().map(|(stage, time)| format!("{stage} {:.1} s", time.as_secs_f64())).collect();
    let text = format!(
        "snapshot {}: {}, {} fetched, {}, {} of CSV in {:.1} s ({})",
        snapshot.date,
        counted(totals.files, "file", "files"),
        size(totals.fetched),
        counted(totals.rows, "row", "rows"),
        size(totals.bytes),
        elapsed.as_secs_f64(),
        stages.join(", ")
    );
    let stages: serde_json::Map<_, _> =
        times.iter().map(|(stage, time)| ((*stage).to_owned(), json!(time.as_secs_f64()))).collect();
    let fields = json!({
        "date": snapshot.date.to_string(), "files": totals.files, "fetched": totals.fetched, "rows": totals.rows,
        "bytes": totals.bytes, "seconds": elapsed.as_secs_f64(), "stages": stages,
    });
    report.event("summary", &text, fields);
}
