//! A folder of archives, one for each group of items, that are published together.
//!
//! ```text
//! FOLDER/manifest.json                     what the set has: removed first, written last
//! FOLDER/opinions/scotus.tar.gz            the items of a group, and their index
//! FOLDER/opinions/scotus.tar.gz.idx
//! FOLDER/opinions/scotus.parquet           the same items in other formats, if asked for
//! FOLDER/opinions.parquet                  the items of all groups of a type in one file, if asked for
//! FOLDER/opinions/all.tar                  the archives of a type in one file, if asked for
//! FOLDER/opinions/info.json                when its last runs were
//! FOLDER/.bulk/export.sqlite               in which group each item is, what is published, watermarks
//! FOLDER/.bulk/shapes/...                  of what each file in another format was made ([`shapes`])
//! FOLDER/.bulk/export.lock, stage/, next/  the run at hand: its changes, and the files that it will publish
//! ```
//! A run stages changes as sorted runs of records ([`runs`]), in a transaction of the roster ([`roster`]), which knows where
//! each item is, so that an item that changes its group leaves the old one. Then each group with changes is merged by itself
//! into a new archive ([`group`]) in `next/`, and what stands beside it made from that. The commit of the transaction is that of the run: it has the roster, the facts of
//! the archives, the watermarks, and which files are to be renamed or removed. Until then all is as it was; from then on the
//! rest is done by whoever opens the folder next ([`publication`]), if not by the run itself.

mod event;
mod files;
mod group;
mod manifest;
mod options;
mod publication;
mod rebuild;
mod roster;
mod runs;
mod set;
mod set_files;
mod shapes;
mod stage;
mod sweep;
mod verify;
mod watermarks;
mod whose;

pub use self::{
    event::ExportEvent,
    manifest::{SetArchive, SetBundle, SetManifest, SetShape},
    options::{CheckNew, ExportOptions},
    rebuild::{Rebuilt, rebuild_indexes},
    set::{ExportSet, Published},
    set_files::{SetFiles, SetPath},
    stage::{Loose, Stage},
    sweep::{Swept, Wanted},
    verify::{SetFault, SetReport, verify_set},
    watermarks::read_watermarks,
};
