use crate::{Ident, InferredType, SqlType, TableName};

/// What [`Inference`](crate::Inference) found: a table that holds what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InferredTable {
    /// Its columns.
    pub columns: Vec<InferredColumn>,
    /// Records that it rests on.
    pub records: u64,
}

/// A column of an [`InferredTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InferredColumn {
    /// Its name, as the files have it.
    pub name: Ident,
    /// What its values are.
    pub data_type: InferredType,
    /// The type to give it in place of that. Default none.
    pub chosen: Option<SqlType>,
    /// Values that were seen.
    pub values: u64,
    /// NULLs that were seen. That there were none does not mean that there will be none.
    pub nulls: u64,
}

impl InferredColumn {
    pub(crate) fn new(name: Ident, data_type: InferredType, values: u64, nulls: u64) -> Self {
        Self { name, data_type, chosen: None, values, nulls }
    }

    /// The type that it gets, as SQL.
    pub fn type_name(&self) -> &str {
        self.chosen.as_ref().map_or(self.data_type.name(), SqlType::as_str)
    }
}

impl InferredTable {
    /// The statement that makes the table, with all names quoted, and without a semicolon.
    pub fn create_sql(&self, table: &TableName) -> String {
        let column = |column: &InferredColumn| format!("\n    {} {}", column.name, column.type_name());
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        format!("CREATE TABLE {table} ({}\n)", columns.join(","))
    }
}
