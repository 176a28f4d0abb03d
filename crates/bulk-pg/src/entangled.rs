//! What would go with a table that steps aside, though it is not of it.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use crate::verify::is_any_row;
use crate::{Error, Ident, TableName};

/// A foreign key of another table, which has no rows: it can be dropped and made again at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutsideKey {
    pub(crate) table: TableName,
    name: Ident,
    definition: String,
    comment: Option<String>,
}

impl OutsideKey {
    pub(crate) fn drop_sql(&self) -> String {
        format!("ALTER TABLE {} DROP CONSTRAINT {}", self.table, self.name)
    }

    /// The names in it are looked up when it is run.
    pub(crate) fn add_sql(&self) -> String {
        let Self { table, name, definition, comment } = self;
        let comment = comment.as_deref().and_then(|comment| crate::quote_literal(comment).ok());
        let comment = comment.map(|text| format!("; COMMENT ON CONSTRAINT {name} ON {table} IS {text}"));
        format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{}", comment.unwrap_or_default())
    }
}

/// How many things of one table are named.
const EXAMPLES: usize = 8;

/// Finds what hangs on tables and is none of them: an error, but for foreign keys of tables without rows, which it gives.
///
/// The search path must be empty.
pub(crate) async fn outside_keys(
    client: &impl GenericClient,
    tables: &[(TableName, Oid)],
) -> Result<Vec<OutsideKey>, Error> {
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    let mut found = described(client, OF_ITSELF, &oids).await?;
    found.extend(described(client, DEPENDENTS, &oids).await?);
    assert_has_room(client, tables).await?;
    outside_keys_but(client, tables, found, Need::Altered).await
}

/// An error if this role may not put tables where these are.
async fn assert_has_room(client: &impl GenericClient, tables: &[(TableName, Oid)]) -> Result<(), Error> {
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    let rows =
        client.query(CLOSED, &[&oids]).await.map_err(Error::database("look for rights to the tables' schemas"))?;
    let closed: Vec<Oid> = rows.iter().map(|row| row.get(0)).collect();
    match tables.iter().find(|(_, oid)| closed.contains(oid)) {
        Some((table, _)) => {
            let what = format!("cannot be swapped: this role may not CREATE in its schema {:#}", table.schema);
            Err(Error::Occupied { table: table.clone(), what })
        }
        None => Ok(()),
    }
}

/// Whether something would go with tables that step aside, such as a view, but for foreign keys of other tables.
pub(crate) async fn has_dependents(client: &impl GenericClient, tables: &[(TableName, Oid)]) -> Result<bool, Error> {
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    Ok(!described(client, DEPENDENTS, &oids).await?.is_empty())
}

/// The same for tables that get the rows of others by stepping aside, or where they are if something would go with them.
pub(crate) async fn outside_keys_of_replaceable(
    client: &impl GenericClient,
    tables: &[(TableName, Oid)],
) -> Result<Vec<OutsideKey>, Error> {
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    let mut found = described(client, OF_ITSELF, &oids).await?;
    let stays = has_dependents(client, tables).await?;
    if stays {
        // They would be told of each row that goes and comes.
        found.extend(described(client, TRIGGERS, &oids).await?);
    } else {
        assert_has_room(client, tables).await?;
    }
    outside_keys_but(client, tables, found, if stays { Need::Locked } else { Need::Altered }).await
}

async fn described(client: &impl GenericClient, sql: &str, tables: &[Oid]) -> Result<Vec<(Oid, String)>, Error> {
    let rows = client.query(sql, &[&tables]).await.map_err(Error::database("find what depends on the tables"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What becomes of other tables, meanwhile.
#[derive(Clone, Copy)]
enum Need {
    /// Their keys are dropped and made again.
    Altered,
    /// Nobody is to write to them.
    Locked,
}

/// Foreign keys of other tables, which have no rows. An error if one has some, if this role may not do with its table what is
/// needed, or if anything was found already.
async fn outside_keys_but(
    client: &impl GenericClient,
    tables: &[(TableName, Oid)],
    mut found: Vec<(Oid, String)>,
    need: Need,
) -> Result<Vec<OutsideKey>, Error> {
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    let name = |oid: Oid| tables.iter().find(|(_, other)| *other == oid).map(|(table, _)| table.clone());
    let mut keys = Vec::new();
    let rows = client.query(KEYS, &[&oids]).await.map_err(Error::database("find what depends on the tables"))?;
    for row in &rows {
        let (Ok(table), Ok(name)) =
            (TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)), Ident::new(row.get::<_, String>(3)))
        else {
            continue;
        };
        let (is_owner, may_lock, may_read): (bool, bool, bool) = (row.get(6), row.get(7), row.get(8));
        let lacking = match need {
            Need::Altered if !is_owner => Some("which is another role's"),
            Need::Locked if !may_lock => {
                Some("which this role may not lock: it has no right to UPDATE, DELETE or TRUNCATE it")
            }
            _ if !may_read => Some("which this role may not read, so that nobody knows whether it has rows"),
            _ => None,
        };
        if let Some(lacking) = lacking {
            found.push((row.get(0), format!("foreign key {name:#} of {table:#}, {lacking}")));
        } else if is_any_row(client, &table).await? {
            found.push((row.get(0), format!("foreign key {name:#} of {table:#}, which has rows")));
        } else {
            keys.push(OutsideKey { table, name, definition: row.get(4), comment: row.get(5) });
        }
    }
    let Some((first, _)) = found.first() else { return Ok(keys) };
    let (first, count) = (*first, found.len());
    let mut texts: Vec<String> = found.into_iter().map(|(_, text)| text).take(EXAMPLES).collect();
    if let Some(more @ 1..) = count.checked_sub(EXAMPLES) {
        texts.push(format!("{more} more"));
    }
    let what = format!(
        "cannot be swapped, because of what would go with the old table or get lost: {}; drop it, or use --refresh",
        texts.join("; ")
    );
    match name(first) {
        Some(table) => Err(Error::Occupied { table, what }),
        None => Ok(keys),
    }
}

/// What a table is that its twin would not be.
const OF_ITSELF: &str = "
    SELECT c.oid, w.what FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL (VALUES
        (c.relkind <> 'r' OR c.relispartition, 'it is partitioned or a partition'),
        (c.reloftype <> 0, 'it is a typed table'),
        (c.relrowsecurity, 'it has row level security'),
        (EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), 'it inherits'),
        (EXISTS (SELECT FROM pg_catalog.pg_seclabel l WHERE l.objoid = c.oid
                 AND l.classoid = 'pg_catalog.pg_class'::regclass), 'it has a security label')) w(is_so, what)
    WHERE c.oid = ANY ($1) AND w.is_so ORDER BY c.oid, w.what";

/// What the server has noted as dependent on the tables, and is not a part of one of them.
const DEPENDENTS: &str = "
    WITH part AS (
        SELECT oid AS id, oid AS owner FROM pg_catalog.unnest($1::oid[]) oid
        UNION
        SELECT i.indexrelid, i.indrelid FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ($1)
        UNION
        SELECT c.reltoastrelid, c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1) AND c.reltoastrelid <> 0
        UNION
        SELECT i.indexrelid, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indrelid = c.reltoastrelid
        WHERE c.oid = ANY ($1)
        UNION
        SELECT d.objid, d.refobjid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.refobjid = ANY ($1) AND d.deptype IN ('a', 'i') AND c.relkind = 'S'),
    type AS (
        SELECT t.oid AS id, p.owner FROM pg_catalog.pg_type t JOIN part p ON p.id = t.typrelid
        UNION
        SELECT t.typarray, p.owner FROM pg_catalog.pg_type t JOIN part p ON p.id = t.typrelid WHERE t.typarray <> 0),
    needed AS (
        SELECT 'pg_catalog.pg_class'::regclass::oid AS class, id, owner FROM part
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass::oid, id, owner FROM type)
    SELECT DISTINCT n.owner, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM needed n JOIN pg_catalog.pg_depend d ON d.refclassid = n.class AND d.refobjid = n.id
    WHERE NOT EXISTS (SELECT FROM needed o WHERE o.class = d.classid AND o.id = d.objid)
      AND NOT (d.classid = 'pg_catalog.pg_constraint'::regclass AND EXISTS
               (SELECT FROM pg_catalog.pg_constraint k
                WHERE k.oid = d.objid AND (k.contype = 'f' OR k.conrelid = ANY ($1))))
      AND NOT (d.classid = 'pg_catalog.pg_attrdef'::regclass AND EXISTS
               (SELECT FROM pg_catalog.pg_attrdef a WHERE a.oid = d.objid AND a.adrelid = ANY ($1)))
      AND NOT (d.classid = 'pg_catalog.pg_trigger'::regclass AND EXISTS
               (SELECT FROM pg_catalog.pg_trigger t
                WHERE t.oid = d.objid AND (t.tgisinternal OR t.tgrelid = ANY ($1))))
      AND NOT (d.classid = 'pg_catalog.pg_statistic_ext'::regclass AND EXISTS
               (SELECT FROM pg_catalog.pg_statistic_ext s WHERE s.oid = d.objid AND s.stxrelid = ANY ($1)))
    ORDER BY 1, 2";

/// Triggers of the tables that something depends on.
const TRIGGERS: &str = "
    SELECT t.tgrelid, pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::regclass, t.oid, 0)
    FROM pg_catalog.pg_trigger t WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY 1, 2";

/// Tables in whose schemas this role may make none.
const CLOSED: &str = "
    SELECT c.oid FROM pg_catalog.pg_class c
    WHERE c.oid = ANY ($1) AND NOT pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE')";

/// Foreign keys of other tables that lead to the tables.
const KEYS: &str = "
    SELECT k.confrelid, n.nspname::text, c.relname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid),
           pg_catalog.obj_description(k.oid, 'pg_constraint'), coalesce(pg_catalog.pg_has_role(c.relowner, 'USAGE'), false),
           coalesce(pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'
                        || CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 170000
                                THEN ', MAINTAIN' ELSE '' END), false),
           coalesce(pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
                        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false)
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY ($1) AND NOT k.conrelid = ANY ($1)
    ORDER BY k.conrelid, k.conname";
