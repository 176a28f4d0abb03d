use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bulk_archive::{Codec, DecodeOptions, Decoder};
use bulk_core::{BlockingBody, FileReport, OrderedBody, StagedFile};
use bulk_pg::{
    Checksum, ContentVerdict, FileIdentity, InputFormat, LoadOptions, PostDataOptions, Session, TableName,
    Verification, Verifier, count_rejects, drop_indexes, find_refreshed, has_dropped, merge_staged, prepare_ledger,
    raise_sequences, restart, restore_dependents,
};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::arguments::{Common, Load};
use crate::counted::counted;
use crate::exit::{Exit, Failure, Tally, fetch_error};
use crate::inferred;
use crate::inputs::{Input, Inputs};
use crate::meters::{Origin, ServerStage};
use crate::mirror::findings::list_post_data;
use crate::plain;
use crate::progress::Progress;
use crate::rejects::{RejectFiles, note_rejects};
use crate::report::Report;
use crate::selection::select;
use crate::server_watch::ServerWatch;

pub(crate) async fn run(load: &Load, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let mut options = LoadOptions::default();
    if load.dialect.is_some() && load.format != InputFormat::Csv {
        return Err(Failure::usage(format!("--dialect is of CSV, and --format is {}", load.format)));
    }
    if load.delimiter.is_some() && load.format != InputFormat::Csv {
        return Err(Failure::usage(format!("--delimiter is of CSV, and --format is {}", load.format)));
    }
    if load.rest.is_some() && load.format != InputFormat::Ndjson {
        return Err(Failure::usage(format!("--rest is of ndjson, and --format is {}", load.format)));
    }
    options.input_format = load.format;
    options.header.clone_from(&load.header);
    options.rest.clone_from(&load.rest);
    // A comma says nothing of quotes, which are found out.
    options.dialect = load.dialect.or(load.delimiter.filter(|dialect| dialect.delimiter() != b','));
    let own = |(column, value): (String, String)| (own_column(&load.table, column), value);
    options.fill = fills(&load.fill)?.into_iter().map(own).collect();
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    options.stop = common.stop.clone();
    options.max_rejects = load.max_rejects;
    options.stage = load.refresh;
    options.freeze = load.freeze;
    select(load, &mut options)?;
    options.hash_content = load.verify == Verification::Full;
    check(&options)?;
    options.chunk_size = load.chunk_size;
    load.records.set(&mut options);
    Inputs::check(load)?;
    inferred::check(load)?;
    let Some(session) = common.stop.run_until_cancelled(load.database.connect()).await else {
        return Ok(Exit::Interrupted);
    };
    let mut sessions = vec![session?];
    // Before anything is emptied: a file that cannot be read must not cost the rows of the last one.
    let Some(inputs) = common.stop.run_until_cancelled(Inputs::find(load, common, report)).await else {
        return Ok(Exit::Interrupted);
    };
    let mut inputs = inputs?;
    let result = load_all(load, &mut inputs, &mut sessions, options, common, report).await;
    inputs.end_arrivals().await;
    result
}

/// Loads what is found, restores what was dropped for it, and verifies.
async fn load_all(
    load: &Load,
    inputs: &mut Inputs<'_>,
    sessions: &mut Vec<Session>,
    mut options: LoadOptions,
    common: &Common,
    report: &Report,
) -> Result<Exit, Failure> {
    if load.refresh && inputs.items.len() > 1 {
        return Err(Failure::usage("--refresh makes the table what one file says; give one"));
    }
    if load.freeze && inputs.items.len() > 1 {
        return Err(Failure::usage("--freeze fills an empty table from one file; give one"));
    }
    let rejects = if common.dry_run { None } else { load.rejects.as_deref() };
    let paths = inputs.items.iter().map(|input| input.path.as_path());
    let rejects = rejects.map(|folder| RejectFiles::new(folder, paths)).transpose()?;
    if load.create_table {
        let created = inferred::create(load, inputs, &mut sessions[0], &options, common.dry_run, report);
        let Some(created) = common.stop.run_until_cancelled(created).await else { return Ok(Exit::Interrupted) };
        created?;
    }
    if common.dry_run {
        for Input { name, identity, size, .. } in &inputs.items {
            let bytes = size.map_or_else(|| "of unknown size".to_owned(), |size| counted(size, "byte", "bytes"));
            let name = if size.is_some() { &identity.key } else { name };
            let table = format!("{:#}", load.table);
            let text = format!("{} ({bytes}) into {table}", plain::name(name));
            report.planned(&text, json!({"file": name, "size": size, "table": table}));
        }
        return Ok(Exit::Done);
    }

    while sessions.len() < load.connections {
        sessions.push(load.database.connect().await?);
    }
    state_compression(&sessions[0], report);
    prepare_ledger(&sessions[0]).await?;
    if load.restart {
        restart(&mut sessions[0], std::slice::from_ref(&load.table)).await?;
    }
    inputs.refuse_unnamed(&sessions[0]).await?;
    if load.rebuild_indexes
        && inputs.has_any_to_load(&sessions[0], &load.table, &options).await?
        && drop_indexes(&mut sessions[0], std::slice::from_ref(&load.table)).await? > 0
    {
        report.note(format!(
            "indexes and keys of {:#} are dropped, and made anew behind the rows, by this run or the next that succeeds",
            load.table
        ));
    }
    let (to_fetch, to_read, unmeasured) = inputs.sizes();
    report.totals().set_endless(unmeasured > 0);
    let progress = Progress::start(report, to_fetch, to_read);
    let _watch = ServerWatch::start(&load.database, sessions, report);
    let mut tally = Tally::default();
    let mut is_any_left_out = false;
    for place in 0..inputs.items.len() {
        // The first one is not mixed with rows that somebody else put there; the others come to it.
        options.append = load.append || place > 0;
        let Input { name, path, identity, .. } = &inputs.items[place];
        if load.refresh && is_refreshed(&sessions[0], &load.table, identity, &options, report).await? {
            let left_out = count_rejects(&sessions[0], &load.table).await?;
            if let Some(rejects) = &rejects {
                rejects.write(&sessions[0], &load.table, path, identity, true, report).await?;
            }
            if left_out > 0 {
                note_rejects(&sessions[0], &load.table, identity, report).await;
                is_any_left_out = true;
                report.warn(format!("{name}: {} left out", counted(left_out, "record was", "records were")));
            }
            tally.done();
            continue;
        }
        let begun = Instant::now();
        let mut result = inputs.load(place, sessions, &load.table, &options).await;
        if load.refresh && result.is_ok() {
            let tables = std::slice::from_ref(&load.table);
            let merging = merge_staged(&mut sessions[0], tables, &options);
            let merged = report.meters().on_server(ServerStage::Merge, merging).await;
            result = result.and_then(|loaded| Ok(merged.map(|_| loaded)?));
        }
        let Input { name, path, identity, size, .. } = &inputs.items[place];
        // What was interrupted has not failed.
        if !result.as_ref().is_err_and(Failure::is_stop) {
            let mut file = file_report(name, &load.table, *size, &result);
            file.seconds = Some(begun.elapsed().as_secs_f64());
            report.file(file);
        }
        // Also what was left out before a failure, if the server still answers.
        if result.as_ref().map_or_else(|failure| !failure.is_stop(), |loaded| loaded.rejected > 0) {
            note_rejects(&sessions[0], &load.table, identity, report).await;
        }
        if let Some(rejects) = &rejects {
            let written = rejects.write(&sessions[0], &load.table, path, identity, result.is_ok(), report).await;
            if result.is_ok() {
                written?;
            }
        }
        let result =
            result.map_err(|failure| if load.create_table { inferred::advise(failure, load) } else { failure });
        match result {
            Ok(loaded) => {
                tally.done();
                if loaded.rejected > 0 {
                    is_any_left_out = true;
                    report.warn(format!("{name}: {} left out", counted(loaded.rejected, "record was", "records were")));
                }
                if loaded.bytes == 0 {
                    let rows = loaded.records - loaded.rejected - loaded.filtered;
                    report.note(format!("{name}: all of its {} had been loaded", counted(rows, "row", "rows")));
                }
            }
            Err(failure) if failure.is_stop() => return Ok(Exit::Interrupted),
            // Without the first, or without a database, there is nothing that the others could come to.
            Err(failure) if place == 0 || failure.is_of_database() => return Err(failure),
            Err(failure) => {
                report.failure(&failure);
                tally.failed(&failure);
            }
        }
    }
    drop(progress);
    inputs.end_arrivals().await;
    sessions[0].flush().await?;
    let restored = match tally.exit() {
        Exit::Done => restore(sessions, &load.table, common, report).await?,
        _ => Exit::Done,
    };
    if restored == Exit::Interrupted {
        return Ok(restored);
    }
    // What a file that failed has in the table is not counted in the ledger.
    if tally.exit() == Exit::Done {
        raise(&sessions[0], &load.table, report).await?;
        let exit = verify(&sessions[0], load, report).await?;
        let left_out = if is_any_left_out { Exit::Incomplete } else { Exit::Done };
        return Ok(left_out.max(exit).max(restored));
    }
    Ok(tally.exit().max(restored))
}

/// What became of a file, for the report of the run.
pub(crate) fn file_report(
    name: &str,
    table: &TableName,
    bytes: Option<u64>,
    result: &Result<bulk_pg::Loaded, Failure>,
) -> FileReport {
    let mut file = FileReport::default();
    (file.name, file.table, file.bytes) = (name.to_owned(), Some(format!("{table:#}")), bytes);
    match result {
        Ok(loaded) => (file.records, file.rejected) = (Some(loaded.records), loaded.rejected),
        Err(failure) => file.error = Some(format!("{:#}", failure.error)),
    }
    file
}

/// Refuses options that do not go together, before anything is emptied or dropped for them.
pub(crate) fn check(options: &LoadOptions) -> Result<(), Failure> {
    options.check().map_err(|error| Failure::usage(error.to_string()))
}

/// Says how wide values are compressed where that is our choice and not the server's.
pub(crate) fn state_compression(session: &Session, report: &Report) {
    if session.uses_lz4() {
        report.detail("wide values are compressed by lz4; --no-lz4 leaves that to the server");
    }
}

/// Makes again what this run or one that failed has dropped of the table.
async fn restore(
    sessions: &mut [Session],
    table: &TableName,
    common: &Common,
    report: &Report,
) -> Result<Exit, Failure> {
    let tables = std::slice::from_ref(table);
    if !has_dropped(&sessions[0], tables).await? {
        return Ok(Exit::Done);
    }
    let mut options = PostDataOptions::default();
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    options.stop = common.stop.clone();
    match report.meters().on_server(ServerStage::Index, restore_dependents(sessions, tables, &options)).await {
        Ok(done) => Ok(list_post_data(&done, report)),
        Err(bulk_pg::Error::Stopped { .. }) => Ok(Exit::Interrupted),
        Err(error) => Err(error.into()),
    }
}

/// Raises the table's sequences to what was loaded, so that rows which others add do not collide with it.
async fn raise(session: &Session, table: &TableName, report: &Report) -> Result<(), Failure> {
    let done = raise_sequences(session, table).await?;
    if done.raised > 0 {
        session.flush().await?;
        let raised = counted(done.raised as u64, "sequence was", "sequences were");
        report.detail(format!("{raised} raised to the largest value that {table:#} has"));
    }
    for sequence in done.refused {
        report.note(format!("{sequence:#} may be behind the rows of {table:#}: this role may not read or set it"));
    }
    Ok(())
}

/// Whether the table is what the file says already, as far as the ledger knows.
async fn is_refreshed(
    session: &Session,
    table: &TableName,
    identity: &FileIdentity,
    options: &LoadOptions,
    report: &Report,
) -> Result<bool, Failure> {
    let records = find_refreshed(session, table, identity, options).await?;
    if let Some(records) = records {
        let records = counted(records, "record says", "records say");
        report.note(format!("{}: {table:#} is what its {records}", identity.key));
    }
    Ok(records.is_some())
}

/// Compares the table's rows with the ledger's records. A table that had rows before has more.
async fn verify(session: &Session, load: &Load, report: &Report) -> Result<Exit, Failure> {
    let table = &load.table;
    if load.verify == Verification::None {
        return Ok(Exit::Done);
    }
    let verifier = Verifier::new(load.verify);
    let verified = report.meters().on_server(ServerStage::Verify, verifier.verify(session, table)).await?;
    let Some(count) = &verified.count else { return Ok(Exit::Done) };
    report.verified(count);
    let loaded = count.loaded();
    let has_others = load.append && count.rows > loaded;
    if !count.matches() && !has_others {
        let (rows, loaded) = (counted(count.rows, "row", "rows"), counted(loaded, "was", "were"));
        let what = anyhow::anyhow!("{table:#} has {rows}, and {loaded} loaded into it");
        return Err(Failure::new(Exit::Differs, what));
    }
    let exit = match &verified.content {
        Some(_) if has_others => {
            report.warn(format!("the content of {table:#} is not compared: it has rows that were not loaded"));
            Exit::Incomplete
        }
        Some(verdict) => content(table, verdict, report),
        None => Exit::Done,
    };
    match exit {
        Exit::Differs => {
            let what = "the content of its rows is not that of the files that were loaded into it";
            Err(Failure::new(Exit::Differs, anyhow::anyhow!("{table:#}: {what}")))
        }
        exit => {
            let content =
                if exit == Exit::Done && verified.content.is_some() { ", with the files' content" } else { "" };
            report.note(format!("verified: {table:#} has {}{content}", counted(count.rows, "row", "rows")));
            Ok(exit)
        }
    }
}

/// Says how the content of a table compares with that of its files.
pub(crate) fn content(table: &TableName, verdict: &ContentVerdict, report: &Report) -> Exit {
    let name = format!("{table:#}");
    match verdict {
        ContentVerdict::Same { content } => {
            let fields = json!({"table": name, "rows": content.rows, "sum": content.sum.to_string()});
            report.minor_event("content", &format!("{name} has the content of its files: {content}"), fields);
            Exit::Done
        }
        ContentVerdict::Differs { loaded, found } => {
            let fields = json!({
                "table": name, "rows": found.rows, "sum": found.sum.to_string(), "loaded": loaded.sum.to_string(),
            });
            let text = format!("{name} has {found}, and its files have {loaded}: the content differs");
            report.found(&text, fields);
            Exit::Differs
        }
        ContentVerdict::Unknown { why } => {
            report.warn(format!("the content of {name} is not compared: {why}"));
            Exit::Incomplete
        }
        other => {
            report.warn(format!("the content of {name} is not compared: {other:?}"));
            Exit::Incomplete
        }
    }
}

/// Decodes and loads a local file.
pub(crate) async fn load_path(
    sessions: &mut [Session],
    table: &TableName,
    path: &Path,
    identity: &FileIdentity,
    options: &LoadOptions,
    decode: DecodeOptions,
    report: &Report,
) -> Result<bulk_pg::Loaded, Failure> {
    let codec = codec(path)?;
    let path = path.to_owned();
    let meters = report.meters().clone();
    let open = move || Ok(meters.open(&path, codec, decode)?.into());
    load_decoded(sessions, table, (Origin::File, codec), open, identity, options, report).await
}

/// An object that is loaded while it arrives.
pub(crate) struct Arriving {
    pub(crate) body: OrderedBody,
    /// What messages call it.
    pub(crate) name: String,
    /// As it was listed.
    pub(crate) identity: FileIdentity,
    pub(crate) decode: DecodeOptions,
}

/// Where the body of an object that is loaded is, for its reader and for those who wait for it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Its file, if all of it was read and it is one.
    staged: Mutex<Option<StagedFile>>,
    /// Nobody wants the rest.
    is_given_up: AtomicBool,
}

impl Outcome {
    /// The file, whose disk space counts as long as this is there or what it gives.
    pub(crate) fn take_staged(&self) -> Option<StagedFile> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Decodes and loads an object while it arrives.
pub(crate) async fn load_body(
    sessions: &mut [Session],
    table: &TableName,
    arriving: Arriving,
    outcome: &Arc<Outcome>,
    options: &LoadOptions,
    report: &Report,
) -> Result<bulk_pg::Loaded, Failure> {
    let Arriving { mut body, name, mut identity, decode } = arriving;
    let mut head = Vec::new();
    let read = AsyncReadExt::take(&mut body, Codec::HEAD_LEN as u64).read_to_end(&mut head).await;
    read.map_err(|error| Failure::of_read(&name, error))?;
    // From its first byte on it is this version that comes, whichever was listed.
    if let (Some(etag), Some(size)) = (body.etag(), body.size())
        && identity.etag.as_deref() != Some(etag.as_str())
    {
        identity = FileIdentity::new(&identity.key, Some(etag.to_string()), size);
    }
    let codec = Codec::detect(&head);
    let rest = Rest { body: body.into_blocking(), outcome: outcome.clone() };
    let decode_options = report.meters().decode_options(Origin::Network, codec, decode);
    let open = move || Ok(Decoder::new(Read::chain(Cursor::new(head), rest), &name, &decode_options)?.into());
    let loaded = load_decoded(sessions, table, (Origin::Network, codec), open, &identity, options, report).await;
    // A decoder that failed may have left a thread that reads on.
    outcome.is_given_up.store(true, Ordering::Relaxed);
    loaded
}

/// The body behind its head.
struct Rest {
    body: BlockingBody,
    outcome: Arc<Outcome>,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.outcome.is_given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("its load has ended"));
        }
        let read = self.body.read(buffer).map_err(|error| match fetch_error(&error) {
            // There is nothing wrong with the bytes, whatever the kind says.
            Some(bulk_core::Error::Changed { .. }) => io::Error::other(error),
            _ => error,
        })?;
        if let (0, false, Some(staged)) = (read, buffer.is_empty(), self.body.staged()) {
            *self.outcome.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(staged);
        }
        Ok(read)
    }
}

/// Loads what a decoder gives.
pub(crate) async fn load_decoded(
    sessions: &mut [Session],
    table: &TableName,
    (origin, codec): (Origin, Codec),
    open: impl FnOnce() -> Result<Decoded, bulk_archive::Error> + Send + 'static,
    identity: &FileIdentity,
    options: &LoadOptions,
    report: &Report,
) -> Result<bulk_pg::Loaded, Failure> {
    let mut options = options.clone();
    options.checksum = match codec {
        Codec::Plain => Checksum::Unknown,
        codec if codec.checks_before_giving() => Checksum::Precedes,
        _ => Checksum::Follows,
    };
    if origin == Origin::Stdin {
        // It cannot be read again, and whoever writes it may take any time.
        options.commit_every = Duration::ZERO;
    }
    let counter = Arc::new(OnceLock::new());
    let (begun, totals) = (counter.clone(), report.totals().clone());
    report.meters().begin_load(origin, codec);
    let open = move || {
        let decoded = open()?;
        totals.begin_reading(begun.get_or_init(|| decoded.rest.progress()).clone());
        Ok(Box::new(decoded) as Box<dyn bulk_pg::Input>)
    };
    let loaded = bulk_pg::load(sessions, table, identity, open, &options).await;
    if let Some(counter) = counter.get() {
        report.totals().end_reading(counter);
    }
    Ok(loaded?)
}

/// What a decoder gives, and where in the file it can begin anew.
pub(crate) struct Decoded {
    /// What it has given already, if somebody had to look at it.
    first: Cursor<Vec<u8>>,
    rest: Decoder,
}

impl Decoded {
    pub(crate) fn new(first: Vec<u8>, rest: Decoder) -> Self {
        Self { first: Cursor::new(first), rest }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.rest.codec()
    }

    fn is_at_rest(&self) -> bool {
        self.first.position() >= self.first.get_ref().len() as u64
    }
}

impl From<Decoder> for Decoded {
    fn from(decoder: Decoder) -> Self {
        Self::new(Vec::new(), decoder)
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_at_rest() {
            return Read::read(&mut self.first, buffer);
        }
        if self.first.get_ref().capacity() > 0 {
            // It may be many megabytes.
            self.first = Cursor::default();
        }
        self.rest.read(buffer)
    }
}

impl bulk_pg::Input for Decoded {
    fn checkpoint(&self) -> Option<bulk_pg::Checkpoint> {
        // The decoder is ahead of what it has given already.
        let place = self.rest.checkpoint().filter(|_| self.is_at_rest())?;
        Some(bulk_pg::Checkpoint::new(place.offset(), place.to_string()))
    }

    fn skip_to(&mut self, checkpoint: &bulk_pg::Checkpoint) -> bool {
        // One of a version that writes it otherwise is of no use.
        self.is_at_rest() && checkpoint.text.parse().is_ok_and(|place| self.rest.skip_to(&place))
    }
}

/// What the content of a file says that it is.
pub(crate) fn codec(path: &Path) -> Result<Codec, Failure> {
    let failed = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display()));
    let mut head = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut file = Read::take(file, Codec::HEAD_LEN as u64);
    Read::read_to_end(&mut file, &mut head).map_err(failed)?;
    Ok(Codec::detect(&head))
}

/// A connection takes rows more slowly than a few threads decode them, and each of these has some megabytes of memory.
pub(crate) fn decode_options(max_ratio: Option<f64>) -> DecodeOptions {
    let mut options = DecodeOptions::default();
    options.max_ratio = max_ratio;
    options.threads = options.threads.min(4);
    options
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
