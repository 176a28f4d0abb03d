use std::fs::Metadata;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::source::is_inside;
use crate::{Body, ETag, Error, Get, Source};

const READ: usize = 256 * 1024;

/// Files below a local folder; the key is the path below it.
///
/// A file's ETag is made of its size, its time of modification in nanoseconds and, on Unix, its inode. It is a strong one:
/// whoever writes to a file, or puts another in its place, changes it. What goes unnoticed, here as with every tool that
/// goes by times, is a change that keeps the size and comes with the old time: within one tick of the file system's clock
/// (milliseconds on Linux), or by a program that sets the time back. Where the system knows no time there is no ETag.
///
/// A body is of one version: if the file was written to while it was read, its last bytes are withheld, and
/// [`Error::Changed`] comes instead. A file that was replaced (by a rename) is read to the end as it was.
#[derive(Clone, Debug)]
pub struct FileSource {
    root: PathBuf,
}

impl FileSource {
    /// A source of the files below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

#[async_trait]
impl Source for FileSource {
    fn location(&self, key: &str) -> String {
        self.root.join(key).display().to_string()
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        if !is_inside(&get.key) {
            return Err(Error::Name { name: get.key.clone(), reason: "it leaves the folder" });
        }
        let location = self.location(&get.key);
        let path = self.root.join(&get.key);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { location: location.clone() },
            io::ErrorKind::PermissionDenied => Error::Denied { location: location.clone(), reason: None },
            _ => Error::io("read", &path, source),
        };
        let changed = |what: String| Error::Changed { location: location.clone(), what };
        if get.end.is_some_and(|end| end <= get.start) {
            return Err(Error::Protocol { location, what: "the range asked for is empty".to_owned() });
        }
        // What is no file must not be opened: a pipe waits for its writer.
        if !tokio::fs::metadata(&path).await.map_err(failed)?.is_file() {
            return Err(Error::NotFound { location });
        }
        let mut file = File::open(&path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        let etag = etag(&metadata);
        match (&get.if_match, &etag) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(changed(format!("its ETag was {expected} and is {found}")));
            }
            (Some(expected), None) => return Err(changed(format!("its ETag was {expected} and it has none now"))),
            _ => {}
        }
        let size = metadata.len();
        if get.start > 0 && get.start >= size {
            return Err(changed("it is shorter than before".to_owned()));
        }
        let end = get.end.map_or(size, |end| end.min(size));
        if get.start > 0 {
            file.seek(SeekFrom::Start(get.start)).await.map_err(failed)?;
        }
        file.set_max_buf_size(READ);
        let reader = Reader { file, path, location, etag: etag.clone(), position: get.start, end };
        let bytes = futures::stream::unfold(Some(reader), |reader| async {
            let mut reader = reader.filter(|reader| reader.position < reader.end)?;
            match reader.read().await {
                Ok(chunk) => Some((Ok(chunk), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let mut body = Body::new(get.start, bytes.boxed());
        body.end = Some(end);
        body.size = Some(size);
        body.etag = etag;
        body.last_modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        body.has_ranges = true;
        Ok(body)
    }
}

/// What is left to read of one body.
struct Reader {
    file: File,
    path: PathBuf,
    location: String,
    etag: Option<ETag>,
    position: u64,
    end: u64,
}

impl Reader {
    /// The next bytes, at least one; the last ones only if the file is still the same.
    async fn read(&mut self) -> Result<Bytes, Error> {
        let failed = |source| Error::io("read", &self.path, source);
        let left = self.end - self.position;
        let wanted = usize::try_from(left).map_or(READ, |left| left.min(READ));
        let mut buffer = BytesMut::with_capacity(wanted);
        (&mut self.file).take(wanted as u64).read_buf(&mut buffer).await.map_err(failed)?;
        self.position += buffer.len() as u64;
        if buffer.is_empty() || self.position == self.end {
            let now = etag(&self.file.metadata().await.map_err(failed)?);
            if now != self.etag {
                let what = "it was written to while it was read".to_owned();
                return Err(Error::Changed { location: self.location.clone(), what });
            }
        }
        if buffer.is_empty() {
            let location = self.location.clone();
            return Err(Error::Truncated { location, expected: self.end, received: self.position });
        }
        Ok(buffer.freeze())
    }
}

fn etag(metadata: &Metadata) -> Option<ETag> {
    let modified = Timestamp::try_from(metadata.modified().ok()?).ok()?.as_nanosecond();
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(ETag::new(format!("{:x}-{modified:x}-{inode:x}", metadata.len())))
}
