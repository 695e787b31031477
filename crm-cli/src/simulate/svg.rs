//! The transition graph as a drawing: columns in time from left to right, what waits for what as lines.

use super::graph::escaped;
use super::layers::{Layout, lay_out};
use super::steps::Step;
use std::fmt::Write as _;

/// Pixels of a letter in the font used.
const LETTER: usize = 7;
const BOX_HEIGHT: usize = 22;
const ROW: usize = 34;
const GAP: usize = 60;
const MARGIN: usize = 20;

/// Colours of a kind of step: fill and border.
fn colours(text: &str) -> (&'static str, &'static str) {
    match text.split(' ').next().unwrap_or_default() {
        "fence" => ("#f8d7da", "#b02a37"),
        "stop" | "demote" => ("#ffe5d0", "#ca6510"),
        "start" | "promote" | "migrate" | "take" | "reload" => ("#d1e7dd", "#146c43"),
        _ => ("#e9ecef", "#6c757d"),
    }
}

fn width_of(step: &Step) -> usize {
    step.text.chars().count() * LETTER + 16
}

/// Where the columns are and how wide.
struct Columns {
    left: Vec<usize>,
    width: Vec<usize>,
}

fn columns(steps: &[Step], layout: &Layout) -> Columns {
    let count = layout.columns.len();
    let mut width = vec![0; count];
    for (step, place) in steps.iter().zip(&layout.places) {
        width[place.column] = width[place.column].max(width_of(step));
    }
    let mut left = Vec::with_capacity(count);
    let mut x = MARGIN;
    for w in &width {
        left.push(x);
        x += w + GAP;
    }
    Columns { left, width }
}

const fn middle(row: usize) -> usize {
    MARGIN + row * ROW + BOX_HEIGHT / 2
}

/// The drawing.
pub(super) fn render(steps: &[Step]) -> String {
    let layout = lay_out(steps);
    let columns = columns(steps, &layout);
    let right = columns.left.iter().zip(&columns.width).map(|(l, w)| l + w).max().unwrap_or(200);
    let rows = layout.columns.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let (width, height) = (right + MARGIN, rows * ROW + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"12\">\n\
         <title>{} steps of a transition</title>\n\
         <defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#495057\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        steps.len()
    );
    for line in &layout.lines {
        out.push_str(&path(line, &columns));
    }
    for (index, (step, place)) in steps.iter().zip(&layout.places).enumerate() {
        let (x, y) = (columns.left[place.column], middle(place.row) - BOX_HEIGHT / 2);
        let (fill, stroke) = colours(&step.text);
        let dash = if step.executed { "" } else { " stroke-dasharray=\"4 3\"" };
        let text = escaped(&step.text);
        let _infallible = writeln!(
            out,
            "<g><title>{}. {text}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{BOX_HEIGHT}\" rx=\"4\" \
             fill=\"{fill}\" stroke=\"{stroke}\"{dash}/><text x=\"{}\" y=\"{}\">{text}</text></g>",
            index + 1,
            width_of(step),
            x + 8,
            y + 15,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A line through the columns between two steps.
fn path(line: &[super::layers::Place], columns: &Columns) -> String {
    let Some((first, rest)) = line.split_first() else { return String::new() };
    let mut x = columns.left[first.column] + first.width.unwrap_or(columns.width[first.column]);
    let mut y = middle(first.row);
    let mut text =
        format!("<path fill=\"none\" stroke=\"#495057\" marker-end=\"url(#end)\" d=\"M{x} {y}");
    for place in rest {
        let (to_x, to_y) = (columns.left[place.column], middle(place.row));
        let half = usize::midpoint(x, to_x);
        let _infallible = write!(text, "C{half} {y} {half} {to_y} {to_x} {to_y}");
        (x, y) = (to_x, to_y);
        if place.width.is_none() {
            // Straight through a column in which it has no box.
            x += columns.width[place.column];
            let _infallible = write!(text, "H{x}");
        }
    }
    text.push_str("\"/>\n");
    text
}

/// Width of a step's box, for the layout.
pub(super) fn box_width(step: &Step) -> usize {
    width_of(step)
}
