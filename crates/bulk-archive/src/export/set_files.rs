use std::{collections::BTreeSet, fs, path::Path};

use super::{
    files::{ALL, ARCHIVE, INDEX, INFO, MANIFEST, cannot_read, digest, shown},
    manifest::SetManifest,
    options::ExportOptions,
    set::each_file,
};
use crate::{
    Error,
    archive::{Shape, unescaped},
};

/// What stands in a folder of a published set, for whoever takes it elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetFiles {
    /// The bytes of its `manifest.json`.
    pub manifest: Vec<u8>,
    /// All other files: archives, their indexes and shapes, each type's `all.tar` and `info.json`. With them a folder can be restored:
    /// [`rebuild_indexes`](crate::rebuild_indexes) makes what is known of the set.
    pub files: Vec<SetPath>,
    /// The folders of its types, also of those that have no items now.
    pub kinds: BTreeSet<String>,
}

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetPath {
    /// Its path below the folder, with `/`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Its SHA-256: as the manifest has it, or for a file that it does not name, of what was read.
    pub sha256: [u8; 32],
}

impl SetFiles {
    /// Finds the files of a set. Indexes and each `info.json` are read for their digests; of the options `stop` counts.
    /// Nothing keeps a run from publishing another set meanwhile, but an [`ExportSet`](crate::ExportSet) that is held.
    ///
    /// # Errors
    /// [`Error::Set`] if the folder has no manifest, as before the first run, or a damaged one; [`Error::Io`] for files;
    /// [`Error::Stopped`].
    pub fn find(folder: impl AsRef<Path>, options: &ExportOptions) -> Result<SetFiles, Error> {
        let folder = folder.as_ref();
        let path = folder.join(MANIFEST);
        let bytes = fs::read(&path).map_err(cannot_read(&path))?;
        let manifest = SetManifest::parse(&bytes, &shown(&path))?;
        let mut found = SetFiles { manifest: bytes, files: Vec::new(), kinds: BTreeSet::new() };
        for (name, bytes, sha256) in manifest.named() {
            let bad = || Error::Set { file: shown(&path), reason: format!("the digest of {name} is none") };
            found.files.push(SetPath { name: name.to_owned(), bytes, sha256: sha256.ok_or_else(bad)? });
        }
        let mut read: Vec<String> =
            manifest.archives.iter().map(|archive| format!("{}{INDEX}", archive.name)).collect();
        let mut kinds = types_in(folder)?;
        read.extend(kinds.iter().map(|kind| format!("{kind}/{INFO}")));
        for name in read {
            let (bytes, sha256) = digest(&folder.join(&name), options)?;
            found.files.push(SetPath { name, bytes, sha256 });
        }
        let of_archives = manifest.archives.iter().filter_map(|archive| Some(archive.name.split_once('/')?.0));
        kinds.extend(of_archives.map(str::to_owned));
        found.kinds = kinds;
        Ok(found)
    }

    /// Whether a path is one that a file of a set with types of these folders could have, but for its manifest. Whatever is called
    /// otherwise, or stands in or beside other folders, is somebody else's, or of a set that had other types, whose manifest
    /// names it ([`SetManifest::files`]).
    pub fn is_name_among(kinds: &BTreeSet<String>, name: &str) -> bool {
        let Some((kind, file)) = name.split_once('/') else {
            return Shape::of_file(name).is_some_and(|(kind, _)| kinds.contains(kind));
        };
        let group = file.strip_suffix(INDEX).unwrap_or(file).strip_suffix(ARCHIVE);
        let group = group.or_else(|| Some(Shape::of_file(file)?.0));
        let is_of_group = group.is_some_and(|group| unescaped(group.as_bytes()).is_some());
        kinds.contains(kind) && (is_of_group || matches!(file, INFO | ALL))
    }
}

/// The folders of types: each has its `info.json`, also while it has no archive.
pub(crate) fn types_in(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let mut kinds = BTreeSet::new();
    each_file(folder, |kind, name| {
        if name == INFO {
            kinds.insert(kind.to_owned());
        }
    })?;
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::SetFiles;

    #[test]
    fn names_are_of_a_set_or_not() {
        let kinds = BTreeSet::from(["a".to_owned(), "a%2F".to_owned()]);
        let is_name = |name: &str| SetFiles::is_name_among(&kinds, name);
        let whole = ["a.jsonl.gz", "a%2F.jsonl.zst", "a.parquet"];
        let shapes = ["a/b.jsonl.gz", "a/b.jsonl.zst", "a/b.parquet"];
        let names = ["a/b.tar.gz", "a/b.tar.gz.idx", "a/info.json", "a/all.tar", "a%2F/%2E.tar.gz"];
        for name in names.into_iter().chain(shapes).chain(whole) {
            assert!(is_name(name), "{name}");
        }
        let others = [
            "b.tar.gz",
            "/b.tar.gz",
            "a/",
            "a/.tar.gz",
            "a/.parquet",
            ".parquet",
            ".a.parquet",
            "b.parquet",
            "A.parquet",
            "a.b.jsonl.gz",
            "parquet",
            "a/b/c.tar.gz",
            "a/b.tar",
            "a/b.idx",
            ".a/b.tar.gz",
            // Of no type.
            "b/b.tar.gz",
            "b/info.json",
            "b/part-0.parquet",
            "a.parquet/part-0.parquet",
            "A/b.parquet",
            // No group is called so in a path.
            "a/.tar.gz.idx",
            "a/-b.parquet",
            "a/b c.parquet",
            "a/%2f.tar.gz",
        ];
        for name in others.into_iter().chain(["manifest.json", "a/manifest.json", "info.json", ""]) {
            assert!(!is_name(name), "{name}");
        }
    }
}
