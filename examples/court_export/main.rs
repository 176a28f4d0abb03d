//! The bulk data of a courts' project: a JSON file for each item of a database, in an archive for each of 350 courts and four
//! types of items. A day's run makes only those of the 1,400 archives anew in which something has changed, and copies what has
//! not changed within them (`bulk-pg`, `bulk-archive` with the feature `export`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example court_export -- --items 1000000
//! cargo run --release -p bulk-examples --example court_export -- --items 1000000 --out archives
//! ```
//!
//! It fills a PostgreSQL of its own with invented items (8,000 by default; a million of them are 5 GB), runs the export, changes
//! some, and runs it twice more. The second one leaves the archives in a new folder. `export.rs` is what a job of one's own
//! would have, the rest invents and checks.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

mod check;
mod database;
mod export;
mod made_up;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bulk_archive::{ExportOptions, ExportSet, Published, verify_set};
use bulk_testkit::postgres;
use tokio::runtime::Runtime;

use check::read_back;
use made_up::Day;

/// Whatever went wrong, in whichever thread.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let (mut items, mut out) = (8000, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match (name.as_str(), arguments.next()) {
            ("--items", Some(value)) => items = value.parse()?,
            ("--out", Some(value)) => out = Some(PathBuf::from(value)),
            _ => return Err("give --items N, --out FOLDER, both or nothing".into()),
        }
    }
    let temporary = tempfile::tempdir()?;
    let folder = out.unwrap_or_else(|| temporary.path().join("archives"));
    if folder.exists() {
        // It would have the watermarks of another database.
        return Err(format!("{} is there already", folder.display()).into());
    }
    show(items, &folder)
}

/// The database, three runs, and what there is to be seen of them.
fn show(items: u64, folder: &Path) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    let database = server.create_database("court_export")?;

    let started = Instant::now();
    database::fill(runtime.handle(), database.url(), items)?;
    println!("the database has {items} items; {:.1} s", started.elapsed().as_secs_f64());

    // Whoever has the set open has it alone.
    let mut set = ExportSet::open(folder, ExportOptions::default())?;
    let mut run = |name: &str| -> Result<(), Failure> {
        let started = Instant::now();
        let published = export::run(runtime.handle(), database.url(), &mut set)?;
        say(name, &published, started);
        Ok(())
    };
    run("first run")?;
    let first = check::archives(folder)?;

    let day = Day::of(items);
    runtime.block_on(database::live_through(database.url(), &day))?;
    let Day { changed, moved, removed, added } = &day;
    println!(
        "a day: {} items changed, {} moved to another court, {} deleted, {} new",
        changed.len(),
        moved.len(),
        removed.len(),
        added.len()
    );
    run("second run")?;
    let second = check::archives(folder)?;
    let touched = check::touched(&first, &second);
    if touched != day.archives() {
        return Err("archives were touched that the day did not concern, or the other way round".into());
    }
    println!("{} archives are other files than before, {} are not", touched.len(), second.len() - touched.len());

    run("third run")?;
    println!("{} archives are other files than before", check::touched(&second, &check::archives(folder)?).len());

    let started = Instant::now();
    let report = verify_set(folder, &ExportOptions::default())?;
    if let Some(fault) = report.faults.into_iter().next() {
        return Err(fault.error.into());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "verified: {} archives have {} items, all as they were made; {seconds:.1} s",
        report.archives, report.entries
    );
    println!("GNU tar has read {} archives: the items of the day are in the right ones", read_back(folder, &day)?);
    Ok(())
}

fn say(name: &str, published: &Published, started: Instant) {
    let Published { added, replaced, moved, removed, unchanged, .. } = *published;
    println!(
        "{name}: {added} items added, {replaced} replaced, {moved} moved, {removed} removed, {unchanged} as they were"
    );
    println!(
        "{} of {} archives made anew, {} emptied; {:.1} of {:.1} MB, {:.1} s",
        published.made_groups,
        published.archives,
        published.emptied_groups,
        published.made_bytes as f64 / 1e6,
        published.bytes as f64 / 1e6,
        started.elapsed().as_secs_f64()
    );
}
