use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use crate::{Error, Ident, TableName};

/// Raises the sequences of a table's columns to the largest value that is there, and never lowers one: those that the
/// columns own, of `serial` and of identity columns, and those that their defaults take values from. How many it raised.
///
/// A sequence that counts down, or does not reach as far as the column's values, is left as it is.
pub(crate) async fn raise_sequences(client: &impl GenericClient, table: &TableName) -> Result<usize, Error> {
    raise_sequences_of(client, table, None).await
}

/// The same of some columns: with those of the others nothing was done, so no right to them is needed.
pub(crate) async fn raise_sequences_of(
    client: &impl GenericClient,
    table: &TableName,
    columns: Option<&[String]>,
) -> Result<usize, Error> {
    let action = || Error::database(format!("set the sequences of {table:#}"));
    let rows = client
        .query(
            "SELECT a.attname::text, q.seqrelid
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
             WHERE n.nspname = $1 AND c.relname = $2 AND ($3::text[] IS NULL OR a.attname = ANY ($3))
             ORDER BY a.attnum, q.seqrelid",
            &[&table.schema.as_str(), &table.name.as_str(), &columns],
        )
        .await
        .map_err(action())?;
    let mut raised = 0;
    for row in &rows {
        let column = Ident::new(row.get::<_, String>(0))
            .map_err(|error| Error::Columns { file: table.to_string(), what: error.to_string() })?;
        let sql = format!(
            "SELECT pg_catalog.setval(q.seqrelid::regclass, x.largest)
             FROM (SELECT max({column})::bigint AS largest FROM {table}) x, pg_catalog.pg_sequence q,
                  LATERAL pg_catalog.pg_sequence_last_value(q.seqrelid::regclass) AS last_value
             WHERE q.seqrelid = $1 AND x.largest BETWEEN q.seqmin AND q.seqmax
               AND (last_value IS NULL OR last_value < x.largest)"
        );
        raised += client.query(&sql, &[&row.get::<_, Oid>(1)]).await.map_err(action())?.len();
    }
    Ok(raised)
}
