use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::{Answer, Asked, Latency};
use crate::loopback::Loopback;

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A JSON API on a loopback port of its own, with threads and a runtime of its own.
///
/// Dropping it closes all connections at once, in whatever state they are, and waits until the port is free.
#[derive(Debug)]
pub struct Server {
    site: Arc<Site>,
    loopback: Loopback,
}

/// What a [`Server`] answers, and how it fails.
#[must_use = "nothing is served before `start`"]
pub struct Builder {
    handler: Handler,
    limits: Vec<(usize, Duration)>,
    latency: Latency,
    faults: Vec<(Fault, f64)>,
    seed: u64,
}

/// How a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Status 429 with so many seconds in `Retry-After`.
    TooManyRequests(u64),
    /// Status 200, and a body that says otherwise: `ErrorCode` 36 and so many `ThrottleSeconds`, as Bungie's API has it.
    Throttled(u64),
    /// This status, and `{"error": …}`.
    Status(u16),
    /// The connection ends without an answer.
    Closed,
    /// Status 200, and a body that is no JSON.
    Garbage,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Arrival {
    /// When its head had arrived.
    pub at: Instant,
    /// The method.
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// How long its answer was made to take from then on.
    pub latency: Duration,
    /// The fault that it met, if it did.
    pub fault: Option<Fault>,
    /// Whether a limit refused it.
    pub is_refused: bool,
}

struct Site {
    handler: Handler,
    limits: Vec<(usize, Duration)>,
    latency: Latency,
    faults: Vec<(Fault, f64)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    arrivals: Vec<Arrival>,
    /// Those of the longest window.
    recent: VecDeque<Instant>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Builder {
    /// Refuses, with status 429 and one second in `Retry-After`, what arrives after so many others in the stretch of that
    /// length before it. All that arrives counts, what is refused included. Several add up.
    pub fn limit(mut self, requests: usize, window: Duration) -> Self {
        self.limits.push((requests, window));
        self
    }

    /// How long answers take. By default no time.
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Lets this part of all requests, from 0 to 1, fail so. Several add up.
    pub fn fault(mut self, fault: Fault, part: f64) -> Self {
        self.faults.push((fault, part));
        self
    }

    /// By which latencies and faults are drawn. By default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Starts the server. It answers when this returns.
    ///
    /// # Errors
    ///
    /// If the system has no port or thread for it.
    pub fn start(self) -> io::Result<Server> {
        let Self { handler, limits, latency, faults, seed } = self;
        let random = fastrand::Rng::with_seed(seed);
        let state = Mutex::new(State { random, arrivals: Vec::new(), recent: VecDeque::new() });
        let site = Arc::new(Site { handler, limits, latency, faults, state });
        let served = site.clone();
        let loopback = Loopback::start("api-server", move |stream, _| serve(stream, served.clone()))?;
        Ok(Server { site, loopback })
    }
}

impl Server {
    /// A server that answers so, without limits and faults.
    pub fn builder(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Builder {
        Builder {
            handler: Arc::new(handler),
            limits: Vec::new(),
            latency: Latency::default(),
            faults: Vec::new(),
            seed: 0,
        }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.loopback.address())
    }

    /// All requests, in the order of their arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.site.lock().arrivals.clone()
    }

    /// The most requests that arrived in any window of that length.
    pub fn worst(&self, window: Duration) -> usize {
        let arrivals: Vec<_> = self.site.lock().arrivals.iter().map(|arrival| arrival.at).collect();
        worst_window(&arrivals, window)
    }

    /// How many requests a limit refused.
    pub fn refused(&self) -> usize {
        self.site.lock().arrivals.iter().filter(|arrival| arrival.is_refused).count()
    }

    /// Forgets all requests so far.
    pub fn clear(&self) {
        let mut state = self.site.lock();
        state.arrivals.clear();
        state.recent.clear();
    }
}

/// The most of these instants, which are sorted, in any window of that length, its end not included.
pub fn worst_window(instants: &[Instant], window: Duration) -> usize {
    let mut first = 0;
    let mut worst = 0;
    for (last, at) in instants.iter().enumerate() {
        while at.duration_since(instants[first]) >= window {
            first += 1;
        }
        worst = worst.max(last + 1 - first);
    }
    worst
}

impl Site {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request. Its number, how long its answer takes, and how it fails.
    fn arrive(&self, method: &Method, target: String) -> (u64, Duration, Option<Fault>) {
        let mut state = self.lock();
        // Taken under the lock, so that arrivals stand in their order.
        let at = Instant::now();
        let longest = self.limits.iter().map(|(_, window)| *window).max().unwrap_or_default();
        while state.recent.front().is_some_and(|first| at.duration_since(*first) >= longest) {
            state.recent.pop_front();
        }
        let is_refused = self.limits.iter().any(|(requests, window)| {
            let earliest = state.recent.len().checked_sub(*requests).and_then(|place| state.recent.get(place));
            earliest.is_some_and(|earliest| at.duration_since(*earliest) < *window)
        });
        if !self.limits.is_empty() {
            state.recent.push_back(at);
        }
        let latency = self.latency.draw(&mut state.random);
        let mut drawn = state.random.f64();
        let fault = self.faults.iter().find(|(_, part)| {
            drawn -= part;
            drawn < 0.0
        });
        let fault = if is_refused { Some(Fault::TooManyRequests(1)) } else { fault.map(|(fault, _)| fault.clone()) };
        let number = state.arrivals.len() as u64;
        let method = method.clone();
        state.arrivals.push(Arrival { at, method, target, latency, fault: fault.clone(), is_refused });
        (number, latency, fault)
    }
}

impl Fault {
    /// None if it is no answer at all.
    fn answer(&self) -> Option<Answer> {
        Some(match self {
            Self::TooManyRequests(seconds) => {
                Answer::error(429, "too many requests").header("retry-after", &seconds.to_string())
            }
            Self::Throttled(seconds) => Answer::json(json!({
                "ErrorCode": 36,
                "ThrottleSeconds": seconds,
                "ErrorStatus": "ThrottleLimitExceededMomentarily",
                "Message": "Too many requests, slow down.",
                "MessageData": {},
            })),
            Self::Status(status) => Answer::error(*status, "as asked for"),
            Self::Closed => return None,
            Self::Garbage => Answer::text("text/html", "<html>Come back later</html>"),
        })
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, site: Arc<Site>) {
    let service = service_fn(move |request| handle(site.clone(), request));
    // Its errors are the client's departures and the faults that were asked for.
    let _ = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await;
}

async fn handle(site: Arc<Site>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (parts, incoming) = request.into_parts();
    let (number, latency, fault) = site.arrive(&parts.method, parts.uri.to_string());
    let body = incoming.collect().await.map_err(io::Error::other)?.to_bytes();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let answer = match fault {
        Some(fault) => fault.answer(),
        None => {
            let asked = Asked {
                number,
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: pairs(parts.uri.query().unwrap_or_default()),
                headers: parts.headers,
                body,
            };
            Some((site.handler)(&asked))
        }
    };
    // Without an answer hyper closes the connection.
    let answer = answer.ok_or(io::ErrorKind::ConnectionAborted)?;
    let mut response =
        Response::builder().status(answer.status).body(Full::new(answer.body)).map_err(io::Error::other)?;
    response.headers_mut().extend(answer.headers);
    Ok(response)
}

/// As forms encode them.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}
