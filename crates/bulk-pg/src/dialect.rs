//! What a CSV file's delimiter, quote and escape bytes are, and which of its values are quoted.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The CSV dialect of a file, as PostgreSQL's `COPY … (FORMAT csv)` options describe one.
///
/// NULL is always nothing between two delimiters, and `""` the empty string, as with COPY's default `NULL ''`.
/// Records end in LF, CR or CRLF, whichever ends the first line.
///
/// The four named dialects are the eras of `CourtListener`'s bulk data, which all stand in one bucket. They parse from
/// `A` to `D`, and [`csv`](Self::CSV) is another name of `A`:
///
/// ```
/// use bulk_pg::Dialect;
///
/// let dialect: Dialect = "d".parse()?;
/// assert_eq!(dialect, Dialect::D);
/// assert_eq!(dialect.to_string(), r#"D: quotes ", escaped by a backslash, every value quoted"#);
/// assert_eq!("csv".parse::<Dialect>()?, Dialect::A);
/// # Ok::<(), bulk_pg::UnknownDialect>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    delimiter: u8,
    quote: u8,
    escape: u8,
    quoting: Quoting,
}

/// Which values the writer of a file puts in quotes.
///
/// The strict grammar refuses an unquoted value under [`Always`](Self::Always); the header is exempt, since COPY's
/// `FORCE_QUOTE` does not touch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quoting {
    /// At least those that need it: what contains a delimiter, a quote or a line end, and the empty string.
    #[default]
    AsNeeded,
    /// Every value that is not NULL (`FORCE_QUOTE *`).
    Always,
}

/// A set of bytes that cannot make a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("delimiter {:?}, quote {:?}, escape {:?}: each must be an ASCII character other than NUL and line ends, and the delimiter must differ from the others", *.delimiter as char, *.quote as char, *.escape as char)]
pub struct InvalidDialect {
    delimiter: u8,
    quote: u8,
    escape: u8,
}

/// A dialect's name that is none of A, B, C, D and csv.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown dialect {name:?}: it is one of A, B, C, D, csv")]
pub struct UnknownDialect {
    name: String,
}

impl Dialect {
    /// Era A (from 2022-08), and plain CSV: quotes where needed, doubled inside.
    pub const A: Self = Self { delimiter: b',', quote: b'"', escape: b'"', quoting: Quoting::AsNeeded };
    /// Era B (from 2023-07): every value quoted, quotes doubled inside.
    pub const B: Self = Self { quoting: Quoting::Always, ..Self::A };
    /// Era C (from 2024-07): every value in backticks, doubled inside.
    pub const C: Self = Self { quote: b'`', escape: b'`', ..Self::B };
    /// Era D (from 2025-01-23): every value quoted; a backslash stands before a quote and before a backslash.
    pub const D: Self = Self { escape: b'\\', ..Self::B };
    /// Plain CSV, which is era [`A`](Self::A).
    pub const CSV: Self = Self::A;

    /// The named dialects, oldest first.
    pub const ERAS: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// A dialect of other bytes. `escape` is `quote` where quotes are doubled.
    ///
    /// # Errors
    ///
    /// [`InvalidDialect`] unless the three are ASCII, none is NUL, LF or CR, and `delimiter` differs from both others
    /// (PostgreSQL's rules for COPY; it has no one-byte option for what is not ASCII in UTF-8).
    pub fn new(delimiter: u8, quote: u8, escape: u8, quoting: Quoting) -> Result<Self, InvalidDialect> {
        let ordinary = |byte: u8| byte.is_ascii() && !matches!(byte, 0 | b'\n' | b'\r');
        if [delimiter, quote, escape].into_iter().all(ordinary) && delimiter != quote && delimiter != escape {
            Ok(Self { delimiter, quote, escape, quoting })
        } else {
            Err(InvalidDialect { delimiter, quote, escape })
        }
    }

    /// The byte between two fields.
    pub fn delimiter(self) -> u8 {
        self.delimiter
    }

    /// The byte before and after a quoted value.
    pub fn quote(self) -> u8 {
        self.quote
    }

    /// The byte that stands before a quote, and before itself, inside quotes.
    pub fn escape(self) -> u8 {
        self.escape
    }

    /// Which values are quoted.
    pub fn quoting(self) -> Quoting {
        self.quoting
    }

    /// Whether a quote inside quotes is written twice, rather than with another byte before it.
    pub fn doubles_quotes(self) -> bool {
        self.escape == self.quote
    }

    /// `A`, `B`, `C` or `D`; `custom` for all others.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            _ => "custom",
        }
    }

    pub(crate) fn with_quoting(self, quoting: Quoting) -> Self {
        Self { quoting, ..self }
    }

    /// The dialect that differs from this one only in how a quote is written inside quotes: with a backslash where
    /// this one doubles it, and doubled where this one escapes it.
    pub(crate) fn rival(self) -> Self {
        Self { escape: if self.doubles_quotes() { b'\\' } else { self.quote }, ..self }
    }
}

/// As [`A`](Dialect::A).
impl Default for Dialect {
    fn default() -> Self {
        Self::A
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    /// Reads `A`, `B`, `C`, `D` or `csv`, in either case.
    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        match name.to_ascii_lowercase().as_str() {
            "a" | "csv" => Ok(Self::A),
            "b" => Ok(Self::B),
            "c" => Ok(Self::C),
            "d" => Ok(Self::D),
            _ => Err(UnknownDialect { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        if self.delimiter != b',' {
            write!(f, "delimiter {}, ", spoken(self.delimiter))?;
        }
        write!(f, "quotes {}, ", spoken(self.quote))?;
        if self.doubles_quotes() {
            f.write_str("doubled inside, ")?;
        } else if self.escape == b'\\' {
            f.write_str("escaped by a backslash, ")?;
        } else {
            write!(f, "escaped by {}, ", spoken(self.escape))?;
        }
        f.write_str(match self.quoting {
            Quoting::AsNeeded => "values quoted where needed",
            Quoting::Always => "every value quoted",
        })
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialect({self})")
    }
}

fn spoken(byte: u8) -> String {
    if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("{:?}", char::from(byte)) }
}
