//! Records from files and pipes, one by one and in batches.

use std::sync::{Arc, Mutex};

use bulk_testkit::api::{Answer, Asked, Server};
use serde_json::json;

use crate::bench::{Bench, targets};
use crate::support::Ran;

#[test]
fn records_come_from_files_pages_are_followed_and_values_arrive_as_they_are() {
    let bench = Bench::new("CREATE TABLE page (id bigint, place int, value text, whole jsonb, amount numeric)");
    let values =
        ["tab\there", "line\nbreak\r", "back\\slash \\. \\N", "\"quotes\"", "", "\u{1F600}\u{0}", "\u{10FFFF}", "null"];
    let api = Server::builder(move |asked| {
        let page: usize = asked.param("page").unwrap().parse().unwrap();
        let body = format!(
            "{{\"last\": 4, \"amount\": 0.10000000000000000000000000001, \"items\": {}}}",
            json!([values[2 * page - 2], values[2 * page - 1]])
        );
        Answer::text("application/json", body)
    })
    .start()
    .unwrap();
    let spec = |url: &str| {
        format!(
            r#"
        [input]
        file = "-"
        [request]
        method = "GET"
        url = "{url}/lists/{{list.id}}"
        [pages]
        parameter = "page"
        last = "$.last"
        [limits]
        rate = ["500/s"]
        [[rows]]
        table = "page"
        each = ["$.items[*]"]
        columns = {{ id = "input.list.id", place = "key", value = "$", whole = "[$]", amount = "response.amount" }}
        "#
        )
    };
    bench.spec(&spec(&api.url()));
    let input = "{\"list\": {\"id\": 9007199254740993}}\n\n{\"list\": {\"id\": 9007199254740993}}\n";
    let ran = Ran::fed(bench.command(&["--max-rejects", "1"]), input);
    ran.assert(3, &["1 call with 7 rows loaded, 1 row left out"]);
    assert_eq!(targets(&api).values().sum::<usize>(), 4, "equal records are asked for once: {:?}", targets(&api));
    // As bytes: psql leaves out what it takes for no character.
    let found = bench.sql("SELECT encode(convert_to(value, 'UTF8'), 'hex') FROM page ORDER BY value COLLATE \"C\"");
    let mut expected: Vec<&str> = values.into_iter().filter(|value| !value.contains('\0')).collect();
    expected.sort_unstable();
    let hex = |value: &&str| value.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(found.split('\n').map(str::to_owned).collect::<Vec<_>>(), expected.iter().map(hex).collect::<Vec<_>>());
    assert_eq!(bench.sql("SELECT DISTINCT id, amount FROM page"), "9007199254740993|0.10000000000000000000000000001");
    assert_eq!(bench.sql("SELECT \"column\", sqlstate, row FROM bulk.call_reject"), "value|22021|6");

    // What is no record is named, and what came before it stays.
    let bad = Ran::fed(
        bench.command(&["--restart", "--max-rejects", "1"]),
        "{\"list\": {\"id\": 1}}\n[2]\n{\"list\": {\"id\": 3}}\n",
    );
    bad.assert(1, &["standard input, line 2: it is no JSON object", "1 call with 7 rows"]);
}

/// Records in batches, into a table that keeps whatever comes, twice if it comes twice.
fn batches(url: &str, size: usize) -> String {
    format!(
        r#"
        [input]
        file = "ids.ndjson"
        [request]
        url = "{url}/items?ids={{id}}"
        [limits]
        rate = ["1000/s"]
        [batch]
        size = {size}
        field = "id"
        elements = "$[*]"
        id = "$.id"
        of-record = "{{id}}"
        [[rows]]
        table = "item"
        columns = {{ id = "$.id", note = "input.note" }}
        "#
    )
}

#[test]
fn a_record_counts_by_itself_whichever_others_it_is_asked_for_with() {
    let bench = Bench::new("CREATE TABLE item (id int, note text)");
    let refused: Arc<Mutex<Option<u64>>> = Arc::new(Mutex::new(Some(13)));
    let refuses = refused.clone();
    let api = Server::builder(move |asked: &Asked| {
        let ids: Vec<u64> = asked.param("ids").unwrap().split(',').map(|id| id.parse().unwrap()).collect();
        match *refuses.lock().unwrap() {
            Some(0) => Answer::error(401, "no session"),
            Some(bad) if ids.contains(&bad) => Answer::error(422, "no such item"),
            _ => Answer::json(ids.iter().map(|id| json!({"id": id})).collect()),
        }
    })
    .start()
    .unwrap();
    let ids = |ids: &[u64]| {
        let lines: String = ids.iter().map(|id| format!("{{\"id\": {id}}}\n")).collect();
        std::fs::write(bench.folder.path().join("ids.ndjson"), lines).unwrap();
    };
    let all: Vec<u64> = (1..=60).collect();
    ids(&all);
    bench.spec(&batches(&api.url(), 10).replace("of-record = \"{id}\"", "of-record = \"/items/{idd}\""));
    let unknown = "of-record of [batch] has a place for {idd}, and ids.ndjson has no such thing; its keys are id";
    bench.run(&["--check"]).assert(2, &[unknown]);
    // A run that is cut short in the middle of a batch, and one with other batches, over records in another order.
    bench.spec(&batches(&api.url(), 10));
    bench.run(&["--limit", "27"]).assert(3, &["26 calls with 26 rows", "without --limit it goes on"]);
    let reversed: Vec<u64> = all.iter().rev().copied().chain([5, 60]).collect();
    ids(&reversed);
    bench.spec(&batches(&api.url(), 7));
    api.clear();
    bench.run(&[]).assert(3, &["59 calls with 59 rows", "1 request in quarantine"]);
    assert_eq!(api.arrivals().len(), 1 + 33_usize.div_ceil(7), "13 again, and 28 to 60");
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "59|59");

    // The round ends without it; the next one asks for it with the others.
    bench.run(&["--max-quarantined", "1"]).assert(3, &["59 calls with 59 rows", "complete"]);
    *refused.lock().unwrap() = None;
    bench.sql("TRUNCATE item");
    api.clear();
    bench.run(&[]).assert(0, &["60 calls with 60 rows", "complete"]);
    assert_eq!(api.arrivals().len(), 62_usize.div_ceil(7), "as many as there are batches");
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "60|60");

    // Where everything is refused it gives up, and goes on where it was.
    *refused.lock().unwrap() = Some(0);
    // Slow enough for the third to be given up.
    let slow = batches(&api.url(), 7).replace("1000/s", "20/s");
    bench.spec(&slow.replace("[limits]", "[limits]\n        concurrency = 1"));
    bench.sql("TRUNCATE item");
    api.clear();
    bench.run(&["--give-up-after", "14"]).assert(6, &["14 records in a row failed", "no session"]);
    assert!(api.arrivals().len() < 9, "{:?}", targets(&api));
    *refused.lock().unwrap() = None;
    bench.run(&[]).assert(0, &["60 calls with 60 rows", "0 requests in quarantine: complete"]);
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "60|60");

    // Rows of another kind are wanted of all, and what cannot be loaded is listed.
    let spec = batches(&api.url(), 20)
        .replace("input.note", "$.id")
        .replace("\"item\"", "\"item\"\n        require = [\"missing\"]");
    bench.spec(&spec.replace("note = ", "missing = \"$.nothing\", note = "));
    bench.sql("ALTER TABLE item ADD missing text");
    bench
        .run(&["--max-rejects", "100", "--rejects", "left-out"])
        .assert(3, &["60 rows left out", "left-out/job.toml.rejects.jsonl: 60 rows"]);
    let listed = std::fs::read_to_string(bench.folder.path().join("left-out/job.toml.rejects.jsonl")).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains("\"column\":\"missing\"")).count(), 60, "{listed}");
    // It was the name of a file once.
    bench.run(&["--rejects", "left-out.ndjson"]).assert(2, &["it is a folder, for SPEC.rejects.jsonl; name one"]);
    bench.run(&["--rejects", "left-out/job.toml.rejects.jsonl"]).assert(2, &["it is a folder"]);
    std::fs::write(bench.folder.path().join("file"), "").unwrap();
    bench.run(&["--rejects", "file"]).assert(2, &["--rejects file: that is a file; what is left out goes to a folder"]);
}

#[cfg(unix)]
#[test]
fn an_input_that_stalls_keeps_nothing_from_being_committed_and_told() {
    use std::io::Write;
    let bench = Bench::new("CREATE TABLE item (id int)");
    let api = Server::builder(|asked: &Asked| Answer::json(json!({"id": asked.segments()[1]}))).start().unwrap();
    bench.spec(&format!(
        r#"
        [input]
        file = "-"
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
    let mut command = bench.command(&[]);
    command.stdin(std::process::Stdio::piped());
    let mut running = crate::support::Running::start(command);
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"{\"id\": 1}\n{\"id\": 2}\n{\"id\": 3}\n{\"id\":").unwrap();
    running.wait_until("three rows", |_| bench.sql("SELECT count(*) FROM item") == "3");
    running.wait_until("progress", |said| said.contains("3 requests in"));
    input.write_all(b" 4}\n").unwrap();
    drop(input);
    let (status, said) = running.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("4 calls with 4 rows loaded"), "{said}");
}
