//! `bulk fetch` on a real S3 protocol server with faults, from the outside.

mod support;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use bulk_testkit::snapshot::PLACEHOLDER;
use bulk_testkit::tls::{Authority, Front};
use support::{BUCKET, DATA, Fetch, NOWHERE, Ran, asked, assert_apart, bulk, files, gets, kill_when, noted, total};

/// A fetch as people begin it, with no options.
fn fetch_from(store: Store) -> Fetch {
    Fetch::new(store, &[])
}

fn named<const N: usize>(files: [(&str, &str); N]) -> Vec<(String, String)> {
    files.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

/// The bytes from `offset` on of a file in which no two stretches of some length are alike.
fn fill(offset: u64, chunk: &mut [u8]) {
    for (at, byte) in (offset..).zip(chunk) {
        *byte = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[(at % 8) as usize];
    }
}

fn bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fill(0, &mut bytes);
    bytes
}

#[test]
fn a_prefix_is_fetched_largest_first_and_a_second_run_fetches_nothing() {
    let fetch = fetch_from(
        Store::memory()
            .with("data/small.csv", "id\n1\n")
            .with("data/large.csv", "id\n1\n2\n3\n4\n")
            .with("data/middle.csv", "id\n1\n2\n")
            .with("data/", "")
            .with("other/x.csv", "id\n"),
    );
    fetch.fetch(&["--jobs", "1"]).assert(0, &[]);
    let all = named([("large.csv", "id\n1\n2\n3\n4\n"), ("middle.csv", "id\n1\n2\n"), ("small.csv", "id\n1\n")]);
    assert_eq!(fetch.files(), all);
    assert_eq!(gets(&fetch.server), ["data/large.csv", "data/middle.csv", "data/small.csv"]);

    fetch.server.clear_requests();
    let second = fetch.fetch(&["--json"]);
    second.assert(0, &[]);
    assert_eq!(gets(&fetch.server), [""; 0]);
    let fetched: Vec<_> = second.events_of("fetched").iter().map(|event| event["fetched"].clone()).collect();
    assert_eq!(fetched, [0, 0, 0]);
    let mut said: Vec<_> = second.events_of("detail").iter().map(|event| event["message"].clone()).collect();
    said.retain(|message| message.as_str().unwrap().starts_with("small.csv: "));
    assert_eq!(said, ["small.csv: all of its 5 B were there"]);

    // Of a file that is another version now, the new one is fetched, and nothing else.
    fetch.server.put(BUCKET, "data/middle.csv", "id\n7\n8\n").unwrap();
    std::fs::remove_file(fetch.out().join("small.csv")).unwrap();
    fetch.fetch(&["--jobs", "1"]).assert(0, &[]);
    assert_eq!(gets(&fetch.server), ["data/middle.csv", "data/small.csv"]);
    let changed = named([("large.csv", "id\n1\n2\n3\n4\n"), ("middle.csv", "id\n7\n8\n"), ("small.csv", "id\n1\n")]);
    assert_eq!(fetch.files(), changed);
}

#[test]
fn only_the_newest_of_each_dated_file_is_fetched() {
    let fetch = fetch_from(
        Store::memory()
            .with("bulk-data/courts-2026-03-31.csv", "id\nold\n")
            .with("bulk-data/courts-2026-06-30.csv", "id\nnew\n")
            .with("bulk-data/dockets-2026-03-31.csv.bz2", "fifteen bytes..")
            .with("bulk-data/dockets-2026-06-30.csv.bz2", PLACEHOLDER.as_slice())
            .with("bulk-data/dockets-2026-06-30.csv.bz2.delta", "delta")
            .with("bulk-data/readme.txt", "undated"),
    );
    // The catalogue knows bucket and prefix.
    fetch.fetch_of("courtlistener", &[]).assert(0, &[]);
    let newest = named([
        ("courts-2026-06-30.csv", "id\nnew\n"),
        ("dockets-2026-03-31.csv.bz2", "fifteen bytes.."),
        ("readme.txt", "undated"),
    ]);
    assert_eq!(fetch.files(), newest);
}

#[test]
fn a_url_and_a_folder_are_sources_too() {
    let fetch = fetch_from(Store::memory().with("data/big file+1.csv", "id\n1\n"));
    let url = fetch.server.object_url(BUCKET, "data/big file+1.csv");
    assert!(url.ends_with("/data/big%20file%2B1.csv"), "{url}");
    // A URL names no version: whether it is still the one that is there, a byte of it tells.
    for sent in [5, 1] {
        fetch.server.clear_requests();
        fetch.fetch_of(&url, &[]).assert(0, &[]);
        let bytes: Vec<_> = fetch.server.requests().iter().map(|request| request.bytes_sent).collect();
        assert_eq!(bytes, [sent]);
    }
    assert_eq!(fetch.files(), named([("big file+1.csv", "id\n1\n")]));

    let folder = fetch.folder.path().join("from");
    std::fs::create_dir(&folder).unwrap();
    for (name, text) in [("a.csv", "id\n1\n"), ("b-2026-03-31.csv", "old\n"), ("b-2026-06-30.csv", "new\n")] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    std::fs::remove_dir_all(fetch.out()).unwrap();
    for fetched in [[5, 4], [0, 0]] {
        let ran = fetch.fetch_of(&format!("file://{}", folder.display()), &["--json"]);
        ran.assert(0, &[]);
        let bytes: Vec<_> = ran.events_of("fetched").iter().map(|event| event["fetched"].clone()).collect();
        assert_eq!(bytes, fetched);
    }
    assert_eq!(fetch.files(), named([("a.csv", "id\n1\n"), ("b-2026-06-30.csv", "new\n")]));
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n").with("data/b.csv", "id\n1\n"));
    let ran = fetch.fetch(&["--dry-run"]);
    ran.assert(0, &[]);
    assert_eq!(ran.stdout, "5\tdata/b.csv\n3\tdata/a.csv\n");
    assert_eq!(gets(&fetch.server), [""; 0]);
    assert!(!fetch.out().exists());
}

#[test]
fn all_pages_of_a_listing_are_read() {
    for keys in [1_000, 1_001, 2_500] {
        let store: Store = (0..keys).map(|n| (format!("data/{n:04}.csv"), "id\n")).collect();
        let fetch = fetch_from(store);
        let ran = fetch.fetch(&["--dry-run"]);
        ran.assert(0, &[]);
        let expected: String = (0..keys).map(|n| format!("3\tdata/{n:04}.csv\n")).collect();
        assert_eq!(ran.stdout, expected);
        assert_eq!(fetch.server.requests().len(), usize::div_ceil(keys, 1_000), "{keys} keys");
    }
}

#[test]
fn with_json_every_line_is_an_event_and_there_is_nothing_else() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n").with("data/b.csv", "id\n1\n"));
    fetch.server.fault(Rule::new(Fault::slow_down()).key("data/a.csv").first(1));
    fetch
        .server
        .fault(Rule::new(Fault::Status { code: 404, error: "NoSuchKey".into(), retry_after: None }).key("data/b.csv"));
    let ran = fetch.fetch(&["--json"]);
    ran.assert(3, &[]);
    let [fetched] = &ran.events_of("fetched")[..] else { panic!("{}", ran.stdout) };
    assert_eq!((&fetched["file"], &fetched["size"], &fetched["fetched"]), (&"a.csv".into(), &3.into(), &3.into()));
    let [error] = &ran.events_of("error")[..] else { panic!("{}", ran.stdout) };
    assert_eq!(error["exit"], 1);
    assert!(error["message"].as_str().unwrap().contains("data/b.csv does not exist"), "{error}");
}

#[test]
fn killed_in_the_middle_it_goes_on_behind_what_is_noted() {
    const SIZE: u64 = 300 << 20;
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap();
    let behind = gate.clone();
    let object = Object::generated(SIZE, move |offset, chunk| {
        // The server sends so much, and waits for the gate.
        if offset >= SIZE - (16 << 20) {
            drop(behind.read().unwrap());
        }
        fill(offset, chunk);
    });
    let fetch = fetch_from(Store::memory().with("data/huge.csv", object));
    kill_when(fetch.command(&[]), || !noted(&fetch.out(), "huge.csv").is_empty());
    drop(closed);
    assert_eq!(fetch.files(), [], "half a file is under no final name");
    let noted = noted(&fetch.out(), "huge.csv");

    fetch.server.clear_requests();
    fetch.fetch(&[]).assert(0, &["huge.csv: goes on behind its first"]);
    let requests = fetch.server.requests();
    let resumed: Vec<_> = requests.iter().filter(|request| request.range.is_some()).collect();
    assert!(resumed.iter().all(|request| request.if_match.is_some()), "{resumed:?}");
    let (asked, sent) = asked(&fetch.server, "data/huge.csv", SIZE);
    assert_apart(&asked, &noted);
    // What is asked for twice, because it is slow, is a part of a segment.
    assert!(sent < SIZE - total(&noted) + (32 << 20), "{sent} of {SIZE} although {noted:?} were there");

    let mut expected = vec![0; SIZE as usize];
    fill(0, &mut expected);
    assert!(std::fs::read(fetch.out().join("huge.csv")).unwrap() == expected);
}

#[test]
fn what_passes_is_tried_again_and_the_bytes_are_the_same() {
    let size = 1_000_000;
    let other = bytes(size).into_iter().rev().collect::<Vec<_>>();
    let ends = |start: &str| Some(format!("bytes={start}-"));
    let (none, half) = (None, ends("500000"));
    // Fault, how often, the Range of each request that follows.
    let cases: Vec<(Fault, u64, Vec<Option<String>>)> = vec![
        (Fault::slow_down(), 2, vec![none.clone(); 3]),
        (Fault::internal_error(), 1, vec![none.clone(); 2]),
        (Fault::too_many_requests(1), 1, vec![none.clone(); 2]),
        (Fault::Truncate(500_000), 1, vec![none.clone(), half.clone()]),
        (Fault::Truncate(250_000), 4, vec![none.clone(), ends("250000"), half.clone(), ends("750000")]),
        (
            Fault::ReplaceMidway { after_bytes: 500_000, with: Object::new(other.clone()) },
            1,
            vec![none.clone(), half.clone(), none.clone()],
        ),
    ];
    for (fault, times, ranges) in cases {
        let expected = if matches!(fault, Fault::ReplaceMidway { .. }) { other.clone() } else { bytes(size) };
        let what = format!("{fault:.40?}");
        let fetch = fetch_from(Store::memory().with("data/a.csv", bytes(size)));
        fetch.server.fault(Rule::new(fault).key("data/a.csv").first(times));
        fetch.fetch(&[]).assert(0, &["a.csv"]);
        let asked: Vec<_> = fetch
            .server
            .requests()
            .into_iter()
            .filter(|request| request.key.is_some())
            .map(|request| request.range)
            .collect();
        assert_eq!(asked, ranges, "{what}");
        assert!(files(&fetch.out())["a.csv"] == expected, "{what}");
    }
}

#[test]
fn without_ranges_a_broken_body_begins_anew() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", bytes(1_000_000)));
    fetch.server.fault(Rule::new(Fault::NoRange));
    fetch.server.fault(Rule::new(Fault::Truncate(500_000)).key("data/a.csv").first(2));
    let ran = fetch.fetch(&[]);
    ran.assert(0, &["the connection broke"]);
    assert_eq!(ran.stderr.matches("data/a.csv: the server sends no ranges").count(), 1, "{}", ran.stderr);
    let sent: Vec<_> = fetch
        .server
        .requests()
        .iter()
        .filter(|request| request.key.is_some())
        .map(|request| request.bytes_sent)
        .collect();
    assert_eq!(sent, [500_000, 500_000, 1_000_000]);
    assert!(files(&fetch.out())["a.csv"] == bytes(1_000_000));
}

#[test]
fn what_fails_says_so_with_its_own_status() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n").with("denied/a.csv", "id\n"));
    let status = |code, error: &str| Fault::Status { code, error: error.into(), retry_after: None };
    fetch.server.fault(Rule::new(status(403, "AccessDenied")).prefix("denied/"));
    let bucket = |prefix: &str| format!("s3://{BUCKET}/{prefix}");
    let missing = fetch.folder.path().join("missing");
    let cases: Vec<(String, i32, String)> = vec![
        (bucket("nothing/"), 1, format!("there is nothing at s3://{BUCKET}/nothing/")),
        ("s3://absent/data/".into(), 1, "/absent/ does not exist".into()),
        (fetch.server.object_url(BUCKET, "data/b.csv"), 1, "data/b.csv does not exist".into()),
        (format!("file://{}", missing.display()), 1, format!("cannot list {}", missing.display())),
        (bucket("denied/"), 6, "denied/a.csv is denied (AccessDenied".into()),
        (fetch.server.object_url(BUCKET, "denied/a.csv"), 6, "denied/a.csv is denied (AccessDenied".into()),
        ("nonsense".into(), 2, "there is no data set \"nonsense\"".into()),
        ("ftp://host/a.csv".into(), 2, "s3://bucket/prefix or file:///folder".into()),
        (fetch.server.url() + "/", 2, "names no file".into()),
    ];
    for (source, exit, said) in cases {
        fetch.fetch_of(&source, &[]).assert(exit, &[&said]);
        assert_eq!(fetch.files(), [], "{source}");
    }
    fetch.server.fault(Rule::new(status(403, "AccessDenied")).list());
    fetch.fetch(&[]).assert(6, &[&format!("/{BUCKET}/ is denied (AccessDenied")]);
}

#[test]
fn an_endpoint_that_nobody_answers_at_is_given_up_with_its_own_status() {
    let fetch = fetch_from(Store::memory());
    let mut command = bulk(["fetch", DATA, "--anonymous", "--endpoint", &format!("http://{NOWHERE}"), "--out"]);
    command.arg(fetch.out());
    Ran::of(command).assert(4, &["gave up after 8 attempts", &format!("http://{NOWHERE}"), "cannot connect"]);
    assert!(!fetch.out().exists());
}

#[test]
fn wrong_usage_is_told_before_anything_is_asked() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n"));
    let url = fetch.server.url();
    let cases: [&[&str]; 5] = [
        &["fetch"],
        &["fetch", DATA],
        &["fetch", DATA, "--out", "out", "--jobs", "many"],
        &["fetch", DATA, "--out", "out", "--quiet", "--verbose"],
        &["fetch", DATA, "--out", "out", "--endpoint", &url, "--nonsense"],
    ];
    for case in cases {
        Ran::of(bulk(case)).assert(2, &["--help"]);
    }
    assert_eq!(fetch.server.requests().len(), 0);
}

#[test]
fn of_several_the_others_arrive_whichever_fails() {
    for failing in ["data/a.csv", "data/b.csv", "data/c.csv"] {
        let fetch = fetch_from(
            Store::memory().with("data/a.csv", "id\n1\n2\n").with("data/b.csv", "id\n1\n").with("data/c.csv", "id\n"),
        );
        let denied = Fault::Status { code: 403, error: "AccessDenied".into(), retry_after: None };
        let rule = fetch.server.fault(Rule::new(denied).key(failing));
        fetch.fetch(&[]).assert(3, &[failing, "is denied"]);
        let there: Vec<_> = fetch.files().into_iter().map(|(name, _)| format!("data/{name}")).collect();
        let others: Vec<_> =
            ["data/a.csv", "data/b.csv", "data/c.csv"].into_iter().filter(|key| *key != failing).collect();
        assert_eq!(there, others);
        // The same command fetches the one that is left.
        rule.remove();
        fetch.server.clear_requests();
        fetch.fetch(&[]).assert(0, &[]);
        assert_eq!(gets(&fetch.server), [failing]);
    }
}

#[test]
fn if_all_fail_the_status_is_theirs() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n1\n").with("data/b.csv", "id\n"));
    let denied = Fault::Status { code: 403, error: "AccessDenied".into(), retry_after: None };
    fetch.server.fault(Rule::new(denied).prefix("data/"));
    fetch.fetch(&[]).assert(6, &["data/a.csv is denied", "data/b.csv is denied"]);
}

#[test]
fn keys_of_any_characters_arrive_under_their_names() {
    let names = [
        "a b+c%20d.csv",
        "quote'\"<&>.csv",
        "§ 1983 — 最高裁 🧑.csv",
        "?query=1#fragment.csv",
        "back\\slash.csv",
        "~tilde!(paren)*$@,;=:.csv",
        ".hidden.csv",
        "line\nend.csv",
    ];
    let fetch = fetch_from(names.iter().map(|name| (format!("data/{name}"), format!("id\n{name}\n"))).collect());
    fetch.fetch(&[]).assert(0, &[]);
    let mut expected: Vec<_> = names.map(|name| (name.to_owned(), format!("id\n{name}\n"))).into();
    expected.sort();
    assert_eq!(fetch.files(), expected);
    fetch.server.clear_requests();
    fetch.fetch(&[]).assert(0, &[]);
    assert_eq!(gets(&fetch.server), [""; 0]);
}

#[test]
fn two_keys_of_one_name_do_not_overwrite_each_other() {
    let fetch = fetch_from(
        Store::memory()
            .with("data/2025/rows.csv", "id\n2025\n")
            .with("data/2026/rows.csv", "id\n2026\n")
            .with("data/rows.csv", "id\n"),
    );
    fetch.fetch(&["--jobs", "1"]).assert(0, &[]);
    let all = named([("2025/rows.csv", "id\n2025\n"), ("2026/rows.csv", "id\n2026\n"), ("rows.csv", "id\n")]);
    assert_eq!(fetch.files(), all);
}

#[test]
fn a_key_cannot_leave_the_folder() {
    let fetch = fetch_from(Store::memory().with("data/..", "outside\n").with("data/a.csv", "id\n"));
    let ran = fetch.fetch(&[]);
    ran.assert(3, &["\"..\" cannot be staged: it leaves the folder"]);
    assert_eq!(fetch.files(), named([("a.csv", "id\n")]));
}

#[test]
fn a_bucket_that_asks_for_a_signature_gets_one() {
    let store = Store::memory().with("data/a.csv", "id\n");
    let server = Server::builder()
        .bucket(BUCKET, store)
        .credentials("KEYID", "the-secret")
        .require_credentials(true)
        .start()
        .unwrap();
    let fetch = Fetch::of(server, &[]);
    for (secret, exit) in [("not-the-secret", 6), ("the-secret", 0)] {
        let mut command = bulk(["fetch", DATA, "--endpoint", &fetch.server.url(), "-v", "--out"]);
        command.arg(fetch.out()).env("AWS_ACCESS_KEY_ID", "KEYID").env("AWS_SECRET_ACCESS_KEY", secret);
        let ran = Ran::of(command);
        ran.assert(exit, &[]);
        assert!(!ran.stderr.contains(secret), "{}", ran.stderr);
    }
    assert_eq!(fetch.files(), named([("a.csv", "id\n")]));
    fetch.fetch(&[]).assert(6, &["AccessDenied"]);
}

#[test]
fn credentials_that_run_out_are_looked_up_until_there_are_new_ones() {
    const ROLE: &str = "meta-data/iam/security-credentials/";
    // What the instance metadata service of EC2 answers, with credentials that are always about to end.
    let credentials = r#"{"AccessKeyId": "KEYID", "SecretAccessKey": "the-secret", "Token": "the-token",
                          "Expiration": "2020-01-01T00:00:00Z"}"#;
    let key = format!("{ROLE}reader");
    let store = Store::memory().with(ROLE, "reader").with(&key, credentials);
    let metadata = Server::builder().bucket("latest", store).writable(true).start().unwrap();
    let store = Store::memory().with("data/a.csv", "id\n").with("data/b.csv", "id\n");
    let server = Server::builder().bucket(BUCKET, store).credentials("KEYID", "the-secret").session_token("the-token");
    let fetch = Fetch::of(server.require_credentials(true).start().unwrap(), &[]);
    // One look-up is not made in less than a tenth of a second after another.
    fetch.server.fault(Rule::new(Fault::Latency(Duration::from_millis(250))));
    let fetched = || {
        let mut command = bulk(["fetch", DATA, "--endpoint", &fetch.server.url(), "-v", "--jobs", "1", "--out"]);
        command.arg(fetch.out()).env("AWS_METADATA_ENDPOINT", metadata.url());
        Ran::of(command)
    };

    // No attempt of the first look-up succeeds.
    let rule = metadata.fault(Rule::new(Fault::internal_error()).key(&key));
    fetched().assert(6, &["no usable credentials were found"]);
    assert_eq!(rule.hits(), 3);

    metadata.clear_faults();
    metadata.clear_requests();
    let rules = [2, 3, 4].map(|nth| metadata.fault(Rule::new(Fault::internal_error()).key(&key).nth(nth)));
    let ran = fetched();
    ran.assert(0, &["the credentials ran out, and new ones cannot be had"]);
    assert!(rules.iter().all(|rule| rule.hits() == 1));
    assert!(!ran.stderr.contains("the-secret") && !ran.stderr.contains("the-token"), "{}", ran.stderr);
    assert_eq!(fetch.files(), named([("a.csv", "id\n"), ("b.csv", "id\n")]));
}

#[test]
fn a_server_is_trusted_whose_root_a_variable_names() {
    let fetch = fetch_from(Store::memory().with("data/a.csv", "id\n"));
    let (ours, other) = (Authority::new("ours").unwrap(), Authority::new("other").unwrap());
    let server = fetch.server.url().strip_prefix("http://").unwrap().parse().unwrap();
    let front = Front::start(&ours.certify(&["127.0.0.1"]).unwrap(), server).unwrap();
    let endpoint = format!("https://{}", front.address());
    for (root, exit, says) in [(&other, 4, "UnknownIssuer"), (&ours, 0, "")] {
        let mut command = bulk(["fetch", DATA, "--anonymous", "--endpoint", &endpoint, "--out"]);
        command.arg(fetch.out()).env("AWS_CA_BUNDLE", root.file());
        Ran::of(command).assert(exit, &[says]);
    }
    assert_eq!(fetch.files(), named([("a.csv", "id\n")]));
}

#[test]
fn of_a_folder_all_is_fetched_that_is_below_it_and_again_what_was_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("sub/deep")).unwrap();
    std::fs::create_dir(data.join(".bulk")).unwrap();
    std::fs::write(data.join(".bulk/b.part"), "x").unwrap();
    let out = folder.path().join("out");
    for text in ["one\n", "two\n"] {
        std::fs::write(data.join("a.csv"), text).unwrap();
        std::fs::write(data.join("sub/deep/b.csv"), "id\n").unwrap();
        let ran = Ran::of(bulk(["fetch", &format!("file://{}", data.display()), "--out", out.to_str().unwrap()]));
        ran.assert(0, &[]);
        let mut fetched = files(&out);
        fetched.remove("manifest.json");
        let named = [("a.csv", text), ("sub/deep/b.csv", "id\n")];
        assert_eq!(fetched, named.map(|(name, text)| (name.to_owned(), text.into())).into());
    }
}

#[test]
fn a_folder_is_not_fetched_into_itself() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "id\n").unwrap();
    let url = format!("file://{}", folder.path().display());
    // Another way to the same folder.
    let out = folder.path().join(".");
    for command in [
        bulk(["fetch", &url, "--out", out.to_str().unwrap()]),
        bulk(["mirror", "courtlistener", "--db", "unused", "--from", &url, "--dir", out.to_str().unwrap()]),
    ] {
        Ran::of(command).assert(2, &["the files come from that folder"]);
    }
    assert_eq!(files(folder.path()), [("a.csv".to_owned(), b"id\n".to_vec())].into());
}
