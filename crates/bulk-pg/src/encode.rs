//! The thread that reads a file, cuts it into records and encodes them for COPY.

use std::io::{self, Cursor, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::column::{Mapping, Target};
use crate::error::ANEW;
use crate::{
    Certainty, Checksum, CopyText, Dialect, Error, Header, LoadOptions, Position, RecordError, RecordErrorKind,
    RecordOptions, Records, TableName, Verdict, detect,
};

/// Decoded bytes that the dialect is told from, and that the header must be within.
const SAMPLE: u64 = 1 << 20;
/// Encoded bytes in one message to the server.
const BUFFER: usize = 256 << 10;
/// Messages between the thread and the connection.
pub(crate) const QUEUE: usize = 8;

pub(crate) enum Message {
    /// The first: what the file is.
    Opened(Box<Opened>),
    /// Encoded bytes, which may end within a row, and the lengths in the file of the records that begin in them.
    Rows {
        rows: Bytes,
        lengths: Vec<u32>,
    },
    /// All rows of a chunk have been sent.
    ChunkEnd {
        end: Position,
        guarded: bool,
    },
    /// All chunks have been sent.
    End,
    Failed(Box<Error>),
}

pub(crate) struct Opened {
    pub(crate) verdict: Verdict,
    pub(crate) mapping: Mapping,
    pub(crate) header_end: u64,
}

pub(crate) struct Encoder {
    pub(crate) file: String,
    pub(crate) table: TableName,
    pub(crate) target: Target,
    /// The border behind what earlier runs committed, and whether the dialect was still in doubt there.
    pub(crate) committed: Option<(Position, bool)>,
    /// By which dialect that was read.
    pub(crate) known_dialect: Option<Dialect>,
    pub(crate) options: LoadOptions,
    pub(crate) sender: mpsc::Sender<Message>,
}

impl Encoder {
    /// Sends messages until the end, an error, or until nobody takes them any more.
    pub(crate) fn run(self, input: impl FnOnce() -> io::Result<Box<dyn Read + Send>>) {
        if let Err(error) = self.encode(input) {
            // The receiver is gone if the load was dropped.
            let _ = self.sender.blocking_send(Message::Failed(Box::new(error)));
        }
    }

    fn encode(&self, input: impl FnOnce() -> io::Result<Box<dyn Read + Send>>) -> Result<(), Error> {
        let mut input = input().map_err(|error| self.unreadable(error))?;
        let mut sample = Vec::new();
        (&mut input).take(SAMPLE).read_to_end(&mut sample).map_err(|error| self.unreadable(error))?;
        let complete = (sample.len() as u64) < SAMPLE;
        if sample.is_empty() {
            return Err(Error::Empty { file: self.file.clone() });
        }
        let verdict = self.verdict(&sample, complete)?;

        let mut options = RecordOptions::default();
        options.chunk_size = self.options.chunk_size;
        options.max_record = self.options.max_record;
        options.guard = match self.committed {
            // What settled the dialect stands in a chunk that is not read again; so does what left it open.
            Some((_, guarded)) => guarded && self.options.dialect.is_none(),
            None => verdict.certainty == Certainty::Ambiguous,
        };
        let header = self.header(&sample, complete, verdict.dialect)?;
        let header_end = header.end();
        let mapping = Mapping::new(&self.file, &self.table, header.names(), &self.target, &self.options.fill)?;
        let misfit = |what: String| Error::Columns { file: self.file.clone(), what };
        let encoder =
            CopyText::new(&mapping.sources, header.names().len()).map_err(|error| misfit(error.to_string()))?;
        let start = self.committed.map_or(Position { offset: header_end, record: 0, chunk: 0 }, |(at, _)| at);
        let mut stream = Cursor::new(sample).chain(input);
        let skipped = self.skip(&mut stream, start.offset)?;
        if skipped < start.offset {
            return Err(misfit(format!(
                "{} bytes of it are loaded, and it now has only {skipped}: it is not the same file; {ANEW}",
                start.offset
            )));
        }
        let records = Records::resume(stream, verdict.dialect, header, start, options);
        if !self.send(Message::Opened(Box::new(Opened { verdict, mapping, header_end }))) {
            return Ok(());
        }
        self.encode_records(records, &encoder)
    }

    /// Reads over what is loaded, which may take as long as loading it did.
    fn skip(&self, stream: &mut impl Read, offset: u64) -> Result<u64, Error> {
        let mut skipped = 0;
        loop {
            let piece = io::copy(&mut stream.take((offset - skipped).min(SAMPLE)), &mut io::sink());
            let piece = piece.map_err(|error| self.unreadable(error))?;
            skipped += piece;
            if piece == 0 || skipped == offset {
                return Ok(skipped);
            }
            if self.options.stop.is_cancelled() {
                return Err(Error::Stopped { what: format!("the load of {}", self.file) });
            }
        }
    }

    fn encode_records(&self, mut records: Records<impl Read>, encoder: &CopyText) -> Result<(), Error> {
        let new_buffer = || Vec::with_capacity(BUFFER + BUFFER / 4);
        let (mut buffer, mut lengths) = (new_buffer(), Vec::new());
        let mut open = false;
        loop {
            let ends_chunk = match records.next_record() {
                Ok(Some(record)) => {
                    encoder.append(&record, &mut buffer);
                    lengths.push(u32::try_from(record.raw().len()).unwrap_or(u32::MAX));
                    record.ends_chunk()
                }
                Ok(None) => break,
                Err(error) => return Err(self.blame(error, records.into_inner())),
            };
            open = true;
            if buffer.len() >= BUFFER || ends_chunk {
                let full = std::mem::replace(&mut buffer, new_buffer());
                if !self.send_rows(full, std::mem::take(&mut lengths)) {
                    return Ok(());
                }
            }
            if ends_chunk {
                open = false;
                if !self.send(Message::ChunkEnd { end: records.position(), guarded: records.is_guarded() }) {
                    return Ok(());
                }
            }
        }
        if open {
            let end = Message::ChunkEnd { end: records.position(), guarded: records.is_guarded() };
            if !(buffer.is_empty() || self.send_rows(buffer, lengths)) || !self.send(end) {
                return Ok(());
            }
        }
        self.send(Message::End);
        Ok(())
    }

    /// Sends rows in pieces, so that the queue does not hold several records of the greatest length.
    fn send_rows(&self, rows: Vec<u8>, mut lengths: Vec<u32>) -> bool {
        let mut rows = Bytes::from(rows);
        while rows.len() > 2 * BUFFER {
            let piece = rows.split_to(BUFFER);
            if !self.send(Message::Rows { rows: piece, lengths: std::mem::take(&mut lengths) }) {
                return false;
            }
        }
        self.send(Message::Rows { rows, lengths })
    }

    /// Whether anybody still listens.
    fn send(&self, message: Message) -> bool {
        self.sender.blocking_send(message).is_ok()
    }

    /// By which dialect to read: the one that was asked for, that of earlier runs, or the one that is found.
    fn verdict(&self, sample: &[u8], complete: bool) -> Result<Verdict, Error> {
        let file = || self.file.clone();
        let undetected = |source| Error::Undetected { file: self.file.clone(), source };
        let options = &self.options;
        // What was loaded while the dialect was in doubt reads the same in both.
        let settled = self.committed.filter(|(_, guarded)| !guarded).and(self.known_dialect);
        if let (Some(asked), Some(settled)) = (options.dialect, settled)
            && !reads_alike(asked, settled)
        {
            let what = format!(
                "a part of it is loaded as dialect {settled}, and it is now to be read as {asked}; leave --dialect \
                 out, or {ANEW}"
            );
            return Err(Error::Columns { file: file(), what });
        }
        let verdict = detect(sample, complete, options.dialect.or(options.hint)).map_err(undetected)?;
        if let Some(asked) = options.dialect {
            // A and B are read alike; which of the two it is matters to nobody.
            if reads_alike(asked, verdict.dialect) {
                return Ok(verdict);
            }
            return Err(Error::Dialect { file: file(), asked, found: verdict.dialect, evidence: verdict.evidence });
        }
        let known = match self.committed.and(self.known_dialect) {
            Some(known) if !reads_alike(known, verdict.dialect) => known,
            _ => return Ok(verdict),
        };
        let verdict = detect(sample, complete, Some(known)).map_err(undetected)?;
        if reads_alike(known, verdict.dialect) {
            return Ok(verdict);
        }
        let what = format!(
            "a part of it is loaded as dialect {known}, and it is {} ({}): it is not the same file; {ANEW}",
            verdict.dialect, verdict.evidence
        );
        Err(Error::Columns { file: file(), what })
    }

    fn header(&self, sample: &[u8], complete: bool, dialect: Dialect) -> Result<Header, Error> {
        let records =
            Records::new(sample, dialect, RecordOptions::default()).map_err(|error| self.bad_record(error))?;
        let header = records.header().clone();
        if !complete && header.end() == sample.len() as u64 {
            let what = format!("its first line, the columns' names, is longer than {SAMPLE} bytes: it is no CSV");
            return Err(Error::Columns { file: self.file.clone(), what });
        }
        Ok(header)
    }

    /// A record may be bad because the file is damaged, which the codec's checksum tells at the end.
    fn blame(&self, error: RecordError, mut rest: impl Read) -> Error {
        let (records, offset) = (error.record.saturating_sub(1), error.offset);
        let is_io = matches!(error.kind, RecordErrorKind::Io(_));
        let error = self.bad_record(error);
        if is_io || self.options.checksum != Checksum::Follows {
            return error;
        }
        match io::copy(&mut rest, &mut io::sink()) {
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                Error::Read { file: self.file.clone(), records, offset, source }
            }
            _ => error,
        }
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

fn reads_alike(a: Dialect, b: Dialect) -> bool {
    (a.delimiter(), a.quote(), a.escape()) == (b.delimiter(), b.quote(), b.escape())
}
