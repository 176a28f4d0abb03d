//! `bulk export`: what has changed goes into archives that are published together.

mod database;
mod meters;
mod ndjson;
mod rejects;
mod spec;
mod upload;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulk_archive::{ExportEvent, ExportOptions, ExportSet, Published, SameContent, Stage, rebuild_indexes, verify_set};
use bulk_core::{FileReport, MeteredRead, Wait};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::meters::ExportMeters;
use self::ndjson::{Change, Lines, Shape};
use self::rejects::Rejects;
pub(crate) use self::spec::Spec;
use self::upload::Target;
use crate::arguments::{Common, ExportArguments};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::inputs::stdin;
use crate::load::decode_options;
use crate::meters::Origin;
use crate::report::{Chain, NowAndThen, Report, size};

/// So many lines are counted at a time.
const LINES: u64 = 1024;

pub(crate) async fn run(arguments: &ExportArguments, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let job = Job::new(arguments, common, report)?;
    let (stop, is_stopped) = (common.stop.clone(), Arc::clone(&job.is_stopped));
    tokio::spawn(async move {
        stop.cancelled().await;
        is_stopped.store(true, Ordering::Relaxed);
    });
    // Rows are staged, and archives made, in threads, so that this one hears of signals.
    match tokio::task::spawn_blocking(move || job.execute()).await.map_err(|error| Failure::new(Exit::Failed, error))? {
        Err(failure) if failure.is_stop() => Ok(Exit::Interrupted),
        result => result,
    }
}

/// What is to be done, and what it takes.
struct Job {
    arguments: ExportArguments,
    spec: Option<Spec>,
    out: PathBuf,
    /// Where the set is brought to when it is published.
    target: Option<Target>,
    /// How many requests at a time do that.
    connections: usize,
    is_dry: bool,
    report: Report,
    meters: Arc<ExportMeters>,
    runtime: Handle,
    stop: CancellationToken,
    /// The same for threads.
    is_stopped: Arc<AtomicBool>,
}

impl Job {
    fn new(arguments: &ExportArguments, common: &Common, report: &Report) -> Result<Self, Failure> {
        let mut spec = arguments.spec.as_deref().map(Spec::read).transpose()?;
        match &mut spec {
            Some(spec) => spec.choose(&arguments.types)?,
            None if arguments.types.is_empty() => {}
            None => return Err(Failure::usage("--type needs a spec that has it")),
        }
        let of_spec = spec.as_ref().and_then(|spec| spec.out.clone());
        let out = arguments.out.clone().or(of_spec);
        let out =
            out.ok_or_else(|| Failure::usage("where archives go is not said: give --out DIR, or out in the spec"))?;
        let target = arguments.to.as_deref().map(|to| Target::open(to, arguments, report)).transpose()?;
        Ok(Self {
            arguments: arguments.clone(),
            spec,
            out,
            target,
            connections: common.jobs(),
            is_dry: common.dry_run,
            report: report.clone(),
            meters: Arc::new(ExportMeters::new(report.meters())),
            runtime: Handle::current(),
            stop: common.stop.clone(),
            is_stopped: Arc::default(),
        })
    }

    fn execute(&self) -> Result<Exit, Failure> {
        let exit = self.execute_here()?;
        if let (Some(target), true) = (&self.target, self.is_dry) {
            target.plan(self)?;
        }
        Ok(exit)
    }

    fn execute_here(&self) -> Result<Exit, Failure> {
        let Self { arguments, .. } = self;
        if arguments.verify {
            self.verify()
        } else if arguments.rebuild_index {
            self.rebuild()
        } else if let Some(file) = &arguments.ndjson {
            self.export_lines(file)
        } else if let Some(folder) = &arguments.loose {
            self.export_loose(folder)
        } else {
            database::export(self)
        }
    }

    /// Waits for something, until the program is to stop.
    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let output = self.runtime.block_on(self.stop.run_until_cancelled(future));
        output.ok_or_else(|| Failure::new(Exit::Interrupted, anyhow::anyhow!("stopped")))
    }

    fn options(&self) -> ExportOptions {
        let Self { arguments, .. } = self;
        let spec = self.spec.as_ref();
        let mut options = ExportOptions::default();
        let archive = &mut options.archive;
        archive.level = arguments.level.or(spec.and_then(|spec| spec.level)).unwrap_or(archive.level);
        archive.block_len = spec.and_then(|spec| spec.block_len).unwrap_or(archive.block_len);
        archive.chain_len = spec.and_then(|spec| spec.chain_len).unwrap_or(archive.chain_len);
        archive.reflink = arguments.reflink || spec.is_some_and(|spec| spec.reflink);
        options.memory = arguments.memory;
        options.keep_empty = arguments.keep_empty || spec.is_some_and(|spec| spec.keep_empty);
        options.all_tar = arguments.all_tar || spec.is_some_and(|spec| spec.all_tar);
        match (&arguments.also, spec) {
            (Some(also), _) => options.shapes = Some(also.0.clone()),
            (None, Some(spec)) => {
                options.shapes.clone_from(&spec.also);
                options.shapes_of.clone_from(&spec.also_of);
            }
            (None, None) => {}
        }
        match (&arguments.whole, spec) {
            (Some(whole), _) => options.whole_shapes = Some(whole.0.clone()),
            (None, Some(spec)) => {
                options.whole_shapes.clone_from(&spec.whole);
                options.whole_shapes_of.clone_from(&spec.whole_of);
            }
            (None, None) => {}
        }
        if let Some(spec) = spec {
            options.columns_of.clone_from(&spec.columns_of);
        }
        if arguments.ignore_times || spec.is_some_and(|spec| spec.ignore_times) {
            options.same_content = SameContent::Keep;
        }
        options.stop = Arc::clone(&self.is_stopped);
        let watch = Watch::new(self.report.clone(), self.meters.clone());
        options.observer = Arc::new(move |event: &ExportEvent<'_>| watch.hear(event));
        options
    }

    fn open(&self) -> Result<ExportSet, Failure> {
        Ok(ExportSet::open(&self.out, self.options())?)
    }

    fn rejects(&self) -> Rejects {
        Rejects::new(self.arguments.max_rejects, self.report.clone())
    }

    /// Publishes what is staged, says what came of it, and brings it to where it is to be, too.
    fn publish(
        &self,
        stage: Stage<'_>,
        watermarks: &BTreeMap<String, String>,
        rejects: &Rejects,
        started: Instant,
    ) -> Result<Exit, Failure> {
        self.meters.end_staging();
        let published = stage.publish(watermarks);
        self.meters.end_publishing();
        let published = published?;
        self.say_published(&published, rejects, started.elapsed());
        let left_out = rejects.count() + rejects.repeated();
        upload::upload(self, if left_out > 0 { Exit::Incomplete } else { Exit::Done })
    }

    fn say_published(&self, published: &Published, rejects: &Rejects, elapsed: Duration) {
        let (rejected, repeated) = (rejects.count(), rejects.repeated());
        let Published { added, replaced, moved, removed, unchanged, made_groups, emptied_groups, made_bytes, .. } =
            *published;
        let Published { made_shapes, removed_shapes, made_shape_bytes, .. } = *published;
        let made = |count: u64, what: String, bytes| match count {
            0 => format!("{what} made"),
            _ => format!("{what} made ({})", size(bytes)),
        };
        let shapes =
            made(made_shapes, format!("{} in other formats", counted(made_shapes, "file", "files")), made_shape_bytes);
        let shapes = match (made_shapes, removed_shapes) {
            (0, 0) => String::new(),
            (_, 0) => format!("; {shapes}"),
            (_, gone) => format!("; {shapes}, {gone} removed"),
        };
        let archives = made(made_groups, counted(made_groups, "archive", "archives"), made_bytes - made_shape_bytes);
        let seconds = elapsed.as_secs_f64();
        let changes = match published.has_changed() {
            true => format!(
                "{} added, {replaced} replaced, {moved} moved, {removed} removed; {archives}, {emptied_groups} removed{shapes}",
                counted(added, "item", "items"),
            ),
            false => "nothing has changed".to_owned(),
        };
        let left_out = match rejected + repeated {
            0 => String::new(),
            left_out => format!("; {left_out} left out"),
        };
        let text = format!(
            "{changes}{left_out}; {} {} ({}); {seconds:.1} s",
            counted(published.archives, "archive has", "archives have"),
            counted(published.entries, "item", "items"),
            size(published.bytes)
        );
        let fields = json!({
            "added": added, "replaced": replaced, "moved": moved, "removed": removed, "unchanged": unchanged,
            "archives_made": made_groups, "archives_removed": emptied_groups, "bytes_made": made_bytes,
            "shapes_made": made_shapes, "shapes_removed": removed_shapes, "shape_bytes_made": made_shape_bytes,
            "archives": published.archives, "items": published.entries, "bytes": published.bytes,
            "rejected": rejected, "repeated": repeated, "seconds": seconds,
        });
        self.report.event("exported", &text, fields);
    }

    fn verify(&self) -> Result<Exit, Failure> {
        let started = Instant::now();
        if self.is_dry {
            let folder = self.out.display().to_string();
            self.report.planned(&format!("verify the archives of {folder}"), json!({"folder": folder}));
            return Ok(Exit::Done);
        }
        if !self.out.is_dir() {
            return Err(Failure::usage(format!("{}: there is no such folder", self.out.display())));
        }
        let found = verify_set(&self.out, &self.options())?;
        for fault in &found.faults {
            let what = Chain(&fault.error).to_string();
            self.report.found(&what, json!({"file": fault.name, "what": what}));
        }
        let (archives, items, faults) = (found.archives, found.entries, found.faults.len());
        let (bytes, seconds) = (found.bytes, started.elapsed().as_secs_f64());
        let verdict = if faults == 0 {
            "all is as it was made".to_owned()
        } else {
            counted(faults, "file differs", "files differ")
        };
        let text = format!(
            "{}, {} ({}): {verdict}; {seconds:.1} s",
            counted(archives, "archive", "archives"),
            counted(items, "item", "items"),
            size(bytes)
        );
        let fields = json!({
            "archives": archives, "items": items, "bytes": bytes, "faults": faults, "seconds": seconds,
        });
        self.report.event("verified", &text, fields);
        if faults > 0 {
            self.report.note(
                "what differs is put back from a copy; or --full makes archives anew of the rows, --rebuild-index their indexes, and \
                 the next run files in other formats that are removed",
            );
        }
        Ok(if faults == 0 { Exit::Done } else { Exit::Differs })
    }

    fn rebuild(&self) -> Result<Exit, Failure> {
        let started = Instant::now();
        let folder = self.out.display().to_string();
        if self.is_dry {
            self.report.planned(&format!("make the indexes of {folder} anew"), json!({"folder": folder}));
            return Ok(Exit::Done);
        }
        if !self.out.is_dir() {
            return Err(Failure::usage(format!("{folder}: there is no such folder")));
        }
        let rebuilt = rebuild_indexes(&self.out, &self.options())?;
        let seconds = started.elapsed().as_secs_f64();
        let text = format!(
            "{} {}; {}, {} made anew, {} in other formats; {seconds:.1} s",
            counted(rebuilt.archives, "archive has", "archives have"),
            counted(rebuilt.entries, "item", "items"),
            counted(rebuilt.indexes, "index was not theirs and is new", "indexes were not theirs and are new"),
            counted(rebuilt.remade, "archive was", "archives were"),
            counted(rebuilt.shapes, "file", "files")
        );
        let fields = json!({
            "archives": rebuilt.archives, "items": rebuilt.entries, "indexes": rebuilt.indexes,
            "archives_made": rebuilt.remade, "shapes_made": rebuilt.shapes, "seconds": seconds,
        });
        self.report.event("rebuilt", &text, fields);
        Ok(Exit::Done)
    }

    fn export_lines(&self, file: &Path) -> Result<Exit, Failure> {
        let started = Instant::now();
        let is_stdin = file.as_os_str() == "-";
        let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
        let shape = match &self.spec {
            Some(spec) if self.arguments.types.len() == 1 => Shape::Item(Box::new(spec.types[0].clone())),
            Some(spec) => Shape::Named(Some(spec.types.iter().map(|item| item.name.clone()).collect())),
            None => Shape::Named(None),
        };
        if self.is_dry {
            self.report.planned(&format!("take changes from {name}"), json!({"source": name}));
            return Ok(Exit::Done);
        }
        let failed = |error| Failure::of_read(&name, error);
        let decoder = if is_stdin {
            let decoder = self.runtime.block_on(stdin::open(&self.stop, decode_options(None), &self.report))?;
            self.report.meters().begin_reading(Origin::Stdin, decoder.codec());
            decoder
        } else {
            let file = File::open(file).map_err(failed)?;
            self.report.meters().decoder(file, &name, decode_options(None)).map_err(failed)?
        };
        let worker = self.meters.begin_staging();
        let decoder = MeteredRead::new(decoder, worker, Wait::Input);
        let mut lines = Lines::new(BufReader::with_capacity(1 << 18, decoder));
        let mut set = self.open()?;
        let mut stage = set.begin()?;
        let (mut rejects, mut said) = (self.rejects(), Said::new());
        let (mut last, mut counted) = (0, 0);
        while let Some((number, line)) = lines.next().map_err(failed)? {
            last = number;
            if number - counted >= LINES {
                self.meters.staged(number - counted);
                counted = number;
            }
            let staged = match shape.read(line) {
                Ok(Change::Put { kind, group, id, mtime, json }) => {
                    stage.put(&kind, &group, &id, mtime, json.as_bytes())
                }
                Ok(Change::Remove { kind, id }) => stage.remove(&kind, &id),
                Err(why) => {
                    rejects.add_line(&name, number, &why)?;
                    continue;
                }
            };
            match staged {
                Err(bulk_archive::Error::Refused { reason, .. }) => {
                    rejects.add_line(&name, number, &reason.to_string())?;
                }
                staged => staged?,
            }
            said.tell(number, "lines read", &self.report);
        }
        self.meters.staged(last - counted);
        self.publish(stage, &BTreeMap::new(), &rejects, started)
    }

    fn export_loose(&self, folder: &Path) -> Result<Exit, Failure> {
        let started = Instant::now();
        if self.is_dry {
            let source = folder.display().to_string();
            self.report.planned(&format!("take items from the files of {source}"), json!({"source": source}));
            return Ok(Exit::Done);
        }
        if !folder.is_dir() {
            return Err(Failure::usage(format!("--loose {}: that is no folder", folder.display())));
        }
        let mut set = self.open()?;
        let mut stage = set.begin()?;
        let mut rejects = self.rejects();
        let mut too_many = None;
        self.meters.begin_staging();
        stage.put_folder(folder, |path, error| {
            let why = match error {
                bulk_archive::Error::Refused { reason, .. } => reason.to_string(),
                other => other.to_string(),
            };
            // It goes on all the same, and publishes nothing.
            if too_many.is_none() {
                too_many = rejects.add_file(path, &why).err();
            }
        })?;
        match too_many {
            Some(failure) => Err(failure),
            None => self.publish(stage, &BTreeMap::new(), &rejects, started),
        }
    }
}

/// Hears what becomes of archives, which people see only with `-v`, and says how far it is.
struct Watch {
    report: Report,
    meters: Arc<ExportMeters>,
    groups: AtomicU64,
    done: AtomicU64,
    said: Mutex<NowAndThen>,
}

impl Watch {
    fn new(report: Report, meters: Arc<ExportMeters>) -> Self {
        let said = Mutex::new(NowAndThen::new());
        Self { report, meters, groups: AtomicU64::new(0), done: AtomicU64::new(0), said }
    }

    fn hear(&self, event: &ExportEvent<'_>) {
        let Self { report, .. } = self;
        self.meters.on_export(event);
        match event {
            ExportEvent::Resuming => report.note("a run that was cut short is finished first"),
            ExportEvent::Staged { groups } => {
                self.groups.store(*groups, Ordering::Relaxed);
                report.minor_event(
                    "staged",
                    &format!("{} may change", counted(*groups, "archive", "archives")),
                    json!({"archives": groups}),
                );
            }
            ExportEvent::Made { kind, group, entries, bytes } => {
                let text =
                    format!("{kind}/{group}: made anew, {} ({})", counted(*entries, "item", "items"), size(*bytes));
                let fields = json!({"type": kind, "group": group, "items": entries, "bytes": bytes});
                report.minor_event("made", &text, fields);
                let mut file = FileReport::default();
                (file.name, file.bytes, file.records) = (format!("{kind}/{group}"), Some(*bytes), Some(*entries));
                report.file(file);
                self.count();
            }
            ExportEvent::Shaped { kind, group, shape, bytes, copied, made } => {
                let text = format!(
                    "{kind}/{group}.{shape}: {} ({} copied, {made} made)",
                    size(*bytes),
                    counted(*copied, "part", "parts")
                );
                let fields = json!({
                    "type": kind, "group": group, "shape": shape.name(), "bytes": bytes,
                    "parts_copied": copied, "parts_made": made,
                });
                report.minor_event("shaped", &text, fields);
            }
            ExportEvent::ShapedWhole { kind, shape, bytes, copied, made } => {
                let text = format!("{kind}.{shape}: {} ({copied} parts copied, {made} made)", size(*bytes));
                let fields = json!({
                    "type": kind, "shape": shape.name(), "bytes": bytes, "parts_copied": copied, "parts_made": made,
                });
                report.minor_event("shaped", &text, fields);
            }
            ExportEvent::Emptied { kind, group } => {
                let text = format!("{kind}/{group}: it is empty");
                report.minor_event("emptied", &text, json!({"type": kind, "group": group}));
                self.count();
            }
            ExportEvent::Untouched { .. } => self.count(),
            ExportEvent::Committed => report.detail("committed: whatever happens now, the new archives are published"),
            _ => {}
        }
    }

    /// One more archive is done.
    fn count(&self) {
        let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).is_time() {
            let groups = self.groups.load(Ordering::Relaxed);
            let text = format!("{done} of {} done", counted(groups, "archive is", "archives are"));
            self.report.progress(text, json!({"archives_done": done, "archives": groups}));
        }
    }
}

/// When it was said last how far an export is.
struct Said {
    started: Instant,
    said: NowAndThen,
}

impl Said {
    fn new() -> Self {
        Self { started: Instant::now(), said: NowAndThen::new() }
    }

    /// Says it, if that was not said of late.
    fn tell(&mut self, count: u64, what: &str, report: &Report) {
        if self.said.is_time() {
            let seconds = self.started.elapsed().as_secs_f64();
            let fields = json!({"count": count, "seconds": seconds});
            report.progress(format!("{count} {what} in {seconds:.0} s"), fields);
        }
    }
}
