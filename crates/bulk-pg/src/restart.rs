use crate::{Error, Session, TableName, ledger};

/// Empties tables and forgets what was loaded into them, in one transaction, so that a load begins anew.
///
/// Other tables that refer to them by foreign keys must be empty: none of their rows is touched.
///
/// # Errors
///
/// [`Error::Occupied`] for a table with rows that refer to one of `tables`, [`Error::Database`]. Nothing is changed then.
pub async fn restart(session: &mut Session, tables: &[TableName]) -> Result<(), Error> {
    let action = || "empty the tables".to_owned();
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let referring = session
        .client()
        .query(
            "WITH RECURSIVE asked AS
                 (SELECT pg_catalog.to_regclass(t)::oid AS oid FROM pg_catalog.unnest($1::text[]) t
                  WHERE pg_catalog.to_regclass(t) IS NOT NULL),
             reached AS
                 (SELECT oid FROM asked UNION
                  SELECT k.conrelid FROM pg_catalog.pg_constraint k JOIN reached r ON k.confrelid = r.oid
                  WHERE k.contype = 'f')
             SELECT n.nspname::text, c.relname::text, EXISTS (SELECT FROM asked WHERE asked.oid = c.oid)
             FROM reached JOIN pg_catalog.pg_class c ON c.oid = reached.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            &[&names],
        )
        .await
        .map_err(Error::database(action()))?;
    let mut emptied = Vec::new();
    for row in &referring {
        let Ok(table) = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)) else { continue };
        if !row.get::<_, bool>(2) {
            let rows = session.client().query_opt(&format!("SELECT 1 FROM {table} LIMIT 1"), &[]).await;
            if rows.map_err(Error::database(action()))?.is_some() {
                let what = "refers to a table that is to be loaded anew, and has rows of its own; empty it first";
                return Err(Error::Occupied { table, what: what.to_owned() });
            }
        }
        emptied.push(table.to_string());
    }
    session.client().batch_execute("BEGIN").await.map_err(Error::database(action()))?;
    let result = empty(session, &emptied, tables).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = session.client().batch_execute(end).await.map_err(Error::database(action()));
    result.and(ended)
}

async fn empty(session: &Session, emptied: &[String], tables: &[TableName]) -> Result<(), Error> {
    if !emptied.is_empty() {
        let sql = format!("TRUNCATE {}", emptied.join(", "));
        session.client().batch_execute(&sql).await.map_err(Error::database("empty the tables"))?;
    }
    for table in tables {
        ledger::forget(session, table).await?;
    }
    Ok(())
}
