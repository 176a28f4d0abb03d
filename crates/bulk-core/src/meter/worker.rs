use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::slot::{Activity, Held, Slot};
use super::{Stage, Wait, lock};

/// One worker of a [stage](super::StageMeter): a thread, a task or a connection. It works from when it is made until its
/// last clone is dropped, but for the time that it [waits](Self::wait).
///
/// All clones are the same worker, for the parts of one line of work: the loop that counts and the reader that waits. A
/// worker does one thing at a time, and the last that was said of it holds; for work side by side make one for each.
///
/// Each change between working and waiting reads the clock once and takes a lock that nobody else wants: 0.05 us. At most
/// every 4 ms it also reads the thread's clock of CPU time and, on Linux, `/proc/thread-self/schedstat`, at both ends of a
/// stretch of work, for 4 us; the stretches before it, since the last such one, are taken to split as it does. So wait and count by chunks, not by records.
#[derive(Clone, Debug)]
pub struct WorkerMeter {
    worker: Arc<Worker>,
}

#[derive(Debug)]
struct Worker {
    stage: Arc<Stage>,
    index: usize,
    slot: Arc<Mutex<Slot>>,
    /// Whether [`WorkerMeter::run`] tells work from waiting, by its polls.
    is_run: AtomicBool,
    /// Whether it is a task whose polls are not seen: what a thread does between two of its calls may be another task's.
    is_task: AtomicBool,
    parked: Mutex<Waits>,
}

/// What it waits for when a poll returns: the last that began of those that go on, which may end in any order.
#[derive(Debug)]
struct Waits {
    unnamed: Wait,
    begun: u64,
    open: Vec<(u64, Wait)>,
}

impl WorkerMeter {
    pub(super) fn begin(stage: Arc<Stage>) -> Self {
        let (index, slot) = stage.take_slot();
        lock(&slot).switch(Activity::Working, true);
        let unnamed = stage.resources.first().map_or(Wait::Input, |resource| resource.wait());
        let parked = Mutex::new(Waits { unnamed, begun: 0, open: Vec::new() });
        let (is_run, is_task) = (AtomicBool::new(false), AtomicBool::new(false));
        let worker = Worker { stage, index, slot, is_run, is_task, parked };
        Self { worker: Arc::new(worker) }
    }

    /// Counts what was done.
    pub fn add(&self, items: u64, bytes: u64) {
        lock(&self.worker.slot).add(items, bytes);
    }

    /// Waits on a thread: the time of `wait_for` counts as waiting, all else as work.
    ///
    /// What is called may wait by the same worker; the time behind that counts as work until the outer call returns.
    pub fn wait<T>(&self, wait: Wait, wait_for: impl FnOnce() -> T) -> T {
        let _working = self.leave_for(wait);
        wait_for()
    }

    /// It waits from now on, for those who are told of both ends of a wait, such as an observer. Where it waits already, for
    /// this from now on.
    pub fn wait_begins(&self, wait: Wait) {
        self.worker.switch(Activity::Waiting(wait));
    }

    /// It works from now on.
    pub fn wait_ends(&self) {
        self.worker.switch(Activity::Working);
    }

    /// Waits in a task: the time until `future` is ready, but for what polling it takes within [`run`](Self::run), counts
    /// as waiting. If the future is dropped before that, the worker works again.
    ///
    /// Outside of [`run`](Self::run) nobody tells the task's work from what its thread does for others meanwhile, so the
    /// thread's clocks are read no more for this worker, and its working time counts as the stage says that it works.
    pub async fn waiting<F: Future>(&self, wait: Wait, future: F) -> F::Output {
        let mut future = pin!(future);
        if self.worker.is_run.load(Ordering::Relaxed) {
            let _parked = Parked::new(&self.worker, wait);
            return future.await;
        }
        let mut waiting = None;
        poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            match &polled {
                // Who need not wait is not said to.
                Poll::Pending if waiting.is_none() => {
                    self.worker.is_task.store(true, Ordering::Relaxed);
                    waiting = Some(self.leave_for(wait));
                }
                Poll::Pending => {}
                Poll::Ready(_) => waiting = None,
            }
            polled
        })
        .await
    }

    /// Meters a task by its polls: within one the worker works, and between two it waits for what
    /// [`waiting`](Self::waiting) says, else for the first resource that its stage states, and for input where that is the
    /// CPU. Before its first poll and after its last it works.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let _run = Run::new(&self.worker);
        poll_fn(|context| {
            self.worker.switch(Activity::Working);
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                let parked = lock(&self.worker.parked).last();
                self.worker.switch(Activity::Waiting(parked));
            }
            polled
        })
        .await
    }

    fn leave_for(&self, wait: Wait) -> Working<'_> {
        self.worker.switch(Activity::Waiting(wait));
        Working(&self.worker)
    }
}

impl Worker {
    fn switch(&self, to: Activity) {
        let is_synchronous = self.is_run.load(Ordering::Relaxed) || !self.is_task.load(Ordering::Relaxed);
        let mut slot = lock(&self.slot);
        let from = slot.activity();
        slot.switch(to, is_synchronous);
        if from != to && (Held::concerns(from) || Held::concerns(to)) {
            // With the slot held, so that nobody comes between.
            lock(&self.stage.held).switch(from, to);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.switch(Activity::Absent);
        self.stage.free_slot(self.index);
    }
}

/// The worker works again when this is dropped.
struct Working<'a>(&'a Worker);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.switch(Activity::Working);
    }
}

/// What the worker waits for between polls, until this is dropped.
struct Parked<'a> {
    worker: &'a Worker,
    number: u64,
}

impl<'a> Parked<'a> {
    fn new(worker: &'a Worker, wait: Wait) -> Self {
        let mut waits = lock(&worker.parked);
        let number = waits.begun;
        waits.begun += 1;
        waits.open.push((number, wait));
        Self { worker, number }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        lock(&self.worker.parked).open.retain(|(number, _)| *number != self.number);
    }
}

impl Waits {
    fn last(&self) -> Wait {
        self.open.last().map_or(self.unnamed, |(_, wait)| *wait)
    }
}

/// Polls tell what the worker does, until this is dropped.
struct Run<'a>(&'a Worker);

impl<'a> Run<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.is_run.store(true, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.switch(Activity::Working);
        self.0.is_run.store(false, Ordering::Relaxed);
    }
}
