//! What the calls of a crawl give is in the tables once, whatever happens on the way.

mod cut;
mod parts;
mod publication;
mod rejects;
mod room;
mod round;
#[path = "../support/mod.rs"]
mod support;
mod values;

use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMode, CrawlTable, Error, Session};
use serde_json::{Value, json};
use support::{Bench, table};

/// A table with rows of an earlier round.
const OLD: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, name text DEFAULT 'd' NOT NULL);
    CREATE INDEX by_name ON t (name); COMMENT ON TABLE t IS 'mine'; GRANT SELECT ON t TO PUBLIC;
    INSERT INTO t VALUES (1, 'old'), (2, 'old')";

async fn session(bench: &Bench) -> Session {
    Session::connect(bench.database.url()).await.unwrap()
}

fn job(name: &str, columns: &[&str], mode: CrawlMode) -> CrawlJob {
    CrawlJob::new("stats", vec![CrawlTable::new(table(name), columns.iter().copied(), mode)])
}

fn options() -> CrawlLoadOptions {
    CrawlLoadOptions::default()
}

fn lenient() -> CrawlLoadOptions {
    let mut options = options();
    options.max_rejects = u64::MAX;
    options
}

async fn begin(bench: &Bench, job: &CrawlJob, options: CrawlLoadOptions) -> CrawlLoad {
    CrawlLoad::begin(session(bench).await, job, options).await.unwrap()
}

async fn call<const N: usize>(load: &mut CrawlLoad, key: &str, rows: &[[Value; N]]) -> Result<(), Error> {
    let mut call = load.call(key);
    for row in rows {
        call.row(0, row.iter().map(Some))?;
    }
    call.finish().await
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Two tables of which each call has a row.
fn two(mode: CrawlMode) -> CrawlJob {
    CrawlJob::new("two", ["a", "b"].map(|name| CrawlTable::new(table(name), ["id"], mode)).to_vec())
}

async fn call_two(load: &mut CrawlLoad, key: &str, id: i64) {
    let mut call = load.call(key);
    for place in 0..2 {
        assert!(call.row(place, [Some(&json!(id))]).unwrap());
    }
    call.finish().await.unwrap();
}
