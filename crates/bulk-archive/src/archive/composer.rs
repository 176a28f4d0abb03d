//! The blocks of a new archive: where they end, and which of them stand in an old one already.

use std::{
    io::{Read, Seek, Write},
    mem,
    ops::Range,
    sync::Arc,
};

use super::{
    borders::Borders,
    chains::Chains,
    deflate, header,
    index::{ContentHash, IndexedBlock, IndexedEntry, LONGEST_CONTENT, Recipe},
    name,
    press::{Press, Pressed, Raw, RawEntry},
};
use crate::{Error, Refusal};

/// Puts entries, and blocks of an old archive, one behind another.
///
/// Borders depend on the entries alone, so a block of the old archive is one of the new if it begins at a border of the
/// new one, ends at one, and refers to the same bytes before it.
pub(crate) struct Composer<S, W, X> {
    press: Press<S, W, X>,
    chains: Chains,
    file: String,
    borders: Borders,
    open: Open,
    /// What the block after the last that has ended may refer to.
    window: Window,
    /// The block of the old archive that the last block that has ended is equal to.
    same_as: Option<u64>,
    /// Whether blocks of the old archive may be taken as they are.
    may_copy: bool,
    /// The id of the last entry, or of the first of the last block, if that was added whole.
    last_id: String,
}

/// The block at hand.
enum Open {
    /// There is none, since nothing has been put yet.
    None,
    /// A block of the old archive of which it is not known yet whether it ends here in the new one, too.
    Held(Box<IndexedBlock>, Option<Settled>),
    /// A block of entries, and the block of the old archive that it is equal to.
    Made(Raw, Option<u64>),
}

enum Window {
    Known(Vec<u8>),
    /// The end of this block of the old archive.
    Old(u64),
}

/// The bytes of a held block and what it may refer to.
struct Settled {
    plain: Arc<Vec<u8>>,
    window: Vec<u8>,
}

impl<S: Read + Seek, W: Write, X: Write> Composer<S, W, X> {
    pub(crate) fn new(press: Press<S, W, X>, recipe: &Recipe, may_copy: bool, file: &str) -> Composer<S, W, X> {
        Composer {
            press,
            chains: Chains::new(file),
            file: file.to_owned(),
            borders: Borders::new(recipe.lens),
            open: Open::None,
            window: Window::Known(Vec::new()),
            same_as: None,
            may_copy,
            last_id: String::new(),
        }
    }

    /// Notes that this id comes next. Callers see to the order of what they put, so that only blocks of an old archive whose
    /// entries stand among those of another are against it.
    fn follow(&mut self, id: &str) -> Result<(), Error> {
        if self.last_id.as_str() >= id {
            let reason = "the entries of two blocks are not in order";
            return Err(Error::Index { file: self.file.clone(), offset: 0, reason });
        }
        self.last_id.clear();
        self.last_id.push_str(id);
        Ok(())
    }

    /// Adds an entry; its hash may be known.
    pub(crate) fn put(&mut self, id: &str, mtime: i64, content: &[u8], hash: Option<ContentHash>) -> Result<(), Error> {
        let name = name::of_id(id, &self.file)?;
        let content_len = content.len() as u64;
        if content_len > LONGEST_CONTENT {
            return Err(Error::Refused {
                file: self.file.clone(),
                member: id.to_owned(),
                reason: Refusal::ContentTooLong,
            });
        }
        self.follow(id)?;
        let len = header::entry_len(&name, content_len, mtime);
        self.end_before(id, len)?;
        let block = self.made(id)?;
        header::write(&mut block.plain, &name, content_len, mtime);
        let start = block.plain.len();
        block.plain.extend_from_slice(content);
        let content = start..block.plain.len();
        header::pad(&mut block.plain);
        block.entries.push(RawEntry { id: id.to_owned(), mtime, content, hash });
        self.borders.add(len);
        Ok(())
    }

    /// Adds a whole block of the old archive, the last that was noted.
    pub(crate) fn put_block(&mut self, block: IndexedBlock) -> Result<(), Error> {
        let (number, place) = (block.number, block.place);
        self.end_before(&block.first.id, block.first.tar_len())?;
        let begins = self.borders.at_border();
        if begins && self.may_copy {
            let begins_chain = self.borders.begin_chain(&block.first.id);
            let same_window = begins_chain || (number > 0 && self.same_as == Some(number - 1));
            if begins_chain == place.begins_chain && same_window {
                self.follow(&block.first.id)?;
                self.borders.begin(begins_chain);
                self.borders.add(place.plain_len);
                self.open = Open::Held(Box::new(block), None);
                return Ok(());
            }
        }
        let plain = self.inflate(number)?;
        for (entry, content) in with_contents(&block.entries()?) {
            self.put(&entry.id, entry.mtime, &plain[content], Some(entry.hash))?;
        }
        // The same entries from a border on make the same block.
        if begins && let Open::Made(_, same_as) = &mut self.open {
            *same_as = Some(number);
        }
        Ok(())
    }

    /// The bytes of a block of the old archive, which must be one of the last that were noted.
    pub(crate) fn inflate(&mut self, number: u64) -> Result<Arc<Vec<u8>>, Error> {
        self.chains.inflate(number, self.press.source())
    }

    /// Notes the next block of the old archive.
    pub(crate) fn note(&mut self, block: &IndexedBlock) {
        self.chains.note(block);
    }

    /// Takes from the old archive what the block at hand may need, so that many of the following ones may be left out.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        if let Open::Held(block, None) = &self.open {
            let block = block.clone();
            let settled = self.settled(&block)?;
            self.open = Open::Held(block, Some(settled));
        }
        Ok(())
    }

    /// Writes all that is left, and the end.
    pub(crate) fn finish(mut self) -> Result<Pressed<W, X>, Error> {
        self.end()?;
        self.press.finish()
    }

    /// Ends the block at hand if a border stands before this entry.
    fn end_before(&mut self, id: &str, len: u64) -> Result<(), Error> {
        if self.borders.end_block(id, len) { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), Error> {
        self.borders.end();
        match mem::replace(&mut self.open, Open::None) {
            Open::None => Ok(()),
            Open::Held(block, settled) => {
                self.same_as = Some(block.number);
                self.window = match settled {
                    Some(settled) => Window::Known(deflate::window(&settled.plain).to_vec()),
                    None => Window::Old(block.number),
                };
                self.press.copy(block)
            }
            Open::Made(raw, same_as) => {
                self.same_as = same_as;
                self.window = Window::Known(deflate::window(&raw.plain).to_vec());
                self.press.press(raw)
            }
        }
    }

    /// The block at hand as one of entries, to which another will be added.
    fn made(&mut self, id: &str) -> Result<&mut Raw, Error> {
        let raw = match mem::replace(&mut self.open, Open::None) {
            Open::None => {
                let begins_chain = self.borders.begin_chain(id);
                self.borders.begin(begins_chain);
                let window = if begins_chain { Vec::new() } else { self.window()? };
                Raw { plain: Vec::new(), window, begins_chain, entries: Vec::new() }
            }
            Open::Held(block, settled) => {
                let Settled { plain, window } = match settled {
                    Some(settled) => settled,
                    None => self.settled(&block)?,
                };
                let entries = with_contents(&block.entries()?)
                    .map(|(entry, content)| RawEntry {
                        id: entry.id.clone(),
                        mtime: entry.mtime,
                        content,
                        hash: Some(entry.hash),
                    })
                    .collect();
                let plain = Arc::unwrap_or_clone(plain);
                Raw { plain, window, begins_chain: block.place.begins_chain, entries }
            }
            Open::Made(raw, _) => raw,
        };
        self.open = Open::Made(raw, None);
        match &mut self.open {
            Open::Made(raw, _) => Ok(raw),
            Open::None | Open::Held(..) => unreachable!("it has just been set"),
        }
    }

    fn settled(&mut self, block: &IndexedBlock) -> Result<Settled, Error> {
        let window = if block.place.begins_chain { Vec::new() } else { self.window()? };
        Ok(Settled { plain: self.inflate(block.number)?, window })
    }

    /// What a block that begins now may refer to.
    fn window(&mut self) -> Result<Vec<u8>, Error> {
        match &self.window {
            Window::Known(window) => Ok(window.clone()),
            &Window::Old(number) => Ok(deflate::window(&self.inflate(number)?).to_vec()),
        }
    }
}

/// The entries of a block of the old archive, and where their contents are in it.
pub(crate) fn with_contents(entries: &[IndexedEntry]) -> impl Iterator<Item = (&IndexedEntry, Range<usize>)> {
    let mut end = 0;
    entries.iter().map(move |entry| {
        end += entry.tar_len() as usize;
        let start = end - entry.len.next_multiple_of(header::BLOCK as u64) as usize;
        (entry, start..start + entry.len as usize)
    })
}
