//! Staged files become the tables that they are for.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use crate::difference::Difference;
use crate::error::Cause;
use crate::sequences::raise_sequences_of;
use crate::staging::{Staged, changed};
use crate::table_lock::{begin_locked, end, in_use, lock_exclusively};
use crate::verify::count;
use crate::{Error, Event, LoadOptions, Session, TableName};

/// What became of a table's rows when it was made what a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// The table.
    pub table: TableName,
    /// Rows that it did not have.
    pub added: u64,
    /// Rows that had other values. Always 0 where the table has no key among the columns of the file: then a row with other
    /// values is another one.
    pub changed: u64,
    /// Rows that the file does not have.
    pub removed: u64,
    /// Rows that it had just so.
    pub unchanged: u64,
}

/// Makes tables what the files say that [`load`](crate::load()) has put into their staging tables, with
/// [`LoadOptions::stage`]: rows that are gone are deleted, those that differ changed, new ones inserted. Others are not
/// touched. Of `options` the lock time-out, the observer and the stop token count.
///
/// Each table is changed in one transaction, in which its mark of the new file takes the place of all others and its
/// staging table goes: whoever reads it sees the old table or the new one. Tables among which foreign keys lead are changed
/// together in one. Until it ends others can read the tables, and not write to them.
///
/// Rows are told apart by the primary key, or else by a unique index over columns that may not be NULL, if the file has its
/// columns; without one each row is to be there as often as in the file. Columns that the file lacks keep their values, or
/// get their defaults in new rows. Triggers fire, and foreign keys hold and do what they are declared to do, as for any
/// statement; where rows exchange the values of another unique index, those that change are deleted and inserted, if no
/// foreign key forbids it. Row level security that would hide rows is an error. Sequences are raised as
/// [`apply_post_data`](crate::apply_post_data) does it.
///
/// Dropping the future rolls back the transaction under way.
///
/// # Errors
///
/// [`Error::Occupied`] if a table has no whole file staged, was altered since, or is in use by another session for longer
/// than the lock time-out; [`Error::Database`], such as for a row that is gone and that rows of another table refer to: it
/// names the constraint and the key; [`Error::Stopped`] between two transactions. Tables of the transactions before keep
/// what they became; all others are as they were, and the same call goes on.
pub async fn merge_staged(
    session: &mut Session,
    tables: &[TableName],
    options: &LoadOptions,
) -> Result<Vec<Merged>, Error> {
    let mut done = Vec::new();
    for group in groups(session, tables).await? {
        if options.stop.is_cancelled() {
            let names: Vec<_> = group.iter().map(|table| format!("{table:#}")).collect();
            return Err(Error::Stopped { what: format!("the refresh of {}", names.join(", ")) });
        }
        for merged in merge_group(session, &group, options).await? {
            options.observer.event(&Event::Merged { merged: &merged });
            done.push(merged);
        }
    }
    Ok(done)
}

/// The tables, such of them together as foreign keys lead between; in each group those that others refer to come first, as
/// far as there is such an order. Keys that are checked in the end do not count for it.
async fn groups(session: &Session, tables: &[TableName]) -> Result<Vec<Vec<TableName>>, Error> {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let rows = session
        .client()
        .query(
            "WITH named AS (SELECT pg_catalog.to_regclass(name)::oid AS oid, (place - 1)::bigint AS place
                            FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY u(name, place))
             SELECT child.place, parent.place, pg_catalog.bool_and(k.condeferrable)
             FROM pg_catalog.pg_constraint k JOIN named child ON child.oid = k.conrelid
             JOIN named parent ON parent.oid = k.confrelid
             WHERE k.contype = 'f' AND child.place <> parent.place GROUP BY 1, 2
             ORDER BY 1, 2",
            &[&names],
        )
        .await
        .map_err(Error::database("read the foreign keys of the tables"))?;
    let place = |row: &tokio_postgres::Row, at| usize::try_from(row.get::<_, i64>(at)).unwrap_or(usize::MAX);
    let keys: Vec<Key> = rows
        .iter()
        .map(|row| Key { child: place(row, 0), parent: place(row, 1), is_strict: !row.get::<_, bool>(2) })
        .collect();
    let in_order = in_order(tables.len(), &keys);
    Ok(in_order.into_iter().map(|group| group.into_iter().map(|place| tables[place].clone()).collect()).collect())
}

/// Foreign keys from a table to another one, by their places.
#[derive(Clone, Copy, Debug)]
struct Key {
    child: usize,
    parent: usize,
    /// Whether one of them is checked with each statement.
    is_strict: bool,
}

/// Cuts 0 to `count` into what hangs together by `keys`; each part with parents first, but where strict keys go in a circle.
fn in_order(count: usize, keys: &[Key]) -> Vec<Vec<usize>> {
    let mut parts: Vec<usize> = (0..count).collect();
    for Key { child, parent, .. } in keys {
        let (one, other) = (parts[*child], parts[*parent]);
        let (low, high) = (one.min(other), one.max(other));
        parts.iter_mut().filter(|part| **part == high).for_each(|part| *part = low);
    }
    let mut groups = Vec::new();
    for part in 0..count {
        let mut left: Vec<usize> = (0..count).filter(|place| parts[*place] == part).collect();
        let mut group = Vec::new();
        while let Some(mut next) = left.first().copied() {
            // Up to one without parents, or round in a circle.
            for _ in 0..left.len() {
                let is_next = |key: &&Key| key.is_strict && key.child == next && left.contains(&key.parent);
                next = keys.iter().find(is_next).map_or(next, |key| key.parent);
            }
            left.retain(|place| *place != next);
            group.push(next);
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}

const MERGE: &str = "merge the staging tables";

async fn merge_group(session: &mut Session, tables: &[TableName], options: &LoadOptions) -> Result<Vec<Merged>, Error> {
    let mut staged = Vec::new();
    for table in tables {
        staged.push(Staged::find(session.client(), table).await?.ok_or_else(|| changed(table))?);
    }
    // Whoever loads into one of either is waited for.
    let all: Vec<_> = staged.iter().flat_map(|staged| [staged.target.clone(), staged.table.clone()]).collect();
    let (transaction, _) = begin_locked(session, &all, options.lock_timeout).await?;
    let result = merge_locked(&transaction, staged).await;
    end(transaction, result, MERGE).await
}

/// A table that is to be changed.
struct Work {
    staged: Staged,
    difference: Difference,
    rows: u64,
    added: u64,
    changed: u64,
    removed: u64,
}

async fn merge_locked(transaction: &Transaction<'_>, found: Vec<Staged>) -> Result<Vec<Merged>, Error> {
    // The caller takes it as done. Rows that somebody may not see would be inserted again, and texts are compared.
    transaction
        .batch_execute(
            "SET LOCAL synchronous_commit = on; SET LOCAL row_security = off; SET LOCAL extra_float_digits = 1;
             SET LOCAL work_mem = '64MB'",
        )
        .await
        .map_err(Error::database(MERGE))?;
    let mut by_oid: Vec<&Staged> = found.iter().collect();
    by_oid.sort_by_key(|staged| staged.target_oid);
    for staged in by_oid {
        lock_exclusively(transaction, &staged.table).await?;
        let target = &staged.target;
        let lock = format!("LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE");
        transaction.batch_execute(&lock).await.map_err(in_use(target, format!("lock {target:#}")))?;
    }
    let mut works = Vec::new();
    for before in found {
        let table = &before.target;
        // What it is now that nobody can change it.
        let staged = Staged::find(transaction, table).await?.filter(|now| now.oid == before.oid);
        let Some(staged) = staged.filter(|now| now.target_oid == before.target_oid) else { return Err(changed(table)) };
        let rows = count(transaction, &staged.table).await?;
        // A table that is not logged has nothing after a crash.
        if !rows.matches() {
            return Err(changed(table));
        }
        let difference = Difference::of(transaction, &staged).await?;
        works.push(Work { staged, difference, rows: rows.rows, added: 0, changed: 0, removed: 0 });
    }
    change(transaction, &mut works).await?;
    let mut merged = Vec::new();
    for work in works {
        raise_sequences_of(transaction, &work.staged.target, None).await?;
        finish(transaction, &work.staged).await?;
        let Work { staged, rows, added, changed, removed, .. } = work;
        let unchanged = rows.saturating_sub(added + changed);
        merged.push(Merged { table: staged.target, added, changed, removed, unchanged });
    }
    Ok(merged)
}

/// In which order the rows of tables are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// First what is new and what differs, parents first; then what is gone, children first. At no time refers a row to
    /// nothing.
    NewFirst,
    /// The other way round: at no time are there two rows of which one is to take the place of the other.
    GoneFirst,
    /// As that, with rows deleted and inserted in place of updates: none stands in the way of another.
    Anew,
}

/// Changes the rows. What is unique in the end may not be so on the way, so where the server says that, another way is
/// tried.
async fn change(transaction: &Transaction<'_>, works: &mut [Work]) -> Result<(), Error> {
    let action = || Error::database(MERGE);
    let can_be_replaced = works.iter().all(|work| work.difference.is_replaceable);
    let orders: &[Order] = match works.iter().find(|work| work.difference.is_update_refused) {
        Some(_) if can_be_replaced => &[Order::Anew],
        Some(work) => {
            let what = "has a column that is GENERATED ALWAYS AS IDENTITY and not its key, so that rows cannot be \
                        updated, and foreign keys that forbid to delete and insert them; load it anew with --restart, \
                        which deletes all of its rows";
            return Err(Error::Occupied { table: work.staged.target.clone(), what: what.to_owned() });
        }
        None if can_be_replaced => &[Order::NewFirst, Order::GoneFirst, Order::Anew],
        None => &[Order::NewFirst, Order::GoneFirst],
    };
    transaction.batch_execute("SAVEPOINT bulk_merge").await.map_err(action())?;
    for order in orders {
        for work in works.iter_mut() {
            (work.added, work.changed, work.removed) = (0, 0, 0);
        }
        match change_in(transaction, works, *order).await {
            Err(Error::Database { source, .. }) if is_in_the_way(&source) && Some(order) != orders.last() => {
                transaction.batch_execute("ROLLBACK TO SAVEPOINT bulk_merge").await.map_err(action())?;
            }
            result => return result,
        }
    }
    Ok(())
}

fn is_in_the_way(cause: &Cause) -> bool {
    let codes = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
    cause.code().is_some_and(|code| codes.contains(code))
}

async fn change_in(transaction: &Transaction<'_>, works: &mut [Work], order: Order) -> Result<(), Error> {
    let run = |sql: String, target: TableName| async move {
        let action = format!("refresh {target:#}");
        transaction.execute(sql.as_str(), &[]).await.map_err(in_use(&target, action))
    };
    transaction.batch_execute("SET CONSTRAINTS ALL DEFERRED").await.map_err(Error::database(MERGE))?;
    if order == Order::NewFirst
        && let [work] = works
        && let Some(sql) = work.difference.merge_all()
    {
        let target = &work.staged.target;
        let row = transaction.query_one(sql.as_str(), &[]).await;
        let row = row.map_err(in_use(target, format!("refresh {target:#}")))?;
        let number = |place| u64::try_from(row.get::<_, i64>(place)).unwrap_or(0);
        (work.added, work.changed, work.removed) = (number(0), number(1), number(2));
    } else {
        if order != Order::NewFirst {
            for work in works.iter_mut().rev() {
                work.removed = run(work.difference.delete(), work.staged.target.clone()).await?;
            }
        }
        for work in works.iter_mut() {
            let target = || work.staged.target.clone();
            match (order, work.difference.merge()) {
                (Order::NewFirst, Some(sql)) => {
                    // The server tells the sum of both.
                    let before = rows(transaction, &work.staged.target).await?;
                    let written = run(sql, target()).await?;
                    let after = rows(transaction, &work.staged.target).await?;
                    work.added = after.saturating_sub(before);
                    work.changed = written.saturating_sub(work.added);
                }
                (Order::NewFirst, None) => {
                    // A row that changes may come to refer to one that is new.
                    work.added = run(work.difference.insert(), target()).await?;
                    if let Some(sql) = work.difference.update() {
                        work.changed = run(sql, target()).await?;
                    }
                }
                (Order::GoneFirst, _) => {
                    if let Some(sql) = work.difference.update() {
                        work.changed = run(sql, target()).await?;
                    }
                    work.added = run(work.difference.insert(), target()).await?;
                }
                (Order::Anew, _) => {
                    if let Some(sql) = work.difference.replace() {
                        work.changed = run(sql, target()).await?;
                    }
                    work.added = run(work.difference.insert(), target()).await?;
                }
            }
        }
        if order == Order::NewFirst {
            for work in works.iter_mut().rev() {
                work.removed = run(work.difference.delete(), work.staged.target.clone()).await?;
            }
        }
    }
    // What is deferred fails here, where it can be told what failed.
    transaction
        .batch_execute("SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(Error::database("refresh the tables: a constraint does not hold in the end"))
}

async fn rows(transaction: &Transaction<'_>, table: &TableName) -> Result<u64, Error> {
    let row = transaction.query_one(&format!("SELECT pg_catalog.count(*) FROM {table}"), &[]).await;
    let row = row.map_err(Error::database(format!("count the rows of {table:#}")))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Gives the marks of the staging table to the target in place of its own, and removes the staging table.
async fn finish(transaction: &Transaction<'_>, staged: &Staged) -> Result<(), Error> {
    let Staged { target, target_oid, table, load, .. } = staged;
    let action = || Error::database(format!("note the refresh of {target:#}"));
    let (schema, name) = (target.schema.as_str(), target.name.as_str());
    transaction
        .execute(
            "DELETE FROM bulk.load WHERE (target_schema = $1 AND target_table = $2 OR target_oid = $3) AND id <> $4",
            &[&schema, &name, target_oid, load],
        )
        .await
        .map_err(action())?;
    transaction
        .execute(
            "UPDATE bulk.load SET target_schema = $1, target_table = $2, target_oid = $3 WHERE id = $4",
            &[&schema, &name, target_oid, load],
        )
        .await
        .map_err(action())?;
    transaction.execute("DELETE FROM bulk.refresh WHERE target_oid = $1", &[target_oid]).await.map_err(action())?;
    transaction.batch_execute(&format!("DROP TABLE {table}")).await.map_err(action())
}

#[cfg(test)]
mod tests {
    use super::{Key, in_order};

    fn strict(keys: &[(usize, usize)]) -> Vec<Key> {
        keys.iter().map(|(child, parent)| Key { child: *child, parent: *parent, is_strict: true }).collect()
    }

    #[test]
    fn parents_come_before_children_and_what_does_not_hang_together_goes_apart() {
        assert_eq!(in_order(0, &[]), Vec::<Vec<usize>>::new());
        assert_eq!(in_order(3, &[]), [[0], [1], [2]]);
        assert_eq!(in_order(4, &strict(&[(0, 2), (2, 3)])), [vec![3, 2, 0], vec![1]]);
        let chain: Vec<_> = (0..5).map(|child| (child, child + 1)).collect();
        assert_eq!(in_order(6, &strict(&chain)), [[5, 4, 3, 2, 1, 0]]);
        // 1 and 2 refer to each other, and 0 to both.
        let mut circle = strict(&[(0, 1), (0, 2), (1, 2), (2, 1)]);
        assert_eq!(in_order(3, &circle), [[1, 2, 0]]);
        // One of the two is checked in the end.
        circle[2].is_strict = false;
        assert_eq!(in_order(3, &circle), [[1, 2, 0]]);
        (circle[2].is_strict, circle[3].is_strict) = (true, false);
        assert_eq!(in_order(3, &circle), [[2, 1, 0]]);
    }
}
