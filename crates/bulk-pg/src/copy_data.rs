//! The messages in which the rows of a COPY go to the server.

use std::pin::Pin;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::CopyInSink;

use crate::feed::PIECE;

/// Sends bytes of rows. They may end within a row. The connection copies what it is given before it sends it, and the
/// server holds a message whole before it reads rows from it, so a long row goes in pieces, too.
pub(crate) async fn send(mut sink: Pin<&mut CopyInSink<Bytes>>, mut bytes: Bytes) -> Result<(), tokio_postgres::Error> {
    while !bytes.is_empty() {
        sink.feed(bytes.split_to(bytes.len().min(PIECE))).await?;
    }
    sink.flush().await
}
