use tokio_postgres::types::Oid;
use tokio_postgres::{GenericClient, Row};

use crate::{Error, Ident, Session, TableName};

/// What became of the sequences of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaisedSequences {
    /// How many were raised.
    pub raised: usize,
    /// Those that may be behind their columns, which this role may not set, or of which it may not read what they were set to.
    pub refused: Vec<TableName>,
}

/// Raises the sequences of a table's columns to the largest value that is there, as those are that a schema's phase after
/// the data and a refresh raise: the ones that the columns own, of `serial` and of identity columns, and the ones that their
/// defaults take values from. None is lowered, whoever has set it. Rows that were loaded with their values do not move them,
/// and the next row that takes its value from one would meet the value of another.
///
/// A sequence that counts down, or does not reach as far as the column's values, is left as it is. The largest value is
/// read from an index where the column has one, else all rows are read.
///
/// # Errors
///
/// [`Error::Database`]. What the role may not do is no error: [`RaisedSequences::refused`] tells of it.
pub async fn raise_sequences(session: &Session, table: &TableName) -> Result<RaisedSequences, Error> {
    let client = session.client();
    let mut done = RaisedSequences::default();
    for sequence in find(client, table, None).await? {
        let raised = match sequence.is_allowed {
            true => raise(client, table, &sequence, false).await?,
            false => None,
        };
        match raised {
            Some(raised) => done.raised += usize::from(raised),
            None => done.refused.push(sequence.name),
        }
    }
    Ok(done)
}

/// The same of some columns, or of all, where it is an error not to be allowed to. (With those of the others nothing was
/// done, so no right to them is needed.) How many it raised.
pub(crate) async fn raise_sequences_of(
    client: &impl GenericClient,
    table: &TableName,
    columns: Option<&[String]>,
) -> Result<usize, Error> {
    let mut raised = 0;
    for sequence in find(client, table, columns).await? {
        raised += usize::from(raise(client, table, &sequence, true).await?.unwrap_or_default());
    }
    Ok(raised)
}

/// A sequence that a column takes its values from.
struct Sequence {
    oid: Oid,
    name: TableName,
    column: Ident,
    /// Whether it can be asked itself for its value.
    is_readable: bool,
    /// Whether all is allowed that it takes to raise it.
    is_allowed: bool,
}

async fn find(
    client: &impl GenericClient,
    table: &TableName,
    columns: Option<&[String]>,
) -> Result<Vec<Sequence>, Error> {
    let rows = client
        .query(
            "SELECT q.seqrelid, sn.nspname::text, sc.relname::text, a.attname::text,
                    pg_catalog.has_sequence_privilege(q.seqrelid, 'SELECT')
                        AND pg_catalog.has_schema_privilege(sn.oid, 'USAGE'),
                    pg_catalog.has_sequence_privilege(q.seqrelid, 'UPDATE')
                        AND pg_catalog.has_sequence_privilege(q.seqrelid, 'SELECT, USAGE')
                        AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
             JOIN LATERAL
                 (SELECT d.objid AS oid FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                    AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
                  UNION
                  SELECT d.refobjid FROM pg_catalog.pg_attrdef f
                  JOIN pg_catalog.pg_depend d ON d.objid = f.oid AND d.classid = 'pg_catalog.pg_attrdef'::regclass
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass
                  WHERE f.adrelid = c.oid AND f.adnum = a.attnum) s ON true
             JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0
             JOIN pg_catalog.pg_class sc ON sc.oid = q.seqrelid
             JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND ($3::text[] IS NULL OR a.attname = ANY ($3))
             ORDER BY a.attnum, q.seqrelid",
            &[&table.schema.as_str(), &table.name.as_str(), &columns],
        )
        .await
        .map_err(failed(table))?;
    let name = |text: String| {
        Ident::new(text).map_err(|error| Error::Columns { file: table.to_string(), what: error.to_string() })
    };
    let sequence = |row: &Row| {
        Ok(Sequence {
            oid: row.get(0),
            name: TableName { schema: name(row.get(1))?, name: name(row.get(2))? },
            column: name(row.get(3))?,
            is_readable: row.get(4),
            is_allowed: row.get(5),
        })
    };
    rows.iter().map(sequence).collect()
}

/// Whether its next value can be known. Of one that nobody has drawn from yet that is what it was set to, and only itself tells
/// that.
async fn tells(client: &impl GenericClient, table: &TableName, sequence: &Sequence) -> Result<bool, Error> {
    if sequence.is_readable {
        return Ok(true);
    }
    let sql = "SELECT pg_catalog.pg_sequence_last_value(q.seqrelid::regclass) IS NOT NULL
               FROM pg_catalog.pg_sequence q WHERE q.seqrelid = $1";
    let row = client.query_opt(sql, &[&sequence.oid]).await.map_err(failed(table))?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// Raises one sequence, if it is behind. None if that cannot be known, or the server's error if it `must`.
async fn raise(
    client: &impl GenericClient,
    table: &TableName,
    sequence: &Sequence,
    must: bool,
) -> Result<Option<bool>, Error> {
    let Sequence { oid, name, column, is_readable, .. } = sequence;
    // By itself, as it may take long: others may draw values in the meantime, and what they drew is not to be taken back.
    let largest = format!("SELECT max({column})::bigint FROM {table}");
    let largest = client.query_one(&largest, &[]).await.map_err(failed(table))?.get::<_, Option<i64>>(0);
    let Some(largest) = largest else { return Ok(Some(false)) };
    let tells = tells(client, table, sequence).await?;
    if !tells && !must {
        return Ok(None);
    }
    let state = match *is_readable || !tells {
        true => format!("SELECT last_value, is_called FROM {name}"),
        // Where somebody sets it back meanwhile there is none, and it is left as it is.
        false => {
            "SELECT pg_catalog.pg_sequence_last_value(q.seqrelid::regclass) AS last_value, true AS is_called".to_owned()
        }
    };
    let sql = format!(
        "SELECT pg_catalog.setval(q.seqrelid::regclass, $2)
         FROM pg_catalog.pg_sequence q, LATERAL ({state}) s
         WHERE q.seqrelid = $1 AND $2 BETWEEN q.seqmin AND q.seqmax
           AND (s.last_value < $2 OR s.last_value = $2 AND NOT s.is_called)"
    );
    let raised = client.query(&sql, &[oid, &largest]).await.map_err(failed(table))?;
    Ok(Some(!raised.is_empty()))
}

fn failed(table: &TableName) -> impl FnOnce(tokio_postgres::Error) -> Error {
    Error::database(format!("set the sequences of {table:#}"))
}
