//! The meters of a run: which stages it has, and who works in them.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

const FETCH: &str = "fetch";
const READ: &str = "read";
const STDIN: &str = "stdin";
const DECODE: &str = "decode";
const ENCODE: &str = "encode";
const COPY: &str = "copy";
const REQUESTS: &str = "requests";
const EXPLODE: &str = "explode";

/// Where the bytes of a load come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// They are fetched while they are loaded.
    Network,
    /// A local file.
    File,
    Stdin,
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

    /// What bound the run in the last seconds.
    pub(crate) fn bound_of_late(&self) -> Option<LimitUse> {
        RunVerdict::of(&self.recent()?).bottleneck.map(|bottleneck| bottleneck.used)
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
        options.meter = Some(self.origin(Origin::Network));
        options.finish_meter = Some(self.stage("finish", &[Resource::Disk], &[FETCH]));
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

    /// Has the stages of a load made, in the order of the data. Those of the first load of a run tell what gets its input
    /// from what.
    pub(crate) fn begin_load(&self, origin: Origin, codec: Codec) {
        let origin_stage = self.origin(origin);
        // bzip2 alone has threads of its own; else one thread reads, decodes and encodes.
        let is_apart = codec == Codec::Bzip2;
        if origin == Origin::File && !is_apart {
            origin_stage.set_workers_of(ENCODE);
        }
        let before = if codec == Codec::Plain { origin.stage() } else { DECODE };
        if codec != Codec::Plain {
            let decode = self.decode(origin);
            if !is_apart {
                decode.set_workers_of(ENCODE);
            }
        }
        self.stage(ENCODE, &[Resource::Cpu], &[before]);
        self.stage(COPY, &[Resource::Server], &[ENCODE]);
    }

    /// A local file, decoded.
    pub(crate) fn open(&self, path: &Path, options: DecodeOptions) -> Result<Decoder, bulk_archive::Error> {
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(|source| bulk_archive::Error::Io {
            file: name.clone().into_owned(),
            offset: None,
            source,
        })?;
        let file = MeteredRead::stage(file, self.origin(Origin::File).worker());
        Decoder::new(file, &name, &self.decode_options(Origin::File, options))
    }

    /// What reads standard input, which another program writes.
    pub(crate) fn stdin(&self) -> WorkerMeter {
        self.origin(Origin::Stdin).worker()
    }

    /// The same options, with the threads that decode metered. The options are of one decoder.
    pub(crate) fn decode_options(&self, origin: Origin, mut options: DecodeOptions) -> DecodeOptions {
        let (meters, workers) = (self.clone(), Mutex::new(HashMap::new()));
        options.observer = Arc::new(move |event| meters.on_decode(origin, &workers, event));
        options
    }

    fn on_decode(&self, origin: Origin, workers: &Mutex<HashMap<usize, WorkerMeter>>, event: &DecodeEvent) {
        let meter = |worker: usize| {
            let mut workers = lock(workers);
            workers.entry(worker).or_insert_with(|| self.decode(origin).worker()).clone()
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

    /// Waits for a listing.
    pub(crate) async fn on_listing<F: Future>(&self, work: F) -> F::Output {
        let worker = self.stage("list", &[Resource::Network], &[]).worker();
        worker.waiting(Wait::Network, work).await
    }

    fn origin(&self, origin: Origin) -> StageMeter {
        let resources: &[Resource] = match origin {
            Origin::Network => &[Resource::Network, Resource::Disk, Resource::Server],
            Origin::File => &[Resource::Disk],
            Origin::Stdin => &[Resource::Server],
        };
        self.stage(origin.stage(), resources, &[])
    }

    fn decode(&self, origin: Origin) -> StageMeter {
        self.stage(DECODE, &[Resource::Cpu], &[origin.stage()])
    }
}

impl Origin {
    fn stage(self) -> &'static str {
        match self {
            Self::Network => FETCH,
            Self::File => READ,
            Self::Stdin => STDIN,
        }
    }
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
