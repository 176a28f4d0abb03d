use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_pg::{FileIdentity, LoadOptions, Session, TableName, count_rows, prepare_ledger, restart};
use jiff::Timestamp;
use serde_json::json;

use crate::arguments::{Common, Load};
use crate::exit::{Exit, Failure};
use crate::report::Report;

pub(crate) async fn run(load: &Load, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let mut options = LoadOptions::default();
    options.dialect = load.dialect;
    options.append = load.append || load.files.len() > 1;
    options.fill = fills(&load.fill)?;
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    let mut session = Session::connect(&load.db).await?;
    if common.dry_run {
        for file in &load.files {
            let identity = identity(file)?;
            report.result(&format!("{} ({} bytes) into {:#}", identity.key, identity.size, load.table));
        }
        return Ok(Exit::Done);
    }
    prepare_ledger(&session).await?;
    if load.restart {
        restart(&mut session, std::slice::from_ref(&load.table)).await?;
    }
    let ticker = report.ticker();
    for file in &load.files {
        let loaded = load_path(&mut session, &load.table, file, &identity(file)?, &options).await?;
        if loaded.sent == 0 {
            report.note(format!("{}: all of its {} rows had been loaded", file.display(), loaded.records));
        }
    }
    drop(ticker);
    session.flush().await?;
    verify(&session, &load.table, load.append, report).await
}

/// Compares the table's rows with the ledger's records. A table that had rows before has more.
async fn verify(session: &Session, table: &TableName, append: bool, report: &Report) -> Result<Exit, Failure> {
    let count = count_rows(session, table).await?;
    let fields = json!({"table": format!("{table:#}"), "rows": count.rows, "records": count.records});
    report.event("verified", &format!("{table:#} has {} rows", count.rows), fields);
    if count.matches() || (append && count.rows > count.records) {
        return Ok(Exit::Done);
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
) -> Result<bulk_pg::Loaded, Failure> {
    let path = path.to_owned();
    let open = move || {
        let decoder = Decoder::open(&path, &DecodeOptions::default()).map_err(std::io::Error::other)?;
        Ok(Box::new(decoder) as Box<dyn std::io::Read + Send>)
    };
    Ok(bulk_pg::load(session, table, identity, open, options).await?)
}

/// A local file is the same as long as its size and its time of change are.
fn identity(path: &Path) -> Result<FileIdentity, Failure> {
    let failed = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let absolute = std::path::absolute(path).map_err(failed)?;
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    Ok(FileIdentity::new(absolute.to_string_lossy(), modified.map(|time| time.to_string()), metadata.len()))
}

/// `column=value`, each.
pub(crate) fn fills(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => Ok((column.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--fill {text}: that is not COLUMN=VALUE"))),
    };
    texts.iter().map(pair).collect()
}
