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
    report: Report,
}

impl Rejects {
    pub(super) fn new(most: u64, report: Report) -> Self {
        Self { most, count: 0, rows: BTreeSet::new(), report }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
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
