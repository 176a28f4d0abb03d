use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use tokio_postgres::error::SqlState;

use crate::error::Cause;
use crate::pre_data::is_duplicate;
use crate::{
    Definition, DefinitionKind, Error, Event, ForeignKey, Observer, Plan, Refused, Session, TableName, quote_literal,
};

/// How many orphans of one foreign key are shown.
const EXAMPLES: usize = 5;
/// How the comment on a violated foreign key starts.
const COMMENT: &str = "NOT VALID: ";

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

/// What [`apply_post_data`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostData {
    /// Statements that were run.
    pub applied: usize,
    /// Statements whose index, constraint or trigger was there.
    pub existing: usize,
    /// Foreign keys that the rows violate, as found in this run.
    pub orphans: Vec<Orphans>,
    /// Foreign keys that an earlier run found violated, with what it found; no table of theirs was loaded since.
    pub known_orphans: Vec<(String, String)>,
    /// Statements that the server refused.
    pub refused: Vec<Refused>,
    /// Sequences that were set behind the largest value in their column.
    pub sequences: usize,
}

/// Runs the phases after the data on all of `sessions` side by side: indexes and constraints, what needs them, foreign
/// keys, triggers, sequences, ANALYZE of `loaded`.
///
/// Whatever exists is skipped, so an interrupted run goes on at the statement that it had reached. Foreign keys are added
/// NOT VALID and then validated; one that the rows violate stays NOT VALID and is listed with its orphans.
///
/// # Errors
///
/// [`Error::Database`] if the session breaks. A statement that the server refuses is listed and the others go on.
pub async fn apply_post_data(
    sessions: &mut [Session],
    plan: &Plan<'_>,
    loaded: &[TableName],
    observer: &dyn Observer,
) -> Result<PostData, Error> {
    let mut done = PostData::default();
    let Some(first) = sessions.first() else { return Ok(done) };
    let existing = Existing::find(first).await?;
    for session in sessions.iter() {
        // Half of the default of a small server's memory for one index, at most; a fixed figure that people can read.
        session
            .client()
            .batch_execute("SET maintenance_work_mem = '128MB'")
            .await
            .map_err(Error::database("set maintenance_work_mem"))?;
    }
    run_side_by_side(sessions, &plan.indexes, &existing, &mut done, observer).await?;
    for definition in &plan.after_indexes {
        run(&sessions[0], definition, &definition.sql, &existing, &mut done, observer).await?;
    }
    for definition in &plan.foreign_keys {
        let DefinitionKind::ForeignKey(key) = &definition.kind else { continue };
        let is_loaded = loaded.contains(&key.table) || loaded.contains(&key.references);
        add_foreign_key(&sessions[0], definition, key, is_loaded, &existing, &mut done, observer).await?;
    }
    for definition in &plan.triggers {
        run(&sessions[0], definition, &definition.sql, &existing, &mut done, observer).await?;
    }
    for table in loaded {
        done.sequences += set_sequences(&sessions[0], table).await?;
    }
    for table in loaded {
        let sql = format!("ANALYZE {table}");
        observer.event(&Event::Step { what: &sql });
        sessions[0].client().batch_execute(&sql).await.map_err(Error::database(format!("analyze {table:#}")))?;
    }
    sessions[0].flush().await?;
    Ok(done)
}

/// Names of indexes, constraints and triggers in the database.
struct Existing {
    relations: HashSet<(String, String)>,
    /// By table: constraints with whether they are valid, and their comments.
    constraints: HashMap<(TableName, String), (bool, Option<String>)>,
    triggers: HashSet<(TableName, String)>,
}

impl Existing {
    async fn find(session: &Session) -> Result<Self, Error> {
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

    fn has(&self, definition: &Definition) -> bool {
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

async fn run(
    session: &Session,
    definition: &Definition,
    sql: &str,
    existing: &Existing,
    done: &mut PostData,
    observer: &dyn Observer,
) -> Result<(), Error> {
    if existing.has(definition) {
        done.existing += 1;
        return Ok(());
    }
    observer.event(&Event::Step { what: &definition.summary() });
    match session.client().batch_execute(sql).await {
        Ok(()) => done.applied += 1,
        Err(error) if error.is_closed() => return Err(Error::database(definition.summary())(error)),
        Err(error) if error.code().is_some_and(is_duplicate) => done.existing += 1,
        Err(error) => done.refused.push(Refused::new(definition, &Cause(error))),
    }
    Ok(())
}

/// Each session takes the next table, the one with the most statements first, so that no two wait for one lock.
async fn run_side_by_side(
    sessions: &[Session],
    definitions: &[&Definition],
    existing: &Existing,
    done: &mut PostData,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let mut tables: Vec<(Option<&TableName>, Vec<&Definition>)> = Vec::new();
    for definition in definitions {
        match tables.iter_mut().find(|(table, _)| *table == definition.table()) {
            Some((_, of_table)) => of_table.push(definition),
            None => tables.push((definition.table(), vec![definition])),
        }
    }
    let sizes = sizes(&sessions[0]).await?;
    let size = |table: Option<&TableName>| table.and_then(|table| sizes.get(table)).copied().unwrap_or(0);
    tables.sort_by_key(|(table, of_table)| std::cmp::Reverse(size(*table).saturating_mul(of_table.len() as i64)));
    let queue = Arc::new(Mutex::new(VecDeque::from(tables)));
    let work = sessions.iter().map(|session| {
        let queue = queue.clone();
        async move {
            let mut part = PostData::default();
            loop {
                let next = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
                let Some((_, of_table)) = next else { return Ok::<_, Error>(part) };
                for definition in of_table {
                    run(session, definition, &definition.sql, existing, &mut part, observer).await?;
                }
            }
        }
    });
    for part in futures::future::try_join_all(work).await? {
        done.applied += part.applied;
        done.existing += part.existing;
        done.refused.extend(part.refused);
    }
    done.refused.sort_by_key(|refused| refused.line);
    Ok(())
}

async fn sizes(session: &Session) -> Result<HashMap<TableName, i64>, Error> {
    let rows = session
        .client()
        .query(
            "SELECT n.nspname::text, c.relname::text, pg_catalog.pg_relation_size(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r'",
            &[],
        )
        .await
        .map_err(Error::database("measure the tables"))?;
    let size = |row: &tokio_postgres::Row| {
        // A table that is dropped meanwhile has no size.
        Some((TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok()?, row.get::<_, Option<i64>>(2)?))
    };
    Ok(rows.iter().filter_map(size).collect())
}

async fn add_foreign_key(
    session: &Session,
    definition: &Definition,
    key: &ForeignKey,
    is_loaded: bool,
    existing: &Existing,
    done: &mut PostData,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let name = (key.table.clone(), key.name.as_str().to_owned());
    match existing.constraints.get(&name) {
        Some((true, _)) => {
            done.existing += 1;
            return Ok(());
        }
        Some((false, Some(comment))) if comment.starts_with(COMMENT) && !is_loaded => {
            done.existing += 1;
            done.known_orphans.push((key.name.as_str().to_owned(), comment.clone()));
            return Ok(());
        }
        Some((false, _)) => done.existing += 1,
        None => {
            let sql = key.not_valid_sql().unwrap_or_else(|| definition.sql.clone());
            let (applied, refused) = (done.applied, done.refused.len());
            run(session, definition, &sql, existing, done, observer).await?;
            if done.refused.len() > refused || done.applied == applied {
                return Ok(());
            }
        }
    }
    let Some(sql) = key.validate_sql() else { return Ok(()) };
    match session.client().batch_execute(&sql).await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            let orphans = find_orphans(session, key).await?;
            note(session, key, &orphans).await?;
            done.orphans.push(orphans);
            Ok(())
        }
        Err(error) if error.is_closed() => Err(Error::database(definition.summary())(error)),
        Err(error) => {
            done.refused.push(Refused::new(definition, &Cause(error)));
            Ok(())
        }
    }
}

/// Leaves word at the constraint, for people who look at the table and for the next run.
async fn note(session: &Session, key: &ForeignKey, orphans: &Orphans) -> Result<(), Error> {
    let text = format!("{COMMENT}{} rows refer to nothing in {:#}", orphans.rows, key.references);
    let sql = format!(
        "COMMENT ON CONSTRAINT {} ON {} IS {}",
        key.name,
        key.table,
        quote_literal(&text).unwrap_or_else(|_| "NULL".to_owned())
    );
    session.client().batch_execute(&sql).await.map_err(Error::database(format!("comment on {:#}", key.name)))
}

async fn find_orphans(session: &Session, key: &ForeignKey) -> Result<Orphans, Error> {
    let action = || format!("list the orphans of {:#}", key.name);
    let parent_columns = if key.ref_columns.is_empty() {
        let sql = "SELECT a.attname::text FROM pg_catalog.pg_constraint k
                   JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   CROSS JOIN LATERAL pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, place)
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
                   WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3 ORDER BY u.place";
        let names: [&str; 3] = [key.table.schema.as_str(), key.table.name.as_str(), key.name.as_str()];
        let rows = session.client().query(sql, &[&names[0], &names[1], &names[2]]).await;
        let rows = rows.map_err(Error::database(action()))?;
        rows.iter().filter_map(|row| crate::Ident::new(row.get::<_, String>(0)).ok()).collect()
    } else {
        key.ref_columns.clone()
    };
    let pairs = || key.columns.iter().zip(&parent_columns);
    let not_null: Vec<_> = key.columns.iter().map(|column| format!("c.{column} IS NOT NULL")).collect();
    let equal: Vec<_> = pairs().map(|(child, parent)| format!("p.{parent} = c.{child}")).collect();
    let shown: Vec<_> = key.columns.iter().map(|column| format!("c.{column}::text")).collect();
    let from = format!(
        "FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})",
        key.table,
        not_null.join(" AND "),
        key.references,
        equal.join(" AND ")
    );
    let separator = quote_literal(", ").unwrap_or_default();
    let sql = format!(
        "SELECT count(*), (SELECT pg_catalog.array_agg(v) FROM
             (SELECT DISTINCT pg_catalog.concat_ws({separator}, {}) AS v {from} ORDER BY v LIMIT {EXAMPLES}) e) {from}",
        shown.join(", ")
    );
    let row = session.client().query_one(&sql, &[]).await.map_err(Error::database(action()))?;
    Ok(Orphans {
        constraint: key.name.as_str().to_owned(),
        table: key.table.clone(),
        references: key.references.clone(),
        rows: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0),
        examples: row.get::<_, Option<Vec<String>>>(1).unwrap_or_default(),
    })
}

/// Sets the sequences that a table's columns own, of `serial` and of identity columns, to the largest value loaded.
async fn set_sequences(session: &Session, table: &TableName) -> Result<usize, Error> {
    let action = || format!("set the sequences of {table:#}");
    let rows = session
        .client()
        .query(
            "SELECT a.attname::text, s.oid::pg_catalog.regclass::text
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_depend d ON d.refobjid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
                  AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')
             JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
             WHERE n.nspname = $1 AND c.relname = $2",
            &[&table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(Error::database(action()))?;
    for row in &rows {
        let column = crate::Ident::new(row.get::<_, String>(0))
            .map_err(|error| Error::Columns { file: table.to_string(), what: error.to_string() })?;
        let sql = format!(
            "SELECT pg_catalog.setval($1::text::regclass, m) FROM (SELECT max({column})::bigint AS m FROM {table}) x \
             WHERE m > 0"
        );
        session.client().query(&sql, &[&row.get::<_, String>(1)]).await.map_err(Error::database(action()))?;
    }
    Ok(rows.len())
}
