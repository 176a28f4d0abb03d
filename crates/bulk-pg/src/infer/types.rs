use std::fmt;

/// A type that a column of a file may have.
///
/// The order is that of preference, the narrowest first. `Display` writes it as SQL has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InferredType {
    /// `boolean`: `t`, `f`, `true` and `false` alone, in any case.
    Boolean,
    /// `integer`
    Integer,
    /// `bigint`
    Bigint,
    /// `numeric`, without a limit: numbers beyond `bigint`, and those with digits behind a point.
    Numeric,
    /// `double precision`: where an exponent, `NaN` or an infinity stands.
    DoublePrecision,
    /// `date`
    Date,
    /// `timestamp`: without a zone. Dates among them are their midnights.
    Timestamp,
    /// `timestamptz`: each with a zone.
    Timestamptz,
    /// `uuid`: 36 characters with hyphens.
    Uuid,
    /// `jsonb`: objects and arrays.
    Jsonb,
    /// `text`: all else.
    Text,
}

impl InferredType {
    const ALL: [Self; 11] = [
        Self::Boolean,
        Self::Integer,
        Self::Bigint,
        Self::Numeric,
        Self::DoublePrecision,
        Self::Date,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Uuid,
        Self::Jsonb,
        Self::Text,
    ];

    /// As SQL has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Numeric => "numeric",
            Self::DoublePrecision => "double precision",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Uuid => "uuid",
            Self::Jsonb => "jsonb",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for InferredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u16);

impl Types {
    pub(super) const NONE: Self = Self(0);
    /// All but text, which everything is.
    pub(super) const ALL: Self = Self((1 << InferredType::Text as u16) - 1);
    pub(super) const MOMENTS: Self =
        Self::of(InferredType::Date).with(InferredType::Timestamp).with(InferredType::Timestamptz);

    pub(super) const fn of(data_type: InferredType) -> Self {
        Self(1 << data_type as u16)
    }

    pub(super) const fn with(self, data_type: InferredType) -> Self {
        Self(self.0 | Self::of(data_type).0)
    }

    pub(super) fn without(self, data_type: InferredType) -> Self {
        Self(self.0 & !Self::of(data_type).0)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn has(self, data_type: InferredType) -> bool {
        self.0 & Self::of(data_type).0 != 0
    }

    /// The narrowest first.
    pub(super) fn iter(self) -> impl Iterator<Item = InferredType> {
        InferredType::ALL.into_iter().filter(move |data_type| self.has(*data_type))
    }

    pub(super) fn filter(self, mut keep: impl FnMut(InferredType) -> bool) -> Self {
        self.iter().filter(|data_type| keep(*data_type)).fold(Self::NONE, Self::with)
    }
}
