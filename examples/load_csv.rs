//! Loads a compressed CSV file into a table, exactly once (`bulk-archive`, `bulk-pg`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example load_csv
//! cargo run --release -p bulk-examples --example load_csv -- postgresql://me@localhost/courts courts.csv.bz2 search_court
//! ```
//!
//! Run the second one twice, or kill it and run it again: no row is lost, and none is there twice.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;
use std::io;
use std::path::PathBuf;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_pg::{FileIdentity, Input, LoadOptions, Plain, Session, TableName, count_rows, load, prepare_ledger};
use bulk_testkit::{postgres, snapshot};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut arguments = std::env::args().skip(1);
    let (url, file, table, _server) = match arguments.next() {
        Some(url) => {
            let file = PathBuf::from(arguments.next().ok_or("no file was given")?);
            (url, file, arguments.next().ok_or("no table was given")?, None)
        }
        None => {
            let spec = snapshot::Spec { scale: 0.01, tables: vec!["courts".to_owned()], ..snapshot::Spec::default() };
            let made = snapshot::generate(&spec, folder.path())?;
            let file = folder.path().join(&made.files[0].name);
            let server = postgres::Server::start(&postgres::Options::default())?;
            let columns = "id text PRIMARY KEY, full_name text NOT NULL, jurisdiction text, in_use boolean";
            server.psql(server.url(), &format!("CREATE TABLE court ({columns})"))?;
            (server.url().to_owned(), file, "court".to_owned(), Some(server))
        }
    };
    let table: TableName = table.parse()?;

    let mut session = Session::connect(&url).await?;
    prepare_ledger(&session).await?;
    let key = file.file_name().unwrap_or_default().to_string_lossy();
    let identity = FileIdentity::new(key, None, file.metadata()?.len());
    let open = move || {
        let decoder = Decoder::open(&file, &DecodeOptions::default()).map_err(io::Error::other)?;
        Ok(Box::new(Plain(decoder)) as Box<dyn Input>)
    };
    let loaded = load(std::slice::from_mut(&mut session), &table, &identity, open, &LoadOptions::default()).await?;
    println!("{} records, {} of them sent by this run", loaded.records, loaded.sent);
    // Columns are matched by name; what only one side has is said.
    for difference in &loaded.drift {
        println!("{difference}");
    }
    println!("{table:#} has {} rows", count_rows(&session, &table).await?.rows);
    Ok(())
}
