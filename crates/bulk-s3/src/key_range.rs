use std::fmt;

/// A stretch of the key space: keys behind [`after`](Self::after), up to and with [`until`](Self::until), compared by their
/// UTF-8 bytes, as S3 sorts them (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>).
///
/// The lower bound is exclusive because `start-after` is, so neighbours share their border: `(a, m]` and `(m, z]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeyRange {
    /// The greatest key that is not in it; default none, so that it begins with the first key.
    pub after: Option<String>,
    /// The greatest key that may be in it; default none, so that it ends with the last key.
    pub until: Option<String>,
}

impl KeyRange {
    /// The stretch between two borders; `None` is either end of the key space.
    pub fn new(after: Option<String>, until: Option<String>) -> Self {
        Self { after, until }
    }

    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &str) -> bool {
        self.after.as_deref().is_none_or(|after| key > after) && self.until.as_deref().is_none_or(|until| key <= until)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!((&self.after, &self.until), (Some(after), Some(until)) if after >= until)
    }

    /// Cuts it behind `key`: what is up to and with it, and what follows. A key outside leaves one of them empty, and the
    /// other as it was.
    #[must_use]
    pub fn split_behind(self, key: &str) -> (Self, Self) {
        let border = || Some(key.to_owned());
        if self.after.as_deref().is_some_and(|after| key <= after) {
            let none = Self::new(self.after.clone(), self.after.clone());
            return (none, self);
        }
        if self.until.as_deref().is_some_and(|until| key >= until) {
            let none = Self::new(self.until.clone(), self.until.clone());
            return (self, none);
        }
        (Self::new(self.after, border()), Self::new(border(), self.until))
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.after, &self.until) {
            (None, None) => f.write_str("all keys"),
            (Some(after), None) => write!(f, "keys behind {after:?}"),
            (None, Some(until)) => write!(f, "keys up to {until:?}"),
            (Some(after), Some(until)) => write!(f, "keys behind {after:?} up to {until:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    fn range(after: &str, until: &str) -> KeyRange {
        KeyRange::new(Some(after.to_owned()), Some(until.to_owned()))
    }

    #[test]
    fn borders_belong_to_the_range_below() {
        let range = range("b", "d");
        let inside: Vec<_> = ["a", "b", "b\0", "c", "d", "d\0"].into_iter().filter(|key| range.contains(key)).collect();
        assert_eq!(inside, ["b\0", "c", "d"]);
        assert!(KeyRange::all().contains("") && KeyRange::all().contains("\u{10ffff}"));
    }

    #[test]
    fn a_range_is_cut_behind_a_key() {
        assert_eq!(range("b", "d").split_behind("c"), (range("b", "c"), range("c", "d")));
        for outside in ["a", "b"] {
            let (left, right) = range("b", "d").split_behind(outside);
            assert!(left.is_empty());
            assert_eq!(right, range("b", "d"));
        }
        for outside in ["d", "e"] {
            let (left, right) = range("b", "d").split_behind(outside);
            assert_eq!(left, range("b", "d"));
            assert!(right.is_empty());
        }
        let (left, right) = KeyRange::all().split_behind("k");
        assert_eq!((left.to_string(), right.to_string()), ("keys up to \"k\"".into(), "keys behind \"k\"".into()));
    }
}
