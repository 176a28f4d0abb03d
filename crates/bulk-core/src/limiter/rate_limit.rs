use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How many permits a window may have: they are remembered one by one.
const MOST: u64 = 1_000_000;
/// The longest window.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

/// So many requests in any stretch of time of that length, wherever it begins: a *rolling* window.
///
/// Written as
///
/// | text | allows |
/// |---|---|
/// | `1000/s` | 1,000 in any second |
/// | `5000/h` | 5,000 in any hour |
/// | `25/s over 10s` | 250 in any ten seconds, so also 250 in one of them |
/// | `250/10s` | the same |
///
/// Units are `ms`, `s`, `m` (or `min`), `h` and `d`. [`Display`](fmt::Display) writes it so that it reads back as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    permits: u32,
    window: Duration,
}

/// Why a text is not a [`RateLimit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a rate limit such as \"25/s over 10s\": {reason}")]
#[non_exhaustive]
pub struct RateLimitError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl RateLimit {
    /// At most `permits` requests in any stretch of `window`.
    ///
    /// # Errors
    ///
    /// If it allows none or more than a million, or if the window is no whole number of milliseconds or longer than 31 days.
    pub fn new(permits: u32, window: Duration) -> Result<Self, RateLimitError> {
        let limit = Self { permits, window };
        match problem(u64::from(permits), window) {
            Some(reason) => Err(RateLimitError { text: format!("{permits}/{window:?}"), reason }),
            None => Ok(limit),
        }
    }

    /// The most requests in a window.
    pub fn permits(&self) -> u32 {
        self.permits
    }

    /// How long the window is.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Requests a second, in the long run.
    pub fn per_second(&self) -> f64 {
        f64::from(self.permits) / self.window.as_secs_f64()
    }
}

fn problem(permits: u64, window: Duration) -> Option<&'static str> {
    match () {
        () if permits == 0 => Some("it allows nothing"),
        () if permits > MOST => Some("it allows more than a million in a window"),
        () if window < Duration::from_millis(1) => Some("the window is shorter than a millisecond"),
        () if !window.subsec_nanos().is_multiple_of(1_000_000) => Some("the window is no whole number of milliseconds"),
        () if window > LONGEST => Some("the window is longer than 31 days"),
        () => None,
    }
}

impl FromStr for RateLimit {
    type Err = RateLimitError;

    fn from_str(text: &str) -> Result<Self, RateLimitError> {
        let bad = |reason| RateLimitError { text: text.to_owned(), reason };
        let (count, rest) = text.split_once('/').ok_or_else(|| bad("it has no \"/\""))?;
        let count = number(count.trim()).ok_or_else(|| bad("the count is not a whole number"))?;
        let mut words = rest.split_whitespace();
        let per = words.next().and_then(period).ok_or_else(|| bad("behind \"/\" stands no time"))?;
        let window = match (words.next(), words.next(), words.next()) {
            (None, ..) => per,
            (Some("over"), Some(window), None) => {
                period(window).ok_or_else(|| bad("behind \"over\" stands no time"))?
            }
            _ => return Err(bad("behind the time can only stand \"over\" and a window")),
        };
        if per.is_zero() {
            return Err(bad("the window is shorter than a millisecond"));
        }
        let permits = u128::from(count) * window.as_nanos();
        if permits % per.as_nanos() != 0 {
            return Err(bad("a window has no whole number of requests"));
        }
        let permits = u64::try_from(permits / per.as_nanos()).unwrap_or(u64::MAX);
        match problem(permits, window) {
            Some(reason) => Err(bad(reason)),
            // It is at most a million.
            None => Ok(Self { permits: permits as u32, window }),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (permits, window) = (self.permits, self.window);
        match UNITS.iter().find(|(_, unit)| *unit == window) {
            Some((name, _)) => write!(f, "{permits}/{name}"),
            None => {
                let a_second = u128::from(permits) * 1_000_000_000;
                match a_second % window.as_nanos() {
                    0 => write!(f, "{}/s over {}", a_second / window.as_nanos(), Period(window)),
                    _ => write!(f, "{permits}/{}", Period(window)),
                }
            }
        }
    }
}

/// Largest first.
const UNITS: [(&str, Duration); 5] = [
    ("d", Duration::from_secs(86400)),
    ("h", Duration::from_secs(3600)),
    ("m", Duration::from_secs(60)),
    ("s", Duration::from_secs(1)),
    ("ms", Duration::from_millis(1)),
];

/// A time in the largest unit that it is a whole number of.
struct Period(Duration);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        match UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(unit.as_nanos())) {
            Some((name, unit)) => write!(f, "{}{name}", nanos / unit.as_nanos()),
            // There is none.
            None => write!(f, "{nanos}ns"),
        }
    }
}

/// `10s`; without a number it is one of the unit.
fn period(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count = if count.is_empty() { 1 } else { number(count)? };
    let unit = if unit == "min" { "m" } else { unit };
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    unit.checked_mul(u32::try_from(count).ok()?)
}

/// No sign, no more digits than a number of requests or seconds has.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        for (text, permits, seconds, shown) in [
            ("25/s over 10s", 250, 10.0, "25/s over 10s"),
            ("250/10s", 250, 10.0, "25/s over 10s"),
            (" 1000/s ", 1000, 1.0, "1000/s"),
            ("5000/h", 5000, 3600.0, "5000/h"),
            ("60/min", 60, 60.0, "60/m"),
            ("3/7s", 3, 7.0, "3/7s"),
            ("1/s over 1d", 86400, 86400.0, "86400/d"),
            ("5/500ms", 5, 0.5, "10/s over 500ms"),
        ] {
            let limit: RateLimit = text.parse().unwrap();
            assert_eq!((limit.permits(), limit.window().as_secs_f64()), (permits, seconds), "{text}");
            assert_eq!(limit.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_limit_is_refused_with_the_reason() {
        for (text, reason) in [
            ("25", "it has no \"/\""),
            ("/s", "the count is not a whole number"),
            ("2.5/s", "the count is not a whole number"),
            ("+5/s", "the count is not a whole number"),
            ("5/", "behind \"/\" stands no time"),
            ("5/week", "behind \"/\" stands no time"),
            ("5/s over", "behind the time can only stand \"over\" and a window"),
            ("5/s over 10", "behind \"over\" stands no time"),
            ("5/s over 10s and more", "behind the time can only stand \"over\" and a window"),
            ("5/m over 30s", "a window has no whole number of requests"),
            ("0/s", "it allows nothing"),
            ("5/0s", "the window is shorter than a millisecond"),
            ("2000000/s", "it allows more than a million in a window"),
            ("5/40d", "the window is longer than 31 days"),
            ("999999999999/s over 4000000000d", "it allows more than a million in a window"),
            ("1/s over 5000000000d", "behind \"over\" stands no time"),
        ] {
            let error = text.parse::<RateLimit>().unwrap_err();
            assert_eq!(error.reason, reason, "{text}");
        }
        assert_eq!(RateLimit::new(0, Duration::from_secs(1)).unwrap_err().reason, "it allows nothing");
    }

    proptest! {
        #[test]
        fn a_limit_reads_back_as_it_is_shown(permits in 1u32..=1_000_000, millis in 1u64..2_678_400_000) {
            let limit = RateLimit::new(permits, Duration::from_millis(millis)).unwrap();
            prop_assert_eq!(limit.to_string().parse::<RateLimit>(), Ok(limit));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,14}/?[0-9]{0,14}(ms|s|m|min|h|d| over |x){0,3}[0-9]{0,12}[smhd]?") {
            if let Ok(limit) = text.parse::<RateLimit>() {
                prop_assert_eq!(limit.to_string().parse::<RateLimit>(), Ok(limit));
            }
        }
    }
}
