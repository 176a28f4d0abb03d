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
