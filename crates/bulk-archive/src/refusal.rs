use std::fmt;

/// Why a member of an archive is not extracted, however the options are set unless it says otherwise, or an item is not
/// written as one.
///
/// Every one of them is an attempt to write outside the folder, or something that a data set has no use for, or
/// something that two readers of the archive would take for two different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The name begins with `/`.
    AbsolutePath,
    /// A part of the name is `..`, even where the whole would stay inside.
    ParentFolder,
    /// The name is empty.
    EmptyName,
    /// The name or the target of the link has a NUL byte, at which the system would end it.
    NulInName,
    /// The name begins with the folder in which unfinished files are kept, in any case. Or a type of items is called as a file may
    /// be that stands beside the folders of types.
    Reserved,
    /// The name is that of the folder into which the archive is extracted, and the member is no folder.
    TargetItself,
    /// A folder of the name is a symbolic link, from the archive or there before.
    ThroughLink,
    /// A folder of the name, or of a folder's name, is something else on disk.
    FileInTheWay,
    /// A folder has the name already, and the member is none.
    FolderInTheWay,
    /// The member is a link, and `Links::Refuse` was chosen.
    Link,
    /// The link's target is absolute, or has more `..` than the link has folders above it.
    LinkLeaves,
    /// The symbolic link's target has a `..` behind a name. What it means depends on whether that name is a link
    /// itself, so that a chain of links, each of which seems to stay inside, could lead out.
    LinkTurns,
    /// The link has no target.
    LinkEmpty,
    /// The hard link is to a file that is not there.
    LinkMissing,
    /// The hard link is to something that is no regular file. A symbolic link would mean another thing elsewhere.
    LinkToSpecial,
    /// The member is a character or block device.
    Device,
    /// The member is a named pipe.
    Fifo,
    /// The file has the set-user-ID or set-group-ID bit.
    SetId,
    /// The name of an entry to be written has more than 255 bytes, which is the most that file systems take.
    NameTooLong,
    /// The content of an entry to be written is longer than 1 GiB.
    ContentTooLong,
    /// The content of an item is no JSON (RFC 8259).
    NotJson {
        /// The line at which it ceases to be, from 1.
        line: usize,
        /// The byte of the line, from 1.
        column: usize,
    },
    /// The content of an item is not UTF-8, and so no JSON.
    NotUtf8,
    /// A file or folder of a staging folder is not named, or does not stand, as an item of a group of a type.
    NotAnItem,
    /// The name differs in case alone from that of another type or group, and the file system takes both for one.
    NameInAnotherCase,
    /// The type of the member, given as its byte in the header, is none that is known here.
    UnknownType(u8),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::AbsolutePath => "its name is absolute",
            Refusal::ParentFolder => "its name has a `..`",
            Refusal::EmptyName => "its name is empty",
            Refusal::NulInName => "its name or target has a NUL byte",
            Refusal::Reserved => "its name is reserved for other files",
            Refusal::TargetItself => "it would replace the folder into which it is extracted",
            Refusal::ThroughLink => "its name leads through a symbolic link",
            Refusal::FileInTheWay => "its name needs a folder where something else is",
            Refusal::FolderInTheWay => "it would replace a folder",
            Refusal::Link => "it is a link",
            Refusal::LinkLeaves => "the target of the link is outside the folder",
            Refusal::LinkTurns => "the target of the link has a `..` behind a name",
            Refusal::LinkEmpty => "the link has no target",
            Refusal::LinkMissing => "the target of the hard link does not exist",
            Refusal::LinkToSpecial => "the target of the hard link is no regular file",
            Refusal::Device => "it is a device",
            Refusal::Fifo => "it is a named pipe",
            Refusal::SetId => "it has the set-user-ID or set-group-ID bit",
            Refusal::NameTooLong => "its name is longer than 255 bytes",
            Refusal::ContentTooLong => "its content is longer than 1 GiB",
            Refusal::NotJson { line, column } => {
                return write!(f, "its content is no JSON, at line {line}, column {column}");
            }
            Refusal::NotUtf8 => "its content is not UTF-8",
            Refusal::NotAnItem => "it is no `<type>/<group>/<id>.json`",
            Refusal::NameInAnotherCase => {
                "its type or group differs in case alone from another one, and the file system takes both for one"
            }
            Refusal::UnknownType(kind) => return write!(f, "its type {:?} is unknown", char::from(*kind)),
        })
    }
}
