mod choice;
mod files;
pub(crate) mod findings;
mod indexer;
mod refresh;
mod swap;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bulk_core::DiskBudget;
use bulk_pg::{
    DefinitionKind, LoadOptions, OrphanPolicy, Plan, PostDataOptions, ServerAccess, Session, Swap, TableName,
    Verification, Verifier, apply_post_data, apply_pre_data, count_rejects, drop_dependents, drop_indexes, has_rows,
    lock_mirror, prepare_ledger, restart_with_plan, server_access, settle, unsettled,
};
use bulk_s3::{Object, Snapshot};
use serde_json::json;

use self::choice::{choose, read_schema, wanted_tables};
use self::files::{Job, load_all, load_options, remove};
use self::findings::{list_left_out, list_post_data, refuse_orphans, summarise};
use self::indexer::Indexer;
use self::refresh::{Found, find, merge};
use crate::arguments::{Common, Mirror, Orphans};
use crate::blocking::blocking;
use crate::counted::counted;
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::fetch::manifest;
use crate::load::{check, content, state_compression};
use crate::meters::ServerStage;
use crate::order::{Order, Placed};
use crate::plain;
use crate::rejects::{RejectFiles, note_rejects};
use crate::report::Report;
use crate::selection::Selection;
use crate::server_watch::ServerWatch;
use crate::source::Place;

pub(crate) use self::choice::identity;
pub(crate) use self::files::{is_damage, is_replacement};

pub(crate) async fn run(mirror: &Mirror, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let started = Instant::now();
    let dataset = Dataset::find(&mirror.dataset, "")?;
    let mut options = LoadOptions::default();
    (options.freeze, options.max_rejects) = (mirror.freeze, mirror.max_rejects);
    check(&options)?;
    let tables = wanted_tables(&dataset, &mirror.tables)?;
    let fill = fills(&dataset, &mirror.fill)?;
    let selection = &Selection::new(mirror, &tables)?;
    let order = mirror.order.clone();
    let order = &blocking(move || Order::parse(&order)).await?;
    let arguments = dataset.bucket_arguments(&mirror.bucket);
    let place = Place::open(mirror.from.as_deref().unwrap_or(&dataset.source), &arguments, report)?;
    place.refuse_folder("--dir", &mirror.dir)?;
    let budget = &mirror.disk.budget(&mirror.dir);
    let run = Run {
        mirror,
        common,
        dataset: &dataset,
        tables: &tables,
        fill: &fill,
        selection,
        order,
        place: &place,
        budget,
        report,
    };

    mirror.database.target.url()?;
    // Until the first file is loaded there is nothing in hand that a stop had to finish.
    let stop = &common.stop;
    let begun = async {
        let session = mirror.database.connect().await?;
        let snapshot = report.meters().on_listing(choose(&run)).await?;
        Ok::<_, Failure>((session, snapshot))
    };
    let Some(begun) = stop.run_until_cancelled(begun).await else { return Ok(Exit::Interrupted) };
    let (mut session, snapshot) = begun?;
    if common.dry_run {
        for (base, object) in in_order(&run, &snapshot) {
            let table = format!("{:#}", tables[base]);
            let fields = json!({"file": object.key, "size": object.size, "table": table});
            report.planned(&format!("{}\t{}\t{table}", object.size, plain::name(&object.key)), fields);
        }
        return Ok(Exit::Done);
    }
    // It is held until the session ends, and so for the whole run.
    let Some(locked) = stop.run_until_cancelled(lock_mirror(&mut session)).await else { return Ok(Exit::Interrupted) };
    locked?;
    state_compression(&session, report);
    let mut exit = if snapshot.missing.is_empty() { Exit::Done } else { Exit::Incomplete };
    let Some(schema) = stop.run_until_cancelled(read_schema(&run, &snapshot)).await else {
        return Ok(Exit::Interrupted);
    };
    let schema = schema?;
    if mirror.schema.is_none() && snapshot.schema.is_some() {
        warn_of_power(&session, report).await?;
    }
    let mut plan = schema.plan();
    let preparing = report.meters().on_server(ServerStage::Prepare, prepare(&run, &snapshot, session, &mut plan));
    let Some(prepared) = stop.run_until_cancelled(preparing).await else {
        return Ok(Exit::Interrupted);
    };
    let Prepared { jobs, staged, swap, sessions } = prepared?;
    let wanted: Vec<TableName> = snapshot.files.keys().map(|base| tables[base].clone()).collect();

    let names = snapshot.files.values().map(|object| Path::new(&object.key));
    let rejects = mirror.rejects.as_deref().map(|folder| RejectFiles::new(folder, names)).transpose()?;
    let before = Instant::now();
    let indexer = Indexer::start(&run, &plan, &jobs).await?;
    let _watch = ServerWatch::start(&mirror.database, &sessions, report);
    let (mut sessions, totals) = load_all(&run, &snapshot, jobs, sessions, indexer).await?;
    let data_time = before.elapsed();
    // Also what was left out before a failure, if the server still answers.
    for (table, object) in wanted.iter().zip(snapshot.files.values()) {
        note_rejects(&sessions[0], table, &identity(object), report).await;
    }
    if let Some(rejects) = &rejects {
        write_rejects(&run, &snapshot, rejects, &sessions[0], totals.failed == 0).await?;
    }
    exit = exit.max(totals.exit);
    if stop.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    if mirror.keep_files && totals.files > 0 {
        manifest(&mirror.dir).await?;
    }
    if totals.failed > 0 {
        report.warn(format!(
            "{} not loaded; indexes and constraints are left for the run that loads the rest",
            counted(totals.failed, "file is", "files are")
        ));
        return Ok(exit);
    }

    let before = Instant::now();
    if !merge(&run, &mut sessions[0], &plan, &staged).await? {
        return Ok(Exit::Interrupted);
    }
    if let Some(swap) = &swap {
        let mut is_any_rejected = false;
        let swapped = swap::finish(&run, &mut sessions, swap, &mut is_any_rejected).await;
        // Whether or not they are in their places: these rows are left out of them.
        let written = match rejects.as_ref().filter(|_| is_any_rejected) {
            Some(rejects) => write_rejects(&run, &snapshot, rejects, &sessions[0], true).await,
            None => Ok(()),
        };
        let swapped = swapped?;
        written?;
        exit = exit.max(swapped);
        if matches!(swapped, Exit::Interrupted | Exit::Differs) {
            return Ok(exit);
        }
    }
    let waiting = leave_keys_to_later_runs(&mut plan, &sessions[0], &dataset, &wanted).await?;
    if waiting > 0 {
        let wait = counted(waiting, "foreign key waits", "foreign keys wait");
        report.note(format!("{wait} for tables that are not loaded yet"));
    }
    // Also those of an earlier run that ended before it came to this.
    let loaded_tables = unsettled(&sessions[0], &wanted).await?;
    let mut options = post_data_options(&run);
    options.analyzed = totals.analyzed.clone();
    let applying = apply_post_data(&mut sessions, &plan, &loaded_tables, &options);
    let post_data = match report.meters().on_server(ServerStage::Index, applying).await {
        Err(bulk_pg::Error::Stopped { .. }) => return Ok(Exit::Interrupted),
        post_data => post_data?,
    };
    let post_time = before.elapsed();
    exit = exit.max(list_post_data(&post_data, report));
    if let Some(rejects) = rejects.filter(|_| !post_data.rejected.is_empty()) {
        write_rejects(&run, &snapshot, &rejects, &sessions[0], true).await?;
    }
    refuse_orphans(mirror.orphans, &post_data)?;
    for table in &wanted {
        let count = count_rejects(&sessions[0], table).await?;
        if count > 0 {
            report.note(format!(
                "{table:#}: {} left out, see bulk.reject",
                counted(count, "record of its file is", "records of its file are")
            ));
            exit = exit.max(Exit::Incomplete);
        }
    }

    let before = Instant::now();
    if totals.files == 0 && staged.is_empty() && swap.is_none() {
        report.note("nothing to load: the database has this snapshot");
    }
    // What was hashed can be compared at any time.
    let verified_tables = if mirror.verify == Verification::Full { &wanted } else { &loaded_tables };
    let verified = verify(&sessions[0], verified_tables, mirror.verify, report);
    let Some(verified) = stop.run_until_cancelled(verified).await else {
        return Ok(Exit::Interrupted);
    };
    exit = exit.max(verified?);
    if exit != Exit::Differs {
        settle(&sessions[0], &loaded_tables).await?;
    }
    let times = [("data", data_time), ("indexes and keys", post_time), ("verify", before.elapsed())];
    summarise(&snapshot, &totals, &times, started.elapsed(), report);
    Ok(exit)
}

/// What all steps of a run look at.
struct Run<'a> {
    mirror: &'a Mirror,
    common: &'a Common,
    dataset: &'a Dataset,
    tables: &'a BTreeMap<String, TableName>,
    fill: &'a Fill,
    selection: &'a Selection,
    order: &'a Order,
    place: &'a Place,
    budget: &'a DiskBudget,
    report: &'a Report,
}

/// Says so where the schema that comes from the bucket can do more than fill a database.
///
/// It is not refused: on a server of one's own a superuser is often the only role, and the bucket one that is trusted.
async fn warn_of_power(session: &Session, report: &Report) -> Result<(), Failure> {
    let Some(access) = server_access(session).await? else { return Ok(()) };
    let role = power(&access);
    report.warn(format!(
        "{role}, and functions of the snapshot's schema are run as it: they could reach the server's files and programs; \
         where the bucket is not yours, use a role that owns nothing but its database, or --schema with a file that you \
         have read"
    ));
    Ok(())
}

/// How a role reaches beyond its database.
pub(crate) fn power(access: &ServerAccess) -> String {
    let role = &access.role;
    match (access.is_own, access.is_superuser) {
        (true, true) => format!("the role {role} is a superuser"),
        (true, false) => format!("the role {role} may give itself all rights but a superuser's"),
        (false, true) => format!("the role may become {role}, a superuser"),
        (false, false) => format!("the role has the rights of {role}"),
    }
}

fn post_data_options(run: &Run<'_>) -> PostDataOptions {
    let mut options = PostDataOptions::default();
    if run.mirror.orphans == Orphans::Reject {
        options.orphans = OrphanPolicy::Reject;
    }
    let observer = run.report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    options.stop = run.common.stop.clone();
    options
}

/// Writes what is left out of each file so far.
async fn write_rejects(
    run: &Run<'_>,
    snapshot: &Snapshot,
    rejects: &RejectFiles,
    session: &Session,
    all_are_loaded: bool,
) -> Result<(), Failure> {
    for (base, object) in &snapshot.files {
        let name = Path::new(&object.key);
        rejects.write(session, &run.tables[base], name, &identity(object), all_are_loaded, run.report).await?;
    }
    Ok(())
}

/// The snapshot's files, as they are to come.
fn in_order<'s>(run: &Run<'_>, snapshot: &'s Snapshot) -> Vec<(&'s String, &'s Object)> {
    let mut files: Vec<_> = snapshot.files.iter().collect();
    run.order.sort(&mut files, |(base, object)| Placed { names: [base, &object.key], size: object.size }, run.report);
    files
}

/// What is to be done, and by whom.
struct Prepared {
    /// What is to be loaded, in order.
    jobs: Vec<Job>,
    /// Tables that are to become what is in their staging tables then.
    staged: Vec<TableName>,
    /// Tables whose places others are to take then.
    swap: Option<Swap>,
    sessions: Vec<Session>,
}

/// Makes ledger and tables, and finds what is to be done.
async fn prepare(
    run: &Run<'_>,
    snapshot: &Snapshot,
    mut session: Session,
    plan: &mut Plan<'_>,
) -> Result<Prepared, Failure> {
    let Run { mirror, report, .. } = run;
    prepare_ledger(&session).await?;
    let wanted: Vec<TableName> = snapshot.files.keys().map(|base| run.tables[base].clone()).collect();
    let pre_data = apply_pre_data(&mut session, plan, &wanted).await?;
    report.note(format!(
        "schema: {} made, {} there",
        counted(pre_data.created.len(), "table", "tables"),
        counted(pre_data.existing.len(), "was", "were")
    ));
    list_left_out(&plan.left_out, &pre_data.refused, report);
    let mut dropped = 0;
    if mirror.restart {
        refuse_what_never_fits(run, snapshot.files.values())?;
        dropped = restart_with_plan(&mut session, plan, &wanted).await?;
    }

    let (mut jobs, mut staged, mut swapped) = (Vec::new(), Vec::new(), Vec::new());
    let (mut skipped, mut skipped_records) = (0, 0);
    let files = in_order(run, snapshot);
    for &(base, object) in &files {
        let (base, object) = (base.clone(), object.clone());
        let table = run.tables[&base].clone();
        let identity = identity(&object);
        let options = load_options(run, snapshot, &table)?;
        match find(&session, &table, &identity, &options, mirror.refresh || mirror.swap).await? {
            Found::Loaded(records) => {
                skipped += 1;
                skipped_records += records;
                // A run that was killed right after the last rows were committed has left it.
                if !mirror.keep_files {
                    remove(run, &object);
                }
            }
            Found::Staged | Found::Nothing { stage: true } if mirror.swap => {
                swapped.push(Job { base, table, object, identity, stage: false });
            }
            Found::Staged => {
                staged.push(table);
                if !mirror.keep_files {
                    remove(run, &object);
                }
            }
            Found::Nothing { stage } => {
                staged.extend(stage.then(|| table.clone()));
                jobs.push(Job { base, table, object, identity, stage });
            }
        }
    }
    let swap = swap::prepare(run, snapshot, &mut session, swapped, &mut jobs).await?;
    if skipped > 0 {
        report.note(format!(
            "{skipped} of {} had been loaded ({})",
            counted(snapshot.files.len(), "file", "files"),
            counted(skipped_records, "record", "records")
        ));
    }
    refuse_what_never_fits(run, jobs.iter().map(|job| &job.object))?;
    // What is staged hinders nobody until it is merged.
    let tables: Vec<TableName> = jobs.iter().filter(|job| !job.stage).map(|job| job.table.clone()).collect();
    dropped += drop_dependents(&mut session, plan, &tables).await?;
    if dropped > 0 {
        report.note("foreign keys and triggers of the tables to be loaded are dropped, and made again after the data");
    }
    if mirror.rebuild_indexes && drop_indexes(&mut session, &tables).await? > 0 {
        report.note("indexes of the tables to be loaded are dropped, and built anew after the data");
    }
    // Those that are swapped came behind the others.
    jobs.sort_by_key(|job| files.iter().position(|(base, _)| **base == job.base));
    let mut sessions = vec![session];
    while sessions.len() < mirror.connections {
        sessions.push(mirror.database.connect().await?);
    }
    Ok(Prepared { jobs, staged, swap, sessions })
}

/// Each file must fit when it is loaded, and all of them at once if they stay.
fn refuse_what_never_fits<'o>(run: &Run<'_>, objects: impl Iterator<Item = &'o Object> + Clone) -> Result<(), Failure> {
    let Run { mirror, budget, .. } = run;
    let Some(largest) = objects.clone().max_by_key(|object| object.size).filter(|_| !mirror.no_files) else {
        return Ok(());
    };
    let (what, needed, way_out) = match mirror.keep_files {
        true => ("the files".to_owned(), objects.map(|object| object.size).sum(), "without --keep-files"),
        false => (largest.request().name, largest.size, "with --no-files"),
    };
    budget.can_ever_fit(needed).map_err(|shortage| {
        let folder = mirror.dir.display();
        let what = anyhow::anyhow!("{what} cannot fit into {folder}: {shortage}; less is needed {way_out}");
        Failure::new(Exit::Disk, what)
    })
}

/// Takes the keys out of the plan that lead from or to a table of the data set which neither this run nor an earlier one
/// loads: all rows would violate them. How many there are.
async fn leave_keys_to_later_runs(
    plan: &mut Plan<'_>,
    session: &Session,
    dataset: &Dataset,
    wanted: &[TableName],
) -> Result<usize, Failure> {
    let mut missing = Vec::new();
    for table in dataset.tables()?.into_values().filter(|table| !wanted.contains(table)) {
        // Keys to a table that is not there at all are left out of the plan already.
        if has_rows(session, &table).await.is_ok_and(|has_rows| !has_rows) {
            missing.push(table);
        }
    }
    let before = plan.foreign_keys.len();
    plan.foreign_keys.retain(|definition| match &definition.kind {
        DefinitionKind::ForeignKey(key) => !missing.contains(&key.table) && !missing.contains(&key.references),
        _ => true,
    });
    Ok(before - plan.foreign_keys.len())
}

/// Whether any table has other rows than were sent to it.
async fn verify(
    session: &Session,
    tables: &[TableName],
    verification: Verification,
    report: &Report,
) -> Result<Exit, Failure> {
    let (mut exit, mut rows) = (Exit::Done, 0);
    for table in tables {
        let verifier = Verifier::new(verification);
        let verified = report.meters().on_server(ServerStage::Verify, verifier.verify(session, table)).await?;
        let Some(count) = verified.count else { return Ok(Exit::Done) };
        report.verified(&count);
        if !count.matches() {
            let (rows, loaded) =
                (counted(count.rows, "row", "rows"), counted(count.loaded(), "of its file was", "of its file were"));
            report.warn(format!("{table:#} has {rows}, and {loaded} loaded"));
            exit = Exit::Differs;
        } else if let Some(verdict) = &verified.content {
            exit = exit.max(content(table, verdict, report));
        }
        rows += count.rows;
    }
    if !tables.is_empty() && exit == Exit::Done {
        let content = if verification == Verification::Full { ", and their content" } else { "" };
        report.note(format!(
            "verified: {} the {} of their files{content}",
            counted(tables.len(), "table has", "tables have"),
            counted(rows, "row", "rows")
        ));
    }
    Ok(exit)
}

type Fill = BTreeMap<String, BTreeMap<String, String>>;

/// The data set's values for columns that are not exported, and above them those of the flags.
fn fills(dataset: &Dataset, flags: &[String]) -> Result<Fill, Failure> {
    let mut fill = dataset.fill.clone();
    for (column, value) in crate::load::fills(flags)? {
        let Some((table, column)) = column.split_once('.') else {
            return Err(Failure::usage(format!("--fill {column}={value}: that is not TABLE.COLUMN=VALUE")));
        };
        fill.entry(table.to_owned()).or_default().insert(column.to_owned(), value);
    }
    Ok(fill)
}
