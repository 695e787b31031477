//! Orders: what must come before what, and what that means. **The interface for every phase that orders something.**
//!
//! - `table.order(model, first, then, link)` notes an order between ends: actions that are there already ([`End::Act`]) or actions of a resource
//!   by task ([`End::Op`]), which need not be made yet. Orders are kept as a list in the order of their creation: the configuration's, then what
//!   resources bring with them, then what later phases add. `expand` turns them into edges between actions when all actions are made.
//! - `table.bind(first, then, link)` makes an edge between two actions at once.
//!
//! A [`Link`] is a set of meanings; `Link::ORDERED` alone only orders two actions that both happen. `spread` applies the meanings.
//! An order that names a collection as `first` waits for its completion (start → running, stop → stopped, …): that is `spread`'s work, so name
//! the plain task here.

use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Model, RscIx};
use crate::cib::Role;
use std::ops::BitOr;

/// What an order means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(u32);

impl Link {
    pub(super) const NONE: Self = Self(0);
    /// First ends before then begins, when both happen.
    pub(super) const ORDERED: Self = Self(1);
    /// Only when first is not part of a live migration.
    pub(super) const UNLESS_FIRST_MIGRATES: Self = Self(1 << 1);
    /// Stop and start of the same resource, or of the one below: what starts again, or cannot start again, is stopped.
    pub(super) const RESTART: Self = Self(1 << 2);
    /// Only when both are on the same node.
    pub(super) const SAME_NODE: Self = Self(1 << 3);
    /// Then needed ⇒ first needed.
    pub(super) const THEN_IMPLIES_FIRST: Self = Self(1 << 4);
    /// First needed ⇒ then needed.
    pub(super) const FIRST_IMPLIES_THEN: Self = Self(1 << 5);
    /// Then needed and its resource promoted ⇒ first needed.
    pub(super) const PROMOTED_THEN_IMPLIES_FIRST: Self = Self(1 << 6);
    /// First needed ⇒ then needed, on first's node.
    pub(super) const FIRST_IMPLIES_THEN_THERE: Self = Self(1 << 7);
    /// First impossible ⇒ then impossible.
    pub(super) const BLOCKS: Self = Self(1 << 8);
    /// First needed ⇒ then in the graph, even if it is not needed.
    pub(super) const SHOWS_THEN: Self = Self(1 << 9);
    /// Then needed ⇒ first in the graph, even if it is not needed.
    pub(super) const SHOWS_FIRST: Self = Self(1 << 10);
    /// Only when first is needed and both are on the same node (keeping apart).
    pub(super) const APART: Self = Self(1 << 11);
    /// Only when first is needed and then's node, or where it migrates to, is first's (capacity that is set free).
    pub(super) const FREED: Self = Self(1 << 12);
    /// Made by the cluster: also valid between a guest's resource and the guest.
    pub(super) const GUEST: Self = Self(1 << 13);
    /// Then needed ⇒ first not needed.
    pub(super) const CANCELS: Self = Self(1 << 14);
    /// First impossible ⇒ then impossible, unless what then brings about is so already.
    pub(super) const ASYMMETRIC: Self = Self(1 << 15);
    /// Never at the same time.
    pub(super) const SERIALIZE: Self = Self(1 << 16);
    /// First is one of the inputs that then counts.
    pub(super) const COUNTED: Self = Self(1 << 17);
    /// Then not migratable or impossible ⇒ first impossible; then needed ⇒ first needed.
    pub(super) const MIGRATION: Self = Self(1 << 18);
    /// First impossible ⇒ then is a real action, not part of a migration.
    pub(super) const ELSE_THEN: Self = Self(1 << 19);
    /// As [`Self::BLOCKS`], unless first's resource is active (probes on nodes that are resources).
    pub(super) const NESTED_PROBE: Self = Self(1 << 20);

    pub(super) const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Has anything in common with another: whatever serializes is an order too.
    pub(super) const fn resembles(self, other: Self) -> bool {
        let serial = Self::ORDERED.0 | Self::SERIALIZE.0;
        self.any(other) || (self.0 & serial != 0 && other.0 & serial != 0)
    }

    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Means nothing but an order in the graph: an impossible first is left out of it.
    pub(super) const fn only_orders(self) -> bool {
        self.without(Self(Self::ORDERED.0 | Self::SHOWS_THEN.0 | Self::SHOWS_FIRST.0)).is_none()
    }
}

impl BitOr for Link {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An end of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// This action.
    Act(ActIx),
    /// Whatever actions the resource will have with this task.
    Op(RscIx, Task),
}

/// An order that is not bound to actions yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ordering {
    pub(super) first: End,
    pub(super) then: End,
    pub(super) link: Link,
}

impl Table {
    /// Notes an order.
    pub(super) fn order(&mut self, model: &Model<'_>, first: End, then: End, link: Link) {
        self.orders.push(Ordering { first, then, link });
        super::migrate::equivalents(model, self, first, then);
    }

    /// Notes an order between actions of two resources.
    pub(super) fn sequence(
        &mut self,
        model: &Model<'_>,
        (first, first_task): (RscIx, Task),
        (then, then_task): (RscIx, Task),
        link: Link,
    ) {
        self.order(model, End::Op(first, first_task), End::Op(then, then_task), link);
    }

    /// The resource and the task of an end.
    pub(super) fn end(&self, end: End) -> (Option<RscIx>, Task) {
        match end {
            End::Act(act) => (self.acts[act].rsc, self.acts[act].task),
            End::Op(rsc, task) => (Some(rsc), task),
        }
    }
}

/// Phase 11: orders become edges between actions. A first action that is not there is made as a possibility, since what waits for it must know.
pub(super) fn expand(model: &mut Model<'_>, table: &mut Table) {
    for at in 0..table.orders.len() {
        let Ordering { first, then, link } = table.orders[at];
        let firsts = match first {
            End::Act(act) => vec![act],
            End::Op(rsc, task) => firsts(model, table, rsc, task),
        };
        let thens = match then {
            End::Act(act) => vec![act],
            End::Op(rsc, task) => table.all(rsc, task),
        };
        for f in firsts {
            for t in &thens {
                let aborts =
                    table.flags(f).has(Flag::DANGLING) && table.acts[f].rsc == table.acts[*t].rsc;
                let kept = if aborts { link.without(Link::FIRST_IMPLIES_THEN) } else { link };
                table.bind(f, *t, kept);
            }
        }
    }
}

fn firsts(model: &mut Model<'_>, table: &mut Table, rsc: RscIx, task: Task) -> Vec<ActIx> {
    let found = table.all(rsc, task);
    if !found.is_empty() {
        return found;
    }
    let idle = match model.role(rsc) {
        Role::Stopped => task == Task::Stop,
        Role::Unpromoted => task == Task::Demote,
        Role::Started | Role::Promoted => false,
    };
    // A reload that nobody asked for keeps nothing from happening.
    if idle || task == Task::Reload {
        Vec::new()
    } else {
        vec![table.make(model, rsc, task, None, true)]
    }
}
