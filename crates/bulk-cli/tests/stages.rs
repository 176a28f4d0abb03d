//! What the stages of `bulk list`, `bulk diff`, `bulk sync` and `bulk export` count, and what bound them.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bulk_core::{Limit, Resource, RunReport, RunVerdict, StageReading};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use serde_json::json;
use support::{Ran, bulk, server, sql};

const OBJECTS: usize = 2_500;
/// Keys on a page.
const PAGE: usize = 100;

fn serve() -> Server {
    let store: Store = (0..OBJECTS).map(|number| (format!("a/{number:04}"), "body".to_owned())).collect();
    Server::builder().bucket("data", store).max_keys_cap(PAGE).start().unwrap()
}

/// The report of a run that is done with this status, whose verdict is the one that was said.
#[track_caller]
fn run(mut command: Command, folder: &Path, status: i32) -> RunReport {
    let path = folder.join("run.json");
    command.args(["--json", "--report"]).arg(&path).current_dir(folder);
    let ran = Ran::of(command);
    assert_eq!(ran.status, Some(status), "{ran:?}");
    let report = RunReport::parse(&fs::read(&path).unwrap()).unwrap();
    let [said] = &ran.events_of("verdict")[..] else { panic!("{ran:?}") };
    assert_eq!(serde_json::from_value::<RunVerdict>(said.clone()).ok(), report.verdict);
    report
}

#[track_caller]
fn stage<'a>(report: &'a RunReport, name: &str) -> &'a StageReading {
    report.meters.stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("{report}"))
}

/// Names, items, and what each gets its input from.
fn stages(report: &RunReport) -> Vec<(&str, u64, String)> {
    let stage = |stage: &'_ StageReading| (stage.total.items, stage.after.join(" "));
    let all = report.meters.stages.iter();
    all.map(|one| (one.name.as_str(), stage(one).0, stage(one).1)).collect()
}

#[track_caller]
fn assert_bound(report: &RunReport, stage: &str, resource: Resource) {
    let bottleneck = report.verdict.as_ref().and_then(|verdict| verdict.bottleneck.as_ref());
    let used = bottleneck.map(|bottleneck| (bottleneck.used.limit.clone(), bottleneck.used.resource));
    assert_eq!(used, Some((Limit::Stage { stage: stage.to_owned() }, resource)), "{report}");
}

fn with(server: &Server, arguments: &[&str]) -> Command {
    bulk([arguments, &["--endpoint", &server.url(), "--anonymous"]].concat())
}

/// A listing whose pages take long to come is bound by the network, whatever comes behind it.
#[test]
fn a_listing_says_what_bound_it() {
    let (server, folder) = (serve(), tempfile::tempdir().unwrap());
    server.fault(Rule::new(Fault::Latency(Duration::from_millis(20))));
    let all = OBJECTS as u64;
    let report = run(with(&server, &["list", "s3://data", "--listers", "2", "--out", "keys.ndjson"]), folder.path(), 0);
    let expected = [("list", all, ""), ("merge", all, "list"), ("write", all, "merge")];
    let mut found = stages(&report);
    found.sort();
    assert_eq!(found, expected.map(|(name, items, after)| (name, items, after.to_owned())));
    assert_bound(&report, "list", Resource::Network);
    let list = stage(&report, "list");
    assert!(list.total.bytes > all * 100 && !list.total.network.is_zero() && list.workers.len() == 2, "{report}");
    assert_eq!(stage(&report, "merge").workers_of.as_deref(), Some("write"));
    let [file] = &report.files[..] else { panic!("{report}") };
    assert_eq!((file.name.as_str(), file.records), ("keys.ndjson", Some(all)));

    // From a file nothing is put in order, and versions come one page after another.
    let listing = ["list", "s3://data", "--listing", "keys.ndjson", "--out", "again.ndjson"];
    let report = run(with(&server, &listing), folder.path(), 0);
    let found: Vec<_> =
        stages(&report).into_iter().map(|(name, items, after)| format!("{name} {items} {after}")).collect();
    assert_eq!(found, [format!("list {all} "), format!("write {all} list")]);
    assert!(stage(&report, "list").resources.contains(&Resource::Disk));
}

#[test]
fn a_comparison_says_what_bound_it() {
    let (server, folder) = (serve(), tempfile::tempdir().unwrap());
    server.fault(Rule::new(Fault::Latency(Duration::from_millis(20))));
    let all = OBJECTS as u64;
    let known = ["known", "import", "s3://data", "--known", "sqlite:known.db", "none.ndjson"];
    fs::write(folder.path().join("none.ndjson"), "").unwrap();
    let mut command = bulk(known);
    command.current_dir(folder.path());
    Ran::of(command).assert(0, &[]);
    let mut command = with(&server, &["diff", "s3://data", "--known", "sqlite:known.db", "--listers", "2", "-v"]);
    let path = folder.path().join("run.json");
    command.arg("--report").arg(&path).current_dir(folder.path());
    let ran = Ran::of(command);
    ran.assert(0, &["Network-bound in list"]);
    assert_eq!(ran.stdout.lines().count(), OBJECTS);
    let report = RunReport::parse(&fs::read(&path).unwrap()).unwrap();
    let found: Vec<_> =
        stages(&report).into_iter().map(|(name, items, after)| format!("{name} {items} {after}")).collect();
    let mut expected = [
        format!("list {all} "),
        format!("merge {all} list"),
        format!("compare {all} merge"),
        format!("write {all} compare"),
    ];
    let mut found = found;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(stage(&report, "write").total.bytes, ran.stdout.len() as u64);
    assert_eq!(report.files[0].records, Some(all));
}

/// Each object takes the server a tenth of a second, and two come at a time.
#[test]
fn a_sync_says_what_bound_it() {
    let (server, folder) = (serve(), tempfile::tempdir().unwrap());
    server.fault(Rule::new(Fault::Latency(Duration::from_millis(100))).prefix("a/000"));
    server.fault(
        Rule::new(Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None }).key("a/0013"),
    );
    let sync = ["sync", "s3://data", "--out", "out", "--include", "a/00[01]*", "--jobs", "2", "--listers", "1"];
    let report = run(with(&server, &sync), folder.path(), 3);
    let mut found: Vec<_> =
        stages(&report).into_iter().map(|(name, items, after)| format!("{name} {items} {after}")).collect();
    found.sort();
    let all = OBJECTS;
    assert_eq!(
        found,
        [
            format!("compare {all} list"),
            "fetch 19 compare".to_owned(),
            format!("list {all} "),
            "store 19 fetch".to_owned()
        ]
    );
    assert_bound(&report, "fetch", Resource::Network);
    let (fetch, store) = (stage(&report, "fetch"), stage(&report, "store"));
    assert_eq!((fetch.total.bytes, store.total.bytes, fetch.max_workers), (19 * 4, 19 * 4, Some(2)));
    let [file] = &report.files[..] else { panic!("{report}") };
    assert!(
        file.name == "a/0013" && file.error.as_deref().is_some_and(|error| error.contains("AccessDenied")),
        "{report}"
    );
}

/// The stages of an export but for the one of groups whose blocks other threads compress: how many of a machine's threads a group
/// has depends on how many there are.
fn without_compose(report: &RunReport) -> Vec<&str> {
    stages(report).into_iter().map(|(name, ..)| name).filter(|name| *name != "compose").collect()
}

#[test]
fn an_export_says_what_bound_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = server().create_database("stages").unwrap();
    sql(
        &database,
        "CREATE TABLE opinion (id int, court text, text text);
         INSERT INTO opinion SELECT n, 'ca' || n % 3, 'opinion ' || n FROM generate_series(1, 3000) n;
         INSERT INTO opinion VALUES (NULL, 'ca1', 'no id')",
    );
    let spec =
        "out = \"archives\"\n[[type]]\nname = \"opinions\"\ntable = \"opinion\"\nid = \"id\"\ngroup = \"court\"\n";
    fs::write(folder.path().join("export.toml"), spec).unwrap();
    let bucket = Server::builder().bucket("set", Store::memory()).writable(true).start().unwrap();
    let mut command = bulk(["export", "export.toml", "--to", "s3://set/archives", "--anonymous"]);
    command.args(["--endpoint", &bucket.url()]).env("BULK_DB", database.url());
    let report = run(command, folder.path(), 3);
    assert_eq!(without_compose(&report), ["read", "stage", "compress", "publish", "upload"], "{report}");
    let (read, staged, compress) = (stage(&report, "read"), stage(&report, "stage"), stage(&report, "compress"));
    assert_eq!((read.total.items, staged.total.items, compress.total.items), (3_001, 3_001, 3_000));
    assert_eq!((read.workers_of.as_deref(), staged.after.join(" ")), (Some("stage"), "read".to_owned()));
    assert!(!read.total.server.is_zero() && !staged.total.starved.is_zero(), "{report}");
    let made: u64 = report.files.iter().filter_map(|file| file.bytes).sum();
    assert_eq!((compress.total.bytes, report.files.len()), (made, 4));
    let records: Vec<_> = report.files.iter().filter_map(|file| file.records).collect();
    assert_eq!((records, report.files.iter().filter(|file| file.error.is_some()).count()), (vec![1_000; 3], 1));
    assert!(stage(&report, "upload").total.bytes >= made && stage(&report, "upload").total.items >= 3, "{report}");

    // Lines of a compressed file come through the stages of that.
    let line = |id: usize| json!({"type": "t", "group": "g", "id": id.to_string(), "modified": 1, "item": {"n": id}});
    let mut lines: String = (0..2_000).map(|id| format!("{}\n", line(id))).collect();
    lines.push_str("{}\n");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, lines.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    fs::write(folder.path().join("changes.gz"), &gzip).unwrap();
    let report = run(bulk(["export", "--ndjson", "changes.gz", "--out", "lines"]), folder.path(), 3);
    assert_eq!(without_compose(&report), ["read", "inflate", "stage", "compress", "publish"], "{report}");
    // All threads are for the one group.
    let has_compressors = thread::available_parallelism().is_ok_and(|threads| threads.get() > 1);
    assert_eq!(stages(&report).iter().any(|(name, ..)| *name == "compose"), has_compressors, "{report}");
    let (read, inflate) = (stage(&report, "read"), stage(&report, "inflate"));
    assert_eq!((read.total.bytes, inflate.total.bytes), (gzip.len() as u64, lines.len() as u64));
    assert_eq!((read.workers_of.as_deref(), inflate.workers_of.as_deref()), (Some("stage"), Some("stage")));
    assert_eq!(
        (stage(&report, "stage").total.items, stage(&report, "stage").after.join(" ")),
        (2_001, "inflate".into())
    );
    let [reject] = &report.rejects[..] else { panic!("{report}") };
    assert_eq!((reject.file.as_str(), reject.record), ("changes.gz", 2_001));
}
