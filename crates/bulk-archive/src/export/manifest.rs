use std::{collections::BTreeSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use super::files::{INDEX, INFO, MANIFEST, cannot_read, shown};
use crate::{Error, archive::Shape};

/// What a set has: its `manifest.json`.
///
/// It is removed before the first file of a new set gets its name, and written when the last has. So what is there belongs
/// together, for readers that find the same manifest before and after they read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetManifest {
    /// The version of this format: 1.
    pub format: u32,
    /// When the run began that published the set, as RFC 3339 in UTC.
    pub created: String,
    /// How many items all archives have.
    pub entries: u64,
    /// How many bytes all archives have.
    pub bytes: u64,
    /// The archives, in the order of their names.
    pub archives: Vec<SetArchive>,
    /// The same items in other formats, as [`Shape`](crate::Shape) tells them by the ends of their names, in the order of these.
    /// What stands in the folder of a type (`opinions/scotus.parquet`) has the items of an archive, what stands beside it
    /// (`opinions.parquet`) those of all archives in it, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<SetShape>,
    /// Files that have all archives of a type, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<SetBundle>,
}

/// An archive of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetArchive {
    /// Its path below the folder.
    pub name: String,
    /// Items.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// The items of an archive, or of all archives of a type, in another format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetShape {
    /// Its path below the folder.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// An `all.tar` of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetBundle {
    /// Its path below the folder.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// The version that is written, and the only one that is read.
const FORMAT: u32 = 1;

impl SetManifest {
    pub(crate) fn new(
        created: String,
        archives: Vec<SetArchive>,
        shapes: Vec<SetShape>,
        bundles: Vec<SetBundle>,
    ) -> SetManifest {
        let (entries, bytes) = (archives.iter().map(|a| a.entries).sum(), archives.iter().map(|a| a.bytes).sum());
        SetManifest { format: FORMAT, created, entries, bytes, archives, shapes, bundles }
    }

    /// Reads the manifest of a folder; none where it has none, as before the first run, and while a new set gets its names.
    ///
    /// # Errors
    /// [`Error::Set`] where it is malformed or of another version; [`Error::Io`].
    pub fn read(folder: impl AsRef<Path>) -> Result<Option<SetManifest>, Error> {
        let path = folder.as_ref().join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read(&path)(error)),
        };
        Self::parse(&bytes, &shown(&path)).map(Some)
    }

    /// Reads the bytes of a manifest, which errors call `file`.
    ///
    /// # Errors
    /// [`Error::Set`] where it is malformed or of another version.
    pub fn parse(bytes: &[u8], file: &str) -> Result<SetManifest, Error> {
        let bad = |reason| Error::Set { file: file.to_owned(), reason };
        let manifest: SetManifest = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if manifest.format == FORMAT {
            Ok(manifest)
        } else {
            Err(bad(format!("it is of version {}, and {FORMAT} is known", manifest.format)))
        }
    }

    /// Name, bytes and SHA-256 of each file that it names: the archives, the shapes, the bundles. A digest that is none is missing.
    pub fn named(&self) -> impl Iterator<Item = (&str, u64, Option<[u8; 32]>)> {
        let archives = self.archives.iter().map(|archive| (&archive.name, archive.bytes, &archive.sha256));
        let bundles = self.bundles.iter().map(|bundle| (&bundle.name, bundle.bytes, &bundle.sha256));
        let shapes = self.shapes.iter().map(|shape| (&shape.name, shape.bytes, &shape.sha256));
        archives
            .chain(shapes)
            .chain(bundles)
            .map(|(name, bytes, sha256)| (name.as_str(), bytes, of_hexadecimal(sha256)))
    }

    /// All files of the set but for the manifest itself, with the SHA-256 of those that it [names](SetManifest::named): the
    /// indexes of its archives and the `info.json` of each of its types follow from these.
    pub fn files(&self) -> Vec<(String, Option<[u8; 32]>)> {
        let mut files: Vec<_> = self.named().map(|(name, _, sha256)| (name.to_owned(), sha256)).collect();
        files.extend(self.archives.iter().map(|archive| (format!("{}{INDEX}", archive.name), None)));
        let kind = |(name, ..): (&'_ str, _, _)| -> Option<String> {
            let kind = name.split_once('/').map(|(kind, _)| kind).or_else(|| Some(Shape::of_file(name)?.0));
            kind.map(str::to_owned)
        };
        let kinds: BTreeSet<String> = self.named().filter_map(kind).collect();
        files.extend(kinds.into_iter().map(|kind| (format!("{kind}/{INFO}"), None)));
        files
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Nothing in it can fail.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

pub(crate) fn of_hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes =
        digits.filter(|digits| digits.len() == 64)?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>();
    bytes.try_into().ok()
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
