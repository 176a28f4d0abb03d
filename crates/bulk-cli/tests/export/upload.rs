//! `--to`: what is published stands in a bucket, too.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use bulk_testkit::s3::{Fault, RequestRecord, Rule, Server, Store};
use http::Method;
use rustix::process::Signal;
use serde_json::Value;

use crate::Bench;
use crate::support::{self, Ran, Running, bulk};

/// What stands below `exports/` in the bucket of the server.
fn in_bucket(server: &Server) -> BTreeMap<String, Vec<u8>> {
    let url = server.url();
    let listed = Ran::of(bulk(["list", "s3://data", "--endpoint", &url, "--anonymous"]));
    assert_eq!(listed.status, Some(0), "{listed:?}");
    let keys = listed.stdout.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        Some(line.get("key")?.as_str()?.to_owned())
    });
    let read = |key: String| {
        let bytes = server.get("data", &key).unwrap().unwrap();
        (key.strip_prefix("exports/").unwrap_or(&key).to_owned(), bytes.to_vec())
    };
    keys.map(read).collect()
}

#[test]
fn a_bucket_gets_what_it_lacks() {
    let bench = Bench::new("", "");
    let server = Server::builder().bucket("data", Store::memory()).writable(true).start().unwrap();
    let lines = |text: &str| fs::write(bench.path("changes.ndjson"), text).unwrap();
    let url = server.url();
    let to = ["--ndjson", "changes.ndjson", "--out", "archives", "--to", "s3://data/exports"];
    let export = |more: &[&str]| {
        let more = [&to[..], &["--endpoint", &url, "--anonymous", "--json"], more].concat();
        Ran::of(bench.command(&more))
    };
    let item = |group: &str, id: u32| {
        format!("{{\"type\": \"opinions\", \"group\": \"{group}\", \"id\": {id}, \"item\": {{\"id\": {id}}}}}\n")
    };
    lines(&(item("ca1", 1) + &item("ca2", 2) + &item("ca3", 3)));
    let planned = export(&["--dry-run"]);
    assert_eq!((planned.status, in_bucket(&server), bench.out().exists()), (Some(0), BTreeMap::new(), false));
    let ran = export(&[]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let figures = |ran: &Ran| {
        let event = ran.events_of("uploaded").remove(0);
        ["files", "kept", "removed"].map(|name| event[name].as_u64().unwrap())
    };
    // Three archives, their indexes, and info.json.
    assert_eq!(figures(&ran), [7, 0, 0]);
    assert_eq!(in_bucket(&server), support::files(&bench.out()));

    // One group changes, one goes.
    lines(&(item("ca1", 4) + "{\"type\": \"opinions\", \"id\": 3, \"deleted\": true}\n"));
    let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    server.fault(Rule::new(denied).key("exports/opinions/ca1.tar.gz"));
    let ran = export(&[]);
    assert_eq!(ran.status, Some(6), "{ran:?}");
    assert!(
        ran.stdout.contains("the same command again brings to s3://data/exports/ what is missing there"),
        "{ran:?}"
    );
    assert!(!in_bucket(&server).contains_key("manifest.json"));
    server.clear_faults();
    let planned = export(&["--dry-run"]);
    let uploads = planned
        .events_of("planned")
        .iter()
        .filter_map(|event| Some(event.get("upload")?.as_str()?.to_owned()))
        .collect::<Vec<_>>();
    assert!(uploads.contains(&"opinions/ca1.tar.gz".to_owned()), "{planned:?}");
    assert!(!uploads.contains(&"opinions/ca2.tar.gz".to_owned()), "{planned:?}");
    let ran = export(&[]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.events_of("uploaded")[0]["removed"], 2);
    assert_eq!(in_bucket(&server), support::files(&bench.out()));
    let names: Vec<_> = in_bucket(&server).into_keys().collect();
    let of = |group: &str| [format!("opinions/{group}.tar.gz"), format!("opinions/{group}.tar.gz.idx")];
    let others = ["manifest.json".to_owned(), "opinions/info.json".to_owned()];
    let mut wanted: Vec<_> = of("ca1").into_iter().chain(of("ca2")).chain(others).collect();
    wanted.sort();
    assert_eq!(names, wanted);

    // What stands beside a type comes and goes, too; what others have put there stays.
    server.put("data", "exports/foreign.parquet", "PAR1").unwrap();
    // They are not even asked for.
    let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    server.fault(Rule::new(denied).key("exports/foreign.parquet").method(Method::HEAD));
    fs::write(bench.path("changes.ndjson"), "").unwrap();
    assert_eq!(export(&["--whole", "parquet,jsonl.zst"]).status, Some(0));
    server.clear_faults();
    let mut there = in_bucket(&server);
    assert_eq!(there.remove("foreign.parquet").as_deref(), Some(&b"PAR1"[..]));
    assert_eq!(there, support::files(&bench.out()));
    assert!(there.contains_key("opinions.parquet") && there.contains_key("opinions.jsonl.zst"));
    let ran = export(&["--whole", "jsonl.zst"]);
    assert_eq!(ran.events_of("uploaded")[0]["removed"], 1);
    let mut there = in_bucket(&server);
    there.remove("foreign.parquet");
    assert_eq!(there, support::files(&bench.out()));
    assert!(!there.contains_key("opinions.parquet"));
}

#[test]
fn what_types_had_that_are_gone_goes_from_a_bucket_and_nothing_else() {
    let upload = Upload::empty();
    let item = |kind: &str| format!("{{\"type\": \"{kind}\", \"group\": \"g\", \"id\": 1, \"item\": {{}}}}\n");
    let command = || {
        let mut command = upload.command();
        command.args(["--also", "jsonl.gz", "--whole", "parquet"]);
        command
    };
    // Somebody else's, some of it uploaded by another export.
    let foreign = [
        "foreign.parquet",
        "foreign/part-0.parquet",
        "foreign/info.json",
        "foreign/a.tar.gz",
        "opinions.parquet/part-0.parquet",
        "opinions/.hidden.parquet",
    ];
    for name in foreign {
        upload.server.put("data", &format!("exports/{name}"), "PAR1").unwrap();
        // They are not even asked for.
        let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
        upload.server.fault(Rule::new(denied).key(&format!("exports/{name}")).method(Method::HEAD));
    }
    let assert_is_there = || {
        let mut there = in_bucket(&upload.server);
        for name in foreign {
            assert_eq!(there.remove(name).as_deref(), Some(&b"PAR1"[..]), "{name}");
        }
        assert_eq!(there, support::files(&upload.bench.out()));
    };
    // What is held when the run is killed: nothing is; the first file; the manifest; what is removed behind it.
    let held = [
        None,
        Some((Method::PUT, "dockets.parquet")),
        Some((Method::PUT, "manifest.json")),
        Some((Method::DELETE, "opinions.parquet")),
        Some((Method::DELETE, "opinions/info.json")),
    ];
    for held in held {
        fs::write(upload.bench.path("changes.ndjson"), item("opinions") + &item("dockets")).unwrap();
        Ran::of(command()).assert(0, &[]);
        assert_is_there();
        assert!(in_bucket(&upload.server).contains_key("opinions.parquet"));
        // Another folder, whose set has never had the type, and has another item in the other one.
        fs::remove_dir_all(upload.bench.out()).unwrap();
        fs::write(upload.bench.path("changes.ndjson"), item("dockets").replace("{}", "[]")).unwrap();
        if let Some((method, name)) = &held {
            let rule = Rule::new(Fault::Hang).key(&format!("exports/{name}")).method(method.clone());
            let held = upload.server.fault(rule);
            support::kill_when(command(), || held.hits() > 0);
            // Nobody holds it the next time.
            held.remove();
        }
        Ran::of(command()).assert(0, &[]);
        assert_is_there();
        fs::remove_dir_all(upload.bench.out()).unwrap();
    }
}

/// An export of lines into a bucket, request by request.
struct Upload {
    bench: Bench,
    server: Server,
}

/// Text that does not compress to less than three quarters of its length.
fn noise(len: usize, seed: u32) -> String {
    let mut random = fastrand::Rng::with_seed(seed.into());
    (0..len).map(|_| random.alphanumeric()).collect()
}

impl Upload {
    /// Of a large archive, in two parts, and two small ones.
    fn new() -> Self {
        let upload = Self::empty();
        upload.change(0);
        Ran::of(upload.command()).assert(0, &[]);
        upload.assert_is_there();
        upload
    }

    fn empty() -> Self {
        let server = Server::builder().bucket("data", Store::memory()).writable(true).start().unwrap();
        Self { bench: Bench::new("", ""), server }
    }

    /// What the next run exports: other items in `large`, one more in `small`, and group `gone-{edition - 1}` goes as the next one
    /// comes.
    fn change(&self, edition: u32) {
        let item = |group: &str, id: u32, text: &str| {
            format!("{{\"type\": \"opinions\", \"group\": \"{group}\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        // Some 9 MiB when they are compressed.
        let mut lines: String = (0..25).map(|id| item("large", id, &noise(500_000, edition * 25 + id))).collect();
        lines += &item("small", 1000 + edition, "small");
        lines += &item(&format!("gone-{edition}"), 2000 + edition, "gone");
        if let Some(before) = edition.checked_sub(1) {
            lines += &format!("{{\"type\": \"opinions\", \"id\": {}, \"deleted\": true}}\n", 2000 + before);
        }
        fs::write(self.bench.path("changes.ndjson"), lines).unwrap();
    }

    /// One request at a time, so that it is known what was done before one that is held.
    fn command(&self) -> Command {
        let to = ["--ndjson", "changes.ndjson", "--out", "archives", "--to", "s3://data/exports", "--jobs", "1"];
        self.bench.command(&[&to[..], &["--endpoint", &self.server.url(), "--anonymous"]].concat())
    }

    /// What changed something in the bucket, in the order of the requests, and the key below `exports/`. But for `info.json`,
    /// which has the time of each run.
    fn writes(&self) -> Vec<(&'static str, String)> {
        let write = |record: RequestRecord| {
            let key = record.key.as_deref()?.strip_prefix("exports/")?.to_owned();
            let what = match (record.method.as_str(), record.param("uploadId").is_some()) {
                ("PUT", false) => "put",
                ("PUT", true) => "part",
                ("POST", false) => "begin",
                ("POST", true) => "complete",
                ("DELETE", false) => "remove",
                ("DELETE", true) => "abort",
                _ => return None,
            };
            (!key.ends_with("info.json")).then_some((what, key))
        };
        self.server.requests().into_iter().filter_map(write).collect()
    }

    /// Asserts that the bucket has what the folder has, nothing else, and no upload that is not finished.
    #[track_caller]
    fn assert_is_there(&self) {
        assert!(in_bucket(&self.server) == support::files(&self.bench.out()), "the bucket has another set");
        assert_eq!(self.server.uploads("data").unwrap(), []);
    }

    /// Runs it once more, behind a run that was cut short and left this in the bucket.
    #[track_caller]
    fn finish(&self, moment: &str, left: &BTreeMap<String, Vec<u8>>) {
        self.server.clear_faults();
        self.server.clear_requests();
        Ran::of(self.command()).assert(0, &["nothing has changed", "uploaded"]);
        self.assert_is_there();
        let (writes, local) = (self.writes(), support::files(&self.bench.out()));
        let is_left = |key: &String| left.get(key).is_some_and(|bytes| local.get(key) == Some(bytes));
        let twice: Vec<_> = writes.iter().filter(|(_, key)| is_left(key)).collect();
        assert!(twice.is_empty(), "{moment}: {twice:?} although they were there");
        // What is gone goes when the manifest is there.
        let behind = writes.iter().rev().take_while(|(_, key)| key != "manifest.json");
        assert!(behind.clone().all(|(what, _)| *what == "remove"), "{moment}: {writes:?}");
        self.server.clear_requests();
        Ran::of(self.command()).assert(0, &["nothing has changed", "s3://data/exports/: "]);
        assert_eq!(self.writes(), [], "{moment}");
    }
}

#[test]
fn whatever_kills_an_upload_the_next_one_ends_it() {
    let upload = Upload::new();
    let (large, small, manifest) = ("opinions/large.tar.gz", "opinions/small.tar.gz", "manifest.json");
    // The request that is held, how many uploads in parts are left unfinished, and the manifest that is left.
    let moments = [
        ("unpublish", manifest, Method::DELETE, 1, 0, Some("old")),
        ("begin", large, Method::POST, 1, 0, None),
        ("part", large, Method::PUT, 2, 1, None),
        ("complete", large, Method::POST, 2, 1, None),
        ("unheard", large, Method::POST, 2, 0, None),
        ("put", small, Method::PUT, 1, 0, None),
        ("publish", manifest, Method::PUT, 1, 0, None),
        ("remove", "opinions/gone-7.tar.gz", Method::DELETE, 1, 0, Some("new")),
    ];
    for (edition, (moment, key, method, nth, unfinished, has_manifest)) in (1..).zip(moments) {
        let old = in_bucket(&upload.server);
        upload.change(edition);
        // The server answers to what is unheard, and puts the object together.
        let fault = if moment == "unheard" { Fault::StallAfter(0) } else { Fault::Hang };
        let held = upload.server.fault(Rule::new(fault).key(&format!("exports/{key}")).method(method).nth(nth));
        let uploads = || upload.server.uploads("data").unwrap().len();
        support::kill_when(upload.command(), || held.hits() > 0 && uploads() == unfinished);
        let (left, local) = (in_bucket(&upload.server), support::files(&upload.bench.out()));
        let has = |set: &BTreeMap<String, Vec<u8>>| set.iter().all(|(key, bytes)| left.get(key) == Some(bytes));
        match has_manifest {
            Some("old") => assert!(left == old, "{moment}"),
            Some(_) => assert!(has(&local), "{moment}"),
            None => assert!(!left.contains_key(manifest), "{moment}"),
        }
        assert_eq!(left.get(large) == local.get(large), edition > 4, "{moment}");
        upload.finish(moment, &left);
    }
}

#[test]
fn whatever_kills_an_upload_by_copies_the_next_one_ends_it() {
    let upload = Upload::empty();
    let large = "opinions/large.tar.gz";
    let change = |items: &mut dyn Iterator<Item = (u32, u32)>| {
        let line = |(id, seed)| {
            let text = noise(500_000, seed);
            format!("{{\"type\": \"opinions\", \"group\": \"large\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        fs::write(upload.bench.path("changes.ndjson"), items.map(line).collect::<String>()).unwrap();
    };
    // Some 21 MiB when they are compressed.
    change(&mut (0..60).map(|id| (id, id)));
    Ran::of(upload.command()).assert(0, &[]);
    upload.assert_is_there();
    let copies = || upload.server.requests().iter().filter(|record| record.copy_range.is_some()).count();
    // The request that is held, how many uploads in parts are left unfinished, and how many copies were asked for.
    let moments = [
        ("begin", Method::POST, 1, 0, 0),
        ("first part", Method::PUT, 1, 1, 1),
        ("second part", Method::PUT, 2, 1, 1),
        ("complete", Method::POST, 2, 1, 2),
        ("unheard", Method::POST, 2, 0, 2),
    ];
    for (edition, (moment, method, nth, unfinished, asked)) in (1..).zip(moments) {
        // In the middle: what is before it is copied, and what is behind it.
        change(&mut [(30, 100 + edition)].into_iter());
        upload.server.clear_requests();
        let fault = if moment == "unheard" { Fault::StallAfter(0) } else { Fault::Hang };
        let held = upload.server.fault(Rule::new(fault).key(&format!("exports/{large}")).method(method).nth(nth));
        let uploads = || upload.server.uploads("data").unwrap().len();
        support::kill_when(upload.command(), || held.hits() > 0 && uploads() == unfinished);
        assert_eq!(copies(), asked, "{moment}");
        let left = in_bucket(&upload.server);
        assert!(!left.contains_key("manifest.json"), "{moment}");
        let is_there = left[large] == support::files(&upload.bench.out())[large];
        assert_eq!(is_there, moment == "unheard", "{moment}");
        upload.server.clear_faults();
        upload.server.clear_requests();
        Ran::of(upload.command()).assert(0, &["nothing has changed", "uploaded"]);
        upload.assert_is_there();
        // What was there already is not known piece by piece: nobody has noted it.
        assert_eq!(copies(), if is_there { 0 } else { 2 }, "{moment}");
    }
}

#[test]
fn ctrl_c_leaves_an_upload_to_the_next_one() {
    let upload = Upload::new();
    upload.change(1);
    let large = "exports/opinions/large.tar.gz";
    let held = upload.server.fault(Rule::new(Fault::Hang).key(large).method(Method::PUT).nth(2));
    let mut running = Running::start(upload.command());
    running.wait_until("the second part", |_| held.hits() > 0);
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("stopping: nothing is published, unless it is already; once more to stop at once"), "{said}");
    let next = "the archives are published in archives; the same command again brings to s3://data/exports/ what is missing there";
    assert!(said.contains(next) && !said.contains("error"), "{said}");
    let left = in_bucket(&upload.server);
    assert!(!left.contains_key("manifest.json"));
    upload.bench.verify();
    upload.finish("Ctrl-C", &left);
}

#[test]
fn of_a_large_archive_only_what_changed_is_sent() {
    let upload = Upload::empty();
    // Some 21 MiB when they are compressed.
    let texts: Vec<_> = (0..60).map(|id| noise(500_000, id)).collect();
    let export = |items: &mut dyn Iterator<Item = (usize, &str)>| {
        let line = |(id, text): (usize, &str)| {
            format!("{{\"type\": \"o\", \"group\": \"all\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        fs::write(upload.bench.path("changes.ndjson"), items.map(line).collect::<String>()).unwrap();
        upload.server.clear_requests();
        let mut command = upload.command();
        command.arg("--json");
        let event = Ran::of(command).events_of("uploaded").remove(0);
        upload.assert_is_there();
        // Without the bodies of requests that are not for a file.
        let is_file = |record: &RequestRecord| record.param("uploadId").is_none() || record.method == Method::PUT;
        let sent: u64 =
            upload.server.requests().iter().filter(|record| is_file(record)).filter_map(|record| record.body_len).sum();
        let manifest = fs::metadata(upload.bench.out().join("manifest.json")).unwrap().len();
        let [bytes, copied] = ["bytes", "copied"].map(|name| event[name].as_u64().unwrap());
        assert_eq!(sent, bytes + manifest - copied);
        (bytes, copied)
    };
    let (bytes, copied) = export(&mut texts.iter().map(String::as_str).enumerate());
    assert!(bytes > 16 << 20 && copied == 0, "{bytes} {copied}");
    // One is replaced, and after that one comes.
    for change in [(30, "other"), (61, "another")] {
        let (bytes, copied) = export(&mut [change].into_iter());
        assert!(bytes - copied < 8 << 20 && copied > 8 << 20, "{change:?}: {copied} of {bytes}");
    }
    upload.bench.verify();
}
