//! Where to cut a stretch of keys of which only the beginning is known.
//!
//! No server tells how many keys are where, so a cut is a guess, and what comes of it teaches: if nothing is behind the
//! cut, the stretch is as much shorter, and the next guess better. It costs one request either way, which also lists.

/// Sorts behind all keys that begin with what stands before it.
const HIGHEST: char = char::MAX;
/// A key has no more bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const KEY_LIMIT: usize = 1024;
/// Bytes that tell apart what is near; a double has room for no more.
const DIGITS: usize = 8;

/// The bytes that keys are made of, as far as they were seen.
#[derive(Clone, Debug)]
pub(crate) struct Alphabet {
    seen: [bool; 256],
    /// For each byte, how many of those that were seen are less.
    rank: [u16; 256],
    size: u16,
}

impl Default for Alphabet {
    fn default() -> Self {
        Self { seen: [false; 256], rank: [0; 256], size: 0 }
    }
}

impl Alphabet {
    /// Learns the bytes of a key.
    pub(crate) fn learn(&mut self, key: &str) {
        let mut is_new = false;
        for byte in key.bytes() {
            is_new |= !std::mem::replace(&mut self.seen[usize::from(byte)], true);
        }
        if is_new {
            self.size = 0;
            for (seen, rank) in self.seen.iter().zip(&mut self.rank) {
                *rank = self.size;
                self.size += u16::from(*seen);
            }
        }
    }

    /// How far from `start` to `end` the key `at` is, from 0 to 1, as if keys were spread evenly over all texts of this
    /// alphabet. 0 if nothing can be told.
    pub(crate) fn fraction(&self, start: &str, at: &str, end: Option<&str>) -> f64 {
        let shared =
            end.map_or(0, |end| common(start.as_bytes(), end.as_bytes()).min(common(at.as_bytes(), end.as_bytes())));
        let number = |key: &str| {
            let mut place = 1.0;
            key.as_bytes()[shared.min(key.len())..].iter().take(DIGITS).fold(0.0, |sum, byte| {
                place /= f64::from(self.size) + 2.0;
                sum + place * (f64::from(self.rank[usize::from(*byte)]) + 1.0)
            })
        };
        let (first, last) = (number(start), end.map_or(1.0, number));
        if last <= first { 0.0 } else { ((number(at) - first) / (last - first)).clamp(0.0, 1.0) }
    }

    /// A place to cut between `at`, a key, and `until`, the end: it is behind `at` and before `until`. `misses` cuts since
    /// the last that had keys behind it had none. `None` if no place is left.
    pub(crate) fn split_point(&self, at: &str, until: Option<&str>, misses: u32) -> Option<String> {
        let shared = until.map_or(0, |until| common_chars(at, until));
        // Every other time half of what `at` has beyond the shared part is taken for shared, too: where all keys begin
        // with a long path, that finds its end soon.
        let point = if misses % 2 == 1 {
            let cut = depth(at, shared)?;
            format!("{}{HIGHEST}", &at[..cut])
        } else {
            let low = at[shared..].chars().next();
            let high = until.and_then(|until| until[shared..].chars().next()).unwrap_or(HIGHEST);
            match low.map_or_else(|| self.between('\0', high), |low| self.between(low, high)) {
                Some(middle) => format!("{}{middle}", &at[..shared]),
                None => format!("{}{HIGHEST}", &at[..shared + low.map_or(0, char::len_utf8)]),
            }
        };
        let is_inside = point.as_str() > at && until.is_none_or(|until| point.as_str() < until);
        (is_inside && point.len() <= KEY_LIMIT).then_some(point)
    }

    /// The middle of the characters between two, of the likeliest kind that has any: those of the same class that were seen,
    /// those of the same class, those that were seen, all.
    fn between(&self, low: char, high: char) -> Option<char> {
        let candidates = |is: &dyn Fn(u8) -> bool| {
            let all: Vec<u8> =
                (0x20..0x7f).filter(|byte| char::from(*byte) > low && char::from(*byte) < high && is(*byte)).collect();
            all.get(all.len() / 2).copied().map(char::from)
        };
        let seen = |byte: u8| self.seen[usize::from(byte)];
        let alike = |byte: u8| class(char::from(byte)) == class(low);
        candidates(&|byte| seen(byte) && alike(byte))
            .or_else(|| candidates(&|byte| byte.is_ascii_alphanumeric() && alike(byte)))
            .or_else(|| candidates(&seen))
            .or_else(|| candidates(&|byte| byte.is_ascii_alphanumeric()))
            .or_else(|| {
                let (low, high) = (u32::from(low).max(0x7f), u32::from(high));
                if high <= low + 1 { None } else { char::from_u32(low.midpoint(high)) }
            })
    }
}

#[derive(PartialEq)]
enum Class {
    Digit,
    Lower,
    Upper,
    Other,
}

fn class(char: char) -> Class {
    match char {
        '0'..='9' => Class::Digit,
        'a'..='z' => Class::Lower,
        'A'..='Z' => Class::Upper,
        _ => Class::Other,
    }
}

/// The middle of the places behind a `/` of `at` beyond `shared`, or else of all of them.
fn depth(at: &str, shared: usize) -> Option<usize> {
    let first = shared + at[shared..].chars().next()?.len_utf8();
    let folders: Vec<usize> =
        at[shared..].match_indices('/').map(|(slash, _)| shared + slash + 1).filter(|end| *end >= first).collect();
    if let Some(folder) = folders.get(folders.len() / 2) {
        return Some(*folder);
    }
    let ends: Vec<usize> = at[shared..].char_indices().map(|(start, char)| shared + start + char.len_utf8()).collect();
    ends.get(ends.len() / 2).copied()
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn common_chars(a: &str, b: &str) -> usize {
    let mut length = common(a.as_bytes(), b.as_bytes());
    while !a.is_char_boundary(length) || !b.is_char_boundary(length) {
        length -= 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Alphabet;

    fn learned(keys: &[&str]) -> Alphabet {
        let mut alphabet = Alphabet::default();
        for key in keys {
            alphabet.learn(key);
        }
        alphabet
    }

    #[test]
    fn cuts_go_through_the_middle_of_what_is_likely() {
        let alphabet = learned(&["builds/2019/01/x.json"]);
        for (at, until, misses, expected) in [
            ("builds/2019/01/x.json", None, 0, Some("n")),
            ("builds/2019/01/x.json", None, 1, Some("builds/2019/\u{10ffff}")),
            ("builds/2019/01/x.json", Some("builds/2019/\u{10ffff}"), 0, Some("builds/2019/2")),
            ("00", Some("09"), 0, Some("02")),
            ("08", Some("09"), 0, Some("08\u{10ffff}")),
            ("ab", Some("ab\0"), 0, None),
            ("é", Some("î"), 0, Some("ë")),
        ] {
            assert_eq!(alphabet.split_point(at, until, misses).as_deref(), expected, "{at} {until:?} {misses}");
        }
    }

    #[test]
    fn a_fraction_is_of_the_stretch() {
        let alphabet = learned(&["a/0123456789"]);
        for (start, at, end, expected) in
            [("a/", "a/5", Some("a/9\u{10ffff}"), 58), ("a/0", "a/0", Some("a/9"), 0), ("a/0", "a/45", Some("a/5"), 90)]
        {
            assert_eq!((alphabet.fraction(start, at, end) * 100.0).round() as i32, expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_is_inside(mut keys in proptest::collection::vec("[ -~é漢\u{10fffe}\0]{0,12}", 2), has_end: bool, misses in 0u32..4) {
            keys.sort();
            prop_assume!(keys[0] < keys[1]);
            let alphabet = learned(&[&keys[0]]);
            let until = has_end.then_some(keys[1].as_str());
            if let Some(point) = alphabet.split_point(&keys[0], until, misses) {
                prop_assert!(point > keys[0] && until.is_none_or(|until| point.as_str() < until));
            }
            let fraction = alphabet.fraction("", &keys[0], until);
            prop_assert!((0.0..=1.0).contains(&fraction));
        }

        #[test]
        fn cuts_without_keys_behind_them_come_to_an_end(at in "[a-c/0-3]{1,20}") {
            // All but `at` itself is cut off, by few guesses for each character.
            let alphabet = learned(&[&at]);
            let mut until = None;
            for misses in 0..12 * at.len() as u32 + 24 {
                let Some(point) = alphabet.split_point(&at, until.as_deref(), misses) else { break };
                until = Some(point);
            }
            let until = until.unwrap();
            prop_assert!(until.starts_with(&at), "{until:?}");
        }
    }
}
