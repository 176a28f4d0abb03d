//! What bound a run, what it left out, and how much memory it took.

use std::time::Duration;

use bulk_core::{Limit, Resource, RunReport, RunVerdict, StageReading};
use bulk_testkit::api::{Answer, Asked, Latency, Server, bungie};
use serde_json::json;

use crate::bench::{Bench, MEMBERS, SECRET, statistics};
use crate::support::Ran;

#[test]
fn no_more_memory_is_used_than_the_spec_says() {
    let bench = Bench::new("CREATE TABLE item (id int PRIMARY KEY, text text)");
    // A stated size that no answer exceeds, and one that is too long.
    let api = Server::builder(|asked: &Asked| match asked.segments()[0].as_str() {
        "41" => Answer::json(json!({"text": "x".repeat(3 << 20)})),
        _ => Answer::json(json!({"text": "x".repeat(1 << 20)})),
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 41) n"
        [request]
        url = "{}/{{id}}"
        [limits]
        rate = ["5000/s"]
        memory = "4MiB"
        answer = "2MiB"
        [[rows]]
        table = "item"
        mode = "upsert"
        columns = {{ id = "input.id", text = "$.text" }}
        "#,
        api.url()
    ));
    let too_long = "is too large for memory: 3145739 bytes where 2097152 are allowed";
    let ran = bench.run(&["--report", "run.json"]);
    ran.assert(3, &["40 calls with 40 rows", "1 request in quarantine", too_long]);
    assert_eq!(bench.sql("SELECT count(*), min(length(text)) FROM item"), "40|1048576");
    let report: RunReport =
        serde_json::from_slice(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    let fetch = stage(&report, "fetch");
    assert!(!fetch.total.budget.is_zero(), "{fetch:?}");
}

/// What bound a run, as it says at its end and as its report has it.
#[track_caller]
fn bound(bench: &Bench) -> (RunReport, Ran) {
    let ran = bench.run(&["--json", "--report", "run.json"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let said: RunVerdict = serde_json::from_value(ran.events_of("verdict").remove(0)).unwrap();
    let report = RunReport::parse(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(Some(&said), report.verdict.as_ref());
    (report, ran)
}

#[track_caller]
fn limit(report: &RunReport) -> (Limit, Resource) {
    let used = &report.verdict.as_ref().unwrap().bottleneck.as_ref().unwrap_or_else(|| panic!("{report}")).used;
    (used.limit.clone(), used.resource)
}

fn stage<'r>(report: &'r RunReport, name: &str) -> &'r StageReading {
    report.meters.stages.iter().find(|stage| stage.name == name).unwrap()
}

#[test]
fn what_bound_a_crawl_is_said() {
    let bench = Bench::new(MEMBERS);
    bench.sql("INSERT INTO member SELECT 3, 5 + n, 9 + n FROM generate_series(1, 80) n");
    let of = |name: &str| Limit::Stage { stage: name.to_owned() };

    // 120 at 40 a second.
    let api =
        Server::builder(bungie(SECRET, |_| 11)).latency(Latency::fixed(Duration::from_millis(20))).start().unwrap();
    bench.spec(&statistics(&api.url(), "[limits]\nrate = ['40/s']"));
    let (report, ran) = bound(&bench);
    assert_eq!(limit(&report), (Limit::RateLimit { stage: "requests".to_owned() }, Resource::RateLimit), "{report}");
    let part = ran.events_of("crawled").remove(0)["of_permitted"].as_f64().unwrap();
    // How close it comes depends on what else the machine does; the benchmark looks at that.
    assert!((0.1..=1.0).contains(&part), "{part}");
    let items = ["requests", "fetch", "explode", "copy"].map(|name| stage(&report, name).total.items);
    assert_eq!(items, [120, 120, 1320, 1320]);
    let file = &report.files[0];
    assert_eq!(
        (file.name.as_str(), file.table.as_deref(), file.records),
        ("statistics", Some("public.stat"), Some(1320))
    );

    // Two at a time, which take a tenth of a second each.
    let slow =
        Server::builder(bungie(SECRET, |_| 11)).latency(Latency::fixed(Duration::from_millis(100))).start().unwrap();
    bench.sql("DELETE FROM member WHERE character > 45 AND character < 1000");
    bench.spec(&statistics(&slow.url(), "[limits]\nrate = ['1000/s']\nconcurrency = 2"));
    let (report, _) = bound(&bench);
    assert_eq!(limit(&report), (of("fetch"), Resource::Server), "{report}");

    // Each row takes the database five milliseconds.
    bench.sql(
        "CREATE FUNCTION slow(bigint) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.005); RETURN true; END';
         ALTER TABLE stat ADD CONSTRAINT slow CHECK (slow(activity)) NOT VALID",
    );
    bench.spec(&statistics(&api.url(), "[limits]\nrate = ['1000/s']"));
    let (report, _) = bound(&bench);
    assert_eq!(limit(&report), (of("copy"), Resource::Server), "{report}");
    let events = &stage(&report, "copy").server_events;
    let most = events.iter().max_by_key(|(_, times)| **times).map(|(event, _)| event.as_str());
    assert_eq!(most, Some("Timeout/PgSleep"), "{report}");
}

#[test]
fn rows_and_requests_that_failed_are_in_the_report() {
    let bench = Bench::new("CREATE TABLE item (id int CHECK (id <> 2))");
    let api = Server::builder(|asked: &Asked| match asked.path.as_str() {
        "/items/3" => Answer::error(404, "not found"),
        path => Answer::json(json!({"id": path.rsplit('/').next()})),
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 3) n"
        [request]
        url = "{}/items/{{id}}"
        [limits]
        rate = ["500/s"]
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    ));
    bench.run(&["--report", "run.json", "--max-rejects", "1"]).assert(3, &["1 row left out"]);
    let report = RunReport::parse(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    let [failed, job] = &report.files[..] else { panic!("{report}") };
    assert_eq!((failed.name.as_str(), failed.records), (format!("GET {}/items/3", api.url()).as_str(), None));
    assert!(failed.error.as_ref().unwrap().contains("does not exist"), "{failed:?}");
    assert_eq!((job.name.as_str(), job.records, job.rejected), ("job", Some(2), 1));
    let [reject] = &report.rejects[..] else { panic!("{report}") };
    assert!(reject.file.starts_with(&format!("public.item, GET {}/items/2 #", api.url())), "{reject:?}");
    assert_eq!((reject.record, reject.reason.contains("check constraint")), (1, true));
}
