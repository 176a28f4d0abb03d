use std::io;

use crate::column::Target;
use crate::input_format::is_read_alike;
use crate::ledger::{self, Load};
use crate::verify::has_rows;
use crate::{Error, FileIdentity, Input, LoadOptions, Loaded, Merged, Session, TableName, choice, load, merge_staged};

/// What [`refresh`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// How the file was read.
    pub loaded: Loaded,
    /// What became of the table's rows.
    pub merged: Merged,
}

/// Makes a table what a file says, whatever it holds: an older version of the file, other files, or rows of any origin.
///
/// The file goes into a staging table first, as [`load`](crate::load()) does it, exactly once and over all sessions; an
/// interrupted refresh goes on where it was, and one of another version of the file begins anew. Then the rows that differ
/// are changed in one transaction: see [`merge_staged`]. A file that is the only one in the table already is not read
/// again, and what others have done to its rows since is not undone.
///
/// The staging table is in the schema `bulk`, not logged, and has the size of the table without its indexes.
///
/// Dropping the future costs what was not yet committed.
///
/// # Errors
///
/// As those of [`load`](crate::load()) and [`merge_staged`]; [`Error::Duplicates`] where records have the same key and none
/// may be left out: with [`LoadOptions::max_rejects`] it is the later ones that are, and also what violates a CHECK or
/// another unique index. The table is as it was then.
///
/// # Panics
///
/// If there is no session.
pub async fn refresh(
    sessions: &mut [Session],
    table: &TableName,
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Refreshed, Error> {
    let first = sessions.first().expect("a refresh takes at least one session");
    if let Some(load) = find(first, table, file, options).await? {
        let Load { rejected, filtered, repaired, .. } = load;
        let records = load.finished.unwrap_or(0);
        let loaded =
            Loaded { records, rejected, filtered, repaired, sent: 0, bytes: 0, verdict: None, drift: Vec::new() };
        let unchanged = records.saturating_sub(rejected + filtered);
        let merged = Merged { table: table.clone(), added: 0, changed: 0, removed: 0, unchanged };
        return Ok(Refreshed { loaded, merged });
    }
    let mut options = options.clone();
    options.stage = true;
    let loaded = load(sessions, table, file, input, &options).await?;
    let first = sessions.first_mut().expect("there was one");
    let merged = merge_staged(first, std::slice::from_ref(table), &options).await?;
    let merged = merged.into_iter().next().expect("each table that was asked for is merged, or it is an error");
    Ok(Refreshed { loaded, merged })
}

/// Records of `file`, if what the options choose of it is what `table` holds, all of that and nothing else, as far as the ledger knows. Nothing is changed
/// or locked. Other than with [`find_loaded`](crate::find_loaded), a table that holds something else is no error.
///
/// # Errors
///
/// [`Error::NoTable`] and [`Error::Database`].
pub async fn find_refreshed(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<Option<u64>, Error> {
    Ok(find(session, table, file, options).await?.and_then(|load| load.finished))
}

async fn find(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<Option<Load>, Error> {
    let target = Target::find(session, table).await?;
    let mut loads = ledger::loads(session.client(), table).await?;
    loads.retain(|load| load.oid == target.oid && (load.finished.is_some() || load.has_chunks));
    // Asked after the marks were read: rows that they speak of are seen.
    let is_empty = !has_rows(session, table).await?;
    let Ok([load]) = <[Load; 1]>::try_from(loads) else { return Ok(None) };
    let is_whole = load.finished.is_some()
        && load.damage.is_none()
        && load.file == *file
        && choice::is_same(&load, options)
        && is_read_alike(&load, options);
    Ok(Some(load).filter(|load| is_whole && !(is_empty && load.has_rows)))
}
