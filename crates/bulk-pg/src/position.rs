/// A border between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Decoded bytes before it, from the start of the stream.
    pub offset: u64,
    /// Records before it, the header not counted.
    pub record: u64,
    /// Chunks before it that are whole.
    pub chunk: u64,
}
