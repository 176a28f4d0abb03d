use bulk_testkit::postgres::Database;
use tokio::runtime::Runtime;

use super::sql;

/// Holds the row of one id back, so that a load is killed at a known place: the server waits before that row until the gate is
/// opened.
pub(crate) struct Gate<'a> {
    database: &'a Database,
    table: &'a str,
    client: tokio_postgres::Client,
    runtime: Runtime,
}

impl<'a> Gate<'a> {
    /// Closes it before the row with this `id` of `table`.
    pub(crate) fn close(database: &'a Database, table: &'a str, id: u64) -> Self {
        sql(
            database,
            &format!(
                "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
                 CREATE TRIGGER gate BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.id = {id}) EXECUTE FUNCTION gate()"
            ),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
            client
        });
        Self { database, table, client, runtime }
    }

    /// Whether a load waits before it.
    pub(crate) fn is_reached(&self) -> bool {
        let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted";
        sql(self.database, waiting) == "t"
    }

    /// Lets the row go, and waits until the load that was killed has rolled back.
    pub(crate) fn open(self) {
        self.runtime.block_on(self.client.batch_execute("SELECT pg_advisory_unlock(7)")).unwrap();
        sql(self.database, &format!("DROP TRIGGER gate ON {}; DROP FUNCTION gate()", self.table));
    }
}
