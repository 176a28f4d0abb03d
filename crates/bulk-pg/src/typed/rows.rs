//! Rust values as rows of COPY.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;
use serde::ser::{
    Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer,
};

use super::Column;
use super::binary::{self, Room};
use super::text;
use super::unfit::Unfit;
use crate::copy_format::Encoding;
use crate::copy_text::letter;
use crate::counted::counted;

/// Encodes rows with these columns.
pub(crate) struct TypedRows {
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    room: Room,
    /// The values of the row in hand, in the order in which they came.
    values: Vec<u8>,
    /// Where each column's value is in them.
    ranges: Vec<Option<Range<usize>>>,
    text: String,
}

impl TypedRows {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        let places = columns.iter().enumerate().map(|(place, column)| (column.name.clone(), place)).collect();
        let ranges = vec![None; columns.len()];
        Self { columns, places, room: Room::default(), values: Vec::new(), ranges, text: String::new() }
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Appends the row that a value is. On an error `out` is as it was before.
    pub(crate) fn append<T: Serialize + ?Sized>(
        &mut self,
        row: &T,
        encoding: Encoding,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        self.values.clear();
        self.ranges.fill(None);
        let fields = Fields { rows: self, encoding, next: 0, in_order: true };
        let result = row.serialize(Row(fields));
        if let Ok(in_order) = result {
            match encoding {
                Encoding::Binary => self.append_binary(in_order, out),
                Encoding::Text => self.append_text(out),
            }
        }
        self.room.shrink();
        if self.values.capacity() > Self::KEEP {
            self.values = Vec::new();
        }
        if self.text.capacity() > Self::KEEP {
            self.text = String::new();
        }
        result.map(drop)
    }

    /// Bytes that are kept from one row to the next.
    const KEEP: usize = 1 << 20;

    fn append_binary(&self, in_order: bool, out: &mut Vec<u8>) {
        // No table has more than 1600 columns.
        out.extend_from_slice(&(self.columns.len() as i16).to_be_bytes());
        if in_order {
            out.extend_from_slice(&self.values);
            return;
        }
        for range in self.ranges.iter().flatten() {
            out.extend_from_slice(&self.values[range.clone()]);
        }
    }

    fn append_text(&self, out: &mut Vec<u8>) {
        for (place, range) in self.ranges.iter().enumerate() {
            if place > 0 {
                out.push(b'\t');
            }
            match range {
                Some(range) if *range != NULL => escape(&self.values[range.clone()], out),
                _ => out.extend_from_slice(b"\\N"),
            }
        }
        out.push(b'\n');
    }
}

/// Of a NULL in text.
const NULL: Range<usize> = usize::MAX..usize::MAX;

/// Appends a value in COPY's text format (PostgreSQL manual, COPY, "Text Format").
pub(crate) fn escape(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | 0x08..=0x0d)) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', letter(rest[at])]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The fields of a row on their way to their columns.
struct Fields<'a> {
    rows: &'a mut TypedRows,
    encoding: Encoding,
    /// The column that the next value is likely to be of.
    next: usize,
    in_order: bool,
}

impl Fields<'_> {
    /// The column of this name.
    fn find(&self, name: &str) -> Result<usize, Unfit> {
        if self.rows.columns.get(self.next).is_some_and(|column| column.name == name) {
            return Ok(self.next);
        }
        self.rows.places.get(name).copied().ok_or_else(|| {
            Unfit::row(format!("the row has a field {name:?}, which is none of the columns that are written"))
        })
    }

    fn put<T: Serialize + ?Sized>(&mut self, place: usize, value: &T) -> Result<(), Unfit> {
        let TypedRows { columns, room, values, ranges, text, .. } = &mut *self.rows;
        let (Some(column), Some(range)) = (columns.get(place), ranges.get_mut(place)) else {
            return Err(Unfit::row(format!("the row has more than {}", counted(columns.len(), "value", "values"))));
        };
        if range.is_some() {
            return Err(Unfit::row("the row has it twice".to_owned()).of_column(place));
        }
        let start = values.len();
        let appended = match (self.encoding, column.binary_type) {
            (Encoding::Binary, Some(binary_type)) => binary::append(value, binary_type, room, values).map(|()| true),
            // Without a type for each column nothing goes as binary.
            _ => {
                text.clear();
                let appended = text::append(value, &column.form, text);
                values.extend_from_slice(text.as_bytes());
                appended
            }
        };
        let is_value = appended.map_err(|unfit| unfit.of_column(place))?;
        *range = Some(if is_value { start..values.len() } else { NULL });
        self.in_order &= place == self.next;
        self.next = place + 1;
        Ok(())
    }

    /// Whether the values came in the order of the columns. A column without a value is an error, or NULL.
    fn end(mut self, is_lacking_null: bool) -> Result<bool, Unfit> {
        for place in 0..self.rows.columns.len() {
            if self.rows.ranges[place].is_some() {
                continue;
            }
            if !is_lacking_null {
                return Err(Unfit::row("the row has no value for it".to_owned()).of_column(place));
            }
            self.put(place, &None::<()>)?;
        }
        Ok(self.in_order)
    }
}

/// A serializer of a row.
struct Row<'a>(Fields<'a>);

type Refused = Impossible<bool, Unfit>;

#[cold]
fn no_row(kind: &str) -> Unfit {
    Unfit::row(format!("{kind} is no row: it takes a struct, a map, a tuple or a sequence"))
}

impl<'a> Serializer for Row<'a> {
    type Ok = bool;
    type Error = Unfit;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Refused;
    type SerializeMap = Pairs<'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Refused;

    fn serialize_bool(self, _: bool) -> Result<bool, Unfit> {
        Err(no_row("a truth value"))
    }

    fn serialize_i8(self, _: i8) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_i16(self, _: i16) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_i32(self, _: i32) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_i64(self, _: i64) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_u8(self, _: u8) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_u16(self, _: u16) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_u32(self, _: u32) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_u64(self, _: u64) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_f32(self, _: f32) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_f64(self, _: f64) -> Result<bool, Unfit> {
        Err(no_row("a number"))
    }

    fn serialize_char(self, _: char) -> Result<bool, Unfit> {
        Err(no_row("a character"))
    }

    fn serialize_str(self, _: &str) -> Result<bool, Unfit> {
        Err(no_row("a text"))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<bool, Unfit> {
        Err(no_row("a byte string"))
    }

    fn serialize_none(self) -> Result<bool, Unfit> {
        Err(no_row("None"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<bool, Unfit> {
        self.0.end(false)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<bool, Unfit> {
        self.0.end(false)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<bool, Unfit> {
        Err(no_row("an enum's variant"))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<bool, Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<bool, Unfit> {
        Err(no_row("an enum's variant"))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unfit> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unfit> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unfit> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Refused, Unfit> {
        Err(no_row("an enum's variant"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Pairs<'a>, Unfit> {
        Ok(Pairs { fields: self.0, key: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unfit> {
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Refused, Unfit> {
        Err(no_row("an enum's variant"))
    }
}

impl SerializeSeq for Row<'_> {
    type Ok = bool;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.put(self.0.next, value)
    }

    fn end(self) -> Result<bool, Unfit> {
        self.0.end(false)
    }
}

impl SerializeTuple for Row<'_> {
    type Ok = bool;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.put(self.0.next, value)
    }

    fn end(self) -> Result<bool, Unfit> {
        self.0.end(false)
    }
}

impl SerializeTupleStruct for Row<'_> {
    type Ok = bool;
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.0.put(self.0.next, value)
    }

    fn end(self) -> Result<bool, Unfit> {
        self.0.end(false)
    }
}

impl SerializeStruct for Row<'_> {
    type Ok = bool;
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unfit> {
        self.0.put(self.0.find(name)?, value)
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), Unfit> {
        self.0.put(self.0.find(name)?, &None::<()>)
    }

    fn end(self) -> Result<bool, Unfit> {
        self.0.end(false)
    }
}

/// A map as a row.
struct Pairs<'a> {
    fields: Fields<'a>,
    key: String,
}

impl SerializeMap for Pairs<'_> {
    type Ok = bool;
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.key.clear();
        text::append(key, &text::Form::Plain, &mut self.key)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.fields.put(self.fields.find(&self.key)?, value)
    }

    fn end(self) -> Result<bool, Unfit> {
        self.fields.end(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_copy_is_escaped() {
        let mut out = Vec::new();
        escape("\\.a\u{8}\t\n\u{b}\u{c}\rb\u{7}é\\".as_bytes(), &mut out);
        assert_eq!(str::from_utf8(&out).unwrap(), "\\\\.a\\b\\t\\n\\v\\f\\rb\u{7}é\\\\");
    }
}
