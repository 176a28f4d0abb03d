//! What is fast enough.

use bulk_core::Goal;
use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use super::{size, time};

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Fast enough")]
pub(crate) struct GoalArguments {
    /// Say early, and in the end, whether the run is this fast, and what would help: bytes, such as 100MB/s, or items, such
    /// as 5000/s, a second (/s), minute (/m) or hour (/h). Counted are the bytes that are fetched (fetch, sync, crawl), that the
    /// database takes (load, mirror), or that archives have (export); items are rows, objects, files or calls.
    #[arg(long, value_name = "RATE", value_parser = target, conflicts_with = "finish_by")]
    pub(crate) target: Option<Target>,
    /// Say early, and in the end, whether the run is over by then, and what would help: a time of day, such as 06:00 (the next
    /// one, by this machine's time zone), 2026-07-01 06:00 or 2026-07-01T06:00:00Z, or a span of time from now on, such as
    /// 2h. Until the end, what is compared is when the last rows are committed, or the last bytes fetched.
    #[arg(long, value_name = "TIME", value_parser = |text: &str| deadline(text, &Zoned::now()))]
    pub(crate) finish_by: Option<Timestamp>,
}

/// How fast a run is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    /// A second.
    pub(crate) rate: f64,
    /// Whether of bytes, or of items.
    pub(crate) is_bytes: bool,
}

impl GoalArguments {
    /// What is asked for, from now on.
    pub(crate) fn goal(&self, now: Timestamp) -> Option<Goal> {
        let of_target = self.target.map(|target| Goal::Rate(target.rate));
        of_target.or_else(|| {
            let left = self.finish_by?.duration_since(now);
            Some(Goal::Within(left.try_into().unwrap_or_default()))
        })
    }

    /// Whether it is bytes that count.
    pub(crate) fn is_of_bytes(&self) -> bool {
        self.target.is_none_or(|target| target.is_bytes)
    }
}

/// `100MB/s`, `5000/m`.
fn target(text: &str) -> Result<Target, String> {
    let wrong = || "a rate is bytes or a number in a time, such as 100MB/s, 20GiB/h or 5000/s".to_owned();
    let (amount, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let amount = amount.trim();
    let (amount, is_bytes) = match amount.parse::<f64>() {
        Ok(number) => (number, false),
        Err(_) => (size(amount).map_err(|_| wrong())? as f64, true),
    };
    if !amount.is_finite() || amount <= 0.0 {
        return Err("a rate is more than nothing".to_owned());
    }
    Ok(Target { rate: amount / seconds, is_bytes })
}

/// No run is planned for longer.
const FARTHEST: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);

/// When that is.
fn deadline(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is no time, such as 06:00, 2026-07-01 06:00, 2026-07-01T06:00:00Z, nor a span of it, such as 2h"
        )
    };
    let of_zone = |local: DateTime| local.to_zoned(now.time_zone().clone()).map_err(|error| error.to_string());
    // A time of day is also read as a span of so many hours.
    let at = if let Some(span) = time(text).ok().filter(|_| !text.contains(':')) {
        now.timestamp().checked_add(span).map_err(|error| error.to_string())?
    } else if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else if let Some(time) = text.parse::<Time>().ok().filter(|_| !text.contains(['-', 'T'])) {
        let today = of_zone(now.date().to_datetime(time))?;
        let next = if today.timestamp() > now.timestamp() {
            today
        } else {
            of_zone(now.date().checked_add(1.day()).map_err(|error| error.to_string())?.to_datetime(time))?
        };
        next.timestamp()
    } else {
        of_zone(text.parse::<DateTime>().map_err(|_| wrong())?)?.timestamp()
    };
    if at <= now.timestamp() {
        return Err(format!("{text} is over"));
    }
    if at.duration_since(now.timestamp()) > FARTHEST {
        return Err(format!("{text} is more than ten years off"));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let bytes = |rate| Target { rate, is_bytes: true };
        assert_eq!(target("100MB/s"), Ok(bytes(100e6)));
        assert_eq!(target("60 MiB / min"), Ok(bytes(f64::from(1 << 20))));
        assert_eq!(target("3.6GB/h"), Ok(bytes(1e6)));
        assert_eq!(target("5000/s"), Ok(Target { rate: 5000.0, is_bytes: false }));
        assert_eq!(target("90/m"), Ok(Target { rate: 1.5, is_bytes: false }));
        for text in ["", "100MB", "/s", "MB/s", "100MB/d", "0/s", "-1/s", "NaN/s", "inf/s", "0MB/s"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deadlines_are_read_as_people_write_them() {
        let berlin = TimeZone::fixed(jiff::tz::offset(2));
        let now = "2026-07-01T05:00:00+02:00".parse::<Timestamp>().unwrap().to_zoned(berlin);
        let at = |text: &str| deadline(text, &now).map(|at| at.to_string());
        for (text, expected) in [
            ("06:00", "2026-07-01T04:00:00Z"),
            ("06:00:30", "2026-07-01T04:00:30Z"),
            // Today's is over.
            ("04:59", "2026-07-02T02:59:00Z"),
            ("05:00", "2026-07-02T03:00:00Z"),
            ("2026-07-03 06:00", "2026-07-03T04:00:00Z"),
            ("2026-07-03T06:00:00", "2026-07-03T04:00:00Z"),
            ("2026-07-03T06:00:00Z", "2026-07-03T06:00:00Z"),
            ("2026-07-03T06:00:00-04:00", "2026-07-03T10:00:00Z"),
            ("1h 30m", "2026-07-01T04:30:00Z"),
            ("90s", "2026-07-01T03:01:30Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(at("2026-07-01T02:59:59Z"), Err("2026-07-01T02:59:59Z is over".to_owned()));
        assert_eq!(at("0s"), Err("0s is over".to_owned()));
        assert_eq!(at("2999-01-01 06:00"), Err("2999-01-01 06:00 is more than ten years off".to_owned()));
        for text in ["", "soon", "25:00", "6", "2026-13-01 06:00"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
