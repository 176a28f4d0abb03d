//! The scanner: finds the fields and the end of the record at the start of a slice.
//!
//! It follows PostgreSQL's CSV reader (`CopyReadLineText` and `CopyReadAttributesCSV` in
//! `src/backend/commands/copyfromparse.c`), save that `\.` is data everywhere.

use memchr::{memchr, memchr2, memchr3};

use crate::{Contradiction, Dialect, Grammar, Quoting};

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newline {
    Lf,
    Cr,
    CrLf,
}

/// How a field is written, hence what must be done to get its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Without quotes; empty is NULL. The raw bytes are the value.
    Bare,
    /// In quotes. The raw bytes, which exclude the quotes, are the value.
    Quoted,
    /// In quotes, with quotes or escapes inside that are to be resolved. The raw bytes exclude the outer quotes.
    Escaped,
    /// Quoted in part, which only [`Grammar::Server`] reads. The raw bytes include all quotes.
    Mixed,
}

/// Where a field's raw bytes stand, counted from the start of its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) form: Form,
}

/// What the scanner found at the start of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A whole record of so many bytes, its line end included.
    Record(usize),
    /// The input ends before the record does; the field that is not whole starts at `open`.
    More { open: usize },
    /// The input is empty, and no more will come.
    End,
}

/// Why there is no record at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where the offending byte stands, counted from the start of the record.
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Contradiction(Contradiction),
    /// The input ended inside quotes.
    Unterminated,
    /// A line end of another style than the first.
    MixedNewlines,
    /// More than [`MAX_FIELDS`].
    TooManyFields,
}

/// The most fields of a record. A table has at most 1,600 columns (PostgreSQL manual, "PostgreSQL Limits"); a file may have
/// more, but a line of delimiters must not fill the memory with the places of its fields.
pub(crate) const MAX_FIELDS: usize = 1 << 16;

/// The rules by which records are scanned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) dialect: Dialect,
    pub(crate) grammar: Grammar,
    /// Fixed by the first line end.
    pub(crate) newline: Option<Newline>,
}

impl Rules {
    pub(crate) fn new(dialect: Dialect, grammar: Grammar) -> Self {
        Self { dialect, grammar, newline: None }
    }

    /// The same rules, by which a bare value is never a contradiction; for the header.
    pub(crate) fn for_header(self) -> Self {
        Self { dialect: self.dialect.with_quoting(Quoting::AsNeeded), ..self }
    }

    /// Scans the record at the start of `input`, whose last byte is the last of all if `last`.
    ///
    /// On [`Scan::Record`] `spans` holds its fields; otherwise those that are whole.
    /// `input` must be shorter than 4 GiB.
    pub(crate) fn scan(&mut self, input: &[u8], last: bool, spans: &mut Vec<Span>) -> Result<Scan, Fault> {
        if self.dialect.doubles_quotes() {
            self.scan_as::<true>(input, last, spans)
        } else {
            self.scan_as::<false>(input, last, spans)
        }
    }

    fn scan_as<const DOUBLED: bool>(&mut self, input: &[u8], last: bool, spans: &mut Vec<Span>) -> Result<Scan, Fault> {
        spans.clear();
        if input.is_empty() {
            return Ok(if last { Scan::End } else { Scan::More { open: 0 } });
        }
        let delimiter = self.dialect.delimiter();
        let (quote, escape) = (self.dialect.quote(), self.dialect.escape());
        let strict = self.grammar == Grammar::Strict;
        let always = strict && self.dialect.quoting() == Quoting::Always;
        let mut start = 0;
        loop {
            // `at` comes to stand on the byte after the field.
            let (mut at, mut form, mut inner) = match input.get(start) {
                Some(&byte) if byte == quote => {
                    let (close, escaped) = match close_of::<DOUBLED>(input, start + 1, last, quote, escape, strict)? {
                        Some(found) => found,
                        None => return Ok(Scan::More { open: start }),
                    };
                    (close + 1, if escaped { Form::Escaped } else { Form::Quoted }, (start + 1, close))
                }
                Some(_) => {
                    let at = start + bare_len(&input[start..], delimiter, quote);
                    if always && at > start && at < input.len() {
                        return Err(contradiction(start, Contradiction::BareValue));
                    }
                    (at, Form::Bare, (start, at))
                }
                None => (start, Form::Bare, (start, start)),
            };
            let border = input.get(at).copied();
            let stray = match border {
                Some(byte) => byte != delimiter && byte != b'\n' && byte != b'\r',
                None => false,
            };
            if stray {
                if strict {
                    let what = match form {
                        Form::Bare => Contradiction::QuoteInBareValue,
                        _ => Contradiction::TextAfterQuote,
                    };
                    return Err(contradiction(at, what));
                }
                match mixed_end(input, start, last, self.dialect)? {
                    Some(end) => at = end,
                    None => return Ok(Scan::More { open: start }),
                }
                (form, inner) = (Form::Mixed, (start, at));
            }
            let span = Span { start: inner.0 as u32, end: inner.1 as u32, form };
            match input.get(at).copied() {
                Some(byte) if byte == delimiter => {
                    push(spans, span, at)?;
                    start = at + 1;
                }
                Some(byte) => match self.line_end(input, at, byte, last)? {
                    Some(end) => {
                        push(spans, span, at)?;
                        return Ok(Scan::Record(end));
                    }
                    None => return Ok(Scan::More { open: start }),
                },
                None if last => {
                    if always && form == Form::Bare && at > start {
                        return Err(contradiction(start, Contradiction::BareValue));
                    }
                    push(spans, span, at)?;
                    return Ok(Scan::Record(at));
                }
                None => return Ok(Scan::More { open: start }),
            }
        }
    }

    /// The end of the line end at `at`, or `None` where the byte after it must be known and is not.
    fn line_end(&mut self, input: &[u8], at: usize, byte: u8, last: bool) -> Result<Option<usize>, Fault> {
        let found = match (byte, input.get(at + 1)) {
            (b'\n', _) => Newline::Lf,
            (_, Some(b'\n')) if self.newline != Some(Newline::Cr) => Newline::CrLf,
            (_, None) if !last && self.newline != Some(Newline::Cr) => return Ok(None),
            _ => Newline::Cr,
        };
        if *self.newline.get_or_insert(found) != found {
            return Err(Fault { at, kind: FaultKind::MixedNewlines });
        }
        Ok(Some(at + if found == Newline::CrLf { 2 } else { 1 }))
    }
}

/// Looks at the limit only where the list has to grow.
#[inline(always)]
fn push(spans: &mut Vec<Span>, span: Span, at: usize) -> Result<(), Fault> {
    if spans.len() == spans.capacity() {
        if spans.len() >= MAX_FIELDS {
            return Err(Fault { at, kind: FaultKind::TooManyFields });
        }
        spans.reserve_exact(spans.len().max(SPANS));
    }
    spans.push(span);
    Ok(())
}

/// Room for so many fields is made at first, and twice as many each time after that: [`MAX_FIELDS`] is met exactly.
const SPANS: usize = 16;

fn contradiction(at: usize, what: Contradiction) -> Fault {
    Fault { at, kind: FaultKind::Contradiction(what) }
}

/// Finds the closing quote of the quoted field whose content starts at `at`, and whether there are escapes before it;
/// `None` if the input ends before that can be known.
#[inline(always)]
fn close_of<const DOUBLED: bool>(
    input: &[u8],
    mut at: usize,
    last: bool,
    quote: u8,
    escape: u8,
    strict: bool,
) -> Result<Option<(usize, bool)>, Fault> {
    let mut escaped = false;
    loop {
        match find2(&input[at..], quote, if DOUBLED { quote } else { escape }) {
            Some(distance) => at += distance,
            None if last => return Err(Fault { at: 0, kind: FaultKind::Unterminated }),
            None => return Ok(None),
        }
        let next = input.get(at + 1).copied();
        if next.is_none() && !last {
            return Ok(None);
        }
        if DOUBLED {
            if next != Some(quote) {
                return Ok(Some((at, escaped)));
            }
        } else if input[at] == quote {
            return Ok(Some((at, escaped)));
        } else if next != Some(quote) && next != Some(escape) {
            if strict && next.is_some() {
                return Err(contradiction(at, Contradiction::LoneEscape));
            }
            at += 1;
            continue;
        }
        escaped = true;
        at += 2;
    }
}

/// The end of a field, at `start`, that is quoted in part, as the server reads one; `None` if the input ends before
/// that can be known.
fn mixed_end(input: &[u8], start: usize, last: bool, dialect: Dialect) -> Result<Option<usize>, Fault> {
    let (quote, escape, delimiter) = (dialect.quote(), dialect.escape(), dialect.delimiter());
    let mut at = start;
    loop {
        at += bare_len(&input[at..], delimiter, quote);
        match input.get(at) {
            Some(&byte) if byte == quote => {}
            None if !last => return Ok(None),
            _ => return Ok(Some(at)),
        }
        let close = if dialect.doubles_quotes() {
            close_of::<true>(input, at + 1, last, quote, escape, false)?
        } else {
            close_of::<false>(input, at + 1, last, quote, escape, false)?
        };
        match close {
            Some((close, _)) => at = close + 1,
            None => return Ok(None),
        }
    }
}

/// How many bytes of `input` stand before the first delimiter, quote or line end.
#[inline(always)]
fn bare_len(input: &[u8], delimiter: u8, quote: u8) -> usize {
    const SHORT: usize = 4;
    let mut at = 0;
    for _ in 0..SHORT {
        let Some(word) = word_at(input, at) else { break };
        let hits = zeros(word ^ repeat(delimiter))
            | zeros(word ^ repeat(quote))
            | zeros(word ^ repeat(b'\n'))
            | zeros(word ^ repeat(b'\r'));
        if hits != 0 {
            return at + lowest(hits);
        }
        at += 8;
    }
    let rest = &input[at..];
    let end = memchr3(delimiter, b'\n', b'\r', rest).unwrap_or(rest.len());
    at + memchr(quote, &rest[..end]).unwrap_or(end)
}

/// As [`memchr2`], and quicker where the byte is near.
#[inline(always)]
fn find2(input: &[u8], one: u8, two: u8) -> Option<usize> {
    const SHORT: usize = 4;
    let mut at = 0;
    for _ in 0..SHORT {
        let Some(word) = word_at(input, at) else { break };
        let hits = zeros(word ^ repeat(one)) | zeros(word ^ repeat(two));
        if hits != 0 {
            return Some(at + lowest(hits));
        }
        at += 8;
    }
    memchr2(one, two, &input[at..]).map(|distance| at + distance)
}

#[inline(always)]
fn word_at(input: &[u8], at: usize) -> Option<u64> {
    input.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Sets the top bit of the lowest zero byte of `word`, and none below it. (Bits above may be set by the borrow.)
#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80)
}

#[inline(always)]
fn lowest(hits: u64) -> usize {
    (hits.trailing_zeros() / 8) as usize
}
