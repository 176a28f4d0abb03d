//! `--metrics`: what the stages of a run do, as Prometheus reads it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulk_core::{Bottleneck, RunVerdict, StageCounts};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::exit::Failure;
use crate::meters::RunMeters;

/// So many are answered at once.
const CONNECTIONS: usize = 8;

/// Whoever asks and reads no faster than that is not answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// The format's version.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What a worker does, and for how long all of a stage did.
type State = (&'static str, fn(&StageCounts) -> Duration);

const STATES: [State; 10] = [
    ("on_cpu", |counts| counts.on_cpu),
    ("run_queue", |counts| counts.run_queue),
    ("off_cpu", |counts| counts.off_cpu),
    ("network", |counts| counts.network),
    ("disk", |counts| counts.disk),
    ("server", |counts| counts.server),
    ("rate_limit", |counts| counts.rate_limit),
    ("budget", |counts| counts.budget),
    ("starved", |counts| counts.starved),
    ("blocked", |counts| counts.blocked),
];

/// `ADDRESS:PORT`, or a port of this machine alone.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let port = text.strip_prefix(':').unwrap_or(text).parse().map(local);
    port.or_else(|_| text.parse()).map_err(|_| "it is no ADDRESS:PORT, nor a PORT".to_owned())
}

/// Answers at an address until it is dropped.
pub(crate) struct MetricsServer {
    _task: AbortOnDropHandle<()>,
}

impl MetricsServer {
    /// Its address, which has the port that the system chose where 0 was asked for.
    pub(crate) fn start(
        address: SocketAddr,
        command: &'static str,
        meters: &RunMeters,
    ) -> Result<(Self, SocketAddr), Failure> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, tokio::net::TcpListener::from_std(listener)?))
        };
        let failed = |error: std::io::Error| Failure::usage(format!("--metrics: cannot listen on {address}: {error}"));
        let (address, listener) = listen().map_err(failed)?;
        let page = Arc::new(Page { command, meters: meters.clone(), counters: Mutex::default() });
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, page)));
        Ok((Self { _task: task }, address))
    }
}

async fn accept(listener: tokio::net::TcpListener, page: Arc<Page>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // There may be too many open files; there will be fewer.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let page = page.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answer = page.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // Whoever hangs up has what it wanted.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

struct Page {
    command: &'static str,
    meters: RunMeters,
    /// What was said last of each time. How working time is split is an estimate that may be corrected later, and a counter
    /// that goes back is taken for a run that has begun anew.
    counters: Mutex<HashMap<(String, &'static str), f64>>,
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/" | "/metrics") => (StatusCode::OK, self.text()),
            (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "it is at /metrics\n".to_owned()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, "it is there to be read\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        response
    }

    fn text(&self) -> String {
        let mut text = Text(String::new());
        let command = label(self.command);
        text.family("bulk_run_info", "gauge", "The run.");
        text.line("bulk_run_info", &format!("command=\"{command}\",version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0);
        let Some(reading) = self.meters.recent() else { return text.0 };
        let stages = &reading.stages;
        text.family("bulk_stage_items_total", "counter", "Items that a stage has done.");
        for stage in stages {
            text.line("bulk_stage_items_total", &labels(&stage.name), stage.total.items as f64);
        }
        text.family("bulk_stage_bytes_total", "counter", "Bytes of them.");
        for stage in stages {
            text.line("bulk_stage_bytes_total", &labels(&stage.name), stage.total.bytes as f64);
        }
        text.family("bulk_stage_workers", "gauge", "The most workers that a stage had at once.");
        for stage in stages {
            text.line("bulk_stage_workers", &labels(&stage.name), stage.workers.len() as f64);
        }
        let what = "What the workers of a stage did with their time, in seconds; times of several add up.";
        text.family("bulk_stage_seconds_total", "counter", what);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in stages {
            for (state, of) in STATES {
                let seconds = counters.entry((stage.name.clone(), state)).or_default();
                *seconds = seconds.max(of(&stage.total).as_secs_f64());
                let labels = format!("{},state=\"{state}\"", labels(&stage.name));
                text.line("bulk_stage_seconds_total", &labels, *seconds);
            }
        }
        if let Some(Bottleneck { used, .. }) = RunVerdict::of(&reading).bottleneck {
            let what = "What bound the run in the last ten seconds, and the part of the time that it was used.";
            text.family("bulk_bottleneck_utilisation", "gauge", what);
            let (limit, resource) = (label(&used.limit.to_string()), label(&used.resource.to_string()));
            let labels = format!("limit=\"{limit}\",resource=\"{resource}\"");
            text.line("bulk_bottleneck_utilisation", &labels, used.utilisation);
        }
        text.0
    }
}

fn labels(stage: &str) -> String {
    format!("stage=\"{}\"", label(stage))
}

/// The value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes all that is written to it.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_this_machine_unless_they_say_otherwise() {
        for (text, expected) in [
            ("9000", "127.0.0.1:9000"),
            (":9000", "127.0.0.1:9000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:9000", "0.0.0.0:9000"),
            ("[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for text in ["", "localhost", "70000", "127.0.0.1", "-1"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }
}
