//! What ends a load in its middle, at moments that a seed chooses.
#![allow(clippy::print_stdout, reason = "what was done repeats a failure")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use bulk_testkit::postgres::{self, Database, DatabaseUrl, Durability};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::proxy::{Direction, Moment, Proxy};

/// Longer than whatever a disturbed program takes to see that it is.
const LIMIT: Duration = Duration::from_secs(120);

/// What happens to a run of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    /// `kill -9` of the program.
    Kill,
    /// `pg_terminate_backend` of one of its sessions.
    TerminateOne,
    /// The same of all of them.
    TerminateAll,
    /// The immediate shutdown of the server, as by `pg_ctl stop -m immediate`, which sends this signal, and a start.
    Immediate,
    /// `kill -9` of all of the server, and a start.
    PowerLoss,
    /// All connections are cut.
    Cut,
    /// The same, but the server still has its ends when the program runs again.
    CutUnseen,
}

impl Disturbance {
    const ALL: [Self; 7] = [
        Self::Kill,
        Self::TerminateOne,
        Self::TerminateAll,
        Self::Immediate,
        Self::PowerLoss,
        Self::Cut,
        Self::CutUnseen,
    ];
}

/// A server of its own, and a way to it.
pub(crate) struct Campaign {
    pub(crate) server: postgres::Server,
    proxy: Proxy,
    pub(crate) folder: tempfile::TempDir,
}

/// How often which disturbance ended a run, or came too late to.
#[derive(Default)]
pub(crate) struct Disturbed(BTreeMap<Disturbance, u64>);

impl Disturbed {
    pub(crate) fn add(&mut self, more: &Self) {
        for (disturbance, count) in &more.0 {
            *self.0.entry(*disturbance).or_default() += count;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(disturbance, count)| format!("{count} x {disturbance:?}")).collect();
        write!(f, "{} disturbances ({})", self.total(), each.join(", "))
    }
}

/// A program that is run until it has done its work.
pub(crate) struct Work<'a> {
    /// Its command, but for the database.
    pub(crate) command: &'a dyn Fn() -> Command,
    /// Its exit status when all is done.
    pub(crate) done: i32,
    /// Those with which a run may end that is disturbed.
    pub(crate) unfinished: &'a [i32],
    /// Bytes that it sends and gets where nothing disturbs it.
    pub(crate) passes: [u64; 2],
    /// How much of it is done, from 0 to 1; and what must be true after each disturbance.
    pub(crate) look: &'a dyn Fn() -> f64,
}

impl Campaign {
    pub(crate) fn new() -> Self {
        let mut options = postgres::Options::default();
        // What is killed is the server, and not the machine; but what a test commits must be there after that.
        (options.database_url, options.durability) = (DatabaseUrl::Ignore, Durability::Off);
        options.settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
        let server = postgres::Server::start(&options).unwrap();
        let address: SocketAddr = format!("127.0.0.1:{}", port(server.url())).parse().unwrap();
        Self { server, proxy: Proxy::start(address), folder: tempfile::tempdir().unwrap() }
    }

    /// What psql prints, which goes its own way to the server.
    #[track_caller]
    pub(crate) fn sql(&self, database: &Database, sql: &str) -> String {
        self.server.psql(database.url(), sql).unwrap().trim_end_matches('\n').to_owned()
    }

    /// Runs the command to its end with nothing that disturbs it; the bytes that went to the server and back.
    #[track_caller]
    pub(crate) fn undisturbed(&self, database: &Database, command: Command, done: i32) -> [u64; 2] {
        self.proxy.arm(None);
        let mut child = self.spawn(database, command);
        let status = self.end(&mut child);
        assert_eq!(status, Some(done), "{}", self.said());
        self.proxy.passed()
    }

    /// Runs a program again and again, disturbs it `times` times, and lets it end its work. The first disturbance is the
    /// seed's, the others and all moments are random.
    pub(crate) fn disturb(
        &self,
        database: &Database,
        work: &Work<'_>,
        (seed, random): (u64, &mut fastrand::Rng),
        times: u64,
    ) -> Disturbed {
        let mut disturbed = Disturbed::default();
        for time in 0..times {
            let all = Disturbance::ALL;
            let disturbance = if time == 0 { all[(seed % 7) as usize] } else { all[random.usize(..all.len())] };
            let left = 1.0 - (work.look)();
            let direction = [Direction::ToServer, Direction::ToClient][random.usize(..2)];
            // What is said before and after the rows is the same however few are left.
            let bytes = (work.passes[direction as usize] as f64 * left) as u64 + 4000;
            let moment = Moment { direction, bytes: random.u64(..bytes) };
            println!("  {disturbance:?} at {moment:?}");

            self.proxy.arm(Some(moment));
            let mut child = self.spawn(database, (work.command)());
            let is_reached = self.proxy.wait(|| child.try_wait().unwrap().is_some());
            if is_reached {
                self.happen(disturbance, database, &mut child);
                *disturbed.0.entry(disturbance).or_default() += 1;
            }
            self.proxy.release();
            let status = self.end(&mut child);
            self.revive();
            let share = (work.look)();
            let said = || format!("{disturbance:?} ended it with {status:?}: {}", self.said());
            match status {
                Some(status) if status == work.done => {
                    assert!(share >= 1.0, "{}", said());
                    break;
                }
                Some(status) => assert!(is_reached && work.unfinished.contains(&status), "{}", said()),
                None => assert!(is_reached && disturbance == Disturbance::Kill, "{}", said()),
            }
        }
        // Once more, whether or not there is anything left to do.
        self.undisturbed(database, (work.command)(), work.done);
        disturbed
    }

    fn happen(&self, disturbance: Disturbance, database: &Database, child: &mut Child) {
        let terminate = |limit: &str| {
            let sessions =
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bulk'";
            let sql = format!("SELECT count(pg_terminate_backend(pid)) FROM ({sessions} ORDER BY random() {limit}) s");
            self.sql(database, &sql);
        };
        match disturbance {
            Disturbance::Kill => child.kill().unwrap(),
            Disturbance::TerminateOne => terminate("LIMIT 1"),
            Disturbance::TerminateAll => terminate(""),
            Disturbance::Immediate => {
                let postmaster = Pid::from_raw(self.server.pid().unwrap().try_into().unwrap());
                kill(postmaster, Signal::SIGQUIT).unwrap();
                wait_until("the server is down", || self.server.pid().is_none());
            }
            Disturbance::PowerLoss => self.server.kill().unwrap(),
            Disturbance::Cut => self.proxy.cut(false),
            Disturbance::CutUnseen => self.proxy.cut(true),
        }
    }

    fn revive(&self) {
        if self.server.pid().is_none() {
            self.server.restart().unwrap();
        }
    }

    fn spawn(&self, database: &Database, mut command: Command) -> Child {
        let direct = format!(":{}/", port(self.server.url()));
        let url = database.url().replace(&direct, &format!(":{}/", self.proxy.address().port()));
        let log = File::create(self.log()).unwrap();
        command.env("BULK_DB", url).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn end(&self, child: &mut Child) -> Option<i32> {
        wait_until("the program ends", || child.try_wait().unwrap().is_some());
        child.wait().unwrap().code()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the last run of the program said.
    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        // What is waited for is seen when it is there; this only leaves the processor to those that bring it about.
        thread::sleep(Duration::from_millis(2));
    }
}

fn port(url: &str) -> u16 {
    let authority = url.split('/').nth(2).unwrap();
    authority.rsplit_once(':').unwrap().1.parse().unwrap()
}
