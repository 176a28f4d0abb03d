//! CourtListener-shaped snapshots: 33 CSV files and a schema, invented, deterministic by seed and scale.
//!
//! A [`Spec`] says what to make; [`generate`] writes it to a folder and returns a [`Snapshot`] with the facts that a test
//! compares with: rows, bytes, SHA-256 of the plain CSV, a sum of row hashes that PostgreSQL can compute too, and the
//! list of orphans. [`write_table`] writes one table of any size to any writer, and [`rows`] gives a table's values
//! before they become CSV.
//!
//! ```
//! use bulk_testkit::snapshot::{self, Compression, Spec};
//!
//! let dir = tempfile::tempdir()?;
//! let spec = Spec { scale: 0.001, compression: Compression::None, tables: vec!["courts".into()], ..Spec::default() };
//! let made = snapshot::generate(&spec, dir.path())?;
//! assert_eq!(made.files[0].name, "courts-2026-06-30.csv");
//! assert_eq!(made.files[0].rows, 214);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is true of every snapshot
//! - The same spec gives the same bytes, on every machine and with every number of threads. The date is part of file
//!   names alone.
//! - Every reference names a row of the same scale, but for `orphans` and one column: `search_parenthetical.group_id` is
//!   NULL in 15 % of its rows and in all others names a row of `search_parentheticalgroup`, a table that is never
//!   exported. So its foreign key is always violated, as in the published data.
//! - UNIQUE, CHECK and NOT NULL constraints and the lengths of the schema hold. `filepath_pdf_scan` and
//!   `filepath_xml_scan` of `search_opinioncluster` are NOT NULL, have no default and are not exported, as published.
//! - Rows come in the order of a heap: by id, but for one in 64, which stands at the end of its file.
//! - Quoted fields hold LF, CRLF, tabs, quotes and commas even where `nasty` is false; a line `\.`, a lone CR, fields of
//!   a mebibyte and dates beyond four digits come with `nasty` alone.

mod catalog;
mod ddl;
mod dialect;
mod disclosures;
mod item;
mod layout;
mod nasty;
mod pen;
mod people;
mod pipeline;
mod prose;
mod rng;
mod row;
mod search;
mod truth;
mod world;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

pub use self::catalog::{Column, TABLES, Table};
pub use self::ddl::SchemaFlavour;
pub use self::dialect::Dialect;
pub use self::item::opinion_json;
pub use self::row::Row;

use self::layout::Layout;
use self::pen::Pen;
use self::world::{MAX_SCALE, TableId, World};

/// The whole file that a failed export leaves: bzip2 of nothing, 14 bytes.
pub const PLACEHOLDER: &[u8; 14] = b"BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00";

/// What to make.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Another seed gives other rows, of the same number and shape. Default 1.
    pub seed: u64,
    /// 1.0, the default, is about 190 MB of CSV, four fifths of it opinions (a 1750th of the real rows). Tables grow in
    /// proportion; those of courts, races, courthouses and appeals stay small. From 0, which gives files of headers alone,
    /// to 5000. Below about 0.2 small tables keep at least 12 rows.
    pub scale: f64,
    /// The date in the names of the CSV files; the schema's is one day later. Default 2026-06-30.
    pub date: Date,
    /// Default [`Dialect::D`], today's.
    pub dialect: Dialect,
    /// Default bzip2 of level 9.
    pub compression: Compression,
    /// Adds some 80 rows to each of nine tables, with what careless parsers get wrong. Default false.
    pub nasty: bool,
    /// Adds exactly so many rows whose parent is missing: every eighth to citations, the others to citation-map; all to
    /// one of them where the other is not among `tables`. Default 0.
    pub orphans: u32,
    /// Default [`SchemaFlavour::Clean`].
    pub schema: SchemaFlavour,
    /// The tables to write, by table or base name; all where it is empty, the default. What they hold does not change.
    pub tables: Vec<String>,
    /// Threads that make and compress; as many as the machine has where it is `None`, the default.
    pub threads: Option<NonZeroUsize>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: 1,
            scale: 1.0,
            date: jiff::civil::date(2026, 6, 30),
            dialect: Dialect::D,
            compression: Compression::Bzip2 { level: 9 },
            nasty: false,
            orphans: 0,
            schema: SchemaFlavour::Clean,
            tables: Vec::new(),
            threads: None,
        }
    }
}

/// How CSV files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all; names end in `.csv`.
    None,
    /// bzip2 of a level from 1 to 9 in streams of at most 2 MB of CSV, one after another, made on all threads: files of
    /// less than some megabytes have one stream, large ones many. A stream may end inside a record.
    Bzip2 {
        /// Hundreds of kilobytes in a block.
        level: u32,
    },
    /// bzip2 with one stream in each file, however large. Only one thread compresses.
    Bzip2OneStream {
        /// Hundreds of kilobytes in a block.
        level: u32,
    },
}

/// A snapshot that [`generate`] wrote.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The folder it is in.
    pub dir: PathBuf,
    /// Its CSV files, in the order of [`TABLES`].
    pub files: Vec<SnapshotFile>,
    /// The name of the schema file.
    pub schema: String,
    /// Rows of all files together.
    pub rows: u64,
    /// CSV bytes of all files together, before compression.
    pub csv_bytes: u64,
    /// Bytes of all CSV files together as they are on disk.
    pub bytes: u64,
    /// The rows whose parent is missing, without those of `search_parenthetical.group_id`.
    pub orphans: Vec<Orphan>,
}

/// A CSV file of a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// The table it holds.
    pub table: &'static str,
    /// Its name in the folder.
    pub name: String,
    /// Records, the header not counted.
    pub rows: u64,
    /// Bytes of CSV, before compression.
    pub csv_bytes: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// SHA-256 of the CSV before compression, in hexadecimal digits.
    pub csv_sha256: String,
    /// The sum over rows of the first 60 bits of `md5(ROW(columns)::text)`, with the columns in the published order: it
    /// does not depend on the order of rows, and the server computes it with the statement of
    /// [`Snapshot::write_truth`].
    pub row_md5_sum: u128,
}

/// A row whose parent is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The table of the row.
    pub table: &'static str,
    /// Its id.
    pub id: u64,
    /// The column that refers to nothing.
    pub column: &'static str,
    /// The id that is missing.
    pub missing: u64,
}

/// Why a snapshot was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The writer given to [`write_table`] failed.
    #[error("cannot write the table")]
    Write(#[source] io::Error),
    /// No published table or file has this name.
    #[error("no table is called {name}")]
    UnknownTable {
        /// The name.
        name: String,
    },
    /// The scale is negative, not a number, or so large that ids would not fit.
    #[error("scale {scale} is not between 0 and {MAX_SCALE}")]
    Scale {
        /// The scale asked for.
        scale: f64,
    },
    /// Orphans were asked for, but neither citation-map nor citations with any rows.
    #[error("no table is left to hold orphans")]
    NoPlaceForOrphans,
    /// The table cannot have that size: it has a fixed number of rows, or ids would not fit.
    #[error("{table} cannot grow to {bytes} bytes")]
    TooLarge {
        /// The table.
        table: &'static str,
        /// The size asked for.
        bytes: u64,
    },
}

impl Error {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// Writes the CSV files of `spec` as `<base>-YYYY-MM-DD.csv` or `.csv.bz2`, and the schema of the day after as
/// `schema-YYYY-MM-DD.sql`, to `dir`, which is made where it is missing. Files appear under their names as they are
/// written, and are overwritten where they exist.
///
/// # Errors
/// Where the spec asks for what cannot be, or a file cannot be written; then files may be missing or incomplete.
pub fn generate(spec: &Spec, dir: &Path) -> Result<Snapshot, Error> {
    let world = world(spec)?;
    let layouts = layouts(spec, &world)?;
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let files = pipeline::write_files(spec, &world, &layouts, dir)?;

    let next_day = spec.date.tomorrow().unwrap_or(spec.date);
    let schema = format!("schema-{next_day}.sql");
    let path = dir.join(&schema);
    std::fs::write(&path, spec.schema.sql()).map_err(Error::io(&path))?;

    let mut pen = Pen::new(&world);
    Ok(Snapshot {
        dir: dir.to_owned(),
        rows: files.iter().map(|file| file.rows).sum(),
        csv_bytes: files.iter().map(|file| file.csv_bytes).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        orphans: layouts.iter().flat_map(|layout| layout.orphans(&mut pen)).collect(),
        files,
        schema,
    })
}

/// Writes the header and the first rows of one table (by table or base name) to `out`, as plain CSV, until
/// `target_bytes` are reached or passed by less than a record. The table is that of a scale at which it is larger, so
/// that ids are unique and constraints hold, and the scale, `orphans`, `tables` and `compression` of the spec do not
/// matter. Uses one thread, and less than a megabyte beyond the largest row. Returns rows and bytes written.
///
/// # Errors
/// Where the table has a fixed number of rows, would be too large, or `out` fails.
pub fn write_table(spec: &Spec, table: &str, target_bytes: u64, out: &mut impl Write) -> Result<(u64, u64), Error> {
    let table = find(table)?;
    let too_large = || Error::TooLarge { table: TABLES[table as usize].name, bytes: target_bytes };
    let at_scale_1 = table.grows().ok_or_else(too_large)?;

    let sample = Layout::new(&World::new(spec.seed, 1.0), table, 0..0, spec.nasty);
    let (rows, bytes) = write_rows(spec, &World::new(spec.seed, 1.0), &sample, 4 << 20, &mut io::sink())?;
    let rows_needed = target_bytes as f64 * rows as f64 / bytes as f64;
    let scale = (rows_needed / at_scale_1 as f64 * 2.0).max(1.0);
    if scale > MAX_SCALE {
        return Err(too_large());
    }
    let world = World::new(spec.seed, scale);
    write_rows(spec, &world, &Layout::new(&world, table, 0..0, spec.nasty), target_bytes, out)
}

fn write_rows(
    spec: &Spec,
    world: &World,
    layout: &Layout,
    target_bytes: u64,
    out: &mut impl Write,
) -> Result<(u64, u64), Error> {
    let (mut rows, mut bytes, mut failed) = (0, 0, None);
    let mut csv = layout.header().into_bytes();
    let mut pen = Pen::new(world);
    for unit in layout.units() {
        layout.make(unit, &mut pen, |pen| {
            if bytes + csv.len() as u64 >= target_bytes {
                return false;
            }
            spec.dialect.encode(&pen.row, &mut csv);
            rows += 1;
            if csv.len() >= 64 << 10 {
                failed = out.write_all(&csv).err();
                bytes += csv.len() as u64;
                csv.clear();
            }
            failed.is_none()
        });
        if failed.is_some() || bytes + csv.len() as u64 >= target_bytes {
            break;
        }
    }
    match failed {
        Some(error) => Err(Error::Write(error)),
        None => {
            out.write_all(&csv).map_err(Error::Write)?;
            Ok((rows, bytes + csv.len() as u64))
        }
    }
}

/// Gives every row of one table (by table or base name) to `take`, in the order of its file and before any dialect:
/// what a reader of the file must find.
///
/// # Errors
/// Where the spec asks for what cannot be, or there is no such table.
pub fn rows(spec: &Spec, table: &str, mut take: impl FnMut(&Row)) -> Result<(), Error> {
    let table = find(table)?;
    let world = world(spec)?;
    // The table itself may be left out of the spec; its orphans then go elsewhere.
    let layout = layouts(spec, &world)?
        .into_iter()
        .find(|layout| layout.table == table)
        .unwrap_or_else(|| Layout::new(&world, table, 0..0, spec.nasty));
    let mut pen = Pen::new(&world);
    for unit in layout.units() {
        layout.make(unit, &mut pen, |pen| {
            take(&pen.row);
            true
        });
    }
    Ok(())
}

impl Snapshot {
    /// Writes `truth.json`, the rows, bytes and hashes of every table, and `truth.sql`, a query that has the server compute
    /// rows and `row_md5_sum` of each of them, to `dir`.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write_truth(&self, dir: &Path) -> Result<(), Error> {
        let tables: serde_json::Map<String, serde_json::Value> = (self.files.iter())
            .map(|file| {
                let columns = &facts(file.table).csv;
                let value = serde_json::json!({
                    "file": file.name, "columns": columns, "rows": file.rows, "bytes": file.csv_bytes,
                    "file_bytes": file.bytes, "sha256": file.csv_sha256, "row_md5_sum": file.row_md5_sum.to_string(),
                });
                (file.table.to_owned(), value)
            })
            .collect();
        let orphans: Vec<_> =
            self.orphans.iter().map(|o| serde_json::json!([o.table, o.id, o.column, o.missing])).collect();
        let json = serde_json::json!({ "tables": tables, "orphans": orphans });
        let path = dir.join("truth.json");
        std::fs::write(&path, format!("{json:#}\n")).map_err(Error::io(&path))?;
        let path = dir.join("truth.sql");
        std::fs::write(&path, self.truth_sql()).map_err(Error::io(&path))
    }

    /// Statements that set TimeZone, DateStyle and extra_float_digits, and one query that returns `"table"`, `rows` and
    /// `row_md5_sum` (numeric) for each file.
    #[must_use]
    pub fn truth_sql(&self) -> String {
        let queries: Vec<String> = (self.files.iter())
            .map(|file| {
                let columns: Vec<&str> = facts(file.table).csv.iter().map(|column| ddl::quoted(column)).collect();
                format!(
                    "SELECT '{0}' AS table, count(*) AS rows, coalesce(sum(('x' || left(md5(ROW({1})::text), 15))\
                     ::bit(60)::bigint), 0) AS row_md5_sum FROM public.{0}",
                    file.table,
                    columns.join(", ")
                )
            })
            .collect();
        format!(
            "SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET extra_float_digits = 1;\n{};\n",
            queries.join("\nUNION ALL ")
        )
    }
}

fn facts(table: &str) -> &'static Table {
    TABLES.iter().find(|facts| facts.name == table).expect("a file is of a published table")
}

fn world(spec: &Spec) -> Result<World, Error> {
    if (0.0..=MAX_SCALE).contains(&spec.scale) {
        Ok(World::new(spec.seed, spec.scale))
    } else {
        Err(Error::Scale { scale: spec.scale })
    }
}

/// The table called so.
fn find(name: &str) -> Result<TableId, Error> {
    let at = TABLES.iter().position(|table| table.name == name || table.base == name);
    at.map(|at| TableId::ALL[at]).ok_or_else(|| Error::UnknownTable { name: name.to_owned() })
}

/// The layouts of the tables to write, in the order of [`TABLES`].
fn layouts(spec: &Spec, world: &World) -> Result<Vec<Layout>, Error> {
    let wanted: Vec<TableId> = spec.tables.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
    let is_wanted = |table: TableId| wanted.is_empty() || wanted.contains(&table);
    let orphans = u64::from(spec.orphans);
    let in_citations = match [TableId::Cited, TableId::Citation].map(|table| is_wanted(table) && world.rows(table) > 0)
    {
        [true, true] => orphans / 8,
        [true, false] => 0,
        [false, true] => orphans,
        [false, false] if orphans > 0 => return Err(Error::NoPlaceForOrphans),
        [false, false] => 0,
    };
    let share = |table: TableId| match table {
        TableId::Cited => 0..orphans - in_citations,
        TableId::Citation => orphans - in_citations..orphans,
        _ => 0..0,
    };
    Ok((TableId::ALL.into_iter().filter(|table| is_wanted(*table)))
        .map(|table| Layout::new(world, table, share(table), spec.nasty))
        .collect())
}
