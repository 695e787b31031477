//! A layered layout: every step in a column after all it waits for, rows chosen so that few lines cross.

use super::steps::Step;
use super::svg::box_width;

/// How often the rows are put in order, forth and back.
const SWEEPS: usize = 8;
/// Above this many points lines go straight, not through the columns between.
const POINTS_AT_MOST: usize = 50_000;

/// A place in the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) column: usize,
    pub(super) row: usize,
    /// Width of the box that is there; `None` = a line passes.
    pub(super) width: Option<usize>,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of each step.
    pub(super) places: Vec<Place>,
    /// Points by column, from top to bottom.
    pub(super) columns: Vec<Vec<usize>>,
    /// From a step to one that waits for it.
    pub(super) lines: Vec<Vec<Place>>,
}

/// Steps and the points at which lines pass columns.
struct Points {
    column: Vec<usize>,
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
}

impl Points {
    fn add(&mut self, column: usize) -> usize {
        self.column.push(column);
        self.left.push(Vec::new());
        self.right.push(Vec::new());
        self.column.len() - 1
    }

    fn join(&mut self, from: usize, to: usize) {
        self.right[from].push(to);
        self.left[to].push(from);
    }
}

/// Lays the steps out; they are in topological order.
pub(super) fn lay_out(steps: &[Step]) -> Layout {
    let mut points = Points { column: Vec::new(), left: Vec::new(), right: Vec::new() };
    let mut ranks = vec![0; steps.len()];
    for (index, step) in steps.iter().enumerate() {
        let rank = step.after.iter().map(|n| ranks[*n] + 1).max().unwrap_or(0);
        ranks[index] = rank;
        points.add(rank);
    }
    let spans: usize = steps
        .iter()
        .enumerate()
        .flat_map(|(to, step)| step.after.iter().map(move |from| (from, to)))
        .map(|(from, to)| ranks[to] - ranks[*from])
        .sum();
    let through = spans <= POINTS_AT_MOST;
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for (to, step) in steps.iter().enumerate() {
        for from in &step.after {
            let mut chain = vec![*from];
            if through {
                for column in ranks[*from] + 1..ranks[to] {
                    chain.push(points.add(column));
                }
            }
            chain.push(to);
            for two in chain.windows(2) {
                if let [a, b] = *two {
                    points.join(a, b);
                }
            }
            chains.push(chain);
        }
    }
    let columns = arrange(&points);
    let mut row = vec![0; points.column.len()];
    for column in &columns {
        for (at, point) in column.iter().enumerate() {
            row[*point] = at;
        }
    }
    let place = |point: usize| Place {
        column: points.column[point],
        row: row[point],
        width: steps.get(point).map(box_width),
    };
    Layout {
        places: (0..steps.len()).map(place).collect(),
        lines: chains.into_iter().map(|c| c.into_iter().map(place).collect()).collect(),
        columns,
    }
}

/// Each column in the order of the means of its neighbours' rows, column by column, forth and back.
fn arrange(points: &Points) -> Vec<Vec<usize>> {
    let count = points.column.iter().max().map_or(0, |c| c + 1);
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (point, column) in points.column.iter().enumerate() {
        columns[*column].push(point);
    }
    let mut row = vec![0_usize; points.column.len()];
    let number = |column: &[usize], row: &mut Vec<usize>| {
        for (at, point) in column.iter().enumerate() {
            row[*point] = at;
        }
    };
    for column in &columns {
        number(column, &mut row);
    }
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 0..count {
            let at = if forth { step } else { count - 1 - step };
            let near = if forth { &points.left } else { &points.right };
            columns[at].sort_by_key(|point| mean(&near[*point], &row, row[*point]));
            number(&columns[at], &mut row);
        }
    }
    columns
}

/// Thousandths, so that it is an exact key; what has no neighbours stays.
fn mean(near: &[usize], row: &[usize], own: usize) -> usize {
    if near.is_empty() {
        return own * 1_000;
    }
    near.iter().map(|n| row[*n] * 1_000).sum::<usize>() / near.len()
}
