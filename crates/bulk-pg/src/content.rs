//! The content of rows as one number, whatever their order.

use std::fmt;

use sha2::{Digest, Sha256};
use tokio_postgres::types::Oid;
use tokio_postgres::{Client, GenericClient, Row};

use crate::canonical::Canonical;
use crate::counted::counted;
use crate::ledger::{Load, unsigned};
use crate::value::{LENGTH, NULL};
use crate::{BinaryType, Error, Ident, Session};

/// Rows, and a sum that tells their content.
///
/// Of each row it is the first eight bytes of the SHA-256 of what `record_send` gives for its columns: a number of 64
/// bits with a sign. These are added up, so that the rows' order is of no account, and each of equal rows counts. It finds
/// what happens to rows by accident. Two of these numbers for each row would cost the server twice as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// How many there are.
    pub rows: u64,
    /// The sum.
    pub sum: i128,
}

impl Content {
    pub(crate) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        // 2^64 rows have no greater one.
        self.sum = self.sum.wrapping_add(more.sum);
    }

    /// Of two columns of a row: a count, and a sum as text.
    pub(crate) fn read(row: &Row, place: usize) -> Self {
        let sum = row.get::<_, Option<&str>>(place + 1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { rows: unsigned(row.get(place)), sum }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with the sum {}", counted(self.rows, "row", "rows"), self.sum)
    }
}

/// The expressions that give [`Content`] of rows with these columns, `"a", "b"`. Parallel workers may compute them.
pub(crate) fn expressions(columns: &str) -> String {
    format!("count(*), coalesce(sum({}), 0)", of_row(columns))
}

/// The expression for what a row with these columns adds to the sum.
pub(crate) fn of_row(columns: &str) -> String {
    format!(
        "('x' || pg_catalog.encode(pg_catalog.substring(pg_catalog.sha256(
             pg_catalog.record_send(ROW({columns}))), 1, 8), 'hex'))::bit(64)::bigint"
    )
}

/// Computes on this side what the server's [`expressions`] give for a row.
pub(crate) struct RowHasher {
    columns: Vec<Canonical>,
    /// What `record_send` would give.
    image: Vec<u8>,
}

impl RowHasher {
    pub(crate) fn new(columns: impl Iterator<Item = BinaryType>) -> Self {
        Self { columns: columns.map(Canonical::new).collect(), image: Vec::new() }
    }

    /// The content of a row of COPY's binary format. `None` if it is not known what the server makes of it.
    pub(crate) fn hash(&mut self, row: &[u8]) -> Option<Content> {
        self.image.clear();
        let hashed = self.append(row);
        let content = hashed.map(|()| {
            let digest = Sha256::digest(&self.image);
            let first = digest.first_chunk().copied().unwrap_or_default();
            Content { rows: 1, sum: i64::from_be_bytes(first).into() }
        });
        if self.image.capacity() > Self::KEEP {
            self.image = Vec::new();
        }
        content
    }

    /// Bytes that are kept from one row to the next.
    const KEEP: usize = 1 << 20;

    fn append(&mut self, row: &[u8]) -> Option<()> {
        let Self { columns, image } = self;
        let (count, mut rest) = row.split_first_chunk::<2>()?;
        let count = u16::from_be_bytes(*count);
        if usize::from(count) != columns.len() {
            return None;
        }
        image.extend_from_slice(&u32::from(count).to_be_bytes());
        for column in columns {
            image.extend_from_slice(&column.oid().to_be_bytes());
            let (length, behind) = rest.split_first_chunk::<LENGTH>()?;
            if *length == NULL {
                image.extend_from_slice(&NULL);
                rest = behind;
                continue;
            }
            let (value, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            column.append(value, image)?;
            rest = behind;
        }
        rest.is_empty().then_some(())
    }
}

/// What is to be known of a table's columns for its content to be compared: bulk.load names those that were hashed, with
/// their types, and bulk.chunk has the sum of each chunk.
pub(crate) const TABLE: &str = "
    ALTER TABLE bulk.load ADD COLUMN IF NOT EXISTS content_columns text[],
        ADD COLUMN IF NOT EXISTS content_types text[],
        ADD COLUMN IF NOT EXISTS content_gone numeric NOT NULL DEFAULT 0;
    ALTER TABLE bulk.chunk ADD COLUMN IF NOT EXISTS content numeric;
    COMMENT ON COLUMN bulk.chunk.content IS 'The sum over its rows of the first eight bytes, as a bigint, of the SHA-256 of record_send(ROW(columns)), if it was asked for.';
    COMMENT ON COLUMN bulk.load.content_gone IS 'The same sum over rows that were taken out of the table after they were loaded, as orphans are.';";

/// An expression for the types of the columns `columns`, an expression, of the table `oid`, another one.
pub(crate) fn types(oid: &str, columns: &str) -> String {
    format!(
        "(SELECT pg_catalog.array_agg(a.atttypid || ' ' || a.atttypmod ORDER BY c.place)
          FROM pg_catalog.unnest({columns}) WITH ORDINALITY c(name, place)
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {oid} AND a.attname = c.name AND NOT a.attisdropped)"
    )
}

/// Notes which columns of a load are hashed. Sums of its chunks over other columns are forgotten.
pub(crate) async fn set_columns(session: &Session, load: &Load, columns: &[String]) -> Result<(), Error> {
    let action = || Error::database(format!("note which columns of {} are hashed", load.file.key));
    let types = types("l.target_oid", "$2::text[]");
    let forget = format!(
        "UPDATE bulk.chunk SET content = NULL
         WHERE load_id = $1 AND content IS NOT NULL AND NOT EXISTS (
             SELECT FROM bulk.load l WHERE l.id = $1 AND l.content_columns = $2 AND l.content_types = {types})"
    );
    session.client().execute(&forget, &[&load.id, &columns]).await.map_err(action())?;
    let note = format!("UPDATE bulk.load l SET content_columns = $2, content_types = {types} WHERE l.id = $1");
    session.client().execute(&note, &[&load.id, &columns]).await.map_err(action())?;
    Ok(())
}

/// The columns by which the last load into a table was hashed, if they are as they were.
pub(crate) async fn columns_of_last(client: &impl GenericClient, oid: Oid) -> Result<Option<Vec<Ident>>, Error> {
    let sql = format!(
        "SELECT CASE WHEN l.content_types IS NOT DISTINCT FROM {} THEN l.content_columns END FROM bulk.load l
         WHERE l.target_oid = $1 AND l.finished_at IS NOT NULL ORDER BY l.id DESC LIMIT 1",
        types("l.target_oid", "l.content_columns")
    );
    let row = client.query_opt(&sql, &[&oid]).await.map_err(Error::database("look for the columns that are hashed"))?;
    let columns = row.and_then(|row| row.get::<_, Option<Vec<String>>>(0));
    Ok(columns.and_then(|names| names.into_iter().map(Ident::new).collect::<Result<_, _>>().ok()))
}

/// The content of a table or query's rows.
pub(crate) async fn of_rows(client: &Client, columns: &str, from: &str) -> Result<Content, tokio_postgres::Error> {
    let sql = format!("SELECT rows, sum::text FROM (SELECT {} FROM {from}) s(rows, sum)", expressions(columns));
    Ok(Content::read(&client.query_one(&sql, &[]).await?, 0))
}
