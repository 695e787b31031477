//! Runs a plan to its end on paper: every action succeeds, and the status becomes what the nodes would have reported. Pure.

mod change;
mod places;
#[cfg(test)]
mod tests;

pub use change::{
    Change, Impossible, NodeChange, TicketChange, assume, parse_failure, parse_outcome,
};

use crate::cib::AgentName;
use crate::lrm::{NodeRecord, RscRecord};
use crate::plan::{
    Action, ActionKind, ClusterOp, Explained, Input, NodeView, OpSpec, Pacemaker, Picture, Plan,
    ScoreRow, picture, survey,
};
use crate::status::{ExecStatus, NodeStatus, OpResult};
use crate::xml::Document;
use places::Places;
use std::collections::BTreeMap;

/// A result that differs from the expected one: `RSC_OP_INTERVAL@NODE=RC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Key of the history.
    pub resource: String,
    /// `start`, `stop`, `promote`, `demote`, `monitor`.
    pub op: String,
    /// 0 for one-shot operations and probes.
    pub interval_ms: u64,
    /// Node.
    pub node: String,
    /// Exit code.
    pub rc: i32,
}

/// Whose decisions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mind {
    /// Pacemaker's, fencing included.
    #[default]
    Pacemaker,
    /// This cluster's own, as its daemons decide (`docs/semantics/policy.md` has the differences).
    Crm,
}

/// The planner's input for a document, by either mind.
#[must_use]
pub fn input_for(document: &Document, mind: Mind) -> Input<'_> {
    match mind {
        Mind::Pacemaker => input(document),
        Mind::Crm => Input { pacemaker: None, ..input(document) },
    }
}

/// The planner's input for a document, for Pacemaker's decisions.
#[must_use]
pub fn input(document: &Document) -> Input<'_> {
    Input {
        cib: &document.cib,
        status: &document.status,
        nodes: &document.nodes,
        quorate: document.quorate,
        only: None,
        now_ms: document.now_ms,
        pacemaker: Some(Pacemaker {
            fence: &document.fence,
            coordinator: document.coordinator.as_deref(),
            records: &document.records,
            params: &document.params,
            sets: &document.sets,
            habits: document.habits,
        }),
    }
}

/// A simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is seen now.
    pub before: Picture,
    /// What would be done.
    pub plan: Plan,
    /// The scores that decided, when they were asked for.
    pub scores: Vec<ScoreRow>,
    /// How it ended, unless only the plan was asked for.
    pub end: Option<End>,
}

/// The end of a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Indices of the plan's actions in the order in which they were executed.
    pub executed: Vec<usize>,
    /// What would be seen then.
    pub after: Picture,
    /// The document as it would be then.
    pub document: Document,
}

/// Plans, and executes the plan; `outcomes` are the results that are not as expected.
#[must_use]
pub fn run(document: &Document, outcomes: &[Outcome]) -> Run {
    run_as(document, Ask::default(), outcomes)
}

/// What is asked of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// Whose decisions.
    pub mind: Mind,
    /// The scores are wanted too.
    pub scores: bool,
    /// The plan is not executed.
    pub plan_only: bool,
}

/// The same, by either mind.
#[must_use]
pub fn run_as(document: &Document, ask: Ask, outcomes: &[Outcome]) -> Run {
    let input = input_for(document, ask.mind);
    let (before, Explained { plan, scores }) = survey(&input, ask.scores);
    let end = (!ask.plan_only).then(|| execute(document, ask.mind, &plan, outcomes));
    Run { before, plan, scores, end }
}

/// Executes all that can be reached.
fn execute(document: &Document, mind: Mind, plan: &Plan, outcomes: &[Outcome]) -> End {
    let calls = highest_call(document);
    let mut world = World { document: document.clone(), mind, calls, places: BTreeMap::new() };
    let mut failed = vec![false; plan.actions.len()];
    let mut executed = Vec::new();
    for (index, action) in plan.actions.iter().enumerate() {
        let need = |id: &crate::plan::ActionId| usize::try_from(id.0).ok();
        let stuck = action.needs.iter().filter_map(need).any(|n| failed.get(n) == Some(&true));
        if (stuck || !world.execute(action, outcomes))
            && let Some(mark) = failed.get_mut(index)
        {
            *mark = true;
        }
        if !stuck {
            executed.push(index);
        }
    }
    let after = picture(&input_for(&world.document, mind));
    End { executed, after, document: world.document }
}

fn highest_call(document: &Document) -> u64 {
    let resources = document.records.iter().flat_map(|n| &n.resources);
    let calls = resources.flat_map(|r| &r.ops).filter_map(|o| u64::try_from(o.call_id).ok());
    calls.max().unwrap_or(0)
}

/// A recorded name, perhaps with an instance number, is that of the resource.
fn same(recorded: &str, resource: &str) -> bool {
    recorded == resource || recorded.rsplit_once(':').is_some_and(|(base, _)| base == resource)
}

fn agent_of(triple: &str) -> AgentName {
    let mut names = triple.split(':').map(str::to_owned);
    let class = names.next().unwrap_or_default();
    let rest: Vec<String> = names.collect();
    match rest.as_slice() {
        [provider, kind] => {
            AgentName { class, provider: Some(provider.clone()), kind: kind.clone() }
        }
        _ => AgentName { class, provider: None, kind: rest.join(":") },
    }
}

/// What is recorded of a node; nothing yet, if it is new.
fn recorded<'a>(document: &'a mut Document, node: &str) -> &'a mut NodeRecord {
    let found = document.records.iter().position(|r| r.name == node);
    let at = found.unwrap_or(document.records.len());
    if found.is_none() {
        document.records.push(NodeRecord { name: node.to_owned(), ..NodeRecord::default() });
    }
    &mut document.records[at]
}

struct World {
    document: Document,
    mind: Mind,
    calls: u64,
    /// Places of the records that were looked for, by node.
    places: BTreeMap<String, Places>,
}

impl World {
    /// Tells whether it went as expected.
    fn execute(&mut self, action: &Action, outcomes: &[Outcome]) -> bool {
        match &action.kind {
            ActionKind::Op(spec) => self.operate(spec, outcomes),
            ActionKind::CancelMonitor { node, resource, interval_ms } => {
                for record in self.records(node, resource) {
                    record.ops.retain(|o| o.interval_ms != *interval_ms || o.op != "monitor");
                }
                let history = self.node(node).resources.get_mut(resource);
                history.is_none_or(|h| h.monitors.remove(interval_ms).is_some())
            }
            ActionKind::Cluster(ClusterOp::Fence { node, how }) => {
                if how != "on" {
                    self.fence(node);
                }
                true
            }
            ActionKind::Cluster(ClusterOp::Shutdown { .. }) | ActionKind::Pseudo { .. } => true,
            // As in Pacemaker's simulation the records stay: what is shown next has the stop as the last of them.
            ActionKind::Cluster(ClusterOp::Forget { .. }) => true,
            ActionKind::Cluster(ClusterOp::ClearFailures { node, resource }) => {
                self.forget_failures(node, resource);
                if let Some(history) = self.node(node).resources.get_mut(resource) {
                    history.fail_count = 0;
                    history.start_failed = false;
                    history.last_failure_ms = 0;
                }
                true
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut NodeStatus {
        self.document.status.nodes.entry(name.to_owned()).or_default()
    }

    /// What is recorded of a resource on a node.
    fn records(&mut self, node: &str, resource: &str) -> Vec<&mut RscRecord> {
        let at = self.document.records.iter_mut().find(|r| r.name == node);
        let all = at.into_iter().flat_map(|node| &mut node.resources);
        all.filter(|r| same(&r.id, resource)).collect()
    }

    fn forget_failures(&mut self, node: &str, resource: &str) {
        if self.mind == Mind::Pacemaker {
            // Pacemaker's simulator leaves failures, and whether a remote node was fenced, as they are.
            return;
        }
        let about = |name: &str, prefix: &str| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| same(rest.split('#').next().unwrap_or(rest), resource))
        };
        self.node(node)
            .attrs
            .retain(|name, _| !about(name, "fail-count-") && !about(name, "last-failure-"));
    }

    fn fence(&mut self, node: &str) {
        // What a remote node is up to is seen by its connection.
        if let Some(view) = self.document.nodes.get_mut(node) {
            *view = NodeView::GONE;
        }
        // A node that nobody had heard of has a state from now on.
        let at = self.document.records.iter().position(|r| r.name == node).unwrap_or_else(|| {
            self.document.records.push(NodeRecord { name: node.to_owned(), ..Default::default() });
            self.document.records.len() - 1
        });
        if let Some(record) = self.document.records.get_mut(at) {
            record.resources.clear();
            record.fenced |= self.mind == Mind::Crm;
        }
        self.places.remove(node);
        self.document.fence.remove(node);
        self.document.status.nodes.insert(node.to_owned(), NodeStatus::default());
    }

    fn operate(&mut self, spec: &OpSpec, outcomes: &[Outcome]) -> bool {
        if matches!(spec.op.as_str(), "notify") {
            return true;
        }
        self.calls += 1;
        let asked = outcomes.iter().find(|o| {
            o.resource == spec.resource
                && o.op == spec.op
                && o.interval_ms == spec.interval_ms
                && o.node == spec.node
        });
        let rc = asked.map_or(spec.expected_rc, |o| o.rc);
        let result = OpResult {
            resource: spec.resource.clone(),
            op: spec.op.clone(),
            interval_ms: spec.interval_ms,
            rc,
            expected_rc: spec.expected_rc,
            status: ExecStatus::Complete,
            reason: String::new(),
            digest: spec.digest,
            call_id: self.calls,
            when_ms: self.document.now_ms,
            exec_ms: 0,
            peer: spec.peer(),
        };
        let history = self.node(&spec.node).resources.entry(spec.resource.clone()).or_default();
        history.pending = None;
        if matches!(spec.op.as_str(), "start" | "migrate_from") {
            history.params_md5 = None;
        }
        self.node(&spec.node).record(&result);
        let source = spec.params.get("CRM_meta_migrate_source").cloned();
        let peer = source.zip(spec.params.get("CRM_meta_migrate_target").cloned());
        self.take(&spec.node, agent_of(&spec.agent), &result, peer);
        rc == spec.expected_rc
    }

    /// The node records the result.
    fn take(
        &mut self,
        node: &str,
        agent: AgentName,
        result: &OpResult,
        peer: Option<(String, String)>,
    ) {
        let record = recorded(&mut self.document, node);
        let places = match self.places.get_mut(node) {
            Some(places) => places,
            None => self.places.entry(node.to_owned()).or_insert_with(|| Places::of(record)),
        };
        let at = places.find(&result.resource);
        if at.is_none() {
            places.add(&result.resource, record.resources.len());
        }
        record.take_at(at, agent, result, peer);
    }
}
