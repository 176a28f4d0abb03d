//! Tells a file's dialect from its first bytes.

use std::fmt;

use memchr::{memchr2, memchr3};
use thiserror::Error;

use crate::counted::counted;
use crate::scan::{Fault, Form, Rules, Scan, Span};
use crate::{Dialect, Grammar, RecordErrorKind};

/// How sure a [`Verdict`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certainty {
    /// The sample contradicts every dialect that would give other values.
    Proven,
    /// Two dialects read the sample without a contradiction and with different values, and its backslashes, which
    /// all stand in pairs, are as one of them writes them. The more of them there are, the surer it is.
    Likely,
    /// As [`Ambiguous`](Self::Ambiguous) or [`Likely`](Self::Likely), and the hint decided.
    Hinted,
    /// Dialects that read the sample with the same values may read what follows differently: read with
    /// [`RecordOptions::guard`](crate::RecordOptions::guard).
    Ambiguous,
}

/// What [`detect`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The dialect to read the file by.
    pub dialect: Dialect,
    /// How sure that is.
    pub certainty: Certainty,
    /// What it rests on, in words, for people.
    pub evidence: String,
    /// How many whole records the sample has.
    pub records: u64,
}

/// The sample is of none of the dialects; see [`detect`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no dialect reads the file: {}", Listed(.attempts))]
#[non_exhaustive]
pub struct Undetected {
    /// Where each dialect failed.
    pub attempts: Vec<Attempt>,
}

/// Where the sample contradicts a dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The dialect that it cannot be.
    pub dialect: Dialect,
    /// The record's number, from 1; 0 for the header.
    pub record: u64,
    /// Where the offending byte stands in the sample.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Tells the dialect of the file that starts with `sample` (`complete`: and ends with it). A megabyte or more of
/// decoded bytes is a good sample; it may end anywhere.
///
/// 1. Each of the four eras reads the sample by its [strict grammar](Grammar::Strict); those that it contradicts fall
///    out. Records whose fields are not as many as the header's count against a dialect, too: it falls out if another
///    has none of them, or if more than half of all records are such.
/// 2. Of what is left, C wins if any value stands in backticks (a file of era A in which every single value does is
///    the price). A reads every file of B with the same values; B wins over it if quotes stand around a value that
///    needs none, or if there are no values at all, where A might hide one of C.
/// 3. If B (or A) and D are both left, the sample has no `\"` and no `""` that would tell them apart. If it has
///    backslashes at all, they stand in pairs, as D writes them: D, [likely](Certainty::Likely). If it has none, both
///    give the same values: B, [ambiguous](Certainty::Ambiguous). In both cases a `hint` that is left decides instead.
///
/// A `hint` that the sample contradicts is not followed, so compare the verdict with what was asked for. A hint that
/// is none of the four eras is tried alone. The encoding is not looked at.
///
/// ```
/// use bulk_pg::{Certainty, Dialect, detect};
///
/// let verdict = detect(b"id,title\n\"1\",\"In re \\\"X\\\"\"\n", true, None)?;
/// assert_eq!((verdict.dialect, verdict.certainty), (Dialect::D, Certainty::Proven));
///
/// let verdict = detect(b"id,title\n\"1\",\"Roe v. Wade\"\n", true, None)?;
/// assert_eq!((verdict.dialect, verdict.certainty), (Dialect::B, Certainty::Ambiguous));
/// # Ok::<(), bulk_pg::Undetected>(())
/// ```
///
/// # Errors
///
/// [`Undetected`] if the sample contradicts every dialect, or is complete and empty.
pub fn detect(sample: &[u8], complete: bool, hint: Option<Dialect>) -> Result<Verdict, Undetected> {
    detect_in(sample, complete, hint, true)
}

/// The same of a file that may have no header: its first record counts as all others then.
pub(crate) fn detect_in(
    sample: &[u8],
    complete: bool,
    hint: Option<Dialect>,
    has_header: bool,
) -> Result<Verdict, Undetected> {
    if let Some(dialect) = hint
        && !Dialect::ERAS.contains(&dialect)
    {
        let trial = Trial::run(dialect, sample, complete, has_header);
        if !trial.stands(false) {
            return Err(undetected(&[trial]));
        }
        let evidence = format!("{}, without a contradiction", trial.seen());
        return Ok(Verdict { dialect, certainty: Certainty::Hinted, evidence, records: trial.records });
    }

    let trials = Dialect::ERAS.map(|dialect| Trial::run(dialect, sample, complete, has_header));
    let flawless = trials.iter().any(|trial| trial.stands(true));
    let standing = |dialect: Dialect| trials.iter().find(|trial| trial.dialect == dialect && trial.stands(flawless));
    let hinted = |among: &[Dialect]| hint.filter(|hint| among.contains(hint)).and_then(standing);
    let verdict = |trial: &Trial, certainty, evidence| {
        let miscounted = match trial.miscounted {
            0 => String::new(),
            number => format!("; {} of another width than the header", counted(number, "record", "records")),
        };
        let evidence = format!("{evidence}{miscounted}");
        Ok(Verdict { dialect: trial.dialect, certainty, evidence, records: trial.records })
    };
    let why_not = |others: &[Dialect]| {
        let fallen = trials.iter().filter(|trial| others.contains(&trial.dialect));
        let attempts: Vec<Attempt> = fallen.map(Trial::attempt).collect();
        Listed(&attempts).to_string()
    };

    if let Some(trial) = standing(Dialect::C)
        && trial.quoted > 0
    {
        let evidence =
            format!("{}, {} in backticks and none without", trial.seen(), counted(trial.quoted, "value", "values"));
        return verdict(trial, Certainty::Proven, evidence);
    }
    let forced = standing(Dialect::B).filter(|trial| trial.needless > 0 || trial.quoted == 0);
    let doubling = hinted(&[Dialect::A, Dialect::B]).or(forced).or(standing(Dialect::A)).or(standing(Dialect::B));
    match (doubling, standing(Dialect::D)) {
        (Some(doubling), None) => {
            let evidence = format!(
                "{}, {}, {}; not {}",
                doubling.seen(),
                counted(doubling.quoted, "quoted value", "quoted values"),
                counted(doubling.escaped_quotes, "doubled quote", "doubled quotes"),
                why_not(&[Dialect::D]),
            );
            verdict(doubling, Certainty::Proven, evidence)
        }
        (None, Some(escaping)) => {
            let evidence = format!(
                "{}, {}, {}; not {}",
                escaping.seen(),
                counted(escaping.escaped_quotes, "escaped quote", "escaped quotes"),
                counted(escaping.pairs, "backslash pair", "backslash pairs"),
                why_not(&[Dialect::B]),
            );
            verdict(escaping, Certainty::Proven, evidence)
        }
        (Some(doubling), Some(escaping)) => {
            let paired = escaping.pairs > 0 && escaping.escaped_quotes == 0 && doubling.escaped_quotes == 0;
            let evidence = if paired {
                format!(
                    "{}, {} backslashes inside quotes, all in pairs, and no quotes inside quotes; {} reads a pair as \
                     one, {} would keep both",
                    escaping.seen(),
                    2 * escaping.pairs,
                    escaping.dialect.name(),
                    doubling.dialect.name(),
                )
            } else if escaping.pairs + escaping.escaped_quotes + doubling.escaped_quotes > 0 {
                format!(
                    "{}, which {} and {} read differently",
                    escaping.seen(),
                    doubling.dialect.name(),
                    escaping.dialect.name()
                )
            } else {
                format!("{}, with neither a backslash nor a quote inside quotes", escaping.seen())
            };
            if let Some(trial) = hinted(&Dialect::ERAS) {
                verdict(trial, Certainty::Hinted, evidence)
            } else if paired {
                verdict(escaping, Certainty::Likely, evidence)
            } else {
                verdict(doubling, Certainty::Ambiguous, evidence)
            }
        }
        (None, None) => Err(undetected(&trials)),
    }
}

fn undetected(trials: &[Trial]) -> Undetected {
    Undetected { attempts: trials.iter().map(Trial::attempt).collect() }
}

/// What became of reading the sample by one dialect.
struct Trial {
    dialect: Dialect,
    /// Whole records.
    records: u64,
    /// Of those, the ones with another number of fields than the header, and the first of them.
    miscounted: u64,
    first_miscounted: Option<Attempt>,
    quoted: u64,
    /// Of the whole quoted values, those that `COPY TO` would have quoted under `FORCE_QUOTE` alone.
    needless: u64,
    escaped_quotes: u64,
    /// Escaped escapes, where the escape is not the quote.
    pairs: u64,
    fault: Option<Attempt>,
}

impl Trial {
    fn run(dialect: Dialect, sample: &[u8], complete: bool, has_header: bool) -> Self {
        let mut trial = Self {
            dialect,
            records: 0,
            miscounted: 0,
            first_miscounted: None,
            quoted: 0,
            needless: 0,
            escaped_quotes: 0,
            pairs: 0,
            fault: None,
        };
        let mut at = if sample.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let mut rules = Rules::new(dialect, Grammar::Strict);
        let mut spans = Vec::new();
        let mut first = if has_header { rules.for_header() } else { rules };
        let (number, of_first) = if has_header { (0, "the header") } else { (1, "the first record") };
        let columns = match first.scan(&sample[at..], complete, &mut spans) {
            Ok(Scan::Record(len)) => {
                if !has_header {
                    trial.records += 1;
                    trial.weigh(&sample[at..], &spans);
                }
                at += len;
                spans.len()
            }
            Ok(Scan::End) => {
                trial.fault = Some(trial.attempt_at(number, at, "the input is empty".to_owned()));
                return trial;
            }
            Ok(Scan::More { .. }) => return trial,
            Err(fault) => {
                trial.fault = Some(trial.attempt_of(number, at, fault));
                return trial;
            }
        };
        rules.newline = first.newline;
        loop {
            let rest = &sample[at..];
            match rules.scan(rest, complete, &mut spans) {
                Ok(Scan::Record(len)) => {
                    trial.records += 1;
                    trial.weigh(rest, &spans);
                    if spans.len() != columns {
                        trial.miscounted += 1;
                        let reason =
                            format!("{} where {of_first} has {columns}", counted(spans.len(), "field", "fields"));
                        let attempt = trial.attempt_at(trial.records, at, reason);
                        trial.first_miscounted.get_or_insert(attempt);
                    }
                    at += len;
                }
                Ok(Scan::More { open }) => {
                    trial.weigh(rest, &spans);
                    if rest.get(open) == Some(&dialect.quote()) {
                        trial.quoted += 1;
                        trial.weigh_escapes(&rest[open + 1..]);
                    }
                    return trial;
                }
                Ok(Scan::End) => return trial,
                Err(fault) => {
                    trial.fault = Some(trial.attempt_of(trial.records + 1, at, fault));
                    return trial;
                }
            }
        }
    }

    /// Whether the dialect is left: not contradicted, and (`flawless`) with no record of a wrong number of fields.
    fn stands(&self, flawless: bool) -> bool {
        self.fault.is_none() && if flawless { self.miscounted == 0 } else { self.miscounted * 2 <= self.records }
    }

    fn weigh(&mut self, record: &[u8], spans: &[Span]) {
        for span in spans {
            let raw = &record[span.start as usize..span.end as usize];
            self.quoted += u64::from(span.form != Form::Bare);
            if span.form == Form::Escaped {
                self.weigh_escapes(raw);
            } else if span.form == Form::Quoted && !raw.is_empty() && raw != b"\\." {
                self.needless += u64::from(memchr3(self.dialect.delimiter(), b'\n', b'\r', raw).is_none());
            }
        }
    }

    /// Counts the escapes of what stands after an opening quote.
    fn weigh_escapes(&mut self, quoted: &[u8]) {
        let (quote, escape) = (self.dialect.quote(), self.dialect.escape());
        let mut at = 0;
        while let Some(distance) = memchr2(quote, escape, &quoted[at..]) {
            at += distance;
            match quoted.get(at + 1) {
                Some(next) if *next == quote => self.escaped_quotes += 1,
                Some(next) if *next == escape => self.pairs += 1,
                _ => return,
            }
            at += 2;
        }
    }

    fn seen(&self) -> String {
        counted(self.records, "record", "records")
    }

    fn attempt(&self) -> Attempt {
        let failed = self.fault.as_ref().or(self.first_miscounted.as_ref());
        failed.cloned().unwrap_or_else(|| self.attempt_at(0, 0, "no record".to_owned()))
    }

    fn attempt_of(&self, record: u64, start: usize, fault: Fault) -> Attempt {
        let reason = match RecordErrorKind::from(fault.kind) {
            RecordErrorKind::Contradiction(what) => what.to_string(),
            RecordErrorKind::Unterminated => "the input ends inside quotes".to_owned(),
            RecordErrorKind::TooManyFields { limit } => format!("more than {}", counted(limit, "field", "fields")),
            _ => "the line ends in another way than the first line".to_owned(),
        };
        self.attempt_at(record, start + fault.at, reason)
    }

    fn attempt_at(&self, record: u64, offset: usize, reason: String) -> Attempt {
        Attempt { dialect: self.dialect, record, offset: offset as u64, reason }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (record {}, byte {}: {})", self.dialect.name(), self.record, self.offset, self.reason)
    }
}

struct Listed<'a>(&'a [Attempt]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{attempt}")?;
        }
        Ok(())
    }
}
