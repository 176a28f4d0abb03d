//! A game's statistics of all members of a clan: 25 requests a second, and no more in any ten seconds, each answer exploded
//! into rows, and a table made anew that is never empty in between. The job is two files, `crawl.toml` for `bulk crawl` and
//! `schema.sql`; there is no code to it.
//!
//! ```text
//! cargo run --release -p bulk-examples --example bungie_stats
//! cargo run --release -p bulk-examples --example bungie_stats -- 551
//! ```
//!
//! This program is what there is besides in the real world: a server on loopback that answers as the API does and refuses
//! what exceeds its limit, and a PostgreSQL with so many characters (60 by default). It checks the spec, runs it, and runs
//! it once more a day later: one character is gone, another one is new.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bulk_testkit::api::{Server, bungie};
use bulk_testkit::postgres::{self, Database};

const KEY: &str = "4711";
/// What is made up of the numbers of a character's statistics.
const STATISTICS: usize = 33;
/// The API's own limit.
const WINDOW: (usize, Duration) = (250, Duration::from_secs(10));

fn main() -> Result<(), Box<dyn Error>> {
    let characters = std::env::args().nth(1).map_or(Ok(60), |number| number.parse::<u32>())?;
    let api = Server::builder(bungie(KEY, |_| STATISTICS)).limit(WINDOW.0, WINDOW.1).start()?;
    let postgres = postgres::Server::start(&postgres::Options::default())?;
    let database = postgres.create_database("clans")?;
    postgres.psql(database.url(), include_str!("schema.sql"))?;
    // Each member has up to three characters.
    let members = format!(
        "INSERT INTO stats.t_member
         SELECT n, 1, 2373515, 'member ' || n, 4611686018438308000 + n, 2 FROM generate_series(1, ({characters} + 2) / 3) n;
         INSERT INTO stats.t_character SELECT 2305843009267620000 + n, (n + 2) / 3 FROM generate_series(1, {characters}) n"
    );
    postgres.psql(database.url(), &members)?;

    // The same spec, but for where the API is.
    let folder = tempfile::tempdir()?;
    let spec = folder.path().join("crawl.toml");
    std::fs::write(&spec, include_str!("crawl.toml").replace("https://www.bungie.net", &api.url()))?;

    run(&spec, &database, &["--check"])?;
    println!("checked, with {} requests", api.arrivals().len());
    run(&spec, &database, &[])?;
    show(&postgres, &database, &api)?;

    api.clear();
    let day = "DELETE FROM stats.t_character WHERE character_id = 2305843009267620001;
               INSERT INTO stats.t_character VALUES (2305843009267630000, 2)";
    postgres.psql(database.url(), day)?;
    run(&spec, &database, &[])?;
    show(&postgres, &database, &api)
}

fn run(spec: &Path, database: &Database, more: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut bulk = Command::new(bulk_examples::bulk()?);
    bulk.arg("crawl").arg(spec).args(["--db", database.url()]).args(more);
    let status = bulk.env("BUNGIE_API_KEY", KEY).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("bulk crawl: {status}").into()) }
}

fn show(postgres: &postgres::Server, database: &Database, api: &Server) -> Result<(), Box<dyn Error>> {
    let sql = "SELECT count(*) || ' rows of ' || count(DISTINCT character_id) || ' characters' FROM stats.t_aggregate_activity_stats";
    let rows = postgres.psql(database.url(), sql)?;
    println!("{} requests, {} refused: {}", api.arrivals().len(), api.refused(), rows.trim_end());
    let sql = "SELECT 'member ' || member_id || ': ' || statistics || ' statistics' FROM stats.mv_member ORDER BY member_id LIMIT 1";
    print!("{}", postgres.psql(database.url(), sql)?);
    Ok(())
}
