use std::io::{self, Read};

use md5::{Digest as _, Md5};

use crate::{Algorithm, Digest, ETag};

const MIB: u64 = 1024 * 1024;
/// S3's limit of parts in an upload.
const MAX_PARTS: u64 = 10_000;
/// Part sizes that are tried at once.
const MAX_CANDIDATES: usize = 16;
const READ: usize = 256 * 1024;

/// Part sizes in MiB that common clients use unless told otherwise, the most common first.
const DEFAULTS: [u64; 14] = [
    8,   // AWS CLI, boto3, the CRT clients, Mountpoint
    5,   // rclone, the Go, Java and JavaScript SDKs: the least that S3 takes
    16,  // MinIO's SDKs
    64,  // MinIO's older clients, Hadoop
    15,  // s3cmd
    50,  // s5cmd
    10,  // object_store
    128, // Hadoop's older default
    100, 25, 20, 12, 32, 512,
];
/// Part sizes in bytes that are no multiple of a MiB: S3's web console, and decimal megabytes.
const ODD_DEFAULTS: [u64; 4] = [17_179_870, 10_000_000, 5_000_000, 100_000_000];

/// The ETag of an object that S3 put together from uploaded parts: the MD5 of the parts' MD5s, and how many there were
/// (`d41d8cd98f00b204e9800998ecf8427e-3`).
///
/// Nothing tells how large the parts were, and so what the tag says of the bytes: it has to be guessed. A guess that
/// fits proves that the bytes are the uploaded ones, as well as MD5 proves anything; that none fits proves nothing, for
/// the parts may have been of another size or of different sizes, and with encryption by KMS or a customer's key (SSE-KMS,
/// SSE-C) the tag is made of something else.
///
/// Each guess costs an MD5 over all bytes: at about 0.5 GB/s each on one core, with up to 16 of them for objects of few
/// large parts. For most objects there are one to three.
///
/// ```
/// use bulk_core::{ETag, MultipartEtag, MultipartVerdict};
///
/// let bytes = vec![0; 9 << 20];
/// let etag = MultipartEtag::parse(&ETag::new("d126ef08817d0490e207e456cb0ae080-2"), bytes.len() as u64).unwrap();
/// assert_eq!(etag.part_sizes()[0], 8 << 20);
/// assert_eq!(etag.verify(&bytes[..])?, MultipartVerdict::Matches { part_size: 8 << 20 });
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartEtag {
    md5: [u8; 16],
    parts: u64,
    size: u64,
    part_sizes: Vec<u64>,
}

/// What an object's bytes say to its [`MultipartEtag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultipartVerdict {
    /// They are the bytes that were uploaded, in parts of this size.
    Matches {
        /// Bytes of every part but the last. For an object of one part, the object's size.
        part_size: u64,
    },
    /// No part size that was tried gives the tag: the bytes differ, or the guesses were wrong.
    Unknown,
}

impl MultipartEtag {
    /// Reads a tag of the form `HEX-N`, of an object of `size` bytes. `None` if it has another form, or more parts than
    /// bytes.
    pub fn parse(etag: &ETag, size: u64) -> Option<Self> {
        let (md5, parts) = etag.as_str().split_once('-')?;
        let Ok(Digest::Md5(md5)) = Digest::from_hex(Algorithm::Md5, md5) else { return None };
        if !parts.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let parts = parts.parse().ok().filter(|parts| (1..=MAX_PARTS).contains(parts))?;
        (parts <= size.max(1)).then(|| Self { md5, parts, size, part_sizes: candidates(size, parts) })
    }

    /// How many parts there were.
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// The part sizes that are tried, the likeliest first, never more than 16: those of common clients that give this
    /// number of parts, then other multiples of a MiB that do. None, if there are none: then the verdict is
    /// [`MultipartVerdict::Unknown`].
    pub fn part_sizes(&self) -> &[u64] {
        &self.part_sizes
    }

    /// Tries `part_sizes` instead, as the uploader names them. Those that do not give the number of parts are left out,
    /// and so are all behind the sixteenth that does.
    #[must_use]
    pub fn with_part_sizes(mut self, part_sizes: &[u64]) -> Self {
        self.part_sizes = fitting(part_sizes.iter().copied(), self.size, self.parts);
        self
    }

    /// What to give the object's bytes to, in order, beside a download.
    pub fn hasher(&self) -> MultipartHasher {
        MultipartHasher {
            etag: self.md5,
            size: self.size,
            seen: 0,
            candidates: self.part_sizes.iter().map(|size| Candidate::new(*size)).collect(),
        }
    }

    /// Reads the whole object and tries all part sizes at once, in a buffer of 256 KiB.
    ///
    /// # Errors
    ///
    /// Those of `reader`.
    pub fn verify(&self, mut reader: impl Read) -> io::Result<MultipartVerdict> {
        let mut hasher = self.hasher();
        let mut buffer = vec![0; READ];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(len) => hasher.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes the bytes of an object for [`MultipartEtag::hasher`]. Its memory does not grow.
#[derive(Clone)]
pub struct MultipartHasher {
    etag: [u8; 16],
    size: u64,
    seen: u64,
    candidates: Vec<Candidate>,
}

impl MultipartHasher {
    /// Takes the object's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        self.candidates.iter_mut().for_each(|candidate| candidate.update(bytes));
    }

    /// The verdict on all bytes. Fewer or more than the object's are never a match.
    pub fn finish(self) -> MultipartVerdict {
        let Self { etag, size, seen, candidates } = self;
        let mut candidates = candidates.into_iter().filter(|_| seen == size);
        let matching = candidates.find_map(|candidate| {
            let part_size = candidate.part_size;
            (candidate.finish() == etag).then_some(part_size)
        });
        matching.map_or(MultipartVerdict::Unknown, |part_size| MultipartVerdict::Matches { part_size })
    }
}

#[derive(Clone)]
struct Candidate {
    part_size: u64,
    /// Bytes that the part under way still takes.
    missing: u64,
    part: Md5,
    parts: Md5,
}

impl Candidate {
    fn new(part_size: u64) -> Self {
        Self { part_size, missing: part_size, part: Md5::new(), parts: Md5::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A part ends only when a byte follows, so that an object never ends in an empty one.
            if self.missing == 0 {
                self.parts.update(self.part.finalize_reset());
                self.missing = self.part_size;
            }
            let len = usize::try_from(self.missing).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(len);
            self.part.update(now);
            self.missing -= len as u64;
            bytes = later;
        }
    }

    fn finish(mut self) -> [u8; 16] {
        self.parts.update(self.part.finalize());
        self.parts.finalize().into()
    }
}

/// Sizes of which `parts` parts, the last one perhaps smaller, make up `size` bytes.
fn candidates(size: u64, parts: u64) -> Vec<u64> {
    if parts == 1 {
        // Any size that holds it all gives the same tag.
        return vec![size.max(1)];
    }
    // Clients that grow the part size where 10,000 parts would not do: rounded up to a byte (Java) or MiB (rclone), or
    // doubled (AWS CLI), which is among the powers of two.
    let least = size.div_ceil(MAX_PARTS);
    let grown = [least, least.next_multiple_of(MIB)].into_iter().filter(|size| *size > 5 * MIB);
    let powers = (23..=32).map(|power| 1 << power);
    let (from, to) = (size.div_ceil(parts), size.div_ceil(parts - 1));
    let multiples = (from.div_ceil(MIB)..=to / MIB).map(|mib| mib * MIB);
    let likely = DEFAULTS.iter().map(|mib| mib * MIB).chain(ODD_DEFAULTS).chain(grown).chain(powers);
    fitting(likely.chain(multiples), size, parts)
}

/// The first of `sizes` that give `parts` parts, each once.
fn fitting(sizes: impl Iterator<Item = u64>, size: u64, parts: u64) -> Vec<u64> {
    let mut fitting = Vec::new();
    for part_size in sizes {
        if part_size > 0 && size.div_ceil(part_size).max(1) == parts && !fitting.contains(&part_size) {
            fitting.push(part_size);
        }
        if fitting.len() == MAX_CANDIDATES {
            break;
        }
    }
    fitting
}
