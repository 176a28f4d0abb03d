use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bulk_core::RejectReport;
use bulk_pg::{FileIdentity, RejectedRecords, Session, TableName, find_rejects, write_call_rejects, write_rejects};
use serde_json::json;
use tempfile::TempPath;

use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::{Chain, Report};

/// Where the records that are left out go.
pub(crate) struct RejectFiles {
    folder: PathBuf,
}

impl RejectFiles {
    /// A folder for those of `files`.
    pub(crate) fn new<'f>(folder: &Path, files: impl IntoIterator<Item = &'f Path>) -> Result<Self, Failure> {
        let mut names = HashSet::new();
        if let Some(file) = files.into_iter().find(|file| !names.insert(file.file_name())) {
            let what = format!("--rejects: two files have the name of {}; load them one by one", file.display());
            return Err(Failure::usage(what));
        }
        let folder = folder.to_owned();
        if folder.is_file() {
            let what = format!("--rejects {}: that is a file; what is left out goes to a folder", folder.display());
            return Err(Failure::usage(what));
        }
        fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
        Ok(Self { folder })
    }

    /// A folder for those of a crawl. What another spec of the same name has left there is not touched: that is refused.
    pub(crate) fn of_spec(folder: &Path, spec: &Path) -> Result<Self, Failure> {
        let files = Self::new(folder, [])?;
        files.check_owner(spec)?;
        Ok(files)
    }

    /// Where the rows of a crawl's spec go, and where it is noted whose they are.
    fn paths_of_spec(&self, spec: &Path) -> (PathBuf, PathBuf) {
        let name = spec.file_name().unwrap_or_default().to_string_lossy();
        (self.folder.join(format!("{name}.rejects.jsonl")), self.folder.join(format!(".{name}.rejects.of")))
    }

    /// Fails if rows are there that are another spec's of the same name.
    fn check_owner(&self, spec: &Path) -> Result<(), Failure> {
        let (rows, owner) = self.paths_of_spec(spec);
        if !rows.exists() {
            return Ok(());
        }
        match fs::read_to_string(&owner) {
            Ok(other) if other != owner_of(spec) => Err(Failure::usage(format!(
                "--rejects: {} is of the spec {other}; name another folder, or remove that file",
                rows.display()
            ))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&owner, &error)),
            // Without a note an earlier version wrote them.
            _ => Ok(()),
        }
    }

    /// Writes the rows that were left out of the round of a crawl, a line of JSON each. Without any, nothing stays of an
    /// earlier run.
    pub(crate) async fn write_calls(
        &self,
        session: &Session,
        job: &str,
        spec: &Path,
        report: &Report,
    ) -> Result<(), Failure> {
        // Another run may have written them meanwhile.
        self.check_owner(spec)?;
        let (rows, owner) = self.paths_of_spec(spec);
        let mut lines = Staged::create(rows)?;
        let count = write_call_rejects(session, job, &mut lines.writer).await?;
        if count == 0 {
            lines.discard()?;
            return removed(&owner);
        }
        let path = lines.path.display().to_string();
        // The rows of another spec are never without its note.
        let mut note = Staged::create(owner)?;
        note.writer.write_all(owner_of(spec).as_bytes()).map_err(|error| unwritable(&note.path, &error))?;
        note.keep()?;
        lines.keep()?;
        let text = format!("{path}: {}", counted(count, "row", "rows"));
        report.event("rejects", &text, json!({"file": path, "rows": count}));
        Ok(())
    }

    /// Writes what is left out of a file so far. If it `is_loaded`, nothing stays of an earlier run that left out more; of
    /// one that failed, nothing may be known.
    pub(crate) async fn write(
        &self,
        session: &Session,
        table: &TableName,
        file: &Path,
        identity: &FileIdentity,
        is_loaded: bool,
        report: &Report,
    ) -> Result<(), Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let [raw, lines] = [".rejects", ".rejects.jsonl"].map(|end| self.folder.join(format!("{name}{end}")));
        let (mut raw, mut lines) = (Staged::create(raw)?, Staged::create(lines)?);
        let count = write_rejects(session, table, identity, &mut raw.writer, &mut lines.writer).await?;
        let path = raw.path.display().to_string();
        if count > 0 {
            raw.keep()?;
            lines.keep()?;
        } else if is_loaded {
            raw.discard()?;
            lines.discard()?;
        }
        if count > 0 {
            report.event(
                "rejects",
                &format!("{path}: {}", counted(count, "record", "records")),
                json!({"file": path, "records": count}),
            );
        }
        Ok(())
    }
}

/// So many records of a file are looked at for the report of the run, which keeps no more of all files together.
const NOTED: u32 = 1000;

/// Notes in the report of the run what is left out of a file so far, if there is to be one. Rows that a foreign key forbids
/// have no number, and are not among them.
pub(crate) async fn note_rejects(session: &Session, table: &TableName, identity: &FileIdentity, report: &Report) {
    if !report.is_kept() {
        return;
    }
    let RejectedRecords { first, count, .. } = match find_rejects(session, table, identity, NOTED).await {
        Ok(found) => found,
        Err(error) => {
            let error = Chain(&error);
            report.detail(format!("what is left out of {} is not in the report of the run: {error}", identity.key));
            return;
        }
    };
    report.leave_out_rejects(count.saturating_sub(first.len() as u64));
    for found in first {
        let mut reject = RejectReport::default();
        (reject.file, reject.record, reject.byte) = (identity.key.clone(), found.record, Some(found.byte));
        (reject.column, reject.reason) = (found.column, found.message);
        report.reject(reject);
    }
}

/// A file that gets its name when it is whole. Dropped before that, it leaves what was there.
pub(crate) struct Staged {
    path: PathBuf,
    part: TempPath,
    pub(crate) writer: BufWriter<File>,
}

impl Staged {
    pub(crate) fn create(path: PathBuf) -> Result<Self, Failure> {
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        // What a killed run left is removed, and a link in its place not followed.
        removed(&part)?;
        let file = File::create_new(&part).map_err(|error| unwritable(&part, &error))?;
        let part = TempPath::try_from_path(&part).map_err(|error| unwritable(&part, &error))?;
        Ok(Self { path, part, writer: BufWriter::new(file) })
    }

    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        let kept = written.and_then(|()| self.part.persist(&self.path).map_err(|error| error.error));
        kept.map_err(|error| unwritable(&self.path, &error))
    }

    /// Removes what an earlier run left under the name.
    pub(crate) fn discard(self) -> Result<(), Failure> {
        removed(&self.path)
    }
}

/// Removes a file, if it is there.
fn removed(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(path, &error)),
        _ => Ok(()),
    }
}

/// By which a spec is known from another one of the same name.
fn owner_of(spec: &Path) -> String {
    spec.canonicalize().unwrap_or_else(|_| spec.to_owned()).display().to_string()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, anyhow::anyhow!("cannot write {}: {error}", path.display()))
}
