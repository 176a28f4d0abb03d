//! Where the bottleneck moves.

use std::ops::Range;

use super::LEAST;
use super::limit::{Key, Window};
use crate::meter::MeterReading;

/// What a cut costs, as a part of the run.
const CUT: f64 = 0.01;

/// The samples of each phase, one after the other; neighbours are bound by different limits.
pub(super) fn find(reading: &MeterReading) -> Vec<Range<usize>> {
    let samples: Vec<Window> = (0..reading.timeline.samples().len()).map(|i| Window::of(reading, [i])).collect();
    let mut phases: Vec<(Range<usize>, Option<Key>)> = Vec::new();
    for range in cut(&samples) {
        // Over a longer time the neighbours may tell otherwise than a sample does.
        let bound = Window::of(reading, range.clone()).bottleneck().map(|used| used.key);
        match phases.last_mut() {
            Some((last, key)) if *key == bound => last.end = range.end,
            _ => phases.push((range, bound)),
        }
    }
    phases.into_iter().map(|(range, _)| range).collect()
}

/// The cheapest way to name a limit for each sample (Viterbi's algorithm), as stretches of the same name.
fn cut(samples: &[Window<'_>]) -> Vec<Range<usize>> {
    // `None` is that nothing binds.
    let mut names: Vec<Option<Key>> = vec![None];
    for used in samples.iter().flat_map(|window| &window.uses) {
        if !names.contains(&Some(used.key)) {
            names.push(Some(used.key));
        }
    }
    let total: f64 = samples.iter().map(|window| window.duration().as_secs_f64()).sum();
    let cut = CUT * total;
    // The cost of the best way up to here that ends in each name, and the name before.
    let mut costs = vec![0.0_f64; names.len()];
    let mut before: Vec<Vec<usize>> = Vec::with_capacity(samples.len());
    for window in samples {
        let scores: Vec<f64> = names
            .iter()
            .map(|name| match name {
                None => LEAST,
                Some(key) => window.uses.iter().find(|used| used.key == *key).map_or(0.0, |used| used.score()),
            })
            .collect();
        let highest = scores.iter().copied().max_by(f64::total_cmp).unwrap_or_default();
        let cheapest = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or_default();
        let (mut next, mut from) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for (name, score) in scores.iter().enumerate() {
            let stays = costs[name] <= costs[cheapest] + cut;
            let (came_from, cost) = if stays { (name, costs[name]) } else { (cheapest, costs[cheapest] + cut) };
            from.push(came_from);
            next.push(cost + (highest - score) * window.duration().as_secs_f64());
        }
        before.push(from);
        costs = next;
    }
    let mut name = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or_default();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (sample, from) in before.iter().enumerate().rev() {
        match ranges.last_mut() {
            Some(range) if range.start == sample + 1 => range.start = sample,
            _ => ranges.push(sample..sample + 1),
        }
        if from[name] != name {
            name = from[name];
            // What comes before is another stretch: an empty one that it extends.
            if sample > 0 {
                ranges.push(sample..sample);
            }
        }
    }
    ranges.reverse();
    ranges
}
