//! What the database does for the sessions of a run, as another session sees it a few times a second.

use std::time::Duration;

use bulk_pg::Session;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::arguments::DatabaseArguments;
use crate::meters::RunMeters;
use crate::report::Report;

/// A question takes the server some tenths of a millisecond.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// A server that does not answer for so long is not asked any more.
const PATIENCE: Duration = Duration::from_secs(10);

const WAITS: &str = "SELECT coalesce(wait_event_type || '/' || wait_event, 'CPU') FROM pg_catalog.pg_stat_activity
    WHERE pid = ANY ($1) AND state = 'active'";

/// Asks until it is dropped. Whatever goes wrong with that, the run is not told: it then knows less of the server.
pub(crate) struct ServerWatch {
    _task: Option<AbortOnDropHandle<()>>,
}

impl ServerWatch {
    /// Over a connection of its own, which is made last: if the server has none to spare, it is this one that is missing.
    pub(crate) async fn start(database: &DatabaseArguments, sessions: &[Session], report: &Report) -> Self {
        let mut processes: Vec<i32> = Vec::new();
        for session in sessions {
            // A session that does not answer says so when it is used.
            let Ok(row) = session.client().query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await else {
                return Self { _task: None };
            };
            processes.push(row.get(0));
        }
        let (database, meters, report) = (database.clone(), report.meters().clone(), report.clone());
        let task = tokio::spawn(async move {
            let session = match database.connect().await {
                Ok(session) => session,
                Err(failure) => return report.detail(format!("the server is not watched: {:#}", failure.error)),
            };
            if let Err(error) = watch(&session, &processes, &meters).await {
                report.detail(format!("the server is watched no more: {error:#}"));
            }
        });
        Self { _task: Some(AbortOnDropHandle::new(task)) }
    }
}

async fn watch(session: &Session, processes: &[i32], meters: &RunMeters) -> anyhow::Result<()> {
    session.client().batch_execute("SET application_name = 'bulk (watching)'").await?;
    let statement = session.client().prepare(WAITS).await?;
    let mut times = interval(ASK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        // Behind this, as little as can be goes by before the server looks.
        let view = meters.server_view();
        let rows = timeout(PATIENCE, session.client().query(&statement, &[&processes])).await??;
        meters.saw_server(view, rows.iter().map(|row| row.get(0)));
    }
}
