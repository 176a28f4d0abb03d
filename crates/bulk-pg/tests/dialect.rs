//! Dialects: their names, and that none is taken for another without a sign.

use bulk_pg::{
    Certainty, Contradiction, Dialect, Quoting, RecordError, RecordErrorKind, RecordOptions, Records, detect,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Row = Vec<Option<String>>;

#[test]
fn dialects_are_named_and_said_in_words() {
    for (name, dialect, words) in [
        ("A", Dialect::A, "A: quotes \", doubled inside, values quoted where needed"),
        ("b", Dialect::B, "B: quotes \", doubled inside, every value quoted"),
        ("C", Dialect::C, "C: quotes `, doubled inside, every value quoted"),
        ("d", Dialect::D, "D: quotes \", escaped by a backslash, every value quoted"),
        ("csv", Dialect::A, "A: quotes \", doubled inside, values quoted where needed"),
        ("CSV", Dialect::CSV, "A: quotes \", doubled inside, values quoted where needed"),
    ] {
        assert_eq!(name.parse(), Ok(dialect));
        assert_eq!(dialect.to_string(), words);
    }
    assert_eq!("E".parse::<Dialect>().unwrap_err().to_string(), "unknown dialect \"E\": it is one of A, B, C, D, csv");
    assert_eq!(Dialect::default(), Dialect::CSV);

    let tabs = Dialect::new(b'\t', b'\'', b'~', Quoting::AsNeeded).unwrap();
    assert_eq!(tabs.to_string(), "custom: delimiter '\\t', quotes ', escaped by ~, values quoted where needed");
    assert_eq!((tabs.name(), tabs.delimiter(), tabs.quote(), tabs.escape()), ("custom", b'\t', b'\'', b'~'));
    assert_eq!(Dialect::new(b',', b'"', b'\\', Quoting::Always).unwrap(), Dialect::D);
}

#[test]
fn a_dialect_needs_three_bytes_that_can_be_told_apart() {
    for (delimiter, quote, escape) in [
        (b'"', b'"', b'\\'),
        (b',', b'"', b','),
        (b'\n', b'"', b'"'),
        (b',', b'\r', b'"'),
        (b',', b'"', 0),
        (0xe9, b'"', b'"'),
    ] {
        Dialect::new(delimiter, quote, escape, Quoting::AsNeeded).unwrap_err();
    }
    assert_eq!(
        Dialect::new(b'\n', b'"', b'"', Quoting::Always).unwrap_err().to_string(),
        "delimiter '\\n', quote '\"', escape '\"': each must be an ASCII character other than NUL and line ends, and \
         the delimiter must differ from the others"
    );
}

#[test]
fn the_samples_are_proven_to_be_what_they_are() {
    for (dialect, evidence) in [
        (Dialect::A, "7 records, 6 quoted values, 5 doubled quotes; not D (record 1, byte 19: a value is not quoted)"),
        (
            Dialect::B,
            "7 records, 27 quoted values, 5 doubled quotes; not D (record 3, byte 153: text follows a closing quote)",
        ),
        (Dialect::C, "7 records, 27 values in backticks and none without"),
        (
            Dialect::D,
            "7 records, 5 escaped quotes, 5 backslash pairs; not B (record 3, byte 154: text follows a closing quote)",
        ),
    ] {
        let file = sample(dialect);
        for hint in [None, Some(Dialect::A), Some(Dialect::B), Some(Dialect::C), Some(Dialect::D)] {
            let verdict = detect(&file, true, hint).unwrap();
            // A reads all of B, so that name may be asked for.
            let named = if dialect == Dialect::B && hint == Some(Dialect::A) { Dialect::A } else { dialect };
            assert_eq!((verdict.dialect, verdict.certainty, verdict.records), (named, Certainty::Proven, 7));
            assert_eq!(verdict.evidence, evidence);
        }
    }
}

/// Each sample read by each dialect: what the strict grammar says, if not the values.
#[test]
fn the_samples_contradict_every_other_dialect() {
    use Contradiction::{BareValue, QuoteInBareValue, TextAfterQuote};
    let expected = [
        // As A, as B, as C, as D: the record, and why.
        [None, Some((1, BareValue)), Some((1, BareValue)), Some((1, BareValue))],
        [None, None, Some((1, BareValue)), Some((3, TextAfterQuote))],
        [Some((3, QuoteInBareValue)), Some((1, BareValue)), None, Some((1, BareValue))],
        [Some((3, TextAfterQuote)), Some((3, TextAfterQuote)), Some((1, BareValue)), None],
    ];
    let rows = read(&sample(Dialect::A), Dialect::A, false).unwrap();
    for (written, expected) in Dialect::ERAS.into_iter().zip(expected) {
        for (read_as, expected) in Dialect::ERAS.into_iter().zip(expected) {
            match (read(&sample(written), read_as, false), expected) {
                (Ok(found), None) => assert_eq!(found, rows),
                (Err(error), Some((record, what))) => {
                    assert_eq!(error.record, record);
                    assert!(matches!(error.kind, RecordErrorKind::Contradiction(found) if found == what), "{error}");
                }
                (result, _) => panic!("{written} as {read_as}: {result:?}"),
            }
        }
    }
}

/// One trap at a time, in a file that has nothing else to tell by.
#[test]
fn each_trap_alone_is_found() {
    use Certainty::{Ambiguous, Likely, Proven};
    for (value, certainties) in [
        // The values, and how sure the verdict is for a file of A, B, C and D.
        ("plain", [Proven, Ambiguous, Proven, Ambiguous]),
        ("say \"hi\"", [Proven, Proven, Proven, Proven]),
        ("\"", [Proven, Proven, Proven, Proven]),
        ("\"\"", [Proven, Proven, Proven, Proven]),
        ("back\\slash", [Proven, Proven, Proven, Proven]),
        ("trailing\\", [Proven, Proven, Proven, Likely]),
        ("\\", [Proven, Proven, Proven, Likely]),
        ("x\n\\.\ny", [Proven, Proven, Proven, Likely]),
        ("\\\"", [Proven, Proven, Proven, Proven]),
        ("\\\\\"", [Proven, Proven, Proven, Proven]),
        // Two backslashes are one in D: only these are B's word against D's.
        ("\\\\server", [Proven, Likely, Proven, Likely]),
        ("a,b", [Proven, Ambiguous, Proven, Ambiguous]),
        ("`code`", [Proven, Ambiguous, Proven, Ambiguous]),
        ("", [Proven, Ambiguous, Proven, Ambiguous]),
    ] {
        let row = vec![Some("1".to_owned()), Some(value.to_owned()), None, Some("z".to_owned())];
        let rows = vec![row.clone(), row];
        for (written, certainty) in Dialect::ERAS.into_iter().zip(certainties) {
            let csv = write(written, &rows);
            let verdict = detect(&csv, true, None).unwrap();
            let certainty = match (written.name(), value) {
                // Not told by a contradiction, as `back\slash` is in B, but by their twos.
                ("D", "back\\slash") => Likely,
                _ => certainty,
            };
            assert_eq!(verdict.certainty, certainty, "{value:?} in {written}: {}", verdict.evidence);
            if (written, value) == (Dialect::B, "\\\\server") {
                assert_eq!(verdict.dialect, Dialect::D);
            } else {
                assert_eq!(read(&csv, verdict.dialect, false).unwrap(), rows, "{value:?} in {written}");
            }
            let verdict = detect(&csv, true, Some(written)).unwrap();
            assert_eq!(verdict.dialect, written);
            let certainty = if certainty == Proven { Proven } else { Certainty::Hinted };
            assert_eq!(verdict.certainty, certainty);
        }
    }
}

#[test]
fn evidence_tells_likely_from_ambiguous() {
    let verdict = detect(b"a,b\n\"1\",\"x\\\\y\"\n\"2\",\"\\\\\\\\\"\n", true, None).unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::D, Certainty::Likely));
    assert_eq!(
        verdict.evidence,
        "2 records, 6 backslashes inside quotes, all in pairs, and no quotes inside quotes; D reads a pair as one, B would \
         keep both"
    );
    let verdict = detect(b"a,b\n\"1\",\"x\"\n", true, None).unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::B, Certainty::Ambiguous));
    assert_eq!(verdict.evidence, "1 record, with neither a backslash nor a quote inside quotes");
}

#[test]
fn a_record_longer_than_the_sample_is_evidence() {
    let filler = "lorem ipsum, dolor\n".repeat(1000);
    for (text, dialect, certainty) in [
        ("\\\"x", Dialect::D, Certainty::Proven),
        ("\"\"x", Dialect::B, Certainty::Proven),
        ("\\x", Dialect::B, Certainty::Proven),
        ("\\\\", Dialect::D, Certainty::Likely),
        ("x", Dialect::B, Certainty::Ambiguous),
    ] {
        let sample = format!("a,b\n\"1\",\"{filler}{text}{filler}");
        let verdict = detect(sample.as_bytes(), false, None).unwrap();
        assert_eq!((verdict.dialect, verdict.certainty, verdict.records), (dialect, certainty, 0), "{text:?}");
    }
    let verdict = detect(b"a,b\n`1`,`x", false, None).unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::C, Certainty::Proven));
}

#[test]
fn a_header_alone_is_of_any_dialect() {
    for (sample, complete) in [(&b"id,name\n"[..], true), (b"id,name", true), (b"id,na", false), (b"", false)] {
        let verdict = detect(sample, complete, None).unwrap();
        assert_eq!((verdict.dialect, verdict.certainty, verdict.records), (Dialect::B, Certainty::Ambiguous, 0));
        for hint in Dialect::ERAS {
            let verdict = detect(sample, complete, Some(hint)).unwrap();
            assert_eq!((verdict.dialect, verdict.certainty), (hint, Certainty::Hinted));
        }
    }
}

#[test]
fn what_no_dialect_reads_is_an_error_that_names_each_reason() {
    let error = detect(b"", true, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no dialect reads the file: A (record 0, byte 0: the input is empty), B (record 0, byte 0: the input is \
         empty), C (record 0, byte 0: the input is empty), D (record 0, byte 0: the input is empty)"
    );
    let error = detect(b"a,b\n1,\"x\\\"y\"\n", true, Some(Dialect::D)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no dialect reads the file: A (record 1, byte 10: text follows a closing quote), B (record 1, byte 4: a value \
         is not quoted), C (record 1, byte 4: a value is not quoted), D (record 1, byte 4: a value is not quoted)"
    );
    let error = detect(b"a,b\n1\n2\n", true, None).unwrap_err();
    assert_eq!(error.attempts[0].to_string(), "A (record 1, byte 4: 1 field where the header has 2)");
    let error = detect(b"a,b\n\"1\",\"x", true, Some(Dialect::B)).unwrap_err();
    assert_eq!(error.attempts[1].to_string(), "B (record 1, byte 4: the input ends inside quotes)");
}

#[test]
fn a_few_records_of_a_wrong_width_do_not_hide_the_dialect() {
    let verdict = detect(b"a,b\n1,2\n3\n4,\"x\"\"y\"\n", true, None).unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::A, Certainty::Proven));
    assert_eq!(
        verdict.evidence,
        "3 records, 1 quoted value, 1 doubled quote; not D (record 1, byte 4: a value is not quoted); 1 record of \
         another width than the header"
    );
}

#[test]
fn a_hint_of_another_kind_is_tried_alone() {
    let semicolons = Dialect::new(b';', b'"', b'"', Quoting::AsNeeded).unwrap();
    let verdict = detect(b"a;b\n1;\"x;y\"\n", true, Some(semicolons)).unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (semicolons, Certainty::Hinted));
    assert_eq!(verdict.evidence, "1 record, without a contradiction");
    let error = detect(b"a;b\n1;\"x\"y\n", true, Some(semicolons)).unwrap_err();
    assert_eq!(error.to_string(), "no dialect reads the file: custom (record 1, byte 9: text follows a closing quote)");
}

const ATOMS: [&str; 14] =
    ["\"", "\"\"", "\\", "\\\\", "\\\"", "\n\\.\n", "\n", "\r\n", ",", "`", "``", "plain", " ", "\",\""];

fn table() -> impl Strategy<Value = Vec<Row>> {
    let text =
        |atoms: &'static [&'static str]| vec(prop::sample::select(atoms), 0..4).prop_map(|atoms| Some(atoms.concat()));
    // All atoms; or few, so that a table has nothing but these to tell by.
    let atoms = prop_oneof![
        Just(&ATOMS[..]),
        Just(&["plain", "\\\\", ","][..]),
        Just(&["plain", "\\", ","][..]),
        Just(&["plain", "\"", ","][..]),
        Just(&[",", "\"", "\\", "\n"][..]),
    ];
    (1usize..5, atoms)
        .prop_flat_map(move |(width, atoms)| vec(vec(prop_oneof![1 => Just(None), 3 => text(atoms)], width), 0..12))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the file and wherever the sample ends, a reader that follows the verdict gets the right values or
    /// an error, except where the documentation of `detect` says what the price is.
    #[test]
    fn no_verdict_changes_values(rows in table(), cut in any::<prop::sample::Index>()) {
        for written in Dialect::ERAS {
            let csv = write(written, &rows);
            for (sample, complete) in [(&csv[..], true), (&csv[..cut.index(csv.len())], false)] {
                let verdict = detect(sample, complete, None).unwrap();
                let guard = verdict.certainty == Certainty::Ambiguous;
                let result = read(&csv, verdict.dialect, guard);
                let c_or_a = written == Dialect::A && verdict.dialect == Dialect::C;
                let b_or_d = written != Dialect::D && verdict.certainty == Certainty::Likely;
                if c_or_a || b_or_d {
                    continue;
                }
                match result {
                    Ok(found) => prop_assert_eq!(&found, &rows, "{} as {:?}", written, verdict),
                    Err(error) => prop_assert!(guard, "{} as {:?}: {}", written, verdict, error),
                }
                let hinted = detect(sample, complete, Some(written)).unwrap();
                if hinted.dialect != written {
                    prop_assert_eq!((hinted.dialect, written), (Dialect::C, Dialect::A));
                }
            }
        }
    }

    /// A dialect that is not the file's is refused by its grammar or by the verdict, or gives the same values.
    #[test]
    fn no_wrong_dialect_is_silent(rows in table()) {
        for written in Dialect::ERAS {
            let csv = write(written, &rows);
            let verdict = detect(&csv, true, None).unwrap();
            for read_as in Dialect::ERAS {
                if let Ok(found) = read(&csv, read_as, verdict.certainty == Certainty::Ambiguous)
                    && found != rows
                    && verdict.certainty != Certainty::Likely
                {
                    prop_assert!(verdict.dialect != read_as || (written, read_as) == (Dialect::A, Dialect::C));
                }
            }
        }
    }
}

fn sample(dialect: Dialect) -> Vec<u8> {
    let path = format!("{}/tests/data/dialects/{}.csv", env!("CARGO_MANIFEST_DIR"), dialect.name());
    std::fs::read(path).expect("the samples are part of the repository")
}

fn read(csv: &[u8], dialect: Dialect, guard: bool) -> Result<Vec<Row>, RecordError> {
    let mut options = RecordOptions::default();
    options.guard = guard;
    let mut records = Records::new(csv, dialect, options)?;
    let mut rows = Vec::new();
    while let Some(record) = records.next_record()? {
        let value = |bytes: std::borrow::Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
        rows.push(record.fields().map(|field| field.value().map(value)).collect());
    }
    Ok(rows)
}

/// Writes CSV as `COPY TO` does.
fn write(dialect: Dialect, rows: &[Row]) -> Vec<u8> {
    let width = rows.first().map_or(1, Vec::len);
    let mut csv = ["a", "b", "c", "d"][..width].join(",");
    csv.push('\n');
    let quote = char::from(dialect.quote());
    let escape = char::from(dialect.escape());
    for row in rows {
        let values = row.iter().map(|value| match value {
            None => String::new(),
            Some(text)
                if dialect.quoting() == Quoting::AsNeeded
                    && !text.is_empty()
                    && !text.contains([',', quote, '\n', '\r']) =>
            {
                text.clone()
            }
            Some(text) => {
                let escaped = text.replace(escape, &format!("{escape}{escape}"));
                let escaped =
                    if escape == quote { escaped } else { escaped.replace(quote, &format!("{escape}{quote}")) };
                format!("{quote}{escaped}{quote}")
            }
        });
        csv += &values.collect::<Vec<_>>().join(",");
        csv.push('\n');
    }
    csv.into_bytes()
}
