//! The published set on its way to a bucket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulk_archive::{SetFiles, SetManifest};
use bulk_s3::{Bucket, FileSet, FileSetManifest, SetEvent, SetFile, SetOptions, SetPlan, Uploaded, compare_set};
use serde_json::json;

use super::Job;
use crate::arguments::ExportArguments;
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::report::{Chain, Report, size};
use crate::source::Place;

const MANIFEST: &str = "manifest.json";
/// Beside what `bulk-archive` knows of the set.
const NOTES: &str = ".bulk/uploads";

/// Where the set is to be, too.
pub(super) struct Target {
    bucket: Bucket,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Target {
    pub(super) fn open(to: &str, arguments: &ExportArguments, report: &Report) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("--to {to}: archives go to s3://bucket/prefix"));
        if !to.starts_with("s3://") {
            return Err(wrong());
        }
        let Place::Bucket { bucket, mut prefix } = Place::open(to, &arguments.bucket, report)? else {
            return Err(wrong());
        };
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self { bucket: *bucket, prefix })
    }

    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket.name(), self.prefix)
    }

    /// Brings what the folder has to the bucket. Nobody publishes another set there meanwhile.
    pub(super) fn upload(&self, job: &Job) -> Result<(), Failure> {
        let started = Instant::now();
        let report = &job.report;
        let uploaded = self.compare(job).and_then(|plan| {
            let (files, removals) = (plan.uploads().len(), plan.removals().len());
            let bytes: u64 = plan.uploads().map(|file| file.size).sum();
            let uploads = counted(files, "file is", "files are");
            let text = format!("{uploads} to be uploaded ({}), {removals} to be removed", size(bytes));
            report.minor_event("compared", &text, json!({"files": files, "bytes": bytes, "removed": removals}));
            let progress = (files > 0).then(|| Progress::start_upload(report, bytes));
            let uploaded = job.wait(plan.upload());
            job.meters.end_uploads();
            drop(progress);
            Ok(uploaded??)
        });
        match uploaded {
            Ok(uploaded) => {
                self.say(&uploaded, started.elapsed(), report);
                Ok(())
            }
            Err(failure) => {
                let out = job.out.display();
                report.note(format!(
                    "the archives are published in {out}; the same command again brings to {} what is missing there",
                    self.location()
                ));
                Err(failure)
            }
        }
    }

    /// Says what an upload of what the folder has now would do.
    pub(super) fn plan(&self, job: &Job) -> Result<(), Failure> {
        let location = self.location();
        if !job.out.join(MANIFEST).exists() {
            let text = format!("upload to {location} what is made: there is nothing yet");
            job.report.planned(&text, json!({"to": location}));
            return Ok(());
        }
        let plan = self.compare(job)?;
        for file in plan.uploads() {
            let text = format!("upload {} ({})", file.name, size(file.size));
            job.report.planned(&text, json!({"upload": file.name, "bytes": file.size}));
        }
        for name in plan.removals() {
            job.report.planned(&format!("remove {name}"), json!({"remove": name}));
        }
        let text = match plan.is_done() {
            true => format!("{location} has what the folder has now"),
            false => format!("upload to {location} what the folder has now, and what is made"),
        };
        job.report.planned(&text, json!({"to": location}));
        Ok(())
    }

    fn compare(&self, job: &Job) -> Result<SetPlan, Failure> {
        let found = SetFiles::find(&job.out, &job.options())?;
        let files = found.files.into_iter().map(|path| {
            let mut file = SetFile::new(&path.name, job.out.join(&path.name), path.bytes, path.sha256);
            file.content_type = content_type(&path.name).map(str::to_owned);
            file.stands_alone = path.name.ends_with("/info.json");
            file
        });
        let mut manifest = FileSetManifest::new(MANIFEST, found.manifest);
        manifest.content_type = content_type(MANIFEST).map(str::to_owned);
        let mut set = FileSet::new(&self.prefix, files.collect(), manifest);
        let kinds = found.kinds;
        set.is_own = Arc::new(move |name| SetFiles::is_name_among(&kinds, name));
        let mut options = SetOptions::default();
        options.concurrency = job.connections;
        options.notes = Some(job.out.join(NOTES));
        let (report, meters) = (job.report.clone(), job.meters.clone());
        options.observer = Arc::new(move |event: &SetEvent<'_>| {
            meters.on_upload(event);
            hear(event, &report);
        });
        let read_manifest = |bytes: &[u8]| Some(SetManifest::parse(bytes, MANIFEST).ok()?.files());
        Ok(job.wait(compare_set(&self.bucket, set, options, &read_manifest))??)
    }

    fn say(&self, uploaded: &Uploaded, elapsed: Duration, report: &Report) {
        let Uploaded { files, bytes, copied, kept, removed, aborted, .. } = *uploaded;
        let (location, seconds) = (self.location(), elapsed.as_secs_f64());
        let changes = match (files, removed) {
            (0, 0) => "nothing was missing".to_owned(),
            _ => {
                let of_which = match copied {
                    0 => String::new(),
                    _ => format!(", {} of it copied there", size(copied)),
                };
                format!("{} uploaded ({}{of_which}), {removed} removed", counted(files, "file", "files"), size(bytes))
            }
        };
        let text = format!("{location}: {changes}; {kept} were there; {seconds:.1} s");
        let fields = json!({
            "to": location, "files": files, "bytes": bytes, "copied": copied, "kept": kept, "removed": removed,
            "aborted": aborted, "seconds": seconds,
        });
        report.event("uploaded", &text, fields);
    }
}

fn hear(event: &SetEvent<'_>, report: &Report) {
    match event {
        SetEvent::Aborted { uploads } => {
            let aborted = counted(*uploads, "upload is", "uploads are");
            report.note(format!("{aborted} aborted, which an earlier run had not finished"));
        }
        SetEvent::NotAborted { error } => report.detail(format!(
            "whether uploads were left unfinished is not known ({}); a rule of the bucket's lifecycle can abort such",
            Chain(*error)
        )),
        SetEvent::Unpublished => report.detail("the bucket's manifest is removed, until all is there"),
        SetEvent::Begun { file } => report.totals().begin_file(&file.name, Some(file.size), 0),
        SetEvent::Sent { file, bytes } | SetEvent::Copied { file, bytes } => {
            report.totals().add_fetched_of(&file.name, *bytes)
        }
        SetEvent::NotCopied { file, error } => {
            report.totals().restart_file(&file.name);
            report.note(format!(
                "{}: it is sent whole, because the server did not copy ({})",
                file.name,
                Chain(*error)
            ));
        }
        SetEvent::NotNoted { file, path, error } => report.warn(format!(
            "{}: the next upload of it will be whole: cannot write {}: {error}",
            file.name,
            path.display()
        )),
        SetEvent::RemovalsNotNoted { path, error } => report.warn(format!(
            "what the set has no more stays in the bucket if this upload is cut short: cannot write {}: {error}",
            path.display()
        )),
        SetEvent::Put { file } => {
            report.totals().end_file(&file.name);
            let text = format!("{}: uploaded ({})", file.name, size(file.size));
            report.minor_event("put", &text, json!({"file": file.name, "bytes": file.size}));
        }
        SetEvent::Published => report.detail("the bucket has the new manifest"),
        SetEvent::Removed { name } => {
            report.minor_event("removed", &format!("{name}: removed"), json!({"file": name}));
        }
        _ => {}
    }
}

fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "gz" => Some("application/gzip"),
        "json" => Some("application/json"),
        "parquet" => Some("application/vnd.apache.parquet"),
        "tar" => Some("application/x-tar"),
        "zst" => Some("application/zstd"),
        _ => None,
    }
}

/// The exit status of an export that is published, and then uploaded.
pub(super) fn upload(job: &Job, exit: Exit) -> Result<Exit, Failure> {
    if let Some(target) = &job.target {
        target.upload(job)?;
    }
    Ok(exit)
}
