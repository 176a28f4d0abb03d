use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bulk_archive::{ArchiveName, Codec, ContentDigest, Destination, ExtractOptions, Extracted, Member, MemberKind};
use bulk_core::{
    Algorithm, Digest, DiskBudget, Get, Hasher, ManifestEntry, Request, Reservation, RetryPolicy, Source, StagedFile,
    remove_staged, retry,
};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::runtime::Handle;

use super::extracted::{self, Extraction, Line, STATE_FOLDER, Version, Writer};
use super::meter::{Disk, Meter};
use super::plan::MANIFEST;
use super::workshop::{Left, WORKSHOP, Workshop};
use crate::arguments::{Common, Fetch};
use crate::blocking::blocking;
use crate::counted::counted;
use crate::exit::{Exit, Failure, Tally};
use crate::report::{Report, size};

/// The linked files of one archive whose digests are remembered; of others it is computed for each link.
const MOST_LINKED: usize = 100_000;

/// Whether a file of that name is extracted.
pub(super) fn is_archive(name: &str) -> bool {
    named(name).is_some()
}

/// The codec that a name speaks of, and what comes out, beside the archive.
fn named(name: &str) -> Option<(Codec, String)> {
    let archive = ArchiveName::parse(name)?;
    let folder = name.rfind('/').map_or("", |at| &name[..=at]);
    Some((archive.codec, format!("{folder}{}", archive.output)))
}

/// How many bytes come out of each compressed one, by codec: what is usual, until it is learned.
#[derive(Debug, Default)]
pub(super) struct Ratios {
    /// Bytes in and out.
    seen: Mutex<HashMap<Codec, (u64, u64)>>,
    most: Option<u64>,
}

impl Ratios {
    /// What of a file will need disk space besides itself.
    pub(super) fn expected(&self, request: &Request) -> u64 {
        let (Some((codec, _)), Some(size)) = (named(&request.name), request.size) else { return 0 };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let ratio = match (seen.get(&codec), codec) {
            // Files of one kind differ; who asks for too little may wait later.
            (Some((compressed, extracted)), _) => (*extracted as f64 / *compressed as f64 * 1.1).max(1.0),
            (None, Codec::Plain) => 1.0,
            (None, Codec::Gzip | Codec::Zstd) => 4.0,
            (None, _) => 6.0,
        };
        ((size as f64 * ratio) as u64).min(self.most.unwrap_or(u64::MAX))
    }

    fn learn(&self, codec: Codec, extracted: &Extracted) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = seen.entry(codec).or_default();
        // Never 0: it divides.
        sums.0 += extracted.compressed_bytes.max(1);
        sums.1 += extracted.bytes;
    }
}

/// Unpacks files in their order, in the folder that they were fetched into.
pub(super) struct Extractor {
    folder: PathBuf,
    options: ExtractOptions,
    keeps_archives: bool,
    algorithm: Algorithm,
    ratios: Arc<Ratios>,
    disk: Disk,
    source: Arc<dyn Source>,
    workshop: Arc<Workshop>,
    /// What archives became, by its name.
    outputs: HashMap<String, Extraction>,
    /// The disk space that these take, as far as they are of this run.
    spaces: HashMap<String, Reservation>,
}

impl Extractor {
    /// Takes the folder, and brings to its end what a run that was killed had left.
    pub(super) async fn open(
        fetch: &Fetch,
        common: &Common,
        source: Arc<dyn Source>,
        budget: &DiskBudget,
        report: &Report,
    ) -> Result<Self, Failure> {
        if cfg!(not(unix)) {
            return Err(Failure::usage("--extract is there on Unix alone"));
        }
        let mut options = ExtractOptions::default();
        options.destination = Destination::Folder;
        options.max_ratio = Some(fetch.max_ratio);
        options.max_bytes = fetch.max_extracted;
        options.max_entries = Some(fetch.max_entries);
        let algorithm = if fetch.sha256 { Algorithm::Sha256 } else { Algorithm::Crc64Nvme };
        options.digest = Some(Arc::new(move || Box::new(FileDigest(Hasher::new(&[algorithm])))));
        let folder = fetch.out.clone();
        let (workshop, left, outputs) = blocking(move || {
            let (workshop, left) = Workshop::open(&folder)?;
            Ok((workshop, left, extracted::outputs(&folder)?))
        })
        .await?;
        say_left(&left, report);
        Ok(Self {
            folder: fetch.out.clone(),
            options,
            keeps_archives: fetch.keep_archives,
            algorithm,
            ratios: Arc::new(Ratios { seen: Mutex::default(), most: fetch.max_extracted }),
            disk: Disk {
                budget: budget.clone(),
                wait: fetch.disk.disk_wait,
                stop: common.stop.clone(),
                runtime: Handle::current(),
                report: report.clone(),
            },
            source,
            workshop: Arc::new(workshop),
            outputs,
            spaces: HashMap::new(),
        })
    }

    pub(super) fn ratios(&self) -> &Arc<Ratios> {
        &self.ratios
    }

    /// The requests that are still to be fetched: not those whose archives are extracted and gone. Where only the source
    /// can tell whether they are those of an archive, it is asked, over so many connections.
    pub(super) async fn begin(&mut self, requests: Vec<Request>, jobs: usize, tally: &mut Tally) -> Vec<Request> {
        let before = requests.len();
        let looked = futures::stream::iter(requests).map(|request| async {
            let is_extracted = !self.keeps_archives && self.is_extracted(&request).await;
            (request, is_extracted)
        });
        let requests: Vec<_> = looked.buffered(jobs.max(1)).collect().await;
        let mut left = Vec::new();
        for (request, is_extracted) in requests {
            if let Some(found) = self.found(&request.name) {
                let (output, bytes) = (found.output.clone(), found.bytes);
                let space = self.disk.budget.adopt(bytes);
                // What is there is there: the rest of the limit is all that can be counted.
                let space = space.or_else(|shortage| self.disk.budget.adopt(shortage.available));
                self.spaces.extend(space.ok().map(|space| (output, space)));
            }
            if is_extracted { tally.done() } else { left.push(request) }
        }
        if left.len() < before {
            self.disk.report.note(format!(
                "{} of {} had been extracted",
                before - left.len(),
                counted(before, "file", "files")
            ));
        }
        left
    }

    /// What the archive of that name became.
    fn found(&self, name: &str) -> Option<&Extraction> {
        self.outputs.get(&named(name)?.1).filter(|found| found.name == name)
    }

    /// Whether the version that is wanted was extracted: the one that the request names, or else the one that the source
    /// says is there now.
    async fn is_extracted(&self, request: &Request) -> bool {
        let Some(found) = self.found(&request.name) else { return false };
        let mut wanted = Version {
            key: request.key.clone(),
            identity: self.source.identity(&request.key),
            size: request.size,
            etag: request.etag.clone(),
            last_modified: request.last_modified,
        };
        if wanted.has_strong_etag() {
            // The same version, told by a listing, has the same bytes also where the bucket has moved.
            wanted.identity.clone_from(&found.version.identity);
        } else if wanted.last_modified.is_none() {
            let mut get = Get::new(&request.key);
            get.end = Some(1);
            let name = request.name.as_str();
            let on_retry = |attempt, delay, error: &bulk_core::Error| {
                self.disk.report.on_download(&bulk_core::Event::Retry { name, attempt, delay, error });
            };
            let policy = RetryPolicy::default();
            let asked = retry(&policy, on_retry, || async { (self.source.get(&get).await, false) });
            // An error comes again when it is fetched, and is said then.
            let Some(Ok(body)) = self.disk.stop.run_until_cancelled(asked).await else { return false };
            (wanted.etag, wanted.last_modified, wanted.size) = (body.etag, body.last_modified, body.size);
        }
        found.version.is_surely(&wanted)
    }

    /// Extracts a file, and removes it unless it is to be kept. `space` is that of the file and for what comes out, and then
    /// of what there is.
    pub(super) async fn extract(
        &mut self,
        request: &Arc<Request>,
        staged: &StagedFile,
        space: &mut Option<Reservation>,
    ) -> Result<(), Failure> {
        let name = &request.name;
        let Some((codec, output)) = named(name) else { return Ok(()) };
        let extra = space.as_mut().map(|space| space.split(space.bytes() - space.written()));
        let version = Version {
            key: request.key.clone(),
            identity: self.source.identity(&request.key),
            size: Some(staged.size),
            etag: staged.etag.clone(),
            last_modified: staged.last_modified,
        };
        let report = self.disk.report.clone();
        if self.found(name).is_some_and(|found| found.version.is_surely(&version)) {
            // One that was kept stays.
            if !self.keeps_archives && staged.fetched > 0 {
                remove_staged(&self.folder, name)?;
                *space = None;
            }
            return Ok(());
        }
        report.totals().set_head(Some((name, Some("extracting"))));
        let head = Extraction {
            name: name.clone(),
            version,
            output: output.clone(),
            bytes: 0,
            replaces: self.outputs.get(&output).map(|before| before.name.clone()),
            removes_archive: !self.keeps_archives,
        };
        let work = Work {
            head,
            archive: staged.path.clone(),
            folder: self.folder.clone(),
            workshop: self.workshop.clone(),
            options: self.options.clone(),
            algorithm: self.algorithm,
            meter: Arc::new(Meter::new(self.disk.clone(), extra)),
        };
        let begun = Instant::now();
        let done = match blocking(move || Ok(work.run())).await? {
            Ok(done) => done,
            Err(Failed { failure, is_archive_gone }) => {
                if is_archive_gone {
                    *space = None;
                }
                return Err(failure);
            }
        };
        let Done { extracted, head, left, unlisted, space: own } = done;
        if head.removes_archive {
            *space = None;
        }
        // What was there before is gone.
        self.spaces.remove(&output);
        self.spaces.extend(own.map(|own| (output.clone(), own)));
        self.outputs.insert(output.clone(), head);
        self.ratios.learn(codec, &extracted);
        say_left(&left, &report);
        if unlisted > 0 {
            report.warn(format!(
                "{name}: {} not UTF-8, which {MANIFEST} cannot list",
                counted(unlisted, "file has a name that is", "files have names that are")
            ));
        }
        let what = if extracted.is_tar { format!("{output}/") } else { output.clone() };
        let fields = json!({
            "file": name, "output": output, "files": extracted.files, "bytes": extracted.bytes,
            "seconds": begun.elapsed().as_secs_f64(),
        });
        report.event(
            "extracted",
            &format!("{what}: {}, {}", counted(extracted.files, "file", "files"), size(extracted.bytes)),
            fields,
        );
        Ok(())
    }
}

/// Brings to its end what a run with extraction that was killed had left to do, so that what is noted is what is there.
pub(super) async fn end_interrupted(folder: &Path, report: &Report) -> Result<(), Failure> {
    if folder.join(WORKSHOP).exists() {
        let folder = folder.to_owned();
        let left = blocking(move || Workshop::open(&folder).map(|(_, left)| left)).await?;
        say_left(&left, report);
    }
    Ok(())
}

fn say_left(left: &Left, report: &Report) {
    if let Some(left) = left {
        let left = left.display();
        report.warn(format!(
            "{left}: what stood beside an archive's files, and something of another kind has its name now"
        ));
    }
}

/// Refuses files of which one would become what another one is, or becomes.
pub(super) fn refuse_collisions(requests: &[Request]) -> Result<(), Failure> {
    let mut outputs: HashMap<String, &str> = HashMap::new();
    for request in requests {
        let output = named(&request.name).map_or(request.name.clone(), |(_, output)| output);
        let first = output.split('/').next().unwrap_or(&output);
        if output == MANIFEST
            || [STATE_FOLDER, WORKSHOP].contains(&first)
            || output.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(Failure::usage(format!(
                "{}: it cannot be extracted under its name {output:?}; leave it out with --exclude",
                request.name
            )));
        }
        if let Some(other) = outputs.insert(output.clone(), &request.name) {
            return Err(Failure::usage(format!(
                "{other} and {} would both be extracted to {output}; leave one out with --exclude",
                request.name
            )));
        }
    }
    for request in requests {
        let mut folder = request.name.as_str();
        while let Some((above, _)) = folder.rsplit_once('/') {
            if let Some(other) = outputs.get(above) {
                return Err(Failure::usage(format!(
                    "{other} would be extracted to {above}, where {} goes; leave one out with --exclude",
                    request.name
                )));
            }
            folder = above;
        }
    }
    Ok(())
}

/// One archive on its way to its files.
struct Work {
    head: Extraction,
    archive: PathBuf,
    folder: PathBuf,
    workshop: Arc<Workshop>,
    options: ExtractOptions,
    algorithm: Algorithm,
    meter: Arc<Meter>,
}

struct Done {
    extracted: Extracted,
    head: Extraction,
    left: Left,
    /// Files that the manifest cannot list.
    unlisted: u64,
    space: Option<Reservation>,
}

struct Failed {
    failure: Failure,
    is_archive_gone: bool,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, is_archive_gone: false }
    }
}

impl Work {
    /// It blocks.
    fn run(self) -> Result<Done, Failed> {
        let (workshop, meter) = (self.workshop.clone(), self.meter.clone());
        let done = self.extract();
        if done.is_err() {
            // Their space is free only when they are gone; what cannot be removed goes on to take it.
            match workshop.clear() {
                Ok(()) => drop(meter.end()),
                Err(_) => std::mem::forget(meter.end()),
            }
        }
        done
    }

    fn extract(mut self) -> Result<Done, Failed> {
        let name = self.head.name.clone();
        let not_noted = |error: io::Error| {
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let what = anyhow::anyhow!("{name}: cannot note what comes out: {error}");
            Failure::new(if is_full { Exit::Disk } else { Exit::Failed }, what)
        };
        self.workshop.clear()?;
        let listing = Listing {
            new: self.workshop.new_folder(),
            prefix: name.rfind('/').map_or(String::new(), |at| name[..=at].to_owned()),
            key: self.head.version.key.clone(),
            algorithm: self.algorithm,
            writer: Writer::create(&self.workshop.list(), self.head.clone()).map_err(not_noted)?,
            linked: HashMap::new(),
            unlisted: 0,
            error: None,
        };
        let listing = Arc::new(Mutex::new(listing));
        let (list, meter) = (listing.clone(), self.meter.clone());
        self.options.on_member = Some(Arc::new(move |member| {
            list.lock().unwrap_or_else(PoisonError::into_inner).add(member, &meter);
        }));
        let (list, meter) = (listing.clone(), self.meter.clone());
        self.options.on_write = Some(Arc::new(move |bytes| {
            // What is not listed would not be known to be there.
            match list.lock().unwrap_or_else(PoisonError::into_inner).error.take() {
                Some(error) => Err(error),
                None => meter.grant(bytes),
            }
        }));
        let archive = File::open(&self.archive).map_err(|error| {
            Failure::new(Exit::Failed, anyhow::anyhow!("cannot open {}: {error}", self.archive.display()))
        })?;
        let extracted = bulk_archive::extract(archive, &name, &self.workshop.new_folder(), &self.options);
        // Nothing else has it any more.
        (self.options.on_member, self.options.on_write) = (None, None);
        let extracted = extracted.map_err(|error| self.failed(error))?;
        let listing =
            Arc::into_inner(listing).map(|listing| listing.into_inner().unwrap_or_else(PoisonError::into_inner));
        let Some(Listing { writer, unlisted, error, .. }) = listing else {
            return Err(not_noted(io::ErrorKind::Other.into()).into());
        };
        error.map_or(Ok(()), Err).map_err(not_noted)?;
        let head = writer.finish(self.meter.written()).map_err(not_noted)?;
        let left = self.workshop.put_in_place(&head)?;
        Ok(Done { extracted, head, left, unlisted, space: self.meter.end() })
    }

    fn failed(&self, error: bulk_archive::Error) -> Failed {
        let name = &self.head.name;
        if self.meter.is_stopped() {
            return Failure::new(Exit::Interrupted, anyhow::anyhow!("{name}: stopped")).into();
        }
        let is_damaged = matches!(
            error,
            bulk_archive::Error::Truncated { .. }
                | bulk_archive::Error::Corrupt { .. }
                | bulk_archive::Error::TarTruncated { .. }
        );
        let is_full = matches!(
            &error,
            bulk_archive::Error::Write { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        );
        let mut failure = Failure::new(if is_full { Exit::Disk } else { Exit::Failed }, error);
        if !is_damaged {
            return failure.into();
        }
        if let Err(error) = remove_staged(&self.folder, name) {
            return Failure::from(error).into();
        }
        let hint = "damaged; it is fetched again by the next run, and if that fails alike, it was published so";
        failure.error = failure.error.context(hint);
        Failed { failure, is_archive_gone: true }
    }
}

/// Notes what comes out of an archive.
struct Listing {
    /// Where it comes out.
    new: PathBuf,
    /// The folder of the archive's name.
    prefix: String,
    key: String,
    algorithm: Algorithm,
    writer: Writer,
    /// Digests of files that hard links were made to.
    linked: HashMap<u64, Digest>,
    unlisted: u64,
    error: Option<io::Error>,
}

impl Listing {
    fn add(&mut self, member: &Member<'_>, meter: &Meter) {
        if self.error.is_none() {
            self.error = self.try_add(member, meter).err();
        }
    }

    fn try_add(&mut self, member: &Member<'_>, meter: &Meter) -> io::Result<()> {
        let (bytes, digest) = match (member.kind, member.digest) {
            (MemberKind::File, digest) => (member.bytes, digest.and_then(|digest| digest.parse().ok())),
            (MemberKind::HardLink, _) => self.of_link(&self.new.join(member.path), meter)?,
            (MemberKind::Symlink, _) => return self.writer.add(&Line::other(&self.encoded(member.path))),
            _ => return Ok(()),
        };
        let Some(path) = member.path.to_str() else {
            self.unlisted += 1;
            return self.writer.add(&Line::other(&self.encoded(member.path)));
        };
        let mut entry = ManifestEntry::new(self.key.clone(), bytes);
        entry.name = format!("{}{path}", self.prefix);
        entry.digest = digest;
        entry.fetched_at = Some(Timestamp::now());
        self.writer.add(&Line::File(entry))
    }

    fn encoded(&self, path: &Path) -> Vec<u8> {
        [self.prefix.as_bytes(), path.as_os_str().as_encoded_bytes()].concat()
    }

    /// The size and the digest of a file that a hard link was made to.
    fn of_link(&mut self, path: &Path, meter: &Meter) -> io::Result<(u64, Option<Digest>)> {
        let metadata = fs::symlink_metadata(path)?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        if let Some(digest) = self.linked.get(&inode) {
            return Ok((metadata.len(), Some(*digest)));
        }
        let mut hasher = Hasher::new(&[self.algorithm]);
        io::copy(&mut File::open(path)?, &mut Stopping(&mut hasher, meter))?;
        let digest = hasher.finish().into_iter().next();
        if self.linked.len() < MOST_LINKED {
            self.linked.extend(digest.map(|digest| (inode, digest)));
        }
        Ok((metadata.len(), digest))
    }
}

/// A hasher that ends when the run is stopped.
struct Stopping<'a>(&'a mut Hasher, &'a Meter);

impl Write for Stopping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of one file that comes out, as the manifest writes it.
struct FileDigest(Hasher);

impl ContentDigest for FileDigest {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> String {
        self.0.finish().first().map(Digest::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_stands_beside_the_archive() {
        let cases = [
            ("x.d/readme", None),
            ("x/a.csv.bz2", Some((Codec::Bzip2, "x/a.csv"))),
            ("x/y/a.tar.gz", Some((Codec::Gzip, "x/y/a"))),
            ("a.tgz.gz", Some((Codec::Gzip, "a"))),
        ];
        for (name, expected) in cases {
            assert_eq!(named(name), expected.map(|(codec, output)| (codec, output.to_owned())), "{name}");
        }
    }

    #[test]
    fn ratios_are_usual_ones_until_they_are_learned() {
        let ratios = Ratios::default();
        let mut request = Request::new("a.csv.bz2");
        request.size = Some(1000);
        assert_eq!(ratios.expected(&request), 6000);
        let mut extracted = Extracted::default();
        (extracted.compressed_bytes, extracted.bytes) = (100, 1000);
        ratios.learn(Codec::Bzip2, &extracted);
        assert_eq!(ratios.expected(&request), 11_000);
        request.name = "a.csv".to_owned();
        assert_eq!(ratios.expected(&request), 0);
    }

    #[test]
    fn what_would_overwrite_something_is_refused() {
        let refused = |names: &[&str]| {
            let requests: Vec<_> = names.iter().map(|name| Request::new(*name)).collect();
            refuse_collisions(&requests).err().map(|failure| failure.error.to_string())
        };
        assert_eq!(refused(&["a.csv.bz2", "b.csv", "a/b.tar"]), None);
        assert!(refused(&["a.csv.bz2", "a.csv.gz"]).unwrap().contains("a.csv.bz2 and a.csv.gz"));
        assert!(refused(&["a.csv.bz2", "a.csv"]).is_some());
        assert!(refused(&["a.tgz.gz", "a.tar"]).unwrap().contains("would both be extracted to a;"));
        assert!(refused(&["a.tar", "a/b.csv"]).unwrap().contains("a.tar would be extracted to a, where a/b.csv goes"));
        for reserved in ["manifest.json.gz", ".bulk.tar", ".bulk-extract/new.gz", ".tar", "x/.tar.gz", "...gz"] {
            assert!(refused(&[reserved]).is_some(), "{reserved}");
        }
    }
}
