//! The two tables that are loaded, and their files in each format.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulk_benches::{Failed, done};
use bulk_testkit::postgres::{Database, Server};
use bulk_testkit::snapshot::{self, Dialect, Spec, TABLES};

/// One in so many records of the files with bad ones is bad.
const RATE: u64 = 1000;

/// A table and its rows, in files of each format.
pub(crate) struct Input {
    pub(crate) name: &'static str,
    /// The statement that makes the table `t`.
    pub(crate) create: String,
    pub(crate) columns: Vec<String>,
    /// Columns of types of any length.
    pub(crate) wide: Vec<String>,
    /// As COPY is to read the CSV file.
    pub(crate) options: &'static str,
    pub(crate) csv: PathBuf,
    pub(crate) text: PathBuf,
    pub(crate) binary: PathBuf,
    /// The same CSV with bad records between the others.
    pub(crate) with_bad: PathBuf,
    pub(crate) bad: u64,
    pub(crate) rows: u64,
    /// What the table then holds, by the server's word.
    pub(crate) content: String,
    /// The first rows of it, for whoever is slow.
    pub(crate) first: u64,
    pub(crate) first_content: String,
}

/// Count and hash of the table's rows, in any order.
pub(crate) fn content(server: &Server, database: &Database) -> Result<String, Failed> {
    let sql = "SELECT count(*), sum(hashtextextended(r::text, 0)::numeric) FROM t r";
    Ok(server.psql(database.url(), sql)?.trim_end().to_owned())
}

/// A CSV file and its twin with bad records.
struct Pair {
    csv: BufWriter<File>,
    with_bad: BufWriter<File>,
    rows: u64,
    bad: u64,
}

impl Pair {
    fn create(csv: &Path, with_bad: &Path, columns: &[String]) -> Result<Self, Failed> {
        let mut pair = Self {
            csv: BufWriter::new(File::create(csv)?),
            with_bad: BufWriter::new(File::create(with_bad)?),
            rows: 0,
            bad: 0,
        };
        let header = columns.join(",");
        writeln!(pair.csv, "{header}")?;
        writeln!(pair.with_bad, "{header}")?;
        Ok(pair)
    }

    /// Adds a record whose first value is an integer. Every so often one goes before it of which that is none.
    fn push(&mut self, record: &[u8]) -> Result<(), Failed> {
        self.rows += 1;
        if self.rows.is_multiple_of(RATE) {
            let digits = usize::from(record.first() == Some(&b'"'));
            self.with_bad.write_all(&record[..digits])?;
            self.with_bad.write_all(b"x")?;
            self.with_bad.write_all(&record[digits..])?;
            self.bad += 1;
        }
        self.csv.write_all(record)?;
        self.with_bad.write_all(record)?;
        Ok(())
    }
}

impl Input {
    /// The table of pyLoader: statistics of a game's characters.
    pub(crate) fn py_loader(server: &Server, folder: &Path, rows: u64, first: u64) -> Result<Self, Failed> {
        let columns: Vec<(String, String)> = [
            ("group_id", "integer"),
            ("clan_id", "integer"),
            ("member_id", "integer"),
            ("character_id", "bigint"),
            ("activity_hash", "bigint"),
            ("stat_id", "text"),
            ("stat", "jsonb"),
        ]
        .map(|(name, of_type)| (name.to_owned(), of_type.to_owned()))
        .into();
        let mut random = fastrand::Rng::with_seed(1);
        Self::new(server, folder, "pyLoader", &columns, "FORMAT csv, HEADER", first, |pair| {
            const NAMES: [&str; 6] = [
                "activityCompletions",
                "activityKills",
                "fastestCompletionMsForActivity",
                "activityDeaths",
                "activitySecondsPlayed",
                "activityGatesHit",
            ];
            while pair.rows < rows {
                let member = random.u32(1..5000);
                let (character, activity) = (2_305_843_009_260_000_000 + random.u64(..9_999_999), random.u32(..));
                let (name, value) = (NAMES[random.usize(..NAMES.len())], random.u32(..1_000_000));
                let record = format!(
                    "{},{},{member},{character},{activity},{name},\"{{\"\"statId\"\": \"\"{name}\"\", \"\"basic\"\": \
                     {{\"\"value\"\": {value}.0, \"\"displayValue\"\": \"\"{value}\"\"}}}}\"\n",
                    1 + member % 7,
                    802_000 + member % 300,
                );
                pair.push(record.as_bytes())?;
            }
            Ok(())
        })
    }

    /// `CourtListener`'s opinions, wide text, as they are published.
    pub(crate) fn court(server: &Server, folder: &Path, scale: f64, first: u64) -> Result<Self, Failed> {
        const TABLE: &str = "search_opinion";
        let table = TABLES.iter().find(|table| table.name == TABLE).ok_or("no such table")?;
        let columns = table.csv.iter().filter_map(|name| table.column(name));
        let columns: Vec<_> = columns.map(|column| (column.name.to_owned(), column.sql_type.clone())).collect();
        let spec = Spec { scale, dialect: Dialect::D, ..Spec::default() };
        let options = "FORMAT csv, HEADER, ESCAPE '\\'";
        Self::new(server, folder, "court", &columns, options, first, |pair| {
            let (mut record, mut result) = (Vec::new(), Ok(()));
            snapshot::rows(&spec, TABLE, |row| {
                record.clear();
                spec.dialect.encode(row, &mut record);
                if result.is_ok() {
                    result = pair.push(&record);
                }
            })?;
            result
        })
    }

    fn new(
        server: &Server,
        folder: &Path,
        name: &'static str,
        columns: &[(String, String)],
        options: &'static str,
        first: u64,
        write: impl FnOnce(&mut Pair) -> Result<(), Failed>,
    ) -> Result<Self, Failed> {
        let path = |format: &str| folder.join(format!("{name}.{format}"));
        let definitions: Vec<_> = columns.iter().map(|(name, of_type)| format!("\"{name}\" {of_type}")).collect();
        let is_wide =
            |of_type: &str| ["text", "jsonb", "character varying"].iter().any(|wide| of_type.starts_with(wide));
        let wide = columns.iter().filter(|(_, of_type)| is_wide(of_type)).map(|(name, _)| name.clone());
        let mut input = Self {
            name,
            create: format!("CREATE TABLE t ({})", definitions.join(", ")),
            columns: columns.iter().map(|(name, _)| name.clone()).collect(),
            wide: wide.collect(),
            options,
            csv: path("csv"),
            text: path("text"),
            binary: path("binary"),
            with_bad: path("bad.csv"),
            bad: 0,
            rows: 0,
            content: String::new(),
            first: 0,
            first_content: String::new(),
        };
        let mut pair = Pair::create(&input.csv, &input.with_bad, &input.columns)?;
        write(&mut pair)?;
        pair.csv.flush()?;
        pair.with_bad.flush()?;
        (input.rows, input.bad, input.first) = (pair.rows, pair.bad, first.min(pair.rows));

        // What the server itself makes of the CSV is what all are compared with.
        let database = server.create_database("input")?;
        server.psql(database.url(), &input.create)?;
        server.psql(database.url(), &format!("\\copy t FROM '{}' ({options})", input.csv.display()))?;
        input.content = content(server, &database)?;
        for (file, format) in [(&input.text, "text"), (&input.binary, "binary")] {
            let mut command = Command::new("psql");
            command.args(["-Xqc", &format!("COPY t TO STDOUT (FORMAT {format})"), database.url()]);
            done(command.stdout(Stdio::from(File::create(file)?)))?;
        }
        let path = path("first");
        let mut head = BufWriter::new(File::create(&path)?);
        let mut lines = BufReader::new(File::open(&input.text)?);
        let mut line = Vec::new();
        for _ in 0..input.first {
            line.clear();
            lines.read_until(b'\n', &mut line)?;
            head.write_all(&line)?;
        }
        head.flush()?;
        server.psql(database.url(), "TRUNCATE t")?;
        server.psql(database.url(), &format!("\\copy t FROM '{}'", path.display()))?;
        input.first_content = content(server, &database)?;
        database.remove()?;
        fs::remove_file(path)?;
        Ok(input)
    }

    /// Bytes of its CSV.
    pub(crate) fn bytes(&self) -> Result<u64, Failed> {
        Ok(fs::metadata(&self.csv)?.len())
    }
}
