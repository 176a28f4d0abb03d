//! The disk budget against a file system that is really small, and against a model.
#![cfg(target_os = "linux")]

#[path = "support/disk.rs"]
mod disk;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bulk_core::{DiskBudget, Reservation};
use disk::Blocks;
use futures::{FutureExt, poll};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const DISK: u64 = 64 * MIB;

fn limited(limit: u64) -> DiskBudget {
    let budget = DiskBudget::new(std::env::temp_dir());
    budget.set_limit(Some(limit));
    budget
}

#[test]
fn the_free_space_counts_less_what_is_promised() {
    let Some(disk) = disk::small("the_free_space_counts_less_what_is_promised", DISK) else { return };
    // Neither folder exists.
    let budget = DiskBudget::new(disk.join("out/parts"));
    budget.set_reserve(10 * MIB);
    assert_eq!(budget.can_ever_fit(54 * MIB), Ok(()));
    let never = budget.can_ever_fit(54 * MIB + 1).unwrap_err();
    assert_eq!((never.is_lasting, never.available, never.total), (true, 54 * MIB, Some(DISK)));

    let mut part = budget.try_reserve(40 * MIB).unwrap();
    let shortage = budget.try_reserve(15 * MIB).unwrap_err();
    assert_eq!((shortage.needed, shortage.available, shortage.free), (15 * MIB, 14 * MIB, Some(DISK)));
    let said =
        "15.0 MiB are needed, 14.0 MiB of the disk may be used (64.0 MiB free, 10.0 MiB in reserve, 40.0 MiB promised)";
    assert_eq!(shortage.to_string(), said);

    // What is written moves from promised to used.
    let file = Blocks::new(&disk.join("part"));
    file.resize(30 * MIB);
    part.wrote(30 * MIB);
    assert_eq!(budget.shortage(14 * MIB), None);
    let shortage = budget.shortage(14 * MIB + 1).unwrap();
    assert_eq!((shortage.free, shortage.held, shortage.unwritten), (Some(34 * MIB), 40 * MIB, 10 * MIB));

    file.punch(0, 20 * MIB);
    part.shrink(20 * MIB);
    assert_eq!((part.bytes(), part.written(), file.allocated()), (20 * MIB, 10 * MIB, 10 * MIB));
    part.grow(34 * MIB).unwrap();
    assert_eq!(part.grow(1).unwrap_err().available, 0);
    assert_eq!(part.bytes(), 54 * MIB);
    part.shrink_to_written();
    assert_eq!((budget.held(), budget.unwritten()), (10 * MIB, 0));
}

#[test]
fn what_is_on_disk_already_needs_no_free_space() {
    let Some(disk) = disk::small("what_is_on_disk_already_needs_no_free_space", DISK) else { return };
    let budget = DiskBudget::new(&disk);
    budget.set_limit(Some(60 * MIB));
    let file = Blocks::new(&disk.join("part"));
    file.resize(50 * MIB);
    let adopted = budget.adopt(50 * MIB).unwrap();
    assert_eq!(
        (adopted.bytes(), adopted.written(), budget.held(), budget.unwritten()),
        (50 * MIB, 50 * MIB, 50 * MIB, 0)
    );
    assert_eq!(budget.adopt(11 * MIB).unwrap_err().available, 10 * MIB);
    assert_eq!(budget.try_reserve(10 * MIB).unwrap().bytes(), 10 * MIB);
}

#[test]
fn what_others_write_is_noticed() {
    let Some(disk) = disk::small("what_others_write_is_noticed", DISK) else { return };
    let budget = DiskBudget::new(&disk);
    let other = Blocks::new(&disk.join("other"));
    other.resize(20 * MIB);
    let shortage = budget.try_reserve(48 * MIB).unwrap_err();
    assert_eq!((shortage.available, shortage.free), (44 * MIB, Some(44 * MIB)));
    std::fs::remove_file(disk.join("other")).unwrap();
    assert_eq!(budget.try_reserve(48 * MIB).unwrap_err().free, Some(44 * MIB), "it is still open");
    drop(other);
    assert_eq!(budget.try_reserve(48 * MIB).unwrap().bytes(), 48 * MIB);
}

#[tokio::test]
async fn claims_wait_for_what_others_free() {
    let Some(disk) = disk::small("claims_wait_for_what_others_free", DISK) else { return };
    let budget = DiskBudget::new(&disk);
    budget.set_reserve(8 * MIB);
    let other = Blocks::new(&disk.join("other"));
    other.resize(40 * MIB);
    let (mut claim, stop) = (Box::pin(budget.reserve(24 * MIB)), CancellationToken::new());
    assert!(poll!(&mut claim).is_pending());
    assert_eq!(budget.is_claimed(), Some(24 * MIB));
    assert_eq!(budget.shortage(24 * MIB).unwrap().available, 16 * MIB);
    assert_eq!(budget.try_reserve(1).unwrap_err().available, 0);
    other.resize(0);
    assert_eq!(claim.await.bytes(), 24 * MIB);

    other.resize(40 * MIB);
    let thread = std::thread::spawn({
        let (budget, stop) = (budget.clone(), stop.clone());
        move || budget.reserve_blocking(24 * MIB, &stop).unwrap().bytes()
    });
    while budget.is_claimed().is_none() {
        std::thread::yield_now();
    }
    other.resize(0);
    assert_eq!(thread.join().unwrap(), 24 * MIB);
    assert_eq!((budget.held(), budget.is_claimed()), (0, None));
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64),
    Adopt(u64),
    Grow(usize, u64),
    Write(usize, u64),
    Punch(usize, u64),
    ShrinkToWritten(usize),
    Split(usize, u64),
    Merge(usize, usize),
    Drop(usize),
    /// The size of another process's file.
    Other(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // In MiB.
    let size = || 0..40u64;
    let part = || any::<usize>();
    prop_oneof![
        4 => size().prop_map(Step::Reserve),
        1 => size().prop_map(Step::Adopt),
        2 => (part(), size()).prop_map(|(part, size)| Step::Grow(part, size)),
        4 => (part(), size()).prop_map(|(part, size)| Step::Write(part, size)),
        2 => (part(), size()).prop_map(|(part, size)| Step::Punch(part, size)),
        1 => part().prop_map(Step::ShrinkToWritten),
        2 => (part(), size()).prop_map(|(part, size)| Step::Split(part, size)),
        1 => (part(), part()).prop_map(|(into, from)| Step::Merge(into, from)),
        1 => part().prop_map(Step::Drop),
        2 => size().prop_map(Step::Other),
    ]
}

/// A reservation beside what it should be.
struct Part {
    reservation: Reservation,
    bytes: u64,
    written: u64,
}

#[test]
fn random_use_agrees_with_the_file_system() {
    let Some(disk) = disk::small("random_use_agrees_with_the_file_system", DISK) else { return };
    let plans = (prop::option::of(0..80u64), 0..20u64, prop::collection::vec(step(), 1..60));
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&plans, |(limit, reserve, steps)| {
        let (limit, reserve) = (limit.map(|limit| limit * MIB), reserve * MIB);
        let budget = DiskBudget::new(&disk);
        budget.set_limit(limit);
        budget.set_reserve(reserve);
        // All that is written of all parts, in one file.
        let (ours, other) = (Blocks::new(&disk.join("ours")), Blocks::new(&disk.join("other")));
        let mut others = 0;
        let mut parts: Vec<Part> = Vec::new();
        let sum = |parts: &[Part], of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>();
        for step in steps {
            let (held, written) = (sum(&parts, |part| part.bytes), sum(&parts, |part| part.written));
            let free = DISK - others - written;
            let within = limit.unwrap_or(u64::MAX) - held;
            let room = within.min(free.saturating_sub(reserve).saturating_sub(held - written));
            let index = |part: usize| part.checked_rem(parts.len());
            match step {
                Step::Reserve(size) => match budget.try_reserve(size * MIB) {
                    Ok(reservation) => {
                        prop_assert!(size * MIB <= room);
                        parts.push(Part { reservation, bytes: size * MIB, written: 0 });
                    }
                    Err(shortage) => {
                        prop_assert!(size * MIB > room);
                        prop_assert_eq!((shortage.available, shortage.free), (room, Some(free)));
                        prop_assert_eq!((shortage.held, shortage.unwritten), (held, held - written));
                    }
                },
                Step::Adopt(size) => {
                    let bytes = (size * MIB).min(free);
                    match budget.adopt(bytes) {
                        Ok(reservation) => parts.push(Part { reservation, bytes, written: bytes }),
                        Err(shortage) => prop_assert!(bytes > within && shortage.available == within),
                    }
                }
                Step::Grow(part, size) => {
                    if let Some(part) = index(part) {
                        let part = &mut parts[part];
                        let granted = part.reservation.grow(size * MIB).is_ok();
                        prop_assert_eq!(granted, size * MIB <= room);
                        part.bytes += if granted { size * MIB } else { 0 };
                    }
                }
                Step::Write(part, size) => {
                    if let Some(part) = index(part) {
                        let part = &mut parts[part];
                        let bytes = (size * MIB).min(free).min(part.bytes - part.written);
                        ours.resize(written + bytes);
                        part.reservation.wrote(bytes);
                        part.written += bytes;
                    }
                }
                Step::Punch(part, size) => {
                    if let Some(part) = index(part) {
                        let part = &mut parts[part];
                        let bytes = (size * MIB).min(part.bytes);
                        let gone = bytes.min(part.written);
                        ours.resize(written - gone);
                        part.reservation.shrink(size * MIB);
                        part.written -= gone;
                        part.bytes -= bytes;
                    }
                }
                Step::ShrinkToWritten(part) => {
                    if let Some(part) = index(part) {
                        parts[part].reservation.shrink_to_written();
                        parts[part].bytes = parts[part].written;
                    }
                }
                Step::Split(part, size) => {
                    if let Some(part) = index(part) {
                        let part = &mut parts[part];
                        let reservation = part.reservation.split(size * MIB);
                        let bytes = (size * MIB).min(part.bytes);
                        let unwritten = bytes.min(part.bytes - part.written);
                        part.bytes -= bytes;
                        part.written -= bytes - unwritten;
                        parts.push(Part { reservation, bytes, written: bytes - unwritten });
                    }
                }
                Step::Merge(into, from) => {
                    if let (Some(into), Some(from)) = (index(into), index(from))
                        && into != from
                    {
                        let from_index = from;
                        let from = parts.remove(from_index);
                        let into = &mut parts[if into > from_index { into - 1 } else { into }];
                        into.reservation.merge(from.reservation);
                        into.bytes += from.bytes;
                        into.written += from.written;
                    }
                }
                Step::Drop(part) => {
                    if let Some(part) = index(part) {
                        let part = parts.swap_remove(part);
                        ours.resize(written - part.written);
                    }
                }
                Step::Other(size) => {
                    others = (size * MIB).min(DISK - written);
                    other.resize(others);
                }
            }
            let (held, written) = (sum(&parts, |part| part.bytes), sum(&parts, |part| part.written));
            ours.resize(written);
            prop_assert_eq!((budget.held(), budget.unwritten()), (held, held - written));
            prop_assert!(held <= limit.unwrap_or(u64::MAX));
            prop_assert!(ours.allocated() <= held);
            for part in &parts {
                prop_assert_eq!((part.reservation.bytes(), part.reservation.written()), (part.bytes, part.written));
            }
        }
        drop(parts);
        prop_assert_eq!((budget.held(), budget.unwritten(), budget.is_claimed()), (0, 0, None));
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn claims_are_granted_in_the_order_of_asking_and_before_all_others() {
    let budget = limited(100);
    let mut held = budget.try_reserve(90).unwrap();
    let (mut large, mut small) = (Box::pin(budget.reserve(60)), Box::pin(budget.reserve(5)));
    assert!(poll!(&mut large).is_pending());
    // There is room for it, but it came later.
    assert!(poll!(&mut small).is_pending());
    assert_eq!(budget.is_claimed(), Some(65));
    assert!(budget.try_reserve(0).is_ok());
    let shortage = budget.try_reserve(1).unwrap_err();
    assert_eq!((shortage.available, shortage.claimed), (0, 65));
    assert!(held.grow(1).is_err() && budget.adopt(1).is_err());
    assert_eq!(shortage.to_string(), "1 B are needed, 0 B of the limit are left (100 B in all, 155 B taken)");

    held.shrink(60);
    assert!(poll!(&mut small).is_pending());
    let large = large.now_or_never().unwrap();
    let small = small.now_or_never().unwrap();
    assert_eq!((large.bytes(), small.bytes(), budget.held(), budget.is_claimed()), (60, 5, 95, None));
    assert_eq!(budget.try_reserve(6).unwrap_err().available, 5);
    assert_eq!(budget.try_reserve(5).unwrap().bytes(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_claim_is_withdrawn() {
    let budget = limited(100);
    let held = budget.try_reserve(50).unwrap();
    let (mut first, mut second) = (Box::pin(budget.reserve(80)), Box::pin(budget.reserve(50)));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    let changed = budget.changed();
    drop(first);
    assert_eq!(changed.now_or_never(), Some(()));
    assert_eq!(second.now_or_never().unwrap().bytes(), 50);

    // Granted, but never polled again: nothing is held for it.
    let mut third = Box::pin(budget.reserve(80));
    assert!(poll!(&mut third).is_pending());
    drop(held);
    drop(third);
    assert_eq!((budget.held(), budget.is_claimed()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_lets_claims_go() {
    let budget = limited(10);
    let mut claim = Box::pin(budget.reserve(11));
    assert!(poll!(&mut claim).is_pending());
    assert!(budget.can_ever_fit(11).unwrap_err().to_string().starts_with("11 B are needed, the limit is 10 B"));
    budget.set_limit(Some(11));
    assert_eq!(claim.now_or_never().unwrap().bytes(), 11);
}

#[test]
fn a_change_is_seen_from_the_call_on() {
    let budget = limited(10);
    let held = budget.try_reserve(10).unwrap();
    let before = budget.changed();
    assert_eq!(budget.try_reserve(1).unwrap_err().held, 10);
    drop(held);
    let after = budget.changed();
    assert_eq!((before.now_or_never(), after.now_or_never()), (Some(()), None));
}

#[test]
#[should_panic(expected = "two budgets")]
fn reservations_of_two_budgets_do_not_merge() {
    limited(1).try_reserve(1).unwrap().merge(limited(1).try_reserve(1).unwrap());
}

#[test]
fn a_thread_waits_until_it_is_granted_or_stopped() {
    let budget = limited(100);
    let held = budget.try_reserve(100).unwrap();
    for stopped in [true, false] {
        let stop = CancellationToken::new();
        let thread = std::thread::spawn({
            let (budget, stop) = (budget.clone(), stop.clone());
            move || budget.reserve_blocking(70, &stop)
        });
        while budget.is_claimed().is_none() {
            std::thread::yield_now();
        }
        if stopped {
            stop.cancel();
            assert!(thread.join().unwrap().is_none());
            assert_eq!((budget.is_claimed(), budget.held()), (None, 100));
        } else {
            assert_eq!(held.bytes(), 100);
            budget.set_limit(Some(170));
            assert_eq!(thread.join().unwrap().unwrap().bytes(), 70);
        }
    }
    assert!(budget.reserve_blocking(1, &CancellationToken::new()).is_some());
}

/// Whether a future was told to be polled again.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Claim<'a> {
    future: Pin<Box<dyn Future<Output = Reservation> + 'a>>,
    flag: Arc<Flag>,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Move {
    Reserve(u64),
    Claim(u64),
    Withdraw(usize),
    Release(usize),
}

/// Claims are polled only when they were woken, and time stands still: each lost wake-up shows.
#[test]
fn random_claims_agree_with_a_queue() {
    const LIMIT: u64 = 20;
    let step = prop_oneof![
        3 => (0..=LIMIT).prop_map(Move::Reserve),
        3 => (0..=LIMIT + 1).prop_map(Move::Claim),
        1 => any::<usize>().prop_map(Move::Withdraw),
        3 => any::<usize>().prop_map(Move::Release),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step, 1..80), |steps| {
        let _entered = runtime.enter();
        let budget = limited(LIMIT);
        let mut held: Vec<Reservation> = Vec::new();
        let mut claims: Vec<Claim> = Vec::new();
        let mut queue: VecDeque<u64> = VecDeque::new();
        for step in steps {
            let mut sum: u64 = held.iter().map(Reservation::bytes).sum();
            match step {
                Move::Reserve(bytes) => {
                    let fits = bytes == 0 || sum + queue.iter().sum::<u64>() + bytes <= LIMIT;
                    let granted = budget.try_reserve(bytes);
                    prop_assert_eq!(granted.is_ok(), fits);
                    held.extend(granted);
                }
                Move::Claim(bytes) => {
                    let flag = Arc::new(Flag(true.into()));
                    claims.push(Claim { future: Box::pin(budget.reserve(bytes)), flag, bytes });
                    queue.push_back(bytes);
                }
                Move::Withdraw(claim) => {
                    if let Some(claim) = claim.checked_rem(claims.len()) {
                        drop(claims.remove(claim));
                        queue.remove(claim);
                    }
                }
                Move::Release(reservation) => {
                    if let Some(reservation) = reservation.checked_rem(held.len()) {
                        drop(held.swap_remove(reservation));
                    }
                }
            }
            sum = held.iter().map(Reservation::bytes).sum();
            let mut expected = Vec::new();
            while let Some(bytes) = queue.front().copied().filter(|bytes| sum + bytes <= LIMIT) {
                sum += bytes;
                expected.push(bytes);
                queue.pop_front();
            }
            let mut granted = Vec::new();
            // The last first, which must not help it.
            while let Some(woken) = claims.iter().rposition(|claim| claim.flag.0.swap(false, Ordering::Relaxed)) {
                let claim = &mut claims[woken];
                let waker = Waker::from(claim.flag.clone());
                if let Poll::Ready(reservation) = claim.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    prop_assert_eq!(reservation.bytes(), claim.bytes);
                    granted.push(claim.bytes);
                    drop(claims.remove(woken));
                    held.push(reservation);
                }
                prop_assert!(budget.held() <= LIMIT);
            }
            prop_assert_eq!(granted, expected);
            prop_assert_eq!(budget.held(), sum);
            prop_assert_eq!(budget.is_claimed(), (!queue.is_empty()).then(|| queue.iter().sum()));
        }
        drop((held, claims));
        prop_assert_eq!((budget.held(), budget.unwritten(), budget.is_claimed()), (0, 0, None));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn many_threads_and_tasks_share_one_budget() {
    const LIMIT: u64 = 100;
    const ROUNDS: u64 = 500;
    let budget = limited(LIMIT);
    // Counted apart from the budget: what is in use by those who were granted it.
    let used = Arc::new(AtomicU64::new(0));
    let hold = move |reservation: Reservation| {
        let bytes = reservation.bytes();
        assert!(used.fetch_add(bytes, Ordering::SeqCst) + bytes <= LIMIT);
        std::thread::yield_now();
        used.fetch_sub(bytes, Ordering::SeqCst);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let bytes = |seed: u64, round: u64| (seed * 31 + round * 17) % LIMIT + 1;
    let tasks: Vec<_> = (0..4)
        .map(|seed| {
            let (budget, hold) = (budget.clone(), hold.clone());
            runtime.spawn(async move {
                for round in 0..ROUNDS {
                    let mut claim = pin!(budget.reserve(bytes(seed, round)));
                    match poll!(&mut claim) {
                        Poll::Ready(reservation) => hold(reservation),
                        // Every third that would have to wait gives up.
                        Poll::Pending if round % 3 == 0 => {}
                        Poll::Pending => hold(claim.await),
                    }
                }
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for seed in 4..7 {
            let (budget, hold) = (&budget, &hold);
            scope.spawn(move || {
                let never = CancellationToken::new();
                for round in 0..ROUNDS {
                    hold(budget.reserve_blocking(bytes(seed, round), &never).unwrap());
                    budget.try_reserve(bytes(seed, round)).map(hold).ok();
                }
            });
        }
    });
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert_eq!((budget.held(), budget.unwritten(), budget.is_claimed()), (0, 0, None));
}
