mod jsonb;
mod spelling;
mod types;

use std::collections::HashSet;
use std::io::{self, Cursor, Read};

use self::spelling::{Spelled, spelled};
use self::types::Types;
use crate::buffer::BYTE_ORDER_MARK;
use crate::choice::Choice;
use crate::detect::detect_in;
use crate::encode::reads_alike;
use crate::first_line;
use crate::json_column::JsonShape;
use crate::ndjson::{self, JsonFields};
use crate::reader::{Extent, Layout};
use crate::repair::Repaired;
use crate::{
    Certainty, Condition, Error, Header, Ident, InferredColumn, InferredTable, InputFormat, LoadOptions, Position,
    Record, RecordError, RecordErrorKind, RecordOptions, Records,
};

pub use self::types::InferredType;

/// Tells the types of columns from their values.
///
/// Give it the records of one or more files ([`read`](Self::read), or [`observe`](Self::observe) for any other
/// format), and [`finish`](Self::finish) it. Columns meet by name; they stand in the order in which they were named first.
///
/// # Rules
///
/// A column gets the first of these types that all of its values are spelled as, NULLs aside:
///
/// 1. `boolean`: `t`, `f`, `true`, `false`, in any case. (`yes`, `on`, `1` may mean something else.)
/// 2. `integer`, `bigint`, `numeric`: digits with a minus sign before them or none, and for `numeric` a point among them.
///    Leading zeros (`007`) and a plus sign make it text: those are codes and telephone numbers.
/// 3. `double precision`: the same, if one of them has an exponent or is `NaN`, `Infinity`, `inf`, and none has more than 17
///    significant digits, which no double has.
/// 4. `date`: `YYYY-MM-DD`, also with ` BC` behind it or a year of more digits.
/// 5. `timestamp`: dates with a time behind a blank or a `T`, none with a zone; dates alone may stand among them.
/// 6. `timestamptz`: dates with a time, each with a zone (`Z`, `UTC`, `+02`, `+02:00`). No second has more than six digits
///    behind its point, which is what the server keeps.
/// 7. `uuid`: 36 characters with hyphens. (32 digits without any may be another digest.)
/// 8. `jsonb`: objects and arrays. Other JSON is too easily something else.
/// 9. `text`: all else; so are an empty string that is not NULL, white space around a value, and a column with nothing but
///    NULLs, or nothing but words such as `NaN` and `infinity`.
///
/// What is inferred is what [`CopyBinary`](crate::CopyBinary) encodes and every server from version 13 on reads, whatever
/// its settings. No column is NOT NULL: that there is no NULL in a sample proves nothing.
///
/// ```
/// use bulk_pg::{Inference, LoadOptions};
///
/// let csv = &b"id,code,sum,since\n1,007,1.50,2026-06-30\n2,12,,2026-07-01 12:00\n"[..];
/// let mut inference = Inference::new();
/// inference.read("t.csv", csv, &LoadOptions::default())?;
/// let table = inference.finish();
/// let types: Vec<_> = table.columns.iter().map(|column| column.data_type.name()).collect();
/// assert_eq!(types, ["integer", "text", "numeric", "timestamp"]);
/// assert_eq!(
///     table.create_sql(&"t".parse().unwrap()),
///     "CREATE TABLE \"public\".\"t\" (\n    \"id\" integer,\n    \"code\" text,\n    \"sum\" numeric,\n    \
///      \"since\" timestamp\n)"
/// );
/// # Ok::<(), bulk_pg::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Inference {
    columns: Vec<Column>,
    records: u64,
    room: Vec<u8>,
    joined: Option<String>,
}

#[derive(Clone, Debug)]
struct Column {
    name: Ident,
    /// That it may yet be of.
    types: Types,
    /// Whether a value was more than a word that several types have.
    is_told: bool,
    values: u64,
    nulls: u64,
}

impl Inference {
    /// Decoded bytes of a file that [`read`](Self::read) looks at: the records that begin within them.
    pub const MAX_BYTES: u64 = 16 << 20;
    /// Records of a file that it looks at, if they are fewer bytes.
    pub const MAX_RECORDS: u64 = 100_000;

    /// With no columns yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The place of the column of this name, for [`observe`](Self::observe). One that is not known yet is added behind the
    /// others.
    pub fn column(&mut self, name: &Ident) -> usize {
        if let Some(place) = self.columns.iter().position(|column| column.name == *name) {
            return place;
        }
        let (values, nulls) = (0, 0);
        self.columns.push(Column { name: name.clone(), types: Types::ALL, is_told: false, values, nulls });
        self.columns.len() - 1
    }

    /// Takes a value of a column, `None` for NULL.
    ///
    /// # Panics
    ///
    /// If no [`column`](Self::column) has this place.
    pub fn observe(&mut self, column: usize, value: Option<&[u8]>) {
        let Column { types, is_told, values, nulls, .. } = &mut self.columns[column];
        let Some(value) = value else {
            *nulls += 1;
            return;
        };
        *values += 1;
        if *types != Types::NONE {
            let Spelled { types: found, is_word } = spelled(value, *types, &mut self.room);
            *types = found;
            *is_told |= !is_word;
        }
    }

    /// Reads the beginning of a file of CSV or NDJSON, whose decoded bytes `input` gives: its first 16 MiB
    /// ([`MAX_BYTES`](Self::MAX_BYTES)) or 100,000 records ([`MAX_RECORDS`](Self::MAX_RECORDS)), whatever is less. The rest
    /// is not read.
    ///
    /// The file is read as [`load`](crate::load()) with these options would read it: what they do not choose of it does not
    /// count. A value of [`fill`](LoadOptions::fill) counts where the file lacks its column. Records that load would leave
    /// out are passed over if [any may be](LoadOptions::max_rejects).
    ///
    /// The columns of NDJSON are the keys of its first MiB, and that of the [rest](LoadOptions::rest), which is jsonb. A
    /// string counts as what stands between its quotes, so `"2026-06-30"` is a date; objects and arrays are jsonb.
    ///
    /// # Errors
    ///
    /// Those of `load` that concern the reading: [`Error::Empty`], [`Error::Undetected`], [`Error::Dialect`],
    /// [`Error::Record`], [`Error::Read`]; and [`Error::Columns`] for a header with a name twice, or one that no column can
    /// have, and for a file of another format. What was observed before it stays.
    pub fn read(&mut self, file: &str, mut input: impl Read, options: &LoadOptions) -> Result<(), Error> {
        let unreadable = |source| Error::Read { file: file.to_owned(), records: 0, offset: 0, source };
        let mut sample = Vec::new();
        (&mut input).take(SAMPLE).read_to_end(&mut sample).map_err(unreadable)?;
        if sample.is_empty() {
            return Err(Error::Empty { file: file.to_owned() });
        }
        let complete = (sample.len() as u64) < SAMPLE;
        let (layout, guard) = open(file, &sample, complete, options)?;
        let names = layout.header.names();
        if let ([name], InputFormat::Csv, None) = (names, options.input_format, &options.header)
            && self.joined.is_none()
        {
            self.joined = first_line::joined(name).map(|what| format!("{file}: {what}"));
        }
        let at = Position { offset: layout.header.end(), ..Position::default() };
        let record_options = RecordOptions { max_record: options.max_record, guard, ..RecordOptions::default() };
        let mut input = Cursor::new(sample).chain(input);
        io::copy(&mut (&mut input).take(at.offset), &mut io::sink()).map_err(unreadable)?;
        let mut records = layout.resume(input, Extent::ToEnd, at, record_options);
        let places = self.header(file, names, options)?;
        let mut choice = Choice::new(file, names, options)?;
        if let Some(rest) = &options.rest {
            let place = self.column(&Ident::new(rest).map_err(|error| misfit(file, error.to_string()))?);
            self.observe(place, Some(b"{}"));
        }
        while !choice.is_done() {
            let at = records.position();
            if at.record >= Self::MAX_RECORDS || at.offset >= Self::MAX_BYTES {
                break;
            }
            match records.next_record() {
                Ok(Some(record)) if choice.takes(&record) => self.observe_record(&record, &places),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    let bad = records.bad_text(&error);
                    if bad.is_some_and(|record| !choice.takes(&record)) {
                        continue;
                    }
                    let bad = bad.filter(|_| options.repair);
                    match bad.and_then(|record| Some((record, Repaired::new(&record, options.max_record)?))) {
                        Some((record, repaired)) => self.observe_record(&repaired.in_place_of(&record), &places),
                        None if error.is_reject() && options.is_tolerant() => {}
                        None => return Err(bad_record(file, error)),
                    }
                }
            }
        }
        Ok(())
    }

    fn observe_record(&mut self, record: &Record<'_>, places: &[Option<usize>]) {
        self.records += 1;
        for (place, field) in places.iter().zip(record.fields()) {
            if let Some(place) = place {
                self.observe(*place, field.value().as_deref());
            }
        }
    }

    /// The places of those of a file's columns that are chosen.
    fn header(&mut self, file: &str, names: &[String], options: &LoadOptions) -> Result<Vec<Option<usize>>, Error> {
        let misfit = |what: String| misfit(file, what);
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(misfit(format!("its header has the column {name:?} twice")));
        }
        let ident = |name: &String| {
            Ident::new(name).map_err(|error| misfit(format!("no table can have a column of its header: {error}")))
        };
        let chosen = options.columns.as_ref();
        let is_chosen = |name: &str| chosen.is_none_or(|chosen| chosen.iter().any(|other| other == name));
        let is_filled = |name: &str| !(seen.contains(name) && is_chosen(name));
        let filled = options.fill.iter().filter(|(name, _)| is_filled(name));
        let filled: Vec<_> = filled.map(|(name, value)| Ok((ident(name)?, value))).collect::<Result<_, Error>>()?;
        let names: Vec<_> = names.iter().map(ident).collect::<Result<_, _>>()?;
        if let Some(name) = chosen.into_iter().flatten().find(|name| !names.iter().any(|known| known.as_str() == *name))
        {
            return Err(misfit(format!("it has no column {name:?}")));
        }
        let places = names.iter().map(|name| is_chosen(name.as_str()).then(|| self.column(name))).collect();
        for (name, value) in filled {
            let place = self.column(&name);
            self.observe(place, Some(value.as_bytes()));
        }
        Ok(places)
    }

    /// Which file has a header of one column that looks like several between other delimiters than commas, and what that is, as a
    /// sentence, for whoever was not told that it is one.
    pub fn joined_header(&self) -> Option<&str> {
        self.joined.as_deref()
    }

    /// The table that the values fit into.
    pub fn finish(self) -> InferredTable {
        let column = |Column { name, types, is_told, values, nulls }: Column| {
            let narrowest = types.iter().next().filter(|_| is_told);
            InferredColumn::new(name, narrowest.unwrap_or(InferredType::Text), values, nulls)
        };
        InferredTable { columns: self.columns.into_iter().map(column).collect(), records: self.records }
    }
}

/// How a file is written that starts with `sample`, and whether that is in doubt.
fn open(file: &str, sample: &[u8], complete: bool, options: &LoadOptions) -> Result<(Layout, bool), Error> {
    match options.input_format {
        InputFormat::Csv => {
            let verdict = detect_in(sample, complete, options.dialect.or(options.hint), options.header.is_none())
                .map_err(|source| {
                    let is_told = options.dialect.is_some() || options.header.is_some();
                    let advice = first_line::advice(sample, std::iter::empty()).filter(|_| !is_told);
                    first_line::undetected(file, source, advice)
                })?;
            if let Some(asked) = options.dialect
                && !reads_alike(asked, verdict.dialect)
            {
                let (found, evidence) = (verdict.dialect, verdict.evidence);
                return Err(Error::Dialect { file: file.to_owned(), asked, found, evidence });
            }
            let header = match &options.header {
                Some(names) => {
                    let mut header = Header::new(names.clone());
                    let has_mark = sample.starts_with(BYTE_ORDER_MARK);
                    header.end = if has_mark { BYTE_ORDER_MARK.len() as u64 } else { 0 };
                    header
                }
                None => {
                    let record_options = RecordOptions { max_record: options.max_record, ..RecordOptions::default() };
                    let records = Records::new(sample, verdict.dialect, record_options);
                    records.map_err(|error| bad_record(file, error))?.header().clone()
                }
            };
            Ok((Layout::csv(verdict.dialect, header), verdict.certainty == Certainty::Ambiguous))
        }
        InputFormat::Ndjson => {
            let end = ndjson::start(sample).unwrap_or(sample.len());
            let mut names = ndjson::keys(&sample[end..]);
            names.retain(|name| Some(name) != options.rest.as_ref());
            let tested = options.filter.iter().map(Condition::column);
            let asked = options.header.iter().chain(&options.columns).flatten().map(String::as_str).chain(tested);
            for name in asked {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
            let shapes = vec![Some(JsonShape::Text); names.len()];
            let key = |(place, name): (usize, &String)| (name.clone().into_bytes(), ndjson::Target::Field(place));
            let keys = names.iter().enumerate().map(key).collect();
            let fields = JsonFields { shapes, keys, others: ndjson::Target::Ignored };
            Ok((Layout::ndjson(names, fields, end as u64), false))
        }
        format => Err(misfit(file, format!("types of columns are told from CSV and NDJSON, and this is {format}"))),
    }
}

fn misfit(file: &str, what: String) -> Error {
    Error::Columns { file: file.to_owned(), what }
}

fn bad_record(file: &str, error: RecordError) -> Error {
    match error {
        RecordError { kind: RecordErrorKind::Io(source), record, offset, .. } => {
            Error::Read { file: file.to_owned(), records: record.saturating_sub(1), offset, source }
        }
        source => Error::Record { file: file.to_owned(), source },
    }
}

/// Decoded bytes that the dialect is told from.
const SAMPLE: u64 = 1 << 20;

/// Tells the types of columns from records, by the rules of [`Inference`]. A record is the values of the columns in the
/// order of their names, `None` for NULL; those beyond the names are not looked at.
pub fn infer<'v, R>(names: impl IntoIterator<Item = Ident>, records: impl IntoIterator<Item = R>) -> InferredTable
where
    R: IntoIterator<Item = Option<&'v [u8]>>,
{
    let mut inference = Inference::new();
    let places: Vec<_> = names.into_iter().map(|name| inference.column(&name)).collect();
    for record in records {
        inference.records += 1;
        for (place, value) in places.iter().zip(record) {
            inference.observe(*place, value);
        }
    }
    inference.finish()
}
