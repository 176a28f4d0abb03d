use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bulk_core::{FileReport, MeterReading, Projection, RejectReport, Resource, RunVerdict};
use bulk_pg::{Certainty, Count, Merged};
use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::meters::RunMeters;
use crate::plain;
use crate::progress::{self, Totals};
use crate::record::Record;

/// Says what happens: lines for people on stderr, or one JSON event a line on stdout.
#[derive(Clone)]
pub(crate) struct Report {
    json: bool,
    quiet: bool,
    verbose: bool,
    totals: Arc<Totals>,
    meters: RunMeters,
    screen: Option<MultiProgress>,
    record: Arc<OnceLock<Record>>,
    started: Instant,
}

impl Report {
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        let screen = if json || quiet { None } else { progress::screen() };
        let (totals, meters, record) = (Arc::default(), RunMeters::default(), Arc::default());
        Self { json, quiet, verbose, totals, meters, screen, record, started: Instant::now() }
    }

    /// Keeps the events of the run from here on.
    pub(crate) fn keep(&self, record: Record) {
        // There is one report a run.
        let _ = self.record.set(record);
    }

    /// Writes what was kept, if anybody asked for it.
    pub(crate) fn write_record(
        &self,
        exit: Exit,
        reading: Option<MeterReading>,
        projection: Option<Projection>,
    ) -> Result<(), Failure> {
        self.record.get().map_or(Ok(()), |record| record.write(exit, reading, projection))
    }

    /// Notes what became of a file.
    pub(crate) fn file(&self, file: FileReport) {
        if let Some(record) = self.record.get() {
            record.add_file(file);
        }
    }

    /// Notes a record that was left out.
    pub(crate) fn reject(&self, reject: RejectReport) {
        if let Some(record) = self.record.get() {
            record.add_reject(reject);
        }
    }

    /// Counts records that were left out and are not noted.
    pub(crate) fn leave_out_rejects(&self, rejects: u64) {
        if let Some(record) = self.record.get() {
            record.leave_out_rejects(rejects);
        }
    }

    /// Whether what happens is kept for `--report`.
    pub(crate) fn is_kept(&self) -> bool {
        self.record.get().is_some()
    }

    /// What the stages of the run do, and who works in them.
    pub(crate) fn meters(&self) -> &RunMeters {
        &self.meters
    }

    /// Says what bound the run, if it has moved anything. What else is known of it is for those who ask for it. Of a run that
    /// was over in no time, as where nothing was left to do, people hear it with `-v` alone.
    pub(crate) fn verdict(&self, reading: &MeterReading) {
        if reading.stages.iter().all(|stage| stage.total.items == 0) {
            return;
        }
        let verdict = RunVerdict::of(reading);
        let mut text = match &verdict.bottleneck {
            Some(bottleneck) => bottleneck.to_string().replace('\n', " "),
            None => verdict.to_string(),
        };
        // It is plain data.
        let mut fields = serde_json::to_value(&verdict).unwrap_or_default();
        let is_of_server = verdict.bottleneck.is_some_and(|bottleneck| bottleneck.used.resource == Resource::Server);
        if let Some(why) = self.meters.unwatched().filter(|_| is_of_server) {
            text.push_str(&format!(" What the server did in the end is not known: {why}."));
            fields["unwatched"] = why.into();
        }
        match self.started.elapsed() < NO_TIME {
            true => self.minor_event("verdict", &text, fields),
            false => self.event("verdict", &text, fields),
        }
    }

    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// The terminal to draw on, if there is one.
    pub(crate) fn screen(&self) -> Option<&MultiProgress> {
        self.screen.as_ref()
    }

    /// A line that `-q` leaves out.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        self.say("note", &text.to_string(), json!({}), self.quiet);
    }

    /// A line that only `-v` shows.
    pub(crate) fn detail(&self, text: impl std::fmt::Display) {
        self.say("detail", &text.to_string(), json!({}), !self.verbose);
    }

    /// A check that failed.
    pub(crate) fn found(&self, text: &str, fields: Value) {
        self.say("check", text, fields, false);
    }

    /// What is lost or left out, with its figures: always shown.
    pub(crate) fn alert(&self, event: &str, text: &str, fields: Value) {
        self.say(event, text, fields, false);
    }

    /// A line that is always shown.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        self.say("warning", &text.to_string(), json!({}), false);
    }

    /// A step with its figures, for machines as fields, for people as `text`.
    pub(crate) fn event(&self, event: &str, text: &str, fields: Value) {
        self.say(event, text, fields, self.quiet);
    }

    /// How far long work is, with its figures, and what binds of late.
    pub(crate) fn progress(&self, mut text: String, mut fields: Value) {
        let bound = self.meters.bound_of_late();
        if let Some(bound) = &bound {
            text.push_str(&format!("; {bound}"));
        }
        fields["bound"] = bound.into();
        self.event("progress", &text, fields);
    }

    /// A step with its figures that is shown to people only with `-v`.
    pub(crate) fn minor_event(&self, event: &str, text: &str, fields: Value) {
        self.say(event, text, fields, !self.verbose);
    }

    /// How many rows a table was counted to have. For people only with `-v`: somebody says how it comes out.
    pub(crate) fn verified(&self, count: &Count) {
        let Count { rows, records, rejected, filtered, .. } = count;
        let table = format!("{:#}", count.table);
        let text = format!(
            "{table} has {}, and {} loaded",
            counted(*rows, "row", "rows"),
            counted(count.loaded(), "was", "were")
        );
        let fields =
            json!({"table": table, "rows": rows, "records": records, "rejected": rejected, "filtered": filtered});
        self.say("verified", &text, fields, !self.verbose);
    }

    /// What became of a table's rows.
    fn merged(&self, merged: &Merged) {
        let Merged { added, changed, removed, unchanged, .. } = merged;
        let table = format!("{:#}", merged.table);
        let text = format!(
            "{table}: {} added, {changed} changed, {removed} removed, {}",
            counted(*added, "row", "rows"),
            counted(*unchanged, "as it was", "as they were")
        );
        let fields = json!({
            "table": table, "added": added, "changed": changed, "removed": removed, "unchanged": unchanged,
        });
        self.event("refreshed", &text, fields);
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        // Each error of the chain says one thing: what failed, then why.
        let message = format!("{:#}", failure.error);
        let mut text = format!("error: {message}");
        let mut fields = json!({"exit": failure.exit as u8, "message": message});
        if let Some(hint) = failure.hint() {
            text.push_str(&format!("\n  {hint}"));
            fields["hint"] = hint.into();
        }
        self.say("error", &text, fields, false);
    }

    /// What a run without `--dry-run` would do: a line on stdout.
    pub(crate) fn planned(&self, text: &str, fields: Value) {
        self.answer("planned", text, fields);
    }

    /// What the user asked for, on stdout: a text for people, fields for machines.
    pub(crate) fn answer(&self, event: &str, text: &str, fields: Value) {
        if !self.json {
            print(&plain::lines(text));
        }
        self.say(event, text, fields, true);
    }

    /// What the user asked for, on stdout.
    pub(crate) fn result(&self, text: &str) {
        if self.json {
            self.say("result", text, json!({}), true);
        } else {
            print(&plain::lines(text));
        }
    }

    fn say(&self, event: &str, text: &str, mut fields: Value, hidden: bool) {
        if let Value::Object(map) = &mut fields {
            map.insert("event".to_owned(), event.into());
            map.entry("message").or_insert_with(|| text.trim().into());
        }
        if let Some(record) = self.record.get().filter(|_| !matches!(event, "progress" | "detail")) {
            record.add(&fields);
        }
        if self.json {
            print(&plain::json(&fields.to_string()));
        } else if !hidden {
            let text = plain::message(text);
            match &self.screen {
                Some(screen) => screen.suspend(|| print_to(std::io::stderr(), &text)),
                None => print_to(std::io::stderr(), &text),
            }
        }
    }

    pub(crate) fn on_download(&self, event: &bulk_core::Event<'_>) {
        use bulk_core::Event;
        match event {
            Event::Progress { name, bytes } => self.totals.add_fetched_of(name, *bytes),
            Event::Started { name, size: total, resumed } => {
                self.totals.begin_file(name, *total, *resumed);
                if *resumed > 0 && *total != Some(*resumed) {
                    self.note(format!("{name}: goes on behind its first {}", size(*resumed)));
                }
            }
            Event::Retry { name, attempt, delay, error } => self.note(format!(
                "{name}: {:#}; attempt {} follows in {:.1} s",
                Chain(*error),
                attempt + 1,
                delay.as_secs_f64()
            )),
            Event::Restarted { name, reason, discarded } => {
                self.totals.restart_file(name);
                self.note(format!("{name}: begun anew, because {reason} ({} thrown away)", size(*discarded)));
            }
            Event::Finished { name, size: bytes, fetched, elapsed } => {
                self.totals.end_file(name);
                self.detail(match fetched {
                    0 => format!("{name}: all of its {} were there", size(*bytes)),
                    fetched => format!("{name}: {} fetched in {:.1} s", size(*fetched), elapsed.as_secs_f64()),
                });
            }
            Event::Unchecked { name, error } => self.warn(format!(
                "{name}: what the source states of its content could not be asked for, so nothing was compared ({error:#})"
            )),
            Event::Failed { name, .. } => self.totals.end_file(name),
            // It may be for another plan of the same run.
            Event::Kept { name, bytes } => self.detail(format!("{name}: an earlier run left {} of it", size(*bytes))),
            Event::Removed { name, reason, bytes } => {
                self.note(format!("{name}: what was left of it is removed, because {reason} ({})", size(*bytes)));
            }
            Event::Paused { shortage } => self.paused(shortage),
            Event::Resumed { waited } => self.resumed(*waited),
            _ => {}
        }
    }

    /// Nothing goes on for want of disk space.
    pub(crate) fn paused(&self, shortage: &bulk_core::Shortage) {
        let why = shortage.to_string();
        let fields = json!({
            "needed": shortage.needed, "available": shortage.available, "free": shortage.free,
            "reserve": shortage.reserve, "limit": shortage.limit,
        });
        self.event("paused", &format!("paused until there is room: {why}"), fields);
        self.totals.set_paused(Some(why));
    }

    /// There is room again.
    pub(crate) fn resumed(&self, waited: Duration) {
        self.totals.set_paused(None);
        let seconds = waited.as_secs_f64();
        self.event("resumed", &format!("there is room again after {seconds:.1} s"), json!({"waited": seconds}));
    }

    pub(crate) fn on_load(&self, event: &bulk_pg::Event<'_>) {
        use bulk_pg::Event;
        self.meters.on_load(event);
        match event {
            Event::Opened { file, verdict, drift, resumed, .. } => {
                if let Some(verdict) = verdict {
                    let text = format!("{file}: dialect {} ({})", verdict.dialect, verdict.evidence);
                    match verdict.certainty {
                        Certainty::Likely => self.warn(format!("{text}; likely, not certain: --dialect settles it")),
                        _ => self.detail(text),
                    }
                }
                for difference in *drift {
                    match difference.is_harmless() {
                        true => self.detail(format!("{file}: {difference}")),
                        false => self.note(format!("{file}: {difference}")),
                    }
                }
                if *resumed > 0 {
                    self.note(format!("{file}: goes on behind record {resumed}"));
                }
            }
            Event::Committed { records, rejected, filtered, bytes, .. } => {
                self.totals.add_loaded(records - rejected - filtered, *bytes);
            }
            Event::Repaired { file, record, byte, column, .. } => {
                let of = column.map(|column| format!(", column {column}")).unwrap_or_default();
                let text = format!("{file}: record {record}, byte {byte}{of}: repaired");
                self.event("repaired", &text, json!({"file": file, "record": record, "byte": byte, "column": column}));
            }
            Event::Loaded { file, table, records, rejected, filtered, repaired } => {
                let name = format!("{table:#}");
                let fields = json!({
                    "file": file, "table": name, "records": records, "rejected": rejected, "filtered": filtered,
                    "repaired": repaired,
                });
                let mut text = format!("{name}: {}", counted(records - rejected - filtered, "row", "rows"));
                if *filtered > 0 {
                    text.push_str(&format!(", {} passed over", counted(*filtered, "record", "records")));
                }
                self.event("loaded", &text, fields);
                if *repaired > 0 {
                    self.warn(format!("{file}: {} repaired", counted(*repaired, "record was", "records were")));
                }
            }
            Event::Merged { merged } => self.merged(merged),
            Event::Step { what } => self.detail(what),
            _ => {}
        }
    }
}

/// A line on stdout.
fn print(line: &str) {
    print_to(std::io::stdout(), line);
}

/// Who closed the stream wants no more of it, which is no reason to leave the work undone.
fn print_to(mut stream: impl Write, line: &str) {
    let _ = writeln!(stream, "{line}");
}

/// A shorter run is one that nobody wants to be faster.
const NO_TIME: Duration = Duration::from_secs(1);

/// How often it is said how far long work is.
pub(crate) const SAY_EVERY: Duration = Duration::from_secs(5);

/// When something was said last that is said every few seconds.
pub(crate) struct NowAndThen(Instant);

impl NowAndThen {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Whether it is to be said again, which counts as said then.
    pub(crate) fn is_time(&mut self) -> bool {
        let is_time = self.0.elapsed() >= SAY_EVERY;
        if is_time {
            self.0 = Instant::now();
        }
        is_time
    }
}

/// An error with its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// The sum of sizes, of which some may not be known, as people read it.
pub(crate) fn sum(bytes: u64, unmeasured: usize) -> String {
    match (bytes, unmeasured) {
        (_, 0) => size(bytes),
        (0, _) => "of unknown size".to_owned(),
        _ => format!("{} and {unmeasured} of unknown size", size(bytes)),
    }
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_readable() {
        let sizes = [0, 1023, 1024, 55 << 30, u64::MAX].map(super::size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "55.0 GiB", "16777216.0 TiB"]);
    }
}
