//! The two clusters of the bench behind one face: ours (`crm demo`) and the real Pacemaker + Corosync of `shared/peer/`.
//!
//! Both have nodes `alpha` and `delta`, a hub with a bridge and a client in namespaces, and a file with the pid of each first process; so
//! they are killed, asked and commanded by the same code. Only building, starting and settling differ.

use super::failover::pause;
use super::probe::myself;
use crate::exec::{self, command, read, root};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Both nodes.
pub(crate) const NODES: [&str; 2] = ["alpha", "delta"];
/// How long a cluster may take to have all nodes online and nothing to do.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a cluster.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks for a node that has just been started.
const ATTEND: Duration = Duration::from_millis(10);

/// Whose cluster, and how it is tuned.
#[derive(Debug, Clone)]
pub(crate) enum Whose {
    /// Ours: the executable, its profile, with the whole NFS service or with an address only.
    Ours { binary: PathBuf, profile: &'static str, whole: bool },
    /// The peer: its token in milliseconds, or `default`.
    Theirs { token: &'static str },
}

/// A cluster that is built, broken and mended.
pub(crate) struct Side {
    /// Its name in the results.
    pub(crate) name: String,
    whose: Whose,
    dir: PathBuf,
    janitor: Option<Child>,
}

/// Where the peer's scripts are, if all that they need is there; else what is missing.
pub(crate) fn peer_scripts() -> Result<PathBuf, String> {
    let beside = root().join("../shared/peer");
    let dir = match std::env::var_os("PEER") {
        Some(dir) => PathBuf::from(dir),
        None if beside.is_dir() => beside,
        None => PathBuf::from("/work/shared/peer"),
    };
    if !dir.join("up.sh").is_file() {
        return Err(format!("no scripts of the peer in {} (PEER=DIR)", dir.display()));
    }
    for program in ["corosync", "pacemakerd", "crm", "crm_mon", "crmadmin", "gcc"] {
        if !exec::works("sh", &["-c", &format!("command -v {program}")]) {
            return Err(format!("`{program}` is not installed"));
        }
    }
    Ok(dir)
}

/// Standard output of a command whose failure is no news: it is asked again.
fn quiet(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Side {
    /// Builds the cluster in a place of its own; remains of an earlier run go first. It goes away with this value, also when this process
    /// is killed: a janitor waits for the end of its standard input.
    pub(crate) fn build(name: &str, whose: Whose) -> Result<Self, String> {
        let dir = PathBuf::from(format!("/var/tmp/crm-bench-{}", name.replace(' ', "-")));
        let shown = dir.display();
        let away = match &whose {
            Whose::Ours { binary, .. } => format!("{} demo down --dir {shown}", binary.display()),
            Whose::Theirs { .. } => {
                format!("if [ -x {shown}/down.sh ]; then {shown}/down.sh; fi; rm -rf {shown}")
            }
        };
        exec::run(command("sh").args(["-c", &away]))?;
        let mut janitor = command("setsid");
        janitor.args(["sh", "-c", &format!("read -r line; {away}")]).stdin(Stdio::piped());
        let janitor = janitor.spawn().map_err(|e| format!("start the janitor: {e}"))?;
        let side = Self { name: name.to_owned(), whose, dir, janitor: Some(janitor) };
        side.up()?;
        Ok(side)
    }

    fn up(&self) -> Result<(), String> {
        match &self.whose {
            Whose::Ours { binary, profile, whole } => {
                let mut demo = command(binary);
                demo.args(["demo", "up", "--profile", profile, "--dir"]).arg(&self.dir);
                exec::run(demo.args((!whole).then_some("--plain")))?;
            }
            Whose::Theirs { token } => {
                let from = peer_scripts()?;
                exec::run(command("cp").arg("-r").arg(from).arg(&self.dir))?;
                exec::run(command("chmod").args(["-R", "u+w"]).arg(&self.dir))?;
                let mut up = command(self.dir.join("up.sh"));
                exec::run(up.args(["2", token, "knet"]).stdin(Stdio::null()))?;
            }
        }
        self.settle()
    }

    /// The first process of a node, the hub or the client, if it lives.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        let text = fs::read_to_string(self.dir.join("run").join(format!("{name}.pid"))).ok()?;
        let pid: u32 = text.split_whitespace().next()?.parse().ok()?;
        is_alive(pid).then_some(pid)
    }

    fn living(&self, name: &str) -> Result<u32, String> {
        self.pid(name).ok_or_else(|| format!("{}: `{name}` is not running", self.name))
    }

    /// The client's first process.
    pub(crate) fn client(&self) -> Result<u32, String> {
        self.living("client")
    }

    /// A file of the lab's: of ours only.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// A command that runs inside a node.
    fn inside(&self, node: &str, words: &[&str]) -> Result<Command, String> {
        let mut nsenter = command("nsenter");
        nsenter.args(["-t", &self.living(node)?.to_string(), "-m", "-p", "-u", "-i", "-n", "--"]);
        let path = format!("PATH={}/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.display());
        nsenter.args(["env", "-i", &path, "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8"]).args(words);
        Ok(nsenter)
    }

    /// Runs a command inside a node.
    pub(crate) fn on(&self, node: &str, words: &[&str]) -> Result<String, String> {
        read(self.inside(node, words)?.stdin(Stdio::null()))
    }

    /// `crm configure` with this text; both understand the same.
    pub(crate) fn configure(&self, text: &str) -> Result<(), String> {
        let mut crm = self.inside("alpha", &["crm", "configure"])?;
        let said = |e: std::io::Error| format!("`crm configure`: {e}");
        let mut child = crm.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(said)?;
        let pipe = child.stdin.take();
        pipe.map_or(Ok(()), |mut pipe| pipe.write_all(text.as_bytes())).map_err(said)?;
        let status = child.wait().map_err(said)?;
        if status.success() { Ok(()) } else { Err(format!("`crm configure`: {status}")) }
    }

    /// Pulls a node's plug: all its processes are killed and its wire is cut, in one command for both clusters; a node with a volume by
    /// `crm demo kill`, which also breaks its FUSE connections.
    pub(crate) fn kill(&self, node: &str) -> Result<(), String> {
        let pid = self.living(node)?;
        let wire = match &self.whose {
            Whose::Ours { binary, whole: true, .. } => {
                return exec::run(
                    command(binary).args(["demo", "kill", node, "--dir"]).arg(&self.dir),
                );
            }
            Whose::Ours { .. } => format!("v-{node}"),
            Whose::Theirs { .. } => format!("va-{node}"),
        };
        let hub = self.living("hub")?;
        let plug = format!("nsenter -t {hub} -n ip link set {wire} down; kill -9 {pid}");
        exec::run(command("sh").args(["-c", &plug]))?;
        until(&format!("the death of {node}"), || Ok(!is_alive(pid)))
    }

    /// Starts what is dead and waits until all nodes are online and nothing is left to do.
    pub(crate) fn settle(&self) -> Result<(), String> {
        match &self.whose {
            Whose::Ours { binary, .. } => self.attended(|| {
                read(command(binary).args(["demo", "heal", "--dir"]).arg(&self.dir)).map(|_| ())
            }),
            Whose::Theirs { .. } => {
                for node in NODES.into_iter().filter(|node| self.pid(node).is_none()) {
                    exec::run(command(self.dir.join("node-up.sh")).arg(node).stdin(Stdio::null()))?;
                }
                until(&format!("{} to settle", self.name), || Ok(self.is_settled()))
            }
        }
    }

    /// Does something that may start our nodes, and gives each of them its `echo` as soon as it stands; the peer's nodes do that themselves.
    fn attended(&self, act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let attendant = scope.spawn(|| {
                let mut has: BTreeMap<&str, u32> = self.echoing();
                while !over.load(Ordering::Relaxed) {
                    for node in NODES {
                        if let Some(pid) = self.pid(node).filter(|pid| has.get(node) != Some(pid)) {
                            echo(node, pid)?;
                            has.insert(node, pid);
                        }
                    }
                    pause(ATTEND);
                }
                Ok(())
            });
            let result = act();
            over.store(true, Ordering::Relaxed);
            let attended: Result<(), String> =
                attendant.join().map_err(|_| "the attendant panicked".to_owned())?;
            result.and(attended)
        })
    }

    /// Nodes that have an `echo` already: by the process they had when it was started.
    fn echoing(&self) -> BTreeMap<&'static str, u32> {
        let socket = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap_or_default();
            text.contains(":1E61 ")
        };
        let found = NODES.into_iter().filter_map(|node| Some((node, self.pid(node)?)));
        found.filter(|(_, pid)| socket(pid)).collect()
    }

    /// The peer: all nodes online, none in standby, its DC idle.
    fn is_settled(&self) -> bool {
        let ask = |words: &[&str]| quiet(&mut self.inside("alpha", words).ok()?);
        let seen = ask(&["crm_mon", "-1"]).unwrap_or_default();
        let state = dc_of_all(&seen).and_then(|dc| ask(&["crmadmin", "-S", dc]));
        state.is_some_and(|said| said.contains("S_IDLE"))
    }
}

/// The DC in what `crm_mon -1` says, when all nodes are online (and none is in standby).
fn dc_of_all(seen: &str) -> Option<&str> {
    let line = |start: &str| seen.lines().find_map(|line| line.trim().strip_prefix(start));
    let online = line("* Online: [")?;
    let all = NODES.iter().all(|node| online.split(' ').any(|word| word == *node));
    line("* Current DC: ")?.split(' ').next().filter(|_| all)
}

impl Drop for Side {
    fn drop(&mut self) {
        let Some(mut janitor) = self.janitor.take() else { return };
        // The end of its input is its order; `wait` closes that.
        match janitor.wait() {
            Ok(status) if status.success() => {}
            other => exec::say(&format!("{}: not taken away: {other:?}", self.name)),
        }
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Asks until it holds.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > SETTLE_LIMIT {
            return Err(format!("waited {SETTLE_LIMIT:?} in vain for {what}"));
        }
        pause(LOOK);
    }
    Ok(())
}

/// An `echo` in the network and among the processes of a node: it dies with it.
fn echo(node: &str, pid: u32) -> Result<(), String> {
    let mut nsenter = command("nsenter");
    nsenter.args(["-t", &pid.to_string(), "-n", "-p", "--"]).arg(myself()?);
    nsenter.args(["bench", "echo", node]).stdin(Stdio::null());
    let mut child = nsenter.spawn().map_err(|e| format!("start the echo: {e}"))?;
    // Its end is the node's.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Processes of a pid namespace: outer pid and command line.
pub(crate) fn processes(first: u32) -> Vec<(u32, String)> {
    let space = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let Some(wanted) = space(&first.to_string()) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let inside = pids.filter(|pid| space(&pid.to_string()).as_ref() == Some(&wanted));
    let named = inside.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::dc_of_all;

    #[test]
    fn the_peer_has_a_dc_of_all_nodes_only_when_both_are_online() {
        let both = "  * Current DC: delta (version 2.1.5)\n  * Online: [ alpha delta ]\n";
        assert_eq!(dc_of_all(both), Some("delta"));
        let standby = both.replace("[ alpha delta ]", "[ alpha ]");
        assert_eq!(dc_of_all(&standby), None);
        assert_eq!(dc_of_all("  * Current DC: NONE\n"), None);
    }
}
