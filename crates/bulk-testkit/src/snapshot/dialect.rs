//! The CSV dialects of the four eras, as `COPY ... TO STDOUT` prints them.

use super::row::Row;

/// A dialect of the published files. The header line is bare in all of them, NULL is nothing between commas, and
/// records end in LF. B to D quote every value that is not NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// From 2022-08: `FORMAT csv, HEADER`. Values are quoted where they must be: the empty string, and what holds a
    /// comma, a quote, CR or LF. Quotes are doubled.
    A,
    /// From 2023-07: `FORCE_QUOTE *` besides.
    B,
    /// From 2024-07: the quote is the backtick, doubled inside.
    C,
    /// From 2025-01-23 until today: `FORCE_QUOTE *, ESCAPE '\'`.
    #[default]
    D,
}

impl Dialect {
    /// The quote character.
    #[must_use]
    pub fn quote(self) -> u8 {
        if self == Self::C { b'`' } else { b'"' }
    }

    /// What stands before a quote, or before itself, inside quotes.
    #[must_use]
    pub fn escape(self) -> u8 {
        if self == Self::D { b'\\' } else { self.quote() }
    }

    /// Whether values are quoted that need not be.
    #[must_use]
    pub fn quotes_all(self) -> bool {
        self != Self::A
    }

    /// Appends the record of `row`, with its LF.
    pub fn encode(self, row: &Row, out: &mut Vec<u8>) {
        let (quote, escape) = (self.quote(), self.escape());
        for index in 0..row.len() {
            if index > 0 {
                out.push(b',');
            }
            let Some(value) = row.bytes(index) else { continue };
            if self.quotes_all() || value.is_empty() || value.iter().any(|&b| needs_quotes(b, quote)) {
                out.push(quote);
                let mut rest = value;
                while let Some(at) = rest.iter().position(|&b| b == quote || b == escape) {
                    out.extend_from_slice(&rest[..at]);
                    out.extend_from_slice(&[escape, rest[at]]);
                    rest = &rest[at + 1..];
                }
                out.extend_from_slice(rest);
                out.push(quote);
            } else {
                out.extend_from_slice(value);
            }
        }
        out.push(b'\n');
    }
}

/// The rule of CopyAttributeOutCSV in PostgreSQL's copyto.c. Its other rule, that `\.` alone in a one-column record is
/// quoted, touches no published table.
fn needs_quotes(byte: u8, quote: u8) -> bool {
    byte == b',' || byte == quote || byte == b'\n' || byte == b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(dialect: Dialect, cells: &[Option<&str>]) -> String {
        let mut row = Row::default();
        cells.iter().for_each(|cell| {
            row.maybe(*cell);
        });
        let mut out = Vec::new();
        dialect.encode(&row, &mut out);
        String::from_utf8(out).expect("what went in was text")
    }

    /// The values, and what PostgreSQL 15 wrote for them.
    #[test]
    fn every_dialect_is_what_the_server_prints() {
        let hi = [Some("3"), Some("say \"hi\", ok"), Some("back\\slash"), None, Some("")];
        assert_eq!(encoded(Dialect::A, &hi), "3,\"say \"\"hi\"\", ok\",back\\slash,,\"\"\n");
        assert_eq!(encoded(Dialect::B, &hi), "\"3\",\"say \"\"hi\"\", ok\",\"back\\slash\",,\"\"\n");
        assert_eq!(encoded(Dialect::C, &hi), "`3`,`say \"hi\", ok`,`back\\slash`,,``\n");
        assert_eq!(encoded(Dialect::D, &hi), "\"3\",\"say \\\"hi\\\", ok\",\"back\\\\slash\",,\"\"\n");

        let odd = [Some("x\n\\.\ny"), Some("\\N"), Some("\\\""), Some("\"\""), Some("back`tick"), Some(" ")];
        assert_eq!(encoded(Dialect::A, &odd), "\"x\n\\.\ny\",\\N,\"\\\"\"\",\"\"\"\"\"\",back`tick, \n");
        assert_eq!(encoded(Dialect::B, &odd), "\"x\n\\.\ny\",\"\\N\",\"\\\"\"\",\"\"\"\"\"\",\"back`tick\",\" \"\n");
        assert_eq!(encoded(Dialect::C, &odd), "`x\n\\.\ny`,`\\N`,`\\\"`,`\"\"`,`back``tick`,` `\n");
        assert_eq!(
            encoded(Dialect::D, &odd),
            "\"x\n\\\\.\ny\",\"\\\\N\",\"\\\\\\\"\",\"\\\"\\\"\",\"back`tick\",\" \"\n"
        );
    }
}
