use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use crate::hasher::State;
use crate::manifest::MANIFEST;
use crate::source::is_inside;
use crate::{Digest, Error, Event, Manifest, ManifestEntry, Observer};

/// Files that may be checked ahead of the reader.
const WINDOW: usize = 1024;
const READ: usize = 256 * 1024;

/// What a file should be, by a manifest or a [checksum list](crate::Sums).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its path below the folder.
    pub name: String,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
    /// The digest of its bytes, if known.
    pub digest: Option<Digest>,
}

impl From<ManifestEntry> for Expected {
    fn from(entry: ManifestEntry) -> Self {
        Self { name: entry.name, size: Some(entry.size), digest: entry.digest }
    }
}

/// What became of a file since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Its size, where one is expected, and its digest are the expected ones.
    Ok,
    /// There is no file of that name.
    Missing,
    /// It has another size. Its bytes were not read, unless the size changed in the meantime.
    SizeDiffers {
        /// Bytes.
        expected: u64,
        /// Bytes.
        found: u64,
    },
    /// It has other bytes.
    DigestDiffers {
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// It is there, and of the expected size where one is expected, but no digest says what its bytes should be.
    Unverifiable,
}

/// A file that was looked at.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Its path below the folder.
    pub name: String,
    /// How it is. An error says why that cannot be told: [`Error::Name`] for a name that leaves the folder, [`Error::Io`]
    /// if the file cannot be read, [`Error::Interrupted`] if the observer panicked over it.
    pub verdict: Result<Verdict, Error>,
}

/// The knobs of [`verify_folder`] and [`verify_files`].
#[derive(Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Files read at once, each by one thread. Default the number of processors; 0 counts as 1.
    pub threads: usize,
    /// Who is told of bytes that were read, as [`Event::Progress`]; there are no other events. Default nobody.
    pub observer: Arc<dyn Observer>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { threads, observer: Arc::new(()) }
    }
}

/// Checks the files of `folder` against its `manifest.json`.
///
/// Files that the manifest does not name are not looked at. For the rest see [`verify_files`].
///
/// # Errors
///
/// [`Error::Io`] if there is no manifest, or it is no JSON array.
pub fn verify_folder(folder: impl Into<PathBuf>, options: VerifyOptions) -> Result<Verification, Error> {
    let folder = folder.into();
    let manifest = Manifest::open(folder.join(MANIFEST))?;
    Ok(verify_files(folder, manifest.map(|entry| entry.map(Expected::from)), options))
}

/// Checks files of `folder` against what they are expected to be, over several threads.
///
/// The results come in the order of `expected`, one for each. It is read as work proceeds, at most 1024 files ahead of
/// the reader, so it may be endless. Work starts with the first call of [`Iterator::next`], which blocks. Symbolic links
/// are followed; what is no regular file is [`Verdict::Missing`].
pub fn verify_files<I>(folder: impl Into<PathBuf>, expected: I, options: VerifyOptions) -> Verification
where
    I: IntoIterator<Item = Result<Expected, Error>>,
    I::IntoIter: Send + 'static,
{
    let is_stopped = Arc::new(AtomicBool::new(false));
    let (jobs, receiver) = mpsc::channel::<Job>();
    let checker = Checker { folder: folder.into(), observer: options.observer, is_stopped: is_stopped.clone() };
    Verification {
        expected: Some(Box::new(expected.into_iter())),
        checker: Arc::new(checker),
        threads: options.threads.max(1),
        spawned: 0,
        jobs: Some(jobs),
        receiver: Some(Arc::new(Mutex::new(receiver))),
        front: VecDeque::new(),
        is_stopped,
    }
}

/// The results of [`verify_folder`] and [`verify_files`]. An item that is an error says that what is expected cannot be
/// read any further, and is the last one.
///
/// Dropping it stops the threads at their next block of 256 KiB, without waiting for them.
pub struct Verification {
    expected: Option<Box<dyn Iterator<Item = Result<Expected, Error>> + Send>>,
    checker: Arc<Checker>,
    threads: usize,
    spawned: usize,
    jobs: Option<mpsc::Sender<Job>>,
    /// Gone when no more threads are spawned: if all of them panic, what they leave undone goes with them.
    receiver: Option<Arc<Mutex<mpsc::Receiver<Job>>>>,
    /// The files under way, in order.
    front: VecDeque<Result<Pending, Error>>,
    is_stopped: Arc<AtomicBool>,
}

struct Pending {
    name: String,
    verdict: mpsc::Receiver<Result<Verdict, Error>>,
}

struct Job {
    expected: Expected,
    verdict: mpsc::SyncSender<Result<Verdict, Error>>,
}

impl Verification {
    /// Hands out work up to the window.
    fn fill(&mut self) {
        while self.front.len() < WINDOW {
            let Some(expected) = self.expected.as_mut().and_then(Iterator::next) else {
                self.end();
                return;
            };
            let expected = match expected {
                Ok(expected) => expected,
                Err(error) => {
                    self.front.push_back(Err(error));
                    self.end();
                    return;
                }
            };
            if let Some(receiver) = self.receiver.clone() {
                let checker = self.checker.clone();
                thread::spawn(move || checker.work(&receiver));
                self.spawned += 1;
                if self.spawned == self.threads {
                    self.receiver = None;
                }
            }
            let (sender, verdict) = mpsc::sync_channel(1);
            self.front.push_back(Ok(Pending { name: expected.name.clone(), verdict }));
            if let Some(jobs) = &self.jobs {
                // It fails if all threads panicked; the verdict's channel is closed then.
                let _ = jobs.send(Job { expected, verdict: sender });
            }
        }
    }

    /// No more work follows; threads end when they have done what there is.
    fn end(&mut self) {
        self.expected = None;
        self.jobs = None;
        self.receiver = None;
    }
}

impl Iterator for Verification {
    type Item = Result<Verified, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        let Pending { name, verdict } = match self.front.pop_front()? {
            Ok(pending) => pending,
            Err(error) => return Some(Err(error)),
        };
        let verdict = verdict.recv().unwrap_or_else(|_| Err(Error::Interrupted { location: name.clone() }));
        Some(Ok(Verified { name, verdict }))
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

struct Checker {
    folder: PathBuf,
    observer: Arc<dyn Observer>,
    is_stopped: Arc<AtomicBool>,
}

impl Checker {
    fn work(&self, jobs: &Mutex<mpsc::Receiver<Job>>) {
        let mut buffer = vec![0; READ];
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { expected, verdict }) = job else { return };
            if self.is_stopped.load(Ordering::Relaxed) {
                return;
            }
            // The reader may be gone.
            let _ = verdict.send(self.check(&expected, &mut buffer));
        }
    }

    fn check(&self, expected: &Expected, buffer: &mut [u8]) -> Result<Verdict, Error> {
        let Expected { name, size, digest } = expected;
        if !is_inside(name) {
            return Err(Error::Name { name: name.clone(), reason: "it leaves the folder" });
        }
        let path = self.folder.join(name);
        let failed = |error| Error::io("read", &path, error);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(Verdict::Missing),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Verdict::Missing);
            }
            Err(error) => return Err(failed(error)),
        };
        let differs = |found| size.filter(|expected| *expected != found).map(|expected| (expected, found));
        if let Some((expected, found)) = differs(metadata.len()) {
            return Ok(Verdict::SizeDiffers { expected, found });
        }
        let Some(expected) = digest else { return Ok(Verdict::Unverifiable) };
        let mut file = File::open(&path).map_err(failed)?;
        let mut state = State::new(expected.algorithm());
        let mut read = 0;
        loop {
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(Error::Interrupted { location: name.clone() });
            }
            let len = match file.read(buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            state.update(&buffer[..len]);
            read += len as u64;
            self.observer.event(&Event::Progress { name, bytes: len as u64 });
        }
        if let Some((expected, found)) = differs(read) {
            return Ok(Verdict::SizeDiffers { expected, found });
        }
        let (expected, found) = (*expected, state.finish());
        Ok(if found == expected { Verdict::Ok } else { Verdict::DigestDiffers { expected, found } })
    }
}
