//! Dates and times in many spellings.

use proptest::prelude::*;

use crate::reference::{Reference, SPELLINGS, any_of, edited, one_of};

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
