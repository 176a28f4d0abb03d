use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

use super::{
    borders::Borders,
    chains::Chains,
    composer::with_contents,
    deflate::{HEADER, TRAILER_LEN},
    filler,
    header::{self, BLOCK, END},
    index::{ArchiveSummary, ContentHash, IndexedEntry, Place},
    name,
    splice::IndexedArchive,
};
#[cfg(all(feature = "export", unix))]
use super::{index::ArchiveIndex, shape::Found};
use crate::{Codec, Error};

/// Checks an archive against its index: the checksum of each block, the headers, content and order of each entry, where
/// blocks end, and the end of the archive. It inflates all of it, with one thread, and holds a block at a time.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::Truncated`] where the archive is not what the index says; [`Error::Index`] where
/// the index is damaged; [`Error::Io`].
pub fn verify<A: Read + Seek, I: Read + Seek>(archive: IndexedArchive<A, I>) -> Result<ArchiveSummary, Error> {
    check(archive, None)
}

/// Checks some blocks of an archive against its index: the checksum of each, and the headers, content and order of its
/// entries, and the end of the archive. `blocks` are the numbers of blocks, in order, as
/// [`Spliced::made_blocks`](crate::Spliced::made_blocks) gives them. It inflates these, and what stands before them in
/// their chains.
///
/// # Errors
/// As [`verify`].
pub fn verify_blocks<A: Read + Seek, I: Read + Seek>(
    archive: IndexedArchive<A, I>,
    blocks: &[Range<u64>],
) -> Result<ArchiveSummary, Error> {
    check(archive, Some(blocks))
}

/// Whether an archive has a chain of this index in its place, so that it is what the index says, whatever has become of the rest:
/// of each chain the first block is looked at.
#[cfg(all(feature = "export", unix))]
pub(crate) fn look_into<A: Read + Seek, I: Read + Seek>(
    mut index: ArchiveIndex<I>,
    archive: &mut A,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<Found, Error> {
    let (file, mut stretches) = (index.file().to_owned(), 0);
    loop {
        go_on()?;
        let block = match index.next_block() {
            Ok(Some(block)) => block,
            Ok(None) | Err(Error::Index { .. }) => return Ok(Found::None { stretches }),
            Err(error) => return Err(error),
        };
        if !block.place.begins_chain {
            continue;
        }
        stretches += 1;
        let mut chains = Chains::behind(&file, block.number);
        chains.note(&block);
        match chains.inflate(block.number, archive) {
            Ok(_) => return Ok(Found::Stretch),
            Err(Error::Corrupt { .. } | Error::Truncated { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Checks these blocks, or all, and where they begin, too.
fn check<A: Read + Seek, I: Read + Seek>(
    archive: IndexedArchive<A, I>,
    blocks: Option<&[Range<u64>]>,
) -> Result<ArchiveSummary, Error> {
    let IndexedArchive { mut archive, mut index } = archive;
    let file = index.file().to_owned();
    let summary = index.summary();
    let corrupt = |offset, reason: &str| Error::Corrupt {
        file: file.clone(),
        codec: Codec::Gzip,
        offset,
        reason: reason.to_owned(),
    };
    let unended = |offset| corrupt(offset, "a block before it is not ended for readers that come from there");
    let mut wanted = blocks.map(|blocks| blocks.iter().peekable());
    let mut chains = Chains::new(&file);
    let mut borders = Borders::new(index.recipe().lens);
    let mut crc = crc32fast::Hasher::new();
    let mut end = HEADER.len() as u64;
    let mut was_checked = false;
    let mut last_id: Option<String> = None;
    while let Some(block) = index.next_block()? {
        let place = block.place;
        if was_checked && place.begins_chain && !chains.is_between_blocks() {
            return Err(unended(place.offset));
        }
        chains.note(&block);
        crc.combine(&crc32fast::Hasher::new_with_initial_len(place.crc, place.plain_len));
        let (filled, before_was_checked) = (end..place.offset, was_checked);
        end = place.offset + place.len;
        was_checked = match &mut wanted {
            None => true,
            Some(wanted) => {
                while wanted.next_if(|range| range.end <= block.number).is_some() {}
                wanted.peek().is_some_and(|range| range.contains(&block.number))
            }
        };
        if was_checked || before_was_checked {
            check_filler(&mut archive, filled, &file)?;
        }
        if !was_checked {
            continue;
        }
        let plain = chains.inflate(block.number, &mut archive)?;
        let entries = block.entries()?;
        for (at, (entry, content)) in with_contents(&entries).enumerate() {
            if blocks.is_none() {
                let is_first = block.number == 0 && at == 0;
                check_border(&mut borders, entry, &place, is_first, at == 0, &file)?;
            }
            check_entry(entry, &plain, content, last_id.as_deref(), place.offset, &file)?;
            last_id = Some(entry.id.clone());
        }
    }
    if was_checked && !chains.is_between_blocks() {
        return Err(unended(end));
    }
    crc.update(&END);
    if crc.finalize() != summary.crc {
        return Err(corrupt(summary.len, "the blocks have another checksum than the whole"));
    }
    read_end(&mut archive, end, summary.len, &file)?;
    Ok(summary)
}

/// Checks that blocks and chains begin where the entries say, of all of which this is the next.
fn check_border(
    borders: &mut Borders,
    entry: &IndexedEntry,
    place: &Place,
    is_first: bool,
    begins: bool,
    file: &str,
) -> Result<(), Error> {
    let wrong = |reason: &str| wrong(entry, place.offset, file, reason);
    if (is_first || borders.end_block(&entry.id, entry.tar_len())) != begins {
        return Err(wrong("the border of blocks before it is missing, or should be"));
    }
    if begins {
        borders.end();
        let begins_chain = borders.begin_chain(&entry.id);
        borders.begin(begins_chain);
        if begins_chain != place.begins_chain {
            return Err(wrong("the border of chains before it is missing, or should be"));
        }
    }
    borders.add(entry.tar_len());
    Ok(())
}

/// Checks an entry of a block against what the index says of it.
fn check_entry(
    entry: &IndexedEntry,
    plain: &[u8],
    content: Range<usize>,
    last_id: Option<&str>,
    offset: u64,
    file: &str,
) -> Result<(), Error> {
    let wrong = |reason: &str| wrong(entry, offset, file, reason);
    if last_id.is_some_and(|last| last >= entry.id.as_str()) {
        return Err(wrong("its id is not behind the one before"));
    }
    let mut headers = Vec::new();
    header::write(&mut headers, &name::of_id(&entry.id, file)?, entry.len, entry.mtime);
    let padded = content.start..content.start + content.len().next_multiple_of(BLOCK);
    if plain[content.start - headers.len()..content.start] != headers {
        return Err(wrong("its header is another"));
    }
    if ContentHash::of(&plain[content.clone()]) != entry.hash {
        return Err(wrong("its content is another"));
    }
    if plain[padded][content.len()..].iter().any(|&byte| byte != 0) {
        return Err(wrong("what fills its last block is not zeros"));
    }
    Ok(())
}

fn wrong(entry: &IndexedEntry, offset: u64, file: &str, reason: &str) -> Error {
    let reason = format!("the entry of {:?}: {reason}", entry.id);
    Error::Corrupt { file: file.to_owned(), codec: Codec::Gzip, offset, reason }
}

/// Checks what stands before a chain.
fn check_filler(archive: &mut (impl Read + Seek), filled: Range<u64>, file: &str) -> Result<(), Error> {
    if filled.is_empty() {
        return Ok(());
    }
    let io = |source| Error::Io { file: file.to_owned(), offset: Some(filled.start), source };
    let expected = filler::bytes(filled.end - filled.start);
    let mut bytes = vec![0; expected.len()];
    archive.seek(SeekFrom::Start(filled.start)).map_err(io)?;
    archive.read_exact(&mut bytes).map_err(io)?;
    if bytes == expected {
        return Ok(());
    }
    let reason = "what stands before a chain is something else".to_owned();
    Err(Error::Corrupt { file: file.to_owned(), codec: Codec::Gzip, offset: filled.start, reason })
}

/// Checks that the stream ends behind the last block as it should.
fn read_end(archive: &mut (impl Read + Seek), start: u64, len: u64, file: &str) -> Result<(), Error> {
    let corrupt = |reason: &str| Error::Corrupt {
        file: file.to_owned(),
        codec: Codec::Gzip,
        offset: start,
        reason: reason.to_owned(),
    };
    let io = |source| Error::Io { file: file.to_owned(), offset: Some(start), source };
    // The end is two empty blocks, which take a few bytes.
    let end_len = len
        .checked_sub(start + TRAILER_LEN as u64)
        .filter(|&end_len| end_len <= 2 * END.len() as u64)
        .ok_or_else(|| corrupt("bytes that belong to no block"))?;
    let mut packed = vec![0; end_len as usize];
    archive.seek(SeekFrom::Start(start)).map_err(io)?;
    archive.read_exact(&mut packed).map_err(io)?;
    let mut plain = Vec::with_capacity(END.len() + 1);
    let mut inflate = flate2::Decompress::new(false);
    let status = inflate.decompress_vec(&packed, &mut plain, flate2::FlushDecompress::Finish);
    if !matches!(status, Ok(flate2::Status::StreamEnd)) || plain != END || inflate.total_in() != end_len {
        return Err(corrupt("the end is not that of a tar"));
    }
    Ok(())
}
