use std::{io, path::PathBuf};

use super::{
    files,
    runs::{Merge, Runs, Tag},
    stage::{Buffer, Stage},
};
use crate::{Error, archive::entry_name};

/// How many published items are looked at together.
const PAGE: u32 = 4096;

/// What a sweep found.
#[non_exhaustive]
pub struct Swept {
    /// Items in the list, each once.
    pub listed: u64,
    /// Items of the list with ids that cannot be published: empty ones, and those with names longer than 255 bytes.
    pub refused: u64,
    /// Items that were published, or put, and are not in the list. They are staged to be removed.
    pub removed: u64,
    /// Items that the list has more than once.
    pub repeated: u64,
    /// Items in the list that are not published, or in another group, and not put in this stage either; and those that it has
    /// more than once.
    pub wanted: Wanted,
}

/// Items that are in a list and are to be put, or were put more than once, in the order of their ids. They wait on disk.
pub struct Wanted {
    _runs: Runs,
    items: Merge,
    left: u64,
}

impl Wanted {
    /// How many are left.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next ids with their groups, at most so many; none when all have been given.
    ///
    /// # Errors
    /// [`Error::Set`] where what was staged is damaged; [`Error::Io`].
    pub fn next_batch(&mut self, most: usize) -> Result<Vec<(String, String)>, Error> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(record) = self.items.next()?
        {
            batch.push((record.id, group_name(record.content)));
        }
        self.left -= batch.len() as u64;
        Ok(batch)
    }
}

/// It came from a `String`.
fn group_name(content: Vec<u8>) -> String {
    String::from_utf8(content).unwrap_or_default()
}

impl Stage<'_> {
    /// Compares a full list of the ids and groups of a type, in any order, with what is published and what has been staged
    /// so far. What is not in the list is removed. What is in it and missing, or in another group, or in it more than once, comes
    /// back, to be put.
    ///
    /// So the list has to be of the same moment as what was put before, such as from one snapshot of a database. It is
    /// sorted on disk: memory is that of [`ExportOptions::memory`](crate::ExportOptions::memory).
    ///
    /// # Errors
    /// [`Error::Changes`] where the list gives an error; [`Error::Refused`] for a type that cannot be a name;
    /// [`Error::Output`], [`Error::Io`], [`Error::Roster`], [`Error::Stopped`].
    pub fn sweep(
        &mut self,
        kind: &str,
        list: impl IntoIterator<Item = io::Result<(String, String)>>,
    ) -> Result<Swept, Error> {
        self.spill()?;
        // The list takes its place.
        self.buffer = Buffer::default();
        let number = self.kind(kind)?;
        let folder = self.sweep_folder()?;
        let (mut sorted, mut page, mut page_len) = (Runs::new(&folder), Vec::new(), 0);
        let mut refused = 0;
        for item in list {
            self.set.options.go_on()?;
            let (id, group) = item.map_err(|source| Error::Changes { file: kind.to_owned(), source })?;
            if entry_name(&id).is_err() {
                refused += 1;
                continue;
            }
            page_len += id.len() + group.len() + 2 * size_of::<(String, String)>();
            page.push((id, group));
            if page_len as u64 > self.set.options.memory {
                self.sort(&mut sorted, &mut page)?;
                page_len = 0;
            }
        }
        self.sort(&mut sorted, &mut page)?;
        drop(page);
        let mut listed = sorted.merge(0)?;
        let mut wanted = Runs::new(&folder.join("wanted"));
        files::make_folder(&folder.join("wanted"))?;
        let mut writer = wanted.write()?;
        let (mut listed_count, mut removed, mut left, mut repeated) = (0, 0, 0, 0);
        let mut next = listed.next()?;
        let mut after: Option<String> = None;
        loop {
            let published = self.set.roster.items(number, after.as_deref(), PAGE)?;
            let is_last = published.len() < PAGE as usize;
            after = published.last().map(|(id, _)| id.clone()).or(after);
            for (id, group) in published {
                self.set.options.go_on()?;
                while let Some(item) = next.take_if(|item| item.id < id) {
                    repeated += u64::from(item.again);
                    writer.record(0, Tag::Put, &item.id, 0, &item.content)?;
                    (listed_count, left, next) = (listed_count + 1, left + 1, listed.next()?);
                }
                match next.take_if(|item| item.id == id) {
                    Some(item) => {
                        repeated += u64::from(item.again);
                        if item.again || self.set.roster.names.groups[&group].name.as_bytes() != item.content {
                            writer.record(0, Tag::Put, &item.id, 0, &item.content)?;
                            left += 1;
                        }
                        (listed_count, next) = (listed_count + 1, listed.next()?);
                    }
                    None => {
                        self.remove(kind, &id)?;
                        removed += 1;
                    }
                }
            }
            if is_last {
                break;
            }
        }
        while let Some(item) = next {
            repeated += u64::from(item.again);
            writer.record(0, Tag::Put, &item.id, 0, &item.content)?;
            (listed_count, left, next) = (listed_count + 1, left + 1, listed.next()?);
        }
        wanted.add(writer, || Ok(()))?;
        let wanted = Wanted { items: wanted.merge(0)?, _runs: wanted, left };
        Ok(Swept { listed: listed_count, refused, removed, repeated, wanted })
    }

    /// The items of a type that this stage has put more than once, and not removed since, with a group that they were put into.
    /// Some may be among them that were removed in between. What is staged by several [runs of
    /// memory](crate::ExportOptions::memory) is read once for it.
    ///
    /// # Errors
    /// [`Error::Set`] where what was staged is damaged; [`Error::Output`], [`Error::Io`], [`Error::Roster`], [`Error::Stopped`].
    pub fn repeated(&mut self, kind: &str) -> Result<Wanted, Error> {
        self.spill()?;
        // What is found takes its place.
        self.buffer = Buffer::default();
        let number = self.set.roster.names.kind(kind);
        let folder = self.sweep_folder()?;
        let (mut sorted, mut page, mut page_len) = (Runs::new(&folder), Vec::new(), 0);
        for (group, _) in self.runs.groups() {
            let name = self.set.roster.names.groups.get(&group).filter(|group| Some(group.kind) == number);
            let Some(name) = name.filter(|_| self.runs.may_repeat(group)) else { continue };
            let mut records = self.runs.merge(group)?;
            while let Some(record) = records.next()? {
                self.set.options.go_on()?;
                if !record.again {
                    continue;
                }
                page_len += record.id.len() + name.name.len() + 2 * size_of::<(String, String)>();
                page.push((record.id, name.name.clone()));
                if page_len as u64 > self.set.options.memory {
                    self.sort(&mut sorted, &mut page)?;
                    page_len = 0;
                }
            }
        }
        self.sort(&mut sorted, &mut page)?;
        drop(page);
        let mut found = sorted.merge(0)?;
        let mut wanted = Runs::new(&folder.join("wanted"));
        files::make_folder(&folder.join("wanted"))?;
        let (mut writer, mut left) = (wanted.write()?, 0);
        while let Some(item) = found.next()? {
            self.set.options.go_on()?;
            writer.record(0, Tag::Put, &item.id, 0, &item.content)?;
            left += 1;
        }
        wanted.add(writer, || Ok(()))?;
        Ok(Wanted { items: wanted.merge(0)?, _runs: wanted, left })
    }

    /// Writes some items of a list, sorted.
    fn sort(&self, sorted: &mut Runs, page: &mut Vec<(String, String)>) -> Result<(), Error> {
        if page.is_empty() {
            return Ok(());
        }
        // Stable, so that the last of an id comes last.
        page.sort_by(|a, b| a.0.cmp(&b.0));
        let mut run = sorted.write()?;
        let mut again = false;
        for (at, (id, group)) in page.iter().enumerate() {
            if page.get(at + 1).is_some_and(|next| next.0 == *id) {
                again = true;
            } else {
                run.mark_again(std::mem::take(&mut again));
                run.record(0, Tag::Put, id, 0, group.as_bytes())?;
            }
        }
        page.clear();
        sorted.add(run, || self.set.options.go_on())
    }

    fn sweep_folder(&self) -> Result<PathBuf, Error> {
        let stage = self.set.folder.stage();
        let mut number = 0;
        loop {
            let folder = stage.join(format!("sweep-{number}"));
            if !folder.exists() {
                files::make_folder(&folder)?;
                return Ok(folder);
            }
            number += 1;
        }
    }
}
