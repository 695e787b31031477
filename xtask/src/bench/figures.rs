//! What was measured and what was promised (issue 4, "Acceptance"): medians, ratios, verdicts. Pure.

use std::collections::BTreeMap;

/// Samples by side (`crm normal`) and by what was measured (`kill s`); the last word of the latter is the unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures(BTreeMap<String, BTreeMap<String, Vec<f64>>>);

/// The middle of the samples; of an even number the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(middle.checked_sub(1)?).map(|lower| f64::midpoint(*lower, upper))
}

fn least(samples: &[f64]) -> Option<f64> {
    samples.iter().copied().min_by(f64::total_cmp)
}

fn most(samples: &[f64]) -> Option<f64> {
    samples.iter().copied().max_by(f64::total_cmp)
}

impl Figures {
    /// Notes one sample.
    pub(crate) fn note(&mut self, side: &str, what: &str, value: f64) {
        let of_side = self.0.entry(side.to_owned()).or_default();
        of_side.entry(what.to_owned()).or_default().push(value);
    }

    /// Adds all samples of another run.
    pub(crate) fn join(&mut self, other: Self) {
        for (side, series) in other.0 {
            for (what, samples) in series {
                for value in samples {
                    self.note(&side, &what, value);
                }
            }
        }
    }

    fn samples(&self, side: &str, what: &str) -> &[f64] {
        let found = self.0.get(side).and_then(|series| series.get(what));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// A table for people, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            "| side | what | n | median | min | max |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for (side, series) in &self.0 {
            for (what, samples) in series {
                let show = |value: Option<f64>| {
                    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))
                };
                lines.push(format!(
                    "| {side} | {what} | {} | {} | {} | {} |",
                    samples.len(),
                    show(median(samples)),
                    show(least(samples)),
                    show(most(samples))
                ));
            }
        }
        lines.join("\n")
    }

    /// Everything, as JSON.
    pub(crate) fn json(&self) -> String {
        let sides = self.0.iter().map(|(side, series)| {
            let series = series.iter().map(|(what, samples)| {
                let all: Vec<String> = samples.iter().map(|v| format!("{v:.4}")).collect();
                let middle =
                    median(samples).map_or_else(|| "null".to_owned(), |v| format!("{v:.4}"));
                format!("      \"{what}\": {{\"median\": {middle}, \"all\": [{}]}}", all.join(", "))
            });
            let series: Vec<String> = series.collect();
            format!("    \"{side}\": {{\n{}\n    }}", series.join(",\n"))
        });
        let sides: Vec<String> = sides.collect();
        format!("{{\n{}\n  }}", sides.join(",\n"))
    }
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    /// The median at most this.
    Median(f64),
    /// Every sample at most this.
    Every(f64),
    /// The median at most so many times the other side's.
    Times(f64, &'static str),
}

/// One line of issue 4.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Promise(&'static str, &'static str, Limit);

const PROMISES: [Promise; 14] = [
    Promise("crm normal", KILL, Limit::Median(1.0)),
    Promise("crm normal", KILL, Limit::Times(0.15, DEFAULTS)),
    Promise("crm fast", KILL, Limit::Median(0.6)),
    Promise("crm fast", KILL, Limit::Times(0.25, TOKEN)),
    Promise("crm normal", DRAIN, Limit::Times(0.6, DEFAULTS)),
    Promise("crm fast", DRAIN, Limit::Times(0.6, TOKEN)),
    Promise("crm normal", COLD, Limit::Median(3.0)),
    Promise("crm fast", COLD, Limit::Median(3.0)),
    Promise("crm normal", CPU, Limit::Every(2.0)),
    Promise("crm normal", MEMORY, Limit::Every(60.0)),
    Promise("crm fast", CPU, Limit::Every(2.0)),
    Promise("crm fast", MEMORY, Limit::Every(60.0)),
    Promise("crm normal", ACCUSED, Limit::Every(0.0)),
    Promise("crm fast", ACCUSED, Limit::Every(0.0)),
];

/// Corosync as it comes.
pub(crate) const DEFAULTS: &str = "peer defaults";
/// Corosync with `token: 1000`.
pub(crate) const TOKEN: &str = "peer token 1000";
/// A node dies until the address answers elsewhere.
pub(crate) const KILL: &str = "kill s";
/// `crm node standby` until the address answers elsewhere.
pub(crate) const DRAIN: &str = "drain s";
/// The same as the client sees it: from the last answer to the next.
pub(crate) const GAP: &str = "drain gap s";
/// Both nodes start until the address answers.
pub(crate) const COLD: &str = "cold start s";
/// Processor time of all daemons of a node that has nothing to do, in percent of a core.
pub(crate) const CPU: &str = "idle CPU %";
/// That of the agents they start (monitors).
pub(crate) const AGENTS: &str = "idle agents' CPU %";
/// Resident memory of all daemons of a node.
pub(crate) const MEMORY: &str = "idle RSS MiB";
/// The same with pages that several share counted once.
pub(crate) const SHARED: &str = "idle PSS MiB";
/// Living nodes called dead.
pub(crate) const ACCUSED: &str = "accused nodes";

/// A promise and what came of it; `None`: not measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// In words.
    pub(crate) line: String,
    /// Kept?
    pub(crate) met: Option<bool>,
}

impl Promise {
    fn judge(self, figures: &Figures) -> Verdict {
        let Self(side, what, limit) = self;
        let samples = figures.samples(side, what);
        let (value, most_allowed, how) = match limit {
            Limit::Median(at_most) => (median(samples), Some(at_most), "median".to_owned()),
            Limit::Every(at_most) => (most(samples), Some(at_most), "every".to_owned()),
            Limit::Times(times, other) => {
                let theirs = median(figures.samples(other, what));
                (median(samples), theirs.map(|t| t * times), format!("{times} x {other}"))
            }
        };
        let met = value.zip(most_allowed).map(|(value, most)| value <= most);
        let word = match met {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "NOT MET",
        };
        let show = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |v| format!("{v:.3}"));
        let (value, most_allowed) = (show(value), show(most_allowed));
        Verdict {
            line: format!("{side}, {what}: {value}, at most {most_allowed} ({how}): {word}"),
            met,
        }
    }
}

/// All promises, judged.
pub(crate) fn verdicts(figures: &Figures) -> Vec<Verdict> {
    PROMISES.iter().map(|promise| promise.judge(figures)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(figures: &Figures, begin: &str) -> Vec<Option<bool>> {
        let all = verdicts(figures).into_iter();
        all.filter(|v| v.line.starts_with(begin)).map(|v| v.met).collect()
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[10.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut figures = Figures::default();
        assert!(verdicts(&figures).iter().all(|v| v.met.is_none()));
        figures.note("crm normal", KILL, 0.9);
        // The limit of a ratio is the other side's.
        assert_eq!(verdict(&figures, "crm normal, kill s"), [Some(true), None]);
    }

    #[test]
    fn a_ratio_is_held_against_the_median_of_the_other_side() {
        let mut figures = Figures::default();
        for theirs in [6.0, 7.0, 90.0] {
            figures.note(DEFAULTS, KILL, theirs);
        }
        figures.note("crm normal", KILL, 1.04);
        assert_eq!(verdict(&figures, "crm normal, kill s"), [Some(false), Some(true)]);
        figures.note("crm normal", KILL, 1.08);
        assert_eq!(verdict(&figures, "crm normal, kill s"), [Some(false), Some(false)]);
    }

    #[test]
    fn one_accused_node_or_one_heavy_node_breaks_the_promise() {
        let mut figures = Figures::default();
        for heavy in [10.0, 20.0, 61.0] {
            figures.note("crm normal", MEMORY, heavy);
        }
        figures.note("crm fast", ACCUSED, 0.0);
        assert_eq!(verdict(&figures, "crm normal, idle RSS"), [Some(false)]);
        assert_eq!(verdict(&figures, "crm fast, accused"), [Some(true)]);
        figures.note("crm fast", ACCUSED, 1.0);
        assert_eq!(verdict(&figures, "crm fast, accused"), [Some(false)]);
    }

    #[test]
    fn figures_of_two_runs_are_one_series() {
        let (mut one, mut two) = (Figures::default(), Figures::default());
        one.note("crm fast", KILL, 0.5);
        two.note("crm fast", KILL, 0.7);
        one.join(two);
        assert!(one.table().contains("| crm fast | kill s | 2 | 0.600 | 0.500 | 0.700 |"));
        assert!(one.json().contains("\"kill s\": {\"median\": 0.6000, \"all\": [0.5000, 0.7000]}"));
    }
}
