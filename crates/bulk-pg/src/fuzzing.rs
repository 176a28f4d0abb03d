//! What the fuzz targets reach of the inside (feature `fuzzing`): no part of the API.

use std::collections::HashMap;
use std::io::Read;

use crate::json_column::JsonShape;
use crate::ndjson::{self, JsonFields, Target};
use crate::reader::{Extent, Layout};
use crate::tuples::header_len;
use crate::{CopyText, InputFormat, Position, RecordOptions, Source};

/// A file of another format than CSV, whose fields are `a`, `b`, `c` and, in NDJSON, `rest`.
#[derive(Debug)]
pub struct File {
    layout: Layout,
    width: usize,
}

/// What came of reading one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its row as COPY's text, or why there is none.
    pub row: Result<Vec<u8>, String>,
    /// The border behind it.
    pub after: Position,
    /// Whether nothing can be read behind it.
    pub is_last: bool,
}

impl File {
    /// A file that begins, and ends, with these bytes; `None` if it is none of this format, or the format is CSV.
    pub fn new(format: InputFormat, bytes: &[u8]) -> Option<Self> {
        let names = || ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut layout = match format {
            InputFormat::Csv => return None,
            InputFormat::Ndjson => {
                let mut names = names();
                names.push("rest".to_owned());
                let array = JsonShape::Array { delimiter: b',', is_json: false };
                let shapes = vec![Some(JsonShape::Text), Some(JsonShape::Json), Some(array), None];
                let mut keys: HashMap<_, _> =
                    (0..3).map(|index| (names[index].clone().into_bytes(), Target::Field(index))).collect();
                keys.insert(b"rest".to_vec(), Target::Rest);
                keys.insert(b"ignored".to_vec(), Target::Ignored);
                keys.insert(b"unlisted".to_vec(), Target::Unlisted);
                // Of no consequence here, but read by a parser of its own.
                let _ = ndjson::keys(bytes);
                let start = ndjson::start(bytes).unwrap_or(bytes.len());
                Layout::ndjson(names, JsonFields { shapes, keys, others: Target::Rest }, start as u64)
            }
            InputFormat::CopyText => Layout::text(names()),
            InputFormat::CopyBinary => Layout::binary(names(), header_len(bytes).ok()? as u64),
        };
        if layout.lacks_newline() {
            layout.find_newline(bytes, true);
        }
        let width = layout.header.names().len();
        Some(Self { layout, width })
    }

    /// Where the first record begins.
    pub fn start(&self) -> Position {
        Position { offset: self.layout.header.end(), ..Position::default() }
    }

    /// Reads from a border on.
    pub fn read(&self, input: impl Read, at: Position, options: RecordOptions) -> Vec<ReadRecord> {
        let fields: Vec<_> = (0..self.width).map(Source::Field).collect();
        let Ok(encoder) = CopyText::new(&fields, self.width) else { return Vec::new() };
        let mut reader = self.layout.resume(input, Extent::ToEnd, at, options);
        let mut all = Vec::new();
        loop {
            let (row, is_last) = match reader.next_record() {
                Ok(None) => return all,
                Ok(Some(record)) => {
                    let place = (record.number(), record.offset(), record.chunk(), record.ends_chunk());
                    let mut row = format!("{place:?} ").into_bytes();
                    encoder.append(&record, &mut row);
                    (Ok(row), false)
                }
                Err(error) => (Err(error.to_string()), !error.is_reject()),
            };
            all.push(ReadRecord { row, after: reader.position(), is_last });
            if is_last {
                return all;
            }
        }
    }
}
