//! The actions of a plan as steps that people follow: what is done, and after what.

use crate::status::clock;
use crm_core::plan::{ActionKind, ClusterOp, Plan};
use crm_core::simulate::Run;
use std::collections::BTreeSet;

/// Above this many actions every step names all it waits for directly, also what others imply.
const REDUCED_AT_MOST: usize = 4_000;

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Index of the action in the plan.
    pub(super) action: usize,
    /// What is done.
    pub(super) text: String,
    /// Steps that come before it (their indices), without those that others imply.
    pub(super) after: Vec<usize>,
    /// It was reached: nothing before it failed.
    pub(super) executed: bool,
}

/// All steps, in an order in which they could be done one by one.
pub(super) fn steps(run: &Run) -> Vec<Step> {
    let plan = &run.plan;
    let before = before(plan);
    // Where nothing was executed, nothing was not reached.
    let executed: Option<BTreeSet<usize>> =
        run.end.as_ref().map(|end| end.executed.iter().copied().collect());
    let mut number = vec![usize::MAX; plan.actions.len()];
    let mut out = Vec::new();
    for (action, needs) in before.into_iter().enumerate() {
        let Some(text) = plan.actions.get(action).and_then(|a| words(&a.kind)) else { continue };
        number[action] = out.len();
        let mut after: Vec<usize> = needs.into_iter().map(|n| number[n]).collect();
        after.retain(|n| *n != usize::MAX);
        after.sort_unstable();
        let executed = executed.as_ref().is_none_or(|all| all.contains(&action));
        out.push(Step { action, text, after, executed });
    }
    out
}

/// For each action the real ones that directly come before it: points in the order are looked through.
fn before(plan: &Plan) -> Vec<Vec<usize>> {
    let count = plan.actions.len();
    let real = |a: usize| {
        plan.actions.get(a).is_some_and(|a| !matches!(a.kind, ActionKind::Pseudo { .. }))
    };
    let reduce = count <= REDUCED_AT_MOST;
    let mut ancestors: Vec<Bits> = Vec::with_capacity(count);
    let mut out: Vec<Vec<usize>> = Vec::with_capacity(count);
    for (index, action) in plan.actions.iter().enumerate() {
        let mut direct: BTreeSet<usize> = BTreeSet::new();
        for need in &action.needs {
            let Ok(need) = usize::try_from(need.0) else { continue };
            if need >= index {
                continue;
            }
            if real(need) {
                direct.insert(need);
            } else {
                direct.extend(out[need].iter().copied());
            }
        }
        if reduce {
            let mut mine = Bits::new(count);
            for need in &direct {
                mine.add(&ancestors[*need]);
            }
            direct.retain(|need| !mine.has(*need));
            for need in &direct {
                mine.set(*need);
            }
            ancestors.push(mine);
        }
        out.push(direct.into_iter().collect());
    }
    out
}

/// A set of small numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn has(&self, bit: usize) -> bool {
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }
}

/// What an action does, in words; `None` for points in the order.
pub(super) fn words(kind: &ActionKind) -> Option<String> {
    Some(match kind {
        ActionKind::Op(spec) => {
            let (rsc, node) = (&spec.resource, &spec.node);
            match (spec.op.as_str(), spec.interval_ms) {
                ("monitor", 0) => format!("probe {rsc} on {node}"),
                ("monitor", ms) => format!("watch {rsc} on {node} every {}", clock::span(ms)),
                ("migrate_to", _) => format!("migrate {rsc} away from {node}"),
                ("migrate_from", _) => format!("take {rsc} over on {node}"),
                ("reload" | "reload-agent", _) => format!("reload {rsc} on {node}"),
                (op, _) => format!("{op} {rsc} on {node}"),
            }
        }
        ActionKind::CancelMonitor { node, resource, interval_ms } => {
            format!("end watching {resource} on {node} every {}", clock::span(*interval_ms))
        }
        ActionKind::Cluster(what) => match what {
            ClusterOp::Fence { node, how } => format!("fence {node} ({how})"),
            ClusterOp::Shutdown { node } => format!("end the cluster's services on {node}"),
            ClusterOp::ClearFailures { node, resource } => {
                format!("forget the failures of {resource} on {node}")
            }
            ClusterOp::Forget { node, resource } => format!("forget {resource} on {node}"),
        },
        ActionKind::Pseudo { .. } => return None,
    })
}
