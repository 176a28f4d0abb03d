//! Parts that nobody works on: those of earlier runs, and of files that failed or were given up in this one.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::budget::Reservation;
use crate::part::{Paths, STATE_FOLDER};

/// A part without anybody who works on it.
pub(crate) struct Leftover {
    pub(crate) name: String,
    pub(crate) paths: Arc<Paths>,
    pub(crate) space: Reservation,
    /// A run that asks for the file goes on with it.
    pub(crate) is_resumable: bool,
    /// It was there before this run.
    pub(crate) is_old: bool,
}

/// What is left over, and counts against the disk budget until a file of the plan takes it up, or it is removed.
///
/// What can be resumed is kept, also if this plan does not ask for it: another one may. It is removed only if the file in
/// front needs its space and nothing else has any. What cannot be resumed is removed when space is short, and when the
/// plan has come to its end without asking for it.
#[derive(Default)]
pub(crate) struct Leftovers {
    parts: Vec<Leftover>,
    /// Names of those that are being removed.
    clearing: HashSet<String>,
}

impl Leftovers {
    pub(crate) fn extend(&mut self, parts: impl IntoIterator<Item = Leftover>) {
        self.parts.extend(parts);
    }

    /// Gives the space of what is left of `name` to the file of that name, which sees to it from now on. `Err` while it
    /// is being removed.
    pub(crate) fn take_up(&mut self, name: &str) -> Result<Option<Reservation>, ()> {
        if self.clearing.contains(name) {
            return Err(());
        }
        let at = self.parts.iter().position(|part| part.name == name);
        Ok(at.map(|at| self.parts.swap_remove(at).space))
    }

    /// One of no use, which is to be removed and then [`cleared`](Self::cleared).
    pub(crate) fn useless(&mut self) -> Option<Leftover> {
        let at = self.parts.iter().position(|part| !part.is_resumable)?;
        Some(self.clear(at))
    }

    /// Any, those of this run first, which is to be removed and then [`cleared`](Self::cleared).
    pub(crate) fn any(&mut self) -> Option<Leftover> {
        let at = self.parts.iter().position(|part| !part.is_old).or((!self.parts.is_empty()).then_some(0))?;
        Some(self.clear(at))
    }

    fn clear(&mut self, at: usize) -> Leftover {
        let part = self.parts.swap_remove(at);
        self.clearing.insert(part.name.clone());
        part
    }

    pub(crate) fn is_clearing(&self) -> bool {
        !self.clearing.is_empty()
    }

    pub(crate) fn cleared(&mut self, name: &str) {
        self.clearing.remove(name);
    }

    /// What was there before this run and is not taken up, by name.
    pub(crate) fn old(&self) -> Vec<(String, u64)> {
        let old = self.parts.iter().filter(|part| part.is_old);
        let mut old: Vec<_> = old.map(|part| (part.name.clone(), part.space.bytes())).collect();
        old.sort_unstable();
        old
    }
}

/// A part that stands in a folder, and how many bytes of the disk it takes.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) paths: Paths,
    pub(crate) bytes: u64,
    pub(crate) is_resumable: bool,
}

/// Looks for the parts of earlier runs, and removes their torn records. What cannot be read is left alone: it is said when
/// its file is asked for. Also says whether nothing at all is there, of any file.
pub(crate) fn find(folder: &Path) -> (Vec<Found>, bool) {
    let mut found = Vec::new();
    let mut is_fresh = true;
    let mut prefixes = vec![String::new()];
    while let Some(prefix) = prefixes.pop() {
        let Ok(entries) = fs::read_dir(folder.join(STATE_FOLDER).join(&prefix)) else {
            is_fresh = false;
            continue;
        };
        for entry in entries {
            is_fresh = false;
            let Ok(entry) = entry else { continue };
            // Names are UTF-8; what is not is none of ours.
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            let name = format!("{prefix}{name}");
            if kind.is_dir() {
                prefixes.push(format!("{name}/"));
                continue;
            }
            if name.ends_with(Paths::TEMPORARY) {
                // Nobody writes it: the folder is locked.
                let _ = fs::remove_file(entry.path());
            }
            let Some(name) = name.strip_suffix(Paths::PART) else { continue };
            let (Ok(paths), Ok(metadata)) = (Paths::new(folder, name), entry.metadata()) else { continue };
            let is_resumable = paths.is_resumable();
            found.push(Found { name: name.to_owned(), paths, bytes: allocated(&metadata), is_resumable });
        }
    }
    (found, is_fresh)
}

/// The bytes that a file takes on the disk, of which it may have holes.
fn allocated(metadata: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    return metadata.len().min(std::os::unix::fs::MetadataExt::blocks(metadata) * 512);
    #[cfg(not(unix))]
    metadata.len()
}
