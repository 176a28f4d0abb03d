//! Items of a courts' project, and what a day does to them. Item `number` is of type `number % 4`, and so on: all that there is
//! to know of it follows from its number.

use std::collections::BTreeSet;

use bulk_testkit::snapshot::opinion_json;

/// The types of items, each of which has a table of that name.
pub(crate) const KINDS: [&str; 4] = ["audio", "clusters", "dockets", "opinions"];
const COURTS: u64 = 350;

pub(crate) fn kind(number: u64) -> &'static str {
    KINDS[(number % 4) as usize]
}

/// The court that the item is of at first.
pub(crate) fn court(number: u64) -> String {
    format!("court{:03}", number / 4 % COURTS)
}

/// The court that it is of when it has moved.
pub(crate) fn other_court(number: u64) -> String {
    format!("court{:03}", (number / 4 + 1) % COURTS)
}

/// When it was modified last before the day, in seconds since 1970.
pub(crate) fn modified(number: u64) -> i64 {
    1_400_000_000 + (number % 300_000_000) as i64
}

/// The item itself. What changes it makes it edition 1.
pub(crate) fn json(number: u64, edition: u64) -> String {
    opinion_json(number, edition)
}

/// The archive of a type and a court, below the folder of the set.
pub(crate) fn archive(kind: &str, court: &str) -> String {
    format!("{kind}/{court}.tar.gz")
}

/// What a day does: one item in a thousand has another content, and one in four thousand each is of another court, gone, or
/// new. Which ones is left to chance, so they are in as many archives as they can be.
pub(crate) struct Day {
    pub(crate) changed: Vec<u64>,
    pub(crate) moved: Vec<u64>,
    pub(crate) removed: Vec<u64>,
    pub(crate) added: Vec<u64>,
}

impl Day {
    pub(crate) fn of(items: u64) -> Self {
        let (many, few) = (items / 1000, items / 4000);
        let mut chosen = fastrand::Rng::with_seed(6).choose_multiple(0..items, (many + 2 * few) as usize);
        let mut moved = chosen.split_off(many as usize);
        let removed = moved.split_off(few as usize);
        Self { changed: chosen, moved, removed, added: (items..items + few).collect() }
    }

    /// The archives that have such an item, or have had one.
    pub(crate) fn archives(&self) -> BTreeSet<String> {
        let Self { changed, moved, removed, added } = self;
        let there = [changed, moved, removed, added].into_iter().flatten();
        let there = there.map(|&number| archive(kind(number), &court(number)));
        there.chain(moved.iter().map(|&number| archive(kind(number), &other_court(number)))).collect()
    }
}
