use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bulk_s3::{Batch, CsvWriter, NdjsonWriter, ObjectWriter, Page, ParquetWriter, in_order};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tempfile::NamedTempFile;

use crate::arguments::{Common, List, ListFormat};
use crate::exit::{Exit, Failure};
use crate::keys::{self, Keys, Listed};
use crate::report::Report;
use crate::source::Place;

pub(crate) async fn run(list: &List, common: &Common, report: &Report) -> Result<Exit, Failure> {
    if common.json && list.out.is_none() {
        return Err(Failure::usage("--json has standard output for its events: --out FILE is for the keys"));
    }
    if list.format == ListFormat::Parquet && list.out.is_none() {
        return Err(Failure::usage("--format parquet needs --out FILE"));
    }
    let mut listed = Listed::new();
    let mut pages = pages(list, report)?;
    if common.dry_run {
        report.planned(&format!("list {}", list.source), serde_json::json!({"source": list.source}));
        return Ok(Exit::Done);
    }
    let mut output = Output::open(list)?;
    let mut found = 0;
    loop {
        let Some(page) = common.stop.run_until_cancelled(pages.try_next()).await else {
            return Ok(Exit::Interrupted);
        };
        let Some(page) = page? else { break };
        listed.add(&page);
        found += page.objects.len() as u64;
        match tokio::task::block_in_place(|| output.write(&page.objects)) {
            Ok(()) => {}
            // Whoever read it has enough.
            Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
            Err(error) => return Err(error.into()),
        }
        listed.tell(found, "of them meant", report);
    }
    match tokio::task::block_in_place(|| output.finish()) {
        Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
        finished => finished.map_err(Failure::from)?,
    }
    listed.end(found, "of them meant", report);
    Ok(Exit::Done)
}

fn pages(list: &List, report: &Report) -> Result<BoxStream<'static, Result<Page, bulk_s3::Error>>, Failure> {
    let keys = Keys::open(&list.source, &list.bucket, &list.keys, report)?;
    let options = keys.list_options(vec![bulk_s3::KeyRange::all()]);
    let ranges = options.ranges.clone();
    let pages = keys.bucket.pages(options);
    Ok(if list.unsorted { pages.boxed() } else { in_order(pages, &ranges, &std::env::temp_dir()) })
}
