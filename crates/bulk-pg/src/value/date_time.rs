//! date, timestamp and timestamptz in the spellings of ISO 8601 and of PostgreSQL's own output, which mean the same
//! whatever the session's `DateStyle` and `TimeZone` are. All else is left to the server.

use super::refusal::{Refusal, bad_date_time, date_time_field};
use super::{fixed, integer};

/// Julian day of 2000-01-01, from which PostgreSQL counts.
const EPOCH_JULIAN_DAY: i64 = 2_451_545;
/// The first day of a date or timestamp: 4713-11-24 BC, Julian day 0.
const FIRST_DAY: i64 = -EPOCH_JULIAN_DAY;
/// The day after the last of a date, 5874897-12-31 (`DATE_END_JULIAN` in `src/include/datatype/timestamp.h`).
const DATE_END: i64 = 2_147_483_494 - EPOCH_JULIAN_DAY;
/// The first microsecond after the last of a timestamp, 294276-12-31 (`END_TIMESTAMP`).
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
const TIMESTAMP_LAST_YEAR: i64 = 294_276;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// So many digits of a second's fraction are read; the server reads them as a double, too.
const FRACTION_DIGITS: usize = 30;
/// Hours of the farthest time zone (`MAX_TZDISP_HOUR`).
const LAST_ZONE_HOUR: i64 = 15;

#[inline]
pub(crate) fn date(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let usual = value.try_into().ok().and_then(usual_date);
    let days = usual.map_or_else(|| any_date(value), |days| Ok(days as i32))?;
    fixed::<4, 8>(days.to_be_bytes(), out);
    Ok(())
}

fn any_date(value: &[u8]) -> Result<i32, Refusal> {
    Ok(match Moment::parse(value, "date")? {
        Moment::Infinite { negative: true } => i32::MIN,
        Moment::Infinite { negative: false } => i32::MAX,
        Moment::At(At { days, clock: None, .. }) => {
            if !(FIRST_DAY..DATE_END).contains(&days) {
                return Err(Refusal::Unclear);
            }
            days as i32
        }
        Moment::At(_) => return Err(Refusal::Unclear),
    })
}

/// The server disregards a zone.
#[inline]
pub(crate) fn timestamp(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let micros = match usual_time(value) {
        Some((micros, _)) => micros,
        None => any_timestamp(value)?,
    };
    fixed::<8, 12>(micros.to_be_bytes(), out);
    Ok(())
}

fn any_timestamp(value: &[u8]) -> Result<i64, Refusal> {
    match Moment::parse(value, "timestamp")? {
        Moment::Infinite { negative } => Ok(infinite(negative)),
        Moment::At(at) => at.micros(0),
    }
}

/// Without a zone it would depend on the session's.
#[inline]
pub(crate) fn timestamptz(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let micros = match usual_time(value) {
        Some((micros, Some(zone))) => micros - zone * SECOND,
        _ => any_timestamptz(value)?,
    };
    fixed::<8, 12>(micros.to_be_bytes(), out);
    Ok(())
}

fn any_timestamptz(value: &[u8]) -> Result<i64, Refusal> {
    match Moment::parse(value, "timestamp with time zone")? {
        Moment::Infinite { negative } => Ok(infinite(negative)),
        Moment::At(at) => at.micros(at.clock.and_then(|clock| clock.zone).ok_or(Refusal::Unclear)?),
    }
}

/// The days from 2000-01-01 of `YYYY-MM-DD`; `None` if it is another spelling, or no date.
#[inline(always)]
fn usual_date(text: &[u8; 10]) -> Option<i64> {
    let [a, b, c, d, b'-', e, f, b'-', g, h] = text else { return None };
    let [century, year, month, day] = pairs([a, b, c, d, e, f, g, h])?;
    let year = century * 100 + year;
    (year > 0 && (1..=days_in(year, month)).contains(&day)).then(|| days_from_epoch(year, month, day))
}

/// Microseconds and zone of `YYYY-MM-DD HH:MM:SS` with a fraction or none, and with a zone or none; `None` if it is
/// another spelling, or no such time.
#[inline(always)]
fn usual_time(value: &[u8]) -> Option<(i64, Option<i64>)> {
    let (date, rest) = value.split_first_chunk()?;
    let days = usual_date(date)?;
    let [b' ' | b'T', a, b, b':', c, d, b':', e, f, rest @ ..] = rest else { return None };
    let [hour, minute, second, _] = pairs([a, b, c, d, e, f, &b'0', &b'0'])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => match integer::leading_digits(rest) {
            // Eight digits are hundredths of microseconds.
            Some((digits, count @ 1..=6)) => ((digits / 100) as i64, &rest[count..]),
            _ => split_fraction(rest)?,
        },
        rest => (0, rest),
    };
    let (zone, rest) = if rest == b"+00" { (Some(0), &[][..]) } else { split_zone(rest)? };
    let micros = days * DAY + ((hour * 60 + minute) * 60 + second) * SECOND + fraction;
    rest.is_empty().then_some((micros, zone))
}

/// The numbers that pairs of digits are.
#[inline(always)]
fn pairs(digits: [&u8; 8]) -> Option<[i64; 4]> {
    let word = u64::from_le_bytes(digits.map(|digit| *digit));
    let pairs = integer::pairs(word)?;
    Some([0, 16, 32, 48].map(|shift| (pairs >> shift & 0xff) as i64))
}

fn infinite(negative: bool) -> i64 {
    if negative { i64::MIN } else { i64::MAX }
}

enum Moment {
    Infinite { negative: bool },
    At(At),
}

struct At {
    /// 0 is 1 BC.
    year: i64,
    /// From 2000-01-01.
    days: i64,
    clock: Option<Clock>,
}

#[derive(Clone, Copy)]
struct Clock {
    micros: i64,
    /// Seconds east of Greenwich.
    zone: Option<i64>,
}

impl At {
    #[inline]
    fn micros(&self, zone: i64) -> Result<i64, Refusal> {
        // Far from an overflow of 64 bits: the last timestamp is eight days from it.
        if self.days < FIRST_DAY || self.year > TIMESTAMP_LAST_YEAR {
            return Err(Refusal::Unclear);
        }
        let micros = self.days * DAY + self.clock.map_or(0, |clock| clock.micros) - zone * SECOND;
        if (FIRST_DAY * DAY..TIMESTAMP_END).contains(&micros) { Ok(micros) } else { Err(Refusal::Unclear) }
    }
}

impl Moment {
    fn parse(value: &[u8], type_name: &'static str) -> Result<Self, Refusal> {
        let Some((date, time, rest)) = split_date(value) else {
            return Self::special(value, type_name);
        };
        let (time, rest) = match time {
            Some(time) => {
                let (micros, rest) = match rest {
                    [b'.', rest @ ..] if time.has_seconds => split_fraction(rest).ok_or(Refusal::Unclear)?,
                    rest => (0, rest),
                };
                let (zone, rest) = split_zone(rest).ok_or(Refusal::Unclear)?;
                (Some((time.micros(micros), zone)), rest)
            }
            None => (None, rest),
        };
        let before_christ = match rest {
            [] => false,
            [b' ', era @ ..] if era.eq_ignore_ascii_case(b"bc") => true,
            [b' ', era @ ..] if era.eq_ignore_ascii_case(b"ad") => false,
            _ => return Err(Refusal::Unclear),
        };
        // All of it is understood; what is wrong from here on is wrong for certain.
        let year = if before_christ { 1 - date.year } else { date.year };
        if date.year == 0 || !(1..=days_in(year, date.month)).contains(&date.day) {
            return Err(date_time_field(value));
        }
        let clock = match time {
            Some((Some(micros), zone)) => Some(Clock { micros, zone }),
            Some((None, _)) => return Err(date_time_field(value)),
            None => None,
        };
        Ok(Self::At(At { year, days: days_from_epoch(year, date.month, date.day), clock }))
    }

    /// What does not begin with a date.
    #[cold]
    fn special(value: &[u8], type_name: &'static str) -> Result<Self, Refusal> {
        if value.eq_ignore_ascii_case(b"infinity") {
            return Ok(Self::Infinite { negative: false });
        }
        if value.eq_ignore_ascii_case(b"-infinity") {
            return Ok(Self::Infinite { negative: true });
        }
        // Without a digit only these words are a date.
        const WORDS: [&[u8]; 8] = [b"now", b"day", b"tomorrow", b"epoch", b"inf", b"current", b"invalid", b"undefined"];
        let has = |word: &[u8]| value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
        if !value.is_ascii() || value.iter().any(u8::is_ascii_digit) || WORDS.into_iter().any(has) {
            return Err(Refusal::Unclear);
        }
        Err(bad_date_time(type_name, value))
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

struct Time {
    hour: i64,
    minute: i64,
    second: i64,
    has_seconds: bool,
}

/// A date, with a time or without, and what follows.
fn split_date(value: &[u8]) -> Option<(Date, Option<Time>, &[u8])> {
    // A year of less than four digits could be something else.
    let (year, rest) = number(value, 4..=7)?;
    let (month, rest) = number(rest.strip_prefix(b"-")?, 1..=2)?;
    let (day, rest) = number(rest.strip_prefix(b"-")?, 1..=2)?;
    let date = Date { year, month, day };
    let time = match rest {
        [b' ' | b'T' | b't', time @ ..] => split_time(time),
        _ => None,
    };
    Some(match time {
        Some((time, rest)) => (date, Some(time), rest),
        None => (date, None, rest),
    })
}

/// Hours, minutes, and seconds or none, and what follows.
fn split_time(text: &[u8]) -> Option<(Time, &[u8])> {
    let (hour, rest) = number(text, 1..=2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 2..=2)?;
    let seconds = rest.strip_prefix(b":").and_then(|seconds| number(seconds, 2..=2));
    let (second, rest) = seconds.unwrap_or((0, rest));
    Some((Time { hour, minute, second, has_seconds: seconds.is_some() }, rest))
}

/// The digits at the start, if they are so many, and what follows.
#[inline]
fn number(text: &[u8], len: std::ops::RangeInclusive<usize>) -> Option<(i64, &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !len.contains(&count) {
        return None;
    }
    let (digits, rest) = text.split_at(count);
    Some((digits.iter().fold(0, |number, byte| number * 10 + i64::from(byte - b'0')), rest))
}

#[inline(always)]
fn two(high: u8, low: u8) -> Option<i64> {
    let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
    (high <= 9 && low <= 9).then_some(i64::from(high) * 10 + i64::from(low))
}

impl Time {
    /// From midnight, if there is such a time; 24:00:00 and a sixtieth second are.
    #[inline(always)]
    fn micros(&self, fraction: i64) -> Option<i64> {
        let micros = ((self.hour * 60 + self.minute) * 60 + self.second) * SECOND + fraction;
        (self.minute <= 59 && self.second <= 60 && micros <= DAY).then_some(micros)
    }
}

/// The microseconds of a fraction, and what follows.
fn split_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let (mut micros, mut count) = (0, 0);
    while let Some(byte @ b'0'..=b'9') = text.get(count) {
        if count < 6 {
            micros = micros * 10 + i64::from(byte - b'0');
        }
        count += 1;
    }
    let (digits, rest) = text.split_at(count);
    match count {
        0 => None,
        1..=6 => Some((micros * [100_000, 10_000, 1000, 100, 10, 1][count - 1], rest)),
        // To the nearest by way of a double, as the server has it (`ParseFractionalSecond`, `rint`).
        _ if count <= FRACTION_DIGITS => {
            let mut text = *b".000000000000000000000000000000";
            text[1..=count].copy_from_slice(digits);
            let fraction: f64 = str::from_utf8(&text).ok()?.parse().ok()?;
            Some(((fraction * SECOND as f64).round_ties_even() as i64, rest))
        }
        _ => None,
    }
}

/// Seconds east of Greenwich, if there is a zone, and what follows: `+HH`, `+HHMM`, `+HH:MM`, `+HH:MM:SS`, `Z` or
/// `UTC`, with a blank before it or not.
fn split_zone(text: &[u8]) -> Option<(Option<i64>, &[u8])> {
    let zone = text.strip_prefix(b" ").unwrap_or(text);
    match zone {
        [sign @ (b'+' | b'-'), a, b, rest @ ..] => {
            let (minutes, seconds, rest) = match rest {
                [b':', c, d, b':', e, f, rest @ ..] => (two(*c, *d)?, two(*e, *f)?, rest),
                [b':', c, d, rest @ ..] | [c @ b'0'..=b'9', d, rest @ ..] => (two(*c, *d)?, 0, rest),
                rest => (0, 0, rest),
            };
            let hours = two(*a, *b)?;
            if hours > LAST_ZONE_HOUR || minutes > 59 || seconds > 59 {
                return None;
            }
            let east = (hours * 60 + minutes) * 60 + seconds;
            Some((Some(if *sign == b'-' { -east } else { east }), rest))
        }
        [b'Z' | b'z', rest @ ..] | [b'U' | b'u', b'T' | b't', b'C' | b'c', rest @ ..] => Some((Some(0), rest)),
        _ => Some((None, text)),
    }
}

/// None if there is no such month.
#[inline(always)]
fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// The days from 2000-01-01 in the Gregorian calendar, which holds for all time.
#[inline(always)]
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    /// From March 1 of the year 0.
    const EPOCH: i64 = 730_425;
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - EPOCH
}
