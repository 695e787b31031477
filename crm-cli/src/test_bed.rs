//! A cluster for tests: the real replicated state behind the [`Daemon`] trait, and the real agents' names of seed 002.

use crate::daemon::Daemon;
use crate::ui::Ui;
use crate::{FenceAgent, FenceTrial, Hooks, InitArgs, JoinArgs, Shell, run};
use crm_core::cib::{Cib, Role};
use crm_core::fencing::{Answer, Answers, Config};
use crm_core::plan::{Instance, Placement, Plan};
use crm_core::status::{NodeStatus, ResourceHistory};
use crm_core::store::{Command, Disarmed, Member, Outcome, State};
use crm_core::text::{AgentCatalog, AgentInfo, ListedAgents};
use crm_proto::line::CallError;
use crm_proto::local::{Divergence, Mode, NodeLine, Reply, Request, StatusReply};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Seed 002's statements, as pasted.
pub(crate) const SEED: &str = "\
property stonith-enabled=false
property no-quorum-policy=ignore
primitive drbd_nfs ocf:linbit:drbd \\
	params drbd_resource=r0 \\
	op monitor interval=15s
primitive fs_nfs Filesystem \\
	params device=\"/dev/drbd0\" directory=\"/srv\" fstype=ext4 options=\"noatime,nodiratime\" \\
	op start interval=0 timeout=60 \\
	op stop interval=0 timeout=120
primitive nfs nfsserver \\
	params nfs_init_script=\"/etc/init.d/nfs-kernel-server\" nfs_shared_infodir=\"/srv/nfs_shared\" \\
        nfs_ip=nfs.mydomain.com \\
	op monitor interval=5s
group HA fs_nfs nfs \\
	meta target-role=Started
ms ms_drbd_nfs drbd_nfs \\
	meta master-max=1 master-node-max=1 clone-max=2 clone-node-max=1 notify=true
order fs-nfs-before-nfs inf: fs_nfs:start nfs:start
location loc ms_drbd_nfs 100: alpha
order ms-drbd-nfs-before-fs-nfs inf: ms_drbd_nfs:promote fs_nfs:start
colocation ms-drbd-nfs-with-ha inf: ms_drbd_nfs:Master HA
show
commit
quit
";

fn catalog() -> Box<dyn AgentCatalog> {
    let agent = |name: &str, params: &[&str]| {
        let params = params.iter().map(|p| ((*p).to_owned(), false)).collect();
        (name.to_owned(), AgentInfo { params })
    };
    Box::new(ListedAgents(BTreeMap::from([
        agent("ocf:linbit:drbd", &["drbd_resource"]),
        agent("ocf:heartbeat:Filesystem", &["device", "directory", "fstype", "options"]),
        agent("ocf:heartbeat:nfsserver", &["nfs_init_script", "nfs_shared_infodir", "nfs_ip"]),
        agent("ocf:heartbeat:Dummy", &["state", "fake"]),
        agent("stonith:fence_x", &["ip"]),
    ])))
}

fn no_init(_: InitArgs) -> anyhow::Result<String> {
    anyhow::bail!("founded already")
}

fn no_join(_: JoinArgs) -> anyhow::Result<String> {
    anyhow::bail!("joined already")
}

fn described(agent: &str) -> anyhow::Result<FenceAgent> {
    anyhow::ensure!(agent == "fence_x", "there is no agent `{agent}`");
    Ok(FenceAgent { about: "a test device".to_owned(), params: Vec::new() })
}

fn tried(_: &str, params: &BTreeMap<String, String>) -> anyhow::Result<FenceTrial> {
    let other = params.keys().find(|name| *name != "ip" && !name.starts_with("pcmk_"));
    Ok(match other {
        Some(name) => FenceTrial::Wrong(vec![format!("fence_x has no parameter `{name}`")]),
        None if params.values().any(|value| value == "silent") => {
            FenceTrial::Silent("login refused".to_owned())
        }
        None => FenceTrial::Works,
    })
}

/// The cluster alpha and delta.
pub(crate) struct Bed {
    /// What every node would hold.
    pub(crate) state: State,
    /// A command that another operator slips in before the next commit.
    pub(crate) meanwhile: Option<Command>,
    /// This node's mode.
    pub(crate) mode: Mode,
    /// How often blockd is still busy.
    pub(crate) busy: u32,
    /// What fence devices say instead of being well.
    pub(crate) device_fails: Option<String>,
    /// A line that has parted.
    pub(crate) divergence: Option<Divergence>,
    /// What was to be merged: both versions, and what comes of them.
    pub(crate) merged: Option<(u64, u64, Cib)>,
}

impl Bed {
    /// Two members, no resources.
    pub(crate) fn new() -> Self {
        let mut state = State::default();
        let found = Command::Found { name: "lab".to_owned(), uuid: "u-1".to_owned() };
        assert!(matches!(state.apply(found), Outcome::Done { .. }));
        for (raft_id, name) in [(1, "alpha"), (2, "delta")] {
            let member = Member::new(raft_id, format!("{name}:5406"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        Self {
            state,
            busy: 0,
            device_fails: None,
            meanwhile: None,
            mode: Mode::Leader,
            divergence: None,
            merged: None,
        }
    }

    /// With seed 002's configuration committed through the command itself.
    pub(crate) fn seeded() -> Self {
        let mut bed = Self::new();
        let file = Scratch::new("seed.crm", SEED);
        let (code, _, words) = bed.crm(&["configure", "-f", &file.path()]);
        assert_eq!(code, 0, "{words}");
        bed
    }

    /// Runs the command; exit code, data, words.
    pub(crate) fn crm(&mut self, words: &[&str]) -> (u8, String, String) {
        let hooks = Hooks {
            agent_catalog: catalog,
            cluster_init: no_init,
            cluster_join: no_join,
            fence_agents: || vec![("fence_x".to_owned(), "a test device".to_owned())],
            fence_agent: described,
            fence_try: tried,
        };
        let mut ui = Ui::memory();
        let mut args = vec![OsString::from("crm")];
        args.extend(words.iter().map(OsString::from));
        let code = {
            let mut shell = Shell { daemon: self, ui: &mut ui, hooks: &hooks, zone: TimeZone::UTC };
            run(&mut shell, args)
        };
        let (out, err) = ui.taken();
        (code, out, err)
    }

    /// Notes that `resource` has `role` on `node`.
    pub(crate) fn runs(&mut self, node: &str, resource: &str, role: Role) {
        let history = ResourceHistory { role: Some(role), ..ResourceHistory::default() };
        self.history(node).insert(resource.to_owned(), history);
    }

    /// What is known of a node's resources.
    pub(crate) fn history(&mut self, node: &str) -> &mut BTreeMap<String, ResourceHistory> {
        let status: &mut NodeStatus = self.state.status.nodes.entry(node.to_owned()).or_default();
        &mut status.resources
    }

    fn fencing(&self, now_ms: u64) -> Reply {
        let config = Config::read(&self.state.cib, &BTreeMap::new(), 0);
        let coverage = config.coverage(&Answers::default(), &BTreeSet::new(), now_ms);
        let history = Box::new(self.state.fencing.history.clone());
        Reply::Fencing { coverage, pending: BTreeSet::new(), history }
    }

    fn revision(&self, version: u64) -> Reply {
        let found = self.state.revisions.iter().find(|r| r.version == version);
        Reply::Revision(found.map(|r| Box::new(r.as_ref().clone())))
    }

    fn lines(&self) -> Reply {
        match &self.divergence {
            Some(lines) => Reply::Divergence(Box::new(lines.clone())),
            None => {
                let why = "the cluster has not diverged".to_owned();
                Reply::Refused { why, remedy: String::new() }
            }
        }
    }

    fn merge(&mut self, (base, theirs): (u64, u64), cib: &Cib) -> Reply {
        self.merged = Some((base, theirs, cib.clone()));
        Reply::Said("delta gives up its line".to_owned())
    }

    fn device_says(&self) -> Reply {
        Reply::FenceAnswer(Answer {
            exit: Some(i32::from(self.device_fails.is_some())),
            stdout: String::new(),
            message: self.device_fails.clone().unwrap_or_default(),
        })
    }

    /// The picture that the daemon would give.
    pub(crate) fn picture(&self) -> StatusReply {
        let standby = |name: &str| {
            let node = self.state.cib.node(name);
            node.and_then(|n| n.attributes.flag("standby")).unwrap_or(false)
        };
        let alone = self.mode == Mode::Alone;
        let line = |name: &str| NodeLine {
            alive: !alone || name == "alpha",
            online: !alone || name == "alpha",
            standby: standby(name),
            address: format!("{name}:5406"),
            links: Vec::new(),
        };
        let mut plan = Plan::default();
        for primitive in self.state.cib.primitives() {
            let now: Vec<(String, Role)> = ["alpha", "delta"]
                .into_iter()
                .filter(|n| line(n).online)
                .filter_map(|n| {
                    let status = self.state.status.nodes.get(n)?;
                    let role = status.resources.get(&primitive.id)?.role?;
                    (role != Role::Stopped).then(|| (n.to_owned(), role))
                })
                .collect();
            let node = now.first().map(|(n, _)| n.clone());
            let instance = Instance { resource: primitive.id.clone(), number: 0 };
            plan.placements.push(Placement { instance, now, node, role: Role::Started });
        }
        StatusReply {
            me: "alpha".to_owned(),
            mode: self.mode,
            leader: (!alone).then(|| "delta".to_owned()),
            quorate: !alone,
            voters: BTreeSet::new(),
            votes: None,
            waiting: None,
            standing: String::new(),
            generations: Vec::new(),
            witnesses: BTreeMap::new(),
            version: "0.1.0".to_owned(),
            nodes: ["alpha", "delta"].into_iter().map(|n| (n.to_owned(), line(n))).collect(),
            state: self.state.clone(),
            plan,
            busy: false,
            now_ms: 1_544_450_001_000,
        }
    }
}

impl Daemon for Bed {
    fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        let author = "root@alpha".to_owned();
        let when_ms = 1_544_449_223_000;
        Ok(match request {
            Request::Status | Request::Watch => Reply::Status(Box::new(self.picture())),
            Request::Cib => {
                let cib = Box::new(self.state.cib.as_ref().clone());
                Reply::Cib { version: self.state.version, cib }
            }
            Request::Commit { base, cib, message } => {
                if let Some(command) = self.meanwhile.take() {
                    self.state.apply(command);
                }
                Reply::Outcome(self.state.apply(Command::CommitCib {
                    base: *base,
                    cib: cib.clone(),
                    author,
                    message: message.clone(),
                    when_ms,
                }))
            }
            Request::Edit { edits, message } => Reply::Outcome(self.state.apply(Command::Edit {
                edits: edits.clone(),
                author,
                message: message.clone(),
                when_ms,
            })),
            Request::Cleanup { resource, node } => Reply::Outcome(
                self.state
                    .apply(Command::Cleanup { resource: resource.clone(), node: node.clone() }),
            ),
            Request::WaitIdle { version, .. } => {
                Reply::Waited { idle: *version <= self.state.version }
            }
            Request::Revision { version } => self.revision(*version),
            Request::Volumes => Reply::Block(crm_proto::block::Reply::Status(Vec::new())),
            Request::Divergence => self.lines(),
            Request::Merge { base, theirs, cib, .. } => self.merge((*base, *theirs), cib),
            Request::Force { .. } => Reply::Said("forced".to_owned()),
            Request::Token { ttl_s } => Reply::Token(format!("token-for-{ttl_s}s")),
            Request::Block(_) if self.busy > 0 => {
                self.busy -= 1;
                let (code, why) = ("busy".to_owned(), "the volume is primary".to_owned());
                Reply::Block(crm_proto::block::Reply::Refused { code, why })
            }
            Request::Block(_) => Reply::Block(crm_proto::block::Reply::Ok),
            Request::Fence { request, .. } => {
                self.state.apply(Command::AskFencing { request: request.clone() });
                Reply::Waited { idle: false }
            }
            Request::Fencing => self.fencing(when_ms),
            Request::FenceCheck { .. } => self.device_says(),
            Request::Disarm { for_ms, reason } => {
                let disarmed = for_ms.map(|for_ms| Disarmed {
                    until_ms: when_ms + for_ms,
                    since_ms: when_ms,
                    by: author,
                    reason: reason.clone(),
                });
                Reply::Outcome(self.state.apply(Command::Disarm { disarmed }))
            }
            Request::SetAttr { .. }
            | Request::GetAttr { .. }
            | Request::RemoveNode { .. }
            | Request::CancelWait
            | Request::Leave
            | Request::Renew { .. }
            | Request::Relocate { .. } => {
                Reply::Refused { why: "not asked in tests".to_owned(), remedy: String::new() }
            }
        })
    }

    fn stream(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Reply) -> bool,
    ) -> Result<(), CallError> {
        let reply = self.call(request)?;
        each(reply);
        Ok(())
    }
}

/// A file that goes away by itself.
pub(crate) struct Scratch(std::path::PathBuf);

impl Scratch {
    /// A file of its own whose name ends in `name`.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = format!("crm-cli-test-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    /// Its path.
    pub(crate) fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// A configuration as text.
pub(crate) fn shown(cib: &Cib) -> String {
    crm_core::text::show(cib)
}
