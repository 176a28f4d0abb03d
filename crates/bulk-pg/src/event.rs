use crate::{Drift, LoadStage, Merged, TableName, Verdict, WorkerState};

/// What happens during a load, as it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file is open: its dialect is known, and how its columns meet the table's.
    Opened {
        /// The file.
        file: &'a str,
        /// Where its rows go.
        table: &'a TableName,
        /// The dialect and why, if the file is CSV.
        verdict: Option<&'a Verdict>,
        /// Differences between header and table.
        drift: &'a [Drift],
        /// Records that earlier runs committed, and that are skipped.
        resumed: u64,
    },
    /// A chunk is committed; or it is sent, if [all go together](crate::LoadOptions::freeze).
    Committed {
        /// The file.
        file: &'a str,
        /// Where its rows went.
        table: &'a TableName,
        /// Its records.
        records: u64,
        /// Those of them that were left out.
        rejected: u64,
        /// Those of them that did not meet the conditions.
        filtered: u64,
        /// Those of them that are in the table, and whose text was repaired.
        repaired: u64,
        /// Its decoded bytes.
        bytes: u64,
    },
    /// A file is loaded whole.
    Loaded {
        /// The file.
        file: &'a str,
        /// Where its rows went.
        table: &'a TableName,
        /// Records of the whole file, or of as much of it as was to be read.
        records: u64,
        /// Those of them that were left out.
        rejected: u64,
        /// Those of them that did not meet the conditions.
        filtered: u64,
        /// Those of them that are in the table, and whose text was repaired.
        repaired: u64,
    },
    /// A record is [repaired](crate::LoadOptions::repair), one of the first ten of a call. Its row is not committed yet.
    Repaired {
        /// The file.
        file: &'a str,
        /// Where its row goes.
        table: &'a TableName,
        /// The record's number, from 1.
        record: u64,
        /// Where its first bad byte stands, in decoded bytes of the file.
        byte: u64,
        /// The name of that byte's column.
        column: Option<&'a str>,
    },
    /// A table is what a file says, by [`merge_staged`](crate::merge_staged).
    Merged {
        /// What became of its rows.
        merged: &'a Merged,
    },
    /// Calls of a [crawl](crate::CrawlLoad) are committed, or noted in quarantine.
    Called {
        /// The job's name.
        job: &'a str,
        /// Calls that are committed.
        calls: u64,
        /// Their rows that are in the tables.
        rows: u64,
        /// Those that were left out.
        rejected: u64,
        /// Calls in quarantine.
        quarantined: u64,
        /// Bytes of rows, about.
        bytes: u64,
    },
    /// A worker of a load does something else from now on. It says so itself, on its thread or in its task, some times for
    /// each 256 KiB: who meters them sees what binds.
    Worker {
        /// The file, or the job of a crawl.
        file: &'a str,
        /// What it belongs to.
        stage: LoadStage,
        /// Which of the stage's workers it is, from 0.
        worker: usize,
        /// What it does.
        state: WorkerState,
    },
    /// A worker of a load has handed on encoded rows.
    Gave {
        /// The file.
        file: &'a str,
        /// What it belongs to.
        stage: LoadStage,
        /// Which of the stage's workers it is, from 0.
        worker: usize,
        /// Bytes of them.
        bytes: u64,
    },
    /// A step after the data begins: an index, a constraint, a trigger.
    Step {
        /// What it makes.
        what: &'a str,
    },
}

/// Takes [`Event`]s. It should return soon; it cannot steer.
pub trait Observer: Send + Sync + 'static {
    /// Called once for each event.
    fn event(&self, event: &Event<'_>);
}

/// Observes nothing.
impl Observer for () {
    fn event(&self, _: &Event<'_>) {}
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}
