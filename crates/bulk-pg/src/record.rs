use std::fmt;

use crate::scan::Span;
use crate::{Dialect, Field};

/// One record, lent by [`Records`](crate::Records).
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub(crate) raw: &'a [u8],
    /// What the spans are of: the same, or what it means.
    pub(crate) text: &'a [u8],
    pub(crate) spans: &'a [Span],
    pub(crate) dialect: Dialect,
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) chunk: u64,
    pub(crate) ends_chunk: bool,
}

impl<'a> Record<'a> {
    /// The record's number: 1 for the first after the header.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where it starts, in decoded bytes from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its bytes as they stand in the stream, with the line end (which the last record may lack).
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The number of its chunk: 0 for the first.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Whether it is the last of its chunk. Not known of the stream's last record, which ends the last chunk.
    pub fn ends_chunk(&self) -> bool {
        self.ends_chunk
    }

    /// How many fields it has: as many as the header.
    pub fn field_count(&self) -> usize {
        self.spans.len()
    }

    /// The field of a column, counted from 0.
    pub fn field(&self, index: usize) -> Option<Field<'a>> {
        self.spans.get(index).map(|span| Field::new(self.text, *span, self.dialect))
    }

    /// The fields, in the file's order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'a>> + use<'a> {
        let (text, dialect) = (self.text, self.dialect);
        self.spans.iter().map(move |span| Field::new(text, *span, dialect))
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("number", &self.number)
            .field("offset", &self.offset)
            .field("len", &self.raw.len())
            .field("fields", &self.spans.len())
            .finish_non_exhaustive()
    }
}
