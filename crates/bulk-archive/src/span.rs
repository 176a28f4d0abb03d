//! Spans of what goes on, for embedders who have a subscriber: with the feature `tracing`. Without it these are nothing.

/// The thread is in a span of debug level from here to the end of the block.
#[cfg(feature = "tracing")]
macro_rules! enter_span {
    ($name:literal, { $($fields:tt)* }) => {
        let _span = tracing::debug_span!($name, $($fields)*).entered();
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! enter_span {
    ($name:literal, { $($fields:tt)* }) => {};
}

pub(crate) use enter_span;
