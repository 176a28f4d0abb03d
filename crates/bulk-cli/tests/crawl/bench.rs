//! A spec, a database, and whatever it asks.

use std::collections::BTreeMap;
use std::process::Command;

use bulk_testkit::api::Server;
use bulk_testkit::postgres::Database;

use crate::support::{Ran, bulk, files, server, sql};

/// A session and a key that must never be seen.
pub(crate) const SECRET: &str = "s3cr3t-s3ss10n";

/// A spec, a database, and whatever it asks.
pub(crate) struct Bench {
    pub(crate) database: Database,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(tables: &str) -> Self {
        let database = server().create_database("crawl").unwrap();
        sql(&database, tables);
        Self { database, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn spec(&self, text: &str) {
        std::fs::write(self.folder.path().join("job.toml"), text).unwrap();
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = bulk(["crawl", "job.toml"]);
        command.args(more).env("BULK_DB", self.database.url()).env("API_KEY", SECRET);
        command.current_dir(self.folder.path());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, more: &[&str]) -> Ran {
        let ran = Ran::of(self.command(more));
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!shown.contains(SECRET), "{shown}");
        for (name, bytes) in files(self.folder.path()) {
            assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "the secret is in {name}");
        }
        ran
    }

    #[track_caller]
    pub(crate) fn sql(&self, text: &str) -> String {
        sql(&self.database, text)
    }
}

/// The targets of the requests that arrived, in their order, and how often each did.
pub(crate) fn targets(api: &Server) -> BTreeMap<String, usize> {
    let mut targets = BTreeMap::new();
    for arrival in api.arrivals() {
        *targets.entry(arrival.target).or_default() += 1;
    }
    targets
}

pub(crate) const MEMBERS: &str = "
    CREATE TABLE member (type int, account bigint, character bigint PRIMARY KEY);
    INSERT INTO member SELECT 3, 4611686018000000000 + n, 2305843009000000000 + n FROM generate_series(1, 40) n;
    CREATE TABLE stat (character bigint, activity bigint, stat text, value jsonb);
    INSERT INTO stat VALUES (1, 1, 'of before', '{}');
    CREATE TABLE ready (at timestamptz DEFAULT now());";

/// The job of the seed pyLoader: the statistics of each member's character.
pub(crate) fn statistics(url: &str, more: &str) -> String {
    format!(
        r#"
        name = "statistics"
        [input]
        query = "SELECT type, account, character FROM member ORDER BY character"
        [request]
        url = "{url}/Platform/Destiny2/{{type}}/Account/{{account}}/Character/{{character}}/Stats/AggregateActivityStats/"
        headers = {{ X-API-Key = "{{$key}}" }}
        secrets = {{ key = "env:API_KEY" }}
        [success]
        rules = ["$.ErrorCode == 1"]
        throttle = "$.ThrottleSeconds"
        message = "$.Message"
        lasting = ["$.ErrorCode == 2101"]
        [[rows]]
        table = "stat"
        each = ["$.Response.activities[*]", "$.values.*"]
        columns = {{ character = "input.character", activity = "$1.activityHash", stat = "key", value = "$.basic" }}
        require = ["stat"]
        {more}"#
    )
}
