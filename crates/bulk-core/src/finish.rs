//! The end of a file: its digests are compared, its bytes synced, and it gets its final name.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::folder::sync_folder;
use crate::meter::StageMeter;
use crate::part::{PartFile, Record};
use crate::queue::{DISK_POLL, Finish, RECORD};
use crate::retry::retry_when;
use crate::run::{Run, joined};
use crate::span::in_span;
use crate::{Algorithm, Digest, DownloadOptions, Error, Event, Hasher};

/// Files that are finished together at most, and that may wait for it.
const TOGETHER: usize = 512;
/// Of these, how many are finished at once.
const BATCHES: usize = 2;
/// From so many on, one sync of the whole file system is cheaper than one for each file.
const SYNC_AT_ONCE: usize = 8;
/// A file of this size or less is hashed when it is whole; a larger one while its bytes arrive.
const SMALL: u64 = 8 << 20;
const READ: usize = 256 * 1024;

/// Hands whole files to the task that finishes them.
#[derive(Clone)]
pub(crate) struct Finisher {
    files: mpsc::Sender<Finish>,
}

impl Finisher {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Finish>) {
        let (files, receiver) = mpsc::channel(TOGETHER);
        (Self { files }, receiver)
    }

    pub(crate) async fn finish(&self, finish: Finish) {
        // Without a receiver the download is over.
        let _ = self.files.send(finish).await;
    }

    /// Has the bytes of a large file hashed in their order while they arrive, if that is needed to check them.
    pub(crate) fn follow(&self, run: &Arc<Run>, place: u64, generation: u32) {
        let mut queue = run.queue();
        let keeps = !queue.drops();
        let Some(file) = queue.file(place, generation).filter(|file| file.is_open()) else { return };
        let known = [&file.digests[..], &file.request.digests].concat();
        let algorithms = in_order(&known, &run.options.digests);
        // What is dropped cannot be read when it is whole.
        let is_small = keeps && file.size().is_some_and(|size| size <= SMALL);
        if file.is_followed || algorithms.is_empty() || is_small {
            return;
        }
        file.is_followed = true;
        drop(queue);
        let (following, finisher) = (Arc::downgrade(run), self.clone());
        // Not one of the runtime's threads, of which those that write must have enough.
        let follow = move || finisher.follow_file(&following, place, generation, &algorithms);
        if std::thread::Builder::new().spawn(follow).is_err()
            && let Some(file) = run.queue().file(place, generation)
        {
            file.is_followed = false;
        }
    }

    fn follow_file(&self, run: &Weak<Run>, place: u64, generation: u32, algorithms: &[Algorithm]) {
        let mut hasher = Hasher::new(algorithms);
        let mut buffer = vec![0; READ];
        let mut position = 0;
        loop {
            let Some(run) = run.upgrade() else { return };
            if run.is_stopped() {
                // Most of it may be left to read, and a stop is to be soon.
                return;
            }
            let mut queue = run.queue();
            let (part, readable) = loop {
                if queue.is_closed {
                    return;
                }
                // Begun anew, failed, or gone.
                let Some(file) = queue.file(place, generation).filter(|file| file.is_open()) else { return };
                let readable = file.readable(position);
                if let (Some(part), 1..) = (&file.part, readable) {
                    break (part.clone(), readable);
                }
                if file.version.is_some() && file.size() == Some(position) {
                    file.followed = Some(hasher.finish());
                    let finish = queue.complete(place);
                    drop(queue);
                    if let Some(finish) = finish {
                        let _ = self.files.blocking_send(finish);
                    }
                    return;
                }
                if queue.is_deserted {
                    return;
                }
                queue = run.wait_for_bytes(queue);
            };
            drop(queue);
            let wanted = buffer.len().min(usize::try_from(readable).unwrap_or(usize::MAX));
            match part.read_at(&mut buffer[..wanted], position) {
                Ok(read @ 1..) => {
                    hasher.update(&buffer[..read]);
                    position += read as u64;
                    run.queue().followed(place, generation, position);
                    run.drop_consumed(place);
                }
                read => {
                    let source = read.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
                    run.queue().fail(place, Error::io("read", part.path(), source));
                    run.changed();
                    return;
                }
            }
        }
    }
}

/// The algorithms of `stated` and `wanted` that need the bytes in their order. The CRC-64 is put together from pieces.
fn in_order(stated: &[Digest], wanted: &[Algorithm]) -> Vec<Algorithm> {
    let mut algorithms: Vec<_> = stated.iter().map(Digest::algorithm).chain(wanted.iter().copied()).collect();
    algorithms.retain(|algorithm| *algorithm != Algorithm::Crc64Nvme);
    algorithms.sort_unstable();
    algorithms.dedup();
    algorithms
}

/// Finishes the files that come, several at a time.
pub(crate) async fn finish_all(run: Arc<Run>, mut files: mpsc::Receiver<Finish>) {
    // Nobody else does this, so the others would wait for it.
    let _end = EndIfPanicking(&run);
    // Those of which the source is asked what it states: who waits for an answer holds nobody up.
    let mut asking = JoinSet::new();
    let questions = Arc::new(Semaphore::new(run.options.concurrency.min(Semaphore::MAX_PERMITS)));
    let mut finishing = JoinSet::new();
    let (mut come, mut ready) = (Vec::new(), Vec::new());
    let mut is_open = true;
    while is_open || !asking.is_empty() {
        tokio::select! {
            count = files.recv_many(&mut come, TOGETHER), if is_open && asking.len() < TOGETHER => is_open = count > 0,
            Some(answered) = asking.join_next() => ready.extend(joined(answered).flatten()),
            Some(ended) = finishing.join_next() => drop(joined(ended)),
        }
        while let Some(answered) = asking.try_join_next() {
            ready.extend(joined(answered).flatten());
        }
        for finish in come.drain(..) {
            if finish.stated.is_empty() && finish.fetched > 0 {
                asking.spawn(ask_for_digests(run.clone(), questions.clone(), finish));
            } else {
                ready.push(finish);
            }
        }
        if !ready.is_empty() {
            // Two batches at once: while one waits for the disk, the other has work to do.
            while finishing.len() >= BATCHES {
                finishing.join_next().await.and_then(joined);
            }
            finishing.spawn(finish_batch(run.clone(), std::mem::take(&mut ready)));
        }
    }
    while let Some(finished) = finishing.join_next().await {
        joined(finished);
    }
}

async fn finish_batch(run: Arc<Run>, mut files: Vec<Finish>) {
    while !files.is_empty() {
        let (finishing, finisher) = (std::mem::take(&mut files), run.clone());
        let finishing = tokio::task::spawn_blocking(move || {
            let is_kept = !finisher.queue().drops();
            let worker = finisher.options.finish_meter.as_ref().map(StageMeter::worker);
            let results = finish(finishing, &finisher.options, is_kept);
            if let Some(worker) = worker {
                let sizes = results.iter().map(|(finish, _)| finish.record.ranges.total());
                worker.add(results.len() as u64, sizes.sum());
            }
            // The folder is in use until now, also if nobody waits for it any more.
            drop(finisher);
            results
        });
        let finishing = in_span!("finish", {}, finishing);
        let Some(results) = joined(finishing.await) else { return };
        let mut short = Vec::new();
        for (finish, result) in results {
            match result {
                Err(error) if error.is_disk_full() => short.push(finish),
                Err(Error::Interrupted { .. }) => run.queue().reopen(finish.place, finish.generation),
                result => finished(&run, &finish, result),
            }
        }
        run.changed();
        files = wait_for_disk(&run, short).await;
    }
}

/// Asks the source what it states of a file of which it stated nothing yet. `None` if the run is to stop before it answers:
/// what was not asked is not known to be right.
async fn ask_for_digests(run: Arc<Run>, questions: Arc<Semaphore>, mut finish: Finish) -> Option<Finish> {
    let version = finish.record.version.strong_etag();
    let ask = || async {
        let result = run.source.digests(&finish.request.key, version).await;
        run.pace.observe(&result);
        (result, false)
    };
    let name = finish.request.name.as_str();
    let on_retry = |attempt, delay, error: &Error| run.event(&Event::Retry { name, attempt, delay, error });
    let asking = async {
        // Not the permits of those who fetch: they may wait for this very file to be taken from them. It is never closed.
        let _permit = questions.acquire().await;
        retry_when(&run.options.retry, || run.pace.ready(), tokio::time::sleep, on_retry, ask).await
    };
    match run.options.stop.run_until_cancelled(asking).await {
        Some(Ok(stated)) => finish.stated = stated,
        // Without an answer there is nothing to compare, as with sources that have no digests.
        Some(Err(error)) => run.event(&Event::Unchecked { name, error: &error }),
        None => {
            run.queue().reopen(finish.place, finish.generation);
            return None;
        }
    }
    Some(finish)
}

/// Says what became of a file.
fn finished(run: &Run, finish: &Finish, result: Result<(PathBuf, Record), Error>) {
    let name = finish.request.name.as_str();
    if let Err(Error::Corrupt { what, .. }) = &result {
        let anew = run.queue().corrupt(finish.place, finish.generation);
        if let Some(discarded) = anew {
            run.event(&Event::Restarted { name, reason: what, discarded });
            return;
        }
    }
    match &result {
        Ok(_) => {
            run.goes_on(true);
            let elapsed = finish.started.elapsed();
            run.event(&Event::Finished { name, size: finish.size, fetched: finish.fetched, elapsed });
        }
        Err(error) => run.event(&Event::Failed { name, error }),
    }
    run.queue().finished(finish.place, finish.generation, result);
}

/// Waits until the disk may have room for what was `short` of it. What is to be tried again then: all, or nothing if it
/// took too long or the run is to stop.
async fn wait_for_disk(run: &Arc<Run>, short: Vec<Finish>) -> Vec<Finish> {
    if short.is_empty() {
        return short;
    }
    let changed = run.budget.changed();
    let shortage = run.shortage(RECORD);
    {
        let mut queue = run.queue();
        short.iter().for_each(|finish| queue.set_unfinished(finish.place, finish.generation));
    }
    // A worker makes room, if what is behind the front has some.
    run.news.notify_waiters();
    let Some(left) = run.stands(&shortage) else {
        for finish in &short {
            let (name, shortage) = (finish.request.name.clone(), Box::new(shortage.clone()));
            finished(run, finish, Err(Error::Space { name, shortage }));
        }
        run.changed();
        return Vec::new();
    };
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep(left.min(DISK_POLL)) => {}
        () = run.options.stop.cancelled() => {
            let mut queue = run.queue();
            short.iter().for_each(|finish| queue.reopen(finish.place, finish.generation));
            return Vec::new();
        }
    }
    short
}

/// Ends the run if the task that has it panics.
struct EndIfPanicking<'a>(&'a Run);

impl Drop for EndIfPanicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

/// A file, and what became of it.
type Finished = (Finish, Result<(PathBuf, Record), Error>);

fn finish(batch: Vec<Finish>, options: &DownloadOptions, is_kept: bool) -> Vec<Finished> {
    let is_at_once = is_kept && batch.len() >= SYNC_AT_ONCE;
    // That of which there are many is not kept open.
    let mut any = None;
    let files: Vec<_> = batch
        .into_iter()
        .map(|finish| {
            let mut checked = check(&finish, options, is_kept);
            if let (true, Ok((part, _))) = (is_at_once, &mut checked) {
                any = any.take().or(part.take());
                *part = None;
            }
            if let Err(Error::Corrupt { .. } | Error::Unexpected { .. }) = &checked {
                // Neither a retry nor a later run is to go on with it. What cannot be removed fails again.
                let _ = finish.turn.take(|| finish.paths.clear());
            }
            (finish, checked)
        })
        .collect();
    let mut results = Vec::new();
    let mut folders = BTreeSet::new();
    let synced = any.is_some_and(|part: Arc<PartFile>| part.sync_file_system());
    for (finish, checked) in files {
        let result = checked.and_then(|(part, digests)| {
            let mut record = finish.record.clone();
            record.stated = Vec::new();
            record.digests = digests;
            record.fetched_at = Some(Timestamp::now());
            if is_kept {
                match part {
                    _ if synced => {}
                    Some(part) => part.sync()?,
                    None => PartFile::open(&finish.paths.part)?.sync()?,
                }
                // Its rename reaches the disk before that of the part, or the part is found beside it.
                finish.turn.take(|| finish.paths.write_last_record(&record))?;
                folders.extend(finish.paths.persist()?);
            }
            Ok((finish.paths.target.clone(), record))
        });
        results.push((finish, result));
    }
    for folder in &folders {
        if let Err(source) = sync_folder(folder) {
            let fails = |(finish, result): &mut Finished| {
                if result.is_ok() && finish.paths.target.parent() == Some(folder) {
                    let source = source.kind().into();
                    *result = Err(Error::Io { action: "sync", path: folder.clone(), source });
                }
            };
            results.iter_mut().for_each(fails);
        }
    }
    results
}

/// Compares what the source says of a file with what arrived. The file, if it is kept, and its digests.
fn check(
    finish: &Finish,
    options: &DownloadOptions,
    is_kept: bool,
) -> Result<(Option<Arc<PartFile>>, Vec<Digest>), Error> {
    let mut digests = finish.computed.clone().unwrap_or_default();
    digests.extend(finish.crc.map(Digest::Crc64Nvme));
    // What was read may be off the disk.
    let part = match (&finish.part, is_kept) {
        (_, false) => None,
        (Some(part), true) => Some(part.clone()),
        (None, true) => Some(Arc::new(PartFile::open(&finish.paths.part)?)),
    };
    if let Some(part) = &part {
        part.cut_to(finish.size)?;
        // What nobody has computed while the bytes arrived: because the source stated it later, the file is small, or some
        // of it came in an earlier run.
        let known = [&finish.stated[..], &finish.request.digests].concat();
        let mut missing = in_order(&known, &options.digests);
        missing.push(Algorithm::Crc64Nvme);
        missing.retain(|algorithm| digests.iter().all(|digest| digest.algorithm() != *algorithm));
        let interrupted = || Error::Interrupted { location: finish.request.name.clone() };
        digests.extend(hash(part, finish.size, &missing, &options.stop)?.ok_or_else(interrupted)?);
    }
    for stated in &finish.stated {
        if let Some(found) = digests.iter().find(|found| found.algorithm() == stated.algorithm())
            && found != stated
        {
            let what =
                format!("its {} is not the one that the server states ({found}, not {stated})", stated.algorithm());
            return Err(Error::Corrupt { location: finish.request.name.clone(), what });
        }
    }
    for expected in &finish.request.digests {
        if let Some(found) = digests.iter().find(|found| found.algorithm() == expected.algorithm())
            && found != expected
        {
            return Err(Error::Unexpected { name: finish.request.name.clone(), expected: *expected, found: *found });
        }
    }
    Ok((part, digests))
}

/// Reads a file for its digests; `None` if it is to stop.
fn hash(
    part: &PartFile,
    size: u64,
    algorithms: &[Algorithm],
    stop: &CancellationToken,
) -> Result<Option<Vec<Digest>>, Error> {
    let mut hasher = Hasher::new(algorithms);
    let mut buffer = vec![0; if algorithms.is_empty() { 0 } else { READ.min(size as usize) }];
    let mut position = 0;
    while position < size && !buffer.is_empty() {
        if stop.is_cancelled() {
            return Ok(None);
        }
        match part.read_at(&mut buffer, position) {
            Ok(read @ 1..) => {
                hasher.update(&buffer[..read]);
                position += read as u64;
            }
            read => {
                let source = read.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
                return Err(Error::io("read", part.path(), source));
            }
        }
    }
    Ok(Some(hasher.finish()))
}
