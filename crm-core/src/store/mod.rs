//! The replicated store: commands in, state out. `apply` is a pure function; every node gets the same state.

mod level;
mod members;
mod quorum;
mod removed;
mod unfenced;

use crate::cib::{Cib, Volume};
use crate::fencing::{Action, History, Record};
use crate::status::{NodeStatus, OpResult, Pending, Status, Token};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use level::{Build, LEVEL};
pub use members::{Certificate, Departed, Disarmed};

/// Revisions of the CIB kept for `crm log` and for showing the difference of an outdated commit.
pub const REVISIONS_KEPT: usize = 64;

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// It votes and runs resources.
    #[default]
    Node,
    /// It votes only: it is no node of the configuration, runs nothing, is never fenced, and gives leadership away.
    Witness,
}

impl MemberRole {
    /// It votes only.
    #[must_use]
    pub const fn is_witness(&self) -> bool {
        matches!(self, Self::Witness)
    }

    /// The usual kind, which no file has to name.
    #[must_use]
    pub const fn is_node(&self) -> bool {
        matches!(self, Self::Node)
    }
}

/// A member of the cluster, by name in [`State::members`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Raft id; never reused (design/membership.md 2.3.6).
    pub raft_id: u64,
    /// `HOST:PORT` of the peer API.
    pub address: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "MemberRole::is_node")]
    pub role: MemberRole,
    /// `HOST:PORT` of each further link, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
}

impl Member {
    /// A member that votes and runs resources, with one link.
    #[must_use]
    pub const fn new(raft_id: u64, address: String) -> Self {
        Self { raft_id, address, role: MemberRole::Node, links: Vec::new() }
    }

    /// Its addresses, one for each link.
    pub fn addresses(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.address).chain(&self.links)
    }
}

/// Who holds the good data of a volume (ADR-0004): the authority for promotion.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Counts up with each change; a node refuses older ones.
    pub epoch: u64,
    /// Nodes whose replica has every acknowledged write.
    pub in_sync: BTreeSet<String>,
}

/// One committed revision of the CIB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// CIB version that it made.
    pub version: u64,
    /// Who.
    pub author: String,
    /// Which command, in words.
    pub message: String,
    /// Wall clock, milliseconds since the epoch.
    pub when_ms: u64,
    /// The CIB as of this version.
    pub cib: Arc<Cib>,
}

/// A small change of the CIB that needs no version check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// Sets (or removes) a permanent node attribute.
    NodeAttr {
        /// Node name.
        node: String,
        /// Attribute.
        name: String,
        /// Value; `None` removes it.
        value: Option<String>,
    },
    /// Sets (or removes) a meta attribute of a resource.
    Meta {
        /// Resource id.
        resource: String,
        /// Attribute.
        name: String,
        /// Value; `None` removes it.
        value: Option<String>,
    },
    /// Adds a volume.
    AddVolume(Volume),
}

/// A command of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First command of a cluster's life.
    Found {
        /// Cluster name.
        name: String,
        /// Cluster uuid.
        uuid: String,
    },
    /// Adds or changes a member; makes its node entry in the CIB when new.
    SetMember {
        /// Node name.
        name: String,
        /// The member.
        member: Member,
    },
    /// Removes a member for good: its entries go, its raft id and its certificate are never good again. Raft's own membership follows.
    RemoveMember {
        /// Node name.
        name: String,
        /// Its raft id; stale when it has joined anew meanwhile.
        raft_id: u64,
        /// What it was last known to run does not count.
        force: bool,
        /// Who.
        by: String,
        /// Wall clock of the proposer, milliseconds.
        when_ms: u64,
    },
    /// A member tells at which addresses the others reach it from now on. Raft's own membership follows.
    SetAddresses {
        /// Node name.
        name: String,
        /// Its raft id.
        raft_id: u64,
        /// `HOST:PORT` of its first link.
        address: String,
        /// `HOST:PORT` of each further one.
        links: Vec<String>,
    },
    /// A member tells which certificate it uses; the one it told before is revoked.
    Certificate {
        /// Node name.
        node: String,
        /// Its raft id.
        raft_id: u64,
        /// What it tells.
        certificate: Certificate,
    },
    /// A member tells which build it runs.
    Build {
        /// Node name.
        node: String,
        /// Its raft id.
        raft_id: u64,
        /// What it tells.
        build: Build,
    },
    /// What the next version knows and this one does not: for the test of a rolling upgrade.
    #[cfg(feature = "pretend-next")]
    Mark {
        /// Kept in [`State::mark`].
        text: String,
    },
    /// Disarms the cluster for a time, or arms it again.
    Disarm {
        /// `None`: armed again.
        disarmed: Option<Disarmed>,
    },
    /// Replaces the CIB if its version is still `base`.
    CommitCib {
        /// Version that the change was made from.
        base: u64,
        /// The whole new CIB.
        cib: Box<Cib>,
        /// Who.
        author: String,
        /// Which command.
        message: String,
        /// Wall clock of the proposer, milliseconds.
        when_ms: u64,
    },
    /// Edits the CIB in place.
    Edit {
        /// The edits, applied all or none.
        edits: Vec<Edit>,
        /// Who.
        author: String,
        /// Which command.
        message: String,
        /// Wall clock of the proposer, milliseconds.
        when_ms: u64,
    },
    /// A node publishes its whole status for a (new) session.
    SyncNode {
        /// Node name.
        node: String,
        /// Its status; `status.session` is the session.
        status: Box<NodeStatus>,
    },
    /// A node is lost and may be taken to run nothing: what it reported in that session is void.
    NodeGone {
        /// Node name.
        node: String,
        /// The session that ended.
        session: u64,
    },
    /// A node reports the result of an operation.
    OpDone {
        /// Node name.
        node: String,
        /// Session of that node.
        session: u64,
        /// Counts the reports of this session: a repeated one is dropped.
        seq: u64,
        /// The order it answers, if it answers one.
        token: Option<Token>,
        /// The result.
        result: Box<OpResult>,
    },
    /// A node is about to begin a live migration. Nothing of it happens before this is in the log: whoever loses sight of the node has
    /// to know where else the resource may run.
    MigrationBegins {
        /// Node name: the source.
        node: String,
        /// Session of that node.
        session: u64,
        /// Primitive id.
        resource: String,
        /// Node name: the target.
        target: String,
    },
    /// A node sets (or removes) transient attributes.
    SetAttrs {
        /// Node name.
        node: String,
        /// Session of that node; `None` = from an operator, always applied.
        session: Option<u64>,
        /// Name and value; `None` removes.
        attrs: Vec<(String, Option<String>)>,
    },
    /// Forgets recurring monitors that were cancelled.
    MonitorCancelled {
        /// Node name.
        node: String,
        /// Session of that node.
        session: u64,
        /// Counts the reports of this session.
        seq: u64,
        /// The order it answers.
        token: Token,
        /// Primitive id.
        resource: String,
        /// Interval.
        interval_ms: u64,
    },
    /// Forgets failures and history so that the resource is probed again; `None` = all.
    Cleanup {
        /// Primitive id.
        resource: Option<String>,
        /// Node name.
        node: Option<String>,
    },
    /// Changes who holds the good data of a volume; refused unless `epoch` is the current one plus one or more.
    VolumeInSync {
        /// Volume name.
        volume: String,
        /// New epoch.
        epoch: u64,
        /// New set.
        in_sync: BTreeSet<String>,
    },
    /// A person wants a node fenced, or says that it is off: the leader sees to it.
    AskFencing {
        /// What.
        request: FenceRequest,
    },
    /// Fencing has ended.
    Fenced {
        /// With what.
        record: Box<Record>,
        /// Requests of people that it answers.
        requests: Vec<u64>,
    },
    /// A node has been a member without interruption long enough ([`crate::fencing::HEALTHY_AFTER_MS`]).
    NodeHealthy {
        /// Node name.
        node: String,
        /// When, milliseconds since the epoch.
        when_ms: u64,
    },
}

/// A person wants a node fenced, or says that it is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRequest {
    /// The node.
    pub target: String,
    /// What is to be done; `None`: `stonith-action`.
    pub action: Option<Action>,
    /// Who asks.
    pub by: String,
    /// Nothing is done: the person says that the node is off.
    pub confirm: bool,
}

/// Fencing as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fencing {
    /// What came of requests.
    pub history: History,
    /// Requests of people that have not ended.
    pub requests: BTreeMap<u64, FenceRequest>,
    /// Number of the last request.
    pub last: u64,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; the CIB version afterwards.
    Done {
        /// CIB version.
        version: u64,
    },
    /// Refused: the CIB has moved on.
    Outdated {
        /// Current version.
        version: u64,
    },
    /// Refused, with the reason.
    Refused {
        /// Why, one clause.
        why: String,
    },
    /// Of an older session or epoch; ignored.
    Stale,
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Cluster name.
    pub cluster_name: String,
    /// Cluster uuid.
    pub cluster_uuid: String,
    /// Members by node name.
    pub members: BTreeMap<String, Member>,
    /// What is wanted. Shared with its revision and with the copies of the state that are made with every batch of commands.
    pub cib: Arc<Cib>,
    /// Version of the CIB; counts up with each change.
    pub version: u64,
    /// What is seen.
    pub status: Status,
    /// Authority over volumes, by name.
    pub volumes: BTreeMap<String, VolumeRecord>,
    /// Fencing: what came of it, and what people have asked for.
    #[serde(default)]
    pub fencing: Fencing,
    /// Nodes that were removed, by raft id.
    #[serde(default)]
    pub departed: BTreeMap<u64, Departed>,
    /// The members' certificates, by node name, as far as they have told them.
    #[serde(default)]
    pub certificates: BTreeMap<String, Certificate>,
    /// Fingerprints of certificates that were replaced: whoever shows one is refused.
    #[serde(default)]
    pub revoked: BTreeSet<String>,
    /// The members' builds, by node name, as far as they have told them.
    #[serde(default)]
    pub builds: BTreeMap<String, Build>,
    /// The cluster's feature level, zero before anybody has told ([`State::feature_level`]).
    #[serde(default)]
    pub(crate) level: u32,
    /// [`Command::Mark`].
    #[cfg(feature = "pretend-next")]
    #[serde(default)]
    pub mark: Option<String>,
    /// The cluster was disarmed; over when its time is ([`State::disarmed_at`]).
    #[serde(default)]
    pub disarmed: Option<Disarmed>,
    /// Last revisions, oldest first. Shared for the same reason.
    pub revisions: Vec<Arc<Revision>>,
}

impl State {
    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Outcome {
        match command {
            Command::Found { name, uuid } => self.found(name, uuid),
            Command::SetMember { name, member } => self.set_member(&name, member),
            Command::RemoveMember { name, raft_id, force, by, when_ms } => {
                self.remove_member(&name, raft_id, force, (by, when_ms))
            }
            Command::SetAddresses { name, raft_id, address, links } => {
                self.set_addresses(&name, raft_id, address, links)
            }
            Command::Certificate { node, raft_id, certificate } => {
                self.certificate(&node, raft_id, certificate)
            }
            Command::Build { node, raft_id, build } => self.build(&node, raft_id, build),
            #[cfg(feature = "pretend-next")]
            Command::Mark { text } => self.mark(text),
            Command::Disarm { disarmed } => {
                self.disarmed = disarmed;
                self.done()
            }
            Command::CommitCib { base, cib, author, message, when_ms } => {
                if base != self.version {
                    return Outcome::Outdated { version: self.version };
                }
                // What was taken once may be changed: only the change that takes the fence away is refused.
                let unfenced =
                    || cib.unfenced_storage().filter(|_| self.cib.unfenced_storage().is_none());
                if let Some(why) = self.other_agent(&cib).or_else(unfenced) {
                    return Outcome::Refused { why };
                }
                self.adopt(*cib, author, message, when_ms)
            }
            Command::Edit { edits, author, message, when_ms } => {
                self.edit(&edits, author, message, when_ms)
            }
            Command::SyncNode { node, status } => {
                self.status.replace(&node, *status);
                self.done()
            }
            Command::NodeGone { node, session } => self.node_gone(&node, session),
            Command::OpDone { node, session, seq, token, result } => {
                let outcome =
                    self.report(&node, session, seq, |status| status.take_result(token, &result));
                if outcome == self.done() && result.op == "stop" && !result.failed() {
                    self.status.arrived_in_vain(&node, &result.resource);
                }
                outcome
            }
            Command::MigrationBegins { node, session, resource, target } => {
                self.migration_begins(&node, session, resource, target)
            }
            Command::SetAttrs { node, session, attrs } => self.set_attrs(&node, session, attrs),
            Command::MonitorCancelled { node, session, seq, token, resource, interval_ms } => self
                .report(&node, session, seq, |status| {
                    status.forget_monitor(token, &resource, interval_ms);
                }),
            Command::Cleanup { resource, node } => {
                self.cleanup(resource.as_deref(), node.as_deref());
                self.done()
            }
            Command::VolumeInSync { volume, epoch, in_sync } => {
                self.volume_in_sync(volume, VolumeRecord { epoch, in_sync })
            }
            Command::AskFencing { request } => self.ask_fencing(request),
            Command::Fenced { record, requests } => self.fenced(*record, &requests),
            Command::NodeHealthy { node, when_ms } => {
                self.fencing.history.healthy(&node, when_ms);
                self.done()
            }
        }
    }

    fn found(&mut self, name: String, uuid: String) -> Outcome {
        if !self.cluster_uuid.is_empty() {
            return Outcome::Refused { why: "the cluster exists already".to_owned() };
        }
        self.cluster_name = name;
        self.cluster_uuid = uuid;
        self.done()
    }

    fn node_gone(&mut self, node: &str, session: u64) -> Outcome {
        match self.status.nodes.get(node) {
            Some(status) if status.session == session => {
                self.status.replace(node, NodeStatus::default());
                self.done()
            }
            _ => Outcome::Stale,
        }
    }

    fn volume_in_sync(&mut self, volume: String, with: VolumeRecord) -> Outcome {
        let record = self.volumes.entry(volume).or_default();
        if with.epoch <= record.epoch {
            return Outcome::Stale;
        }
        *record = with;
        self.done()
    }

    fn ask_fencing(&mut self, request: FenceRequest) -> Outcome {
        if let Err(why) = self.may_fence(&request.target) {
            return Outcome::Refused { why };
        }
        self.fencing.last += 1;
        self.fencing.requests.insert(self.fencing.last, request);
        self.done()
    }

    fn fenced(&mut self, record: Record, requests: &[u64]) -> Outcome {
        for id in requests {
            self.fencing.requests.remove(id);
        }
        if !self.fencing.history.records().any(|known| *known == record) {
            self.fencing.history.push(record);
        }
        self.done()
    }

    const fn done(&self) -> Outcome {
        Outcome::Done { version: self.version }
    }

    fn set_member(&mut self, name: &str, member: Member) -> Outcome {
        if self.departed.contains_key(&member.raft_id) {
            let why = format!("raft id {} was removed: {name} has to join anew", member.raft_id);
            return Outcome::Refused { why };
        }
        let witness = member.role.is_witness();
        if witness && self.cib.node(name).is_some() {
            let why = format!(
                "`{name}` is a node of the configuration: a witness is none; take the node out first (`crm cluster remove {name}`)"
            );
            return Outcome::Refused { why };
        }
        self.members.insert(name.to_owned(), member);
        if !witness && self.cib.node(name).is_none() {
            let mut cib = Cib::clone(&self.cib);
            // Numbered as they join, as Corosync's nodeids usually are; raft ids are log indexes and grow.
            let id = cib.nodes.iter().map(|n| n.id).max().unwrap_or(0) + 1;
            cib.nodes.push(crate::cib::Node {
                id,
                name: name.to_owned(),
                attributes: crate::cib::NvSet::default(),
                utilization: crate::cib::NvSet::default(),
            });
            return self.adopt(cib, "cluster".to_owned(), format!("node {name} joined"), 0);
        }
        self.done()
    }

    fn adopt(&mut self, cib: Cib, author: String, message: String, when_ms: u64) -> Outcome {
        for volume in &cib.volumes {
            self.volumes.entry(volume.name.clone()).or_insert_with(|| VolumeRecord {
                epoch: 1,
                in_sync: if volume.assume_clean {
                    volume.replicas.iter().map(|r| r.node.clone()).collect()
                } else {
                    volume.replicas.iter().take(1).map(|r| r.node.clone()).collect()
                },
            });
        }
        self.volumes.retain(|name, _| cib.volume(name).is_some());
        self.forget_removed();
        self.version += 1;
        let cib = Arc::new(cib);
        self.cib = Arc::clone(&cib);
        let version = self.version;
        self.revisions.push(Arc::new(Revision { version, author, message, when_ms, cib }));
        if self.revisions.len() > REVISIONS_KEPT {
            self.revisions.remove(0);
        }
        self.done()
    }

    fn edit(&mut self, edits: &[Edit], author: String, message: String, when_ms: u64) -> Outcome {
        let mut cib = Cib::clone(&self.cib);
        for edit in edits {
            if let Err(why) = apply_edit(&mut cib, edit) {
                return Outcome::Refused { why };
            }
        }
        if cib == *self.cib {
            return self.done();
        }
        self.adopt(cib, author, message, when_ms)
    }

    fn report(
        &mut self,
        node: &str,
        session: u64,
        seq: u64,
        act: impl FnOnce(&mut NodeStatus),
    ) -> Outcome {
        match self.status.nodes.get_mut(node) {
            Some(status) if status.session == session && status.last_seq < seq => {
                status.last_seq = seq;
                act(status);
            }
            _ => return Outcome::Stale,
        }
        self.done()
    }

    fn migration_begins(
        &mut self,
        node: &str,
        session: u64,
        resource: String,
        target: String,
    ) -> Outcome {
        match self.status.nodes.get_mut(node) {
            Some(status) if status.session == session => {
                let history = status.resources.entry(resource).or_default();
                history.migrated_to = Some(target);
                history.pending = Some(Pending { op: "migrate_to".to_owned(), interval_ms: 0 });
                self.done()
            }
            _ => Outcome::Stale,
        }
    }

    fn set_attrs(
        &mut self,
        node: &str,
        session: Option<u64>,
        attrs: Vec<(String, Option<String>)>,
    ) -> Outcome {
        let status = match session {
            Some(session) => match self.status.nodes.get_mut(node) {
                Some(status) if status.session == session => status,
                _ => return Outcome::Stale,
            },
            None => self.status.nodes.entry(node.to_owned()).or_default(),
        };
        for (name, value) in attrs {
            match value {
                Some(value) => status.attrs.insert(name, value),
                None => status.attrs.remove(&name),
            };
        }
        self.done()
    }

    fn cleanup(&mut self, resource: Option<&str>, node: Option<&str>) {
        let mut forgotten = Vec::new();
        for (name, status) in &mut self.status.nodes {
            if node.is_some_and(|n| n != name) {
                continue;
            }
            let cleaned = |id: &String, history: &crate::status::ResourceHistory| {
                // A live migration under way is no history yet.
                history.pending.is_none()
                    && resource.is_none_or(|r| r == id)
                    && (resource.is_some() || history.failure.is_some() || history.fail_count > 0)
            };
            forgotten.extend(status.resources.extract_if(.., |id, history| cleaned(id, history)));
        }
        for (id, history) in forgotten {
            self.status.look_again(&id, &history);
        }
    }
}

fn apply_edit(cib: &mut Cib, edit: &Edit) -> Result<(), String> {
    let put = |set: &mut crate::cib::NvSet, name: &str, value: &Option<String>| match value {
        Some(value) => set.set(name, value),
        None => {
            set.unset(name);
        }
    };
    match edit {
        Edit::NodeAttr { node, name, value } => {
            let node = cib.node_mut(node).ok_or_else(|| format!("no node called `{node}`"))?;
            put(&mut node.attributes, name, value);
        }
        Edit::Meta { resource, name, value } => {
            if let Some(found) = cib.resource_mut(resource) {
                put(found.meta_mut(), name, value);
            } else if let Some(primitive) = cib.primitive_mut(resource) {
                put(&mut primitive.meta, name, value);
            } else {
                return Err(format!("no resource called `{resource}`"));
            }
        }
        Edit::AddVolume(volume) => {
            if cib.volume(&volume.name).is_some() {
                return Err(format!("volume `{}` exists already", volume.name));
            }
            cib.volumes.push(volume.clone());
        }
    }
    Ok(())
}
