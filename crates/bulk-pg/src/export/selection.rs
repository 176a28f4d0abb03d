/// What is to be read of one type, by one statement or several that share the work.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What they are called, for messages.
    pub(super) name: String,
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    /// A statement whose columns are id, group, time and JSON, or the first one or two of these.
    pub(super) query: String,
    /// About how many bytes are to be read; 0 where nobody knows.
    pub(super) bytes: u64,
}
