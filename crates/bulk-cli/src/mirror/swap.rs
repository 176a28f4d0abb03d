use bulk_pg::{
    Session, Swap, SwapOptions, apply_post_data, drop_swapped, find_loaded, prepare_swap, settle, swap, unsettled,
};
use bulk_s3::Snapshot;
use serde_json::json;

use super::files::{Job, load_options, remove};
use super::findings::{list_post_data, refuse_orphans};
use super::{Run, post_data_options, verify};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::meters::ServerStage;

/// Makes the tables that are to take the places of others, and adds what is to be loaded into them to `jobs`.
pub(super) async fn prepare(
    run: &Run<'_>,
    snapshot: &Snapshot,
    session: &mut Session,
    swapped: Vec<Job>,
    jobs: &mut Vec<Job>,
) -> Result<Option<Swap>, Failure> {
    if run.mirror.swap {
        // Of a run that ended in between.
        drop_old(run, session).await;
    }
    if swapped.is_empty() {
        return Ok(None);
    }
    let file = |job: &Job| Ok((job.table.clone(), job.identity.clone(), load_options(run, snapshot, &job.table)?));
    let files: Vec<_> = swapped.iter().map(file).collect::<Result<_, Failure>>()?;
    let swap = prepare_swap(session, &files).await?;
    for mut job in swapped {
        let Some(twin) = swap.twin(&job.table) else { continue };
        job.table = twin.clone();
        let options = load_options(run, snapshot, &job.table)?;
        match find_loaded(session, &job.table, &job.identity, &options).await? {
            None => jobs.push(job),
            Some(_) if run.mirror.keep_files => {}
            Some(_) => remove(run, &job.object),
        }
    }
    Ok(Some(swap))
}

/// Indexes and verifies the new tables, and puts them in their places, unless they differ from their files or have orphans
/// that nobody wants. `is_any_rejected` is set if rows were moved out of them.
pub(super) async fn finish(
    run: &Run<'_>,
    sessions: &mut [Session],
    tables: &Swap,
    is_any_rejected: &mut bool,
) -> Result<Exit, Failure> {
    let Run { report, .. } = run;
    let schema = tables.schema()?;
    let twins = tables.twins();
    let loaded = unsettled(&sessions[0], &twins).await?;
    let mut after = post_data_options(run);
    // The old tables stay as they are until the new ones take their places.
    after.orphans_of = Some(twins.clone());
    let plan = schema.plan();
    let applying = apply_post_data(sessions, &plan, &loaded, &after);
    let mut post_data = match report.meters().on_server(ServerStage::Index, applying).await {
        Err(bulk_pg::Error::Stopped { .. }) => return Ok(Exit::Interrupted),
        post_data => post_data?,
    };
    let exit = list_post_data(&post_data, report);
    *is_any_rejected = !post_data.rejected.is_empty();
    // What an old table has goes with it.
    post_data.orphans.retain(|orphans| twins.contains(&orphans.table));
    refuse_orphans(run.mirror.orphans, &post_data)?;
    if !post_data.refused.is_empty() {
        let what =
            "the new tables cannot have what the old ones have, so that these stay; it is tried again by the next run";
        return Err(Failure::new(Exit::Failed, anyhow::anyhow!(what)));
    }
    if verify(&sessions[0], &twins, run.mirror.verify, report).await? == Exit::Differs {
        return Ok(Exit::Differs);
    }
    settle(&sessions[0], &twins).await?;
    let mut options = SwapOptions::default();
    options.keep_old = run.mirror.keep_old;
    (options.stop, options.observer) = (after.stop, after.observer);
    match swap(&mut sessions[0], tables, &options).await {
        Err(bulk_pg::Error::Stopped { .. }) => return Ok(Exit::Interrupted),
        swapped => swapped?,
    }
    let text = format!(
        "{} of the old ones",
        counted(twins.len(), "table has taken the place", "tables have taken the places")
    );
    report.event("swapped", &text, json!({"tables": twins.len()}));
    drop_old(run, &mut sessions[0]).await;
    Ok(exit)
}

/// What somebody still reads goes with the next run.
async fn drop_old(run: &Run<'_>, session: &mut Session) {
    match drop_swapped(session).await {
        Ok(0) => {}
        Ok(count) => run.report.note(format!("{} dropped", counted(count, "old table is", "old tables are"))),
        Err(error) => {
            let error = anyhow::Error::from(error);
            run.report.warn(format!("old tables are not dropped yet, and are by the next run with --swap: {error:#}"));
        }
    }
}
