//! Reports as text.

use std::fmt;
use std::time::Duration;

use super::{FileReport, RejectReport, RunReport};
use crate::meter::{StageReading, fraction};
use crate::verdict::{bytes, percent, span};

/// So many files and rejects are shown.
const SHOWN: usize = 20;

/// A cell has so many characters at most.
const WIDEST: usize = 120;

/// How wide a stage's use over time is drawn.
const COLUMNS: usize = 60;

const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A heading, a verdict, and tables: lines of text, the last one without an end.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, command, started, elapsed, exit, .. } = self;
        write!(f, "bulk {command} ({version}), begun {started:.0}, took {}, exit status {exit}", span(*elapsed))?;
        if let Some(verdict) = &self.verdict {
            write!(f, "\n\n{verdict}")?;
        }
        if let Some(projection) = &self.projection {
            write!(f, "\n{projection}")?;
        }
        if !self.meters.stages.is_empty() {
            write!(f, "\n\n{}", Table(&self.stages()))?;
            write!(f, "\n\n{}", Table(&self.use_over_time()))?;
        }
        if !self.files.is_empty() {
            write!(f, "\n\n{}", Table(&files(&self.files)))?;
            more(f, self.files.len(), self.files_left_out, "files")?;
        }
        if !self.rejects.is_empty() {
            write!(f, "\n\n{}", Table(&rejects(&self.rejects)))?;
            more(f, self.rejects.len(), self.rejects_left_out, "rejects")?;
        }
        Ok(())
    }
}

impl RunReport {
    fn stages(&self) -> Vec<Vec<String>> {
        let head = ["stage", "workers", "on CPU", "run queue", "off CPU", "network", "disk", "server"];
        let head = head.into_iter().chain(["limits", "starved", "blocked", "items", "bytes", "bytes/s"]);
        let mut rows = vec![head.map(str::to_owned).collect()];
        for StageReading { name, total, workers, .. } in &self.meters.stages {
            let time = total.time();
            let part = |of: Duration| if of.is_zero() { "-".to_owned() } else { percent(fraction(of, time)) };
            let rate = total.bytes as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            let mut row = vec![name.clone(), workers.len().to_string()];
            let times = [total.on_cpu, total.run_queue, total.off_cpu, total.network, total.disk, total.server];
            row.extend(
                times.into_iter().chain([total.rate_limit + total.budget, total.starved, total.blocked]).map(part),
            );
            row.extend([total.items.to_string(), bytes(total.bytes as f64)]);
            row.push(if self.elapsed.is_zero() { "-".to_owned() } else { bytes(rate) });
            rows.push(row);
        }
        rows
    }

    /// How busy each stage was, from the left to the right.
    fn use_over_time(&self) -> Vec<Vec<String>> {
        let timeline = self.meters.timeline.coarser(COLUMNS);
        let mut rows = vec![vec!["stage".to_owned(), format!("busy, over {}", span(timeline.end()))]];
        for (index, stage) in self.meters.stages.iter().enumerate() {
            let bar = timeline.samples().iter().map(|sample| {
                let part = fraction(sample.stage(index).counts.busy(), sample.stage(index).counts.time());
                BARS[((part * 8.0).round() as usize).min(8)]
            });
            rows.push(vec![stage.name.clone(), bar.collect()]);
        }
        rows
    }
}

fn files(files: &[FileReport]) -> Vec<Vec<String>> {
    let mut rows = vec![["file", "table", "bytes", "records", "rejected", "time", ""].map(str::to_owned).to_vec()];
    for file in files.iter().take(SHOWN) {
        let FileReport { name, table, bytes: size, records, rejected, seconds, error } = file;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            name.clone(),
            or_dash(table.clone()),
            or_dash(size.map(|size| bytes(size as f64))),
            or_dash(records.map(|records| records.to_string())),
            rejected.to_string(),
            or_dash(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(span)),
            error.clone().unwrap_or_default(),
        ]);
    }
    rows
}

fn rejects(rejects: &[RejectReport]) -> Vec<Vec<String>> {
    let mut rows = vec![["file", "record", "byte", "column", "reason"].map(str::to_owned).to_vec()];
    for RejectReport { file, record, byte, column, reason } in rejects.iter().take(SHOWN) {
        let byte = byte.map_or("-".to_owned(), |byte| byte.to_string());
        rows.push(vec![file.clone(), record.to_string(), byte, column.clone().unwrap_or("-".into()), reason.clone()]);
    }
    rows
}

fn more(f: &mut fmt::Formatter<'_>, kept: usize, left_out: u64, what: &str) -> fmt::Result {
    match (kept.saturating_sub(SHOWN) as u64).saturating_add(left_out) {
        0 => Ok(()),
        more => write!(f, "\nand {more} more {what}"),
    }
}

/// Rows under a heading: the first column and what is no number to the left, numbers to the right. What is longer than 120
/// characters is cut there.
pub(super) struct Table<'a>(pub(super) &'a [Vec<String>]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.first().map_or(0, Vec::len);
        let rows: Vec<Vec<String>> = self.0.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
        let is_number = |text: &String| text.starts_with(|first: char| first.is_ascii_digit()) || text == "-";
        let shape = |column: usize| {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            (width, column > 0 && self.0.iter().skip(1).all(|row| is_number(&row[column])))
        };
        let shapes: Vec<(usize, bool)> = (0..columns).map(shape).collect();
        for (line, row) in rows.iter().enumerate() {
            let mut text = String::new();
            for (cell, (width, is_right)) in row.iter().zip(&shapes) {
                match is_right {
                    true => text.push_str(&format!("{cell:>width$}")),
                    false => text.push_str(&format!("{cell:<width$}")),
                }
                text.push_str("  ");
            }
            write!(f, "{}{}", if line == 0 { "" } else { "\n" }, text.trim_end())?;
        }
        Ok(())
    }
}

/// A text as a table has it: no line break of a name, or escape sequence, gets to a terminal, and its length is bounded.
fn cell(text: &str) -> String {
    let mut cell: String = text.chars().take(WIDEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(WIDEST).is_some() {
        cell.pop();
        cell.push('\u{2026}');
    }
    cell
}
