//! Random histories of additions, changes and removals: whatever the way, the archive is that of its items.

use std::io::Cursor;

use bulk_archive::{ArchiveIndex, ArchiveOptions, Change, SameContent, changes_anything, verify_blocks};
use proptest::{collection::btree_map, prelude::*};

use crate::support::{Items, NAME, Pair, apply, build, document, for_reflinks, items, put, remove, short};

/// What happens to an item: it is put with a document of this seed and length, put as it is, or removed.
#[derive(Clone, Debug)]
enum Fate {
    Put(u64, usize, i64),
    Same,
    Touched,
    Removed,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (0..1000u64, prop_oneof![8 => 0..3000usize, 1 => 0..40_000usize], -5..2_000_000_000i64)
            .prop_map(|(seed, len, mtime)| Fate::Put(seed, len, mtime)),
        2 => Just(Fate::Same),
        1 => Just(Fate::Touched),
        4 => Just(Fate::Removed),
    ]
}

/// Runs of changes, each spread over all ids or close together.
fn histories() -> impl Strategy<Value = Vec<Vec<(u64, Fate)>>> {
    let run = prop_oneof![
        btree_map(0..400u64, fates(), 0..8),
        btree_map(0..400u64, fates(), 0..60),
        (0..400u64).prop_flat_map(|start| btree_map(start..start + 30, fates(), 0..25)),
    ];
    proptest::collection::vec(run.prop_map(|run| run.into_iter().collect()), 1..6)
}

fn changes(run: &[(u64, Fate)], items: &Items) -> Vec<Change> {
    let mut changes: Vec<Change> = run
        .iter()
        .map(|(number, fate)| {
            let id = format!("{number:06}");
            match (fate, items.get(&id)) {
                (Fate::Put(seed, len, mtime), _) => put(&id, *mtime, &document(*seed, *len)),
                (Fate::Same, Some((mtime, content))) => put(&id, *mtime, content),
                (Fate::Touched, Some((mtime, content))) => put(&id, mtime + 1, content),
                (Fate::Same | Fate::Touched | Fate::Removed, _) => remove(&id),
            }
        })
        .collect();
    changes.sort_by(|a, b| a.id().cmp(b.id()));
    changes
}

fn check(pair: &Pair, model: &Items, options: &ArchiveOptions) {
    assert!(pair.items().unwrap() == *model);
    assert_eq!(pair.verify().unwrap().entries, model.len() as u64);
    assert!(*pair == build(model, options));
    assert!(pair.rebuilt(options).unwrap() == pair.index);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_way_to_the_same_items_gives_the_same_bytes(
        first in 0..400u64,
        history in histories(),
        reflink in any::<bool>(),
    ) {
        let options = if reflink { for_reflinks() } else { short() };
        let mut model = items(0..first, 2500);
        let mut pair = build(&model, &options);
        for run in &history {
            let changes = changes(run, &model);
            let expected = apply(&mut model, &changes);
            let (next, spliced, told) = pair.splice(&changes).unwrap();
            prop_assert_eq!(&told, &expected);
            prop_assert_eq!(
                spliced.added + spliced.replaced + spliced.unchanged + spliced.removed + spliced.missing,
                changes.len() as u64
            );
            check(&next, &model, &options);
            let all = changes.iter().cloned().map(Ok);
            let index = ArchiveIndex::open(Cursor::new(&pair.index), NAME).unwrap();
            prop_assert_eq!(changes_anything(index, all, SameContent::Replace).unwrap(), spliced.has_changed());
            prop_assert_eq!(verify_blocks(next.open().unwrap(), &spliced.made_blocks).unwrap(), spliced.summary);
            pair = next;
        }
    }
}

#[test]
fn what_has_not_changed_is_copied() {
    let mut model = items(0..2000, 2500);
    let pair = build(&model, &short());
    let blocks = pair.verify().unwrap().blocks;
    let changes = [put("000700", 5, b"{}"), remove("001400")];
    let _ = apply(&mut model, &changes);
    let (next, spliced, _) = pair.splice(&changes).unwrap();
    check(&next, &model, &short());
    let made = spliced.summary.blocks - spliced.copied_blocks;
    assert!(blocks > 500 && made <= 8, "{made} of {blocks}");
    let (same, spliced, _) = next.splice(&[]).unwrap();
    assert!(same == next);
    assert_eq!(spliced.copied_blocks, spliced.summary.blocks);
}

#[test]
fn an_archive_does_not_degrade() {
    let mut model = items(0..1500, 2500);
    let mut pair = build(&model, &short());
    for round in 0..1000u64 {
        let id = format!("{:06}", round * 7919 % 1700);
        let changes = match round % 5 {
            0 => [remove(&id)],
            _ => [put(&id, round as i64, &document(round, (round * 31 % 2500) as usize))],
        };
        let _ = apply(&mut model, &changes);
        pair = pair.splice(&changes).unwrap().0;
    }
    check(&pair, &model, &short());
}
