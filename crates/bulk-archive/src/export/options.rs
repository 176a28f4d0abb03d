use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::event::ExportEvent;
use crate::{
    Error,
    archive::{ArchiveOptions, ParquetColumns, SameContent, Shape, processors},
};

/// How a set is exported.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportOptions {
    /// How the archives of new groups are made; those that are there keep what they were made with. Of its threads each
    /// group has a share as large as its part of the work.
    pub archive: ArchiveOptions,
    /// How many groups are worked on at once; 0 is taken for 1. By default as many as there are processors.
    pub jobs: usize,
    /// How many bytes of staged changes are held in memory before they are written to a file. By default 64 MiB, with
    /// which ten million items in one group took 87 MB in all (`examples/export_many.rs`). One item that is longer is held
    /// nevertheless.
    pub memory: u64,
    /// Whether a group that has become empty keeps an archive without entries. By default not.
    pub keep_empty: bool,
    /// What an item with the same content and another time does. By default [`SameContent::Replace`], so that the
    /// archives are those that a new export of the same items would give. With [`SameContent::Keep`] rows that were
    /// touched without being changed rewrite nothing.
    pub same_content: SameContent,
    /// What is read back of a new archive before it is published. By default [`CheckNew::Made`].
    pub check: CheckNew,
    /// Whether each type has an `all.tar` of its archives. By default not.
    pub all_tar: bool,
    /// What stands beside each archive: the same items in other formats. None, the default, leaves each type those that it has,
    /// and new types none.
    pub shapes: Option<BTreeSet<Shape>>,
    /// The same for some types, by name, of which `shapes` does not count.
    pub shapes_of: BTreeMap<String, BTreeSet<Shape>>,
    /// What stands beside the folder of each type: the items of all its groups, in the order of the archives' names, as one file,
    /// such as `opinions.parquet`. What the groups have in the same format is copied from there. None, the default, leaves each type
    /// those that it has, or had before it lost its last item, and new types none. For Parquet memory has about 1 KiB for each column
    /// of each row group meanwhile, half of it for the file before.
    ///
    /// Where something stands in the place of such a file, or of one of `shapes`, that no run has made, or a folder, the run ends
    /// with [`Error::Set`] before anything is made; so for a type of an earlier version whose name is too long for it.
    pub whole_shapes: Option<BTreeSet<Shape>>,
    /// The same for some types, by name, of which `whole_shapes` does not count.
    pub whole_shapes_of: BTreeMap<String, BTreeSet<Shape>>,
    /// The columns of Parquet, by type. A type that is not here keeps those that it has, a new one has
    /// [`ParquetColumns::default`]. Where they change, all its files of Parquet are made anew.
    pub columns_of: BTreeMap<String, ParquetColumns>,
    /// Hears what happens.
    pub observer: Arc<dyn Fn(&ExportEvent<'_>) + Send + Sync>,
    /// Set to true, it ends what is under way with [`Error::Stopped`], unless the run is committed already.
    pub stop: Arc<AtomicBool>,
}

/// What is read back of a new archive before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckNew {
    /// Nothing.
    Nothing,
    /// What was made anew. What was copied is what the old archive has.
    #[default]
    Made,
    /// All of it.
    Whole,
}

impl Default for ExportOptions {
    fn default() -> ExportOptions {
        ExportOptions {
            archive: ArchiveOptions::default(),
            jobs: processors(),
            memory: 64 << 20,
            keep_empty: false,
            same_content: SameContent::default(),
            check: CheckNew::default(),
            all_tar: false,
            shapes: None,
            shapes_of: BTreeMap::new(),
            whole_shapes: None,
            whole_shapes_of: BTreeMap::new(),
            columns_of: BTreeMap::new(),
            observer: Arc::new(|_| {}),
            stop: Arc::default(),
        }
    }
}

impl fmt::Debug for ExportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportOptions")
            .field("archive", &self.archive)
            .field("jobs", &self.jobs)
            .field("memory", &self.memory)
            .field("keep_empty", &self.keep_empty)
            .field("same_content", &self.same_content)
            .field("check", &self.check)
            .field("all_tar", &self.all_tar)
            .field("shapes", &self.shapes)
            .field("shapes_of", &self.shapes_of)
            .field("whole_shapes", &self.whole_shapes)
            .field("whole_shapes_of", &self.whole_shapes_of)
            .field("columns_of", &self.columns_of)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl ExportOptions {
    pub(crate) fn tell(&self, event: &ExportEvent<'_>) {
        (self.observer)(event);
    }

    /// The shapes that a type is to have; none where it keeps those that it has.
    pub(crate) fn shapes_of(&self, kind: &str) -> Option<&BTreeSet<Shape>> {
        self.shapes_of.get(kind).or(self.shapes.as_ref())
    }

    /// The shapes that a type is to have of all its groups together; none where it keeps those that it has.
    pub(crate) fn whole_shapes_of(&self, kind: &str) -> Option<&BTreeSet<Shape>> {
        self.whole_shapes_of.get(kind).or(self.whole_shapes.as_ref())
    }

    /// An error once it is to stop.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}
