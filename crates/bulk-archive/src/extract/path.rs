//! Which names of members and targets of links are taken.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{ExtractOptions, disk::PARTS};
use crate::{Limit, Refusal};

/// Why a name is not taken.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    Refused(Refusal),
    Limit(Limit),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

/// The path of a member relative to the folder, made of ordinary names alone. It is empty for the folder itself, which
/// archives of `.` begin with.
pub(crate) fn member(name: &[u8], options: &ExtractOptions) -> Result<PathBuf, Fault> {
    if name.is_empty() {
        return Err(Refusal::EmptyName.into());
    }
    checked(name, options)?;
    if name.starts_with(b"/") {
        return Err(Refusal::AbsolutePath.into());
    }
    let mut path = PathBuf::new();
    for (depth, part) in name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).enumerate() {
        match part {
            b".." => return Err(Refusal::ParentFolder.into()),
            _ if depth == options.max_depth => return Err(Fault::Limit(Limit::Depth(options.max_depth))),
            _ => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// Checks that the path is not in the folder of unfinished files. Its case counts for nothing, since there are file
/// systems for which it does not.
pub(crate) fn not_reserved(path: &Path) -> Result<(), Refusal> {
    match path.components().next() {
        Some(first) if first.as_os_str().eq_ignore_ascii_case(PARTS) => Err(Refusal::Reserved),
        _ => Ok(()),
    }
}

/// Checks that the target of a symbolic link that is to stand at `path` stays in the folder, wherever it leads.
///
/// The folders above a link are real ones, so that as many `..` as there are of them, at its beginning, stay inside;
/// from there on it descends. Where it descends through another link, the same is true of that one.
pub(crate) fn link_target(target: &[u8], path: &Path, options: &ExtractOptions) -> Result<(), Fault> {
    if target.is_empty() {
        return Err(Refusal::LinkEmpty.into());
    }
    checked(target, options)?;
    if target.starts_with(b"/") {
        return Err(Refusal::LinkLeaves.into());
    }
    let mut above = path.components().count().saturating_sub(1);
    let mut descends = false;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if descends => return Err(Refusal::LinkTurns.into()),
            b".." => above = above.checked_sub(1).ok_or(Refusal::LinkLeaves)?,
            _ => descends = true,
        }
    }
    Ok(())
}

fn checked(name: &[u8], options: &ExtractOptions) -> Result<(), Fault> {
    if name.contains(&0) {
        return Err(Refusal::NulInName.into());
    }
    if name.len() > options.max_path_length {
        return Err(Fault::Limit(Limit::PathLength(options.max_path_length)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members() {
        let options = ExtractOptions { max_depth: 3, max_path_length: 20, ..ExtractOptions::default() };
        let taken: [(&[u8], &str); 8] = [
            (b"a", "a"),
            (b"a/b/c", "a/b/c"),
            (b"./a//./b/", "a/b"),
            (b".", ""),
            (b"./", ""),
            (b"...", "..."),
            (b"..a/b..", "..a/b.."),
            (b"a\\b", "a\\b"),
        ];
        for (name, path) in taken {
            assert_eq!(member(name, &options), Ok(PathBuf::from(path)), "{name:?}");
        }
        let refused: [(&[u8], Fault); 9] = [
            (b"", Refusal::EmptyName.into()),
            (b"/a", Refusal::AbsolutePath.into()),
            (b"//", Refusal::AbsolutePath.into()),
            (b"..", Refusal::ParentFolder.into()),
            (b"a/../b", Refusal::ParentFolder.into()),
            (b"a/..", Refusal::ParentFolder.into()),
            (b"a\0", Refusal::NulInName.into()),
            (b"a/b/c/d", Fault::Limit(Limit::Depth(3))),
            (b"aaaaaaaaaaaaaaaaaaaaa", Fault::Limit(Limit::PathLength(20))),
        ];
        for (name, fault) in refused {
            assert_eq!(member(name, &options), Err(fault), "{name:?}");
        }
        assert_eq!(not_reserved(Path::new(".Bulk-Extract/a")), Err(Refusal::Reserved));
        assert_eq!(not_reserved(Path::new("a/.bulk-extract")), Ok(()));
        assert_eq!(not_reserved(Path::new("")), Ok(()));
    }

    #[test]
    fn targets_of_links() {
        let options = ExtractOptions::default();
        let check = |path: &str, target: &str| link_target(target.as_bytes(), Path::new(path), &options);
        for (path, target) in [("a", "b"), ("a", "./b/c"), ("a/b", "../c"), ("a/b/c", "../.././"), ("a", "..b")] {
            assert_eq!(check(path, target), Ok(()), "{path} -> {target}");
        }
        for (path, target, refusal) in [
            ("a", "", Refusal::LinkEmpty),
            ("a", "/etc", Refusal::LinkLeaves),
            ("a", "..", Refusal::LinkLeaves),
            ("a/b", "../../c", Refusal::LinkLeaves),
            ("a", "b/..", Refusal::LinkTurns),
            ("a/b", "../c/../../d", Refusal::LinkTurns),
            ("a", "b\0", Refusal::NulInName),
        ] {
            assert_eq!(check(path, target), Err(refusal.into()), "{path} -> {target}");
        }
    }
}
