use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bulk_pg::{FileIdentity, Session, TableName, write_rejects};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::report::Report;

/// Where the records that are left out go.
pub(crate) struct RejectFiles {
    folder: PathBuf,
}

impl RejectFiles {
    pub(crate) fn new(folder: &Path, files: &[PathBuf]) -> Result<Self, Failure> {
        let mut names = HashSet::new();
        if let Some(file) = files.iter().find(|file| !names.insert(file.file_name())) {
            let what = format!("--rejects: two files have the name of {}; load them one by one", file.display());
            return Err(Failure::usage(what));
        }
        let folder = folder.to_owned();
        fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, &error))?;
        Ok(Self { folder })
    }

    /// Writes what is left out of a file so far; nothing stays of an earlier run that left out more.
    pub(crate) async fn write(
        &self,
        session: &Session,
        table: &TableName,
        file: &Path,
        identity: &FileIdentity,
        report: &Report,
    ) -> Result<(), Failure> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let [raw, lines] = [".rejects", ".rejects.jsonl"].map(|end| self.folder.join(format!("{name}{end}")));
        let (mut raw, mut lines) = (Staged::create(raw)?, Staged::create(lines)?);
        let count = write_rejects(session, table, identity, &mut raw.writer, &mut lines.writer).await?;
        let path = raw.path.display().to_string();
        raw.finish(count > 0)?;
        lines.finish(count > 0)?;
        if count > 0 {
            report.event("rejects", &format!("{path}: {count} records"), json!({"file": path, "records": count}));
        }
        Ok(())
    }
}

/// A file that gets its name when it is whole.
struct Staged {
    path: PathBuf,
    part: PathBuf,
    writer: BufWriter<File>,
}

impl Staged {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| unwritable(&part, &error))?;
        Ok(Self { path, part, writer: BufWriter::new(file) })
    }

    fn finish(mut self, keep: bool) -> Result<(), Failure> {
        let finished =
            self.writer.flush().and_then(|()| if keep { fs::rename(&self.part, &self.path) } else { self.discard() });
        finished.map_err(|error| unwritable(&self.path, &error))
    }

    fn discard(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_file(&self.part)
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, anyhow::anyhow!("cannot write {}: {error}", path.display()))
}
