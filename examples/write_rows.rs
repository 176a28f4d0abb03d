//! Writes rows of Rust values into a table by COPY (`bulk-pg`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example write_rows
//! cargo run --release -p bulk-examples --example write_rows -- postgresql://me@localhost/mine
//! ```
//!
//! The second one makes a table `measurement` in the database, if there is none.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::error::Error;

use bulk_pg::{BlockingCopyWriter, CopyFormat, CopyWriter, Session};
use bulk_testkit::postgres;
use serde::Serialize;

#[derive(Serialize)]
struct Measurement<'a> {
    sensor: &'a str,
    at: jiff::Timestamp,
    celsius: Option<f64>,
    tags: Vec<&'a str>,
    details: serde_json::Value,
}

const DDL: &str = "CREATE TABLE IF NOT EXISTS measurement
    (sensor text, at timestamptz, celsius double precision, tags text[], details jsonb)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (url, _server) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let server = postgres::Server::start(&postgres::Options::default())?;
            (server.url().to_owned(), Some(server))
        }
    };
    let mut session = Session::connect(&url).await?;
    session.client().batch_execute(DDL).await?;
    let table = "measurement".parse()?;
    let columns = ["sensor", "at", "celsius", "tags", "details"];

    let start: jiff::Timestamp = "2026-06-30T12:00:00Z".parse()?;
    let mut writer = CopyWriter::begin(&mut session, &table, &columns, CopyFormat::Auto).await?;
    for second in 0..100_000 {
        let measurement = Measurement {
            sensor: if second % 2 == 0 { "roof" } else { "cellar" },
            at: start + jiff::SignedDuration::from_secs(second),
            celsius: (second % 100 != 0).then_some(20.0 + second as f64 / 1e5),
            tags: vec!["demo"],
            details: serde_json::json!({"second": second}),
        };
        writer.write(&measurement).await?;
    }
    println!("{} rows are there", writer.finish().await?);

    // What is not finished is not there.
    let mut writer = CopyWriter::begin(&mut session, &table, &columns, CopyFormat::Auto).await?;
    writer.write(&("attic", start, 30.0, ["demo"], ())).await?;
    if let Err(error) = writer.write(&("attic", start, "warm", ["demo"], ())).await {
        println!("{error}");
    }
    drop(writer);
    let count = "SELECT count(*) FROM measurement WHERE sensor = 'attic'";
    println!("{} rows of the attic", session.client().query_one(count, &[]).await?.get::<_, i64>(0));

    // The same without a runtime; within one it works, too.
    let mut writer = BlockingCopyWriter::connect(&url, &table, &["sensor"], CopyFormat::Auto)?;
    writer.write(&["garden"])?;
    println!("{} row more", writer.finish()?);
    Ok(())
}
