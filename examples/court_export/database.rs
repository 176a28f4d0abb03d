//! The database: a table for each type of items, and one for what was deleted of them.

use std::thread;

use bulk_pg::{BlockingCopyWriter, CopyFormat, Session};
use serde_json::value::RawValue;
use tokio::runtime::Handle;

use crate::Failure;
use crate::made_up::{self, Day, KINDS};

/// Rows that are gone tell nobody that they are, so a trigger keeps their ids.
const DELETIONS: &str = "
    CREATE TABLE deleted_item (
        kind text NOT NULL,
        id bigint NOT NULL,
        deleted timestamptz NOT NULL DEFAULT now()
    );
    CREATE FUNCTION keep_id() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO deleted_item (kind, id) VALUES (TG_TABLE_NAME, OLD.id);
        RETURN OLD;
    END $$";

/// The index is how a day's changes are found without reading the rest.
fn table(kind: &str) -> String {
    format!(
        "CREATE TABLE {kind} (
             id bigint PRIMARY KEY,
             court_id text NOT NULL,
             date_modified timestamptz NOT NULL DEFAULT now(),
             document json NOT NULL
         );
         CREATE INDEX ON {kind} (date_modified);
         CREATE TRIGGER keep_id AFTER DELETE ON {kind} FOR EACH ROW EXECUTE FUNCTION keep_id()"
    )
}

/// Makes the tables and fills each in a thread of its own; so many items in all.
pub(crate) fn fill(runtime: &Handle, url: &str, items: u64) -> Result<(), Failure> {
    let session = runtime.block_on(Session::connect(url))?;
    runtime.block_on(session.client().batch_execute(DELETIONS))?;
    for kind in KINDS {
        runtime.block_on(session.client().batch_execute(&table(kind)))?;
    }
    thread::scope(|scope| {
        let fill = |(first, kind)| scope.spawn(move || copy(url, kind, (first..items).step_by(KINDS.len())));
        let threads: Vec<_> = (0..).zip(KINDS).map(fill).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread that fills a table has panicked")?)
    })?;
    runtime.block_on(session.client().batch_execute(&format!("ANALYZE {}", KINDS.join(", "))))?;
    Ok(())
}

fn copy(url: &str, kind: &str, numbers: impl Iterator<Item = u64>) -> Result<(), Failure> {
    let columns = ["id", "court_id", "date_modified", "document"];
    let mut writer = BlockingCopyWriter::connect(url, &kind.parse()?, &columns, CopyFormat::Auto)?;
    for number in numbers {
        let modified = jiff::Timestamp::from_second(made_up::modified(number))?;
        let document = RawValue::from_string(made_up::json(number, 0))?;
        writer.write(&(number, made_up::court(number), modified, document))?;
    }
    writer.finish()?;
    Ok(())
}

/// Does to the items what a day does, in one transaction.
pub(crate) async fn live_through(url: &str, day: &Day) -> Result<(), Failure> {
    let mut session = Session::connect(url).await?;
    let transaction = session.client_mut().transaction().await?;
    for &number in &day.changed {
        let sql = "SET document = $2::text::json, date_modified = now() WHERE id = $1";
        let (kind, id) = (made_up::kind(number), i64::try_from(number)?);
        transaction.execute(&format!("UPDATE {kind} {sql}"), &[&id, &made_up::json(number, 1)]).await?;
    }
    for &number in &day.moved {
        let sql = "SET court_id = $2, date_modified = now() WHERE id = $1";
        let (kind, id) = (made_up::kind(number), i64::try_from(number)?);
        transaction.execute(&format!("UPDATE {kind} {sql}"), &[&id, &made_up::other_court(number)]).await?;
    }
    for &number in &day.removed {
        let (kind, id) = (made_up::kind(number), i64::try_from(number)?);
        transaction.execute(&format!("DELETE FROM {kind} WHERE id = $1"), &[&id]).await?;
    }
    for &number in &day.added {
        let sql = "(id, court_id, document) VALUES ($1, $2, $3::text::json)";
        let (kind, id) = (made_up::kind(number), i64::try_from(number)?);
        let (court, json) = (made_up::court(number), made_up::json(number, 0));
        transaction.execute(&format!("INSERT INTO {kind} {sql}"), &[&id, &court, &json]).await?;
    }
    Ok(transaction.commit().await?)
}
