//! COPY binary against the server: of the same values it stores the same as by COPY text, what the encoder refuses it
//! refuses, too, and the rows are the ones that it would have written itself.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;

use bulk_pg::{BinaryType, CopyBinary, Dialect, Grammar, RecordOptions, Records, Session, Source, Unencoded};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::Bench;

/// Spellings of each type.
const SPELLINGS: usize = 1000;

/// How many values had which outcome.
#[derive(Debug, Default)]
struct Seen {
    understood: usize,
    unclear: usize,
    invalid: usize,
    /// Of the invalid ones: the server says the very same.
    same_words: usize,
}

struct Reference {
    session: Session,
    _bench: Bench,
}

#[derive(Debug)]
struct Refused {
    sqlstate: String,
    message: String,
    place: String,
}

impl Reference {
    async fn new() -> Self {
        let bench = Bench::new("binary", "");
        let session = bench.session().await;
        Self { session, _bench: bench }
    }

    async fn run(&self, sql: &str) {
        self.session.client().batch_execute(sql).await.unwrap();
    }

    async fn copy_in(&self, statement: &str, data: Vec<u8>) -> Result<u64, Refused> {
        let sent = async {
            let mut sink = pin!(self.session.client().copy_in::<_, Bytes>(statement).await?);
            sink.send(data.into()).await?;
            sink.finish().await
        };
        sent.await.map_err(|error: tokio_postgres::Error| {
            let error = error.as_db_error().expect("the server answers");
            Refused {
                sqlstate: error.code().code().to_owned(),
                message: error.message().to_owned(),
                place: error.where_().unwrap_or_default().to_owned(),
            }
        })
    }

    async fn copy_out(&self, query: &str) -> Vec<u8> {
        let statement = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let chunks = self.session.client().copy_out(&statement).await.unwrap();
        chunks.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    }

    async fn binary_type(&self, table: &str, column: &str) -> Option<BinaryType> {
        let sql = "SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2";
        let row = self.session.client().query_one(sql, &[&table, &column]).await.unwrap();
        BinaryType::new(row.get(0), row.get(1))
    }

    /// Compares so many spellings, without those that come twice.
    async fn spellings(&self, type_name: &str, count: usize, strategy: impl Strategy<Value = String>) -> Seen {
        let mut runner = TestRunner::new(Config::default());
        let values: BTreeSet<String> = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
        self.compare(type_name, &Vec::from_iter(values)).await
    }

    /// Sends the values to two columns of this type, as text and as binary. Nothing of it stays.
    async fn compare(&self, type_name: &str, values: &[String]) -> Seen {
        self.run("BEGIN").await;
        self.run(&format!("CREATE TABLE a (n int, v {type_name}); CREATE TABLE b (LIKE a)")).await;
        let of_value = self.binary_type("a", "v").await.expect("the type can be encoded");
        let of_number = self.binary_type("a", "n").await.unwrap();

        let mut seen = Seen::default();
        let (mut text, mut binary) = (Vec::new(), CopyBinary::HEADER.to_vec());
        let mut refused = Vec::new();
        for (index, dialect) in Dialect::ERAS.into_iter().enumerate() {
            let values: Vec<_> = values.iter().enumerate().skip(index).step_by(Dialect::ERAS.len()).collect();
            let csv = csv(&values, dialect);
            let mut records = Records::new(&csv[..], dialect, RecordOptions::default()).unwrap();
            let columns = [(Source::Field(0), of_number), (Source::Field(1), of_value)];
            let mut encoder = CopyBinary::new(&columns, 2).unwrap();
            for (number, value) in values {
                let record = records.next_record().unwrap().unwrap();
                let before = binary.clone();
                match encoder.append(&record, &mut binary) {
                    Ok(()) => {
                        copy_text_row(number, value, &mut text);
                        seen.understood += 1;
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.column(), 1);
                        assert!(binary == before, "{value:?}");
                        match refusal {
                            Unencoded::Unclear { .. } => seen.unclear += 1,
                            Unencoded::Invalid { sqlstate, message, .. } => {
                                seen.invalid += 1;
                                refused.push((value, sqlstate, message));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
        binary.extend_from_slice(&CopyBinary::TRAILER);

        // What the encoder understands does not depend on these.
        self.run("SET LOCAL datestyle = 'Postgres, DMY'; SET LOCAL timezone = 'Asia/Kathmandu'").await;
        let taken = |copied: Result<u64, Refused>| match copied {
            Ok(rows) => rows,
            Err(refused) => panic!("{type_name}: {}, {}", refused.message, refused.place),
        };
        let rows = seen.understood as u64;
        assert_eq!(taken(self.copy_in("COPY a FROM STDIN", text).await), rows);
        assert_eq!(taken(self.copy_in("COPY b FROM STDIN (FORMAT binary)", binary).await), rows);
        let differing = "SELECT n, a.v::text, b.v::text FROM a FULL JOIN b USING (n)
             WHERE a.v::text IS DISTINCT FROM b.v::text ORDER BY n";
        if let Some(row) = self.session.client().query(differing, &[]).await.unwrap().first() {
            let (number, theirs, ours): (i32, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
            panic!("{type_name} {:?} is {theirs:?}, and ours {ours:?}", values[number as usize]);
        }
        // Down to the last bit.
        let (theirs, ours) = ("SELECT * FROM a ORDER BY n", "SELECT * FROM b ORDER BY n");
        assert!(self.copy_out(theirs).await == self.copy_out(ours).await, "{type_name}");

        self.run("SAVEPOINT s").await;
        for (value, sqlstate, message) in refused {
            let mut row = Vec::new();
            copy_text_row(0, value, &mut row);
            let Err(theirs) = self.copy_in("COPY a FROM STDIN", row).await else {
                panic!("{type_name} {value:?}: {message}; and the server takes it");
            };
            self.run("ROLLBACK TO s").await;
            assert_eq!(theirs.sqlstate[..2], sqlstate[..2], "{type_name} {value:?}: {message}; {theirs:?}");
            seen.same_words += usize::from(theirs.sqlstate == sqlstate && theirs.message == message);
        }
        self.run("ROLLBACK").await;
        seen
    }
}

/// Two columns, of which the first is a number.
fn csv(values: &[(usize, &String)], dialect: Dialect) -> Vec<u8> {
    let mut csv = "n,v\n".to_owned();
    let (quote, escape) = (char::from(dialect.quote()), char::from(dialect.escape()));
    for (number, value) in values {
        let plain = dialect == Dialect::A && !value.is_empty() && !value.contains([quote, ',', '\n', '\r']);
        let number_quote = if dialect == Dialect::A { String::new() } else { quote.to_string() };
        write!(csv, "{number_quote}{number}{number_quote},").unwrap();
        if plain {
            csv.push_str(value);
        } else {
            csv.push(quote);
            for character in value.chars() {
                if character == quote || character == escape {
                    csv.push(escape);
                }
                csv.push(character);
            }
            csv.push(quote);
        }
        csv.push('\n');
    }
    csv.into_bytes()
}

fn copy_text_row(number: usize, value: &str, out: &mut Vec<u8>) {
    let escaped = value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    out.extend_from_slice(format!("{number}\t{escaped}\n").as_bytes());
}

/// What the strategy gives, a third of it with a small change or two.
fn edited(valid: impl Strategy<Value = String>, alphabet: &'static str) -> impl Strategy<Value = String> {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let edit = (any::<prop::sample::Index>(), 0..3, prop::sample::select(alphabet));
    (valid, prop_oneof![2 => Just(Vec::new()), 1 => vec(edit, 1..3)]).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (place, kind, character) in edits {
            let at = place.index(text.len() + 1);
            match kind {
                0 => text.insert(at, character),
                1 if at < text.len() => text[at] = character,
                2 if at < text.len() => drop(text.remove(at)),
                _ => text.push(character),
            }
        }
        text.into_iter().collect()
    })
}

fn any_of(characters: &'static str, count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let characters: Vec<char> = characters.chars().collect();
    vec(prop::sample::select(characters), count).prop_map(String::from_iter)
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

/// With blanks around it now and then.
fn spaced(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let space = || prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\t \n"), 1 => Just("\u{b}\u{c}\r")];
    (space(), text, space()).prop_map(|(before, text, after)| format!("{before}{text}{after}"))
}

fn integer() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i8>().prop_map(i128::from),
        any::<i16>().prop_map(i128::from),
        any::<i32>().prop_map(i128::from),
        any::<i64>().prop_map(i128::from),
        (prop::sample::select(vec![15, 16, 31, 32, 63, 64, 100]), -2..=2_i128)
            .prop_map(|(bit, near)| (1 << bit) + near),
        (prop::sample::select(vec![15, 16, 31, 32, 63, 64, 100]), -2..=2_i128)
            .prop_map(|(bit, near)| near - (1 << bit)),
        (0..20_u32, -1..=1_i128).prop_map(|(power, near)| 10_i128.pow(power) + near),
    ];
    let spelled = (number, 0..4, 0..30_usize).prop_map(|(number, style, width)| match style {
        0 => format!("{number:+}"),
        1 => format!("{number:0width$}"),
        _ => number.to_string(),
    });
    let odd =
        one_of(&["", "-", "+", " ", "--1", "1_000", "0x1F", "0b11", "0o17", "١", "1\u{a0}", "1e3", "1.0", "NULL"]);
    prop_oneof![20 => edited(spaced(spelled), "0123456789+- _xXobef.,é\t"), 1 => odd, 2 => any_of("01 +-x_b", 0..5)]
}

#[tokio::test]
async fn integers() {
    let reference = Reference::new().await;
    for type_name in ["smallint", "integer", "bigint"] {
        let seen = reference.spellings(type_name, SPELLINGS, integer()).await;
        assert!(seen.understood > 100 && seen.invalid > 80 && seen.unclear > 5, "{type_name}: {seen:?}");
    }
}

#[tokio::test]
async fn booleans() {
    let reference = Reference::new().await;
    let word =
        one_of(&["true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "T", "F", "null", "01", "o", ""]);
    let cut = (word, 0..6_usize, any::<u8>()).prop_map(|(word, len, upper)| {
        let case = |(at, letter): (usize, char)| {
            if upper >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        };
        word.chars().take(len).enumerate().map(case).collect()
    });
    let seen = reference.spellings("boolean", SPELLINGS, edited(spaced(cut), "tfyn10 oée")).await;
    assert!(seen.understood > 80 && seen.invalid > 80, "{seen:?}");
}

fn float() -> impl Strategy<Value = String> {
    let bits = prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_filter("a signed NaN is written as one without", |x| !x.is_nan()),
        any::<f64>(),
        any::<f32>().prop_map(f64::from),
        any::<u32>().prop_map(|bits| f64::from(f32::from_bits(bits))),
        (-330..310_i32).prop_map(|power| 10_f64.powi(power)),
    ];
    let written = (bits, 0..4).prop_map(|(number, style)| match style {
        0 => format!("{number}"),
        1 => format!("{number:e}"),
        2 => format!("{number:+.3E}"),
        _ => format!("{number:.12e}"),
    });
    let digits = (any_of("0123456789", 0..20), any_of("0123456789", 0..20), -400..400_i32, 0..4).prop_map(
        |(whole, fraction, exponent, style)| match style {
            0 => format!("{whole}.{fraction}"),
            1 => format!("-{whole}.{fraction}e{exponent}"),
            2 => format!("+{whole}E{exponent:+}"),
            _ => format!("{whole}.{fraction}e{exponent}"),
        },
    );
    let odd = one_of(&[
        "",
        ".",
        "-",
        "e5",
        "1e",
        "1e+",
        ".e1",
        "nan",
        "NaN",
        "-nan",
        "+NAN",
        "inf",
        "-Inf",
        "+inf",
        "infinity",
        "INFINITY",
        "-infinity",
        "+Infinity",
        "infinit",
        "0x1p3",
        "0x",
        "1f",
        "1d",
        "nan(1)",
        "-0",
        "-0.0",
        "0e999999",
        "1e-999",
        "1e999",
        "-1e999",
        "1e99999999999999999999",
        "1_0",
        "1,5",
        "4.9e-324",
        "2.4e-324",
        "2.5e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "3.4028235e38",
        "3.4028236e38",
        "1.4e-45",
        "0.7e-45",
        "0.70064923216240853e-45",
        "0.70064923216240854e-45",
        "1 2",
        "0",
        "00",
        "0000000000000000000000.1",
    ]);
    prop_oneof![4 => edited(spaced(written), "0123456789.eE+-xnif_ (é"), 4 => spaced(digits), 1 => spaced(odd)]
}

#[tokio::test]
async fn floats() {
    let reference = Reference::new().await;
    for type_name in ["real", "double precision"] {
        let seen = reference.spellings(type_name, SPELLINGS, float()).await;
        assert!(seen.understood > 200 && seen.invalid > 50 && seen.unclear > 5, "{type_name}: {seen:?}");
    }
}

fn numeric() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![3 => Just(String::new()), 1 => (-40..40_i32).prop_map(|exponent| format!("e{exponent}")),
        1 => (-9..9_i32).prop_map(|exponent| format!("E{exponent:+}"))];
    let digits = || {
        prop_oneof![
            any_of("0123456789", 0..12),
            any_of("09", 0..12),
            any_of("9", 0..8),
            any_of("0123456789", 0..60),
            any_of("0", 0..20),
        ]
    };
    let number = (one_of(&["", "", "-", "+"]), digits(), one_of(&["", ".", "."]), digits(), exponent)
        .prop_map(|(sign, whole, point, fraction, exponent)| format!("{sign}{whole}{point}{fraction}{exponent}"));
    let odd = one_of(&[
        "",
        ".",
        "-",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
        "1e",
        "e1",
        "0x1f",
        "1_000",
        "1,000",
        "$1",
        "-0",
        "-0.00",
        "1e200",
        "1e-200",
        "1e2000000",
        "1e-2000000",
        "1e99999999999",
        "0e5",
        "0e-5",
        "0.0e3",
        "abc",
        "é",
        "1.2.3",
        "1 2",
    ]);
    prop_oneof![10 => edited(spaced(number), "0123456789.eE+-x_ né"), 1 => spaced(odd)]
}

#[tokio::test]
async fn numerics() {
    let reference = Reference::new().await;
    for (type_name, understood) in [
        ("numeric", 500),
        ("numeric(10, 2)", 150),
        ("numeric(5)", 50),
        ("numeric(3, 3)", 30),
        ("numeric(38, 10)", 200),
        ("numeric(1000, 500)", 500),
    ] {
        let seen = reference.spellings(type_name, SPELLINGS, numeric()).await;
        assert!(seen.understood > understood && seen.invalid > 10 && seen.unclear > 30, "{type_name}: {seen:?}");
    }
}

fn date() -> impl Strategy<Value = String> {
    let year = prop_oneof![
        8 => 1600..2200_u32,
        2 => 0..10_000_u32,
        1 => 0..300_000_u32,
        1 => 4710..4716_u32,
        1 => 294_270..294_280_u32,
        1 => 5_874_890..5_874_900_u32,
        1 => 0..10_000_000_u32,
    ];
    let day = prop_oneof![6 => 1..29_u32, 2 => 27..33_u32, 1 => 0..40_u32];
    let month = prop_oneof![8 => 1..13_u32, 1 => 0..20_u32];
    (year, month, day, 0..20).prop_map(|(year, month, day, style)| match style {
        0 => format!("{year}-{month}-{day}"),
        1 => format!("{year:05}-{month:02}-{day:02}"),
        2 => format!("{month:02}/{day:02}/{year:04}"),
        3 => format!("{year:04}{month:02}{day:02}"),
        4 => format!("{year:04}-{month:02}"),
        _ => format!("{year:04}-{month:02}-{day:02}"),
    })
}

fn era() -> impl Strategy<Value = String> {
    prop_oneof![12 => Just(""), 2 => Just(" BC"), 1 => Just(" bc"), 1 => Just(" AD"), 1 => Just("BC")]
        .prop_map(str::to_owned)
}

fn time() -> impl Strategy<Value = String> {
    let hour = prop_oneof![8 => 0..24_u32, 1 => 22..27_u32, 1 => 0..100_u32];
    let minute = prop_oneof![8 => 0..60_u32, 1 => 58..63_u32];
    let second = prop_oneof![8 => 0..60_u32, 2 => 58..63_u32];
    let fraction = prop_oneof![
        3 => Just(String::new()),
        3 => any_of("0123456789", 1..7),
        1 => any_of("0123456789", 6..12),
        1 => any_of("09", 1..32),
        1 => any_of("5", 7..8).prop_map(|five| format!("123456{five}")),
        1 => (any_of("0123456789", 6..7), one_of(&["5", "49999999", "50000001", "4", "6"])).prop_map(|(a, b)| a + &b),
    ];
    (hour, minute, second, fraction, 0..10).prop_map(|(hour, minute, second, fraction, style)| match style {
        0 => format!("{hour:02}:{minute:02}"),
        1 => format!("{hour}:{minute:02}:{second:02}"),
        2 => format!("{hour:02}:{minute:02}.{fraction}"),
        3 => "24:00:00".to_owned(),
        _ if fraction.is_empty() => format!("{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}.{fraction}"),
    })
}

fn zone() -> impl Strategy<Value = String> {
    let offset = (one_of(&["+", "-"]), 0..18_u32, 0..62_u32, 0..62_u32, 0..6).prop_map(
        |(sign, hours, minutes, seconds, style)| match style {
            0 => format!("{sign}{hours:02}:{minutes:02}"),
            1 => format!("{sign}{hours:02}{minutes:02}"),
            2 => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
            3 => format!(" {sign}{hours:02}"),
            4 => format!("{sign}{hours}"),
            _ => format!("{sign}{hours:02}"),
        },
    );
    let name = one_of(&[
        "Z",
        "z",
        " Z",
        "UTC",
        " UTC",
        " utc",
        " America/New_York",
        " EST",
        " +00",
        "+00",
        "Zulu",
        "-00:00",
        "+000",
    ]);
    prop_oneof![1 => Just(String::new()), 4 => offset, 2 => name]
}

fn date_word() -> impl Strategy<Value = String> {
    one_of(&[
        "",
        " ",
        "infinity",
        "-infinity",
        "Infinity",
        "-INFINITY",
        "+infinity",
        "inf",
        "now",
        "today",
        "tomorrow",
        "yesterday",
        "epoch",
        "allballs",
        "abc",
        "N/A",
        "unknown",
        "null",
        "-",
        "0",
        "2020",
        "J2451187",
        "January 8, 1999",
        "1999-Jan-08",
        "20200102T030405",
        "20200102 030405",
        "0000-00-00",
        "0000-00-00 00:00:00",
        "2020-02-30",
        "2020-13-01",
        "1900-02-29",
        "2000-02-29",
        "2020-01-01T00:00",
        "2020-060",
        "99-01-01",
        "1/2/3",
        "2020.01.02",
        "today 10:00",
        "invalid",
        "é",
        "2020-01-01 12:00 PM",
        "2020-01-01 BC AD",
        "infinity BC",
        "monday",
        "may",
        "utc",
        "4713-11-24 BC",
        "4713-11-23 BC",
        "4714-11-24 BC",
        "4714-11-23 BC",
        "5874897-12-31",
        "5874898-01-01",
        "294276-12-31 23:59:59.999999",
        "294276-12-31 23:59:59.9999999",
        "294277-01-01",
        "1999-12-31 23:59:60",
        "2016-12-31 23:59:60.5",
        "2020-01-01 24:00:00",
        "2020-01-01 24:00:00.000001",
        "4714-11-24 00:00:00+00 BC",
        "294276-12-31 23:59:59-15",
        "4714-11-24 00:00:00+15 BC",
        "4714-11-23 23:00:00-15 BC",
        "294277-01-01 00:00:00+15",
    ])
}

#[tokio::test]
async fn dates() {
    let reference = Reference::new().await;
    let value = (date(), era()).prop_map(|(date, era)| date + &era);
    let value =
        prop_oneof![20 => edited(value, "0123456789- /.TBCé:"), 1 => date_word(), 1 => any_of("abc -/.:dnow", 0..8)];
    let seen = reference.spellings("date", 2 * SPELLINGS, value).await;
    assert!(seen.understood > 500 && seen.invalid > 80 && seen.unclear > 200, "{seen:?}");
}

fn date_time() -> impl Strategy<Value = String> {
    let value = (date(), one_of(&[" ", " ", " ", "T", "t", "  ", "_"]), time(), zone(), era())
        .prop_map(|(date, separator, time, zone, era)| format!("{date}{separator}{time}{zone}{era}"));
    let calm = (1900..2100_u32, 1..13_u32, 1..29_u32, time(), zone())
        .prop_map(|(year, month, day, time, zone)| format!("{year}-{month:02}-{day:02} {time}{zone}"));
    let alone = (date(), era()).prop_map(|(date, era)| date + &era);
    prop_oneof![
        10 => edited(value, "0123456789- /.TBZ+é:"),
        10 => calm,
        1 => alone,
        1 => date_word(),
        1 => any_of("abc -/.:dnow", 0..8)
    ]
}

#[tokio::test]
async fn timestamps() {
    let reference = Reference::new().await;
    for type_name in ["timestamp", "timestamp(3)", "timestamp(0)"] {
        let seen = reference.spellings(type_name, 2 * SPELLINGS, date_time()).await;
        assert!(seen.understood > 400 && seen.invalid > 100 && seen.unclear > 300, "{type_name}: {seen:?}");
    }
}

#[tokio::test]
async fn timestamps_with_time_zone() {
    let reference = Reference::new().await;
    for type_name in ["timestamptz", "timestamptz(3)", "timestamptz(0)"] {
        let seen = reference.spellings(type_name, 2 * SPELLINGS, date_time()).await;
        assert!(seen.understood > 300 && seen.invalid > 100 && seen.unclear > 300, "{type_name}: {seen:?}");
    }
}

#[tokio::test]
async fn uuids() {
    let reference = Reference::new().await;
    let value = (any::<u128>(), any::<bool>(), any::<u8>(), 0..6).prop_map(|(number, upper, hyphens, style)| {
        let digits = if upper { format!("{number:032X}") } else { format!("{number:032x}") };
        let hyphens = if style < 3 { 0b0001_1110 } else { hyphens };
        let mut text = String::new();
        for (group, digits) in digits.as_bytes().chunks(4).enumerate() {
            if group > 0 && hyphens >> group & 1 == 1 {
                text.push('-');
            }
            text.push_str(str::from_utf8(digits).unwrap());
        }
        if style == 4 { format!("{{{text}}}") } else { text }
    });
    let odd = one_of(&["", "{}", "-", "00000000-0000-0000-0000-00000000000", "{00000000-0000-0000-0000-000000000000"]);
    let seen = reference.spellings("uuid", SPELLINGS, prop_oneof![20 => edited(value, "0aF-{} gé"), 1 => odd]).await;
    assert!(seen.understood > 400 && seen.invalid > 80 && seen.unclear == 0, "{seen:?}");
}

#[tokio::test]
async fn byte_strings() {
    let reference = Reference::new().await;
    let hex = (vec(any::<u8>(), 0..20), any_of(" \n", 0..2)).prop_map(|(bytes, space)| {
        bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}") + &space)
    });
    let escape = any::<u8>().prop_map(|byte| format!("\\{byte:03o}"));
    let piece = prop_oneof![2 => any_of("abc '\",", 1..4), 1 => escape, 1 => Just("\\\\".to_owned())];
    let escaped = vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    let value = prop_oneof![edited(hex, "0123456789abcdefABCDEFgx\\ \té"), edited(escaped, "0123456789\\abxé\n\t`")];
    let seen = reference.spellings("bytea", SPELLINGS, value).await;
    assert!(seen.understood > 400 && seen.invalid > 40 && seen.unclear > 0, "{seen:?}");
}

/// With many quotes and backslashes; one in fifty is longer than what is unescaped in one go.
fn text() -> impl Strategy<Value = String> {
    let short = any_of("ab \"\\`',\n\r\té😀0{}", 0..40);
    let word = prop_oneof![3 => any_of("\"\\`", 0..3), 1 => any_of("abc \n", 0..60)];
    let long = vec(word, 300..900).prop_map(|words| words.concat());
    prop_oneof![48 => short, 1 => long, 1 => any::<String>().prop_map(|text| text.replace('\0', "0"))]
}

#[tokio::test]
async fn texts() {
    let reference = Reference::new().await;
    let seen = reference.spellings("text", 3 * SPELLINGS, text()).await;
    assert!(seen.understood > 2000 && seen.unclear + seen.invalid == 0, "{seen:?}");
}

#[tokio::test]
async fn texts_of_limited_length() {
    let reference = Reference::new().await;
    let value = (any_of("aé😀\" ", 0..9), 0..5_usize).prop_map(|(text, blanks)| text + &" ".repeat(blanks)).boxed();
    for type_name in ["varchar(5)", "char(5)", "char", "varchar(5)[]"] {
        let value = value.clone();
        let seen = if type_name.ends_with("[]") {
            let quoted = |text: String| format!("{{\"{}\"}}", text.replace('"', "\\\""));
            reference.spellings(type_name, SPELLINGS, value.prop_map(quoted)).await
        } else {
            reference.spellings(type_name, SPELLINGS, value).await
        };
        assert!(seen.understood > 10 && seen.invalid > 100 && seen.unclear == 0, "{type_name}: {seen:?}");
    }
    for type_name in ["varchar", "bpchar"] {
        let seen = reference.spellings(type_name, SPELLINGS, value.clone()).await;
        assert!(seen.understood > 500 && seen.unclear + seen.invalid == 0, "{type_name}: {seen:?}");
    }
}

fn json() -> impl Strategy<Value = String> {
    let string = || any_of("ab é😀'`,", 0..8).prop_map(|text| format!("\"{text}\\n\\\"\\u00e9\""));
    let leaf = prop_oneof![
        one_of(&["null", "true", "false", "0", "-1.50e3", "\"\"", "{}", "[]", "12345678901234567890.10"]),
        string(),
    ];
    let value = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            vec((string(), inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key} : {value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    });
    let blank = any_of(" \n\t", 0..3);
    prop_oneof![20 => spaced_json(value), 1 => blank]
}

/// JSON knows fewer blanks.
fn spaced_json(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (any_of(" \n\r\t", 0..3), text).prop_map(|(space, text)| format!("{space}{text}{space}"))
}

#[tokio::test]
async fn documents() {
    let reference = Reference::new().await;
    for type_name in ["json", "jsonb"] {
        let seen = reference.spellings(type_name, SPELLINGS, json()).await;
        assert!(seen.understood > 400 && seen.invalid > 2 && seen.unclear == 0, "{type_name}: {seen:?}");
    }
}

/// The literal of an array with these elements, in up to three dimensions.
fn array(element: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    let quoted = (element, 0..10, any_of(" \n", 0..2)).prop_map(|(text, style, space)| match style {
        0 => one(["NULL", "null", "Null"], text.len()).to_owned(),
        1 => format!("{space}{text}{space}"),
        2 => format!("{space}\"{text}\" "),
        _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    });
    let item = quoted.boxed();
    (0..4_usize, 1..4_usize, 1..4_usize).prop_flat_map(move |(depth, rows, columns)| {
        let items = vec(item.clone(), columns * rows * 2);
        items.prop_map(move |items| {
            let row = |items: &[String]| format!("{{{}}}", items.join(","));
            let rows: Vec<String> = items.chunks(columns).map(row).collect();
            match depth {
                0 => "{}".to_owned(),
                1 => row(&items),
                2 => row(&rows),
                _ => row(&rows.chunks(rows.len() / 2).map(row).collect::<Vec<_>>()),
            }
        })
    })
}

fn one<const N: usize>(words: [&'static str; N], index: usize) -> &'static str {
    words[index % N]
}

#[tokio::test]
async fn arrays() {
    let reference = Reference::new().await;
    let odd = || {
        one_of(&[
            "",
            "{",
            "}",
            "{}}",
            "[1:2]={1,2}",
            "{{}}",
            "{1,}",
            "{,}",
            "{1,{2}}",
            "{{1},2}",
            "{{1},{2,3}}",
            "{{{{{{1}}}}}}",
            "{{{{{{{1}}}}}}}",
            " { } ",
            "{\"\"}",
            "{a\"b\"}",
            "{\"a\"b}",
            "{a\\b}",
            "{1} x",
            "1,2",
            "{1 2}",
            "{NULL,{1}}",
            "{\"NULL\",null}",
            "{{1},{NULL}}",
            "{abc}",
        ])
    };
    let alphabet = "{}\", \\1aN";
    let literal = |elements: BoxedStrategy<String>| prop_oneof![30 => edited(array(elements), alphabet), 1 => odd(), 1 => any_of(alphabet, 0..8)];
    for (type_name, elements, understood) in [
        ("text[]", any_of("ab \"\\',{}é\n", 0..8).boxed(), 100),
        ("integer[]", any::<i32>().prop_map(|number| number.to_string()).boxed(), 200),
        ("bigint[]", integer().boxed(), 20),
        ("numeric(5, 2)[]", any_of("0123456789.", 1..6).boxed(), 20),
        ("boolean[]", one_of(&["t", "f", "true", "no"]).boxed(), 200),
        ("timestamptz[]", Just("2020-06-25 17:13:53.973335+00".to_owned()).boxed(), 200),
        ("date[]", one_of(&["2020-06-25", "infinity", "0044-03-15 BC"]).boxed(), 200),
        ("uuid[]", any::<u128>().prop_map(|number| format!("{number:032x}")).boxed(), 200),
        ("double precision[]", any::<f64>().prop_map(|number| number.to_string()).boxed(), 200),
        ("bytea[]", one_of(&["\\x00ff", "abc", "\\\\"]).boxed(), 100),
        ("jsonb[]", json().prop_filter("not blank", |text| !text.trim().is_empty()).boxed(), 100),
    ] {
        // What looks like a document and is none is for the server to refuse.
        let seen = if type_name == "jsonb[]" {
            let quoted = |text: String| format!("{{\"{}\"}}", text.replace('\\', "\\\\").replace('"', "\\\""));
            reference.spellings(type_name, SPELLINGS, elements.prop_map(quoted)).await
        } else {
            reference.spellings(type_name, SPELLINGS, literal(elements)).await
        };
        assert!(seen.understood > understood, "{type_name}: {seen:?}");
    }
}

/// What becomes of a value by itself: `None` if it is encoded.
fn outcome(binary_type: BinaryType, value: &str) -> Option<Unencoded> {
    let csv = csv(&[(0, &value.to_owned())], Dialect::B);
    let mut records = Records::new(&csv[..], Dialect::B, RecordOptions::default()).unwrap();
    let mut encoder = CopyBinary::new(&[(Source::Field(1), binary_type)], 2).unwrap();
    encoder.append(&records.next_record().unwrap().unwrap(), &mut Vec::new()).err()
}

#[tokio::test]
async fn the_server_has_the_last_word_on_edges() {
    let understood: &[(&str, &[&str])] = &[
        ("smallint", &["-32768", "32767", "+1", " 007 "]),
        ("bigint", &["-9223372036854775808", "9223372036854775807", "0000000000000000000000000000001"]),
        ("boolean", &["TRUE", "y", "oN", "of", " 0 "]),
        ("real", &["1.4e-45", "3.4028235e38", "-0", "Infinity", "nan", ".5", "5."]),
        ("double precision", &["4.9e-324", "1.7976931348623157e308", "0e999999", "-inf"]),
        ("numeric", &["NaN", "-0.00", "0.00001", "1e200", "1e-200", ".5", "5.", "10000", "100000000.0001"]),
        ("numeric(5, 2)", &["999.99", "999.994", "-999.99499999", "0.001", "1e2", "NaN"]),
        ("numeric(2, 2)", &["0.99", "-0.994", ".00000001"]),
        (
            "date",
            &["4713-01-01 BC", "0001-01-01", "5874897-12-31", "infinity", "-infinity", "2000-02-29", "1750-01-01"],
        ),
        ("timestamp", &["294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "2016-12-31 23:59:60", "2020-01-01"]),
        ("timestamp", &["1999-12-31 23:59:59.9999995", "2020-01-01 24:00:00", "2020-01-01T10:11:12Z"]),
        ("timestamptz", &["2020-06-25 17:13:53.973335+00", "2020-06-25 17:13:53-05:30", "2020-06-25T17:13:53Z"]),
        ("timestamptz", &["12345-06-07 08:09+00", "0044-03-15 12:00:00+00 BC", "1883-11-18 12:03:57-04:56:02"]),
        ("uuid", &["{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"]),
        ("bytea", &["", "\\x", "\\xDE ad\nBE ef", "\\\\\\000\\377abc"]),
        ("varchar(3)", &["", "abc   ", "éé😀", "   "]),
        ("text[]", &["{}", "{NULL,\"NULL\",\"\",a b}", "{{a,b},{c,d}}", " { \"a\\\"\" , b } "]),
    ];
    let unclear: &[(&str, &[&str])] = &[
        ("integer", &["0x1F", "1_000", "0b1"]),
        ("double precision", &["0x1p3", "-nan"]),
        ("numeric", &["Infinity", "0x1F", "1_000", "1e99999999"]),
        ("date", &["today", "01/02/2003", "Jan 8 1999", "20200102", "2020-01-02 10:00", "4714-11-23 BC", "99-01-01"]),
        ("timestamp", &["now", "2020-01-01 10:00 PM", "294277-01-01", "2020-01-01 10:00:00 America/New_York"]),
        (
            "timestamptz",
            &["2020-01-01 10:00:00", "2020-01-01", "epoch", "2020-01-01 10:00:00 EST", "2020-01-01 10:00+16"],
        ),
        ("bytea", &["é"]),
        ("integer[]", &["[1:2]={1,2}", "{1", "{{1},{2,3}}"]),
        ("text[]", &["{a\\b}", "{a\"b\"}", "{{}}"]),
    ];
    let invalid: &[(&str, &str, &str, &str)] = &[
        ("integer", "", "22P02", "invalid input syntax for type integer: \"\""),
        ("integer", "abc", "22P02", "invalid input syntax for type integer: \"abc\""),
        ("integer", "1.5", "22P02", "invalid input syntax for type integer: \"1.5\""),
        ("smallint", "32768", "22003", "value \"32768\" is out of range for type smallint"),
        ("bigint", "-9223372036854775809", "22003", "value \"-9223372036854775809\" is out of range for type bigint"),
        ("boolean", "o", "22P02", "invalid input syntax for type boolean: \"o\""),
        ("double precision", "1e309", "22003", "\"1e309\" is out of range for type double precision"),
        ("double precision", "1e-400", "22003", "\"1e-400\" is out of range for type double precision"),
        ("real", "1e39", "22003", "\"1e39\" is out of range for type real"),
        ("real", "1,5", "22P02", "invalid input syntax for type real: \"1,5\""),
        ("numeric", "", "22P02", "invalid input syntax for type numeric: \"\""),
        ("numeric", "$1", "22P02", "invalid input syntax for type numeric: \"$1\""),
        ("numeric(5, 2)", "1000", "22003", "numeric field overflow"),
        ("numeric(5, 2)", "999.995", "22003", "numeric field overflow"),
        ("numeric(2, 2)", "-0.995", "22003", "numeric field overflow"),
        ("date", "", "22007", "invalid input syntax for type date: \"\""),
        ("date", "abc", "22007", "invalid input syntax for type date: \"abc\""),
        ("date", "2023-02-30", "22008", "date/time field value out of range: \"2023-02-30\""),
        ("date", "1900-02-29", "22008", "date/time field value out of range: \"1900-02-29\""),
        ("date", "0000-00-00", "22008", "date/time field value out of range: \"0000-00-00\""),
        ("timestamp", "2020-01-01 24:00:01", "22008", "date/time field value out of range: \"2020-01-01 24:00:01\""),
        ("timestamptz", "abc", "22007", "invalid input syntax for type timestamp with time zone: \"abc\""),
        ("uuid", "abc", "22P02", "invalid input syntax for type uuid: \"abc\""),
        ("json", " ", "22P02", "invalid input syntax for type json"),
        ("bytea", "\\xa", "22023", "invalid hexadecimal data: odd number of digits"),
        ("bytea", "\\xag", "22023", "invalid hexadecimal digit: \"g\""),
        ("bytea", "\\8", "22P02", "invalid input syntax for type bytea"),
        ("varchar(3)", "abcd", "22001", "value too long for type character varying(3)"),
        ("char(3)", "éé😀é", "22001", "value too long for type character(3)"),
        ("integer[]", "1,2", "22P02", "malformed array literal: \"1,2\""),
        ("integer[]", "{1,x}", "22P02", "invalid input syntax for type integer: \"x\""),
    ];
    let reference = Reference::new().await;
    let type_of = async |type_name: &str| {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        reference.binary_type("t", "v").await.unwrap()
    };
    for (type_name, values) in understood {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        let seen = reference.compare(type_name, &values).await;
        assert_eq!(seen.understood, values.len(), "{type_name} {values:?}: {seen:?}");
    }
    for (type_name, values) in unclear {
        let binary_type = type_of(type_name).await;
        for value in *values {
            assert_eq!(outcome(binary_type, value), Some(Unencoded::Unclear { column: 0 }), "{type_name} {value:?}");
        }
    }
    for (type_name, value, sqlstate, message) in invalid {
        let binary_type = type_of(type_name).await;
        let expected = Unencoded::Invalid { column: 0, sqlstate, message: (*message).to_owned() };
        assert_eq!(outcome(binary_type, value), Some(expected), "{type_name} {value:?}");
        let seen = reference.compare(type_name, &[(*value).to_owned()]).await;
        assert_eq!(seen.same_words, 1, "{type_name} {value:?}");
    }
}

#[tokio::test]
async fn rows_are_the_ones_that_the_server_writes() {
    let reference = Reference::new().await;
    let columns = [
        ("a", "smallint", "-2"),
        ("b", "bigint", "4611686018429000000"),
        ("c", "boolean", "t"),
        ("d", "real", "1.5"),
        ("e", "double precision", "-0.1"),
        ("f", "numeric", "-1234567.0089"),
        ("g", "date", "2020-06-25"),
        ("h", "timestamp", "2020-06-25 17:13:53.973335"),
        ("i", "timestamptz", "0044-03-15 12:00:00+00 BC"),
        ("j", "text", "say \"hi\", \\ é"),
        ("k", "varchar(9)", "scotus"),
        ("l", "char(3)", "abc"),
        ("m", "json", "{\"a\" : 1}"),
        ("n", "jsonb", "{\"a\": 1}"),
        ("o", "bytea", "\\x00ff"),
        ("p", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("q", "integer[]", "{{1,2},{3,NULL}}"),
        ("r", "text[]", "{\"a b\",\"\\\"\",c}"),
        ("s", "date[]", "{}"),
        ("t", "integer", ""),
        ("u", "text", ""),
    ];
    let list = columns.map(|(name, type_name, _)| format!("{name} {type_name}")).join(", ");
    reference.run(&format!("CREATE TABLE t ({list})")).await;
    let mut csv = columns.map(|(name, ..)| name).join(",");
    csv.push('\n');
    let quoted =
        |value: &str| if value.is_empty() { String::new() } else { format!("\"{}\"", value.replace('"', "\"\"")) };
    let row = columns.map(|(.., value)| quoted(value)).join(",");
    csv.push_str(&format!("{row}\n{row}\n"));

    let mut types = Vec::new();
    for (index, (name, ..)) in columns.iter().enumerate() {
        types.push((Source::Field(index), reference.binary_type("t", name).await.unwrap()));
    }
    let mut encoder = CopyBinary::new(&types, columns.len()).unwrap();
    let mut records = Records::new(csv.as_bytes(), Dialect::B, RecordOptions::default()).unwrap();
    let mut binary = CopyBinary::HEADER.to_vec();
    while let Some(record) = records.next_record().unwrap() {
        encoder.append(&record, &mut binary).unwrap();
    }
    binary.extend_from_slice(&CopyBinary::TRAILER);

    let copied = reference.copy_in("COPY t FROM STDIN (FORMAT csv, HEADER)", csv.into_bytes()).await.unwrap();
    assert_eq!(copied, 2);
    let theirs = reference.copy_out("SELECT * FROM t").await;
    assert_eq!(binary.escape_ascii().to_string(), theirs.escape_ascii().to_string());
    assert_eq!(reference.copy_in("COPY t FROM STDIN (FORMAT binary)", binary).await.unwrap(), 2);
}

#[tokio::test]
async fn documents_are_refused_by_the_server_alone() {
    let reference = Reference::new().await;
    for type_name in ["json", "jsonb"] {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        let of_value = reference.binary_type("t", "v").await.unwrap();
        for value in ["{", "abc", "{\"a\": 1,}", "[1] 2", "\"\t\""] {
            let csv = csv(&[(0, &value.to_owned())], Dialect::D);
            let mut records = Records::new(&csv[..], Dialect::D, RecordOptions::default()).unwrap();
            let mut encoder = CopyBinary::new(&[(Source::Field(1), of_value)], 2).unwrap();
            let mut binary = CopyBinary::HEADER.to_vec();
            encoder.append(&records.next_record().unwrap().unwrap(), &mut binary).unwrap();
            binary.extend_from_slice(&CopyBinary::TRAILER);
            let refused = reference.copy_in("COPY t FROM STDIN (FORMAT binary)", binary).await.unwrap_err();
            assert_eq!(
                (&refused.sqlstate[..], &refused.message[..]),
                ("22P02", "invalid input syntax for type json"),
                "{value}"
            );
        }
    }
}

#[tokio::test]
async fn types_without_an_encoder_are_told() {
    let reference = Reference::new().await;
    reference.run("CREATE DOMAIN positive AS integer; CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    for type_name in
        ["smallint", "varchar", "bpchar", "varchar(9)[]", "numeric(1000, 0)", "timestamptz(3)[]", "jsonb[]"]
    {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        assert!(reference.binary_type("t", "v").await.is_some(), "{type_name}");
    }
    for type_name in [
        "positive",
        "positive[]",
        "mood",
        "oid",
        "name",
        "\"char\"",
        "interval",
        "time",
        "timetz",
        "inet",
        "money",
        "xml",
        "point",
        "int4range",
        "int2vector",
        "oidvector",
        "int2vector[]",
        "bit(3)",
        "tsvector",
        "regclass",
        "inet[]",
    ] {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        assert_eq!(reference.binary_type("t", "v").await, None, "{type_name}");
    }
    // numeric(3, -2) and numeric(3, 5), from version 15 on.
    let (numeric, modifier) = (1700, |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4);
    assert!(BinaryType::new(numeric, modifier(3, 3)).is_some());
    assert_eq!([modifier(3, -2), modifier(3, 5)].map(|typmod| BinaryType::new(numeric, typmod)), [None, None]);
}

#[test]
fn a_record_is_encoded_whole_or_not_at_all() {
    let (int4, text, date) = (BinaryType::new(23, -1).unwrap(), BinaryType::new(25, -1).unwrap(), 1082);
    let date = BinaryType::new(date, -1).unwrap();
    let columns = [
        (Source::Field(2), date),
        (Source::Null, int4),
        (Source::Constant(b"-7".to_vec()), int4),
        (Source::Field(0), int4),
        (Source::Field(1), text),
    ];
    let mut encoder = CopyBinary::new(&columns, 3).unwrap();
    let csv = b"n,t,d\n1,,2000-01-01\n2,\"\",now\nx,a,1999-12-31\n3,a\"b\"\"c\"d,\n";
    let mut options = RecordOptions::default();
    options.grammar = Grammar::Server;
    let mut records = Records::new(&csv[..], Dialect::CSV, options).unwrap();
    let mut outcomes = Vec::new();
    let mut rows = b"before".to_vec();
    while let Some(record) = records.next_record().unwrap() {
        outcomes.push(encoder.append(&record, &mut rows).map_err(|refusal| refusal.column()));
    }
    assert_eq!(outcomes, [Ok(()), Err(0), Err(3), Ok(())]);
    let null = "\\xff\\xff\\xff\\xff";
    let int = |number: u8| format!("\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x{number:02x}");
    let minus_seven = "\\x00\\x00\\x00\\x04\\xff\\xff\\xff\\xf9";
    let count = "\\x00\\x05";
    let first = format!("{count}{}{null}{minus_seven}{}{null}", int(0), int(1));
    let last = format!("{count}{null}{null}{minus_seven}{}\\x00\\x00\\x00\\x05ab\\\"cd", int(3));
    assert_eq!(rows.escape_ascii().to_string(), format!("before{first}{last}"));
}

#[test]
fn columns_that_cannot_be_are_refused_at_once() {
    let int4 = BinaryType::new(23, -1).unwrap();
    let refused = |source: Source| CopyBinary::new(&[(Source::Null, int4), (source, int4)], 2).unwrap_err().to_string();
    assert_eq!(refused(Source::Field(2)), "there is no field 2: a record has 2");
    assert_eq!(refused(Source::Constant(b"x".to_vec())), "invalid input syntax for type integer: \"x\"");
    assert_eq!(refused(Source::Constant(b"0x1".to_vec())), "a value that only the server can read");
    let text = BinaryType::new(25, -1).unwrap();
    for bytes in [&b"a\0"[..], b"\xff"] {
        let refusal = CopyBinary::new(&[(Source::Constant(bytes.to_vec()), text)], 0).unwrap_err();
        assert_eq!(refusal.to_string(), "invalid byte sequence for encoding \"UTF8\"");
    }
    let columns = vec![(Source::Null, int4); 32_768];
    assert_eq!(CopyBinary::new(&columns, 0).unwrap_err().to_string(), "32768 columns are more than a row can have");
    assert!(CopyBinary::new(&columns[1..], 0).is_ok());
}
