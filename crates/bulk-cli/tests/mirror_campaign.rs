//! The crash campaign of `bulk mirror`: whatever ends it, and whenever, the same command brings about the tables, keys,
//! indexes and triggers of an undisturbed one.
//!
//! `BULK_CAMPAIGN_RUNS` and `BULK_CAMPAIGN_SEED` are as in `crash_campaign`.

#![allow(clippy::print_stdout, reason = "the seed repeats a failure, and the figures are what a larger run is for")]

mod support;

use std::path::Path;
use std::process::Command;

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{EtagStyle, Server, Store};
use bulk_testkit::snapshot::{self, SnapshotFile, TABLES};
use support::{BUCKET, Campaign, Disturbed, Work, bulk, small};

/// All but the one whose rows break a key in every snapshot, so that status 0 says that all is there.
fn tables(files: &[SnapshotFile]) -> Vec<&SnapshotFile> {
    files.iter().filter(|file| file.table != "search_parenthetical").collect()
}

fn command(bucket: &Server, files: &[&SnapshotFile], folder: &Path, connections: u64) -> Command {
    let base = |file: &&SnapshotFile| TABLES.iter().find(|table| table.name == file.table).unwrap().base;
    let names: Vec<_> = files.iter().map(base).collect();
    let mut command = bulk(["mirror", "courtlistener", "--endpoint", &bucket.url(), "--tables", &names.join(",")]);
    command.args(["--connections", &connections.to_string(), "--dir"]).arg(folder);
    command
}

/// All that is in the schema `public`: rows of each table, in any order, keys, indexes, triggers, sequences.
fn everything(campaign: &Campaign, database: &Database) -> String {
    let tables = campaign.sql(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
    let rows =
        |table| format!("SELECT '{table}', count(*), sum(hashtextextended(r::text, 0)::numeric) FROM \"{table}\" r");
    let rows = tables.lines().map(rows).collect::<Vec<_>>().join(" UNION ALL ");
    let others = "
        SELECT conrelid::regclass::text, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'index', indexname, NULL, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'trigger', tgname, tgenabled = 'O', pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'sequence', sequencename, NULL, last_value::text FROM pg_sequences WHERE schemaname = 'public'
        ORDER BY 1, 2";
    format!("{}\n{}", campaign.sql(database, &format!("{rows} ORDER BY 1")), campaign.sql(database, others))
}

/// The share of the tables that are loaded and settled.
fn settled(campaign: &Campaign, database: &Database, files: &[&SnapshotFile]) -> f64 {
    if campaign.sql(database, "SELECT to_regclass('bulk.dropped') IS NOT NULL") == "f" {
        return 0.0;
    }
    // A load without an end has the rows that its chunks say.
    for file in files {
        let table = file.table;
        if campaign.sql(database, &format!("SELECT to_regclass('{table}') IS NOT NULL")) == "t" {
            let same = format!(
                "SELECT (SELECT count(*) FROM {table}) = (SELECT coalesce(sum(c.records), 0) FROM bulk.load l
                 JOIN bulk.chunk c ON c.load_id = l.id WHERE l.target_table = '{table}')"
            );
            assert_eq!(campaign.sql(database, &same), "t", "{table}");
        }
    }
    let count = campaign.sql(database, "SELECT count(*) FROM bulk.load WHERE settled_at IS NOT NULL");
    count.parse::<f64>().unwrap() / files.len() as f64
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_ends_a_mirror_the_next_ones_bring_it_to_the_same_end() {
    let runs = number("BULK_CAMPAIGN_RUNS").unwrap_or(2);
    let first = number("BULK_CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let campaign = Campaign::new();
    let data = campaign.folder.path().join("bucket/bulk-data");
    let made = snapshot::generate(&small(), &data).unwrap();
    let files = tables(&made.files);
    let store = Store::folder(campaign.folder.path().join("bucket"), EtagStyle::Multipart);
    let bucket = Server::builder().bucket(BUCKET, store).start().unwrap();

    let undisturbed = campaign.server.create_database("undisturbed").unwrap();
    let passes =
        campaign.undisturbed(&undisturbed, command(&bucket, &files, &campaign.folder.path().join("files"), 1), 0);
    for file in &files {
        let table = TABLES.iter().find(|table| table.name == file.table).unwrap();
        let columns: Vec<_> = table.csv.iter().map(|column| format!("\"{column}\"")).collect();
        let sum = format!(
            "SELECT count(*), sum(('x' || substr(md5(ROW({})::text), 1, 15))::bit(60)::bigint) FROM {}",
            columns.join(", "),
            table.name
        );
        assert_eq!(campaign.sql(&undisturbed, &sum), format!("{}|{}", file.rows, file.row_md5_sum), "{}", file.table);
    }
    let expected = everything(&campaign, &undisturbed);

    let (mut all, mut disturbed) = (Disturbed::default(), 0);
    for seed in first..first + runs {
        let mut random = fastrand::Rng::with_seed(seed);
        let (connections, times) = (1 + seed % 4, random.u64(1..=4));
        println!("BULK_CAMPAIGN_SEED={seed} BULK_CAMPAIGN_RUNS=1: {connections} connections");
        let database = campaign.server.create_database("disturbed").unwrap();
        let folder = campaign.folder.path().join(format!("files-{seed}"));
        let work = Work {
            command: &|| command(&bucket, &files, &folder, connections),
            done: 0,
            // Some tables are loaded, or another run may do better.
            unfinished: &[3, 4],
            passes,
            look: &|| settled(&campaign, &database, &files),
        };
        let happened = campaign.disturb(&database, &work, (seed, &mut random), times);
        disturbed += u64::from(happened.total() > 0);
        all.add(&happened);
        let found = everything(&campaign, &database);
        let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert!(found == expected, "{differs:?}");
        assert_eq!(campaign.sql(&database, "SELECT count(*) FROM bulk.dropped"), "0");
        assert_eq!(settled(&campaign, &database, &files), 1.0);
    }
    println!("{runs} mirrors, {disturbed} of them disturbed: {all}");
    // One that is repeated by itself may be one to which nothing happened.
    assert!(disturbed >= runs / 2, "only {disturbed} of {runs} mirrors were disturbed");
}
