use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::dropped::{self, Kind};
use crate::error::Cause;
use crate::existing::Existing;
use crate::foreign_key::{self, Checked};
use crate::indexes::restore_indexes;
use crate::orphans;
use crate::pre_data::is_duplicate;
use crate::restore::restore;
use crate::sequences::raise_sequences_of;
use crate::span::in_span;
use crate::{
    Definition, DefinitionKind, Error, Event, ForeignKey, Ident, KeptOrphans, NotRestored, Observer, OrphanPolicy,
    Orphans, Phase, Plan, Refused, RejectedOrphans, Session, TableName,
};

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
    /// Foreign keys that an earlier run found violated, with what it found. They are so still: an orphan that it named is
    /// there. Their rows were not looked at again, so the figures may be old.
    pub known_orphans: Vec<(String, String)>,
    /// Foreign keys whose orphans were moved to `bulk.reject`; they are valid now.
    pub rejected: Vec<RejectedOrphans>,
    /// Foreign keys whose orphans were to be moved and could not be. They are in `orphans` or `known_orphans`, too.
    pub kept: Vec<KeptOrphans>,
    /// Foreign keys that an earlier run found violated, and that are valid now.
    pub repaired: Vec<String>,
    /// Statements that the server refused, and those that make what has no name: of it a second run could not tell that
    /// it is there.
    pub refused: Vec<Refused>,
    /// Foreign keys, triggers and indexes that were dropped for a load, by whichever run, and are there again as they were.
    pub restored: usize,
    /// Foreign keys, triggers and indexes that were dropped for a load and cannot be made again.
    pub not_restored: Vec<NotRestored>,
    /// Sequences that were raised to the largest value in their column.
    pub sequences: usize,
}

/// How [`apply_post_data`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostDataOptions {
    /// What is done with rows that violate a foreign key. Default: they stay and are reported.
    pub orphans: OrphanPolicy,
    /// The tables whose orphans [`OrphanPolicy::Reject`] moves; what refers to these rows goes with them, whichever table it
    /// is in. Default `None`: all tables that were loaded, in this run or an earlier one.
    pub orphans_of: Option<Vec<TableName>>,
    /// Tables that were analyzed after their rows came. Default none.
    pub analyzed: Vec<TableName>,
    /// Who is told of each statement. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to stop when the statements that run have ended, with [`Error::Stopped`]. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for PostDataOptions {
    fn default() -> Self {
        Self {
            orphans: OrphanPolicy::default(),
            orphans_of: None,
            analyzed: Vec::new(),
            observer: Arc::new(()),
            stop: CancellationToken::new(),
        }
    }
}

/// Runs the phases after the data on all of `sessions` side by side: indexes and constraints, ANALYZE of `loaded`, what
/// needs indexes, foreign keys, triggers, sequences.
///
/// What [`drop_dependents`](crate::drop_dependents), [`drop_indexes`](crate::drop_indexes) and
/// [`restart_with_plan`](crate::restart_with_plan) have dropped, in
/// this run or an earlier one, is made again before what `plan` has of its kind, and whether the plan has it or not: as it
/// was, with its options, its comment and whether a trigger was enabled. It then counts as existing. What belongs to a
/// table that is gone is forgotten.
///
/// Whatever exists is skipped, so an interrupted run goes on at the statement that it had reached. Foreign keys are added
/// NOT VALID and then validated; one that the rows violate stays NOT VALID and is listed with its orphans, and a comment
/// on it says so. A later run tries again as soon as the orphan that the comment names is gone, or a row was loaded into
/// one of the two tables. Or its orphans are [moved away](OrphanPolicy::Reject), before triggers are made that would see
/// them go.
///
/// Sequences are never lowered.
///
/// Dropping the future leaves the statements that run to the server, which completes them.
///
/// # Errors
///
/// [`Error::Database`] if a session breaks. A statement that the server refuses is listed and the others go on.
/// [`Error::Stopped`] once [`stop`](PostDataOptions::stop) is cancelled and the statements that were running have ended.
pub async fn apply_post_data(
    sessions: &mut [Session],
    plan: &Plan<'_>,
    loaded: &[TableName],
    options: &PostDataOptions,
) -> Result<PostData, Error> {
    apply(sessions, plan, loaded, None, options).await
}

/// What [`make_indexes`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadStart {
    /// Indexes and constraints that it made.
    pub made: usize,
    /// Whether it analyzed the table: all there was to make of it is there.
    pub is_analyzed: bool,
}

/// Makes those of the indexes and constraints among `definitions` that are of `table`, one after another, and analyzes it: a
/// table that has all of its rows, while others are still loaded.
///
/// That is a head start on [`apply_post_data`], and takes nothing from what it has to do: what the server refuses is left to
/// it, and a table of which anything was dropped for a load is left alone. Tables that are analyzed are to be named to it
/// ([`analyzed`](PostDataOptions::analyzed)), or it does so again. Dropping the future is as there.
///
/// # Errors
///
/// As [`apply_post_data`].
pub async fn make_indexes(
    session: &Session,
    table: &TableName,
    definitions: &[Definition],
    options: &PostDataOptions,
) -> Result<HeadStart, Error> {
    if has_dropped(session, std::slice::from_ref(table)).await? {
        return Ok(HeadStart::default());
    }
    let of_table = |definition: &&Definition| {
        definition.phase == Phase::Indexes && definition.table() == Some(table) && !is_unnamed(definition)
    };
    let statements: Vec<&Definition> = definitions.iter().filter(of_table).collect();
    set_up(session).await?;
    let run = Run { existing: Existing::find(session).await?, options };
    let mut done = PostData::default();
    run.table(session, Work { statements, ..Work::default() }, &mut done).await?;
    // What is refused now may be made later, and only then has what it is an index of its statistics.
    let is_analyzed = done.refused.is_empty();
    if is_analyzed {
        run.table(session, Work { analyze: Some(table), ..Work::default() }, &mut done).await?;
    }
    Ok(HeadStart { made: done.applied, is_analyzed })
}

/// As [`apply_post_data`], of new `tables` that have nothing to do with what was dropped of others. Those that are `loaded`
/// have rows.
pub(crate) async fn apply_post_data_of(
    session: &mut Session,
    plan: &Plan<'_>,
    tables: &[TableName],
    loaded: &[TableName],
    options: &PostDataOptions,
) -> Result<PostData, Error> {
    apply(std::slice::from_mut(session), plan, loaded, Some(tables), options).await
}

/// Whether anything that was dropped of `tables` for a load is to be made again.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn has_dropped(session: &Session, tables: &[TableName]) -> Result<bool, Error> {
    for kind in [Kind::Index, Kind::ForeignKey, Kind::Trigger] {
        if !dropped::list(session, kind, Some(tables)).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes again what [`drop_indexes`](crate::drop_indexes) and others have dropped of `tables`, which were loaded, as
/// [`apply_post_data`] does it: indexes, foreign keys, which are then validated, triggers; ANALYZE and sequences, too. What
/// was dropped of other tables is left to those who dropped it.
///
/// # Errors
///
/// As [`apply_post_data`].
pub async fn restore_dependents(
    sessions: &mut [Session],
    tables: &[TableName],
    options: &PostDataOptions,
) -> Result<PostData, Error> {
    apply(sessions, &Plan::default(), tables, Some(tables), options).await
}

async fn apply(
    sessions: &mut [Session],
    plan: &Plan<'_>,
    loaded: &[TableName],
    only: Option<&[TableName]>,
    options: &PostDataOptions,
) -> Result<PostData, Error> {
    let mut done = PostData::default();
    let Some(first) = sessions.first() else { return Ok(done) };
    let mut run = Run { existing: Existing::find(first).await?, options };
    for session in sessions.iter() {
        set_up(session).await?;
    }
    let indexes = restore_indexes(sessions, only, |what| run.step(what)).await?;
    if indexes.made > 0 {
        run.existing = Existing::find(first).await?;
    }
    done.restored += indexes.made;
    done.not_restored.extend(indexes.refused);
    let to_analyze = loaded.iter().filter(|table| !options.analyzed.contains(table));
    let mut tables: Vec<(Option<&TableName>, Work<'_>)> =
        to_analyze.map(|table| (Some(table), Work { analyze: Some(table), ..Work::default() })).collect();
    let unnamed = Phase::ALL.iter().flat_map(|phase| plan.phase(*phase)).filter(|definition| is_unnamed(definition));
    done.refused.extend(unnamed.map(|definition| {
        let reason = "it has no name, so that a second run could not tell that it is there";
        Refused::for_reason(definition, reason.to_owned())
    }));
    let is_refused = |definition: &Definition| {
        let is_name = |schema: &Ident, name: &Ident| {
            done.not_restored.iter().any(|refused| refused.table.schema == *schema && refused.name == *name)
        };
        match &definition.kind {
            DefinitionKind::Index { name, .. } => is_name(&name.schema, &name.name),
            DefinitionKind::Constraint(constraint) => is_name(&constraint.table.schema, &constraint.name),
            _ => false,
        }
    };
    let indexes = plan.indexes.iter().filter(|definition| !is_unnamed(definition) && !is_refused(definition));
    for definition in indexes {
        of_table(&mut tables, definition.table()).statements.push(definition);
    }
    let sizes = sizes(first).await?;
    let size = |table: Option<&TableName>| table.and_then(|table| sizes.get(table)).copied().unwrap_or(0);
    tables.sort_by_key(|(table, work)| Reverse(size(*table).saturating_mul(work.statements.len() as i64)));
    run.side_by_side(sessions, tables, &mut done).await?;
    for definition in plan.after_indexes.iter().filter(|definition| !is_unnamed(definition)) {
        run.statement(first, definition, &definition.sql, &mut done).await?;
    }

    // Adding a key locks both tables, but takes no time; validating locks little, and reads both.
    let keys = restore(first, Kind::ForeignKey, only, |what| run.step(what)).await?;
    if keys.made > 0 {
        run.existing = Existing::find(first).await?;
    }
    let mut tables = Vec::new();
    for unchecked in &keys.unchecked {
        let key = &unchecked.key;
        of_table(&mut tables, Some(&key.table)).keys.push((Maker::Record(unchecked.id), key));
    }
    for definition in &plan.foreign_keys {
        let DefinitionKind::ForeignKey(key) = &definition.kind else { continue };
        if keys.has_unchecked(key) {
            done.existing += 1;
            continue;
        }
        let is_loaded = loaded.contains(&key.table) || loaded.contains(&key.references);
        if !keys.has_refused(&key.table, &key.name)
            && run.add_foreign_key(first, definition, key, is_loaded, &mut done).await?
        {
            of_table(&mut tables, Some(&key.table)).keys.push((Maker::Plan(definition), key));
        }
    }
    done.restored += keys.made;
    done.not_restored.extend(keys.refused);
    tables.sort_by_key(|(table, work)| Reverse(size(*table).saturating_mul(work.keys.len() as i64)));
    run.side_by_side(sessions, tables, &mut done).await?;
    if options.orphans == OrphanPolicy::Reject {
        let asked = [only, options.orphans_of.as_deref()];
        let is_asked = |table: &TableName| asked.iter().flatten().all(|tables| tables.contains(table));
        let moved = orphans::reject(&mut sessions[0], is_asked, |what| run.step(what)).await?;
        (done.rejected, done.kept) = (moved.rejected, moved.kept);
        let is_valid = |table: Option<&TableName>, constraint: &str| {
            let same = |rejected: &RejectedOrphans| {
                rejected.constraint == constraint && table.is_none_or(|table| rejected.table == *table)
            };
            done.rejected.iter().any(same)
        };
        done.orphans.retain(|orphans| !is_valid(Some(&orphans.table), &orphans.constraint));
        done.known_orphans.retain(|(constraint, _)| !is_valid(None, constraint));
    }
    let first = &sessions[0];

    let triggers = restore(first, Kind::Trigger, only, |what| run.step(what)).await?;
    if triggers.made > 0 {
        run.existing = Existing::find(first).await?;
    }
    for definition in &plan.triggers {
        match &definition.kind {
            DefinitionKind::Trigger { table, name, .. } if triggers.has_refused(table, name) => {}
            _ => _ = run.statement(first, definition, &definition.sql, &mut done).await?,
        }
    }
    done.restored += triggers.made;
    done.not_restored.extend(triggers.refused);
    for table in loaded {
        done.sequences += raise_sequences_of(first.client(), table, None).await?;
    }
    first.flush().await?;
    done.refused.sort_by_key(|refused| refused.line);
    Ok(done)
}

async fn set_up(session: &Session) -> Result<(), Error> {
    // Half of the default of a small server's memory for one index, at most; a fixed figure that people can read.
    let set = session.client().batch_execute("SET maintenance_work_mem = '128MB'").await;
    set.map_err(Error::database("set maintenance_work_mem"))
}

fn is_unnamed(definition: &Definition) -> bool {
    matches!(definition.kind, DefinitionKind::Unnamed { .. })
}

/// Whose a foreign key is that is to be checked.
enum Maker<'a> {
    Plan(&'a Definition),
    /// The row of the record of what was dropped, which goes when the key is checked.
    Record(i64),
}

/// What is to be done with one table, by one session, so that no two wait for one lock.
#[derive(Default)]
struct Work<'a> {
    statements: Vec<&'a Definition>,
    analyze: Option<&'a TableName>,
    keys: Vec<(Maker<'a>, &'a ForeignKey)>,
}

type Tables<'a> = Vec<(Option<&'a TableName>, Work<'a>)>;

fn of_table<'a, 't>(tables: &'t mut Tables<'a>, table: Option<&'a TableName>) -> &'t mut Work<'a> {
    let at = tables.iter().position(|(known, _)| *known == table).unwrap_or_else(|| {
        tables.push((table, Work::default()));
        tables.len() - 1
    });
    &mut tables[at].1
}

struct Run<'a> {
    existing: Existing,
    options: &'a PostDataOptions,
}

impl Run<'_> {
    /// Each session takes the next table of the list as it gets free.
    async fn side_by_side(&self, sessions: &[Session], tables: Tables<'_>, done: &mut PostData) -> Result<(), Error> {
        let queue = &Mutex::new(VecDeque::from(tables));
        let work = sessions.iter().map(|session| async move {
            let mut part = PostData::default();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((_, work)) = next else { return Ok::<_, Error>(part) };
                self.table(session, work, &mut part).await?;
            }
        });
        // Each ends by itself, so that what one has begun is not dropped because another one failed.
        for part in futures::future::join_all(work).await {
            let part = part?;
            done.applied += part.applied;
            done.existing += part.existing;
            done.refused.extend(part.refused);
            done.orphans.extend(part.orphans);
            done.repaired.extend(part.repaired);
            done.not_restored.extend(part.not_restored);
        }
        done.orphans.sort_by(|a, b| (&a.table, &a.constraint).cmp(&(&b.table, &b.constraint)));
        Ok(())
    }

    async fn table(&self, session: &Session, work: Work<'_>, done: &mut PostData) -> Result<(), Error> {
        for definition in work.statements {
            self.statement(session, definition, &definition.sql, done).await?;
        }
        if let Some(table) = work.analyze {
            let sql = format!("ANALYZE {table}");
            self.step(&sql)?;
            session.client().batch_execute(&sql).await.map_err(Error::database(format!("analyze {table:#}")))?;
        }
        for (maker, key) in work.keys {
            self.validate(session, &maker, key, done).await?;
        }
        Ok(())
    }

    /// Says what comes next, unless it shall not come.
    fn step(&self, what: &str) -> Result<(), Error> {
        if self.options.stop.is_cancelled() {
            return Err(Error::Stopped { what: "making indexes and constraints".to_owned() });
        }
        self.options.observer.event(&Event::Step { what });
        Ok(())
    }

    /// Whether it was run.
    async fn statement(
        &self,
        session: &Session,
        definition: &Definition,
        sql: &str,
        done: &mut PostData,
    ) -> Result<bool, Error> {
        if self.existing.has(definition) {
            done.existing += 1;
            return Ok(false);
        }
        self.step(&definition.summary())?;
        let making = session.client().batch_execute(sql);
        match in_span!("definition", { what = definition.summary() }, making).await {
            Ok(()) => {
                done.applied += 1;
                return Ok(true);
            }
            Err(error) if error.code().is_some_and(is_duplicate) => done.existing += 1,
            Err(error) => match Cause(error) {
                // Of the statement it says nothing; the next run tries again.
                cause if cause.is_remote() => {
                    return Err(Error::Database { action: definition.summary(), source: cause });
                }
                cause => done.refused.push(Refused::new(definition, &cause)),
            },
        }
        Ok(false)
    }

    /// Adds a foreign key without looking at the rows; tells whether they are to be looked at.
    async fn add_foreign_key(
        &self,
        session: &Session,
        definition: &Definition,
        key: &ForeignKey,
        is_loaded: bool,
        done: &mut PostData,
    ) -> Result<bool, Error> {
        let found = self.existing.foreign_key(key);
        let Some((is_valid, _)) = found else {
            let sql = key.not_valid_sql().unwrap_or_else(|| definition.sql.clone());
            return self.statement(session, definition, &sql, done).await;
        };
        done.existing += 1;
        match self.existing.note(key) {
            None => Ok(!is_valid),
            Some(_) if *is_valid => {
                foreign_key::remove_note(session, key).await?;
                done.repaired.push(key.name.as_str().to_owned());
                Ok(false)
            }
            Some(note) if !is_loaded && foreign_key::is_still_violated(session, key, note).await? => {
                done.known_orphans.push((key.name.as_str().to_owned(), note.to_owned()));
                Ok(false)
            }
            Some(_) => Ok(true),
        }
    }

    async fn validate(
        &self,
        session: &Session,
        maker: &Maker<'_>,
        key: &ForeignKey,
        done: &mut PostData,
    ) -> Result<(), Error> {
        let Some(sql) = key.validate_sql() else { return Ok(()) };
        self.step(&sql)?;
        match foreign_key::validate(session, key, &sql).await? {
            Checked::Valid if self.existing.note(key).is_some() => {
                foreign_key::remove_note(session, key).await?;
                done.repaired.push(key.name.as_str().to_owned());
            }
            Checked::Valid => {}
            Checked::Violated(orphans) => done.orphans.push(orphans),
            Checked::Refused(cause) => match maker {
                Maker::Plan(definition) => done.refused.push(Refused::new(definition, &cause)),
                Maker::Record(_) => {
                    let (table, name, reason) = (key.table.clone(), key.name.clone(), cause.to_string());
                    done.not_restored.push(NotRestored { table, name, statement: sql, reason });
                    return Ok(());
                }
            },
        }
        if let Maker::Record(id) = maker {
            dropped::forget(session, *id).await?;
        }
        Ok(())
    }
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
