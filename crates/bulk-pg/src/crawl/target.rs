//! Where rows of a crawl go.

use std::collections::HashSet;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use super::cell::Cell;
use super::{CrawlJob, CrawlMode, CrawlTable};
use crate::json_column::{JsonShape, json_shapes};
use crate::key::Key;
use crate::{Error, Ident, Session, TableName, column};

/// A table with all that it takes to write rows into it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) table: TableName,
    pub(super) oid: Oid,
    pub(super) mode: CrawlMode,
    /// Where its rows are in the end: the table itself, or the one that is to take its place.
    pub(super) written: (TableName, Oid),
    pub(super) cells: Vec<Cell>,
    names: Vec<Ident>,
    key: Option<Key>,
    /// By which name the server speaks of what lines are copied into.
    pub(super) relation: String,
    /// The statement that takes lines.
    pub(super) copy: String,
    /// What brings them from there to the table, if that is another one.
    pub(super) apply: Option<String>,
}

impl Target {
    /// Looks up a table and its columns.
    pub(super) async fn find(session: &Session, table: &CrawlTable) -> Result<Self, Error> {
        let CrawlTable { table, columns, mode } = table;
        let misfit = |what: String| Error::Target { table: table.clone(), what };
        let found = column::Target::find(session, table).await?;
        let shapes = json_shapes(session, table, found.oid).await?;
        let integers = integers(session, table, found.oid).await?;
        let (mut cells, mut names) = (Vec::new(), Vec::new());
        for name in columns {
            let Some(column) = found.columns.iter().find(|column| column.name == *name) else {
                return Err(misfit(format!("has no column {name:?}")));
            };
            if column.generated {
                return Err(misfit(format!("computes the column {name:?} itself; leave it out")));
            }
            if cells.iter().any(|cell: &Cell| cell.name == *name) {
                return Err(misfit(format!("is to get the column {name:?} twice")));
            }
            let shape = shapes.get(name).copied().unwrap_or(JsonShape::Text);
            cells.push(Cell::new(column, shape, integers.contains(name)));
            names.push(Ident::new(name).map_err(|error| misfit(error.to_string()))?);
        }
        let lacking = found.columns.iter().find(|column| column.required && !columns.contains(&column.name));
        if let Some(column) = lacking.filter(|_| *mode != CrawlMode::Delete) {
            return Err(misfit(format!(
                "has a column {:?} that may not be NULL and has no default; give its rows a value for it",
                column.name
            )));
        }
        let key = match mode {
            CrawlMode::Append | CrawlMode::Replace => None,
            CrawlMode::Upsert | CrawlMode::Delete => {
                let keys = Key::all(session.client(), found.oid, columns).await?;
                let what = "has no key to tell rows by: that is its primary key, or a unique index over columns that may not \
                            be NULL, not deferrable, of which all columns are given";
                let key = keys.into_iter().find(|key| key.is_immediate || *mode == CrawlMode::Delete);
                Some(key.ok_or_else(|| misfit(what.to_owned()))?)
            }
        };
        let (relation, copy) = (String::new(), String::new());
        let (table, oid, mode) = (table.clone(), found.oid, *mode);
        let written = (table.clone(), oid);
        Ok(Self { table, oid, mode, written, cells, names, key, relation, copy, apply: None })
    }

    /// Makes what the lines are copied into, if it is not the table itself or `twin`.
    pub(super) async fn set_up(
        &mut self,
        session: &Session,
        place: usize,
        twin: Option<(&TableName, Oid)>,
    ) -> Result<(), Error> {
        let columns = list(&self.names, "");
        if let Some((twin, oid)) = twin {
            self.written = (twin.clone(), oid);
        }
        let Some(key) = &self.key else {
            let (table, _) = &self.written;
            self.relation = table.name.as_str().to_owned();
            self.copy = format!("COPY {table} ({columns}) FROM STDIN");
            return Ok(());
        };
        let action = || Error::database(format!("prepare to write into {:#}", self.table));
        let table = &self.table;
        let mut number = "bulk_row".to_owned();
        while self.cells.iter().any(|cell| cell.name == number) {
            number.push('_');
        }
        let relation = format!("bulk_crawl_{place}");
        let staging = format!("pg_temp.{relation}");
        // Types and domains are the table's, and nothing else is.
        let make = format!(
            "CREATE TEMPORARY TABLE {relation} AS SELECT {columns} FROM {table} WITH NO DATA;
             ALTER TABLE {staging} ADD COLUMN {number} bigint GENERATED ALWAYS AS IDENTITY"
        );
        session.client().batch_execute(&make).await.map_err(action())?;
        let apply = match self.mode {
            CrawlMode::Delete => format!("DELETE FROM {table} t USING {staging} s WHERE {}", key.matches("t", "s")),
            _ => {
                let keys: Vec<Ident> = key.names().cloned().collect();
                let others: Vec<Ident> = self.names.iter().filter(|name| !keys.contains(name)).cloned().collect();
                let assignments: Vec<_> = others.iter().map(|name| format!("{name} = excluded.{name}")).collect();
                let update = match others.is_empty() {
                    true => "NOTHING".to_owned(),
                    false => format!(
                        "UPDATE SET {} WHERE ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record",
                        assignments.join(", "),
                        list(&others, "t."),
                        list(&others, "excluded.")
                    ),
                };
                let keys = list(&keys, "");
                // What is in the table is as the crawl has it, also where the server would number rows itself.
                format!(
                    "INSERT INTO {table} AS t ({columns}) OVERRIDING SYSTEM VALUE
                     SELECT {columns}
                     FROM (SELECT DISTINCT ON ({keys}) * FROM {staging} ORDER BY {keys}, {number} DESC) s
                     ORDER BY {number} ON CONFLICT ({keys}) DO {update}"
                )
            }
        };
        // Whether a key can be used so, the planner says.
        session.client().batch_execute(&format!("EXPLAIN {apply}")).await.map_err(action())?;
        self.copy = format!("COPY {staging} ({columns}) FROM STDIN");
        self.apply = Some(format!("{apply}; TRUNCATE {staging}"));
        self.relation = relation;
        Ok(())
    }
}

/// The columns of whole numbers, and of arrays of them, also of domains.
async fn integers(session: &Session, table: &TableName, oid: Oid) -> Result<HashSet<String>, Error> {
    let rows = session
        .client()
        .query(
            "WITH RECURSIVE c(name, type) AS (
                 SELECT attname::text, atttypid FROM pg_catalog.pg_attribute
                 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
                 UNION ALL
                 SELECT c.name, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
                 FROM c JOIN pg_catalog.pg_type t ON t.oid = c.type
                 WHERE t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0)
             SELECT name FROM c WHERE type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)",
            &[&oid],
        )
        .await
        .map_err(Error::database(format!("read the columns of {table:#}")))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Fails if a name has come to be of another table since the beginning, such as by a swap: rows would go astray.
pub(super) async fn check_names(client: &impl GenericClient, job: &CrawlJob, targets: &[Target]) -> Result<(), Error> {
    let names: Vec<String> = targets.iter().map(|target| target.written.0.to_string()).collect();
    let oids: Vec<Oid> = targets.iter().map(|target| target.written.1).collect();
    let row = client
        .query_opt(
            "SELECT t.place FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::oid[]))
                    WITH ORDINALITY t(name, oid, place)
             WHERE pg_catalog.to_regclass(t.name)::oid IS DISTINCT FROM t.oid ORDER BY t.place LIMIT 1",
            &[&names, &oids],
        )
        .await
        .map_err(Error::database(format!("find the tables of the crawl {}", job.name)))?;
    let place = row.and_then(|row| usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1));
    match place.and_then(|place| targets.get(place)) {
        None => Ok(()),
        Some(Target { written: (table, _), .. }) => {
            let what = format!("{table:#} is another table than when the run began; what is not committed is dropped");
            Err(Error::Crawl { job: job.name.clone(), what })
        }
    }
}

fn list(names: &[Ident], prefix: &str) -> String {
    names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
}
