//! Rust values as rows of COPY, by way of serde.

mod binary;
mod rows;
mod text;
mod unfit;
mod value;

use tokio_postgres::Client;

pub(crate) use rows::{TypedRows, escape};
use text::Form;
pub(crate) use unfit::Unfit;

use crate::{BinaryType, Error, Ident, TableName};

/// A column that values go to.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_name: String,
    /// If its values can be encoded.
    pub(crate) binary_type: Option<BinaryType>,
    form: Form,
}

/// The columns of these names, or, of no names, all columns whose values the server does not compute.
pub(crate) async fn columns(client: &Client, table: &TableName, names: &[&str]) -> Result<Vec<Column>, Error> {
    let rows = client
        .query(
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod,
                    a.attgenerated <> '', t.oid, CASE WHEN t.typcategory = 'A' THEN t.typelem END
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN LATERAL (
                 WITH RECURSIVE base AS (
                     SELECT * FROM pg_catalog.pg_type WHERE oid = a.atttypid
                     UNION ALL
                     SELECT t.* FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typbasetype)
                 SELECT * FROM base WHERE typbasetype = 0) t ON true
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f')
             ORDER BY a.attnum",
            &[&table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(Error::database(format!("read the columns of {table:#}")))?;
    if rows.is_empty() {
        return Err(Error::NoTable { table: table.clone(), near: Vec::new() });
    }
    let misfit = |what: String| Error::Target { table: table.clone(), what };
    let (mut columns, mut generated) = (Vec::new(), Vec::new());
    for row in &rows {
        let column = Column {
            name: row.get(0),
            type_name: row.get(1),
            binary_type: BinaryType::new(row.get(2), row.get(3)),
            form: Form::of(row.get(5), row.get(6)),
        };
        if row.get(4) { generated.push(column) } else { columns.push(column) }
    }
    if names.is_empty() {
        return Ok(columns);
    }
    let mut chosen: Vec<Column> = Vec::new();
    for name in names {
        if generated.iter().any(|column| column.name == *name) {
            return Err(misfit(format!("computes the column {name:?} itself; leave it out")));
        }
        if chosen.iter().any(|column| column.name == *name) {
            return Err(misfit(format!("is to get the column {name:?} twice")));
        }
        let column = columns.iter().find(|column| column.name == *name);
        chosen.push(column.ok_or_else(|| misfit(format!("has no column {name:?}")))?.clone());
    }
    Ok(chosen)
}

/// `"a", "b"`, as COPY wants it.
pub(crate) fn list(table: &TableName, columns: &[Column]) -> Result<String, Error> {
    let quoted = |column: &Column| {
        let ident = Ident::new(&column.name);
        ident
            .map(|ident| ident.to_string())
            .map_err(|error| Error::Target { table: table.clone(), what: error.to_string() })
    };
    Ok(columns.iter().map(quoted).collect::<Result<Vec<_>, _>>()?.join(", "))
}
