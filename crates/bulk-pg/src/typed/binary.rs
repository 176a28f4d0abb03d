//! Rust values as COPY's binary format has them.

use std::fmt::Write;

use serde::Serialize;
use tokio_postgres::types::Type;

use super::text::{self, Form};
use super::unfit::Unfit;
use super::value::{self, Bytes, Items, Sink, Value};
use crate::BinaryType;
use crate::value::refusal::{float_out_of_range, integer_out_of_range};
use crate::value::{NULL, array, close, fixed, json, open};

/// Room for values on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    pub(super) text: String,
    element: Vec<u8>,
}

impl Room {
    /// Bytes that are kept from one row to the next.
    const KEEP: usize = 1 << 20;

    pub(super) fn shrink(&mut self) {
        if self.text.capacity() > Self::KEEP {
            self.text = String::new();
        }
        if self.element.capacity() > Self::KEEP {
            self.element = Vec::new();
        }
    }
}

/// What a column of a type makes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Bytea,
    /// What reads their text.
    Other,
}

/// Appends a value with its length. On an error the end of `out` is undefined.
pub(super) fn append<T: Serialize + ?Sized>(
    value: &T,
    binary_type: BinaryType,
    room: &mut Room,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let Some(element) = binary_type.element() else {
        return append_scalar(value, binary_type, room, out).map_err(|unfit| match unfit {
            Unfit::Nested => Unfit::kind("a sequence"),
            other => other,
        });
    };
    let start = out.len();
    match value.serialize(Value(Array { binary_type, element, room: &mut *room, out: &mut *out })) {
        Err(Unfit::Nested) => {
            out.truncate(start);
            let mut literal = std::mem::take(&mut room.text);
            literal.clear();
            text::append(value, &Form::of(binary_type.oid(), Some(element.oid())), &mut literal)?;
            let appended = binary_type.append_text(&literal, &mut room.element, out);
            room.text = literal;
            Ok(appended?)
        }
        other => other,
    }
}

fn append_scalar<T: Serialize + ?Sized>(
    value: &T,
    binary_type: BinaryType,
    room: &mut Room,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let oid = binary_type.oid();
    if oid == Type::JSON.oid() || oid == Type::JSONB.oid() {
        if value::is_none(value) {
            out.extend_from_slice(&NULL);
            return Ok(());
        }
        let start = if oid == Type::JSONB.oid() { json::open_jsonb(out) } else { open(out) };
        serde_json::to_writer(&mut *out, value).map_err(|error| Unfit::json(&error))?;
        return Ok(close(start, out)?);
    }
    let kind = match Type::from_oid(oid) {
        Some(Type::BOOL) => Kind::Bool,
        Some(Type::INT2) => Kind::Int2,
        Some(Type::INT4) => Kind::Int4,
        Some(Type::INT8) => Kind::Int8,
        Some(Type::FLOAT4) => Kind::Float4,
        Some(Type::FLOAT8) => Kind::Float8,
        Some(Type::BYTEA) => Kind::Bytea,
        _ => Kind::Other,
    };
    value.serialize(Value(Scalar { kind, binary_type, room, out }))
}

struct Scalar<'a> {
    kind: Kind,
    binary_type: BinaryType,
    room: &'a mut Room,
    out: &'a mut Vec<u8>,
}

impl Scalar<'_> {
    /// Appends what the server would read of the text that `write` writes.
    fn written(self, write: impl FnOnce(&mut String)) -> Result<(), Unfit> {
        let Room { text, element } = self.room;
        text.clear();
        write(text);
        Ok(self.binary_type.append_text(text, element, self.out)?)
    }
}

impl<'a> Sink for Scalar<'a> {
    type Items = BytesOf<'a>;

    fn none(self) -> Result<(), Unfit> {
        self.out.extend_from_slice(&NULL);
        Ok(())
    }

    fn boolean(self, value: bool) -> Result<(), Unfit> {
        match self.kind {
            Kind::Bool => {
                fixed::<1, 5>([value.into()], self.out);
                Ok(())
            }
            _ => self.written(|text| text.push_str(if value { "true" } else { "false" })),
        }
    }

    fn integer(self, value: i64) -> Result<(), Unfit> {
        let out_of_range = |type_name| integer_out_of_range(type_name, value.to_string().as_bytes());
        match self.kind {
            Kind::Int2 => {
                let value = i16::try_from(value).map_err(|_| out_of_range("smallint"))?;
                fixed::<2, 6>(value.to_be_bytes(), self.out);
            }
            Kind::Int4 => {
                let value = i32::try_from(value).map_err(|_| out_of_range("integer"))?;
                fixed::<4, 8>(value.to_be_bytes(), self.out);
            }
            Kind::Int8 => fixed::<8, 12>(value.to_be_bytes(), self.out),
            _ => {
                return self.written(|text| {
                    // Nothing can fail that writes into a String.
                    let _ = write!(text, "{value}");
                });
            }
        }
        Ok(())
    }

    fn float4(self, value: f32) -> Result<(), Unfit> {
        match self.kind {
            Kind::Float4 => {
                let value = if value.is_nan() { f32::NAN } else { value };
                fixed::<4, 8>(value.to_be_bytes(), self.out);
                Ok(())
            }
            Kind::Float8 => self.float8(value.into()),
            _ => self.written(|text| value::write_float4(value, text)),
        }
    }

    fn float8(self, value: f64) -> Result<(), Unfit> {
        match self.kind {
            Kind::Float4 => {
                let narrow = value as f32;
                // As the server's own cast has it (`dtof`).
                if value.is_finite() && (narrow.is_infinite() || narrow == 0.0 && value != 0.0) {
                    return Err(float_out_of_range("real", value.to_string().as_bytes()).into());
                }
                self.float4(narrow)
            }
            Kind::Float8 => {
                let value = if value.is_nan() { f64::NAN } else { value };
                fixed::<8, 12>(value.to_be_bytes(), self.out);
                Ok(())
            }
            _ => self.written(|text| value::write_float8(value, text)),
        }
    }

    fn text(self, value: &str) -> Result<(), Unfit> {
        Ok(self.binary_type.append_text(value, &mut self.room.element, self.out)?)
    }

    fn bytes(self, value: &[u8]) -> Result<(), Unfit> {
        if self.kind != Kind::Bytea {
            return Err(Unfit::kind("a byte string"));
        }
        let start = open(self.out);
        self.out.extend_from_slice(value);
        Ok(close(start, self.out)?)
    }

    fn items(self) -> Result<BytesOf<'a>, Unfit> {
        if self.kind != Kind::Bytea {
            return Err(Unfit::Nested);
        }
        Ok(BytesOf { start: open(self.out), bytes: Bytes(self.out) })
    }
}

/// A bytea out of a sequence of numbers.
struct BytesOf<'a> {
    start: usize,
    bytes: Bytes<'a>,
}

impl Items for BytesOf<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.bytes.item(value)
    }

    fn end(self) -> Result<(), Unfit> {
        Ok(close(self.start, self.bytes.0)?)
    }
}

struct Array<'a> {
    binary_type: BinaryType,
    element: BinaryType,
    room: &'a mut Room,
    out: &'a mut Vec<u8>,
}

impl<'a> Sink for Array<'a> {
    type Items = Elements<'a>;

    fn none(self) -> Result<(), Unfit> {
        self.out.extend_from_slice(&NULL);
        Ok(())
    }

    fn boolean(self, _: bool) -> Result<(), Unfit> {
        Err(Unfit::kind("a truth value"))
    }

    fn integer(self, _: i64) -> Result<(), Unfit> {
        Err(Unfit::kind("a number"))
    }

    fn float4(self, _: f32) -> Result<(), Unfit> {
        Err(Unfit::kind("a number"))
    }

    fn float8(self, _: f64) -> Result<(), Unfit> {
        Err(Unfit::kind("a number"))
    }

    fn text(self, value: &str) -> Result<(), Unfit> {
        Ok(self.binary_type.append_text(value, &mut self.room.element, self.out)?)
    }

    fn bytes(self, _: &[u8]) -> Result<(), Unfit> {
        Err(Unfit::kind("a byte string"))
    }

    fn items(self) -> Result<Elements<'a>, Unfit> {
        let start = open(self.out);
        self.out.resize(start + array::HEADER + array::DIMENSION, 0);
        let Self { element, room, out, .. } = self;
        Ok(Elements { element, start, count: 0, has_null: false, room, out })
    }
}

/// The elements of an array of one dimension.
struct Elements<'a> {
    element: BinaryType,
    start: usize,
    count: u32,
    has_null: bool,
    room: &'a mut Room,
    out: &'a mut Vec<u8>,
}

impl Items for Elements<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        let at = self.out.len();
        append_scalar(value, self.element, self.room, self.out)?;
        self.count = self.count.checked_add(1).ok_or_else(|| Unfit::kind("so many elements"))?;
        self.has_null |= self.out[at..] == NULL;
        Ok(())
    }

    fn end(self) -> Result<(), Unfit> {
        let Self { element, start, count, has_null, out, .. } = self;
        if count == 0 {
            out.truncate(start);
            out.extend_from_slice(&array::header(0, false, element.oid()));
        } else {
            let words = &mut out[start..start + array::HEADER + array::DIMENSION];
            words[..array::HEADER].copy_from_slice(&array::header(1, has_null, element.oid()));
            words[array::HEADER..].copy_from_slice(&array::dimension(count));
        }
        Ok(close(start, out)?)
    }
}
