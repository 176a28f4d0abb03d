//! Which requests suffer what.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, Method};
use tokio::sync::Semaphore;

use super::object::Object;

/// What a server, or the way to it, can do to a request. Offsets and lengths are in bytes.
///
/// Faults of the body act on answers that have one (to HEAD there is none), listings and errors included, and only if
/// the body is longer than they say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Waits this long before it looks at the request. Several add up.
    Latency(Duration),
    /// Sends the body no faster than this many bytes a second; so the fault holds for each connection by itself. Of
    /// several the slowest counts. 0 sends nothing.
    Bandwidth(u64),
    /// Answers with an S3 error instead. Of several, the rule given first counts; the same is true of
    /// [`Redirect`](Self::Redirect), [`HtmlInsteadOfXml`](Self::HtmlInsteadOfXml) and [`Hang`](Self::Hang).
    Status {
        /// The HTTP status, such as 503.
        code: u16,
        /// The `Code` of the XML body, such as `SlowDown`.
        error: String,
        /// The `Retry-After` header in seconds, if there is to be one.
        retry_after: Option<u64>,
    },
    /// Resets the connection (RST) after this many bytes of the body. No more than these reach the client; fewer do
    /// if it has not taken them yet, as a reset discards what is still under way.
    ResetAfter(u64),
    /// Closes the connection in an orderly way (FIN) after this many bytes of the body, though `Content-Length`
    /// promised more. Exactly these reach the client.
    Truncate(u64),
    /// Sends no more than this many bytes of the body, and leaves the connection open. Ends with the connection or the
    /// server.
    StallAfter(u64),
    /// Inverts all bits of the byte at this offset of the object, wherever it is part of an answer.
    CorruptByte(u64),
    /// Answers a range with `200` and the whole object, as servers do that know no ranges.
    NoRange,
    /// Answers a range with its bytes and its `Content-Range`, but under `200`, as some servers do (rclone's).
    RangeAsOk,
    /// Answers a range with `416` and the object's true size, though the object has such bytes.
    Unsatisfiable,
    /// Answers a range with the right bytes under a `Content-Range` that names those one further on.
    WrongContentRange,
    /// Answers a range with the right bytes under a `Content-Range` whose total is one byte too large.
    WrongTotal,
    /// Answers a range under a `Content-Range` whose total is `*`: unknown, which is allowed (RFC 9110, section 14.4).
    UnknownTotal,
    /// Leaves this header out of the answer, as plain web servers and proxies do: `ETag`, `Last-Modified`,
    /// `Accept-Ranges`. Without `Content-Length` the body comes in chunks (RFC 9112, section 7.1). Several add up.
    WithoutHeader(HeaderName),
    /// Gives the object's ETag as a weak one, `W/"…"`. `If-Match` and `If-Range` never hold for it (RFC 9110, section
    /// 13.1.1).
    WeakEtag,
    /// Answers with checksums that are not the object's, where it has [some](Object::checksum) and they are asked for.
    WrongChecksum,
    /// Once this many bytes of the body are sent, replaces the object and closes the connection, so that a resumed
    /// request meets another version.
    ReplaceMidway {
        /// How many bytes of the body are sent before.
        after_bytes: u64,
        /// What stands under the key from then on.
        with: Object,
    },
    /// Replaces the object before the request is answered, so that requests under way still get the old version, and
    /// this one and later ones the new.
    ReplaceBefore(Object),
    /// Sends the client to another URL.
    Redirect {
        /// The HTTP status, such as 307.
        code: u16,
        /// The `Location` header.
        location: String,
    },
    /// Answers `200` with a page of HTML instead, as captive portals and proxies do.
    HtmlInsteadOfXml,
    /// Ends the body after this many bytes, with a `Content-Length` that agrees: whole for HTTP, cut for whoever reads it.
    ShortBody(u64),
    /// Answers a listing with a page without keys that says that there are more, where this page would have begun: by its
    /// token, or by `NextMarker`, with or without a delimiter. This and the three below happen to listings alone.
    EmptyPage,
    /// Answers a listing with its page, which says that there are more, and names its own beginning as the next page's.
    RepeatedToken,
    /// Answers a listing with its page, which says that there are more, and does not say where.
    TruncatedWithoutToken,
    /// Answers a listing with its page, of which the first and the last key have changed places.
    OutOfOrder,
    /// Takes the request and never answers. Ends with the connection or the server, or with
    /// [`FaultHandle::release`]: then the answer is `500 InternalError`.
    Hang,
}

impl Fault {
    /// `503 SlowDown`, without `Retry-After`: how S3 throttles.
    pub fn slow_down() -> Self {
        Self::Status { code: 503, error: "SlowDown".to_owned(), retry_after: None }
    }

    /// `500 InternalError`.
    pub fn internal_error() -> Self {
        Self::Status { code: 500, error: "InternalError".to_owned(), retry_after: None }
    }

    /// `429 TooManyRequests` with `Retry-After` in seconds.
    pub fn too_many_requests(retry_after: u64) -> Self {
        Self::Status { code: 429, error: "TooManyRequests".to_owned(), retry_after: Some(retry_after) }
    }
}

/// A fault and the requests it happens to: all of them, unless narrowed down. Narrowings add up.
#[derive(Clone, Debug)]
#[must_use = "a rule acts once it is given to `Server::fault`"]
pub struct Rule {
    fault: Fault,
    method: Option<Method>,
    target: Target,
    containing: Option<u64>,
    connection: Option<u64>,
    occurrence: Occurrence,
}

#[derive(Clone, Debug)]
enum Target {
    Any,
    List,
    Key(String),
    Prefix(String),
    Suffix(String),
}

#[derive(Clone, Copy, Debug)]
enum Occurrence {
    Every,
    First(u64),
    Nth(u64),
}

impl Rule {
    /// `fault` happens to every request.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            target: Target::Any,
            containing: None,
            connection: None,
            occurrence: Occurrence::Every,
        }
    }

    /// Only to requests of this method.
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only to requests for this object, in any bucket. Of this and the three below, the last one given counts.
    pub fn key(mut self, key: &str) -> Self {
        self.target = Target::Key(key.to_owned());
        self
    }

    /// Only to requests for objects whose keys start with this.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.target = Target::Prefix(prefix.to_owned());
        self
    }

    /// Only to requests for objects whose keys end with this.
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.target = Target::Suffix(suffix.to_owned());
        self
    }

    /// Only to listings, of all three kinds.
    pub fn list(mut self) -> Self {
        self.target = Target::List;
        self
    }

    /// Only to requests for an object that ask for the byte at this offset, among others or all: what singles out one
    /// of many ranged requests, whatever their order.
    pub fn containing(mut self, offset: u64) -> Self {
        self.containing = Some(offset);
        self
    }

    /// Only to requests over this connection of the server; the first is 1, as in
    /// [`RequestRecord::connection`](super::RequestRecord::connection). So one of many can be the slow one.
    pub fn connection(mut self, number: u64) -> Self {
        self.connection = Some(number);
        self
    }

    /// Only to the first `n` of the requests that the rule is about. Of this and [`nth`](Self::nth), the last one
    /// given counts.
    pub fn first(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::First(n);
        self
    }

    /// Only to one of the requests that the rule is about; the first is 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.occurrence = Occurrence::Nth(n);
        self
    }

    fn is_about(&self, asked: &Asked<'_>) -> bool {
        let target = match (&self.target, asked.key) {
            (Target::Any, _) => true,
            (Target::List, key) => key.is_none() && asked.is_list,
            (Target::Key(wanted), Some(key)) => key == wanted,
            (Target::Prefix(prefix), Some(key)) => key.starts_with(prefix.as_str()),
            (Target::Suffix(suffix), Some(key)) => key.ends_with(suffix.as_str()),
            (_, None) => false,
        };
        target
            && self.connection.is_none_or(|number| number == asked.connection)
            && self.method.as_ref().is_none_or(|method| method == asked.method)
            && self.containing.is_none_or(|offset| asked.key.is_some() && asks_for_byte(asked.range, offset))
    }
}

/// Judged without the object's size, which the server knows only later: a suffix range is taken to miss.
fn asks_for_byte(range: Option<&str>, offset: u64) -> bool {
    match super::range::parse(range.filter(|range| !range.contains("=-")), u64::MAX) {
        super::range::Ranged::Whole => range.is_none_or(|range| !range.contains("=-")),
        super::range::Ranged::Part(part) => part.contains(&offset),
        super::range::Ranged::Unsatisfiable => false,
    }
}

/// What a rule may look at.
pub(super) struct Asked<'a> {
    pub(super) connection: u64,
    pub(super) method: &'a Method,
    pub(super) key: Option<&'a str>,
    pub(super) is_list: bool,
    pub(super) range: Option<&'a str>,
}

/// A rule that a server obeys. Dropping this changes nothing: the rule holds until it is [removed](Self::remove) or
/// the server ends.
#[derive(Clone, Debug)]
pub struct FaultHandle {
    active: Arc<Active>,
    faults: Weak<Faults>,
}

impl FaultHandle {
    /// To how many requests the fault happened. Counted when the request arrives.
    pub fn hits(&self) -> u64 {
        self.active.hits.load(Ordering::Relaxed)
    }

    /// Ends the rule, and answers what [hangs](Fault::Hang) by it: with `500 InternalError`, for whoever waited to have it
    /// fail at a moment of one's own.
    pub fn release(&self) {
        self.remove();
        self.active.released.close();
    }

    /// Ends the rule for requests that arrive from now on.
    pub fn remove(&self) {
        if let Some(faults) = self.faults.upgrade() {
            faults.lock().retain(|other| !Arc::ptr_eq(other, &self.active));
        }
    }
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: AtomicU64,
    hits: AtomicU64,
    /// Closed once what hangs is to be answered.
    released: Arc<Semaphore>,
}

/// The rules of a server.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Arc<Active>>>);

impl Faults {
    pub(super) fn add(self: &Arc<Self>, rule: Rule) -> FaultHandle {
        let (seen, hits, released) = (AtomicU64::new(0), AtomicU64::new(0), Arc::new(Semaphore::new(0)));
        let active = Arc::new(Active { rule, seen, hits, released });
        self.lock().push(Arc::clone(&active));
        FaultHandle { active, faults: Arc::downgrade(self) }
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// What happens to this request, which counts as one occurrence for each rule that is about it.
    pub(super) fn strike(&self, asked: &Asked<'_>) -> Effects {
        let mut effects = Effects::default();
        for active in self.lock().iter().filter(|active| active.rule.is_about(asked)) {
            let occurrence = active.seen.fetch_add(1, Ordering::Relaxed) + 1;
            let struck = match active.rule.occurrence {
                Occurrence::Every => true,
                Occurrence::First(n) => occurrence <= n,
                Occurrence::Nth(n) => occurrence == n,
            };
            if struck {
                active.hits.fetch_add(1, Ordering::Relaxed);
                effects.add(active.rule.fault.clone(), &active.released);
            }
        }
        effects
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Active>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that happens to one request.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) latency: Duration,
    pub(super) instead: Option<Instead>,
    pub(super) replace_before: Option<Object>,
    pub(super) range: RangeEffects,
    pub(super) weak_etag: bool,
    pub(super) wrong_checksum: bool,
    pub(super) without: Vec<HeaderName>,
    pub(super) listing: ListingEffects,
    pub(super) short_body: Option<u64>,
    pub(super) body: BodyEffects,
}

/// What happens to a page of a listing.
#[derive(Debug, Default)]
pub(super) struct ListingEffects {
    pub(super) empty: bool,
    pub(super) repeated_token: bool,
    pub(super) without_token: bool,
    pub(super) out_of_order: bool,
}

/// What is done instead of answering.
#[derive(Debug)]
pub(super) enum Instead {
    Status { code: u16, error: String, retry_after: Option<u64> },
    Redirect { code: u16, location: String },
    Html,
    Hang(Arc<Semaphore>),
}

/// What happens to a request for a range.
#[derive(Debug, Default)]
pub(super) struct RangeEffects {
    pub(super) ignored: bool,
    pub(super) unsatisfiable: bool,
    pub(super) as_ok: bool,
    pub(super) shifted: bool,
    pub(super) wrong_total: bool,
    pub(super) unknown_total: bool,
}

#[derive(Debug, Default)]
pub(super) struct BodyEffects {
    pub(super) bytes_per_second: Option<u64>,
    pub(super) reset_after: Option<u64>,
    pub(super) close_after: Option<u64>,
    pub(super) stall_after: Option<u64>,
    pub(super) corrupt: Vec<u64>,
    pub(super) replace: Option<(u64, Object)>,
}

impl Effects {
    fn add(&mut self, fault: Fault, released: &Arc<Semaphore>) {
        let (body, range) = (&mut self.body, &mut self.range);
        match fault {
            Fault::Latency(latency) => self.latency += latency,
            Fault::Bandwidth(rate) => lower(&mut body.bytes_per_second, rate),
            Fault::Status { code, error, retry_after } => {
                self.instead.get_or_insert(Instead::Status { code, error, retry_after });
            }
            Fault::Redirect { code, location } => {
                self.instead.get_or_insert(Instead::Redirect { code, location });
            }
            Fault::HtmlInsteadOfXml => {
                self.instead.get_or_insert(Instead::Html);
            }
            Fault::ShortBody(bytes) => lower(&mut self.short_body, bytes),
            Fault::EmptyPage => self.listing.empty = true,
            Fault::RepeatedToken => self.listing.repeated_token = true,
            Fault::TruncatedWithoutToken => self.listing.without_token = true,
            Fault::OutOfOrder => self.listing.out_of_order = true,
            Fault::Hang => {
                self.instead.get_or_insert(Instead::Hang(Arc::clone(released)));
            }
            Fault::ResetAfter(bytes) => lower(&mut body.reset_after, bytes),
            Fault::Truncate(bytes) => lower(&mut body.close_after, bytes),
            Fault::StallAfter(bytes) => lower(&mut body.stall_after, bytes),
            Fault::CorruptByte(offset) => body.corrupt.push(offset),
            Fault::NoRange => range.ignored = true,
            Fault::RangeAsOk => range.as_ok = true,
            Fault::Unsatisfiable => range.unsatisfiable = true,
            Fault::WrongContentRange => range.shifted = true,
            Fault::WrongTotal => range.wrong_total = true,
            Fault::UnknownTotal => range.unknown_total = true,
            Fault::WithoutHeader(name) => self.without.push(name),
            Fault::WeakEtag => self.weak_etag = true,
            Fault::WrongChecksum => self.wrong_checksum = true,
            Fault::ReplaceBefore(with) => {
                self.replace_before.get_or_insert(with);
            }
            Fault::ReplaceMidway { after_bytes, with } => {
                body.replace.get_or_insert((after_bytes, with));
            }
        }
    }
}

fn lower(value: &mut Option<u64>, new: u64) {
    *value = Some(value.map_or(new, |old| old.min(new)));
}
