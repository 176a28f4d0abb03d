//! Spans of what goes on, for embedders who have a subscriber: with the feature `tracing`. Without it these are nothing.
//!
//! `bulk-s3` and `bulk-pg` have an `in_span` of their own: a macro that another crate may use is public, and which of the two it is
//! would be decided by the feature of the crate that it stands in. `bulk-pg` does not know this crate, either.

/// A future that is in a span of debug level while it is polled.
#[cfg(feature = "tracing")]
macro_rules! in_span {
    ($name:literal, { $($fields:tt)* }, $future:expr) => {{
        let span = tracing::debug_span!($name, $($fields)*);
        tracing::Instrument::instrument($future, span)
    }};
}

#[cfg(not(feature = "tracing"))]
macro_rules! in_span {
    ($name:literal, { $($fields:tt)* }, $future:expr) => {
        $future
    };
}

/// A future that is in the span of the one who makes it, for tasks of its own.
#[cfg(feature = "tracing")]
macro_rules! in_current_span {
    ($future:expr) => {
        tracing::Instrument::in_current_span($future)
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! in_current_span {
    ($future:expr) => {
        $future
    };
}

pub(crate) use {in_current_span, in_span};
