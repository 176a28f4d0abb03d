//! Whose the file is that stands where one of a set is, or is to be: what no export has made is neither replaced nor removed.
//!
//! A name proves nothing, nor does a map that was left over. A file is ours by its bytes: it has the length and the digest
//! that the roster, the manifest or its map says, or a stretch that its map has, in its place, or, where that has but one, that
//! length and what each such file of ours begins with. So one of ours that the disk has damaged is known, too, and made anew; but
//! for one that has become longer, as a file does that somebody has added to, and a small one that has become shorter or whose
//! first bytes are others.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    files::{Folder, cannot_read, digest, shown},
    options::ExportOptions,
    roster::Facts,
};
use crate::{
    Error,
    archive::{Found, Map, Shape},
};

/// What stands in the place of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    Ours,
    Others,
    Folder,
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
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(error) => return Err(cannot_read(&path)(error)),
        Ok(facts) if facts.is_dir() => return Ok(There::Folder),
        Ok(_) => {}
    }
    // A link may lead to it, or to nothing; to open a pipe would be to wait for somebody who writes to it.
    let len = match fs::metadata(&path) {
        Ok(facts) if facts.is_file() => facts.len(),
        _ => return Ok(There::Others),
    };
    let map = Map::open_any(&folder.root.join(&names.1), shape)?.filter(|map| len <= map.len);
    let mapped = map.as_ref().map(|map| (map.len, map.sha256));
    if let Some(map) = map {
        let mut file = File::open(&path).map_err(cannot_read(&path))?;
        let has_len = len == map.len;
        match map.look_into(&file)? {
            Found::Stretch => return Ok(There::Ours),
            Found::None { stretches: 0 | 1 } if has_len && shape.begins(&mut file).map_err(cannot_read(&path))? => {
                return Ok(There::Ours);
            }
            Found::None { .. } => {}
        }
    }
    let known = known.iter().map(|facts| (facts.bytes, facts.sha256)).chain(mapped);
    let known: Vec<[u8; 32]> = known.filter(|(bytes, _)| *bytes == len).map(|(_, sha256)| sha256).collect();
    let is_ours = !known.is_empty() && known.contains(&digest(&path, options)?.1);
    Ok(if is_ours { There::Ours } else { There::Others })
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
