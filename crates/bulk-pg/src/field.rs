use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};

use crate::Dialect;
use crate::scan::{Form, Span};

/// One field of a [`Record`](crate::Record).
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// The field's bytes, and those after them to the end of the record.
    from: &'a [u8],
    len: usize,
    form: Form,
    dialect: Dialect,
}

impl<'a> Field<'a> {
    pub(crate) fn new(record: &'a [u8], span: Span, dialect: Dialect) -> Self {
        let len = (span.end - span.start) as usize;
        Self { from: &record[span.start as usize..], len, form: span.form, dialect }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The raw bytes with those after them to the end of the record, and how many the former are.
    pub(crate) fn raw_and_after(&self) -> (&'a [u8], usize) {
        (self.from, self.len)
    }

    /// Whether it is NULL: empty and not quoted.
    pub fn is_null(&self) -> bool {
        self.form == Form::Bare && self.len == 0
    }

    /// Whether it is quoted.
    pub fn is_quoted(&self) -> bool {
        self.form != Form::Bare
    }

    /// Whether its value differs from its raw bytes.
    pub fn needs_unescape(&self) -> bool {
        matches!(self.form, Form::Escaped | Form::Mixed)
    }

    /// Its bytes as they stand in the stream, without the quotes around them. (Under [`Grammar::Server`](crate::Grammar::Server) a field that
    /// is quoted in part keeps them.)
    pub fn raw(&self) -> &'a [u8] {
        &self.from[..self.len]
    }

    /// Its value, or `None` for NULL. It allocates only if the field [needs it](Self::needs_unescape).
    pub fn value(&self) -> Option<Cow<'a, [u8]>> {
        if self.is_null() {
            None
        } else if self.needs_unescape() {
            let mut value = Vec::with_capacity(self.len);
            self.append_value(&mut value);
            Some(Cow::Owned(value))
        } else {
            Some(Cow::Borrowed(self.raw()))
        }
    }

    /// Appends the value to `out`; nothing for NULL.
    pub fn append_value(&self, out: &mut Vec<u8>) {
        self.for_each_piece(|piece| out.extend_from_slice(piece));
    }

    /// Calls `piece` with slices that make up the value, in order.
    #[inline(always)]
    pub(crate) fn for_each_piece(&self, mut piece: impl FnMut(&'a [u8])) {
        match self.form {
            Form::Bare | Form::Quoted => piece(self.raw()),
            Form::Escaped => {
                unescape(self.raw(), self.dialect, &mut piece);
            }
            Form::Mixed => {
                let (mut rest, quote) = (self.raw(), self.dialect.quote());
                while let Some(open) = memchr(quote, rest) {
                    piece(&rest[..open]);
                    let quoted = &rest[open + 1..];
                    rest = &quoted[unescape(quoted, self.dialect, &mut piece)..];
                }
                piece(rest);
            }
        }
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({:?}, {})", self.form, self.raw().escape_ascii())
    }
}

/// Calls `piece` with the slices of a value that starts after an opening quote. Returns how many bytes it took,
/// the closing quote (if there is one) included.
#[inline(always)]
fn unescape<'a>(raw: &'a [u8], dialect: Dialect, piece: &mut impl FnMut(&'a [u8])) -> usize {
    let (quote, escape) = (dialect.quote(), dialect.escape());
    let (mut start, mut at) = (0, 0);
    while let Some(distance) = memchr2(quote, escape, &raw[at..]) {
        let found = at + distance;
        match raw.get(found + 1) {
            // The escaped byte begins the next piece.
            Some(&next) if raw[found] == escape && (next == quote || next == escape) => {
                piece(&raw[start..found]);
                start = found + 1;
                at = found + 2;
            }
            _ if raw[found] == quote => {
                piece(&raw[start..found]);
                return found + 1;
            }
            _ => at = found + 1,
        }
    }
    piece(&raw[start..]);
    raw.len()
}
