//! Our bzip2 decoder against lbzip2 with as many threads, in turn, on three kinds of content.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-decode -- [--megabytes 200] [--rounds 5] [--threads 2]
//! ```
//!
//! Both are programs that read a file and write to `/dev/null`; ours is this one, started again. It needs lbzip2, the
//! version that a distribution ships. Times are the best of all rounds, which other work on the machine disturbs least.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_benches::{Failed, done, need};
use bulk_testkit::snapshot::{Spec, write_table};
use clap::Parser;

/// Runs our decoder and lbzip2 in turn and prints their times and ratio.
#[derive(Parser)]
struct Arguments {
    /// Plain bytes of each kind of content, in millions.
    #[arg(long, default_value_t = 200)]
    megabytes: u64,
    /// Runs of each side.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of each side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Decodes this file to standard output, and does nothing else.
    #[arg(long, hide = true)]
    decode: Option<String>,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.decode {
        let mut options = DecodeOptions::default();
        options.threads = arguments.threads;
        let mut decoder = Decoder::open(file, &options)?;
        io::copy(&mut decoder, &mut io::stdout().lock())?;
        return Ok(());
    }
    need("lbzip2", "lbzip2")?;
    let folder = tempfile::tempdir()?;
    println!("| content | lbzip2 -n{0} | ours, {0} threads | ours is |\n|---|---|---|---|", arguments.threads);
    for (name, make) in [
        ("opinions: wide text", opinions as fn(&mut BufWriter<File>, u64) -> Result<(), Failed>),
        ("citation map: narrow integers", citation_map),
        ("base64: hardly compressible", base64),
    ] {
        let path = folder.path().join("plain");
        let mut out = BufWriter::new(File::create(&path)?);
        make(&mut out, arguments.megabytes * 1_000_000)?;
        out.flush()?;
        done(Command::new("lbzip2").args(["--compress", "--force", "-9"]).arg(&path))?;
        let packed = path.with_extension("bz2");
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..arguments.rounds {
            let mut command = Command::new("lbzip2");
            command.args(["--decompress", "--stdout"]).arg(format!("-n{}", arguments.threads)).arg(&packed);
            theirs = theirs.min(timed(&mut command)?);
            ours = ours.min(timed(&mut own(&arguments, &packed)?)?);
        }
        println!("| {name} | {theirs:.2} s | {ours:.2} s | **{:.2}×** as fast |", theirs / ours);
        fs::remove_file(packed)?;
    }
    Ok(())
}

fn own(arguments: &Arguments, packed: &Path) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--threads", &arguments.threads.to_string(), "--decode"]).arg(packed);
    Ok(command)
}

fn opinions(out: &mut BufWriter<File>, bytes: u64) -> Result<(), Failed> {
    write_table(&Spec::default(), "opinions", bytes, out)?;
    Ok(())
}

fn citation_map(out: &mut BufWriter<File>, bytes: u64) -> Result<(), Failed> {
    write_table(&Spec::default(), "citation-map", bytes, out)?;
    Ok(())
}

fn base64(out: &mut BufWriter<File>, bytes: u64) -> Result<(), Failed> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..bytes / 77 {
        let mut line = [b'\n'; 77];
        line[..76].fill_with(|| DIGITS[random.usize(..64)]);
        out.write_all(&line)?;
    }
    Ok(())
}

fn timed(command: &mut Command) -> Result<f64, Failed> {
    let started = Instant::now();
    done(command.stdout(Stdio::null()))?;
    Ok(started.elapsed().as_secs_f64())
}
