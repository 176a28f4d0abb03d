//! What columns Parquet has, and what of an item stands in them.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use jiff::civil;
use parquet::data_type::ByteArray;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

/// A column of [`Parquet`](crate::Shape::Parquet).
///
/// A value that is missing, or `null`, is null. What else is not of the column's type does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
#[non_exhaustive]
pub struct ParquetColumn {
    /// Its name.
    pub name: String,
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// What of an item they are.
    pub from: ColumnSource,
    /// What becomes of those that do not fit. By default [`Unfit::Error`].
    pub unfit: Unfit,
}

/// As it is written, where much need not be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(rename = "type")]
    kind: ColumnType,
    from: Option<ColumnSource>,
    #[serde(default)]
    unfit: Unfit,
}

impl From<Written> for ParquetColumn {
    fn from(written: Written) -> ParquetColumn {
        let Written { name, kind, from, unfit } = written;
        let from = from.unwrap_or_else(|| ColumnSource::member(&name));
        ParquetColumn { name, kind, from, unfit }
    }
}

/// What values a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnType {
    /// `true` and `false`. Parquet: `BOOLEAN`.
    Bool,
    /// Numbers without fraction and exponent, from -2^63 to 2^63-1. Parquet: `INT64`.
    Bigint,
    /// Numbers, rounded to the nearest double; not those beyond its range. Parquet: `DOUBLE`.
    Double,
    /// Strings. Parquet: `BYTE_ARRAY`, `STRING`.
    Text,
    /// Strings such as `2014-11-06`, of the years 0000 to 9999. Parquet: `INT32`, `DATE`.
    Date,
    /// Strings as of RFC 3339, such as `2014-11-06T03:00:00.5+00:00`, of the years 0000 to 9999, also with a space in the place of the
    /// `T`, and with an offset such as `+05`, `+0530` or `+00:19:32`; without an offset they are taken for UTC, and digits behind microseconds are dropped. Parquet: `INT64`, `TIMESTAMP` in
    /// microseconds of UTC.
    Timestamp,
    /// Whatever is there, as the JSON that it is. Parquet: `BYTE_ARRAY`, `STRING`, since not all readers know its `JSON`.
    Json,
}

/// What of an item is the value of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum ColumnSource {
    /// Its id, written `id`: [`Text`](ColumnType::Text), or [`Bigint`](ColumnType::Bigint) where it is the digits of one.
    Id,
    /// When it was modified, to the second, written `modified`: [`Timestamp`](ColumnType::Timestamp). Null for a year that it cannot
    /// have.
    Modified,
    /// All of its JSON, written `item`: [`Json`](ColumnType::Json).
    Item,
    /// What a JSON pointer (RFC 6901) leads to, such as `/court/id`. Of members of the same name the last counts.
    Pointer(String),
}

impl ColumnSource {
    /// The member of this name.
    pub fn member(name: &str) -> ColumnSource {
        ColumnSource::Pointer(format!("/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

impl FromStr for ColumnSource {
    type Err = BadColumns;

    fn from_str(text: &str) -> Result<ColumnSource, BadColumns> {
        Ok(match text {
            "id" => ColumnSource::Id,
            "modified" => ColumnSource::Modified,
            "item" => ColumnSource::Item,
            text if text.starts_with('/') && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) => {
                ColumnSource::Pointer(text.to_owned())
            }
            text => {
                let what = "is neither id, modified nor item, nor a JSON pointer such as /court/id";
                return Err(BadColumns(format!("{text:?} {what}")));
            }
        })
    }
}

impl TryFrom<String> for ColumnSource {
    type Error = BadColumns;

    fn try_from(text: String) -> Result<ColumnSource, BadColumns> {
        text.parse()
    }
}

impl From<ColumnSource> for String {
    fn from(source: ColumnSource) -> String {
        match source {
            ColumnSource::Id => "id".to_owned(),
            ColumnSource::Modified => "modified".to_owned(),
            ColumnSource::Item => "item".to_owned(),
            ColumnSource::Pointer(pointer) => pointer,
        }
    }
}

/// What becomes of a value that does not fit into its column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unfit {
    /// [`Error::Column`](crate::Error::Column): nothing is published.
    #[default]
    Error,
    /// Null.
    Null,
}

/// Why columns are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadColumns(String);

impl fmt::Display for BadColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadColumns {}

/// The name of the column that a file of a whole type has besides.
pub(super) const GROUP: &str = "group";

/// The columns of a file. They have distinct names, in whatever case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetColumns {
    list: Vec<ParquetColumn>,
    /// The steps of each one's pointer.
    steps: Vec<Vec<String>>,
    /// They, as JSON.
    text: String,
}

impl ParquetColumns {
    /// Takes columns together, in their order.
    ///
    /// # Errors
    /// If there are none; for a name that is empty, there twice, or `group`, which files of whole types have besides, in whatever case,
    /// since many readers take names that differ in case alone for one; for a source that does not go with the type.
    pub fn new(list: Vec<ParquetColumn>) -> Result<ParquetColumns, BadColumns> {
        let bad = |what: String| Err(BadColumns(what));
        if list.is_empty() {
            return bad("there are no columns".to_owned());
        }
        let mut names = BTreeSet::new();
        for ParquetColumn { name, kind, from, .. } in &list {
            let folded = name.to_lowercase();
            if name.is_empty() || folded == GROUP {
                return bad(format!("a column cannot be called {name:?}"));
            }
            if !names.insert(folded) {
                return bad(format!("there are two columns {name:?}, in whatever case"));
            }
            let (source, goes) = match from {
                ColumnSource::Id => ("id", matches!(kind, ColumnType::Text | ColumnType::Bigint)),
                ColumnSource::Modified => ("modified", *kind == ColumnType::Timestamp),
                ColumnSource::Item => ("item", *kind == ColumnType::Json),
                ColumnSource::Pointer(_) => ("", true),
            };
            if !goes {
                return bad(format!("the column {name:?} is of a type that {source} is not"));
            }
        }
        let text = serde_json::to_string(&list).map_err(|error| BadColumns(error.to_string()))?;
        let steps = |column: &ParquetColumn| match &column.from {
            ColumnSource::Pointer(pointer) => {
                pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
            }
            _ => Vec::new(),
        };
        Ok(ParquetColumns { steps: list.iter().map(steps).collect(), list, text })
    }

    /// The columns.
    pub fn columns(&self) -> &[ParquetColumn] {
        &self.list
    }

    /// Reads what [`text`](ParquetColumns::text) gave.
    pub(crate) fn parse(text: &str) -> Option<ParquetColumns> {
        ParquetColumns::new(serde_json::from_str(text).ok()?).ok()
    }

    /// They, as JSON: the same for the same.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Calls with the value of each column of an item, in their order; the error names the column, and says what is wrong with
    /// the value.
    pub(super) fn cells(
        &self,
        (id, mtime, content): (&str, i64, &[u8]),
        mut call: impl FnMut(usize, Option<Cell>),
    ) -> Result<(), (String, String)> {
        let mut members = None;
        for (at, (column, steps)) in self.list.iter().zip(&self.steps).enumerate() {
            let cell = match &column.from {
                ColumnSource::Id if column.kind == ColumnType::Text => Ok(Some(Cell::Bytes(id.into()))),
                ColumnSource::Id => whole_number(id).map(|number| Some(Cell::Long(number))).ok_or(id),
                ColumnSource::Modified => Ok(mtime.checked_mul(1_000_000).map(Cell::Long)),
                ColumnSource::Item => Ok(Some(Cell::Bytes(content.to_vec().into()))),
                ColumnSource::Pointer(_) => {
                    let members = members.get_or_insert_with(|| Node::of_bytes(content));
                    match members.find(steps) {
                        Ok(Some(json)) => value(column.kind, json).ok_or(json),
                        Ok(None) => Ok(None),
                        Err(unreadable) => Err(unreadable),
                    }
                }
            };
            match cell {
                Ok(cell) => call(at, cell),
                Err(_) if column.unfit == Unfit::Null => call(at, None),
                Err(found) => {
                    let mut shown: String = found.chars().take(60).collect();
                    if shown.len() < found.len() {
                        shown.push('…');
                    }
                    return Err((column.name.clone(), shown));
                }
            }
        }
        Ok(())
    }
}

impl Default for ParquetColumns {
    /// `id`, a text; `modified`, a timestamp; `json`, the item.
    fn default() -> ParquetColumns {
        let column = |name: &str, kind, from| ParquetColumn { name: name.to_owned(), kind, from, unfit: Unfit::Error };
        let list = vec![
            column("id", ColumnType::Text, ColumnSource::Id),
            column("modified", ColumnType::Timestamp, ColumnSource::Modified),
            column("json", ColumnType::Json, ColumnSource::Item),
        ];
        // Nothing is wrong with them.
        ParquetColumns::new(list).unwrap_or(ParquetColumns { list: vec![], steps: vec![], text: String::new() })
    }
}

impl ParquetColumn {
    /// A column with the member of its name, whose values have to fit.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> ParquetColumn {
        let name = name.into();
        ParquetColumn { from: ColumnSource::member(&name), name, kind, unfit: Unfit::Error }
    }

    /// Whether it is never null.
    pub(super) fn is_required(&self) -> bool {
        match self.from {
            ColumnSource::Id => self.kind == ColumnType::Text || self.unfit == Unfit::Error,
            ColumnSource::Item => true,
            _ => false,
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Bytes(ByteArray),
}

/// The name of a member: UTF-8, but for surrogates that are not of a pair, which JSON allows (RFC 8259, 8.2). They are as UTF-8 would
/// have them, so that no pointer leads there.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name(Vec<u8>);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// The members of an object, the elements of an array, or nothing.
enum Node<'a> {
    Object(BTreeMap<Name, &'a RawValue>),
    Array(Vec<&'a RawValue>),
    Neither,
    /// What is no JSON, of which nobody can say what it has.
    Unreadable(&'a str),
}

impl<'a> Node<'a> {
    fn of_bytes(json: &'a [u8]) -> Node<'a> {
        str::from_utf8(json).map_or(Node::Unreadable("what is no UTF-8"), Node::of)
    }

    fn of(json: &'a str) -> Node<'a> {
        match json.trim_ascii_start().as_bytes().first() {
            Some(b'{') => serde_json::from_str(json).map_or(Node::Unreadable(json), Node::Object),
            Some(b'[') => serde_json::from_str(json).map_or(Node::Unreadable(json), Node::Array),
            _ => Node::Neither,
        }
    }

    /// What these steps lead to; the error is what cannot be read.
    fn find(&self, steps: &[String]) -> Result<Option<&'a str>, &'a str> {
        let Some((step, rest)) = steps.split_first() else { return Ok(None) };
        let found = match self {
            Node::Object(members) => members.get(step.as_bytes()),
            // RFC 6901, 4: no sign, no zero in front.
            Node::Array(elements) => {
                let is_index = step == "0" || !step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit());
                step.parse::<usize>().ok().filter(|_| is_index).and_then(|index| elements.get(index))
            }
            Node::Neither => None,
            Node::Unreadable(json) => return Err(json),
        };
        match found {
            Some(json) if rest.is_empty() => Ok(Some(json.get())),
            Some(json) => Node::of(json.get()).find(rest),
            None => Ok(None),
        }
    }
}

/// What a column of this type has of some JSON: none where it does not fit.
fn value(kind: ColumnType, json: &str) -> Option<Option<Cell>> {
    if json == "null" && kind != ColumnType::Json {
        return Some(None);
    }
    let text = || serde_json::from_str::<String>(json).ok();
    Some(Some(match kind {
        ColumnType::Bool => Cell::Bool(json.parse().ok()?),
        ColumnType::Bigint => Cell::Long(whole_number(json)?),
        ColumnType::Double => {
            let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            Cell::Double(json.parse().ok().filter(|number: &f64| is_number && number.is_finite())?)
        }
        ColumnType::Text => Cell::Bytes(text()?.as_str().into()),
        ColumnType::Date => Cell::Int(days(&text()?)?),
        ColumnType::Timestamp => Cell::Long(micros(&text()?)?),
        ColumnType::Json if json == "null" => return Some(None),
        ColumnType::Json => Cell::Bytes(json.into()),
    }))
}

/// A number as JSON writes it: without a plus sign or zeros in front, which an id may have.
fn whole_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_written_so = digits == "0" || digits.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| is_written_so)
}

/// Days since 1970-01-01.
fn days(text: &str) -> Option<i32> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<i16>().ok()
    };
    let dashes = text.len() == 10 && (text.as_bytes()[4], text.as_bytes()[7]) == (b'-', b'-');
    let small = |range| number(range).and_then(|number| i8::try_from(number).ok());
    let date = civil::Date::new(number(0..4).filter(|_| dashes)?, small(5..7)?, small(8..10)?).ok()?;
    Some(civil::date(1970, 1, 1).until(date).ok()?.get_days())
}

/// Microseconds since 1970 in UTC.
fn micros(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let two = |text: &str, at: usize, most: i64| {
        let digits = text.get(at..at + 2)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?.filter(|n| *n <= most)
    };
    let (clock, rest) = rest.split_at_checked(8)?;
    if (clock.as_bytes()[2], clock.as_bytes()[5]) != (b':', b':') {
        return None;
    }
    // A leap second is the first of the next minute.
    let seconds = two(clock, 0, 23)? * 3600 + two(clock, 3, 59)? * 60 + two(clock, 6, 60)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            let micros = format!("{:0<6.6}", &rest[..end]).parse::<i64>().ok()?;
            (micros, &rest[end..])
        }
        None => (0, rest),
    };
    let offset = match zone.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, rest @ ..] => {
            // With seconds are local times of old, as PostgreSQL writes them.
            let (minutes, seconds) = match rest {
                [] => (0, 0),
                [_, _] => (two(zone, 3, 59)?, 0),
                [b':', _, _] => (two(zone, 4, 59)?, 0),
                [b':', _, _, b':', _, _] => (two(zone, 4, 59)?, two(zone, 7, 59)?),
                _ => return None,
            };
            let offset = two(zone, 1, 23)? * 3600 + minutes * 60 + seconds;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some((i64::from(days(date)?) * 86_400 + seconds - offset) * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: ColumnType, json: &str) -> Option<Option<Cell>> {
        value(kind, json)
    }

    #[test]
    fn values_are_those_of_their_types() {
        use ColumnType::{Bigint, Bool, Date, Double, Json, Text, Timestamp};
        let bytes = |text: &str| Cell::Bytes(text.into());
        for (kind, json, expected) in [
            (Bool, "true", Some(Cell::Bool(true))),
            (Bigint, "-9223372036854775808", Some(Cell::Long(i64::MIN))),
            (Double, "-1.5e3", Some(Cell::Double(-1500.0))),
            (Double, "9007199254740993", Some(Cell::Double(9_007_199_254_740_992.0))),
            (Text, "\"a\\u00e9\\n\"", Some(bytes("a\u{e9}\n"))),
            (Date, "\"1969-12-31\"", Some(Cell::Int(-1))),
            (Date, "\"9999-12-31\"", Some(Cell::Int(2_932_896))),
            (Date, "\"0000-01-01\"", Some(Cell::Int(-719_528))),
            (Timestamp, "\"1970-01-01T00:00:00Z\"", Some(Cell::Long(0))),
            (Timestamp, "\"2014-11-06T03:00:00.1234567-05:30\"", Some(Cell::Long(1_415_262_600_123_456))),
            (Timestamp, "\"2014-11-06 03:00:00.5\"", Some(Cell::Long(1_415_242_800_500_000))),
            (Timestamp, "\"2014-11-06T03:00:00+00\"", Some(Cell::Long(1_415_242_800_000_000))),
            (Timestamp, "\"2014-11-06T03:00:00-0530\"", Some(Cell::Long(1_415_262_600_000_000))),
            (Timestamp, "\"1900-01-01 00:19:32+00:19:32\"", Some(Cell::Long(-2_208_988_800_000_000))),
            (Timestamp, "\"1899-12-31 23:59:58-00:00:02\"", Some(Cell::Long(-2_208_988_800_000_000))),
            (Timestamp, "\"9999-12-31T23:59:59Z\"", Some(Cell::Long(253_402_300_799_000_000))),
            (Json, "[1, 2.50]", Some(bytes("[1, 2.50]"))),
            (Json, "null", None),
            (Text, "null", None),
        ] {
            assert_eq!(cell(kind, json), Some(expected), "{kind:?} {json}");
        }
        for (kind, json) in [
            (Bool, "1"),
            (Bool, "\"true\""),
            (Bigint, "1.0"),
            (Bigint, "1e3"),
            (Bigint, "9223372036854775808"),
            (Bigint, "\"1\""),
            (Double, "1e999"),
            (Double, "\"NaN\""),
            (Text, "1"),
            (Text, "\"\\ud800\""),
            (Date, "\"2014-02-30\""),
            (Date, "\"2014-11-6\""),
            (Date, "\"+014-11-06\""),
            (Date, "\"2014-11-06T00:00:00Z\""),
            (Timestamp, "\"2014-11-06\""),
            (Timestamp, "\"infinity\""),
            (Timestamp, "\"2014-11-06T24:00:00Z\""),
            (Timestamp, "\"2014-11-06T03:00:00.Z\""),
            (Timestamp, "\"2014-11-06T03:00:00+5\""),
            (Timestamp, "\"2014-11-06T03:00:00+053\""),
            (Timestamp, "\"2014-11-06T03:00:00+0560\""),
            (Timestamp, "\"2014-11-06T03:00:00+05:30:\""),
            (Timestamp, "\"2014-11-06T03:00:00+05:30:60\""),
            (Timestamp, "\"2014-11-06T03:00:00+05-30\""),
            (Timestamp, "\"2014-11-06T03:00:00+053012\""),
            (Timestamp, "1415242800"),
            (Timestamp, "\"2014-11-06T03:00:\u{e9}0Z\""),
        ] {
            assert_eq!(cell(kind, json), None, "{kind:?} {json}");
        }
    }

    #[test]
    fn whole_numbers_are_written_in_one_way() {
        for (text, number) in [("0", Some(0)), ("-0", Some(0)), ("-12", Some(-12)), ("7", Some(7))] {
            assert_eq!(whole_number(text), number);
        }
        for text in ["", "-", "+7", "07", "-07", " 7", "7 ", "1_0", "9223372036854775808"] {
            assert_eq!(whole_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn pointers_lead_into_items() {
        let json = r#" {"a": {"b/c": [10, {"~": true}]}, "": 7, "d": 1, "d": 2}"#;
        let find = |pointer: &str| {
            let mut column = ParquetColumn::new("x", ColumnType::Json);
            column.from = pointer.parse().unwrap();
            let columns = ParquetColumns::new(vec![column]).unwrap();
            let mut found = None;
            columns.cells(("1", 0, json.as_bytes()), |_, cell| found = cell).unwrap();
            found.map(|cell| match cell {
                Cell::Bytes(bytes) => bytes.as_utf8().unwrap().to_owned(),
                other => panic!("{other:?}"),
            })
        };
        for (pointer, expected) in [
            ("/a/b~1c/0", Some("10")),
            ("/a/b~1c/1/~0", Some("true")),
            ("/a/b~1c", Some("[10, {\"~\": true}]")),
            ("/", Some("7")),
            ("/d", Some("2")),
            ("/a/b~1c/00", None),
            ("/a/b~1c/-", None),
            ("/a/b~1c/+1", None),
            ("/a/b~1c/2", None),
            ("/d/0", None),
            ("/e", None),
        ] {
            assert_eq!(find(pointer).as_deref(), expected, "{pointer}");
        }
        assert_eq!(ColumnSource::member("b/c~"), ColumnSource::Pointer("/b~1c~0".to_owned()));
    }

    #[test]
    fn names_that_are_no_text_hide_no_others() {
        let n = ParquetColumn::new("n", ColumnType::Bigint);
        let mut inner = ParquetColumn::new("inner", ColumnType::Bigint);
        inner.from = "/o/\u{e9}".parse().unwrap();
        let columns = ParquetColumns::new(vec![n, inner]).unwrap();
        let json = br#"{"\ud800": 1, "n": 5, "o": {"\udc00\ud800": {}, "\u00e9": 7}}"#;
        let mut found = Vec::new();
        columns.cells(("1", 0, json), |_, cell| found.push(cell)).unwrap();
        assert_eq!(found, [Some(Cell::Long(5)), Some(Cell::Long(7))]);
    }

    #[test]
    fn what_cannot_be_read_does_not_fit() {
        let mut column = ParquetColumn::new("n", ColumnType::Bigint);
        for (json, shown) in
            [(&b"{\"n\": 5"[..], "{\"n\": 5"), (b"[1", "[1"), (b"{\"n\": \"\xff\"}", "what is no UTF-8")]
        {
            column.unfit = Unfit::Error;
            let columns = ParquetColumns::new(vec![column.clone()]).unwrap();
            let said = columns.cells(("1", 0, json), |_, _| panic!("it fits"));
            assert_eq!(said, Err(("n".to_owned(), shown.to_owned())));
            column.unfit = Unfit::Null;
            let columns = ParquetColumns::new(vec![column.clone()]).unwrap();
            let mut found = Vec::new();
            columns.cells(("1", 0, json), |_, cell| found.push(cell)).unwrap();
            assert_eq!(found, [None]);
        }
    }

    #[test]
    fn columns_are_read_as_they_were_written_or_refused() {
        let list: Vec<ParquetColumn> = serde_json::from_str(
            r#"[{"name": "id", "type": "bigint", "from": "id"}, {"name": "a/b", "type": "date", "unfit": "null"}]"#,
        )
        .unwrap();
        assert_eq!(list[1].from, ColumnSource::Pointer("/a~1b".to_owned()));
        let columns = ParquetColumns::new(list).unwrap();
        assert_eq!(ParquetColumns::parse(columns.text()), Some(columns.clone()));
        let default = ParquetColumns::default();
        assert_eq!(ParquetColumns::parse(default.text()), Some(default.clone()));
        assert_eq!(default.columns().len(), 3);
        let of = |list: &str| match serde_json::from_str::<Vec<ParquetColumn>>(list) {
            Ok(list) => ParquetColumns::new(list).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(of("[]"), "there are no columns");
        for (list, said) in [
            (r#"[{"name": "group", "type": "text"}]"#, "a column cannot be called \"group\""),
            (
                r#"[{"name": "a", "type": "text"}, {"name": "a", "type": "bool"}]"#,
                "there are two columns \"a\", in whatever case",
            ),
            (r#"[{"name": "Group", "type": "text"}]"#, "a column cannot be called \"Group\""),
            (
                r#"[{"name": "É", "type": "text"}, {"name": "é", "type": "text"}]"#,
                "there are two columns \"é\", in whatever case",
            ),
            (
                r#"[{"name": "a", "type": "date", "from": "modified"}]"#,
                "the column \"a\" is of a type that modified is not",
            ),
        ] {
            assert_eq!(of(list), said);
        }
        for pointer in ["a", "", "/~2", "/a~"] {
            let error = pointer.parse::<ColumnSource>().unwrap_err().to_string();
            let said = "is neither id, modified nor item, nor a JSON pointer such as /court/id";
            assert_eq!(error, format!("{pointer:?} {said}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_or_null() {
        let mut column = ParquetColumn::new("n", ColumnType::Bigint);
        let json = format!("{{\"n\": \"{}\"}}", "x".repeat(100));
        let item = ("1", 0, json.as_bytes());
        let columns = ParquetColumns::new(vec![column.clone()]).unwrap();
        let shown = format!("\"{}…", "x".repeat(59));
        assert_eq!(columns.cells(item, |_, _| panic!("it fits")), Err(("n".to_owned(), shown)));
        column.unfit = Unfit::Null;
        let columns = ParquetColumns::new(vec![column]).unwrap();
        let mut found = Vec::new();
        columns.cells(item, |at, cell| found.push((at, cell))).unwrap();
        assert_eq!(found, [(0, None)]);
    }
}
