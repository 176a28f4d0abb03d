use std::fmt;

use crate::counted::counted;

/// The limit that an archive or a compressed file went beyond, with the value that was set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes that come out for each compressed byte.
    Ratio(f64),
    /// Bytes of all files.
    Bytes(u64),
    /// Members.
    Entries(u64),
    /// Names between the slashes of a path.
    Depth(usize),
    /// Bytes of a path or of a link's target.
    PathLength(usize),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Ratio(ratio) => write!(f, "more than {} for each compressed byte", counted(*ratio, "byte", "bytes")),
            Limit::Bytes(bytes) => write!(f, "more than {}", counted(*bytes, "byte", "bytes")),
            Limit::Entries(entries) => write!(f, "more than {}", counted(*entries, "member", "members")),
            Limit::Depth(depth) => write!(f, "a path of more than {}", counted(*depth, "name", "names")),
            Limit::PathLength(length) => {
                write!(f, "a path or link target of more than {}", counted(*length, "byte", "bytes"))
            }
        }
    }
}
