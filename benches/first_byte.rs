//! When the first decoded line of a file is there, while the rest of it still arrives.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_core::{DownloadOptions, HttpSource, Keep, OrderedBody, Request, stream};
use futures::StreamExt;

use crate::Failed;

/// The first argument of the process that reads.
const READ: &str = "--read-first-line";

/// Seconds from the start of a process of its own until it has printed the first line of the file `key`, decoded, which
/// it fetches over `connections` from `base`, by way of the folder `staging`; and that line.
///
/// The calling program must begin with [`first_line_if_asked`].
///
/// # Errors
///
/// If the process cannot be started or prints nothing.
pub fn first_line(base: &str, key: &str, connections: usize, staging: &Path) -> Result<(f64, String), Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.args([READ, base, key, &connections.to_string()]).arg(staging);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line);
    let seconds = started.elapsed().as_secs_f64();
    // It would read on to the end.
    let _ = child.kill();
    child.wait()?;
    fs::remove_dir_all(staging)?;
    read?;
    if line.is_empty() { Err("no line was printed".into()) } else { Ok((seconds, line)) }
}

/// Is the process that reads, if this one was started to be that. Returns whether it was.
///
/// # Errors
///
/// If the file cannot be fetched or decoded.
pub fn first_line_if_asked() -> Result<bool, Failed> {
    let mut arguments = env::args().skip(1);
    if arguments.next().is_none_or(|first| first != READ) {
        return Ok(false);
    }
    let mut next = || arguments.next().ok_or("too few arguments");
    let (base, key, connections, staging) = (next()?, next()?, next()?.parse()?, next()?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let source = Arc::new(HttpSource::new(&base)?);
        let mut options = DownloadOptions::default();
        options.concurrency = connections;
        let mut bodies = stream(source, vec![Request::new(key)], staging, Keep::Nothing, options);
        let body = bodies.next().await.ok_or("nothing was delivered")?.outcome?;
        let read = move || print_first_line(body).map_err(|error| error.to_string());
        Ok::<_, Failed>(tokio::task::spawn_blocking(read).await??)
    })?;
    Ok(true)
}

#[expect(clippy::print_stdout, reason = "it is read by the process that started this one")]
fn print_first_line(body: OrderedBody) -> Result<(), Failed> {
    let mut decoded = BufReader::new(Decoder::new(body.into_blocking(), "head", &DecodeOptions::default())?);
    let mut line = String::new();
    decoded.read_line(&mut line)?;
    print!("{line}");
    // Until this process is ended.
    decoded.read_to_end(&mut Vec::new())?;
    Ok(())
}
