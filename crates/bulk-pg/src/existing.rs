use std::collections::{HashMap, HashSet};

use crate::foreign_key;
use crate::{Definition, DefinitionKind, Error, ForeignKey, Session, TableName};

/// Names of indexes, constraints and triggers in the database.
pub(crate) struct Existing {
    relations: HashSet<(String, String)>,
    /// By table: constraints with whether they are valid, and their comments.
    constraints: HashMap<(TableName, String), (bool, Option<String>)>,
    triggers: HashSet<(TableName, String)>,
}

impl Existing {
    pub(crate) async fn find(session: &Session) -> Result<Self, Error> {
        let action = || "list the indexes and constraints of the database".to_owned();
        let relations = session
            .client()
            .query(
                "SELECT n.nspname::text, c.relname::text
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
                &[],
            )
            .await
            .map_err(Error::database(action()))?;
        let on_tables = |sql: &'static str| async move {
            session.client().query(sql, &[]).await.map_err(Error::database(action()))
        };
        let constraints = on_tables(
            "SELECT n.nspname::text, c.relname::text, k.conname::text, k.convalidated,
                    pg_catalog.obj_description(k.oid, 'pg_constraint')
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
        )
        .await?;
        let triggers = on_tables(
            "SELECT n.nspname::text, c.relname::text, t.tgname::text
             FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal",
        )
        .await?;
        let table = |row: &tokio_postgres::Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok();
        Ok(Self {
            relations: relations.iter().map(|row| (row.get(0), row.get(1))).collect(),
            constraints: constraints
                .iter()
                .filter_map(|row| Some(((table(row)?, row.get(2)), (row.get(3), row.get(4)))))
                .collect(),
            triggers: triggers.iter().filter_map(|row| Some((table(row)?, row.get(2)))).collect(),
        })
    }

    pub(crate) fn foreign_key(&self, key: &ForeignKey) -> Option<&(bool, Option<String>)> {
        self.constraints.get(&(key.table.clone(), key.name.as_str().to_owned()))
    }

    /// What an earlier run noted of a foreign key that was violated.
    pub(crate) fn note(&self, key: &ForeignKey) -> Option<&str> {
        let (_, comment) = self.foreign_key(key)?;
        comment.as_deref().filter(|comment| foreign_key::is_note(comment))
    }

    pub(crate) fn has(&self, definition: &Definition) -> bool {
        let on = |table: &TableName, name: &str| (table.clone(), name.to_owned());
        let relation = |schema: &str, name: &str| self.relations.contains(&(schema.to_owned(), name.to_owned()));
        match &definition.kind {
            DefinitionKind::Index { name, .. }
            | DefinitionKind::View { name }
            | DefinitionKind::MaterializedView { name } => relation(name.schema.as_str(), name.name.as_str()),
            DefinitionKind::Constraint(constraint) => {
                self.constraints.contains_key(&on(&constraint.table, constraint.name.as_str()))
            }
            DefinitionKind::Trigger { name, table, .. } => self.triggers.contains(&on(table, name.as_str())),
            _ => false,
        }
    }
}
