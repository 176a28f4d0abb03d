//! Records of NDJSON: an object a line, whose keys are columns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use memchr::memchr;

use crate::buffer::BYTE_ORDER_MARK;
use crate::cut::{Cut, Fault, Fields, Found};
use crate::json::{self, JsonString, Kind, NoText, Scanner, Value, unescape};
use crate::json_column::{JsonShape, append_array};
use crate::scan::{Form, Span};
use crate::{InputFormat, RecordErrorKind};

/// What becomes of the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// It is a field's value.
    Field(usize),
    /// It goes with what is no column.
    Rest,
    /// It is passed over.
    Ignored,
    /// It is a column's that no row gets a value of: the record is bad.
    Unlisted,
}

/// The fields of a file's records.
#[derive(Clone, Debug)]
pub(crate) struct JsonFields {
    /// How each takes a value; `None` for the rest.
    pub(crate) shapes: Vec<Option<JsonShape>>,
    pub(crate) keys: HashMap<Vec<u8>, Target>,
    /// Of other keys.
    pub(crate) others: Target,
}

/// The distinct keys of the objects in a file's first bytes, in the order in which they come; of the object that these
/// break off in, too.
pub(crate) fn keys(sample: &[u8]) -> Vec<String> {
    let (mut keys, mut seen, mut name) = (Vec::new(), HashSet::new(), Vec::new());
    for line in sample.split(|byte| *byte == b'\n') {
        let mut scanner = Scanner::new(line, 0);
        if scanner.open_object().is_err() {
            continue;
        }
        while let Ok(Some(key)) = scanner.next_key() {
            name.clear();
            let is_text = unescape(&line[key.start..key.end], &mut name).is_ok();
            if is_text && !seen.contains(&name) {
                seen.insert(name.clone());
                keys.extend(String::from_utf8(name.clone()));
            }
            if scanner.value().is_err() {
                break;
            }
        }
    }
    keys
}

/// Where the first object's line starts: behind a byte order mark and lines of white space. `None` if there is nothing
/// else.
pub(crate) fn start(sample: &[u8]) -> Option<usize> {
    let from = if sample.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let lines = &sample[from..];
    let first = lines.iter().position(|byte| !is_space(*byte))?;
    Some(from + lines[..first].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A record without the blank lines behind it.
pub(crate) fn line(raw: &[u8]) -> &[u8] {
    &raw[..memchr(b'\n', raw).map_or(raw.len(), |end| end + 1)]
}

/// Cuts lines. Blank lines belong to the record before them, but for those beyond the longest record, which are a gap.
#[derive(Debug)]
pub(crate) struct Ndjson {
    fields: Arc<JsonFields>,
    values: Vec<Option<Value>>,
    /// Keys and values that are no field's.
    rest: Vec<(JsonString, Value)>,
    /// The keys of the last record as they stood there, each with what it is: those of the next are most often the same.
    order: Vec<(Vec<u8>, Target)>,
    spans: Vec<Span>,
    /// A line, and behind it the values that do not stand in it as they are.
    meant: Vec<u8>,
    key: Vec<u8>,
}

/// Bytes that are kept from one record to the next.
const KEEP: usize = 1 << 20;
/// Keys whose order is kept, and how long each may be.
const ORDERED: usize = 1 << 10;
const ORDERED_KEY: usize = 1 << 8;

impl Ndjson {
    pub(crate) fn new(fields: Arc<JsonFields>) -> Self {
        Self {
            values: vec![None; fields.shapes.len()],
            fields,
            rest: Vec::new(),
            order: Vec::new(),
            spans: Vec::new(),
            meant: Vec::new(),
            key: Vec::new(),
        }
    }

    /// What becomes of the value of the key that is the record's `place`th.
    #[inline(always)]
    fn target(&mut self, line: &[u8], key: JsonString, place: usize) -> Target {
        let raw = &line[key.start..key.end];
        match self.order.get(place) {
            Some((known, target)) if known == raw => *target,
            _ => self.find(raw, key.has_escapes, place),
        }
    }

    fn find(&mut self, raw: &[u8], has_escapes: bool, place: usize) -> Target {
        let mut name = raw;
        if has_escapes {
            self.key.clear();
            // What no text can hold is no column's name.
            if unescape(raw, &mut self.key).is_ok() {
                name = &self.key;
            }
        }
        let target = self.fields.keys.get(name).copied().unwrap_or(self.fields.others);
        if raw.len() <= ORDERED_KEY && place < ORDERED {
            if place == self.order.len() {
                self.order.push((Vec::new(), target));
            }
            if let Some((known, known_target)) = self.order.get_mut(place) {
                known.clear();
                known.extend_from_slice(raw);
                *known_target = target;
            }
        }
        target
    }

    /// Finds the members of the object that a line is.
    fn scan(&mut self, line: &[u8]) -> Result<(), Fault> {
        let malformed = |fault: json::Fault| {
            Fault::malformed(fault.at, None, format!("the line is no JSON object: {}", fault.what))
        };
        let mut scanner = Scanner::new(line, 0);
        scanner.open_object().map_err(malformed)?;
        let mut place = 0;
        let mut unlisted = None;
        while let Some(key) = scanner.next_key().map_err(malformed)? {
            let target = self.target(line, key, place);
            let value = scanner.value().map_err(malformed)?;
            match target {
                Target::Field(index) => self.values[index] = Some(value),
                Target::Rest => self.rest.push((key, value)),
                Target::Ignored => {}
                Target::Unlisted => {
                    unlisted.get_or_insert(key);
                }
            }
            place += 1;
        }
        if scanner.peek().is_some() {
            return Err(malformed(scanner.fault("there is more behind it")));
        }
        match unlisted {
            None => Ok(()),
            Some(key) => {
                let name = String::from_utf8_lossy(&line[key.start..key.end]);
                let message = format!(
                    "the key {name:?} is a column of the table, but was not among the keys of the first MiB, so the column is \
                     not loaded; name it with --header"
                );
                Err(Fault::malformed(key.start, None, message))
            }
        }
    }

    /// Behind the line in `meant`, where what does not stand in it goes.
    fn behind(&mut self, line: &[u8]) -> usize {
        if self.meant.is_empty() {
            self.meant.extend_from_slice(line);
        }
        self.meant.len()
    }

    fn span(&mut self, line: &[u8], index: usize) -> Result<Span, Fault> {
        let plain = |start: usize, end: usize| Span { start: start as u32, end: end as u32, form: Form::Quoted };
        let Some(shape) = self.fields.shapes[index] else { return Ok(self.append_rest(line)) };
        let Some(value) = self.values[index].filter(|value| value.kind != Kind::Null) else {
            return Ok(Span { start: 0, end: 0, form: Form::Bare });
        };
        let raw = &line[value.start..value.end];
        let (from, appended) = match (value.kind, shape) {
            (Kind::String { has_escapes: false }, JsonShape::Text | JsonShape::Array { .. }) => {
                return Ok(plain(value.start + 1, value.end - 1));
            }
            (Kind::String { has_escapes: true }, JsonShape::Text | JsonShape::Array { .. }) => {
                let from = self.behind(line);
                (from, unescape(&raw[1..raw.len() - 1], &mut self.meant).map_err(|(at, why)| (at + 1, why)))
            }
            (Kind::Array, JsonShape::Array { delimiter, is_json }) => {
                let from = self.behind(line);
                (from, append_array(raw, delimiter, is_json, &mut self.meant))
            }
            _ => return Ok(plain(value.start, value.end)),
        };
        match appended {
            Ok(()) => Ok(plain(from, self.meant.len())),
            Err((at, why)) => {
                let at = value.start + at;
                Err(match why {
                    NoText::Nul => Fault { at, field: Some(index), kind: RecordErrorKind::Nul },
                    NoText::LoneSurrogate => {
                        Fault::malformed(at, Some(index), "half of a pair of surrogates, which is no character")
                    }
                })
            }
        }
    }

    /// What is no field's, as one object.
    fn append_rest(&mut self, line: &[u8]) -> Span {
        let start = self.behind(line);
        self.meant.push(b'{');
        for (place, (key, value)) in self.rest.iter().enumerate() {
            if place > 0 {
                self.meant.push(b',');
            }
            // With the quotes around it.
            self.meant.extend_from_slice(&line[key.start - 1..=key.end]);
            self.meant.push(b':');
            self.meant.extend_from_slice(&line[value.start..value.end]);
        }
        self.meant.push(b'}');
        Span { start: start as u32, end: self.meant.len() as u32, form: Form::Quoted }
    }
}

impl Cut for Ndjson {
    const FORMAT: InputFormat = InputFormat::Ndjson;
    const IS_TEXT: bool = true;

    fn cut(&mut self, input: &[u8], is_last: bool) -> Result<Found, Fault> {
        // The rest of a gap that was too long for the record before.
        if input.first().copied().is_some_and(is_space) {
            let first = input.iter().position(|byte| !is_space(*byte));
            let blank = input[..first.unwrap_or(input.len())].iter().rposition(|byte| *byte == b'\n');
            match (blank, first) {
                (None, None) if is_last => return Ok(Found::Gap(input.len())),
                (None, None) => return Ok(Found::More(input.len() + 1)),
                (None, Some(_)) => {}
                (Some(end), _) => return Ok(Found::Gap(end + 1)),
            }
        }
        let Some(end) = memchr(b'\n', input) else {
            return Ok(match (input.is_empty(), is_last) {
                (_, false) => Found::More(input.len() + 1),
                (true, true) => Found::End,
                (false, true) => Found::Record(input.len()),
            });
        };
        let behind = &input[end + 1..];
        match behind.iter().position(|byte| !is_space(*byte)) {
            Some(0) => Ok(Found::Record(end + 1)),
            Some(next) => {
                let blank = behind[..next].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                Ok(Found::Record(end + 1 + blank))
            }
            None if is_last => Ok(Found::Record(input.len())),
            None => Ok(Found::More(input.len() + 1)),
        }
    }

    fn end_before_gap(&self, window: &[u8]) -> Option<usize> {
        let end = memchr(b'\n', window)? + 1;
        let is_gap = window[end..].iter().all(|byte| is_space(*byte));
        let blank = window[end..].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        is_gap.then_some(end + blank)
    }

    fn split<'a>(&'a mut self, raw: &'a [u8]) -> Result<Fields<'a>, Fault> {
        self.spans.clear();
        self.rest.clear();
        self.meant.clear();
        if self.meant.capacity() > KEEP {
            self.meant = Vec::new();
        }
        if self.rest.capacity() > KEEP / size_of::<(JsonString, Value)>() {
            self.rest = Vec::new();
        }
        self.values.fill(None);
        let line = line(raw);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.scan(line)?;
        for index in 0..self.values.len() {
            let span = self.span(line, index)?;
            self.spans.push(span);
        }
        let text: &[u8] = if self.meant.is_empty() { raw } else { &self.meant };
        Ok(Fields { text, spans: &self.spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ndjson() -> Ndjson {
        let shapes = vec![
            Some(JsonShape::Text),
            Some(JsonShape::Json),
            Some(JsonShape::Array { delimiter: b',', is_json: false }),
            None,
        ];
        let keys =
            [("a", Target::Field(0)), ("j", Target::Field(1)), ("l", Target::Field(2)), ("late", Target::Unlisted)];
        let keys = keys.map(|(key, target)| (key.as_bytes().to_vec(), target)).into();
        Ndjson::new(Arc::new(JsonFields { shapes, keys, others: Target::Rest }))
    }

    fn values(ndjson: &mut Ndjson, raw: &str) -> Result<Vec<Option<String>>, Fault> {
        let Fields { text, spans } = ndjson.split(raw.as_bytes())?;
        let value = |span: &Span| {
            let text = &text[span.start as usize..span.end as usize];
            (span.form != Form::Bare).then(|| String::from_utf8(text.to_vec()).unwrap())
        };
        Ok(spans.iter().map(value).collect())
    }

    #[test]
    fn keys_become_fields() {
        let mut ndjson = ndjson();
        let mut check = |raw: &str, expected: [Option<&str>; 4]| {
            assert_eq!(values(&mut ndjson, raw).unwrap(), expected.map(|value| value.map(str::to_owned)), "{raw}");
        };
        check("{\"a\":\"x\",\"j\":\"y\",\"l\":[1]}\n", [Some("x"), Some("\"y\""), Some("{1}"), Some("{}")]);
        check(
            "{\"l\":\"{2}\",\"j\":{\"b\": [1]}, \"\\u0061\":\"\\n\"}\r\n",
            [Some("\n"), Some("{\"b\": [1]}"), Some("{2}"), Some("{}")],
        );
        check("{\"\":1,\"x\\\"\" : [ ],\"a\":null}\n\n \n", [None, None, None, Some("{\"\":1,\"x\\\"\":[ ]}")]);
        check("{\"a\":1,\"a\":true,\"a\":-0.50}", [Some("-0.50"), None, None, Some("{}")]);
        check("{\"x\":1,\"\":2,\"x\":3}", [None, None, None, Some("{\"x\":1,\"\":2,\"x\":3}")]);
        check("{}", [None, None, None, Some("{}")]);
    }

    #[test]
    fn a_record_that_would_lose_something_is_bad() {
        let mut ndjson = ndjson();
        for (raw, at) in [
            ("[1]\n", 0),
            ("{\"a\":1} x\n", 8),
            ("{\"a\":1", 6),
            ("{\"a\":\"\\ud800\"}", 6),
            ("{\"a\":\"x\\u0000\"}", 7),
            ("{\"l\":[\"\\ud800\"]}", 7),
            ("{\"x\":1,\"late\":null}", 8),
        ] {
            assert_eq!(values(&mut ndjson, raw).unwrap_err().at, at, "{raw}");
        }
    }

    #[test]
    fn lines_are_cut_with_the_blank_ones_behind_them() {
        let mut ndjson = ndjson();
        let mut cut = |input: &str, is_last| ndjson.cut(input.as_bytes(), is_last).unwrap();
        assert_eq!(cut("{}\n{}\n", false), Found::Record(3));
        assert_eq!(cut("{}\n", false), Found::More(4));
        assert_eq!(cut("{}\n", true), Found::Record(3));
        assert_eq!(cut("{}\r\n\r\n \n  {}", false), Found::Record(8));
        assert_eq!(cut("{}\n\n", true), Found::Record(4));
        assert_eq!(cut("{}", true), Found::Record(2));
        assert_eq!(cut("", true), Found::End);
        assert_eq!((cut("\n \n {}", false), cut(" \n ", true)), (Found::Gap(3), Found::Gap(2)));
        assert_eq!(
            (cut(" ", false), cut(" ", true), cut(" {}\n{", false)),
            (Found::More(2), Found::Gap(1), Found::Record(4))
        );
        assert_eq!(line(b"{}\r\n\n"), b"{}\r\n");
        assert_eq!([start(b"\xef\xbb\xbf\n \n {}"), start(b" \n"), start(b"x")], [Some(6), None, Some(0)]);
    }

    #[test]
    fn keys_are_those_that_can_be_seen() {
        assert_eq!(
            keys(b"{\"b\":1,\"a\":{\"c\":2}}\nno object\n{\"\\u0061\":1,\"d\":[}\n\n{\"e\":\"cut o"),
            ["b", "a", "d", "e"]
        );
    }
}
