//! What goes into the policy engine and what comes out. Plans are values: immutable, ordered, comparable.

use crate::cib::{Cib, NvSet, OrderKind, Role, Score};
use crate::status::Status;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Membership's view of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Alive and its status is current (synced session).
    pub online: bool,
    /// Known to run nothing when offline (gone and confirmed, or fencing waived). An offline unclean node blocks recovery.
    pub clean: bool,
    /// Alive, and what it runs is not known: it has just come, or its daemon is being started again. What may run there is not begun
    /// anywhere else before the node has told. Pacemaker's word.
    pub pending: bool,
}

impl NodeView {
    /// Alive, its status is current.
    pub const ONLINE: Self = Self { online: true, clean: true, pending: false };
    /// Alive, its status is not current.
    pub const PENDING: Self = Self { online: false, clean: false, pending: true };
    /// Lost, and it may still run things: it has to be fenced.
    pub const LOST: Self = Self { online: false, clean: false, pending: false };
    /// Lost, and it runs nothing (confirmed, or fencing was waived).
    pub const GONE: Self = Self { online: false, clean: true, pending: false };
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is wanted.
    pub cib: &'a Cib,
    /// What is seen.
    pub status: &'a Status,
    /// By node name; a configured node that is absent here counts as offline and clean.
    pub nodes: &'a BTreeMap<String, NodeView>,
    /// Service quorum: may resources run at all? Without it `no-quorum-policy` decides.
    pub quorate: bool,
    /// Set on a node that plans without a leader: only this node's actions are made.
    pub only: Option<&'a str>,
    /// Wall clock, milliseconds since the epoch (failure expiry).
    pub now_ms: u64,
    /// Decide as Pacemaker does, also where this engine differs on purpose, and plan what our nodes do not carry out (fencing).
    pub pacemaker: Option<Pacemaker<'a>>,
}

/// What only Pacemaker's own status knows.
#[derive(Debug, Clone, Copy)]
pub struct Pacemaker<'a> {
    /// Nodes that membership wants fenced, with the reason.
    pub fence: &'a BTreeMap<String, String>,
    /// The node that coordinates: it is fenced last.
    pub coordinator: Option<&'a str>,
    /// What the nodes have recorded of their operations, in the order in which it stands in the status.
    pub records: &'a [crate::lrm::NodeRecord],
    /// Parameters that rules make differ between nodes: by resource, by node.
    pub params: &'a BTreeMap<String, BTreeMap<String, NvSet>>,
    /// What only Pacemaker's resource sets say, by their ids.
    pub sets: &'a BTreeMap<String, SetWords>,
    /// What an old release decided otherwise.
    pub habits: Habits,
}

/// What is written at a resource set and has no place in our own sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetWords {
    /// `sequential=true`: Pacemaker orders two sets by their ends only where that is written.
    pub chain: bool,
    /// Score among its members (colocations); the constraint's is the one between sets.
    pub score: Option<Score>,
    /// Kind among its members (orders).
    pub kind: Option<OrderKind>,
    /// `ordering=listed`: each member goes with the one after it, not with the one before it.
    pub listed: bool,
}

/// What Pacemaker 2.1.5 decided otherwise than the releases after it: with these on, the plan can be compared with that release's.
/// Nobody wants them but the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// A wish (finite score) that a clone has, or that follows it, counts for its instances only if not every node gets one.
    WishesOfFew,
    /// A resource that keeps away from another never makes that one leave, even if it has one node only.
    NeverGivesWay,
    /// An instance that would be better off elsewhere goes there, though another could have started there.
    Shuffles,
    /// Colocations are applied in one go: mandatory ones not before wishes.
    OneGo,
    /// What follows a group, and what a group follows, is not seen through its members before it is placed.
    GroupsSpeakLate,
    /// An instance that is a group stays where it was tried first, and nobody counts it.
    GroupsStick,
    /// A preference does not fade on its way along several colocations: only the last one's score counts, with the sign of all.
    NeverFades,
    /// A probe that is impossible keeps a whole clone from starting, and stops what runs of it, unless that very instance is active.
    ProbesStop,
    /// A new member of a group starts before later ones that run and cannot be stopped first.
    NewMembersStart,
    /// To keep away from a role means to keep away from all that has another one.
    OtherRoles,
    /// What changes an action otherwise than through an order (a group's by its members, one of what must be together by the other) does not
    /// reach what comes after it, unless that is looked at anyway.
    Unheard,
    /// A collection of which nobody may touch what is active, and that on nodes only that are not there, is not shown.
    HidesUntouched,
    /// An instance that is to be nowhere counts with its priority among those that could be promoted, not behind them.
    IdleFirst,
    /// What the promoted instance follows says where it would like to be itself when the one to be promoted is chosen, though it has its place by then.
    AskedTwice,
}

/// Some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits(u32);

impl Habits {
    /// These and one more.
    #[must_use]
    pub const fn with(self, habit: Habit) -> Self {
        Self(self.0 | (1 << habit as u32))
    }

    /// Is it one of them?
    #[must_use]
    pub const fn has(self, habit: Habit) -> bool {
        self.0 & (1 << habit as u32) != 0
    }
}

/// Index of an action in [`Plan::actions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionId(pub u32);

/// An operation of an agent on a node, complete: the executor needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpSpec {
    /// Node that runs it.
    pub node: String,
    /// Key of the history: primitive id, with the instance number in globally unique clones.
    pub resource: String,
    /// Agent, `class:provider:type`.
    pub agent: String,
    /// `start`, `stop`, `promote`, `demote`, `monitor`, `notify`.
    pub op: String,
    /// 0 for one-shot operations and probes; a recurring monitor is *begun* by its action and then repeats by itself.
    pub interval_ms: u64,
    /// Time limit.
    pub timeout_ms: u64,
    /// Exit code that means "as expected".
    pub expected_rc: i32,
    /// Instance attributes (without `OCF_RESKEY_`) and meta values (as `CRM_meta_*`, dashes become underscores).
    pub params: BTreeMap<String, String>,
    /// Digest of the instance attributes ([`crate::plan`]).
    pub digest: u64,
}

impl OpSpec {
    /// The other node of a live migration: of `migrate_to` the target, of `migrate_from` the source.
    #[must_use]
    pub fn peer(&self) -> Option<String> {
        let name = match self.op.as_str() {
            "migrate_to" => "CRM_meta_migrate_target",
            "migrate_from" => "CRM_meta_migrate_source",
            _ => return None,
        };
        self.params.get(name).cloned()
    }
}

/// Actions of the cluster itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterOp {
    /// A node is cut off.
    Fence {
        /// Node.
        node: String,
        /// `reboot`, `off`, `on`.
        how: String,
    },
    /// A node's cluster services end.
    Shutdown {
        /// Node.
        node: String,
    },
    /// The failures of a resource on a node are forgotten.
    ClearFailures {
        /// Node.
        node: String,
        /// Key of the history.
        resource: String,
    },
    /// The history of a resource on a node is forgotten.
    Forget {
        /// Node.
        node: String,
        /// Key of the history.
        resource: String,
    },
}

impl ClusterOp {
    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Fence { node, .. }
            | Self::Shutdown { node }
            | Self::ClearFailures { node, .. }
            | Self::Forget { node, .. } => node,
        }
    }
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionKind {
    /// Runs an agent.
    Op(Box<OpSpec>),
    /// Stops a recurring monitor.
    CancelMonitor {
        /// Node.
        node: String,
        /// Primitive id.
        resource: String,
        /// Interval.
        interval_ms: u64,
    },
    /// What our nodes do not carry out; only in plans made as Pacemaker makes them.
    Cluster(ClusterOp),
    /// Nothing runs; a point in the order (e.g. `HA_running_0`).
    Pseudo {
        /// Pacemaker's name of it.
        name: String,
    },
}

/// One action of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What it does.
    pub kind: ActionKind,
    /// Actions that must have succeeded before (ids are smaller or larger; the graph has no cycle).
    pub needs: BTreeSet<ActionId>,
    /// Higher runs first among the ready ones.
    pub priority: i32,
}

/// An instance of a primitive: clones have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// Primitive id.
    pub resource: String,
    /// Instance number in a clone; 0 otherwise.
    pub number: u32,
}

/// Where an instance is and is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The instance.
    pub instance: Instance,
    /// Nodes it is active on now, with role.
    pub now: Vec<(String, Role)>,
    /// Node it is to be on; `None` = stopped.
    pub node: Option<String>,
    /// Role it is to have.
    pub role: Role,
}

/// Why something is as it is decided: data for `crm why`, never only a log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Resource id it is about.
    pub resource: String,
    /// Node it is about, if one.
    pub node: Option<String>,
    /// Machine-readable code, e.g. `standby`, `migration-threshold`, `location`, `colocation`, `no-quorum`.
    pub code: String,
    /// One clause in words, naming constraint ids and scores.
    pub text: String,
    /// What it adds to the node's score, when that is a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// What decides: a constraint, another resource, a ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Reason {
    /// With what it adds to the score.
    pub(super) const fn scored(&mut self, score: Score) -> &mut Self {
        self.score = Some(score);
        self
    }

    /// With what decides.
    pub(super) fn by(&mut self, what: &str) -> &mut Self {
        self.by = Some(what.to_owned());
        self
    }
}

/// When in the placement a score was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScorePhase {
    /// A primitive, just before its node was chosen.
    Primitive,
    /// A group and its members, before the first of them was placed.
    Group,
    /// A clone and its instances, before the first of them was placed.
    Clone,
    /// A bundle and what it is made of, before the first of that was placed.
    Bundle,
    /// An instance of a promotable clone: how much it should be promoted.
    Promotion,
}

/// What a resource thought of a node: a line of the table that explains a placement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScoreRow {
    /// When it was taken.
    pub phase: ScorePhase,
    /// The resource, with the instance number in clones.
    pub resource: String,
    /// Node; empty for the promotion of an instance that is to be nowhere.
    pub node: String,
    /// Score.
    pub score: Score,
}

/// A plan with all that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explained {
    /// The plan.
    pub plan: Plan,
    /// Scores in the order in which they were taken; of several of one instance the last one counted.
    pub scores: Vec<ScoreRow>,
}

/// A transition: from what is seen to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Actions; [`ActionId`] is the index.
    pub actions: Vec<Action>,
    /// Placement of every instance, in resource order.
    pub placements: Vec<Placement>,
    /// Reasons.
    pub reasons: Vec<Reason>,
    /// One line per change in Pacemaker's words: `* Move fs_nfs ( alpha -> delta )`.
    pub summary: Vec<String>,
    /// Nodes that have to be fenced although they live, and why (our own plans; Pacemaker's have an action for it).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fences: BTreeMap<String, String>,
}

impl Plan {
    /// True when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}
