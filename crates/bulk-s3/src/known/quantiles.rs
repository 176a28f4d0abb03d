use crate::KeyRange;

/// Keys that are kept of a sample, at most, and half of it at least.
#[cfg(any(feature = "sqlite", test))]
const KEPT: usize = 16_384;

/// Some of the keys that it is given in their order, at even distances: each one as long as they are few.
#[cfg(any(feature = "sqlite", test))]
#[derive(Debug)]
pub(super) struct Sample {
    kept: Vec<String>,
    /// How many keys it was given.
    pub(super) given: usize,
    /// Of so many one is kept, the last.
    stride: usize,
}

#[cfg(any(feature = "sqlite", test))]
impl Sample {
    pub(super) fn new() -> Self {
        Self { kept: Vec::new(), given: 0, stride: 1 }
    }

    pub(super) fn push(&mut self, key: &str) {
        self.given += 1;
        if !self.given.is_multiple_of(self.stride) {
            return;
        }
        self.kept.push(key.to_owned());
        if self.kept.len() == KEPT {
            let mut place = 0_usize;
            self.kept.retain(|_| {
                place += 1;
                place.is_multiple_of(2)
            });
            self.stride *= 2;
        }
    }

    /// As [`quantiles`] of all that it was given; beyond what is kept, nearly.
    pub(super) fn quantiles(&self, range: &KeyRange, parts: usize) -> Vec<String> {
        quantiles(&self.kept, range, parts)
    }
}

/// Up to `parts - 1` of these keys, which are in the order of keys, that cut them into stretches of the same length. Each of
/// them has keys behind it in `range`, as far as its border tells.
pub(super) fn quantiles(keys: &[String], range: &KeyRange, parts: usize) -> Vec<String> {
    let parts = parts.min(keys.len());
    let mut points: Vec<String> = Vec::new();
    for part in 1..parts {
        // Without overflow: both are far below 2^64, and so is what memory can hold of keys.
        let place = (part as u128 * keys.len() as u128 / parts as u128) as usize;
        let Some(key) = place.checked_sub(1).and_then(|place| keys.get(place)) else { continue };
        let is_behind = points.last().is_none_or(|last| key > last);
        if is_behind && range.contains(key) && range.until.as_ref() != Some(key) {
            points.push(key.clone());
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Sample, quantiles};
    use crate::KeyRange;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn stretches_are_of_the_same_length() {
        let of = keys(&["a", "b", "c", "d", "e", "f"]);
        let cut = |parts| quantiles(&of, &KeyRange::all(), parts);
        assert_eq!(cut(0), keys(&[]));
        assert_eq!(cut(1), keys(&[]));
        assert_eq!(cut(2), keys(&["c"]));
        assert_eq!(cut(3), keys(&["b", "d"]));
        assert_eq!(cut(4), keys(&["a", "c", "d"]));
        assert_eq!(cut(6), keys(&["a", "b", "c", "d", "e"]));
        assert_eq!(cut(1000), cut(6));
        assert_eq!(quantiles(&[], &KeyRange::all(), 5), keys(&[]));
    }

    #[test]
    fn borders_and_what_is_outside_are_left_out() {
        let range = KeyRange::new(Some("b".to_owned()), Some("d".to_owned()));
        assert_eq!(quantiles(&keys(&["b", "c", "c", "d"]), &range, 4), keys(&["c"]));
    }
    #[test]
    fn a_sample_is_whole_while_it_is_small_and_even_beyond() {
        let sample = |count: usize| {
            let mut sample = Sample::new();
            (0..count).for_each(|number| sample.push(&format!("{number:07}")));
            sample
        };
        assert_eq!(sample(KEPT - 1).kept.len(), KEPT - 1);
        let cut = |count, parts| sample(count).quantiles(&KeyRange::all(), parts);
        assert_eq!(cut(1000, 4), keys(&["0000249", "0000499", "0000749"]));
        let many = sample(1_000_000);
        assert_eq!((many.given, many.stride, many.kept.len()), (1_000_000, 64, 15_625));
        assert_eq!(many.quantiles(&KeyRange::all(), 4), keys(&["0249983", "0499967", "0749951"]));
    }
}
