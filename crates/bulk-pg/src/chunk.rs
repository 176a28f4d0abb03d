//! The transaction of one chunk: its rows and its mark.

use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;

use crate::error::Cause;
use crate::feed::{Chunk, Piece, Rows};
use crate::ledger::Load;
use crate::{Error, FileIdentity, Position, Session, TableName};

/// Where a load's chunks go.
pub(crate) struct Destination<'a> {
    pub(crate) file: &'a FileIdentity,
    pub(crate) table: &'a TableName,
    pub(crate) load: &'a Load,
    /// The one that may commit.
    pub(crate) attempt: i64,
    /// `"a", "b"`.
    pub(crate) columns: &'a str,
}

impl Destination<'_> {
    /// Sends a chunk and commits it with its mark; the position behind it. `None` if it was cut short: whoever feeds it
    /// knows why.
    ///
    /// Whatever ends it early, a drop included, rolls the chunk back.
    pub(crate) async fn copy(&self, session: &mut Session, chunk: Chunk) -> Result<Option<Position>, Error> {
        let Chunk { start, mut pieces } = chunk;
        // The transaction begins when there is something to send.
        let Some(Piece::Rows(mut rows)) = pieces.recv().await else { return Ok(None) };
        let mut sent = SentRecords::new(start);
        let action = || format!("load a chunk of {}", self.file.key);
        let transaction = session.client_mut().transaction().await.map_err(Error::database(action()))?;
        let statement = format!("COPY {} ({}) FROM STDIN", self.table, self.columns);
        let mut sink =
            pin!(transaction.copy_in::<_, Bytes>(&statement).await.map_err(|error| self.refusal(&sent, error))?);
        let (end, guarded) = loop {
            let Rows { bytes, lengths, room } = rows;
            sent.add(&lengths);
            sink.as_mut().send(bytes).await.map_err(|error| self.refusal(&sent, error))?;
            // Before it waits for more, which may need it.
            drop(room);
            match pieces.recv().await {
                Some(Piece::Rows(next)) => rows = next,
                Some(Piece::End { end, guarded }) => break (end, guarded),
                None => return Ok(None),
            }
        };
        let taken = sink.finish().await.map_err(|error| self.refusal(&sent, error))?;
        let records = end.record - start.record;
        if taken != records {
            let (file, table) = (self.file.key.clone(), self.table.clone());
            return Err(Error::RowCount { file, table, sent: records, taken });
        }
        let marked = transaction
            .execute(
                "INSERT INTO bulk.chunk (load_id, chunk, first_record, records, first_byte, bytes, guarded)
                 SELECT id, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::boolean
                 FROM bulk.load WHERE id = $1 AND attempt = $2 FOR SHARE",
                &[
                    &self.load.id,
                    &self.attempt,
                    &(start.chunk as i64),
                    &(start.record as i64),
                    &(records as i64),
                    &(start.offset as i64),
                    &((end.offset - start.offset) as i64),
                    &guarded,
                ],
            )
            .await
            .map_err(Error::database(action()))?;
        if marked == 0 {
            let what = format!("is loaded from {} by another session by now, or was emptied", self.file.key);
            return Err(Error::Occupied { table: self.table.clone(), what });
        }
        // Deferred constraints are checked here.
        transaction.commit().await.map_err(|error| self.refusal(&sent, error))?;
        Ok(Some(end))
    }

    fn refusal(&self, sent: &SentRecords, error: tokio_postgres::Error) -> Error {
        let (file, table) = (self.file.key.clone(), Box::new(self.table.clone()));
        let Some(answer) = error.as_db_error() else {
            return Error::Database { action: format!("load {file} into {table:#}"), source: Cause(error) };
        };
        let place = answer.where_().and_then(|context| Place::find(context, table.name.as_str()));
        let (first, last, offset, column) = match place {
            Some(Place { line, column }) => {
                let record = sent.start.record + line;
                (record, record, sent.offset_of(line), column)
            }
            None => (sent.start.record + 1, sent.start.record + sent.records.max(1), Some(sent.start.offset), None),
        };
        Error::Copy { file, table, first, last, offset, column, source: Cause(error) }
    }
}

/// What has been sent of a chunk, so that a line of COPY that the server names is found in the file.
struct SentRecords {
    start: Position,
    records: u64,
    /// Of the first records.
    lengths: Vec<u32>,
}

impl SentRecords {
    /// Records of a chunk whose places are kept: in 16 MiB no more than this many of four bytes.
    const PLACED: usize = 1 << 22;

    fn new(start: Position) -> Self {
        Self { start, records: 0, lengths: Vec::new() }
    }

    fn add(&mut self, lengths: &[u32]) {
        self.records += lengths.len() as u64;
        let room = Self::PLACED - self.lengths.len();
        self.lengths.extend(lengths.iter().take(room));
    }

    /// Where the record of a line, from 1, starts in the file.
    fn offset_of(&self, line: u64) -> Option<u64> {
        let before = usize::try_from(line.checked_sub(1)?).ok()?;
        let lengths = self.lengths.get(..before)?;
        Some(self.start.offset + lengths.iter().map(|length| u64::from(*length)).sum::<u64>())
    }
}

/// A line of COPY, from 1, and perhaps a column, as the server names them in the context of an error.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    line: u64,
    column: Option<Box<str>>,
}

impl Place {
    /// Out of `COPY table, line 7, column x: "…"`, as `CopyFromErrorCallback` in
    /// `src/backend/commands/copyfrom.c` writes it, in a context of several lines.
    fn find(context: &str, table: &str) -> Option<Self> {
        let start = format!("COPY {table}, line ");
        let at = context.match_indices(&start).find(|(at, _)| *at == 0 || context[..*at].ends_with('\n'))?.0;
        let rest = &context[at + start.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let line = rest[..digits].parse().ok().filter(|line| *line > 0)?;
        // A value follows in quotes, or the word null; a name may hold either sign.
        let column = rest[digits..].strip_prefix(", column ").and_then(|rest| {
            let end = rest.find(": \"").or_else(|| rest.find(": null input"))?;
            Some(rest[..end].into())
        });
        Some(Self { line, column })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_for_a_place_is_read() {
        let find = |context| Place::find(context, "t, line 5");
        let place = |line, column: Option<&str>| Some(Place { line, column: column.map(Into::into) });
        assert_eq!(find("COPY t, line 5, line 7, column id: \"x\""), place(7, Some("id")));
        assert_eq!(find("COPY t, line 5, line 7, column a: b: null input"), place(7, Some("a: b")));
        assert_eq!(find("COPY t, line 5, line 17: \"1\t2\""), place(17, None));
        assert_eq!(find("COPY t, line 5, line 3"), place(3, None));
        assert_eq!(find("PL/pgSQL function f() line 2 at RAISE\nCOPY t, line 5, line 3: \"\""), place(3, None));
        assert_eq!(find("COPY t, line 7"), None);
        assert_eq!(find("as in COPY t, line 5, line 7"), None);
    }

    #[test]
    fn a_line_is_found_in_the_file() {
        let mut sent = SentRecords::new(Position { offset: 100, record: 10, chunk: 1 });
        sent.add(&[5, 6]);
        sent.add(&[7]);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|line| sent.offset_of(line)),
            [100, 105, 111, 118].map(Some).into_iter().chain([None]).collect::<Vec<_>>()[..]
        );
        assert_eq!((sent.offset_of(0), sent.records), (None, 3));
    }
}
