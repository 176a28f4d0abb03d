use std::collections::BTreeSet;
use std::path::Path;

use bulk_core::{FileReport, RejectReport};
use serde_json::{Value, json};

use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::Report;

/// What is left out, as far as that is borne.
pub(super) struct Rejects {
    most: u64,
    count: u64,
    /// Rows that may be met again by the same run.
    rows: BTreeSet<(String, String)>,
    /// Rows beside those that are the items of their ids.
    repeated: u64,
    report: Report,
}

/// Ids that several rows have.
#[derive(Default)]
pub(super) struct Repeated {
    ids: u64,
    /// Rows beside the one that counts.
    rows: u64,
    examples: Vec<String>,
}

impl Repeated {
    /// An id with so many rows.
    pub(super) fn add(&mut self, id: &str, rows: u64) {
        /// So many are named.
        const NAMED: usize = 3;
        if rows > 1 {
            self.ids += 1;
            self.rows += rows - 1;
            if self.examples.len() < NAMED {
                self.examples.push(id.to_owned());
            }
        }
    }
}

impl Rejects {
    pub(super) fn new(most: u64, report: Report) -> Self {
        Self { most, count: 0, rows: BTreeSet::new(), repeated: 0, report }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many rows are left out since another one has their id, too.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The ids of the rows of a type that were left out.
    pub(super) fn ids_of(&self, kind: &str) -> BTreeSet<String> {
        self.rows.iter().filter(|(of, _)| of == kind).map(|(_, id)| id.clone()).collect()
    }

    /// What several rows of a type share. They are not bad in themselves, so there may be any number of them.
    pub(super) fn add_repeated(&mut self, kind: &str, repeated: &Repeated) {
        let Repeated { ids, rows, examples } = repeated;
        if *ids == 0 {
            return;
        }
        self.repeated += rows;
        let named: Vec<_> = examples.iter().map(|id| format!("{id:?}")).collect();
        let text = format!(
            "{kind}: {}, such as {}: of each the one that was modified last is taken, {}",
            counted(*ids, "id has several rows", "ids have several rows"),
            named.join(", "),
            counted(*rows, "row is left out", "rows are left out")
        );
        let fields = json!({"type": kind, "ids": ids, "rows": rows, "examples": examples});
        self.report.alert("repeated", &text, fields);
    }

    /// A row of a type. One that was met before counts once.
    pub(super) fn add_row(&mut self, kind: &str, id: Option<&str>, why: &str) -> Result<(), Failure> {
        if let Some(id) = id
            && !self.rows.insert((kind.to_owned(), id.to_owned()))
        {
            return Ok(());
        }
        self.note(id.map_or_else(|| kind.to_owned(), |id| format!("{kind} {id:?}")), why);
        let of = id.map_or("a row".to_owned(), |id| format!("the row {id:?}"));
        self.add(&format!("{kind}: {of} is left out: {why}"), json!({"type": kind, "id": id, "reason": why}))
    }

    pub(super) fn add_line(&mut self, file: &str, number: u64, why: &str) -> Result<(), Failure> {
        let fields = json!({"file": file, "line": number, "reason": why});
        let mut reject = RejectReport::default();
        (reject.file, reject.record, reject.reason) = (file.to_owned(), number, why.to_owned());
        self.report.reject(reject);
        self.add(&format!("{file}: line {number} is left out: {why}"), fields)
    }

    pub(super) fn add_file(&mut self, path: &Path, why: &str) -> Result<(), Failure> {
        self.note(path.display().to_string(), why);
        let fields = json!({"file": path.display().to_string(), "reason": why});
        self.add(&format!("{} is left out: {why}", path.display()), fields)
    }

    /// What has no number is a file of its own in the report of the run.
    fn note(&self, name: String, why: &str) {
        let mut file = FileReport::default();
        (file.name, file.error) = (name, Some(why.to_owned()));
        self.report.file(file);
    }

    fn add(&mut self, text: &str, fields: Value) -> Result<(), Failure> {
        self.count += 1;
        self.report.alert("rejected", text, fields);
        if self.count > self.most {
            let what = format!(
                "more than {} bad, so nothing is published; --max-rejects N leaves out more",
                counted(self.most, "item is", "items are")
            );
            return Err(Failure::new(Exit::Failed, anyhow::anyhow!(what)));
        }
        Ok(())
    }
}
