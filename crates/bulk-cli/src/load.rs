use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bulk_archive::{Codec, DecodeOptions, Decoder};
use bulk_pg::{Checksum, FileIdentity, LoadOptions, Session, TableName, count_rows, prepare_ledger, restart};
use jiff::Timestamp;
use serde_json::json;

use crate::arguments::{Common, Load};
use crate::exit::{Exit, Failure, Tally};
use crate::progress::Progress;
use crate::report::Report;

pub(crate) async fn run(load: &Load, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let mut options = LoadOptions::default();
    options.dialect = load.dialect;
    let own = |(column, value): (String, String)| (own_column(&load.table, column), value);
    options.fill = fills(&load.fill)?.into_iter().map(own).collect();
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    options.stop = common.stop.clone();
    let Some(session) = common.stop.run_until_cancelled(Session::connect(&load.db)).await else {
        return Ok(Exit::Interrupted);
    };
    let mut session = session?;
    if common.dry_run {
        for file in &load.files {
            let identity = identity(file)?;
            let text = format!("{} ({} bytes) into {:#}", identity.key, identity.size, load.table);
            let table = format!("{:#}", load.table);
            report.planned(&text, json!({"file": identity.key, "size": identity.size, "table": table}));
        }
        return Ok(Exit::Done);
    }
    // Before anything is emptied: a file that cannot be read must not cost the rows of the last one.
    let readable = |file: &PathBuf| codec(file).and_then(|_| identity(file));
    let identities = load.files.iter().map(readable).collect::<Result<Vec<_>, _>>()?;
    prepare_ledger(&session).await?;
    if load.restart {
        restart(&mut session, std::slice::from_ref(&load.table)).await?;
    }
    let progress = Progress::start(report, 0, identities.iter().map(|identity| identity.size).sum());
    let mut tally = Tally::default();
    for (place, (file, identity)) in load.files.iter().zip(&identities).enumerate() {
        // The first one is not mixed with rows that somebody else put there; the others come to it.
        options.append = load.append || place > 0;
        match load_path(&mut session, &load.table, file, identity, &options, report).await {
            Ok(loaded) => {
                tally.done();
                if loaded.sent == 0 {
                    report.note(format!("{}: all of its {} rows had been loaded", file.display(), loaded.records));
                }
            }
            Err(failure) if failure.is_stop() => return Ok(Exit::Interrupted),
            // Without the first, or without a database, there is nothing that the others could come to.
            Err(failure) if place == 0 || matches!(failure.exit, Exit::Remote | Exit::Denied) => return Err(failure),
            Err(failure) => {
                report.failure(&failure);
                tally.failed(&failure);
            }
        }
    }
    drop(progress);
    session.flush().await?;
    // What a file that failed has in the table is not counted in the ledger.
    if tally.exit() == Exit::Done {
        verify(&session, &load.table, load.append, report).await?;
    }
    Ok(tally.exit())
}

/// Compares the table's rows with the ledger's records. A table that had rows before has more.
async fn verify(session: &Session, table: &TableName, append: bool, report: &Report) -> Result<(), Failure> {
    let count = count_rows(session, table).await?;
    report.verified(&count);
    if count.matches() || (append && count.rows > count.records) {
        report.note(format!("verified: {table:#} has {} rows", count.rows));
        return Ok(());
    }
    let what = anyhow::anyhow!("{table:#} has {} rows, and {} were loaded into it", count.rows, count.records);
    Err(Failure::new(Exit::Differs, what))
}

/// Decodes and loads a local file.
pub(crate) async fn load_path(
    session: &mut Session,
    table: &TableName,
    path: &Path,
    identity: &FileIdentity,
    options: &LoadOptions,
    report: &Report,
) -> Result<bulk_pg::Loaded, Failure> {
    let mut options = options.clone();
    let codec = codec(path)?;
    options.checksum = match codec {
        Codec::Plain => Checksum::Unknown,
        codec if codec.checks_before_giving() => Checksum::Precedes,
        _ => Checksum::Follows,
    };
    let path = path.to_owned();
    let counter = Arc::new(OnceLock::new());
    let (begun, totals) = (counter.clone(), report.totals().clone());
    let open = move || {
        let decoder = Decoder::open(&path, &decode_options())?;
        totals.begin_reading(begun.get_or_init(|| decoder.progress()).clone());
        Ok(Box::new(decoder) as Box<dyn std::io::Read + Send>)
    };
    let loaded = bulk_pg::load(session, table, identity, open, &options).await;
    if let Some(counter) = counter.get() {
        report.totals().end_reading(counter);
    }
    Ok(loaded?)
}

/// What the content of a file says that it is.
fn codec(path: &Path) -> Result<Codec, Failure> {
    let failed = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display()));
    let mut head = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(Codec::HEAD_LEN as u64).read_to_end(&mut head).map_err(failed)?;
    Ok(Codec::detect(&head))
}

/// A connection takes rows more slowly than a few threads decode them, and each of these has some megabytes of memory.
fn decode_options() -> DecodeOptions {
    let mut options = DecodeOptions::default();
    options.threads = options.threads.min(4);
    options
}

/// A local file is the same as long as its size and its time of change are.
fn identity(path: &Path) -> Result<FileIdentity, Failure> {
    let failed = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    Ok(FileIdentity::new(absolute.to_string_lossy(), modified.map(|time| time.to_string()), metadata.len()))
}

/// The column of `TABLE.COLUMN`, as messages write it, where the table is the one that is loaded.
fn own_column(table: &TableName, column: String) -> String {
    match column.split_once('.') {
        Some((name, column)) if name == table.name.as_str() => column.to_owned(),
        _ => column,
    }
}

/// `column=value`, each.
pub(crate) fn fills(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => Ok((column.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--fill {text}: that is not COLUMN=VALUE"))),
    };
    texts.iter().map(pair).collect()
}
