//! A subscriber of `tracing` that keeps which spans there were.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The spans of this project's crates in this process that have come to their ends.
#[derive(Clone, Default)]
pub struct Spans {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    made: u64,
    /// What those that are open are called, and how many have them.
    open: HashMap<u64, (String, usize)>,
    closed: Vec<String>,
}

thread_local! {
    /// Those that this thread is in.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Spans {
    /// Keeps all from now on, of all threads.
    ///
    /// # Panics
    ///
    /// If the process has a subscriber already.
    pub fn record() -> Self {
        let spans = Self::default();
        tracing::subscriber::set_global_default(spans.clone()).expect("the process has no other subscriber");
        spans
    }

    /// Each as `parent{field=value}/name{field=value}`, in the order of their names. One that is made in a task of its own has
    /// no parent here, as this does not tell which one is current.
    pub fn closed(&self) -> Vec<String> {
        let mut closed = self.kept().closed.clone();
        closed.sort();
        closed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("bulk_")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let current = || ENTERED.with_borrow(|entered| entered.last().copied());
        let parent = span.parent().map(Id::into_u64).or_else(|| span.is_contextual().then(current).flatten());
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        let mut kept = self.kept();
        let before = parent.and_then(|parent| kept.open.get(&parent)).map(|(name, _)| format!("{name}/"));
        let name = format!("{}{}{{{}}}", before.unwrap_or_default(), span.metadata().name(), fields.0);
        kept.made += 1;
        let id = kept.made;
        kept.open.insert(id, (name, 1));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(place) = entered.iter().rposition(|id| *id == span.into_u64()) {
                entered.remove(place);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some((_, count)) = self.kept().open.get_mut(&span.into_u64()) {
            *count += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut kept = self.kept();
        let Some((_, count)) = kept.open.get_mut(&span.into_u64()) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        if let Some((name, _)) = kept.open.remove(&span.into_u64()) {
            kept.closed.push(name);
        }
        true
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        // A string takes all that is written to it.
        let _ = write!(self.0, "{space}{field}={value:?}");
    }
}
