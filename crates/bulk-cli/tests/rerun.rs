//! `bulk mirror` into a database that has been mirrored into before: anew, more of it, a newer snapshot, after damage.

mod support;

use std::collections::BTreeMap;
use std::io::Read;

use bulk_testkit::s3::{Fault, Rule};
use bulk_testkit::snapshot::{self, SchemaFlavour, Spec, TABLES};
use bzip2::Compression;
use bzip2::read::{BzEncoder, MultiBzDecoder};
use support::{Bench, kill_when, small};

/// Keys, indexes and triggers, with whether the keys are valid.
fn dependents(bench: &Bench) -> String {
    bench.sql(
        "SELECT conrelid::regclass || ' ' || conname || ' ' || convalidated FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace
         UNION ALL SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    )
}

/// The tables that triggers write a history into, with how many rows they have.
fn histories(bench: &Bench) -> BTreeMap<String, u64> {
    let names = bench.sql(
        "SELECT DISTINCT c.relname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
         JOIN pg_class c ON position('INSERT INTO public.' || c.relname || ' (' IN p.prosrc) > 0
         WHERE NOT t.tgisinternal AND t.tgenabled = 'O'",
    );
    let rows = |name: &str| bench.sql(&format!("SELECT count(*) FROM {name}")).parse().unwrap();
    names.lines().map(|name| (name.to_owned(), rows(name))).collect()
}

/// What follows the data was done for every table, whichever run loaded it.
#[track_caller]
fn assert_settled(bench: &Bench) {
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE settled_at IS NULL OR finished_at IS NULL"), "0");
    for table in TABLES.iter() {
        let analyzed = format!("SELECT reltuples >= 0 FROM pg_class WHERE oid = '{}'::regclass", table.name);
        assert_eq!(bench.sql(&analyzed), "t", "{} was never analyzed", table.name);
    }
    let next = "SELECT nextval(pg_get_serial_sequence('search_docket', 'id')) > max(id) FROM search_docket";
    assert_eq!(bench.sql(next), "t");
}

#[test]
fn all_is_loaded_anew_under_the_keys_and_triggers_of_the_first_time() {
    let spec = Spec { schema: SchemaFlavour::Clean, ..small() };
    let (bench, made) = Bench::with(&spec);
    bench.mirror(&[]).assert(3, &[]);
    let first = dependents(&bench);
    assert!(first.contains("trigger ") && first.contains(" true"), "{first}");
    assert_settled(&bench);
    let none =
        ["search_citationevent", "search_docketevent", "search_opinionclusterpanelevent"].map(|name| (name.into(), 0));
    assert_eq!(histories(&bench), BTreeMap::from(none.clone()));

    bench.mirror(&["--restart"]).assert(3, &[]);
    bench.assert_holds(&made);
    assert_eq!(dependents(&bench), first);
    assert_settled(&bench);
    // Triggers that had stayed for the load would have written a history of what is no change.
    assert_eq!(histories(&bench), BTreeMap::from(none));
    bench.sql(
        "CREATE TEMPORARY TABLE one AS TABLE search_opinioncluster_panel LIMIT 1;
         DELETE FROM search_opinioncluster_panel WHERE id = (SELECT id FROM one);
         INSERT INTO search_opinioncluster_panel TABLE one",
    );
    assert_eq!(histories(&bench)["search_opinionclusterpanelevent"], 2, "the triggers write one of what is");
}

#[test]
fn some_tables_first_and_all_of_them_later() {
    let (bench, made) = Bench::with(&small());
    let ran = bench.mirror(&["--tables", "dockets,courts"]);
    ran.assert(0, &["foreign keys wait for tables that are not loaded yet"]);
    assert_eq!(bench.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"), "0");
    bench.mirror(&[]).assert(3, &["2 of 33 files had been loaded"]);
    bench.assert_holds(&made);
    assert_settled(&bench);
    let (whole, _) = Bench::with(&small());
    whole.mirror(&[]).assert(3, &[]);
    assert_eq!(dependents(&bench), dependents(&whole));
}

#[test]
fn a_newer_snapshot_takes_the_place_of_the_older() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let next = Spec { seed: 2, date: "2026-09-30".parse().unwrap(), ..small() };
    let made = snapshot::generate(&next, &bench.data()).unwrap();
    bench.mirror(&[]).assert(1, &["load it anew with --restart"]);
    bench.mirror(&["--restart"]).assert(3, &["snapshot 2026-09-30"]);
    bench.assert_holds(&made);
    assert_settled(&bench);
}

#[test]
fn what_an_interrupted_run_had_loaded_is_settled_by_the_next() {
    let (bench, made) = Bench::with(&small());
    let path = bench.file("courts");
    let good = std::fs::read(&path).unwrap();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    bench.mirror(&[]).assert(1, &["courts-2026-06-30.csv.bz2", "1 file is not loaded"]);
    assert_ne!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "0");
    std::fs::write(&path, good).unwrap();
    bench.mirror(&[]).assert(3, &["32 of 33 files had been loaded"]);
    bench.assert_holds(&made);
    assert_settled(&bench);
}

#[test]
fn a_file_that_was_damaged_on_its_way_is_fetched_again() {
    let (bench, made) = Bench::with(&small());
    bench.mirror(&["--keep-files"]).assert(3, &[]);
    let staged = bench.folder.path().join("files/courts-2026-06-30.csv.bz2");
    let mut bytes = std::fs::read(&staged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&staged, bytes).unwrap();
    let damaged = bench.mirror(&["--tables", "courts", "--restart", "--keep-files"]);
    damaged.assert(1, &["courts-2026-06-30.csv.bz2", "it is fetched again by the next run"]);
    bench.bucket.clear_requests();
    bench.mirror(&["--keep-files"]).assert(3, &[]);
    let gets = bench.bucket.requests().into_iter().filter(|request| request.method == "GET");
    let asked: Vec<_> = gets.filter_map(|request| request.key).filter(|key| key.ends_with(".bz2")).collect();
    assert_eq!(asked, ["bulk-data/courts-2026-06-30.csv.bz2"]);
    bench.assert_holds(&made);
    assert_settled(&bench);
}

/// The same rows in other bytes.
fn compressed_otherwise(file: &[u8]) -> Vec<u8> {
    let mut csv = Vec::new();
    MultiBzDecoder::new(file).read_to_end(&mut csv).unwrap();
    let mut other = Vec::new();
    BzEncoder::new(&csv[..], Compression::fast()).read_to_end(&mut other).unwrap();
    assert_ne!(other, file);
    other
}

#[test]
fn an_object_that_is_replaced_before_its_turn_is_known_by_what_was_loaded() {
    let (bench, made) = Bench::with(&small());
    let other = compressed_otherwise(&std::fs::read(bench.file("dockets")).unwrap());
    let [opinions, dockets] = ["opinions", "dockets"].map(|base| format!("bulk-data/{base}-2026-06-30.csv.bz2"));
    // The only session waits for the opinions, while the dockets begin to arrive, and become other ones.
    let stall = bench.bucket.fault(Rule::new(Fault::StallAfter(1_000)).key(&opinions).first(1));
    let replaced = Fault::ReplaceMidway { after_bytes: 20_000, with: other.into() };
    let replaced = bench.bucket.fault(Rule::new(replaced).key(&dockets).first(1));
    let ran = bench.mirror(&["--connections", "1", "--order", "size:desc"]);
    ran.assert(3, &["dockets-2026-06-30.csv.bz2: begun anew, because", "stays NOT VALID"]);
    assert_eq!((stall.hits(), replaced.hits()), (1, 1));
    bench.assert_holds(&made);
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded"]);
}

#[test]
fn an_object_that_is_replaced_while_it_is_loaded_is_not_called_damaged() {
    let (bench, _) = Bench::with(&Spec { scale: 0.1, ..Spec::default() });
    let path = bench.file("opinions");
    let other = compressed_otherwise(&std::fs::read(&path).unwrap());
    let replaced = Fault::ReplaceMidway { after_bytes: 1_500_000, with: other.into() };
    bench.bucket.fault(Rule::new(replaced).key("bulk-data/opinions-2026-06-30.csv.bz2").first(1));
    let first = bench.bucket.fault(Rule::new(Fault::Bandwidth(1_000_000)).key("bulk-data/opinions-2026-06-30.csv.bz2"));
    let ran = bench.mirror(&["--jobs", "1", "--segment", "1GB"]);
    ran.assert(1, &["opinions", "replaced at its source while it was loaded"]);
    assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
    first.remove();
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE damage IS NOT NULL"), "0");
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "32");
}

/// What foreign keys and triggers are, but for whether the keys are valid.
fn definitions(bench: &Bench) -> String {
    bench.sql(
        "SELECT conrelid::regclass || ' ' || conname || ' ' || replace(pg_get_constraintdef(oid), ' NOT VALID', '')
         FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
         UNION ALL SELECT pg_get_triggerdef(oid) || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    )
}

#[test]
fn keys_and_triggers_outlive_a_kill_whichever_run_comes_next() {
    let (bench, made) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let key = bench.sql(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'search_docket'::regclass
         AND confrelid = 'search_court'::regclass AND contype = 'f' ORDER BY 1 LIMIT 1",
    );
    let trigger = bench.sql(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'search_docket'::regclass AND NOT tgisinternal ORDER BY 1 LIMIT 1",
    );
    bench.sql(&format!(
        "ALTER TABLE search_docket DROP CONSTRAINT \"{key}\";
         ALTER TABLE search_docket ADD CONSTRAINT \"{key}\" FOREIGN KEY (court_id) REFERENCES search_court ON DELETE CASCADE;
         ALTER TABLE search_docket DISABLE TRIGGER \"{trigger}\"",
    ));
    let (first, first_definitions) = (dependents(&bench), definitions(&bench));
    assert!(first_definitions.contains("ON DELETE CASCADE") && first_definitions.contains(" D\n"));

    kill_when(bench.command(&["--restart"]), || bench.sql("SELECT count(*) FROM bulk.dropped") != "0");
    assert_ne!(definitions(&bench), first_definitions);
    // The next run loads one table, and has another schema file.
    let other = bench.folder.path().join("other.sql");
    std::fs::write(&other, "CREATE TABLE public.other (id integer);").unwrap();
    let ran = bench.mirror(&["--tables", "courts", "--schema", other.to_str().unwrap()]);
    assert!([0, 3].contains(&ran.status.unwrap()), "{}", ran.stderr);
    assert_eq!(definitions(&bench), first_definitions);
    bench.mirror(&[]).assert(3, &[]);
    bench.assert_holds(&made);
    assert_settled(&bench);
    assert_eq!((dependents(&bench), definitions(&bench)), (first, first_definitions));
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.dropped"), "0");
}

#[test]
fn a_restart_that_is_refused_has_dropped_nothing() {
    let (bench, made) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    // The schema file has this table and its keys, and the data set has no rows of it.
    bench.sql(
        "INSERT INTO search_parentheticalgroup (id, score, size, opinion_id, representative_id)
         SELECT 1000000, 1, 1, (SELECT min(id) FROM search_opinion), (SELECT min(id) FROM search_parenthetical)",
    );
    let before = (dependents(&bench), definitions(&bench));
    let said =
        "table public.search_parentheticalgroup refers to a table that is to be loaded anew, and has rows of its own";
    bench.mirror(&["--restart"]).assert(1, &[said]);
    assert_eq!((dependents(&bench), definitions(&bench)), before);
    bench.assert_holds(&made);
}

#[test]
fn a_second_mirror_of_a_database_is_refused_and_the_next_after_a_kill_is_not() {
    let (bench, made) = Bench::with(&small());
    let hang = bench.bucket.fault(Rule::new(Fault::Hang).key("bulk-data/courts-2026-06-30.csv.bz2"));
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 0 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    kill_when(bench.command(&["--tables", "courts"]), || {
        let is_held = bench.sql(held) == "1";
        if is_held {
            bench
                .mirror(&["--tables", "dockets"])
                .assert(1, &["another mirror into database", "wait for it, or stop it"]);
        }
        is_held
    });
    hang.remove();
    bench.mirror(&[]).assert(3, &[]);
    bench.assert_holds(&made);
}
