//! All pages together are all there is: for any keys, prefix, delimiter, start and page size, by each of the three
//! requests, against a model that knows no pages.

use std::collections::BTreeMap;

use bulk_testkit::s3::{KeySpace, Layout, Object, Server, Store};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::support::{Entry, all_pages, path, raw};

#[derive(Clone, Debug)]
struct Ask {
    prefix: String,
    delimiter: String,
    start_after: String,
    max_keys: usize,
}

/// What a listing without pages has, in order.
fn model(keys: impl Iterator<Item = String>, ask: &Ask, is_marker: bool) -> Vec<Entry> {
    let rolled_up = |key: &str| {
        let rest = key.strip_prefix(&ask.prefix)?;
        let at = if ask.delimiter.is_empty() { None } else { rest.find(&ask.delimiter) }?;
        Some(format!("{}{}", ask.prefix, &rest[..at + ask.delimiter.len()]))
    };
    let mut entries = Vec::new();
    for key in keys.filter(|key| key.starts_with(&ask.prefix) && key.as_bytes() > ask.start_after.as_bytes()) {
        match rolled_up(&key) {
            None => entries.push(Entry::Key(key)),
            // A marker that is a common prefix was on the page before.
            Some(prefix) if is_marker && prefix == ask.start_after => {}
            Some(prefix) => entries.push(Entry::Prefix(prefix)),
        }
    }
    entries.dedup();
    entries
}

/// The entries of the pages stand as keys, then prefixes, on each; here they come in one order.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| text(a).as_bytes().cmp(text(b).as_bytes()));
    entries
}

fn text(entry: &Entry) -> &str {
    match entry {
        Entry::Key(text) | Entry::Prefix(text) | Entry::Version(text, ..) | Entry::DeleteMarker(text, ..) => text,
    }
}

fn check(server: &Server, keys: &[String], ask: &Ask) -> Result<(), TestCaseError> {
    let failed = |error: Box<dyn std::error::Error>| TestCaseError::fail(error.to_string());
    let max_keys = ask.max_keys.to_string();
    let common = [
        ("prefix", ask.prefix.as_str()),
        ("delimiter", &ask.delimiter),
        ("max-keys", &max_keys),
        ("encoding-type", "url"),
    ];
    for (request, value, start) in
        [("list-type", "2", "start-after"), ("x", "", "marker"), ("versions", "", "key-marker")]
    {
        let mut query = vec![(request, value), (start, ask.start_after.as_str())];
        query.extend(common);
        let (entries, counts) = all_pages(server, &query).map_err(failed)?;
        let entries = entries.into_iter().map(|entry| match entry {
            Entry::Version(key, version, true) if version == "null" => Entry::Key(key),
            other => other,
        });
        let expected = model(keys.iter().cloned(), ask, start != "start-after");
        // Full pages, and a last one.
        let full = expected.len().saturating_sub(1) / ask.max_keys;
        let mut sizes = vec![ask.max_keys; full];
        sizes.push(expected.len() - full * ask.max_keys);
        prop_assert_eq!(sorted(entries.collect()), expected, "{}", start);
        prop_assert_eq!(counts, sizes, "{}", start);
    }
    Ok(())
}

/// What a prefix or a start may be: a key, a stretch of one, something behind one, or anything.
fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        2 => Just(Place::Text(String::new())),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(key, cut)| Place::Cut(key, cut)),
        1 => any::<Index>().prop_map(Place::Key),
        1 => any::<Index>().prop_map(Place::Behind),
        1 => "[a/é%+ z]{0,4}".prop_map(Place::Text),
    ]
}

#[derive(Clone, Debug)]
enum Place {
    Text(String),
    Key(Index),
    Behind(Index),
    Cut(Index, Index),
}

impl Place {
    fn of(&self, keys: &[String]) -> String {
        if keys.is_empty() {
            return String::new();
        }
        match self {
            Self::Text(text) => text.clone(),
            Self::Key(key) => key.get(keys).clone(),
            Self::Behind(key) => format!("{}\u{1}", key.get(keys)),
            Self::Cut(key, cut) => {
                let key = key.get(keys);
                let ends: Vec<_> = key.char_indices().map(|(at, _)| at).collect();
                key[..*cut.get(&ends)].to_owned()
            }
        }
    }
}

fn asks() -> impl Strategy<Value = Vec<(Place, &'static str, Place, Index)>> {
    let delimiter = select(vec!["", "/", "a/", "é", "00", "//"]);
    prop::collection::vec((place(), delimiter, place(), any::<Index>()), 6)
}

fn check_all(server: &Server, keys: &[String], asks: &[(Place, &str, Place, Index)]) -> Result<(), TestCaseError> {
    for (prefix, delimiter, start_after, size) in asks {
        // No more than some twenty pages.
        let least = keys.len() / 20 + 1;
        let ask = Ask {
            prefix: prefix.of(keys),
            delimiter: (*delimiter).to_owned(),
            start_after: start_after.of(keys),
            max_keys: least + size.index(keys.len() + 1),
        };
        check(server, keys, &ask)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn keys_in_memory(keys in prop::collection::btree_set("[a/é%+ \u{1}z😀]{1,5}", 0..40), asks in asks()) {
        let keys: Vec<_> = keys.into_iter().collect();
        let store = keys.iter().map(|key| (key, "x")).collect();
        let server = Server::builder().bucket("b", store).start().map_err(|error| TestCaseError::fail(error.to_string()))?;
        check_all(&server, &keys, &asks)?;
    }

    #[test]
    fn made_up_keys(
        layout in select(Layout::ALL.to_vec()),
        count in 0_u64..900,
        edition in 0_u64..5,
        match_one_in in 0_u64..40,
        changed_one_in in 0_u64..5,
        missing_one_in in 0_u64..9,
        asks in asks(),
    ) {
        let space = KeySpace { layout, keys: count, edition, match_one_in, changed_one_in, missing_one_in };
        let objects: BTreeMap<_, _> = space.objects().map(|object| (object.key.clone(), object)).collect();
        prop_assert_eq!(objects.len() as u64, count);
        let keys: Vec<_> = objects.keys().cloned().collect();
        // The same objects in memory.
        let copied = objects.values().map(|object| {
            (&object.key, Object::zeros(object.size).etag(&object.etag).last_modified(object.last_modified))
        });
        let start = |store| Server::builder().bucket("b", store).start().map_err(|error| TestCaseError::fail(error.to_string()));
        let (server, copy) = (start(Store::made_up(space.clone()))?, start(copied.collect())?);
        check_all(&server, &keys, &asks)?;
        for request in ["list-type", "x", "versions"] {
            let path = path(&[(request, "2"), ("max-keys", "100"), ("delimiter", "/"), ("prefix", "pub/fennec")]);
            let ask = |server| raw(server, "GET", &path, &[], b"").map(|answer| answer.body).map_err(|error| error.to_string());
            prop_assert_eq!(ask(&server), ask(&copy));
            let path = path.replace("pub%2Ffennec", "").replace("%2F", "");
            let ask = |server| raw(server, "GET", &path, &[], b"").map(|answer| answer.body).map_err(|error| error.to_string());
            prop_assert_eq!(ask(&server), ask(&copy));
        }
    }
}
