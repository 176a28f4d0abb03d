//! The specs in `examples`, whole, against servers that answer as the real ones do.

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bulk_testkit::api::{Arrival, Fault, Latency, Server, bungie};
use bulk_testkit::postgres::Database;
use support::{Ran, bulk, kill_when, server, sql};

const LIMIT: Duration = Duration::from_secs(60);

/// The spec of an example, with another place where the API is.
fn spec(folder: &Path, text: &str, host: &str, api: &Server) -> String {
    assert!(text.contains(host));
    let path = folder.join("crawl.toml");
    std::fs::write(&path, text.replace(host, &api.url())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until nobody but the asking session is connected: what a killed program sent may still be committed.
#[track_caller]
fn wait_for_the_end(database: &Database) {
    let others = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let deadline = Instant::now() + LIMIT;
    while sql(database, others) != "0" {
        assert!(Instant::now() < deadline, "the sessions of a program that is gone do not end");
    }
}

/// The requests that got the API's own answer.
fn answered(arrivals: &[Arrival]) -> Vec<&str> {
    arrivals.iter().filter(|arrival| arrival.fault.is_none()).map(|arrival| arrival.target.as_str()).collect()
}

mod bungie_stats {
    use super::*;

    const SPEC: &str = include_str!("../../../examples/bungie_stats/crawl.toml");
    const SCHEMA: &str = include_str!("../../../examples/bungie_stats/schema.sql");
    const KEY: &str = "4711";
    /// More than a window has room for.
    const CHARACTERS: usize = 280;
    const WINDOW: Duration = Duration::from_secs(10);

    /// pyLoader's way from answers to rows, as CSV: requests from the URL for the records, which are lines of JSON.
    const ROWS: &str = "
import csv, json, sys, urllib.request
base, key = sys.argv[1:]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
rows = csv.writer(sys.stdout)
for record in map(json.loads, sys.stdin):
    path = '/Platform/Destiny2/{destiny_membership_type}/Account/{destiny_id}/Character/{character_id}'.format(**record)
    request = urllib.request.Request(base + path + '/Stats/AggregateActivityStats/', headers={'X-API-Key': key})
    for activity in json.load(direct.open(request))['Response']['activities']:
        for stat in activity['values'].values():
            rows.writerow([record['group_id'], record['clan_id'], record['member_id'], record['character_id'],
                           activity['activityHash'], stat['statId'], json.dumps(stat)])";

    fn answers() -> impl Fn(&bulk_testkit::api::Asked) -> bulk_testkit::api::Answer + Send + Sync + 'static {
        // Some characters have none.
        bungie(KEY, |character| (character % 40) as usize)
    }

    fn database() -> Database {
        let database = server().create_database("bungie_stats").unwrap();
        sql(&database, SCHEMA);
        let members = format!(
            "INSERT INTO stats.t_member
             SELECT n, n % 3, 2373515 + n % 5, 'member ' || n, 4611686018438308000 + n, 1 + n % 3
             FROM generate_series(1, 100) n;
             INSERT INTO stats.t_character
             SELECT 2305843009267620000 + n, 1 + n % 100 FROM generate_series(1, {CHARACTERS}) n;
             INSERT INTO stats.t_aggregate_activity_stats VALUES (1, 2, 3, 4, 5, 'of the last time', '{{}}')"
        );
        sql(&database, &members);
        database
    }

    /// Asserts that the table has what Python makes of the answers of a server that was asked for nothing else.
    #[track_caller]
    fn assert_rows(database: &Database, folder: &Path) {
        let [records, rows] = ["records.ndjson", "rows.csv"].map(|name| folder.join(name));
        let query = "SELECT json_build_object('group_id', group_id, 'clan_id', clan_id, 'member_id', member_id,
                                              'destiny_id', destiny_id, 'character_id', character_id,
                                              'destiny_membership_type', destiny_membership_type)
                     FROM stats.t_member JOIN stats.t_character USING (member_id)";
        std::fs::write(&records, sql(database, query)).unwrap();
        let api = Server::builder(answers()).start().unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", ROWS, &api.url(), KEY]);
        python.stdin(File::open(records).unwrap()).stdout(File::create(&rows).unwrap());
        assert!(python.status().unwrap().success());
        sql(database, "CREATE TABLE stats.expected (LIKE stats.t_aggregate_activity_stats)");
        sql(database, &format!("\\copy stats.expected FROM '{}' (FORMAT csv)", rows.display()));
        // As texts: 1 and 1.0 are equal as jsonb.
        let all = |table| {
            format!(
                "SELECT group_id, clan_id, member_id, character_id, activity_hash, stat_id, stat::text FROM stats.{table}"
            )
        };
        let (found, expected) = (all("t_aggregate_activity_stats"), all("expected"));
        let compared = format!(
            "SELECT count(*), (SELECT count(*) FROM ({found} EXCEPT ALL {expected}) x),
                    (SELECT count(*) FROM ({expected} EXCEPT ALL {found}) x)
             FROM stats.expected"
        );
        // Seven times 0 to 39 statistics.
        assert_eq!(sql(database, &compared), "5460|0|0");
    }

    #[test]
    fn a_killed_run_is_gone_on_with_and_every_row_is_exact() {
        let api = Server::builder(answers())
            .limit(250, WINDOW)
            .latency(Latency::heavy_tail(Duration::from_millis(5), Duration::from_millis(500)))
            .fault(Fault::Throttled(1), 0.01)
            .start()
            .unwrap();
        let database = database();
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path(), SPEC, "https://www.bungie.net", &api);
        let command = || {
            let mut command = bulk(["crawl", &spec, "--db", database.url()]);
            command.env("BUNGIE_API_KEY", KEY);
            command
        };
        let mut check = command();
        check.arg("--check");
        Ran::of(check).assert(0, &[]);
        assert_eq!(api.arrivals().len(), 0);

        let exists = || sql(&database, "SELECT to_regclass('bulk.call') IS NOT NULL") == "t";
        let committed = || if exists() { sql(&database, "SELECT count(*) FROM bulk.call").parse().unwrap() } else { 0 };
        kill_when(command(), || committed() >= 50_usize);
        wait_for_the_end(&database);
        let committed = committed();
        let first = api.arrivals();
        assert!(committed >= 50 && committed < answered(&first).len());
        let table = "SELECT string_agg(stat_id, ',') FROM stats.t_aggregate_activity_stats";
        assert_eq!(sql(&database, table), "of the last time");

        Ran::of(command()).assert(0, &[]);
        let all = api.arrivals();
        let second = answered(&all[first.len()..]);
        assert_eq!(second.len(), CHARACTERS - committed);
        let characters: HashSet<&str> = answered(&all).into_iter().collect();
        assert_eq!(characters.len(), CHARACTERS);
        assert_eq!(api.refused(), 0);
        assert!(api.worst(WINDOW) <= 250);

        assert_rows(&database, folder.path());
        let refreshed = "SELECT sum(statistics), (SELECT sum(statistics) FROM stats.member()) FROM stats.mv_member";
        assert_eq!(sql(&database, refreshed), "5460|5460");
        assert_eq!(sql(&database, "SELECT count(*) FROM bulk.quarantine"), "0");
    }
}

mod archivesspace_index {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    use bulk_testkit::api::{Answer, ArchivesSpace};

    use super::*;

    const SPEC: &str = include_str!("../../../examples/archivesspace_index/crawl.toml");
    const SCHEMA: &str = include_str!("../../../examples/archivesspace_index/schema.sql");
    const SESSION: &str = "0123456789abcdef";
    const OBJECTS: u64 = 1000;
    const LONG_AGO: u64 = 1_600_000_000;
    /// No object.
    const NONE: u64 = 0;

    /// The ids of each call for objects.
    fn batches(arrivals: &[Arrival]) -> Vec<Vec<u64>> {
        let calls = arrivals.iter().filter_map(|arrival| arrival.target.split_once("id_set=")?.1.split_once('&'));
        calls.map(|(ids, _)| ids.replace("%2C", ",").split(',').map(|id| id.parse().unwrap()).collect()).collect()
    }

    /// The rows that there are to be: ids, titles, and when they were changed.
    #[track_caller]
    fn assert_rows(database: &Database, objects: &BTreeMap<u64, (String, u64)>) {
        let query = "SELECT uri, title, level, extract(epoch FROM modified)::bigint, subjects
                     FROM discovery.archival_object ORDER BY substring(uri FROM '[0-9]+$')::int";
        let rows = objects.iter().map(|(id, (title, at))| {
            let subject = format!("{{\"Subject {}\"}}", id % 7);
            format!("/repositories/2/archival_objects/{id}|{title}|file|{at}|{subject}")
        });
        let (found, expected) = (sql(database, query), rows.collect::<Vec<_>>().join("\n"));
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected);
        }
        assert_eq!(found.lines().count(), objects.len());
    }

    #[test]
    fn one_call_brings_25_objects_and_a_later_round_what_has_changed() {
        let archive = ArchivesSpace::new(SESSION);
        let mut objects = BTreeMap::new();
        let put = |objects: &mut BTreeMap<_, _>, id: u64, title: &str, at| {
            archive.put(id, title, at);
            objects.insert(id, (title.to_owned(), at));
        };
        for id in 1..=OBJECTS {
            put(&mut objects, id, &format!("Object {id}"), LONG_AGO + id);
        }
        // What has this object in it fails as a whole.
        let broken = Arc::new(AtomicU64::new(NONE));
        let (served, breaks) = (archive.clone(), broken.clone());
        let api = Server::builder(move |asked| {
            let id = breaks.load(Ordering::SeqCst).to_string();
            match asked.params("id_set").flat_map(|ids| ids.split(',')).any(|one| one == id) {
                true => Answer::error(400, "its JSON is invalid"),
                false => served.answer(asked),
            }
        });
        let api = api.limit(20, Duration::from_secs(1)).start().unwrap();
        let database = server().create_database("archivesspace_index").unwrap();
        sql(&database, SCHEMA);
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path(), SPEC, "https://archives.example.org/api", &api);
        let run = || {
            api.clear();
            let mut command = bulk(["crawl", &spec, "--db", database.url()]);
            command.env("ARCHIVESSPACE_SESSION", SESSION);
            (Ran::of(command), api.arrivals())
        };

        let (ran, arrivals) = run();
        ran.assert(0, &[]);
        let mut calls = batches(&arrivals);
        calls.sort();
        let expected: Vec<Vec<u64>> = (0..40).map(|batch| (25 * batch + 1..=25 * batch + 25).collect()).collect();
        assert_eq!(calls, expected);
        // The list of ids, and the one page of deletions.
        assert_eq!(arrivals.len(), 42);
        assert_eq!(api.refused(), 0);
        assert_rows(&database, &objects);

        // One of those that have changed makes its batch fail, and its half of it, until it is asked for alone.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for id in 101..=160 {
            put(&mut objects, id, &format!("Object {id}, described anew"), now);
        }
        put(&mut objects, OBJECTS + 1, "A box that nobody had opened", now);
        archive.delete(9, now);
        objects.remove(&9);
        broken.store(113, Ordering::SeqCst);
        let (ran, arrivals) = run();
        ran.assert(3, &["id_set=113", "its JSON is invalid"]);
        let calls = batches(&arrivals);
        let (with, without): (Vec<_>, Vec<_>) = calls.iter().partition(|ids| ids.contains(&113));
        assert_eq!(with.iter().map(|ids| ids.len()).collect::<Vec<_>>(), [25, 13, 6, 3, 1]);
        let mut others: Vec<u64> = without.into_iter().flatten().copied().collect();
        others.sort_unstable();
        let expected: Vec<u64> = (101..=160).filter(|id| *id != 113).chain([OBJECTS + 1]).collect();
        assert_eq!(others, expected);
        assert_eq!(arrivals.len(), calls.len() + 2);
        let anew = objects.insert(113, ("Object 113".to_owned(), LONG_AGO + 113)).unwrap();
        assert_rows(&database, &objects);

        // The round is gone on with: what was missing is asked for, besides the list.
        broken.store(NONE, Ordering::SeqCst);
        let (ran, arrivals) = run();
        ran.assert(0, &[]);
        assert_eq!(batches(&arrivals), [[113]]);
        assert_eq!(arrivals.len(), 2);
        objects.insert(113, anew);
        assert_rows(&database, &objects);
    }

    /// Neither is an empty list, although a 404 of an object says that there is nothing.
    #[test]
    fn a_list_that_is_not_found_moves_no_watermark() {
        let archive = ArchivesSpace::new(SESSION);
        (1..=30).for_each(|id| archive.put(id, &format!("Object {id}"), LONG_AGO + id));
        // What of a target is not found.
        let missing: Arc<Mutex<Option<[&str; 2]>>> = Arc::default();
        let (served, misses) = (archive.clone(), missing.clone());
        let api = Server::builder(move |asked| {
            let target = format!("{}?{:?}", asked.path, asked.query);
            match *misses.lock().unwrap() {
                Some(parts) if parts.iter().all(|part| target.contains(part)) => Answer::error(404, "not here"),
                _ => served.answer(asked),
            }
        });
        let api = api.start().unwrap();
        let database = server().create_database("archivesspace_index").unwrap();
        sql(&database, SCHEMA);
        let folder = tempfile::tempdir().unwrap();
        let text = SPEC.replace("20/s", "500/s");
        assert!(text.contains("nothing = [\"404\"]"));
        let spec = spec(folder.path(), &text, "https://archives.example.org/api", &api);
        let run = || {
            let mut command = bulk(["crawl", &spec, "--db", database.url()]);
            command.env("ARCHIVESSPACE_SESSION", SESSION);
            Ran::of(command)
        };
        let watermark = || sql(&database, "SELECT watermark FROM bulk.crawl");
        let count = || sql(&database, "SELECT count(*) FROM discovery.archival_object");
        run().assert(0, &["complete"]);
        assert_eq!(count(), "30");

        // In pages of ten.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        (1..=25).for_each(|id| archive.delete(id, now));
        archive.put(31, "Object 31", now);
        let before = watermark();
        for (parts, rows) in
            [(["all_ids", ""], "30"), (["delete-feed", ""], "31"), (["delete-feed", "(\"page\", \"2\")"], "31")]
        {
            *missing.lock().unwrap() = Some(parts);
            run().assert(1, &["does not exist", "not complete"]);
            assert_eq!((watermark(), count().as_str()), (before.clone(), rows), "{parts:?}");
        }
        *missing.lock().unwrap() = None;
        run().assert(0, &["complete"]);
        assert_ne!(watermark(), before);
        assert_eq!(count(), "6");
    }
}
