//! The dense form a plan is made on: nodes and resources by index, names only at the border.

use super::scores::Scores;
use super::{Habit, Habits, Pacemaker, Reason, ScorePhase, ScoreRow};
use crate::cib::{AgentName, Cib, NvSet, Primitive, Role, Score};
use crate::status::Status;
use std::collections::{BTreeMap, BTreeSet};

/// Index of a node; nodes are in natural order of their names.
pub(super) type NodeIx = usize;
/// Index of a resource; parents come before their children.
pub(super) type RscIx = usize;
/// Index of a colocation.
pub(super) type ColocIx = usize;

/// What a node is, seen from the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A member that runs the cluster.
    Cluster,
    /// Reached over a connection that is itself a resource on a member.
    Remote {
        /// That resource.
        connection: RscIx,
    },
    /// The same, and the node itself lives in a resource: a virtual machine, a bundle's container.
    Guest {
        /// The connection.
        connection: RscIx,
        /// What the node lives in.
        container: RscIx,
    },
}

impl NodeKind {
    /// The connection of a node that is no member.
    pub(super) const fn connection(self) -> Option<RscIx> {
        match self {
            Self::Cluster => None,
            Self::Remote { connection } | Self::Guest { connection, .. } => Some(connection),
        }
    }

    /// What a guest lives in.
    pub(super) const fn container(self) -> Option<RscIx> {
        match self {
            Self::Guest { container, .. } => Some(container),
            Self::Cluster | Self::Remote { .. } => None,
        }
    }
}

/// What the histories told of a primitive.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact")]
pub(super) struct Now<'a> {
    /// The highest role it has anywhere; `None` = nothing is known.
    pub(super) role: Option<Role>,
    /// It has to be recovered.
    pub(super) failed: bool,
    /// It must not be touched.
    pub(super) held: bool,
    /// Its failure asks for a demote, no more.
    pub(super) demote_only: bool,
    /// A failure was ignored (`on-fail=ignore`).
    pub(super) failures_ignored: bool,
    /// The role it is to have at most, because of a failure.
    pub(super) preset: Option<Role>,
    /// The name its history is kept under, where that is not its own.
    pub(super) history: Option<String>,
    /// A start is under way.
    pub(super) start_pending: bool,
    /// An operation that is under way, and where.
    pub(super) pending: Option<(String, NodeIx)>,
    /// Nodes where it has to be stopped in any case.
    pub(super) stops: Vec<NodeIx>,
    /// Recurring operations: node, name, interval.
    pub(super) recurring: Vec<(NodeIx, String, u64)>,
    /// Nodes where it was run by another agent than the configured one.
    pub(super) replaced: Vec<NodeIx>,
    /// Entries of theirs whose failure has expired (by id): they are begun again.
    pub(super) again: Vec<(NodeIx, &'a str)>,
    /// The records it was read from, oldest first, with the last start and the last stop in them.
    pub(super) records: Vec<super::told::Told<'a>>,
    /// Nodes where it was found active when it was out of our hands already.
    pub(super) loose: Vec<NodeIx>,
    /// Nodes where members of a collection were found active, in the order in which they were.
    pub(super) places: Vec<NodeIx>,
    /// Nodes where its state is known.
    pub(super) known: BTreeSet<NodeIx>,
    /// It stays on this node, which was shut down (`shutdown-lock`).
    pub(super) lock: Option<NodeIx>,
    /// A migration whose first half is done: from, to.
    pub(super) partial: Option<(NodeIx, NodeIx)>,
    /// Nodes that it has left by a migration without being stopped there.
    pub(super) dangling: Vec<NodeIx>,
    /// A migration failed: it has to be stopped and started.
    pub(super) no_migration: bool,
}

/// A node as the engine sees it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) id: u64,
    pub(super) kind: NodeKind,
    pub(super) online: bool,
    pub(super) clean: bool,
    pub(super) pending: bool,
    pub(super) standby: bool,
    pub(super) maintenance: bool,
    /// Its cluster services are about to end.
    pub(super) leaving: bool,
    /// It has to be fenced, and why. (For a guest: only what follows from its container's recovery.)
    pub(super) fence: Option<String>,
    /// Nobody has told anything about it since the cluster began.
    pub(super) unseen: bool,
    /// A remote or guest node whose state is only known again after fencing (a guest: after its container was recovered).
    pub(super) reset: bool,
    /// A remote node that was fenced since it was last connected.
    pub(super) was_fenced: bool,
    /// What runs there is looked for.
    pub(super) discovery: bool,
    /// Its history has been read.
    pub(super) read: bool,
    pub(super) permanent: Option<&'a NvSet>,
    pub(super) capacity: Option<&'a NvSet>,
    pub(super) transient: Option<&'a BTreeMap<String, String>>,
    /// Primitives placed here so far in this plan.
    pub(super) load: u32,
}

impl Node<'_> {
    /// May get resources.
    pub(super) fn available(&self) -> bool {
        self.online
            && self.clean
            && !self.pending
            && !self.standby
            && !self.leaving
            && !self.maintenance
            && self.fence.is_none()
    }

    /// Changed definitions matter there; what is going to leave a node anyway need not be compared.
    pub(super) fn looked_at(&self) -> bool {
        self.maintenance || self.available()
    }

    /// Value of a node attribute, transient before permanent; `#uname` is the name.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        if name == "#uname" {
            return Some(self.name);
        }
        let transient = self.transient.and_then(|t| t.get(name)).map(String::as_str);
        transient.or_else(|| self.permanent.and_then(|p| p.get(name)))
    }
}

/// Settings of a clone.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct CloneInfo {
    pub(super) promotable: bool,
    pub(super) max: usize,
    pub(super) node_max: usize,
    /// Instances that must run before what is ordered after the clone may start; 0 = all.
    pub(super) min: u32,
    pub(super) promoted_max: usize,
    pub(super) promoted_node_max: usize,
    pub(super) interleave: bool,
    pub(super) ordered: bool,
    pub(super) notify: bool,
    pub(super) globally_unique: bool,
}

/// What kind of resource it is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Primitive,
    Group { ordered: bool, colocated: bool },
    Clone(CloneInfo),
}

/// What to do when a primitive is found active on several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MultipleActive {
    StopStart,
    StopOnly,
    /// Stop it where it is not to be, and leave it alone where it is.
    StopUnexpected,
    Block,
}

/// Resolved meta attributes.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct Meta {
    /// What it lives in.
    pub(super) container: Option<String>,
    pub(super) priority: i32,
    pub(super) target_role: Option<Role>,
    pub(super) is_managed: bool,
    pub(super) maintenance: bool,
    pub(super) stickiness: Score,
    /// 0 = never.
    pub(super) migration_threshold: u32,
    pub(super) failure_timeout_ms: u64,
    pub(super) multiple_active: MultipleActive,
    pub(super) critical: bool,
    pub(super) allow_migrate: bool,
    pub(super) allow_unhealthy: bool,
    pub(super) needs_fencing: bool,
    /// Its node must have been unfenced.
    pub(super) needs_unfencing: bool,
    pub(super) needs_quorum: bool,
}

/// State of a primitive on a node after reading its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct Seen {
    pub(super) node: NodeIx,
    pub(super) role: Role,
    /// Its last operation failed: recover it.
    pub(super) failed: bool,
    /// It must not be touched (failed stop, `on-fail=block`, unclean node).
    pub(super) blocked: bool,
    /// Runs with parameters other than the configured ones.
    pub(super) changed: bool,
    /// The same, and the agent can take them without a restart.
    pub(super) reload: bool,
    /// Its demote failed: it is promoted or not, only a stop tells.
    pub(super) demote_failed: bool,
    /// A probe found it; nothing was done to it since.
    pub(super) found: bool,
    /// `on-fail=demote`: it goes on unpromoted.
    pub(super) demote_only: bool,
    /// `on-fail=stop`: stays down.
    pub(super) halt: bool,
}

impl Seen {
    /// Active, and nothing else is to be said.
    pub(super) const fn plain(node: NodeIx, role: Role, failed: bool) -> Self {
        Self {
            node,
            role,
            failed,
            blocked: false,
            changed: false,
            reload: false,
            demote_failed: false,
            demote_only: false,
            found: false,
            halt: false,
        }
    }
}

/// A resource: primitive, group, clone, or an instance of what a clone holds.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct Rsc<'a> {
    pub(super) id: &'a str,
    /// Instance number in the clone it belongs to.
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) parent: Option<RscIx>,
    pub(super) children: Vec<RscIx>,
    /// The clone it is inside of.
    pub(super) clone: Option<RscIx>,
    pub(super) prim: Option<&'a Primitive>,
    pub(super) agent: Option<&'a AgentName>,
    /// What a clone is a clone of.
    pub(super) cloned: Option<&'a str>,
    /// Not configured any more.
    pub(super) removed: bool,
    /// Its ticket is lost, and it is to stay as it is.
    pub(super) frozen: bool,
    /// Its ticket does not allow any promotion.
    pub(super) no_promotion: bool,
    /// What the histories told.
    pub(super) now: Now<'a>,
    /// It is the connection to this node.
    pub(super) connection_of: Option<NodeIx>,
    /// It lives inside this resource (`container`): a guest's or bundle's connection in what the node lives in.
    pub(super) container: Option<RscIx>,
    /// What lives inside it.
    pub(super) fillers: Vec<RscIx>,
    /// May itself live on a remote node though a node lives in it (bundles).
    pub(super) nests: bool,
    /// `reconnect_interval` of a connection.
    pub(super) reconnect_ms: u64,
    pub(super) meta: Meta,
    /// What makes it a bundle.
    pub(super) bundle: Option<BundleIx>,
    /// Where it is active (primitives).
    pub(super) active: Vec<Seen>,
    /// More instances are active than configured: this one must go.
    pub(super) surplus: bool,
    /// Preference by node.
    pub(super) scores: Scores,
    /// Nodes that location constraints with `resource-discovery=never` exclude from probes.
    pub(super) no_probe: BTreeSet<NodeIx>,
    /// Location preferences for the promoted role.
    pub(super) promoted_scores: Vec<(NodeIx, Score)>,
    /// Locations of a group, for members that follow others on their own.
    pub(super) located: Vec<(NodeIx, Score)>,
    /// In a cluster where nothing is allowed by itself: the nodes that something allows. Empty = all.
    pub(super) opted_in: Vec<bool>,
    /// Priority among its like: of an instance also its promotion score.
    pub(super) rank: Score,
    /// What decides who is promoted first.
    pub(super) promotion: Score,
    /// Score of the node it is placed on, when it was placed.
    pub(super) assigned_score: Score,
    /// Placement is decided.
    pub(super) done: bool,
    pub(super) assigning: bool,
    pub(super) merging: bool,
    pub(super) assigned: Option<NodeIx>,
    pub(super) next_role: Role,
}

impl Rsc<'_> {
    /// The node it is active on, when that is exactly one.
    pub(super) fn sole_active(&self) -> Option<&Seen> {
        match self.active.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Must stay as it is, wherever it is.
    pub(super) fn blocked(&self) -> bool {
        self.now.held || self.active.iter().any(|a| a.blocked)
    }

    pub(super) const fn clone_info(&self) -> Option<&CloneInfo> {
        match &self.kind {
            Kind::Clone(info) => Some(info),
            Kind::Primitive | Kind::Group { .. } => None,
        }
    }

    pub(super) const fn promotable(&self) -> bool {
        match &self.kind {
            Kind::Clone(info) => info.promotable,
            Kind::Primitive | Kind::Group { .. } => false,
        }
    }
}

/// A container of a bundle with what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplicaIx {
    pub(super) container: RscIx,
    pub(super) ip: Option<RscIx>,
    pub(super) connection: Option<RscIx>,
    /// The node inside.
    pub(super) node: Option<NodeIx>,
    /// The instance that runs there.
    pub(super) child: Option<RscIx>,
}

/// A bundle: a collection whose instances are containers.
#[derive(Debug)]
pub(super) struct BundleIx {
    pub(super) replicas: Vec<ReplicaIx>,
    /// The clone of what runs inside.
    pub(super) child: Option<RscIx>,
    /// What is inside has the attributes of the node outside.
    pub(super) on_host: bool,
    /// Its `notify`.
    pub(super) told: bool,
}

/// A colocation between two resources, sets already expanded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coloc<'a> {
    pub(super) id: &'a str,
    pub(super) score: Score,
    pub(super) dependent: RscIx,
    pub(super) dependent_role: Option<Role>,
    pub(super) primary: RscIx,
    pub(super) primary_role: Option<Role>,
    pub(super) attribute: &'a str,
    /// Made by a group between its members.
    pub(super) internal: bool,
    /// The dependent's preferences count for the primary even while that is active.
    pub(super) influence: bool,
}

/// `no-quorum-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoQuorum {
    Stop,
    Ignore,
    Freeze,
    Demote,
    Suicide,
}

/// `placement-strategy`: do capacities count?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// No.
    Default,
    /// A node takes only what fits.
    Utilization,
    /// The same, and as few nodes as possible are used.
    Minimal,
    /// The same, and the emptiest node is taken first.
    Balanced,
}

/// Cluster properties the engine reads.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the configuration"
)]
pub(super) struct Properties {
    pub(super) symmetric: bool,
    pub(super) maintenance_mode: bool,
    pub(super) stop_all: bool,
    pub(super) no_quorum: NoQuorum,
    pub(super) start_failure_is_fatal: bool,
    pub(super) fencing: bool,
    pub(super) strategy: Strategy,
    /// There is something to fence with.
    pub(super) fence_device: bool,
    /// Decide as Pacemaker does.
    pub(super) exact: bool,
    /// What an old release decided otherwise.
    pub(super) habits: Habits,
    pub(super) stop_removed: bool,
    /// `shutdown-lock`: how long (0 = for ever), if at all.
    pub(super) shutdown_lock_ms: Option<u64>,
    /// Some fence device gives nodes their access back.
    pub(super) unfencing: bool,
    /// What is not known is looked for (`enable-startup-probes`).
    pub(super) startup_probes: bool,
    /// Several nodes are fenced at the same time.
    pub(super) concurrent: bool,
    /// What fencing does to a node.
    pub(super) fence_how: &'static str,
}

/// Everything a plan is made on.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) cib: &'a Cib,
    pub(super) status: &'a Status,
    pub(super) quorate: bool,
    /// Decide as Pacemaker does.
    pub(super) pacemaker: Option<Pacemaker<'a>>,
    pub(super) props: Properties,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) rscs: Vec<Rsc<'a>>,
    /// Top-level resources in document order.
    pub(super) tops: Vec<RscIx>,
    /// First resource with a CIB id (instance 0 inside clones).
    pub(super) by_id: BTreeMap<&'a str, RscIx>,
    /// All instances of a primitive, by CIB id.
    pub(super) instances: BTreeMap<&'a str, Vec<RscIx>>,
    pub(super) colocs: Vec<Coloc<'a>>,
    /// Explicit colocations by dependent.
    pub(super) this_with: Vec<Vec<ColocIx>>,
    /// Explicit colocations by primary.
    pub(super) with_this: Vec<Vec<ColocIx>>,
    /// Primitives (CIB id) whose state on an online node is not known yet.
    pub(super) probes: Vec<(RscIx, NodeIx)>,
    /// Who must not run where (`None`: anywhere), because of failures.
    pub(super) bans: Vec<(RscIx, Option<NodeIx>)>,
    /// Histories to be forgotten.
    pub(super) forgets: Vec<(RscIx, NodeIx)>,
    /// Failures to be forgotten.
    pub(super) clears: Vec<(RscIx, NodeIx)>,
    /// Failures counted, by node.
    pub(super) failures: Vec<super::told::Failures>,
    /// What the nodes have left of each capacity, when capacities count.
    pub(super) free: Vec<BTreeMap<&'a str, i64>>,
    pub(super) reasons: Vec<Reason>,
    /// Nodes that live and have to be fenced, and why.
    pub(super) fences: BTreeMap<&'a str, String>,
    /// Scores as they were when something was placed; only when they are asked for.
    pub(super) trace: Option<Vec<ScoreRow>>,
    /// What dependents say, kept while it holds.
    pub(super) voices: super::voice::Voices,
    /// Steps along colocations that are left: beyond that, what is far away is not heard.
    pub(super) patience: u64,
}

impl<'a> Model<'a> {
    /// Leaves a reason.
    pub(super) fn because(
        &mut self,
        rsc: RscIx,
        node: Option<NodeIx>,
        code: &'static str,
        text: String,
    ) -> &mut Reason {
        let node = node.map(|n| self.nodes[n].name.to_owned());
        let resource = self.rscs[rsc].id.to_owned();
        let code = code.to_owned();
        self.reasons.push(Reason { resource, node, code, text, score: None, by: None });
        let last = self.reasons.len() - 1;
        &mut self.reasons[last]
    }

    /// Notes what `rsc` and all below it think of the nodes now.
    pub(super) fn note_scores(&mut self, phase: ScorePhase, rsc: RscIx) {
        let Some(mut trace) = self.trace.take() else { return };
        let mut work = vec![rsc];
        while let Some(r) = work.pop() {
            let (label, rsc) = (self.label(r), &self.rscs[r]);
            if phase != ScorePhase::Primitive {
                work.extend(rsc.children.iter().rev());
            }
            if rsc.removed || rsc.surplus {
                continue;
            }
            for (n, (node, score)) in self.nodes.iter().zip(rsc.scores.iter()).enumerate() {
                if rsc.opted_in.get(n) == Some(&false) {
                    continue;
                }
                let (resource, node) = (label.clone(), node.name.to_owned());
                trace.push(ScoreRow { phase, resource, node, score: *score });
            }
        }
        self.trace = Some(trace);
    }

    /// Notes how much an instance should be promoted where it is to be; what is to be nowhere has no node.
    pub(super) fn note_promotion(&mut self, instance: RscIx, node: Option<NodeIx>, score: Score) {
        let resource = self.label(instance);
        let node = node.map_or_else(String::new, |n| self.nodes[n].name.to_owned());
        if let Some(trace) = &mut self.trace {
            trace.push(ScoreRow { phase: ScorePhase::Promotion, resource, node, score });
        }
    }

    /// Primitives at or below `rsc`, in order.
    pub(super) fn leaves(&self, rsc: RscIx) -> Vec<RscIx> {
        let mut out = Vec::new();
        let mut stack = vec![rsc];
        while let Some(r) = stack.pop() {
            if matches!(self.rscs[r].kind, Kind::Primitive) {
                out.push(r);
            } else {
                stack.extend(self.rscs[r].children.iter().rev());
            }
        }
        out
    }

    /// The resource that contains `rsc` at the top; what a bundle consists of stands for itself.
    pub(super) fn top(&self, rsc: RscIx) -> RscIx {
        let mut at = rsc;
        while let Some(parent) = self.rscs[at].parent.filter(|p| self.rscs[*p].bundle.is_none()) {
            at = parent;
        }
        at
    }

    /// What a constraint about `id` is about: a cloned resource's constraint is its clone's. `None`: it is not applied (`criteria` leaves a reason).
    pub(super) fn constrained(&self, id: &str) -> Option<RscIx> {
        let r = *self.by_id.get(id)?;
        let Some(clone) = self.rscs[r].clone else { return Some(r) };
        // Instances have names of their own: Pacemaker knows the bare one only from the histories of those that are alike.
        let recorded = |r: &RscIx| {
            let rsc = &self.rscs[*r];
            rsc.clone == Some(clone) && rsc.id == id && rsc.now.records.iter().any(|t| t.id == id)
        };
        let known = || self.leaves(clone).iter().any(recorded);
        (!self.props.exact || known()).then_some(clone)
    }

    /// Name with the instance number, as status prints it.
    pub(super) fn label(&self, rsc: RscIx) -> String {
        let r = &self.rscs[rsc];
        if r.clone.is_some() { format!("{}:{}", r.id, r.number) } else { r.id.to_owned() }
    }

    /// Name of the history: instances of globally unique clones have their own.
    pub(super) fn key(&self, rsc: RscIx) -> String {
        let r = &self.rscs[rsc];
        let info = r.clone.and_then(|c| self.rscs[c].clone_info());
        match &r.now.history {
            _ if info.is_some_and(|i| i.globally_unique) => self.label(rsc),
            // Where instances that are alike have numbered histories, there may be several on a node.
            Some(recorded) => recorded.clone(),
            None => r.id.to_owned(),
        }
    }

    /// The node has to be fenced, and it can be.
    pub(super) fn will_fence(&self, node: NodeIx) -> bool {
        let n = &self.nodes[node];
        let allowed = self.quorate || self.props.no_quorum == NoQuorum::Ignore || n.online;
        n.fence.is_some() && self.props.fencing && self.props.fence_device && allowed
    }

    /// True when the resource may be acted on.
    pub(super) fn managed(&self, rsc: RscIx) -> bool {
        let r = &self.rscs[rsc];
        let frozen = r.active.iter().any(|a| self.nodes[a.node].maintenance);
        r.meta.is_managed
            && !r.meta.maintenance
            && !r.frozen
            && !self.props.maintenance_mode
            && !frozen
            && (!r.removed || self.props.stop_removed)
    }

    /// Managed and not blocked.
    pub(super) fn movable(&self, rsc: RscIx) -> bool {
        self.managed(rsc) && !self.rscs[rsc].blocked()
    }

    /// Is the plan to have a habit of an old release?
    pub(super) const fn habit(&self, habit: Habit) -> bool {
        self.props.habits.has(habit)
    }

    /// Any member or instance is active.
    pub(super) fn is_active(&self, rsc: RscIx) -> bool {
        let r = &self.rscs[rsc];
        !r.active.is_empty() || r.children.iter().any(|c| self.is_active(*c))
    }

    /// Some node may take a resource with these scores.
    pub(super) fn any_available(&self, scores: &[Score]) -> bool {
        scores.iter().zip(&self.nodes).any(|(s, n)| *s >= Score::ZERO && n.available())
    }
}
