//! Spans of what goes on, for embedders who have a subscriber: with the feature `tracing`. Without it these are nothing.
//! Why it does not stand once for all crates, `bulk-core` says where it has the same.

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

pub(crate) use in_span;
