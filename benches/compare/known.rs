//! What stores of known objects cost.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin measure-known -- [--objects 1000000] [--page 1000]
//! ```
//!
//! An SQLite file, the table of ours and a user's table without an index that serves, on a PostgreSQL of its own: objects
//! become known, in order and 10,000 at a time, then once more just so, then with other ETags; then all are scanned. CPU
//! seconds of this process, and of the server's.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::time::Instant;

use bulk_benches::Failed;
use bulk_s3::{
    KeyRange, KnownChange, KnownObjects, KnownTable, ObjectRef, PostgresKnown, PostgresOptions, SqliteKnown,
    SqliteOptions,
};
use bulk_testkit::postgres;
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Measures stores of known objects.
#[derive(Parser)]
struct Arguments {
    /// How many objects.
    #[arg(long, default_value_t = 1_000_000)]
    objects: usize,
    /// How many are scanned at once.
    #[arg(long, default_value_t = 1_000)]
    page: usize,
}

/// How many become known at once.
const APPLIED: usize = 10_000;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    println!("{:<12} {:<28} {:>8} {:>8} {:>8}", "store", "", "wall s", "CPU s", "server");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("known.sqlite");
    let sqlite = SqliteKnown::open(&path, "data", SqliteOptions::default()).await?;
    measure("sqlite", &sqlite, &arguments, None).await?;
    println!("{:<12} {} bytes", "", std::fs::metadata(&path)?.len());

    let server = postgres::Server::start(&postgres::Options::default())?;
    let database = server.create_database("known")?;
    let connect = async |table| PostgresKnown::connect(database.url(), "data", table, PostgresOptions::default()).await;
    let known = connect(KnownTable::default()).await?;
    measure("postgres", &known, &arguments, server.pid()).await?;

    server.psql(
        database.url(),
        "CREATE TABLE builds (id bigserial PRIMARY KEY, key text COLLATE \"POSIX\", etag text)",
    )?;
    server
        .psql(database.url(), "INSERT INTO builds (key, etag) SELECT key, etag FROM bulk.known_object ORDER BY etag")?;
    let table = KnownTable::new("builds".parse()?, "key".parse()?, "etag".parse()?);
    let known = connect(table).await?;
    println!("{:<12} {}", "", known.missing_index().unwrap_or_default());
    let meter = Meter::start(server.pid());
    known.scan(&KeyRange::all(), 1).await?;
    meter.stop("sorted copy", "made");
    scan("sorted copy", &known, &arguments, server.pid()).await
}

async fn measure(
    name: &str,
    store: &dyn KnownObjects,
    arguments: &Arguments,
    server: Option<u32>,
) -> Result<(), Failed> {
    for (edition, what) in [(0, "new objects"), (0, "the same again"), (1, "other ETags")] {
        let meter = Meter::start(server);
        for start in (0..arguments.objects).step_by(APPLIED) {
            let end = (start + APPLIED).min(arguments.objects);
            let texts: Vec<_> = (start..end).map(|number| (key(number), etag(number, edition))).collect();
            let changes: Vec<_> = texts
                .iter()
                .map(|(key, etag)| {
                    let mut object = ObjectRef::new(key);
                    (object.etag, object.size) = (Some(etag.as_str()), Some(12_345));
                    object.last_modified = jiff::Timestamp::from_second(1_700_000_000).ok();
                    KnownChange::Set(object)
                })
                .collect();
            store.apply(&changes).await?;
        }
        meter.stop(name, what);
    }
    scan(name, store, arguments, server).await?;
    let meter = Meter::start(server);
    let points = store.split_points(&KeyRange::all(), 64).await?.len();
    meter.stop(name, &format!("{points} split points"));
    Ok(())
}

async fn scan(name: &str, store: &dyn KnownObjects, arguments: &Arguments, server: Option<u32>) -> Result<(), Failed> {
    let meter = Meter::start(server);
    let mut range = KeyRange::all();
    let mut count = 0;
    loop {
        let batch = store.scan(&range, arguments.page).await?;
        count += batch.len();
        if batch.len() < arguments.page {
            break;
        }
        range.after = batch.last().map(|last| last.key.to_owned());
    }
    meter.stop(name, &format!("scan of {count} by {}", arguments.page));
    if count == arguments.objects { Ok(()) } else { Err(format!("{count} objects were found").into()) }
}

/// As the keys of Buildhub's bucket are.
fn key(number: usize) -> String {
    format!(
        "pub/firefox/candidates/{:04}.0-candidates/build1/linux-x86_64/xx/firefox-{number:09}.buildhub.json",
        number / 5000
    )
}

fn etag(number: usize, edition: u64) -> String {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ edition;
    format!("{mixed:016x}{:016x}", mixed.rotate_left(31))
}

struct Meter {
    started: Instant,
    own: f64,
    server: Option<(u32, f64)>,
}

impl Meter {
    fn start(server: Option<u32>) -> Self {
        Self { started: Instant::now(), own: own_cpu(), server: server.map(|pid| (pid, server_cpu(pid))) }
    }

    fn stop(self, store: &str, what: &str) {
        let (wall, own) = (self.started.elapsed().as_secs_f64(), own_cpu() - self.own);
        let server = self.server.map(|(pid, before)| format!("{:.2}", server_cpu(pid) - before)).unwrap_or_default();
        println!("{store:<12} {what:<28} {wall:>8.2} {own:>8.2} {server:>8}");
    }
}

fn own_cpu() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Of the processes that serve connections now; those of a store stay as long as it is in use.
fn server_cpu(postmaster: u32) -> f64 {
    let parent = postmaster.to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks = processes.filter_map(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        // proc(5): the parent is field 4, utime and stime are 14 and 15, and the first behind the name is 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        (fields.get(1) == Some(&parent.as_str())).then(|| Some(number(14)? + number(15)?))?
    });
    ticks.sum::<u64>() as f64 / 100.0
}
