/// In which format [`load`](crate::load()) sends rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyFormat {
    /// COPY's binary format where every loaded column has a [`BinaryType`](crate::BinaryType), which costs the server
    /// least; a record with a value that only the server can read goes as text beside it. Where more than one in twenty
    /// of a chunk's records are of that kind, and for tables with another column, the text format.
    #[default]
    Auto,
    /// COPY's text format for every row. The server judges all values.
    Text,
}

/// The format of the rows of one COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Text,
    Binary,
}
