use std::cmp::Reverse;
use std::sync::Arc;

use bulk_core::{DownloadOptions, HttpSource, Request, Source, download};
use bulk_s3::newest_of_each;
use futures::StreamExt;
use serde_json::json;

use crate::arguments::{Common, Fetch};
use crate::dataset::Dataset;
use crate::exit::{Exit, Failure};
use crate::report::{Report, size};
use crate::source::Place;

pub(crate) async fn run(fetch: &Fetch, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let (source, plan) = plan(fetch, report).await?;
    let total: u64 = plan.iter().filter_map(|request| request.size).sum();
    report.note(format!("{} files, {}", plan.len(), size(total)));
    if common.dry_run {
        for request in &plan {
            report.result(&format!(
                "{}\t{}",
                request.size.map_or("?".to_owned(), |size| size.to_string()),
                request.key
            ));
        }
        return Ok(Exit::Done);
    }
    let mut options = DownloadOptions::default();
    options.concurrency = common.jobs;
    // The files are to stay, so there is nothing that running ahead of the reader could fill.
    options.window = u64::MAX;
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
    let ticker = report.ticker();
    let mut files = download(source, plan, &fetch.out, options);
    let mut exit = Exit::Done;
    let mut fetched = 0;
    while let Some(delivery) = files.next().await {
        match delivery.outcome {
            Ok(file) => {
                fetched += file.fetched;
                let text = format!("{} ({})", file.path.display(), size(file.size));
                let fields = json!({"file": delivery.request.name, "size": file.size, "fetched": file.fetched});
                report.event("fetched", &text, fields);
            }
            Err(error) => {
                let failure = Failure::from(error);
                report.failure(&failure);
                // Alone it says why the run failed; among others that did not, the run is incomplete.
                exit = if delivery.place == 0 && exit == Exit::Done { failure.exit } else { Exit::Incomplete };
            }
        }
    }
    drop(ticker);
    report.note(format!("done; {} fetched", size(fetched)));
    Ok(exit)
}

async fn plan(fetch: &Fetch, report: &Report) -> Result<(Arc<dyn Source>, Vec<Request>), Failure> {
    let source = fetch.source.as_str();
    if source.starts_with("http://") || source.starts_with("https://") {
        let path = source.split(['?', '#']).next().unwrap_or(source);
        let (base, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(|| {
            Failure::usage(format!("{path} names no file; a bucket is s3://bucket/prefix with --endpoint"))
        })?;
        return Ok((Arc::new(HttpSource::new(base)?), vec![Request::new(name)]));
    }
    let (place, arguments);
    if source.contains("://") {
        place = Place::open(source, &fetch.bucket, report)?;
    } else {
        let dataset = Dataset::find(source)?;
        arguments = dataset.bucket_arguments(&fetch.bucket);
        place = Place::open(&dataset.source, &arguments, report)?;
    }
    let mut objects = newest_of_each(place.list().await?);
    if objects.is_empty() {
        let what = anyhow::anyhow!("there is nothing at {}", place.location());
        return Err(Failure::new(Exit::Failed, what));
    }
    objects.sort_by_key(|object| Reverse(object.size));
    Ok((place.source(), objects.iter().map(|object| object.request()).collect()))
}
