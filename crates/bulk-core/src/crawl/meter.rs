//! What a call says of its time, where a crawl is metered.

use super::CrawlOptions;
use crate::meter::{StageMeter, Wait, WorkerMeter};
use crate::{Limiter, Permit};

/// The worker that a call is, and the stage in which it waits for leave.
#[derive(Clone, Default)]
pub(super) struct CallMeter {
    worker: Option<WorkerMeter>,
    limit: Option<StageMeter>,
}

impl CallMeter {
    pub(super) fn begin(options: &CrawlOptions) -> Self {
        Self { worker: options.meter.as_ref().map(StageMeter::worker), limit: options.limit_meter.clone() }
    }

    pub(super) async fn run<F: Future>(&self, call: F) -> F::Output {
        match &self.worker {
            Some(worker) => worker.run(call).await,
            None => call.await,
        }
    }

    pub(super) async fn waiting<F: Future>(&self, wait: Wait, future: F) -> F::Output {
        match &self.worker {
            Some(worker) => worker.waiting(wait, future).await,
            None => future.await,
        }
    }

    /// Waits for leave to send a request. To the call that is the stage before it.
    pub(super) async fn leave(&self, limiter: &Limiter, host: &str) -> Permit {
        let leave = async {
            let Some(limit) = &self.limit else { return limiter.acquire(host).await };
            let worker = limit.worker();
            // A wait that the server has asked for is none for the limit, whenever it asks.
            let is_held = |is_held| worker.wait_begins(if is_held { Wait::Server } else { Wait::RateLimit });
            let permit = limiter.acquire_telling(host, is_held).await;
            worker.wait_ends();
            worker.add(1, 0);
            permit
        };
        self.waiting(Wait::Input, leave).await
    }

    /// Counts an answer.
    pub(super) fn add(&self, bytes: u64) {
        if let Some(worker) = &self.worker {
            worker.add(1, bytes);
        }
    }

    /// From now on it waits for somebody to take what has come, until what this gives is dropped.
    pub(super) fn waits_for_reader(self) -> Option<WorkerMeter> {
        self.worker.inspect(|worker| worker.wait_begins(Wait::Output))
    }
}
