mod checks;
mod extract;
mod extracted;
mod meter;
mod plan;
mod verify;
mod workshop;

use std::path::Path;
use std::sync::Arc;

use bulk_core::{
    Algorithm, Delivery, DiskBudget, DownloadOptions, FileReport, Request, Reservation, StagedFile, download,
    staged_records, write_manifest,
};
use futures::StreamExt;
use serde_json::json;

use self::checks::Checks;
use self::extract::Extractor;
use self::plan::{Choice, Planned};
use crate::arguments::{Common, Fetch};
use crate::blocking::blocking;
use crate::counted::counted;
use crate::exit::{Exit, Failure, Tally};
use crate::kept::Kept;
use crate::plain;
use crate::progress::Progress;
use crate::report::{Report, size, sum};
use crate::source::watched;

pub(crate) async fn run(fetch: &Fetch, common: &Common, report: &Report) -> Result<Exit, Failure> {
    if fetch.verify {
        return verify::run(fetch, common, report).await;
    }
    let checks = Checks::new(fetch)?;
    let planned = async { plan::plan(fetch, &Choice::new(fetch).await?, report).await };
    let planned = report.meters().on_listing(planned);
    let Some(planned) = common.stop.run_until_cancelled(planned).await else {
        return Ok(Exit::Interrupted);
    };
    let Planned { source, requests, failures } = planned?;
    let mut tally = Tally::default();
    for failure in &failures {
        report.failure(failure);
        tally.failed(failure);
    }
    let total: u64 = requests.iter().filter_map(|request| request.size).sum();
    report.note(format!("{}, {}", counted(requests.len(), "file", "files"), sum(total, unmeasured(&requests))));
    if common.dry_run {
        for request in &requests {
            let size = request.size.map_or("?".to_owned(), |size| size.to_string());
            let fields = json!({"file": request.name, "key": request.key, "size": request.size});
            report.planned(&format!("{size}\t{}", plain::name(&request.key)), fields);
            tally.done();
        }
        return Ok(tally.exit());
    }

    let budget = fetch.disk.budget(&fetch.out);
    let source = watched(source, report);
    let (extractor, requests) = if fetch.extract {
        extract::refuse_collisions(&requests)?;
        let mut extractor = Extractor::open(fetch, common, source.clone(), &budget, report).await?;
        let requests = extractor.begin(requests, common.jobs(), &mut tally).await;
        (Some(extractor), requests)
    } else {
        extract::end_interrupted(&fetch.out, report).await?;
        check_room(fetch, &requests, &budget, report)?;
        (None, requests)
    };
    let run = Run { fetch, report, checks, extractor, kept: Kept::default(), differs: false, fetched: 0 };
    run.fetch_all(common, source, requests, &budget, tally).await
}

/// Of how many it is not known how large they are.
fn unmeasured(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.size.is_none()).count()
}

/// Refuses files that are more than the user allows, and says it where they cannot all be on the disk at once: that others
/// take them away as they come, nobody can know. Each file is held against the disk when it has its turn.
fn check_room(fetch: &Fetch, requests: &[Request], budget: &DiskBudget, report: &Report) -> Result<(), Failure> {
    let sum = |requests: &mut dyn Iterator<Item = &Request>| {
        requests.filter_map(|request| request.size).fold(0, u64::saturating_add)
    };
    let all = sum(&mut requests.iter());
    let is_there = |request: &Request| {
        let metadata = std::fs::metadata(fetch.out.join(&request.name)).ok();
        metadata.is_some_and(|metadata| Some(metadata.len()) == request.size)
    };
    match (budget.can_ever_fit(all), budget.limit()) {
        (Err(shortage), Some(limit)) if all > limit => {
            let free = shortage.free.map(|free| format!("; {} are free now", size(free))).unwrap_or_default();
            let what = anyhow::anyhow!("the files cannot fit into {}: {shortage}{free}", fetch.out.display());
            return Err(Failure::new(Exit::Disk, what));
        }
        (Err(shortage), _) => report.note(format!("not all files fit at once: {shortage}")),
        (Ok(()), _) => {
            if let Some(shortage) = budget.shortage(sum(&mut requests.iter().filter(|request| !is_there(request)))) {
                report.note(format!("not all files fit now: {shortage}"));
            }
        }
    }
    Ok(())
}

/// What the files of a run go through.
struct Run<'a> {
    fetch: &'a Fetch,
    report: &'a Report,
    checks: Checks,
    extractor: Option<Extractor>,
    kept: Kept,
    /// Whether a check found a difference.
    differs: bool,
    /// Bytes.
    fetched: u64,
}

impl Run<'_> {
    async fn fetch_all(
        mut self,
        common: &Common,
        source: Arc<dyn bulk_core::Source>,
        requests: Vec<Request>,
        budget: &DiskBudget,
        mut tally: Tally,
    ) -> Result<Exit, Failure> {
        let Self { fetch, report, .. } = self;
        let mut options = DownloadOptions::default();
        options.concurrency = common.jobs();
        if self.extractor.is_none() {
            // The files are to stay, so there is nothing that running ahead of the reader could fill.
            options.window = u64::MAX;
        }
        // Archives go when they are extracted.
        options.evict_staged = self.extractor.is_some() && !fetch.keep_archives;
        fetch.disk.apply(budget, &mut options);
        if fetch.sha256 {
            options.digests.push(Algorithm::Sha256);
        }
        let observer = report.clone();
        options.observer = Arc::new(move |event: &bulk_core::Event<'_>| observer.on_download(event));
        options.stop = common.stop.clone();
        report.meters().meter_download(&mut options);

        let total = requests.iter().filter_map(|request| request.size).sum();
        let names: Vec<String> = requests.iter().map(|request| request.name.clone()).collect();
        let head = |place: usize| report.totals().set_head(names.get(place).map(|name| (name.as_str(), None)));
        head(0);
        report.totals().set_unmeasured(unmeasured(&requests));
        let progress = Progress::start(report, total, 0);
        let sizes = self.extractor.as_ref().map(|extractor| extractor.ratios().clone());
        // Asked as files are admitted: what earlier archives came to is known by then.
        let expected: Vec<_> = requests.iter().map(|request| self.checks.expected(request)).collect();
        let plan = requests.into_iter().zip(expected).map(move |(mut request, expected)| {
            request.digests.extend(expected);
            request.extra_space = sizes.as_ref().map_or(0, |ratios| ratios.expected(&request));
            request
        });
        let mut files = download(source, plan, &fetch.out, options);
        let mut is_any_there = false;
        for place in 1.. {
            let Some(Delivery { request, outcome, .. }) = files.next().await else { break };
            let size = outcome.as_ref().ok().map(|staged| staged.size);
            // What was delivered is kept for the next run in any case.
            let outcome = match outcome {
                Ok(_) if common.stop.is_cancelled() => continue,
                Err(bulk_core::Error::Interrupted { .. }) if common.stop.is_cancelled() => continue,
                Ok(staged) => {
                    is_any_there = true;
                    match common.stop.run_until_cancelled(self.take(&request, staged)).await {
                        Some(outcome) => outcome,
                        None => continue,
                    }
                }
                Err(error) => Err(error.into()),
            };
            let mut file = FileReport::default();
            (file.name, file.bytes) = (request.name.clone(), size);
            match outcome {
                Ok(()) => {
                    tally.done();
                    report.file(file);
                }
                Err(failure) if failure.is_stop() && common.stop.is_cancelled() => {}
                Err(failure) => {
                    file.error = Some(format!("{:#}", failure.error));
                    report.file(file);
                    self.differs |= failure.exit == Exit::Differs;
                    report.failure(&failure);
                    tally.failed(&failure);
                }
            }
            head(place);
        }
        drop(files);
        drop(progress);
        if common.stop.is_cancelled() {
            return Ok(Exit::Interrupted);
        }
        if is_any_there {
            let Some(written) = common.stop.run_until_cancelled(manifest(&fetch.out)).await else {
                return Ok(Exit::Interrupted);
            };
            written?;
        }
        report.note(format!("done; {} fetched", size(self.fetched)));
        Ok(match tally.exit() {
            exit @ (Exit::Done | Exit::Disk) => exit,
            _ if self.differs => Exit::Differs,
            exit => exit,
        })
    }

    /// Checks a file and extracts it.
    async fn take(&mut self, request: &Arc<Request>, mut staged: StagedFile) -> Result<(), Failure> {
        self.fetched += staged.fetched;
        let mut fields = json!({"file": request.name, "size": staged.size, "fetched": staged.fetched});
        for digest in &staged.digests {
            fields[digest.algorithm().name()] = digest.to_hex().into();
        }
        self.report.event("fetched", &format!("{} ({})", staged.path.display(), size(staged.size)), fields);
        let mut space = staged.take_space();
        let outcome = self.check_and_extract(request, &staged, &mut space).await;
        // Whatever became of it, what is on the disk counts.
        if let Some(space) = &mut space {
            space.shrink_to_written();
        }
        self.kept.add(space);
        outcome
    }

    async fn check_and_extract(
        &mut self,
        request: &Arc<Request>,
        staged: &StagedFile,
        space: &mut Option<Reservation>,
    ) -> Result<(), Failure> {
        self.checks.check(request, staged, &self.fetch.out, self.report).await?;
        match &mut self.extractor {
            Some(extractor) if extract::is_archive(&request.name) => extractor.extract(request, staged, space).await,
            _ => Ok(()),
        }
    }
}

/// Writes what is in the folder, of this run and of those before, into its manifest.
pub(crate) async fn manifest(folder: &Path) -> Result<(), Failure> {
    let folder = folder.to_owned();
    blocking(move || {
        let records = staged_records(&folder).chain(extracted::members(&folder));
        Ok(write_manifest(&folder, records)?)
    })
    .await
}
