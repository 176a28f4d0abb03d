//! Items that are rows of a database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bulk_archive::Stage;
use bulk_core::{Algorithm, Digest};
use bulk_pg::{
    ExportSnapshot, ExportSnapshotOptions, ItemQuery, ItemReader, ItemRow, ItemSource, Selection, Session, Since,
    Unseen,
};
use serde_json::json;

use super::rejects::{Rejects, Repeated};
use super::spec::Spec;
use super::{Job, Said};
use crate::counted::counted;
use crate::exit::{Exit, Failure};

/// How far back changes are read where nobody says.
const OVERLAP: Duration = Duration::from_secs(15 * 60);
/// Rows that a sweep misses are read so many at once.
const MISSED_AT_ONCE: usize = 10_000;
/// Ids whose rows are looked at once more are asked for so many at once.
const SETTLED_AT_ONCE: usize = 10_000;
/// Snapshots that are taken where tables are emptied or rewritten behind them.
const SNAPSHOTS: usize = 5;

pub(super) fn export(job: &Job) -> Result<Exit, Failure> {
    let started = Instant::now();
    let Some(spec) = &job.spec else { return Err(Failure::usage("there is no spec")) };
    let url = job.arguments.database.url()?;
    let options = snapshot_options(job, spec);
    if job.is_dry {
        let marks = bulk_archive::read_watermarks(&job.out)?;
        let (snapshot, types) = snapshot(job, spec, url, &options, &marks)?;
        return plan(job, &snapshot, types);
    }
    // Nothing is made for a database that cannot be reached.
    drop(job.wait(Session::connect(url))??);
    // Before the snapshot: one that is older than what another run publishes meanwhile would take that back.
    let mut set = job.open()?;
    let mut marks = BTreeMap::new();
    for item in &spec.types {
        marks.extend(set.watermark(&item.name)?.map(|mark| (item.name.clone(), mark)));
    }
    let known: BTreeSet<String> = set.kinds().into_iter().collect();
    let mut stage = set.begin()?;
    // Before the snapshot, too: all archives are read, and as long as it is open the server keeps dead rows.
    let mended = if job.arguments.full { mend(job, &mut stage, spec)? } else { BTreeSet::new() };
    let (snapshot, types) = snapshot(job, spec, url, &options, &marks)?;
    say_unseen(job, snapshot.unseen());
    let mut run = Run {
        job,
        snapshot: &snapshot,
        stage,
        rejects: job.rejects(),
        said: Said::new(),
        rows: 0,
        read: BTreeMap::new(),
        known: known.clone(),
    };
    job.meters.begin_staging_rows();
    run.remove_gone(&types)?;
    run.put_changed(&types)?;
    for item in &types {
        // Nothing tells what is gone since nobody knows when. An archive that is made anew has what is there, and nothing else.
        let is_told = item.since.is_some() || !known.contains(&item.name);
        if job.arguments.sweep || !is_told || mended.contains(&item.name) {
            run.sweep(item)?;
        }
    }
    for item in &types {
        run.settle(item)?;
    }
    let mark = |item: &Type| (item.name.clone(), Mark::text(snapshot.watermark(), &item.definition));
    let watermarks: BTreeMap<_, _> = types.iter().map(mark).collect();
    let Run { stage, rejects, .. } = run;
    // As long as it is open, the server keeps dead rows.
    drop(snapshot);
    job.publish(stage, &watermarks, &rejects, started)
}

/// Has damaged archives made anew of the rows. The types that have some.
fn mend(job: &Job, stage: &mut Stage<'_>, spec: &Spec) -> Result<BTreeSet<String>, Failure> {
    let mut mended = BTreeSet::new();
    for item in &spec.types {
        let name = &item.name;
        let damaged = stage.mend(name)?;
        if damaged > 0 {
            let text = format!(
                "{name}: {} damaged or missing, and made anew of the rows",
                counted(damaged, "archive is", "archives are")
            );
            job.report.event("mending", &text, json!({"type": name, "archives": damaged}));
            mended.insert(name.clone());
        }
    }
    Ok(mended)
}

fn snapshot_options(job: &Job, spec: &Spec) -> ExportSnapshotOptions {
    let mut options = ExportSnapshotOptions::default();
    options.connections = job.arguments.connections;
    options.time_zone.clone_from(&spec.time_zone);
    options
}

/// Says what the overlap is for.
fn say_unseen(job: &Job, unseen: &[Unseen]) {
    for unseen in unseen {
        match unseen {
            Unseen::OtherRoles => job.report.detail(
                "transactions of other roles cannot be seen (pg_read_all_stats): the overlap has to be longer than they take",
            ),
            Unseen::Primary => job.report.note(
                "the server is a standby, which does not see the open transactions of its primary: the overlap has to be \
                 longer than they take, else rows of theirs are missed",
            ),
            Unseen::Prepared => job.report.note(
                "there are prepared transactions, and nobody can tell when they began: the overlap has to be longer than they \
                 took until they were prepared, else rows of theirs are missed",
            ),
            _ => {}
        }
    }
}

/// A snapshot in which all tables stand as they are, and what is to be read of it.
fn snapshot(
    job: &Job,
    spec: &Spec,
    url: &str,
    options: &ExportSnapshotOptions,
    marks: &BTreeMap<String, String>,
) -> Result<(ExportSnapshot, Vec<Type>), Failure> {
    let mut taken = 0;
    loop {
        let snapshot = job.wait(ExportSnapshot::open(url, options.clone()))??;
        taken += 1;
        match prepare(job, spec, &snapshot, options, marks)? {
            Err(error @ bulk_pg::Error::Rewritten { .. }) if taken < SNAPSHOTS => job.report.note(error),
            types => return Ok((snapshot, types?)),
        }
    }
}

/// A type with what is to be read of it.
struct Type {
    name: String,
    query: ItemQuery,
    /// What the spec says of it, and what else decides about its JSON.
    definition: String,
    /// None where all of it is to be read.
    since: Option<Since>,
    /// Why that is, for people.
    why: &'static str,
}

fn prepare(
    job: &Job,
    spec: &Spec,
    snapshot: &ExportSnapshot,
    options: &ExportSnapshotOptions,
    marks: &BTreeMap<String, String>,
) -> Result<Result<Vec<Type>, bulk_pg::Error>, Failure> {
    let overlap = job.arguments.overlap.or(spec.overlap).unwrap_or(OVERLAP);
    let mut types = Vec::new();
    for source in &spec.types {
        let query = match job.wait(snapshot.prepare(source))? {
            Ok(query) => query,
            Err(error) => return Ok(Err(error)),
        };
        let definition = definition(source, &query, options);
        let mark = marks.get(&source.name).and_then(|mark| Mark::read(mark));
        let (since, why) = match mark {
            None => (None, "nothing is known of an earlier export"),
            Some(mark) if mark.definition != definition => (None, "its spec or its columns are not what they were"),
            Some(mark) => (Some(Since { watermark: mark.time.to_owned(), overlap }), "--full asks for it"),
        };
        types.push(Type { name: source.name.clone(), query, definition, since, why });
    }
    Ok(Ok(types))
}

impl Type {
    /// The rows that are read, and why they are all of them, if they are.
    fn rows(&self, is_full: bool) -> Result<(Selection, Option<&'static str>), Failure> {
        match &self.since {
            Some(_) if !self.query.tells_changes() => Ok((self.query.all(), Some("no column tells what has changed"))),
            Some(since) if !is_full => Ok((self.query.changed(since)?, None)),
            _ => Ok((self.query.all(), Some(self.why))),
        }
    }
}

/// What is kept of a type from one run to the next: from when on its changes are to be read, and what it was.
struct Mark<'a> {
    time: &'a str,
    definition: &'a str,
}

impl<'a> Mark<'a> {
    fn text(time: &str, definition: &str) -> String {
        format!("{time} {definition}")
    }

    fn read(text: &'a str) -> Option<Self> {
        text.split_once(' ').map(|(time, definition)| Self { time, definition })
    }
}

/// Equal for types whose rows and items are the same, and of which the same is told to be gone.
fn definition(source: &ItemSource, query: &ItemQuery, options: &ExportSnapshotOptions) -> String {
    let ItemSource { rows, id, group, modified, json, deletions, .. } = source;
    let (zone, layout) = (options.time_zone.as_deref().unwrap_or("UTC"), query.layout());
    let text = format!("{rows:?} {id:?} {group:?} {modified:?} {json:?} {deletions:?} {zone:?} {layout}");
    let mut digest = Digest::of(Algorithm::Sha256, text.as_bytes()).to_hex();
    digest.truncate(16);
    digest
}

/// Says what would be read.
fn plan(job: &Job, snapshot: &ExportSnapshot, types: Vec<Type>) -> Result<Exit, Failure> {
    for item in types {
        let (rows, why) = item.rows(job.arguments.full)?;
        let count = job.wait(snapshot.count(&rows))??;
        let gone = match item.since.as_ref().map(|since| item.query.gone(since)).transpose()?.flatten() {
            Some(gone) => Some(job.wait(snapshot.count(&gone))??),
            None => None,
        };
        let mut text = match why {
            Some(why) => format!("{}: read all {}, since {why}", item.name, counted(count, "row", "rows")),
            None => format!("{}: read {} that may have changed", item.name, counted(count, "row", "rows")),
        };
        if let Some(gone) = gone {
            text.push_str(&format!(", and {}", counted(gone, "deletion", "deletions")));
        }
        if job.arguments.sweep {
            text.push_str("; look at the ids of all");
        }
        let fields = json!({"type": item.name, "rows": count, "all": why.is_some(), "gone": gone});
        job.report.planned(&text, fields);
    }
    Ok(Exit::Done)
}

/// An export under way.
struct Run<'a, 'set> {
    job: &'a Job,
    snapshot: &'a ExportSnapshot,
    stage: Stage<'set>,
    rejects: Rejects,
    said: Said,
    rows: u64,
    /// Of each type, how many rows were read, and how many ids of such that are gone.
    read: BTreeMap<String, (u64, u64)>,
    /// The types of which something may be published.
    known: BTreeSet<String>,
}

impl Run<'_, '_> {
    /// Removes what the database says is gone. What is there again is not among it.
    fn remove_gone(&mut self, types: &[Type]) -> Result<(), Failure> {
        let (mut selections, mut names) = (Vec::new(), Vec::new());
        for item in types {
            if let Some(since) = &item.since
                && let Some(gone) = item.query.gone(since)?
            {
                selections.push(gone);
                names.push(&item.name);
            }
        }
        let mut reader = self.snapshot.read(selections);
        while let Some(batch) = self.job.meters.reading(|| self.job.wait(reader.next_batch()))?? {
            let name = names[batch.selection()];
            for row in batch.rows() {
                let Some(id) = row?.id else { continue };
                match self.stage.remove(name, id) {
                    // It cannot be there.
                    Err(bulk_archive::Error::Refused { .. }) => {}
                    staged => staged?,
                }
                self.read.entry(name.clone()).or_default().1 += 1;
            }
        }
        Ok(())
    }

    fn put_changed(&mut self, types: &[Type]) -> Result<(), Failure> {
        let mut selections = Vec::new();
        for item in types {
            let (rows, why) = item.rows(self.job.arguments.full)?;
            if let Some(why) = why {
                self.job.report.detail(format!("{}: all rows are read, since {why}", item.name));
            }
            selections.push(rows);
        }
        let names: Vec<&str> = types.iter().map(|item| item.name.as_str()).collect();
        let reader = self.snapshot.read(selections);
        self.put_all(reader, &names)?;
        for kind in names {
            let (rows, gone) = self.read.get(kind).copied().unwrap_or_default();
            // Within the overlap both were read before, and may have no effect any more.
            let text =
                format!("{kind}: {} and {} read", counted(rows, "row", "rows"), counted(gone, "deletion", "deletions"));
            self.job.report.event("read", &text, json!({"type": kind, "rows": rows, "gone": gone}));
        }
        Ok(())
    }

    /// Stages all rows of a reader, of whose selections these are the types.
    fn put_all(&mut self, mut reader: ItemReader, names: &[&str]) -> Result<(), Failure> {
        while let Some(batch) = self.job.meters.reading(|| self.job.wait(reader.next_batch()))?? {
            let name = names[batch.selection()];
            let mut rows = 0;
            for row in batch.rows() {
                self.put(name, row?)?;
                rows += 1;
            }
            self.rows += rows;
            self.job.meters.staged(rows);
            self.read.entry(name.to_owned()).or_default().0 += rows;
            self.said.tell(self.rows, "rows read", &self.job.report);
        }
        Ok(())
    }

    /// Stages a row, if it is an item.
    fn put(&mut self, kind: &str, row: ItemRow<'_>) -> Result<bool, Failure> {
        let why = match (row.id, row.group, row.json) {
            (Some(id), Some(group), Some(json)) => match self.stage.put(kind, group, id, row.mtime, json) {
                Err(bulk_archive::Error::Refused { reason, .. }) => reason.to_string(),
                staged => {
                    staged?;
                    return Ok(true);
                }
            },
            (None, ..) => "it has no id".to_owned(),
            (_, None, _) => "it has no group".to_owned(),
            (.., None) => "it has no JSON".to_owned(),
        };
        self.rejects.add_row(kind, row.id, &why)?;
        Ok(false)
    }

    /// Looks once more at all rows of ids that have several, and of those with a row that was left out: rows come in any order,
    /// and which of them is the item must not be chance. Where none of them can be one, the item that was published is out of
    /// date, and goes.
    fn settle(&mut self, item: &Type) -> Result<(), Failure> {
        let kind = item.name.as_str();
        let rejected = self.rejects.ids_of(kind);
        let ids: Vec<&str> = rejected.iter().map(String::as_str).collect();
        let mut repeated = Repeated::default();
        for ids in ids.chunks(SETTLED_AT_ONCE) {
            self.settle_ids(item, ids, &mut repeated)?;
        }
        if !item.query.ids_are_unique() {
            let mut again = self.stage.repeated(kind)?;
            loop {
                let batch = again.next_batch(SETTLED_AT_ONCE)?;
                if batch.is_empty() {
                    break;
                }
                let ids: Vec<&str> =
                    batch.iter().map(|(id, _)| id.as_str()).filter(|id| !rejected.contains(*id)).collect();
                self.settle_ids(item, &ids, &mut repeated)?;
            }
        }
        self.rejects.add_repeated(kind, &repeated);
        Ok(())
    }

    fn settle_ids(&mut self, item: &Type, ids: &[&str], repeated: &mut Repeated) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let kind = item.name.as_str();
        let mut reader = self.snapshot.read(vec![item.query.versions(ids)?]);
        // The id whose rows come, how many have come, and whether one of them is an item.
        let mut current: Option<(String, u64, bool)> = None;
        while let Some(batch) = self.job.meters.reading(|| self.job.wait(reader.next_batch()))?? {
            for row in batch.rows() {
                let row = row?;
                let Some(id) = row.id else { continue };
                let (rows, is_item) = match current.take_if(|current| current.0 == id) {
                    Some((_, rows, is_item)) => (rows, is_item),
                    None => {
                        self.end_settling(kind, current.take(), repeated)?;
                        (0, false)
                    }
                };
                // Of several changes of an item the last counts.
                let is_item = self.put(kind, row)? || is_item;
                current = Some((id.to_owned(), rows + 1, is_item));
            }
        }
        self.end_settling(kind, current, repeated)
    }

    /// All rows of an id have come.
    fn end_settling(
        &mut self,
        kind: &str,
        settled: Option<(String, u64, bool)>,
        repeated: &mut Repeated,
    ) -> Result<(), Failure> {
        let Some((id, rows, is_item)) = settled else { return Ok(()) };
        repeated.add(&id, rows);
        if !is_item && self.known.contains(kind) {
            match self.stage.remove(kind, &id) {
                // It cannot be there.
                Err(bulk_archive::Error::Refused { .. }) => {}
                staged => staged?,
            }
        }
        Ok(())
    }

    /// Compares all ids with what is published, removes what is gone, and reads what is missing.
    fn sweep(&mut self, item: &Type) -> Result<(), Failure> {
        let kind = item.name.as_str();
        let mut ids = Ids {
            job: self.job,
            reader: self.snapshot.read(vec![item.query.ids()]),
            waiting: VecDeque::new(),
            kind,
            rejects: &mut self.rejects,
            failure: None,
        };
        let swept = self.stage.sweep(kind, &mut ids);
        if let Some(failure) = ids.failure {
            return Err(failure);
        }
        let mut swept = swept?;
        let (listed, removed, missed) = (swept.listed, swept.removed, swept.wanted.len() - swept.repeated);
        let text = format!(
            "{kind}: {}; {} gone, {}",
            counted(listed, "id", "ids"),
            counted(removed, "item is", "items are"),
            counted(missed, "was missed or has moved", "were missed or have moved")
        );
        let fields = json!({"type": kind, "ids": listed, "gone": removed, "missed": missed});
        self.job.report.event("swept", &text, fields);
        loop {
            let batch = swept.wanted.next_batch(MISSED_AT_ONCE)?;
            if batch.is_empty() {
                return Ok(());
            }
            let ids: Vec<&str> = batch.iter().map(|(id, _)| id.as_str()).collect();
            let reader = self.snapshot.read(vec![item.query.of_ids(&ids)?]);
            self.put_all(reader, &[kind])?;
        }
    }
}

/// The ids and groups of all rows, one after another.
struct Ids<'a> {
    job: &'a Job,
    reader: ItemReader,
    waiting: VecDeque<(String, String)>,
    kind: &'a str,
    rejects: &'a mut Rejects,
    /// What ended it early.
    failure: Option<Failure>,
}

impl Iterator for Ids<'_> {
    type Item = io::Result<(String, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.waiting.pop_front() {
                return Some(Ok(item));
            }
            match self.more() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(failure) => {
                    self.failure = Some(failure);
                    return Some(Err(io::Error::other("the ids could not be read")));
                }
            }
        }
    }
}

impl Ids<'_> {
    /// Whether there was anything left.
    fn more(&mut self) -> Result<bool, Failure> {
        let Some(batch) = self.job.meters.reading(|| self.job.wait(self.reader.next_batch()))?? else {
            return Ok(false);
        };
        for row in batch.rows() {
            let row = row?;
            match (row.id, row.group) {
                (Some(id), Some(group)) => self.waiting.push_back((id.to_owned(), group.to_owned())),
                (None, _) => self.rejects.add_row(self.kind, None, "it has no id")?,
                (id, None) => self.rejects.add_row(self.kind, id, "it has no group")?,
            }
        }
        Ok(true)
    }
}
