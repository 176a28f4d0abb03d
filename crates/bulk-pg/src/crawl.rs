//! The rows of a crawl on their way into tables, exactly once a call.

mod batch;
mod cell;
mod input;
mod ledger;
mod publication;
mod rejects;
mod salvage;
mod target;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batch::CallBatch;
pub use batch::CallRows;
pub use input::{count_records, query_columns, query_records};
pub use ledger::QuarantinedCall;
use ledger::{Round, digest};
use publication::Publication;
pub use rejects::write_call_rejects;
use serde_json::Value;
use target::{Target, check_names};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use writer::{Message, Totals, Writer};

use crate::entangled::outside_keys_of_replaceable;
use crate::sequences::raise_sequences_of;
use crate::table_lock::lock_tables;
use crate::{Error, Observer, Session, TableName, prepare_ledger};

/// What a crawl loads, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrawlJob {
    /// By this name runs know each other: one goes on where another one of the same job has stopped.
    pub name: String,
    /// Whatever tells what the calls and their rows are, such as a digest of the specification. A round that was begun by
    /// another one is not gone on with. Default empty.
    pub definition: String,
    /// The tables, parents before those that refer to them. Rows name them by their places here. The same one may be
    /// there several times, such as for rows to be written and rows to be deleted.
    pub tables: Vec<CrawlTable>,
    /// Statements that are run behind the last row, each by itself and in this order, such as `ANALYZE t` or
    /// `REFRESH MATERIALIZED VIEW v`. Names without a schema are of `public`. They may be run twice: a crash behind one of
    /// them has all of them run again. Default none.
    pub after: Vec<String>,
}

/// A table that rows of a crawl go to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrawlTable {
    /// The table. It must exist.
    pub table: TableName,
    /// The columns of its rows, in the order of their values. The other columns get their defaults.
    pub columns: Vec<String>,
    /// What is done with the rows.
    pub mode: CrawlMode,
}

/// What is done with rows of a crawl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrawlMode {
    /// They are added to those that are there.
    #[default]
    Append,
    /// Each takes the place of the row with its key, or is added. Of rows with one key the one that came last counts.
    /// The key is the primary key, or else a unique index over columns that may not be NULL, of which all columns are
    /// written. Rows that are there just so are not touched. A row whose place another one takes in the same transaction is
    /// not looked at, so that nobody is told if the table could not hold it.
    Upsert,
    /// The rows with their keys are deleted; all columns of a key must be given. None there is no error.
    Delete,
    /// All of them together take the place of those that are there, in one moment at the end. The new tables take the places
    /// of the old ones, with all that belongs to these: see [`prepare_swap`](crate::prepare_swap). Where something depends on
    /// one of the old tables that would go with it, such as a view or a materialized view, the tables stay, and one
    /// transaction deletes all of their rows and inserts the new ones: nobody waits for it but who writes to them, and nobody
    /// ever sees them empty; it costs writing the rows twice, and the room of the old ones until they are vacuumed. Such tables
    /// can have no triggers. Other tables whose foreign keys lead to one that is replaced are to have no rows, also in the end: they
    /// are locked while that is looked at, and rows that have come keep the old tables as they are. Either all tables of a job are replaced or none. A row that refers to one of a table that is not
    /// replaced needs it when it comes, and keeps it from being deleted; one that refers to a row of this job needs it at the
    /// end.
    Replace,
}

/// How [`CrawlLoad`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct CrawlLoadOptions {
    /// Bytes of rows that are committed together, about. Default 8 MiB. Up to twice as many wait, and one call; one that is
    /// larger than that waits alone.
    pub batch_bytes: usize,
    /// How long a row waits for others to be committed with. Default 1 s.
    pub batch_time: Duration,
    /// Bytes of rows that one call, or part of one, may have, which are in memory together. Default 256 MiB.
    pub call_bytes: usize,
    /// How many rows may be left out of a round. Each is noted in `bulk.call_reject` with its call. Default 0.
    pub max_rejects: u64,
    /// With how many quarantined calls a round may be finished. Default 0: as long as there is one, the round stays open,
    /// so that the next run makes that call again, and nothing else; tables are not replaced. The next round forgets them: its
    /// input has them, or has them no longer.
    pub max_quarantined: u64,
    /// Whether a table may be replaced by one without rows. Default no.
    pub allow_empty: bool,
    /// Begins a new round, whatever was committed of the last one, and without its [watermark](CrawlLoad::watermark). Rows that
    /// it has appended stay. Default no.
    pub restart: bool,
    /// What the [watermark](CrawlLoad::watermark) will be when this round is finished: of the moment before its first call.
    /// A run that goes on with a round leaves it as the first run of the round gave it. Default `None`: as it was.
    pub next_watermark: Option<String>,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to give up between two attempts to swap tables. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for CrawlLoadOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 8 << 20,
            batch_time: Duration::from_secs(1),
            call_bytes: 256 << 20,
            max_rejects: 0,
            max_quarantined: 0,
            allow_empty: false,
            restart: false,
            next_watermark: None,
            observer: Arc::new(()),
            stop: CancellationToken::new(),
        }
    }
}

impl CrawlLoadOptions {
    /// Half of the bytes that may wait.
    fn room(&self) -> usize {
        self.batch_bytes.clamp(1 << 10, u32::MAX as usize / 4)
    }
}

impl CrawlJob {
    /// A job of this name that fills these tables.
    pub fn new(name: impl Into<String>, tables: Vec<CrawlTable>) -> Self {
        Self { name: name.into(), definition: String::new(), tables, after: Vec::new() }
    }

    /// Whether its tables can take its rows, as [`CrawlLoad::begin`] finds it out, without beginning anything: tables,
    /// columns, keys, and whether tables that are to be replaced can be.
    ///
    /// # Errors
    ///
    /// [`Error::NoTable`], [`Error::Target`], [`Error::Occupied`], [`Error::Options`], [`Error::Database`].
    pub async fn check_tables(&self, session: &Session) -> Result<(), Error> {
        let targets = self.find_targets(session).await?;
        if self.is_replace() {
            let mut tables: Vec<_> = targets.into_iter().map(|target| target.written).collect();
            tables.sort();
            tables.dedup();
            outside_keys_of_replaceable(session.client(), &tables).await?;
        }
        Ok(())
    }

    /// The [watermark](CrawlLoad::watermark) that a run would find, without beginning one. None if no round of the job was whole.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn watermark(&self, session: &Session) -> Result<Option<String>, Error> {
        ledger::watermark(session, &self.name).await
    }

    async fn find_targets(&self, session: &Session) -> Result<Vec<Target>, Error> {
        self.check()?;
        let mut targets = Vec::new();
        for table in &self.tables {
            targets.push(Target::find(session, table).await?);
        }
        Ok(targets)
    }

    fn is_replace(&self) -> bool {
        self.tables.first().is_some_and(|table| table.mode == CrawlMode::Replace)
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::Options { what: format!("the crawl {}: {what}", self.name) });
        if self.tables.is_empty() {
            return bad("it has no table");
        }
        if self.tables.iter().any(|table| (table.mode == CrawlMode::Replace) != self.is_replace()) {
            return bad("either all of its tables are replaced or none");
        }
        if self.tables.iter().any(|table| table.columns.is_empty()) {
            return bad("a table is to get no column");
        }
        if self.name.contains('\0') {
            return bad("its name has a NUL");
        }
        Ok(())
    }
}

impl CrawlTable {
    /// A table, the columns that it gets, and how.
    pub fn new<C: Into<String>>(table: TableName, columns: impl IntoIterator<Item = C>, mode: CrawlMode) -> Self {
        Self { table, columns: columns.into_iter().map(Into::into).collect(), mode }
    }
}

/// Loads what the calls of a crawl give, each of them exactly once.
///
/// A **call** is a request with all of its pages, known by a key, such as method and URL without secrets. Calls whose rows
/// are not the same, such as for two input records that lead to one URL, must have keys of their own. Its rows, of
/// whichever tables, and the mark that it is done (`bulk.call`) commit in one transaction, together with those of other
/// calls; of a call that is too long for that, [each part](CallRows::finish_part) does, with a mark of where it goes on. A
/// **round** is all calls of a job from one beginning to the end; it is [begun](Self::begin) by the first run,
/// gone on with by those after it, however that has ended, and over with [`finish`](Self::finish).
///
/// Rows go on while the next ones are fetched: a task of its own sends them, and [`CallRows::finish`] waits as long as it is
/// behind. Rows of one table go in the order in which they came; of a call, those of one table after the other.
///
/// # Values
///
/// Missing values and `null` are NULL. Texts are as they are, `""` and all; a text that goes to a column of another type is
/// read as the server reads it. Numbers go as the text that `serde_json` has of them: with its feature
/// `arbitrary_precision`, that of the document. Whole numbers that are written otherwise (`1e3`, `2.0`) are read for integer
/// columns as well, and for arrays of integers. A column of json or jsonb takes each value but `null` as a document. An array column takes arrays (and
/// the literal as a text). A column of another type takes an array or an object as the text of the document. What has a NUL,
/// in whatever depth, is left out, but where json (not jsonb) holds it.
///
/// # What is left out
///
/// A row that the table cannot hold is left out by itself, named in `bulk.call_reject` with its call, number, column and
/// reason ([`write_call_rejects`] lists them), and counted; more than [`max_rejects`](CrawlLoadOptions::max_rejects) of them
/// are an error. What a table's constraints refuse is found in the order of the job's tables. Rows of replaced tables that
/// refer to rows of these which have not come are found at the end, when nobody knows their calls any more.
///
/// # Stops
///
/// Dropping it drops what is not committed yet, which the next run asks for again. [`suspend`](Self::suspend) commits it
/// first.
///
/// ```
/// use bulk_pg::{CrawlJob, CrawlLoad, CrawlMode, CrawlLoadOptions, CrawlTable, Session};
/// use serde_json::json;
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let session = Session::connect(url).await?;
/// session.client().batch_execute("CREATE TABLE stat (id text PRIMARY KEY, stat jsonb)").await.unwrap();
///
/// let table = CrawlTable::new("stat".parse().unwrap(), ["id", "stat"], CrawlMode::Upsert);
/// let job = CrawlJob::new("stats", vec![table]);
/// let mut load = CrawlLoad::begin(session, &job, CrawlLoadOptions::default()).await?;
/// let key = "GET https://example.org/stats/1";
/// if !load.done(&[key]).await?[0] {
///     let mut call = load.call(key);
///     let (id, stat) = (json!("kills"), json!({"value": 3}));
///     call.row(0, [Some(&id), Some(&stat)])?;
///     call.finish().await?;
/// }
/// let outcome = load.finish().await?;
/// assert!(outcome.is_complete);
/// assert_eq!((outcome.calls, outcome.rows), (1, 1));
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
pub struct CrawlLoad {
    job: Arc<CrawlJob>,
    options: CrawlLoadOptions,
    targets: Arc<[Target]>,
    round: Round,
    /// Whether any call of it is committed by now.
    has_calls: Arc<AtomicBool>,
    is_published: bool,
    publication: Option<Publication>,
    /// What has no mark yet may wait so long.
    room: Arc<Semaphore>,
    messages: Option<mpsc::UnboundedSender<Message>>,
    writer: Option<AbortOnDropHandle<Result<Writer, Error>>>,
}

/// What a [round](CrawlLoad) came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrawlOutcome {
    /// Whether the round is over. It is not, and nothing was published, while more calls are in quarantine than
    /// [may be](CrawlLoadOptions::max_quarantined), or behind [`suspend`](CrawlLoad::suspend).
    pub is_complete: bool,
    /// Calls that are committed, in all runs of the round.
    pub calls: u64,
    /// Their rows, without those that were left out.
    pub rows: u64,
    /// Those that were left out.
    pub rejected: u64,
    /// Calls in quarantine.
    pub quarantined: u64,
    /// The watermark of the last round that was finished without a call in quarantine.
    pub watermark: Option<String>,
}

impl CrawlLoad {
    /// Begins a round of a job, or goes on with the one that is not over. The tables' columns are looked up, so that a
    /// specification that does not fit is told before the first call. What the ledger needs is made where it is absent.
    ///
    /// # Errors
    ///
    /// [`Error::Crawling`] if another session runs the job; [`Error::Crawl`] for a round that was begun by another
    /// definition of it, and for one whose rows are gone: a table that has some of them by its marks is another one by now,
    /// or is empty; [`Error::NoTable`]; [`Error::Target`] for columns that a table does not have or must have, and for one
    /// without a key to tell rows by; [`Error::Occupied`] for one that another session of this program writes to (a table
    /// has one writer at a time), or that cannot be replaced; [`Error::Options`]; [`Error::Database`].
    pub async fn begin(mut session: Session, job: &CrawlJob, options: CrawlLoadOptions) -> Result<Self, Error> {
        let mut targets = job.find_targets(&session).await?;
        prepare_ledger(&session).await?;
        ledger::prepare(&session).await?;
        let id = ledger::lock(&mut session, &job.name).await?;
        let locked: Vec<_> = targets.iter().map(|target| target.written.clone()).collect();
        lock_tables(&mut session, &locked).await?;
        check_names(session.client(), job, &targets).await?;
        let mut round = Round::open(&mut session, id, job, &targets, &options).await?;
        let (mut publication, mut is_published) = (None, false);
        if job.is_replace() {
            is_published = publication::is_published(&session, job, &round).await?;
            if !is_published {
                publication = Some(publication::prepare(&mut session, job, &options, &mut round).await?);
            }
        }
        for (place, target) in targets.iter_mut().enumerate() {
            let twin = publication.as_ref().and_then(|publication| publication.twin(&target.table));
            target.set_up(&session, place, twin).await?;
        }
        let (messages, received) = mpsc::unbounded_channel();
        let (job, targets): (Arc<CrawlJob>, Arc<[Target]>) = (Arc::new(job.clone()), targets.into());
        let has_calls = Arc::new(AtomicBool::new(round.has_calls));
        let writer = Writer {
            session,
            job: Arc::clone(&job),
            targets: Arc::clone(&targets),
            crawl: round.id,
            has_calls: Arc::clone(&has_calls),
            rejected: round.rejected,
            target_rows: round.target_rows.clone(),
            options: options.clone(),
        };
        Ok(Self {
            room: Arc::new(Semaphore::new(2 * options.room())),
            job,
            options,
            targets,
            round,
            has_calls,
            is_published,
            publication,
            messages: Some(messages),
            writer: Some(AbortOnDropHandle::new(tokio::spawn(writer.run(received)))),
        })
    }

    /// The watermark of the last round that was finished without a call in quarantine: what has changed since is to be
    /// asked for. None behind a round of another [definition](CrawlJob::definition), whose rows may lack what this one has.
    pub fn watermark(&self) -> Option<&str> {
        self.round.watermark.as_deref()
    }

    /// Whether the tables of this round have been replaced already, by a run that ended before its last statement. No call
    /// is taken any more, and [`finish`](Self::finish) does the rest.
    pub fn is_published(&self) -> bool {
        self.is_published
    }

    /// Which of these calls are committed: by earlier runs of the round, or by this one. (Of those that this one was given and
    /// has not [flushed](Self::flush) it may say either.) It takes a query, unless none is, so ask for some hundreds at once.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], and whatever ended the writing.
    pub async fn done(&mut self, keys: &[&str]) -> Result<Vec<bool>, Error> {
        match self.marks().done(keys).await {
            Ok(done) => Ok(done),
            Err(_) => Err(self.failure().await),
        }
    }

    /// The same for who makes the calls, while this takes their rows. It may outlive this.
    pub fn marks(&self) -> CrawlMarks {
        CrawlMarks {
            job: Arc::clone(&self.job),
            messages: self.messages.as_ref().map(mpsc::UnboundedSender::downgrade),
            has_calls: Arc::clone(&self.has_calls),
            is_published: self.is_published,
        }
    }

    /// How many calls were in quarantine when the run began, which [can be](Self::quarantined) made again.
    pub fn in_quarantine(&self) -> u64 {
        self.round.quarantined
    }

    /// Calls of the round that are in quarantine, behind the one with this key: those that are to be made again, whatever the
    /// input says. They come in an order that stays the same (that of their keys' digests), so many at most, and no more than a
    /// MiB of them, but for a longer one by itself.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub async fn quarantined(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<QuarantinedCall>, Error> {
        match self.marks().quarantined(after, limit).await {
            Ok(calls) => Ok(calls),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Takes the rows of a call, of this key. Nothing of it is kept but by [`CallRows::finish`].
    pub fn call(&mut self, key: impl Into<String>) -> CallRows<'_> {
        let batch = CallBatch::new(key.into(), None, self.targets.len());
        CallRows::new(self, batch)
    }

    /// Takes the rows of a call of which a [part](CallRows::finish_part) is there that goes on at `at`. If that is not where it
    /// goes on, nothing of it is taken, and the load ends.
    pub fn call_at(&mut self, key: impl Into<String>, at: impl Into<String>) -> CallRows<'_> {
        let at = ledger::without_nul(&at.into());
        let batch = CallBatch::new(key.into(), Some(at), self.targets.len());
        CallRows::new(self, batch)
    }

    /// Notes that a call has failed for good, or for this run. It is not committed, so the next run of the round makes it
    /// again; when it is committed then, the note goes. (Of one that is committed in this round already there is none.) [`attempts`](QuarantinedCall::attempts) are added to those of
    /// earlier runs.
    ///
    /// # Errors
    ///
    /// As [`CallRows::finish`].
    pub async fn quarantine(&mut self, call: QuarantinedCall) -> Result<(), Error> {
        self.check_open()?;
        let permit = self.room_for(call.room()).await?;
        self.tell(Message::Quarantine { call: Box::new(call), permit }).await
    }

    /// Commits what waits, and waits until it is committed.
    ///
    /// # Errors
    ///
    /// As [`CallRows::finish`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.tell(Message::Flush { answer }).await?;
        match answered.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Commits what waits, and ends the run. The round stays open: the next run goes on with it.
    ///
    /// # Errors
    ///
    /// As [`CallRows::finish`].
    pub async fn suspend(mut self) -> Result<CrawlOutcome, Error> {
        let writer = self.end().await?;
        writer.session.flush().await?;
        let totals = Totals::read(&writer.session, self.round.id).await?;
        Ok(self.outcome(&totals, false))
    }

    /// Commits what waits, and ends the round: all of its calls have been made. Unless more are in quarantine than may be,
    /// tables are replaced (of others, sequences are raised to the largest value that is there), then the statements
    /// [after](CrawlJob::after) are run, then the watermark is moved (if none is in quarantine) and the round is over; the
    /// next run begins another one. A run that ends in between leaves the rest to the next one, which finds all calls done.
    ///
    /// Where it is said that it is complete, all of it is on the server's disk.
    ///
    /// # Errors
    ///
    /// As [`CallRows::finish`]; [`Error::Crawl`] if a new table has no row, or cannot have what the old one has, such as a
    /// foreign key that its rows violate; as [`swap`](crate::swap()); [`Error::Database`] of a statement after, which
    /// is named. The round stays open then.
    pub async fn finish(mut self) -> Result<CrawlOutcome, Error> {
        let Writer { mut session, .. } = self.end().await?;
        let mut totals = Totals::read(&session, self.round.id).await?;
        if totals.quarantined > self.options.max_quarantined && !self.is_published {
            session.flush().await?;
            return Ok(self.outcome(&totals, false));
        }
        if let Some(publication) = self.publication.take() {
            publication.publish(&mut session, &self.job, &self.options, totals.rejected).await?;
            totals = Totals::read(&session, self.round.id).await?;
        }
        if !self.job.is_replace() {
            for CrawlTable { table, columns, .. } in written(&self.job.tables) {
                raise_sequences_of(session.client(), table, Some(columns)).await?;
            }
        }
        for statement in &self.job.after {
            let action = format!("run the statement after the crawl {}: {statement}", self.job.name);
            session.client().batch_execute(statement).await.map_err(Error::database(action))?;
        }
        let is_moved = totals.quarantined == 0;
        self.round.close(&session, is_moved).await?;
        if is_moved && self.round.next_watermark.is_some() {
            self.round.watermark = self.round.next_watermark.take();
        }
        Ok(self.outcome(&totals, true))
    }

    fn outcome(&self, totals: &Totals, is_complete: bool) -> CrawlOutcome {
        let Totals { calls, rows, rejected, quarantined } = *totals;
        let watermark = self.round.watermark.clone();
        CrawlOutcome { is_complete, calls, rows, rejected, quarantined, watermark }
    }

    /// Ends the task that writes, behind all that it was given.
    async fn end(&mut self) -> Result<Writer, Error> {
        self.messages = None;
        let Some(writer) = self.writer.take() else { return Err(self.ended()) };
        writer.await.map_err(|_| self.ended())?
    }

    async fn tell(&mut self, message: Message) -> Result<(), Error> {
        match self.messages.as_ref().map(|messages| messages.send(message)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure().await),
        }
    }

    /// Why the writer has ended.
    async fn failure(&mut self) -> Error {
        match self.end().await {
            Err(error) => error,
            Ok(_) => self.ended(),
        }
    }

    fn ended(&self) -> Error {
        let what = "an earlier call failed or was cut short; what is not committed is dropped".to_owned();
        Error::Crawl { job: self.job.name.clone(), what }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.is_published {
            let what = "its tables have been replaced; all that is left is to finish it".to_owned();
            return Err(Error::Crawl { job: self.job.name.clone(), what });
        }
        Ok(())
    }

    /// Waits for room for so many bytes, or for all of it.
    async fn room_for(&mut self, bytes: usize) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
        let permits = u32::try_from(bytes.clamp(1, 2 * self.options.room())).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        if bytes > self.options.room() {
            // There may be less than a batch before it, which would wait for its time.
            self.tell(Message::Commit).await?;
        }
        let Some(messages) = self.messages.clone() else { return Err(self.failure().await) };
        tokio::select! {
            permit = room.acquire_many_owned(permits) => match permit {
                Ok(permit) => Ok(permit),
                Err(_) => Err(self.failure().await),
            },
            // Its permits are given back as well when the writer fails, perhaps after this.
            () = messages.closed() => Err(self.failure().await),
        }
    }
}

/// Tells which calls of a round are done, and which are in quarantine. Made by [`CrawlLoad::marks`].
#[derive(Clone, Debug)]
pub struct CrawlMarks {
    job: Arc<CrawlJob>,
    /// Whoever asks is not to keep the writer from its end.
    messages: Option<mpsc::WeakUnboundedSender<Message>>,
    has_calls: Arc<AtomicBool>,
    is_published: bool,
}

/// How far a call of a round is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallProgress {
    /// Nothing of it is.
    Open,
    /// A part of it is, which goes on there: see [`CallRows::finish_part`].
    Part(String),
    /// All of it is.
    Done,
}

impl CrawlMarks {
    /// Whether no call of the round is committed yet, so that nothing is done, and nobody need ask.
    pub fn is_empty(&self) -> bool {
        !self.is_published && !self.has_calls.load(Ordering::Acquire)
    }

    /// As [`CrawlLoad::done`].
    ///
    /// # Errors
    ///
    /// [`Error::Crawl`] if the load has ended; why, it says itself.
    pub async fn done(&self, keys: &[&str]) -> Result<Vec<bool>, Error> {
        Ok(self.progress(keys).await?.iter().map(|progress| *progress == CallProgress::Done).collect())
    }

    /// The same with how far calls are of which a part is committed.
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub async fn progress(&self, keys: &[&str]) -> Result<Vec<CallProgress>, Error> {
        if self.is_published || self.is_empty() {
            let all = if self.is_published { CallProgress::Done } else { CallProgress::Open };
            return Ok(vec![all; keys.len()]);
        }
        let digests: Vec<Vec<u8>> = keys.iter().map(|key| digest(key)).collect();
        let found = self.ask(|answer| Message::Progress { digests: digests.clone(), answer }).await?;
        let progress = |digest| match found.get(digest) {
            None => CallProgress::Open,
            Some(None) => CallProgress::Done,
            Some(Some(next)) => CallProgress::Part(next.clone()),
        };
        Ok(digests.iter().map(progress).collect())
    }

    /// As [`CrawlLoad::quarantined`].
    ///
    /// # Errors
    ///
    /// As [`done`](Self::done).
    pub async fn quarantined(&self, after: Option<&str>, limit: usize) -> Result<Vec<QuarantinedCall>, Error> {
        let after = after.map(digest);
        self.ask(|answer| Message::Quarantined { after, limit, answer }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let messages = self.messages.as_ref().and_then(mpsc::WeakUnboundedSender::upgrade);
        messages.ok_or_else(|| self.ended())?.send(message(answer)).map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())
    }

    fn ended(&self) -> Error {
        Error::Crawl { job: self.job.name.clone(), what: "its load has ended".to_owned() }
    }
}

/// Those that get rows.
fn written(tables: &[CrawlTable]) -> impl Iterator<Item = &CrawlTable> {
    tables.iter().filter(|table| table.mode != CrawlMode::Delete)
}

impl std::fmt::Debug for CrawlLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrawlLoad").field("job", &self.job).field("round", &self.round).finish_non_exhaustive()
    }
}

/// How deep the documents of a row may be nested: as deep as `serde_json` parses them by default, whose limit of 128 is
/// that which it refuses.
const MAX_DEPTH: usize = 127;

/// Whether arrays and objects are nested deeper than [`MAX_DEPTH`]. Without recursion, whatever they are.
fn is_too_deep(value: &Value) -> bool {
    is_deeper(value, MAX_DEPTH)
}

fn is_deeper(value: &Value, max: usize) -> bool {
    let is_nested = |value: &&Value| value.is_array() || value.is_object();
    if !is_nested(&value) {
        return false;
    }
    let mut open = vec![(value, 0)];
    while let Some((value, depth)) = open.pop() {
        if is_nested(&value) && depth == max {
            return true;
        }
        match value {
            Value::Array(items) => open.extend(items.iter().filter(is_nested).map(|item| (item, depth + 1))),
            Value::Object(members) => open.extend(members.values().filter(is_nested).map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    false
}
