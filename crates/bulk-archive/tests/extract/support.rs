use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{Cursor, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use bulk_archive::{Error, ExtractOptions, Extracted, Refusal, extract};
use tempfile::TempDir;

/// What is at a path: its kind and mode, its time, its bytes or target, how many names it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, i64),
    pub(crate) bytes: Vec<u8>,
    pub(crate) names: u64,
}

/// All that is below a folder.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (bytes, names) = if meta.is_dir() {
                folders.push(path.clone());
                (Vec::new(), 0)
            } else if meta.is_symlink() {
                (fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(), meta.nlink())
            } else {
                (fs::read(&path).unwrap(), meta.nlink())
            };
            let node = Node { mode: meta.mode(), mtime: (meta.mtime(), meta.mtime_nsec()), bytes, names };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    tree
}

/// The paths below a folder.
pub(crate) fn paths(root: &Path) -> Vec<String> {
    tree(root).into_keys().map(|path| path.to_string_lossy().into_owned()).collect()
}

/// A folder with a target in it that does not exist, and a witness beside it that must stay as it is.
pub(crate) struct Place {
    pub(crate) above: TempDir,
    before: BTreeMap<PathBuf, Node>,
}

impl Place {
    pub(crate) fn new() -> Place {
        let above = tempfile::tempdir().unwrap();
        fs::create_dir(above.path().join("beside")).unwrap();
        fs::write(above.path().join("beside/witness"), b"stays").unwrap();
        fs::write(above.path().join("witness"), b"stays").unwrap();
        let before = tree(above.path());
        Place { above, before }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.above.path().join("target")
    }

    /// What is not below the target is as it was.
    #[track_caller]
    pub(crate) fn check_outside(&self) {
        let mut now = tree(self.above.path());
        now.retain(|path, _| !path.starts_with("target"));
        assert_eq!(now, self.before);
    }

    #[track_caller]
    pub(crate) fn extract(&self, archive: &[u8], name: &str, options: &ExtractOptions) -> Result<Extracted, Error> {
        let outcome = extract(Cursor::new(archive.to_vec()), name, &self.target(), options);
        self.check_outside();
        outcome
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        paths(&self.target())
    }
}

/// A member for [`archive`]: type, name, target of the link, data.
pub(crate) struct Raw<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) data: &'a [u8],
    pub(crate) mode: u32,
}

pub(crate) fn raw<'a>(kind: u8, name: &'a str, link: &'a str, data: &'a [u8]) -> Raw<'a> {
    Raw { kind, name: name.as_bytes(), link: link.as_bytes(), data, mode: 0o644 }
}

pub(crate) fn file<'a>(name: &'a str, data: &'a [u8]) -> Raw<'a> {
    raw(b'0', name, "", data)
}

pub(crate) fn folder(name: &str) -> Raw<'_> {
    raw(b'5', name, "", b"")
}

pub(crate) fn symlink<'a>(name: &'a str, to: &'a str) -> Raw<'a> {
    raw(b'2', name, to, b"")
}

pub(crate) fn hard_link<'a>(name: &'a str, to: &'a str) -> Raw<'a> {
    raw(b'1', name, to, b"")
}

/// The blocks of members, as they are, without an end.
pub(crate) fn blocks(members: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        bytes.extend(header(member, member.data.len() as u64));
        bytes.extend(member.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

/// A header that says what it is told to.
pub(crate) fn header(member: &Raw<'_>, size: u64) -> Vec<u8> {
    let mut header = [0; 512];
    header[..member.name.len()].copy_from_slice(member.name);
    header[100..108].copy_from_slice(format!("{:07o}\0", member.mode).as_bytes());
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"14677100000\0");
    header[156] = member.kind;
    header[157..157 + member.link.len()].copy_from_slice(member.link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header.to_vec()
}

pub(crate) fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A whole archive.
pub(crate) fn archive(members: &[Raw<'_>]) -> Vec<u8> {
    [blocks(members), vec![0; 1024]].concat()
}

/// A record of an extended header.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap() + body.len();
    [length.to_string().as_bytes(), &body].concat()
}

#[track_caller]
pub(crate) fn check_refused(outcome: Result<Extracted, Error>, member: &str, reason: Refusal) {
    match outcome {
        Err(Error::Refused { file, member: found, reason: why }) => {
            assert_eq!((file.as_str(), found.as_str(), why), ("a.tar", member, reason));
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a program and gives its standard output.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&OsStr], folder: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Extracts with GNU tar, as the umask decides.
pub(crate) fn gnu_tar(archive: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(archive).unwrap();
    let arguments = ["--no-same-permissions", "--no-same-owner", "-xf"].map(OsStr::new);
    run("tar", &[&arguments[..], &[file.path().as_os_str()]].concat(), folder.path());
    folder
}
