//! What people see who look on: the program on a terminal of its own, and what that shows.

mod support;

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use bulk_testkit::snapshot::Spec;
use nix::pty::{Winsize, openpty};
use support::{Bench, Fetch, bulk};

const ROWS: u16 = 24;
const COLUMNS: u16 = 100;
/// Longer than any of this takes.
const LIMIT: Duration = Duration::from_secs(120);

/// The program, whose standard error is a terminal.
struct Shown {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reading: JoinHandle<()>,
}

impl Shown {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(&size, None).unwrap();
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdout(Stdio::null()).stderr(terminal.slave);
        let child = command.spawn().unwrap();
        // With it goes the last handle of ours on the other end, whose end is the end of what can be read.
        drop(command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 1000)));
        let seen = screen.clone();
        let mut terminal = File::from(terminal.master);
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux answers with an error when nobody can write to it any more.
            while let Ok(read @ 1..) = terminal.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { child, screen, reading }
    }

    /// The lines that are not empty.
    fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let lines: Vec<_> = screen.screen().rows(0, COLUMNS).collect();
        lines.into_iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Waits until the last lines are such.
    #[track_caller]
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let lines = self.lines();
            if is_so(&lines) {
                return lines;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{what}: {ended:?}\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end: its status, and what is seen then.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap().code();
        let lines = {
            self.reading.join().unwrap();
            let screen = self.screen.lock().unwrap();
            screen.screen().rows(0, COLUMNS).map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        (status, lines.into_iter().filter(|line| !line.is_empty()).collect())
    }
}

/// Whether a line begins so and holds all of that.
fn holds(line: Option<&String>, begin: &str, texts: &[&str]) -> bool {
    line.is_some_and(|line| line.starts_with(begin) && texts.iter().all(|text| line.contains(text)))
}

#[test]
fn of_a_fetch_a_bar_with_speed_and_time_and_what_the_front_waits_for() {
    const LEN: u64 = 3_000_000;
    let store = Store::memory().with("data/a.csv", Object::made_up(LEN, 1)).with("data/b.csv", Object::made_up(LEN, 2));
    let fetch = Fetch::new(store, &[]);
    // Ten seconds: what binds is told every two of them, and a busy machine is late.
    fetch.server.fault(Rule::new(Fault::Bandwidth(300_000)));
    let mut shown = Shown::start(fetch.command(&["--jobs", "2"]));
    let lines = shown.wait_until("a bar", |lines| {
        let [.., bar, status] = lines else { return false };
        holds(Some(bar), "fetch [=", &["> ", "] ", " MiB of 5.7 MiB, ", "/s, ", " to go"])
            && holds(Some(status), "      2 connections: a.csv ", &["%"])
    });
    // Each in a line of its own, which it does not leave.
    let bars = lines.iter().filter(|line| line.contains("fetch [") || line.contains("connections:")).count();
    assert_eq!(bars, 2, "{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.starts_with("fetch [") && line.chars().count() >= 90));
    // Nothing else takes any time.
    shown.wait_until("what binds", |lines| {
        holds(lines.last(), "      2 connections: ", &["%; bound by fetch (network, "])
    });
    let (status, lines) = shown.end();
    assert_eq!(status, Some(0));
    assert!(!lines.iter().any(|line| line.contains('[') || line.contains("connections:")), "{}", lines.join("\n"));
    let done = lines.iter().position(|line| line == "done; 5.7 MiB fetched");
    let verdict = done.and_then(|done| lines.get(done + 1));
    assert!(holds(verdict, "Network-bound in fetch: ", &[]), "{}", lines.join("\n"));
}

#[test]
fn of_a_mirror_what_is_fetched_and_what_is_loaded() {
    let (bench, made) = Bench::with(&Spec { scale: 0.1, ..Spec::default() });
    bench.bucket.fault(Rule::new(Fault::Bandwidth(500_000)));
    let mut shown = Shown::start(bench.command(&["--jobs", "4"]));
    shown.wait_until("bars", |lines| {
        let [.., fetch, load, status] = lines else { return false };
        holds(Some(fetch), "fetch [=", &[" MiB, ", "/s, ", " to go"])
            // On a busy machine next to nothing is read yet.
            && holds(Some(load), "read  [", &[" rows loaded, ", " of CSV, ", " to go"])
            && holds(Some(status), "      4 connections: ", &[])
    });
    let (status, lines) = shown.end();
    assert_eq!(status, Some(3), "{}", lines.join("\n"));
    assert!(!lines.iter().any(|line| line.contains("[=") || line.contains("connections:")), "{}", lines.join("\n"));
    bench.assert_holds(&made);
}

#[test]
fn of_an_upload_how_far_it_is() {
    let server = Server::builder().bucket("data", Store::memory()).writable(true).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut item = |group: &str, id: u32, len: usize| {
        let text: String = (0..len).map(|_| random.alphanumeric()).collect();
        format!("{{\"type\": \"opinions\", \"group\": \"{group}\", \"id\": {id}, \"item\": \"{text}\"}}\n")
    };
    std::fs::write(folder.path().join("changes.ndjson"), item("ca1", 1, 6000) + &item("ca2", 2, 3000)).unwrap();
    // One by one, the largest first: one archive is there, and the other on its way.
    let held = server.fault(Rule::new(Fault::Hang).key("opinions/ca2.tar.gz"));
    let mut command = bulk(["export", "--ndjson", "changes.ndjson", "--out", "archives", "--to", "s3://data"]);
    command.args(["--endpoint", &server.url(), "--anonymous", "--jobs", "1"]).current_dir(folder.path());
    let mut shown = Shown::start(command);
    shown.wait_until("a bar", |lines| {
        let [.., bar, status] = lines else { return false };
        holds(Some(bar), "upload [=", &["> ", "] ", " KiB of "])
            && holds(Some(status), "      opinions/ca2.tar.gz 0%", &[])
    });
    assert_eq!(held.hits(), 1);
    shown.child.kill().unwrap();
    shown.end();
}
