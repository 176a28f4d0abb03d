use crate::archive::Shape;

/// What happens while a set is exported. Observers run in the threads that work, so they should be quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportEvent<'a> {
    /// A run that was cut short after its commit is being finished.
    Resuming,
    /// Staged changes were written to a file, as memory was full or the stage is to be published.
    Spilled {
        /// Changes in it.
        changes: u64,
    },
    /// All changes are staged. What follows is done for each group.
    Staged {
        /// Groups with changes, effective or not, or of which other shapes are asked for.
        groups: u64,
    },
    /// A group is worked on, in this thread, until one of the next three tells what came of it.
    Begun {
        /// The type of the items.
        kind: &'a str,
        /// The group.
        group: &'a str,
        /// How many threads may compress for it. One is this one; where there are more, they are threads of their own, as
        /// soon as there is work for two. They have ended when the export returns, with an error, too.
        threads: usize,
    },
    /// A thread that compresses for a group waits for blocks of it. It is told in that thread, as are the next two, and the first
    /// that is heard of it. It is the thread that works on the group, while that waits for itself, where others may compress for it
    /// and there is work for one alone.
    CompressorWaits,
    /// It compresses some that follow one another.
    Compresses,
    /// There is no such thread any more.
    CompressorEnds,
    /// The thread that works on a group waits for what others compress for it.
    WaitsForCompressor,
    /// It goes on.
    GoesOn,
    /// None of the changes of a group has an effect, so that it stays as it is.
    Untouched {
        /// The type of the items.
        kind: &'a str,
        /// The group.
        group: &'a str,
    },
    /// The new archive of a group is made, and waits to be published.
    Made {
        /// The type of the items.
        kind: &'a str,
        /// The group.
        group: &'a str,
        /// Items in it.
        entries: u64,
        /// Bytes of it.
        bytes: u64,
    },
    /// The items of a group in another format are made, and wait to be published.
    Shaped {
        /// The type of the items.
        kind: &'a str,
        /// The group.
        group: &'a str,
        /// The format.
        shape: Shape,
        /// Bytes of the file.
        bytes: u64,
        /// Stretches of it that were copied from the file before: blocks, chains or row groups.
        copied: u64,
        /// Stretches that were made.
        made: u64,
    },
    /// The items of all groups of a type in another format are made, and wait to be published.
    ShapedWhole {
        /// The type of the items.
        kind: &'a str,
        /// The format.
        shape: Shape,
        /// Bytes of the file.
        bytes: u64,
        /// Stretches of it that were copied from the file before, or from those of the groups: blocks, chains or row groups.
        copied: u64,
        /// Stretches that were made.
        made: u64,
    },
    /// A group has become empty; its archive will be removed.
    Emptied {
        /// The type of the items.
        kind: &'a str,
        /// The group.
        group: &'a str,
    },
    /// All new files are written and synced. The commit follows.
    Prepared,
    /// The run is committed: whatever happens now, the set will be the new one.
    Committed,
    /// The old manifest is gone.
    Unpublished,
    /// A file has its final name.
    Renamed {
        /// Its path below the folder.
        name: &'a str,
    },
    /// A file that does not belong to the set any more is gone.
    Removed {
        /// Its path below the folder.
        name: &'a str,
    },
    /// A file of the set was compared with the manifest and its index, by [`verify_set`](crate::verify_set).
    Checked {
        /// Its path below the folder.
        name: &'a str,
    },
    /// The new manifest is there: the set is whole.
    Published,
}
