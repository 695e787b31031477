//! `cargo xtask bench`: gaps, disk speed and commits, as JSON with the machine's line.
//!
//! The lab measures (`crm demo bench`); this adds the machine and the place where results are kept.

use crate::exec::{self, command, read, root, say};
use crate::setup;
use std::fs;
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

/// `cargo xtask bench`.
pub(crate) fn run() -> Result<(), String> {
    setup::run()?;
    let binary = exec::build_release()?;
    let out = exec::target_dir().join("bench.json");
    exec::run(command(&binary).args(["demo", "--bench"]).arg(&out))?;
    let figures = fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
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
    let path = dir.join(format!("{seconds}.json"));
    fs::write(&path, &json).map_err(|e| format!("{}: {e}", path.display()))?;
    say(&json);
    say(&format!("kept in {}", path.display()));
    Ok(())
}

fn now() -> Result<u64, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|time| time.as_secs()).map_err(|e| format!("the clock is before 1970: {e}"))
}
