use crate::existing::Existing;
use crate::{Definition, DefinitionKind, Error, Plan, Session, TableName};

/// Drops what would stand in the way of loading `tables`, of all that `plan` makes again after the data: foreign keys that
/// lead from or to one of them, which would be checked row by row while parents are still missing, and their triggers,
/// which would fire. In one transaction. Tells how many there were.
///
/// What somebody else made is left alone. Should the run end before the data are there, the next one makes what is missing.
///
/// # Errors
///
/// [`Error::Database`]. Nothing is changed then, nor if the future is dropped.
pub async fn drop_dependents(session: &mut Session, plan: &Plan<'_>, tables: &[TableName]) -> Result<usize, Error> {
    let existing = Existing::find(session).await?;
    let drops: Vec<String> =
        plan.foreign_keys.iter().chain(&plan.triggers).filter_map(|of| drop_sql(of, tables, &existing)).collect();
    if drops.is_empty() {
        return Ok(0);
    }
    let failed = || Error::database("drop foreign keys and triggers before the load");
    let transaction = session.client_mut().transaction().await.map_err(failed())?;
    transaction.batch_execute(&drops.join(";\n")).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())?;
    Ok(drops.len())
}

fn drop_sql(definition: &Definition, tables: &[TableName], existing: &Existing) -> Option<String> {
    match &definition.kind {
        DefinitionKind::ForeignKey(key) if tables.contains(&key.table) || tables.contains(&key.references) => {
            existing.foreign_key(key)?;
            Some(format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}", key.table, key.name))
        }
        DefinitionKind::Trigger { name, table, .. } if tables.contains(table) && existing.has(definition) => {
            Some(format!("DROP TRIGGER IF EXISTS {name} ON {table}"))
        }
        _ => None,
    }
}
