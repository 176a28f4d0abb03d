use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::source::is_inside;
use crate::{Body, Error, Get, Source};

const READ: usize = 256 * 1024;

/// Files below a local folder; the key is the path below it. Files have no ETag: a change shows in size and time.
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
            io::ErrorKind::NotFound => Error::NotFound { location: location.clone() },
            io::ErrorKind::PermissionDenied => Error::Denied { location: location.clone(), reason: None },
            _ => Error::io("read", &path, source),
        };
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::NotFound { location });
        }
        if get.start > metadata.len() {
            return Err(Error::Changed { location, what: "it is shorter than before".into() });
        }
        file.seek(SeekFrom::Start(get.start)).await.map_err(failed)?;
        file.set_max_buf_size(READ);
        let bytes = futures::stream::unfold(Some((file, path.clone())), |state| async {
            let (mut file, path) = state?;
            let mut buffer = BytesMut::with_capacity(READ);
            match file.read_buf(&mut buffer).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(buffer.freeze()), Some((file, path)))),
                Err(error) => Some((Err(Error::io("read", path, error)), None)),
            }
        });
        let mut body = Body::new(get.start, bytes.boxed());
        body.size = Some(metadata.len());
        body.last_modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        Ok(body)
    }
}
