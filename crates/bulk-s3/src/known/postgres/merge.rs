use bulk_pg::Cause;
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;

use super::target::{CHANGES, Target};
use super::{failed, rows, twice};
use crate::known::changes::{last_of_each, signed_size};
use crate::{Error, KnownChange};

/// Whose transaction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// One that is begun and committed here.
    Own,
    /// The caller's.
    Transaction,
}

/// Sent at once; the connection copies what it is given.
const PIECE: usize = 256 << 10;

/// Refuses what no text or number of PostgreSQL can be.
pub(super) fn check(changes: &[KnownChange<'_>], store: &str) -> Result<(), Error> {
    let nul = || "it holds U+0000, which no text of PostgreSQL can".to_owned();
    for change in changes {
        let KnownChange::Set(object) = change else { continue };
        let unfit = |what| Error::Unfit { store: store.to_owned(), key: object.key.to_owned(), what };
        if object.key.contains('\0') {
            return Err(unfit(nul()));
        }
        if object.etag.is_some_and(|etag| etag.contains('\0')) {
            return Err(unfit(format!("of its ETag: {}", nul())));
        }
        object.size.map(signed_size).transpose().map_err(unfit)?;
    }
    Ok(())
}

/// Makes changes that were [checked](check).
pub(super) async fn merge(
    client: &Client,
    target: &Target,
    changes: &[KnownChange<'_>],
    within: Within,
    store: &str,
) -> Result<(), Error> {
    let failed = |error: tokio_postgres::Error| failed(store, "write", Cause::from(error));
    let changes = last_of_each(changes);
    if changes.is_empty() {
        return Ok(());
    }
    // No collation of their own, so that they take that of what they are compared with. A commit empties it without a
    // trace in the catalogues; within a transaction there may have been others before.
    let create = "CREATE TEMP TABLE IF NOT EXISTS bulk_known_change (key text NOT NULL, etag text, size bigint,
                      last_modified timestamptz, content bytea, removed boolean NOT NULL) ON COMMIT DELETE ROWS";
    let begin = match within {
        Within::Own => format!("BEGIN; SET LOCAL synchronous_commit = on; {create}"),
        Within::Transaction => format!("{create}; TRUNCATE {CHANGES}"),
    };
    client.batch_execute(&begin).await.map_err(failed)?;
    let sink = client.copy_in(&format!("COPY {CHANGES} FROM STDIN (FORMAT binary)")).await.map_err(failed)?;
    let mut sink = Box::pin(sink);
    let mut encoded = Bytes::from(rows::encode(&changes));
    while !encoded.is_empty() {
        let piece = encoded.split_to(encoded.len().min(PIECE));
        sink.send(piece).await.map_err(failed)?;
    }
    sink.as_mut().finish().await.map_err(failed)?;
    let has_removed = changes.iter().any(|change| matches!(change, KnownChange::Remove(_)));
    let has_set = changes.iter().any(|change| matches!(change, KnownChange::Set(_)));
    if has_set
        && target.arbiter.is_none()
        && let Some(row) = client.query_opt(&target.find_twice(), &[]).await.map_err(failed)?
    {
        return Err(twice(store, &target.shown, row.get(0)));
    }
    let mut statements = Vec::new();
    statements.extend(target.delete().filter(|_| has_removed));
    statements.extend(target.update().filter(|_| has_set));
    statements.extend(target.insert().filter(|_| has_set));
    statements.extend((within == Within::Own).then(|| "COMMIT".to_owned()));
    client.batch_execute(&statements.join(";\n")).await.map_err(failed)
}
