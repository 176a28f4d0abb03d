//! What `bulk mirror` says that bound it, where something does by far: a network, a disk, a thread that decodes, a server.

mod support;

use std::process::Command;

use bulk_core::{Limit, Resource, RunReport, RunVerdict};
use bulk_testkit::s3::{Fault, Rule};
use bulk_testkit::snapshot::Spec;
#[cfg(target_os = "linux")]
use support::SlowDisk;
use support::{Bench, Ran};

/// The stage that bound the run, and by what.
#[track_caller]
fn bottleneck(verdict: &RunVerdict) -> (String, Resource) {
    match verdict.bottleneck.as_ref().map(|bottleneck| (&bottleneck.used.limit, bottleneck.used.resource)) {
        Some((Limit::Stage { stage }, resource)) => (stage.clone(), resource),
        _ => panic!("{verdict}"),
    }
}

/// The report of a run, whose verdict is the one that was said.
#[track_caller]
fn run(bench: &Bench, mut command: Command) -> RunReport {
    let path = bench.folder.path().join("run.json");
    command.arg("--json").arg("--report").arg(&path);
    let ran = Ran::of(command);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let said: RunVerdict = serde_json::from_value(ran.events_of("verdict").remove(0)).unwrap();
    let report = RunReport::parse(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(Some(&said), report.verdict.as_ref());
    report
}

#[track_caller]
fn assert_bound(report: &RunReport, stage: &str, resource: Resource) {
    assert_eq!(bottleneck(report.verdict.as_ref().unwrap()), (stage.to_owned(), resource), "{report}");
}

/// A processor that this program may use; not every one of the machine has to be.
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    allowed.trim().split(['-', ',']).next().unwrap().to_owned()
}

/// One table of wide text.
fn opinions(scale: f64) -> Spec {
    Spec { scale, tables: vec!["opinions".to_owned()], ..Spec::default() }
}

/// One connection, as it is one segment, brings in eight seconds what takes a tenth of one to load.
#[test]
fn a_slow_network_binds() {
    let (bench, made) = Bench::with(&opinions(0.02));
    bench.bucket.fault(Rule::new(Fault::Bandwidth(made.bytes / 8)).key("bulk-data/opinions-2026-06-30.csv.bz2"));
    let report = run(&bench, bench.command(&["--tables", "opinions", "--jobs", "2"]));
    assert_bound(&report, "fetch", Resource::Network);
}

/// The disk takes four seconds for what takes a tenth of one to fetch and to load, and another one for the schema.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_disk_binds() {
    let (bench, made) = Bench::with(&opinions(0.02));
    let Some(_disk) = SlowDisk::on(&bench.folder.path().join("files"), made.bytes / 4) else { return };
    let report = run(&bench, bench.command(&["--tables", "opinions", "--jobs", "2", "--segment", "64KiB"]));
    assert_bound(&report, "fetch", Resource::Disk);
    let mut bound = report.verdict.iter().flat_map(|verdict| &verdict.phases).filter_map(|phase| phase.used.as_ref());
    let schema = Limit::Stage { stage: "schema".to_owned() };
    assert!(bound.any(|used| (&used.limit, used.resource) == (&schema, Resource::Disk)), "{report}");
}

/// Where there is one processor for it, one thread decodes; of what it gives next to nothing goes to the server.
#[test]
fn one_thread_that_decodes_binds() {
    let (bench, _) = Bench::with(&opinions(0.5));
    let whole = bench.command(&["--tables", "opinions", "--where", "opinions.id=1"]);
    let mut command = Command::new("taskset");
    command.args(["-c", &processor()]).arg(whole.get_program()).args(whole.get_args());
    for (name, value) in whole.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let report = run(&bench, command);
    assert_bound(&report, "decode", Resource::Cpu);
    let decode = report.meters.stages.iter().find(|stage| stage.name == "decode").unwrap();
    assert_eq!((report.meters.cores, decode.workers.len()), (Some(1.0), 1));
}

/// Each row takes the server ten milliseconds and more, a hundred times what all else takes.
#[test]
fn a_slow_server_binds() {
    let (bench, made) = Bench::with(&opinions(0.1));
    bench.mirror(&["--tables", "opinions", "--where", "opinions.id=1"]).assert(0, &[]);
    bench.sql(
        "CREATE FUNCTION slow(integer) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.01); RETURN true; END';
         ALTER TABLE search_opinion ADD CONSTRAINT slow CHECK (slow(id)) NOT VALID",
    );
    let report = run(&bench, bench.command(&["--tables", "opinions", "--restart"]));
    assert_bound(&report, "copy", Resource::Server);
    assert_eq!(report.files[0].records, Some(made.rows));
    // It is seen from the server's side, too.
    let copy = report.meters.stages.iter().find(|stage| stage.name == "copy").unwrap();
    let most = copy.server_events.iter().max_by_key(|(_, times)| **times).map(|(event, _)| event.as_str());
    assert_eq!(most, Some("Timeout/PgSleep"), "{report}");
}
