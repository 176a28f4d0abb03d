//! What stands under a key.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest, Md5};

use super::{
    checksum::Checksum,
    chunk::{CHUNK, chunk},
    made_up::made_up,
    xml::hex,
};

/// 2024-01-01T00:00:00Z
const DEFAULT_LAST_MODIFIED: i64 = 1_704_067_200;

/// One object: its bytes, or how to make them, and what a listing says of it.
///
/// Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct Object {
    pub(super) meta: Meta,
    pub(super) content: Content,
    pub(super) content_type: Arc<str>,
    /// The headers `x-amz-meta-…` that it came with.
    pub(super) metadata: Arc<[(String, String)]>,
    /// As their headers have them.
    pub(super) checksums: Vec<(Checksum, Arc<str>)>,
    pub(super) is_kms_encrypted: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: Arc<str>,
    pub(super) last_modified: Timestamp,
}

#[derive(Clone)]
pub(super) enum Content {
    Bytes(Bytes),
    /// `tile` repeats with the period and is longer than a chunk by a period less one byte at least, so that every chunk
    /// is a slice of it.
    Repeating {
        tile: Bytes,
        period: usize,
    },
    Generated(Fill),
    MadeUp {
        seed: u64,
    },
    File(Arc<File>),
}

type Fill = Arc<dyn Fn(u64, &mut [u8]) + Send + Sync>;

impl Object {
    /// An object with these bytes. Its ETag is their MD5, as S3 makes it for a plain PUT; it was last modified at
    /// 2024-01-01T00:00:00Z, so that two runs list the same; its type is `binary/octet-stream`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let etag = hex(&Md5::digest(&bytes));
        Self::with_content(bytes.len() as u64, etag, Content::Bytes(bytes))
    }

    /// `size` zero bytes that occupy no memory.
    ///
    /// The ETag has the form of a multipart upload's, which is no MD5 of the content.
    pub fn zeros(size: u64) -> Self {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        let content = Content::Repeating { tile: Bytes::from_static(&ZEROS), period: 1 };
        Self::with_content(size, made_up_etag(size, &[0]), content)
    }

    /// `pattern` over and over, cut at `size` bytes. Costs no CPU when served, and up to 256 KiB of memory beside the
    /// pattern, as the pieces that are sent are cut from one stretch.
    ///
    /// The ETag has the form of a multipart upload's and follows from size and pattern. An empty pattern counts as a
    /// zero byte.
    pub fn repeating(size: u64, pattern: &[u8]) -> Self {
        let pattern = if pattern.is_empty() { &[0] } else { pattern };
        let etag = made_up_etag(size, pattern);
        let longest = usize::try_from(size).map_or(CHUNK, |size| size.min(CHUNK));
        let tile = pattern.repeat(longest.div_ceil(pattern.len()) + 1);
        Self::with_content(size, etag, Content::Repeating { tile: tile.into(), period: pattern.len() })
    }

    /// `size` bytes that `fill` makes whenever they are asked for: it is given the offset in the object and a zeroed
    /// buffer to fill from there. The same offset must always give the same bytes.
    ///
    /// The ETag has the form of a multipart upload's and follows from the size alone: give another with
    /// [`etag`](Self::etag) where two versions must differ.
    pub fn generated(size: u64, fill: impl Fn(u64, &mut [u8]) + Send + Sync + 'static) -> Self {
        Self::with_content(size, made_up_etag(size, b"generated"), Content::Generated(Arc::new(fill)))
    }

    /// `size` bytes that follow from their offset and `seed`, as [`made_up`] tells; they are held nowhere, so a hundred
    /// gigabytes occupy no memory.
    ///
    /// The ETag has the form of a multipart upload's and follows from size and seed.
    pub fn made_up(size: u64, seed: u64) -> Self {
        let etag = made_up_etag(size, &[b"made up ", &seed.to_le_bytes()[..]].concat());
        Self::with_content(size, etag, Content::MadeUp { seed })
    }

    /// Gives the object this ETag, without quotes.
    #[must_use]
    pub fn etag(mut self, etag: &str) -> Self {
        self.meta.etag = etag.into();
        self
    }

    /// Gives the object an ETag in the form of a multipart upload of `parts` parts: `HEX-parts`, which is not the MD5
    /// of the content.
    #[must_use]
    pub fn multipart(mut self, parts: u32) -> Self {
        let digest = hex(&Md5::digest(self.meta.etag.as_bytes()));
        self.meta.etag = format!("{digest}-{parts}").into();
        self
    }

    /// Gives the object the ETag of a plain PUT, the MD5 of its content, which is made and read for it now: a gigabyte
    /// takes seconds.
    #[must_use]
    pub fn md5_etag(mut self) -> Self {
        let mut digest = Md5::new();
        self.each_chunk(self.meta.size, 0, |chunk| digest.update(chunk));
        self.meta.etag = hex(&digest.finalize()).into();
        self
    }

    /// Gives the object the ETag that S3 computes for a multipart upload in parts of `part_size` bytes, which is the
    /// MD5 of the parts' MD5s and their number. The content is made and read for it now. 0 counts as one part.
    #[must_use]
    pub fn multipart_etag(mut self, part_size: u64) -> Self {
        let part_size = if part_size == 0 { self.meta.size.max(1) } else { part_size };
        let parts = self.meta.size.div_ceil(part_size).max(1);
        let mut digests = Md5::new();
        for part in 0..parts {
            let start = part * part_size;
            let mut digest = Md5::new();
            self.each_chunk(part_size.min(self.meta.size - start), start, |chunk| digest.update(chunk));
            digests.update(digest.finalize());
        }
        self.meta.etag = format!("{}-{parts}", hex(&digests.finalize())).into();
        self
    }

    /// Gives the object a checksum of its whole content, which is made and read for it now. It is answered in a header
    /// with `x-amz-checksum-type: FULL_OBJECT`, to requests with `x-amz-checksum-mode: ENABLED` that get the whole
    /// object, as S3 does. Several algorithms can be given.
    #[must_use]
    pub fn checksum(self, algorithm: Checksum) -> Self {
        let mut state = algorithm.start();
        self.each_chunk(self.meta.size, 0, |chunk| state.update(chunk));
        self.checksum_value(algorithm, &state.finish())
    }

    /// Like [`checksum`](Self::checksum), with the value of the header, right or wrong. One of the form `BASE64-PARTS`
    /// is answered with `x-amz-checksum-type: COMPOSITE`.
    #[must_use]
    pub fn checksum_value(mut self, algorithm: Checksum, value: &str) -> Self {
        self.checksums.retain(|(other, _)| *other != algorithm);
        self.checksums.push((algorithm, value.into()));
        self
    }

    /// Says that the object is encrypted under a key of AWS KMS. Its ETag becomes another one, which still looks like an
    /// MD5, and is none.
    #[must_use]
    pub fn kms_encrypted(mut self) -> Self {
        self.is_kms_encrypted = true;
        self.meta.etag = hex(&Md5::new().chain_update("kms").chain_update(&*self.meta.etag).finalize()).into();
        self
    }

    /// Says when the object was last modified. S3 keeps whole seconds, and so does this.
    #[must_use]
    pub fn last_modified(mut self, at: Timestamp) -> Self {
        self.meta.last_modified = whole_seconds(at);
        self
    }

    /// Says what `Content-Type` is answered.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = content_type.into();
        self
    }

    pub(super) fn with_content(size: u64, etag: String, content: Content) -> Self {
        Self {
            meta: Meta { size, etag: etag.into(), last_modified: default_last_modified() },
            content,
            content_type: "binary/octet-stream".into(),
            metadata: Arc::default(),
            checksums: Vec::new(),
            is_kms_encrypted: false,
        }
    }

    /// Hands out `len` bytes from `position` on.
    fn each_chunk(&self, len: u64, mut position: u64, mut take: impl FnMut(&[u8])) {
        let end = position + len;
        while position < end {
            let chunk =
                self.content.read(position, end - position).expect("only files can fail, and nobody is handed one");
            take(&chunk);
            position += chunk.len() as u64;
        }
    }

    /// Writes all bytes to `out`.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut position = 0;
        while position < self.meta.size {
            let chunk = self.content.read(position, self.meta.size - position)?;
            out.write_all(&chunk)?;
            position += chunk.len() as u64;
        }
        Ok(())
    }
}

impl Content {
    /// Up to [`CHUNK`] bytes from `position` on, at least one; `left` is how many there are, and is not zero.
    pub(super) fn read(&self, position: u64, left: u64) -> io::Result<Bytes> {
        let len = left.min(CHUNK as u64) as usize;
        match self {
            Self::Bytes(bytes) => {
                let start = position as usize;
                Ok(bytes.slice(start..start + len))
            }
            Self::Repeating { tile, period } => {
                let start = (position % *period as u64) as usize;
                Ok(tile.slice(start..start + len))
            }
            Self::Generated(fill) => chunk(len, |buffer| {
                buffer.fill(0);
                fill(position, buffer);
                Ok(())
            }),
            Self::MadeUp { seed } => chunk(len, |buffer| {
                made_up(*seed, position, buffer);
                Ok(())
            }),
            Self::File(file) => chunk(len, |buffer| file.read_exact_at(buffer, position)),
        }
    }

    pub(super) fn is_blocking(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

pub(super) fn default_last_modified() -> Timestamp {
    Timestamp::new(DEFAULT_LAST_MODIFIED, 0).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::new(at.as_second(), 0).unwrap_or(at)
}

/// S3 allows 10,000 parts; 8 MiB is the part size of the AWS tools.
pub(super) fn made_up_etag(size: u64, seed: &[u8]) -> String {
    let part = (8 * 1024 * 1024).max(size.div_ceil(10_000));
    let digest = Md5::new().chain_update(size.to_le_bytes()).chain_update(seed).finalize();
    format!("{}-{}", hex(&digest), size.div_ceil(part).max(1))
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes",
            Self::Repeating { .. } => "Repeating",
            Self::Generated(_) => "Generated",
            Self::MadeUp { .. } => "MadeUp",
            Self::File(_) => "File",
        })
    }
}

impl From<Bytes> for Object {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl From<Vec<u8>> for Object {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<String> for Object {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&'static str> for Object {
    fn from(text: &'static str) -> Self {
        Self::new(text)
    }
}

impl From<&'static [u8]> for Object {
    fn from(bytes: &'static [u8]) -> Self {
        Self::new(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Object {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::new(bytes.as_slice())
    }
}
