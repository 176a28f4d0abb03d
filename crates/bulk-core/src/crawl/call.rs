//! One call: a request, the pages behind it, and the halves of a batch that failed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use super::Batch;
use super::batch::Part;
use super::engine::{Input, Shared};
use super::meter::CallMeter;
use super::part::{Arrived, ArrivedRecord};
use super::room::{BodyRoom, Held};
use super::rule::shortened;
use super::template::{Prepared, Records};
use crate::counted::counted;
use crate::http_client::CANNOT_CONNECT;
use crate::meter::Wait;
use crate::redaction::redacted;
use crate::refusal::wait_of;
use crate::{Error, Event, Permit};

/// How long a key may be, in bytes: those of a database's index have limits.
const LONGEST_KEY: usize = 512;
/// How much of an answer is kept of a failure.
const KEPT: usize = 2048;

/// What came of one call, or of a part of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Crawled {
    /// Names the call in all runs: its method, URL and body, without secrets, and behind `#` a digest of its records, of which
    /// each may have more to say than stands in the request. So the same records make the same key, and equal records that
    /// come twice have one key. At most 512 bytes; the end of a longer request is left out, since the digest is of all.
    pub key: String,
    /// What was requested, as it may be shown: method, URL and body, without secrets and headers.
    pub request: String,
    /// Behind which pages it begins, as `next` said of those before it. `None` of a call that begins with its first page.
    pub at: Option<String>,
    /// Where the call goes on behind these pages, if there are more: they are the next part of it, of the same key. It is for
    /// who makes the same call again in another run, which is told of it by [`Progress::Part`](super::Progress::Part), and has
    /// no secret. `None` of the last part, and of a call that has no other.
    pub next: Option<String>,
    /// Its records, in the order of the input. Of a batch in which the crawl was [stopped](super::CrawlOptions::stop), those
    /// for which something came.
    pub records: Vec<CrawledRecord>,
    /// Requests that were sent for it.
    pub requests: u32,
    /// From the time at which it was taken up until its last answer, waits for the limits included.
    pub elapsed: Duration,
    /// Bytes of the answers' bodies.
    pub bytes: u64,
    /// Its part of the memory.
    pub(super) _held: Held,
}

/// A record of the input, with what came for it.
#[derive(Debug)]
#[non_exhaustive]
pub struct CrawledRecord {
    /// Its place in the input, from 0.
    pub place: u64,
    /// The record, as it was.
    pub input: Value,
    /// The pages of the answer, in their order; in a [batch](super::Batch) its elements of the answer. Or why there is none.
    pub outcome: Result<Vec<Value>, Quarantined>,
}

/// A request that failed for good, for the eyes of a person and the next run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quarantined {
    /// What was requested, without secrets and headers; of a call with pages that which failed.
    pub request: String,
    /// The status of the last answer, if there was one.
    pub status: Option<u16>,
    /// The beginning of its body, without what was sent as a secret.
    pub response: Option<String>,
    /// Why it failed.
    pub error: Arc<Error>,
}

/// What was sent for a call.
#[derive(Debug, Default)]
pub(super) struct Effort {
    pub(super) requests: u32,
    pub(super) bytes: u64,
}

/// A page that has arrived.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// None where there is [nothing](super::Success::nothing).
    pub(super) document: Option<Value>,
    /// The text of the document.
    pub(super) text: Bytes,
}

/// The pages of a call so far: how many, and where they were.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) pages: u64,
    /// Digests of the URLs of those that this run has read.
    seen: HashSet<u64>,
}

/// The last answer to a request that failed.
#[derive(Default)]
struct LastAnswer {
    status: Option<u16>,
    bytes: u64,
    /// What is kept of the body, without secrets.
    response: Option<String>,
}

/// What is sent for a page.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    pub(super) url: Url,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<Bytes>,
    /// As it may be shown.
    pub(super) shown: Cow<'a, str>,
    /// Whether it is for the first page.
    pub(super) is_first: bool,
}

pub(super) fn key<'r>(shown: &str, records: impl IntoIterator<Item = &'r Value>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(shown);
    for record in records {
        hasher.update("\n");
        hasher.update(record.to_string());
    }
    let digest: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let longest = LONGEST_KEY - (" …#".len() + digest.len());
    let (end, cut) = match shown.len() <= longest {
        true => (shown.len(), ""),
        false => ((0..=longest).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or_default(), "…"),
    };
    format!("{}{cut} #{digest}", &shown[..end])
}

/// What is shown of a record that makes no request.
pub(super) fn shown_record(record: &Value) -> String {
    shortened(&record.to_string(), LONGEST_KEY)
}

impl Shared {
    /// Makes a call for several records at once, whose first request is prepared, if it can be.
    pub(super) async fn batch_call(
        self: &Arc<Self>,
        batch: &Batch,
        call: u64,
        records: Vec<Input>,
        prepared: Result<Prepared, String>,
        first_wait: WaitsFirst,
        meter: &CallMeter,
    ) -> Option<Arrived> {
        let begun = Instant::now();
        let mut effort = Effort::default();
        let held = Held::new(self, call);
        let inputs: Vec<&Value> = records.iter().map(|input| &input.record).collect();
        let request = shown(&inputs, &prepared);
        let key = key(&request, inputs.iter().copied());
        let outcomes = self.outcomes(batch, &inputs, prepared, &mut effort, first_wait, &held, meter).await;
        let records = records.into_iter().zip(outcomes);
        let records = records.filter_map(|(Input { place, record, .. }, outcome)| {
            Some(ArrivedRecord { place, record, outcome: outcome? })
        });
        let records: Vec<_> = records.collect();
        let elapsed = begun.elapsed();
        let (at, next, taken, meter) = (None, None, None, None);
        (!records.is_empty()).then_some(Arrived {
            key,
            request,
            at,
            next,
            records,
            effort,
            elapsed,
            held,
            taken,
            meter,
        })
    }

    /// What came for each record, if something did before the crawl was stopped.
    #[expect(clippy::too_many_arguments, reason = "what a call is made of, of which each is needed once")]
    async fn outcomes(
        &self,
        batch: &Batch,
        inputs: &[&Value],
        prepared: Result<Prepared, String>,
        effort: &mut Effort,
        first_wait: WaitsFirst,
        held: &Held,
        meter: &CallMeter,
    ) -> Vec<Option<Result<Vec<Bytes>, Quarantined>>> {
        let mut outcomes: Vec<Option<Result<Vec<Bytes>, Quarantined>>> = inputs.iter().map(|_| None).collect();
        // What is asked for yet, the first of them last.
        let mut parts = vec![(0, inputs.len())];
        let (mut first, mut first_wait) = (Some(prepared), Some(first_wait));
        while let Some((start, end)) = parts.pop() {
            let part = &inputs[start..end];
            let prepared = first.take().unwrap_or_else(|| self.prepare(part));
            let answered = match prepared {
                Err(what) => Err(unprepared(part, what)),
                Ok(prepared) => {
                    let mut trail = Trail::default();
                    let first_wait = first_wait.take();
                    match self.next_page(&prepared, None, &mut trail, effort, first_wait, held, meter).await {
                        Some(answer) => answer.map(|(page, _)| (prepared, page)),
                        None => break,
                    }
                }
            };
            match answered {
                // Of which of them there is nothing, each tells by itself.
                Ok((_, Page { document: None, .. })) if part.len() > 1 => parts.extend(halves(start, end)),
                Ok((_, Page { document: None, .. })) => {
                    outcomes[start..end].iter_mut().for_each(|outcome| *outcome = Some(Ok(Vec::new())));
                }
                Ok((prepared, page)) => {
                    let (status, answer) = (page.status, page.document.unwrap_or_default());
                    // Its elements take its place.
                    held.give_back(page.text.len() as u64);
                    drop(page.text);
                    let hide = |text: &str| self.template.hide(&prepared.headers, text);
                    let failed = |what| {
                        let location = self.location(&prepared.headers, &prepared.url);
                        let error = Error::Answer { location, what, throttle: None, is_lasting: true };
                        let response = Some(shortened(&hide(&answer.to_string()), KEPT));
                        let (request, status) = (prepared.shown.clone(), Some(status));
                        Quarantined { request, status, response, error: Arc::new(error) }
                    };
                    match batch.split(part, &answer, &hide) {
                        Ok(found) => {
                            for (place, found) in (start..end).zip(found) {
                                let outcome = match found {
                                    Part::Found(elements) => {
                                        let texts: Vec<Bytes> =
                                            elements.iter().map(|element| element.to_string().into()).collect();
                                        held.add(texts.iter().map(|text| text.len() as u64).sum());
                                        Ok(texts)
                                    }
                                    // It may be another time.
                                    Part::Broken(_) if part.len() > 1 => {
                                        parts.push((place, place + 1));
                                        continue;
                                    }
                                    Part::Missing(_) if batch.may_miss => Ok(Vec::new()),
                                    Part::Broken(what) | Part::Missing(what) => Err(failed(what)),
                                };
                                if let Some(found) = outcomes.get_mut(place) {
                                    *found = Some(outcome);
                                }
                            }
                        }
                        // One of them may be to blame.
                        Err(_) if part.len() > 1 => parts.extend(halves(start, end)),
                        Err(what) => {
                            if let Some(outcome) = outcomes.get_mut(start) {
                                *outcome = Some(Err(failed(what)));
                            }
                        }
                    }
                }
                Err(failure) if part.len() > 1 && is_of_one(&failure.error) => parts.extend(halves(start, end)),
                Err(failure) => {
                    outcomes[start..end].iter_mut().for_each(|outcome| *outcome = Some(Err(failure.clone())));
                }
            }
        }
        // Each has one, as the parts cover all, unless it was stopped.
        outcomes
    }

    /// The page at `url`, without one the first, and the URL of the next one. `held` has its text then. None if the crawl was
    /// stopped before it was there.
    #[expect(clippy::too_many_arguments, reason = "what a call is made of, of which each is needed once")]
    pub(super) async fn next_page(
        &self,
        prepared: &Prepared,
        url: Option<Url>,
        trail: &mut Trail,
        effort: &mut Effort,
        first_wait: Option<WaitsFirst>,
        held: &Held,
        meter: &CallMeter,
    ) -> Option<Result<(Page, Option<Url>), Quarantined>> {
        let is_first = url.is_none();
        let url = url.unwrap_or_else(|| self.first_url(&prepared.url));
        let mut ask = prepared.ask(url.clone());
        if !is_first {
            ask.is_first = false;
            ask.shown = format!("{} {}", ask.method, self.template.hide(ask.headers, url.as_str())).into();
        }
        let failed = |page: Option<&Page>, what| {
            let error = Error::Protocol { location: redacted(&url), what };
            let document = page.and_then(|page| page.document.as_ref());
            let response = document.map(|document| self.template.hide(ask.headers, &document.to_string()));
            Quarantined {
                request: ask.shown.to_string(),
                status: page.map(|page| page.status),
                response: response.map(|text| shortened(&text, KEPT)),
                error: Arc::new(self.hidden(ask.headers, error)),
            }
        };
        if trail.pages >= self.options.max_pages.max(1) as u64 {
            let what = format!("it has more than {}", counted(self.options.max_pages, "page", "pages"));
            return Some(Err(failed(None, what)));
        }
        if !trail.seen.insert(self.digests.hash_one(url.as_str())) {
            return Some(Err(failed(None, "its pages lead back to one that was read".to_owned())));
        }
        let page = match self.page(&ask, effort, first_wait, held, meter).await? {
            Ok(page) => page,
            Err(failure) => return Some(Err(failure)),
        };
        trail.pages += 1;
        Some(match self.next_url(&url, &page, trail.pages) {
            Ok(next) => Ok((page, next)),
            Err(what) => Err(failed(Some(&page), what)),
        })
    }

    /// One page, by the one retry loop. None if the crawl was stopped before it was there.
    async fn page(
        &self,
        ask: &Ask<'_>,
        effort: &mut Effort,
        first_wait: Option<WaitsFirst>,
        held: &Held,
        meter: &CallMeter,
    ) -> Option<Result<Page, Quarantined>> {
        let body = BodyRoom::new(held, meter);
        let body = &body;
        let last = std::sync::Mutex::new(LastAnswer::default());
        let (requests, bytes) = (AtomicUsize::new(0), std::sync::atomic::AtomicU64::new(0));
        let first_wait = std::sync::Mutex::new(first_wait);
        let is_under_way = AtomicBool::new(false);
        let (last, requests, bytes, first_wait) = (&last, &requests, &bytes, &first_wait);
        let is_under_way = &is_under_way;
        let on_retry = |attempt, delay, error: &Error| {
            self.options.observer.event(&Event::Retry { name: &ask.shown, attempt, delay, error });
        };
        let attempt = move |permit: Permit| {
            // Whoever may begin more calls is to know that this one waits no longer.
            drop(lock(first_wait).take());
            requests.fetch_add(1, Ordering::Relaxed);
            is_under_way.store(true, Ordering::Relaxed);
            async move {
                let mut answer = LastAnswer::default();
                let result = self.attempt(ask, permit, &mut answer, body, meter).await;
                let result = result.map_err(|error| self.once(ask, self.hidden(ask.headers, error)));
                bytes.fetch_add(answer.bytes, Ordering::Relaxed);
                body.keep(result.as_ref().map_or(0, |page| page.text.len() as u64));
                *lock(last) = answer;
                is_under_way.store(false, Ordering::Relaxed);
                // A server that closes the connection meanwhile is not to blame.
                (result, body.has_waited())
            }
        };
        let host = ask.url.host_str().unwrap_or_default();
        // The limiter's leave last: it is not to wait.
        let leave = || async {
            body.expect().await;
            let permit = meter.leave(&self.limiter, host).await;
            if self.options.stop.is_cancelled() {
                permit.unused();
                // Whoever waits for it gives it up now.
                return std::future::pending().await;
            }
            permit
        };
        let request = self.limiter.retry_with(host, leave, &self.options.retry, on_retry, attempt);
        let result = self.unless_stopped(request, is_under_way).await;
        effort.requests += requests.load(Ordering::Relaxed) as u32;
        effort.bytes += bytes.load(Ordering::Relaxed);
        Some(result?.map_err(|error| {
            let LastAnswer { status, response, .. } = std::mem::take(&mut *lock(last));
            Quarantined { request: ask.shown.to_string(), status, response, error: Arc::new(error) }
        }))
    }

    /// What comes of a request with all its attempts. Once the crawl is stopped it is given up as soon as no attempt is under
    /// way: one that was sent may have been answered.
    async fn unless_stopped<T>(&self, request: impl Future<Output = T>, is_under_way: &AtomicBool) -> Option<T> {
        let (mut request, mut stopped) = (pin!(request), pin!(self.options.stop.cancelled()));
        let mut is_stopped = false;
        poll_fn(|context| {
            if let Poll::Ready(ended) = request.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            is_stopped = is_stopped || stopped.as_mut().poll(context).is_ready();
            match is_stopped && !is_under_way.load(Ordering::Relaxed) {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }

    async fn attempt(
        &self,
        ask: &Ask<'_>,
        permit: Permit,
        last: &mut LastAnswer,
        room: &BodyRoom<'_>,
        meter: &CallMeter,
    ) -> Result<Page, Error> {
        // Hidden first, and cut afterwards.
        let kept = |body: &[u8]| shortened(&self.template.hide(ask.headers, &String::from_utf8_lossy(body)), KEPT);
        let asked = self.client.ask(ask.method.clone(), &ask.url, ask.headers.clone(), ask.body.clone());
        let answer = meter.waiting(Wait::Server, asked).await?;
        permit.answered();
        let (status, location) = (answer.status, answer.location().to_owned());
        last.status = Some(status);
        let headers = answer.headers.clone();
        let hide = |text: &str| self.template.hide(ask.headers, text);
        let may_be_nothing = ask.is_first || self.pagination.as_ref().is_some_and(|pages| pages.tries_pages());
        let is_nothing = self.success.is_nothing(status);
        if is_nothing && may_be_nothing {
            meter.add(0);
            return Ok(Page { status, headers, document: None, text: Bytes::new() });
        }
        // A page that another one has announced is there, or the call lacks it and what is behind it.
        if is_nothing || !self.success.has_status(status) {
            let (error, body) = answer.refusal_hiding(&|text| hide(&text)).await;
            (last.bytes, last.response) = (body.len() as u64, Some(kept(&body)));
            let wait = self.asked_wait(status, &headers, &body);
            // One that is a throttle by its status already says itself for how long.
            if wait.is_none() || error.is_throttle() && error.retry_after() == wait {
                return Err(error);
            }
            let reason = match &error {
                Error::Status { reason: Some(reason), .. } | Error::Denied { reason: Some(reason), .. } => {
                    format!(" ({reason})")
                }
                _ => String::new(),
            };
            let what = format!("the server answered {status}{reason}");
            return Err(Error::Answer { location, what, throttle: wait, is_lasting: false });
        }
        let read = answer.read_with(self.options.answer_limit, |bytes| room.grow(bytes));
        let body = meter.waiting(Wait::Network, read).await?;
        room.answered(body.len() as u64);
        last.bytes = body.len() as u64;
        let text = match body.is_empty() && matches!(status, 204 | 205) {
            // They have none (RFC 9110, sections 15.3.5 and 15.3.6).
            true => Bytes::from_static(b"null"),
            false => body,
        };
        let document = serde_json::from_slice(&text).map_err(|error| Error::Answer {
            location: location.clone(),
            what: format!("its body is no JSON: {error}"),
            throttle: None,
            is_lasting: false,
        });
        let judged = document.and_then(|document| self.success.judge(&location, &document, &hide).map(|()| document));
        let document = judged.inspect_err(|_| last.response = Some(kept(&text)))?;
        meter.add(text.len() as u64);
        Ok(Page { status, headers, document: Some(document), text })
    }

    /// For how long a refusal asks everybody to wait, by its header or its body: whatever its status, it is one of who asks too
    /// often, and no last word. GitHub's is a 403.
    fn asked_wait(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
        // Behind a redirect it is a wait before that is followed (RFC 9110, section 10.2.3).
        // One of no time asks for nothing, as in a body.
        let by_header = wait_of(headers).filter(|wait| status >= 400 && !wait.is_zero());
        let Ok(document) = serde_json::from_slice::<Value>(body) else { return by_header };
        if self.success.is_lasting(&document) {
            return None;
        }
        by_header.max(self.success.wait(&document))
    }

    /// The error of a request that must not be repeated where it may have been carried out.
    fn once(&self, ask: &Ask<'_>, error: Error) -> Error {
        let is_unknown = match &error {
            Error::Transport { what, .. } => *what != CANNOT_CONNECT,
            Error::Truncated { .. } => true,
            _ => false,
        };
        if !is_unknown || self.options.repeat || ask.method.is_idempotent() {
            return error;
        }
        let location = self.location(ask.headers, &ask.url);
        Error::Unrepeatable { location, source: Box::new(error) }
    }

    /// A URL as messages show it.
    fn location(&self, headers: &HeaderMap, url: &Url) -> String {
        self.template.hide(headers, &redacted(url))
    }

    /// The error without what was sent as a secret, in whatever it says.
    fn hidden(&self, headers: &HeaderMap, mut error: Error) -> Error {
        let texts: [Option<&mut String>; 2] = match &mut error {
            Error::Answer { location, what, .. }
            | Error::Protocol { location, what }
            | Error::Changed { location, what }
            | Error::Corrupt { location, what } => [Some(location), Some(what)],
            Error::Status { location, reason, .. } | Error::Denied { location, reason } => {
                [Some(location), reason.as_mut()]
            }
            Error::NotFound { location }
            | Error::Truncated { location, .. }
            | Error::TooLarge { location, .. }
            | Error::Interrupted { location } => [Some(location), None],
            Error::Transport { location, source, .. } => {
                let text = source.to_string();
                let hidden = self.template.hide(headers, &text);
                if hidden != text {
                    *source = hidden.into();
                }
                [Some(location), None]
            }
            // No other one comes of a request.
            _ => [None, None],
        };
        for text in texts.into_iter().flatten() {
            *text = self.template.hide(headers, text);
        }
        error
    }

    pub(super) fn first_url(&self, url: &Url) -> Url {
        self.pagination.as_ref().map_or_else(|| url.clone(), |pagination| pagination.first(url.clone()))
    }

    fn next_url(&self, url: &Url, page: &Page, number: u64) -> Result<Option<Url>, String> {
        let (Some(pagination), Some(document)) = (&self.pagination, &page.document) else { return Ok(None) };
        pagination.next(url, &page.headers, document, number)
    }

    /// The request for these records.
    pub(super) fn prepare(&self, records: &[&Value]) -> Result<Prepared, String> {
        let differing = self.batch.as_ref().map(|batch| (batch.field.as_str(), batch.several));
        self.template.fill(Records { records, differing })
    }
}

impl Prepared {
    fn ask(&self, url: Url) -> Ask<'_> {
        Ask {
            method: &self.method,
            url,
            headers: &self.headers,
            body: self.body.clone(),
            shown: Cow::Borrowed(&self.shown),
            is_first: true,
        }
    }
}

/// What is shown of a call for these records.
pub(super) fn shown(inputs: &[&Value], prepared: &Result<Prepared, String>) -> String {
    match prepared {
        Ok(prepared) => prepared.shown.clone(),
        Err(_) => inputs.first().map(|input| shown_record(input)).unwrap_or_default(),
    }
}

/// The failure of records of which no request can be made.
pub(super) fn unprepared(inputs: &[&Value], what: String) -> Quarantined {
    let request = inputs.first().map(|input| shown_record(input)).unwrap_or_default();
    Quarantined { request, status: None, response: None, error: Arc::new(Error::Record { what }) }
}

/// Whether a failure may be one record's: the server understood who asks, and answered.
fn is_of_one(error: &Error) -> bool {
    match error {
        Error::Exhausted { source, .. } => is_of_one(source),
        Error::Transport { .. } | Error::Unrepeatable { .. } | Error::Denied { .. } => false,
        // Of a gateway: it is the server behind it that did not answer.
        Error::Status { status: 502 | 504, .. } => false,
        error => !error.is_throttle(),
    }
}

/// The first half last.
fn halves(start: usize, end: usize) -> [(usize, usize); 2] {
    let middle = start + (end - start) / 2;
    [(middle, end), (start, middle)]
}

/// Counts a call as one that waits for its first permit, until it is dropped.
pub(super) struct WaitsFirst(pub(super) Arc<Shared>);

impl WaitsFirst {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for WaitsFirst {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.news.notify_one();
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_differ() {
        let record = |name: &str| serde_json::json!({"id": 1, "name": name});
        let one = key("GET http://host/1", &[record("a")]);
        assert_eq!((one.len(), one.split_once(" #").unwrap().0), (17 + 2 + 16, "GET http://host/1"));
        assert_ne!(one, key("GET http://host/1", &[record("b")]));
        let long = |end: char| key(&format!("GET http://host/{}{end}", "ä".repeat(400)), &[record("a")]);
        assert!(long('1').len() <= LONGEST_KEY && long('1') != long('2'), "{}", long('1'));
        assert_eq!((long('1'), &long('1')[..400]), (long('1'), &long('2')[..400]));
    }
}
