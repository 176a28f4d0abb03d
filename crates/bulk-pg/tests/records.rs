//! Records and COPY text, case by case; the samples in `data/dialects` are PostgreSQL's output.

#[path = "support/csv.rs"]
mod csv;

use std::io::{self, Read};

use bulk_pg::{
    Contradiction, CopyText, Dialect, Grammar, Header, NoSuchField, Position, RecordError, RecordErrorKind,
    RecordOptions, Records, Source,
};
use csv::{NAMES, Row, Trickle, decode_copy_text, options, read_all, row, semicolons, write};

/// The rows of `t.sql`, from which PostgreSQL wrote the samples.
const SAMPLE: [[Option<&str>; 7]; 7] = [
    [Some("1"), Some("plain"), None, Some("t"), Some("2020-06-25 17:13:53.973335+00"), Some("2020-01-02"), Some("0.5")],
    [Some("2"), Some(""), Some(" "), Some("f"), Some("2022-03-09 10:53:56.197499+00"), None, Some("1e-07")],
    [Some("3"), Some("say \"hi\", ok"), Some("back\\slash"), None, None, None, None],
    [Some("4"), Some("multi\nline\r\nwith\rcr\ttab"), Some("trailing\\"), None, None, None, None],
    [Some("5"), Some("x\n\\.\ny"), Some("\\N"), None, None, None, None],
    [Some("6"), Some("\\\""), Some("\"\""), None, None, None, None],
    [Some("7"), Some("back`tick"), Some("é😀"), None, None, None, None],
];

fn sample(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/dialects/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("the samples are part of the repository")
}

#[test]
fn the_samples_of_all_eras_hold_the_same_rows() {
    let expected: Vec<Row> = SAMPLE.iter().map(|row| row.map(|value| value.map(|text| text.into())).into()).collect();
    for dialect in Dialect::ERAS {
        let file = sample(dialect.name());
        let (header, rows) = read_all(&file[..], dialect, options(7)).unwrap();
        assert_eq!(header.names(), ["id", "a", "b", "flag", "ts", "d", "f"]);
        assert_eq!(rows, expected, "{dialect}");
    }
}

#[test]
fn records_know_where_they_stand() {
    let csv = "a,b\n1,\"x\ny\"\n,\"\"\n";
    let mut records = Records::new(csv.as_bytes(), Dialect::A, RecordOptions::default()).unwrap();
    assert_eq!(records.header().end(), 4);
    assert_eq!(records.position(), Position { offset: 4, record: 0, chunk: 0 });

    let record = records.next_record().unwrap().unwrap();
    assert_eq!((record.number(), record.offset(), record.raw()), (1, 4, &b"1,\"x\ny\"\n"[..]));
    assert_eq!((record.field_count(), record.chunk(), record.ends_chunk()), (2, 0, false));
    let field = record.field(1).unwrap();
    assert_eq!((field.raw(), field.is_quoted(), field.needs_unescape()), (&b"x\ny"[..], true, false));
    assert!(record.field(2).is_none());

    let record = records.next_record().unwrap().unwrap();
    assert_eq!((record.number(), record.offset()), (2, 12));
    assert!(record.field(0).unwrap().is_null());
    assert_eq!(record.field(0).unwrap().value(), None);
    assert_eq!(record.field(1).unwrap().value().as_deref(), Some(&b""[..]));

    assert!(records.next_record().unwrap().is_none());
    assert!(records.next_record().unwrap().is_none());
    assert_eq!(records.position(), Position { offset: csv.len() as u64, record: 2, chunk: 0 });
}

#[test]
fn line_ends_are_those_of_the_first_line() {
    for newline in ["\n", "\r", "\r\n"] {
        let csv = ["a,b", "1,\"x\ny\rz\r\n\"", ",", "2,3"].join(newline);
        let expected = [row(["1", "x\ny\rz\r\n"]), vec![None, None], row(["2", "3"])];
        for end in ["", newline] {
            let csv = format!("{csv}{end}");
            let (_, rows) = read_all(csv.as_bytes(), Dialect::A, options(1)).unwrap();
            assert_eq!(rows, expected, "{csv:?}");
        }
    }
}

#[test]
fn mixed_line_ends_are_an_error() {
    for (csv, message) in [
        ("a\n1\r\n2\n", "record 1, byte 3: the line ends in another way than the first line"),
        ("a\n1\r2\n", "record 1, byte 3: the line ends in another way than the first line"),
        ("a\r\n1\n", "record 1, byte 4: the line ends in another way than the first line"),
        ("a\r\n1\r2\r\n", "record 1, byte 4: the line ends in another way than the first line"),
        ("a\r1\n", "record 1, byte 3: the line ends in another way than the first line"),
    ] {
        let error = read_all(csv.as_bytes(), Dialect::A, options(1)).unwrap_err();
        assert_eq!(error.to_string(), message, "{csv:?}");
        assert!(!error.is_reject());
    }
}

#[test]
fn one_column_of_null_is_an_empty_line() {
    let (_, rows) = read_all(&b"a\n\n\"\"\n\\.\n"[..], Dialect::A, options(3)).unwrap();
    assert_eq!(rows, [vec![None], row([""]), row(["\\."])]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_name() {
    for size in [1, 2, 3, 100] {
        let csv = "\u{feff}\"id\",b\n1,\u{feff}\n";
        let (header, rows) = read_all(csv.as_bytes(), Dialect::A, options(size)).unwrap();
        assert_eq!(header.names(), ["id", "b"]);
        assert_eq!(header.end(), 10);
        assert_eq!(rows, [row(["1", "\u{feff}"])]);
    }
}

#[test]
fn a_header_may_be_quoted_and_is_bare_under_force_quote() {
    let (header, rows) = read_all(&b"a,`b,``c`\n`1`,`2`\n"[..], Dialect::C, options(4)).unwrap();
    assert_eq!(header.names(), ["a", "b,`c"]);
    assert_eq!(rows, [row(["1", "2"])]);
}

#[test]
fn contradictions_are_loud() {
    let d = r#"D: quotes ", escaped by a backslash, every value quoted"#;
    let a = r#"A: quotes ", doubled inside, values quoted where needed"#;
    let b = r#"B: quotes ", doubled inside, every value quoted"#;
    for (dialect, csv, kind, message) in [
        (
            Dialect::D,
            "id,b\n\"1\",\"x\"\n\"2\",\"say \"\"hi\"\"\"\n",
            Contradiction::TextAfterQuote,
            format!(
                "record 2, byte 23, column \"b\": text follows a closing quote, so the file is not of dialect {d}; name the right one with --dialect"
            ),
        ),
        (
            Dialect::D,
            "id,b\n\"1\",\"a\\b\"\n",
            Contradiction::LoneEscape,
            format!(
                "record 1, byte 11, column \"b\": an escape stands before neither a quote nor an escape, so the file is not of dialect {d}; name the right one with --dialect"
            ),
        ),
        (
            Dialect::A,
            "id,b\n1,a\"b\"\n",
            Contradiction::QuoteInBareValue,
            format!(
                "record 1, byte 8, column \"b\": a quote stands inside an unquoted value, so the file is not of dialect {a}; name the right one with --dialect"
            ),
        ),
        (
            Dialect::B,
            "id,b\n\"1\",2",
            Contradiction::BareValue,
            format!(
                "record 1, byte 9, column \"b\": a value is not quoted, so the file is not of dialect {b}; name the right one with --dialect"
            ),
        ),
        (
            Dialect::A,
            "\"id\"x,b\n",
            Contradiction::TextAfterQuote,
            format!(
                "header, byte 4: text follows a closing quote, so the file is not of dialect {a}; name the right one with --dialect"
            ),
        ),
    ] {
        for size in [1, 1000] {
            let error = read_all(csv.as_bytes(), dialect, options(size)).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(matches!(error.kind, RecordErrorKind::Contradiction(what) if what == kind));
            assert!(error.is_dialect() && !error.is_reject());
        }
    }
}

#[test]
fn the_server_grammar_reads_what_the_server_reads() {
    let options = || {
        let mut options = options(1);
        options.grammar = Grammar::Server;
        options
    };
    // COPY t FROM … (FORMAT csv), and with ESCAPE '\'.
    let (_, rows) = read_all(&b"a,b\nx\"y,\"z,\"w\"\"\"\nv\"\",\"a\\b\"\n"[..], Dialect::A, options()).unwrap();
    assert_eq!(rows, [row(["xy,z", "w\""]), row(["v", "a\\b"])]);
    let csv = b"a,b\nx\"\\\"y\\z\"\\,\"say \"\"hi\"\"\"\n\"a\\\\b\\c\",\"\"x\n";
    let (_, rows) = read_all(&csv[..], Dialect::D, options()).unwrap();
    assert_eq!(rows, [row(["x\"y\\z\\", "say hi"]), row(["a\\b\\c", "x"])]);
}

#[test]
fn input_that_ends_inside_quotes_names_where_the_record_starts() {
    for (dialect, csv) in
        [(Dialect::B, "a,b\n\"1\",\"x\n"), (Dialect::D, "a,b\n\"1\",\"x\\"), (Dialect::D, "a,b\n\"1\",\"\\\"")]
    {
        for size in [1, 1000] {
            let error = read_all(csv.as_bytes(), dialect, options(size)).unwrap_err();
            assert!(matches!(error.kind, RecordErrorKind::Unterminated), "{error}");
            assert_eq!((error.record, error.start, error.offset), (1, 4, 4));
            assert_eq!(error.column.as_deref(), Some("b"));
        }
    }
}

#[test]
fn a_bad_record_alone_is_a_reject_and_reading_goes_on() {
    let mut csv = b"a,b\n1,2\n3\n4,5,6\n7,x\0y\n8,caf\xe9\n9,\xe2\x82\n10,11\n".to_vec();
    csv.extend_from_slice("12,é\0\n\0,\0\n13,14\n".as_bytes());
    for (buffer_size, read_size) in [(1, 1), (7, 3), (64, 64), (1 << 16, 5)] {
        let mut options = options(buffer_size);
        options.chunk_size = 0;
        let mut records = Records::new(Trickle::new(&csv, read_size), Dialect::A, options).unwrap();
        let mut events = Vec::new();
        loop {
            let event = match records.next_record() {
                Ok(Some(record)) => format!("{} {:?}", record.number(), String::from_utf8_lossy(record.raw())),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.is_reject());
                    format!("{error} {:?}", records.rejected().escape_ascii().to_string())
                }
            };
            events.push(event);
            assert_eq!(records.position().chunk, events.len() as u64);
        }
        assert_eq!(
            events,
            [
                "1 \"1,2\\n\"",
                "record 2, byte 8: 1 field where the header has 2 \"3\\\\n\"",
                "record 3, byte 10: 3 fields where the header has 2 \"4,5,6\\\\n\"",
                "record 4, byte 19, column \"b\": a NUL byte, which text in PostgreSQL cannot hold \"7,x\\\\x00y\\\\n\"",
                "record 5, byte 27, column \"b\": invalid UTF-8 \"8,caf\\\\xe9\\\\n\"",
                "record 6, byte 31, column \"b\": invalid UTF-8 \"9,\\\\xe2\\\\x82\\\\n\"",
                "7 \"10,11\\n\"",
                "record 8, byte 45, column \"b\": a NUL byte, which text in PostgreSQL cannot hold \"12,\\\\xc3\\\\xa9\\\\x00\\\\n\"",
                "record 9, byte 47, column \"a\": a NUL byte, which text in PostgreSQL cannot hold \"\\\\x00,\\\\x00\\\\n\"",
                "10 \"13,14\\n\"",
            ]
        );
    }
}

#[test]
fn a_character_cut_off_by_the_end_is_invalid() {
    let error = read_all(&b"a\n\"x\"\ny\xf0\x9f\x98"[..], Dialect::A, options(4)).unwrap_err();
    assert_eq!(error.to_string(), "record 2, byte 7, column \"a\": invalid UTF-8");
}

#[test]
fn a_bad_header_is_no_reject() {
    for (csv, message) in [
        (&b""[..], "header, byte 0: the input is empty"),
        (b"a,\xff\n1,2\n", "header, byte 2: invalid UTF-8"),
        (
            b"a,\"b",
            "header, byte 0: the input ends inside quotes (read as dialect A: quotes \", doubled inside, values quoted where needed): it is cut off, or of another dialect",
        ),
    ] {
        let error = read_all(csv, Dialect::A, options(3)).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!error.is_reject());
    }
}

#[test]
fn a_record_beyond_the_limit_is_an_error_whatever_the_buffer() {
    let csv = format!("a\n{}\n{}\n", "x".repeat(98), "y".repeat(99));
    for buffer_size in [1, 50, 100, 101, 1000] {
        let mut options = options(buffer_size);
        options.max_record = 99;
        let mut records = Records::new(csv.as_bytes(), Dialect::A, options.clone()).unwrap();
        assert_eq!(records.next_record().unwrap().unwrap().raw().len(), 99);
        for _ in 0..2 {
            let error = records.next_record().unwrap_err();
            assert!(matches!(error.kind, RecordErrorKind::TooLong { limit: 99 }));
            assert_eq!(
                error.to_string(),
                "record 2, byte 101: longer than 99 bytes (read as dialect A: quotes \", doubled inside, values quoted \
                 where needed): a quote is not closed, or the dialect is another, or the limit is too low (--max-record)"
            );
        }
        options.max_record = 100;
        assert_eq!(read_all(csv.as_bytes(), Dialect::A, options).unwrap().1.len(), 2);
    }
}

#[test]
fn a_record_beyond_the_limit_that_is_cut_off_is_beyond_the_limit_whatever_the_buffer() {
    let csv = format!("a\n\"{}", "x".repeat(12));
    for buffer_size in [1, 12, 13, 14, 1000] {
        let mut options = options(buffer_size);
        options.max_record = 12;
        let error = read_all(csv.as_bytes(), Dialect::A, options.clone()).unwrap_err();
        assert!(matches!(error.kind, RecordErrorKind::TooLong { limit: 12 }), "{error}");
        options.max_record = 13;
        let error = read_all(csv.as_bytes(), Dialect::A, options).unwrap_err();
        assert!(matches!(error.kind, RecordErrorKind::Unterminated), "{error}");
    }
}

#[test]
fn a_record_has_at_most_65536_fields() {
    let wide = ",".repeat(65_535);
    for buffer_size in [1000, 1 << 20] {
        let csv = format!("{wide}\n{wide}\n,{wide}\n");
        let mut records = Records::new(csv.as_bytes(), Dialect::A, options(buffer_size)).unwrap();
        assert_eq!(records.next_record().unwrap().unwrap().field_count(), 65_536);
        let error = records.next_record().unwrap_err();
        assert!(matches!(error.kind, RecordErrorKind::TooManyFields { limit: 65_536 }), "{error}");
        assert_eq!((error.record, error.start, error.offset), (2, 2 * 65_536, 3 * 65_536));
        assert!(!error.is_reject());
    }
}

#[test]
fn a_long_record_is_read_through_a_small_buffer() {
    let long = "é\"\\\n".repeat(1 << 18);
    let rows: Vec<Row> = [&long[..], "short", &long[..5 << 14], ""].map(|text| row([text])).into();
    for dialect in Dialect::ERAS {
        let csv = write(dialect, &["a"], &rows, "\n");
        let (_, read) = read_all(Trickle::new(&csv, 1000), dialect, options(16)).unwrap();
        assert!(read == rows, "{dialect}");
    }
}

#[test]
fn whole_records_come_before_the_error_of_the_reader() {
    let input = b"a\n1\n2\n3".chain(Broken);
    let mut records = Records::new(input, Dialect::A, RecordOptions::default()).unwrap();
    assert_eq!(records.next_record().unwrap().unwrap().raw(), b"1\n");
    assert_eq!(records.next_record().unwrap().unwrap().raw(), b"2\n");
    let error = records.next_record().unwrap_err();
    assert_eq!(error.to_string(), "record 3, byte 7: cannot read on");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is gone");
    assert_eq!(records.position(), Position { offset: 6, record: 2, chunk: 0 });
}

#[test]
fn the_guard_stops_at_the_first_record_that_the_other_dialect_reads_differently() {
    let mut options = options(10);
    options.guard = true;
    let read = |dialect, csv: &str| {
        let mut records = Records::new(csv.as_bytes(), dialect, options.clone()).unwrap();
        let mut count = 0;
        while records.next_record()?.is_some() {
            count += 1;
        }
        Ok::<_, RecordError>((count, records.is_guarded()))
    };
    // Nothing to tell them apart.
    assert_eq!(read(Dialect::B, "a,b\n\"x\",\"y\"\n,\"\"\n").unwrap(), (2, true));
    // A doubled quote, and a single backslash, are B's alone; after them pairs of backslashes are no riddle.
    assert_eq!(read(Dialect::B, "a,b\n\"x\",\"y\"\n,\"\"\"\"\n,\"\\\\\"\n").unwrap(), (3, false));
    assert_eq!(read(Dialect::B, "a,b\n,\"x\\y\"\n,\"\\\\\"\n").unwrap(), (2, false));
    assert_eq!(read(Dialect::D, "a,b\n,\"\\\"x\"\n,\"\\\\\"\n").unwrap(), (2, false));
    // An unquoted backslash is one in both.
    assert_eq!(read(Dialect::A, "a,b\n,\\\\\n").unwrap(), (1, true));

    for (dialect, csv) in [
        (Dialect::B, "a,b\n,\"x\"\n,\"\\\\server\"\n,\"\"\"\"\n"),
        (Dialect::D, "a,b\n,\"x\"\n,\"\\\\server\"\n,\"\\\"x\"\n"),
        (Dialect::B, "a,b\n,\"x\"\n,\"trailing\\\"\n"),
    ] {
        let error = read(dialect, csv).unwrap_err();
        assert!(matches!(error.kind, RecordErrorKind::Ambiguous), "{error}");
        assert_eq!((error.record, error.start), (2, 9));
    }
    let error = read(Dialect::B, "a\n\"\\\\\"\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "record 1, byte 2: this record reads differently as B: quotes \", doubled inside, every value quoted and as \
         D: quotes \", escaped by a backslash, every value quoted, and nothing before it told which one the file is; \
         name it with --dialect"
    );
}

#[test]
fn a_stream_without_a_header_starts_at_its_first_record() {
    let header = Header::new(vec!["a".into(), "b".into()]);
    let mut records =
        Records::resume(&b"1;2\n"[..], semicolons(), header, Position::default(), RecordOptions::default());
    let record = records.next_record().unwrap().unwrap();
    assert_eq!((record.number(), record.offset(), record.field(1).unwrap().raw()), (1, 0, &b"2"[..]));
}

#[test]
fn copy_text_takes_columns_from_where_it_is_told() {
    let csv = b"a,b,c\n\"1\",\"\\\\N\",\n\"\",\"x\\\"\t\\\\\n\r\x08\x0b\x0c\",\"\xc3\xa9\"\n";
    let columns =
        [Source::Field(2), Source::Constant(b"k\\\n".to_vec()), Source::Field(1), Source::Null, Source::Field(0)];
    let encoder = CopyText::new(&columns, 3).unwrap();
    let mut records = Records::new(&csv[..], Dialect::D, RecordOptions::default()).unwrap();
    let mut rows = Vec::new();
    while let Some(record) = records.next_record().unwrap() {
        encoder.append(&record, &mut rows);
    }
    let expected = "\\N\tk\\\\\\n\t\\\\N\t\\N\t1\né\tk\\\\\\n\tx\"\\t\\\\\\n\\r\\b\\v\\f\t\\N\t\n";
    assert_eq!(String::from_utf8(rows).unwrap(), expected);

    assert_eq!(CopyText::new(&[Source::Field(3)], 3).unwrap_err(), NoSuchField { index: 3, fields: 3 });
}

/// Long values are encoded in stretches, and no escape may be torn at their borders.
#[test]
fn copy_text_of_long_values() {
    for dialect in [Dialect::A, Dialect::D, semicolons()] {
        let quote = char::from(dialect.quote());
        let texts =
            (4070..4110).map(|len| format!("{}\\{quote}{quote}\n\\\\~{}{quote}é", "x".repeat(len), "y\t".repeat(len)));
        let rows: Vec<Row> = texts.map(|text| row([&text, "1", &text])).collect();
        let csv = write(dialect, &NAMES[..3], &rows, "\n");
        for grammar in [Grammar::Strict, Grammar::Server] {
            let mut options = options(100);
            options.grammar = grammar;
            let mut records = Records::new(&csv[..], dialect, options).unwrap();
            let encoder = CopyText::new(&[0, 1, 2].map(Source::Field), 3).unwrap();
            let mut text = b"before\n".to_vec();
            while let Some(record) = records.next_record().unwrap() {
                encoder.append(&record, &mut text);
            }
            let decoded = decode_copy_text(&text);
            assert_eq!(decoded[0], row(["before"]));
            assert!(decoded[1..] == rows, "{dialect}");
        }
    }
}

#[test]
fn a_table_without_columns_has_empty_rows() {
    let encoder = CopyText::new(&[], 1).unwrap();
    let mut records = Records::new(&b"a\n1\n"[..], Dialect::A, RecordOptions::default()).unwrap();
    let mut text = Vec::new();
    encoder.append(&records.next_record().unwrap().unwrap(), &mut text);
    assert_eq!(text, b"\n");
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is gone"))
    }
}
