//! `bulk fetch` of objects below `data/` of a bucket, into a folder of the test.

use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::s3::{Object, Server, Store};

use super::{BUCKET, Ran, bulk, files, gets};

/// All objects of a [`Fetch`].
pub(crate) const DATA: &str = "s3://com-courtlistener-storage/data/";

/// A server, and a folder to fetch into.
pub(crate) struct Fetch {
    pub(crate) server: Server,
    pub(crate) folder: tempfile::TempDir,
    /// What every fetch is given.
    options: &'static [&'static str],
}

impl Fetch {
    pub(crate) fn new(store: Store, options: &'static [&'static str]) -> Self {
        Self::of(Server::builder().bucket(BUCKET, store).start().unwrap(), options)
    }

    pub(crate) fn of(server: Server, options: &'static [&'static str]) -> Self {
        Self { server, folder: tempfile::tempdir().unwrap(), options }
    }

    pub(crate) fn put(&self, name: &str, object: impl Into<Object>) {
        self.server.put(BUCKET, &format!("data/{name}"), object).unwrap();
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// `bulk fetch SOURCE`, anonymously.
    pub(crate) fn command_of(&self, source: &str, more: &[&str]) -> Command {
        let mut command = bulk(["fetch", source, "--anonymous", "--endpoint", &self.server.url(), "--out"]);
        command.arg(self.out()).args(self.options).args(more);
        command
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        self.command_of(DATA, more)
    }

    #[track_caller]
    pub(crate) fn fetch_of(&self, source: &str, more: &[&str]) -> Ran {
        Ran::of(self.command_of(source, more))
    }

    /// Fetches all objects below `data/`.
    #[track_caller]
    pub(crate) fn fetch(&self, more: &[&str]) -> Ran {
        Ran::of(self.command(more))
    }

    /// `bulk fetch --verify`.
    #[track_caller]
    pub(crate) fn verify(&self, more: &[&str]) -> Ran {
        let mut command = bulk(["fetch", "--verify", "--out"]);
        command.arg(self.out()).args(more);
        Ran::of(command)
    }

    /// The keys that were asked for since the last time, without their prefix.
    pub(crate) fn asked(&self) -> Vec<String> {
        let keys = gets(&self.server).into_iter().map(|key| key.strip_prefix("data/").unwrap().to_owned()).collect();
        self.server.clear_requests();
        keys
    }

    /// The files that are there, with their bytes as text, but for the manifest.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let fetched = files(&self.out()).into_iter().filter(|(name, _)| name != "manifest.json");
        fetched.map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect()
    }

    /// Asserts that those, by name, are all that is there.
    #[track_caller]
    pub(crate) fn assert_files(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(self.files(), expected);
    }
}
