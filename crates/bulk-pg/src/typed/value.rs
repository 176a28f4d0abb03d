//! What serde says of a value, in the few words that columns know.

use std::fmt::Write;

use serde::Serialize;
use serde::ser::{Impossible, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer};

use super::text::{self, Form};
use super::unfit::Unfit;

/// Takes one value.
pub(super) trait Sink: Sized {
    type Items: Items;

    /// [`None`].
    fn none(self) -> Result<(), Unfit>;

    /// `()`, which is nothing else than [`None`] where there is one kind of nothing.
    fn unit(self) -> Result<(), Unfit> {
        self.none()
    }

    fn boolean(self, value: bool) -> Result<(), Unfit>;
    fn integer(self, value: i64) -> Result<(), Unfit>;
    fn float4(self, value: f32) -> Result<(), Unfit>;
    fn float8(self, value: f64) -> Result<(), Unfit>;
    fn text(self, value: &str) -> Result<(), Unfit>;
    fn bytes(self, value: &[u8]) -> Result<(), Unfit>;
    fn items(self) -> Result<Self::Items, Unfit>;
}

/// Takes the values of a sequence.
pub(super) trait Items {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit>;
    fn end(self) -> Result<(), Unfit>;
}

/// The items of what has none.
pub(super) enum NoItems {}

impl Items for NoItems {
    fn item<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Unfit> {
        match *self {}
    }

    fn end(self) -> Result<(), Unfit> {
        match self {}
    }
}

/// A number as people and servers read it, without an exponent where it is short without.
pub(super) fn write_float8(value: f64, out: &mut String) {
    let size = value.abs();
    // Nothing can fail that writes into a String.
    let _ = match () {
        () if value.is_nan() => write!(out, "NaN"),
        () if value.is_infinite() => write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" }),
        () if size == 0.0 || (1e-5..1e17).contains(&size) => write!(out, "{value}"),
        () => write!(out, "{value:e}"),
    };
}

/// As [`write_float8`], with as many digits as this one needs.
pub(super) fn write_float4(value: f32, out: &mut String) {
    let size = value.abs();
    let _ = match () {
        () if value.is_nan() => write!(out, "NaN"),
        () if value.is_infinite() => write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" }),
        () if size == 0.0 || (1e-5..1e9).contains(&size) => write!(out, "{value}"),
        () => write!(out, "{value:e}"),
    };
}

/// Whether it is [`None`], however deep in newtypes.
pub(super) fn is_none<T: Serialize + ?Sized>(value: &T) -> bool {
    let mut found = false;
    // Whatever else it is ends in a refusal, which says nothing.
    let _ = value.serialize(Value(Probe(&mut found)));
    found
}

struct Probe<'a>(&'a mut bool);

impl Sink for Probe<'_> {
    type Items = NoItems;

    fn none(self) -> Result<(), Unfit> {
        *self.0 = true;
        Ok(())
    }

    fn unit(self) -> Result<(), Unfit> {
        Ok(())
    }

    fn boolean(self, _: bool) -> Result<(), Unfit> {
        Ok(())
    }

    fn integer(self, _: i64) -> Result<(), Unfit> {
        Ok(())
    }

    fn float4(self, _: f32) -> Result<(), Unfit> {
        Ok(())
    }

    fn float8(self, _: f64) -> Result<(), Unfit> {
        Ok(())
    }

    fn text(self, _: &str) -> Result<(), Unfit> {
        Ok(())
    }

    fn bytes(self, _: &[u8]) -> Result<(), Unfit> {
        Ok(())
    }

    fn items(self) -> Result<NoItems, Unfit> {
        Err(Unfit::Nested)
    }
}

/// Takes the bytes of a sequence of numbers.
pub(super) struct Bytes<'a>(pub(super) &'a mut Vec<u8>);

impl Items for Bytes<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        value.serialize(Value(Byte(self.0)))
    }

    fn end(self) -> Result<(), Unfit> {
        Ok(())
    }
}

struct Byte<'a>(&'a mut Vec<u8>);

impl Sink for Byte<'_> {
    type Items = NoItems;

    fn none(self) -> Result<(), Unfit> {
        Err(Unfit::kind("an absent byte"))
    }

    fn boolean(self, _: bool) -> Result<(), Unfit> {
        Err(Unfit::kind("a sequence of truth values"))
    }

    fn integer(self, value: i64) -> Result<(), Unfit> {
        self.0.push(value.try_into().map_err(|_| Unfit::kind(&format!("{value} as a byte")))?);
        Ok(())
    }

    fn float4(self, _: f32) -> Result<(), Unfit> {
        Err(Unfit::kind("a sequence of floating-point numbers"))
    }

    fn float8(self, value: f64) -> Result<(), Unfit> {
        self.float4(value as f32)
    }

    fn text(self, _: &str) -> Result<(), Unfit> {
        Err(Unfit::kind("a sequence of texts"))
    }

    fn bytes(self, _: &[u8]) -> Result<(), Unfit> {
        Err(Unfit::kind("a sequence of byte strings"))
    }

    fn items(self) -> Result<NoItems, Unfit> {
        Err(Unfit::kind("a sequence of sequences"))
    }
}

/// A serializer into a sink.
pub(super) struct Value<S>(pub(super) S);

/// A sequence on its way into a sink.
pub(super) struct Sequence<I>(I);

/// The struct that a number of `serde_json` is where something in the program has its feature `arbitrary_precision`: its one
/// field is the number's text.
const NUMBER: &str = "$serde_json::private::Number";

/// Such a number on its way into a sink.
pub(super) struct Number<S>(Option<S>);

type Refused = Impossible<(), Unfit>;

impl<S: Sink> Serializer for Value<S> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Sequence<S::Items>;
    type SerializeTuple = Sequence<S::Items>;
    type SerializeTupleStruct = Sequence<S::Items>;
    type SerializeTupleVariant = Refused;
    type SerializeMap = Refused;
    type SerializeStruct = Number<S>;
    type SerializeStructVariant = Refused;

    fn serialize_bool(self, value: bool) -> Result<(), Unfit> {
        self.0.boolean(value)
    }

    fn serialize_i8(self, value: i8) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unfit> {
        self.0.integer(value)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Unfit> {
        match i64::try_from(value) {
            Ok(value) => self.0.integer(value),
            Err(_) => self.0.text(&value.to_string()),
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unfit> {
        self.0.integer(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unfit> {
        self.serialize_u128(value.into())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unfit> {
        match i64::try_from(value) {
            Ok(value) => self.0.integer(value),
            Err(_) => self.0.text(&value.to_string()),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unfit> {
        self.0.float4(value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unfit> {
        self.0.float8(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Unfit> {
        self.0.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Unfit> {
        self.0.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unfit> {
        self.0.bytes(value)
    }

    fn serialize_none(self) -> Result<(), Unfit> {
        self.0.none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unfit> {
        self.0.unit()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unfit> {
        self.0.unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unfit> {
        self.0.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unfit> {
        Err(Unfit::kind("an enum's variant with a value"))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence<S::Items>, Unfit> {
        self.0.items().map(Sequence)
    }

    fn serialize_tuple(self, _: usize) -> Result<Sequence<S::Items>, Unfit> {
        self.0.items().map(Sequence)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Sequence<S::Items>, Unfit> {
        self.0.items().map(Sequence)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Refused, Unfit> {
        Err(Unfit::kind("an enum's variant with values"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Refused, Unfit> {
        Err(Unfit::kind("a map"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Number<S>, Unfit> {
        if name == NUMBER { Ok(Number(Some(self.0))) } else { Err(Unfit::kind("a struct")) }
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Refused, Unfit> {
        Err(Unfit::kind("an enum's variant with fields"))
    }
}

impl<S: Sink> SerializeStruct for Number<S> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Unfit> {
        let mut number = String::new();
        text::append(value, &Form::Plain, &mut number)?;
        let sink = self.0.take().ok_or_else(|| Unfit::kind("a struct"))?;
        match number.parse() {
            Ok(integer) => sink.integer(integer),
            Err(_) => sink.text(&number),
        }
    }

    fn end(self) -> Result<(), Unfit> {
        Ok(())
    }
}

impl<I: Items> SerializeSeq for Sequence<I> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.item(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.0.end()
    }
}

impl<I: Items> SerializeTuple for Sequence<I> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.item(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.0.end()
    }
}

impl<I: Items> SerializeTupleStruct for Sequence<I> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.item(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.0.end()
    }
}
