use bulk_core::crawl::{CrawlOrder, CrawledRecord};
use futures::StreamExt;
use serde_json::{Value, json};

use super::api::{Api, reason, wrong};
use super::input::Records;
use super::spec::{Rows, Spec};
use crate::arguments::{Common, CrawlArguments};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::Report;

/// Records of which requests are made, unless fewer are asked for.
const RECORDS: usize = 3;
/// Rows of an answer that are shown.
const ROWS: usize = 3;

/// Makes the requests of the first records, and prints the rows that they would give.
pub(super) async fn show(
    arguments: &CrawlArguments,
    spec: &Spec,
    api: &Api<'_>,
    common: &Common,
    report: &Report,
) -> Result<Exit, Failure> {
    let records = Records::open(&spec.input, api, &arguments.database, common, report).await?;
    let limit = arguments.limit.and_then(|limit| usize::try_from(limit).ok());
    let (input, trouble) = records.stream(Some(limit.map_or(RECORDS, |limit| limit.min(RECORDS))));
    let mut crawler = api.of_records();
    crawler.options.order = CrawlOrder::OfInput;
    let mut calls = crawler.crawl(input).map_err(wrong)?;
    let mut exit = Exit::Done;
    while let Some(call) = calls.next().await {
        // Of a call that comes in parts the first one shows how its rows are.
        if call.at.is_some() {
            continue;
        }
        report.planned(&call.request, json!({"request": call.request}));
        for CrawledRecord { input, outcome, .. } in &call.records {
            match outcome {
                Ok(pages) => {
                    for rows in &spec.rows {
                        show_rows(rows, input, pages, report)?;
                    }
                }
                Err(failure) => {
                    exit = Exit::Incomplete;
                    report.warn(format!("{}: {}", failure.request, reason(&failure.error)));
                }
            }
        }
    }
    if common.stop.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    trouble.take().map_or(Ok(exit), Err)
}

fn show_rows(rows: &Rows, input: &Value, pages: &[Value], report: &Report) -> Result<(), Failure> {
    let table = format!("{:#}", rows.table.table);
    let (mut count, mut faults) = (0_u64, 0_u64);
    for page in pages {
        for row in rows.explode.rows(input, page).map_err(|error| Failure::new(Exit::Failed, error))? {
            count += 1;
            faults += u64::from(row.fault().is_some());
            if count <= ROWS as u64 {
                let row = row.to_json();
                report.planned(&format!("  {table}: {row}"), json!({"table": table, "row": row}));
            }
        }
    }
    let more = count.saturating_sub(ROWS as u64);
    if more > 0 {
        report.planned(
            &format!("  {table}: {} more", counted(more, "row", "rows")),
            json!({"table": table, "more": more}),
        );
    }
    if faults > 0 {
        let text = format!(
            "{table}: {faults} of {} a value that is required, or two of one",
            counted(count, "row lacks", "rows lack")
        );
        report.warn(text);
    }
    Ok(())
}
