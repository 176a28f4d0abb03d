//! How much memory a download takes: 100 GB over 64 connections, read as they arrive, with nothing kept on disk.
//!
//! `cargo run --release -p bulk-core --example memory [GIGABYTES [CONNECTIONS]]`
//!
//! The objects are made up by a server in a process of its own, so that only the download is measured: the highest
//! resident set is what the kernel says of this process (`VmHWM` in `/proc/self/status`). Every byte is compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bulk_core::{DownloadOptions, HttpSource, Keep, Request, stream};
use bulk_testkit::s3::{Object, Server, Store};
use futures::StreamExt;

/// An odd length, so that bytes that went astray show.
const PATTERN: &[u8; 61] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY";
const GIGABYTE: u64 = 1_000_000_000;
const OBJECTS: u64 = 10;
/// Kilobytes that this process may have resident.
const MOST: u64 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<_> = std::env::args().skip(1).map(|text| text.parse::<u64>()).collect();
    if std::env::args().nth(1).is_some_and(|first| first == "serve") {
        return serve(numbers[1].clone()?);
    }
    let number = |at: usize, default| numbers.get(at).cloned().unwrap_or(Ok(default));
    let (gigabytes, connections) = (number(0, 100)?, number(1, 64)?);
    let size = gigabytes * GIGABYTE / OBJECTS;

    let mut server = Command::new(std::env::current_exe()?)
        .args(["serve".to_owned(), size.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut url = String::new();
    BufReader::new(server.stdout.take().ok_or("the server has no output")?).read_line(&mut url)?;
    let result = fetch(url.trim(), size, connections as usize);
    // It ends with its input.
    drop(server.stdin.take());
    server.wait()?;
    result
}

/// Serves until its input ends.
fn serve(size: u64) -> Result<(), Box<dyn std::error::Error>> {
    let store = (0..OBJECTS).fold(Store::memory(), |store, place| {
        store.with(format!("o{place}"), Object::repeating(size, PATTERN).etag(&format!("{place}-{size}")))
    });
    let server = Server::builder().bucket("data", store).start()?;
    writeln!(std::io::stdout(), "{}/data", server.url())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[tokio::main]
async fn fetch(url: &str, size: u64, connections: usize) -> Result<(), Box<dyn std::error::Error>> {
    let plan = (0..OBJECTS).map(move |place| {
        let mut request = Request::new(format!("o{place}"));
        request.size = Some(size);
        request
    });
    let mut options = DownloadOptions::default();
    options.concurrency = connections;
    options.window = 4 << 30;
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let mut bodies = stream(Arc::new(HttpSource::new(url)?), plan, folder.path(), Keep::Nothing, options);
    let mut fetched = 0;
    while let Some(delivery) = bodies.next().await {
        let mut body = delivery.outcome?.into_blocking();
        fetched += tokio::task::spawn_blocking(move || compare(&mut body)).await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let highest = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("the kernel does not tell")?;
    assert_eq!(fetched, size * OBJECTS);
    let kilobytes: u64 = highest.split_whitespace().nth(1).ok_or("the kernel does not tell")?.parse()?;
    assert!(kilobytes < MOST, "{highest}");
    let rate = fetched as f64 / seconds / 1e6;
    writeln!(std::io::stdout(), "{fetched} bytes over {connections} connections in {seconds:.1} s, {rate:.0} MB/s")?;
    writeln!(std::io::stdout(), "{}", highest.split_whitespace().collect::<Vec<_>>().join(" "))?;
    Ok(())
}

/// Reads all, and compares it. How many bytes that were.
fn compare(body: &mut impl Read) -> std::io::Result<u64> {
    let tile = PATTERN.repeat((256 << 10) / PATTERN.len() + 2);
    let mut buffer = vec![0; 256 << 10];
    let mut position = 0_u64;
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            return Ok(position);
        }
        let within = (position % PATTERN.len() as u64) as usize;
        assert!(buffer[..read] == tile[within..within + read], "wrong bytes at {position}");
        position += read as u64;
    }
}
