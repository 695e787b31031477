//! `cargo xtask fuzz-scheduler`: this engine and Debian's `crm_simulate` on random clusters, and never more differences than before.

use crate::exec::{self, cargo, read, root, say};
use std::fs;

/// The fewest differences so far, one line for each range of seeds.
const RECORD: &str = "tests/fuzz.txt";
/// What CI and the nightly run look at.
pub(crate) const CI: &str = "0..300";
pub(crate) const NIGHTLY: &str = "0..10000";

/// The public cases changed a little, where they are.
const NEAR: &str = "--seeds 538..3200 --near cases";

/// What is rare in clusters and only made on request; each has its line in the record.
const RARE: [&str; 11] = [
    "--seeds 0..300 --with patterns",
    "--seeds 0..300 --with default-rules",
    "--seeds 0..300 --with set-options",
    "--seeds 0..300 --with lifetimes",
    "--seeds 0..300 --with levels",
    "--seeds 0..300 --with unfencing",
    "--seeds 0..300 --with reloads",
    "--seeds 0..300 --with old-names",
    "--seeds 0..300 --only bundles",
    "--seeds 0..300 --only guests",
    "--seeds 0..300 --only remotes",
];

/// `[--seeds A..B] [--record] ...`: the other words are `crm-fuzz`'s own.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let at = words.iter().position(|w| w == "--seeds");
    let seeds = at.and_then(|i| words.get(i + 1)).map_or(CI, String::as_str);
    let own = words
        .iter()
        .enumerate()
        .filter(|(i, word)| *word != "--record" && at.is_none_or(|at| *i != at && *i != at + 1));
    let cases = crate::conformance::cases().join("xml");
    if words.iter().any(|w| w == "cases") && !cases.is_dir() {
        say(&format!("SKIPPED: no cases at {}", cases.display()));
        return Ok(());
    }
    let place = cases.display().to_string();
    let mut command = cargo(&["run", "--quiet", "--locked", "--package", "crm-fuzz", "--"]);
    command.args(["--seeds", seeds, "--allow", "1000000000"]);
    command.args(own.map(|(_, word)| if word == "cases" { &place } else { word }));
    let text = read(&mut command)?;
    say(text.trim_end());
    let line = text.lines().last().unwrap_or_default();
    if line.starts_with("SKIPPED") {
        return Ok(());
    }
    let now = wrong(line).ok_or_else(|| format!("no count in: {line}"))?;
    let path = root().join(RECORD);
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let what = judged(seeds, words);
    let begins = format!("{what} different ");
    let then = kept.lines().find_map(|l| l.strip_prefix(&begins)?.parse().ok());
    let record = words.iter().any(|w| w == "--record");
    // A selection of features is for looking, not for judging, unless it has a line of its own.
    if what != seeds && then.is_none() && !record {
        return Ok(());
    }
    if record && then.is_none_or(|then: u64| now < then) {
        let mut lines: Vec<String> =
            kept.lines().filter(|l| !l.starts_with(&begins)).map(str::to_owned).collect();
        lines.push(format!("{begins}{now}"));
        fs::write(&path, format!("{}\n", lines.join("\n")))
            .map_err(|e| format!("{RECORD}: {e}"))?;
        say(&format!("recorded in {RECORD}"));
        return Ok(());
    }
    let then = then.unwrap_or(0);
    if now > then {
        return Err(format!("{now} of the clusters {what} differ, {then} in {RECORD}"));
    }
    Ok(())
}

/// What a run is about, as its line in the record begins: `0..300`, `0..300 with patterns`.
fn judged(seeds: &str, words: &[String]) -> String {
    let mut out = seeds.to_owned();
    for two in words.windows(2) {
        if let [name, value] = two
            && let "--only" | "--without" | "--with" | "--near" = name.as_str()
        {
            out = format!("{out} {} {value}", name.trim_start_matches('-'));
        }
    }
    out
}

/// Clusters that are decided differently or not at all: `clusters 300  ...  different 7 (...)  refused 1`.
fn wrong(line: &str) -> Option<u64> {
    let count = |name: &str| -> Option<u64> {
        let mut words = line.split_whitespace().skip_while(|w| *w != name);
        words.next()?;
        words.next()?.parse().ok()
    };
    Some(count("different")? + count("refused")?)
}

/// What is too long for `cargo xtask test`.
pub(crate) fn nightly() -> Result<(), String> {
    let mut broken = Vec::new();
    let mut step = |name: &str, result: Result<(), String>| match result {
        Ok(()) => say(&format!("== {name}: passed")),
        Err(why) => {
            say(&format!("FAILED {name}: {why}"));
            broken.push(name.to_owned());
        }
    };
    crate::setup::run()?;
    let fuzz = ["--seeds", NIGHTLY].map(str::to_owned);
    step("fuzz-scheduler", run(&fuzz));
    for words in RARE.into_iter().chain([NEAR]) {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        step(&format!("fuzz-scheduler {}", words.join(" ")), run(&words));
    }
    let laws = ["test", "--locked", "--package", "crm-fuzz"];
    step("laws on many clusters", exec::run(cargo(&laws).env("CRM_FUZZ_SEEDS", "20000")));
    let seeds = ["test", "--locked", "--package", "crm-membership", "sim::no_seed"];
    step("consensus under faults", exec::run(cargo(&seeds).env("CRM_SIM_SEEDS", "1000")));
    let decoders =
        ["test", "--locked", "--lib", "--package", "crm-membership", "--package", "crm-block"];
    let those = [
        "--package",
        "crm-block-engine",
        "--",
        "whatever_",
        "nobody_meets",
        "no_decoder",
        "no_datagram",
    ];
    let many = exec::run(cargo(&[&decoders[..], &those].concat()).env("PROPTEST_CASES", "20000"));
    step("decoders on many bytes", many);
    for (name, package) in [("the long simulations", "crm-sim"), ("the wide model", "crm-quorum")] {
        let long = ["test", "--locked", "--package", package, "--no-fail-fast", "--", "--ignored"];
        step(name, exec::run(&mut cargo(&long)));
    }
    say(&format!("{} failed", broken.len()));
    if broken.is_empty() { Ok(()) } else { Err(String::new()) }
}

#[cfg(test)]
mod tests {
    use super::{judged, wrong};

    #[test]
    fn a_selection_of_features_has_a_line_of_its_own() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(judged("0..300", &words("--seeds 0..300 --show 1")), "0..300");
        let some = judged("0..9", &words("--seeds 0..9 --with patterns --record"));
        assert_eq!(some, "0..9 with patterns");
        assert_eq!(judged("5..9", &words("--seeds 5..9 --near cases")), "5..9 near cases");
    }

    #[test]
    fn what_is_refused_counts_as_different() {
        let line = "clusters 300  L1&L2 288  known 2  named 1  theirs-aborts 1  different 7 (L0 1 L1 2 L2 6)  refused 1  L3 250";
        assert_eq!(
            wrong(line),
            Some(8),
            "what has a name, and what ends theirs, is no error of ours"
        );
        assert_eq!(wrong("SKIPPED"), None);
    }
}
