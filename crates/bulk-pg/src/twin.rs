//! A second table of the same structure, beside the first: what is read of the catalogues, and written again.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Oid;

use crate::{Error, Ident, TableName, quote_literal};

/// A table, and the one that is to take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) table: TableName,
    pub(crate) oid: Oid,
    /// The new one: of the same name, in a schema of its own.
    pub(crate) twin: TableName,
}

/// What makes one twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Before the rows.
    pub(crate) pre_data: Vec<String>,
    /// Who may do what with it, behind [`revoke_defaults`].
    pub(crate) privileges: Vec<String>,
    /// After the rows, as pg_dump would write it.
    pub(crate) post_data: Vec<String>,
}

/// Reads the structure of tables: columns with all that belongs to them, sequences, constraints, indexes, triggers, owner,
/// privileges, comment and storage parameters. Foreign keys between the tables lead from twin to twin. The script of each,
/// in the order of `twins`.
///
/// The search path must be empty, so that the server qualifies the names that it writes.
pub(crate) async fn scripts(client: &impl GenericClient, twins: &[Twin]) -> Result<Vec<Script>, Error> {
    let mut scripts = Vec::new();
    let mut sequences = Vec::new();
    for twin in twins {
        sequences.extend(sequences_of(client, twin).await?);
    }
    for twin in twins {
        let Script { mut pre_data, privileges: mut granted, mut post_data } = Script::default();
        let own = || sequences.iter().filter(|sequence| sequence.owner == twin.oid);
        create(client, twin, &mut pre_data).await?;
        pre_data.extend(own().map(|sequence| sequence.sql.clone()));
        defaults(client, twin, &sequences, &mut pre_data).await?;
        owner(client, twin, &mut pre_data).await?;
        privileges(client, (twin.oid, "TABLE", &twin.twin), &mut granted).await?;
        for sequence in own() {
            privileges(client, (sequence.oid, "SEQUENCE", &sequence.twin), &mut granted).await?;
        }
        constraints(client, twin, twins, &mut post_data).await?;
        scripts.push(Script { pre_data, privileges: granted, post_data });
    }
    Ok(scripts)
}

fn action(twin: &Twin) -> impl FnOnce(tokio_postgres::Error) -> Error {
    Error::database(format!("read the structure of {:#}", twin.table))
}

async fn create(client: &impl GenericClient, twin: &Twin, out: &mut Vec<String>) -> Result<(), Error> {
    let row = client
        .query_one(
            "SELECT c.relpersistence = 'u', pg_catalog.quote_ident(s.spcname), c.relreplident::text,
                    ARRAY(SELECT pg_catalog.format('%s = %L', pg_catalog.split_part(option, '=', 1),
                                                   pg_catalog.substr(option, pg_catalog.strpos(option, '=') + 1))
                          FROM pg_catalog.unnest(c.reloptions) option),
                    pg_catalog.obj_description(c.oid, 'pg_class'),
                    ARRAY(SELECT pg_catalog.format('ALTER COLUMN %I SET STATISTICS %s', a.attname, a.attstattarget)
                          FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
                          ORDER BY a.attnum),
                    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod,
                                                  a.attcollation, a.attnotnull, a.attidentity, a.attgenerated,
                                                  pg_catalog.pg_get_expr(d.adbin, d.adrelid)), ', ' ORDER BY a.attnum)
                     FROM pg_catalog.pg_attribute a
                     LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                    (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname)
                     FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')
             FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
             WHERE c.oid = $1",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    let Twin { table, twin: new, .. } = twin;
    let unlogged = if row.get(0) { "UNLOGGED " } else { "" };
    let place = row.get::<_, Option<String>>(1).map_or(String::new(), |place| format!(" TABLESPACE {place}"));
    // The comment tells one structure from another; LIKE copies it.
    let (columns, checks): (Option<String>, Option<String>) = (row.get(6), row.get(7));
    let structure = format!("{} {}", columns.unwrap_or_default(), checks.unwrap_or_default()).replace("*/", "* /");
    out.push(format!(
        "CREATE {unlogged}TABLE {new} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS){place} /* {} */",
        structure.replace("/*", "/ *")
    ));
    let options: Vec<String> = row.get(3);
    if !options.is_empty() {
        out.push(format!("ALTER TABLE {new} SET ({})", options.join(", ")));
    }
    match row.get::<_, &str>(2) {
        "f" => out.push(format!("ALTER TABLE {new} REPLICA IDENTITY FULL")),
        "n" => out.push(format!("ALTER TABLE {new} REPLICA IDENTITY NOTHING")),
        _ => {}
    }
    if let Some(comment) = row.get::<_, Option<String>>(4).and_then(|comment| quote_literal(&comment).ok()) {
        out.push(format!("COMMENT ON TABLE {new} IS {comment}"));
    }
    out.extend(row.get::<_, Vec<String>>(5).into_iter().map(|change| format!("ALTER TABLE {new} {change}")));
    Ok(())
}

/// A sequence that a column of one of the tables owns, but for those of identity columns, which come with them.
struct Sequence {
    oid: Oid,
    /// The table.
    owner: Oid,
    table: TableName,
    twin: TableName,
    sql: String,
}

async fn sequences_of(client: &impl GenericClient, twin: &Twin) -> Result<Vec<Sequence>, Error> {
    let mut found = Vec::new();
    let rows = client
            .query(
                "SELECT q.seqrelid, n.nspname::text, c.relname::text,
                        pg_catalog.format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s',
                                          pg_catalog.format_type(q.seqtypid, NULL), q.seqincrement, q.seqmin, q.seqmax,
                                          q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
                        a.attname::text
                 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence q ON q.seqrelid = d.objid
                 JOIN pg_catalog.pg_class c ON c.oid = q.seqrelid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                   AND d.refobjid = $1 AND d.deptype = 'a' ORDER BY c.relname",
                &[&twin.oid],
            )
            .await
            .map_err(action(twin))?;
    for row in &rows {
        let name: String = row.get(2);
        let (Ok(table), Ok(new), Ok(column)) = (
            TableName::new(row.get::<_, String>(1), name.clone()),
            TableName::new(twin.twin.schema.as_str(), name),
            Ident::new(row.get::<_, String>(4)),
        ) else {
            continue;
        };
        let sql = format!("CREATE SEQUENCE {new} {} OWNED BY {}.{column}", row.get::<_, &str>(3), twin.twin);
        found.push(Sequence { oid: row.get(0), owner: twin.oid, table, twin: new, sql });
    }
    Ok(found)
}

/// Has the columns of a twin take their values from the new sequences.
async fn defaults(
    client: &impl GenericClient,
    twin: &Twin,
    sequences: &[Sequence],
    out: &mut Vec<String>,
) -> Result<(), Error> {
    let rows = client
        .query(
            "SELECT a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                    ARRAY(SELECT p.refobjid FROM pg_catalog.pg_depend p
                          WHERE p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.objid = d.oid
                            AND p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid <> d.adrelid),
                    ARRAY(SELECT pg_catalog.quote_literal(pg_catalog.format('%I.%I', n.nspname, c.relname))
                          FROM pg_catalog.pg_depend p JOIN pg_catalog.pg_class c ON c.oid = p.refobjid
                          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                          WHERE p.classid = 'pg_catalog.pg_attrdef'::regclass AND p.objid = d.oid
                            AND p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid <> d.adrelid)
             FROM pg_catalog.pg_attrdef d
             JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
             WHERE d.adrelid = $1 AND a.attgenerated = '' ORDER BY a.attnum",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    for row in &rows {
        let (mut expression, oids): (String, Vec<Oid>) = (row.get(1), row.get(2));
        let literals: Vec<String> = row.get(3);
        let mut is_changed = false;
        for (oid, literal) in oids.iter().zip(&literals) {
            let Some(sequence) = sequences.iter().find(|sequence| sequence.oid == *oid) else { continue };
            let new = quote_literal(&sequence.twin.to_string()).unwrap_or_default();
            if sequence.owner != twin.oid || !expression.contains(literal.as_str()) {
                let what = format!(
                    "cannot be swapped: the default of its column {} uses the sequence {:#}, which is \
                     another table's, or in a way that cannot be written anew; use --refresh",
                    row.get::<_, &str>(0),
                    sequence.table
                );
                return Err(Error::Occupied { table: twin.table.clone(), what });
            }
            expression = expression.replace(literal.as_str(), &new);
            is_changed = true;
        }
        let Ok(column) = Ident::new(row.get::<_, String>(0)) else { continue };
        if is_changed {
            out.push(format!("ALTER TABLE {} ALTER COLUMN {column} SET DEFAULT {expression}", twin.twin));
        }
    }
    Ok(())
}

async fn owner(client: &impl GenericClient, twin: &Twin, out: &mut Vec<String>) -> Result<(), Error> {
    let row = client
        .query_one(
            "SELECT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(relowner)),
                    pg_catalog.pg_get_userbyid(relowner) = current_user
             FROM pg_catalog.pg_class WHERE oid = $1",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    if !row.get::<_, bool>(1) {
        out.push(format!("ALTER TABLE {} OWNER TO {}", twin.twin, row.get::<_, &str>(0)));
    }
    Ok(())
}

/// The privileges of a table or sequence, those of columns included.
async fn privileges(
    client: &impl GenericClient,
    (oid, kind, twin): (Oid, &str, &TableName),
    out: &mut Vec<String>,
) -> Result<(), Error> {
    let rows = client
        .query(
            "WITH granted AS (
                 SELECT 0 AS place, NULL AS column, x.*
                 FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) WITH ORDINALITY x WHERE c.oid = $1
                 UNION ALL
                 SELECT a.attnum, pg_catalog.quote_ident(a.attname), x.*
                 FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) WITH ORDINALITY x
                 WHERE a.attrelid = $1)
             SELECT pg_catalog.concat_ws(' ', privilege_type, '(' || \"column\" || ')'),
                    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END,
                    is_grantable
             FROM granted ORDER BY place, ordinality",
            &[&oid],
        )
        .await
        .map_err(Error::database(format!("read the privileges of {twin:#}")))?;
    let has_acl = client
        .query_one(
            "SELECT relacl IS NOT NULL, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(relowner))
             FROM pg_catalog.pg_class WHERE oid = $1",
            &[&oid],
        )
        .await
        .map_err(Error::database(format!("read the privileges of {twin:#}")))?;
    let owner: String = has_acl.get(1);
    if has_acl.get(0) {
        out.push(format!("REVOKE ALL ON {kind} {twin} FROM PUBLIC, {owner}"));
    }
    for row in &rows {
        let (privilege, grantee): (String, String) = (row.get(0), row.get(1));
        let option = if row.get(2) && grantee != owner { " WITH GRANT OPTION" } else { "" };
        out.push(format!("GRANT {privilege} ON {kind} {twin} TO {grantee}{option}"));
    }
    Ok(())
}

/// Takes away what others than the owner may do with a new table and its sequences by ALTER DEFAULT PRIVILEGES.
pub(crate) async fn revoke_defaults(client: &impl GenericClient, twin: &TableName) -> Result<(), Error> {
    let action = || Error::database(format!("set the privileges of {twin:#}"));
    let rows = client
        .query(
            "SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s %I.%I FROM %s',
                        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname,
                        CASE x.grantee WHEN 0 THEN 'PUBLIC'
                                       ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) x
             WHERE x.grantee <> c.relowner
               AND (c.oid = pg_catalog.to_regclass($1)::oid OR c.relkind = 'S' AND EXISTS
                    (SELECT FROM pg_catalog.pg_depend d
                     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
                       AND d.refclassid = 'pg_catalog.pg_class'::regclass
                       AND d.refobjid = pg_catalog.to_regclass($1)::oid))",
            &[&twin.to_string()],
        )
        .await
        .map_err(action())?;
    for row in &rows {
        client.batch_execute(row.get(0)).await.map_err(action())?;
    }
    Ok(())
}

/// What is made after the rows: constraints but those that CREATE TABLE has, indexes, triggers.
async fn constraints(
    client: &impl GenericClient,
    twin: &Twin,
    twins: &[Twin],
    out: &mut Vec<String>,
) -> Result<(), Error> {
    let new = &twin.twin;
    let old = client
        .query_one(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    let old: &str = old.get(0);
    let indexes = client
        .query(
            "SELECT pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = $1
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                               WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
             ORDER BY c.relname",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    for row in &indexes {
        out.push(row.get::<_, String>(0).replacen(&format!(" ON {old} USING "), &format!(" ON {new} USING "), 1));
    }
    let constraints = client
        .query(
            "SELECT k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), k.confrelid,
                    ' REFERENCES ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.relname) || '(',
                    coalesce(pg_catalog.obj_description(k.oid, 'pg_constraint'), '')
             FROM pg_catalog.pg_constraint k LEFT JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
             WHERE k.conrelid = $1 AND k.contype IN ('p', 'u', 'x', 'f') ORDER BY k.contype = 'f', k.conname",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    for row in &constraints {
        let Ok(name) = Ident::new(row.get::<_, String>(0)) else { continue };
        let mut definition: String = row.get(1);
        if let Some(parent) = twins.iter().find(|other| other.oid == row.get::<_, Oid>(2)) {
            let (from, to) =
                (row.get::<_, Option<String>>(3).unwrap_or_default(), format!(" REFERENCES {}(", parent.twin));
            definition = definition.replacen(&from, &to, 1);
        }
        // What an earlier run found violated is looked at again in the new rows.
        if crate::foreign_key::is_note(row.get(4)) {
            definition = definition.trim_end_matches(" NOT VALID").to_owned();
        }
        out.push(format!("ALTER TABLE ONLY {new} ADD CONSTRAINT {name} {definition}"));
    }
    let rest = client
        .query(
            "SELECT w.what, pg_catalog.quote_ident(c.relname)
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             CROSS JOIN LATERAL (VALUES (i.indisclustered, 'CLUSTER ON'),
                                        (i.indisreplident, 'REPLICA IDENTITY USING INDEX')) w(is_so, what)
             WHERE i.indrelid = $1 AND w.is_so ORDER BY 1, 2",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    for row in &rest {
        out.push(format!("ALTER TABLE ONLY {new} {} {}", row.get::<_, &str>(0), row.get::<_, &str>(1)));
    }
    for Statistics { name, twin: new_name, definition, .. } in statistics(client, twin).await? {
        let definition = definition.replacen(&format!(" {name} "), &format!(" {new_name} "), 1);
        out.push(match definition.strip_suffix(&format!(" FROM {old}")) {
            Some(rest) => format!("{rest} FROM {new}"),
            None => definition,
        });
    }
    let triggers = client
        .query(
            "SELECT pg_catalog.pg_get_triggerdef(t.oid),
                    CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' END
                    || pg_catalog.format(' TRIGGER %I', t.tgname)
             FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal ORDER BY t.tgname",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    for row in &triggers {
        out.push(row.get::<_, String>(0).replacen(&format!(" ON {old} "), &format!(" ON {new} "), 1));
        if let Some(state) = row.get::<_, Option<String>>(1) {
            out.push(format!("ALTER TABLE {new} {state}"));
        }
    }
    Ok(())
}

/// Extended statistics of a table, which do not go with it when it moves.
pub(crate) struct Statistics {
    /// As the server quotes it.
    pub(crate) name: String,
    /// Where it is, as the server quotes it.
    pub(crate) schema: String,
    /// Those of the twin.
    pub(crate) twin: TableName,
    definition: String,
}

/// As [`scripts`], what a table has of them.
pub(crate) async fn statistics(client: &impl GenericClient, twin: &Twin) -> Result<Vec<Statistics>, Error> {
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I', n.nspname, s.stxname), pg_catalog.quote_ident(n.nspname),
                    s.stxname::text, pg_catalog.pg_get_statisticsobjdef(s.oid)
             FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
             WHERE s.stxrelid = $1 ORDER BY 1",
            &[&twin.oid],
        )
        .await
        .map_err(action(twin))?;
    let statistics = |row: &tokio_postgres::Row| {
        let new = TableName::new(twin.twin.schema.as_str(), row.get::<_, String>(2)).ok()?;
        Some(Statistics { name: row.get(0), schema: row.get(1), twin: new, definition: row.get(3) })
    };
    Ok(rows.iter().filter_map(statistics).collect())
}
