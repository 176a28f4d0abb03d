//! Changes as lines of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use bulk_pg::{ItemJson, ItemSource};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The lines of a file, one after another.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Put { kind: Cow<'a, str>, group: Cow<'a, str>, id: Cow<'a, str>, mtime: i64, json: Cow<'a, str> },
    Remove { kind: Cow<'a, str>, id: Cow<'a, str> },
}

/// What a line is.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// An object with fields of ours, of these types, or of any.
    Named(Option<Vec<String>>),
    /// An item of this type.
    Item(Box<ItemSource>),
}

/// An item has 1 GiB at most.
const LONGEST: u64 = (1 << 30) + (1 << 16);

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// The next line that is not blank, with its number from 1.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.line.clear();
            self.line.shrink_to(1 << 20);
            let read = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 == LONGEST && !self.line.ends_with(b"\n") {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("line {} is longer than 1 GiB", self.number),
                ));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, self.line.trim_ascii())))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with type, group, id, modified and item")]
struct Named<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    modified: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    item: Option<&'a RawValue>,
    #[serde(default)]
    deleted: bool,
}

/// null is a value, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Shape {
    /// Reads a line.
    pub(super) fn read<'a>(&'a self, line: &'a [u8]) -> Result<Change<'a>, String> {
        let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        match self {
            Self::Named(known) => named(line, known.as_deref()),
            Self::Item(of) => item(line, of),
        }
    }
}

fn named<'a>(line: &'a str, known: Option<&[String]>) -> Result<Change<'a>, String> {
    let Named { kind, group, id, modified, item, deleted } = parsed(line)?;
    if known.is_some_and(|known| !known.iter().any(|name| *name == kind)) {
        return Err(format!("{kind:?} is no type that is asked for"));
    }
    let id = word(id, "id")?;
    if deleted {
        return Ok(Change::Remove { kind, id });
    }
    let group = word(group.ok_or("it has no group")?, "group")?;
    let json = item.ok_or("it has no item")?.get().into();
    Ok(Change::Put { kind, group, id, mtime: time(modified)?, json })
}

fn item<'a>(line: &'a str, of: &'a ItemSource) -> Result<Change<'a>, String> {
    let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = parsed(line)?;
    let field = |name: &str| fields.get(name).copied().ok_or_else(|| format!("it has no {name}"));
    let kind = Cow::Borrowed(of.name.as_str());
    let id = word(field(of.id.as_str())?, of.id.as_str())?;
    if fields.len() == 2 && fields.get("deleted").is_some_and(|value| value.get() == "true") {
        return Ok(Change::Remove { kind, id });
    }
    let group = word(field(of.group.as_str())?, of.group.as_str())?;
    let modified = of.modified.as_ref().and_then(|name| fields.get(name.as_str()));
    let json = match &of.json {
        ItemJson::Column(name) => field(name.as_str())?.get().into(),
        ItemJson::Columns(names) => {
            let mut object = String::from("{");
            for name in names {
                if object.len() > 1 {
                    object.push(',');
                }
                object.push_str(&serde_json::Value::from(name.as_str()).to_string());
                object.push(':');
                object.push_str(field(name.as_str())?.get());
            }
            object.push('}');
            object.into()
        }
        _ => line.into(),
    };
    Ok(Change::Put { kind, group, id, mtime: time(modified.copied())?, json })
}

fn parsed<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

/// A string, or a number as it stands there.
fn word<'a>(value: &'a RawValue, name: &str) -> Result<Cow<'a, str>, String> {
    let text = value.get();
    match text.bytes().next() {
        Some(b'"') => parsed(text),
        Some(b'-' | b'0'..=b'9') => Ok(text.into()),
        _ => Err(format!("its {name} is neither a string nor a number")),
    }
}

/// Seconds since 1970: of a number, of an RFC 3339 time, or of one without an offset, which is UTC. 0 of none.
fn time(value: Option<&RawValue>) -> Result<i64, String> {
    let Some(value) = value.filter(|value| value.get() != "null") else { return Ok(0) };
    let text = word(value, "time")?;
    let bad = || format!("{text:?} is no time");
    if !value.get().starts_with('"') {
        return match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(seconds), _) => Ok(seconds),
            // Those of i64 are more than enough.
            (_, Ok(seconds)) if seconds.abs() < 1e15 => Ok(seconds.floor() as i64),
            _ => Err(bad()),
        };
    }
    let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| {
        let local: jiff::civil::DateTime = text.parse()?;
        local.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    let nanoseconds = timestamp.map_err(|_| bad())?.as_nanosecond();
    Ok(i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bulk_pg::{Ident, ItemRows};

    use super::*;

    fn put<'a>(id: &'a str, mtime: i64, json: &'a str) -> Change<'a> {
        Change::Put { kind: "t".into(), group: "g".into(), id: id.into(), mtime, json: json.into() }
    }

    #[test]
    fn lines_say_what_has_changed() {
        let shape = Shape::Named(Some(vec!["t".to_owned()]));
        for (line, change) in [
            (r#"{"type":"t","group":"g","id":"a\"","item":{"b": [1.50]}}"#, put("a\"", 0, "{\"b\": [1.50]}")),
            (
                r#"{"item":null,"id":-07e1,"modified":-1.5,"group":"g","type":"t"}"#.replace("-07", "-7").as_str(),
                put("-7e1", -2, "null"),
            ),
            (
                r#"{"type":"\u0074","group":"g","id":1,"modified":"2026-06-30T12:00:00.9+02:00","item":1}"#,
                put("1", 1_782_813_600, "1"),
            ),
            (r#"{"type":"t","group":"g","id":1,"modified":"1969-12-31T23:59:59.5","item":1}"#, put("1", -1, "1")),
            (r#"{"type":"t","group":"g","id":1,"modified":null,"item":1}"#, put("1", 0, "1")),
            (r#"{"type":"t","id":1,"deleted":true}"#, Change::Remove { kind: "t".into(), id: "1".into() }),
        ] {
            assert_eq!(shape.read(line.as_bytes()), Ok(change), "{line}");
        }
        for (line, said) in [
            (r#"{"type":"u","group":"g","id":1,"item":1}"#, "\"u\" is no type that is asked for"),
            (r#"{"type":"t","id":1,"item":1}"#, "it has no group"),
            (r#"{"type":"t","group":"g","id":1}"#, "it has no item"),
            (r#"{"type":"t","group":null,"id":1,"item":1}"#, "it has no group"),
            (r#"{"type":"t","group":["g"],"id":1,"item":1}"#, "its group is neither a string nor a number"),
            (r#"{"type":"t","group":"g","id":1,"item":1,"modified":"soon"}"#, "\"soon\" is no time"),
            (r#"{"type":"t","group":"g","item":1}"#, "missing field `id` at line 1 column 33"),
            (r#"{"type":"t","group":"g","id":1,"item":{1}"#, "key must be a string at line 1 column 40"),
            (
                "7",
                "invalid type: integer `7`, expected an object with type, group, id, modified and item at line 1 column 1",
            ),
        ] {
            assert_eq!(shape.read(line.as_bytes()), Err(said.to_owned()), "{line}");
        }
    }

    #[test]
    fn lines_may_be_items() {
        let ident = |name| Ident::new(name).unwrap();
        let rows = ItemRows::Table("x".parse().unwrap());
        let mut of = ItemSource::new("t", rows, ident("no"), ident("court"));
        of.modified = Some(ident("at"));
        let line = br#"{"no": 7, "court": "g", "at": 60, "x": "y\u0000", "body": [1]}"#;
        let read = |of: &ItemSource, line: &[u8], wanted: Result<Change<'_>, &str>| {
            let shape = Shape::Item(Box::new(of.clone()));
            assert_eq!(shape.read(line), wanted.map_err(str::to_owned));
        };
        read(&of, line, Ok(put("7", 60, std::str::from_utf8(line).unwrap())));
        read(&of, br#"{"no": 7, "deleted": true}"#, Ok(Change::Remove { kind: "t".into(), id: "7".into() }));
        read(&of, br#"{"no": 7, "deleted": false}"#, Err("it has no court"));
        of.json = ItemJson::Column(ident("body"));
        read(&of, line, Ok(put("7", 60, "[1]")));
        of.json = ItemJson::Columns(vec![ident("x"), ident("no")]);
        read(&of, line, Ok(put("7", 60, "{\"x\":\"y\\u0000\",\"no\":7}")));
        of.json = ItemJson::Columns(vec![ident("absent")]);
        read(&of, line, Err("it has no absent"));
    }

    #[test]
    fn blank_lines_are_counted_and_passed_over() {
        let mut lines = Lines::new(&b"\n{}\r\n  \n[]"[..]);
        assert_eq!(lines.next().unwrap(), Some((2, &b"{}"[..])));
        assert_eq!(lines.next().unwrap(), Some((4, &b"[]"[..])));
        assert_eq!(lines.next().unwrap(), None);
    }
}
