//! Dev: commits of the CIB per second and how long one takes, on real clusters of 1, 2 and 3 nodes on loopback (TLS, fsync), beside what
//! the disk itself can do, and how long a node needs that missed commits. See `cargo xtask bench cib`.

use crm_core::cib::Cib;
use crm_core::store::{Command, Edit, Outcome, State};
use crm_core::text::{Session, read};
use crm_membership::bootstrap::Newcomer;
use crm_membership::{Dirs, Handle, Leadership, Settings, bootstrap};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HELP: &str = "crm-bench-cib JSON [DIRECTORY]: the directory lies on the disk to be measured";
/// Where nothing else is said: a directory that is on a disk, not in memory.
const DIRECTORY: &str = "/var/tmp";
/// How long each kind of load lasts.
const LOAD: Duration = Duration::from_secs(4);
/// What no wait of a healthy cluster exceeds.
const LIMIT: Duration = Duration::from_secs(30);
/// Synchronous writes of the disk by itself.
const SYNCS: u32 = 400;
const BLOCK: usize = 4096;
/// Commits that a node misses: some come from the log, more as a snapshot.
const MISSED: [u64; 2] = [500, 10_000];

/// A configuration as small clusters have it (the owner's seed 002).
const CONFIGURATION: &str = "\
property stonith-enabled=false
property no-quorum-policy=ignore
primitive drbd_nfs ocf:linbit:drbd params drbd_resource=r0 op monitor interval=15s
primitive fs_nfs ocf:heartbeat:Filesystem \\
	params device=\"/dev/drbd0\" directory=\"/srv\" fstype=ext4 options=\"noatime,nodiratime\" \\
	op start interval=0 timeout=60 op stop interval=0 timeout=120
primitive nfs ocf:heartbeat:nfsserver \\
	params nfs_init_script=\"/etc/init.d/nfs-kernel-server\" nfs_shared_infodir=\"/srv/nfs_shared\" \\
	nfs_ip=nfs.mydomain.com op monitor interval=5s
group HA fs_nfs nfs meta target-role=Started
ms ms_drbd_nfs drbd_nfs meta master-max=1 master-node-max=1 clone-max=2 clone-node-max=1 notify=true
order fs-nfs-before-nfs inf: fs_nfs:start nfs:start
location loc ms_drbd_nfs 100: n1
order ms-drbd-nfs-before-fs-nfs inf: ms_drbd_nfs:promote fs_nfs:start
colocation ms-drbd-nfs-with-ha inf: ms_drbd_nfs:Master HA
";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A line of output. A reader that went away is no error of ours.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Milliseconds with three digits after the point.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn whole(number: f64) -> f64 {
    number.round()
}

/// p50, p99 and the most of some times, and how many there were each second.
fn figures(mut times: Vec<Duration>, wall: Duration) -> Value {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().map(ms);
    let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
    json!({
        "per_s": whole(count / wall.as_secs_f64()),
        "p50_ms": at(50),
        "p99_ms": at(99),
        "max_ms": times.last().copied().map(ms),
    })
}

/// What the disk does by itself: blocks written and synced one after the other, by so many at once.
fn syncs(dir: &Path, at_once: u64) -> Result<Value> {
    let start = Instant::now();
    let workers: Vec<_> = (0..at_once)
        .map(|number| {
            let path = dir.join(format!("sync-{number}"));
            std::thread::spawn(move || -> std::io::Result<Vec<Duration>> {
                let file = std::fs::File::create(&path)?;
                file.write_all_at(&vec![1; BLOCK * 256], 0)?;
                file.sync_all()?;
                let mut times = Vec::new();
                for turn in 0..SYNCS {
                    let one = Instant::now();
                    let place = u64::from(turn % 256) * u64::try_from(BLOCK).unwrap_or(0);
                    file.write_all_at(&turn.to_le_bytes().repeat(BLOCK / 4), place)?;
                    file.sync_data()?;
                    times.push(one.elapsed());
                }
                std::fs::remove_file(&path)?;
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.join().map_err(|_| "a writer panicked")??);
    }
    Ok(figures(times, start.elapsed()))
}

/// Processor time of this process so far, all nodes and all writers.
fn processor() -> Result<Duration> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let (user, system) = (used.user_time(), used.system_time());
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(Duration::from_micros(u64::try_from(us(user) + us(system))?))
}

/// A cluster in one directory, its nodes on addresses of their own.
struct Lab {
    dir: tempfile::TempDir,
    port: u16,
    nodes: BTreeMap<u8, Handle>,
}

async fn seen(handle: &Handle, want: impl FnMut(&Leadership) -> bool) -> Result<()> {
    let mut leadership = handle.leadership();
    tokio::time::timeout(LIMIT, leadership.wait_for(want)).await??;
    Ok(())
}

async fn reached(handle: &Handle, want: impl FnMut(&Arc<State>) -> bool) -> Result<()> {
    let mut state = handle.state();
    tokio::time::timeout(LIMIT, state.wait_for(want)).await??;
    Ok(())
}

impl Lab {
    fn dirs(&self, number: u8) -> Dirs {
        let root = self.dir.path().join(format!("n{number}"));
        Dirs { settings: root.join("node.yaml"), data: root.join("data"), tls: root.join("tls") }
    }

    fn address(&self, number: u8) -> String {
        format!("127.0.0.{number}:{}", self.port)
    }

    async fn start(&mut self, number: u8) -> Result<Handle> {
        let handle = crm_membership::start(
            Settings::load(&self.dirs(number).settings)?,
            self.dirs(number).data.clone(),
        )
        .await?;
        self.nodes.insert(number, handle.clone());
        Ok(handle)
    }

    /// So many voters, the first of them the leader, all with the configuration.
    async fn build(dir: &Path, size: u8) -> Result<Self> {
        let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
        let dir = tempfile::Builder::new().prefix("crm-bench-").tempdir_in(dir)?;
        let mut lab = Self { dir, port, nodes: BTreeMap::new() };
        bootstrap::init(&lab.dirs(1), "lab", "n1", &lab.address(1))?;
        let first = lab.start(1).await?;
        reached(&first, |state| state.members.contains_key("n1")).await?;
        for number in 2..=size {
            let (token, name) = (first.make_token(LIMIT)?, format!("n{number}"));
            bootstrap::join(
                &lab.dirs(number),
                Newcomer::node(&name, &lab.address(number)),
                None,
                &token,
            )
            .await?;
            lab.start(number).await?;
        }
        for handle in lab.nodes.values() {
            seen(handle, |l| l.voters.len() == usize::from(size) && l.quorate).await?;
        }
        seen(&first, |l| l.me_leader).await?;
        let (cib, base) = {
            let state = first.state().borrow().clone();
            (Cib::clone(&state.cib), state.version)
        };
        let cib = Box::new(configured(cib, base)?);
        let (author, message) = ("bench".to_owned(), "configure".to_owned());
        done(first.propose(Command::CommitCib { base, cib, author, message, when_ms: 0 }).await?)?;
        Ok(lab)
    }

    fn leader(&self) -> Result<&Handle> {
        let leads = |handle: &&Handle| handle.leadership().borrow().me_leader;
        Ok(self.nodes.values().find(leads).ok_or("nobody leads")?)
    }

    /// All nodes have the same configuration, which saw so many commits.
    async fn agree(&self, version: u64) -> Result<()> {
        let mut states = Vec::new();
        for handle in self.nodes.values() {
            reached(handle, |state| state.version >= version).await?;
            states.push(handle.state().borrow().clone());
        }
        if states.iter().any(|state| state.version != version || state.cib != states[0].cib) {
            return Err("the nodes do not agree, or a commit was lost or done twice".into());
        }
        Ok(())
    }

    async fn end(self) {
        for handle in self.nodes.values() {
            handle.shutdown().await;
        }
    }
}

fn configured(cib: Cib, version: u64) -> Result<Cib> {
    let mut session = Session::new(cib, version);
    read("bench", CONFIGURATION, &mut session).map_err(|wrong| format!("{wrong:?}"))?;
    Ok(session.cib().clone())
}

fn done(outcome: Outcome) -> Result<u64> {
    match outcome {
        Outcome::Done { version } => Ok(version),
        other => Err(format!("a commit was not done: {other:?}").into()),
    }
}

/// One commit after the other until it is enough; each changes the configuration and makes a revision.
async fn write(
    node: Handle,
    writer: usize,
    enough: impl Fn(usize) -> bool,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while !enough(times.len()) {
        let (name, value) = (format!("bench-{writer}"), Some(times.len().to_string()));
        let edits = vec![Edit::NodeAttr { node: "n1".to_owned(), name, value }];
        let (author, message) = ("bench".to_owned(), "crm node attribute".to_owned());
        let start = Instant::now();
        done(node.propose(Command::Edit { edits, author, message, when_ms: 0 }).await?)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Writers that wait for each of their commits, spread over these nodes.
async fn load(lab: &Lab, nodes: &[Handle], writers: usize) -> Result<Value> {
    let before = lab.leader()?.state().borrow().version;
    // Values of the loads before would be no change.
    let tag = usize::try_from(before)? * 1000;
    let (start, used) = (Instant::now(), processor()?);
    let tasks: Vec<_> = nodes
        .iter()
        .cycle()
        .take(writers)
        .enumerate()
        .map(|(number, node)| {
            tokio::spawn(write(node.clone(), tag + number, move |_| start.elapsed() > LOAD))
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let (wall, used) = (start.elapsed(), processor()? - used);
    lab.agree(before + u64::try_from(times.len())?).await?;
    let mut found = figures(times, wall);
    found["cores_used"] = json!(whole(100.0 * used.as_secs_f64() / wall.as_secs_f64()) / 100.0);
    Ok(found)
}

/// Stops a follower, lets the others commit, and starts it: until it has all of it.
async fn restart(lab: &mut Lab, missed: u64) -> Result<Value> {
    let leader = lab.leader()?.clone();
    let away = *lab.nodes.iter().find(|(_, h)| h.name() != leader.name()).ok_or("no follower")?.0;
    let gone = lab.nodes.remove(&away).ok_or("no such node")?;
    gone.shutdown().await;
    drop(gone);
    let before = leader.state().borrow().version;
    let (writers, tag) = (50, usize::try_from(before)? * 1000);
    let each = usize::try_from(missed)? / writers;
    let tasks: Vec<_> = (0..writers)
        .map(|number| tokio::spawn(write(leader.clone(), tag + number, move |done| done >= each)))
        .collect();
    for task in tasks {
        task.await??;
    }
    let start = Instant::now();
    let back = lab.start(away).await?;
    let started = start.elapsed();
    reached(&back, |state| state.version == before + missed).await?;
    let caught_up = start.elapsed();
    seen(&back, |l| l.quorate && l.leader.is_some()).await?;
    let quorate = start.elapsed();
    lab.agree(before + missed).await?;
    Ok(
        json!({ "missed": missed, "start_ms": ms(started), "caught_up_ms": ms(caught_up), "quorate_ms": ms(quorate) }),
    )
}

async fn measure(dir: &Path) -> Result<Value> {
    let mut all = serde_json::Map::new();
    let mut keep = |name: &str, value: Value| {
        say(&format!("{name}: {value}"));
        all.insert(name.to_owned(), value);
    };
    for size in [1, 2, 3] {
        keep(&format!("{size} disk writers"), syncs(dir, u64::from(size))?);
        let mut lab = Lab::build(dir, size).await?;
        let leader = vec![lab.leader()?.clone()];
        let every: Vec<Handle> = lab.nodes.values().cloned().collect();
        let other: Vec<Handle> =
            every.iter().filter(|h| h.name() != leader[0].name()).take(1).cloned().collect();
        keep(&format!("{size} nodes, 1 writer at the leader"), load(&lab, &leader, 1).await?);
        if !other.is_empty() {
            keep(&format!("{size} nodes, 1 writer elsewhere"), load(&lab, &other, 1).await?);
        }
        keep(&format!("{size} nodes, 64 writers at the leader"), load(&lab, &leader, 64).await?);
        keep(&format!("{size} nodes, 64 writers everywhere"), load(&lab, &every, 64).await?);
        if size == 3 {
            for missed in MISSED {
                let found = restart(&mut lab, missed).await?;
                keep(&format!("{size} nodes, restart after {missed}"), found);
            }
        }
        lab.end().await;
    }
    Ok(Value::Object(all))
}

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let out = words.next().ok_or(HELP)?;
    let dir = words.next().unwrap_or_else(|| PathBuf::from(DIRECTORY));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let all = runtime.block_on(measure(&dir))?;
    std::fs::write(&out, serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
