//! Indexes of tables that have all of their rows, while others are still loaded.

use std::collections::BTreeMap;

use bulk_pg::{Definition, Plan, PostDataOptions, Session, TableName, make_indexes};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::files::Job;
use super::{Run, post_data_options};
use crate::exit::Failure;
use crate::meters::ServerStage;
use crate::report::{Chain, Report};

/// Makes the indexes and constraints of one table after another, as they are loaded, and analyzes it, over a session of its own. What it does not
/// come to, or cannot do, is done after the data. Dropping it leaves the statement that runs to the server.
pub(super) struct Indexer {
    /// By table, with how many files of it are to be loaded yet; taken when it is none.
    waiting: BTreeMap<TableName, (usize, Vec<Definition>)>,
    loaded: mpsc::Sender<(TableName, Vec<Definition>)>,
    /// Cancelled when no other statement is to begin.
    enough: CancellationToken,
    task: AbortOnDropHandle<Vec<TableName>>,
}

impl Indexer {
    /// For the tables that `jobs` fill. None where only one connection may be used.
    pub(super) async fn start(run: &Run<'_>, plan: &Plan<'_>, jobs: &[Job]) -> Result<Option<Self>, Failure> {
        let mut waiting: BTreeMap<TableName, (usize, Vec<Definition>)> = BTreeMap::new();
        // What is staged comes into its table later.
        for job in jobs.iter().filter(|job| !job.stage) {
            waiting.entry(job.table.clone()).or_default().0 += 1;
        }
        for definition in &plan.indexes {
            if let Some((_, definitions)) = definition.table().and_then(|table| waiting.get_mut(table)) {
                definitions.push((*definition).clone());
            }
        }
        if run.mirror.connections < 2 || waiting.is_empty() {
            return Ok(None);
        }
        let session = run.mirror.database.connect().await?;
        let (loaded, tables) = mpsc::channel(waiting.len());
        let enough = run.common.stop.child_token();
        let mut options = post_data_options(run);
        options.stop = enough.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(work(session, tables, options, run.report.clone())));
        Ok(Some(Self { waiting, loaded, enough, task }))
    }

    /// Takes in that a file of a table is loaded.
    pub(super) fn add(&mut self, table: &TableName) {
        let Some((files, _)) = self.waiting.get_mut(table) else { return };
        *files -= 1;
        if *files == 0
            && let Some((table, (_, definitions))) = self.waiting.remove_entry(table)
        {
            // There is room for all of them; and if it has ended, they are made after the data.
            let _ = self.loaded.try_send((table, definitions));
        }
    }

    /// Ends behind the statement that runs: what is left is quicker over all sessions. Gives the tables that are analyzed.
    pub(super) async fn finish(self) -> Vec<TableName> {
        self.enough.cancel();
        drop(self.loaded);
        // It has said what went wrong, and nothing depends on it.
        self.task.await.unwrap_or_default()
    }
}

async fn work(
    session: Session,
    mut tables: mpsc::Receiver<(TableName, Vec<Definition>)>,
    options: PostDataOptions,
    report: Report,
) -> Vec<TableName> {
    let mut analyzed = Vec::new();
    while let Some((table, definitions)) = tables.recv().await {
        let making = make_indexes(&session, &table, &definitions, &options);
        match report.meters().on_server(ServerStage::Index, making).await {
            Ok(head) => analyzed.extend(head.is_analyzed.then_some(table)),
            Err(bulk_pg::Error::Stopped { .. }) => break,
            Err(error) => {
                report.detail(format!("{table:#}: its indexes are left for later: {}", Chain(&error)));
                break;
            }
        }
    }
    analyzed
}
