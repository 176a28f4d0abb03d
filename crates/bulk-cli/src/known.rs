//! `bulk known`: what is known, to files and from them.

use bulk_s3::{KeyRange, export_known, import_known, open_objects};
use serde_json::json;

use crate::arguments::{BucketArguments, Common, Export, Import, Known, KnownAction};
use crate::counted::counted;
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::output::{self, Rows, is_closed_pipe};
use crate::report::Report;
use crate::store::Place;

pub(crate) async fn run(known: &Known, common: &Common, report: &Report) -> Result<Exit, Failure> {
    match &known.action {
        KnownAction::Import(import) => take(import, common, report).await,
        KnownAction::Export(export) => write(export, common, report).await,
    }
}

/// The bucket whose objects are meant: `s3://bucket`, or that of a data set.
fn bucket(named: &str) -> Result<String, Failure> {
    let (source, _) = Dataset::locate_bucket(named, &BucketArguments::default())?;
    // A data set is what stands below a prefix, and what is known is said of all of its bucket.
    let is_dataset = source != named;
    let (name, prefix) =
        source.strip_prefix("s3://").map_or(("", ""), |rest| rest.split_once('/').unwrap_or((rest, "")));
    if name.is_empty() || !(prefix.is_empty() || is_dataset) {
        return Err(Failure::usage(format!("{named:?}: what is known is of a whole bucket, s3://bucket")));
    }
    Ok(name.to_owned())
}

async fn take(import: &Import, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let bucket = bucket(&import.source)?;
    let place = Place::required(&import.store)?;
    let file = import.file.display();
    if !import.file.is_file() {
        return Err(Failure::usage(format!("{file} is no file")));
    }
    let reader = open_objects(&import.file, Some(&bucket))?;
    if common.dry_run {
        report.planned(&format!("make known what {file} has"), json!({"file": import.file}));
        return Ok(Exit::Done);
    }
    let store = place.open(&import.store, &bucket, true, report).await?;
    let imported = import_known(&*store.known, reader).await?;
    let (objects, passed_over) = (imported.objects, imported.passed_over);
    let text = format!(
        "{} known of {file}; {} of other buckets",
        counted(objects, "object is", "objects are"),
        counted(passed_over, "row is", "rows are")
    );
    report.event("imported", &text, json!({"objects": objects, "passed_over": passed_over}));
    Ok(Exit::Done)
}

async fn write(export: &Export, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let bucket = bucket(&export.source)?;
    let place = Place::required(&export.store)?;
    output::check(&export.output, common.json)?;
    let store = place.open(&export.store, &bucket, false, report).await?;
    if common.dry_run {
        let identity = store.known.identity();
        report.planned(&format!("write what is known in {identity}"), json!({"store": identity}));
        return Ok(Exit::Done);
    }
    let written = async {
        let (destination, rows) = Rows::open(&export.output, &bucket).await?;
        let (bytes, objects) = export_known(&*store.known, &KeyRange::all(), rows).await?;
        tokio::task::block_in_place(|| destination.finish(bytes))?;
        Ok(objects)
    };
    let objects: u64 = match written.await {
        // Whoever read it has enough.
        Err(failure) if is_closed_pipe(&failure) => return Ok(Exit::Done),
        written => written?,
    };
    report.event(
        "exported",
        &format!("{} written", counted(objects, "known object", "known objects")),
        json!({"objects": objects}),
    );
    Ok(Exit::Done)
}
