//! `cargo xtask bench cib`: commits of the CIB with fsync and TLS, and a restart. Promises: issue 4. Figures: docs/bench.md.

use super::{keep, load};
use crate::exec::{self, cargo, say};

/// What is measured, the figure, and what is promised of it; at most, unless it is a rate.
const PROMISES: [(&str, &str, f64); 5] = [
    ("3 nodes, 64 writers at the leader", "per_s", 5000.0),
    ("3 nodes, 64 writers everywhere", "per_s", 5000.0),
    ("3 nodes, 1 writer at the leader", "p50_ms", 3.0),
    ("3 nodes, 1 writer elsewhere", "p50_ms", 3.0),
    ("3 nodes, restart after 10000", "caught_up_ms", 1000.0),
];

/// Measures, keeps the figures, and fails when a promise is missed.
pub(crate) fn run(dir: Option<&String>) -> Result<(), String> {
    let out = exec::target_dir().join("bench-cib.json");
    let example = ["--package", "crm-membership", "--example", "crm-bench-cib"];
    let mut command =
        cargo(&[&["run", "--release", "--quiet", "--locked"], &example[..], &["--"]].concat());
    command.arg(&out).args(dir);
    exec::run(&mut command)?;
    let figures = load(&out)?;
    keep("cib-", &figures)?;
    let mut missed = Vec::new();
    for (what, figure, promised) in PROMISES {
        let found = number(&figures, what, figure)
            .ok_or_else(|| format!("no `{figure}` of `{what}` in {}", out.display()))?;
        let met = if figure == "per_s" { found >= promised } else { found <= promised };
        let line = format!("{what}: {figure} {found}, promised {promised}");
        say(&line);
        if !met {
            missed.push(line);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not met: {}", missed.join("; "))) }
}

/// The number called `figure` in the object called `what`.
fn number(json: &str, what: &str, figure: &str) -> Option<f64> {
    let (_, rest) = json.split_once(&format!("\"{what}\":"))?;
    let (object, _) = rest.split_once('}')?;
    let (_, rest) = object.split_once(&format!("\"{figure}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_figure_is_found_in_its_own_object_only() {
        let json = r#"{ "a": { "per_s": 12.5, "p50_ms": 1 }, "b": { "p50_ms": 3.25 } }"#;
        assert_eq!(number(json, "a", "per_s"), Some(12.5));
        assert_eq!(number(json, "b", "p50_ms"), Some(3.25));
        assert_eq!(number(json, "b", "per_s"), None);
    }
}
