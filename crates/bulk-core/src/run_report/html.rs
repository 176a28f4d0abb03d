//! Reports as a page of HTML.

mod charts;

use std::time::Duration;

use askama::Template;

use super::{FileReport, RejectReport, RunReport};
use crate::counted::counted;
use crate::meter::{Resource, StageCounts, StageReading, fraction};
use crate::verdict::{bytes, percent, span};
use charts::Lines;

/// So many rows of a table are shown.
const ROWS: usize = 500;

/// So many lines are told apart.
const LINES: usize = 6;

/// What a worker's time is spent on, as colours and words: what it does first, then what it waits for.
const STATES: [State; 9] = [
    State { class: "cpu", name: "on a CPU", of: |counts| counts.on_cpu },
    State { class: "queue", name: "in line for a CPU", of: |counts| counts.run_queue },
    State { class: "off", name: "off the CPU", of: |counts| counts.off_cpu },
    State { class: "network", name: "network", of: |counts| counts.network },
    State { class: "disk", name: "disk", of: |counts| counts.disk },
    State { class: "server", name: "server", of: |counts| counts.server },
    State { class: "limit", name: "rate limit or budget", of: |counts| counts.rate_limit + counts.budget },
    State { class: "starved", name: "starved", of: |counts| counts.starved },
    State { class: "blocked", name: "blocked", of: |counts| counts.blocked },
];

struct State {
    class: &'static str,
    name: &'static str,
    of: fn(&StageCounts) -> Duration,
}

#[derive(Template)]
#[template(path = "run_report.html")]
struct Page<'a> {
    report: &'a RunReport,
    started: String,
    took: String,
    verdict: Vec<String>,
    phases: Vec<Part>,
    legend: Vec<&'static State>,
    stages: Vec<Flow<'a>>,
    throughput: Option<Throughput>,
    charts: Vec<Chart>,
    tables: Vec<Table>,
}

/// A piece of a bar.
struct Part {
    class: &'static str,
    weight: f64,
    text: String,
}

struct Flow<'a> {
    name: &'a str,
    queues: Vec<Queue>,
    parts: Vec<Part>,
    text: String,
}

/// What lies between a stage and one that it gets its input from.
struct Queue {
    parts: Vec<Part>,
    text: String,
}

struct Chart {
    title: String,
    text: String,
    wide: String,
    narrow: String,
}

struct Throughput {
    title: &'static str,
    lines: Vec<Part>,
    wide: String,
    narrow: String,
}

struct Table {
    id: &'static str,
    title: &'static str,
    head: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    more: u64,
}

struct Cell {
    text: String,
    is_number: bool,
}

pub(super) fn page(report: &RunReport) -> String {
    let stages = &report.meters.stages;
    let mut verdict = match &report.verdict {
        Some(verdict) => verdict.to_string(),
        None => "Nothing was metered.".to_owned(),
    };
    if let Some(projection) = &report.projection {
        verdict.push_str(&format!("\n{projection}"));
    }
    let phases = report.verdict.iter().flat_map(|verdict| &verdict.phases).map(|phase| Part {
        class: phase.used.as_ref().map_or("starved", |used| class(used.resource)),
        weight: phase.end.saturating_sub(phase.start).as_secs_f64(),
        text: phase.to_string(),
    });
    let is_used = |state: &&State| stages.iter().any(|stage| !(state.of)(&stage.total).is_zero());
    let page = Page {
        report,
        started: format!("{:.0}", report.started),
        took: span(report.elapsed),
        verdict: verdict.lines().map(str::to_owned).collect(),
        phases: phases.collect(),
        legend: STATES.iter().filter(is_used).collect(),
        stages: stages.iter().map(|stage| flow(stage, stages, report.elapsed)).collect(),
        throughput: throughput(report),
        charts: charts(report),
        tables: [files(report), rejects(report)].into_iter().flatten().collect(),
    };
    // It is written to memory, by a template that was checked when it was compiled.
    page.render().unwrap_or_default()
}

fn class(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "cpu",
        Resource::Network => "network",
        Resource::Disk => "disk",
        Resource::Server => "server",
        Resource::RateLimit | Resource::Budget => "limit",
        Resource::Unknown => "off",
    }
}

fn flow<'a>(stage: &'a StageReading, stages: &[StageReading], elapsed: Duration) -> Flow<'a> {
    let before = |name: &String| stages.iter().find(|other| other.name == *name);
    let queues = stage.after.iter().filter_map(before).filter_map(|before| queue(before, stage)).collect();
    let (parts, text) = times(stage, elapsed);
    Flow { name: &stage.name, queues, parts, text }
}

/// How full it was, as those who wait for it tell. Nobody counts what is in it.
fn queue(before: &StageReading, behind: &StageReading) -> Option<Queue> {
    if before.total.time().is_zero() || behind.total.time().is_zero() {
        return None;
    }
    let full = fraction(before.total.blocked, before.total.time());
    let empty = fraction(behind.total.starved, behind.total.time());
    let part = |class, weight: f64, what: &str| Part { class, weight, text: format!("{what} {}", percent(weight)) };
    let parts = vec![
        part("blocked", full, "full"),
        part("between", (1.0 - full - empty).max(0.0), "neither"),
        part("starved", empty, "empty"),
    ];
    let text = format!("From {} to {}: full {}, empty {}", before.name, behind.name, percent(full), percent(empty));
    Some(Queue { parts, text })
}

/// What a stage's workers did, as parts of their time, and in words.
fn times(stage: &StageReading, elapsed: Duration) -> (Vec<Part>, String) {
    let StageReading { total, workers, .. } = stage;
    let time = total.time();
    let parts: Vec<Part> = STATES
        .iter()
        .map(|state| (state, fraction((state.of)(total), time)))
        .filter(|(_, part)| *part > 0.0)
        .map(|(state, part)| Part {
            class: state.class,
            weight: part,
            text: format!("{} {}", state.name, percent(part)),
        })
        .collect();
    let mut text =
        format!("{}, {}", counted(workers.len(), "worker", "workers"), counted(total.items, "item", "items"));
    if total.bytes > 0 {
        text.push_str(&format!(", {}", bytes(total.bytes as f64)));
        if !elapsed.is_zero() {
            text.push_str(&format!(", {}/s", bytes(total.bytes as f64 / elapsed.as_secs_f64())));
        }
    }
    for part in &parts {
        text.push_str(&format!("; {}", part.text));
    }
    (parts, text)
}

fn charts(report: &RunReport) -> Vec<Chart> {
    let timeline = report.meters.timeline.coarser(charts::COLUMNS);
    if timeline.samples().len() < 2 || timeline.end().is_zero() {
        return Vec::new();
    }
    let stages = report.meters.stages.iter().enumerate();
    stages
        .filter(|(_, stage)| !stage.total.time().is_zero())
        .map(|(index, stage)| {
            let columns: Vec<(f64, f64, [f64; STATES.len()])> = timeline
                .samples()
                .iter()
                .map(|sample| {
                    let counts = sample.stage(index).counts;
                    let part = |state: &State| fraction((state.of)(&counts), counts.time());
                    let parts = STATES.each_ref().map(part);
                    (sample.start.as_secs_f64(), sample.end.as_secs_f64(), parts)
                })
                .collect();
            let (wide, narrow) = charts::both(|size| charts::areas(size, &columns));
            let (_, text) = times(stage, report.elapsed);
            let text = format!("What the workers of {} did over time. In all: {text}", stage.name);
            Chart { title: format!("{}: what its workers did", stage.name), text, wide, narrow }
        })
        .collect()
}

fn throughput(report: &RunReport) -> Option<Throughput> {
    let timeline = report.meters.timeline.coarser(charts::COLUMNS);
    if timeline.samples().len() < 2 || timeline.end().is_zero() || report.elapsed.is_zero() {
        return None;
    }
    let is_bytes = report.meters.stages.iter().any(|stage| stage.total.bytes > 0);
    let of = |counts: &StageCounts| if is_bytes { counts.bytes as f64 } else { counts.items as f64 };
    let shown = |rate: f64| if is_bytes { format!("{}/s", bytes(rate)) } else { format!("{rate:.1}/s") };
    let stages = report.meters.stages.iter().enumerate().filter(|(_, stage)| of(&stage.total) > 0.0).take(LINES);
    let mut lines: Lines = Vec::new();
    let mut legend = Vec::new();
    for ((index, stage), class) in stages.zip(["line1", "line2", "line3", "line4", "line5", "line6"]) {
        let points = timeline.samples().iter().map(|sample| {
            let seconds = sample.duration().as_secs_f64();
            let rate = if seconds > 0.0 { of(&sample.stage(index).counts) / seconds } else { 0.0 };
            (sample.start.as_secs_f64(), sample.end.as_secs_f64(), rate)
        });
        lines.push(points.collect());
        let mean = shown(of(&stage.total) / report.elapsed.as_secs_f64());
        legend.push(Part { class, weight: 1.0, text: format!("{}, {mean} on the average", stage.name) });
    }
    let (wide, narrow) = charts::both(|size| charts::lines(size, &lines, &shown));
    let title = if is_bytes { "Bytes a second" } else { "Items a second" };
    (!lines.is_empty()).then_some(Throughput { title, lines: legend, wide, narrow })
}

fn files(report: &RunReport) -> Option<Table> {
    let number = |text: Option<String>| Cell { text: text.unwrap_or_default(), is_number: true };
    let rows = report.files.iter().take(ROWS).map(|file| {
        let FileReport { name, table, bytes: size, records, rejected, seconds, error } = file;
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        vec![
            text(name),
            text(table.as_deref().unwrap_or_default()),
            number(size.map(|size| bytes(size as f64))),
            number(records.map(|records| records.to_string())),
            number(Some(rejected.to_string())),
            number(time.map(span)),
            text(error.as_deref().unwrap_or_default()),
        ]
    });
    let head = ["File", "Table", "Bytes", "Records", "Rejected", "Time", "Error"];
    table("files", "Files", &head, rows.collect(), report.files.len(), report.files_left_out)
}

fn rejects(report: &RunReport) -> Option<Table> {
    let number = |number: Option<u64>| Cell {
        text: number.map(|number| number.to_string()).unwrap_or_default(),
        is_number: true,
    };
    let rows = report.rejects.iter().take(ROWS).map(|reject| {
        let RejectReport { file, record, byte, column, reason } = reject;
        let column = column.as_deref().unwrap_or_default();
        vec![text(file), number(Some(*record)), number(*byte), text(column), text(reason)]
    });
    let head = ["File", "Record", "Byte", "Column", "Reason"];
    table("rejects", "Records that were left out", &head, rows.collect(), report.rejects.len(), report.rejects_left_out)
}

fn table(
    id: &'static str,
    title: &'static str,
    head: &[&str],
    rows: Vec<Vec<Cell>>,
    kept: usize,
    left_out: u64,
) -> Option<Table> {
    let more = kept.saturating_sub(rows.len()) as u64 + left_out;
    let first = rows.first()?;
    let head = head.iter().zip(first).map(|(text, cell)| Cell { text: (*text).to_owned(), is_number: cell.is_number });
    Some(Table { id, title, head: head.collect(), rows, more })
}

fn text(text: &str) -> Cell {
    Cell { text: text.to_owned(), is_number: false }
}
