use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::RandomState;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FusedStream, Peekable};
use futures::{Stream, StreamExt};
use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::call::{Crawled, Effort, Quarantined, Trail, WaitsFirst, key, shown_record};
use super::meter::CallMeter;
use super::part::{Arrived, Parts};
use super::room::{Held, Room};
use super::rule::json_path;
use super::template::{Prepared, Records};
use super::{Batch, Pagination, RequestTemplate, SpecError, Success};
use crate::{Error, HttpClient, Limiter, Observer, RetryPolicy, StageMeter};

/// Calls that wait for the limiter at most, and how much of a second's they are.
const MOST_AHEAD: f64 = 64.0;
const AHEAD: f64 = 0.02;
/// Calls that have come and wait for the reader at most, before no more begin, unless more may be under way at once.
const UNREAD: usize = 16;
/// Records of which it is asked at once whether they are done.
const ASKED: usize = 256;

/// How a crawl goes about it.
#[derive(Clone)]
#[non_exhaustive]
pub struct CrawlOptions {
    /// Calls under way at once, at most. Default 256; 0 counts as 1. There are never more than are of use: as many as the
    /// limiter's rate times the time that answers take (Little's law), and a few that wait for it.
    pub concurrency: usize,
    /// Whether calls come in the order of the input, or as their answers do. Default [`CrawlOrder::AsTheyCome`].
    pub order: CrawlOrder,
    /// How far ahead of the call whose turn it is others may be, where the order is that of the input. Default 4,096 calls.
    pub window: usize,
    /// Bytes of a page, at most. Default 32 MiB.
    pub answer_limit: usize,
    /// Bytes of answers that are in memory together: those that arrive, those that wait for the reader, and those that it has
    /// and did not drop. A request is sent only where there is room for an answer as large as they were of late, and a body
    /// is read only as far as there is some. What becomes free is for bodies that arrive, before requests that are yet to be sent,
    /// and for older calls first; an attempt whose body had to wait counts as one that made progress, if it fails, and the next
    /// has room for as much before it is sent. Nobody waits for ever: where the reader asks for more and nothing is there, the
    /// oldest call goes on whatever there is, so that one body (one call, where there is no
    /// [place](Crawled::next) to cut it) may come on top. Until the reader takes them, answers are texts: one that is being parsed
    /// takes several times as much, as does what the reader has; one that does not say how long it is may take twice as much for a moment
    /// when its memory grows; and connections have some tens of KiB each. Default 256 MiB.
    pub memory: u64,
    /// Bytes of pages of one call that are in memory together, about. A call with more of them comes in several
    /// [parts](Crawled::next), each of which the reader must have taken before the next is fetched; where
    /// [`memory`](Self::memory) is used up, they are smaller, down to a sixteenth. Default 4 MiB.
    pub part_bytes: u64,
    /// Pages of a call, at most. Default 10,000; 0 counts as 1.
    pub max_pages: usize,
    /// Whether a request is repeated that may have been carried out, since its connection broke before the answer was there,
    /// although its method is not idempotent (RFC 9110, section 9.2.2), such as `POST`. Default no: it fails with
    /// [`Error::Unrepeatable`]. Say yes where it only asks.
    pub repeat: bool,
    /// When to try again.
    pub retry: RetryPolicy,
    /// The meter of the stage that fetches. Each call is a worker of it, and each page or answer to a batch an item. It
    /// waits for the server until an answer begins, for the network until it is there, for input until it has leave to
    /// ask, for the budget while [`memory`](Self::memory) is used up, and for output until the reader takes it. Default none.
    pub meter: Option<StageMeter>,
    /// The meter of the stage before that, in which calls wait for the limiter: for the rate limit, or for the server while
    /// it has asked everybody to wait. Its items are requests. Default none.
    pub limit_meter: Option<StageMeter>,
    /// Who is told of [retries](crate::Event::Retry). Default nobody.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to begin nothing more: no call, no page, no attempt, and no wait for one. Requests that have been sent have
    /// [`finish_within`](Self::finish_within) for their answers, which come as all others do: of a call with pages as a part
    /// behind which another run [goes on](Crawled::next), where it has such a place: one that may expire only where eight pages, or
    /// a sixteenth of [`part_bytes`](Self::part_bytes), have come. Calls without an answer are given up, and
    /// do not come. What has come already does. Default a token of its own.
    pub stop: CancellationToken,
    /// For how long requests under way are waited for when the crawl is [stopped](Self::stop). Default 30 s.
    pub finish_within: Duration,
    /// Tells of records, by the [keys](Crawler::key) of their calls, how far an earlier run has come with them: those that are
    /// done are left out, before batches are made. It is asked for some hundreds at once, as far as the input has them. Of what
    /// it does not tell nothing is done. Default nothing is.
    pub done: Option<Done>,
}

impl Default for CrawlOptions {
    fn default() -> Self {
        Self {
            concurrency: 256,
            order: CrawlOrder::AsTheyCome,
            window: 4096,
            answer_limit: 32 * 1024 * 1024,
            memory: 256 * 1024 * 1024,
            part_bytes: 4 * 1024 * 1024,
            max_pages: 10_000,
            repeat: false,
            retry: RetryPolicy::default(),
            meter: None,
            limit_meter: None,
            observer: Arc::new(()),
            stop: CancellationToken::new(),
            finish_within: Duration::from_secs(30),
            done: None,
        }
    }
}

/// How far the calls of the records with these [keys](Crawler::key) have come, in their order.
pub type Done = Arc<dyn Fn(Vec<String>) -> BoxFuture<'static, Vec<Progress>> + Send + Sync>;

/// How far an earlier run has come with a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Nothing of it is done.
    #[default]
    Open,
    /// Some of its pages are done, and it goes on as the [`next`](Crawled::next) of the last part of them said. Its request must
    /// be the same, and not one of a batch.
    Part(String),
    /// All of it is done.
    Done,
}

/// In which order the calls of a crawl come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrawlOrder {
    /// As the answers do.
    #[default]
    AsTheyCome,
    /// As in the input.
    OfInput,
}

/// Requests an API for records: what is requested, when it is a success, and how.
///
/// Assign what is not the default, then [`crawl`](Self::crawl). The limiter is shared with whoever else asks the same API.
#[derive(Clone)]
#[non_exhaustive]
pub struct Crawler {
    /// The connections.
    pub client: HttpClient,
    /// How often.
    pub limiter: Limiter,
    /// What is requested for a record.
    pub template: RequestTemplate,
    /// When an answer is a success. Default status 200 to 299, and JSON.
    pub success: Success,
    /// How an answer leads to its next page. Default none does.
    pub pagination: Option<Pagination>,
    /// How several records are requested at once. Default they are not.
    pub batch: Option<Batch>,
    /// How it goes about it.
    pub options: CrawlOptions,
}

/// What all calls of a crawl share.
pub(super) struct Shared {
    pub(super) client: HttpClient,
    pub(super) limiter: Limiter,
    pub(super) template: RequestTemplate,
    pub(super) success: Success,
    pub(super) pagination: Option<Pagination>,
    pub(super) batch: Option<Batch>,
    pub(super) options: CrawlOptions,
    /// Calls that wait for their first permit.
    pub(super) waiting: AtomicUsize,
    /// The memory that answers take.
    pub(super) room: Room,
    /// More calls may be able to begin.
    pub(super) news: Notify,
    /// Of the URLs of pages.
    pub(super) digests: RandomState,
}

impl Crawler {
    /// A crawler that asks this under these limits, with all else by default.
    pub fn new(client: HttpClient, limiter: Limiter, template: RequestTemplate) -> Self {
        let (success, options) = (Success::default(), CrawlOptions::default());
        Self { client, limiter, template, success, pagination: None, batch: None, options }
    }

    /// Makes a call for each record of the input, or for each [batch](Self::batch) of them, and gives what came of each:
    /// a failure is an item, too, and not the end.
    ///
    /// Calls go on by themselves, whether the stream is read or not, until as many wait for the reader as
    /// [`CrawlOptions::memory`] allows or [`CrawlOptions::concurrency`] is used up. Dropping the stream stops everything at once.
    ///
    /// # Errors
    ///
    /// If the parts do not go together: a place of the template for which nothing stands, a batch whose field it has no
    /// place for, a batch with pages, or a limiter that is to be [adaptive](crate::LimiterOptions::adaptive) without a limit.
    ///
    /// # Panics
    ///
    /// If it is called outside a tokio runtime.
    pub fn crawl<I>(self, input: I) -> Result<Crawl, SpecError>
    where
        I: Stream<Item = Value> + Send + 'static,
    {
        let shared = self.shared()?;
        // What waits for the reader waits in the driver, where it is counted.
        let (send, items) = mpsc::channel(1);
        let driver = AbortOnDropHandle::new(tokio::spawn(drive(shared.clone(), input.boxed(), send)));
        Ok(Crawl { shared, items, driver: Some(driver) })
    }

    /// The [key](Crawled::key) of the call for this record alone, as it is in a batch of one: by which it is
    /// [known](CrawlOptions::done) whether it is done, whatever batch it was in.
    pub fn key(&self, record: &Value) -> String {
        key_of(&self.template, self.batch.as_ref(), record)
    }

    /// The pages of the answer for one record, one at a time as they are read: for lists that are too long to be one call, such
    /// as the ids of all that changed. Ends with the first failure, which is [`Error::Interrupted`] where the crawl is
    /// [stopped](CrawlOptions::stop). Dropping the stream stops it.
    ///
    /// # Errors
    ///
    /// As [`crawl`](Self::crawl).
    pub fn pages(self, record: Value) -> Result<BoxStream<'static, Result<Value, Quarantined>>, SpecError> {
        let shared = self.shared()?;
        let prepared = shared.prepare(&[&record]).map_err(|what| Quarantined {
            request: record.to_string(),
            status: None,
            response: None,
            error: Arc::new(Error::Record { what }),
        });
        // Whoever reads them asks for each.
        shared.room.asked();
        // The prepared request, the URL of the page, and what came before it.
        let begin = Some((prepared, None, Trail::default()));
        let pages = futures::stream::unfold((shared, begin), |(shared, state)| async move {
            let (prepared, url, mut trail) = state?;
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(failure) => return Some((Err(failure), (shared, None))),
            };
            let (effort, meter) = (&mut Effort::default(), CallMeter::default());
            let held = Held::new(&shared, 0);
            match shared.next_page(&prepared, url, &mut trail, effort, None, &held, &meter).await {
                Some(Ok((page, next))) => {
                    let state = next.map(|next| (Ok(prepared), Some(next), trail));
                    Some((Ok(page.document), (shared, state)))
                }
                Some(Err(failure)) => Some((Err(failure), (shared, None))),
                None => {
                    let (request, status, response) = (prepared.shown, None, None);
                    let error = Arc::new(Error::Interrupted { location: request.clone() });
                    Some((Err(Quarantined { request, status, response, error }), (shared, None)))
                }
            }
        });
        Ok(pages.filter_map(|page| std::future::ready(page.transpose())).boxed())
    }

    /// The records of a list that the API itself has, for a request that needs none: what `each` (a JSONPath such as `$[*]`)
    /// finds on its [pages](Self::pages), as they are read. What is no object becomes one with it as the field `name`. Ends
    /// with the first failure.
    ///
    /// # Errors
    ///
    /// As [`crawl`](Self::crawl), and if `each` is no JSONPath.
    pub fn records(self, each: &str, name: &str) -> Result<BoxStream<'static, Result<Value, Quarantined>>, SpecError> {
        let (each, name) = (json_path(each)?, name.to_owned());
        let pages = self.pages(Value::Object(Map::new()))?;
        let record = move |found: &Value| match found {
            Value::Object(_) => found.clone(),
            found => Value::Object(Map::from_iter([(name.clone(), found.clone())])),
        };
        let records = pages.flat_map(move |page| {
            let records: Vec<_> = match page {
                Ok(page) => each.query(&page).into_iter().map(|found| Ok(record(found))).collect(),
                Err(failure) => vec![Err(failure)],
            };
            futures::stream::iter(records)
        });
        Ok(records.boxed())
    }

    fn shared(self) -> Result<Arc<Shared>, SpecError> {
        let Self { client, limiter, template, success, pagination, batch, options } = self;
        template.check()?;
        if limiter.adapts_nothing() {
            return Err(SpecError::new("adaptive", "there is no limit to lower"));
        }
        if let Some(batch) = &batch {
            if !template.fields().contains(&batch.field.as_str()) {
                return Err(SpecError::new(&batch.field, "the request has no place for the field of its batches"));
            }
            if pagination.is_some() {
                return Err(SpecError::new(&batch.field, "the answer to a batch has no pages"));
            }
        }
        let room = Room::new(options.memory);
        Ok(Arc::new(Shared {
            client,
            limiter,
            template,
            success,
            pagination,
            batch,
            options,
            waiting: AtomicUsize::new(0),
            room,
            news: Notify::new(),
            digests: RandomState::new(),
        }))
    }
}

/// What comes of a crawl, call by call. Dropping it stops the crawl.
pub struct Crawl {
    shared: Arc<Shared>,
    items: mpsc::Receiver<Arrived>,
    driver: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Crawl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crawl").field("room", &self.shared.room).finish_non_exhaustive()
    }
}

impl Stream for Crawl {
    type Item = Crawled;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Crawled>> {
        let item = self.items.poll_recv(cx);
        if item.is_pending() && self.driver.is_some() {
            self.shared.room.asked();
            self.shared.news.notify_one();
        }
        if let Some(item) = ready!(item) {
            self.shared.room.read();
            return Poll::Ready(Some(item.read()));
        }
        if let Some(driver) = &mut self.driver {
            let ended = ready!(Pin::new(driver).poll(cx));
            self.driver = None;
            crate::run::joined(ended);
        }
        Poll::Ready(None)
    }
}

impl FusedStream for Crawl {
    fn is_terminated(&self) -> bool {
        self.driver.is_none()
    }
}

/// The input, call by call.
struct Inputs {
    shared: Arc<Shared>,
    /// The fields that the template has places for.
    fields: Vec<String>,
    records: Peekable<BoxStream<'static, Input>>,
    /// Those of the next call that have come.
    next: Vec<Input>,
}

/// A record of the input.
#[derive(Default)]
pub(super) struct Input {
    pub(super) place: u64,
    pub(super) record: Value,
    /// Where its call goes on, if an earlier run has left it.
    pub(super) at: Option<String>,
}

/// A call that has not begun.
struct Next {
    records: Vec<Input>,
    prepared: Result<Prepared, String>,
}

/// What has come of calls, on its way to the reader.
struct Coming {
    order: CrawlOrder,
    /// Where they go in order, the next call to go.
    next: u64,
    /// What has come of those behind it.
    early: BTreeMap<u64, Early>,
    /// What waits for the reader, who has one besides.
    unread: VecDeque<Arrived>,
}

/// What does not go to the reader yet, as the calls before it go first.
#[derive(Default)]
struct Early {
    parts: Vec<Arrived>,
    is_whole: bool,
}

impl Coming {
    /// A part of a call, which goes on.
    fn part(&mut self, number: u64, part: Arrived) {
        match self.order == CrawlOrder::AsTheyCome || number == self.next {
            true => self.unread.push_back(part),
            false => self.early.entry(number).or_default().parts.push(part),
        }
    }

    /// The end of a call, with what is left of it.
    fn end(&mut self, number: u64, last: Option<Arrived>) {
        if self.order == CrawlOrder::AsTheyCome {
            self.unread.extend(last);
            return;
        }
        let call = self.early.entry(number).or_default();
        call.parts.extend(last);
        call.is_whole = true;
        while let Some(call) = self.early.get_mut(&self.next) {
            self.unread.extend(call.parts.drain(..));
            if !call.is_whole {
                break;
            }
            self.early.remove(&self.next);
            self.next += 1;
        }
    }

    /// All calls have ended, of some of which nobody was told.
    fn end_all(&mut self) {
        let early = std::mem::take(&mut self.early);
        self.unread.extend(early.into_values().flat_map(|call| call.parts));
    }
}

/// Begins calls, and hands on what comes of them.
async fn drive(shared: Arc<Shared>, input: BoxStream<'static, Value>, send: mpsc::Sender<Arrived>) {
    let options = &shared.options;
    let records = futures::stream::iter(0..).zip(input);
    let records = records.map(|(place, record)| Input { place, record, at: None }).boxed();
    let records = match &options.done {
        Some(done) => not_done(&shared, done.clone(), records),
        None => records,
    };
    let mut input = Inputs {
        shared: shared.clone(),
        fields: shared.template.fields().into_iter().map(str::to_owned).collect(),
        records: records.peekable(),
        next: Vec::new(),
    };
    let ahead = (shared.limiter.per_second() * AHEAD).clamp(2.0, MOST_AHEAD) as usize;
    let mut calls: JoinSet<(u64, Option<Arrived>)> = JoinSet::new();
    // Each call waits until its part is taken, so that its end cannot come before it.
    let (parts, mut came) = mpsc::channel(1);
    // Calls that were begun, and those that are under way.
    let (mut begun, mut open) = (0u64, BTreeSet::new());
    let mut coming = Coming { order: options.order, next: 0, early: BTreeMap::new(), unread: VecDeque::new() };
    let most_unread = options.concurrency.max(UNREAD);
    // Whether no more calls begin, as there are none, or as it was stopped; and until when those under way are waited for then.
    let (mut is_end, mut is_stopped, mut give_up_at) = (false, false, None);
    while !(is_end && calls.is_empty() && coming.unread.is_empty()) {
        let is_idle = calls.is_empty() && coming.early.is_empty() && coming.unread.is_empty();
        let has_room = !shared.room.is_full() || is_idle && shared.room.is_waited_for();
        let is_near = options.order == CrawlOrder::AsTheyCome || begun - coming.next < options.window.max(1) as u64;
        let is_free = calls.len() < options.concurrency.max(1)
            && coming.unread.len() < most_unread
            && shared.waiting.load(Ordering::Relaxed) < ahead;
        tokio::select! {
            biased;
            () = options.stop.cancelled(), if !is_stopped => {
                // Calls heed it, too, and end with what is there as soon as nothing of theirs is under way.
                (is_end, is_stopped) = (true, true);
                give_up_at = Instant::now().checked_add(options.finish_within);
            }
            () = until(give_up_at), if !calls.is_empty() => {
                give_up_at = None;
                calls.abort_all();
            }
            room = send.reserve(), if !coming.unread.is_empty() => {
                let Ok(room) = room else { return };
                if let Some(crawled) = coming.unread.pop_front() {
                    room.send(crawled);
                }
            }
            Some(call) = calls.join_next(), if !calls.is_empty() => {
                let before = coming.unread.len();
                // Of one that was given up nobody knows which it was.
                if let Some((number, mut last)) = crate::run::joined(call) {
                    // Only where no other call takes its place does it wait as a worker.
                    if !shared.room.is_full() && before < most_unread {
                        last.iter_mut().for_each(|last| last.meter = None);
                    }
                    coming.end(number, last);
                    open.remove(&number);
                }
                if is_end && calls.is_empty() {
                    while let Ok((number, part)) = came.try_recv() {
                        coming.part(number, part);
                    }
                    coming.end_all();
                }
                // Before the next one is the oldest, which goes on only if the reader has nothing.
                shared.room.comes(coming.unread.len() - before);
                shared.room.is_front(open.first().copied().unwrap_or(begun));
            }
            Some((number, part)) = came.recv() => {
                let before = coming.unread.len();
                coming.part(number, part);
                shared.room.comes(coming.unread.len() - before);
            }
            next = input.next_call(), if !is_end && has_room && is_near && is_free => {
                let Some(Next { records, prepared }) = next else {
                    is_end = true;
                    continue;
                };
                let number = begun;
                begun += 1;
                open.insert(number);
                let (waits, shared) = (WaitsFirst::new(&shared), shared.clone());
                let parts = Parts { number, sender: parts.clone() };
                calls.spawn(async move { (number, shared.call(records, prepared, waits, &parts).await) });
            }
            // What keeps the next call from beginning has changed.
            () = shared.news.notified(), if !is_end => {}
        }
    }
}

/// Waits until then, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The records that are not done, in their order.
fn not_done(shared: &Arc<Shared>, done: Done, records: BoxStream<'static, Input>) -> BoxStream<'static, Input> {
    let shared = shared.clone();
    let asked = records.ready_chunks(ASKED).then(move |inputs| {
        let answer = done(inputs.iter().map(|input| shared.key(&input.record)).collect());
        async move {
            let done = answer.await.into_iter().chain(std::iter::repeat(Progress::Open));
            let left = inputs.into_iter().zip(done).filter_map(|(input, progress)| match progress {
                Progress::Open => Some(input),
                Progress::Part(at) => Some(Input { at: Some(at), ..input }),
                Progress::Done => None,
            });
            futures::stream::iter(left)
        }
    });
    asked.flatten().boxed()
}

impl Shared {
    /// Makes a call, whose parts but for the last one go to `parts`. None if the crawl was stopped before that was there.
    async fn call(
        self: &Arc<Self>,
        records: Vec<Input>,
        prepared: Result<Prepared, String>,
        waits: WaitsFirst,
        parts: &Parts,
    ) -> Option<Arrived> {
        let meter = CallMeter::begin(&self.options);
        let call = async {
            match &self.batch {
                Some(batch) => self.batch_call(batch, parts.number, records, prepared, waits, &meter).await,
                None => {
                    // Without batches each call has one record.
                    let input = records.into_iter().next().unwrap_or_default();
                    self.single_call(input, prepared, waits, parts, &meter).await
                }
            }
        };
        let mut arrived = meter.run(call).await?;
        arrived.meter = meter.waits_for_reader();
        Some(arrived)
    }

    /// The key of the call for this record alone.
    fn key(&self, record: &Value) -> String {
        key_of(&self.template, self.batch.as_ref(), record)
    }
}

fn key_of(template: &RequestTemplate, batch: Option<&Batch>, record: &Value) -> String {
    let differing = batch.map(|batch| (batch.field.as_str(), batch.several));
    let prepared = template.fill(Records { records: &[record], differing });
    let shown = prepared.map_or_else(|_| shown_record(record), |prepared| prepared.shown);
    key(&shown, [record])
}

impl Inputs {
    /// The next call. Dropping the future loses nothing.
    async fn next_call(&mut self) -> Option<Next> {
        let records = self.next_records().await?;
        Some(self.prepare(records))
    }

    fn prepare(&self, records: Vec<Input>) -> Next {
        let inputs: Vec<&Value> = records.iter().map(|input| &input.record).collect();
        let prepared = self.shared.prepare(&inputs);
        Next { records, prepared }
    }

    /// The records of the next call. Dropping the future loses none.
    async fn next_records(&mut self) -> Option<Vec<Input>> {
        if self.next.is_empty() {
            let first = self.records.next().await?;
            self.next.push(first);
        }
        if let Some(batch) = &self.shared.batch {
            while self.next.len() < batch.size.max(1) {
                let (last, fields) = (self.next.last(), &self.fields);
                let is_alike =
                    |next: &Input| last.is_some_and(|last| batch.is_alike(fields, &last.record, &next.record));
                let Some(next) = Pin::new(&mut self.records).next_if(is_alike).await else { break };
                self.next.push(next);
            }
        }
        Some(std::mem::take(&mut self.next))
    }
}
