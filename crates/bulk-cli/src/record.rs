use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};

/// So many events are kept, the last ones; those before are counted.
const MAX_EVENTS: usize = 10_000;

/// The run, for the file of `--report`.
pub(crate) struct Record {
    path: PathBuf,
    folder: PathBuf,
    started: (Timestamp, Instant),
    events: Mutex<(VecDeque<Value>, u64)>,
}

impl Record {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::usage(format!("cannot write the report {}: {error}", path.display()));
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // A folder of no use is better known before the work than after it.
        tempfile::tempfile_in(folder).map_err(failed)?;
        let started = (Timestamp::now(), Instant::now());
        Ok(Self { path: path.to_owned(), folder: folder.to_owned(), started, events: Mutex::default() })
    }

    pub(crate) fn add(&self, event: &Value) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.0.len() == MAX_EVENTS {
            events.0.pop_front();
            events.1 += 1;
        }
        events.0.push_back(event.clone());
    }

    /// Writes the file. What had that name is replaced at once, never in part.
    pub(crate) fn write(&self, command: &str, exit: Exit) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, anyhow::anyhow!("cannot write the report {}: {error}", self.path.display()))
        };
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let run = json!({
            "bulk": env!("CARGO_PKG_VERSION"),
            "command": command,
            "started": self.started.0.to_string(),
            "seconds": self.started.1.elapsed().as_secs_f64(),
            "exit": exit as u8,
            "events": events.0,
            "events_left_out": events.1,
        });
        let mut text = serde_json::to_vec_pretty(&run).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let mut builder = tempfile::Builder::new();
        // Such as any other file gets: the process's mask applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.prefix(".bulk-report-").tempfile_in(&self.folder).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
