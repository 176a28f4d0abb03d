//! What has come of a call, as it waits for the reader, and calls that are too long to wait as a whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use url::Url;

use super::call::{Crawled, CrawledRecord, Effort, Page, Quarantined, Trail, WaitsFirst, key, shown, unprepared};
use super::engine::{Input, Shared};
use super::meter::CallMeter;
use super::room::Held;
use super::template::Prepared;
use crate::Error;
use crate::meter::{Wait, WorkerMeter};

/// How much of a part there is at least where memory is used up: the whole is so many times as much.
const LEAST: u64 = 16;
/// So many pages are kept when a crawl is stopped, whatever their place.
const WORTH_KEEPING: usize = 8;

/// What came of a call or a part of it. Its pages are parsed when the reader takes it, and not before: values take several
/// times as much memory as their text.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) key: String,
    pub(super) request: String,
    pub(super) at: Option<String>,
    pub(super) next: Option<String>,
    pub(super) records: Vec<ArrivedRecord>,
    pub(super) effort: Effort,
    pub(super) elapsed: Duration,
    pub(super) held: Held,
    /// Whose other end ends when the reader takes it.
    pub(super) taken: Option<oneshot::Sender<()>>,
    /// The worker that waits for the reader to take it.
    pub(super) meter: Option<WorkerMeter>,
}

#[derive(Debug)]
pub(super) struct ArrivedRecord {
    pub(super) place: u64,
    pub(super) record: Value,
    /// The texts of its pages, which were parsed when they came.
    pub(super) outcome: Result<Vec<Bytes>, Quarantined>,
}

impl Arrived {
    /// For the reader.
    pub(super) fn read(self) -> Crawled {
        let Self { key, request, at, next, records, effort, elapsed, held, taken, meter } = self;
        drop((taken, meter));
        let read = |ArrivedRecord { place, record: input, outcome }: ArrivedRecord| {
            let pages = outcome.and_then(|texts| {
                let pages: Result<_, _> = texts.iter().map(|text| serde_json::from_slice(text)).collect();
                pages.map_err(|error| failed(&request, format!("a page that was JSON cannot be read again: {error}")))
            });
            CrawledRecord { place, input, outcome: pages }
        };
        let records = records.into_iter().map(read).collect();
        let Effort { requests, bytes } = effort;
        Crawled { key, request, at, next, records, requests, elapsed, bytes, _held: held }
    }
}

fn failed(request: &str, what: String) -> Quarantined {
    let error = Arc::new(Error::Protocol { location: request.to_owned(), what });
    Quarantined { request: request.to_owned(), status: None, response: None, error }
}

/// The way of parts to the reader, of the call with this number.
pub(super) struct Parts {
    pub(super) number: u64,
    pub(super) sender: mpsc::Sender<(u64, Arrived)>,
}

/// A part that is being fetched.
struct Pages {
    begun: Instant,
    at: Option<String>,
    texts: Vec<Bytes>,
    effort: Effort,
    held: Held,
}

impl Pages {
    fn begin(shared: &Arc<Shared>, call: u64, at: Option<String>) -> Self {
        let held = Held::new(shared, call);
        Self { begun: Instant::now(), at, texts: Vec::new(), effort: Effort::default(), held }
    }
}

impl Shared {
    /// Makes a call for one record, whose first request is prepared, if it can be. Gives its last part: others go to `parts`,
    /// each when the reader has taken the one before it. If the crawl is stopped meanwhile it gives what is there, and another
    /// run goes on behind it, or nothing.
    pub(super) async fn single_call(
        self: &Arc<Self>,
        input: Input,
        prepared: Result<Prepared, String>,
        first_wait: WaitsFirst,
        parts: &Parts,
        meter: &CallMeter,
    ) -> Option<Arrived> {
        let Input { place, record, at } = input;
        let request = shown(&[&record], &prepared);
        let key = key(&request, [&record]);
        let arrived = |pages: Pages, next, outcome, taken| {
            let Pages { begun, at, effort, held, .. } = pages;
            let records = vec![ArrivedRecord { place, record: record.clone(), outcome }];
            let (key, request, elapsed) = (key.clone(), request.clone(), begun.elapsed());
            Arrived { key, request, at, next, records, effort, elapsed, held, taken, meter: None }
        };
        let mut pages = Pages::begin(self, parts.number, at);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(what) => return Some(arrived(pages, None, Err(unprepared(&[&record], what)), None)),
        };
        let (mut url, mut trail) = (None, Trail::default());
        if let Some(at) = &pages.at {
            match self.goes_on(&prepared, at) {
                Some((next, before)) => (url, trail.pages) = (Some(next), before),
                None => {
                    let what =
                        format!("an earlier run has left its first pages, and nobody can tell what follows {at:?}");
                    return Some(arrived(pages, None, Err(failed(&request, what)), None));
                }
            }
        }
        let mut first_wait = Some(first_wait);
        loop {
            let first_wait = first_wait.take();
            let Pages { effort, held, .. } = &mut pages;
            let page = self.next_page(&prepared, url.clone(), &mut trail, effort, first_wait, held, meter).await;
            let Some(page) = page else {
                // Where its place may be good for nothing later, as a cursor that has expired, a few pages are not worth it: it
                // would not be asked for from the beginning again.
                let lasts = self.pagination.as_ref().is_some_and(|pages| pages.lasts());
                let is_part = lasts
                    || pages.at.is_some()
                    || pages.texts.len() >= WORTH_KEEPING
                    || pages.held.bytes() >= self.options.part_bytes / LEAST;
                let next = url.filter(|_| is_part && !pages.texts.is_empty())?;
                let place = self.place(&prepared, &next, &trail)?;
                let texts = std::mem::take(&mut pages.texts);
                return Some(arrived(pages, Some(place), Ok(texts), None));
            };
            // What is parsed of it is not kept while others are fetched.
            let next = match page {
                Ok((Page { document, text, .. }, next)) => {
                    pages.texts.extend(document.is_some().then_some(text));
                    next
                }
                Err(failure) => return Some(arrived(pages, None, Err(failure), None)),
            };
            let Some(next) = next else {
                let texts = std::mem::take(&mut pages.texts);
                return Some(arrived(pages, None, Ok(texts), None));
            };
            let least = if self.room.is_full() { self.options.part_bytes / LEAST } else { self.options.part_bytes };
            if pages.held.bytes() >= least {
                match self.place(&prepared, &next, &trail) {
                    Some(place) => {
                        let (taken, was_taken) = oneshot::channel();
                        let texts = std::mem::take(&mut pages.texts);
                        let ended =
                            std::mem::replace(&mut pages, Pages::begin(self, parts.number, Some(place.clone())));
                        // If nobody takes it any more, this is about to be ended, too.
                        let part = arrived(ended, Some(place), Ok(texts), Some(taken));
                        let handed_on = async {
                            let _ = parts.sender.send((parts.number, part)).await;
                            let _ = was_taken.await;
                        };
                        meter.waiting(Wait::Output, handed_on).await;
                        pages.begun = Instant::now();
                    }
                    None if pages.held.bytes() >= self.options.memory => {
                        let what = "its pages are too many to be in memory together, and no part of them can be kept by itself, \
                                    as the URL of the next one has a secret";
                        return Some(arrived(pages, None, Err(failed(&request, what.to_owned())), None));
                    }
                    None => {}
                }
            }
            url = Some(next);
        }
    }

    /// Where a call goes on, for a later run. None if it cannot be said without a secret.
    fn place(&self, prepared: &Prepared, next: &Url, trail: &Trail) -> Option<String> {
        let place = format!("{} {}", trail.pages, self.pagination.as_ref()?.place(next)?);
        (self.template.hide(&prepared.headers, &place) == place).then_some(place)
    }

    /// The URL of such a place, and how many pages are before it.
    fn goes_on(&self, prepared: &Prepared, place: &str) -> Option<(Url, u64)> {
        let (pages, place) = place.split_once(' ')?;
        let url = self.pagination.as_ref()?.at(self.first_url(&prepared.url), place)?;
        // Keys and tokens are meant for this one.
        (url.origin() == prepared.url.origin()).then_some((url, pages.parse().ok()?))
    }
}
