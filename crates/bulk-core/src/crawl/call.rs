//! One call: a request, the pages behind it, and the halves of a batch that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use super::engine::{Held, Shared};
use super::rule::shortened;
use super::template::{Prepared, Records};
use crate::redaction::redacted;
use crate::{Error, Event, Permit};

/// How long a key may be, in bytes: those of a database's index have limits.
const LONGEST_KEY: usize = 512;
/// How much of an answer is kept of a failure.
const KEPT: usize = 2048;

/// What came of one call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Crawled {
    /// Names the call in all runs: its method, URL and body, without secrets, and behind `#` a digest of its records, of which
    /// each may have more to say than stands in the request. So the same records make the same key, and equal records that
    /// come twice have one key. At most 512 bytes; the end of a longer request is left out, since the digest is of all.
    pub key: String,
    /// What was requested, as it may be shown: method, URL and body, without secrets and headers.
    pub request: String,
    /// Its records, in the order of the input.
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
    /// What was requested, without secrets and headers.
    pub request: String,
    /// The status of the last answer, if there was one.
    pub status: Option<u16>,
    /// The beginning of its body, without what was sent as a secret.
    pub response: Option<String>,
    /// Why it failed.
    pub error: Arc<Error>,
}

/// What was sent for a call.
#[derive(Default)]
struct Effort {
    requests: u32,
    bytes: u64,
}

/// A page that has arrived.
pub(super) struct Page {
    pub(super) headers: HeaderMap,
    pub(super) document: Value,
    pub(super) bytes: u64,
}

/// The last answer to a request that failed.
#[derive(Default)]
struct LastAnswer {
    status: Option<u16>,
    body: Option<Bytes>,
}

/// What is sent for a page.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    pub(super) url: Url,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<Bytes>,
    /// As it may be shown.
    pub(super) shown: &'a str,
}

pub(super) fn key(shown: &str, records: &[(u64, Value)]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(shown);
    for (_, record) in records {
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

impl Shared {
    /// Makes a call whose first request is prepared, if it can be.
    pub(super) async fn call(
        self: &Arc<Self>,
        records: Vec<(u64, Value)>,
        prepared: Result<Prepared, String>,
        first_wait: WaitsFirst,
    ) -> Crawled {
        let begun = Instant::now();
        let mut effort = Effort::default();
        let held = Held::new(self);
        let inputs: Vec<&Value> = records.iter().map(|(_, input)| input).collect();
        let shown = match &prepared {
            Ok(prepared) => prepared.shown.clone(),
            Err(_) => inputs.first().map(|input| shortened(&input.to_string(), LONGEST_KEY)).unwrap_or_default(),
        };
        let key = key(&shown, &records);
        let outcomes = self.outcomes(&inputs, prepared, &mut effort, &held, first_wait).await;
        let records = records.into_iter().zip(outcomes);
        let records = records.map(|((place, input), outcome)| CrawledRecord { place, input, outcome }).collect();
        let elapsed = begun.elapsed();
        let Effort { requests, bytes } = effort;
        Crawled { key, request: shown, records, requests, elapsed, bytes, _held: held }
    }

    async fn outcomes(
        &self,
        inputs: &[&Value],
        prepared: Result<Prepared, String>,
        effort: &mut Effort,
        held: &Held,
        first_wait: WaitsFirst,
    ) -> Vec<Result<Vec<Value>, Quarantined>> {
        let mut outcomes: Vec<Option<Result<Vec<Value>, Quarantined>>> = inputs.iter().map(|_| None).collect();
        // What is asked for yet, the first of them last.
        let mut parts = vec![(0, inputs.len())];
        let (mut first, mut first_wait) = (Some(prepared), Some(first_wait));
        while let Some((start, end)) = parts.pop() {
            let part = &inputs[start..end];
            let prepared = first.take().unwrap_or_else(|| self.prepare(part));
            let answered = match prepared {
                Err(what) => {
                    let shown = part.first().map(|input| shortened(&input.to_string(), LONGEST_KEY));
                    let error = Arc::new(Error::Record { what });
                    Err(Quarantined { request: shown.unwrap_or_default(), status: None, response: None, error })
                }
                Ok(prepared) => {
                    self.pages(&prepared, effort, held, first_wait.take()).await.map(|pages| (prepared, pages))
                }
            };
            match (answered, &self.batch) {
                (Ok((_, pages)), None) => {
                    if let Some(outcome) = outcomes.get_mut(start) {
                        *outcome = Some(Ok(pages));
                    }
                }
                (Ok((prepared, pages)), Some(batch)) => {
                    let answer = pages.into_iter().next().unwrap_or_default();
                    for (outcome, found) in outcomes[start..end].iter_mut().zip(batch.split(part, answer)) {
                        *outcome = Some(found.map_err(|what| Quarantined {
                            request: prepared.shown.clone(),
                            status: None,
                            response: None,
                            error: Arc::new(Error::Answer {
                                location: redacted(&prepared.url),
                                what,
                                throttle: None,
                                is_lasting: true,
                            }),
                        }));
                    }
                }
                // One of them may be to blame: each half by itself.
                (Err(failure), Some(_)) if end - start > 1 && is_of_one(&failure.error) => {
                    let middle = start + (end - start) / 2;
                    parts.extend([(middle, end), (start, middle)]);
                }
                (Err(failure), _) => {
                    outcomes[start..end].iter_mut().for_each(|outcome| *outcome = Some(Err(failure.clone())));
                }
            }
        }
        // Each has one: the parts cover all.
        outcomes.into_iter().flatten().collect()
    }

    /// All pages of an answer.
    async fn pages(
        &self,
        prepared: &Prepared,
        effort: &mut Effort,
        held: &Held,
        mut first_wait: Option<WaitsFirst>,
    ) -> Result<Vec<Value>, Quarantined> {
        let mut url = self.first_url(&prepared.url);
        let mut pages = Vec::new();
        loop {
            let ask = prepared.ask(url.clone());
            let page = self.page(&ask, effort, first_wait.take()).await?;
            held.add(page.bytes);
            let next = self.next_url(&url, &page, pages.len() as u64 + 1);
            pages.push(page.document);
            match next {
                Ok(None) => return Ok(pages),
                Ok(Some(next)) if pages.len() < self.options.max_pages => url = next,
                other => {
                    let what = match other {
                        Err(what) => what,
                        Ok(_) => format!("it has more than {} pages", self.options.max_pages),
                    };
                    let error = Arc::new(Error::Protocol { location: redacted(&url), what });
                    let request = prepared.shown.clone();
                    return Err(Quarantined { request, status: None, response: None, error });
                }
            }
        }
    }

    /// One page, by the one retry loop.
    async fn page(
        &self,
        ask: &Ask<'_>,
        effort: &mut Effort,
        first_wait: Option<WaitsFirst>,
    ) -> Result<Page, Quarantined> {
        let last = std::sync::Mutex::new(LastAnswer::default());
        let (requests, bytes) = (AtomicUsize::new(0), std::sync::atomic::AtomicU64::new(0));
        let first_wait = std::sync::Mutex::new(first_wait);
        let (last, requests, bytes, first_wait) = (&last, &requests, &bytes, &first_wait);
        let on_retry = |attempt, delay, error: &Error| {
            self.options.observer.event(&Event::Retry { name: ask.shown, attempt, delay, error });
        };
        let attempt = move |permit: Permit| {
            // Whoever may begin more calls is to know that this one waits no longer.
            drop(lock(first_wait).take());
            requests.fetch_add(1, Ordering::Relaxed);
            async move {
                let mut answer = LastAnswer::default();
                let result = self.attempt(ask, permit, &mut answer).await.map_err(|error| self.hidden(ask, error));
                bytes.fetch_add(answer.body.as_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
                *lock(last) = answer;
                result
            }
        };
        let host = ask.url.host_str().unwrap_or_default();
        let result = self.limiter.retry(host, &self.options.retry, on_retry, attempt).await;
        effort.requests += requests.load(Ordering::Relaxed) as u32;
        effort.bytes += bytes.load(Ordering::Relaxed);
        result.map_err(|error| {
            let LastAnswer { status, body } = std::mem::take(&mut *lock(last));
            let text = body.map(|body| String::from_utf8_lossy(&body[..body.len().min(2 * KEPT)]).into_owned());
            let response = text.map(|text| shortened(&self.template.hide(ask.headers, &text), KEPT));
            Quarantined { request: ask.shown.to_owned(), status, response, error: Arc::new(error) }
        })
    }

    async fn attempt(&self, ask: &Ask<'_>, permit: Permit, last: &mut LastAnswer) -> Result<Page, Error> {
        let answer = self.client.ask(ask.method.clone(), &ask.url, ask.headers.clone(), ask.body.clone()).await?;
        permit.answered();
        last.status = Some(answer.status);
        let headers = answer.headers.clone();
        if !self.success.has_status(answer.status) {
            let (error, body) = answer.refusal().await;
            last.body = Some(body);
            return Err(error);
        }
        let location = answer.location().to_owned();
        let body = answer.read(self.options.answer_limit).await?;
        last.body = Some(body.clone());
        let document = serde_json::from_slice(&body).map_err(|error| Error::Answer {
            location: location.clone(),
            what: format!("its body is no JSON: {error}"),
            throttle: None,
            is_lasting: false,
        })?;
        self.success.judge(&location, &document)?;
        Ok(Page { headers, document, bytes: body.len() as u64 })
    }

    /// The error without what was sent as a secret, where it repeats the answer.
    fn hidden(&self, ask: &Ask<'_>, mut error: Error) -> Error {
        let text = match &mut error {
            Error::Answer { what, .. } | Error::Protocol { what, .. } => Some(what),
            Error::Status { reason, .. } | Error::Denied { reason, .. } => reason.as_mut(),
            _ => None,
        };
        if let Some(text) = text {
            *text = self.template.hide(ask.headers, text);
        }
        error
    }

    fn first_url(&self, url: &Url) -> Url {
        self.pagination.as_ref().map_or_else(|| url.clone(), |pagination| pagination.first(url.clone()))
    }

    fn next_url(&self, url: &Url, page: &Page, number: u64) -> Result<Option<Url>, String> {
        let next = |pagination: &super::Pagination| pagination.next(url, &page.headers, &page.document, number);
        self.pagination.as_ref().map_or(Ok(None), next)
    }

    /// The request for these records.
    pub(super) fn prepare(&self, records: &[&Value]) -> Result<Prepared, String> {
        let differing = self.batch.as_ref().map(|batch| (batch.field.as_str(), batch.several));
        self.template.fill(Records { records, differing })
    }

    /// The pages for one record, one at a time: the page at `url`, and the URL of the next one.
    pub(super) async fn listed(
        &self,
        prepared: &Prepared,
        url: Option<Url>,
        number: u64,
    ) -> Result<(Value, Option<Url>), Quarantined> {
        let url = url.unwrap_or_else(|| self.first_url(&prepared.url));
        let page = self.page(&prepared.ask(url.clone()), &mut Effort::default(), None).await?;
        match self.next_url(&url, &page, number) {
            Ok(next) => Ok((page.document, next)),
            Err(what) => {
                let error = Arc::new(Error::Protocol { location: redacted(&url), what });
                Err(Quarantined { request: prepared.shown.clone(), status: None, response: None, error })
            }
        }
    }
}

impl Prepared {
    fn ask(&self, url: Url) -> Ask<'_> {
        Ask { method: &self.method, url, headers: &self.headers, body: self.body.clone(), shown: &self.shown }
    }
}

/// Whether a failure may be one record's: the server understood who asks, and answered.
fn is_of_one(error: &Error) -> bool {
    match error {
        Error::Exhausted { source, .. } => is_of_one(source),
        Error::Transport { .. } | Error::Denied { .. } => false,
        error => !error.is_throttle(),
    }
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
        let records = |name: &str| vec![(0, serde_json::json!({"id": 1, "name": name}))];
        let one = key("GET http://host/1", &records("a"));
        assert_eq!((one.len(), one.split_once(" #").unwrap().0), (17 + 2 + 16, "GET http://host/1"));
        assert_eq!(one, key("GET http://host/1", &[(7, records("a").remove(0).1)]));
        assert_ne!(one, key("GET http://host/1", &records("b")));
        let long = |end: char| key(&format!("GET http://host/{}{end}", "ä".repeat(400)), &records("a"));
        assert!(long('1').len() <= LONGEST_KEY && long('1') != long('2'), "{}", long('1'));
        assert_eq!((long('1'), &long('1')[..400]), (long('1'), &long('2')[..400]));
    }
}
