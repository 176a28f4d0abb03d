//! `--target` and `--finish-by`.

mod support;

use bulk_core::{Outlook, RunReport};
use bulk_testkit::api::{self, Answer, Asked};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use serde_json::{Value, json};
use support::{Ran, bulk, server, sql};

const BUCKET: &str = "data";

/// What a fetch of a megabyte over two connections says of its goal, with at most so many bytes a second over each.
fn fetch(bandwidth: Option<u64>, goal: &[&str]) -> (Vec<Value>, RunReport) {
    let store: Store = [("a", vec![7_u8; 1 << 20])].into_iter().collect();
    let server = Server::builder().bucket(BUCKET, store).start().unwrap();
    if let Some(bandwidth) = bandwidth {
        server.fault(Rule::new(Fault::Bandwidth(bandwidth)).key("a"));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command =
        bulk(["fetch", &format!("s3://{BUCKET}"), "--anonymous", "--endpoint", &server.url(), "--out", "out"]);
    command.args(["--jobs", "2", "--segment", "512KiB", "--json", "--report", "run.json"]).args(goal);
    let ran = Ran::of({
        command.current_dir(folder.path());
        command
    });
    ran.assert(0, &[]);
    (ran.events_of("goal"), RunReport::parse(&std::fs::read(folder.path().join("run.json")).unwrap()).unwrap())
}

/// Four seconds are enough to say it before the end.
#[test]
fn what_is_too_slow_is_said_early_and_in_the_end() {
    let (said, report) = fetch(Some(128 << 10), &["--target", "100MB/s"]);
    let [early, end] = &said[..] else { panic!("{said:#?}") };
    assert_eq!((&early["over"], &early["outlook"]), (&false.into(), &"will_miss_it".into()));
    let text = early["message"].as_str().unwrap();
    assert!(text.starts_with("Too slow: ") && text.contains(" of the 95.4 MiB/s that are needed"), "{text}");
    assert!(text.contains(" times the speed of fetch"), "{text}");
    assert_eq!((&end["over"], &end["outlook"]), (&true.into(), &"will_miss_it".into()));
    let text = end["message"].as_str().unwrap();
    assert!(text.contains(" KiB/s over the whole run, of the 95.4 MiB/s that were asked for. It would have"), "{text}");
    let projection = report.projection.as_ref().unwrap();
    assert_eq!((projection.outlook, projection.is_bytes), (Outlook::WillMissIt, true));
    assert_eq!(projection.help[0].used.limit.to_string(), "fetch");
    assert!(report.to_string().contains("Too slow: "), "{report}");
}

#[test]
fn what_will_be_over_too_late_is_said_early() {
    let (said, report) = fetch(Some(128 << 10), &["--finish-by", "2500ms"]);
    assert!(said.len() >= 2, "{said:#?}");
    assert_eq!((&said[0]["over"], &said[0]["outlook"]), (&false.into(), &"will_miss_it".into()));
    let end = said.last().unwrap()["message"].as_str().unwrap();
    assert!(end.starts_with("Too slow: ") && end.contains(" s behind the time that was asked for."), "{end}");
    assert_eq!(report.projection.unwrap().outlook, Outlook::WillMissIt);
}

#[test]
fn what_is_good_enough_is_said_so() {
    for goal in [["--target", "1B/s"], ["--target", "1/h"], ["--finish-by", "2h"]] {
        let (said, report) = fetch(None, &goal);
        let end = said.last().unwrap();
        assert_eq!((&end["over"], &end["outlook"]), (&true.into(), &"will_make_it".into()), "{goal:?}");
        assert!(end["message"].as_str().unwrap().starts_with("Good enough: "), "{end}");
        let projection = report.projection.unwrap();
        assert_eq!((projection.outlook, projection.help.len()), (Outlook::WillMakeIt, 0), "{goal:?}");
    }
}

/// 120 at 20 a second, wherever they come from.
#[test]
fn a_crawl_says_early_that_its_limit_is_too_low() {
    let database = server().create_database("goal").unwrap();
    sql(&database, "CREATE TABLE item (id int)");
    let api = api::Server::builder(|asked: &Asked| Answer::json(json!({"id": asked.segments()[0]}))).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (1..=120).map(|id| format!("{{\"id\": {id}}}\n")).collect();
    std::fs::write(folder.path().join("ids.ndjson"), lines).unwrap();
    let inputs = [
        ("query = 'SELECT n AS id FROM generate_series(1, 120) n'", &[][..]),
        ("file = 'ids.ndjson'", &["--limit", "110"]),
    ];
    for (name, (input, more)) in ["query", "file"].into_iter().zip(inputs) {
        let spec = format!(
            "[input]\n{input}\n[request]\nurl = '{}/{{id}}'\n[limits]\nrate = ['20/s']\n
             [[rows]]\ntable = 'item'\ncolumns = {{ id = '$.id' }}\n",
            api.url()
        );
        std::fs::write(folder.path().join(name), spec).unwrap();
        let mut command = bulk(["crawl", name, "--finish-by", "2500ms", "--json"]);
        command.args(more).env("BULK_DB", database.url()).current_dir(folder.path());
        let ran = Ran::of(command);
        ran.assert(0, &[]);
        let said = ran.events_of("goal");
        assert!(said.len() >= 2, "{said:#?}");
        assert_eq!((&said[0]["over"], &said[0]["outlook"]), (&false.into(), &"will_miss_it".into()));
        assert_eq!(said[0]["help"][0]["limit"], "rate_limit", "{said:#?}");
        let text = said[0]["message"].as_str().unwrap();
        assert!(text.contains(" times the rate limit of requests"), "{text}");
        let end = said.last().unwrap()["message"].as_str().unwrap();
        assert!(end.starts_with("Too slow: ") && end.contains(" s behind the time that was asked for."), "{end}");
    }
}

#[test]
fn what_is_no_goal_is_refused() {
    for (goal, said) in [
        (&["--target", "fast"][..], "a rate is bytes or a number in a time, such as 100MB/s"),
        (&["--finish-by", "soon"], "\"soon\" is no time, such as 06:00"),
        (&["--finish-by", "2020-01-01T00:00:00Z"], "2020-01-01T00:00:00Z is over"),
        (&["--finish-by", "06:00", "--target", "1MB/s"], "cannot be used with"),
    ] {
        let mut command = bulk(["fetch", "s3://b", "--out", "o"]);
        command.args(goal);
        Ran::of(command).assert(2, &[said]);
    }
}
