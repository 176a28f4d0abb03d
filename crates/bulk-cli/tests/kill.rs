//! `kill -9` of a fetch, again and again at random moments: each run goes on behind what is safe on disk.
//!
//! `BULK_KILL_SIZE=2147483648 cargo test -p bulk-cli --test kill -- --nocapture` does it to a larger object and prints
//! what it cost; `BULK_KILL_SEED` repeats the moments of a run.

#![allow(clippy::print_stdout, reason = "the seed repeats a failure, and the figures are what a larger run is for")]

mod support;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bulk_testkit::s3::{Fault, Object, Rule, Server, Store, made_up};
use support::{BUCKET, Ran, asked, assert_apart, bulk, kill_when, noted, total};

const KILLS: u64 = 20;
const JOBS: u64 = 8;
const SEGMENT: u64 = 4 << 20;
/// A record of what is safe is begun when so many bytes have come since the last one.
const RECORD: u64 = 64 << 20;
/// What a kill may cost: what each connection has under way, what came since the last record was begun, and what came
/// until it was written, which took no longer than to bring another one's bytes.
const BOUND: u64 = JOBS * SEGMENT + 2 * RECORD;
/// Bytes a second of all connections together, so that records keep up.
const RATE: u64 = 100_000_000;
/// Which bytes the object has.
const CONTENT: u64 = 7;

#[test]
fn what_is_noted_is_never_fetched_again_however_often_it_is_killed() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let size = number("BULK_KILL_SIZE").unwrap_or(1 << 30);
    let seed = number("BULK_KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("BULK_KILL_SEED={seed} BULK_KILL_SIZE={size}");
    let mut random = fastrand::Rng::with_seed(seed);

    let store = Store::memory().with("big", Object::made_up(size, CONTENT));
    let server = Server::builder().bucket(BUCKET, store).start().unwrap();
    let slow = server.fault(Rule::new(Fault::Bandwidth(RATE / JOBS)).key("big"));
    // So that none of the runs is done before it is killed.
    let endless = server.fault(Rule::new(Fault::StallAfter(0)).key("big").containing(size - 1));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let command = || {
        let mut command = bulk(["fetch", &format!("s3://{BUCKET}"), "--anonymous", "--endpoint", &server.url()]);
        command.args(["--jobs", &JOBS.to_string(), "--segment", &format!("{SEGMENT}B"), "--out"]).arg(&out);
        command
    };
    let sent = || server.requests().iter().map(|request| request.bytes_sent).sum::<u64>();
    let (mut all, mut lost_in_all, mut most) = (0, 0, 0);
    for kill in 1..=KILLS {
        let mut before = noted(&out, "big");
        if size - total(&before) < 2 * RECORD {
            // So near its end there is little left to note.
            std::fs::remove_dir_all(&out).unwrap();
            before.clear();
        }
        let most_left = size - total(&before) - RECORD / 2;
        let moment = random.u64(..most_left.min((size / 10).max(5 * RECORD / 2)));
        server.clear_requests();
        kill_when(command(), || sent() >= moment);
        assert!(!out.join("big").exists(), "half a file has no final name");

        let (asked, sent) = asked(&server, "big", size);
        assert_apart(&asked, &before);
        let after = noted(&out, "big");
        assert_holds(&after, &before);
        if !after.is_empty() {
            assert_true(&out.join(".bulk/big.part"), &after);
        }
        let lost = sent - (total(&after) - total(&before));
        println!("{kill}: {sent} bytes sent, {} noted before, {} after, {lost} lost", total(&before), total(&after));
        assert!(lost <= BOUND, "kill {kill}: {lost} of {sent} bytes are lost");
        (all, lost_in_all, most) = (all + sent, lost_in_all + lost, most.max(lost));
    }
    println!("{all} bytes sent, {lost_in_all} lost by {KILLS} kills, {most} by one at most");

    slow.remove();
    endless.remove();
    let before = noted(&out, "big");
    server.clear_requests();
    let said: &[&str] = if before.is_empty() { &[] } else { &["big: goes on behind its first"] };
    Ran::of(command()).assert(0, said);
    assert_apart(&asked(&server, "big", size).0, &before);
    assert_eq!(std::fs::metadata(out.join("big")).unwrap().len(), size);
    assert_true(&out.join("big"), std::slice::from_ref(&(0..size)));
    Ran::of(bulk(["fetch", "--verify", "--out", out.to_str().unwrap()])).assert(0, &[]);
}

/// Asserts that all stretches of `before` are in those of `after`.
#[track_caller]
fn assert_holds(after: &[Range<u64>], before: &[Range<u64>]) {
    for range in before {
        let is_there = after.iter().any(|after| after.start <= range.start && range.end <= after.end);
        assert!(is_there, "{range:?} was noted, and is not any more: {after:?}");
    }
}

/// Asserts that these stretches of the file are the object's.
#[track_caller]
fn assert_true(path: &Path, stretches: &[Range<u64>]) {
    let file = File::open(path).unwrap();
    let (mut found, mut expected) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for range in stretches {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap().min(found.len());
            file.read_exact_at(&mut found[..len], at).unwrap();
            made_up(CONTENT, at, &mut expected[..len]);
            assert!(found[..len] == expected[..len], "{} differs behind byte {at}", path.display());
            at += len as u64;
        }
    }
}
