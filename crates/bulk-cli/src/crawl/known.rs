use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bulk_core::crawl::{Done, Progress};
use bulk_core::{Algorithm, Digest};
use bulk_pg::{CallProgress, CrawlMarks};
use futures::FutureExt;

/// How many keys are kept at least.
const KEPT: usize = 1 << 20;

/// Which calls need not be made: those of earlier runs, by their marks, and those that this run has begun, of which the last
/// million or two are known here. Of equal records further apart the loader tells.
pub(super) struct Known {
    marks: CrawlMarks,
    taken: Mutex<Taken>,
}

/// Digests of keys, the newest ones and those before them.
#[derive(Default)]
struct Taken {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Taken {
    /// Whether it was not there.
    fn insert(&mut self, digest: u64) -> bool {
        if self.new.len() >= KEPT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest) && !self.old.contains(&digest)
    }
}

impl Known {
    pub(super) fn new(marks: CrawlMarks) -> Arc<Self> {
        Arc::new(Self { marks, taken: Mutex::default() })
    }

    pub(super) fn done(self: &Arc<Self>) -> Done {
        let known = self.clone();
        Arc::new(move |keys: Vec<String>| {
            let known = known.clone();
            async move { known.progress(&keys).await }.boxed()
        })
    }

    async fn progress(&self, keys: &[String]) -> Vec<Progress> {
        let texts: Vec<&str> = keys.iter().map(String::as_str).collect();
        // An error there is told by the load's next call.
        let all = self.marks.progress(&texts).await.unwrap_or_else(|_| vec![CallProgress::Open; keys.len()]);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = |(progress, key): (CallProgress, &String)| match (taken.insert(digest(key)), progress) {
            (false, _) | (true, CallProgress::Done) => Progress::Done,
            (true, CallProgress::Part(at)) => Progress::Part(at),
            (true, _) => Progress::Open,
        };
        all.into_iter().zip(keys).map(progress).collect()
    }
}

fn digest(key: &str) -> u64 {
    let Digest::Sha256(digest) = Digest::of(Algorithm::Sha256, key.as_bytes()) else { return 0 };
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_known_and_never_more_than_twice_as_many() {
        let mut taken = Taken::default();
        for digest in 0..2 * KEPT as u64 + 1 {
            assert!(taken.insert(digest));
        }
        assert!(!taken.insert(2 * KEPT as u64) && !taken.insert(KEPT as u64));
        assert!(taken.insert(0));
        assert!(taken.new.len() + taken.old.len() <= 2 * KEPT);
    }
}
