use std::io;

use crate::{Codec, Limit, Refusal};

/// Why a file could not be decoded, extracted or written.
///
/// Offsets count the compressed bytes from the beginning of the file, but for [`Tar`](Error::Tar) and
/// [`TarTruncated`](Error::TarTruncated), which count the bytes of the tar. For bzip2 they are the byte in which the
/// block (or the stream's header or trailer) at fault begins; for the other codecs they are how far the decoder had
/// come.
///
/// An [`io::Error`] made from it keeps it as its inner error and has the kind
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) for [`Truncated`](Error::Truncated) and
/// [`TarTruncated`](Error::TarTruncated), [`InvalidData`](io::ErrorKind::InvalidData) for [`Corrupt`](Error::Corrupt),
/// [`CodecMismatch`](Error::CodecMismatch), [`Column`](Error::Column), [`Tar`](Error::Tar), [`Refused`](Error::Refused), [`Index`](Error::Index), [`IndexMismatch`](Error::IndexMismatch) and
/// [`NotCanonical`](Error::NotCanonical), [`Damaged`](Error::Damaged) and [`Set`](Error::Set), [`FileTooLarge`](io::ErrorKind::FileTooLarge) for
/// [`LimitExceeded`](Error::LimitExceeded), [`InvalidInput`](io::ErrorKind::InvalidInput) for [`Unsorted`](Error::Unsorted),
/// [`Unsupported`](io::ErrorKind::Unsupported) for [`CodecDisabled`](Error::CodecDisabled),
/// [`WouldBlock`](io::ErrorKind::WouldBlock) for [`Locked`](Error::Locked), [`NotFound`](io::ErrorKind::NotFound) for
/// [`RosterMissing`](Error::RosterMissing) and [`Missing`](Error::Missing), [`Other`](io::ErrorKind::Other) for [`Roster`](Error::Roster) and
/// [`Stopped`](Error::Stopped), and the kind of its source
/// for [`Io`](Error::Io), [`Write`](Error::Write), [`Output`](Error::Output) and [`Changes`](Error::Changes).
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
    /// A value of an item does not fit into its column of Parquet; see `ParquetColumns`.
    #[error("{file}: item {id:?}: {value} does not fit into the column {column:?}")]
    Column {
        /// The archive that has the item.
        file: String,
        /// The item's id.
        id: String,
        /// The column's name.
        column: String,
        /// The value, as it stands in the item; of a long one the beginning.
        value: String,
    },
    /// The tar breaks the format's rules, or means different things to different readers.
    #[error("{file}: bad tar at its byte {offset}: {reason}")]
    Tar {
        /// The archive's name as it was given.
        file: String,
        /// The byte of the tar, after decompression, at which the header or record at fault begins.
        offset: u64,
        /// What is wrong, for people.
        reason: String,
    },
    /// The tar ends before its end marker, a block of zeros.
    #[error("{file}: tar cut short at its byte {offset}")]
    TarTruncated {
        /// The archive's name as it was given.
        file: String,
        /// How many bytes the tar has, after decompression.
        offset: u64,
    },
    /// A member would leave the folder, or is of a kind that is not extracted, or an item cannot be a member.
    #[error("{file}: member {member:?} refused: {reason}")]
    Refused {
        /// The archive's name as it was given.
        file: String,
        /// The member's name in the archive, of a very long one the beginning, or its path below the target; of an item to
        /// be written the id.
        member: String,
        /// Why.
        reason: Refusal,
    },
    /// The archive went beyond a limit of `ExtractOptions`, or the file beyond the one of
    /// [`DecodeOptions`](crate::DecodeOptions), as one does that was made to fill the disk.
    #[error("{file}: {limit}{}", member.as_ref().map(|member| format!(", with member {member:?}")).unwrap_or_default())]
    LimitExceeded {
        /// The archive's name as it was given.
        file: String,
        /// The member at hand, where it is known; of a very long name the beginning.
        member: Option<String>,
        /// Which limit.
        limit: Limit,
    },
    /// Something could not be made below the target folder, or
    /// `ExtractOptions::on_write` refused it.
    #[error("{file}: cannot write {member:?}")]
    Write {
        /// The archive's name as it was given.
        file: String,
        /// The member's path below the target, or the folder that failed.
        member: String,
        /// What the operating system or `on_write` said.
        source: io::Error,
    },
    /// An archive or its index could not be written, or a thread could not be had.
    #[error("{file}: cannot write")]
    Output {
        /// The archive's name as it was given.
        file: String,
        /// What the operating system or the output said.
        source: io::Error,
    },
    /// Items, or changes of them, are not in the order of their ids, or an id comes twice.
    #[error("{file}: the item {id:?} comes after {after:?}, against the order of ids")]
    Unsorted {
        /// The archive's name as it was given.
        file: String,
        /// The id at fault.
        id: String,
        /// The id before it.
        after: String,
    },
    /// The changes for a splice could not be had.
    #[error("{file}: cannot read the changes")]
    Changes {
        /// The archive's name as it was given.
        file: String,
        /// What their source said.
        source: io::Error,
    },
    /// The index of an archive is damaged, or of another version: `rebuild_index` and, of a set,
    /// `rebuild_indexes` make it anew.
    #[error("{file}: bad index at its byte {offset}: {reason}; it can be made anew from the archive")]
    Index {
        /// The archive's name as it was given.
        file: String,
        /// The byte of the index at which the damaged part begins.
        offset: u64,
        /// What is wrong, for people.
        reason: &'static str,
    },
    /// The index is not that of the archive, which has to be read to make it anew, as for [`Index`](Error::Index).
    #[error("{file}: the index belongs to another archive: {reason}; it can be made anew from this one")]
    IndexMismatch {
        /// The archive's name as it was given.
        file: String,
        /// What differs, for people.
        reason: &'static str,
    },
    /// The archive is not what its items give, so that it has no index: it was made with other options, by another version of the
    /// compressor, or by another program.
    #[error("{file}: not as it would be made here, from byte {offset} on; make it anew from its items")]
    NotCanonical {
        /// The archive's name as it was given.
        file: String,
        /// The first byte that differs.
        offset: u64,
    },
    /// Another run has the folder of a set.
    #[error("{file}: another export is using it")]
    Locked {
        /// The folder.
        file: String,
    },
    /// There are archives, and nothing is known of them: `rebuild_indexes` reads it from them.
    #[error("{file}: missing, though there are archives, from which it can be made anew")]
    RosterMissing {
        /// The roster of the set, an SQLite file.
        file: String,
    },
    /// An archive of a set, or its index, is not where it was published: it is put back, or made anew of all its items
    /// (`Stage::mend`), or the set without it of what is there (`rebuild_indexes`).
    #[error("{file}: missing, though the set has it")]
    Missing {
        /// The archive or index.
        file: String,
    },
    /// An archive of a set is damaged: it is put back from a copy, or made anew of all its items (`Stage::mend`), or removed, and
    /// the set made anew without it (`rebuild_indexes`).
    #[error("{file}: damaged: it is not what was made{}", offset.map(|offset| format!(", at compressed byte {offset}")).unwrap_or_default())]
    Damaged {
        /// The archive.
        file: String,
        /// How far it could be read, where that is known.
        offset: Option<u64>,
    },
    /// The roster of a set could not be read or written.
    #[error("{file}: cannot use the roster of the set")]
    Roster {
        /// The roster of the set, an SQLite file.
        file: String,
        /// What SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of a set is not what it should be.
    #[error("{file}: {reason}")]
    Set {
        /// The file.
        file: String,
        /// What is wrong, for people.
        reason: String,
    },
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// The file's name as it was given; empty for [`Stopped`](Error::Stopped).
    pub fn file(&self) -> &str {
        match self {
            Error::Stopped => "",
            Error::Io { file, .. }
            | Error::CodecMismatch { file, .. }
            | Error::CodecDisabled { file, .. }
            | Error::Truncated { file, .. }
            | Error::Corrupt { file, .. }
            | Error::Column { file, .. }
            | Error::Tar { file, .. }
            | Error::TarTruncated { file, .. }
            | Error::Refused { file, .. }
            | Error::LimitExceeded { file, .. }
            | Error::Write { file, .. }
            | Error::Output { file, .. }
            | Error::Unsorted { file, .. }
            | Error::Changes { file, .. }
            | Error::Index { file, .. }
            | Error::IndexMismatch { file, .. }
            | Error::NotCanonical { file, .. }
            | Error::Locked { file }
            | Error::RosterMissing { file }
            | Error::Missing { file }
            | Error::Damaged { file, .. }
            | Error::Roster { file, .. }
            | Error::Set { file, .. } => file,
        }
    }

    /// Whether there is no room left on the disk, or none for this user.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. }
            | Error::Write { source, .. }
            | Error::Output { source, .. }
            | Error::Changes { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            #[cfg(feature = "export")]
            Error::Roster { source, .. } => {
                let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
                code == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// The compressed byte that the error is about, where it is about one.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Error::Io { offset, .. } | Error::Damaged { offset, .. } => *offset,
            Error::CodecMismatch { .. }
            | Error::CodecDisabled { .. }
            | Error::Column { .. }
            | Error::Tar { .. }
            | Error::TarTruncated { .. }
            | Error::Refused { .. }
            | Error::LimitExceeded { .. }
            | Error::Write { .. }
            | Error::Output { .. }
            | Error::Unsorted { .. }
            | Error::Changes { .. }
            | Error::Index { .. }
            | Error::IndexMismatch { .. }
            | Error::Locked { .. }
            | Error::RosterMissing { .. }
            | Error::Missing { .. }
            | Error::Roster { .. }
            | Error::Set { .. }
            | Error::Stopped => None,
            Error::Truncated { offset, .. } | Error::Corrupt { offset, .. } | Error::NotCanonical { offset, .. } => {
                Some(*offset)
            }
        }
    }

    /// The member of the archive that the error is about, where it is about one.
    pub fn member(&self) -> Option<&str> {
        match self {
            Error::Refused { member, .. } | Error::Write { member, .. } => Some(member),
            Error::LimitExceeded { member, .. } => member.as_deref(),
            _ => None,
        }
    }

    /// The same error once more, for a reader that is asked again after it failed.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Io { file, offset, source } => {
                Error::Io { file: file.clone(), offset: *offset, source: same(source) }
            }
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
            Error::Column { file, id, column, value } => {
                let (file, id, column, value) = (file.clone(), id.clone(), column.clone(), value.clone());
                Error::Column { file, id, column, value }
            }
            Error::Tar { file, offset, reason } => {
                Error::Tar { file: file.clone(), offset: *offset, reason: reason.clone() }
            }
            Error::TarTruncated { file, offset } => Error::TarTruncated { file: file.clone(), offset: *offset },
            Error::Refused { file, member, reason } => {
                Error::Refused { file: file.clone(), member: member.clone(), reason: *reason }
            }
            Error::LimitExceeded { file, member, limit } => {
                Error::LimitExceeded { file: file.clone(), member: member.clone(), limit: *limit }
            }
            Error::Write { file, member, source } => {
                Error::Write { file: file.clone(), member: member.clone(), source: same(source) }
            }
            Error::Output { file, source } => Error::Output { file: file.clone(), source: same(source) },
            Error::Unsorted { file, id, after } => {
                Error::Unsorted { file: file.clone(), id: id.clone(), after: after.clone() }
            }
            Error::Changes { file, source } => Error::Changes { file: file.clone(), source: same(source) },
            Error::Index { file, offset, reason } => Error::Index { file: file.clone(), offset: *offset, reason },
            Error::IndexMismatch { file, reason } => Error::IndexMismatch { file: file.clone(), reason },
            Error::NotCanonical { file, offset } => Error::NotCanonical { file: file.clone(), offset: *offset },
            Error::Locked { file } => Error::Locked { file: file.clone() },
            Error::RosterMissing { file } => Error::RosterMissing { file: file.clone() },
            Error::Missing { file } => Error::Missing { file: file.clone() },
            Error::Damaged { file, offset } => Error::Damaged { file: file.clone(), offset: *offset },
            Error::Roster { file, source } => Error::Roster { file: file.clone(), source: source.to_string().into() },
            Error::Set { file, reason } => Error::Set { file: file.clone(), reason: reason.clone() },
            Error::Stopped => Error::Stopped,
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

/// An error of the operating system once more.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Io { source, .. }
            | Error::Write { source, .. }
            | Error::Output { source, .. }
            | Error::Changes { source, .. } => source.kind(),
            Error::Unsorted { .. } => io::ErrorKind::InvalidInput,
            Error::CodecMismatch { .. }
            | Error::Corrupt { .. }
            | Error::Column { .. }
            | Error::Tar { .. }
            | Error::Refused { .. }
            | Error::Index { .. }
            | Error::IndexMismatch { .. }
            | Error::NotCanonical { .. }
            | Error::Damaged { .. }
            | Error::Set { .. } => io::ErrorKind::InvalidData,
            // It is no damage: what came is as it was meant.
            Error::LimitExceeded { .. } => io::ErrorKind::FileTooLarge,
            Error::Locked { .. } => io::ErrorKind::WouldBlock,
            Error::RosterMissing { .. } | Error::Missing { .. } => io::ErrorKind::NotFound,
            // Not `Interrupted`, which makes readers and writers try again.
            Error::Roster { .. } | Error::Stopped => io::ErrorKind::Other,
            Error::CodecDisabled { .. } => io::ErrorKind::Unsupported,
            Error::Truncated { .. } | Error::TarTruncated { .. } => io::ErrorKind::UnexpectedEof,
        };
        io::Error::new(kind, error)
    }
}
