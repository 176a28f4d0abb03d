use crate::scan::Newline;

/// The first line of a file: the columns' names, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub(crate) names: Vec<String>,
    pub(crate) newline: Option<Newline>,
    pub(crate) end: u64,
}

impl Header {
    /// The header of a file that has none, for [`Records::resume`](crate::Records::resume) at [`Position::default`](crate::Position::default).
    pub fn new(names: Vec<String>) -> Self {
        Self { names, newline: None, end: 0 }
    }

    /// The columns' names, in the file's order, as they stand there.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the first record starts, in decoded bytes from the start of the stream.
    pub fn end(&self) -> u64 {
        self.end
    }
}
