//! The content of a chunk's rows, of which the server hashes those whose values it alone can tell.

use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Transaction;

use crate::Error;
use crate::chunk::{Destination, Tolerance};
use crate::content::{self, Content};
use crate::feed::PIECE;
use crate::received::Received;
use crate::rejects::Reject;

/// What has come together of a chunk's content.
#[derive(Default)]
pub(crate) struct Hashed {
    /// Of the rows that were hashed.
    pub(crate) content: Content,
    /// The other rows, in COPY's text format.
    pub(crate) unhashed: Vec<Bytes>,
}

/// The content of all rows of a chunk, whose COPY has ended.
///
/// Rows that were sent as text, and those with a value that the encoder would have to guess at, go by COPY into a
/// temporary table with the columns' types as well, which reads them as the target does, and are hashed there.
pub(crate) async fn of_chunk(
    destination: &Destination<'_>,
    transaction: &Transaction<'_>,
    received: &Received,
    hashed: Hashed,
    left_out: &[Reject],
) -> Result<Content, Error> {
    let content = match &destination.tolerance {
        // What was computed is of rows of which some are not there.
        Some(tolerance) if !left_out.is_empty() => {
            let unhashed = rows(destination, tolerance, received, left_out)?;
            of_text(destination, transaction, &unhashed).await?
        }
        _ => {
            let Hashed { mut content, unhashed } = hashed;
            content.add(of_text(destination, transaction, &unhashed).await?);
            content
        }
    };
    let rejected = (received.rejects.len() + left_out.len()) as u64;
    destination.compare(received.records - received.filtered - rejected, content.rows)?;
    Ok(content)
}

/// The content of rows of COPY's text format.
async fn of_text(
    destination: &Destination<'_>,
    transaction: &Transaction<'_>,
    rows: &[Bytes],
) -> Result<Content, Error> {
    if rows.is_empty() {
        return Ok(Content::default());
    }
    let action = || Error::database(format!("hash rows of {}", destination.file.key));
    let (table, columns) = (destination.table, destination.columns);
    // One for each load, so that an earlier one's is not taken for it.
    let scratch = format!("pg_temp.bulk_content_{}_{}", destination.load.id, destination.attempt);
    let create = format!(
        "CREATE TEMPORARY TABLE IF NOT EXISTS {scratch} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} WITH NO DATA"
    );
    transaction.batch_execute(&create).await.map_err(action())?;
    if destination.is_frozen {
        // The rows of the chunk before it are of the same transaction.
        transaction.batch_execute(&format!("TRUNCATE {scratch}")).await.map_err(action())?;
    }
    let copy = format!("COPY {scratch} ({columns}) FROM STDIN");
    let mut sink = pin!(transaction.copy_in(&copy).await.map_err(action())?);
    for piece in rows {
        sink.send(piece.clone()).await.map_err(action())?;
    }
    let copied = sink.finish().await.map_err(action())?;
    let content = content::of_rows(transaction.client(), columns, &scratch).await.map_err(action())?;
    destination.compare(copied, content.rows)?;
    Ok(content)
}

/// The rows of a chunk's records that are wanted and were not left out.
fn rows(
    destination: &Destination<'_>,
    tolerance: &Tolerance,
    received: &Received,
    left_out: &[Reject],
) -> Result<Vec<Bytes>, Error> {
    let kept = received.kept();
    let mut skipped = received.left_out();
    skipped.extend(left_out.iter().map(|reject| reject.index));
    skipped.sort_unstable();
    let (mut pieces, mut rows) = (Vec::new(), Vec::new());
    for (mut index, raw) in kept.records(0..received.records) {
        let mut records = tolerance.read(kept.position(index), raw);
        loop {
            let is_skipped = skipped.binary_search(&index).is_ok();
            match tolerance.append_next(&mut records, is_skipped, &mut rows) {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(source) => return Err(Error::Record { file: destination.file.key.clone(), source }),
            }
            index += 1;
            if rows.len() >= PIECE {
                pieces.push(Bytes::from(std::mem::take(&mut rows)));
            }
        }
    }
    if !rows.is_empty() {
        pieces.push(rows.into());
    }
    Ok(pieces)
}
