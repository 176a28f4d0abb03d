use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use tokio_postgres::{Client, CopyOutStream};

use crate::error::Cause;
use crate::{CopyBinary, Error, tuples};

/// Reads what a query finds by COPY in the binary format, which costs less than any other way.
///
/// A value stands there as its type's send function writes it (such as `int8send`): numbers in network byte order, text
/// and bytea as they are, times as microseconds since 2000-01-01 UTC.
///
/// Dropping it before the last row makes the connection read the rest and throw it away before it takes the next
/// statement. Memory is that of the rows that the server has sent ahead, of which the connection holds a few.
///
/// ```
/// use bulk_pg::{CopyReader, Session};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let session = Session::connect(url).await?;
/// let mut rows = CopyReader::begin(session.client(), "SELECT 'scotus', NULL, 258").await?;
/// let mut row = rows.next_row().await?.unwrap();
/// assert_eq!(row.next_field()?, Some(&b"scotus"[..]));
/// assert_eq!(row.next_field()?, None);
/// assert_eq!(row.next_field()?, Some(&[0, 0, 1, 2][..]));
/// assert!(rows.next_row().await?.is_none());
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
pub struct CopyReader {
    stream: Pin<Box<CopyOutStream>>,
    /// What has come and was not read.
    piece: Bytes,
    /// Where the row ends that was read last.
    read: usize,
    has_begun: bool,
    is_done: bool,
}

/// A row of a [`CopyReader`].
#[derive(Clone, Copy, Debug)]
pub struct CopiedRow<'a> {
    fields: &'a [u8],
}

impl CopyReader {
    /// Begins to read what `query` finds. It can have no parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn begin(client: &Client, query: &str) -> Result<Self, Error> {
        let begun = client.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await;
        let stream = Box::pin(begun.map_err(Error::database("read rows"))?);
        Ok(Self { stream, piece: Bytes::new(), read: 0, has_begun: false, is_done: false })
    }

    /// The next row; none behind the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], also if the server sends what is no row.
    pub async fn next_row(&mut self) -> Result<Option<CopiedRow<'_>>, Error> {
        Ok(if self.advance().await? { Some(CopiedRow::new(&self.piece[..self.read])) } else { None })
    }

    /// The same as bytes that outlive it, for [`CopiedRow::new`].
    pub(crate) async fn next_row_owned(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(if self.advance().await? { Some(self.piece.slice(..self.read)) } else { None })
    }

    /// Goes on to the next row, which is what `read` covers then. False behind the last one.
    async fn advance(&mut self) -> Result<bool, Error> {
        self.piece.advance(std::mem::take(&mut self.read));
        loop {
            if self.is_done {
                return Ok(false);
            }
            if !self.has_begun && !self.piece.is_empty() {
                match tuples::header_len(&self.piece) {
                    Ok(len) => {
                        self.piece.advance(len);
                        self.has_begun = true;
                    }
                    // It may come in pieces.
                    Err(_) if self.piece.len() < CopyBinary::HEADER.len() => {}
                    Err(_) => return Err(damaged()),
                }
            }
            if self.has_begun {
                match row_len(&self.piece)? {
                    Some(Length::Trailer) => self.is_done = true,
                    Some(Length::Row(len)) => {
                        self.read = len;
                        return Ok(true);
                    }
                    None => {}
                }
            }
            match self.stream.next().await {
                Some(Ok(more)) if self.piece.is_empty() => self.piece = more,
                // A message is a row, as a rule; so this is rare.
                Some(Ok(more)) => {
                    let mut both = BytesMut::with_capacity(self.piece.len() + more.len());
                    both.extend_from_slice(&self.piece);
                    both.extend_from_slice(&more);
                    self.piece = both.freeze();
                }
                Some(Err(error)) => {
                    return Err(Error::Database { action: "read rows".to_owned(), source: Cause(error) });
                }
                None if self.is_done => {}
                None => return Err(damaged()),
            }
        }
    }
}

impl std::fmt::Debug for CopyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyReader").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl<'a> CopiedRow<'a> {
    /// A row as it came.
    pub(crate) fn new(row: &'a [u8]) -> Self {
        Self { fields: row.get(COUNT..).unwrap_or_default() }
    }

    /// Whether all columns have been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of the next column, from the first one on; none is NULL.
    ///
    /// # Errors
    ///
    /// [`Error::Received`] behind the last column.
    pub fn next_field(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let (len, rest) = self.fields.split_first_chunk::<LEN>().ok_or_else(damaged)?;
        // Lengths were checked when the row was cut.
        let (value, rest) = match usize::try_from(i32::from_be_bytes(*len)) {
            Ok(len) => {
                let (value, rest) = rest.split_at_checked(len).ok_or_else(damaged)?;
                (Some(value), rest)
            }
            Err(_) => (None, rest),
        };
        self.fields = rest;
        Ok(value)
    }
}

/// Bytes of the count of fields, and of the length of one.
const COUNT: usize = 2;
const LEN: usize = 4;

enum Length {
    Row(usize),
    Trailer,
}

/// How long the row is that `bytes` begin with; none if it is not all there.
fn row_len(bytes: &[u8]) -> Result<Option<Length>, Error> {
    let Some((count, _)) = bytes.split_first_chunk::<COUNT>() else { return Ok(None) };
    let count = match i16::from_be_bytes(*count) {
        -1 => return Ok(Some(Length::Trailer)),
        count => usize::try_from(count).map_err(|_| damaged())?,
    };
    let mut at = COUNT;
    for _ in 0..count {
        let Some(len) = bytes.get(at..).and_then(|rest| rest.first_chunk::<LEN>()) else { return Ok(None) };
        at += LEN;
        match i32::from_be_bytes(*len) {
            -1 => {}
            len => at += usize::try_from(len).map_err(|_| damaged())?,
        }
    }
    Ok((at <= bytes.len()).then_some(Length::Row(at)))
}

#[cold]
fn damaged() -> Error {
    Error::Received { what: "a row that is none of COPY's binary format" }
}

#[cfg(test)]
mod tests {
    use super::{Length, row_len};

    #[test]
    fn a_row_is_cut_when_it_is_all_there() {
        let row = b"\0\x02\0\0\0\x01x\xff\xff\xff\xff";
        for end in 0..row.len() {
            assert!(row_len(&row[..end]).unwrap().is_none(), "{end}");
        }
        let longer = [&row[..], b"\0\x02"].concat();
        assert!(matches!(row_len(&longer).unwrap(), Some(Length::Row(11))));
        assert!(matches!(row_len(b"\xff\xff").unwrap(), Some(Length::Trailer)));
        let Err(error) = row_len(b"\xff\xfe") else { panic!("a row of -2 fields") };
        assert_eq!(error.to_string(), "the server sent a row that is none of COPY's binary format");
        assert!(row_len(b"\0\x01\xff\xff\xff\xfe").is_err());
    }
}
