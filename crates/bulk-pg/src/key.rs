//! By which columns a row of a table is told from the others.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use crate::{Error, Ident};

/// Columns of a unique index, none of which may be NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) columns: Vec<KeyColumn>,
    /// Whether it is checked with each row, as what is deferrable is not.
    pub(crate) is_immediate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) name: Ident,
    /// `OPERATOR("schema".=)`: the index's own notion of what is equal, wherever the type comes from.
    operator: String,
    /// `"schema"."name"`, of the index.
    operator_class: String,
    /// Whether values that the index takes for equal are so byte for byte, as those of numeric or citext are not
    /// (PostgreSQL manual, "B-Tree Support Functions", `equalimage`).
    pub(crate) is_exact: bool,
}

impl Key {
    /// The keys of a table among these of its columns: the primary key first, then unique indexes, those of the fewest
    /// columns first. Partial ones, and those of expressions or of another collation than the column's, do not count.
    pub(crate) async fn all(client: &impl GenericClient, table: Oid, columns: &[String]) -> Result<Vec<Self>, Error> {
        let rows = client
            .query(
                "SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place),
                        pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', m.nspname, p.oprname)
                                             ORDER BY k.place),
                        pg_catalog.array_agg(pg_catalog.format('%I.%I', n.nspname, c.opcname) ORDER BY k.place),
                        pg_catalog.array_agg(coalesce(l.collisdeterministic, true) AND EXISTS
                            (SELECT FROM pg_catalog.pg_amproc f WHERE f.amprocfamily = c.opcfamily AND f.amprocnum = 4
                             AND f.amproclefttype = c.opcintype AND f.amprocrighttype = c.opcintype) ORDER BY k.place),
                        i.indimmediate
                 FROM pg_catalog.pg_index i
                 CROSS JOIN LATERAL ROWS FROM (
                     pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[]),
                     pg_catalog.unnest(i.indcollation::oid[])) WITH ORDINALITY k(attnum, operator_class, collation_id, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 JOIN pg_catalog.pg_opclass c ON c.oid = k.operator_class
                 JOIN pg_catalog.pg_am v ON v.oid = c.opcmethod AND v.amname = 'btree'
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace
                 JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amopstrategy = 3
                      AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype
                 JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr
                 JOIN pg_catalog.pg_namespace m ON m.oid = p.oprnamespace
                 LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
                 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                   AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
                 GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts, i.indimmediate
                 HAVING pg_catalog.count(*) = i.indnkeyatts AND pg_catalog.bool_and(
                     a.attnotnull AND a.attgenerated = '' AND k.collation_id = a.attcollation
                     AND a.attname::text = ANY ($2))
                 ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid",
                &[&table, &columns],
            )
            .await
            .map_err(Error::database("read the keys of the table"))?;
        let key = |row: &tokio_postgres::Row| {
            let names: Vec<String> = row.get(0);
            let (operators, classes, exact): (Vec<String>, Vec<String>, Vec<bool>) =
                (row.get(1), row.get(2), row.get(3));
            let parts = names.into_iter().zip(operators).zip(classes).zip(exact);
            let columns = parts.map(|(((name, operator), operator_class), is_exact)| {
                Some(KeyColumn { name: Ident::new(name).ok()?, operator, operator_class, is_exact })
            });
            Some(Self { columns: columns.collect::<Option<_>>()?, is_immediate: row.get(4) })
        };
        Ok(rows.iter().filter_map(key).collect())
    }

    /// That rows of two tables have the same key.
    pub(crate) fn matches(&self, one: &str, other: &str) -> String {
        let equal = |KeyColumn { name, operator, .. }: &KeyColumn| format!("{one}.{name} {operator} {other}.{name}");
        self.columns.iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// The columns as those of an index that is unique where this one is.
    pub(crate) fn index(&self) -> String {
        let column = |KeyColumn { name, operator_class, .. }: &KeyColumn| format!("{name} {operator_class}");
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Ident> {
        self.columns.iter().map(|column| &column.name)
    }
}
