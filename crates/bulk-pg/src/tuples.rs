//! Records of COPY's binary format, as `ReceiveCopyBinaryHeader` and `CopyGetData` in
//! `src/backend/commands/copyfromparse.c` read them; and rows of it made of such records.

use crate::counted::counted;
use crate::cut::{Cut, Fault, Fields, Found};
use crate::scan::{Form, Span};
use crate::value::NULL;
use crate::{BinaryType, InputFormat, Record, RecordErrorKind, Source, Unencoded};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The flags and the length of the extension behind them.
const WORD: usize = 4;
/// Tuples have object identifiers, as servers before version 12 could write them.
const WITH_IDENTIFIERS: u32 = 1 << 16;
/// Flags that a reader must know.
const CRITICAL: u32 = 0xffff_0000;

/// How long the file's header is.
pub(crate) fn header_len(input: &[u8]) -> Result<usize, Fault> {
    let cut_off =
        || Fault::broken(input.len(), "the input ends within the header: it is cut off, or of another format");
    let Some(rest) = input.strip_prefix(SIGNATURE) else {
        let same = input.iter().zip(SIGNATURE).take_while(|(found, wanted)| found == wanted).count();
        return Err(if same == input.len() {
            cut_off()
        } else {
            Fault::broken(same, "the signature of COPY's binary format is missing: the file is of another one")
        });
    };
    let (flags, rest) = rest.split_first_chunk::<WORD>().ok_or_else(cut_off)?;
    let (extension, rest) = rest.split_first_chunk::<WORD>().ok_or_else(cut_off)?;
    let flags = u32::from_be_bytes(*flags);
    if flags & WITH_IDENTIFIERS != 0 {
        return Err(Fault::broken(
            SIGNATURE.len(),
            "its tuples have object identifiers, which no server reads any more",
        ));
    }
    if flags & CRITICAL != 0 {
        return Err(Fault::broken(SIGNATURE.len(), format!("its header has flags that nobody knows: {flags:#010x}")));
    }
    let at = SIGNATURE.len() + WORD;
    match usize::try_from(i32::from_be_bytes(*extension)) {
        Err(_) => Err(Fault::broken(at, "its header has an extension of less than nothing")),
        Ok(len) if len > rest.len() => Err(Fault::broken(
            at,
            format!("its header has an extension of {}, which is not all there", counted(len, "byte", "bytes")),
        )),
        Ok(len) => Ok(at + WORD + len),
    }
}

/// Cuts tuples of a given number of fields.
#[derive(Debug)]
pub(crate) struct Tuples {
    width: usize,
    /// Whether the input goes on to the file's end, where the trailer must be.
    is_to_end: bool,
    /// Of the last tuple that was cut.
    spans: Vec<Span>,
}

impl Tuples {
    pub(crate) fn new(width: usize, is_to_end: bool) -> Self {
        Self { width, is_to_end, spans: Vec::new() }
    }
}

/// Bytes of the count of fields.
const COUNT: usize = 2;
/// The count that is the trailer.
const TRAILER: i16 = -1;

impl Cut for Tuples {
    const FORMAT: InputFormat = InputFormat::CopyBinary;
    const IS_TEXT: bool = false;

    fn cut(&mut self, input: &[u8], is_last: bool) -> Result<Found, Fault> {
        self.spans.clear();
        let cut_off = "the input ends without the trailer: it is cut off";
        let Some((count, _)) = input.split_first_chunk::<COUNT>() else {
            return match (is_last, input.is_empty() && !self.is_to_end) {
                (false, _) => Ok(Found::More(COUNT)),
                (true, true) => Ok(Found::End),
                (true, false) => Err(Fault::broken(input.len(), cut_off)),
            };
        };
        let count = match i16::from_be_bytes(*count) {
            TRAILER if input.len() > COUNT => return Err(Fault::broken(COUNT, "there is more behind the trailer")),
            TRAILER if is_last => return Ok(Found::End),
            TRAILER => return Ok(Found::More(COUNT + 1)),
            count => usize::try_from(count)
                .map_err(|_| Fault::broken(0, format!("a tuple cannot have {count} fields: the file is damaged")))?,
        };
        let mut at = COUNT;
        for _ in 0..count {
            let Some(len) = input.get(at..).and_then(|rest| rest.first_chunk::<WORD>()) else {
                return if is_last { Err(Fault::broken(input.len(), cut_off)) } else { Ok(Found::More(at + WORD)) };
            };
            let start = at + WORD;
            let (end, form) = match i32::from_be_bytes(*len) {
                -1 => (start, Form::Bare),
                len => {
                    let damaged =
                        |_| Fault::broken(at, format!("a value cannot have {len} bytes: the file is damaged"));
                    (start + usize::try_from(len).map_err(damaged)?, Form::Quoted)
                }
            };
            if end > input.len() {
                return match is_last {
                    true => Err(Fault::broken(
                        at,
                        format!(
                            "a value of {} goes beyond the end: the file is cut off or damaged",
                            counted(end - start, "byte", "bytes")
                        ),
                    )),
                    false => Ok(Found::More(end)),
                };
            }
            self.spans.push(Span { start: start as u32, end: end as u32, form });
            at = end;
        }
        Ok(Found::Record(at))
    }

    fn split<'a>(&'a mut self, raw: &'a [u8]) -> Result<Fields<'a>, Fault> {
        let (expected, found) = (self.width, self.spans.len());
        if found != expected {
            return Err(Fault { at: 0, field: None, kind: RecordErrorKind::FieldCount { expected, found } });
        }
        Ok(Fields { text: raw, spans: &self.spans })
    }
}

/// Makes rows of COPY's binary format of records that [`Tuples`] has cut.
#[derive(Clone, Debug)]
pub(crate) struct CopyTuples {
    columns: Vec<Column>,
    count: [u8; COUNT],
    /// Whether a row is the record as it stands.
    is_same: bool,
}

#[derive(Clone, Debug)]
enum Column {
    Field(usize),
    /// With its length.
    Encoded(Vec<u8>),
}

/// Why there are no rows of some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoTuples {
    /// The column, from 0.
    pub(crate) column: usize,
    pub(crate) why: String,
}

impl CopyTuples {
    /// Of records of `fields` fields. The type of a column is asked for where it is to hold a constant.
    pub(crate) fn new(
        sources: &[Source],
        fields: usize,
        binary_type: impl Fn(usize) -> Option<BinaryType>,
    ) -> Result<Self, NoTuples> {
        let column = |(column, source): (usize, &Source)| match source {
            Source::Field(index) => Ok(Column::Field(*index)),
            Source::Null => Ok(Column::Encoded(NULL.to_vec())),
            Source::Constant(value) => {
                let unknown = "values of its type cannot be encoded".to_owned();
                let binary_type = binary_type(column).ok_or(NoTuples { column, why: unknown })?;
                let mut encoded = Vec::new();
                let appended = binary_type.append_constant(value, &mut encoded);
                appended.map_err(|refusal| NoTuples { column, why: Unencoded::new(refusal, column).to_string() })?;
                Ok(Column::Encoded(encoded))
            }
        };
        let is_same =
            sources.len() == fields && sources.iter().zip(0..).all(|(source, index)| *source == Source::Field(index));
        let columns = sources.iter().enumerate().map(column).collect::<Result<Vec<_>, _>>()?;
        // A table has at most 1,600 columns.
        let count = u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes();
        Ok(Self { columns, count, is_same })
    }

    /// Appends the row of a record to `out`.
    pub(crate) fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if self.is_same {
            out.extend_from_slice(record.raw());
            return;
        }
        out.extend_from_slice(&self.count);
        for column in &self.columns {
            match column {
                Column::Encoded(bytes) => out.extend_from_slice(bytes),
                Column::Field(index) => match record.field(*index).filter(|field| !field.is_null()) {
                    Some(field) => {
                        let value = field.raw();
                        // It came with its length in as many bytes.
                        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                        out.extend_from_slice(value);
                    }
                    None => out.extend_from_slice(&NULL),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CopyBinary;

    fn fault(result: Result<impl std::fmt::Debug, Fault>) -> (usize, String) {
        let fault = result.unwrap_err();
        let RecordErrorKind::Broken { message } = fault.kind else { panic!("{fault:?}") };
        (fault.at, message.into())
    }

    #[test]
    fn headers_are_read_or_refused() {
        let header = |flags: u32, extension: i32, more: &[u8]| {
            [SIGNATURE, &flags.to_be_bytes(), &extension.to_be_bytes(), more].concat()
        };
        assert_eq!(header_len(&CopyBinary::HEADER).unwrap(), 19);
        assert_eq!(header_len(&header(0xffff, 3, b"abcd")).unwrap(), 22);
        assert_eq!(fault(header_len(&header(1 << 16, 0, b""))).0, 11);
        assert_eq!(
            fault(header_len(&header(1 << 17, 0, b""))),
            (11, "its header has flags that nobody knows: 0x00020000".to_owned())
        );
        assert_eq!(fault(header_len(&header(0, -1, b""))).0, 15);
        assert_eq!(fault(header_len(&header(0, 5, b"abcd"))).0, 15);
        assert_eq!(fault(header_len(b"PGCOPY\n\xff\n")).0, 8);
        assert_eq!(fault(header_len(&SIGNATURE[..5])).0, 5);
        assert_eq!(fault(header_len(&CopyBinary::HEADER[..14])).0, 14);
    }

    #[test]
    fn tuples_end_where_their_lengths_say() {
        let tuple = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        let input = [&tuple[..], &CopyBinary::TRAILER].concat();
        let mut tuples = Tuples::new(2, true);
        assert_eq!(tuples.cut(&input, true).unwrap(), Found::Record(11));
        for (len, more) in [(0, 2), (1, 2), (2, 6), (6, 7), (7, 11), (10, 11)] {
            assert_eq!(tuples.cut(&input[..len], false).unwrap(), Found::More(more), "{len}");
            assert_eq!(fault(tuples.cut(&input[..len], true)).0, if len == 6 { 2 } else { len }, "{len}");
        }
        assert_eq!(tuples.cut(&CopyBinary::TRAILER, true).unwrap(), Found::End);
        assert_eq!(tuples.cut(&CopyBinary::TRAILER, false).unwrap(), Found::More(3));
        assert_eq!(fault(tuples.cut(b"\xff\xff\0", false)).0, 2);
        assert_eq!(
            fault(tuples.cut(b"\xff\xfe", false)),
            (0, "a tuple cannot have -2 fields: the file is damaged".to_owned())
        );
        assert_eq!(
            fault(tuples.cut(b"\0\x01\xff\xff\xff\xfe", false)),
            (2, "a value cannot have -2 bytes: the file is damaged".to_owned())
        );
        assert_eq!(Tuples::new(2, false).cut(b"", true).unwrap(), Found::End);
    }
}
