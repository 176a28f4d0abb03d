//! Why a Rust value is not encoded.

use std::fmt::Display;

use serde::ser;

use crate::value::refusal::{Invalid, Refusal};

/// Why a value is not encoded.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Only the server can read it, as text.
    Unclear,
    /// A sequence within a sequence, which has another way.
    Nested,
    /// No column can hold it.
    Bad {
        /// The column's place, if it is one's value.
        column: Option<usize>,
        sqlstate: &'static str,
        message: String,
    },
}

impl Unfit {
    /// `data_exception`.
    const OTHER: &'static str = "22000";
    /// `datatype_mismatch`.
    const KIND: &'static str = "42804";
    /// `undefined_column`.
    const COLUMN: &'static str = "42703";
    /// `invalid_json_text`.
    const JSON: &'static str = "22032";

    fn bad(sqlstate: &'static str, message: String) -> Self {
        Self::Bad { column: None, sqlstate, message }
    }

    /// A kind of value for which columns of a type have no room.
    #[cold]
    pub(crate) fn kind(kind: &str) -> Self {
        Self::bad(Self::KIND, format!("a column of this type cannot hold {kind}"))
    }

    /// A row that does not have the columns that it is to have.
    #[cold]
    pub(crate) fn row(message: String) -> Self {
        Self::bad(Self::COLUMN, message)
    }

    #[cold]
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::bad(Self::JSON, error.to_string())
    }

    /// The same of a column's value.
    pub(crate) fn of_column(self, place: usize) -> Self {
        match self {
            Self::Bad { column: None, sqlstate, message } => Self::Bad { column: Some(place), sqlstate, message },
            other => other,
        }
    }
}

impl From<Refusal> for Unfit {
    #[cold]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unclear => Self::Unclear,
            Refusal::Invalid(invalid) => {
                let Invalid { sqlstate, message } = *invalid;
                Self::bad(sqlstate, message)
            }
        }
    }
}

impl Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unclear => f.write_str("a value that only the server can read"),
            Self::Nested => f.write_str("a sequence within a sequence"),
            Self::Bad { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for Unfit {}

impl ser::Error for Unfit {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self::bad(Self::OTHER, message.to_string())
    }
}
