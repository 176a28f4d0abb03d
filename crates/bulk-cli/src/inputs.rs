//! What `bulk load` reads: files, standard input, URLs and objects of buckets.

mod given;
mod scratch;
pub(crate) mod stdin;

use std::collections::HashSet;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_core::{
    Bodies, Body, DownloadOptions, Event, Get, Keep, Request, RetryPolicy, Source, remove_staged, retry, stream,
};
use bulk_pg::{FileIdentity, LoadOptions, Loaded, Session, TableName, find_loaded, has_rows, unfinished};
use futures::StreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::given::{Given, Keys};
use self::scratch::Scratch;
use crate::arguments::{Common, Load};
use crate::blocking::blocking;
use crate::exit::{Exit, Failure};
use crate::load::{Arriving, Decoded, Outcome, codec, decode_options, load_body, load_decoded, load_path};
use crate::meters::Origin;
use crate::mirror::{identity, is_damage, is_replacement};
use crate::report::Report;
use crate::source::{Place, WebFile, watched};

/// How far the download runs ahead of the load where nobody said how far, and where it is kept. It is to outlast the slow
/// stretches of either, and not to fill a disk that the database shares.
const WINDOW: u64 = 4 << 30;
/// The same where nothing is kept: temporary files may be in memory.
const WINDOW_OF_SCRATCH: u64 = 256 << 20;
/// The same for the beginning of a file, of which no more is wanted.
const WINDOW_OF_SAMPLE: u64 = 4 << 20;

/// One thing to load.
pub(crate) struct Input {
    /// What messages call it.
    pub(crate) name: String,
    /// Its file name is that of the files with its rejects.
    pub(crate) path: PathBuf,
    pub(crate) identity: FileIdentity,
    /// Bytes, as stored, if that is known.
    pub(crate) size: Option<u64>,
    kind: Kind,
}

enum Kind {
    File,
    Stdin,
    Object { source: usize, request: Request },
}

/// All things to load, in order.
pub(crate) struct Inputs<'a> {
    pub(crate) items: Vec<Input>,
    load: &'a Load,
    common: &'a Common,
    report: &'a Report,
    sources: Vec<Arc<dyn Source>>,
    arriving: Option<Arrivals>,
    scratch: Option<Scratch>,
    /// What has been read of standard input already, and the rest of it.
    stdin: Option<Decoded>,
}

/// The objects of one source that are on their way.
struct Arrivals {
    source: usize,
    /// Places of those that are to be loaded and have not come yet.
    wanted: HashSet<usize>,
    bodies: Bodies,
    /// Ends the download of these alone.
    stop: CancellationToken,
    /// Names of those that are of no use any more, and are there as long as these arrive.
    unwanted: Vec<String>,
}

impl<'a> Inputs<'a> {
    /// Says what is wrong with the arguments, before anything is asked of anybody.
    pub(crate) fn check(load: &Load) -> Result<(), Failure> {
        let given = load.files.iter().map(|file| Given::parse(file)).collect::<Result<Vec<_>, _>>()?;
        let stdins = given.iter().filter(|given| matches!(given, Given::Stdin)).count();
        match (stdins, &load.name) {
            (0, Some(_)) => Err(Failure::usage("--name is the name of standard input, which is -: a file has its own")),
            (2.., _) => Err(Failure::usage("- is given twice, and standard input can be read once")),
            _ => Ok(()),
        }
    }

    /// Finds what the arguments name, in their order and each once, and fails if any of it cannot be read.
    pub(crate) async fn find(load: &'a Load, common: &'a Common, report: &'a Report) -> Result<Self, Failure> {
        let (items, sources, arriving, scratch, stdin) = (Vec::new(), Vec::new(), None, None, None);
        let mut inputs = Self { items, load, common, report, sources, arriving, scratch, stdin };
        let mut seen = HashSet::new();
        for argument in &load.files {
            let found = match Given::parse(argument)? {
                Given::File(path) => {
                    let by_content = load.sha256;
                    vec![blocking(move || file(path, by_content)).await?]
                }
                Given::Stdin => vec![Input {
                    name: stdin::NAME.to_owned(),
                    path: PathBuf::from(load.name.as_deref().unwrap_or("stdin")),
                    identity: stdin::identity(load.name.as_deref()),
                    size: None,
                    kind: Kind::Stdin,
                }],
                Given::Web(url) => vec![inputs.web(&url).await?],
                Given::Bucket { name, keys } => inputs.bucket(argument, &name, &keys).await?,
            };
            for input in found {
                // What leads to it does not matter: it would be loaded twice.
                let real = matches!(input.kind, Kind::File).then(|| input.path.canonicalize().ok()).flatten();
                let key = real.map_or_else(|| input.identity.key.clone(), |path| path.to_string_lossy().into_owned());
                if seen.insert(key) {
                    inputs.items.push(input);
                } else {
                    report.note(format!("{}: given twice, and loaded once", input.name));
                }
            }
        }
        Ok(inputs)
    }

    /// The bytes that are fetched, those that are read, and of how many inputs it is not known how many they are.
    pub(crate) fn sizes(&self) -> (u64, u64, usize) {
        let sum = |items: &mut dyn Iterator<Item = &Input>| items.filter_map(|input| input.size).sum();
        let fetched = sum(&mut self.items.iter().filter(|input| matches!(input.kind, Kind::Object { .. })));
        (fetched, sum(&mut self.items.iter()), self.items.iter().filter(|input| input.size.is_none()).count())
    }

    async fn web(&mut self, url: &str) -> Result<Input, Failure> {
        let WebFile { source, request } = WebFile::open(url)?
            .ok_or_else(|| Failure::usage("a URL names no file; a bucket is s3://bucket/prefix with --endpoint"))?;
        let key = source.identity(&request.key);
        self.object(Arc::new(source), request, key).await
    }

    async fn bucket(&mut self, argument: &Path, name: &str, keys: &Keys) -> Result<Vec<Input>, Failure> {
        let place = Place::open(&format!("s3://{name}/{}", keys.prefix()), &self.load.bucket, self.report)?;
        let location = |key: &str| format!("s3://{name}/{key}");
        if let Keys::One(key) = keys {
            // Who may read it may not be allowed to list the bucket.
            let mut request = Request::new(key);
            request.name = place.name(key).to_owned();
            return Ok(vec![self.object(place.source(), request, location(key)).await?]);
        }
        let mut objects = place.list().await?;
        objects.retain(|object| keys.takes(&object.key));
        if objects.is_empty() {
            let hint = match keys {
                Keys::Matching { .. } => {
                    r"; * stands for no /, ** does, and a \ takes the character behind it as it is"
                }
                _ => "",
            };
            let what = anyhow::anyhow!("there is nothing at {}{hint}", argument.display());
            return Err(Failure::new(Exit::Failed, what));
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let source = self.add_source(place.source());
        let input = |object: &bulk_s3::Object| {
            let mut request = object.request();
            request.name = place.name(&object.key).to_owned();
            let FileIdentity { etag, size, .. } = identity(object);
            Input {
                name: location(&object.key),
                path: PathBuf::from(object.file_name()),
                identity: FileIdentity::new(location(&object.key), Some(version(etag)), size),
                size: Some(object.size),
                kind: Kind::Object { source, request },
            }
        };
        Ok(objects.iter().map(input).collect())
    }

    fn decode_options(&self) -> DecodeOptions {
        decode_options(Some(self.load.records.max_ratio))
    }

    fn add_source(&mut self, source: Arc<dyn Source>) -> usize {
        self.sources.push(watched(source, self.report));
        self.sources.len() - 1
    }

    /// An object of which no listing tells: its source is asked for the first byte.
    async fn object(&mut self, source: Arc<dyn Source>, mut request: Request, key: String) -> Result<Input, Failure> {
        let name = source.location(&request.key);
        let Body { size, etag, last_modified, .. } = self.probe(&*source, &request.key).await?;
        let path = PathBuf::from(&request.name);
        let version = version(etag.as_ref().map(ToString::to_string).or(last_modified.map(|time| time.to_string())));
        (request.size, request.etag, request.last_modified) = (size, etag, last_modified);
        let identity = FileIdentity::new(key, Some(version), size.unwrap_or(0));
        let source = self.add_source(source);
        Ok(Input { name, path, identity, size, kind: Kind::Object { source, request } })
    }

    async fn probe(&self, source: &dyn Source, key: &str) -> Result<Body, Failure> {
        let mut get = Get::new(key);
        get.end = Some(1);
        let name = source.location(key);
        let on_retry = |attempt, delay, error: &bulk_core::Error| {
            self.report.on_download(&Event::Retry { name: &name, attempt, delay, error });
        };
        Ok(retry(&RetryPolicy::default(), on_retry, || async { (source.get(&get).await, false) }).await?)
    }

    /// Refuses to read what has no name where a part of such a thing is loaded: nobody can tell whether it is the same.
    pub(crate) async fn refuse_unnamed(&self, session: &Session) -> Result<(), Failure> {
        let is_unnamed = |input: &Input| matches!(input.kind, Kind::Stdin) && self.load.name.is_none();
        if !self.items.iter().any(is_unnamed) {
            return Ok(());
        }
        let table = &self.load.table;
        let parts = unfinished(session, table).await?;
        let part = parts.iter().find(|file| file.key.starts_with(stdin::UNNAMED));
        match part {
            Some(part) if has_rows(session, table).await? => {
                let what = anyhow::anyhow!(
                    "table {table:#} holds a part of {}, whose load was interrupted, and nobody can tell whether this is \
                     the same: load it anew with --restart, which deletes all rows of the table; with --name NAME from \
                     the start, the same command goes on",
                    part.key
                );
                Err(Failure::new(Exit::Failed, what))
            }
            _ => Ok(()),
        }
    }

    /// Whether any of it is not loaded yet. What stands in the way of the first is an error.
    pub(crate) async fn has_any_to_load(
        &self,
        session: &Session,
        table: &TableName,
        options: &LoadOptions,
    ) -> Result<bool, Failure> {
        let mut options = options.clone();
        options.append = self.load.append;
        for (place, input) in self.items.iter().enumerate() {
            match find_loaded(session, table, &input.identity, &options).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(error) if place == 0 => return Err(error.into()),
                // It is told of when it has its turn.
                Err(_) => {}
            }
            options.append = true;
        }
        Ok(false)
    }

    /// The beginning of an input, decoded, for `read`. Of standard input, what that takes is given again.
    pub(crate) async fn sample<T: Send + 'static>(
        &mut self,
        place: usize,
        read: impl FnOnce(&str, &mut dyn Read) -> Result<T, bulk_pg::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let Input { name, path, kind, .. } = &self.items[place];
        let name = name.clone();
        match kind {
            Kind::File => {
                let (path, options) = (path.clone(), self.decode_options());
                blocking(move || {
                    let mut decoder =
                        Decoder::open(path, &options).map_err(|error| Failure::of_read(&name, error.into()))?;
                    Ok(read(&name, &mut decoder)?)
                })
                .await
            }
            Kind::Stdin => {
                let decoder = stdin::open(&self.common.stop, self.decode_options(), self.report).await?;
                let (result, kept) = blocking(move || {
                    let mut reader = Recorder { input: decoder, kept: Vec::new() };
                    let result = read(&name, &mut reader)?;
                    Ok((result, Decoded::new(reader.kept, reader.input)))
                })
                .await?;
                self.stdin = Some(kept);
                Ok(result)
            }
            Kind::Object { source, request } => {
                let (source, request) = (self.sources[*source].clone(), request.clone());
                let decode = self.decode_options();
                let folder = self.scratch()?.folder(&format!("sample-{place}"));
                let mut options = DownloadOptions::default();
                options.concurrency = 1;
                options.window = WINDOW_OF_SAMPLE;
                options.segment = Some(WINDOW_OF_SAMPLE);
                let stop = self.common.stop.child_token();
                options.stop = stop.clone();
                let report = self.report.clone();
                options.observer = Arc::new(move |event: &Event<'_>| {
                    // What is fetched for this is not what the run is to fetch.
                    if matches!(event, Event::Retry { .. } | Event::Paused { .. } | Event::Resumed { .. }) {
                        report.on_download(event);
                    }
                });
                let mut bodies = stream(source, [request], folder, Keep::Nothing, options);
                let delivery = bodies.next().await;
                let result = async {
                    let body = delivery.ok_or_else(|| not_delivered(&name))?.outcome?.into_blocking();
                    blocking(move || {
                        let decoder = Decoder::new(body, &name, &decode);
                        let mut decoder = decoder.map_err(|error| Failure::of_read(&name, error.into()))?;
                        Ok(read(&name, &mut decoder)?)
                    })
                    .await
                };
                let result = result.await;
                end(bodies, &stop).await;
                result
            }
        }
    }

    /// Loads an input. Those before it must have had their turns.
    pub(crate) async fn load(
        &mut self,
        place: usize,
        sessions: &mut [Session],
        table: &TableName,
        options: &LoadOptions,
    ) -> Result<Loaded, Failure> {
        let Self { report, .. } = *self;
        match &self.items[place].kind {
            Kind::File => {
                self.end_arrivals().await;
                let Input { path, identity, .. } = &self.items[place];
                load_path(sessions, table, path, identity, options, self.decode_options(), report).await
            }
            Kind::Stdin => {
                self.end_arrivals().await;
                let decoded = match self.stdin.take() {
                    Some(decoded) => decoded,
                    None => stdin::open(&self.common.stop, self.decode_options(), report).await?.into(),
                };
                let (codec, identity) = (decoded.codec(), &self.items[place].identity);
                load_decoded(sessions, table, (Origin::Stdin, codec), move || Ok(decoded), identity, options, report)
                    .await
            }
            Kind::Object { source, .. } => {
                let source = *source;
                if self.arriving.as_ref().is_none_or(|arriving| arriving.source != source) {
                    self.begin_arrivals(place, source, &sessions[0], table, options).await?;
                }
                self.load_object(place, sessions, table, options).await
            }
        }
    }

    async fn load_object(
        &mut self,
        place: usize,
        sessions: &mut [Session],
        table: &TableName,
        options: &LoadOptions,
    ) -> Result<Loaded, Failure> {
        let Input { name, identity, kind, .. } = &self.items[place];
        let decode = self.decode_options();
        let Some(arriving) = self.arriving.as_mut() else { return Err(not_delivered(name)) };
        if !arriving.wanted.remove(&place) {
            // It is loaded, or in the way of what is, which the ledger says once more.
            let open = || Err(io::Error::other("what the table holds has changed in between; run it again"));
            return Ok(bulk_pg::load(sessions, table, identity, open, options).await?);
        }
        let delivery = arriving.bodies.next().await.ok_or_else(|| not_delivered(name))?;
        let body = delivery.outcome?;
        let outcome = Arc::<Outcome>::default();
        let arrived = Arriving { body, name: name.clone(), identity: identity.clone(), decode };
        let result = load_body(sessions, table, arrived, &outcome, options, self.report).await;
        // Its disk space counts until it is removed.
        let staged = outcome.take_staged();
        match (&result, kind) {
            // More of it may be on its way.
            (Ok(_), Kind::Object { request, .. }) if options.limit.is_some() => {
                arriving.unwanted.push(request.name.clone());
            }
            (Ok(_), Kind::Object { request, .. }) => remove(self.load, &request.name, self.report),
            // It is fetched again by the next run.
            (Err(failure), Kind::Object { request, .. }) if is_damage(&failure.error) => {
                arriving.unwanted.push(request.name.clone());
            }
            _ => {}
        }
        drop(staged);
        result.map_err(|Failure { exit, error }| {
            let is_replaced = error.chain().any(is_replacement);
            let hint = "replaced at its source while it was loaded; if the table has rows of the version before, the new \
                        one is loaded with --restart";
            Failure { exit, error: if is_replaced { error.context(hint) } else { error } }
        })
    }

    /// Has all objects of a source fetched that stand one after the other from here on and are not loaded.
    async fn begin_arrivals(
        &mut self,
        place: usize,
        source: usize,
        session: &Session,
        table: &TableName,
        options: &LoadOptions,
    ) -> Result<(), Failure> {
        self.end_arrivals().await;
        let is_of_it = |input: &&Input| matches!(input.kind, Kind::Object { source: other, .. } if other == source);
        let count = self.items[place..].iter().take_while(is_of_it).count();
        let places: Range<usize> = place..place + count;
        let mut options = options.clone();
        let (mut requests, mut wanted) = (Vec::new(), HashSet::new());
        for place in places {
            let Input { identity, kind, .. } = &self.items[place];
            let Kind::Object { request, .. } = kind else { continue };
            // A refresh has asked before, and takes a table that holds something else for what it is.
            if options.stage || matches!(find_loaded(session, table, identity, &options).await, Ok(None)) {
                requests.push(request.clone());
                wanted.insert(place);
            }
            // As for the others when they have their turns.
            options.append = true;
        }
        let (folder, keep, window) = match &self.load.dir {
            Some(dir) => (dir.clone(), Keep::File, WINDOW),
            None => (self.scratch()?.folder(&format!("source-{source}")), Keep::Nothing, WINDOW_OF_SCRATCH),
        };
        let mut download = DownloadOptions::default();
        download.concurrency = self.common.jobs();
        download.window = window;
        download.evict_staged = true;
        self.load.disk.apply(&self.load.disk.budget(&folder), &mut download);
        let stop = self.common.stop.child_token();
        download.stop = stop.clone();
        let observer = self.report.clone();
        download.observer = Arc::new(move |event: &Event<'_>| observer.on_download(event));
        self.report.meters().meter_download(&mut download);
        let bodies = stream(self.sources[source].clone(), requests, &folder, keep, download);
        self.arriving = Some(Arrivals { source, wanted, bodies, stop, unwanted: Vec::new() });
        Ok(())
    }

    /// Ends what arrives. Behind this, nobody uses the folders that it arrived in: who drops the inputs without it may leave
    /// a temporary folder, which the next run removes.
    pub(crate) async fn end_arrivals(&mut self) {
        let Some(Arrivals { bodies, stop, unwanted, .. }) = self.arriving.take() else { return };
        end(bodies, &stop).await;
        for name in unwanted {
            remove(self.load, &name, self.report);
        }
    }

    fn scratch(&mut self) -> Result<&Scratch, Failure> {
        if self.scratch.is_none() {
            let failed = |error| {
                let folder = std::env::temp_dir();
                let what = format!("cannot make a folder in {}; --dir DIR names another one", folder.display());
                Failure::new(Exit::Failed, anyhow::Error::from(error).context(what))
            };
            self.scratch = Some(Scratch::create().map_err(failed)?);
        }
        self.scratch.as_ref().ok_or_else(|| Failure::usage("no temporary folder"))
    }
}

/// Stops a download, and waits until it has put away what it was at.
async fn end(mut bodies: Bodies, stop: &CancellationToken) {
    stop.cancel();
    while bodies.next().await.is_some() {}
}

fn file(path: PathBuf, by_content: bool) -> Result<Input, Failure> {
    // Its first bytes are read here, and again when it has its turn.
    if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        let what = format!("{}: it is a pipe or a device; give it over standard input, as -", path.display());
        return Err(Failure::usage(what));
    }
    codec(&path)?;
    let identity = if by_content { FileIdentity::of_content(&path) } else { FileIdentity::of_file(&path) };
    let failed = |error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display()));
    let identity = identity.map_err(failed)?;
    Ok(Input { name: path.display().to_string(), size: Some(identity.size), identity, path, kind: Kind::File })
}

/// Removes what was kept of an object.
fn remove(load: &Load, name: &str, report: &Report) {
    if let Some(dir) = &load.dir
        && let Err(error) = remove_staged(dir, name)
    {
        report.warn(format!("{:#}", anyhow::Error::from(error)));
    }
}

/// What an object's version is called. One that has no ETag and no time may be another one each time.
fn version(known: Option<String>) -> String {
    known.unwrap_or_else(|| format!("unknown, read at {}", Timestamp::now()))
}

fn not_delivered(name: &str) -> Failure {
    Failure::new(Exit::Failed, anyhow::anyhow!("{name} was not delivered"))
}

/// Keeps what is read.
struct Recorder {
    input: Decoder,
    kept: Vec<u8>,
}

impl Read for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}
