//! Driving transitions: make a plan when one may, hand out its orders, take in what was done, plan again.

use super::{Controller, Effect, Mode, RECHECK_MS, RETRY_MS};
use crate::plan::{ActionId, ActionKind, NodeView, Plan};
use crate::status::{Status, Token};
use crate::transition::{self, Limits, Transition};
use std::collections::{BTreeMap, BTreeSet};

/// What a plan was made from, as far as a change of it makes the plan wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    mode: Mode,
    disarmed: bool,
    /// What the options of service quorum say, where one is set.
    votes: Option<bool>,
    version: u64,
    nodes: BTreeMap<String, NodeView>,
    failures: Vec<(String, String, u32)>,
    known: Vec<(String, String)>,
}

#[derive(Debug)]
struct Active {
    id: (u64, u64),
    transition: Transition,
    plan: Plan,
    basis: Basis,
    fed: BTreeSet<ActionId>,
    aborted: bool,
}

/// The planner's side of a controller.
#[derive(Debug, Default)]
pub(super) struct Lead {
    active: Option<Active>,
    number: u64,
    not_before_ms: u64,
    answers: Vec<(Token, bool)>,
    mode_changed: bool,
    planned_from: Option<(Basis, Status)>,
    recheck_ms: u64,
}

impl Lead {
    pub(super) const fn running(&self) -> bool {
        self.active.is_some()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match &self.active {
            Some(active) => active.transition.deadline(),
            None if self.not_before_ms > 0 => Some(self.not_before_ms),
            None => self.planned_from.as_ref().map(|_| self.recheck_ms),
        }
    }

    pub(super) fn order_answered(&mut self, token: Token, accepted: bool) {
        self.answers.push((token, accepted));
    }

    /// An order that had been accepted cannot be carried out after all.
    pub(super) fn refused_late(&mut self, token: Token, _why: &str) {
        self.answers.push((token, false));
    }

    pub(super) const fn mode_changed(&mut self) {
        self.mode_changed = true;
    }
}

impl Controller {
    /// Moves the transition on, or makes the next plan.
    pub(super) fn drive(&mut self) {
        if std::mem::take(&mut self.lead.mode_changed) {
            // Orders that are under way report through the log all the same; the next plan starts from what is known.
            self.lead.active = None;
            self.lead.planned_from = None;
        }
        if !matches!(self.mode, Mode::Leader | Mode::Alone | Mode::NoQuorum) {
            return;
        }
        self.feed();
        if self.pump() {
            self.replan();
        }
    }

    fn basis(&self) -> Basis {
        let state = self.local_state();
        let nodes =
            state.cib.nodes.iter().map(|n| (n.name.clone(), self.node_view(&n.name))).collect();
        let mut failures = Vec::new();
        let mut known = Vec::new();
        for (node, status) in &state.status.nodes {
            for (resource, history) in &status.resources {
                if history.fail_count > 0 {
                    failures.push((node.clone(), resource.clone(), history.fail_count));
                }
                known.push((node.clone(), resource.clone()));
            }
        }
        let disarmed = self.disarmed().is_some();
        let (mode, votes, version) = (self.mode, self.quorate_by_votes(), state.version);
        Basis { mode, disarmed, votes, version, nodes, failures, known }
    }

    /// Tells the transition what has happened since.
    fn feed(&mut self) {
        let answers = std::mem::take(&mut self.lead.answers);
        let basis = self.basis();
        let state = self.local_state();
        let now_ms = self.now_ms;
        let Some(active) = &mut self.lead.active else { return };
        for (token, accepted) in answers {
            if (token.term, token.plan) == active.id && !accepted {
                let action = ActionId(token.action);
                active.transition.handle(now_ms, transition::Event::Refused { action });
            }
        }
        for status in state.status.nodes.values() {
            if (status.done.term, status.done.plan) != active.id {
                continue;
            }
            for (action, ok) in &status.done.actions {
                let action = ActionId(*action);
                if active.fed.insert(action) {
                    active.transition.handle(now_ms, transition::Event::Done { action, ok: *ok });
                }
            }
        }
        for (node, view) in &basis.nodes {
            if !view.online && active.basis.nodes.get(node).is_some_and(|v| v.online) {
                let node = node.clone();
                active.transition.handle(now_ms, transition::Event::NodeLost { node });
            }
        }
        if !active.aborted && active.basis.outdated_by(&basis) {
            active.aborted = true;
            active.transition.handle(now_ms, transition::Event::Abort);
        }
        active.transition.handle(now_ms, transition::Event::Tick);
    }

    /// Hands out what is ready. True when no transition is running (any more).
    fn pump(&mut self) -> bool {
        let sessions: BTreeMap<String, u64> =
            self.local_state().status.nodes.iter().map(|(n, s)| (n.clone(), s.session)).collect();
        let mut orders = Vec::new();
        let mut ended = None;
        let Some(active) = &mut self.lead.active else { return true };
        while let Some(effect) = active.transition.poll() {
            match effect {
                transition::Effect::Run { action, kind } => orders.push((action, kind)),
                transition::Effect::Finished(how) => ended = Some(how),
            }
        }
        let (term, plan) = active.id;
        for (action, work) in orders {
            let node = match &work {
                ActionKind::Op(spec) => spec.node.clone(),
                ActionKind::CancelMonitor { node, .. } => node.clone(),
                ActionKind::Cluster(_) | ActionKind::Pseudo { .. } => continue,
            };
            let session = sessions.get(&node).copied().unwrap_or_default();
            let token = Token { term, plan, action: action.0 };
            self.effects.push_back(Effect::Order { node, session, token, work });
        }
        let Some(how) = ended else { return false };
        self.lead.active = None;
        if how == transition::End::Failed {
            self.lead.not_before_ms = self.now_ms + RETRY_MS;
        }
        true
    }

    fn replan(&mut self) {
        if self.now_ms < self.lead.not_before_ms {
            return;
        }
        self.lead.not_before_ms = 0;
        let basis = self.basis();
        let seen = self.local_state().status;
        let unchanged = |from: &(Basis, Status)| from.0 == basis && from.1 == seen;
        if self.lead.planned_from.as_ref().is_some_and(unchanged)
            && self.now_ms < self.lead.recheck_ms
        {
            return; // nothing has changed since a plan that had nothing to do
        }
        self.lead.recheck_ms = self.now_ms + RECHECK_MS;
        let plan = self.make_plan();
        self.plan_wants(&plan.fences);
        if plan.is_empty() {
            self.lead.planned_from = Some((basis, seen));
            return;
        }
        self.lead.planned_from = None;
        self.lead.number = self.newest_number().max(self.lead.number) + 1;
        let id = (self.leadership.term, self.lead.number);
        let limits = Limits::of(&self.state.cib);
        let transition = Transition::new(plan.clone(), id, limits);
        let fed = BTreeSet::new();
        self.lead.active = Some(Active { id, transition, plan, basis, fed, aborted: false });
        self.feed();
        if self.pump() && self.lead.not_before_ms == 0 {
            // It ended at once (pseudo actions only): do not spin.
            self.lead.not_before_ms = self.now_ms + RETRY_MS;
        }
    }

    /// The highest plan number of this term that anyone has worked for: a node that goes on alone keeps the term, and its plans must not be taken for the lost leader's.
    fn newest_number(&self) -> u64 {
        let term = self.leadership.term;
        let own = self.own.newest_plan(term);
        let nodes = self.local_state().status.nodes.into_values();
        let done = nodes.filter(|n| n.done.term == term).map(|n| n.done.plan);
        done.max().unwrap_or(0).max(own)
    }

    /// The plan under way, if one is.
    #[must_use]
    pub fn active_plan(&self) -> Option<&Plan> {
        self.lead.active.as_ref().map(|a| &a.plan)
    }
}

impl Basis {
    /// New information that the plan did not foresee. What the plan itself brings about (a resource that becomes known) is foreseen.
    fn outdated_by(&self, now: &Self) -> bool {
        self.mode != now.mode
            || self.disarmed != now.disarmed
            || self.votes != now.votes
            || self.version != now.version
            || self.nodes != now.nodes
            || self.failures != now.failures
            || self.known.iter().any(|k| !now.known.contains(k))
    }
}
