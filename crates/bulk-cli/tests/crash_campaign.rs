//! The crash campaign: whatever ends a load, and whenever, the same command brings about what an undisturbed one does.
//!
//! `BULK_CAMPAIGN_RUNS=100 cargo test -p bulk-cli --test crash_campaign -- --nocapture` takes more loads than the suite
//! does. `BULK_CAMPAIGN_SEED` repeats a run, which says its seed.

#![allow(clippy::print_stdout, reason = "the seed repeats a failure, and the figures are what a larger run is for")]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulk_testkit::postgres::Database;
use support::{Campaign, Disturbed, Work, bulk};

const RECORDS: u64 = 30_000;
/// One in so many is bad, in the files that have bad ones.
const RATE: u64 = 1000;

/// Without a key, so that what is loaded twice is there twice. Some of the loads are into one with [`KEY`].
const TABLE: &str = "CREATE TABLE t (
    id integer,
    day date,
    name varchar(60),
    data jsonb,
    amount numeric CHECK (amount < 1000)
)";

/// Rows of one session may then wait for those of another.
const KEY: &str = "ALTER TABLE t ADD PRIMARY KEY (id); CREATE INDEX ON t (day, name)";

/// How a file is loaded.
struct How {
    connections: u64,
    chunk_size: u64,
    commit_every: &'static str,
    /// With the hash of their content.
    is_verified: bool,
    /// All in one transaction.
    is_frozen: bool,
}

/// What is loaded, and what then is in the database.
struct Content {
    csv: PathBuf,
    bz2: PathBuf,
    header: usize,
    bytes: usize,
    bad: u64,
    /// Of the table, in any order.
    rows: String,
    /// Of what is left out.
    rejects: String,
    /// Bytes that a load sends and gets.
    passes: [u64; 2],
}

impl Content {
    fn new(campaign: &Campaign, random: &mut fastrand::Rng, with_bad: bool) -> Self {
        let (mut text, mut bad) = ("id,day,name,data,amount\n".to_owned(), 0);
        let header = text.len();
        for id in 0..RECORDS {
            let (day, kind) = (1 + random.u8(..28), random.u8(..4));
            let is_bad = with_bad && random.u64(..RATE) == 0;
            bad += u64::from(is_bad);
            let what = if is_bad { kind } else { 4 };
            let id = if what == 0 { format!("{id}x") } else { id.to_string() };
            let day = if what == 1 { "2021-02-30".to_owned() } else { format!("2020-06-{day:02}") };
            let amount = if what == 2 { 1000 } else { random.u32(..1000) };
            let name = ["plain", "\"two\nlines\"", "\"say \"\"so\"\"\"", "", "äöü"][random.usize(..5)];
            let data = format!("\"{{\"\"of\"\": {}, \"\"more\"\": \"\"{:030}\"\"}}\"", random.u32(..), random.u64(..));
            write!(text, "{id},{day},{name},{data}").unwrap();
            text.push_str(&if what == 3 { "\n".to_owned() } else { format!(",{amount}.{:02}\n", random.u8(..100)) });
        }
        let path =
            |name: &str| campaign.folder.path().join(format!("{}.{name}", if with_bad { "bad" } else { "good" }));
        let (csv, bz2) = (path("csv"), path("csv.bz2"));
        std::fs::write(&csv, &text).unwrap();
        // Blocks of a hundred kilobytes, so that there are many at which decoding can begin.
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
        encoder.write_all(text.as_bytes()).unwrap();
        std::fs::write(&bz2, encoder.finish().unwrap()).unwrap();

        let mut content = Self {
            header,
            bytes: text.len() - header,
            bad,
            rows: String::new(),
            rejects: String::new(),
            passes: [0, 0],
            csv,
            bz2,
        };
        let database = campaign.server.create_database("undisturbed").unwrap();
        campaign.sql(&database, TABLE);
        let (is_verified, is_frozen) = (false, false);
        let how = How { connections: 1, chunk_size: 400_000, commit_every: "0s", is_verified, is_frozen };
        let command = content.command(&content.csv, &how);
        content.passes = campaign.undisturbed(&database, command, content.done());
        (content.rows, content.rejects) = (rows(campaign, &database, "t"), rejects(campaign, &database));
        content.assert_ledger(campaign, &database);
        if !with_bad {
            // As the server itself reads it.
            campaign.sql(&database, "CREATE TABLE expected (LIKE t)");
            campaign.sql(&database, &format!("\\copy expected FROM '{}' (FORMAT csv, HEADER)", content.csv.display()));
            assert_eq!(content.rows, rows(campaign, &database, "expected"));
        }
        content
    }

    fn done(&self) -> i32 {
        if self.bad > 0 { 3 } else { 0 }
    }

    fn command(&self, file: &Path, how: &How) -> Command {
        let How { connections, chunk_size, commit_every, is_verified, is_frozen } = how;
        let mut command = bulk(["load", "--table", "t"]);
        command.arg(file).args(["--connections", &connections.to_string(), "--chunk-size", &format!("{chunk_size}B")]);
        command.args(["--commit-every", *commit_every, "--verify", if *is_verified { "full" } else { "count" }]);
        if *is_frozen {
            command.arg("--freeze");
        }
        if self.bad > 0 {
            command.args(["--max-rejects", &self.bad.to_string()]);
        }
        command
    }

    /// Asserts that each record is accounted for once, in chunks without a gap.
    #[track_caller]
    fn assert_ledger(&self, campaign: &Campaign, database: &Database) {
        let sql = format!(
            "SELECT l.finished_at IS NOT NULL, l.records, l.rejected, c.* FROM bulk.load l, LATERAL (
                 SELECT sum(records), sum(rejected), sum(bytes), bool_and(follows) FROM (
                     SELECT *, first_byte = coalesce(lag(first_byte + bytes) OVER w, {})
                               AND first_record = coalesce(lag(first_record + records) OVER w, 0) AS follows
                     FROM bulk.chunk WHERE load_id = l.id WINDOW w AS (ORDER BY first_byte)) c) c",
            self.header
        );
        let expected = format!("t|{RECORDS}|{1}|{RECORDS}|{1}|{0}|t", self.bytes, self.bad);
        assert_eq!(campaign.sql(database, &sql), expected);
    }
}

/// Count and hash of a table, whatever its order.
fn rows(campaign: &Campaign, database: &Database, table: &str) -> String {
    campaign.sql(database, &format!("SELECT count(*), sum(hashtextextended(r::text, 0)::numeric) FROM {table} r"))
}

fn rejects(campaign: &Campaign, database: &Database) -> String {
    let what = "concat_ws('|', record, byte, \"column\", sqlstate, message, encode(raw, 'hex'))";
    campaign.sql(database, &format!("SELECT count(*), sum(hashtextextended({what}, 0)::numeric) FROM bulk.reject"))
}

/// The share of the file that is committed. There are as many rows as the ledger says, at any moment.
#[track_caller]
fn committed(campaign: &Campaign, database: &Database, content: &Content) -> f64 {
    if campaign.sql(database, "SELECT to_regclass('bulk.dropped') IS NOT NULL") == "f" {
        assert_eq!(campaign.sql(database, "SELECT count(*) FROM t"), "0");
        return 0.0;
    }
    // By a frozen load, of which nothing is committed, and whose connection the server still has: it is not waited for.
    let is_locked = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                     WHERE datname = current_database() AND relation = 't'::regclass AND mode = 'AccessExclusiveLock'";
    if campaign.sql(database, is_locked) == "t" {
        return 0.0;
    }
    let counts =
        "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.reject), coalesce(sum(records - rejected), 0),
                         coalesce(sum(rejected), 0), coalesce(sum(bytes), 0) FROM bulk.chunk";
    let counts: Vec<u64> =
        campaign.sql(database, counts).split('|').map(|count| count.parse::<f64>().unwrap() as u64).collect();
    let [rows, rejects, records, rejected, bytes] = counts[..] else { panic!("{counts:?}") };
    assert_eq!((rows, rejects), (records, rejected));
    bytes as f64 / content.bytes as f64
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_ends_a_load_the_next_ones_bring_it_to_the_same_end() {
    let runs = number("BULK_CAMPAIGN_RUNS").unwrap_or(10);
    let first = number("BULK_CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let campaign = Campaign::new();
    let mut random = fastrand::Rng::with_seed(7);
    let contents = [false, true].map(|with_bad| Content::new(&campaign, &mut random, with_bad));
    let (mut all, mut disturbed) = (Disturbed::default(), 0);
    for seed in first..first + runs {
        let mut random = fastrand::Rng::with_seed(seed);
        // All sixteen in as many runs.
        let combination = (5 * seed) % 16;
        let (connections, content) = (1 + combination % 4, &contents[(combination / 4 % 2) as usize]);
        let file = if combination / 8 == 0 { &content.csv } else { &content.bz2 };
        let (chunk_size, times) = (random.u64(50_000..400_000), random.u64(1..=4));
        let commit_every = ["0s", "5ms", "50ms"][random.usize(..3)];
        let (is_keyed, is_verified) = (random.u8(..3) == 0, random.u8(..3) == 0);
        // Rows that may be left out are not frozen.
        let is_frozen = content.bad == 0 && random.u8(..4) == 0;
        println!(
            "BULK_CAMPAIGN_SEED={seed} BULK_CAMPAIGN_RUNS=1: {}, {connections} connections, chunks of {chunk_size} bytes, \
             commits every {commit_every}{}{}{}",
            file.file_name().unwrap().display(),
            if is_keyed { ", with a key" } else { "" },
            if is_verified { ", verified" } else { "" },
            if is_frozen { ", frozen" } else { "" }
        );
        let how = How { connections, chunk_size, commit_every, is_verified, is_frozen };
        let database = campaign.server.create_database("disturbed").unwrap();
        campaign.sql(&database, TABLE);
        if is_keyed {
            campaign.sql(&database, KEY);
        }
        let work = Work {
            command: &|| content.command(file, &how),
            done: content.done(),
            // That another run may do better.
            unfinished: &[4],
            passes: content.passes,
            look: &|| committed(&campaign, &database, content),
        };
        let happened = campaign.disturb(&database, &work, (seed, &mut random), times);
        disturbed += u64::from(happened.total() > 0);
        all.add(&happened);
        assert_eq!(rows(&campaign, &database, "t"), content.rows);
        assert_eq!(rejects(&campaign, &database), content.rejects);
        content.assert_ledger(&campaign, &database);
    }
    println!("{runs} loads, {disturbed} of them disturbed: {all}");
    // One that is repeated by itself may be one to which nothing happened.
    assert!(disturbed >= runs / 2, "only {disturbed} of {runs} loads were disturbed");
}
