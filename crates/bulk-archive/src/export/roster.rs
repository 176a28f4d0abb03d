//! What is known of a set beside its files, in SQLite: in which group each item is, what the archives are, watermarks, and
//! which files a committed run has yet to rename or remove.
//!
//! The file has one user at a time, who holds the lock of the folder. A rollback journal, and not WAL: its size is bounded by
//! what was there before, a commit is one file, and it takes no shared memory. `synchronous = EXTRA`, because files are
//! renamed behind a commit, so that it must last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{
    files::{ARCHIVE, group_file, kind_folder, new_kind_folder, shape_files, shown, whole_files},
    manifest::{SetArchive, SetBundle, SetManifest, SetShape, hexadecimal},
};
use crate::{
    Error, Refusal,
    archive::{ParquetColumns, Shape, UnknownShape},
};

/// Says that a file is a roster of ours (<https://www.sqlite.org/pragma.html#pragma_application_id>): `blkx`.
const APPLICATION_ID: i32 = 0x626c_6b78;
/// The version of its tables, as `PRAGMA user_version`.
const VERSION: i32 = 4;

/// What version 1 lacked.
const SHAPES: &str = "
    CREATE TABLE shape (
        item_group INTEGER NOT NULL REFERENCES item_group,
        name TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL CHECK (octet_length(sha256) = 32),
        PRIMARY KEY (item_group, name)
    ) STRICT, WITHOUT ROWID;";

/// What version 2 lacked.
const WHOLE_SHAPES: &str = "
    CREATE TABLE whole_shape (
        kind INTEGER NOT NULL REFERENCES kind,
        name TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL CHECK (octet_length(sha256) = 32),
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE parquet_columns (kind INTEGER PRIMARY KEY REFERENCES kind, columns TEXT NOT NULL) STRICT;";

/// What version 3 lacked: the shapes that types are to have, also while they have no items.
const WISHES: &str = "
    CREATE TABLE whole_wish (
        kind INTEGER NOT NULL REFERENCES kind,
        name TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;";

/// Ids are blobs, because SQLite compares blobs byte by byte and promises nothing of texts that hold U+0000.
const TABLES: &str = "
    CREATE TABLE run (started TEXT NOT NULL) STRICT; -- the run that published the set
    CREATE TABLE kind (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_good TEXT, duration REAL) STRICT;
    CREATE TABLE item_group (
        id INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL REFERENCES kind,
        name TEXT NOT NULL,
        UNIQUE (kind, name)
    ) STRICT;
    CREATE TABLE item (
        kind INTEGER NOT NULL,
        id BLOB NOT NULL,
        item_group INTEGER NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE archive (
        item_group INTEGER PRIMARY KEY REFERENCES item_group,
        entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL CHECK (octet_length(sha256) = 32)
    ) STRICT;
    CREATE TABLE bundle (
        kind INTEGER PRIMARY KEY REFERENCES kind,
        bytes INTEGER NOT NULL,
        sha256 BLOB NOT NULL CHECK (octet_length(sha256) = 32)
    ) STRICT;
    CREATE TABLE watermark (kind TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    -- What a committed run has yet to do with files of the set: 1 to rename what stands in next/, 0 to remove it.
    CREATE TABLE pending (name TEXT PRIMARY KEY, renamed INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

/// A type of items.
pub(crate) struct Kind {
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: String,
}

/// A group of items.
pub(crate) struct Group {
    pub(crate) kind: u32,
    pub(crate) name: String,
    /// Its archive, below the folder of the set.
    pub(crate) file: String,
}

/// The types and groups. Their numbers are those that they have in the roster.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) kinds: BTreeMap<u32, Kind>,
    pub(crate) groups: BTreeMap<u32, Group>,
    kind_numbers: HashMap<String, u32>,
    group_numbers: HashMap<u32, HashMap<String, u32>>,
    /// Their folders and archives in lower case. Escaped names are ASCII.
    folded: HashSet<String>,
}

impl Names {
    pub(crate) fn kind(&self, name: &str) -> Option<u32> {
        self.kind_numbers.get(name).copied()
    }

    pub(crate) fn group(&self, kind: u32, name: &str) -> Option<u32> {
        self.group_numbers.get(&kind)?.get(name).copied()
    }

    fn add_kind(&mut self, number: u32, name: &str) -> Result<(), Refusal> {
        let folder = kind_folder(name)?;
        self.folded.insert(folder.to_ascii_lowercase());
        self.kinds.insert(number, Kind { name: name.to_owned(), folder });
        self.kind_numbers.insert(name.to_owned(), number);
        Ok(())
    }

    fn add_group(&mut self, number: u32, kind: u32, name: &str) -> Result<(), Refusal> {
        let file = self.archive(kind, name)?;
        self.folded.insert(file.to_ascii_lowercase());
        self.groups.insert(number, Group { kind, name: name.to_owned(), file });
        self.group_numbers.entry(kind).or_default().insert(name.to_owned(), number);
        Ok(())
    }

    fn archive(&self, kind: u32, group: &str) -> Result<String, Refusal> {
        let folder = self.kinds.get(&kind).map_or("", |kind| &kind.folder);
        Ok(format!("{folder}/{}{ARCHIVE}", group_file(group)?))
    }
}

pub(crate) struct Roster {
    connection: Connection,
    path: PathBuf,
    pub(crate) names: Names,
    /// Whether names that differ in case alone are of one file.
    pub(crate) folds_case: bool,
}

impl Roster {
    /// Opens the roster, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Roster, Error> {
        let connect = || {
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.set_prepared_statement_cache_capacity(32);
            connection.execute_batch(
                "PRAGMA page_size = 8192; PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA;
                 PRAGMA cache_size = -16384; PRAGMA temp_store = FILE",
            )?;
            Ok(connection)
        };
        let connection = connect().map_err(|error| failed(path, error))?;
        let mut roster = Roster { connection, path: path.to_owned(), names: Names::default(), folds_case: false };
        let tables = match roster.version()? {
            0 => format!("{TABLES} {SHAPES} {WHOLE_SHAPES} {WISHES}"),
            1 => format!("{SHAPES} {WHOLE_SHAPES} {WISHES}"),
            2 => format!("{WHOLE_SHAPES} {WISHES}"),
            3 => WISHES.to_owned(),
            _ => String::new(),
        };
        if !tables.is_empty() {
            roster.execute(&format!(
                "BEGIN IMMEDIATE; {tables} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}"
            ))?;
        }
        // Before tables are changed for good: what cannot be opened stays one of its version.
        roster.read_names()?;
        if !tables.is_empty() {
            roster.commit()?;
        }
        Ok(roster)
    }

    /// The version of the tables; 0 where there are none.
    fn version(&self) -> Result<i32, Error> {
        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let numbers = || Ok((number("application_id")?, number("user_version")?));
        match numbers().map_err(|error| self.failed(error))? {
            (APPLICATION_ID, version @ 1..=VERSION) => Ok(version),
            (0, 0) if self.count("sqlite_schema")? == 0 => Ok(0),
            (APPLICATION_ID, version) => Err(Error::Set {
                file: shown(&self.path),
                reason: format!("its tables are of version {version}, and {VERSION} is known"),
            }),
            _ => Err(Error::Set {
                file: shown(&self.path),
                reason: "it is an SQLite database of another program".to_owned(),
            }),
        }
    }

    fn count(&self, table: &str) -> Result<i64, Error> {
        self.connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .map_err(|error| self.failed(error))
    }

    pub(crate) fn failed(&self, error: rusqlite::Error) -> Error {
        failed(&self.path, error)
    }

    fn execute(&self, statements: &str) -> Result<(), Error> {
        self.connection.execute_batch(statements).map_err(|error| self.failed(error))
    }

    fn change(&self, statement: &str, parameters: impl rusqlite::Params) -> Result<(), Error> {
        let changed = self.connection.prepare_cached(statement).and_then(|mut statement| statement.execute(parameters));
        changed.map(drop).map_err(|error| self.failed(error))
    }

    fn rows<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        self.connection
            .prepare_cached(query)
            .and_then(|mut statement| statement.query_map(parameters, row)?.collect())
            .map_err(|error| self.failed(error))
    }

    pub(crate) fn begin(&self) -> Result<(), Error> {
        self.execute("BEGIN IMMEDIATE")
    }

    pub(crate) fn commit(&self) -> Result<(), Error> {
        self.execute("COMMIT")
    }

    /// Ends a transaction, if there is one, without a trace.
    pub(crate) fn roll_back(&mut self) -> Result<(), Error> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.execute("ROLLBACK")?;
        self.read_names()
    }

    pub(crate) fn read_names(&mut self) -> Result<(), Error> {
        let kinds = self.rows("SELECT id, name FROM kind", [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let groups = self.rows("SELECT id, kind, name FROM item_group", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        let mut names = Names::default();
        let read = kinds
            .iter()
            .try_for_each(|(number, name)| names.add_kind(*number, name))
            .and_then(|()| groups.iter().try_for_each(|(number, kind, name)| names.add_group(*number, *kind, name)));
        read.map_err(|reason| Error::Set {
            file: shown(&self.path),
            reason: format!("a name in it is none: {reason}"),
        })?;
        self.names = names;
        Ok(())
    }

    /// The number of a type, new or not.
    pub(crate) fn kind(&mut self, name: &str) -> Result<u32, Error> {
        self.kind_in(name, new_kind_folder)
    }

    /// The number of a type whose folder is there.
    pub(crate) fn kind_there(&mut self, name: &str) -> Result<u32, Error> {
        self.kind_in(name, kind_folder)
    }

    fn kind_in(&mut self, name: &str, folder: fn(&str) -> Result<String, Refusal>) -> Result<u32, Error> {
        if let Some(kind) = self.names.kind(name) {
            return Ok(kind);
        }
        let refused = |reason| Error::Refused { file: "a type of items".to_owned(), member: short(name), reason };
        let folder = folder(name).map_err(refused)?;
        self.check_case(&folder).map_err(refused)?;
        self.change("INSERT INTO kind (name) VALUES (?1)", [name])?;
        let number = self.last_number()?;
        self.names.add_kind(number, name).map_err(refused)?;
        Ok(number)
    }

    /// The number of a group, new or not.
    pub(crate) fn group(&mut self, kind: u32, name: &str) -> Result<u32, Error> {
        if let Some(group) = self.names.group(kind, name) {
            return Ok(group);
        }
        let refused = |reason| Error::Refused { file: "a group of items".to_owned(), member: short(name), reason };
        let file = self.names.archive(kind, name).map_err(refused)?;
        self.check_case(&file).map_err(refused)?;
        self.change("INSERT INTO item_group (kind, name) VALUES (?1, ?2)", params![kind, name])?;
        let number = self.last_number()?;
        self.names.add_group(number, kind, name).map_err(refused)?;
        Ok(number)
    }

    /// A new folder or archive must not be that of another type or group.
    fn check_case(&self, name: &str) -> Result<(), Refusal> {
        let is_there = self.folds_case && self.names.folded.contains(&name.to_ascii_lowercase());
        if is_there { Err(Refusal::NameInAnotherCase) } else { Ok(()) }
    }

    fn last_number(&self) -> Result<u32, Error> {
        u32::try_from(self.connection.last_insert_rowid())
            .map_err(|_| Error::Set { file: shown(&self.path), reason: "it has too many groups".to_owned() })
    }

    /// The group of an item.
    pub(crate) fn find(&self, kind: u32, id: &str) -> Result<Option<u32>, Error> {
        self.connection
            .prepare_cached("SELECT item_group FROM item WHERE kind = ?1 AND id = ?2")
            .and_then(|mut find| find.query_row(params![kind, id.as_bytes()], |row| row.get(0)).optional())
            .map_err(|error| self.failed(error))
    }

    /// Notes the group of an item, whether or not it had one.
    pub(crate) fn set(&self, kind: u32, id: &str, group: u32) -> Result<(), Error> {
        self.change(
            "INSERT INTO item (kind, id, item_group) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET item_group = excluded.item_group",
            params![kind, id.as_bytes(), group],
        )
    }

    pub(crate) fn unset(&self, kind: u32, id: &str) -> Result<(), Error> {
        self.change("DELETE FROM item WHERE kind = ?1 AND id = ?2", params![kind, id.as_bytes()])
    }

    /// Some items of a type and their groups, from behind this id on.
    pub(crate) fn items(&self, kind: u32, after: Option<&str>, most: u32) -> Result<Vec<(String, u32)>, Error> {
        // No id is empty.
        let after = after.unwrap_or_default().as_bytes();
        let rows = self.rows(
            "SELECT id, item_group FROM item WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            params![kind, after, most],
            |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)),
        )?;
        rows.into_iter()
            .map(|(id, group)| {
                let id = String::from_utf8(id)
                    .map_err(|_| Error::Set { file: shown(&self.path), reason: "an id in it is no text".to_owned() })?;
                Ok((id, group))
            })
            .collect()
    }

    /// How many items the groups of a type have.
    pub(crate) fn count_items(&self, kind: u32) -> Result<BTreeMap<u32, u64>, Error> {
        let query = "SELECT item_group, count(*) FROM item WHERE kind = ?1 GROUP BY item_group";
        let counts = self.rows(query, [kind], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        Ok(counts.into_iter().map(|(group, count)| (group, count.max(0) as u64)).collect())
    }

    /// What a group's archive is; none where it has none.
    pub(crate) fn archive(&self, group: u32) -> Result<Option<Facts>, Error> {
        self.connection
            .prepare_cached("SELECT entries, bytes, sha256 FROM archive WHERE item_group = ?1")
            .and_then(|mut find| find.query_row([group], |row| facts(row, 0)).optional())
            .map_err(|error| self.failed(error))
    }

    /// All archives, by group.
    pub(crate) fn archives(&self) -> Result<Vec<(u32, Facts)>, Error> {
        let query = "SELECT entries, bytes, sha256, item_group FROM archive ORDER BY item_group";
        self.rows(query, [], |row| Ok((row.get(3)?, facts(row, 0)?)))
    }

    pub(crate) fn set_archive(&self, group: u32, facts: Option<&Facts>) -> Result<(), Error> {
        match facts {
            Some(facts) => self.change(
                "INSERT INTO archive (item_group, entries, bytes, sha256) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET entries = excluded.entries, bytes = excluded.bytes, sha256 = excluded.sha256",
                params![group, facts.entries as i64, facts.bytes as i64, facts.sha256],
            ),
            None => self.change("DELETE FROM archive WHERE item_group = ?1", [group]),
        }
    }

    /// The shapes of all groups that have some.
    pub(crate) fn shapes(&self) -> Result<BTreeMap<u32, BTreeMap<Shape, Facts>>, Error> {
        self.shapes_in("SELECT 0, bytes, sha256, item_group, name FROM shape")
    }

    /// The shapes of all types that have some.
    pub(crate) fn whole_shapes(&self) -> Result<BTreeMap<u32, BTreeMap<Shape, Facts>>, Error> {
        self.shapes_in("SELECT 0, bytes, sha256, kind, name FROM whole_shape")
    }

    fn shapes_in(&self, query: &str) -> Result<BTreeMap<u32, BTreeMap<Shape, Facts>>, Error> {
        let rows = self.rows(query, [], |row| Ok((row.get(3)?, row.get::<_, String>(4)?, facts(row, 0)?)))?;
        let mut shapes: BTreeMap<u32, BTreeMap<Shape, Facts>> = BTreeMap::new();
        for (number, name, facts) in rows {
            let unknown = |error: UnknownShape| Error::Set { file: shown(&self.path), reason: error.to_string() };
            shapes.entry(number).or_default().insert(name.parse().map_err(unknown)?, facts);
        }
        Ok(shapes)
    }

    /// The shapes that types are to have, as was last said.
    pub(crate) fn wishes(&self) -> Result<BTreeMap<u32, BTreeSet<Shape>>, Error> {
        let rows =
            self.rows("SELECT kind, name FROM whole_wish", [], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let mut wishes: BTreeMap<u32, BTreeSet<Shape>> = BTreeMap::new();
        for (kind, name) in rows {
            let unknown = |error: UnknownShape| Error::Set { file: shown(&self.path), reason: error.to_string() };
            wishes.entry(kind).or_default().insert(name.parse().map_err(unknown)?);
        }
        Ok(wishes)
    }

    pub(crate) fn set_wishes(&self, kind: u32, shapes: &BTreeSet<Shape>) -> Result<(), Error> {
        self.change("DELETE FROM whole_wish WHERE kind = ?1", [kind])?;
        let add = "INSERT INTO whole_wish (kind, name) VALUES (?1, ?2)";
        shapes.iter().try_for_each(|shape| self.change(add, params![kind, shape.name()]))
    }

    pub(crate) fn set_shape(&self, group: u32, shape: Shape, facts: Option<&Facts>) -> Result<(), Error> {
        match facts {
            Some(facts) => self.change(
                "INSERT INTO shape (item_group, name, bytes, sha256) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256",
                params![group, shape.name(), facts.bytes as i64, facts.sha256],
            ),
            None => self.change("DELETE FROM shape WHERE item_group = ?1 AND name = ?2", params![group, shape.name()]),
        }
    }

    pub(crate) fn set_whole_shape(&self, kind: u32, shape: Shape, facts: Option<&Facts>) -> Result<(), Error> {
        match facts {
            Some(facts) => self.change(
                "INSERT INTO whole_shape (kind, name, bytes, sha256) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256",
                params![kind, shape.name(), facts.bytes as i64, facts.sha256],
            ),
            None => self.change("DELETE FROM whole_shape WHERE kind = ?1 AND name = ?2", params![kind, shape.name()]),
        }
    }

    /// The columns of the Parquet of a type; none where no run of this version has been there.
    pub(crate) fn columns(&self, kind: u32) -> Result<Option<ParquetColumns>, Error> {
        let text = self
            .connection
            .query_row("SELECT columns FROM parquet_columns WHERE kind = ?1", [kind], |row| row.get::<_, String>(0))
            .optional()
            .map_err(|error| self.failed(error))?;
        let bad = || Error::Set { file: shown(&self.path), reason: "columns in it are none".to_owned() };
        text.map(|text| ParquetColumns::parse(&text).ok_or_else(bad)).transpose()
    }

    pub(crate) fn set_columns(&self, kind: u32, columns: &ParquetColumns) -> Result<(), Error> {
        self.change(
            "INSERT INTO parquet_columns (kind, columns) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET columns = excluded.columns",
            params![kind, columns.text()],
        )
    }

    /// The types that have an `all.tar`.
    pub(crate) fn bundles(&self) -> Result<Vec<(u32, Facts)>, Error> {
        self.rows("SELECT 0, bytes, sha256, kind FROM bundle ORDER BY kind", [], |row| {
            Ok((row.get(3)?, facts(row, 0)?))
        })
    }

    pub(crate) fn set_bundle(&self, kind: u32, facts: Option<&Facts>) -> Result<(), Error> {
        match facts {
            Some(facts) => self.change(
                "INSERT INTO bundle (kind, bytes, sha256) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256",
                params![kind, facts.bytes as i64, facts.sha256],
            ),
            None => self.change("DELETE FROM bundle WHERE kind = ?1", [kind]),
        }
    }

    pub(crate) fn watermark(&self, kind: &str) -> Result<Option<String>, Error> {
        self.connection
            .query_row("SELECT value FROM watermark WHERE kind = ?1", [kind], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed(error))
    }

    pub(crate) fn set_watermark(&self, kind: &str, value: &str) -> Result<(), Error> {
        self.change(
            "INSERT INTO watermark (kind, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            [kind, value],
        )
    }

    /// The files that a committed run has yet to rename (true) or remove, by name.
    pub(crate) fn pending(&self) -> Result<Vec<(String, bool)>, Error> {
        self.rows("SELECT name, renamed FROM pending ORDER BY name", [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    pub(crate) fn add_pending(&self, name: &str, renamed: bool) -> Result<(), Error> {
        self.change("INSERT INTO pending (name, renamed) VALUES (?1, ?2)", params![name, renamed])
    }

    pub(crate) fn clear_pending(&self) -> Result<(), Error> {
        self.change("DELETE FROM pending", [])
    }

    /// Whether a set was ever published.
    pub(crate) fn has_run(&self) -> Result<bool, Error> {
        Ok(self.count("run")? > 0)
    }

    /// Notes a run that is about to succeed.
    pub(crate) fn set_run(&self, started: &str) -> Result<(), Error> {
        self.change("DELETE FROM run", [])?;
        self.change("INSERT INTO run (started) VALUES (?1)", [started])
    }

    pub(crate) fn set_good(&self, kind: u32, started: &str, duration: f64) -> Result<(), Error> {
        self.change("UPDATE kind SET last_good = ?2, duration = ?3 WHERE id = ?1", params![kind, started, duration])
    }

    /// When the last good run of a type began, and how many seconds it took.
    pub(crate) fn good(&self, kind: u32) -> Result<(Option<String>, Option<f64>), Error> {
        self.connection
            .query_row("SELECT last_good, duration FROM kind WHERE id = ?1", [kind], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(|error| self.failed(error))
    }

    /// Forgets all items, archives, shapes and watermarks, and what shapes types were to have: what is there says it then.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        self.execute(
            "DELETE FROM item; DELETE FROM archive; DELETE FROM shape; DELETE FROM whole_shape; DELETE FROM whole_wish;
             DELETE FROM bundle; DELETE FROM watermark",
        )
    }

    /// Forgets groups that have no archive, as one does that lost its last item.
    pub(crate) fn forget_empty(&self) -> Result<(), Error> {
        self.execute("DELETE FROM item_group WHERE id NOT IN (SELECT item_group FROM archive)")
    }

    /// The manifest of what is committed, or will be.
    pub(crate) fn manifest(&self) -> Result<SetManifest, Error> {
        let created = self
            .connection
            .query_row("SELECT started FROM run", [], |row| row.get(0))
            .map_err(|error| self.failed(error))?;
        let mut archives: Vec<SetArchive> = self
            .archives()?
            .into_iter()
            .filter_map(|(group, facts)| {
                let name = self.names.groups.get(&group)?.file.clone();
                let sha256 = hexadecimal(&facts.sha256);
                Some(SetArchive { name, entries: facts.entries, bytes: facts.bytes, sha256 })
            })
            .collect();
        archives.sort_by(|a, b| a.name.cmp(&b.name));
        let mut shapes = Vec::new();
        let mut add = |name, facts: Facts| {
            shapes.push(SetShape { name, bytes: facts.bytes, sha256: hexadecimal(&facts.sha256) });
        };
        for (group, of_group) in self.shapes()? {
            let Some(archive) = self.names.groups.get(&group) else { continue };
            of_group.into_iter().for_each(|(shape, facts)| add(shape_files(&archive.file, shape).0, facts));
        }
        for (kind, of_kind) in self.whole_shapes()? {
            let Some(kind) = self.names.kinds.get(&kind) else { continue };
            of_kind.into_iter().for_each(|(shape, facts)| add(whole_files(&kind.folder, shape).0, facts));
        }
        shapes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut bundles: Vec<SetBundle> = self
            .bundles()?
            .into_iter()
            .filter_map(|(kind, facts)| {
                let name = format!("{}/{}", self.names.kinds.get(&kind)?.folder, super::files::ALL);
                Some(SetBundle { name, bytes: facts.bytes, sha256: hexadecimal(&facts.sha256) })
            })
            .collect();
        bundles.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(SetManifest::new(created, archives, shapes, bundles))
    }
}

fn facts(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Facts> {
    let number = |at| row.get::<_, i64>(at).map(|number| number.max(0) as u64);
    Ok(Facts { entries: number(first)?, bytes: number(first + 1)?, sha256: row.get(first + 2)? })
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    Error::Roster { file: shown(path), source: Box::new(error) }
}

/// A name as errors give it.
pub(crate) fn short(name: &str) -> String {
    name.chars().take(100).collect()
}
