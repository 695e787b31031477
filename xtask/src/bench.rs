//! `cargo xtask bench`: gaps, disk speed and commits, the policy engine, commits of the CIB, or failover beside the peer, as JSON with the
//! machine's line.
//!
//! The lab measures (`crm demo bench`); this adds the machine and the place where results are kept.

mod cib;
mod cost;
mod failover;
mod figures;
mod probe;
mod side;

use crate::exec::{self, cargo, command, read, root, say};
use crate::setup;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line that says what was measured on.
fn machine() -> Result<String, String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").map_err(|e| format!("/proc/cpuinfo: {e}"))?;
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("unknown CPU");
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").map_err(|e| format!("/proc/meminfo: {e}"))?;
    let kib: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let kernel = read(command("uname").arg("-r"))?;
    Ok(format!("{model}, {cores} cores, {} GiB, Linux {}", kib >> 20, kernel.trim()))
}

/// `cargo xtask bench [scheduler [EXECUTABLE] | cib [DIRECTORY] | failover ...]`.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let rest = words.get(1..).unwrap_or_default();
    match words.first().map(String::as_str) {
        None => whole(),
        Some("scheduler") => scheduler(words.get(1).map(PathBuf::from)),
        Some("cib") => cib::run(words.get(1)),
        Some("failover") => failover::run(rest),
        Some(other) => failover::part(other, rest).unwrap_or_else(|| {
            Err(format!(
                "there is no bench `{other}`: `cargo xtask bench [scheduler|cib|failover]`"
            ))
        }),
    }
}

/// Gaps, disks, commits.
fn whole() -> Result<(), String> {
    setup::run()?;
    let binary = exec::build_release()?;
    let out = exec::target_dir().join("bench.json");
    exec::run(command(&binary).args(["demo", "--bench"]).arg(&out))?;
    keep("", &load(&out)?)
}

/// The policy engine beside Debian's `crm_simulate`, and by itself.
fn scheduler(executable: Option<PathBuf>) -> Result<(), String> {
    let binary = executable.map_or_else(exec::build_release, Ok)?;
    let out = exec::target_dir().join("bench-scheduler.json");
    let package = ["run", "--quiet", "--locked", "--package", "crm-fuzz"];
    let mut command = cargo(&[&package[..], &["--bin", "crm-bench-scheduler", "--"]].concat());
    let beside = exec::run(command.arg(&binary).arg(&out));
    exec::run(&mut cargo(&["bench", "--locked", "--package", "crm-core", "--bench", "plan"]))?;
    let (within, slow) = planning()?;
    keep("scheduler-", &format!("{{\"beside\": {}, \"plan_ns\": {within}}}", load(&out)?.trim()))?;
    beside?;
    if slow.is_empty() { Ok(()) } else { Err(format!("too slow: {}", slow.join(", "))) }
}

/// What planning alone may take, in nanoseconds.
const PLANNING: &[(&str, f64)] = &[
    ("seed002/steady", 200_000.0),
    ("seed002/drain", 200_000.0),
    ("16x1000/steady", 50_000_000.0),
    ("16x1000/steady_exact", 50_000_000.0),
];

/// What criterion has just measured, as JSON, and what is slower than promised.
fn planning() -> Result<(String, Vec<String>), String> {
    let (mut out, mut slow) = (Vec::new(), Vec::new());
    for (name, limit) in PLANNING {
        let path = exec::target_dir().join("criterion").join(name).join("new/estimates.json");
        let text = load(&path)?;
        let ns = median(&text).ok_or_else(|| format!("{}: no median", path.display()))?;
        say(&format!("{name}: {ns:.0} ns (at most {limit:.0})"));
        if ns > *limit {
            slow.push((*name).to_owned());
        }
        out.push(format!("\"{name}\": {ns:.0}"));
    }
    Ok((format!("{{{}}}", out.join(", ")), slow))
}

/// `"median":{...,"point_estimate":123.4,...}`.
fn median(estimates: &str) -> Option<f64> {
    let (_, rest) = estimates.split_once("\"median\":")?;
    let (_, rest) = rest.split_once("\"point_estimate\":")?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

fn load(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes figures with the machine and the commit they belong to.
fn keep(prefix: &str, figures: &str) -> Result<(), String> {
    let (machine, seconds) = (machine()?, now()?);
    let commit = read(command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let quoted = machine.replace('"', "'");
    let json = format!(
        "{{\n  \"machine\": \"{quoted}\",\n  \"commit\": \"{}\",\n  \"when\": {seconds},\n  \"figures\": {}\n}}\n",
        commit.trim(),
        figures.trim()
    );
    let dir = root().join("bench/results");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let path = dir.join(format!("{prefix}{seconds}.json"));
    fs::write(&path, &json).map_err(|e| format!("{}: {e}", path.display()))?;
    say(&json);
    say(&format!("kept in {}", path.display()));
    Ok(())
}

fn now() -> Result<u64, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|time| time.as_secs()).map_err(|e| format!("the clock is before 1970: {e}"))
}
