//! Charts, as SVG whose colours stand for those of the page's style.

use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::verdict::{percent, span};

/// So many points of time are drawn at most.
pub(super) const COLUMNS: usize = 120;

/// The colours of the states, from the first on, in the page's style.
const FIRST_STATE: u8 = 0x01;

/// The colours of lines.
const FIRST_LINE: u8 = 0x11;

/// What is drawn without a state.
const LINE: RGBColor = BLACK;

/// Font and size of labels.
const LABELS: (&str, i32) = ("sans-serif", 15);

/// Lines of steps: from, to, how high.
pub(super) type Lines = Vec<Vec<(f64, f64, f64)>>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

#[derive(Clone, Copy)]
pub(super) struct Size {
    width: u32,
    height: u32,
    labels: usize,
}

/// The same for a wide screen and for a phone.
pub(super) fn both(draw: impl Fn(Size) -> String) -> (String, String) {
    (draw(Size { width: 940, height: 110, labels: 10 }), draw(Size { width: 360, height: 110, labels: 4 }))
}

/// How the parts of a whole change over time.
pub(super) fn areas<const N: usize>(size: Size, columns: &[(f64, f64, [f64; N])]) -> String {
    svg(size, |area| {
        let end = columns.last().map_or(1.0, |(_, end, _)| *end);
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .margin_top(10)
            .margin_right(16)
            .x_label_area_size(22)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..end, 0.0..1.0)?;
        let mut below = vec![0.0; columns.len()];
        for state in 0..N {
            let above: Vec<f64> =
                below.iter().zip(columns).map(|(below, (_, _, parts))| below + parts[state]).collect();
            if columns.iter().any(|(_, _, parts)| parts[state] > 0.0) {
                let steps = |heights: &[f64]| -> Vec<(f64, f64)> {
                    let steps = columns.iter().zip(heights);
                    steps.flat_map(|((start, end, _), height)| [(*start, *height), (*end, *height)]).collect()
                };
                let mut outline = steps(&above);
                outline.extend(steps(&below).into_iter().rev());
                let color = RGBColor(0, 0, FIRST_STATE + state as u8);
                chart.draw_series([Polygon::new(outline, color.filled())])?;
            }
            below = above;
        }
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(LINE)
            .label_style(LABELS)
            .x_labels(size.labels)
            .y_labels(3)
            .x_label_formatter(&time)
            .y_label_formatter(&|part| percent(*part))
            .draw()
    })
}

/// Rates over time.
pub(super) fn lines(size: Size, lines: &Lines, shown: &dyn Fn(f64) -> String) -> String {
    let size = Size { height: 2 * size.height, ..size };
    svg(size, |area| {
        let points = || lines.iter().flatten();
        let end = points().map(|(_, end, _)| *end).fold(0.0, f64::max);
        let highest = points().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .margin_top(10)
            .margin_right(16)
            .x_label_area_size(22)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..end, 0.0..if highest > 0.0 { highest * 1.05 } else { 1.0 })?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(LABELS)
            .x_labels(size.labels)
            .y_labels(5)
            .x_label_formatter(&time)
            .y_label_formatter(&|rate| shown(*rate))
            .draw()?;
        for (line, steps) in lines.iter().enumerate() {
            let color = RGBColor(0, 0, FIRST_LINE + line as u8);
            let steps = steps.iter().flat_map(|(start, end, rate)| [(*start, *rate), (*end, *rate)]);
            chart.draw_series([PathElement::new(steps.collect::<Vec<_>>(), color.stroke_width(2))])?;
        }
        Ok(())
    })
}

fn time(seconds: &f64) -> String {
    match *seconds {
        0.0 => "0".to_owned(),
        seconds => span(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    }
}

/// The drawing, hidden from those who are told its text. Empty if it cannot be drawn, which memory always can.
fn svg(size: Size, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (size.width, size.height)).into_drawing_area();
        if draw(&area).and_then(|()| area.present()).is_err() {
            return String::new();
        }
    }
    text.replacen("<svg ", r#"<svg aria-hidden="true" focusable="false" "#, 1)
}
