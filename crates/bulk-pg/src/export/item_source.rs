use crate::{Ident, TableName};

/// Where the items of one type stand: each row of a table, a view or a query is one.
///
/// ```
/// use bulk_pg::{Ident, ItemJson, ItemRows, ItemSource};
///
/// let rows = ItemRows::Table("search_opinion".parse()?);
/// let mut opinions = ItemSource::new("opinions", rows, "id".parse()?, "court_id".parse()?);
/// opinions.modified = Some("date_modified".parse()?);
/// opinions.json = ItemJson::Columns(vec!["id".parse()?, Ident::new("plain_text")?]);
/// # Ok::<(), bulk_pg::IdentError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemSource {
    /// What they are called, for messages.
    pub name: String,
    /// The rows.
    pub rows: ItemRows,
    /// The column that tells them apart, of any type that has a text. No two rows are to have the same, which nothing here checks:
    /// [`ItemQuery::ids_are_unique`](crate::ItemQuery::ids_are_unique), [`ItemQuery::versions`](crate::ItemQuery::versions).
    pub id: Ident,
    /// The column by which they are put together, of any type that has a text.
    pub group: Ident,
    /// The column that says when a row was last changed: timestamptz, timestamp or date, of which the latter two are of the
    /// [time zone](crate::ExportSnapshotOptions::time_zone) of the snapshot. Rows where it is NULL count as changed each
    /// time. Without it, all rows do. Default: none.
    pub modified: Option<Ident>,
    /// The item itself. Default: the whole row.
    pub json: ItemJson,
    /// What tells of rows that are gone. Default: nothing does.
    pub deletions: Option<ItemDeletions>,
}

/// The rows that are items.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemRows {
    /// Those of a table or a view. A plain table that is large is read in several ranges at once.
    Table(TableName),
    /// Those that a statement gives: `SELECT`, `WITH`, `VALUES` or `TABLE`. A semicolon or a comment at its end does no harm.
    /// It stands in a subselect, in which the server looks for what changed as if it were written there.
    Query(String),
}

/// What of a row is its item's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemJson {
    /// An object of all columns, as `row_to_json` makes it.
    #[default]
    Row,
    /// An object of these columns, in this order.
    Columns(Vec<Ident>),
    /// The value of this column, which is json, jsonb, or text that is JSON: as it stands there. NULL is no item.
    Column(Ident),
}

/// What tells of rows that are gone. An id that it names, and that is an item in the snapshot, is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemDeletions {
    /// A statement whose first column is the ids. `{since}` in it becomes the moment from which on changes are read, as a
    /// timestamptz. Compared with a column without a zone it is of the [time
    /// zone](crate::ExportSnapshotOptions::time_zone) of the snapshot; nobody finds out whether that column is.
    Query(String),
    /// A table that has a row for each of them. Rows without a time are of any time.
    Table {
        /// The table.
        table: TableName,
        /// Its column of ids.
        id: Ident,
        /// Its column of when they were deleted: timestamptz, timestamp or date.
        deleted: Ident,
    },
}

impl ItemSource {
    /// Items of these rows: of the whole row, and without what would tell of changes and deletions.
    pub fn new(name: impl Into<String>, rows: ItemRows, id: Ident, group: Ident) -> Self {
        Self { name: name.into(), rows, id, group, modified: None, json: ItemJson::Row, deletions: None }
    }
}
