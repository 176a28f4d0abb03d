//! What all tasks of one download share.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::Notify;

use crate::folder_lock::FolderLock;
use crate::pace::Pace;
use crate::queue::{Phase, Queue, Save};
use crate::{DiskBudget, DownloadOptions, Error, Event, Shortage, Source};

pub(crate) struct Run {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) folder: PathBuf,
    pub(crate) options: DownloadOptions,
    pub(crate) budget: DiskBudget,
    pub(crate) pace: Pace,
    queue: Mutex<Queue>,
    /// For workers: something may be there for them.
    pub(crate) news: Notify,
    /// For threads that read: bytes arrived, or will not.
    pub(crate) bytes: Condvar,
    /// The task that polls the stream.
    pub(crate) consumer: AtomicWaker,
    /// That nobody else uses the folder, or why this one may not.
    lock: OnceLock<Result<FolderLock, Error>>,
}

impl Run {
    pub(crate) fn new(source: Arc<dyn Source>, folder: PathBuf, options: DownloadOptions, queue: Queue) -> Self {
        Self {
            source,
            folder,
            budget: queue.budget().clone(),
            pace: Pace::new(options.concurrency, options.retry.timeout),
            options,
            queue: Mutex::new(queue),
            news: Notify::new(),
            bytes: Condvar::new(),
            consumer: AtomicWaker::new(),
            lock: OnceLock::new(),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes may have arrived.
    pub(crate) fn wait_for_bytes<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.bytes.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock(&self, lock: Result<FolderLock, Error>) {
        // It is called once.
        let _ = self.lock.set(lock);
    }

    /// Why the folder cannot be used, if it cannot.
    pub(crate) fn check_folder(&self) -> Result<(), Error> {
        match self.lock.get() {
            Some(Err(Error::Io { action, path, source })) => {
                Err(Error::Io { action, path: path.clone(), source: copy(source) })
            }
            Some(Err(_)) => Err(Error::Locked { folder: self.folder.clone() }),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.options.stop.is_cancelled()
    }

    pub(crate) fn event(&self, event: &Event<'_>) {
        self.options.observer.event(event);
    }

    /// Wakes all, because any of them may be concerned.
    pub(crate) fn changed(&self) {
        self.news.notify_waiters();
        self.arrived();
    }

    /// Wakes those who wait for bytes or files.
    pub(crate) fn arrived(&self) {
        self.bytes.notify_all();
        self.consumer.wake();
    }

    /// Ends the work and all reading at once.
    pub(crate) fn end(&self) {
        self.queue().close();
        self.changed();
    }

    /// Ends the reading of a file, whatever its state.
    pub(crate) fn close(self: &Arc<Self>, place: u64) {
        let mut queue = self.queue();
        let drops = queue.drops();
        let save = if drops { None } else { queue.last_save(place) };
        let Some(mut file) = queue.remove(place) else { return };
        if !drops && !matches!(file.phase, Phase::Done(_)) {
            queue.keep(&mut file);
        }
        drop(queue);
        self.changed();
        if let Some(paths) = file.paths.as_ref().filter(|_| drops && !file.reader.is_recorded && !file.was_staged) {
            // What cannot be removed is found by the next run.
            let _ = file.next_turn().take(|| paths.clear());
        }
        if let Some(Save { paths, part, record, turn }) = save {
            // The folder is in use as long.
            let run = self.clone();
            // Its reader may be async code, which is not to wait for a disk. Without a thread the record before it stays.
            let _ = std::thread::Builder::new().spawn(move || {
                let _ = part.sync().and_then(|()| turn.take(|| paths.write_record(&record, true)));
                drop(run);
            });
        }
    }

    /// Gives back the disk space of what nobody needs any more of a file.
    pub(crate) fn drop_consumed(&self, place: u64) {
        let to_drop = self.queue().take_consumed(place);
        if let Some((part, start, end)) = to_drop
            && part.punch(start, end)
        {
            self.queue().dropped(place, end - start);
        }
        // The window may have room again.
        self.news.notify_one();
    }

    /// For one who waits for disk space: says so, if that is a pause that begins. How long it may last yet; `None` if it
    /// lasted too long.
    pub(crate) fn stands(&self, shortage: &Shortage) -> Option<Duration> {
        let (left, begins) = self.queue().stand();
        if begins {
            self.event(&Event::Paused { shortage });
        }
        left
    }

    /// Says that a pause is over, if one is: by bytes that were written, or because a file `is_whole`.
    pub(crate) fn goes_on(&self, is_whole: bool) {
        let resumed = self.queue().go_on(is_whole);
        if let Some(waited) = resumed {
            self.event(&Event::Resumed { waited });
        }
    }

    /// Why there is no room for `bytes`, where the system says so.
    pub(crate) fn shortage(&self, bytes: u64) -> Shortage {
        self.budget.shortage(bytes).unwrap_or(Shortage {
            needed: bytes,
            available: 0,
            // A quota, or blocks that the system keeps for itself.
            free: None,
            total: None,
            reserve: self.budget.reserved_free(),
            limit: self.budget.limit(),
            held: self.budget.held(),
            unwritten: self.budget.unwritten(),
            claimed: 0,
            is_lasting: false,
        })
    }
}

/// The same error for another file.
fn copy(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

/// What a task gave; `None` if the runtime ends. Its panic goes on here.
pub(crate) fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Option<T> {
    match result.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(given) => Some(given),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}
