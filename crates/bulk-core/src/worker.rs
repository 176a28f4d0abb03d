//! Those who fetch: each takes what is first in the order and free, asks for it, and puts it into its part.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use crate::counted::counted;
use crate::finish::Finisher;
use crate::leftovers::Leftover;
use crate::meter::{StageMeter, Wait, WorkerMeter};
use crate::part::{Found, Lost, PartFile, Paths};
use crate::queue::{
    Accepted, Ask, Claimed, DISK_POLL, Discard, EVICTED, Ended, FileState, Next, Prepare, Save, Segment,
};
use crate::ranges::Range;
use crate::retry::retry_when;
use crate::run::{Run, joined};
use crate::span::in_span;
use crate::{Body, Crc64Nvme, Error, Event, Get, Request, remove_staged};

/// Bytes that one connection gathers before they are written.
const GATHER: usize = 512 * 1024;
/// How long bytes that are fewer wait for others, if more arrive at all.
const GATHER_TIME: Duration = Duration::from_millis(100);
/// How often it is seen whether the window has moved on.
const WINDOW_POLL: Duration = Duration::from_millis(50);

/// Works until nothing is left to do, or until it is told to stop.
pub(crate) async fn work(run: Arc<Run>, finisher: Finisher) {
    let meter = run.options.meter.as_ref().map(StageMeter::worker);
    match meter.clone() {
        // Between its polls it waits for the network, where nothing else is said.
        Some(worker) => worker.run(work_metered(&run, finisher, meter)).await,
        None => work_metered(&run, finisher, None).await,
    }
}

async fn work_metered(run: &Arc<Run>, finisher: Finisher, meter: Option<WorkerMeter>) {
    let worker = Worker { run, finisher, meter };
    loop {
        // There are fewer of them while the server asks for that.
        let permit = worker.waiting(Wait::Server, run.pace.permit()).await;
        // From here on no news is missed.
        let news = run.news.notified();
        let changed = run.budget.changed();
        let next = run.queue().next(run.is_stopped());
        match next {
            Next::Admit(mut plan) => {
                // Not under the lock: the iterator is the caller's code.
                let answer = std::panic::catch_unwind(AssertUnwindSafe(|| plan.next()));
                run.queue().admitted(answer.map(|request| request.map(|request| (plan, request))));
                run.changed();
            }
            next @ (Next::Prepare(_) | Next::Clear(..)) => worker.look_or_clear(next).await,
            Next::Fail { place, request, error } => {
                // The next run goes on behind what came of it.
                worker.put_away(place, &error).await;
                worker.fail(place, &request.name, error);
                run.changed();
            }
            Next::Fetch(segment, resumed) => {
                if let Some(waited) = resumed {
                    run.event(&Event::Resumed { waited });
                }
                // There may be more where this came from.
                run.news.notify_one();
                in_span!("segment", { file = %segment.request.name }, worker.fetch(segment)).await;
            }
            Next::Paused(shortage) => run.event(&Event::Paused { shortage: &shortage }),
            Next::Wait(time) => {
                drop(permit);
                let wait = if worker.meter.is_some() { run.queue().idles_for() } else { Wait::Input };
                let change = async {
                    tokio::select! {
                        () = news => {}
                        () = changed => {}
                        () = run.options.stop.cancelled() => {}
                        () = tokio::time::sleep(time) => {}
                    }
                };
                worker.waiting(wait, change).await;
            }
            Next::End => break,
        }
    }
    run.changed();
}

/// What there is of a file, and what was lost of it.
type Looked = (Paths, Found, Option<Lost>);

struct Worker<'a> {
    run: &'a Arc<Run>,
    finisher: Finisher,
    meter: Option<WorkerMeter>,
}

impl Worker<'_> {
    /// What it waits for until that is there, if it is metered.
    async fn waiting<T>(&self, wait: Wait, future: impl Future<Output = T>) -> T {
        match &self.meter {
            Some(meter) => meter.waiting(wait, future).await,
            None => future.await,
        }
    }

    /// Runs what [`blocking`] does, and waits for the disk meanwhile.
    async fn on_disk<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.waiting(Wait::Disk, blocking(self.run, name, work)).await
    }

    /// Looks what is there of a file, or removes what is in the way.
    async fn look_or_clear(&self, next: Next) {
        match next {
            Next::Prepare(prepare) => self.prepare(prepare).await,
            Next::Clear(Leftover { name, paths, space, .. }, reason) => {
                let cleared = self.on_disk(&name, move || paths.clear()).await;
                self.run.queue().cleared(&name);
                match cleared {
                    Ok(()) => self.run.event(&Event::Removed { name: &name, reason, bytes: space.bytes() }),
                    // What cannot be removed goes on to take its space.
                    Err(_) => std::mem::forget(space),
                }
                self.run.changed();
            }
            _ => {}
        }
    }

    async fn prepare(&self, prepare: Prepare) {
        let Prepare { place, generation, request, turn, discard, is_new } = prepare;
        let drops = self.run.queue().drops();
        if let Err(error) = self.run.check_folder() {
            self.fail(place, &request.name, error);
            return self.run.changed();
        }
        let (folder, wanted) = (self.run.folder.clone(), request.clone());
        let identity = self.run.source.identity(&request.key);
        let of = identity.clone();
        let is_first = discard.is_none();
        let evicted = discard.as_ref().map_or(0, |discard| discard.evicted);
        let found = if is_new {
            Paths::new(&folder, &wanted.name).map(|paths| (paths, Found::Nothing, None))
        } else {
            self.on_disk(&request.name, move || {
                let paths = Paths::new(&folder, &wanted.name)?;
                turn.take(|| match &discard {
                    Some(Discard { is_staged: true, .. }) => remove_staged(&folder, &wanted.name),
                    Some(_) => paths.clear(),
                    None => Ok(()),
                })?;
                drop(discard);
                let (found, lost) = paths.find(&wanted, &of)?;
                if drops && matches!(found, Found::Part(..)) {
                    // What it speaks of leaves the disk as it is read.
                    paths.forget()?;
                }
                Ok((paths, found, lost))
            })
            .await
        };
        let found = match found {
            Ok(found) => self.confirm(&request, found).await,
            Err(error) => Err(error),
        };
        let name = request.name.as_str();
        match found {
            Ok((paths, found, discarded)) => {
                let (size, resumed, is_whole) = match &found {
                    Found::Whole(record) => (record.version.size, record.ranges.total(), true),
                    Found::Part(record, _) => (record.version.size.or(request.size), record.ranges.total(), false),
                    Found::Nothing => (request.size, 0, false),
                };
                if is_first {
                    self.run.event(&Event::Started { name, size, resumed });
                }
                if let Some((reason, discarded)) = Some((EVICTED, evicted)).filter(|_| evicted > 0).or(discarded) {
                    self.run.event(&Event::Restarted { name, reason, discarded });
                }
                let is_part = matches!(found, Found::Part(..));
                let failed = self.run.queue().prepared(place, generation, identity, paths, found);
                if let Some(error) = failed {
                    self.fail(place, name, error);
                } else if is_part {
                    self.finisher.follow(self.run, place, generation);
                }
                if is_whole {
                    let elapsed = Duration::ZERO;
                    self.run.event(&Event::Finished { name, size: resumed, fetched: 0, elapsed });
                }
                self.complete(place).await;
            }
            Err(error) => self.fail(place, name, error),
        }
        self.run.changed();
    }

    /// Asks once for an object that seems to be there whole, if the request does not tell its version: whether it is still
    /// the one. What it was in another version is removed.
    async fn confirm(&self, request: &Arc<Request>, looked: Looked) -> Result<Looked, Error> {
        let (paths, found, lost) = looked;
        let version = match &found {
            Found::Whole(record) | Found::Part(record, _) if record.is_whole() && !request.names_version() => {
                record.version.clone()
            }
            _ => return Ok((paths, found, lost)),
        };
        let (run, name) = (self.run, request.name.as_str());
        let mut get = Get::new(&request.key);
        // The head is what it is about, and a byte is the least that every source gives.
        get.end = Some(1);
        let on_retry = |attempt, delay, error: &Error| run.event(&Event::Retry { name, attempt, delay, error });
        let asking = retry_when(
            &run.options.retry,
            || self.waiting(Wait::Server, run.pace.ready()),
            |delay| self.waiting(Wait::Server, tokio::time::sleep(delay)),
            on_retry,
            || async {
                let answer = self.waiting(Wait::Server, run.source.get(&get)).await;
                run.pace.observe(&answer);
                (answer, false)
            },
        );
        let body = tokio::select! {
            body = asking => body?,
            () = run.options.stop.cancelled() => {
                return Err(Error::Interrupted { location: run.source.location(&request.key) });
            }
        };
        if version.mismatch(&body).is_none() {
            return Ok((paths, found, lost));
        }
        drop(found);
        let size = version.size.unwrap_or_default();
        self.on_disk(name, move || {
            paths.clear().map(|()| (paths, Found::Nothing, Some(("it changed at its source", size))))
        })
        .await
    }

    /// Fetches a segment, over as many attempts as allowed, and sees to what follows from it.
    async fn fetch(&self, segment: Segment) {
        let (name, options) = (segment.request.name.as_str(), &self.run.options);
        let on_retry = |attempt, delay, error: &Error| self.run.event(&Event::Retry { name, attempt, delay, error });
        let busy = tokio::sync::Mutex::new(());
        let attempts = retry_when(
            &options.retry,
            || self.waiting(Wait::Server, self.run.pace.ready()),
            |delay| self.waiting(Wait::Server, tokio::time::sleep(delay)),
            on_retry,
            || async {
                let _busy = busy.lock().await;
                let mut progressed = false;
                let result = self.attempt(&segment, &mut progressed).await;
                self.run.pace.observe(&result);
                if result.is_err() {
                    self.run.queue().failed(&segment);
                    // It may have been the last one of this run, and the next run goes on behind it.
                    self.save(segment.place, true).await;
                }
                (result, progressed)
            },
        );
        let result = tokio::select! {
            biased;
            result = attempts => result,
            () = self.cancelled(&segment, &busy) => Ok(()),
        };
        if self.run.is_stopped() {
            // The end of the run sees to what is there.
            return;
        }
        let ended = self.run.queue().ended(&segment, result);
        match ended {
            Ended::Gone => {}
            Ended::Anew { reason, discarded } => {
                self.run.event(&Event::Restarted { name, reason: &reason, discarded });
            }
            Ended::Failed(error) => {
                self.put_away(segment.place, &error).await;
                self.fail(segment.place, name, error);
            }
        }
        self.complete(segment.place).await;
        self.run.changed();
    }

    /// Sees to what a file that failed leaves on the disk: a part to go on with, or nothing.
    async fn put_away(&self, place: u64, error: &Error) {
        let save = self.run.queue().last_save(place);
        let Some(Save { paths, part, record, turn }) = save else { return };
        let is_void = matches!(error, Error::Changed { .. });
        let name = record.key.clone();
        // If it fails, the record before it stays, or what there is counts as nothing.
        let _ = self
            .on_disk(&name, move || match is_void {
                true => turn.take(|| paths.clear()),
                false => {
                    part.sync()?;
                    turn.take(|| paths.write_record(&record, true))
                }
            })
            .await;
    }

    /// Completes when the segment is to end while no attempt is under way: such a one sees it for itself, and has bytes to
    /// put away. This ends the waiting between two.
    async fn cancelled(&self, segment: &Segment, busy: &tokio::sync::Mutex<()>) {
        tokio::select! {
            () = segment.cancel.cancelled() => {}
            () = self.run.options.stop.cancelled() => {}
        }
        drop(busy.lock().await);
    }

    /// One request for what is left of a segment.
    async fn attempt(&self, segment: &Segment, progressed: &mut bool) -> Result<(), Error> {
        let run = self.run;
        let key = &segment.request.key;
        let location = run.source.location(key);
        let Some(ask) = run.queue().ask(segment) else { return Ok(()) };
        if ask.start > 0 && !ask.version.is_checkable() {
            return self.again(segment, "the server names no version", &location);
        }
        let mut get = Get::new(key);
        (get.start, get.end) = (ask.start, ask.end);
        get.if_match = ask.version.etag.clone();
        let body = tokio::select! {
            biased;
            () = segment.cancel.cancelled() => return Ok(()),
            () = run.options.stop.cancelled() => return Err(self.interrupted(segment)),
            body = self.waiting(Wait::Server, run.source.get(&get)) => body?,
        };
        let accepted = run.queue().accept(segment, &body, &location)?;
        let skip = match accepted {
            Accepted::Take { skip, cut: None } => skip,
            Accepted::Take { skip, cut: Some(part) } => {
                // Those who wrote behind it are told to end, and what they write yet is written anew.
                self.on_disk(&segment.request.name, move || part.set_len(skip)).await?;
                skip
            }
            Accepted::Gone => return Ok(()),
            Accepted::Again(reason) => return self.again(segment, &reason, &location),
        };
        self.finisher.follow(run, segment.place, segment.generation);
        run.changed();
        self.take(segment, body, skip, ask, &location, progressed).await
    }

    /// Has the file begun anew, and this segment ended.
    fn again(&self, segment: &Segment, reason: &str, location: &str) -> Result<(), Error> {
        let name = segment.request.name.as_str();
        match self.run.queue().again(segment) {
            Some(discarded) => {
                self.run.event(&Event::Restarted { name, reason, discarded });
                Ok(())
            }
            None => Err(Error::Changed { location: location.to_owned(), what: reason.to_owned() }),
        }
    }

    /// Puts the body into the part.
    async fn take(
        &self,
        segment: &Segment,
        body: Body,
        mut skip: u64,
        ask: Ask,
        location: &str,
        progressed: &mut bool,
    ) -> Result<(), Error> {
        let run = self.run;
        let mut received = body.start;
        let announced = body.end.or(body.size);
        // A body that does not say where it ends must end where the listing says.
        let expected = announced.or(ask.end).or(ask.version.size);
        let mut bytes = body.bytes;
        let mut gathered = Gathered::default();
        let mut is_at_end = false;
        let result = loop {
            let item = match bytes.next().now_or_never() {
                Some(item) => item,
                None => {
                    // Nothing more for now: what is there for long enough may be of use to a reader.
                    if gathered.is_old() && !self.put(segment, &mut gathered, progressed).await? {
                        return Ok(());
                    }
                    let is_old = async {
                        match gathered.since {
                            Some(since) => tokio::time::sleep_until((since + GATHER_TIME).into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = segment.cancel.cancelled() => break Ok(()),
                        () = run.options.stop.cancelled() => {
                            break Err(Error::Interrupted { location: location.to_owned() });
                        }
                        item = bytes.next() => item,
                        () = is_old => continue,
                    }
                }
            };
            let mut chunk = match item {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => break Err(error),
                None => {
                    is_at_end = true;
                    break Ok(());
                }
            };
            received += chunk.len() as u64;
            if let Some(expected) = expected.filter(|expected| received > *expected) {
                let location = location.to_owned();
                break Err(match announced {
                    Some(_) => Error::Protocol { location, what: "it sends more bytes than it announced".to_owned() },
                    None => {
                        let what = format!("it has more than {}", counted(expected, "byte", "bytes"));
                        Error::Changed { location, what }
                    }
                });
            }
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let _ = chunk.split_to(skipped as usize);
            gathered.push(chunk);
            if gathered.len >= GATHER && !self.put(segment, &mut gathered, progressed).await? {
                // Another one has the rest.
                return Ok(());
            }
        };
        // Also after a failure: the next attempt goes on behind it.
        if !self.put(segment, &mut gathered, progressed).await? {
            return Ok(());
        }
        result?;
        match expected {
            Some(expected) if is_at_end && received < expected => {
                Err(Error::Truncated { location: location.to_owned(), expected, received })
            }
            _ => Ok(()),
        }
    }

    /// Writes what is gathered. Whether more of the segment is wanted.
    async fn put(&self, segment: &Segment, gathered: &mut Gathered, progressed: &mut bool) -> Result<bool, Error> {
        let run = self.run;
        while gathered.len > 0 {
            let claim = loop {
                let changed = run.budget.changed();
                let claim = run.queue().claim(segment, gathered.len as u64);
                match claim {
                    Ok(Claimed::There(claim)) => break claim,
                    Ok(Claimed::Over) => return Ok(false),
                    Ok(Claimed::Ahead) => self.waiting(Wait::Output, self.wait_for_window(segment)).await?,
                    Ok(Claimed::Yield) => {
                        let reason = "the files before it need its connection";
                        return self.again(segment, reason, &segment.request.name).map(|()| false);
                    }
                    Err(shortage) => {
                        self.waiting(Wait::Budget, self.wait_for_disk(segment, shortage, changed)).await?;
                    }
                }
            };
            let is_all = claim.len == gathered.len as u64;
            let chunks = gathered.take(claim.len as usize);
            let range = self.waiting(Wait::Disk, self.write(segment, claim.offset, claim.part, chunks)).await?;
            if let Some(meter) = &self.meter {
                meter.add(1, range.len());
            }
            if !run.queue().wrote(segment, range) {
                return Ok(false);
            }
            *progressed = true;
            run.arrived();
            run.event(&Event::Progress { name: &segment.request.name, bytes: range.len() });
            self.save(segment.place, false).await;
            if !is_all {
                // The object goes on behind the segment.
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the window may have room for more of an object whose size is not known.
    async fn wait_for_window(&self, segment: &Segment) -> Result<(), Error> {
        let stopped = self.run.options.stop.cancelled();
        tokio::select! {
            () = tokio::time::sleep(WINDOW_POLL) => Ok(()),
            () = segment.cancel.cancelled() => Err(self.interrupted(segment)),
            () = stopped => Err(self.interrupted(segment)),
        }
    }

    fn interrupted(&self, segment: &Segment) -> Error {
        Error::Interrupted { location: self.run.source.location(&segment.request.key) }
    }

    /// Waits until the disk may have room again, as long as the options allow.
    async fn wait_for_disk(
        &self,
        segment: &Segment,
        shortage: crate::Shortage,
        changed: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let run = self.run;
        let name = || segment.request.name.clone();
        let evicted = {
            let mut queue = run.queue();
            queue.set_short(segment, true);
            queue.make_room(segment)
        };
        if let Some(evicted) = evicted {
            self.look_or_clear(evicted).await;
            return Ok(());
        }
        let Some(left) = run.stands(&shortage) else {
            return Err(Error::Space { name: name(), shortage: Box::new(shortage) });
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(left.min(DISK_POLL)) => {}
            () = segment.cancel.cancelled() => return Err(self.interrupted(segment)),
            () = run.options.stop.cancelled() => return Err(self.interrupted(segment)),
        }
        Ok(())
    }

    /// Writes `chunks` at `offset`, where it cannot stall a connection, to a part that is made if need be. A full disk is
    /// waited for.
    async fn write(
        &self,
        segment: &Segment,
        offset: u64,
        mut part: Option<Arc<PartFile>>,
        chunks: Vec<Bytes>,
    ) -> Result<Range, Error> {
        let run = self.run;
        let name = segment.request.name.as_str();
        let len: usize = chunks.iter().map(Bytes::len).sum();
        let chunks = Arc::new(chunks);
        loop {
            let known = match part.take() {
                Some(part) => Ok(part),
                None => match run.queue().file(segment.place, segment.generation).as_deref() {
                    Some(FileState { part: Some(part), .. }) => Ok(part.clone()),
                    Some(file @ FileState { paths: Some(paths), .. }) => Err((paths.clone(), file.next_turn())),
                    _ => return Err(self.interrupted(segment)),
                },
            };
            let (chunks, maker, of) = (chunks.clone(), run.clone(), segment.clone());
            let written = blocking(run, name, move || {
                let part = match known {
                    Ok(part) => part,
                    Err((paths, turn)) => {
                        let mut made = None;
                        // Not behind the one who removes it when the file is given up.
                        turn.take(|| PartFile::open(&paths.part).map(|part| made = Some(Arc::new(part))))?;
                        let Some(part) = made.and_then(|part| maker.queue().opened(&of, part)) else {
                            return Ok(None);
                        };
                        part
                    }
                };
                part.write_at(&chunks, offset)?;
                let mut crc = Crc64Nvme::new();
                chunks.iter().for_each(|chunk| crc.update(chunk));
                Ok(Some(crc.value()))
            });
            match written.await {
                Ok(Some(crc)) => {
                    run.queue().set_short(segment, false);
                    run.goes_on(false);
                    return Ok(Range { start: offset, end: offset + len as u64, crc: Some(crc) });
                }
                // Another connection was quicker.
                Ok(None) => tokio::task::yield_now().await,
                Err(error) if error.is_disk_full() => {
                    // Others fill it, too, or it has no room where the budget thought so.
                    let shortage = run.shortage(len as u64);
                    let changed = run.budget.changed();
                    self.waiting(Wait::Budget, self.wait_for_disk(segment, shortage, changed)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the record of a file, if it is time, or in any case `at_once`.
    async fn save(&self, place: u64, at_once: bool) {
        let save = self.run.queue().save(place, at_once);
        let Some((generation, Save { paths, part, record, turn })) = save else { return };
        let run = self.run.clone();
        let saving = async move {
            let name = record.key.clone();
            // If it fails, the record before it stays, and the next run fetches more than it had to.
            let _ = blocking(&run, &name, move || {
                part.sync()?;
                turn.take(|| paths.write_record(&record, true))
            })
            .await;
            if let Some(file) = run.queue().file(place, generation) {
                file.save.is_running = false;
                file.save.at = Instant::now();
            }
        };
        match at_once {
            true => self.waiting(Wait::Disk, saving).await,
            false => drop(tokio::spawn(saving)),
        }
    }

    /// Hands a file that is whole to those who finish.
    async fn complete(&self, place: u64) {
        let finish = self.run.queue().complete(place);
        if let Some(finish) = finish {
            self.waiting(Wait::Output, self.finisher.finish(finish)).await;
        }
    }

    fn fail(&self, place: u64, name: &str, error: Error) {
        if !matches!(error, Error::Interrupted { .. }) {
            self.run.event(&Event::Failed { name, error: &error });
        }
        self.run.queue().fail(place, error);
        self.run.arrived();
    }
}

/// Bytes on their way to the disk.
#[derive(Default)]
struct Gathered {
    chunks: Vec<Bytes>,
    len: usize,
    since: Option<Instant>,
}

impl Gathered {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.since.get_or_insert_with(Instant::now);
            self.chunks.push(chunk);
        }
    }

    fn is_old(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= GATHER_TIME)
    }

    /// Takes the first `len` bytes.
    fn take(&mut self, len: usize) -> Vec<Bytes> {
        self.since = None;
        let mut chunks = std::mem::take(&mut self.chunks);
        if len == self.len {
            self.len = 0;
            return chunks;
        }
        self.len -= len;
        let (mut at, mut left) = (0, len);
        while left >= chunks[at].len() {
            left -= chunks[at].len();
            at += 1;
        }
        let mut rest = chunks.split_off(at);
        if left > 0 {
            chunks.push(rest[0].split_to(left));
        }
        self.chunks = rest;
        chunks
    }
}

/// Runs file system work that may take long where it stalls no connection. The folder is in use until it is over, also if
/// nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    run: &Arc<Run>,
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let run = run.clone();
    let working = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(run);
        result
    });
    joined(working.await).unwrap_or_else(|| Err(Error::Interrupted { location: name.to_owned() }))
}
