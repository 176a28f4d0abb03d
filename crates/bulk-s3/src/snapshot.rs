use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;

use crate::counted::counted;
use crate::{Error, Object};

/// A file name with a date in it: `<base>-YYYY-MM-DD.<extension>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatedName<'a> {
    /// What comes before the date and its hyphen.
    pub base: &'a str,
    /// The date.
    pub date: Date,
    /// What comes after the date and its dot, such as `csv.bz2`.
    pub extension: &'a str,
}

impl<'a> DatedName<'a> {
    /// Takes a file name apart; `None` if it has no valid date before its first extension.
    pub fn parse(file_name: &'a str) -> Option<Self> {
        const DATE: usize = "YYYY-MM-DD".len();
        let (stem, extension) = file_name.split_at_checked(file_name.find('.')?)?;
        let at = stem.len().checked_sub(DATE)?;
        let (base, date) = stem.split_at_checked(at)?;
        let base = base.strip_suffix('-').filter(|base| !base.is_empty())?;
        Some(Self { base, date: date.parse().ok()?, extension: &extension[1..] })
    }
}

/// Where a date stands in file names: text in which `YYYY`, and where there are any `MM` and `DD`, stand for digits.
///
/// A name is dated by the last place in it that fits and is a date, and where no digit adjoins the pattern's own. Two names
/// are of one base if they differ in nothing else. Default: `-YYYY-MM-DD`.
///
/// ```
/// use bulk_s3::DatePattern;
///
/// let pattern: DatePattern = "_YYYYMM".parse()?;
/// let (date, base) = pattern.find("dump_202606.tar.gz").unwrap();
/// assert_eq!((date.to_string().as_str(), base.as_str()), ("2026-06-01", "dump_YYYYMM.tar.gz"));
/// assert_eq!(pattern.find("dump_2026061.tar.gz"), None);
/// # Ok::<_, bulk_s3::BadPattern>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatePattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Year,
    Month,
    Day,
    Byte(u8),
}

/// Why text is no [`DatePattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no date pattern: {reason}")]
#[non_exhaustive]
pub struct BadPattern {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Default for DatePattern {
    fn default() -> Self {
        use Token::{Byte, Day, Month, Year};
        Self { text: "-YYYY-MM-DD".to_owned(), tokens: vec![Byte(b'-'), Year, Byte(b'-'), Month, Byte(b'-'), Day] }
    }
}

impl FromStr for DatePattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, behind)) = rest.split_first() {
            let (token, behind) = match rest {
                [b'Y', b'Y', b'Y', b'Y', behind @ ..] => (Token::Year, behind),
                [b'M', b'M', behind @ ..] => (Token::Month, behind),
                [b'D', b'D', behind @ ..] => (Token::Day, behind),
                _ => (Token::Byte(byte), behind),
            };
            tokens.push(token);
            rest = behind;
        }
        let count = |token| tokens.iter().filter(|found| **found == token).count();
        let reason = match [Token::Year, Token::Month, Token::Day].map(count) {
            [0, ..] => Some("it has no YYYY"),
            [1, 0, 1] => Some("it has DD and no MM"),
            [1, 0 | 1, 0 | 1] => None,
            _ => Some("it has YYYY, MM or DD twice"),
        };
        match reason {
            Some(reason) => Err(BadPattern { text: text.to_owned(), reason }),
            None => Ok(Self { text: text.to_owned(), tokens }),
        }
    }
}

impl fmt::Display for DatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl DatePattern {
    /// The date in a file name, its first day where the pattern has no day, and what all names of its base have in common:
    /// the name with the pattern in place of the date. `None` if it has no date.
    pub fn find(&self, file_name: &str) -> Option<(Date, String)> {
        (0..file_name.len()).rev().find_map(|at| {
            let (date, end) = self.match_at(file_name.as_bytes(), at)?;
            // What matched are whole characters: it begins and ends with whole ones of the pattern, or with digits.
            Some((date, format!("{}{}{}", file_name.get(..at)?, self.text, file_name.get(end..)?)))
        })
    }

    fn match_at(&self, name: &[u8], at: usize) -> Option<(Date, usize)> {
        let is_digit = |place: usize| name.get(place).is_some_and(u8::is_ascii_digit);
        let is_number = |token: Option<&Token>| !matches!(token, None | Some(Token::Byte(_)));
        if is_number(self.tokens.first()) && at > 0 && is_digit(at - 1) {
            return None;
        }
        let (mut year, mut month, mut day) = (0, 1, 1);
        let mut end = at;
        for token in &self.tokens {
            let mut number = |digits: usize| {
                let text = name.get(end..end + digits)?;
                end += digits;
                let digit = |value: i16, byte: &u8| byte.is_ascii_digit().then(|| value * 10 + i16::from(byte - b'0'));
                text.iter().try_fold(0, digit)
            };
            match token {
                Token::Year => year = number(4)?,
                Token::Month => month = number(2)?,
                Token::Day => day = number(2)?,
                Token::Byte(byte) if name.get(end) == Some(byte) => end += 1,
                Token::Byte(_) => return None,
            }
        }
        if is_number(self.tokens.last()) && is_digit(end) {
            return None;
        }
        let small = |number: i16| i8::try_from(number).ok();
        Some((Date::new(year, small(month)?, small(day)?).ok()?, end))
    }
}

/// Whether a file of this name and size is what a failed export leaves: the compressed form of nothing. A file that
/// holds only a header is larger and is none.
pub fn is_placeholder(file_name: &str, size: u64) -> bool {
    // The sizes are those of an empty bzip2 stream, gzip member (without a file name in it), zstd frame, xz stream.
    let empty = match file_name.rsplit('.').next() {
        Some("bz2") => 14,
        Some("gz") => 20,
        Some("zst") => 13,
        Some("xz") => 32,
        _ => 0,
    };
    size <= empty
}

/// What a snapshot must have to be chosen.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Wanted {
    /// Base names that must be there and must not be placeholders.
    pub bases: BTreeSet<String>,
    /// Base names that are taken if they are good, and reported missing if not.
    pub optional: BTreeSet<String>,
    /// Only this date will do. Default: the newest complete one.
    pub date: Option<Date>,
}

impl Wanted {
    /// The newest snapshot with all of `bases`.
    pub fn new<T: Into<String>>(bases: impl IntoIterator<Item = T>) -> Self {
        Self { bases: bases.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// A date at which everything wanted is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The date in the files' names.
    pub date: Date,
    /// The files by base name.
    pub files: BTreeMap<String, Object>,
    /// The schema of the nearest date; of two equally near ones the later, because a schema is written after the data.
    pub schema: Option<Object>,
    /// Optional base names that are absent or placeholders, with the reason.
    pub missing: Vec<(String, Lack)>,
    /// Newer dates that were not chosen, newest first.
    pub passed_over: Vec<PassedOver>,
}

/// Why a file is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// It is not there.
    Absent,
    /// It is the compressed form of nothing, of this many bytes.
    Placeholder(u64),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "is absent"),
            Self::Placeholder(size) => write!(f, "is a placeholder of {}", counted(*size, "byte", "bytes")),
        }
    }
}

/// A date that was not chosen, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// The date.
    pub date: Date,
    /// Base names with what is wrong with them.
    pub lacks: Vec<(String, Lack)>,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        write!(f, "{}: ", self.date)?;
        for (place, (base, lack)) in self.lacks.iter().take(SHOWN).enumerate() {
            write!(f, "{}{base} {lack}", if place > 0 { ", " } else { "" })?;
        }
        match self.lacks.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Chooses the newest date at which all of [`Wanted::bases`] are present and none is a placeholder.
///
/// Data files are those named `<base>-YYYY-MM-DD.csv`, compressed or not; schemas are `schema-YYYY-MM-DD.sql`. Names that
/// end in `.delta`, and all others, are passed by. With several files of one base and date (plain and compressed), the
/// smallest that is no placeholder is taken.
///
/// # Errors
///
/// [`Error::NoSnapshot`] if there is no such date.
pub fn choose_snapshot(listing: impl IntoIterator<Item = Object>, wanted: &Wanted) -> Result<Snapshot, Error> {
    let mut dates: BTreeMap<Date, BTreeMap<String, Object>> = BTreeMap::new();
    let mut schemas: BTreeMap<Date, Object> = BTreeMap::new();
    for object in listing {
        let Some(name) = DatedName::parse(object.file_name()) else { continue };
        if name.base == "schema" && name.extension == "sql" {
            schemas.insert(name.date, object);
        } else if is_data(name.extension) && (wanted.bases.contains(name.base) || wanted.optional.contains(name.base)) {
            let (date, base) = (name.date, name.base.to_owned());
            let files = dates.entry(date).or_default();
            match files.get(&base) {
                Some(kept) if !is_better(&object, kept) => {}
                _ => {
                    files.insert(base, object);
                }
            }
        }
    }
    if let Some(date) = wanted.date {
        let files = dates.remove(&date).unwrap_or_default();
        dates = BTreeMap::from([(date, files)]);
    }
    let lack = |files: &BTreeMap<String, Object>, base: &String| match files.get(base) {
        None => Some((base.clone(), Lack::Absent)),
        Some(object) => {
            is_placeholder(object.file_name(), object.size).then(|| (base.clone(), Lack::Placeholder(object.size)))
        }
    };
    let mut passed_over = Vec::new();
    for (date, mut files) in dates.into_iter().rev() {
        let lacks: Vec<_> = wanted.bases.iter().filter_map(|base| lack(&files, base)).collect();
        if !lacks.is_empty() {
            passed_over.push(PassedOver { date, lacks });
            continue;
        }
        let missing: Vec<_> = wanted.optional.iter().filter_map(|base| lack(&files, base)).collect();
        for (base, _) in &missing {
            files.remove(base);
        }
        let distance = |other: &Date| (days_between(date, *other), *other < date);
        let schema = schemas.into_iter().min_by_key(|(other, _)| distance(other)).map(|(_, object)| object);
        return Ok(Snapshot { date, files, schema, missing, passed_over });
    }
    Err(Error::NoSnapshot { passed_over })
}

/// The newest file of each base name by the date in its name, placeholders of data files and `.delta` files left out; undated
/// files as they are. Names in different folders are of different bases. The order of the listing is kept.
pub fn newest_of_each(listing: impl IntoIterator<Item = Object>, pattern: &DatePattern) -> Vec<Object> {
    let objects: Vec<_> =
        listing.into_iter().filter(|object| !object.key.ends_with('/') && !object.key.ends_with(".delta")).collect();
    let mut newest: BTreeMap<(&str, String), (Date, usize)> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for (place, object) in objects.iter().enumerate() {
        let name = object.file_name();
        let Some((date, base)) = pattern.find(name) else {
            kept.insert(place);
            continue;
        };
        let is_data = name.split_once('.').is_some_and(|(_, extension)| is_data(extension));
        if is_data && is_placeholder(name, object.size) {
            continue;
        }
        let folder = object.key.strip_suffix(name).unwrap_or_default();
        let entry = newest.entry((folder, base)).or_insert((date, place));
        if date > entry.0 {
            *entry = (date, place);
        }
    }
    kept.extend(newest.into_values().map(|(_, place)| place));
    objects.into_iter().enumerate().filter(|(place, _)| kept.contains(place)).map(|(_, object)| object).collect()
}

fn is_data(extension: &str) -> bool {
    matches!(extension, "csv" | "csv.bz2" | "csv.gz" | "csv.zst" | "csv.xz")
}

fn is_better(new: &Object, kept: &Object) -> bool {
    let key = |object: &Object| (is_placeholder(object.file_name(), object.size), object.size);
    key(new) < key(kept)
}

fn days_between(a: Date, b: Date) -> i32 {
    a.until(b).map(|span| span.get_days().abs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn names_come_apart_at_the_date() {
        let name = DatedName::parse("people-db-people-2026-06-30.csv.bz2").unwrap();
        assert_eq!((name.base, name.date, name.extension), ("people-db-people", date("2026-06-30"), "csv.bz2"));
        for none in
            ["courts.csv", "2026-06-30.csv", "-2026-06-30.csv", "courts-2026-13-30.csv", "courts-2026-06-30", "é"]
        {
            assert_eq!(DatedName::parse(none), None, "{none}");
        }
    }

    #[test]
    fn the_nearest_schema_is_the_later_of_two() {
        let listing = |schemas: &[&str]| {
            let schemas = schemas.iter().map(|date| Object::new(format!("schema-{date}.sql"), 1)).collect::<Vec<_>>();
            choose_snapshot(
                schemas.into_iter().chain([Object::new("courts-2026-06-30.csv.bz2", 99)]),
                &Wanted::new(["courts"]),
            )
            .unwrap()
            .schema
            .unwrap()
            .key
        };
        assert_eq!(listing(&["2026-06-29", "2026-07-01"]), "schema-2026-07-01.sql");
        assert_eq!(listing(&["2026-03-31", "2026-06-28", "2026-07-09"]), "schema-2026-06-28.sql");
        assert_eq!(listing(&["2025-06-30"]), "schema-2025-06-30.sql");
    }

    #[test]
    fn a_date_without_everything_is_passed_over_and_named() {
        let listing = [
            Object::new("a-2026-06-30.csv.bz2", 14),
            Object::new("b-2026-06-30.csv.bz2", 60),
            Object::new("a-2026-03-31.csv.bz2", 60),
            Object::new("a-2026-03-31.csv.bz2.delta", 60),
        ];
        let error = choose_snapshot(listing.clone(), &Wanted::new(["a", "b"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no snapshot is complete: 2026-06-30: a is a placeholder of 14 bytes; 2026-03-31: b is absent"
        );
        let mut wanted = Wanted::new(["b"]);
        wanted.optional.insert("a".to_owned());
        let snapshot = choose_snapshot(listing.clone(), &wanted).unwrap();
        assert_eq!(snapshot.date, date("2026-06-30"));
        assert_eq!(snapshot.missing, [("a".to_owned(), Lack::Placeholder(14))]);
        assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["b"]);
        wanted.date = Some(date("2026-03-31"));
        let error = choose_snapshot(listing, &wanted).unwrap_err();
        assert_eq!(error.to_string(), "no snapshot is complete: 2026-03-31: b is absent");
    }

    #[test]
    fn the_newest_of_each_keeps_the_order_of_the_listing() {
        let listing = ["x/b-2026-01-01.csv.bz2", "x/a-2026-01-01.csv.bz2", "x/b-2026-04-01.csv.bz2", "x/readme", "x/"];
        let mut listing: Vec<_> = listing.iter().map(|key| Object::new(*key, 99)).collect();
        listing.push(Object::new("x/a-2026-04-01.csv.bz2", 14));
        let newest = newest_of_each(listing, &DatePattern::default());
        let keys: Vec<_> = newest.into_iter().map(|object| object.key).collect();
        assert_eq!(keys, ["x/a-2026-01-01.csv.bz2", "x/b-2026-04-01.csv.bz2", "x/readme"]);
    }

    #[test]
    fn a_pattern_finds_the_last_date_of_a_name() {
        let find = |pattern: &str, name: &str| {
            let found = pattern.parse::<DatePattern>().unwrap().find(name)?;
            Some((found.0.to_string(), found.1))
        };
        let some = |date: &str, base: &str| Some((date.to_owned(), base.to_owned()));
        let usual = "-YYYY-MM-DD";
        assert_eq!(DatePattern::default(), usual.parse().unwrap());
        assert_eq!(find(usual, "courts-2026-06-30.csv"), some("2026-06-30", "courts-YYYY-MM-DD.csv"));
        assert_eq!(find(usual, "a-2025-01-01-2026-06-30.csv"), some("2026-06-30", "a-2025-01-01-YYYY-MM-DD.csv"));
        assert_eq!(find(usual, "a-2026-02-30.csv"), None);
        assert_eq!(find(usual, "a-2026-06-301.csv"), None);
        assert_eq!(find("YYYYMMDD", "最-20260630é"), some("2026-06-30", "最-YYYYMMDDé"));
        assert_eq!(find("YYYYMMDD", "120260630"), None);
        assert_eq!(find("YYYY", "planet-2026.osm"), some("2026-01-01", "planet-YYYY.osm"));
        assert_eq!(find("DD.MM.YYYY", "x 30.06.2026"), some("2026-06-30", "x DD.MM.YYYY"));
        let refused = |pattern: &str| pattern.parse::<DatePattern>().unwrap_err().reason;
        assert_eq!(refused("-MM-DD"), "it has no YYYY");
        assert_eq!(refused("YYYY-DD"), "it has DD and no MM");
        assert_eq!(refused("YYYY-YYYY"), "it has YYYY, MM or DD twice");
    }
}
