use std::collections::{BTreeMap, VecDeque};

use crate::KeyRange;
use crate::split_point::Alphabet;

/// A range is cut in two if it is likely to have this many pages still.
const WORTH_A_CUT: f64 = 2.0;
/// Cuts in vain that a range is allowed beyond two for each page that it has brought.
const MISSES: u64 = 24;
/// One page in so many may be that of a poor cut.
const POOR: u64 = 20;
/// Pages that tell how dense keys are.
const LOOK_BACK: u64 = 8;

/// Who lists what: the ranges of one listing, and where each of them stands.
///
/// A worker takes a range, lists it page by page from its beginning, and says so. If no range is left, it takes what is
/// behind a [cut](Alphabet::split_point) through the one that is likely to have most before it.
#[derive(Debug)]
pub(crate) struct Ranges {
    waiting: VecDeque<KeyRange>,
    running: BTreeMap<Lane, Running>,
    next_lane: u64,
    alphabet: Alphabet,
    /// Whether running ranges may be cut.
    can_split: bool,
    /// Where a range that has no end is likely to have it.
    ceiling: Option<String>,
    /// Pages that have come, and cuts that brought no more than one of them, with keys or without.
    pages: u64,
    poor: u64,
    /// Poor cuts that are allowed beyond a share of the pages: where keys are has to be found out first.
    allowed: u64,
}

/// The run of a worker through one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane(pub(crate) u64);

#[derive(Debug)]
struct Running {
    /// A place in it that was passed not long ago, and how many pages ago: what came since tells how dense keys are here.
    passed: (Option<String>, u64),
    /// What is left of it: it begins behind the last key that was listed.
    left: KeyRange,
    pages: u64,
    /// Cuts since the last one that had keys behind it, and all of them that had none.
    misses: u32,
    all_misses: u64,
    /// Whether the outcome of a cut is awaited.
    is_cut: bool,
    /// The range that this was cut off, until it has brought a page.
    parent: Option<Lane>,
}

impl Ranges {
    /// The ranges of a listing of what begins with `prefix`, over so many connections.
    pub(crate) fn new(prefix: &str, ranges: impl IntoIterator<Item = KeyRange>, connections: usize) -> Self {
        Self {
            ceiling: (!prefix.is_empty()).then(|| format!("{prefix}{}", char::MAX)),
            waiting: ranges.into_iter().filter(|range| !range.is_empty()).collect(),
            running: BTreeMap::new(),
            next_lane: 0,
            alphabet: Alphabet::default(),
            can_split: connections > 1,
            pages: 0,
            poor: 0,
            allowed: 2 * connections as u64,
        }
    }

    /// A range for a worker that has none. `None`: there is none now, but may be when another has brought a page, unless
    /// [all is done](Self::is_done).
    pub(crate) fn take(&mut self) -> Option<(Lane, KeyRange)> {
        let (range, parent) = match self.waiting.pop_front() {
            Some(range) => (range, None),
            None => self.cut()?,
        };
        let lane = Lane(self.next_lane);
        self.next_lane += 1;
        let running = Running {
            passed: (range.after.clone(), 0),
            left: range.clone(),
            pages: 0,
            misses: 0,
            all_misses: 0,
            is_cut: false,
            parent,
        };
        self.running.insert(lane, running);
        Some((lane, range))
    }

    /// A page has come: the server has named keys from `first` to `last`, and has more behind them if it is so said. Tells
    /// the stretch that is listed by now in addition, and whether the lane goes on. What the page has behind that stretch is
    /// another's.
    pub(crate) fn advance(
        &mut self,
        lane: Lane,
        first: Option<&str>,
        last: Option<&str>,
        has_more: bool,
    ) -> Option<(KeyRange, bool)> {
        if let Some(last) = last {
            self.alphabet.learn(last);
        }
        let running = self.running.get_mut(&lane)?;
        running.pages += 1;
        self.pages += 1;
        running.passed.1 += 1;
        if running.passed.1 > LOOK_BACK {
            running.passed = (running.left.after.clone(), 1);
        }
        let until = running.left.until.as_deref();
        let has_keys = first.is_some_and(|first| until.is_none_or(|until| first <= until));
        let to = match (has_more, last) {
            (true, Some(last)) if until.is_none_or(|until| last < until) => Some(last.to_owned()),
            // A page without keys is no step.
            (true, None) => return Some((KeyRange::new(running.left.after.clone(), running.left.after.clone()), true)),
            _ => None,
        };
        let parent = running.parent.take();
        let goes_on = to.is_some();
        if !goes_on && running.pages == 1 && parent.is_some() {
            self.poor += 1;
        }
        let to = to.or_else(|| running.left.until.clone());
        let listed = KeyRange::new(std::mem::replace(&mut running.left.after, to.clone()), to);
        if !goes_on {
            self.running.remove(&lane);
        }
        if let Some(parent) = parent.and_then(|parent| self.running.get_mut(&parent)) {
            parent.is_cut = false;
            if has_keys {
                parent.misses = 0;
            } else {
                parent.misses += 1;
                parent.all_misses += 1;
            }
        }
        Some((listed, goes_on))
    }

    /// The server does not start where it is asked to, so a cut saves nothing: there are none from now on. A range that was
    /// cut off and has brought nothing goes back to the one that it was cut from, if that is still listed: then this is true.
    pub(crate) fn give_back(&mut self, lane: Lane) -> bool {
        self.can_split = false;
        let Some(Running { left, parent: Some(parent), .. }) = self.running.get(&lane) else { return false };
        let (start, until, parent) = (left.after.clone(), left.until.clone(), *parent);
        // Its own end is where this one begins, unless it was cut elsewhere meanwhile, or has come to its end.
        match self.running.get_mut(&parent) {
            Some(parent) if parent.left.until == start => parent.left.until = until,
            _ => return false,
        }
        self.running.remove(&lane);
        true
    }

    /// Whether there is nothing to take, and never will be.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Cuts the range that is likely to have most before it.
    fn cut(&mut self) -> Option<(KeyRange, Option<Lane>)> {
        if !self.can_split || self.poor > self.allowed + self.pages / POOR {
            return None;
        }
        let alphabet = &self.alphabet;
        let worth = |running: &Running| {
            let at = running.left.after.as_deref()?;
            // Without a page its beginning is no key, and says nothing.
            let is_open = running.passed.1 > 0 && !running.is_cut && running.all_misses < MISSES + 2 * running.pages;
            if !is_open {
                return None;
            }
            let until = running.left.until.as_deref().or(self.ceiling.as_deref());
            let (passed, since) = &running.passed;
            let done = alphabet.fraction(passed.as_deref().unwrap_or(""), at, until);
            let pages = if done > 0.0 { *since as f64 * (1.0 - done) / done } else { f64::INFINITY };
            (pages >= WORTH_A_CUT).then_some(pages)
        };
        let mut candidates: Vec<(f64, Lane)> =
            self.running.iter().filter_map(|(lane, running)| Some((worth(running)?, *lane))).collect();
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, lane) in candidates {
            let Some(running) = self.running.get_mut(&lane) else { continue };
            let Some(at) = running.left.after.as_deref() else { continue };
            let until = running.left.until.as_deref().or(self.ceiling.as_deref());
            match self.alphabet.split_point(at, until, running.misses) {
                Some(point) => {
                    let cut_off = KeyRange::new(Some(point.clone()), running.left.until.replace(point));
                    running.is_cut = true;
                    // It ends elsewhere now, so what was passed before says less.
                    running.passed = (running.left.after.clone(), 0);
                    return Some((cut_off, Some(lane)));
                }
                None => {
                    // The other kind of guess, next time.
                    running.misses += 1;
                    running.all_misses += 1;
                }
            }
        }
        None
    }
}
