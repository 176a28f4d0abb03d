//! What a loaded snapshot must hold, in a form that the server can compute itself.

use md5::{Digest as _, Md5};

use super::row::Row;

/// The sum over rows of the first 60 bits of `md5(ROW(columns)::text)`, with the columns in the published order. It does
/// not depend on the order of rows. In PostgreSQL, with TimeZone UTC and DateStyle ISO:
/// `sum(('x' || left(md5(ROW(...)::text), 15))::bit(60)::bigint)`.
#[derive(Debug, Default)]
pub(super) struct RowSum {
    sum: u128,
    record: Vec<u8>,
}

impl RowSum {
    pub(super) fn add(&mut self, row: &Row) {
        self.record.clear();
        print_record(row, &mut self.record);
        let digest = Md5::digest(&self.record);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        self.sum += u128::from(u64::from_be_bytes(first) >> 4);
    }

    pub(super) fn total(&self) -> u128 {
        self.sum
    }
}

/// The text of a record, after the rules of record_out in PostgreSQL's rowtypes.c.
fn print_record(row: &Row, out: &mut Vec<u8>) {
    out.push(b'(');
    for index in 0..row.len() {
        if index > 0 {
            out.push(b',');
        }
        let Some(value) = row.bytes(index) else { continue };
        if !value.is_empty() && !value.iter().any(|&byte| needs_quotes(byte)) {
            out.extend_from_slice(value);
            continue;
        }
        out.push(b'"');
        let mut rest = value;
        while let Some(at) = rest.iter().position(|&byte| byte == b'"' || byte == b'\\') {
            out.extend_from_slice(&rest[..=at]);
            out.push(rest[at]);
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        out.push(b'"');
    }
    out.push(b')');
}

fn needs_quotes(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'(' | b')' | b',' | b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_printed_as_the_server_prints_them() {
        let mut row = Row::default();
        row.int(1).null().text("").text("a b").text("q\"\\").text("plain").text("\u{b}").text("é");
        let mut out = Vec::new();
        print_record(&row, &mut out);
        assert_eq!(out, "(1,,\"\",\"a b\",\"q\"\"\\\\\",plain,\"\u{b}\",é)".as_bytes());
    }

    /// `select ('x' || left(md5(ROW(1, 'x')::text), 15))::bit(60)::bigint` gives this number.
    #[test]
    fn a_sum_is_what_the_server_computes() {
        let mut row = Row::default();
        row.int(1).text("x");
        let mut sum = RowSum::default();
        sum.add(&row);
        assert_eq!(sum.total(), 449_931_072_553_602_885);
    }
}
