//! Writes a snapshot: `snapshot --out DIR [--scale X] [--seed N] [--date YYYY-MM-DD] [--dialect A|B|C|D]
//! [--compress bz2|bz2-one|none] [--nasty] [--orphans N] [--schema clean|published] [--tables a,b] [--threads N] [--truth]`
//!
//! With `--table NAME --bytes N` and no `--out` it writes that much plain CSV of one table to standard output.
//! Scale 1, the default, is about 190 MB of CSV. `--truth` adds truth.json and truth.sql.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use bulk_testkit::snapshot::{self, Compression, Dialect, SchemaFlavour, Spec};

fn main() -> Result<(), Box<dyn Error>> {
    let mut spec = Spec::default();
    let (mut out, mut table, mut bytes, mut truth) = (None, None, 0, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--out" => out = Some(PathBuf::from(value()?)),
            "--scale" => spec.scale = value()?.parse()?,
            "--seed" => spec.seed = value()?.parse()?,
            "--date" => spec.date = value()?.parse()?,
            "--orphans" => spec.orphans = value()?.parse()?,
            "--threads" => spec.threads = Some(value()?.parse()?),
            "--tables" => spec.tables = value()?.split(',').map(str::to_owned).collect(),
            "--table" => table = Some(value()?),
            "--bytes" => bytes = value()?.parse()?,
            "--nasty" => spec.nasty = true,
            "--truth" => truth = true,
            "--dialect" => {
                spec.dialect = match value()?.as_str() {
                    "A" => Dialect::A,
                    "B" => Dialect::B,
                    "C" => Dialect::C,
                    "D" => Dialect::D,
                    other => return Err(format!("no dialect is called {other}").into()),
                }
            }
            "--compress" => {
                spec.compression = match value()?.as_str() {
                    "bz2" => Compression::Bzip2 { level: 9 },
                    "bz2-one" => Compression::Bzip2OneStream { level: 9 },
                    "none" => Compression::None,
                    other => return Err(format!("no compression is called {other}").into()),
                }
            }
            "--schema" => {
                spec.schema = match value()?.as_str() {
                    "clean" => SchemaFlavour::Clean,
                    "published" => SchemaFlavour::Published,
                    other => return Err(format!("no schema is called {other}").into()),
                }
            }
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let start = Instant::now();
    let report = |rows: u64, bytes: u64| {
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{rows} rows, {bytes} bytes of CSV, {seconds:.2} s, {:.1} MB/s", bytes as f64 / 1e6 / seconds);
    };
    match (out, table) {
        (Some(out), None) => {
            let made = snapshot::generate(&spec, &out)?;
            report(made.rows, made.csv_bytes);
            for file in &made.files {
                println!("{:>12} {:>12} {:>12} {}", file.rows, file.csv_bytes, file.bytes, file.name);
            }
            if truth {
                made.write_truth(&out)?;
            }
        }
        (None, Some(table)) => {
            let (rows, bytes) = snapshot::write_table(&spec, &table, bytes, &mut std::io::stdout().lock())?;
            report(rows, bytes);
        }
        _ => return Err("give --out DIR, or --table NAME and --bytes N".into()),
    }
    Ok(())
}
