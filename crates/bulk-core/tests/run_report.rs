//! Reports of runs: as JSON, as text, beside each other, and as a page.

use std::time::Duration;

use bulk_core::{
    Error, Evidence, FileReport, Goal, GoalProgress, Limit, MeterReading, Outlook, RejectReport, Resource, RunReport,
    RunVerdict, Sample, StageCounts, StageReading, StageSample, Timeline,
};
use bulk_testkit::browser;
use serde_json::{Value, json};

/// A load of forty seconds: for thirty of them two decoders were busy, then COPY was. `speed` is how fast decoding is.
fn reading(speed: u32) -> MeterReading {
    let mut stages = ["fetch", "decode", "copy"].map(StageReading::new);
    stages[0].resources = vec![Resource::Network];
    stages[1].resources = vec![Resource::Cpu];
    stages[2].resources = vec![Resource::Server];
    (stages[1].after, stages[2].after) = (vec!["fetch".to_owned()], vec!["decode".to_owned()]);
    let mut workers =
        [vec![StageCounts::default(); 4], vec![StageCounts::default(); 2], vec![StageCounts::default(); 1]];
    let mut timeline = Timeline::new(Timeline::SAMPLES);
    let decoding = 30 / speed;
    for second in 0..decoding + 10 {
        let mut sample = Sample::new(Duration::from_secs(second.into()), Duration::from_secs((second + 1).into()));
        let millis = |millis: u64| Duration::from_millis(millis);
        let is_decoding = second < decoding;
        let (mut fetch, mut decode, mut copy) = <(StageCounts, StageCounts, StageCounts)>::default();
        (fetch.network, fetch.blocked, fetch.on_cpu) = (millis(180), millis(800), millis(20));
        (decode.on_cpu, decode.run_queue, decode.blocked) =
            if is_decoding { (millis(960), millis(40), millis(0)) } else { (millis(200), millis(0), millis(800)) };
        (copy.server, copy.on_cpu, copy.starved) =
            if is_decoding { (millis(300), millis(50), millis(650)) } else { (millis(900), millis(100), millis(0)) };
        (fetch.items, fetch.bytes) = (1, 250_000);
        (decode.items, decode.bytes) = (4, 2_000_000 * u64::from(speed));
        (copy.items, copy.bytes) = (5, 4_000_000 * u64::from(speed));
        for (of_stage, counts) in workers.iter_mut().zip([fetch, decode, copy]) {
            let mut in_sample = StageSample::new(of_stage.len() as u32);
            for worker in of_stage {
                worker.add(&counts);
                in_sample.counts.add(&counts);
            }
            sample.stages.push(in_sample);
        }
        timeline.push(sample);
    }
    for (stage, workers) in stages.iter_mut().zip(workers) {
        workers.iter().for_each(|worker| stage.total.add(worker));
        stage.workers = workers;
    }
    stages[2].server_events = [("CPU".to_owned(), 30), ("IO/WALSync".to_owned(), 10)].into();
    let mut reading = MeterReading::new(stages.into(), timeline);
    reading.cores = Some(4.0);
    reading
}

fn report() -> RunReport {
    let reading = reading(1);
    let mut report = RunReport::new("mirror", &reading);
    report.version = "0.1.0".to_owned();
    report.started = "2026-03-04T05:06:07.89Z".parse().unwrap();
    let goal = Goal::Rate(5_000_000.0);
    let verdict = RunVerdict::of(&reading);
    report.projection = verdict.project(&reading, goal, &GoalProgress::bytes("copy", Some(200_000_000)));
    let mut file = FileReport::default();
    (file.name, file.table) = ("courts-2026-03-01.csv.bz2".to_owned(), Some("search_court".to_owned()));
    (file.bytes, file.records, file.rejected, file.seconds) = (Some(40_000_000), Some(3353), 2, Some(39.5));
    report.add_file(file);
    let mut file = FileReport::default();
    (file.name, file.error) = ("<script>alert(1)</script>\u{1b}[31m".to_owned(), Some("it does not exist".to_owned()));
    report.add_file(file);
    let mut reject = RejectReport::default();
    (reject.file, reject.record, reject.byte) = ("courts-2026-03-01.csv.bz2".to_owned(), 17, Some(4711));
    (reject.column, reject.reason) = (Some("position".to_owned()), "\"x\" & 'y' is no <number>".to_owned());
    report.add_reject(reject);
    report
}

#[test]
fn json_has_all_of_it() {
    let report = report();
    let json = serde_json::to_vec(&report).unwrap();
    assert!(RunReport::parse(&json).unwrap() == report);

    let value: Value = serde_json::from_slice(&json).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["bulk", "command", "events", "events_left_out", "exit", "files", "meters", "projection", "rejects"];
    assert_eq!(keys, [&expected[..], &["schema", "seconds", "started", "verdict"]].concat());
    assert_eq!(
        (&value["schema"], &value["seconds"], &value["started"]),
        (&json!(1), &json!(40.0), &json!("2026-03-04T05:06:07.89Z"))
    );
    let bottleneck = &value["verdict"]["bottleneck"];
    assert_eq!(
        (&bottleneck["limit"], &bottleneck["stage"], &bottleneck["resource"]),
        (&json!("stage"), &json!("decode"), &json!("cpu"))
    );
    assert_eq!((&bottleneck["share"], &bottleneck["evidence"]), (&json!(0.75), &json!("confirmed")));
    assert_eq!(value["verdict"]["phases"][1]["start"], json!(30.0));
    assert_eq!(
        value["meters"]["timeline"][0]["stages"][1],
        json!({"workers": 2, "items": 8, "bytes": 4_000_000, "on_cpu": 1.92, "run_queue": 0.08})
    );
    assert_eq!(value["files"][1], json!({"name": "<script>alert(1)</script>\u{1b}[31m", "error": "it does not exist"}));
}

/// Files of the earliest versions had them, too.
#[test]
fn the_keys_of_every_report_are_there_where_nothing_happened() {
    let value = serde_json::to_value(RunReport::unmetered("load")).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["bulk", "command", "events", "events_left_out", "exit", "schema", "seconds", "started"]);
    assert_eq!((&value["events"], &value["events_left_out"]), (&json!([]), &json!(0)));
}

#[test]
fn earlier_reports_are_read_and_later_ones_refused() {
    let early = json!({
        "bulk": "0.0.9", "command": "fetch", "started": "2026-01-01T00:00:00Z", "seconds": 1.5, "exit": 3,
        "events": [{"event": "note"}], "events_left_out": 2, "something": "else",
    });
    let report = RunReport::parse(early.to_string().as_bytes()).unwrap();
    assert_eq!((report.schema, report.exit, report.elapsed), (0, 3, Duration::from_millis(1500)));
    assert_eq!((report.verdict.is_none(), report.events.len(), report.events_left_out), (true, 1, 2));
    assert_eq!(report.to_string(), "bulk fetch (0.0.9), begun 2026-01-01T00:00:00Z, took 1.5 s, exit status 3");
    assert!(report.to_html().contains("Nothing was metered."));

    // Whatever else it has.
    let mut later = early.clone();
    (later["schema"], later["started"], later["meters"]) = (json!(2), json!(0), json!("elsewhere"));
    let error = RunReport::parse(later.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, Error::Report { .. }));
    let said = "it is not a run's report: its schema is 2, and 1 is the latest that is known here";
    assert_eq!(error.to_string(), said);
    for bad in ["", "[]", "{}", r#"{"bulk": 1}"#, "\u{0}"] {
        assert!(matches!(RunReport::parse(bad.as_bytes()), Err(Error::Report { .. })), "{bad:?}");
    }
    for seconds in [json!(-1), json!(1e300), json!("1")] {
        let mut bad = early.clone();
        bad["seconds"] = seconds;
        assert!(RunReport::parse(bad.to_string().as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn words_of_a_later_version_are_read() {
    let mut later: Value = serde_json::to_value(report()).unwrap();
    let bottleneck = &mut later["verdict"]["bottleneck"];
    (bottleneck["limit"], bottleneck["memory"]) = (json!("memory"), json!("4 GiB"));
    (bottleneck["resource"], bottleneck["evidence"]) = (json!("memory"), json!("hinted"));
    later["projection"]["outlook"] = json!("perhaps");
    later["meters"]["stages"][0]["resources"] = json!(["quantum", "network"]);
    let report = RunReport::parse(later.to_string().as_bytes()).unwrap();
    let bottleneck = report.verdict.as_ref().unwrap().bottleneck.as_ref().unwrap();
    assert_eq!((&bottleneck.used.limit, bottleneck.used.resource), (&Limit::Other, Resource::Unknown));
    assert_eq!((bottleneck.evidence, bottleneck.share), (Evidence::Alone, 0.75));
    assert_eq!(report.projection.as_ref().unwrap().outlook, Outlook::Open);
    assert_eq!(report.meters.stages[0].resources, [Resource::Unknown, Resource::Network]);
    assert!(report.to_string().contains("Bound by another limit: used 100% in 75% of the run"), "{report}");
    // The rest of a report is of use without what it makes of it.
    (later["verdict"]["bottleneck"], later["projection"]["goal"]) = (json!(3), json!({"cost": 7}));
    let report = RunReport::parse(later.to_string().as_bytes()).unwrap();
    assert_eq!((report.verdict, report.projection, report.meters.stages.len()), (None, None, 3));
}

#[test]
fn text_says_it_all() {
    let expected = "\
bulk mirror (0.1.0), begun 2026-03-04T05:06:07Z, took 40 s, exit status 0

CPU-bound in decode: busy 100% of 2 workers in 75% of the run; the processors 51%, copy 35%, fetch 20%. Its neighbours wait for it.
With twice the speed of decode the run would take 0.61 to 0.62 of its time, and decode would still bind. From 2.9 times on copy binds, at 0.51 of the time.
The bottleneck moved: 0.0 s to 30 s decode (CPU, 100%); 30 s to 40 s copy (server, 100%).
Too slow: 3.8 MiB/s of the 4.8 MiB/s that are needed, 10 s left. It would make it with 1.2 times the speed of copy.

stage   workers  on CPU  run queue  off CPU  network  disk  server  limits  starved  blocked  items      bytes    bytes/s
fetch         4      2%          -        -      18%     -       -       -        -      80%    160   38.1 MiB  976.6 KiB
decode        2     77%         3%        -        -     -       -       -        -      20%    320  152.6 MiB    3.8 MiB
copy          1      6%          -        -        -     -     45%       -      49%        -    200  152.6 MiB    3.8 MiB

stage   busy, over 40 s
fetch   ▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂
decode  ██████████████████████████████▂▂▂▂▂▂▂▂▂▂
copy    ▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃██████████

file                            table            bytes  records  rejected  time
courts-2026-03-01.csv.bz2       search_court  38.1 MiB     3353         2  39 s
<script>alert(1)</script>\u{fffd}[31m  -                    -        -         0     -  it does not exist

file                       record  byte  column    reason
courts-2026-03-01.csv.bz2      17  4711  position  \"x\" & 'y' is no <number>";
    assert_eq!(report().to_string(), expected);
}

#[test]
fn lists_are_bounded() {
    let mut report = report();
    (0..10_010).for_each(|_| report.add_file(FileReport::default()));
    (0..1_005).for_each(|_| report.add_reject(RejectReport::default()));
    assert_eq!((report.files.len(), report.files_left_out), (10_000, 12));
    assert_eq!((report.rejects.len(), report.rejects_left_out), (1_000, 6));
    let text = report.to_string();
    assert!(text.contains("\nand 9992 more files\n") && text.ends_with("\nand 986 more rejects"), "{text}");
}

#[test]
fn reasons_and_names_are_bounded() {
    let mut report = report();
    let long = "\u{e9}".repeat(70_000);
    report.files_left_out = u64::MAX;
    report.rejects_left_out = u64::MAX;
    let mut file = FileReport::default();
    (file.name, file.error) = (long.clone(), Some(long.clone()));
    let mut reject = RejectReport::default();
    (reject.column, reject.reason) = (Some(long.clone()), format!("x{long}"));
    (0..10_000).for_each(|_| report.add_file(file.clone()));
    (0..1_000).for_each(|_| report.add_reject(reject.clone()));
    assert_eq!((report.files_left_out, report.rejects_left_out), (u64::MAX, u64::MAX));
    assert_eq!(report.files[2].error, Some(format!("{}\u{2026}", "\u{e9}".repeat(500))));
    // Not within a character.
    assert_eq!(report.rejects[1].reason, format!("x{}\u{2026}", "\u{e9}".repeat(499)));
    // What is read from elsewhere need not have come that way.
    report.rejects[1].reason.clone_from(&long);
    report.meters.stages[0].name.clone_from(&long);
    let text = report.to_string();
    let cut = format!("{}\u{2026}", "\u{e9}".repeat(119));
    assert!(text.contains(&format!("\n{cut}  ")) && text.lines().all(|line| line.chars().count() < 500), "{text}");
    assert!(text.ends_with(&format!("\nand {} more rejects", u64::MAX)), "{text}");
}

#[test]
fn two_runs_beside_each_other() {
    let (before, reading) = (report(), reading(2));
    let mut after = RunReport::new("mirror", &reading);
    after.meters.stages.push(StageReading::new("index"));
    after.meters.stages.remove(0);
    let comparison = before.compare(&after);
    assert_eq!(comparison.seconds, (40.0, 25.0));
    let names: Vec<_> = comparison.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["fetch", "decode", "copy", "index"]);
    assert_eq!((comparison.stages[0].after, comparison.stages[3].before), (None, None));
    let expected = "\
bulk mirror took 40 s, and bulk mirror took 25 s: 0.62 of its time.
The first was bound by decode (CPU, 100%), the second by decode (CPU, 100%).

stage   workers    busy         busy seconds  on CPU seconds  cost of the same work
fetch   4 -> none  20% -> none  32.0 -> none  3.2 -> none                         -
decode  2 -> 2     80% -> 68%   64.0 -> 34.0  61.6 -> 32.8                     0.42
copy    1 -> 1     51% -> 61%   20.5 -> 15.2  2.5 -> 1.8                       0.60
index   none -> 0  none -> 0%   none -> 0.0   none -> 0.0                         -";
    assert_eq!(comparison.to_string(), expected);
}

#[test]
fn the_page_is_whole_and_names_are_text() {
    let page = report().to_html();
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
    assert!(page.trim_end().ends_with("</html>"));
    for absent in ["<script", "http://", "https://", "url(", "@import", "src="] {
        // But for the names of SVG's own language.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(absent), "{absent}");
    }
    for part in [
        "CPU-bound in decode: busy 100% of 2 workers in 75% of the run",
        "&#60;script&#62;alert(1)&#60;/script&#62;",
        "&#34;x&#34; &#38; &#39;y&#39; is no &#60;number&#62;",
        "2 workers, 320 items, 152.6 MiB, 3.8 MiB/s; on a CPU 77%; in line for a CPU 3%; blocked 20%",
        "From fetch to decode: full 80%, empty 0%",
        "From decode to copy: full 20%, empty 49%",
        "copy, 3.8 MiB/s on the average",
        "30 s to 40 s copy (server, 100%)",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // One of a stage's states, and one of throughput, for each width.
    assert_eq!(page.matches("<svg aria-hidden=\"true\"").count(), 8);
    assert!(page.len() < 200_000, "{}", page.len());
}

#[test]
fn a_page_of_a_run_of_a_moment() {
    let mut report = RunReport::new("load", &MeterReading::new(Vec::new(), Timeline::new(2)));
    assert!(report.to_html().contains("Nothing was metered."));
    report.meters.stages.push(StageReading::new("a"));
    for _ in 0..2 {
        report.meters.timeline.push(Sample::new(Duration::ZERO, Duration::ZERO));
    }
    assert!(!report.to_html().contains("<svg"));
    assert!(report.to_string().contains("stage  busy, over 0.0 s\na"), "{report}");
}

#[test]
fn a_browser_shows_the_page_without_a_complaint() {
    let Some(browser) = browser::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = report().to_html();
    for (width, is_dark) in [(360, false), (360, true), (1200, false), (1200, true)] {
        let found = browser::measure(&browser, folder.path(), &page, width, is_dark);
        assert_eq!((&found["width"], &found["dark"]), (&json!(width), &json!(is_dark)), "{found}");
        // Nothing sticks out on a phone.
        assert_eq!(found["scroll"], found["width"], "{found}");
        // A chart for each stage and one of throughput, whichever width is shown, in the page's colours.
        assert_eq!((&found["charts"], &found["unpainted"]), (&json!(4), &json!(0)), "{found}");
        assert!(found["painted"].as_u64().unwrap() >= 12, "{found}");
        // WCAG 2.2, 1.4.3: text has a contrast of 4.5 at least.
        assert!(found["contrast"].as_f64().unwrap() >= 4.5 && found["texts"].as_u64().unwrap() > 50, "{found}");
        assert!(found["small"].as_f64().unwrap() >= 9.0, "{found}");
        assert_eq!(found["unlabelled"], json!(0), "{found}");
        let headings = json!([
            "bulk mirror",
            "What bound it",
            "The flow, and where the workers\u{2019} time went",
            "Over time",
            "Files",
            "Records that were left out"
        ]);
        assert_eq!(found["headings"], headings);
    }
    // One who wants to look at it says where to.
    let keep = std::env::var_os("BULK_TEST_PICTURES").map(std::path::PathBuf::from);
    for (name, size, is_dark) in
        [("wide-light", (1200, 2000), false), ("wide-dark", (1200, 2000), true), ("phone-dark", (500, 3000), true)]
    {
        let picture = browser::picture(&browser, folder.path(), &page, size, is_dark);
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{name}: {}", picture.len());
        if let Some(keep) = &keep {
            std::fs::write(keep.join(format!("{name}.png")), picture).unwrap();
        }
    }
}
