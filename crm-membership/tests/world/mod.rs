//! Nodes of one cluster on loopback, for the tests of this package.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use crm_core::store::{Command, MemberRole, State};
use crm_membership::bootstrap::Newcomer;
use crm_membership::{Dirs, Handle, Leadership, Settings, bootstrap};
use crm_quorum::Failover;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const TTL: Duration = Duration::from_secs(60);

pub(crate) fn log_to_test_output() {
    let made = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    drop(made);
}

/// A port that was free a moment ago on every address of this test.
pub(crate) fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    probe.local_addr().unwrap().port()
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    port: u16,
}

impl World {
    pub(crate) fn new() -> Self {
        log_to_test_output();
        Self { dir: tempfile::tempdir().unwrap(), port: free_port() }
    }

    pub(crate) fn dirs(&self, name: &str) -> Dirs {
        let root = self.dir.path().join(name);
        Dirs { settings: root.join("node.yaml"), data: root.join("data"), tls: root.join("tls") }
    }

    /// What a reboot empties.
    pub(crate) fn run_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name).join("run");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn address(&self, number: u8) -> String {
        format!("127.0.0.{number}:{}", self.port)
    }

    pub(crate) fn settings(&self, name: &str) -> Settings {
        let mut settings = Settings::load(&self.dirs(name).settings).unwrap();
        settings.profile = Failover::Normal;
        settings.realtime = false;
        settings
    }

    pub(crate) async fn start(&self, name: &str) -> Handle {
        crm_membership::start(self.settings(name), self.run_dir(name)).await.unwrap()
    }

    pub(crate) async fn found(&self) -> Handle {
        bootstrap::init(&self.dirs("n1"), "lab", "n1", &self.address(1)).unwrap();
        let handle = self.start("n1").await;
        leads(&handle).await;
        member(&handle, "n1").await;
        handle
    }

    pub(crate) async fn join(&self, door: &Handle, number: u8) -> Handle {
        self.join_as(door, number, MemberRole::Node).await
    }

    pub(crate) async fn join_as(&self, door: &Handle, number: u8, role: MemberRole) -> Handle {
        let token = door.make_token(TTL).unwrap();
        let (name, address) = (format!("n{number}"), self.address(number));
        let newcomer = Newcomer { role, ..Newcomer::node(&name, &address) };
        bootstrap::join(&self.dirs(&name), newcomer, None, &token).await.unwrap();
        let handle = self.start(&name).await;
        quorate(&handle, true, Duration::from_secs(20)).await;
        handle
    }

    /// `n1`, `n2`, ... all of them voters.
    pub(crate) async fn cluster(&self, nodes: u8) -> Vec<Handle> {
        let mut all = vec![self.found().await];
        for number in 2..=nodes {
            let node = self.join(&all[0], number).await;
            all.push(node);
        }
        for handle in &all {
            all_alive(handle, usize::from(nodes) - 1).await;
            voters(handle, usize::from(nodes)).await;
        }
        all
    }
}

pub(crate) async fn within<T>(limit: Duration, what: &str, event: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(limit, event).await;
    ended.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

pub(crate) async fn leadership(
    handle: &Handle,
    limit: Duration,
    want: impl FnMut(&Leadership) -> bool,
) {
    let mut seen = handle.leadership();
    within(limit, "leadership", seen.wait_for(want)).await.unwrap();
}

pub(crate) async fn leads(handle: &Handle) {
    leadership(handle, Duration::from_secs(20), |l| l.me_leader).await;
}

pub(crate) async fn quorate(handle: &Handle, want: bool, limit: Duration) {
    leadership(handle, limit, |l| l.quorate == want && l.leader.is_some() == want).await;
}

pub(crate) async fn voters(handle: &Handle, count: usize) {
    leadership(handle, Duration::from_secs(20), |l| l.voters.len() == count).await;
}

pub(crate) async fn state(handle: &Handle, what: &str, want: impl FnMut(&Arc<State>) -> bool) {
    let mut seen = handle.state();
    within(Duration::from_secs(20), what, seen.wait_for(want)).await.unwrap();
}

pub(crate) async fn member(handle: &Handle, name: &str) {
    state(handle, "member", |s| s.members.contains_key(name)).await;
}

pub(crate) async fn all_alive(handle: &Handle, count: usize) {
    let mut seen = handle.peers();
    let alive = seen.wait_for(|p| p.len() == count && p.values().all(|h| h.alive));
    within(Duration::from_secs(20), "peers alive", alive).await.unwrap();
}

pub(crate) fn attr(node: &str, value: &str) -> Command {
    Command::SetAttrs {
        node: node.to_owned(),
        session: None,
        attrs: vec![("colour".to_owned(), Some(value.to_owned()))],
    }
}

pub(crate) fn has(state: &State, node: &str, value: &str) -> bool {
    state.status.nodes.get(node).is_some_and(|n| n.attrs.get("colour").is_some_and(|v| v == value))
}

/// Its power fails, and everybody hears it.
pub(crate) async fn dies(gone: Handle, left: &Handle) {
    let name = gone.name().to_owned();
    drop(gone);
    let mut peers = left.peers();
    within(LIMIT, "death", peers.wait_for(|p| !p[&name].alive)).await.unwrap();
    quorate(left, false, LIMIT).await;
}

pub(crate) async fn alone(node: &Handle) {
    let me = node.name().to_owned();
    leadership(node, LIMIT, |l| l.me_leader && l.voters.len() == 1 && l.voters.contains(&me)).await;
}

/// Starts as soon as its former self has let go of port and files.
pub(crate) async fn starts(world: &World, name: &str) -> Handle {
    let starting = async {
        loop {
            match crm_membership::start(world.settings(name), world.run_dir(name)).await {
                Ok(handle) => return handle,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    within(LIMIT, "start", starting).await
}

/// Comes back with its disk, and nothing of what a reboot empties.
pub(crate) async fn reboots(world: &World, name: &str) -> Handle {
    std::fs::remove_dir_all(world.run_dir(name)).unwrap();
    starts(world, name).await
}

/// What it says of itself begins so, soon.
pub(crate) async fn says(node: &Handle, words: &str) {
    let told = async {
        while !node.standing().state.to_string().starts_with(words) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(LIMIT, words, told).await;
}
