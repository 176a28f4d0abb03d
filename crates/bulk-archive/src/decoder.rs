use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    Checkpoint, Codec, DecodeEvent, Error, Limit,
    decode_event::{Watch, Watched},
    input::Input,
};

/// How much may come out before a ratio counts: a small file of zeros is no bomb.
pub(crate) const FREE_OF_RATIO: u64 = 64 << 20;

/// How a [`Decoder`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// How many threads decode bzip2 blocks; 0 is taken as 1. One more thread reads the input. Each needs about 6 MB,
    /// 17 MB with blocks made to need most, and two to three blocks for each thread (of up to 900 kB before and 1.3 MB
    /// after decoding) wait for their turn. The other codecs decode in the thread that reads from the decoder.
    ///
    /// Default: the number of processors that the process may use.
    pub threads: usize,
    /// How many bytes may come out for each compressed byte; more is [`Error::LimitExceeded`], once 64 MiB have come out. It
    /// is for inputs that may have been made to fill a disk: a gzip of zeros has some 1,030, a bzip2 of them 20,000, text
    /// rarely more than 50. Default none.
    pub max_ratio: Option<f64>,
    /// Is told what each thread that decodes does, a few times for each 256 KiB of bzip2 and for each read of the other
    /// codecs, in that thread; so it should be quick. Default none.
    pub observer: Arc<dyn Fn(&DecodeEvent) + Send + Sync>,
}

impl fmt::Debug for DecodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeOptions")
            .field("threads", &self.threads)
            .field("max_ratio", &self.max_ratio)
            .finish_non_exhaustive()
    }
}

impl Default for DecodeOptions {
    fn default() -> DecodeOptions {
        DecodeOptions {
            threads: thread::available_parallelism().map_or(1, |n| n.get()),
            max_ratio: None,
            observer: Arc::new(|_| {}),
        }
    }
}

/// The plain bytes of a compressed input.
///
/// The codec is found by the input's first bytes and checked against its name. Reading to the end (`Ok(0)`) means that
/// the whole input was decoded and every checksum it carries was right.
///
/// What was read before an error depends on the codec ([`Codec::checks_before_giving`]). A bzip2 block is handed out
/// only once its checksum was right, so that what was read consists of whole, undamaged blocks. The checksums of gzip,
/// Zstandard and xz come after data of any length, which are handed out before: what was read may be wrong and is to be
/// thrown away.
///
/// Read errors are [`io::Error`]s around an [`Error`] (see [`io::Error::get_ref`]); after one, each further read fails
/// with the same error.
///
/// # Bytes after the end
/// Every stream, member or frame of the input is decoded, empty ones too. After the last, zero bytes to the end of the
/// input are ignored as padding in bzip2 and gzip (in xz where the format allows them); anything else is
/// [`Error::Corrupt`]. The `bzip2` program ignores whatever follows, and so quietly loses a second stream with a
/// damaged header.
///
/// # Limits
/// A Zstandard window may have up to 128 MiB and an xz decoder take up to 1 GiB; an input that asks for more is
/// [`Error::Corrupt`]. bzip2 and gzip need no limit. How much comes out has one where [`DecodeOptions::max_ratio`] is set.
///
/// # Dropping
/// Drop it at any time to stop. The threads that decode bzip2 blocks end within the block they are at (some
/// 20 milliseconds), the thread that reads the input as soon as its current `read` returns. The drop waits for neither,
/// so that an input which blocks (a pipe, a socket) cannot hold up its caller; until then that thread keeps the input
/// open.
pub struct Decoder {
    codec: Codec,
    file: Arc<str>,
    progress: Arc<AtomicU64>,
    /// How many bytes it has given.
    given: u64,
    max_ratio: Option<f64>,
    source: Source,
    /// If whoever reads from it is the one that decodes.
    watch: Arc<OnceLock<Watch>>,
}

enum Source {
    Plain(Input),
    #[cfg(feature = "gzip")]
    Gzip(Box<crate::gzip::Reader>),
    #[cfg(feature = "bzip2")]
    Bzip2(Box<crate::bzip2::Reader>),
    #[cfg(feature = "zstd")]
    Zstd(crate::zstandard::Reader),
    #[cfg(feature = "xz")]
    Xz(crate::xz::Reader),
    Failed(Error),
}

impl Decoder {
    /// Decodes `input`, which is called `name` in errors and checked against that name's extension.
    ///
    /// Reads the first bytes ([`Codec::HEAD_LEN`] of them or more), so it blocks until they are there.
    ///
    /// # Errors
    /// [`Error::CodecMismatch`] where the name's extension says a codec and the content is not of that codec, an empty
    /// input included; [`Error::Truncated`] where the input is the beginning of that codec's magic and no more;
    /// [`Error::CodecDisabled`]; [`Error::Io`] where the input fails or a thread cannot be started.
    pub fn new(input: impl Read + Send + 'static, name: &str, options: &DecodeOptions) -> Result<Decoder, Error> {
        let watch = Arc::new(OnceLock::new());
        let input: Box<dyn Read + Send> = Box::new(Watched { input, watch: Arc::clone(&watch) });
        let mut input = Input::new(input, name.into());
        let progress = input.progress();
        let head = input.head().map_err(|error| Error::from_codec(error, name, Codec::Plain, 0))?;
        let codec = Codec::detect(head);
        let named = Codec::from_name(name);
        if named != Codec::Plain && named != codec {
            return Err(if named.is_cut_head(head) {
                Error::Truncated { file: name.to_owned(), codec: named, offset: head.len() as u64 }
            } else {
                Error::CodecMismatch { file: name.to_owned(), named, found: codec }
            });
        }
        let (file, max_ratio) = (Arc::clone(input.file()), options.max_ratio);
        let source = Source::new(codec, input, options)?;
        if !matches!(codec, Codec::Plain | Codec::Bzip2) {
            let decodes = watch.get_or_init(|| Watch::new(&options.observer, 0));
            decodes.gives(0);
        }
        Ok(Decoder { codec, file, progress, given: 0, max_ratio, source, watch })
    }

    /// Decodes the file at `path`. The whole path is its name in errors.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be opened, and those of [`new`](Decoder::new).
    pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Decoder, Error> {
        let name = path.as_ref().to_string_lossy();
        let file = File::open(path.as_ref()).map_err(|source| Error::Io {
            file: name.clone().into_owned(),
            offset: None,
            source,
        })?;
        Decoder::new(file, &name, options)
    }

    /// The last place at or before the bytes read so far at which decoding can begin anew; of bzip2 the start of the block
    /// of the last byte read, or of the one behind it. `None` before the first byte, and for the other codecs, whose bytes
    /// depend on all before them.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        match &self.source {
            #[cfg(feature = "bzip2")]
            Source::Bzip2(reader) => reader.checkpoint(),
            _ => None,
        }
    }

    /// Leaves out the bytes before a place of this same input, so that the next read begins there; false if the codec
    /// cannot do that. What has been read, or left out, already is not given again.
    ///
    /// The compressed bytes before the place are read and thrown away, not decoded, but for the few blocks that are under
    /// way. So no damage in them is found; the checksum of the stream covers them as they were when the place was taken.
    /// Where another input has no block at the place, reading on is [`Error::Corrupt`].
    pub fn skip_to(&mut self, place: &Checkpoint) -> bool {
        match &mut self.source {
            #[cfg(feature = "bzip2")]
            Source::Bzip2(reader) => {
                reader.skip_to(place);
                true
            }
            _ => {
                let _ = place;
                false
            }
        }
    }

    /// The codec of the content.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// How many compressed bytes have been taken from the input so far. This runs ahead of what has been decoded: by
    /// the buffer's 128 KiB, for bzip2 by all the blocks that wait.
    pub fn compressed_bytes(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The counter behind [`compressed_bytes`](Decoder::compressed_bytes), to watch from elsewhere. It stays readable
    /// after the decoder is gone.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }
}

impl Decoder {
    /// `read`, if with so many bytes more no more has come out than may.
    fn within_ratio(&mut self, read: usize) -> Result<usize, Error> {
        self.given += read as u64;
        match self.max_ratio {
            Some(ratio) if self.given > FREE_OF_RATIO && self.given as f64 > ratio * self.compressed_bytes() as f64 => {
                Err(Error::LimitExceeded { file: self.file.to_string(), member: None, limit: Limit::Ratio(ratio) })
            }
            _ => Ok(read),
        }
    }
}

impl Source {
    #[cfg_attr(not(feature = "bzip2"), allow(unused_variables))]
    fn new(codec: Codec, input: Input, options: &DecodeOptions) -> Result<Source, Error> {
        match codec {
            Codec::Plain => Ok(Source::Plain(input)),
            #[cfg(feature = "gzip")]
            Codec::Gzip => Ok(Source::Gzip(Box::new(crate::gzip::Reader::new(input)))),
            #[cfg(feature = "bzip2")]
            Codec::Bzip2 => Ok(Source::Bzip2(Box::new(crate::bzip2::Reader::new(input, options)?))),
            #[cfg(feature = "zstd")]
            Codec::Zstd => Ok(Source::Zstd(crate::zstandard::Reader::new(input)?)),
            #[cfg(feature = "xz")]
            Codec::Xz => Ok(Source::Xz(crate::xz::Reader::new(input)?)),
            #[allow(unreachable_patterns)]
            codec => Err(Error::CodecDisabled { file: input.file().to_string(), codec }),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        match self {
            Source::Plain(input) => {
                input.read(into).map_err(|error| Error::from_codec(error, input.file(), Codec::Plain, input.offset()))
            }
            #[cfg(feature = "gzip")]
            Source::Gzip(reader) => reader.read(into),
            #[cfg(feature = "bzip2")]
            Source::Bzip2(reader) => reader.read(into),
            #[cfg(feature = "zstd")]
            Source::Zstd(reader) => reader.read(into),
            #[cfg(feature = "xz")]
            Source::Xz(reader) => reader.read(into),
            Source::Failed(error) => Err(error.again()),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if let Some(watch) = self.watch.get() {
            watch.works();
        }
        let read = self.source.read(into).and_then(|read| self.within_ratio(read));
        if let Some(watch) = self.watch.get() {
            watch.gives(*read.as_ref().unwrap_or(&0));
        }
        read.map_err(|error| {
            self.source = Source::Failed(error.again());
            error.into()
        })
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("codec", &self.codec)
            .field("compressed_bytes", &self.compressed_bytes())
            .finish_non_exhaustive()
    }
}
