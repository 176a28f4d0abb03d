//! Foreign keys over loaded rows: added NOT VALID, validated, and left so where rows refer to nothing.

use tokio_postgres::error::SqlState;

use crate::counted::counted;
use crate::error::Cause;
use crate::{Error, ForeignKey, Ident, Session, TableName, quote_literal};

/// How many orphans of one foreign key are shown.
const EXAMPLES: usize = 5;
/// How the comment on a violated foreign key starts.
pub(crate) const NOTE: &str = "NOT VALID: ";
/// What stands in it before an orphan's key, a JSON array of texts.
const SUCH_AS: &str = ", such as ";

/// A foreign key that the rows violate. It is there, NOT VALID: the server checks new rows against it, and not the old.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphans {
    /// The constraint.
    pub constraint: String,
    /// The table that refers.
    pub table: TableName,
    /// The table that lacks the rows.
    pub references: TableName,
    /// How many rows refer to nothing.
    pub rows: u64,
    /// The keys that some of them refer to.
    pub examples: Vec<String>,
}

/// What became of checking a foreign key.
pub(crate) enum Checked {
    Valid,
    Violated(Orphans),
    Refused(Cause),
}

/// Whether a comment on a constraint is the note of an earlier run.
pub(crate) fn is_note(comment: &str) -> bool {
    comment.starts_with(NOTE)
}

/// Has the server check the rows by `validate`, the key's statement for it. Where they violate the key, they are listed
/// and noted.
pub(crate) async fn validate(session: &Session, key: &ForeignKey, validate: &str) -> Result<Checked, Error> {
    match session.client().batch_execute(validate).await {
        Ok(()) => Ok(Checked::Valid),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            let (orphans, first) = find_orphans(session, key).await?;
            note(session, key, &orphans, first.as_deref()).await?;
            Ok(Checked::Violated(orphans))
        }
        Err(error) => match Cause(error) {
            cause if cause.is_remote() => {
                Err(Error::Database { action: format!("validate {:#}", key.name), source: cause })
            }
            cause => Ok(Checked::Refused(cause)),
        },
    }
}

/// Whether the orphan that an earlier run noted is still there, which proves without a scan that the key cannot be valid.
/// False where that cannot be told.
pub(crate) async fn is_still_violated(session: &Session, key: &ForeignKey, comment: &str) -> Result<bool, Error> {
    let Some((_, first)) = comment.split_once(SUCH_AS) else { return Ok(false) };
    let values = "SELECT pg_catalog.jsonb_array_elements_text($1::text::jsonb)";
    let values = match session.client().query(values, &[&first]).await {
        Ok(rows) => rows,
        Err(error) if error.is_closed() => return Err(Error::database("read the note on a foreign key")(error)),
        // Somebody changed the comment.
        Err(_) => return Ok(false),
    };
    let parent_columns = parent_columns(session, key).await?;
    let literals: Option<Vec<_>> =
        values.iter().map(|row| quote_literal(&row.get::<_, Option<String>>(0)?).ok()).collect();
    let Some(literals) = literals.filter(|literals| literals.len() == key.columns.len()) else { return Ok(false) };
    let equal = |table: &str, columns: &[Ident]| {
        let pairs = columns.iter().zip(&literals).map(|(column, literal)| format!("{table}.{column} = {literal}"));
        pairs.collect::<Vec<_>>().join(" AND ")
    };
    let sql = format!(
        "SELECT NOT EXISTS (SELECT FROM {} p WHERE {}) AND EXISTS (SELECT FROM ONLY {} c WHERE {})",
        key.references,
        equal("p", &parent_columns),
        key.table,
        equal("c", &key.columns),
    );
    match session.client().query_one(&sql, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.is_closed() => Err(Error::database(format!("look for orphans of {:#}", key.name))(error)),
        // A column of another type by now.
        Err(_) => Ok(false),
    }
}

/// Takes the note of an earlier run away.
pub(crate) async fn remove_note(session: &Session, key: &ForeignKey) -> Result<(), Error> {
    comment(session, key, "NULL").await
}

/// Leaves word at the constraint, for people who look at the table and for the next run.
async fn note(session: &Session, key: &ForeignKey, orphans: &Orphans, first: Option<&str>) -> Result<(), Error> {
    let first = first.map(|first| format!("{SUCH_AS}{first}")).unwrap_or_default();
    let refer = counted(orphans.rows, "row refers", "rows refer");
    let text = format!("{NOTE}{refer} to nothing in {:#}{first}", orphans.references);
    comment(session, key, &quote_literal(&text).unwrap_or_else(|_| "NULL".to_owned())).await
}

async fn comment(session: &Session, key: &ForeignKey, literal: &str) -> Result<(), Error> {
    let sql = format!("COMMENT ON CONSTRAINT {} ON {} IS {literal}", key.name, key.table);
    session.client().batch_execute(&sql).await.map_err(Error::database(format!("comment on {:#}", key.name)))
}

/// Counts the orphans in one scan, with the key of the first as a JSON array.
async fn find_orphans(session: &Session, key: &ForeignKey) -> Result<(Orphans, Option<String>), Error> {
    let parent_columns = parent_columns(session, key).await?;
    let pairs = || key.columns.iter().zip(&parent_columns);
    let not_null: Vec<_> = key.columns.iter().map(|column| format!("c.{column} IS NOT NULL")).collect();
    let equal: Vec<_> = pairs().map(|(child, parent)| format!("p.{parent} = c.{child}")).collect();
    let texts: Vec<_> = key.columns.iter().map(|column| format!("c.{column}::text")).collect();
    let sql = format!(
        "WITH orphan AS MATERIALIZED
             (SELECT ARRAY[{}] AS key, count(*) AS rows FROM ONLY {} c
              WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {}) GROUP BY 1)
         SELECT (SELECT coalesce(sum(rows), 0)::bigint FROM orphan),
                ARRAY(SELECT pg_catalog.array_to_string(key, ', ') FROM orphan ORDER BY key LIMIT {EXAMPLES}),
                (SELECT pg_catalog.to_jsonb(key)::text FROM orphan ORDER BY key LIMIT 1)",
        texts.join(", "),
        key.table,
        not_null.join(" AND "),
        key.references,
        equal.join(" AND "),
    );
    let action = Error::database(format!("list the orphans of {:#}", key.name));
    let row = session.client().query_one(&sql, &[]).await.map_err(action)?;
    let orphans = Orphans {
        constraint: key.name.as_str().to_owned(),
        table: key.table.clone(),
        references: key.references.clone(),
        rows: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0),
        examples: row.get(1),
    };
    Ok((orphans, row.get(2)))
}

/// The columns that the key refers to, of which the schema file may say nothing.
async fn parent_columns(session: &Session, key: &ForeignKey) -> Result<Vec<Ident>, Error> {
    if !key.ref_columns.is_empty() {
        return Ok(key.ref_columns.clone());
    }
    let rows = session
        .client()
        .query(
            "SELECT a.attname::text FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
             WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3 ORDER BY u.place",
            &[&key.table.schema.as_str(), &key.table.name.as_str(), &key.name.as_str()],
        )
        .await
        .map_err(Error::database(format!("read the columns of {:#}", key.name)))?;
    Ok(rows.iter().filter_map(|row| Ident::new(row.get::<_, String>(0)).ok()).collect())
}
