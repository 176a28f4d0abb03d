//! Verdicts for people.

use std::fmt;
use std::time::Duration;

use super::{Bottleneck, Evidence, Goal, Limit, LimitUse, Outlook, Projection, Remedy, RunPhase, RunVerdict, WhatIf};
use crate::meter::Resource;

/// So many other limits are named.
const OTHERS: usize = 4;

/// A run at the goal's rate within a percent is not said to need more.
const NAMED_SPEED: f64 = 1.005;

impl fmt::Display for RunVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bottleneck) = &self.bottleneck else {
            return match self.phases.is_empty() {
                true => f.write_str("Nothing was metered."),
                false => f.write_str(
                    "No bottleneck: nothing was busy for half of the time. It goes by between the stages, or in what is not metered.",
                ),
            };
        };
        write!(f, "{bottleneck}")?;
        if self.phases.len() > 1 {
            f.write_str("\nThe bottleneck moved: ")?;
            for (i, phase) in self.phases.iter().enumerate() {
                write!(f, "{}{phase}", if i == 0 { "" } else { "; " })?;
            }
            f.write_str(".")?;
        }
        if self.contended {
            f.write_str("\nWorkers stood in line for a CPU, so what would be is told as an interval.")?;
        }
        Ok(())
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, share, evidence, others, twice, next, .. } = self;
        write!(f, "{}: {}", used.headline(), used.how_far())?;
        if *share < 0.995 {
            write!(f, " in {} of the run", percent(*share))?;
        }
        for (i, other) in others.iter().filter(|other| other.utilisation >= 0.005).take(OTHERS).enumerate() {
            write!(f, "{} {} {}", if i == 0 { ";" } else { "," }, other.limit, percent(other.utilisation))?;
        }
        f.write_str(".")?;
        match evidence {
            Evidence::Confirmed => f.write_str(" Its neighbours wait for it.")?,
            Evidence::Contradicted => {
                f.write_str(" But not all of its neighbours wait for it, so it is not certain.")?
            }
            Evidence::Alone => {}
        }
        if !self.server_events.is_empty() {
            f.write_str(" The server's side:")?;
            for (i, (event, part)) in self.server_events.iter().take(OTHERS).enumerate() {
                write!(f, "{} {event} {}", if i == 0 { "" } else { "," }, percent(*part))?;
            }
            f.write_str(".")?;
        }
        let what = used.limit.faster(twice.speed);
        write!(f, "\nWith {what} the run would take {} of its time", part(twice.least, twice.most))?;
        match &twice.then {
            Some(then) if *then == used.limit => write!(f, ", and {then} would still bind.")?,
            Some(then) => write!(f, "; then {then} {}.", binds(then))?,
            None => f.write_str(".")?,
        }
        if let Some(WhatIf { speed, least, most, then: Some(then), .. }) =
            next.as_ref().filter(|next| next.speed < 100.0)
        {
            let at = part(*least, *most);
            write!(f, " From {speed:.1} times on {then} {}, at {at} of the time.", binds(then))?;
        }
        Ok(())
    }
}

impl fmt::Display for RunPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} ", span(self.start), span(self.end))?;
        match &self.used {
            Some(used) => write!(f, "{} ({}, {})", used.limit, used.resource, percent(used.utilisation)),
            None => f.write_str("nothing"),
        }
    }
}

impl LimitUse {
    fn headline(&self) -> String {
        match (&self.limit, self.resource) {
            (Limit::Stage { stage }, Resource::Unknown) => format!("Bound by {stage}, off the CPU"),
            (Limit::Stage { stage }, resource) => {
                let resource = resource.to_string();
                format!("{}{}-bound in {stage}", resource[..1].to_uppercase(), &resource[1..])
            }
            (Limit::Cores, _) => "CPU-bound in all stages together".to_owned(),
            (limit @ Limit::Workers { .. }, _) => format!("Bound by {limit}"),
            (limit @ (Limit::RateLimit { .. } | Limit::Budget { .. } | Limit::Other), _) => format!("Bound by {limit}"),
        }
    }

    fn how_far(&self) -> String {
        let used = percent(self.utilisation);
        let workers = self.workers;
        match self.limit {
            Limit::Stage { .. } | Limit::Workers { .. } if number(workers) == "1" => format!("busy {used} of its time"),
            Limit::Stage { .. } | Limit::Workers { .. } => format!("busy {used} of {} workers", number(workers)),
            Limit::Cores => format!("{used} of {} processors", number(workers)),
            Limit::Other => format!("used {used}"),
            Limit::RateLimit { .. } => format!("taken or waited for {used} of the time"),
            Limit::Budget { .. } => format!("waited for {used} of the time"),
        }
    }
}

impl Limit {
    /// It, `speed` times as fast.
    fn faster(&self, speed: f64) -> String {
        let times = if speed == 2.0 { "twice".to_owned() } else { format!("{speed:.1} times") };
        match self {
            Self::Stage { stage } => format!("{times} the speed of {stage}"),
            _ => format!("{times} {self}"),
        }
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: f64| match self.is_bytes {
            true => format!("{}/s", bytes(rate)),
            false => format!("{rate:.1}/s"),
        };
        match self.outlook {
            Outlook::WillMakeIt => f.write_str("Good enough: ")?,
            Outlook::WillMissIt => f.write_str("Too slow: ")?,
            Outlook::Open => f.write_str("Not certain yet: ")?,
        }
        let (least, most) = (rate(self.least_rate), rate(self.most_rate));
        f.write_str(&least)?;
        if least != most {
            write!(f, " to {most}")?;
        }
        if let Some(needed) = self.needed_rate.filter(|needed| *needed > 0.0) {
            write!(f, " of the {} that are needed", rate(needed))?;
        }
        if let Some((soonest, latest)) = self.left {
            let [soonest, latest] =
                [soonest, latest].map(|left| span(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)));
            write!(f, ", {soonest}")?;
            if soonest != latest {
                write!(f, " to {latest}")?;
            }
            f.write_str(" left")?;
            if let Goal::Within(within) = self.goal {
                write!(f, " of {}", span(within))?;
            }
        }
        f.write_str(".")?;
        let mut help = self.help.iter().filter(|help| help.speed >= NAMED_SPEED).take(OTHERS);
        if let Some(Remedy { used, speed }) = help.next() {
            write!(f, " It would make it with {speed:.1} times {}", used.limit.what())?;
            for Remedy { used, speed } in help {
                write!(f, ", and {speed:.1} times {}", used.limit.what())?;
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl Limit {
    /// What there would have to be more of.
    fn what(&self) -> String {
        match self {
            Self::Stage { stage } => format!("the speed of {stage}"),
            _ => self.to_string(),
        }
    }
}

fn binds(limit: &Limit) -> &'static str {
    if matches!(limit, Limit::Cores | Limit::Workers { .. }) { "bind" } else { "binds" }
}

/// How many there are, of which some may not have been there all the time.
fn number(workers: f64) -> String {
    let text = format!("{workers:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A part of the time, as people read it.
fn part(least: f64, most: f64) -> String {
    let (least, most) = (format!("{least:.2}"), format!("{most:.2}"));
    if least == most { least } else { format!("{least} to {most}") }
}

/// A part of a hundred.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// A time, as people read it.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Bytes, as people read them.
pub(crate) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
