//! What programs without a runtime of their own use.

use std::future::Future;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{CopyFormat, CopyWriter, Error, FileIdentity, Input, Loader, LoaderOutcome, Session, TableName};

/// A runtime for one thread, which is there while somebody waits for it.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self(Some(runtime.map_err(|source| Error::Runtime { source })?)))
    }

    /// Waits for a future. A thread that has a runtime already, whose tasks must not wait by blocking it, has another
    /// thread do so, which it waits for.
    fn wait<F: Future<Output: Send> + Send>(&self, future: F) -> F::Output {
        let runtime = self.0.as_ref().expect("it is taken when it is dropped");
        if Handle::try_current().is_err() {
            return runtime.block_on(future);
        }
        std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(future)).join() {
            Ok(output) => output,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Within another runtime's task it must not be waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A [`CopyWriter`] for programs without a runtime, over a session of its own.
///
/// Calls return when they are done. Within a runtime's task they work, too, and block its thread; what is asynchronous is
/// better off with [`CopyWriter`]. Dropping it keeps nothing of what was written.
///
/// ```
/// use bulk_pg::{BlockingCopyWriter, CopyFormat};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # server.psql(url, "CREATE TABLE court (id text, founded integer)").unwrap();
/// let table = "court".parse().unwrap();
/// let mut writer = BlockingCopyWriter::connect(url, &table, &["id", "founded"], CopyFormat::Auto)?;
/// writer.write(&("scotus", 1789))?;
/// writer.write(&("ca9", None::<i32>))?;
/// assert_eq!(writer.finish()?, 2);
/// # Ok::<(), bulk_pg::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockingCopyWriter {
    // Dropped before that in which it lives.
    writer: CopyWriter<'static>,
    runtime: OwnRuntime,
}

impl std::fmt::Debug for OwnRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnRuntime")
    }
}

impl BlockingCopyWriter {
    /// Connects as [`Session::connect`], and begins as [`CopyWriter::begin`].
    ///
    /// # Errors
    ///
    /// As these two, and [`Error::Runtime`].
    pub fn connect(conninfo: &str, table: &TableName, columns: &[&str], format: CopyFormat) -> Result<Self, Error> {
        let runtime = OwnRuntime::new()?;
        let writer = runtime.wait(async {
            let session = Session::connect(conninfo).await?;
            CopyWriter::begin_owned(session, table, columns, format).await
        })?;
        Ok(Self { writer, runtime })
    }

    /// As [`CopyWriter::write`].
    ///
    /// # Errors
    ///
    /// As [`CopyWriter::write`].
    pub fn write<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<(), Error> {
        if self.writer.put(row)? { self.runtime.wait(self.writer.send()) } else { Ok(()) }
    }

    /// As [`CopyWriter::finish`].
    ///
    /// # Errors
    ///
    /// As [`CopyWriter::finish`].
    pub fn finish(self) -> Result<u64, Error> {
        self.runtime.wait(self.writer.finish())
    }
}

/// A [`Loader`] for programs without a runtime.
///
/// Calls return when they are done. Within a runtime's task they work, too, and block its thread; what is asynchronous is
/// better off with [`Loader`]. To stop one from another thread, cancel [`LoadOptions::stop`](crate::LoadOptions::stop).
///
/// ```
/// use bulk_pg::{BlockingLoader, Loader};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # server.psql(url, "CREATE TABLE court (id text, name text)").unwrap();
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("courts.csv");
/// # std::fs::write(&path, "id,name\nscotus,Supreme Court\n").unwrap();
/// let loader = BlockingLoader::new(Loader::new(url, "court".parse().unwrap()));
/// assert_eq!(loader.load_path(&path)?.loaded.records, 1);
/// # Ok::<(), bulk_pg::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BlockingLoader(Loader);

impl BlockingLoader {
    /// A loader that works as this one.
    pub fn new(loader: Loader) -> Self {
        Self(loader)
    }

    /// As [`Loader::load_path`].
    ///
    /// # Errors
    ///
    /// As [`Loader::load_path`], and [`Error::Runtime`].
    pub fn load_path(&self, path: impl AsRef<Path>) -> Result<LoaderOutcome, Error> {
        OwnRuntime::new()?.wait(self.0.load_path(path.as_ref()))
    }

    /// As [`Loader::load_reader`].
    ///
    /// # Errors
    ///
    /// As [`Loader::load_reader`], and [`Error::Runtime`].
    pub fn load_reader(&self, file: &FileIdentity, reader: impl Read + Send + 'static) -> Result<LoaderOutcome, Error> {
        OwnRuntime::new()?.wait(self.0.load_reader(file, reader))
    }

    /// As [`Loader::load_input`].
    ///
    /// # Errors
    ///
    /// As [`Loader::load_input`], and [`Error::Runtime`].
    pub fn load_input(
        &self,
        file: &FileIdentity,
        input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    ) -> Result<LoaderOutcome, Error> {
        OwnRuntime::new()?.wait(self.0.load_input(file, input))
    }
}
