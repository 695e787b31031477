//! Phase 3: the orders that the configuration asks for, in its order: order constraints, their sets, and keeping apart.

use super::SetWords;
use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Coloc, Model, RscIx};
use super::order::{End, Link};
use crate::cib::{Constraint, Order, OrderAction, OrderKind, ResourceSet, Role, Score};
use std::collections::BTreeMap;

/// How the two directions of a constraint are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symmetry {
    /// Only the way up (or down) that is written.
    One,
    /// The way written; there is an inverse too.
    Both,
    /// The inverse.
    Inverse,
}

const fn task_of(action: Option<OrderAction>) -> Task {
    match action {
        Some(OrderAction::Start) | None => Task::Start,
        Some(OrderAction::Stop) => Task::Stop,
        Some(OrderAction::Promote) => Task::Promote,
        Some(OrderAction::Demote) => Task::Demote,
    }
}

fn link_of(kind: OrderKind, first: Task, symmetry: Symmetry) -> Link {
    match (kind, symmetry) {
        (OrderKind::Optional, _) => Link::ORDERED,
        (OrderKind::Serialize, _) => Link::SERIALIZE,
        (OrderKind::Mandatory, Symmetry::One) => Link::ORDERED | Link::ASYMMETRIC,
        (OrderKind::Mandatory, Symmetry::Both) if first.rises() => {
            Link::ORDERED | Link::FIRST_IMPLIES_THEN | Link::BLOCKS
        }
        (OrderKind::Mandatory, Symmetry::Both) => Link::ORDERED | Link::FIRST_IMPLIES_THEN,
        (OrderKind::Mandatory, Symmetry::Inverse) => Link::ORDERED | Link::THEN_IMPLIES_FIRST,
    }
}

/// Notes the orders of all constraints.
pub(super) fn note(model: &Model<'_>, table: &mut Table) {
    let mut colocations: BTreeMap<&str, Vec<&Coloc<'_>>> = BTreeMap::new();
    for c in model.colocs.iter().filter(|c| c.score <= Score::NEG_INF) {
        colocations.entry(c.id).or_default().push(c);
    }
    for constraint in &model.cib.constraints {
        match constraint {
            Constraint::Order(order) => note_order(model, table, order),
            Constraint::Colocation(c) => {
                for one in colocations.remove(c.id.as_str()).unwrap_or_default() {
                    apart(model, table, one);
                }
            }
            Constraint::Location(_) => {}
        }
    }
}

fn symmetry_of(order: &Order, kind: OrderKind) -> Symmetry {
    match order.symmetrical {
        Some(false) => Symmetry::One,
        _ if kind == OrderKind::Serialize => Symmetry::One,
        Some(true) | None => Symmetry::Both,
    }
}

fn note_order(model: &Model<'_>, table: &mut Table, order: &Order) {
    let symmetry = symmetry_of(order, order.kind);
    if order.sets.is_empty() {
        let first_task = task_of(order.first_action);
        let then_task = order.then_action.map_or(first_task, |a| task_of(Some(a)));
        let (Some(first), Some(then)) =
            (model.constrained(&order.first), model.constrained(&order.then))
        else {
            return;
        };
        let min = model.rscs[first].clone_info().map_or(0, |info| info.min);
        let min = if model.props.exact { min } else { 0 };
        pair(model, table, (order, symmetry), (first, first_task), (then, then_task), min);
        return;
    }
    if let Some((first, then)) = one_instance(model, order) {
        pair(model, table, (order, symmetry), first, then, 1);
        return;
    }
    let sets: Vec<Set> = order.sets.iter().map(|set| Set::of(model, set)).collect();
    for (at, set) in sets.iter().enumerate() {
        let kind = set.kind.unwrap_or(order.kind);
        inside(model, table, kind, symmetry_of(order, kind), set);
        let Some(last) = at.checked_sub(1).and_then(|i| sets.get(i)) else { continue };
        let name = |s: &Set, n: usize| s.id.clone().unwrap_or_else(|| format!("{}:{n}", order.id));
        between(model, table, (order.kind, symmetry), (last, name(last, at - 1)), set);
        if symmetry == Symmetry::Both {
            let inverse = (order.kind, Symmetry::Inverse);
            between(model, table, inverse, (set, name(set, at)), last);
        }
    }
}

/// `require-all=false` of a pair whose first is a clone: one instance suffices.
fn one_instance(model: &Model<'_>, order: &Order) -> Option<((RscIx, Task), (RscIx, Task))> {
    let [a, b] = order.sets.as_slice() else { return None };
    let ([first], [then]) = (a.members.as_slice(), b.members.as_slice()) else { return None };
    if a.require_all || a.id.is_some() || !model.props.exact {
        return None;
    }
    let first = model.constrained(&first.resource)?;
    let then = model.constrained(&then.resource)?;
    model.rscs[first].clone_info()?;
    Some(((first, task_of(a.action)), (then, task_of(b.action))))
}

fn pair(
    model: &Model<'_>,
    table: &mut Table,
    (order, symmetry): (&Order, Symmetry),
    (first, first_task): (RscIx, Task),
    (then, then_task): (RscIx, Task),
    min: u32,
) {
    if first == then {
        return;
    }
    let link = link_of(order.kind, first_task, symmetry);
    if min > 0 {
        let point = counting(table, &format!("clone-one-or-more:{}", order.id), min);
        for instance in model.rscs[first].children.clone() {
            let counted = Link::COUNTED | Link::SHOWS_THEN;
            table.order(model, End::Op(instance, first_task), End::Act(point), counted);
        }
        table.order(model, End::Act(point), End::Op(then, then_task), link | Link::BLOCKS);
    } else {
        table.sequence(model, (first, first_task), (then, then_task), link);
    }
    if symmetry == Symmetry::Both {
        let (up, down) = (first_task.inverse(), then_task.inverse());
        let link = link_of(order.kind, up, Symmetry::Inverse);
        table.sequence(model, (then, down), (first, up), link);
    }
}

/// A point that is possible when enough of its inputs are.
fn counting(table: &mut Table, name: &str, enough: u32) -> ActIx {
    let point = table.named(name, Task::Point, None);
    table.set(point, Flag::COUNTS);
    table.acts[point].enough = enough;
    point
}

impl Model<'_> {
    /// What a set says that only Pacemaker's sets can say.
    pub(super) fn set_words(&self, set: &ResourceSet) -> SetWords {
        let all = self.pacemaker.map(|p| p.sets);
        let own = all.zip(set.id.as_ref()).and_then(|(all, id)| all.get(id));
        own.copied().unwrap_or_default()
    }
}

/// A set with its resources found.
struct Set {
    id: Option<String>,
    members: Vec<RscIx>,
    task: Task,
    sequential: bool,
    /// Its neighbours meet its ends, not all of its members.
    chain: bool,
    require_all: bool,
    /// Kind among its members, where it has its own.
    kind: Option<OrderKind>,
}

impl Set {
    fn of(model: &Model<'_>, set: &ResourceSet) -> Self {
        let members = set.members.iter().filter_map(|m| model.constrained(&m.resource)).collect();
        let words = model.set_words(set);
        Self {
            id: set.id.clone(),
            members,
            task: task_of(set.action),
            sequential: set.sequential,
            chain: match model.pacemaker {
                // Pacemaker does not apply the default of `sequential` here.
                Some(_) => words.chain,
                None => set.sequential,
            },
            require_all: set.require_all,
            kind: words.kind,
        }
    }

    /// Members that meet the neighbour: one end of a chain, else all.
    fn edge(&self, last: bool) -> Vec<RscIx> {
        let end = if last { self.members.last() } else { self.members.first() };
        if self.chain { end.into_iter().copied().collect() } else { self.members.clone() }
    }
}

/// Members of a sequential set come one after the other.
fn inside(model: &Model<'_>, table: &mut Table, kind: OrderKind, symmetry: Symmetry, set: &Set) {
    let link = link_of(kind, set.task, symmetry);
    if kind == OrderKind::Serialize {
        for (at, first) in set.members.iter().enumerate() {
            for then in set.members.iter().skip(at + 1) {
                table.sequence(model, (*first, set.task), (*then, set.task), link);
            }
        }
    } else if set.sequential {
        for two in set.members.windows(2) {
            if let [first, then] = *two {
                table.sequence(model, (first, set.task), (then, set.task), link);
            }
        }
    }
    if symmetry != Symmetry::Both || !set.sequential {
        return;
    }
    let undo = set.task.inverse();
    let link = link_of(kind, undo, Symmetry::Inverse);
    for two in set.members.windows(2) {
        if let [first, then] = *two {
            table.sequence(model, (then, undo), (first, undo), link);
        }
    }
}

fn between(
    model: &Model<'_>,
    table: &mut Table,
    (kind, symmetry): (OrderKind, Symmetry),
    (first, name): (&Set, String),
    then: &Set,
) {
    let inverse = symmetry == Symmetry::Inverse;
    let task = |set: &Set| if inverse { set.task.inverse() } else { set.task };
    let link = link_of(kind, task(first), symmetry);
    if !first.require_all && !inverse {
        let point = counting(table, &format!("one-or-more:{name}"), 1);
        for member in &first.members {
            let counted = Link::COUNTED | Link::SHOWS_THEN;
            table.order(model, End::Op(*member, task(first)), End::Act(point), counted);
        }
        for member in &then.members {
            let end = End::Op(*member, task(then));
            table.order(model, End::Act(point), end, link | Link::BLOCKS);
        }
        return;
    }
    for f in first.edge(!inverse) {
        for t in then.edge(inverse) {
            if f != t {
                table.sequence(model, (f, task(first)), (t, task(then)), link);
            }
        }
    }
}

/// What is to keep apart leaves a node before the other comes.
fn apart(model: &Model<'_>, table: &mut Table, c: &Coloc<'_>) {
    let sides = [(c.dependent, c.dependent_role), (c.primary, c.primary_role)];
    let (dependent, primary) = (sides[0], sides[1]);
    for ((leaver, lost), (comer, gained)) in [(dependent, primary), (primary, dependent)] {
        let leave: &[Task] = match lost {
            Some(Role::Promoted) => &[Task::Demote],
            Some(Role::Unpromoted) => &[Task::Stop, Task::Promote],
            _ => &[Task::Stop],
        };
        let come: &[Task] = match gained {
            Some(Role::Promoted) => &[Task::Promote],
            Some(Role::Unpromoted) => &[Task::Start, Task::Demote],
            _ => &[Task::Start],
        };
        for first in leave {
            for then in come {
                table.sequence(model, (leaver, *first), (comer, *then), Link::APART);
            }
        }
    }
}
