//! `cargo xtask conformance`: the policy engine against Pacemaker's public scheduler cases, and never below what it reached before.
//!
//! The cases are not part of this repository: `../shared/conformance/scheduler`, or `CONFORMANCE=DIR`. Their own `judge.py` judges.

use crate::exec::{self, command, read, root, say};
use std::fs;
use std::path::PathBuf;

/// Where the best result so far is kept.
const RECORD: &str = "tests/conformance.txt";
/// The counts that must not fall.
const LEVELS: [&str; 5] = ["L1&L2", "L1", "L2", "L3", "G2"];

/// Where the cases are, if they are.
pub(crate) fn cases() -> PathBuf {
    match std::env::var_os("CONFORMANCE") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let beside = root().join("../shared/conformance/scheduler");
            if beside.is_dir() {
                beside
            } else {
                PathBuf::from("/work/shared/conformance/scheduler")
            }
        }
    }
}

/// Runs all cases through `crm` (or the executable named) and compares with the record; `--record` notes a better result.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let cases = cases();
    let judge = cases.join("judge.py");
    if !judge.is_file() {
        say(&format!("SKIPPED: no conformance cases at {}", cases.display()));
        return Ok(());
    }
    let binary = match words.iter().find(|w| !w.starts_with("--")) {
        Some(path) => PathBuf::from(path),
        None => exec::build_release()?,
    };
    let mut judging = command("python3");
    judging.arg("-B").arg(&judge);
    if words.iter().any(|w| w == "--list") {
        judging.arg("--list-failing");
    }
    judging.args(["--timeout", "60", "--"]).arg(&binary);
    judging.args([
        "simulate",
        "--cib",
        "{xml}",
        "--style",
        "pacemaker",
        "--graph",
        "{graph}",
        "{args}",
    ]);
    let text = read(&mut judging)?;
    say(text.trim_end());
    let line = text.lines().last().unwrap_or_default();
    let path = root().join(RECORD);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let mut better = before.is_empty();
    for level in LEVELS {
        let now = count(line, level).ok_or_else(|| format!("no {level} in: {line}"))?;
        let then = count(&before, level).unwrap_or(0);
        if now < then {
            return Err(format!("{level} fell from {then} to {now}; the record is {RECORD}"));
        }
        better |= now > then;
    }
    if better && words.iter().any(|w| w == "--record") {
        let kept = line.split("  median").next().unwrap_or(line);
        fs::write(&path, format!("{kept}\n")).map_err(|e| format!("{RECORD}: {e}"))?;
        say(&format!("recorded in {RECORD}"));
    } else if better {
        say(&format!("better than {RECORD}: note it with --record"));
    }
    Ok(())
}

/// The number after the name of a level in the judge's line.
fn count(line: &str, level: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip_while(|w| *w != level);
    words.next()?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn counts_are_found_by_their_names() {
        let line = "cases 538  L1&L2 94 (17.5 %)  L1 120  L2 101  L3 60  G2 61  null L1&L2 94";
        assert_eq!(count(line, "L1&L2"), Some(94));
        assert_eq!(count(line, "G2"), Some(61));
        assert_eq!(count(line, "L9"), None);
    }
}
