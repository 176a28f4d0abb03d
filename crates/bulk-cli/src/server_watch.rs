//! What the database does for the sessions of a run, as another session sees it a few times a second.

use std::convert::Infallible;
use std::time::Duration;

use bulk_pg::Session;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::arguments::DatabaseArguments;
use crate::meters::RunMeters;
use crate::report::Report;

/// A question takes the server some tenths of a millisecond.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// A server that does not answer for so long is not asked over that connection any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// It is asked again over another one after a while: it may have had none to spare.
const ASK_AGAIN: Duration = Duration::from_secs(3);

const WAITS: &str = "SELECT coalesce(wait_event_type || '/' || wait_event, 'CPU') FROM pg_catalog.pg_stat_activity
    WHERE pid = ANY ($1) AND state = 'active'";

/// Asks until it is dropped. Whatever goes wrong with that, the run goes on, and its verdict says that it knows less of the
/// server.
pub(crate) struct ServerWatch {
    _task: AbortOnDropHandle<()>,
}

impl ServerWatch {
    /// Over a connection of its own, which is made last: if the server has none to spare, it is this one that is missing.
    pub(crate) fn start(database: &DatabaseArguments, sessions: &[Session], report: &Report) -> Self {
        let processes: Vec<i32> = sessions.iter().filter_map(Session::process).collect();
        let (database, report) = (database.clone(), report.clone());
        let task = tokio::spawn(async move {
            loop {
                let Err(error) = watch(&database, &processes, report.meters()).await;
                let why = format!("{error:#}");
                if report.meters().set_unwatched(Some(why.clone())) {
                    report.detail(format!("the server is not watched: {why}"));
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        });
        Self { _task: AbortOnDropHandle::new(task) }
    }
}

async fn watch(database: &DatabaseArguments, processes: &[i32], meters: &RunMeters) -> anyhow::Result<Infallible> {
    let session = database.connect().await.map_err(|failure| failure.error)?;
    session.client().batch_execute("SET application_name = 'bulk (watching)'").await?;
    let statement = session.client().prepare(WAITS).await?;
    let mut times = interval(ASK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        // Behind this, as little as can be goes by before the server looks.
        let view = meters.server_view();
        let rows = timeout(PATIENCE, session.client().query(&statement, &[&processes])).await??;
        meters.set_unwatched(None);
        meters.saw_server(view, rows.iter().map(|row| row.get(0)));
    }
}
