use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulk_core::crawl::{Done, Progress};
use bulk_core::{Algorithm, Digest};
use bulk_pg::{CallProgress, CrawlMarks};
use futures::FutureExt;

use crate::progress::Totals;

/// How many keys are kept at least.
const KEPT: usize = 1 << 20;

/// Which calls need not be made: those that are committed, by their marks, and those that this run has begun, of which the last
/// million or two are known here. The loader is asked for marks only where it may have some that are not known here: of earlier
/// runs, or of equal records so far apart.
pub(super) struct Known {
    marks: CrawlMarks,
    /// Whether no earlier run has left a mark.
    is_first: bool,
    taken: Mutex<Taken>,
    /// Where those are counted that need not be made.
    totals: Arc<Totals>,
}

/// Digests of keys, the newest ones and those before them.
struct Taken {
    /// How many of each.
    most: usize,
    new: HashSet<u64>,
    old: HashSet<u64>,
    has_forgotten: bool,
}

impl Taken {
    fn new(most: usize) -> Self {
        Self { most, new: HashSet::new(), old: HashSet::new(), has_forgotten: false }
    }

    /// Whether it was not there.
    fn insert(&mut self, digest: u64) -> bool {
        if self.new.len() >= self.most {
            self.has_forgotten |= !self.old.is_empty();
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(digest) && !self.old.contains(&digest)
    }

    /// Whether all are known that were there, and still will be while so many more come.
    fn is_whole_with(&self, more: usize) -> bool {
        let most = if self.old.is_empty() { 2 * self.most } else { self.most };
        !self.has_forgotten && self.new.len() + more <= most
    }
}

impl Known {
    pub(super) fn new(marks: CrawlMarks, totals: &Arc<Totals>) -> Arc<Self> {
        Self::keeping(marks, KEPT, totals)
    }

    fn keeping(marks: CrawlMarks, most: usize, totals: &Arc<Totals>) -> Arc<Self> {
        let (is_first, taken, totals) = (marks.is_empty(), Mutex::new(Taken::new(most)), totals.clone());
        Arc::new(Self { is_first, marks, taken, totals })
    }

    pub(super) fn done(self: &Arc<Self>) -> Done {
        let known = self.clone();
        Arc::new(move |keys: Vec<String>| {
            let known = known.clone();
            async move { known.progress(&keys).await }.boxed()
        })
    }

    async fn progress(&self, keys: &[String]) -> Vec<Progress> {
        let open = || vec![CallProgress::Open; keys.len()];
        let all = match self.is_first && self.lock().is_whole_with(keys.len()) {
            true => open(),
            false => {
                let texts: Vec<&str> = keys.iter().map(String::as_str).collect();
                // An error there is told by the load's next call.
                self.marks.progress(&texts).await.unwrap_or_else(|_| open())
            }
        };
        let mut taken = self.lock();
        let progress = |(progress, key): (CallProgress, &String)| match (taken.insert(digest(key)), progress) {
            (false, _) | (true, CallProgress::Done) => Progress::Done,
            (true, CallProgress::Part(at)) => Progress::Part(at),
            (true, _) => Progress::Open,
        };
        let progress: Vec<_> = all.into_iter().zip(keys).map(progress).collect();
        let done = progress.iter().filter(|progress| **progress == Progress::Done).count();
        self.totals.pass_over_records(done as u64);
        progress
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(key: &str) -> u64 {
    let Digest::Sha256(digest) = Digest::of(Algorithm::Sha256, key.as_bytes()) else { return 0 };
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMode, CrawlTable, Session};

    use super::*;

    #[test]
    fn the_newest_keys_are_known_and_never_more_than_twice_as_many() {
        let mut taken = Taken::new(KEPT);
        for digest in 0..2 * KEPT as u64 + 1 {
            assert!(taken.is_whole_with(1) == (digest < 2 * KEPT as u64));
            assert!(taken.insert(digest));
        }
        assert!(!taken.insert(2 * KEPT as u64) && !taken.insert(KEPT as u64));
        assert!(taken.insert(0));
        assert!(taken.new.len() + taken.old.len() <= 2 * KEPT);
    }

    #[tokio::test]
    async fn equal_records_are_known_however_far_apart_they_are() {
        let server = bulk_testkit::postgres::shared().unwrap();
        let database = server.create_database("known").unwrap();
        server.psql(database.url(), "CREATE TABLE t (id integer)").unwrap();
        let session = Session::connect(database.url()).await.unwrap();
        let job = CrawlJob::new("job", vec![CrawlTable::new("t".parse().unwrap(), ["id"], CrawlMode::Append)]);
        let mut load = CrawlLoad::begin(session, &job, CrawlLoadOptions::default()).await.unwrap();
        let known = Known::keeping(load.marks(), 4, &Arc::default());
        let keys = |range: std::ops::Range<u32>| range.map(|key| key.to_string()).collect::<Vec<_>>();
        // Of some it is known here that they were begun, and of the others they are committed.
        for first in (0..24).step_by(3) {
            let before = keys(0..first);
            assert!(known.progress(&before).await.iter().all(|progress| *progress == Progress::Done), "{first}");
            let new = keys(first..first + 3);
            assert!(known.progress(&new).await.iter().all(|progress| *progress == Progress::Open), "{first}");
            for key in new {
                load.call(key).finish().await.unwrap();
            }
            load.flush().await.unwrap();
        }
    }
}
