//! Rust values as the server's input functions read them.

use std::fmt::Write;

use serde::Serialize;
use tokio_postgres::types::Type;

use super::unfit::Unfit;
use super::value::{self, Bytes, Items, Sink, Value};
use crate::value::refusal::bad_encoding;

/// How a column's values are written as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Document,
    Bytes,
    Array(Element),
}

/// The same of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Plain,
    Document,
    Bytes,
}

impl Form {
    /// Of a type, which is no domain, and of its elements if it is an array.
    pub(super) fn of(oid: u32, element: Option<u32>) -> Self {
        let is_document = |oid| oid == Type::JSON.oid() || oid == Type::JSONB.oid();
        match element {
            Some(element) if is_document(element) => Self::Array(Element::Document),
            Some(element) if element == Type::BYTEA.oid() => Self::Array(Element::Bytes),
            Some(_) => Self::Array(Element::Plain),
            None if is_document(oid) => Self::Document,
            None if oid == Type::BYTEA.oid() => Self::Bytes,
            None => Self::Plain,
        }
    }
}

/// Appends a value's text; false if it is NULL. On an error the end of `out` is undefined.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, form: &Form, out: &mut String) -> Result<bool, Unfit> {
    let start = out.len();
    let mut is_null = false;
    match form {
        Form::Document if value::is_none(value) => return Ok(false),
        Form::Document => write_document(value, out)?,
        Form::Plain | Form::Bytes => {
            let text = Text { is_bytes: *form == Form::Bytes, is_null: &mut is_null, out };
            value.serialize(Value(text)).map_err(|unfit| match unfit {
                Unfit::Nested => Unfit::kind("a sequence"),
                other => other,
            })?;
        }
        Form::Array(element) => {
            value.serialize(Value(Array { element: *element, is_null: &mut is_null, out }))?;
        }
    }
    if memchr::memchr(0, &out.as_bytes()[start..]).is_some() {
        return Err(bad_encoding().into());
    }
    Ok(!is_null)
}

fn write_document<T: Serialize + ?Sized>(value: &T, out: &mut String) -> Result<(), Unfit> {
    out.push_str(&serde_json::to_string(value).map_err(|error| Unfit::json(&error))?);
    Ok(())
}

fn write_bytes(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    for byte in bytes {
        // Nothing can fail that writes into a String.
        let _ = write!(out, "{byte:02x}");
    }
}

/// One value, which is no array.
struct Text<'a> {
    is_bytes: bool,
    is_null: &'a mut bool,
    out: &'a mut String,
}

impl<'a> Sink for Text<'a> {
    type Items = BytesOf<'a>;

    fn none(self) -> Result<(), Unfit> {
        *self.is_null = true;
        Ok(())
    }

    fn boolean(self, value: bool) -> Result<(), Unfit> {
        self.text(if value { "true" } else { "false" })
    }

    fn integer(self, value: i64) -> Result<(), Unfit> {
        let _ = write!(self.out, "{value}");
        Ok(())
    }

    fn float4(self, value: f32) -> Result<(), Unfit> {
        value::write_float4(value, self.out);
        Ok(())
    }

    fn float8(self, value: f64) -> Result<(), Unfit> {
        value::write_float8(value, self.out);
        Ok(())
    }

    fn text(self, value: &str) -> Result<(), Unfit> {
        self.out.push_str(value);
        Ok(())
    }

    fn bytes(self, value: &[u8]) -> Result<(), Unfit> {
        if !self.is_bytes {
            return Err(Unfit::kind("a byte string"));
        }
        write_bytes(value, self.out);
        Ok(())
    }

    fn items(self) -> Result<BytesOf<'a>, Unfit> {
        if !self.is_bytes {
            return Err(Unfit::Nested);
        }
        Ok(BytesOf { bytes: Vec::new(), out: self.out })
    }
}

/// A byte string out of a sequence of numbers.
struct BytesOf<'a> {
    bytes: Vec<u8>,
    out: &'a mut String,
}

impl Items for BytesOf<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        Bytes(&mut self.bytes).item(value)
    }

    fn end(self) -> Result<(), Unfit> {
        write_bytes(&self.bytes, self.out);
        Ok(())
    }
}

struct Array<'a> {
    element: Element,
    is_null: &'a mut bool,
    out: &'a mut String,
}

impl<'a> Sink for Array<'a> {
    type Items = Literal<'a>;

    fn none(self) -> Result<(), Unfit> {
        *self.is_null = true;
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
        self.out.push_str(value);
        Ok(())
    }

    fn bytes(self, _: &[u8]) -> Result<(), Unfit> {
        Err(Unfit::kind("a byte string"))
    }

    fn items(self) -> Result<Literal<'a>, Unfit> {
        Ok(Literal::open(self.element, self.out))
    }
}

/// An array's literal: `{"a","b",NULL}` (PostgreSQL manual, "Array Value Input").
struct Literal<'a> {
    element: Element,
    is_empty: bool,
    out: &'a mut String,
}

impl<'a> Literal<'a> {
    fn open(element: Element, out: &'a mut String) -> Self {
        out.push('{');
        Self { element, is_empty: true, out }
    }
}

impl Items for Literal<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(',');
        }
        let (mut text, mut is_null) = (String::new(), false);
        match self.element {
            Element::Document if value::is_none(value) => is_null = true,
            Element::Document => write_document(value, &mut text)?,
            element => {
                let is_bytes = element == Element::Bytes;
                match value.serialize(Value(Text { is_bytes, is_null: &mut is_null, out: &mut text })) {
                    Err(Unfit::Nested) => {
                        let inner = Array { element, is_null: &mut is_null, out: &mut *self.out };
                        return value.serialize(Value(inner));
                    }
                    written => written?,
                }
            }
        }
        if is_null {
            self.out.push_str("NULL");
            return Ok(());
        }
        self.out.push('"');
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                self.out.push('\\');
            }
            self.out.push(character);
        }
        self.out.push('"');
        Ok(())
    }

    fn end(self) -> Result<(), Unfit> {
        self.out.push('}');
        Ok(())
    }
}
