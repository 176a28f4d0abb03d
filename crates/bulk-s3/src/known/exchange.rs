use tokio::sync::mpsc;

use crate::{Batch, Error, KeyRange, KnownChange, KnownObjects, ObjectReader, ObjectWriter};

/// Objects that are read or written at once.
const ROWS: usize = 10_000;
/// Batches that wait for the slower side.
const WAITING: usize = 2;

/// What an [import](import_known) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Objects that were read, and are known now.
    pub objects: u64,
    /// Rows of other buckets, which were passed over.
    pub passed_over: u64,
}

/// Makes known what a reader reads, such as a file that [`export_known`] has written. What is known already stays, and
/// where the reader has it, too, it is known as the reader has it.
///
/// Objects are read in a thread of their own, and become known 10,000 at a time. Dropping the future, or an error, leaves
/// known what came before; to do it again does no harm.
///
/// # Errors
///
/// [`Error::Table`] of the reader, [`Error::Known`] and [`Error::Unfit`] of the store.
///
/// ```
/// use bulk_s3::{CsvReader, KeyRange, KnownObjects, MemoryKnown, import_known};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = MemoryKnown::new();
/// let reader = CsvReader::new("known.csv", "key,etag\na//b,d41d\n".as_bytes(), None)?;
/// assert_eq!(import_known(&known, reader).await?.objects, 1);
/// assert_eq!(known.scan(&KeyRange::all(), 10).await?.get(0).unwrap().etag, Some("d41d"));
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
pub async fn import_known(
    store: &dyn KnownObjects,
    mut reader: impl ObjectReader + 'static,
) -> Result<Imported, Error> {
    let (sender, mut batches) = mpsc::channel(WAITING);
    let read = tokio::task::spawn_blocking(move || {
        loop {
            let mut batch = Batch::new();
            let read = reader.read(&mut batch, ROWS);
            // Also those in front of a bad row. Nobody waits for them any more if the store has failed.
            if batch.is_empty() || sender.blocking_send(batch).is_err() {
                return read.map(|()| reader.passed_over());
            }
            read?;
        }
    });
    let mut objects = 0;
    while let Some(batch) = batches.recv().await {
        let changes: Vec<_> = batch.iter().map(KnownChange::Set).collect();
        store.apply(&changes).await?;
        objects += batch.len() as u64;
    }
    Ok(Imported { objects, passed_over: ended(read.await)? })
}

/// Writes what is known in a range, in the order of keys, and says how many objects that is. The writer works in a thread
/// of its own.
///
/// Changes that are made meanwhile may be seen or not. Dropping the future drops the writer before it has finished.
///
/// # Errors
///
/// [`Error::Table`] of the writer, [`Error::Known`] of the store.
///
/// ```
/// use bulk_s3::{CsvWriter, KeyRange, KnownChange, KnownObjects, MemoryKnown, ObjectRef, export_known};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = MemoryKnown::new();
/// known.apply(&[KnownChange::Set(ObjectRef::new("a//b"))]).await?;
/// let writer = CsvWriter::new("known.csv", Vec::new(), "my-bucket")?;
/// let (csv, count) = export_known(&known, &KeyRange::all(), writer).await?;
/// assert_eq!((&csv[..], count), (&b"bucket,key,etag,size,last_modified,content\nmy-bucket,a//b,,,,\n"[..], 1));
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
pub async fn export_known<W: ObjectWriter + 'static>(
    store: &dyn KnownObjects,
    range: &KeyRange,
    mut writer: W,
) -> Result<(W::Output, u64), Error> {
    let (sender, mut batches) = mpsc::channel::<Option<Batch>>(WAITING);
    let written = tokio::task::spawn_blocking(move || {
        let mut is_whole = false;
        while let Some(batch) = batches.blocking_recv() {
            match batch {
                Some(batch) => writer.write(&batch)?,
                None => is_whole = true,
            }
        }
        if is_whole { writer.finish().map(Some) } else { Ok(None) }
    });
    let mut rest = range.clone();
    let mut count = 0;
    loop {
        let batch = store.scan(&rest, ROWS).await?;
        let (len, last) = (batch.len(), batch.last().map(|last| last.key.to_owned()));
        count += len as u64;
        // Where the writer has failed it says so below.
        let is_taken = batch.is_empty() || sender.send(Some(batch)).await.is_ok();
        if len < ROWS || !is_taken {
            break;
        }
        rest.after = last;
    }
    let _ = sender.send(None).await;
    drop(sender);
    match ended(written.await)? {
        Some(output) => Ok((output, count)),
        // It was told of the end, or else it has failed.
        None => std::future::pending().await,
    }
}

/// What a thread says in the end. It is not given up, so if there is nothing it has panicked.
fn ended<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    match ended {
        Ok(done) => done,
        Err(lost) => match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(lost) => Err(Error::Table {
                file: "a file of objects".to_owned(),
                row: None,
                byte: None,
                what: "the thread at work on it was lost".to_owned(),
                source: Some(Box::new(lost)),
            }),
        },
    }
}
