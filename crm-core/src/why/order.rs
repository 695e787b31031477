//! What a resource waits for: found from the orders of the configuration and what the plan does with both sides.

use super::{Facts, settled};
use crate::cib::{Constraint, Order, OrderAction, OrderKind, Role};
use crate::plan::Placement;

/// What keeps something from coming up, or makes it go down: the resource, and words.
pub(super) fn before(facts: &Facts<'_>, primitive: &str) -> Option<(String, String)> {
    let chain = facts.chain(primitive);
    if let Some((mate, group)) = facts.group_mate(primitive)
        && let Some(state) = below(facts, &mate, false)
    {
        return Some((mate.clone(), format!("{mate} before it {state} (group {group})")));
    }
    mandatory(facts).find_map(|order| {
        let promoted = promotes(order);
        let (first, promoted) = if chain.contains(&order.then) {
            (order.first.clone(), promoted)
        } else {
            let members = members(order);
            let at = members.iter().position(|(id, _)| chain.contains(id))?;
            let down = |(id, promoted): &&(String, bool)| below(facts, id, *promoted).is_some();
            members[..at].iter().rev().find(down)?.clone()
        };
        let state = below(facts, &first, promoted)?;
        Some((first.clone(), format!("{first} before it {state} (order {})", order.id)))
    })
}

/// What keeps something from going down: the resource, and words.
pub(super) fn above(facts: &Facts<'_>, primitive: &str) -> Option<(String, String)> {
    let chain = facts.chain(primitive);
    let up = |id: &str| {
        let all = facts.primitives(id);
        let mut held = all.iter().flat_map(|p| facts.placements(p));
        held.any(|p| !p.now.is_empty() && !facts.acts(p).down)
    };
    mandatory(facts).find_map(|order| {
        let members = members(order);
        let then = if chain.contains(&order.first) {
            order.then.clone()
        } else {
            let at = members.iter().position(|(id, _)| chain.contains(id))?;
            members[at + 1..].iter().find(|(id, _)| up(id))?.0.clone()
        };
        let stays = up(&then) && order.symmetrical != Some(false);
        stays.then(|| (then.clone(), format!("{then} above it does not stop (order {})", order.id)))
    })
}

fn mandatory<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Order> {
    let all = facts.document.cib.constraints.iter();
    all.filter_map(|constraint| match constraint {
        Constraint::Order(order) if order.kind == OrderKind::Mandatory => Some(order),
        Constraint::Order(_) | Constraint::Location(_) | Constraint::Colocation(_) => None,
    })
}

const fn promotes(order: &Order) -> bool {
    matches!(order.first_action, Some(OrderAction::Promote))
}

/// Members of all sets, and whether they are to be promoted.
fn members(order: &Order) -> Vec<(String, bool)> {
    let of_set = |set: &crate::cib::ResourceSet| {
        let promoted = matches!(set.action, Some(OrderAction::Promote));
        set.members.iter().map(|m| (m.resource.clone(), promoted)).collect::<Vec<_>>()
    };
    order.sets.iter().flat_map(of_set).collect()
}

/// How something is not up; `None` when it is, or will be in this plan.
fn below(facts: &Facts<'_>, id: &str, promoted: bool) -> Option<&'static str> {
    let primitives = facts.primitives(id);
    let all: Vec<&Placement> = primitives.iter().flat_map(|p| facts.placements(p)).collect();
    if all.is_empty() {
        return None;
    }
    if all.iter().all(|p| p.node.is_none()) {
        return Some("runs nowhere");
    }
    if promoted && all.iter().all(|p| p.role != Role::Promoted) {
        return Some("is promoted nowhere");
    }
    let goes = |p: &&&Placement| {
        let acts = facts.acts(p);
        acts.down && !acts.up
    };
    if all.iter().filter(|p| p.node.is_some()).all(|p| goes(&p)) {
        return Some("stops");
    }
    let stuck = |p: &&&Placement| p.node.is_some() && !settled(p) && !facts.acts_on(p);
    all.iter().filter(|p| p.node.is_some()).all(|p| stuck(&p)).then_some("waits itself")
}
