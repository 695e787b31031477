//! What a cluster costs that has nothing to do, and whom it accuses when the machine has too much to do.

use super::failover::{pause, settled};
use super::figures::{ACCUSED, AGENTS, CPU, Figures, MEMORY, SHARED};
use super::probe::{myself, now, stop};
use super::side::{NODES, Side, Whose, processes};
use crate::exec::{command, read, say};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(60);
/// CPU hogs, each in a session of its own: the kernel's groups by session must not tame them.
const HOGS: usize = 8;
/// What crmd logs when it takes a node for dead (crm-membership/src/heartbeat.rs).
const ACCUSATION: &str = "node is considered dead";
/// What is worth knowing beside it.
const SIGNS: [(&str, &str); 4] = [
    ("late beats", "no heartbeats for three quarters"),
    ("own stalls", "this node stalled"),
    ("changes of leadership", "leadership leader="),
    ("changes of mode", "mode from="),
];

/// Processor time of a process and of the children it has waited for, in ticks.
fn ticks(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    // proc(5): utime, stime, cutime, cstime are fields 14 to 17, the state is field 3.
    let fields: Vec<u64> = rest.split(' ').skip(11).take(4).flat_map(str::parse).collect();
    let [user, system, their_user, their_system] = fields[..] else { return None };
    Some((user + system, their_user + their_system))
}

/// A line of `/proc/PID/smaps_rollup`, in MiB.
fn memory(pid: u32, key: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
    kib?.trim().parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// The daemons of a node, ours or theirs.
fn daemons(side: &Side, node: &str) -> Vec<u32> {
    let Some(first) = side.pid(node) else { return Vec::new() };
    let is_daemon = |line: &str| {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let word = words.next().unwrap_or_default();
        program.starts_with("pacemaker")
            || program == "corosync"
            || (program == "crm" && matches!(word, "daemon" | "blockd"))
    };
    let all = processes(first).into_iter();
    all.filter(|(_, line)| is_daemon(line)).map(|(pid, _)| pid).collect()
}

/// Processor time and memory of all daemons of each node over a minute.
pub(crate) fn idle(side: &Side, figures: &mut Figures) -> Result<(), String> {
    let per_second: f64 = read(command("getconf").arg("CLK_TCK"))?
        .trim()
        .parse()
        .map_err(|e| format!("`getconf CLK_TCK`: {e}"))?;
    let before: Vec<_> = NODES.map(|node| (node, daemons(side, node))).into_iter().collect();
    let sum = |pids: &[u32]| {
        let each = pids.iter().filter_map(|pid| ticks(*pid));
        each.fold((0, 0), |(own, theirs), (o, t)| (own + o, theirs + t))
    };
    let (began, start) = (now()?, before.iter().map(|(_, pids)| sum(pids)).collect::<Vec<_>>());
    pause(IDLE);
    let share = 100.0 / per_second / (now()? - began);
    for ((node, pids), (own, agents)) in before.iter().zip(start) {
        if pids.is_empty() || *pids != daemons(side, node) {
            return Err(format!("{}: the daemons of {node} did not last", side.name));
        }
        let (own_now, agents_now) = sum(pids);
        #[expect(clippy::cast_precision_loss, reason = "ticks of a minute are few")]
        let percent = |ticks: u64| ticks as f64 * share;
        figures.note(&side.name, CPU, percent(own_now - own));
        figures.note(&side.name, AGENTS, percent(agents_now - agents));
        let total = |key| pids.iter().filter_map(|pid| memory(*pid, key)).sum::<f64>();
        figures.note(&side.name, MEMORY, total("Rss:"));
        figures.note(&side.name, SHARED, total("Pss:"));
    }
    Ok(())
}

/// CPU hogs that end with this value.
struct Herd(Vec<Child>);

impl Herd {
    fn start() -> Result<Self, String> {
        let mut herd = Self(Vec::new());
        for _ in 0..HOGS {
            let mut hog = command("setsid");
            hog.arg(myself()?).args(["bench", "spin"]).stdin(Stdio::null());
            herd.0.push(hog.spawn().map_err(|e| format!("start a hog: {e}"))?);
        }
        Ok(herd)
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(stop);
    }
}

fn logs(side: &Side) -> String {
    let read = |node: &str| fs::read_to_string(side.file(&format!("{node}/log/crmd.log")));
    NODES.map(|node| read(node).unwrap_or_default()).concat()
}

/// How many lines of the logs have this in them.
fn count(logs: &str, sign: &str) -> usize {
    logs.lines().filter(|line| line.contains(sign)).count()
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Clusters of both profiles at once under eight CPU hogs: how many living nodes are called dead.
pub(crate) fn hogs(binary: &Path, minutes: u32) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let mut sides = Vec::new();
    for profile in ["normal", "fast"] {
        let whose = Whose::Ours { binary: binary.to_owned(), profile, whole: false };
        let side = Side::build(&format!("crm {profile}"), whose)?;
        let probe = settled(&side)?;
        sides.push((logs(&side), probe, side));
    }
    let (began, herd) = (now()?, Herd::start()?);
    say(&format!("{HOGS} hogs for {minutes} minutes, two clusters of two nodes"));
    pause(Duration::from_secs(60) * minutes);
    drop(herd);
    for (before, probe, side) in &sides {
        let after = logs(side);
        let new = |sign: &str| number(count(&after, sign) - count(before, sign));
        figures.note(&side.name, ACCUSED, new(ACCUSATION));
        for (what, sign) in SIGNS {
            figures.note(&side.name, &format!("{what} under hogs"), new(sign));
        }
        // The probe has no real-time priority: some silence is its own.
        figures.note(&side.name, "probe gaps under hogs", number(probe.changes_since(began)));
        if !before.contains("heartbeats are back") {
            return Err(format!("{}: the logs do not say what is looked for", side.name));
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::{ACCUSATION, count};

    #[test]
    fn an_accusation_is_found_in_the_words_of_crmd() {
        let log =
            "WARN heartbeats stopped: node is considered dead peer=\"delta\"\nINFO crmd is up\n";
        assert_eq!(count(log, ACCUSATION), 1);
    }
}
