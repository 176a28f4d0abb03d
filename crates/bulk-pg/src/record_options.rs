/// Which files are taken for one of the [`Dialect`](crate::Dialect).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grammar {
    /// What writers write: a quote opens and closes whole values only, an escape byte other than the quote stands only
    /// before itself or a quote, and with [`Quoting::Always`](crate::Quoting::Always) every value is quoted.
    /// PostgreSQL's `COPY TO` and other CSV writers keep to it, so whatever breaks it is a [`Contradiction`](crate::Contradiction): the file
    /// is of another dialect, and reading on would change values without a sign.
    #[default]
    Strict,
    /// What the server's `COPY FROM` reads: quotes may open and close anywhere in a field, and an escape byte before
    /// anything but itself or a quote is an ordinary character. It hides a wrong dialect.
    Server,
}

/// How [`Records`](crate::Records) reads.
///
/// The default is the strict grammar, no guard, chunks of 16 MiB, records of up to 64 MiB and a buffer of 256 KiB.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordOptions {
    /// What is taken for a record.
    pub grammar: Grammar,
    /// Whether to stop at the first record that two dialects read with different values, and both without complaint:
    /// the dialect itself, and the one that differs in how a quote is written inside quotes (B and D are such a pair).
    ///
    /// It is meant for [`Certainty::Ambiguous`](crate::Certainty::Ambiguous). Every record is read by both dialects.
    /// One that the other contradicts settles the matter: the guard is done, [`Records::is_guarded`](crate::Records::is_guarded) turns false, and
    /// reading goes on. One that both read alike (it has no escape of either kind) says nothing. At any other the
    /// reader stops with [`RecordErrorKind::Ambiguous`](crate::RecordErrorKind::Ambiguous); for B and D that is a record with a backslash inside quotes,
    /// always twice or before a closing quote, and no doubled quote.
    pub guard: bool,
    /// How many decoded bytes make a chunk: the first border between two records at or after so many bytes from the
    /// start of a chunk ends it. The first chunk starts after the header. Zero makes each record a chunk.
    ///
    /// The borders therefore depend on the bytes and on this number alone, and not on the sizes of the reads.
    pub chunk_size: u64,
    /// The longest record, in bytes with its line end; more is
    /// [`RecordErrorKind::TooLong`](crate::RecordErrorKind::TooLong). Blank lines behind a line of NDJSON do not count. Whatever the input is, no more memory than about
    /// this is taken for it. The default is 64 MiB; the most is 4 GiB - 2.
    ///
    /// PostgreSQL takes no field and no line of COPY of 1 GiB and more. A record of 512 MiB is the longest that is
    /// certain to fit, since its line may have two bytes for each of its own.
    pub max_record: usize,
    /// The size of the buffer, in bytes; at least 1. It grows for a longer record, to at most four times its length
    /// and not beyond `max_record`, and what it grew beyond 32 times its size is given back.
    pub buffer_size: usize,
}

impl RecordOptions {
    /// The default of [`max_record`](Self::max_record), 64 MiB.
    pub(crate) const MAX_RECORD: usize = 64 << 20;
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self {
            grammar: Grammar::Strict,
            guard: false,
            chunk_size: 16 << 20,
            max_record: Self::MAX_RECORD,
            buffer_size: 256 << 10,
        }
    }
}
