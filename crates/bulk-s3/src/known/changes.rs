use crate::ObjectRef;

/// A change to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownChange<'a> {
    /// The object is known as this from now on. What is `None` is unknown from now on.
    Set(ObjectRef<'a>),
    /// The object with this key is known no more.
    Remove(&'a str),
}

impl<'a> KnownChange<'a> {
    /// The key of the object.
    pub fn key(&self) -> &'a str {
        match self {
            Self::Set(object) => object.key,
            Self::Remove(key) => key,
        }
    }
}

/// The last change of each key, in the order of keys: the order in which a tree takes them best.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn last_of_each<'a>(changes: &[KnownChange<'a>]) -> Vec<KnownChange<'a>> {
    let mut last = changes.to_vec();
    if changes.is_sorted_by(|one, next| one.key() < next.key()) {
        return last;
    }
    // Stable, so that the first of a run is the last that was asked for.
    last.reverse();
    last.sort_by_key(KnownChange::key);
    last.dedup_by_key(|change| change.key());
    last
}

/// Of the objects of a store the one with this size or time is none that it can hold.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn signed_size(size: u64) -> Result<i64, String> {
    i64::try_from(size).map_err(|_| format!("its size of {size} bytes is more than the store can hold"))
}

#[cfg(all(test, any(feature = "sqlite", feature = "postgres")))]
mod tests {
    use super::{KnownChange, last_of_each};
    use crate::ObjectRef;

    #[test]
    fn the_last_change_of_a_key_counts() {
        let set = |key, size| {
            let mut object = ObjectRef::new(key);
            object.size = Some(size);
            KnownChange::Set(object)
        };
        let changes = [set("b", 1), KnownChange::Remove("a"), set("b", 2), set("a", 3), KnownChange::Remove("c")];
        assert_eq!(last_of_each(&changes), [set("a", 3), set("b", 2), KnownChange::Remove("c")]);
        assert_eq!(last_of_each(&changes[..1]), changes[..1]);
    }
}
