//! Whatever a table holds, a refresh makes it what a load of the file into an empty table would have made.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::slice::from_mut;

use bulk_pg::{Dialect, FileIdentity, LoadOptions, Session, load, refresh};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Bench, table, whole};

/// A row by its key: two other columns, of which the second may have to be unique.
type Rows = BTreeMap<i32, (Option<String>, Option<i16>)>;

fn rows() -> impl Strategy<Value = Rows> {
    let text = prop_oneof![Just(None), "[a-c\"\\\\,\n]{0,2}".prop_map(Some)];
    prop::collection::btree_map(0..12_i32, (text, prop::option::of(0..9_i16)), 0..10)
}

/// Of rows with the same number, all but the first have none.
fn made_unique(rows: &mut Rows) {
    let mut seen = std::collections::BTreeSet::new();
    for (_, number) in rows.values_mut() {
        if number.is_some_and(|number| !seen.insert(number)) {
            *number = None;
        }
    }
}

fn csv(rows: &Rows) -> String {
    let mut csv = "id,text,number\n".to_owned();
    for (id, (text, number)) in rows {
        let text = text.as_ref().map_or(String::new(), |text| format!("\"{}\"", text.replace('"', "\"\"")));
        csv.push_str(&format!("{id},{text},{}\n", number.map_or(String::new(), |number| number.to_string())));
    }
    csv
}

/// What has to become of the rows: added, changed, removed, unchanged.
fn expected(old: &Rows, new: &Rows) -> [u64; 4] {
    let count = |is: &dyn Fn(&i32) -> bool, rows: &Rows| rows.keys().filter(|id| is(id)).count() as u64;
    [
        count(&|id| !old.contains_key(id), new),
        count(&|id| old.get(id).is_some_and(|row| row != &new[id]), new),
        count(&|id| !new.contains_key(id), old),
        count(&|id| old.get(id) == Some(&new[id]), new),
    ]
}

const KEYED: &str = "id integer PRIMARY KEY, text text, number smallint";
const UNIQUE: &str = "id integer PRIMARY KEY, text text, number smallint UNIQUE";
const ENTANGLED: &str = "id integer PRIMARY KEY, text text, number smallint UNIQUE, other text DEFAULT 'kept'";
const KEYLESS: &str = "id integer, text text, number smallint";

async fn check(bench: &Bench, session: &mut Session, columns: &str, old: &Rows, new: &Rows) {
    bench.psql(&format!("DROP TABLE IF EXISTS t, fresh; CREATE TABLE t ({columns}); CREATE TABLE fresh ({columns})"));
    let mut options = LoadOptions::default();
    options.dialect = Some(Dialect::CSV);
    for rows in [old, new] {
        let csv = csv(rows);
        let file = FileIdentity::new("t.csv", Some(csv.clone()), csv.len() as u64);
        let refreshed = refresh(from_mut(session), &table("t"), &file, whole(csv.as_bytes()), &options).await.unwrap();
        let merged = refreshed.merged;
        let found = [merged.added, merged.changed, merged.removed, merged.unchanged];
        if std::ptr::eq(rows, old) {
            assert_eq!(found, [old.len() as u64, 0, 0, 0]);
            continue;
        }
        let mut wanted = expected(old, new);
        if columns == KEYLESS {
            wanted = [wanted[0] + wanted[1], 0, wanted[2] + wanted[1], wanted[3]];
        }
        // The same file, if nothing is to change.
        assert!(found == wanted || old == new && found == [0, 0, 0, new.len() as u64], "{found:?} for {wanted:?}");
        load(from_mut(session), &table("fresh"), &file, whole(csv.as_bytes()), &options).await.unwrap();
    }
    let dump = |name| bench.psql(&format!("COPY (SELECT * FROM {name} ORDER BY id, text, number) TO STDOUT"));
    assert_eq!(dump("t"), dump("fresh"));
}

#[test]
fn a_refreshed_table_equals_a_fresh_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = Bench::new("equals", "");
    let session = RefCell::new(runtime.block_on(bench.session()));
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let tables = prop::sample::select(vec![KEYED, UNIQUE, ENTANGLED, KEYLESS]);
    let result = runner.run(&(tables, rows(), rows()), |(columns, mut old, mut new)| {
        if columns.contains("UNIQUE") {
            made_unique(&mut old);
            made_unique(&mut new);
        }
        runtime.block_on(check(&bench, &mut session.borrow_mut(), columns, &old, &new));
        Ok(())
    });
    result.unwrap();
}
