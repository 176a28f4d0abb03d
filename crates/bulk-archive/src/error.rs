use std::io;

use crate::Codec;

/// Why a file could not be decoded.
///
/// Offsets count the compressed bytes from the beginning of the file. For bzip2 they are the byte in which the block
/// (or the stream's header or trailer) at fault begins; for the other codecs they are how far the decoder had come.
///
/// An [`io::Error`] made from it keeps it as its inner error and has the kind
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) for [`Truncated`](Error::Truncated),
/// [`InvalidData`](io::ErrorKind::InvalidData) for [`Corrupt`](Error::Corrupt) and
/// [`CodecMismatch`](Error::CodecMismatch), [`Unsupported`](io::ErrorKind::Unsupported) for
/// [`CodecDisabled`](Error::CodecDisabled), and the kind of its source for [`Io`](Error::Io).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input could not be opened or read, or a thread or memory could not be had.
    #[error("{file}: cannot read{}", offset.map(|offset| format!(" on from byte {offset}")).unwrap_or_default())]
    Io {
        /// The file's name as it was given.
        file: String,
        /// How many bytes had been read; none where the file could not be opened.
        offset: Option<u64>,
        /// What the operating system or the input said.
        source: io::Error,
    },
    /// The file's content is not what its extension says. A file is never decoded on the word of its name, nor
    /// passed on compressed or empty against it.
    #[error("{file}: named as {named}, but its content is {found}")]
    CodecMismatch {
        /// The file's name as it was given.
        file: String,
        /// The codec of its extension.
        named: Codec,
        /// The codec of its first bytes.
        found: Codec,
    },
    /// This build has no decoder for the file: the crate's feature of that name is off.
    #[error("{file}: this build cannot decode {codec}")]
    CodecDisabled {
        /// The file's name as it was given.
        file: String,
        /// The codec of its content.
        codec: Codec,
    },
    /// The file ends too early.
    #[error("{file}: {codec} data cut short, at compressed byte {offset}")]
    Truncated {
        /// The file's name as it was given.
        file: String,
        /// The codec of its content.
        codec: Codec,
        /// Where the cut part begins (bzip2), or how far the decoder had come.
        offset: u64,
    },
    /// The file is damaged: a checksum does not match, the data break the format's rules, or bytes that belong to no
    /// stream follow the last one.
    #[error("{file}: corrupt {codec} data at compressed byte {offset}: {reason}")]
    Corrupt {
        /// The file's name as it was given.
        file: String,
        /// The codec of its content.
        codec: Codec,
        /// Where the damaged part begins (bzip2), or how far the decoder had come.
        offset: u64,
        /// What is wrong, for people.
        reason: String,
    },
}

impl Error {
    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        match self {
            Error::Io { file, .. }
            | Error::CodecMismatch { file, .. }
            | Error::CodecDisabled { file, .. }
            | Error::Truncated { file, .. }
            | Error::Corrupt { file, .. } => file,
        }
    }

    /// The compressed byte that the error is about, where it is about one.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Error::Io { offset, .. } => *offset,
            Error::CodecMismatch { .. } | Error::CodecDisabled { .. } => None,
            Error::Truncated { offset, .. } | Error::Corrupt { offset, .. } => Some(*offset),
        }
    }

    /// The same error once more, for a reader that is asked again after it failed.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Io { file, offset, source } => Error::Io {
                file: file.clone(),
                offset: *offset,
                source: source
                    .raw_os_error()
                    .map_or_else(|| io::Error::new(source.kind(), source.to_string()), io::Error::from_raw_os_error),
            },
            Error::CodecMismatch { file, named, found } => {
                Error::CodecMismatch { file: file.clone(), named: *named, found: *found }
            }
            Error::CodecDisabled { file, codec } => Error::CodecDisabled { file: file.clone(), codec: *codec },
            Error::Truncated { file, codec, offset } => {
                Error::Truncated { file: file.clone(), codec: *codec, offset: *offset }
            }
            Error::Corrupt { file, codec, offset, reason } => {
                Error::Corrupt { file: file.clone(), codec: *codec, offset: *offset, reason: reason.clone() }
            }
        }
    }

    /// What a decoding library's error means, given how far it had come. Errors of the input, which pass through the
    /// library, come out as they went in.
    pub(crate) fn from_codec(error: io::Error, file: &str, codec: Codec, offset: u64) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::Truncated { file: file.to_owned(), codec, offset }
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Error::Io { file: file.to_owned(), offset: Some(offset), source: error }
            }
            Err(error) => Error::Corrupt { file: file.to_owned(), codec, offset, reason: error.to_string() },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::CodecMismatch { .. } | Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::CodecDisabled { .. } => io::ErrorKind::Unsupported,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
        };
        io::Error::new(kind, error)
    }
}
