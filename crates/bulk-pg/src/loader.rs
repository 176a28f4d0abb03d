use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use futures::future::try_join_all;

use crate::{
    Error, FileIdentity, Input, LoadOptions, Loaded, Plain, Session, TableName, Verification, Verified, Verifier, load,
    prepare_ledger, restart,
};

/// Loads files into a table, all of it: connections, ledger, [`load()`](crate::load()), [`Verifier`]. Sequences of the
/// table stay as they are; see [`raise_sequences`](crate::raise_sequences).
///
/// ```
/// use bulk_pg::{Loader, Verification};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # server.psql(url, "CREATE TABLE court (id text, name text)").unwrap();
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("courts.csv");
/// # std::fs::write(&path, "id,name\nscotus,Supreme Court\n").unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let loader = Loader::new(url, "court".parse().unwrap()).connections(4).verification(Verification::Full);
/// let outcome = loader.load_path(&path).await?;
/// assert_eq!(outcome.loaded.sent, 1);
/// assert!(outcome.verified.matches());
///
/// // The same file again is not loaded twice.
/// assert_eq!(loader.load_path(&path).await?.loaded.sent, 0);
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Loader {
    conninfo: String,
    table: TableName,
    connections: usize,
    restart: bool,
    verification: Verification,
    options: LoadOptions,
}

/// What a [`Loader`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderOutcome {
    /// What was loaded.
    pub loaded: Loaded,
    /// How the table compares with all files that were loaded into it. A difference is no error:
    /// [`matches`](Verified::matches) tells.
    pub verified: Verified,
}

impl Loader {
    /// A loader into a table of the database that this libpq connection string or URI says, as [`Session::connect`] reads
    /// it. It is not connected to before something is loaded.
    pub fn new(conninfo: impl Into<String>, table: TableName) -> Self {
        Self {
            conninfo: conninfo.into(),
            table,
            connections: 2,
            restart: false,
            verification: Verification::default(),
            options: LoadOptions::default(),
        }
    }

    /// Over so many connections, each with chunks of its own. Default 2; 0 is taken for 1.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Whether each load empties the table before it, as [`restart()`](crate::restart()) does. Default no.
    #[must_use]
    pub fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }

    /// How the table is compared with its files after a load. Default by the number of its rows. With
    /// [`Verification::Full`] content is [hashed](LoadOptions::hash_content) whatever the options say.
    #[must_use]
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// How files are loaded. Default [`LoadOptions::default`].
    #[must_use]
    pub fn options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    /// Loads a CSV file that is not compressed; [`load_input`](Self::load_input) takes what decodes one. It is the
    /// [same](FileIdentity::of_file) as long as its path, size and time of change are.
    ///
    /// # Errors
    ///
    /// As [`load_input`](Self::load_input); [`Error::Read`] also of a file that is not there.
    pub async fn load_path(&self, path: impl AsRef<Path>) -> Result<LoaderOutcome, Error> {
        let path = path.as_ref().to_owned();
        let identity = FileIdentity::of_file(&path).map_err(|source| Error::Read {
            file: path.display().to_string(),
            records: 0,
            offset: 0,
            source,
        })?;
        let open = move || Ok(Box::new(Plain(File::open(path)?)) as Box<dyn Input>);
        self.load_input(&identity, open).await
    }

    /// Loads what a reader gives from its beginning: the bytes of the file of this identity, decoded.
    ///
    /// # Errors
    ///
    /// As [`load_input`](Self::load_input).
    pub async fn load_reader(
        &self,
        file: &FileIdentity,
        reader: impl Read + Send + 'static,
    ) -> Result<LoaderOutcome, Error> {
        self.load_input(file, move || Ok(Box::new(Plain(reader)) as Box<dyn Input>)).await
    }

    /// Loads a file, exactly once; see [`load()`](crate::load()). `input` is called if something of it is not loaded yet.
    /// What was committed is on the server's disk when this is done.
    ///
    /// Dropping the future ends it as it ends [`load()`](crate::load()); the same call goes on behind what was committed.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn load_input(
        &self,
        file: &FileIdentity,
        input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    ) -> Result<LoaderOutcome, Error> {
        let mut options = self.options.clone();
        options.hash_content |= self.verification == Verification::Full;
        let connect = (0..self.connections).map(|_| Session::connect(&self.conninfo));
        let mut sessions = try_join_all(connect).await?;
        prepare_ledger(&sessions[0]).await?;
        self.options.check()?;
        if self.restart {
            restart(&mut sessions[0], std::slice::from_ref(&self.table)).await?;
        }
        let loaded = load(&mut sessions, &self.table, file, input, &options).await?;
        sessions[0].flush().await?;
        let verified = Verifier::new(self.verification).verify(&sessions[0], &self.table).await?;
        Ok(LoaderOutcome { loaded, verified })
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection string may have a password.
        f.debug_struct("Loader")
            .field("table", &self.table)
            .field("connections", &self.connections)
            .field("restart", &self.restart)
            .field("verification", &self.verification)
            .finish_non_exhaustive()
    }
}
