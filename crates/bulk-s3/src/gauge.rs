//! How dense keys are, as far as some of them in a row tell.
//!
//! No server tells how many keys are where. But from the keys with which pages end it can be told with which the pages behind
//! them are likely to: they are counted up as numbers are, each place by the characters that may stand there.

use std::collections::{BTreeSet, VecDeque};

/// Sorts behind all keys that begin with what stands before it.
const HIGHEST: char = char::MAX;
/// A key has no more bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const KEY_LIMIT: usize = 1024;
/// Keys that tell which characters there are, and pages of which the densest counts.
const KEYS: usize = 8;
const PAGES: usize = 4;
/// Places that tell apart what is near, beginning with the first one that differs; a double has room for no more.
const PLACES: usize = 8;
/// Places of a guess behind that one.
const GUESSED: usize = 3;
/// A count that has to be written in places: a double is exact below.
const COUNT_LIMIT: f64 = 1e15;

/// Some keys, each a page behind the one before it.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    keys: VecDeque<Vec<char>>,
}

/// By how much keys are counted up in a page.
struct Step {
    /// The first place that changes.
    place: usize,
    /// What may stand there and in the places behind it.
    alphabets: Vec<Alphabet>,
    /// How far that is counted up.
    count: f64,
}

impl Gauge {
    /// That of a page from one key to another, which is greater.
    pub(crate) fn new(first: &str, last: &str) -> Self {
        Self { keys: [first, last].map(|key| key.chars().collect()).into() }
    }

    /// Adds the last key of the next page.
    pub(crate) fn push(&mut self, last: &str) {
        if self.keys.len() == KEYS {
            self.keys.pop_front();
        }
        self.keys.push_back(last.chars().collect());
    }

    /// About how many pages there are from the key `at` to `until`, if keys are as dense all the way; infinite if nothing can
    /// be told.
    pub(crate) fn pages(&self, at: &str, until: &str) -> f64 {
        let (at, until): (Vec<char>, Vec<char>) = (at.chars().collect(), until.chars().collect());
        let Some(step) = self.step(&until) else { return f64::INFINITY };
        let from = common(&at, &until).min(step.place);
        let mut count = step.count;
        let alphabets: Vec<_> =
            (from..step.place + PLACES).map(|place| Alphabet::new(self.at(place, &until))).collect();
        for alphabet in &alphabets[1..=step.place - from] {
            count /= alphabet.size();
        }
        let pages = (number(&until, from, &alphabets) - number(&at, from, &alphabets)) / count;
        if pages.is_finite() { pages.max(0.0) } else { f64::INFINITY }
    }

    /// A text that sorts about so many pages behind `at`, if keys are as dense there. If there are not as many keys of this
    /// kind, it is one behind all of them. `None` if nothing can be told.
    pub(crate) fn ahead(&self, at: &str, pages: f64) -> Option<String> {
        let at: Vec<char> = at.chars().collect();
        let Step { place, alphabets, count } = self.step(&at)?;
        let total = number(&at, place, &alphabets) + count * pages;
        if place > at.len() || total >= COUNT_LIMIT {
            return None;
        }
        let mut key: Vec<char> = at[..at.len().min(place + 1)].to_vec();
        if key.len() == place {
            key.push(alphabets[0].digit(0)?);
        }
        let mut carry = total as usize;
        let mut rest = total.fract();
        for (index, char) in key.iter_mut().enumerate().rev() {
            let alphabet = Alphabet::new(self.at(index, &at));
            // A separator is no digit.
            let Some(size) = Some(alphabet.0.len()).filter(|size| *size > 1) else { continue };
            let count = if index == place { carry } else { alphabet.rank(*char) + carry };
            *char = alphabet.digit(count % size)?;
            carry = count / size;
            if carry == 0 {
                break;
            }
        }
        if carry > 0 {
            // Behind all that begin alike.
            key.truncate(place);
            if place == 0 {
                return None;
            }
            key[..place].copy_from_slice(&at[..place]);
            key.push(HIGHEST);
        } else {
            for alphabet in alphabets[1..=GUESSED].iter().take_while(|alphabet| !alphabet.0.is_empty()) {
                rest *= alphabet.size();
                key.push(alphabet.digit((rest as usize).min(alphabet.0.len() - 1))?);
                rest = rest.fract();
            }
        }
        let key: String = key.into_iter().collect();
        (key.len() <= KEY_LIMIT).then_some(key)
    }

    /// That of the densest of the last pages: one may reach over a gap.
    fn step(&self, beside: &[char]) -> Option<Step> {
        let skipped = self.keys.len().saturating_sub(PAGES + 1);
        let pages = self.keys.iter().skip(skipped).zip(self.keys.iter().skip(skipped + 1));
        let steps = pages.filter_map(|(first, last)| {
            let place = common(first, last);
            let alphabets: Vec<_> =
                (place..place + PLACES).map(|place| Alphabet::new(self.at(place, beside))).collect();
            let count = number(last, place, &alphabets) - number(first, place, &alphabets);
            (count > 0.0).then_some(Step { place, alphabets, count })
        });
        steps.min_by(|a, b| b.place.cmp(&a.place).then(a.count.total_cmp(&b.count)))
    }

    /// The characters that were seen in a place.
    fn at<'a>(&'a self, place: usize, beside: &'a [char]) -> impl Iterator<Item = char> + 'a {
        let keys = self.keys.iter().map(Vec::as_slice).chain([beside]);
        keys.filter_map(move |key| key.get(place).copied()).filter(|char| *char != HIGHEST)
    }
}

/// The characters of a place, in their order: those that were seen, and those that are likely to stand there, too.
struct Alphabet(Vec<char>);

impl Alphabet {
    fn new(seen: impl Iterator<Item = char>) -> Self {
        let mut all: BTreeSet<char> = seen.collect();
        let greatest = |all: &BTreeSet<char>, of: std::ops::RangeInclusive<char>| all.range(of).next_back().copied();
        let has_digits = greatest(&all, '0'..='9').is_some();
        if has_digits {
            all.extend('0'..='9');
        }
        for (first, sixth, last) in [('A', 'F', 'Z'), ('a', 'f', 'z')] {
            if let Some(greatest) = greatest(&all, first..=last) {
                all.extend(first..=if has_digits && greatest <= sixth { sixth } else { last });
            }
        }
        Self(all.into_iter().collect())
    }

    /// How many there are, at least one.
    fn size(&self) -> f64 {
        self.0.len().max(1) as f64
    }

    fn rank(&self, char: char) -> usize {
        self.0.partition_point(|other| *other < char)
    }

    fn digit(&self, rank: usize) -> Option<char> {
        self.0.get(rank).copied()
    }
}

/// What a key counts from the place `from` on, in units of that place. One that has ended counts as the least there.
fn number(key: &[char], from: usize, alphabets: &[Alphabet]) -> f64 {
    let mut unit = 1.0;
    let mut number = 0.0;
    for (index, alphabet) in alphabets.iter().enumerate() {
        if index > 0 {
            unit /= alphabet.size();
        }
        number += key.get(from + index).map_or(0.0, |char| alphabet.rank(*char) as f64 * unit);
    }
    number
}

fn common(a: &[char], b: &[char]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Gauge;

    #[test]
    fn keys_are_counted_up_as_numbers_are() {
        for (first, last, at, pages, expected) in [
            ("k/000100.json", "k/000199.json", "k/000199.json", 1.0, Some("k/000298.j")),
            ("k/000100.json", "k/000199.json", "k/000997.json", 4.0, Some("k/001393.j")),
            ("2019/01/02/03/x", "2019/01/02/09/x", "2019/01/02/09/x", 4.0, Some("2019/01/02/33/x")),
            // Behind all of them.
            ("k/8", "k/9", "k/9", 1.0, Some("l/0")),
            ("-8", "-9", "-9", 1.0, Some("-\u{10ffff}")),
            ("8", "9", "9", 1.0, None),
            // One that has ended.
            ("k", "k/5", "k/5", 0.5, Some("k/7")),
            ("a0", "af", "af", 1.0, Some("be")),
            ("é1", "é2", "é2", 3.0, Some("é5")),
        ] {
            let found = Gauge::new(first, last).ahead(at, pages);
            let is_it = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(expected) || expected.starts_with(found.as_str()),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_it, "{first} {last} {at} {pages}: {found:?}, and not {expected:?}");
        }
    }

    #[test]
    fn pages_are_counted_between_keys() {
        for (first, last, at, until, expected) in [
            ("k/000100", "k/000200", "k/000200", "k/000700", 5.0),
            ("k/000100", "k/000200", "k/000200", "k/010200", 100.0),
            ("k/000100", "k/000200", "k/000700", "k/000200", 0.0),
            ("a1", "a1", "a1", "a2", f64::INFINITY),
        ] {
            let found = Gauge::new(first, last).pages(at, until);
            assert!(found == expected || (found - expected).abs() < 0.1, "{at} {until}: {found}");
        }
    }

    #[test]
    fn a_page_over_a_gap_does_not_count() {
        let mut gauge = Gauge::new("a/1", "k/0100");
        gauge.push("k/0200");
        assert_eq!(gauge.pages("k/0200", "k/0500").round(), 3.0);
        gauge.push("p/0000");
        assert_eq!(gauge.pages("k/0200", "k/0500").round(), 3.0);
    }

    proptest! {
        #[test]
        fn whatever_the_keys_are_a_guess_is_behind(
            mut keys in proptest::collection::vec("[ -~é漢\u{10ffff}\0]{0,12}|[0-9a-f]{1,20}|k/[0-9]{1,3}/[a-z]{0,3}", 2..10),
            pages in 0.0f64..1e6,
        ) {
            keys.sort();
            keys.dedup();
            prop_assume!(keys.len() > 1);
            let mut gauge = Gauge::new(&keys[0], &keys[1]);
            for key in &keys[2..] {
                gauge.push(key);
            }
            let last = keys.last().unwrap();
            if let Some(ahead) = gauge.ahead(last, pages) {
                // Never before what all pages share.
                let shared = keys[0].chars().zip(last.chars()).take_while(|(a, b)| a == b).count();
                let shared: String = last.chars().take(shared).collect();
                prop_assert!(ahead >= shared, "{ahead:?}");
            }
            for pair in keys.windows(2) {
                let pages = gauge.pages(&pair[0], &pair[1]);
                prop_assert!(pages >= 0.0, "{pages}");
            }
        }
    }
}
