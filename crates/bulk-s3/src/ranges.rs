use std::collections::{BTreeMap, VecDeque};

use crate::KeyRange;
use crate::gauge::Gauge;

/// A range is cut if it is likely to have this many pages still.
const WORTH_A_CUT: f64 = 4.0;
/// Pages that are left to a range that is cut, if it has twice as many: the more, the longer the listing has proved to be.
const LEFT: (f64, f64) = (8.0, 64.0);

/// Who lists what: the ranges of one listing, and where each of them stands.
///
/// A worker takes a range, lists it page by page from its beginning, and says so. If no range is left, it takes what is
/// behind a cut through the one that is likely to have most before it: a few pages [ahead](Gauge::ahead), as the keys that
/// were listed there tell. So work goes on near the front, and what comes of a cut tells where to make the next one.
#[derive(Debug)]
pub(crate) struct Ranges {
    waiting: VecDeque<KeyRange>,
    running: BTreeMap<Lane, Running>,
    next_lane: u64,
    /// Whether running ranges may be cut.
    can_split: bool,
    /// Where a range that has no end has it, as far as the prefix tells.
    ceiling: Option<String>,
    /// Behind this there are no keys.
    end: Option<String>,
    connections: usize,
    /// Pages that have come.
    pages: u64,
}

/// The run of a worker through one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane(pub(crate) u64);

#[derive(Debug)]
struct Running {
    /// What is left of it: it begins behind the last key that was listed.
    left: KeyRange,
    /// How dense its keys are; before its first page, those of the range that it was cut off.
    gauge: Option<Gauge>,
    /// Whether no page has come yet.
    is_new: bool,
    /// The last key of its first page, if another range has shown it before that came.
    foreseen: Option<String>,
    /// Whether another range has shown that it has no page, or no more than a part of one.
    is_void: bool,
    /// The range that this was cut off, until a page has come.
    parent: Option<Lane>,
}

impl Running {
    /// Whether it is not known if there are keys.
    fn is_untried(&self) -> bool {
        self.is_new && self.foreseen.is_none() && !self.is_void
    }

    /// Whether there are.
    fn is_tried(&self) -> bool {
        !self.is_new || self.foreseen.is_some()
    }

    /// The last key that is known of it, or where it begins.
    fn at(&self) -> Option<&str> {
        self.foreseen.as_deref().or(self.left.after.as_deref())
    }
}

impl Ranges {
    /// The ranges of a listing of what begins with `prefix`, over so many connections.
    pub(crate) fn new(prefix: &str, ranges: impl IntoIterator<Item = KeyRange>, connections: usize) -> Self {
        Self {
            ceiling: (!prefix.is_empty()).then(|| format!("{prefix}{}", char::MAX)),
            end: None,
            waiting: ranges.into_iter().filter(|range| !range.is_empty()).collect(),
            running: BTreeMap::new(),
            next_lane: 0,
            can_split: connections > 1,
            connections: connections.max(1),
            pages: 0,
        }
    }

    /// A range for a worker that has none. `None`: there is none now, but may be when another has brought a page, unless
    /// [all is done](Self::is_done).
    pub(crate) fn take(&mut self) -> Option<(Lane, KeyRange)> {
        let (range, gauge, parent) = match self.waiting.pop_front() {
            Some(range) => (range, None, None),
            None => self.cut()?,
        };
        let lane = Lane(self.next_lane);
        self.next_lane += 1;
        self.running
            .insert(lane, Running { left: range.clone(), gauge, is_new: true, foreseen: None, is_void: false, parent });
        Some((lane, range))
    }

    /// A page has come: the server has named keys from `first` to `last`, and has more behind them if it is so said. Tells
    /// the stretch that is listed by now in addition, if there is one, and whether the lane goes on. What the page has behind
    /// that stretch is another's. `None` if the lane is none of those that run.
    pub(crate) fn advance(
        &mut self,
        lane: Lane,
        first: Option<&str>,
        last: Option<&str>,
        has_more: bool,
    ) -> Option<(Option<KeyRange>, bool)> {
        let running = self.running.get_mut(&lane)?;
        self.pages += 1;
        match (&mut running.gauge, first, last) {
            (Some(gauge), Some(_), Some(last)) if !running.is_new => gauge.push(last),
            (gauge, Some(first), Some(last)) if first < last => *gauge = Some(Gauge::new(first, last)),
            _ => {}
        }
        let was_new = std::mem::replace(&mut running.is_new, false);
        (running.foreseen, running.is_void, running.parent) = (None, false, None);
        let until = running.left.until.as_deref();
        let after = running.left.after.clone();
        let to = match (has_more, last) {
            (true, Some(last)) if until.is_none_or(|until| last < until) => Some(last.to_owned()),
            // A page without keys is no step.
            (true, None) => return Some((None, true)),
            _ => None,
        };
        let goes_on = to.is_some();
        let to = to.or_else(|| running.left.until.clone());
        let listed = KeyRange::new(std::mem::replace(&mut running.left.after, to.clone()), to);
        if !goes_on {
            self.running.remove(&lane);
        }
        if !has_more {
            let end = last.map(str::to_owned).or_else(|| after.clone());
            self.end = [self.end.take(), end].into_iter().flatten().min();
        }
        if was_new {
            self.foresee(after.as_deref(), first, last);
        }
        Some((Some(listed), goes_on))
    }

    /// The first page of a range has shown which keys come behind its beginning. Others may begin in the gap before those, as
    /// if the keys before it went on; how they are to be cut, if at all, is known now, before they have a page themselves.
    fn foresee(&mut self, after: Option<&str>, first: Option<&str>, last: Option<&str>) {
        for running in self.running.values_mut().filter(|running| running.is_new) {
            let begin = running.left.after.as_deref();
            match (first, last) {
                (Some(first), Some(last)) if begin >= after && begin < Some(first) => {
                    if running.left.contains(last) {
                        running.foreseen = Some(last.to_owned());
                        running.gauge = if first < last { Some(Gauge::new(first, last)) } else { None };
                    } else {
                        running.is_void = true;
                    }
                }
                _ => running.is_void |= self.end.is_some() && begin >= self.end.as_deref(),
            }
        }
    }

    /// The server does not start where it is asked to, so a cut saves nothing: there are none from now on. A range that was
    /// cut off and has brought nothing goes back to the one that it was cut from, if that is still listed: then this is true.
    pub(crate) fn give_back(&mut self, lane: Lane) -> bool {
        self.can_split = false;
        let Some(Running { left, parent: Some(parent), .. }) = self.running.get(&lane) else { return false };
        let (start, until, parent) = (left.after.clone(), left.until.clone(), *parent);
        // Its own end is where this one begins, unless it was cut elsewhere meanwhile, or has come to its end.
        match self.running.get_mut(&parent) {
            Some(running) if running.left.until == start => running.left.until = until,
            _ => return false,
        }
        self.running.remove(&lane);
        for cut_off in self.running.values_mut().filter(|running| running.parent == Some(lane)) {
            cut_off.parent = Some(parent);
        }
        true
    }

    /// Whether there is nothing to take, and never will be.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Cuts the range that is likely to have most before it.
    fn cut(&mut self) -> Option<(KeyRange, Option<Gauge>, Option<Lane>)> {
        let untried = self.running.values().filter(|running| running.is_untried() && running.parent.is_some()).count();
        let tried = self.running.values().filter(|running| running.is_tried()).count();
        // Where there are no keys, all cuts are in vain. So there are no more untried ones than ranges that had some.
        if !self.can_split || untried >= tried.max(1) {
            return None;
        }
        let left = (self.pages as f64 / self.connections as f64 / 4.0).clamp(LEFT.0, LEFT.1);
        let worth = |running: &Running| {
            let (gauge, at) = (running.gauge.as_ref().filter(|_| !running.is_void)?, running.at()?);
            let until = running.left.until.as_deref().or(self.end.as_deref());
            let pages = until.map_or(f64::INFINITY, |until| gauge.pages(at, until));
            let least = if running.is_untried() { 2.0 * left } else { WORTH_A_CUT };
            (pages >= least).then_some(pages)
        };
        let mut candidates: Vec<(f64, Lane)> =
            self.running.iter().filter_map(|(lane, running)| Some((worth(running)?, *lane))).collect();
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (pages, lane) in candidates {
            let Some(running) = self.running.get_mut(&lane) else { continue };
            let (Some(gauge), Some(at)) = (&running.gauge, running.at()) else { continue };
            let until = running.left.until.as_deref().or(self.end.as_deref()).or(self.ceiling.as_deref());
            // What is too far ahead may be behind all that there is.
            let distances = std::iter::successors(Some((pages / 2.0).min(left)), |pages| Some(pages / 2.0));
            let point = distances
                .take_while(|pages| *pages >= 1.0)
                .filter_map(|pages| gauge.ahead(at, pages))
                .find(|point| point.as_str() > at && until.is_none_or(|until| point.as_str() < until));
            if let Some(point) = point {
                let cut_off = KeyRange::new(Some(point.clone()), running.left.until.replace(point));
                return Some((cut_off, running.gauge.clone(), Some(lane)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bulk_testkit::s3::{KeySpace, Layout};

    use super::Ranges;
    use crate::KeyRange;

    const PAGE: usize = 1000;

    /// Lists with so many connections, each of which is answered after some 1,000 ticks, and gives how many ticks that
    /// took, in thousands, and the requests.
    fn list(keys: &[String], connections: usize) -> (u64, usize) {
        let mut random = fastrand::Rng::with_seed(1);
        let mut ranges = Ranges::new("", [KeyRange::all()], connections);
        // When the answer comes, for which lane, and behind which key it begins.
        let mut asked = BTreeMap::new();
        let mut listed = Vec::new();
        let (mut now, mut requests) = (0, 0);
        loop {
            while asked.len() < connections {
                let Some((lane, range)) = ranges.take() else { break };
                asked.insert((now + random.u64(1000..1200), lane), range.after);
            }
            let Some(((time, lane), after)) = asked.pop_first() else { break };
            (now, requests) = (time, requests + 1);
            let from = after.map_or(0, |after| keys.partition_point(|key| *key <= after));
            let page = &keys[from..keys.len().min(from + PAGE)];
            let (first, last) = (page.first().map(String::as_str), page.last().map(String::as_str));
            let (stretch, goes_on) = ranges.advance(lane, first, last, from + PAGE < keys.len()).unwrap();
            listed.extend(stretch);
            if goes_on {
                asked.insert((now + random.u64(1000..1200), lane), last.map(str::to_owned));
            }
        }
        assert!(ranges.is_done());
        listed.sort_by(|a, b| a.after.cmp(&b.after));
        assert!(listed.windows(2).all(|pair| pair[0].until == pair[1].after), "{listed:?}");
        assert_eq!((&listed[0].after, &listed[listed.len() - 1].until), (&None, &None));
        (now / 1000, requests)
    }

    /// Hexadecimal numbers without an order.
    fn hashes(count: u64) -> Vec<String> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut keys: Vec<String> = (0..count).map(|_| format!("media/{:032x}/full.jpg", random.u128(..))).collect();
        keys.sort();
        keys
    }

    /// One connection takes 330. With 64 of them, which would be 5, the way to the places where all of them find work takes 6,
    /// and few pages are left for each.
    #[test]
    fn connections_share_the_work_whatever_keys_look_like() {
        const KEYS: u64 = 300_000;
        let mut all = vec![("hashes", hashes(KEYS))];
        for layout in Layout::ALL {
            let space = KeySpace::new(layout, KEYS);
            all.push((layout.name(), (0..KEYS).map(|index| space.key(index)).collect()));
        }
        let figures: Vec<_> = all.iter().map(|(name, keys)| (*name, list(keys, 64))).collect();
        for (name, (time, requests)) in &figures {
            assert!(*time <= 20 && *requests <= 560, "{name}: {time}, {requests} requests: {figures:?}");
        }
    }

    #[test]
    fn one_connection_asks_for_each_page_once() {
        let space = KeySpace::new(Layout::Builds, 10_000);
        let keys: Vec<_> = (0..10_000).map(|index| space.key(index)).collect();
        assert_eq!(list(&keys, 1).1, 10);
        assert_eq!(list(&[], 8).1, 1);
        assert_eq!(list(&keys[..1], 8).1, 1);
    }
}
