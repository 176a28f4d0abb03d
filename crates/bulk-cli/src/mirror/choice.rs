use std::collections::BTreeMap;

use bulk_core::download;
use bulk_pg::{FileIdentity, Schema, TableName};
use bulk_s3::{Object, Snapshot, Wanted, choose_snapshot};
use futures::StreamExt;
use serde_json::json;

use super::Run;
use super::files::{download_options, remove};
use crate::counted::counted;
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::report::size;

pub(super) fn wanted_tables(dataset: &Dataset, only: &[String]) -> Result<BTreeMap<String, TableName>, Failure> {
    let mut tables = dataset.tables()?;
    for base in only {
        if !tables.contains_key(base) {
            let known = tables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("--tables {base}: the data set has no such file; it has {known}")));
        }
    }
    if !only.is_empty() {
        tables.retain(|base, _| only.contains(base));
    }
    Ok(tables)
}

pub(super) async fn choose(run: &Run<'_>) -> Result<Snapshot, Failure> {
    let Run { mirror, dataset, tables, place, report, .. } = run;
    let listing = place.list().await?;
    let mut wanted = Wanted::default();
    // Who asks for a file by name wants it or an error.
    let is_optional = |base: &&String| mirror.tables.is_empty() && dataset.optional.contains(*base);
    wanted.optional = tables.keys().filter(is_optional).cloned().collect();
    wanted.bases = tables.keys().filter(|base| !is_optional(base)).cloned().collect();
    wanted.date = mirror.date;
    let objects = listing.len();
    let snapshot = choose_snapshot(listing, &wanted).map_err(|error| {
        let hint = format!(
            "{} at {}; --date and --tables choose among them",
            counted(objects, "object", "objects"),
            place.location()
        );
        let failure = Failure::from(error);
        Failure { error: failure.error.context(hint), ..failure }
    })?;
    for passed in &snapshot.passed_over {
        report.warn(format!("passed over {passed}"));
    }
    for (base, lack) in &snapshot.missing {
        report.warn(format!("{base} of {} {lack}; it is not loaded", snapshot.date));
    }
    let bytes: u64 = snapshot.files.values().map(|object| object.size).sum();
    let text = format!(
        "{}: snapshot {} of {}, {}, {}",
        dataset.title,
        snapshot.date,
        place.location(),
        counted(snapshot.files.len(), "file", "files"),
        size(bytes)
    );
    let fields = json!({"date": snapshot.date.to_string(), "files": snapshot.files.len(), "bytes": bytes});
    report.event("snapshot", &text, fields);
    Ok(snapshot)
}

/// The schema file of the flags, else of the snapshot, else none: then the tables must be there.
pub(super) async fn read_schema(run: &Run<'_>, snapshot: &Snapshot) -> Result<Schema, Failure> {
    let Run { mirror, place, report, .. } = run;
    let path = match (&mirror.schema, &snapshot.schema) {
        (Some(path), _) => path.clone(),
        (None, Some(object)) => {
            let mut options = download_options(run);
            report.meters().meter_schema(&mut options);
            let mut files = download(place.source(), vec![object.request()], &mirror.dir, options);
            match files.next().await.map(|delivery| delivery.outcome) {
                Some(outcome) => outcome?.path,
                None => return Err(Failure::new(Exit::Failed, anyhow::anyhow!("the schema was not delivered"))),
            }
        }
        (None, None) => {
            report.warn("the snapshot has no schema file; the tables must be in the database");
            return Ok(Schema::default());
        }
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display())))?;
    let schema =
        Schema::parse(&text).map_err(|source| bulk_pg::Error::Schema { file: path.display().to_string(), source })?;
    if let (None, Some(object), false) = (&mirror.schema, &snapshot.schema, mirror.keep_files) {
        remove(run, object);
    }
    Ok(schema)
}

/// What tells a version of an object in the ledger.
pub(crate) fn identity(object: &Object) -> FileIdentity {
    let etag = object.etag.as_ref().map(ToString::to_string);
    let version = etag.or_else(|| object.last_modified.map(|time| time.to_string()));
    FileIdentity::new(&object.key, version, object.size)
}
