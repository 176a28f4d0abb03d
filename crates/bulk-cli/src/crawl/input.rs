//! The records that requests are made of.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bulk_archive::Decoder;
use bulk_pg::{count_records, query_columns, query_records};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::{Api, Wanted};
use super::spec::Input;
use crate::arguments::{Common, DatabaseArguments};
use crate::exit::{Exit, Failure};
use crate::inputs::stdin;
use crate::load::decode_options;
use crate::report::Report;

/// Records that are read ahead of a file.
const AHEAD: usize = 256;
/// Records of a file that are looked at before a run.
const LOOKED_AT: usize = 100;
/// A record is no longer.
const LONGEST: u64 = 64 << 20;

/// Records of whichever input.
pub(super) struct Records(BoxStream<'static, Result<Value, Failure>>);

/// Why an input ended before its end.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Failure>>>);

impl Trouble {
    pub(super) fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Records {
    pub(super) async fn open(
        input: &Input,
        api: &Api<'_>,
        database: &DatabaseArguments,
        common: &Common,
        report: &Report,
    ) -> Result<Self, Failure> {
        match input {
            Input::Query(query) => {
                let session = database.connect().await?;
                let columns = query_columns(&session, query).await?;
                check_fields(&api.fields(true), &columns, "the input's query", "columns")?;
                let records = query_records(session, query).await?;
                Ok(Self(records.map(|record| record.map_err(Failure::from)).boxed()))
            }
            Input::File(path) if path.as_os_str() == "-" => {
                let decoder = stdin::open(&common.stop, decode_options(None), report).await?;
                Self::of_lines(decoder, "standard input".to_owned())
            }
            Input::File(path) => Self::of_lines(open(path).await?, path.display().to_string()),
            Input::List { list, each, name } => Ok(Self(api.records(list, each, name)?)),
        }
    }

    /// A JSON object on each line. A thread reads, so that a pipe that gives nothing holds up nobody.
    fn of_lines(reader: impl Read + Send + 'static, name: String) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let read = move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            for number in 1_u64.. {
                line.clear();
                let record = match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
                    Ok(0) => return,
                    Ok(_) if line.trim_ascii().is_empty() => continue,
                    Ok(_) => record(&line)
                        .map_err(|what| Failure::new(Exit::Failed, anyhow::anyhow!("{name}, line {number}: {what}"))),
                    Err(error) => Err(Failure::of_read(&name, error)),
                };
                let is_last = record.is_err();
                if sender.blocking_send(record).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("bulk-input".to_owned())
            .spawn(read)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        let records = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|record| (record, receiver))
        });
        Ok(Self(records.boxed()))
    }

    /// Whether the first records of a file have what requests want to know of them, where each may have other keys.
    pub(super) async fn check(self, input: &Input, api: &Api<'_>) -> Result<(), Failure> {
        let Input::File(path) = input else { return Ok(()) };
        let mut first = self.0.take(LOOKED_AT);
        let mut keys = BTreeSet::new();
        while let Some(record) = first.next().await {
            if let Value::Object(record) = record? {
                keys.extend(record.into_iter().map(|(key, _)| key));
            }
        }
        // Where there is none, nothing is wrong with it.
        match keys.is_empty() {
            true => Ok(()),
            false => {
                let keys: Vec<_> = keys.into_iter().collect();
                check_fields(&api.fields(false), &keys, &path.display().to_string(), "keys")
            }
        }
    }

    /// Up to `limit` of them. The first that is none ends them, and is kept.
    pub(super) fn stream(self, limit: Option<usize>) -> (impl Stream<Item = Value> + Send + 'static, Trouble) {
        let trouble = Trouble::default();
        let kept = trouble.clone();
        let records = self.0.take(limit.unwrap_or(usize::MAX)).scan((), move |(), record| {
            let record = record.map_err(|failure| {
                *kept.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            });
            std::future::ready(record.ok())
        });
        (records, trouble)
    }
}

/// How many records an input will have, `most` at most, if that can be told before they have come.
pub(super) async fn count(input: Input, database: DatabaseArguments, most: Option<u64>) -> Option<u64> {
    match input {
        Input::Query(query) => count_records(&mut database.connect().await.ok()?, &query, most).await.ok(),
        // What a pipe gives, it gives once.
        Input::File(path) if path.as_os_str() != "-" && tokio::fs::metadata(&path).await.ok()?.is_file() => {
            let decoder = open(&path).await.ok()?;
            tokio::task::spawn_blocking(move || count_lines(decoder, most).ok()).await.ok()?
        }
        // There may be fewer, but who says how many wants them all.
        Input::File(_) | Input::List { .. } => most,
    }
}

/// The lines that have a record. Whoever makes requests of them says what is wrong with any.
fn count_lines(reader: impl Read, most: Option<u64>) -> io::Result<u64> {
    let (most, mut reader) = (most.unwrap_or(u64::MAX), BufReader::new(reader));
    let (mut lines, mut is_blank) = (0, true);
    while lines < most {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        // The end of a line, or what there is of it.
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let len = end.unwrap_or(bytes.len());
        is_blank &= bytes[..len].trim_ascii().is_empty();
        lines += u64::from(end.is_some() && !is_blank);
        is_blank |= end.is_some();
        reader.consume(len + usize::from(end.is_some()));
    }
    Ok(lines + u64::from(!is_blank && lines < most))
}

/// Whether what is wanted of a record is among its names, or in the value of one.
fn check_fields(wanted: &[Wanted<'_>], names: &[String], of: &str, what: &str) -> Result<(), Failure> {
    let has = |field: &str| names.iter().any(|name| name == field);
    let leads = |field: &str| field.split_once('.').is_some_and(|(first, _)| has(first));
    let is_there = |wanted: &&Wanted<'_>| has(wanted.field) || (wanted.may_lead && leads(wanted.field));
    match wanted.iter().find(|wanted| !is_there(wanted)) {
        None => Ok(()),
        Some(Wanted { place, .. }) => Err(Failure::usage(format!(
            "the spec: {place}, and {of} has no such thing; its {what} are {}",
            names.join(", ")
        ))),
    }
}

async fn open(path: &Path) -> Result<Decoder, Failure> {
    let file = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Decoder::open(file, &decode_options(None))).await;
    let opened = opened.map_err(|error| Failure::new(Exit::Failed, error))?;
    opened.map_err(|error| Failure::of_read(&path.display().to_string(), error.into()))
}

fn record(line: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(line).map_err(|error| error.to_string())? {
        record @ Value::Object(_) => Ok(record),
        _ => Err("it is no JSON object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_that_have_a_record() {
        let count = |text: &str, most| count_lines(text.as_bytes(), most).unwrap();
        for (text, lines) in [("", 0), ("\n \n", 0), ("{}", 1), ("{}\n", 1), ("{}\r\n\n {}\n{}", 3), ("  ", 0)] {
            assert_eq!(count(text, None), lines, "{text:?}");
            assert_eq!(count(text, Some(2)), lines.min(2), "{text:?}");
        }
        // Longer than the reader's buffer.
        let long = format!("{}{{}}\n{}\n{{}}", " ".repeat(20_000), " ".repeat(20_000));
        assert_eq!((count(&long, None), count(&long, Some(0))), (2, 0));
    }
}
