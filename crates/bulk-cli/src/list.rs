use std::io::{self, Write};

use bulk_core::{ETag, FileReport, InputState, MeteredStream, Wait};
use bulk_s3::{KeyRange, ObjectVersion, ObjectWriter};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::arguments::{Common, List, ListFormat};
use crate::exit::{Exit, Failure};
use crate::keys::{Keys, Listed};
use crate::meters::{Order, WRITE};
use crate::output::{self, Bytes, Destination, Rows, is_closed_pipe};
use crate::report::Report;

pub(crate) async fn run(list: &List, common: &Common, report: &Report) -> Result<Exit, Failure> {
    output::check(&list.output, common.json)?;
    if list.versions && output::format(&list.output) != ListFormat::Ndjson {
        return Err(Failure::usage(
            "--versions are written as NDJSON alone: the other formats have no columns for them",
        ));
    }
    let keys = Keys::open(&list.source, &list.bucket, &list.keys, report).await?;
    if common.dry_run {
        report.planned(&format!("list {}", list.source), serde_json::json!({"source": list.source}));
        return Ok(Exit::Done);
    }
    let listed = match list.versions {
        true => list_versions(list, &keys, common, report).await,
        false => list_objects(list, &keys, common, report).await,
    };
    match listed {
        // Whoever read it has enough.
        Err(failure) if is_closed_pipe(&failure) => Ok(Exit::Done),
        listed => listed,
    }
}

async fn list_objects(list: &List, keys: &Keys, common: &Common, report: &Report) -> Result<Exit, Failure> {
    // First: a listing begins before it is asked for.
    let opened = common.stop.run_until_cancelled(Rows::open(&list.output, keys.bucket.name())).await;
    let Some(opened) = opened else { return Ok(Exit::Interrupted) };
    let (destination, mut rows) = opened?;
    let ranges = vec![KeyRange::all()];
    let mut pages = if list.unsorted { keys.pages(ranges) } else { keys.pages_in_order(ranges) };
    let mut listed = Listed::new();
    let mut found = 0;
    let before = keys.order(!list.unsorted).stage();
    let writer = report.meters().write(list.output.out.is_some(), before);
    loop {
        writer.wait_begins(Wait::Input);
        let page = common.stop.run_until_cancelled(pages.try_next()).await;
        writer.wait_ends();
        let Some(page) = page else { return Ok(Exit::Interrupted) };
        let Some(page) = page? else { break };
        listed.add(page.keys);
        let objects = page.objects.len() as u64;
        found += objects;
        tokio::task::block_in_place(|| rows.write(&page.objects))?;
        writer.add(objects, 0);
        listed.tell(found, "of them meant", report);
    }
    tokio::task::block_in_place(|| destination.finish(rows.finish()?))?;
    drop(writer);
    end(&listed, found, "of them meant", list, report);
    Ok(Exit::Done)
}

/// Says what was listed, and where it is.
fn end(listed: &Listed, found: u64, what: &str, list: &List, report: &Report) {
    listed.end(found, what, report);
    let mut file = FileReport::default();
    file.name = list.output.out.as_ref().map_or("standard output".to_owned(), |out| out.display().to_string());
    (file.records, file.seconds) = (Some(found), Some(listed.seconds()));
    report.file(file);
}

async fn list_versions(list: &List, keys: &Keys, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let opened = common.stop.run_until_cancelled(Destination::open(list.output.out.as_deref())).await;
    let Some(opened) = opened else { return Ok(Exit::Interrupted) };
    let (destination, mut bytes) = opened?;
    let versions = keys.bucket.versions(&keys.prefix).ready_chunks(1000).map(Ok::<_, bulk_s3::Error>);
    let listing = report.meters().listing(true);
    // One task does both.
    listing.set_workers_of(WRITE);
    let count = |versions: &Vec<_>| (versions.len() as u64, 0);
    let mut versions = MeteredStream::new(versions, &listing, InputState::default(), count);
    let mut listed = Listed::new();
    let mut found = 0;
    let writer = report.meters().write(list.output.out.is_some(), Order::Any.stage());
    loop {
        writer.wait_begins(Wait::Input);
        let ready = common.stop.run_until_cancelled(versions.try_next()).await;
        writer.wait_ends();
        let Some(ready) = ready else { return Ok(Exit::Interrupted) };
        let Some(ready) = ready? else { break };
        writer.add(ready.len() as u64, 0);
        for version in ready {
            let version = version?;
            listed.add(1);
            if keys.filter.matches(&version.object.key) {
                found += 1;
                let written = tokio::task::block_in_place(|| write_version(&mut bytes, &version));
                written.map_err(|error| destination.failed(error))?;
            }
        }
        listed.tell(found, "versions meant", report);
    }
    tokio::task::block_in_place(|| destination.finish(bytes))?;
    drop(writer);
    end(&listed, found, "versions meant", list, report);
    Ok(Exit::Done)
}

/// A version as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<jiff::Timestamp>,
    version: &'a str,
    is_latest: bool,
    delete_marker: bool,
}

fn write_version(bytes: &mut Bytes, version: &ObjectVersion) -> io::Result<()> {
    let line = Line {
        key: &version.object.key,
        etag: version.object.etag.as_ref().map(ETag::as_str),
        size: (!version.is_delete_marker).then_some(version.object.size),
        last_modified: version.object.last_modified,
        version: &version.version,
        is_latest: version.is_latest,
        delete_marker: version.is_delete_marker,
    };
    serde_json::to_writer(&mut *bytes, &line)?;
    bytes.write_all(b"\n")
}
