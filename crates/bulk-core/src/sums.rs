use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::{Algorithm, Digest, Error, Expected};

/// The longest line that is read: a path of 4096 bytes, every one escaped, and a digest fit in.
const MAX_LINE: u64 = 16 * 1024;

/// A checksum list as it stands beside data (`SHA256SUMS`, `data.md5`): the digest of each file by its name.
///
/// Understood are, in one list or several, MD5 and SHA-256 as written by
/// - `sha256sum` and `md5sum` of GNU coreutils: `HEX  name`, `HEX *name`, and `\HEX  name` with the name's line feed,
///   carriage return and backslash as `\n`, `\r`, `\\`;
/// - the same with `--tag`, and BSD: `SHA256 (name) = HEX`, and `HEX name` of their `-r`;
/// - `openssl dgst`: `SHA2-256(name)= HEX`.
///
/// 64 hexadecimal digits without a tag count as SHA-256, 32 as MD5. Lines may end in CR LF. Empty lines and those that
/// begin with `#` are skipped. A leading `./` of a name is dropped. Where several lines name a file, the strongest
/// algorithm's digest counts. The list is held in memory.
///
/// ```
/// use bulk_core::{Algorithm, Digest, Sums};
///
/// let list = "25f9e794323b453885f5181f1b624d0b *./digits.txt\n";
/// let sums = Sums::read(list.as_bytes())?;
/// assert_eq!(sums.get("digits.txt"), Some(Digest::of(Algorithm::Md5, b"123456789")));
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    digests: BTreeMap<String, Digest>,
}

/// Why a line of a checksum list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
#[non_exhaustive]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Sums {
    /// Reads the list at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], whose source is that of [`read`](Self::read).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        File::open(path)
            .and_then(|file| Self::read(BufReader::new(file)))
            .map_err(|error| Error::io("read", path, error))
    }

    /// Reads a list to its end. An empty one is no error.
    ///
    /// # Errors
    ///
    /// Those of `reader`. [`io::ErrorKind::InvalidData`] with a [`BadLine`] in it for the first line that is none of the
    /// forms above, is not UTF-8 or longer than 16 KiB, has an algorithm that is not known, or gives a file another digest
    /// than an earlier line of the same algorithm.
    pub fn read(mut reader: impl BufRead) -> io::Result<Self> {
        let mut sums = Self::default();
        let mut text = Vec::new();
        for line in 1.. {
            let bad = |reason| io::Error::new(io::ErrorKind::InvalidData, BadLine { line, reason });
            text.clear();
            if reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.len() as u64 > MAX_LINE {
                return Err(bad("it is longer than 16 KiB"));
            }
            let text = str::from_utf8(&text).map_err(|_| bad("it is not UTF-8"))?;
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, digest) = parse(text).map_err(bad)?;
            sums.insert(name, digest).map_err(bad)?;
        }
        Ok(sums)
    }

    /// Adds the lines of another list.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for the first name to which the two lists give different digests of one algorithm; the names
    /// before it are added.
    pub fn merge(&mut self, other: Self) -> Result<(), Error> {
        other.digests.into_iter().try_for_each(|(name, digest)| {
            self.insert(name.clone(), digest).map_err(|reason| Error::Name { name, reason })
        })
    }

    /// The digest of the file `name`, a path below the list's folder with `/` between its parts.
    pub fn get(&self, name: &str) -> Option<Digest> {
        self.digests.get(name).copied()
    }

    /// How many files it names.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether it names no file.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Names and digests as the list has them, in the order of the names' bytes. A name may be anything, such as a path out
    /// of the folder: never join it to one; [`expected`](Self::expected) is for that.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.digests.iter().map(|(name, digest)| (name.as_str(), *digest))
    }

    /// What [`verify_files`](crate::verify_files) has to find. It refuses names that leave the folder.
    pub fn expected(self) -> impl Iterator<Item = Result<Expected, Error>> + Send + 'static {
        self.digests.into_iter().map(|(name, digest)| Ok(Expected { name, size: None, digest: Some(digest) }))
    }

    fn insert(&mut self, name: String, digest: Digest) -> Result<(), &'static str> {
        match self.digests.get(&name) {
            Some(known) if known.algorithm() == digest.algorithm() && *known != digest => {
                Err("the file has two different digests")
            }
            Some(known) if known.algorithm() >= digest.algorithm() => Ok(()),
            _ => {
                self.digests.insert(name, digest);
                Ok(())
            }
        }
    }
}

/// The name and digest of a line without its end.
fn parse(line: &str) -> Result<(String, Digest), &'static str> {
    let (line, is_escaped) = match line.strip_prefix('\\') {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (name, digest) = match tagged(line) {
        Some((tag, name, value)) => (name, Digest::from_hex(algorithm(tag)?, value).map_err(|error| error.reason)?),
        None => untagged(line)?,
    };
    let name = if is_escaped { unescape(name)? } else { name.to_owned() };
    let mut name = name.as_str();
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    if name.is_empty() {
        return Err("it names no file");
    }
    Ok((name.to_owned(), digest))
}

/// Tag, name and value of `SHA256 (name) = HEX` and `SHA256(name)= HEX`.
fn tagged(line: &str) -> Option<(&str, &str, &str)> {
    let (tag, rest) = line.split_once('(')?;
    let tag = tag.strip_suffix(' ').unwrap_or(tag);
    let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/');
    // The name may hold anything, the value no parenthesis.
    let (name, value) = rest.rsplit_once(')')?;
    let value = value.trim_start_matches(' ').strip_prefix('=')?;
    (!tag.is_empty() && tag.bytes().all(is_tag)).then(|| (tag, name, value.trim_matches(' ')))
}

fn algorithm(tag: &str) -> Result<Algorithm, &'static str> {
    match tag.to_ascii_uppercase().as_str() {
        "MD5" => Ok(Algorithm::Md5),
        "SHA256" | "SHA2-256" | "SHA-256" => Ok(Algorithm::Sha256),
        _ => Err("its algorithm is neither MD5 nor SHA-256"),
    }
}

/// Name and digest of `HEX  name`, `HEX *name` and `HEX name`.
fn untagged(line: &str) -> Result<(&str, Digest), &'static str> {
    let (value, name) = line.split_once([' ', '\t']).ok_or("it is not a digest and a name")?;
    let algorithm = match value.len() {
        32 => Algorithm::Md5,
        64 => Algorithm::Sha256,
        _ if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return Err("its digest is as long as neither MD5 nor SHA-256");
        }
        _ => return Err("it is not a digest and a name"),
    };
    let digest = Digest::from_hex(algorithm, value).map_err(|error| error.reason)?;
    Ok((name.strip_prefix([' ', '*']).unwrap_or(name), digest))
}

fn unescape(name: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(character) = rest.next() {
        plain.push(match character {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('\\') => '\\',
                _ => return Err("its name has a backslash that escapes nothing"),
            },
            other => other,
        });
    }
    Ok(plain)
}
