//! The types whose values can be encoded for COPY's binary format.

use tokio_postgres::types::{Kind, Type};

use crate::Field;
use crate::value::character::{self, Limit};
use crate::value::numeric::Precision;
use crate::value::refusal::{Refusal, bad_encoding};
use crate::value::{array, boolean, bytea, close, date_time, float, integer, json, numeric, uuid};

/// A column's type, if [`CopyBinary`](crate::CopyBinary) can encode its values.
///
/// These are boolean, smallint, integer, bigint, real, double precision, numeric, date, timestamp, timestamptz, text,
/// character varying, character, json, jsonb, bytea, uuid, and arrays of them. A table with a column of another type
/// (domains, enumerations, and what extensions bring, among others) is to be loaded by [`CopyText`](crate::CopyText).
///
/// ```
/// use bulk_pg::BinaryType;
///
/// // As pg_attribute has them in atttypid and atttypmod: numeric(10,2), and an enumeration.
/// assert!(BinaryType::new(1700, 655_366).is_some());
/// assert!(BinaryType::new(16_387, -1).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryType {
    shape: Shape,
    oid: u32,
    typmod: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Scalar(Scalar),
    Array { element: Scalar, oid: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric(Option<Precision>),
    Date,
    Timestamp,
    Timestamptz,
    Text,
    Limited(Limit),
    Json,
    Jsonb,
    Bytea,
    Uuid,
}

/// Room for values that have to be unescaped before they can be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    value: Vec<u8>,
    element: Vec<u8>,
}

impl Scratch {
    /// Bytes that are kept from one record to the next.
    const KEEP: usize = 1 << 20;

    /// Gives back what a long value took.
    #[inline(always)]
    pub(crate) fn shrink(&mut self) {
        for room in [&mut self.value, &mut self.element] {
            if room.capacity() > Self::KEEP {
                *room = Vec::new();
            }
        }
    }
}

impl BinaryType {
    /// The type with this object identifier and modifier (`atttypid` and `atttypmod` in `pg_attribute`; -1 is no
    /// modifier), or `None` if its values cannot be encoded. The built-in types have the same identifiers everywhere,
    /// and an array type's tells its elements'.
    pub fn new(oid: u32, typmod: i32) -> Option<Self> {
        let base = Type::from_oid(oid)?;
        let shape = match base.kind() {
            // An array in all but its text.
            _ if base == Type::INT2_VECTOR => return None,
            Kind::Array(element) => Shape::Array { element: Scalar::new(element, typmod)?, oid: element.oid() },
            _ => Shape::Scalar(Scalar::new(&base, typmod)?),
        };
        Some(Self { shape, oid, typmod })
    }

    pub(crate) fn oid(self) -> u32 {
        self.oid
    }

    pub(crate) fn typmod(self) -> i32 {
        self.typmod
    }

    /// The type of an array's elements; they have the array's modifier.
    pub(crate) fn element(self) -> Option<Self> {
        match self.shape {
            Shape::Array { element, oid } => Some(Self { shape: Shape::Scalar(element), oid, typmod: self.typmod }),
            Shape::Scalar(_) => None,
        }
    }

    /// Appends what the server would read of this text, with its length. On a refusal the end of `out` is undefined.
    pub(crate) fn append_text(self, text: &str, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(bad_encoding());
        }
        self.append_value(text.as_bytes(), text.len(), scratch, out)
    }

    /// Appends a field's value with its length. On a refusal the end of `out` is undefined.
    #[inline(always)]
    pub(crate) fn append(self, field: &Field<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self.shape {
            Shape::Scalar(Scalar::Text) => character::field(field, out).map(drop),
            Shape::Scalar(Scalar::Limited(limit)) => {
                let start = character::field(field, out)?;
                limit.check(&out[start..])
            }
            Shape::Scalar(Scalar::Json) => {
                let start = character::field(field, out)?;
                json::check(&out[start..])
            }
            Shape::Scalar(Scalar::Jsonb) => {
                let start = json::open_jsonb(out);
                character::append(field, out);
                json::check(&out[start + json::VERSION.len()..])?;
                close(start, out)
            }
            _ if !field.needs_unescape() => {
                let (from, len) = field.raw_and_after();
                self.append_value(from, len, &mut scratch.element, out)
            }
            _ => {
                scratch.value.clear();
                field.append_value(&mut scratch.value);
                self.append_value(&scratch.value, scratch.value.len(), &mut scratch.element, out)
            }
        }
    }

    /// As [`append`](Self::append), of a constant.
    pub(crate) fn append_constant(self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        if value.contains(&0) || str::from_utf8(value).is_err() {
            return Err(bad_encoding());
        }
        self.append_value(value, value.len(), &mut Vec::new(), out)
    }

    /// As [`append`](Self::append), of `from[..len]`.
    #[inline(always)]
    fn append_value(self, from: &[u8], len: usize, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self.shape {
            Shape::Scalar(scalar) => scalar.append(from, len, out),
            Shape::Array { element, oid } => {
                array::array(&from[..len], oid, scratch, out, |value, out| element.append(value, value.len(), out))
            }
        }
    }
}

impl Scalar {
    fn new(base: &Type, typmod: i32) -> Option<Self> {
        let limited = |type_name, text| match usize::try_from(typmod - VARLENA_HEADER) {
            Ok(characters) => Self::Limited(Limit { characters, type_name }),
            Err(_) => text,
        };
        Some(match *base {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC if typmod < 0 => Self::Numeric(None),
            Type::NUMERIC => Self::Numeric(Some(Precision::of(typmod)?)),
            Type::DATE => Self::Date,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::Timestamptz,
            Type::TEXT => Self::Text,
            Type::VARCHAR => limited("character varying", Self::Text),
            Type::BPCHAR => limited("character", Self::Text),
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            Type::BYTEA => Self::Bytea,
            Type::UUID => Self::Uuid,
            _ => return None,
        })
    }

    /// Of `from[..len]`; the bytes after those are of no account, but make it quicker.
    #[inline(always)]
    fn append(self, from: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let value = &from[..len];
        match self {
            Self::Bool => boolean::boolean(value, out),
            Self::Int2 => integer::int2(from, len, out),
            Self::Int4 => integer::int4(from, len, out),
            Self::Int8 => integer::int8(from, len, out),
            Self::Float4 => float::float4(value, out),
            Self::Float8 => float::float8(value, out),
            Self::Numeric(precision) => numeric::numeric(value, precision, out),
            Self::Date => date_time::date(value, out),
            Self::Timestamp => date_time::timestamp(value, out),
            Self::Timestamptz => date_time::timestamptz(value, out),
            Self::Bytea => bytea::bytea(value, out),
            Self::Uuid => uuid::uuid(value, out),
            Self::Text => character::text(from, len, out),
            Self::Limited(limit) => {
                limit.check(value)?;
                character::text(from, len, out)
            }
            Self::Json => {
                json::check(value)?;
                character::text(from, len, out)
            }
            Self::Jsonb => {
                json::check(value)?;
                let start = json::open_jsonb(out);
                out.extend_from_slice(value);
                close(start, out)
            }
        }
    }
}

/// The modifier of a type of variable length counts its header (`VARHDRSZ`).
const VARLENA_HEADER: i32 = 4;
