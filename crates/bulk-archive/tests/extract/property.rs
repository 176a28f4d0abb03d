//! Whatever the members are called and lead to, nothing outside the target is made or changed, and no link in it leads
//! out.

use std::fs;

use bulk_archive::{Error, ExtractOptions};
use proptest::{collection::vec, prelude::*, sample::select};

use super::support::*;

fn part() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "c",
        "a",
        "b",
        "..",
        ".",
        "",
        "beside",
        "witness",
        "target",
        "..a",
        "\u{e9}",
        ".bulk-extract",
    ])
}

fn name() -> impl Strategy<Value = String> {
    (prop::bool::weighted(0.1), vec(part(), 1..5))
        .prop_map(|(absolute, parts)| if absolute { format!("/{}", parts.join("/")) } else { parts.join("/") })
}

fn member() -> impl Strategy<Value = (u8, String, String)> {
    (select(vec![b'0', b'0', b'5', b'2', b'2', b'1', b'L', b'K', b'x']), name(), name())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside(members in vec(member(), 1..12)) {
        let place = Place::new();
        let target = place.target();
        // One archive for each member: a refusal must not keep the others from trying.
        let mut pending: Vec<Raw<'_>> = Vec::new();
        let records: Vec<Vec<u8>> =
            members.iter().map(|(_, name, link)| [record("path", name.as_bytes()), record("linkpath", link.as_bytes())].concat()).collect();
        let mut extracted = 0;
        for ((kind, name, link), records) in members.iter().zip(&records) {
            match kind {
                b'L' | b'K' => pending.push(raw(*kind, "././@LongLink", "", name.as_bytes())),
                b'x' => pending.push(raw(*kind, "x", "", records)),
                b'0' => pending.push(file(name, b"data")),
                _ => pending.push(raw(*kind, name, link, b"")),
            }
            if matches!(kind, b'L' | b'K' | b'x') {
                continue;
            }
            let outcome = place.extract(&archive(&pending), "a.tar", &ExtractOptions::default());
            extracted += u64::from(outcome.is_ok());
            pending.clear();
        }
        place.check_outside();
        if extracted > 0 {
            let real = target.canonicalize().unwrap();
            for path in place.paths() {
                prop_assert!(!path.starts_with(".bulk-extract"));
                // Where links turn in a circle or end nowhere, they lead nowhere.
                if let Ok(leads) = fs::canonicalize(target.join(&path)) {
                    prop_assert!(leads.starts_with(&real), "{path} leads to {leads:?}");
                }
            }
        }
    }

    /// Headers of which anything may be wrong but the checksum.
    #[test]
    fn any_headers(
        members in vec(
            (
                select(b"0012567xgLKSSVX\0".to_vec()),
                vec((0usize..512, any::<u8>()), 0..4),
                prop_oneof![
                    vec(any::<u8>(), 0..600),
                    vec(select(b"0123456789 =\n,GNU.sparse.".to_vec()), 0..600),
                    Just(record("GNU.sparse.map", b"0,1,512,7")),
                    Just([record("GNU.sparse.major", b"1"), record("GNU.sparse.realsize", b"7")].concat()),
                    Just(b"1\n0\n3\n".to_vec()),
                ],
                0u64..1200,
            ),
            1..6,
        ),
    ) {
        let mut bytes = Vec::new();
        for (i, (kind, changes, data, size)) in members.iter().enumerate() {
            let size = if i % 2 == 0 { data.len() as u64 } else { *size };
            let mut block = header(&raw(*kind, &format!("m{i}"), "m0", b""), size);
            if *kind == b'S' {
                block[257..265].copy_from_slice(b"ustar  \0");
                block[386..410].copy_from_slice(b"00000000000\x0000000000777\0");
                block[483..495].copy_from_slice(b"00000001000\0");
            }
            for (at, byte) in changes {
                block[*at] = *byte;
            }
            seal(&mut block);
            bytes.extend(block);
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend([0; 1024]);
        let mut options = ExtractOptions::default();
        options.max_bytes = Some(1 << 20);
        let place = Place::new();
        match place.extract(&bytes, "a.tar", &options) {
            Ok(extracted) => prop_assert!(extracted.bytes <= 1 << 20),
            // Names with bytes that the system does not take, too long ones.
            Err(error) => prop_assert!(!matches!(error, Error::Io { .. } | Error::Corrupt { .. }), "{error}"),
        }
        prop_assert!(!place.target().join(".bulk-extract").exists());
    }
}
