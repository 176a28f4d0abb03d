//! The export itself: what has changed in the database since the last run goes into the archives that it concerns.

use std::time::Duration;

use bulk_archive::{ExportSet, Published};
use bulk_pg::{
    ExportSnapshot, ExportSnapshotOptions, IdentError, ItemDeletions, ItemJson, ItemRows, ItemSource, Since,
};
use tokio::runtime::Handle;

use crate::Failure;
use crate::made_up::KINDS;

/// How much further back than the last run changes are looked for: what that is for is said at [`ExportSnapshot`]. What is read
/// again for its sake is found to be there already, and rewrites nothing.
const OVERLAP: Duration = Duration::from_secs(15 * 60);

/// Where the items of a type are.
fn source(kind: &str) -> Result<ItemSource, IdentError> {
    let mut source = ItemSource::new(kind, ItemRows::Table(kind.parse()?), "id".parse()?, "court_id".parse()?);
    source.modified = Some("date_modified".parse()?);
    source.json = ItemJson::Column("document".parse()?);
    let gone = format!("SELECT id FROM deleted_item WHERE kind = '{kind}' AND deleted >= {{since}}");
    source.deletions = Some(ItemDeletions::Query(gone));
    Ok(source)
}

/// One run. Rows are read by the runtime's threads; this one, which must not be one of them, stages items and makes archives.
pub(crate) fn run(runtime: &Handle, url: &str, set: &mut ExportSet) -> Result<Published, Failure> {
    let _entered = runtime.enter();
    // All types are read as of one moment, over several connections.
    let snapshot = runtime.block_on(ExportSnapshot::open(url, ExportSnapshotOptions::default()))?;
    let (mut rows, mut gone, mut kinds_of_gone) = (Vec::new(), Vec::new(), Vec::new());
    for kind in KINDS {
        let query = runtime.block_on(snapshot.prepare(&source(kind)?))?;
        // What the last run left when it was published; nothing before the first.
        let Some(watermark) = set.watermark(kind)? else {
            rows.push(query.all());
            continue;
        };
        let since = Since { watermark, overlap: OVERLAP };
        rows.push(query.changed(&since)?);
        if let Some(ids) = query.gone(&since)? {
            gone.push(ids);
            kinds_of_gone.push(kind);
        }
    }

    // Dropped, as by an error, it publishes nothing.
    let mut stage = set.begin()?;
    let mut reader = snapshot.read(gone);
    while let Some(batch) = runtime.block_on(reader.next_batch())? {
        for row in batch.rows() {
            let id = row?.id.ok_or("a deleted item has no id")?;
            stage.remove(kinds_of_gone[batch.selection()], id)?;
        }
    }
    let mut reader = snapshot.read(rows);
    while let Some(batch) = runtime.block_on(reader.next_batch())? {
        let kind = KINDS[batch.selection()];
        for row in batch.rows() {
            let row = row?;
            let (Some(id), Some(court), Some(json)) = (row.id, row.group, row.json) else {
                return Err(format!("an item of {kind} has no id, court or document").into());
            };
            // It leaves the court that it was of. A job that is to go on without bad items counts `Error::Refused`.
            stage.put(kind, court, id, row.mtime, json)?;
        }
    }
    drop(reader);

    // From here on the next run looks for changes. It is saved in the same moment in which the archives become the set.
    let watermarks = KINDS.map(|kind| (kind.to_owned(), snapshot.watermark().to_owned())).into();
    // As long as it is open, the server keeps dead rows.
    drop(snapshot);
    Ok(stage.publish(&watermarks)?)
}
