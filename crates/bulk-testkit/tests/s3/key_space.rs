//! Keys that follow from an index: their order, their editions, and what a server makes of them.

use std::collections::BTreeMap;

use bulk_testkit::s3::{EditionChanges, KeySpace, Layout, MadeUpObject, Server, Store};
use jiff::Timestamp;

use super::support::{Entry, Result, all_pages, page, raw};

const MATCH: &str = "buildhub.json";

fn by_key(keys: &KeySpace) -> BTreeMap<String, MadeUpObject> {
    keys.objects().map(|object| (object.key.clone(), object)).collect()
}

#[test]
fn keys_look_as_their_layout_says() {
    let indices = [0, 1, 33, 400_000, 999_499, 999_500, 999_999];
    let keys = |layout| indices.map(|index| KeySpace::new(layout, 1_000_000).key(index));
    assert_eq!(
        Layout::ALL.map(keys).concat(),
        [
            "pub/devedition/candidates/builds/0000000000/devedition-35.5.pt-BR.win32.buildhub.json",
            "pub/devedition/candidates/builds/0000000000/devedition-35.5.pt-BR.win32.buildhub.json.asc",
            "pub/devedition/candidates/builds/0000000001/devedition-15.2.en-US.win32.buildhub.json",
            "pub/fennec/candidates/builds/0000012133/fennec-63.8.zh-TW.win64-aarch64.exe.asc",
            "pub/thunderbird/candidates/builds/0000030318/thunderbird-78.1.ach.linux-i686.complete.mar",
            "pub/thunderbird/candidates/builds/0000030318/thunderbird-78.1.ach.linux-i686.complete.mar.asc",
            "pub/thunderbird/candidates/builds/0000030333/thunderbird-16.1.ach.win64.exe.asc",
            "a/very/long/prefix/2015/01/01/00/0000000000.log.gz",
            "a/very/long/prefix/2015/01/01/00/0000000001.buildhub.json",
            "a/very/long/prefix/2015/01/01/02/0000000033.log.gz",
            "a/very/long/prefix/2018/12/27/00/0000400400.log.gz",
            "a/very/long/prefix/2024/12/17/04/0001000499.log.gz",
            "a/very/long/prefix/2024/12/17/04/0001000500.log.gz",
            "a/very/long/prefix/2024/12/19/00/0001001000.log.gz",
            "archive/0000000000.log.gz",
            "archive/0000000001.buildhub.json",
            "archive/0000000033.log.gz",
            "data/production/events/0000400400.log.gz",
            "data/production/events/0001000499.log.gz",
            "data/production/events/0001000500.log.gz",
            "temporary/0001001000.log.gz",
            "tree/a0000000000.log.gz",
            "tree/a0000000001.buildhub.json",
            "tree/a0000000033.log.gz",
            "tree/a0000400400.log.gz",
            "tree/z/z/z/z/z/z/z/z/z/z/a0001000499.log.gz",
            "tree/z/z/z/z/z/z/z/z/z/z/a0001000500.log.gz",
            "tree/z/z/z/z/z/z/z/z/z/z/z/z/z/z/z/z/z/z/z/a0001001000.log.gz",
        ]
    );
}

#[test]
fn keys_ascend_and_are_found() {
    for layout in Layout::ALL {
        for (keys, match_one_in, missing_one_in) in
            [(0, 33, 1000), (1, 33, 1000), (2, 1, 2), (700, 0, 7), (5_000, 33, 1000), (10_000, 50, 0)]
        {
            let space = KeySpace { match_one_in, missing_one_in, edition: 3, ..KeySpace::new(layout, keys) };
            let all: Vec<_> = (0..keys).map(|index| space.key(index)).collect();
            assert!(all.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()), "{space:?}");
            let matching = all.iter().filter(|key| key.ends_with(MATCH)).count() as u64;
            match match_one_in {
                0 => assert_eq!(matching, 0),
                // One of each stretch; some are missing in this edition.
                stretch => {
                    let expected = keys / stretch;
                    let missing = keys.checked_div(missing_one_in).unwrap_or(0);
                    assert!(matching <= expected + 1 && matching + missing >= expected, "{space:?}: {matching}");
                }
            }
            for (index, key) in all.iter().enumerate() {
                let index = index as u64;
                assert_eq!(space.position(key.as_bytes()), index);
                assert_eq!(space.position(format!("{key}\0").as_bytes()), index + 1);
            }
            assert_eq!((space.position(b""), space.position(b"\xff")), (0, keys));
        }
    }
}

#[test]
fn editions_differ_by_as_much_as_asked() {
    for layout in Layout::ALL {
        let old =
            KeySpace { changed_one_in: 10, missing_one_in: 20, match_one_in: 4, ..KeySpace::new(layout, 19 * 100) };
        // 2,000 slots, each edition without one of 20: a hundred.
        let next = KeySpace { edition: 1, ..old.clone() };
        let later = KeySpace { edition: 3, ..old.clone() };
        for (newer, modified) in [(&old, 0), (&next, 200), (&later, 600)] {
            let (before, after) = (by_key(&old), by_key(newer));
            for filter in ["", MATCH] {
                let mut found = EditionChanges::default();
                for (key, object) in before.iter().filter(|(key, _)| key.ends_with(filter)) {
                    match after.get(key) {
                        None => found.removed += 1,
                        Some(other) if other.etag != object.etag => found.modified += 1,
                        Some(other) => {
                            assert_eq!(other, object);
                            found.unchanged += 1;
                        }
                    }
                }
                let new = |key: &&String| key.ends_with(filter) && !before.contains_key(*key);
                found.added = after.keys().filter(new).count() as u64;
                assert_eq!(old.changes(newer, |key| key.ends_with(filter)), found, "{newer:?} {filter}");
                if filter.is_empty() {
                    let turned_over = if newer == &old { 0 } else { 100 };
                    assert_eq!((found.added, found.removed), (turned_over, turned_over));
                    // Of those whose turn it was, some were not in one of the two editions.
                    assert!(found.modified <= modified && found.modified >= modified * 8 / 10, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn nothing_changes_where_nothing_is_to_change() {
    let old = KeySpace { changed_one_in: 0, missing_one_in: 0, ..KeySpace::new(Layout::Dates, 3_000) };
    let next = KeySpace { edition: 1, ..old.clone() };
    let all_unchanged = EditionChanges { unchanged: 3_000, ..EditionChanges::default() };
    assert_eq!(old.changes(&next, |_| true), all_unchanged);
    let next = KeySpace { changed_one_in: 1, ..next };
    assert_eq!(old.changes(&next, |_| true), EditionChanges { modified: 3_000, ..EditionChanges::default() });
}

#[test]
fn what_is_listed_is_what_is_fetched() -> Result {
    for layout in Layout::ALL {
        for edition in [0, 1] {
            let space = KeySpace { edition, changed_one_in: 2, match_one_in: 3, ..KeySpace::new(layout, 60) };
            let server = Server::builder().bucket("b", Store::made_up(space.clone())).start()?;
            for object in space.objects() {
                let path = format!("/b/{}", object.key);
                let answer = raw(&server, "GET", &path, &[], b"")?;
                assert_eq!((answer.status, answer.body.len() as u64), (200, object.size), "{path}");
                assert!(answer.head.contains(&format!("etag: \"{}\"\r\n", object.etag)), "{}", answer.head);
                let date = object.last_modified.strftime("%a, %d %b %Y %H:%M:%S GMT");
                assert!(answer.head.contains(&format!("last-modified: {date}\r\n")), "{}", answer.head);
                if object.key.ends_with(MATCH) {
                    let json: serde_json::Value = answer.text().parse()?;
                    let url = format!("https://archive.example/{}", object.key.replace(MATCH, "tar.bz2"));
                    assert_eq!(json["download"]["url"], url);
                }
                assert_eq!(raw(&server, "GET", &path, &[], b"")?.body, answer.body);
                assert_eq!(raw(&server, "GET", &format!("{path}x"), &[], b"")?.status, 404);
            }
        }
    }
    Ok(())
}

#[test]
fn a_changed_object_has_another_body() -> Result {
    let bodies = [0, 1].map(|edition| {
        let space = KeySpace { edition, changed_one_in: 1, match_one_in: 1, ..KeySpace::new(Layout::Builds, 1) };
        let server = Server::builder().bucket("b", Store::made_up(space.clone())).start()?;
        Ok::<_, Box<dyn std::error::Error>>(raw(&server, "GET", &format!("/b/{}", space.key(0)), &[], b"")?.body)
    });
    let [first, second] = bodies;
    let (first, second): (serde_json::Value, serde_json::Value) =
        (serde_json::from_slice(&first?)?, serde_json::from_slice(&second?)?);
    assert_eq!((&first["build"]["number"], &second["build"]["number"]), (&1.into(), &2.into()));
    assert_eq!(first["build"]["id"], second["build"]["id"]);
    Ok(())
}

#[test]
fn a_bucket_of_made_up_keys_takes_nothing() -> Result {
    let store = || Store::made_up(KeySpace::new(Layout::Builds, 10)).with("a", "passed over").without("a");
    let server = Server::builder().bucket("b", store()).writable(true).start()?;
    assert_eq!(raw(&server, "GET", "/b/a", &[], b"")?.status, 404);
    assert_eq!(raw(&server, "PUT", "/b/a", &[], b"x")?.status, 500);
    let error = server.put("b", "a", "x").expect_err("it is made up");
    assert_eq!(
        std::error::Error::source(&error).map(ToString::to_string).as_deref(),
        Some("the objects of this bucket are made up")
    );
    Ok(())
}

#[test]
fn sixty_million_keys_are_listed_from_anywhere() -> Result {
    for layout in Layout::ALL {
        let space = KeySpace::new(layout, 60_000_000);
        let server = Server::builder().bucket("b", Store::made_up(space.clone())).start()?;
        for index in [0, 1_234_567, 29_999_999, 59_999_000] {
            let expected: Vec<_> = (index..60_000_000.min(index + 1000)).map(|at| Entry::Key(space.key(at))).collect();
            let before = if index == 0 { "a".to_owned() } else { space.key(index - 1) };
            let page = page(&server, &[("list-type", "2"), ("start-after", &before)])?;
            assert_eq!(page.entries, expected);
            assert_eq!(page.truncated, index < 59_999_000);
        }
        assert_eq!((server.counts().list_v2, server.counts().keys_listed), (4, 4_000));
    }
    Ok(())
}

#[test]
fn prefixes_and_delimiters_are_found_among_sixty_million() -> Result {
    let server = |layout| Server::builder().bucket("b", Store::made_up(KeySpace::new(layout, 60_000_000))).start();
    let prefixes = |server: &Server, prefix: &str| -> Result<Vec<String>> {
        let (entries, _) = all_pages(server, &[("list-type", "2"), ("delimiter", "/"), ("prefix", prefix)])?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Prefix(prefix) => Some(prefix),
                _ => None,
            })
            .collect())
    };
    let dates = server(Layout::Dates)?;
    let years: Vec<_> = (2015..=2024).map(|year| format!("a/very/long/prefix/{year}/")).collect();
    assert_eq!(prefixes(&dates, "a/very/long/prefix/")?, years);
    assert_eq!(prefixes(&dates, "a/very/long/prefix/2016/02/")?.len(), 29);
    assert_eq!(prefixes(&server(Layout::Builds)?, "pub/")?.len(), 4);
    assert_eq!(prefixes(&server(Layout::HotPrefix)?, "")?, ["archive/", "data/", "temporary/"]);
    Ok(())
}

#[test]
fn dates_are_those_of_the_keys() -> Result {
    let space = KeySpace { changed_one_in: 0, ..KeySpace::new(Layout::Dates, 20_000) };
    for object in space.objects() {
        let folder = object.last_modified.strftime("a/very/long/prefix/%Y/%m/%d/%H/").to_string();
        assert!(object.key.starts_with(&folder), "{object:?}");
    }
    assert_eq!(space.object(0).last_modified, "2015-01-01T00:00:00Z".parse::<Timestamp>()?);
    Ok(())
}

#[test]
fn layouts_have_names() {
    for layout in Layout::ALL {
        assert_eq!(layout.name().parse(), Ok(layout));
    }
    assert_eq!(
        "flat".parse::<Layout>(),
        Err("no such layout: flat; there are builds, dates, hot-prefix, skewed".to_owned())
    );
}
