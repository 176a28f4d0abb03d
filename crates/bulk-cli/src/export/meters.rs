//! The meters of an export.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use bulk_archive::ExportEvent;
use bulk_core::{Resource, StageMeter, Wait, WorkerMeter};
use bulk_s3::SetEvent;

use crate::meters::{RunMeters, STAGE};

/// The stage of a group whose blocks other threads compress: it says what is in them, and writes them.
const COMPOSE: &str = "compose";

/// Who works at an export: one thread that reads and stages, those that make archives, and one that gives these their names.
pub(super) struct ExportMeters {
    meters: RunMeters,
    staging: Mutex<Option<Staging>>,
    /// The groups that are worked on, by the threads that do, and the threads that compress for those.
    making: Mutex<HashMap<ThreadId, Making>>,
    compressing: Mutex<HashMap<ThreadId, WorkerMeter>>,
    publishing: Mutex<Option<WorkerMeter>>,
    uploads: Mutex<HashMap<String, WorkerMeter>>,
}

/// A thread that makes an archive.
struct Making {
    worker: WorkerMeter,
    /// Whether others may compress for it.
    has_compressors: bool,
}

/// The thread that stages. While it reads rows, the one worker waits for the other.
struct Staging {
    stage: WorkerMeter,
    rows: Option<WorkerMeter>,
}

impl ExportMeters {
    pub(super) fn new(meters: &RunMeters) -> Self {
        meters.are_read_by(STAGE);
        let meters = meters.clone();
        let (staging, publishing) = (Mutex::default(), Mutex::default());
        let (making, compressing, uploads) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { meters, staging, making, compressing, publishing, uploads }
    }

    /// This thread stages what it reads of a file.
    pub(super) fn begin_staging(&self) -> WorkerMeter {
        let stage = self.meters.stage(STAGE, &[Resource::Cpu, Resource::Disk], &[]).worker();
        *lock(&self.staging) = Some(Staging { stage: stage.clone(), rows: None });
        stage
    }

    /// This thread stages rows of a database.
    pub(super) fn begin_staging_rows(&self) {
        let rows = self.meters.stage("read", &[Resource::Server], &[]);
        rows.set_workers_of(STAGE);
        let rows = rows.worker();
        rows.wait_begins(Wait::Output);
        let stage = self.meters.stage(STAGE, &[Resource::Cpu, Resource::Disk], &["read"]).worker();
        *lock(&self.staging) = Some(Staging { stage, rows: Some(rows) });
    }

    /// Waits for rows of the database.
    pub(super) fn reading<T>(&self, read: impl FnOnce() -> T) -> T {
        let Some((stage, rows)) = self.workers() else { return read() };
        let read = || match &rows {
            Some(rows) => {
                rows.wait_begins(Wait::Server);
                let read = read();
                rows.wait_begins(Wait::Output);
                read
            }
            None => read(),
        };
        stage.wait(Wait::Input, read)
    }

    /// Counts what is staged.
    pub(super) fn staged(&self, items: u64) {
        if let Some((stage, rows)) = self.workers() {
            stage.add(items, 0);
            if let Some(rows) = rows {
                rows.add(items, 0);
            }
        }
    }

    fn workers(&self) -> Option<(WorkerMeter, Option<WorkerMeter>)> {
        lock(&self.staging).as_ref().map(|staging| (staging.stage.clone(), staging.rows.clone()))
    }

    /// All is staged, and this thread has archives made.
    pub(super) fn end_staging(&self) {
        *lock(&self.staging) = None;
    }

    /// All is as it should be in the folder, or it cannot be.
    pub(super) fn end_publishing(&self) {
        lock(&self.making).clear();
        lock(&self.compressing).clear();
        *lock(&self.publishing) = None;
    }

    pub(super) fn on_export(&self, event: &ExportEvent<'_>) {
        match *event {
            ExportEvent::Begun { threads, .. } => {
                let has_compressors = threads > 1;
                let stage = match has_compressors {
                    false => self.compress(),
                    true => self.meters.stage(COMPOSE, &[Resource::Cpu, Resource::Disk], &[]),
                };
                let making = Making { worker: stage.worker(), has_compressors };
                lock(&self.making).insert(thread::current().id(), making);
            }
            ExportEvent::CompressorWaits => {
                let mut compressing = lock(&self.compressing);
                let worker = compressing.entry(thread::current().id()).or_insert_with(|| {
                    let stage = self.compress();
                    self.meters.stage("compress", &[], &[COMPOSE]);
                    stage.worker()
                });
                worker.wait_begins(Wait::Input);
            }
            ExportEvent::Compresses => {
                if let Some(worker) = lock(&self.compressing).get(&thread::current().id()) {
                    worker.wait_ends();
                }
            }
            ExportEvent::CompressorEnds => drop(lock(&self.compressing).remove(&thread::current().id())),
            ExportEvent::WaitsForCompressor => {
                if let Some(making) = lock(&self.making).get(&thread::current().id()) {
                    making.worker.wait_begins(Wait::Output);
                }
            }
            ExportEvent::GoesOn => {
                if let Some(making) = lock(&self.making).get(&thread::current().id()) {
                    making.worker.wait_ends();
                }
            }
            ExportEvent::Made { entries, bytes, .. } => {
                if let Some(Making { worker, has_compressors }) = lock(&self.making).remove(&thread::current().id()) {
                    worker.add(entries, bytes);
                    if has_compressors {
                        self.compress().worker().add(entries, bytes);
                    }
                }
            }
            ExportEvent::Untouched { .. } | ExportEvent::Emptied { .. } => {
                lock(&self.making).remove(&thread::current().id());
            }
            ExportEvent::Prepared => {
                *lock(&self.publishing) = Some(self.meters.stage("publish", &[Resource::Disk], &[]).worker());
            }
            ExportEvent::Renamed { .. } | ExportEvent::Removed { .. } => {
                if let Some(worker) = &*lock(&self.publishing) {
                    worker.add(1, 0);
                }
            }
            _ => {}
        }
    }

    fn compress(&self) -> StageMeter {
        self.meters.stage("compress", &[Resource::Cpu, Resource::Disk], &[])
    }

    pub(super) fn on_upload(&self, event: &SetEvent<'_>) {
        match event {
            SetEvent::Begun { file } => {
                let worker = self.meters.stage("upload", &[Resource::Network, Resource::Server], &[]).worker();
                worker.wait_begins(Wait::Network);
                lock(&self.uploads).insert(file.name.clone(), worker);
            }
            SetEvent::Sent { file, bytes } | SetEvent::Copied { file, bytes } => {
                if let Some(worker) = lock(&self.uploads).get(&file.name) {
                    worker.add(0, *bytes);
                }
            }
            SetEvent::Put { file } => {
                if let Some(worker) = lock(&self.uploads).remove(&file.name) {
                    worker.add(1, 0);
                }
            }
            _ => {}
        }
    }

    /// Nothing more is uploaded.
    pub(super) fn end_uploads(&self) {
        lock(&self.uploads).clear();
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
