//! The thread that reads a file, cuts it into records and encodes them for COPY.

mod bad_record;

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::buffer::BYTE_ORDER_MARK;
use crate::choice::Choice;
use crate::column::{Mapping, Target};
use crate::content::RowHasher;
use crate::counted::counted;
use crate::detect::detect_in;
use crate::error::ANEW;
use crate::feed::{Deserted, Feed};
use crate::first_line;
use crate::input::{Noted, Passed};
use crate::json_column::JsonShape;
use crate::ledger::Extent;
use crate::opening::Opening;
use crate::reader::{self, Layout, Reader};
use crate::rows::{BadValue, RowEncoder, RowMaker};
use crate::stage::{LoadStage, Watch, Watched};
use crate::{
    Certainty, Checkpoint, Checksum, CopyBinary, CopyFormat, Dialect, Error, Header, Input, InputFormat, LoadOptions,
    Position, RecordError, RecordErrorKind, RecordOptions, Records, TableName, Verdict,
};

/// Decoded bytes that the dialect is told from, and that the header must be within.
const SAMPLE: u64 = 1 << 20;

/// What the file is.
pub(crate) struct Opened {
    /// Of CSV.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) layout: Layout,
    pub(crate) mapping: Mapping,
    pub(crate) maker: RowMaker,
}

/// Why the thread goes no further.
enum End {
    Deserted,
    Record(RecordError),
    Value { bad: BadValue, record: u64, offset: u64 },
}

impl From<Deserted> for End {
    fn from(_: Deserted) -> Self {
        Self::Deserted
    }
}

pub(crate) struct Encoder {
    pub(crate) file: String,
    pub(crate) table: TableName,
    pub(crate) target: Target,
    /// What earlier runs committed, in the order of the file.
    pub(crate) committed: Vec<Extent>,
    /// By which dialect that was read.
    pub(crate) known_dialect: Option<Dialect>,
    /// How the columns take JSON, if the file is of it.
    pub(crate) shapes: HashMap<String, JsonShape>,
    pub(crate) options: LoadOptions,
    /// How many send chunks.
    pub(crate) sessions: usize,
    /// Says, when nobody takes chunks any more, that the input's checksum is still wanted; else it is dropped.
    pub(crate) is_to_be_checked: Option<oneshot::Receiver<()>>,
}

impl Encoder {
    /// Reads the file, says what it is, and feeds what is not committed yet. The position behind its last record, or
    /// `None` if nobody takes chunks any more.
    pub(crate) fn run(
        mut self,
        input: impl FnOnce() -> io::Result<Box<dyn Input>>,
        opened: oneshot::Sender<Opened>,
        mut feed: Feed,
    ) -> Result<Option<Position>, Error> {
        let watch = Arc::new(Watch::new(&self.options.observer, &self.file, LoadStage::Encode, 0));
        feed.watch(watch.clone());
        let mut input: Box<dyn Input> =
            Box::new(Watched { input: input().map_err(|error| self.unreadable(error))?, watch });
        let mut sample = Vec::new();
        (&mut input).take(SAMPLE).read_to_end(&mut sample).map_err(|error| self.unreadable(error))?;
        let complete = (sample.len() as u64) < SAMPLE;
        if sample.is_empty() {
            return Err(Error::Empty { file: self.file.clone() });
        }
        let (verdict, mut layout) = self.layout(&sample, complete)?;
        let advice = self.advice(&sample);
        let advised = |error: Error| match (error, &advice) {
            (Error::Columns { file, what }, Some(advice)) => Error::Columns { file, what: format!("{what}; {advice}") },
            (error, _) => error,
        };
        self.settle_newline(&mut layout, &mut input, &mut sample, complete)?;
        let header_end = layout.header.end();
        let mut choice = Choice::new(&self.file, layout.header.names(), &self.options).map_err(advised)?;
        let opening = self.opening();
        let mapping = opening.mapping(&layout).map_err(advised)?;
        let maker = opening.maker(&mapping, &layout)?;
        // The server is to judge a constant that cannot be encoded.
        let is_encoded = self.options.format == CopyFormat::Auto && matches!(maker, RowMaker::Text(_));
        let binary = mapping.binary.as_ref().filter(|_| is_encoded);
        let binary = binary.and_then(|columns| CopyBinary::new(columns, layout.header.names().len()).ok());
        let tolerant = self.options.is_tolerant();
        let mut rows = RowEncoder::new(maker.clone(), binary, mapping.names.clone(), tolerant, self.sessions);
        if self.options.hash_content {
            let types = mapping.binary.as_ref();
            rows.hash(types.map(|columns| RowHasher::new(columns.iter().map(|(_, binary_type)| *binary_type))));
        }
        let mut options = RecordOptions::default();
        options.chunk_size = self.options.chunk_size;
        options.max_record = self.options.max_record;
        options.guard = verdict.as_ref().is_some_and(|verdict| verdict.certainty == Certainty::Ambiguous);
        if opened.send(Opened { verdict, layout: layout.clone(), mapping, maker }).is_err() {
            return Ok(None);
        }
        let mut stream = Noted::new(sample, input);
        let passed = stream.passed();
        let mut at = Position { offset: header_end, record: 0, chunk: 0 };
        self.skip(&mut stream, 0, header_end, None)?;
        for extent in &self.committed {
            if at.offset < extent.start.offset {
                let gap = (&mut stream).take(extent.start.offset - at.offset);
                let mut records = layout.resume(gap, reader::Extent::ToBorder, at, options.clone());
                match self.feed_records(&mut records, &passed, &mut choice, &mut rows, &mut feed) {
                    Ok(()) => at = records.position(),
                    Err(end) => return self.end(end, &mut stream),
                }
            }
            if (at.offset, at.record) != (extent.start.offset, extent.start.record) {
                return Err(self.misfit(format!(
                    "its record {} starts at byte {}, and what is loaded of it has record {} at byte {}: it is not the \
                     same file; {ANEW}",
                    at.record + 1,
                    at.offset,
                    extent.start.record + 1,
                    extent.start.offset
                )));
            }
            choice.take(extent.end.record - extent.start.record - extent.filtered);
            if choice.is_done() && self.committed.last() == Some(extent) {
                return Ok(Some(extent.end));
            }
            self.skip(&mut stream, at.offset, extent.end.offset, extent.checkpoint.as_ref())?;
            at = extent.end;
            // What settled the dialect stands in chunks that are not read again; so does what left it open.
            options.guard = extent.guarded && self.options.dialect.is_none();
        }
        let mut records = layout.resume(&mut stream, reader::Extent::ToEnd, at, options);
        match self.feed_records(&mut records, &passed, &mut choice, &mut rows, &mut feed) {
            Ok(()) => Ok(Some(records.position())),
            Err(end) => self.end(end, &mut stream),
        }
    }

    /// Goes over what is loaded, from one offset to another. What cannot be left out is read, which may take as long as
    /// loading it did.
    fn skip(&self, stream: &mut Noted, from: u64, to: u64, checkpoint: Option<&Checkpoint>) -> Result<(), Error> {
        let mut at = from;
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| (from + 1..=to).contains(&checkpoint.offset))
            && stream.skip_to(checkpoint)
        {
            at = checkpoint.offset;
        }
        while at < to {
            let piece = io::copy(&mut Read::take(&mut *stream, (to - at).min(SAMPLE)), &mut io::sink());
            let piece = piece.map_err(|error| self.unreadable(error))?;
            at += piece;
            // Nobody asks for the places within.
            stream.passed().last_before(at);
            if piece == 0 {
                return Err(self.misfit(format!(
                    "{} loaded, and it now has only {at}: it is not the same file; {ANEW}",
                    counted(to, "byte of it is", "bytes of it are")
                )));
            }
            if self.options.stop.is_cancelled() {
                return Err(Error::Stopped { what: format!("the load of {}", self.file) });
            }
        }
        Ok(())
    }

    /// Feeds records to their end, or until no more are wanted.
    fn feed_records(
        &self,
        records: &mut Reader<impl Read>,
        passed: &Passed,
        choice: &mut Choice,
        rows: &mut RowEncoder,
        feed: &mut Feed,
    ) -> Result<(), End> {
        let mut start = records.position();
        while !choice.is_done() {
            match records.next_record() {
                Ok(Some(record)) if !choice.takes(&record) => rows.pass_over(record.raw()),
                Ok(Some(record)) => {
                    if let Err(bad) = rows.push(&record) {
                        if !self.options.is_tolerant() {
                            return Err(End::Value { bad, record: record.number(), offset: record.offset() });
                        }
                        rows.leave_out(record.raw(), Some(&bad.column), bad.sqlstate, &bad.message);
                    }
                }
                Ok(None) => break,
                Err(error) => self.take_bad(error, records, choice, rows)?,
            }
            rows.feed(start, feed)?;
            if rows.is_chunk_full() {
                records.end_chunk();
            }
            let end = records.position();
            if end.chunk != start.chunk {
                rows.end(start, end, (records.is_guarded(), passed.last_before(end.offset)), feed)?;
                start = end;
            }
        }
        let end = records.position();
        if end.record != start.record {
            rows.end(start, end, (records.is_guarded(), passed.last_before(end.offset)), feed)?;
        }
        Ok(())
    }

    /// How the file that starts with `sample` is written; of CSV, also why that is thought.
    fn layout(&self, sample: &[u8], complete: bool) -> Result<(Option<Verdict>, Layout), Error> {
        let layout = match self.options.input_format {
            InputFormat::Csv => {
                let verdict = self.verdict(sample, complete)?;
                let header = self.header(sample, complete, verdict.dialect)?;
                let layout = Layout::csv(verdict.dialect, header);
                return Ok((Some(verdict), layout));
            }
            InputFormat::Ndjson => self.opening().ndjson(sample, complete, &self.shapes)?,
            InputFormat::CopyText => self.opening().text(),
            InputFormat::CopyBinary => self.opening().binary(sample)?,
        };
        Ok((None, layout))
    }

    fn opening(&self) -> Opening<'_> {
        Opening { file: &self.file, table: &self.table, target: &self.target, options: &self.options }
    }

    /// Reads on to the end of the first record, if that tells how the others end.
    fn settle_newline(
        &self,
        layout: &mut Layout,
        input: &mut impl Read,
        sample: &mut Vec<u8>,
        mut complete: bool,
    ) -> Result<(), Error> {
        while layout.lacks_newline()
            && !layout.find_newline(sample, complete)
            && sample.len() <= self.options.max_record
        {
            let more = sample.len() as u64;
            let read = Read::take(&mut *input, more).read_to_end(sample).map_err(|error| self.unreadable(error))?;
            complete = (read as u64) < more;
        }
        Ok(())
    }

    /// By which dialect to read: the one that was asked for, that of earlier runs, or the one that is found.
    fn verdict(&self, sample: &[u8], complete: bool) -> Result<Verdict, Error> {
        let file = || self.file.clone();
        let undetected = |source| first_line::undetected(&self.file, source, self.advice(sample));
        let options = &self.options;
        // What was loaded while the dialect was in doubt reads the same in both.
        let settled = self.committed.iter().find(|extent| !extent.guarded).and(self.known_dialect);
        if let (Some(asked), Some(settled)) = (options.dialect, settled)
            && !reads_alike(asked, settled)
        {
            let what = format!(
                "a part of it is loaded as dialect {settled}, and it is now to be read as {asked}; leave --dialect \
                 out, or {ANEW}"
            );
            return Err(Error::Columns { file: file(), what });
        }
        let verdict = detect_in(sample, complete, options.dialect.or(options.hint), options.header.is_none())
            .map_err(undetected)?;
        if let Some(asked) = options.dialect {
            // A and B are read alike; which of the two it is matters to nobody.
            if reads_alike(asked, verdict.dialect) {
                return Ok(verdict);
            }
            return Err(Error::Dialect { file: file(), asked, found: verdict.dialect, evidence: verdict.evidence });
        }
        let known = match self.committed.first().and(self.known_dialect) {
            Some(known) if !reads_alike(known, verdict.dialect) => known,
            _ => return Ok(verdict),
        };
        let verdict = detect_in(sample, complete, Some(known), options.header.is_none()).map_err(undetected)?;
        if reads_alike(known, verdict.dialect) {
            return Ok(verdict);
        }
        let what = format!(
            "a part of it is loaded as dialect {known}, and it is {} ({}): it is not the same file; {ANEW}",
            verdict.dialect, verdict.evidence
        );
        Err(Error::Columns { file: file(), what })
    }

    /// How the file is to be read that is perhaps none of what it was taken for.
    fn advice(&self, sample: &[u8]) -> Option<String> {
        let is_taken = self.options.input_format == InputFormat::Csv && self.options.dialect.is_none();
        let columns = self.target.columns.iter().map(|column| column.name.as_str());
        if is_taken { first_line::advice(sample, columns) } else { None }
    }

    fn header(&self, sample: &[u8], complete: bool, dialect: Dialect) -> Result<Header, Error> {
        if let Some(names) = &self.options.header {
            let mut header = Header::new(names.clone());
            header.end = if sample.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() as u64 } else { 0 };
            return Ok(header);
        }
        let records =
            Records::new(sample, dialect, RecordOptions::default()).map_err(|error| self.bad_record(error))?;
        let header = records.header().clone();
        if !complete && header.end() == sample.len() as u64 {
            let what = format!("its first line, the columns' names, is longer than {SAMPLE} bytes: it is no CSV");
            return Err(Error::Columns { file: self.file.clone(), what });
        }
        Ok(header)
    }

    fn misfit(&self, what: String) -> Error {
        Error::Columns { file: self.file.clone(), what }
    }

    /// A record may be bad because the file is damaged, which the codec's checksum tells at the end.
    fn end(&mut self, end: End, rest: &mut impl Read) -> Result<Option<Position>, Error> {
        let (records, offset, error) = match end {
            End::Deserted => return self.check_rest(rest).map(|()| None),
            End::Record(error) if matches!(error.kind, RecordErrorKind::Io(_)) => return Err(self.bad_record(error)),
            End::Record(error) => (error.record.saturating_sub(1), error.offset, self.bad_record(error)),
            End::Value { bad: BadValue { column, sqlstate, message }, record, offset } => {
                let (file, table) = (self.file.clone(), Box::new(self.table.clone()));
                let message = message.into();
                (record - 1, offset, Error::Value { file, table, record, offset, column, sqlstate, message })
            }
        };
        if self.options.checksum != Checksum::Follows {
            return Err(error);
        }
        match io::copy(rest, &mut io::sink()) {
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                Err(Error::Read { file: self.file.clone(), records, offset, source })
            }
            _ => Err(error),
        }
    }

    /// Reads to the checksum behind the bytes, if somebody asks for what it says.
    fn check_rest(&mut self, rest: &mut impl Read) -> Result<(), Error> {
        let is_asked = self.is_to_be_checked.take().is_some_and(|asked| asked.blocking_recv().is_ok());
        if is_asked
            && let Err(source) = io::copy(rest, &mut io::sink())
            && source.kind() == io::ErrorKind::InvalidData
        {
            return Err(self.unreadable(source));
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { file: self.file.clone(), records: 0, offset: 0, source }
    }

    fn bad_record(&self, source: RecordError) -> Error {
        match source {
            RecordError { kind: RecordErrorKind::Io(source), record, offset, .. } => {
                Error::Read { file: self.file.clone(), records: record.saturating_sub(1), offset, source }
            }
            source => Error::Record { file: self.file.clone(), source },
        }
    }
}

pub(crate) fn reads_alike(a: Dialect, b: Dialect) -> bool {
    (a.delimiter(), a.quote(), a.escape()) == (b.delimiter(), b.quote(), b.escape())
}
