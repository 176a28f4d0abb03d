use std::collections::BTreeSet;
use std::ops::Bound;

use bulk_s3::KeyRange;

/// So many stretches are kept back: each is one more in the checkpoint, which is written again and again.
const STRETCHES: usize = 1000;

/// Objects that were left out of stretches that are not done. Such a stretch stays in the checkpoint, so that a run that goes
/// on tries them again and does not end as if nothing was missing.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    keys: BTreeSet<String>,
    stretches: usize,
}

impl LeftOut {
    pub(crate) fn add(&mut self, key: String) {
        self.keys.insert(key);
    }

    /// Whether a stretch whose other objects are all stored is to count as left.
    pub(crate) fn keeps_back(&mut self, range: &KeyRange) -> bool {
        if self.keys.is_empty() || range.is_empty() {
            return false;
        }
        let after = range.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let until = range.until.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let inside: Vec<String> = self.keys.range::<str, _>((after, until)).cloned().collect();
        for key in &inside {
            self.keys.remove(key);
        }
        let is_kept = !inside.is_empty() && self.stretches < STRETCHES;
        self.stretches += usize::from(is_kept);
        is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_kept_back_for_what_is_left_out_of_it() {
        let range = |after: Option<&str>, until: Option<&str>| {
            KeyRange::new(after.map(str::to_owned), until.map(str::to_owned))
        };
        let mut left_out = LeftOut::default();
        assert!(!left_out.keeps_back(&KeyRange::all()));
        for key in ["b", "c", "e"] {
            left_out.add(key.to_owned());
        }
        assert!(!left_out.keeps_back(&range(Some("b"), Some("b"))));
        assert!(!left_out.keeps_back(&range(None, Some("a"))));
        assert!(left_out.keeps_back(&range(Some("a"), Some("c"))));
        assert!(!left_out.keeps_back(&range(Some("c"), Some("d"))));
        assert!(left_out.keeps_back(&range(Some("d"), None)));
        assert!(left_out.keys.is_empty());
    }
}
