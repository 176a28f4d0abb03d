//! `bulk mirror` against the published way, in turn, on the same served snapshot and the same PostgreSQL.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-mirror -- [--scale 2] [--rounds 3] [--connections 2]
//! ```
//!
//! The published way is what the publisher's script and pages tell people to do: fetch all files (curl, eight at once),
//! `bunzip2` each, `psql -f` of the schema with its indexes and foreign keys, then 33 × `\copy`, one after another. Three
//! things are mended for it, since it would else stop: the database is made beforehand (the dump asks for a locale that
//! few machines have), the columns that are NOT NULL and not exported get a default, and the one foreign key that
//! every snapshot violates is taken out of the schema, for both sides. Both get a fresh database on one server with
//! PostgreSQL's default, durable settings, and a checkpoint before each run. After each run both databases must hold the
//! same rows. It needs curl, bunzip2 and psql; what is missing is named.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_benches::{Failed, build_bulk, done, need, summary};
use bulk_testkit::postgres::{self, Database};
use bulk_testkit::s3::{self, EtagStyle, Store};
use bulk_testkit::snapshot::{self, SchemaFlavour, Snapshot, Spec};
use clap::Parser;

const BUCKET: &str = "com-courtlistener-storage";
const PREFIX: &str = "bulk-data";
/// Violated by every snapshot: the table that it refers to is never exported.
const VIOLATED: &str = "(group_id) REFERENCES public.search_parentheticalgroup";

/// Runs `bulk mirror` and the published way in turn and prints their times and ratio.
#[derive(Parser)]
struct Arguments {
    /// How much to invent: 1 is about 190 MB of CSV.
    #[arg(long, default_value_t = 2.0)]
    scale: f64,
    /// Runs of each side.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Database connections that `bulk mirror` may use.
    #[arg(long, default_value_t = 2)]
    connections: usize,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    need("curl", "curl")?;
    need("bunzip2", "bzip2")?;
    need("psql", "postgresql-client")?;
    let bulk = build_bulk()?;

    let folder = tempfile::tempdir()?;
    let files = folder.path().join("bucket").join(PREFIX);
    let spec = Spec { scale: arguments.scale, schema: SchemaFlavour::Published, ..Spec::default() };
    let made = snapshot::generate(&spec, &files)?;
    let schema = files.join(&made.schema);
    fs::write(&schema, without_violated_key(&fs::read_to_string(&schema)?)?)?;
    let store = Store::folder(folder.path().join("bucket"), EtagStyle::Multipart);
    let bucket = s3::Server::builder().bucket(BUCKET, store).start()?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    eprintln!(
        "{} rows, {} MB of CSV, {} MB of bz2; PostgreSQL {}, {} cores",
        made.rows,
        made.csv_bytes / 1_000_000,
        made.bytes / 1_000_000,
        server.version(),
        std::thread::available_parallelism()?
    );

    let bench = Bench { server, bucket, made, schema, bulk, work: folder.path().join("work"), arguments };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=bench.arguments.rounds {
        let (time, stages, contents) = bench.run(Bench::ours)?;
        eprintln!("round {round}: bulk mirror     {:6.2} s  ({stages})", time.as_secs_f64());
        ours.push(time);
        let (time, stages, expected) = bench.run(Bench::published)?;
        eprintln!("round {round}: published way   {:6.2} s  ({stages})", time.as_secs_f64());
        theirs.push(time);
        if contents != expected {
            return Err(format!("the databases differ:\nbulk\n{contents}\npublished way\n{expected}").into());
        }
    }
    let (ours, theirs) = (median(ours).as_secs_f64(), median(theirs).as_secs_f64());
    println!("| | median of {} | ratio |\n|---|---|---|", bench.arguments.rounds);
    println!("| published way: curl, bunzip2, psql, 33 × \\copy | {theirs:.1} s | 1 |");
    println!("| `bulk mirror` | {ours:.1} s | **{:.1}×** faster |", theirs / ours);
    Ok(())
}

struct Bench {
    server: postgres::Server,
    bucket: s3::Server,
    made: Snapshot,
    schema: PathBuf,
    bulk: PathBuf,
    work: PathBuf,
    arguments: Arguments,
}

impl Bench {
    /// Runs one side in a fresh database and an empty folder; returns its time, its stages, and what the database holds.
    fn run(
        &self,
        side: impl FnOnce(&Self, &Database) -> Result<String, Failed>,
    ) -> Result<(Duration, String, String), Failed> {
        fs::create_dir_all(&self.work)?;
        let database = self.server.create_database("compare")?;
        self.server.psql(database.url(), "CHECKPOINT")?;
        let started = Instant::now();
        let stages = side(self, &database)?;
        let time = started.elapsed();
        let contents = self.contents(&database)?;
        database.remove()?;
        fs::remove_dir_all(&self.work)?;
        Ok((time, stages, contents))
    }

    fn ours(&self, database: &Database) -> Result<String, Failed> {
        let mut command = Command::new(&self.bulk);
        command.args(["mirror", "courtlistener", "--json", "--endpoint", &self.bucket.url()]);
        command.args(["--connections", &self.arguments.connections.to_string()]);
        command.arg("--dir").arg(self.work.join("files")).env("BULK_DB", database.url());
        let summary = summary(command.stdin(Stdio::null()).output()?)?;
        let stages = summary["stages"].as_object().ok_or("no stages")?;
        Ok(stages
            .iter()
            .map(|(stage, time)| format!("{stage} {:.2}", time.as_f64().unwrap_or(0.0)))
            .collect::<Vec<_>>()
            .join(", "))
    }

    fn published(&self, database: &Database) -> Result<String, Failed> {
        let mut stages = Vec::new();
        let mut stage = |name: &str, work: &mut dyn FnMut() -> Result<(), Failed>| {
            let started = Instant::now();
            work()?;
            stages.push(format!("{name} {:.2}", started.elapsed().as_secs_f64()));
            Ok::<(), Failed>(())
        };
        stage("curl", &mut || {
            let mut command = Command::new("curl");
            command.args([
                "--silent",
                "--show-error",
                "--fail",
                "--parallel",
                "--parallel-max",
                "8",
                "--remote-name-all",
            ]);
            for file in &self.made.files {
                command.arg(self.bucket.object_url(BUCKET, &format!("{PREFIX}/{}", file.name)));
            }
            done(command.current_dir(&self.work))
        })?;
        stage("bunzip2", &mut || {
            self.made.files.iter().try_for_each(|file| done(Command::new("bunzip2").arg(self.work.join(&file.name))))
        })?;
        stage("schema", &mut || {
            let schema = fs::read_to_string(&self.schema)?;
            let is_kept = |line: &&str| !line.starts_with("CREATE DATABASE") && !line.starts_with("\\connect");
            let mut text: String = schema.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
            for column in ["filepath_pdf_scan", "filepath_xml_scan"] {
                writeln!(text, "ALTER TABLE public.search_opinioncluster ALTER {column} SET DEFAULT '';")?;
            }
            self.psql(database, "schema.sql", &text)
        })?;
        stage("\\copy", &mut || {
            let mut script = String::new();
            for file in &self.made.files {
                let path = self.work.join(file.name.trim_end_matches(".bz2"));
                let columns = first_line(&path)?;
                writeln!(
                    script,
                    "\\copy public.{} ({columns}) FROM '{}' WITH (FORMAT csv, ENCODING utf8, HEADER, ESCAPE '\\')",
                    file.table,
                    path.display()
                )?;
            }
            self.psql(database, "load.sql", &script)
        })?;
        Ok(stages.join(", "))
    }

    /// Errors of single statements are passed over, as by the published script; what is missing shows in the contents.
    fn psql(&self, database: &Database, name: &str, text: &str) -> Result<(), Failed> {
        let path = self.work.join(name);
        fs::write(&path, text)?;
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--file"]).arg(path).arg(database.url());
        done(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Rows and a sum of row hashes for each table, and the number of indexes and keys.
    fn contents(&self, database: &Database) -> Result<String, Failed> {
        let mut sql = String::new();
        for file in &self.made.files {
            writeln!(
                sql,
                "SELECT '{0}', count(*), sum(hashtextextended(t::text, 0)::numeric) FROM public.{0} t;",
                file.table
            )?;
        }
        sql.push_str(
            "SELECT 'indexes', count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             WHERE c.relnamespace = 'public'::regnamespace;
             SELECT 'keys', count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated
             AND connamespace = 'public'::regnamespace;",
        );
        let contents = self.server.psql(database.url(), &sql)?;
        for file in &self.made.files {
            if !contents.contains(&format!("{}|{}|", file.table, file.rows)) {
                return Err(format!("{} does not have its {} rows:\n{contents}", file.table, file.rows).into());
            }
        }
        Ok(contents)
    }
}

fn first_line(path: &Path) -> Result<String, Failed> {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    BufReader::new(fs::File::open(path)?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The schema without the statement that holds [`VIOLATED`].
fn without_violated_key(schema: &str) -> Result<String, Failed> {
    let at = schema.find(VIOLATED).ok_or("the schema lacks the key that is to be left out")?;
    let start = schema[..at].rfind("ALTER TABLE").ok_or("the key is no statement of its own")?;
    let end = at + schema[at..].find(';').ok_or("the key's statement has no end")? + 1;
    Ok(format!("{}{}", &schema[..start], &schema[end..]))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
