//! The index of an archive's finding aids: 25 objects in one request and their subjects with them, then what has changed
//! alone, and without what was deleted. The job is two files, `crawl.toml` for `bulk crawl` and `schema.sql`; there is no code
//! to it.
//!
//! ```text
//! cargo run --release -p bulk-examples --example archivesspace_index
//! ```
//!
//! This program is what there is besides in the real world: a server on loopback that answers as ArchivesSpace does, and a
//! PostgreSQL. It runs the spec, changes something in the archive, and runs it again.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use bulk_testkit::api::{ArchivesSpace, Server};
use bulk_testkit::postgres::{self, Database};

const SESSION: &str = "0123456789abcdef";
const OBJECTS: u64 = 1000;
/// When the archive was described, in seconds since 1970.
const LONG_AGO: u64 = 1_600_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let archive = ArchivesSpace::new(SESSION);
    for id in 1..=OBJECTS {
        archive.put(id, &format!("Object {id}"), LONG_AGO + id);
    }
    let served = archive.clone();
    let api = Server::builder(move |asked| served.answer(asked)).start()?;
    let postgres = postgres::Server::start(&postgres::Options::default())?;
    let database = postgres.create_database("discovery")?;
    postgres.psql(database.url(), include_str!("schema.sql"))?;

    // The same spec, but for where the API is.
    let folder = tempfile::tempdir()?;
    let spec = folder.path().join("crawl.toml");
    std::fs::write(&spec, include_str!("crawl.toml").replace("https://archives.example.org/api", &api.url()))?;

    run(&spec, &database)?;
    show(&postgres, &database, &api)?;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    archive.put(1, "Letters, 1901 to 1914", now);
    archive.delete(2, now);
    archive.put(OBJECTS + 1, "A box that nobody had opened", now);
    println!("one object has another title, one is deleted, and one is new");
    api.clear();
    run(&spec, &database)?;
    show(&postgres, &database, &api)
}

fn run(spec: &Path, database: &Database) -> Result<(), Box<dyn Error>> {
    let mut bulk = Command::new(bulk_examples::bulk()?);
    bulk.arg("crawl").arg(spec).args(["--db", database.url()]);
    let status = bulk.env("ARCHIVESSPACE_SESSION", SESSION).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("bulk crawl: {status}").into()) }
}

fn show(postgres: &postgres::Server, database: &Database, api: &Server) -> Result<(), Box<dyn Error>> {
    let sql = "SELECT count(*) || ' rows, the first has ' ||
                      min(title) FILTER (WHERE uri = '/repositories/2/archival_objects/1')
               FROM discovery.archival_object";
    print!("{} requests; {}", api.arrivals().len(), postgres.psql(database.url(), sql)?);
    Ok(())
}
