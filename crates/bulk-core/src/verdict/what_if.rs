//! What a change would give.

use serde::{Deserialize, Serialize};

use super::limit::{Key, Use, Window};
use super::{LEAST, Limit, rounded};
use crate::meter::MeterReading;

/// Nobody can have more than this.
const MOST: f64 = 1000.0;

/// Until the speed is known to a millionth.
const HALVINGS: u32 = 40;

/// What part of its time a run would take if one of its limits were faster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WhatIf {
    /// Which limit.
    #[serde(flatten)]
    pub limit: Limit,
    /// How many times as fast: each item takes its workers so much less time, or so many more of them are there.
    pub speed: f64,
    /// The least part of its time that the run would take.
    pub least: f64,
    /// The part of its time that it would take with waiting between stages as it was.
    pub most: f64,
    /// What would bind then for the longest time.
    pub then: Option<Limit>,
}

pub(super) fn predict(reading: &MeterReading, windows: &[Window<'_>], key: Key, speed: f64) -> WhatIf {
    let (mut least, mut most, mut all) = (0.0, 0.0, 0.0);
    let mut bound: Vec<(Key, f64)> = Vec::new();
    for window in windows {
        let time = window.duration().as_secs_f64();
        let before = highest(&window.uses, |used| used.most).map_or(0.0, |(_, part)| part);
        let changed: Vec<Use> = change(&window.uses, key, speed);
        let after = highest(&changed, |used| used.most);
        // Where nothing binds, nobody knows what the time is taken by.
        let at_most = match after {
            Some((_, after)) if before >= LEAST => (after / before).min(1.0),
            _ => 1.0,
        };
        let at_least = highest(&changed, |used| used.least).map_or(at_most, |(_, part)| part.min(at_most));
        all += time;
        least += time * at_least;
        most += time * at_most;
        if let Some(then) = binder(&changed).filter(|_| before >= LEAST) {
            match bound.iter_mut().find(|(key, _)| *key == then) {
                Some((_, sum)) => *sum += time * at_most,
                None => bound.push((then, time * at_most)),
            }
        }
    }
    let part = |time: f64| if all > 0.0 { time / all } else { 1.0 };
    let then = bound.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(key, _)| key);
    WhatIf {
        limit: limit(reading, windows, key),
        speed,
        least: rounded(part(least)),
        most: rounded(part(most)),
        then: then.map(|key| limit(reading, windows, key)),
    }
}

/// The speed from which on a limit binds nowhere, and what that would give.
pub(super) fn next(reading: &MeterReading, windows: &[Window<'_>], key: Key) -> Option<WhatIf> {
    let mut enough: Option<f64> = None;
    for window in windows {
        let binds = |speed: f64| binder(&change(&window.uses, key, speed)) == Some(key);
        // What is hardly used binds at speeds that nobody can have.
        if !binds(1.0) || binds(MOST) {
            continue;
        }
        // What it shares with others is used less by the part that it has of it, so there is no ratio that tells.
        let (mut below, mut above) = (1.0, MOST);
        for _ in 0..HALVINGS {
            let middle = (below + above) / 2.0;
            *(if binds(middle) { &mut below } else { &mut above }) = middle;
        }
        enough = Some(enough.map_or(above, |enough| enough.max(above)));
    }
    let mut next = predict(reading, windows, key, enough?);
    next.speed = rounded(next.speed);
    Some(next)
}

/// What binds: what is used most, or who takes most of that.
fn binder(uses: &[Use]) -> Option<Key> {
    let (key, _) = highest(uses, |used| used.most)?;
    uses.iter().find(|used| used.key == key).map(|used| used.greedy(uses))
}

/// What is used how far if one is faster.
fn change(uses: &[Use], key: Key, speed: f64) -> Vec<Use> {
    let cpu = uses.iter().find(|used| used.key == key).map_or(0.0, |used| used.cpu);
    uses.iter()
        .map(|used| {
            let mut changed = used.clone();
            if used.key == key {
                (changed.most, changed.least) = (used.most / speed, used.least / speed);
                changed.cpu = used.cpu / speed;
            } else if used.key == Key::Cores {
                let saved = cpu * (1.0 - 1.0 / speed);
                (changed.most, changed.least) = ((used.most - saved).max(0.0), (used.least - saved).max(0.0));
            } else if let Key::Stage(stage) = key {
                for (_, most, least) in changed.members.iter_mut().filter(|(member, ..)| *member == stage) {
                    let saved = 1.0 - 1.0 / speed;
                    changed.most = (changed.most - *most * saved).max(0.0);
                    changed.least = (changed.least - *least * saved).max(0.0);
                    (*most, *least) = (*most / speed, *least / speed);
                }
            }
            changed
        })
        .collect()
}

/// What is used most.
fn highest(uses: &[Use], of: fn(&Use) -> f64) -> Option<(Key, f64)> {
    uses.iter().map(|used| (used.key, of(used))).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn limit(reading: &MeterReading, windows: &[Window<'_>], key: Key) -> Limit {
    let used = windows.iter().flat_map(|window| &window.uses).find(|used| used.key == key);
    used.map_or(Limit::Cores, |used| used.limit(reading))
}
