use std::cmp::Reverse;
use std::sync::Arc;

use bulk_core::{DownloadOptions, HttpSource, Request, Source, download};
use bulk_s3::{Object, newest_of_each};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::arguments::{Common, Fetch};
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure, Tally};
use crate::progress::Progress;
use crate::report::{Report, size};
use crate::source::Place;

pub(crate) async fn run(fetch: &Fetch, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let Some(planned) = common.stop.run_until_cancelled(plan(fetch, report)).await else {
        return Ok(Exit::Interrupted);
    };
    let (source, plan) = planned?;
    let total: u64 = plan.iter().filter_map(|request| request.size).sum();
    report.note(format!("{} files, {}", plan.len(), size(total)));
    if common.dry_run {
        for request in &plan {
            let size = request.size.map_or("?".to_owned(), |size| size.to_string());
            let fields = json!({"file": request.name, "key": request.key, "size": request.size});
            report.planned(&format!("{size}\t{}", request.key), fields);
        }
        return Ok(Exit::Done);
    }
    let mut options = DownloadOptions::default();
    options.concurrency = common.jobs;
    // The files are to stay, so there is nothing that running ahead of the reader could fill.
    options.window = u64::MAX;
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
    options.stop = common.stop.clone();
    let progress = Progress::start(report, total, 0);
    let mut files = download(source, plan, &fetch.out, options);
    let (mut fetched, mut tally) = (0, Tally::default());
    while let Some(delivery) = files.next().await {
        match delivery.outcome {
            Ok(file) => {
                fetched += file.fetched;
                tally.done();
                let text = format!("{} ({})", file.path.display(), size(file.size));
                let fields = json!({"file": delivery.request.name, "size": file.size, "fetched": file.fetched});
                report.event("fetched", &text, fields);
            }
            Err(bulk_core::Error::Interrupted { .. }) if common.stop.is_cancelled() => {}
            Err(error) => {
                let failure = Failure::from(error);
                report.failure(&failure);
                tally.failed(&failure);
            }
        }
    }
    drop(progress);
    if common.stop.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    report.note(format!("done; {} fetched", size(fetched)));
    Ok(tally.exit())
}

async fn plan(fetch: &Fetch, report: &Report) -> Result<(Arc<dyn Source>, Vec<Request>), Failure> {
    let source = fetch.source.as_str();
    if source.starts_with("http://") || source.starts_with("https://") {
        let source = source.split('#').next().unwrap_or(source);
        let (path, query) = source.split_once('?').unwrap_or((source, ""));
        let (base, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(|| {
            // Without the URL, which may hold a password.
            Failure::usage("the URL names no file; a bucket is s3://bucket/prefix with --endpoint")
        })?;
        // The source escapes what a key holds.
        let name = percent_decode_str(name)
            .decode_utf8()
            .map_err(|_| Failure::usage(format!("the file name {name:?} in the URL is no UTF-8")))?;
        return Ok((Arc::new(HttpSource::new(&format!("{base}?{query}"))?), vec![Request::new(name)]));
    }
    let (place, arguments);
    if source.contains("://") {
        place = Place::open(source, &fetch.bucket, report)?;
    } else {
        let dataset = Dataset::find(source)?;
        arguments = dataset.bucket_arguments(&fetch.bucket);
        place = Place::open(&dataset.source, &arguments, report)?;
    }
    place.refuse_folder("--out", &fetch.out)?;
    let mut objects = newest_of_each(place.list().await?);
    if objects.is_empty() {
        let what = anyhow::anyhow!("there is nothing at {}", place.location());
        return Err(Failure::new(Exit::Failed, what));
    }
    objects.sort_by_key(|object| Reverse(object.size));
    let request = |object: &Object| {
        let mut request = object.request();
        // Below the prefix, files of one name may stand in several folders.
        request.name = place.name(&object.key).to_owned();
        request
    };
    Ok((place.source(), objects.iter().map(request).collect()))
}
