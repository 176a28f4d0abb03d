//! The spans of an export, as a subscriber of the program hears of them. It is of the whole process, so this is one test.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bulk_archive::{ExportOptions, ExportSet};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes what spans are made.
#[derive(Clone, Default)]
struct Spans {
    made: Arc<Mutex<Vec<String>>>,
    entered: Arc<AtomicU64>,
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("bulk_")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut name = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut name));
        let mut made = self.made.lock().unwrap();
        made.push(name);
        Id::from_u64(made.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {
        self.entered.fetch_add(1, Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {}
}

#[test]
fn what_goes_on_is_in_spans() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut set = ExportSet::open(folder.path(), ExportOptions::default()).unwrap();
    let mut stage = set.begin().unwrap();
    for (group, id) in [("ca1", "1"), ("ca2", "2"), ("ca2", "3")] {
        stage.put("opinions", group, id, 1, b"{}").unwrap();
    }
    stage.publish(&BTreeMap::new()).unwrap();
    let mut made = spans.made.lock().unwrap().clone();
    made.sort();
    assert_eq!(made, ["archive kind=\"opinions\" group=\"ca1\"", "archive kind=\"opinions\" group=\"ca2\""]);
    assert_eq!(spans.entered.load(Ordering::Relaxed), 2);
}
