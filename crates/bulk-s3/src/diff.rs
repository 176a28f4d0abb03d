use std::cmp::Ordering;
use std::fmt;
use std::iter::Peekable;
use std::str::FromStr;

use crate::ObjectRef;

/// What a bucket has that a store of known objects has not, or has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The object is in the bucket, and was not known.
    Added(ObjectRef<'a>),
    /// The object was known as another one.
    Modified {
        /// As it was known.
        before: ObjectRef<'a>,
        /// As it is in the bucket.
        after: ObjectRef<'a>,
    },
    /// The object was known, and is not in the bucket.
    Removed(ObjectRef<'a>),
}

impl<'a> Change<'a> {
    /// The key of the object.
    pub fn key(&self) -> &'a str {
        match self {
            Self::Added(object) | Self::Removed(object) | Self::Modified { after: object, .. } => object.key,
        }
    }
}

/// By what an object is told from what it was known as. What one of the two sides does not know makes them differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compare {
    /// The ETags: opaque text.
    #[default]
    Etag,
    /// The sizes.
    Size,
    /// The times of modification, both by the server's clock: any difference counts, in either direction.
    Mtime,
    /// ETags and sizes.
    EtagAndSize,
}

impl Compare {
    /// Whether the two are the same version, as far as this tells.
    pub fn is_same(self, before: &ObjectRef<'_>, after: &ObjectRef<'_>) -> bool {
        fn same<T: PartialEq>(before: Option<T>, after: Option<T>) -> bool {
            before.is_some() && before == after
        }
        let etag = || same(before.etag, after.etag);
        let size = || same(before.size, after.size);
        match self {
            Self::Etag => etag(),
            Self::Size => size(),
            Self::Mtime => same(before.last_modified, after.last_modified),
            Self::EtagAndSize => etag() && size(),
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etag => "etag",
            Self::Size => "size",
            Self::Mtime => "mtime",
            Self::EtagAndSize => "etag+size",
        })
    }
}

/// A name that is none of `etag`, `size`, `mtime`, `etag+size`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of etag, size, mtime, etag+size")]
pub struct UnknownCompare(String);

impl FromStr for Compare {
    type Err = UnknownCompare;

    fn from_str(name: &str) -> Result<Self, UnknownCompare> {
        [Self::Etag, Self::Size, Self::Mtime, Self::EtagAndSize]
            .into_iter()
            .find(|compare| compare.to_string() == name)
            .ok_or_else(|| UnknownCompare(name.to_owned()))
    }
}

/// One side of a comparison is not in the order of the bytes of its keys, or has a key twice. A merge of the two would call
/// objects added and removed that are neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the {} are not in the order of their bytes: {key:?} comes behind {before:?}", if *.is_listed { "listing" } else { "known objects" })]
#[non_exhaustive]
pub struct OutOfOrder {
    /// Whether it is the listing; else it is what is known.
    pub is_listed: bool,
    /// The key before.
    pub before: String,
    /// The key that does not sort behind it.
    pub key: String,
}

/// Compares two sides that are sorted by the bytes of their keys, in constant memory. Filters must have been applied to both
/// of them, or to none: what only one side leaves out counts as added or removed.
///
/// Gives the changes in the order of their keys; an error is the last item. Nothing is compared before it is asked for.
///
/// ```
/// use bulk_s3::{Change, Compare, ObjectRef, diff};
///
/// fn object<'a>(key: &'a str, etag: &'a str) -> ObjectRef<'a> {
///     let mut object = ObjectRef::new(key);
///     object.etag = Some(etag);
///     object
/// }
///
/// let listed = [object("a", "1"), object("b", "2"), object("c", "1")];
/// let known = [object("b", "1"), object("c", "1"), object("d", "1")];
/// let mut changes = diff(listed, known, Compare::Etag);
/// assert_eq!(changes.next(), Some(Ok(Change::Added(listed[0]))));
/// assert_eq!(changes.next(), Some(Ok(Change::Modified { before: known[0], after: listed[1] })));
/// assert_eq!(changes.next(), Some(Ok(Change::Removed(known[2]))));
/// assert_eq!(changes.next(), None);
/// assert_eq!(changes.unchanged(), 1);
/// ```
pub fn diff<'a, L, K>(listed: L, known: K, compare: Compare) -> Diff<'a, L::IntoIter, K::IntoIter>
where
    L: IntoIterator<Item = ObjectRef<'a>>,
    K: IntoIterator<Item = ObjectRef<'a>>,
{
    Diff {
        listed: Side::new(listed.into_iter(), true),
        known: Side::new(known.into_iter(), false),
        compare,
        unchanged: 0,
    }
}

/// The changes between two sides: see [`diff`].
#[derive(Debug)]
pub struct Diff<'a, L: Iterator<Item = ObjectRef<'a>>, K: Iterator<Item = ObjectRef<'a>>> {
    listed: Side<'a, L>,
    known: Side<'a, K>,
    compare: Compare,
    unchanged: u64,
}

impl<'a, L: Iterator<Item = ObjectRef<'a>>, K: Iterator<Item = ObjectRef<'a>>> Diff<'a, L, K> {
    /// How many objects of those that were compared so far are the same on both sides.
    pub fn unchanged(&self) -> u64 {
        self.unchanged
    }

    fn step(&mut self) -> Result<Option<Change<'a>>, OutOfOrder> {
        loop {
            let order = match (self.listed.peek(), self.known.peek()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(listed), Some(known)) => listed.key.cmp(known.key),
            };
            let listed = if order.is_le() { self.listed.take()? } else { None };
            let known = if order.is_ge() { self.known.take()? } else { None };
            match (listed, known) {
                (Some(after), Some(before)) if self.compare.is_same(&before, &after) => self.unchanged += 1,
                (Some(after), Some(before)) => return Ok(Some(Change::Modified { before, after })),
                (Some(object), None) => return Ok(Some(Change::Added(object))),
                (None, Some(object)) => return Ok(Some(Change::Removed(object))),
                (None, None) => return Ok(None),
            }
        }
    }
}

impl<'a, L: Iterator<Item = ObjectRef<'a>>, K: Iterator<Item = ObjectRef<'a>>> Iterator for Diff<'a, L, K> {
    type Item = Result<Change<'a>, OutOfOrder>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.listed.is_broken || self.known.is_broken {
            return None;
        }
        self.step().transpose()
    }
}

#[derive(Debug)]
struct Side<'a, I: Iterator<Item = ObjectRef<'a>>> {
    objects: Peekable<I>,
    before: Option<&'a str>,
    is_listed: bool,
    is_broken: bool,
}

impl<'a, I: Iterator<Item = ObjectRef<'a>>> Side<'a, I> {
    fn new(objects: I, is_listed: bool) -> Self {
        Self { objects: objects.peekable(), before: None, is_listed, is_broken: false }
    }

    fn peek(&mut self) -> Option<&ObjectRef<'a>> {
        self.objects.peek()
    }

    fn take(&mut self) -> Result<Option<ObjectRef<'a>>, OutOfOrder> {
        let Some(object) = self.objects.next() else { return Ok(None) };
        match self.before.replace(object.key) {
            Some(before) if before >= object.key => {
                self.is_broken = true;
                let (before, key) = (before.to_owned(), object.key.to_owned());
                Err(OutOfOrder { is_listed: self.is_listed, before, key })
            }
            _ => Ok(Some(object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn object<'a>(key: &'a str, etag: &'a str) -> ObjectRef<'a> {
        let mut object = ObjectRef::new(key);
        object.etag = Some(etag);
        object
    }

    #[test]
    fn what_is_not_known_differs() {
        let mut before = object("a", "1");
        let mut after = object("a", "1");
        let same = |before, after| {
            [Compare::Etag, Compare::Size, Compare::Mtime, Compare::EtagAndSize].map(|how| how.is_same(&before, &after))
        };
        assert_eq!(same(before, after), [true, false, false, false]);
        (before.size, after.size) = (Some(1), Some(1));
        after.last_modified = Some(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(same(before, after), [true, true, false, true]);
        before.last_modified = after.last_modified;
        before.etag = None;
        assert_eq!(same(before, after), [false, true, true, false]);
        after.etag = None;
        assert_eq!(same(before, after), [false, true, true, false]);
    }

    #[test]
    fn names_round_trip() {
        for name in ["etag", "size", "mtime", "etag+size"] {
            assert_eq!(name.parse::<Compare>().unwrap().to_string(), name);
        }
        assert_eq!(
            "ETag".parse::<Compare>().unwrap_err().to_string(),
            "\"ETag\" is none of etag, size, mtime, etag+size"
        );
    }

    #[test]
    fn a_side_out_of_order_ends_the_comparison() {
        let sorted = [object("a", "1"), object("b", "1")];
        for (first, second) in [("b", "a"), ("b", "b")] {
            let broken = [object(first, "1"), object(second, "1")];
            let mut changes = diff(sorted, broken, Compare::Etag);
            let error = changes.by_ref().find_map(Result::err).unwrap();
            assert_eq!(error, OutOfOrder { is_listed: false, before: first.into(), key: second.into() });
            assert!(changes.next().is_none());
            let error = diff(broken, sorted, Compare::Etag).find_map(Result::err).unwrap();
            let expected = format!(
                "the keys of the listing are not in the order of their bytes: {second:?} comes behind {first:?}"
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn changes_are_those_of_two_maps(
            listed in proptest::collection::btree_map("[a-c/é]{0,3}", 0u8..3, 0..30),
            known in proptest::collection::btree_map("[a-c/é]{0,3}", 0u8..3, 0..30),
        ) {
            let texts = |map: &BTreeMap<String, u8>| -> Vec<(String, String)> {
                map.iter().map(|(key, etag)| (key.clone(), etag.to_string())).collect()
            };
            let (left, right) = (texts(&listed), texts(&known));
            let objects = |side: &'static [(String, String)]| side.iter().map(|(key, etag)| object(key, etag));
            let (left, right): (&'static [_], &'static [_]) = (left.leak(), right.leak());
            let mut changes = diff(objects(left), objects(right), Compare::Etag);
            let found: Vec<_> = changes.by_ref().map(|change| match change.unwrap() {
                Change::Added(object) => (object.key.to_owned(), None, object.etag),
                Change::Removed(object) => (object.key.to_owned(), object.etag, None),
                Change::Modified { before, after } => (after.key.to_owned(), before.etag, after.etag),
            }).collect();
            let keys: std::collections::BTreeSet<_> = listed.keys().chain(known.keys()).collect();
            let etag = |side: &'static [(String, String)], key: &str| {
                side.iter().find(|(found, _)| found == key).map(|(_, etag)| etag.as_str())
            };
            let expected: Vec<_> = keys
                .iter()
                .map(|key| ((*key).clone(), etag(right, key), etag(left, key)))
                .filter(|(_, before, after)| before != after)
                .collect();
            prop_assert_eq!(found, expected);
            let unchanged = listed.iter().filter(|(key, etag)| known.get(*key) == Some(etag)).count();
            prop_assert_eq!(changes.unchanged(), unchanged as u64);
        }
    }
}
