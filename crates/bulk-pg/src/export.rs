//! Items read out of the database: what has changed, what is there, and what is gone, as of one moment.

mod item_query;
mod item_reader;
mod item_source;
mod pool;
mod selection;
mod snapshot;

pub use self::{
    item_query::{ItemQuery, Since},
    item_reader::{ItemBatch, ItemReader, ItemRow},
    item_source::{ItemDeletions, ItemJson, ItemRows, ItemSource},
    selection::Selection,
    snapshot::{ExportSnapshot, ExportSnapshotOptions, Unseen},
};
