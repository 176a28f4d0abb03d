//! Random histories of additions, changes, moves and removals: after each run the set is that of its items.

use std::collections::{BTreeMap, BTreeSet};

use bulk_archive::{ExportSet, Published, Stage};
use proptest::{collection::vec, prelude::*};

use crate::support::{Model, archives, check, document, marks, options};

/// What happens to an item of a type: it is put into a group with a document of this seed and length, put as it is,
/// moved as it is, or removed.
#[derive(Clone, Debug)]
enum Fate {
    Put(u8, u64, usize, i64),
    Same,
    Moved(u8),
    Removed,
}

type Step = (u8, u64, Fate);

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        6 => (0..4u8, 0..50u64, prop_oneof![6 => 0..600usize, 1 => 0..9000usize], -5..2_000_000_000i64)
            .prop_map(|(group, seed, len, mtime)| Fate::Put(group, seed, len, mtime)),
        2 => Just(Fate::Same),
        2 => (0..4u8).prop_map(Fate::Moved),
        4 => Just(Fate::Removed),
    ];
    vec((0..2u8, 0..60u64, fate), 0..most)
}

fn kind(number: u8) -> &'static str {
    ["dockets", "opinions"][usize::from(number)]
}

fn group(number: u8) -> &'static str {
    ["ca1", "ca9", "scotus", "tax"][usize::from(number)]
}

fn apply(stage: &mut Stage<'_>, model: &mut Model, steps: &[Step]) {
    for (number, id, fate) in steps {
        let (kind, id) = (kind(*number), format!("{id:03}"));
        let key = (kind.to_owned(), id.clone());
        let (to, mtime, content) = match (fate, model.get(&key)) {
            (Fate::Put(to, seed, len, mtime), _) => (group(*to).to_owned(), *mtime, document(*seed, *len)),
            (Fate::Same, Some(item)) => item.clone(),
            (Fate::Moved(to), Some((_, mtime, content))) => (group(*to).to_owned(), *mtime, content.clone()),
            (Fate::Same | Fate::Moved(_) | Fate::Removed, _) => {
                stage.remove(kind, &id).unwrap();
                model.remove(&key);
                continue;
            }
        };
        stage.put(kind, &to, &id, mtime, &content).unwrap();
        model.insert(key, (to, mtime, content));
    }
}

/// What was published is the difference of two models.
fn check_counts(published: &Published, before: &Model, after: &Model) {
    let group = |model: &Model, key| model.get(key).map(|(group, ..)| group.clone());
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let (mut came, mut left, mut replaced) = (0, 0, 0);
    for key in keys {
        if group(before, key) == group(after, key) {
            replaced += u64::from(before.get(key) != after.get(key));
        } else {
            came += u64::from(after.contains_key(key));
            left += u64::from(before.contains_key(key));
        }
    }
    // Whether it left one group for the other is not known where it was written down far apart.
    assert_eq!((published.added + published.moved, published.removed + published.moved), (came, left));
    assert_eq!(published.replaced, replaced);
    assert_eq!(published.entries, after.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn each_run_leaves_the_set_of_its_items(history in vec(steps(150), 1..5), memory in 500..30_000u64) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut model = Model::new();
        for (run, steps) in history.iter().enumerate() {
            let mut options = options();
            options.memory = memory;
            let mut set = ExportSet::open(folder, options).unwrap();
            let before = model.clone();
            let marks_before = marks(folder);
            let mut stage = set.begin().unwrap();
            apply(&mut stage, &mut model, steps);
            let watermarks = BTreeMap::from([("opinions".to_owned(), run.to_string())]);
            let published = stage.publish(&watermarks).unwrap();
            check_counts(&published, &before, &model);
            prop_assert_eq!(set.watermark("opinions").unwrap(), Some(run.to_string()));
            for number in 0..2 {
                for id in 0..60 {
                    let key = (kind(number).to_owned(), format!("{id:03}"));
                    let expected = model.get(&key).map(|(group, ..)| group.clone());
                    prop_assert_eq!(set.group_of(&key.0, &key.1).unwrap(), expected);
                }
            }
            drop(set);
            check(folder, &model);
            // Only what has other items has other files.
            let (before, after, marks_after) = (archives(&before), archives(&model), marks(folder));
            for (name, items) in &after {
                let is_same = before.get(name) == Some(items);
                for file in [name.clone(), format!("{name}.idx")] {
                    prop_assert_eq!(is_same, marks_before.get(&file) == marks_after.get(&file), "{}", file);
                }
            }
            if run > 0 {
                let is_same = marks_before["manifest.json"] == marks_after["manifest.json"];
                prop_assert_eq!(before == after, is_same);
            }
        }
    }
}
