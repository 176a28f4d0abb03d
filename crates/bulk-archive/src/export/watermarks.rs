use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::files::{Folder, shown};
use crate::Error;

/// The watermarks that the last run of a folder saved, by name; none where there was no run. It takes no lock and changes
/// nothing, so that what is told may be old while another run is at work.
///
/// # Errors
/// [`Error::Roster`], also while another run commits, and where one was killed in its commit: the next
/// [`ExportSet::open`](crate::ExportSet::open) mends that.
pub fn read_watermarks(folder: impl AsRef<Path>) -> Result<BTreeMap<String, String>, Error> {
    let folder = Folder { root: folder.as_ref().to_owned() };
    let path = folder.roster();
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        let mut statement = connection.prepare("SELECT kind, value FROM watermark")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| Error::Roster { file: shown(&path), source: error.into() })
}
