use std::collections::HashSet;

use tokio_postgres::error::SqlState;

use crate::error::Cause;
use crate::{Definition, DefinitionKind, Error, Need, Plan, Session, TableName};

/// A statement of the schema file that the server would not run, or that it was not asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Its line in the file.
    pub line: usize,
    /// The statement's beginning.
    pub what: String,
    /// What the server says, or why it was not asked.
    pub reason: String,
}

impl Refused {
    pub(crate) fn new(definition: &Definition, cause: &Cause) -> Self {
        Self::for_reason(definition, cause.to_string())
    }

    pub(crate) fn for_reason(definition: &Definition, reason: String) -> Self {
        Self { line: definition.line, what: definition.summary(), reason }
    }
}

/// What [`apply_pre_data`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreData {
    /// Tables that it made.
    pub created: Vec<TableName>,
    /// Tables that were there, and are left as they are.
    pub existing: Vec<TableName>,
    /// Statements that the server refused, all others stand. A table of `wanted` is never among them.
    pub refused: Vec<Refused>,
}

/// Runs the phase before the data: makes what is not there yet, in one transaction.
///
/// Tables that exist are left as they are, with all that the file says of them. A statement that fails is listed and the
/// others go on, unless it makes a table of `wanted`. At the end, statements of later phases that need what neither file
/// nor database has are [moved](Plan::leave_out_unmet) to the plan's left-out list.
///
/// # Errors
///
/// [`Error::Database`] if a table of `wanted` cannot be made, [`Error::NoTable`] if neither file nor database has it.
/// Nothing is changed then.
pub async fn apply_pre_data(
    session: &mut Session,
    plan: &mut Plan<'_>,
    wanted: &[TableName],
) -> Result<PreData, Error> {
    let action = || "make the tables of the schema file".to_owned();
    let existing = existing_tables(session).await?;
    let mut done = PreData::default();
    let transaction = session.client_mut().transaction().await.map_err(Error::database(action()))?;
    for definition in &plan.pre_data {
        if let DefinitionKind::Table { table } = &definition.kind
            && existing.contains(table)
        {
            done.existing.push(table.clone());
            continue;
        }
        if definition.table().is_some_and(|table| existing.contains(table)) {
            continue;
        }
        let (savepoint, rollback) = ("SAVEPOINT bulk", "ROLLBACK TO SAVEPOINT bulk");
        transaction.batch_execute(savepoint).await.map_err(Error::database(action()))?;
        match transaction.batch_execute(&definition.sql).await {
            Ok(()) => {
                transaction.batch_execute("RELEASE SAVEPOINT bulk").await.map_err(Error::database(action()))?;
                if let DefinitionKind::Table { table } = &definition.kind {
                    done.created.push(table.clone());
                }
            }
            Err(error) => {
                let cause = Cause(error);
                if let DefinitionKind::Table { table } = &definition.kind
                    && wanted.contains(table)
                {
                    return Err(Error::Database { action: format!("create table {table:#}"), source: cause });
                }
                transaction.batch_execute(rollback).await.map_err(Error::database(action()))?;
                if !cause.code().is_some_and(is_duplicate) {
                    done.refused.push(Refused::new(definition, &cause));
                }
            }
        }
    }
    let made = |table: &&TableName| !existing.contains(*table) && !done.created.contains(*table);
    if let Some(table) = wanted.iter().find(made) {
        return Err(Error::NoTable { table: table.clone(), near: Vec::new() });
    }
    transaction.commit().await.map_err(Error::database(action()))?;
    let met = met_needs(session, plan).await?;
    plan.leave_out_unmet(|need| met.contains(need));
    Ok(done)
}

/// Whether the server refused because the thing is there.
pub(crate) fn is_duplicate(code: &SqlState) -> bool {
    [
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::DUPLICATE_FUNCTION,
        SqlState::DUPLICATE_COLUMN,
    ]
    .contains(code)
}

/// Relations that a table's name could clash with.
async fn existing_tables(session: &Session) -> Result<HashSet<TableName>, Error> {
    let rows = session
        .client()
        .query(
            "SELECT n.nspname::text, c.relname::text
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
               AND n.nspname !~ '^pg_toast'",
            &[],
        )
        .await
        .map_err(Error::database("list the tables of the database"))?;
    Ok(rows.iter().filter_map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok()).collect())
}

async fn met_needs(session: &Session, plan: &Plan<'_>) -> Result<HashSet<Need>, Error> {
    let tables = existing_tables(session).await?;
    let rows = session
        .client()
        .query(
            "SELECT n.nspname::text, p.proname::text
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
             WHERE p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype",
            &[],
        )
        .await
        .map_err(Error::database("list the functions of the database"))?;
    let functions: HashSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let exists = |need: &Need| match need {
        Need::Table(table) => tables.contains(table),
        Need::Function(name) => functions.contains(&(name.schema.as_str().to_owned(), name.name.as_str().to_owned())),
        Need::Trigger { .. } => false,
    };
    Ok(plan.needs().into_iter().filter(|need| exists(need)).cloned().collect())
}
