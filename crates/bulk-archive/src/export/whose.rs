//! Whose the file is that stands where one of a set is, or is to be: what no export has made is neither replaced nor removed.
//!
//! A name proves nothing, nor does a map or an index that was left over. A file is ours by its bytes: it has the length and the
//! digest that the roster, the manifest or its map says, or a stretch that its map has, in its place (of an archive, a chain of its
//! index), or, where that has but one, that length and what each such file of ours begins with. One that is shorter than what the
//! roster or the manifest says is ours, too, if it begins so and is cut short, as nothing is that somebody means to keep. So one of
//! ours that the disk has damaged is known, and made anew; but for one that has become longer, as a file does that somebody has
//! added to, and a small one whose first bytes are others.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::{
    files::{Folder, Named, cannot_read, digest, shown},
    group::pair,
    options::ExportOptions,
    roster::Facts,
};
use crate::{
    DecodeOptions, Decoder, Error,
    archive::{ARCHIVE_HEADER, ArchiveIndex, Found, Map, Shape, look_into},
};

/// What stands in the place of a file of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    Ours,
    Others,
    Folder,
}

/// What stands in the place of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveThere {
    /// It has the bytes that it is known by.
    Sound,
    /// It is ours, and has others.
    Damaged,
    /// It is none of ours, or not there.
    Other(There),
}

/// What stands in the place of a shape, whose file and map have these names. `known` is what the file may be known as, besides by
/// the map.
pub(crate) fn there(
    folder: &Folder,
    names: &(String, String),
    shape: Shape,
    known: &[Facts],
    options: &ExportOptions,
) -> Result<There, Error> {
    let path = folder.root.join(&names.0);
    let len = match file_there(&path)? {
        Ok(len) => len,
        Err(there) => return Ok(there),
    };
    let map = Map::open_any(&folder.root.join(&names.1), shape)?.filter(|map| len <= map.len);
    let mapped = map.as_ref().map(|map| (map.len, map.sha256));
    let mut file = File::open(&path).map_err(cannot_read(&path))?;
    if let Some(map) = map {
        let has_len = len == map.len;
        match map.look_into(&file)? {
            Found::Stretch => return Ok(There::Ours),
            Found::None { stretches: 0 | 1 } if has_len && begins(&mut file, shape.header(), &path)? => {
                return Ok(There::Ours);
            }
            Found::None { .. } => {}
        }
    }
    let is_shorter = known.iter().any(|facts| len < facts.bytes);
    if is_shorter && is_cut_short(&path, shape.header(), shape == Shape::Parquet, options)? {
        return Ok(There::Ours);
    }
    let known = known.iter().map(|facts| (facts.bytes, facts.sha256)).chain(mapped);
    Ok(if has_digest(&path, len, known, options)? { There::Ours } else { There::Others })
}

/// What stands in the place of an archive, which may be known as one of these.
pub(crate) fn archive_there(
    folder: &Folder,
    file: &str,
    known: &[Facts],
    options: &ExportOptions,
) -> Result<ArchiveThere, Error> {
    let (path, index) = pair(&folder.root, file);
    let len = match file_there(&path)? {
        Ok(len) => len,
        Err(there) => return Ok(ArchiveThere::Other(there)),
    };
    if has_digest(&path, len, known.iter().map(|facts| (facts.bytes, facts.sha256)), options)? {
        return Ok(ArchiveThere::Sound);
    }
    let mut archive = Named::open(&path)?;
    let opened = Named::open(&index).and_then(|index| ArchiveIndex::open(index, &shown(&path)));
    let index = opened.ok().filter(|index| {
        let summary = index.summary();
        len <= summary.len && known.iter().any(|facts| (facts.entries, facts.bytes) == (summary.entries, summary.len))
    });
    let is_small = match index.map(|index| look_into(index, &mut archive, || options.go_on())).transpose()? {
        Some(Found::Stretch) => return Ok(ArchiveThere::Damaged),
        Some(Found::None { stretches }) => stretches <= 1,
        None => false,
    };
    let has_len = known.iter().any(|facts| facts.bytes == len);
    let is_ours = is_small && has_len && begins(&mut archive, &ARCHIVE_HEADER, &path)?
        || known.iter().any(|facts| len < facts.bytes) && is_cut_short(&path, &ARCHIVE_HEADER, false, options)?;
    Ok(if is_ours { ArchiveThere::Damaged } else { ArchiveThere::Other(There::Others) })
}

/// Whether an error says that the bytes of an archive are none that it could have.
pub(crate) fn is_of_bytes(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. }
            | Error::Truncated { .. }
            | Error::CodecMismatch { .. }
            | Error::Tar { .. }
            | Error::TarTruncated { .. }
    )
}

/// Why an archive of the set that is known as one of these cannot be used, which this error says of its bytes.
pub(crate) fn explained(folder: &Folder, file: &str, known: &[Facts], error: Error, options: &ExportOptions) -> Error {
    let offset = error.offset();
    let is_of_others = matches!(error, Error::Index { .. } | Error::IndexMismatch { .. } | Error::Io { .. });
    if !is_of_others && !is_of_bytes(&error) {
        return error;
    }
    let path = folder.root.join(file);
    match archive_there(folder, file, known, options) {
        // It is the index, or the disk; else it was published so, with blocks that had been damaged before they were copied.
        Ok(ArchiveThere::Sound) if is_of_others => error,
        Ok(ArchiveThere::Sound | ArchiveThere::Damaged) => Error::Damaged { file: shown(&path), offset },
        Ok(ArchiveThere::Other(There::Nothing)) => Error::Missing { file: shown(&path) },
        Ok(ArchiveThere::Other(there)) => check(&path, there, true).err().unwrap_or(error),
        Err(other) => other,
    }
}

/// Whether a file of the set may be made in this place, replaced or removed. `is_known`: whether the set has one there.
pub(crate) fn check(path: &Path, there: There, is_known: bool) -> Result<(), Error> {
    let reason = match there {
        There::Nothing | There::Ours => return Ok(()),
        There::Folder => "it is a folder, where a file of the set is to be; move it elsewhere",
        There::Others if is_known => "it is not what the last export made there, and would be lost; move it elsewhere",
        There::Others => "no export has made it, and it would be overwritten; move it elsewhere",
    };
    Err(Error::Set { file: shown(path), reason: reason.to_owned() })
}

/// The length of the file in a place, or what else is there.
pub(crate) fn file_there(path: &Path) -> Result<Result<u64, There>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(There::Nothing)),
        Err(error) => return Err(cannot_read(path)(error)),
        Ok(facts) if facts.is_dir() => return Ok(Err(There::Folder)),
        Ok(_) => {}
    }
    // A link may lead to it, or to nothing; to open a pipe would be to wait for somebody who writes to it.
    Ok(match fs::metadata(path) {
        Ok(facts) if facts.is_file() => Ok(facts.len()),
        _ => Err(There::Others),
    })
}

/// Whether a file of this length is one of those that are known by length and digest.
fn has_digest(
    path: &Path,
    len: u64,
    known: impl Iterator<Item = (u64, [u8; 32])>,
    options: &ExportOptions,
) -> Result<bool, Error> {
    let known: Vec<[u8; 32]> = known.filter(|(bytes, _)| *bytes == len).map(|(_, sha256)| sha256).collect();
    Ok(!known.is_empty() && known.contains(&digest(path, options)?.1))
}

/// Whether a file begins with these bytes.
fn begins(file: &mut (impl Read + Seek), header: &[u8], path: &Path) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(header.len() as u64).read_to_end(&mut bytes));
    read.map_err(cannot_read(path))?;
    Ok(bytes == header)
}

/// Whether a file begins as each of ours does and ends before its format says that it does. Parquet ends as it begins; of the others
/// all is read.
fn is_cut_short(path: &Path, header: &[u8], is_parquet: bool, options: &ExportOptions) -> Result<bool, Error> {
    let mut file = Named::open(path)?;
    let mut begin = Vec::new();
    file.by_ref().take(header.len() as u64).read_to_end(&mut begin).map_err(cannot_read(path))?;
    if begin.len() < header.len() {
        return Ok(header.starts_with(&begin));
    }
    if begin != header {
        return Ok(false);
    }
    if is_parquet {
        let mut end = vec![0; header.len()];
        let back = -(header.len() as i64);
        file.seek(SeekFrom::End(back)).and_then(|_| file.read_exact(&mut end)).map_err(cannot_read(path))?;
        return Ok(end != header);
    }
    let mut plain = match Decoder::open(path, &DecodeOptions::default()) {
        Ok(plain) => plain,
        Err(Error::Truncated { .. }) => return Ok(true),
        Err(Error::Io { file, offset, source }) => return Err(Error::Io { file, offset, source }),
        Err(_) => return Ok(false),
    };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        options.go_on()?;
        match plain.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return match error.downcast::<Error>() {
                    Ok(Error::Truncated { .. }) => Ok(true),
                    Ok(Error::Io { file, offset, source }) => Err(Error::Io { file, offset, source }),
                    Ok(_) => Ok(false),
                    Err(error) => Err(cannot_read(path)(error)),
                };
            }
        }
    }
}
