//! The meters of a run: which stages it has, and who works in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bulk_archive::{Codec, DecodeEvent, DecodeOptions, Decoder};
use bulk_core::crawl::CrawlOptions;
use bulk_core::{
    DownloadOptions, LimitUse, MeterReading, MeteredRead, Meters, Resource, RunVerdict, Sampling, StageMeter, Wait,
    WorkerMeter,
};
use bulk_pg::{Event, LoadStage, WorkerState};

/// How often it is noted what the workers did since the last time, which is how finely a run's course is known.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

const LIST: &str = "list";
const MERGE: &str = "merge";
pub(crate) const COMPARE: &str = "compare";
pub(crate) const WRITE: &str = "write";
pub(crate) const STAGE: &str = "stage";
const SCHEMA: &str = "schema";
const FETCH: &str = "fetch";
const READ: &str = "read";
/// The same by a thread of its own.
const READ_AHEAD: &str = "read ahead";
const STDIN: &str = "stdin";
const DECODE: &str = "decode";
/// The same by the thread that wants what is decoded.
const INFLATE: &str = "inflate";
const ENCODE: &str = "encode";
const COPY: &str = "copy";
const REQUESTS: &str = "requests";
const EXPLODE: &str = "explode";

/// What a download depends on.
const FETCHES: &[Resource] = &[Resource::Network, Resource::Disk, Resource::Server];

/// Where the bytes of a load come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// They are fetched while they are loaded.
    Network,
    /// A local file.
    File,
    Stdin,
}

/// The order in which pages of a listing come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are listed.
    Any,
    /// By their keys, in which they are put.
    Merged,
}

impl Order {
    /// The stage that they come from.
    pub(crate) fn stage(self) -> &'static str {
        match self {
            Self::Any => LIST,
            Self::Merged => MERGE,
        }
    }
}

/// What the database does for a run that is no load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerStage {
    /// It makes tables ready to be loaded.
    Prepare,
    /// It makes indexes, keys and triggers.
    Index,
    /// It makes tables what others say.
    Merge,
    /// It counts and hashes rows.
    Verify,
    /// It puts new tables in the places of others, and does what is to be done behind that.
    Publish,
}

/// The stages of a run and their workers. They are made as their work begins; a run that meters nothing has none. Clones share
/// everything.
#[derive(Clone, Default)]
pub(crate) struct RunMeters {
    meters: Meters,
    loads: Arc<Mutex<Loads>>,
    /// What the database does besides, the last one last.
    serving: Arc<Mutex<Vec<&'static str>>>,
    unwatched: Arc<Mutex<Option<String>>>,
    /// The stage that takes what is decoded, if it does not encode it.
    reader: Arc<OnceLock<&'static str>>,
}

/// The workers of the files that are being loaded.
type Loads = HashMap<String, HashMap<(LoadStage, usize), LoadWorker>>;

struct LoadWorker {
    meter: WorkerMeter,
    waits_for_server: bool,
}

/// What the server was to do when it was asked what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerView {
    stage: Option<&'static str>,
    /// Sessions whose workers had nothing to send, so that it says nothing that the server waits for them.
    idle: usize,
}

impl RunMeters {
    /// Notes what the workers do from time to time until what this gives is dropped. Where there is no thread for it, the
    /// course of the run is not known, and all else is.
    pub(crate) fn start_sampling(&self) -> Option<Sampling> {
        self.meters.sample_every(SAMPLE_EVERY).ok()
    }

    /// The stage of that name, for commands that have others than the ones below; see [`Meters::stage`].
    pub(crate) fn stage(&self, name: &str, resources: &[Resource], after: &[&str]) -> StageMeter {
        self.meters.stage(name, resources, after)
    }

    /// All that was metered up to now; `None` if nothing was.
    pub(crate) fn reading(&self) -> Option<MeterReading> {
        metered(self.meters.reading())
    }

    /// The same, with no more of the run's course than its last seconds.
    pub(crate) fn recent(&self) -> Option<MeterReading> {
        metered(self.meters.recent())
    }

    /// What bound the run in the last seconds, in a few words.
    pub(crate) fn bound_of_late(&self) -> Option<String> {
        let LimitUse { limit, resource, utilisation, .. } = RunVerdict::of(&self.recent()?).bottleneck?.used;
        Some(format!("bound by {limit} ({resource}, {:.0}%)", utilisation * 100.0))
    }

    /// Why nobody sees what the server does, if somebody wanted to.
    pub(crate) fn unwatched(&self) -> Option<String> {
        lock(&self.unwatched).clone()
    }

    /// Notes that, or that it is seen. Says whether it is news.
    pub(crate) fn set_unwatched(&self, why: Option<String>) -> bool {
        let mut unwatched = lock(&self.unwatched);
        let is_news = *unwatched != why;
        *unwatched = why;
        is_news
    }

    /// Meters the connections of a download, and those who put away what is whole.
    pub(crate) fn meter_download(&self, options: &mut DownloadOptions) {
        self.meter_connections(FETCH, options);
    }

    /// The same of a schema, which the run waits for before it fetches anything else.
    pub(crate) fn meter_schema(&self, options: &mut DownloadOptions) {
        self.meter_connections(SCHEMA, options);
    }

    fn meter_connections(&self, stage: &str, options: &mut DownloadOptions) {
        options.meter = Some(self.stage(stage, FETCHES, &[]));
        options.finish_meter = Some(self.stage("finish", &[Resource::Disk], &[stage]));
    }

    /// Has the stages of a crawl made, in the order of the data. Gives that which makes rows of answers.
    pub(crate) fn begin_crawl(&self) -> StageMeter {
        let mut options = CrawlOptions::default();
        self.meter_crawl(&mut options);
        let explode = self.stage(EXPLODE, &[Resource::Cpu], &[FETCH]);
        self.stage(COPY, &[Resource::Server], &[EXPLODE]);
        explode
    }

    /// Meters the calls of a crawl, and how they wait for leave.
    pub(crate) fn meter_crawl(&self, options: &mut CrawlOptions) {
        options.limit_meter = Some(self.stage(REQUESTS, &[Resource::RateLimit], &[]));
        options.meter = Some(self.stage(FETCH, &[Resource::Server, Resource::Network], &[REQUESTS]));
    }

    /// Has the stages of a load made, in the order of the data. What gets its input from what may differ from load to load: a
    /// run's files may be of several codecs.
    pub(crate) fn begin_load(&self, origin: Origin, codec: Codec) {
        let before = self.begin_reading(origin, codec);
        self.stage(ENCODE, &[Resource::Cpu], &[before]);
        self.stage(COPY, &[Resource::Server], &[ENCODE]);
    }

    /// A local file of that codec, decoded.
    pub(crate) fn open(
        &self,
        path: &Path,
        codec: Codec,
        options: DecodeOptions,
    ) -> Result<Decoder, bulk_archive::Error> {
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(|source| bulk_archive::Error::Io {
            file: name.clone().into_owned(),
            offset: None,
            source,
        })?;
        let file = MeteredRead::stage(file, self.origin(Origin::File, codec).0.worker());
        Decoder::new(file, &name, &self.decode_options(Origin::File, codec, options))
    }

    /// Has what is decoded go to another stage than one that encodes it.
    pub(crate) fn are_read_by(&self, stage: &'static str) {
        // There is one command a run.
        let _ = self.reader.set(stage);
    }

    fn reader(&self) -> &'static str {
        self.reader.get().copied().unwrap_or(ENCODE)
    }

    /// Decodes an input that is none of a load, which is begun to be read for that: the stages before the one that
    /// [reads](Self::are_read_by) them are made.
    pub(crate) fn decoder(
        &self,
        mut input: impl Read + Send + 'static,
        name: &str,
        options: DecodeOptions,
    ) -> io::Result<Decoder> {
        let mut head = Vec::new();
        Read::take(&mut input, Codec::HEAD_LEN as u64).read_to_end(&mut head)?;
        let codec = Codec::detect(&head);
        self.begin_reading(Origin::File, codec);
        let input = MeteredRead::stage(Cursor::new(head).chain(input), self.origin(Origin::File, codec).0.worker());
        Ok(Decoder::new(input, name, &self.decode_options(Origin::File, codec, options))?)
    }

    /// Has the stages made that bytes of a codec come through. Gives the name of the last one.
    pub(crate) fn begin_reading(&self, origin: Origin, codec: Codec) -> &'static str {
        let before = self.origin(origin, codec).1;
        let before = if codec == Codec::Plain { before } else { self.decode(origin, codec).1 };
        let reader = self.reader();
        if reader != ENCODE {
            self.stage(reader, &[Resource::Cpu, Resource::Disk], &[before]);
        }
        before
    }

    /// What reads standard input, which another program writes.
    pub(crate) fn stdin(&self) -> WorkerMeter {
        self.stage(STDIN, &[Resource::Server], &[]).worker()
    }

    /// The same options, with the threads that decode metered. The options are of one decoder of that codec.
    pub(crate) fn decode_options(&self, origin: Origin, codec: Codec, mut options: DecodeOptions) -> DecodeOptions {
        let (meters, workers) = (self.clone(), Mutex::new(HashMap::new()));
        options.observer = Arc::new(move |event| meters.on_decode(origin, codec, &workers, event));
        options
    }

    fn on_decode(
        &self,
        origin: Origin,
        codec: Codec,
        workers: &Mutex<HashMap<usize, WorkerMeter>>,
        event: &DecodeEvent,
    ) {
        let meter = |worker: usize| {
            let mut workers = lock(workers);
            workers.entry(worker).or_insert_with(|| self.decode(origin, codec).0.worker()).clone()
        };
        match *event {
            DecodeEvent::Works { worker } => meter(worker).wait_ends(),
            DecodeEvent::WaitsForInput { worker } => meter(worker).wait_begins(Wait::Input),
            DecodeEvent::WaitsForOutput { worker } => meter(worker).wait_begins(Wait::Output),
            DecodeEvent::Gave { worker, bytes } => meter(worker).add(1, bytes),
            DecodeEvent::Ends { worker } => drop(lock(workers).remove(&worker)),
            _ => {}
        }
    }

    /// Takes in what the workers of a load say of themselves.
    pub(crate) fn on_load(&self, event: &Event<'_>) {
        match *event {
            Event::Worker { file, stage, worker, state: WorkerState::Ends } => {
                let mut loads = lock(&self.loads);
                if let Some(load) = loads.get_mut(file) {
                    load.remove(&(stage, worker));
                    if load.is_empty() {
                        loads.remove(file);
                    }
                }
            }
            Event::Worker { file, stage, worker, state } => {
                let wait = match state {
                    WorkerState::WaitsForInput => Some(Wait::Input),
                    WorkerState::WaitsForOutput => Some(Wait::Output),
                    WorkerState::WaitsForServer => Some(Wait::Server),
                    _ => None,
                };
                let mut loads = lock(&self.loads);
                if !loads.contains_key(file) {
                    loads.insert(file.to_owned(), HashMap::new());
                }
                let Some(load) = loads.get_mut(file) else { return };
                let load_worker = load.entry((stage, worker)).or_insert_with(|| {
                    let (name, resource) = match stage {
                        LoadStage::Encode => (ENCODE, Resource::Cpu),
                        _ => (COPY, Resource::Server),
                    };
                    LoadWorker { meter: self.stage(name, &[resource], &[]).worker(), waits_for_server: false }
                });
                load_worker.waits_for_server = wait == Some(Wait::Server);
                match wait {
                    Some(wait) => load_worker.meter.wait_begins(wait),
                    None => load_worker.meter.wait_ends(),
                }
            }
            Event::Gave { file, stage, worker, bytes } => {
                if let Some(worker) = lock(&self.loads).get(file).and_then(|load| load.get(&(stage, worker))) {
                    // What is copied is counted in rows, when they are committed.
                    worker.meter.add(u64::from(stage == LoadStage::Encode), bytes);
                }
            }
            Event::Committed { file, records, rejected, filtered, .. } => {
                let loads = lock(&self.loads);
                let mut copying = loads.get(file).into_iter().flatten().filter(|((stage, _), _)| is_copy(*stage));
                // Which of them it was makes no difference to their sum.
                if let Some((_, worker)) = copying.next() {
                    worker.meter.add(records.saturating_sub(rejected + filtered), 0);
                }
            }
            Event::Called { job, rows, bytes, .. } => {
                if let Some(worker) = lock(&self.loads).get(job).and_then(|load| load.get(&(LoadStage::Copy, 0))) {
                    worker.meter.add(rows, bytes);
                }
            }
            _ => {}
        }
    }

    /// Waits for the database to do something. It is of whole tables, so that no stage before it hands anything on.
    pub(crate) async fn on_server<F: Future>(&self, stage: ServerStage, work: F) -> F::Output {
        let name = match stage {
            ServerStage::Prepare => "prepare",
            ServerStage::Index => "index",
            ServerStage::Merge => "merge",
            ServerStage::Verify => "verify",
            ServerStage::Publish => "publish",
        };
        let worker = self.stage(name, &[Resource::Server], &[]).worker();
        let _serving = Serving::begin(&self.serving, name);
        worker.waiting(Wait::Server, work).await
    }

    /// What the server is to do now.
    pub(crate) fn server_view(&self) -> ServerView {
        let loads = lock(&self.loads);
        let copying = loads.values().flatten().filter(|((stage, _), _)| is_copy(*stage));
        let (all, idle) =
            copying.fold((0, 0), |(all, idle), (_, worker)| (all + 1, idle + usize::from(!worker.waits_for_server)));
        let stage = if all > 0 { Some(COPY) } else { lock(&self.serving).last().copied() };
        ServerView { stage, idle }
    }

    /// Takes in what the server's processes were seen to do, since that view of it.
    pub(crate) fn saw_server<'e>(&self, view: ServerView, events: impl Iterator<Item = &'e str>) {
        let ServerView { stage: Some(stage), mut idle } = view else { return };
        let stage = self.stage(stage, &[Resource::Server], &[]);
        for event in events {
            if event == "Client/ClientRead" && idle > 0 {
                idle -= 1;
            } else {
                stage.saw_server(event);
            }
        }
    }

    /// What lists a bucket, whose connections work on a processor and wait for the network, or reads listings from files.
    pub(crate) fn listing(&self, is_bucket: bool) -> StageMeter {
        let waits = if is_bucket { Resource::Network } else { Resource::Disk };
        self.stage(LIST, &[Resource::Cpu, waits], &[])
    }

    /// What puts pages in order, in the thread of the one who writes what comes of them. Those that wait may be on disk.
    pub(crate) fn merge(&self) -> StageMeter {
        let stage = self.stage(MERGE, &[Resource::Cpu, Resource::Disk], &[LIST]);
        stage.set_workers_of(WRITE);
        stage
    }

    /// What compares pages with what is known: in that thread, too, or in one of its own.
    pub(crate) fn compare(&self, order: Order, store: Resource, is_apart: bool) -> StageMeter {
        let stage = self.stage(COMPARE, &[Resource::Cpu, store], &[order.stage()]);
        if !is_apart {
            stage.set_workers_of(WRITE);
        }
        stage
    }

    /// What fetches objects that have changed, and what stores them.
    pub(crate) fn sync(&self, target: Resource) -> (StageMeter, StageMeter) {
        let fetch = self.stage(FETCH, &[Resource::Cpu, Resource::Network], &[COMPARE]);
        (fetch, self.stage("store", &[target], &[FETCH]))
    }

    /// What writes what it gets of `before` to a file, or to whoever reads standard output.
    pub(crate) fn write(&self, is_file: bool, before: &str) -> WorkerMeter {
        let waits = if is_file { Resource::Disk } else { Resource::Server };
        self.stage(WRITE, &[Resource::Cpu, waits], &[before]).worker()
    }

    /// Waits for a listing.
    pub(crate) async fn on_listing<F: Future>(&self, work: F) -> F::Output {
        let worker = self.stage(LIST, &[Resource::Network], &[]).worker();
        worker.waiting(Wait::Network, work).await
    }

    /// The stage that bytes of that codec come from, and its name.
    fn origin(&self, origin: Origin, codec: Codec) -> (StageMeter, &'static str) {
        let (name, resources): (_, &[Resource]) = match origin {
            Origin::Network => (FETCH, FETCHES),
            Origin::File if has_threads(codec) => (READ_AHEAD, &[Resource::Disk]),
            Origin::File => (READ, &[Resource::Disk]),
            Origin::Stdin => (STDIN, &[Resource::Server]),
        };
        let stage = self.stage(name, resources, &[]);
        if name == READ {
            stage.set_workers_of(self.reader());
        }
        (stage, name)
    }

    /// The stage that decodes that codec, and its name.
    fn decode(&self, origin: Origin, codec: Codec) -> (StageMeter, &'static str) {
        let before = self.origin(origin, codec).1;
        let name = if has_threads(codec) { DECODE } else { INFLATE };
        let stage = self.stage(name, &[Resource::Cpu], &[before]);
        if name == INFLATE {
            stage.set_workers_of(self.reader());
        }
        (stage, name)
    }
}

/// Whether a codec is read and decoded in threads of its own; else one thread reads, decodes and encodes.
fn has_threads(codec: Codec) -> bool {
    codec == Codec::Bzip2
}

/// The database does something until this is dropped.
struct Serving<'a> {
    all: &'a Mutex<Vec<&'static str>>,
    stage: &'static str,
}

impl<'a> Serving<'a> {
    fn begin(all: &'a Mutex<Vec<&'static str>>, stage: &'static str) -> Self {
        lock(all).push(stage);
        Self { all, stage }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut all = lock(self.all);
        if let Some(place) = all.iter().rposition(|stage| *stage == self.stage) {
            all.remove(place);
        }
    }
}

/// A reading by which anything was done.
fn metered(reading: MeterReading) -> Option<MeterReading> {
    reading.stages.iter().any(|stage| !stage.total.time().is_zero()).then_some(reading)
}

fn is_copy(stage: LoadStage) -> bool {
    stage == LoadStage::Copy
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
