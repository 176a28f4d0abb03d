use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::choice;
use crate::chunk::{Committed, Counts, Destination, SHAPE, Tolerance};
use crate::column::Target;
use crate::content;
use crate::counted::counted;
use crate::encode::{Encoder, Opened};
use crate::error::ANEW;
use crate::feed::Feed;
use crate::group::{Chunks, may_wait_for_each_other};
use crate::input_format::{is_read_alike, not_read_alike, reading};
use crate::json_column::json_shapes;
use crate::ledger::{self, FileIdentity, Load};
use crate::rejects;
use crate::salvage::refers_to_itself;
use crate::span::in_span;
use crate::stage::{LoadStage, Watch, WorkerState};
use crate::staging;
use crate::table_lock::{LOCK_TIMEOUT, LockedTable, begin, lock_exclusively};
use crate::turns::Turns;
use crate::verify::{has_rows, is_any_row};
use crate::{
    Condition, CopyFormat, Dialect, Drift, Error, Event, Input, InputFormat, Observer, RecordOptions, Session,
    TableName, Verdict, quote_literal,
};

/// When an input's checksums vouch for its bytes. It decides what an error of the kind
/// [`InvalidData`](io::ErrorKind::InvalidData) says of the bytes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// Nobody knows, or there are none. Rows that were committed before such an error may be wrong: that is noted in the
    /// ledger, and the table must be loaded anew.
    #[default]
    Unknown,
    /// Bytes are checked before they are given, as in bzip2. Rows that were committed before such an error are right, and
    /// a later load goes on behind them.
    Precedes,
    /// The checksum stands behind the bytes, as in gzip, zstd and xz. As [`Unknown`](Self::Unknown); and after a bad
    /// record the input is read to its end, so that damage is not taken for what the writer did.
    Follows,
}

/// How [`load`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// In which format the file is. Default [`InputFormat::Csv`].
    pub input_format: InputFormat,
    /// The names of the file's columns, in its order, where it does not say them: a CSV file with these has no header line,
    /// and COPY's formats never have one. Of NDJSON, keys beside those of the first MiB. Default: as
    /// [`InputFormat`] says.
    pub header: Option<Vec<String>>,
    /// The column of type json or jsonb that gets all keys of a record of NDJSON that are no columns, as one object, which
    /// may be empty. (So does a key that has the column's own name.) Other formats have no use for it. Default: such keys
    /// are not loaded.
    pub rest: Option<String>,
    /// Read a CSV file as this dialect. One that the file contradicts is refused. Default: told from the file.
    pub dialect: Option<Dialect>,
    /// The dialect to take where the file's beginning allows several.
    pub hint: Option<Dialect>,
    /// Values for columns that the file lacks, as they would stand in the file. They are part of what is chosen: others
    /// over rows that are there are refused, as another [`filter`](Self::filter) is.
    pub fill: BTreeMap<String, String>,
    /// Decoded bytes of a chunk, which is what a kill can cost; see [`RecordOptions::chunk_size`]. It may be another one
    /// in each run of a load. Chunks end earlier where more of them would have to be kept in memory until they are
    /// committed: with 4,194,304 records, or with 32 MiB of what [`max_rejects`](Self::max_rejects) and
    /// [`hash_content`](Self::hash_content) keep, each divided by the number of sessions. Default 16 MiB.
    pub chunk_size: u64,
    /// How long chunks that follow each other are sent by one COPY before they are committed together, which spares
    /// the server several hundredths of its CPU time; a kill, or a record that ends the load, then costs what was sent in that
    /// time, too. Chunks are committed one by one where some of their records may be left out, where their content is hashed,
    /// and where sessions may wait for each other's rows: several of them, and a unique index, a trigger or partitions.
    /// Default zero: one by one.
    pub commit_every: Duration,
    /// The longest record, in decoded bytes; see [`RecordOptions::max_record`]. Default 64 MiB.
    ///
    /// A load over one session takes about ten megabytes of memory. Over several, up to 20 MiB more for each wait to be
    /// sent (40 where records may be left out), 80 at most for all of them; and up to 32 MiB for all are kept of chunks, as
    /// [`chunk_size`](Self::chunk_size) says. To this come two to four times the longest record that it meets; where chunks
    /// are kept, another one for each session.
    pub max_record: usize,
    /// How long to wait while another session loads the table; it may be that of a program that was killed, which the
    /// server misses within a second or so. Default 5 s.
    pub lock_timeout: Duration,
    /// What is known of `input`'s checksums. Default [`Checksum::Unknown`].
    pub checksum: Checksum,
    /// In which format rows are sent. Default [`CopyFormat::Auto`].
    pub format: CopyFormat,
    /// How many bad records may be left out of the table, those of earlier calls for the same file included. Default 0:
    /// the first one ends the load.
    ///
    /// Bad is a record that is not as its format wants it, with another number of fields than the header, with a NUL byte or bytes that are not UTF-8, or with
    /// a value that its column cannot hold; and one whose row the server refuses, such as for a constraint. Of two rows
    /// that exclude each other, the one that stands later in the file is refused, unless a call for the same file that left
    /// out nothing had committed it before. Each is noted in `bulk.reject` in the transaction of the rows around it;
    /// [`write_rejects`](crate::write_rejects) writes them out. A file of which nobody can say where its next record starts
    /// is an error whatever the number.
    ///
    /// Above 0, constraints that are deferred are checked with each chunk, and chunks are committed in the order of the file.
    /// They have no more than 131,072 records, of which no more than 4,096 are found to be bad before they are sent, and are
    /// kept in memory until they are committed; [`chunk_size`](Self::chunk_size) says how much of them.
    pub max_rejects: u64,
    /// The columns of the file that are loaded, by their names; others count as if the file did not have them. Default:
    /// all. One that the file or the table does not have is an error.
    pub columns: Option<Vec<String>>,
    /// Which records are loaded: those that meet all of these conditions. Default: all. The others are passed over before
    /// anything else is asked of them, but for the number of their fields: they may have values that no column can hold. A
    /// column that the file does not have is an error.
    pub filter: Vec<Condition>,
    /// How many records are loaded: the first of the file that meet the conditions, in its order, whatever the number of
    /// sessions; those that are [left out](Self::max_rejects) count. Nothing is read behind the last one, so a checksum at
    /// the end of the file is not looked at. Default: all.
    pub limit: Option<u64>,
    /// Whether text that PostgreSQL cannot hold is repaired, so that its record is not bad: NULs are removed from a value,
    /// and what is not UTF-8 becomes U+FFFD, as [`String::from_utf8_lossy`] has it. A record that would be longer than
    /// `max_record` by that stays bad, and so does a header. Conditions look at the values of the file. Default: not.
    pub repair: bool,
    /// Whether the rows' [content](crate::Content) is noted with each chunk, so that a [`Verifier`](crate::Verifier) can
    /// compare the table's with it. The server is then asked to hash rows with values that it alone can tell, such as all
    /// of those that go as text, in a temporary table; such rows are kept in memory until their chunk is committed, and
    /// [`chunk_size`](Self::chunk_size) says how much of them. Default off, which costs nothing.
    pub hash_content: bool,
    /// Whether rows may be added to a table that has some already, whoever put them there. Default: refused.
    pub append: bool,
    /// Whether an empty table is filled in one transaction, with rows that are frozen (PostgreSQL manual, "COPY", FREEZE):
    /// no vacuum has to write them once more, and with `wal_level = minimal` they are not logged. The table is locked
    /// against everybody, readers included, from the first row to the last; an interruption costs all of it; one session
    /// does it all; no records can be [left out](Self::max_rejects). Once it is committed, all sessions see the rows, also
    /// those whose snapshot is older (`REPEATABLE READ`) and which ought to see an empty table: the manual calls it a
    /// violation of the normal rules of visibility. What an earlier run has committed without it stays,
    /// and what is missing then comes without it, as it does into a [staging table](Self::stage). Default: not.
    pub freeze: bool,
    /// Put the rows into a staging table of the table's own, which nobody reads, whatever the table holds; then
    /// [`merge_staged`](crate::merge_staged) makes the table what they say. `append` does not matter then. Default false.
    pub stage: bool,
    /// The table that the rows are for, where they go into its staging table: messages name it.
    pub(crate) staged_for: Option<TableName>,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to stop at the end of the chunk under way, with [`Error::Stopped`]. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            input_format: InputFormat::Csv,
            header: None,
            rest: None,
            dialect: None,
            hint: None,
            fill: BTreeMap::new(),
            chunk_size: 16 << 20,
            commit_every: Duration::ZERO,
            max_record: RecordOptions::MAX_RECORD,
            lock_timeout: LOCK_TIMEOUT,
            checksum: Checksum::Unknown,
            format: CopyFormat::Auto,
            max_rejects: 0,
            columns: None,
            filter: Vec::new(),
            limit: None,
            repair: false,
            hash_content: false,
            append: false,
            freeze: false,
            stage: false,
            staged_for: None,
            observer: Arc::new(()),
            stop: CancellationToken::new(),
        }
    }
}

impl LoadOptions {
    /// Says which of these options do not go together. [`load`] does so, too, before it does anything; who empties the
    /// table before that asks first.
    ///
    /// # Errors
    ///
    /// [`Error::Options`].
    pub fn check(&self) -> Result<(), Error> {
        let Self { input_format: format, filter, hash_content, repair, .. } = self;
        let is_binary = *format == InputFormat::CopyBinary;
        let what = if is_binary && !filter.is_empty() {
            format!("records of the format {format} cannot be chosen by a condition: their values are binary")
        } else if is_binary && *hash_content {
            format!(
                "the content of a file of the format {format} cannot be hashed while it is loaded, for --verify full"
            )
        } else if *repair && *format != InputFormat::Csv {
            format!("only the text of CSV is repaired, and the format is {format}")
        } else if self.freeze && self.is_tolerant() {
            "rows cannot be frozen where records may be left out: a bad one takes all of them back".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Options { what })
    }

    /// Whether any record may be left out.
    pub(crate) fn is_tolerant(&self) -> bool {
        self.max_rejects > 0
    }

    /// What people call the table that the rows go to.
    fn name_of<'a>(&'a self, table: &'a TableName) -> &'a TableName {
        self.staged_for.as_ref().unwrap_or(table)
    }
}

/// What [`load`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Records of the file, or of as much of it as was to be read; all are in the table but for the rejected and the filtered
    /// ones.
    pub records: u64,
    /// Records that were left out, by this call and by earlier ones.
    pub rejected: u64,
    /// Records that did not meet the [conditions](LoadOptions::filter), in this call and in earlier ones.
    pub filtered: u64,
    /// Records that are in the table and were [repaired](LoadOptions::repair), by this call and by earlier ones.
    pub repaired: u64,
    /// Rows that this call put into the table: fewer than `records` after an interruption, 0 if the file had been loaded.
    pub sent: u64,
    /// Decoded bytes of the records that this call worked on.
    pub bytes: u64,
    /// By which dialect the file was read; `None` if it was not read, or is no CSV.
    pub verdict: Option<Verdict>,
    /// Differences between header and table.
    pub drift: Vec<Drift>,
}

/// Records of `file`, if all of them that `options` choose are in `table` already or were
/// [left out](LoadOptions::max_rejects). Nothing is changed or locked, so a caller can ask before it fetches the file.
///
/// Marks of a table that was dropped and made anew, or emptied by somebody, do not count while the table is empty; the
/// next [`load`] forgets them. So the answer for such a table is `None`, whatever had been loaded into it.
///
/// # Errors
///
/// [`Error::NoTable`]; [`Error::Columns`] if rows of the file were read in another format or with other names;
/// [`Error::Occupied`] if the table holds rows of another version of this file or another choice of them, or of another
/// file or of somebody else where `options.append` is off, or if it has rows and is another table than the one of its name
/// that was loaded into, as after a restore from a dump; and [`Error::Database`]. The ledger must be
/// [prepared](crate::prepare_ledger).
pub async fn find_loaded(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<Option<u64>, Error> {
    let target = Target::find(session, table).await?;
    let found = Found::look(session, table, &target, file, options).await?;
    Ok(found.load.and_then(|load| load.finished))
}

/// What the ledger has of a file and a table.
struct Found {
    load: Option<Load>,
    /// Loads that have no rows: they never had, or those went with the table that had them, or were deleted.
    gone: Vec<i64>,
}

impl Found {
    async fn look(
        session: &Session,
        table: &TableName,
        target: &Target,
        file: &FileIdentity,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let LoadOptions { append, .. } = *options;
        let occupied = |what: String| Error::Occupied { table: table.clone(), what };
        // One that failed in its first chunk has left nothing.
        let counts = |load: &Load| load.oid == target.oid && (load.finished.is_some() || load.has_chunks);
        let (mut loads, mut gone): (Vec<_>, Vec<_>) =
            ledger::loads(session.client(), table).await?.into_iter().partition(counts);
        // Asked after the marks were read: rows that they speak of are seen.
        let is_empty = !has_rows(session, table).await?;
        if is_empty && loads.iter().any(Load::left_rows) {
            gone.append(&mut loads);
        }
        let elsewhere: Vec<&Load> = gone.iter().filter(|load| load.left_rows()).collect();
        if !is_empty && !elsewhere.is_empty() {
            return Err(occupied(not_the_same(table, &elsewhere)));
        }
        let mut gone: Vec<_> = gone.iter().map(|load| load.id).collect();
        if let Some(load) = loads.iter().find(|load| load.damage.is_some()) {
            return Err(occupied(format!("holds rows of a damaged copy of {}; {ANEW}", load.file.key)));
        }
        if let Some(place) = loads.iter().position(|load| load.file.key == file.key) {
            let load = loads.remove(place);
            let is_chosen = choice::is_same(&load, options);
            if load.file == *file && is_chosen && is_read_alike(&load, options) {
                return Ok(Self { load: Some(load), gone });
            }
            // It is in nobody's way.
            if !load.left_rows() {
                gone.push(load.id);
            } else if load.file == *file && is_chosen {
                return Err(not_read_alike(&load, options));
            } else if load.file == *file {
                return Err(occupied(choice::not_the_same(&load, options)));
            } else {
                return Err(occupied(format!(
                    "holds {} of another version of {} (ETag {}, {}; now {}, {}); {ANEW}",
                    if load.finished.is_some() { "all" } else { "a part" },
                    file.key,
                    load.file.etag.as_deref().unwrap_or("none"),
                    counted(load.file.size, "byte", "bytes"),
                    file.etag.as_deref().unwrap_or("none"),
                    counted(file.size, "byte", "bytes"),
                )));
            }
        }
        // One that is to go on may yet have rows.
        if !append && let Some(load) = loads.iter().find(|load| load.left_rows() || load.finished.is_none()) {
            let what = format!("holds the rows of {}; {ANEW}; --append of bulk load adds to them", load.file.key);
            return Err(occupied(what));
        }
        if !append && !is_empty {
            let what =
                "has rows that this program did not load; --restart deletes them, --append of bulk load adds to them";
            return Err(occupied(what.to_owned()));
        }
        Ok(Self { load: None, gone })
    }
}

/// Says of a table with rows that its namesake was loaded into: whether the rows are the same cannot be told.
fn not_the_same(table: &TableName, loads: &[&Load]) -> String {
    let list = |text: fn(&Load) -> String| loads.iter().map(|load| text(load)).collect::<Vec<_>>().join(", ");
    let (files, ids) = (list(|load| load.file.key.clone()), list(|load| load.id.to_string()));
    let name = quote_literal(&format!("{table:#}")).expect("an identifier holds no NUL");
    format!(
        "has rows, and is not the table of its name that {files} went into, as after a restore from a dump or a swap of \
         tables; if the rows are in it, run UPDATE bulk.load SET target_oid = {name}::regclass WHERE id IN ({ids}), if \
         not, DELETE FROM bulk.load WHERE id IN ({ids}), or {ANEW}"
    )
}

/// Loads a file into a table, exactly once.
///
/// `input` gives the file's decoded bytes; it is read in a thread of its own. Records are re-encoded for COPY and sent in
/// chunks, several at once if there are several sessions; the rows of a chunk and its mark in `bulk.chunk` are committed
/// together. Each chunk ends between two records, and its mark says which bytes it has, so after any interruption the same
/// call fills in what is missing, over any number of sessions and with chunks of any size. A file that had been loaded is
/// not read at all.
///
/// Chunks are committed without waiting for the server's disk (`synchronous_commit = off`; see [`Session`]), which is safe
/// as a transaction has both rows and mark: a crash of the server may lose the last of them, never one without the other,
/// and the next call sends them again. That the file is loaded is committed in the usual way, which waits for all before
/// it: what this has returned `Ok` for is on the server's disk.
///
/// Sequences stay as they are; [`raise_sequences`](crate::raise_sequences) is for the end.
///
/// Columns are matched by name. The ledger must be [prepared](crate::prepare_ledger); marks of a table that
/// was dropped and made anew, or emptied by somebody, are forgotten if it is empty. Other loaders cannot load into the
/// table in the meantime: the first session holds its lock, and if that one is lost, no chunk of the others is committed
/// after another loader has begun.
///
/// Rows of one chunk stand in the table in the order of the file, but for those that go as text beside binary, which
/// stand behind the others; chunks of several sessions stand in any order.
///
/// Dropping the future rolls back the chunks under way, and the sessions can be used at once; the thread ends at its next
/// buffer.
///
/// # Errors
///
/// See [`Error`]. Chunks that were committed before the error stay and are skipped by the next call; those that other
/// sessions have under way are still sent to their ends.
///
/// # Panics
///
/// If there is no session.
pub async fn load(
    sessions: &mut [Session],
    table: &TableName,
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    options.check()?;
    let loading = async {
        match options.stage {
            true => staging::stage(sessions, table, file, input, options).await,
            false => load_table(sessions, table, file, input, options).await,
        }
    };
    in_span!("load", { file = %file.key, table = %format_args!("{table:#}") }, loading).await
}

/// [`load`] into the table itself.
pub(crate) async fn load_table(
    sessions: &mut [Session],
    table: &TableName,
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    let (first, others) = sessions.split_first_mut().expect("a load takes at least one session");
    // The shape first: if it changes in between, no chunk is committed.
    let shape = shape(first, table).await?;
    let target = Target::find(first, table).await?;
    let mut locked = LockedTable::lock(first, table, target.oid, options.lock_timeout).await?;
    let loaded = load_locked(&mut locked, others, table, (target, shape), file, input, options).await;
    // Behind whatever is still to be rolled back.
    let unlocked = locked.unlock().await;
    let loaded = loaded?;
    unlocked?;
    Ok(loaded)
}

async fn load_locked(
    session: &mut Session,
    others: &mut [Session],
    table: &TableName,
    (target, shape): (Target, Option<String>),
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    ledger::fence(session, table).await?;
    let found = Found::look(session, table, &target, file, options).await?;
    if !found.gone.is_empty() {
        ledger::forget(session, table, &found.gone).await?;
    }
    let load = match found.load {
        Some(Load { finished: Some(records), rejected, filtered, repaired, .. }) => {
            let (sent, bytes, verdict, drift) = (0, 0, None, Vec::new());
            return Ok(Loaded { records, rejected, filtered, repaired, sent, bytes, verdict, drift });
        }
        Some(load) => match rejects::over_limit(session, &load, options.max_rejects).await? {
            Some(error) => return Err(error),
            None => load,
        },
        None => ledger::begin(session, table, target.oid, file, Some(choice::describe(options))).await?,
    };
    let loaded = load_rows(session, others, table, (target, shape), file, &load, input, options).await;
    if let Err(error @ Error::Read { source, .. }) = &loaded
        && source.kind() == io::ErrorKind::InvalidData
        && options.checksum != Checksum::Precedes
    {
        ledger::set_damage(session, &load, &error.to_string()).await?;
    }
    loaded
}

/// Bytes that wait for each session, so that it always has some to send while the thread goes on to the next chunk.
const ROOM: usize = 2 << 20;
/// The same where there are several sessions, whose chunks must be read before the next ones can be begun.
const ROOM_OF_SEVERAL: usize = 20 << 20;
/// The most for all of them.
const MAX_ROOM: usize = 80 << 20;

#[expect(clippy::too_many_arguments, reason = "the parts of a load, each of another kind")]
async fn load_rows(
    session: &mut Session,
    mut others: &mut [Session],
    table: &TableName,
    (target, shape): (Target, Option<String>),
    file: &FileIdentity,
    load: &Load,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    let attempt = ledger::begin_attempt(session, load).await?;
    let committed = ledger::extents(session, load).await?;
    if !others.is_empty() && !options.is_tolerant() && refers_to_itself(session.client(), load.oid).await? {
        // A row may need one of a chunk before, which another session had not committed yet.
        others = &mut [];
    }
    let is_frozen = options.freeze && committed.is_empty();
    if is_frozen {
        others = &mut [];
    }
    let is_grouped = !options.commit_every.is_zero()
        && !options.is_tolerant()
        && !options.hash_content
        && (others.is_empty() || !may_wait_for_each_other(session.client(), load.oid).await?);
    let resumed = committed.iter().map(|extent| extent.end.record - extent.start.record).sum();
    let several = !others.is_empty();
    // Records that are kept come beside their rows.
    let room_of_each = if options.is_tolerant() { 2 * ROOM_OF_SEVERAL } else { ROOM_OF_SEVERAL };
    let room = if several { MAX_ROOM.min(room_of_each * (1 + others.len())) } else { ROOM };
    let (feed, chunks) = Feed::new(1 + others.len(), room);
    let (opening, opened) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let (asking, asked) = oneshot::channel();
    let shapes = match options.input_format {
        InputFormat::Ndjson => json_shapes(session, table, target.oid).await?,
        _ => HashMap::new(),
    };
    let encoder = Encoder {
        file: file.key.clone(),
        table: options.name_of(table).clone(),
        target,
        committed,
        known_dialect: load.dialect,
        shapes,
        options: options.clone(),
        sessions: 1 + others.len(),
        is_to_be_checked: Some(asked),
    };
    // The receiver is gone if the load was dropped.
    let run = move || drop(ending.send(encoder.run(input, opening, feed)));
    let thread = std::thread::Builder::new().name("bulk-encode".to_owned()).spawn(run);
    thread.map_err(|source| Error::Read { file: file.key.clone(), records: 0, offset: 0, source })?;
    let lost = |_| Error::Interrupted { file: file.key.clone() };

    let Ok(Opened { verdict, layout, mapping, maker }) = opened.await else {
        return match ended.await.map_err(lost)? {
            Err(error) => Err(error),
            Ok(_) => Err(Error::Interrupted { file: file.key.clone() }),
        };
    };
    options.observer.event(&Event::Opened {
        file: &file.key,
        table: options.name_of(table),
        verdict: verdict.as_ref(),
        drift: &mapping.drift,
        resumed,
    });
    let dialect = verdict.as_ref().map(|verdict| verdict.dialect);
    ledger::set_reading(session, load, dialect, &reading(options)).await?;
    if options.staged_for.is_some() {
        staging::add_columns(session, load, &mapping.names).await?;
    }

    if options.hash_content {
        content::set_columns(session, load, &mapping.names).await?;
    }
    let tolerance = options.is_tolerant().then(|| Tolerance {
        limit: options.max_rejects,
        rejected: AtomicU64::new(load.rejected),
        several,
        turns: Turns::new(),
        layout,
        max_record: options.max_record,
        maker,
    });
    let destination = Destination {
        file,
        table,
        load,
        attempt,
        shape,
        columns: &mapping.list,
        tolerance,
        is_hashed: options.hash_content,
        is_frozen,
    };
    let (transaction, session_of_chunks) = match is_frozen {
        true => (Some(begin_frozen(&mut *session, table, options.lock_timeout).await?), None),
        false => (None, Some(&mut *session)),
    };
    let first = transaction.as_ref().map(Way::Within);
    let way = if is_grouped { Way::Groups } else { Way::Chunks };
    let ways = first.into_iter().chain(session_of_chunks.into_iter().chain(others).map(way));
    // Also by a failure: the others end the chunks that they have.
    let halt = options.stop.child_token();
    let chunks = Chunks::new(chunks, &halt);
    // Boxed, so that the compiler sees that they may go to another thread.
    let senders: Vec<BoxFuture<'_, _>> =
        ways.enumerate().map(|way| send_chunks(way, &chunks, &destination, options, &halt).boxed()).collect();
    let results = join_all(senders).await;
    drop(chunks);
    let mut sent = Sent::default();
    let mut failed: Option<Failed> = None;
    for result in results {
        match result {
            Ok(more) => sent.add(more),
            Err(other) if failed.as_ref().is_none_or(|failed| other.record < failed.record) => failed = Some(other),
            Err(_) => {}
        }
    }
    // What the thread met is behind all that was sent.
    if let Some(Failed { error, .. }) = failed {
        // What the server would not take may be what damage made of the file.
        if matches!(error, Error::Copy { .. } | Error::Rejects { .. })
            && options.checksum == Checksum::Follows
            && !options.stop.is_cancelled()
            && asking.send(()).is_ok()
            && let Ok(Err(damage @ Error::Read { .. })) = ended.await
        {
            return Err(damage);
        }
        return Err(error);
    }
    drop(asking);
    let ended = ended.await.map_err(lost)?;
    // The thread may be done with chunks that nobody has taken.
    let Some(end) = ended?.filter(|end| end.record == resumed + sent.records) else {
        return Err(Error::Stopped { what: format!("the load of {}", file.key) });
    };
    if let Some(commit) = transaction.map(Transaction::commit) {
        // Deferred constraints are checked here.
        commit.await.map_err(Error::database(format!("load {} into {table:#}", file.key)))?;
    }
    ledger::finish(session, load, end.record).await?;
    let mut counts = Counts { rejected: load.rejected, filtered: load.filtered, repaired: load.repaired };
    counts.add(sent.counts);
    let Counts { rejected, filtered, repaired } = counts;
    let (key, records) = (file.key.as_str(), end.record);
    let table = options.name_of(table);
    options.observer.event(&Event::Loaded { file: key, table, records, rejected, filtered, repaired });
    Ok(Loaded {
        records,
        rejected,
        filtered,
        repaired,
        sent: sent.records - sent.counts.rejected - sent.counts.filtered,
        bytes: sent.bytes,
        verdict,
        drift: mapping.drift,
    })
}

/// Begins the transaction that fills an empty table with frozen rows: the server takes such only for a table that the
/// transaction has made or truncated.
async fn begin_frozen<'a>(
    session: &'a mut Session,
    table: &TableName,
    timeout: Duration,
) -> Result<Transaction<'a>, Error> {
    let transaction = begin(session, timeout).await?;
    lock_exclusively(&transaction, table).await?;
    if is_any_row(&transaction, table).await? {
        let what = "has rows, and only an empty table is filled with frozen ones".to_owned();
        return Err(Error::Occupied { table: table.clone(), what });
    }
    let sql = format!("SET LOCAL lock_timeout = 0; TRUNCATE {table}");
    let truncated = transaction.batch_execute(&sql).await;
    truncated.map_err(|error| match error.code() {
        Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
            let what = "is referred to by foreign keys, so that it cannot be filled with frozen rows".to_owned();
            Error::Occupied { table: table.clone(), what }
        }
        _ => Error::database(format!("truncate {table:#}"))(error),
    })?;
    Ok(transaction)
}

/// What a COPY depends on: the table that has the name, and its columns with their types, as one text. `None` without one.
async fn shape(session: &Session, table: &TableName) -> Result<Option<String>, Error> {
    let row = session
        .client()
        .query_one(&format!("SELECT {SHAPE}"), &[&table.to_string()])
        .await
        .map_err(Error::database(format!("read the columns of {table:#}")))?;
    Ok(row.get(0))
}

/// What a session has sent and committed.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    records: u64,
    /// Among them.
    counts: Counts,
    bytes: u64,
}

impl Sent {
    fn add(&mut self, more: Self) {
        self.records += more.records;
        self.counts.add(more.counts);
        self.bytes += more.bytes;
    }
}

/// A chunk that failed.
struct Failed {
    /// Records before it.
    record: u64,
    error: Error,
}

/// How chunks are committed.
enum Way<'a, 't> {
    /// Each by itself.
    Chunks(&'a mut Session),
    /// With those that follow in some time.
    Groups(&'a mut Session),
    /// All with the transaction.
    Within(&'a Transaction<'t>),
}

/// Sends chunks until there are no more, or until it is told to halt. A failure halts all.
async fn send_chunks(
    (worker, mut way): (usize, Way<'_, '_>),
    chunks: &Chunks<'_>,
    destination: &Destination<'_>,
    options: &LoadOptions,
    halt: &CancellationToken,
) -> Result<Sent, Failed> {
    let mut sent = Sent::default();
    let watch = Watch::new(&options.observer, &destination.file.key, LoadStage::Copy, worker);
    loop {
        let waiting = watch.waits(WorkerState::WaitsForInput);
        let Some(chunk) = chunks.next().await else { break };
        drop(waiting);
        let start = chunk.start;
        let one = |committed: Option<Committed>| committed.into_iter().collect();
        let copied = match &mut way {
            Way::Chunks(session) => destination.copy(session, chunk, &watch).await.map(one),
            Way::Groups(session) => destination.copy_group(session, chunk, chunks, options.commit_every, &watch).await,
            Way::Within(transaction) => destination.copy_within(transaction, chunk, &watch).await.map(one),
        };
        let copied: Vec<Committed> = copied.map_err(|error| {
            halt.cancel();
            // In a group it may be one far behind the first.
            let record = if let Error::Copy { first, .. } = &error { first.saturating_sub(1) } else { start.record };
            Failed { record, error }
        })?;
        if copied.is_empty() {
            break;
        }
        for Committed { start, end, counts } in copied {
            let (records, bytes) = (end.record - start.record, end.offset - start.offset);
            sent.add(Sent { records, counts, bytes });
            let (file, table) = (destination.file.key.as_str(), options.name_of(destination.table));
            let Counts { rejected, filtered, repaired } = counts;
            options.observer.event(&Event::Committed { file, table, records, rejected, filtered, repaired, bytes });
        }
    }
    Ok(sent)
}
