//! Phase 11: what must come before what, and what that makes needed or impossible.

use super::actions::{ActIx, Link, Table, Task, What};
use super::model::{Kind, Model, RscIx};
use crate::cib::{Constraint, Order, OrderAction, OrderKind, ResourceSet, Role, Score};

/// An order between two resources, sets already expanded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    id: &'a str,
    pub(super) first: RscIx,
    pub(super) first_task: Task,
    pub(super) then: RscIx,
    pub(super) then_task: Task,
    pub(super) kind: OrderKind,
    symmetrical: bool,
}

const fn task_of(action: OrderAction) -> Task {
    match action {
        OrderAction::Start => Task::Start,
        OrderAction::Stop => Task::Stop,
        OrderAction::Promote => Task::Promote,
        OrderAction::Demote => Task::Demote,
    }
}

/// Orders of the configuration and of groups; sets with `require-all=false` bind themselves.
pub(super) fn unpack<'a>(model: &Model<'a>) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for (r, rsc) in model.rscs.iter().enumerate() {
        match &rsc.kind {
            Kind::Group { ordered: true, .. } => group_chain(model, r, &mut pairs),
            Kind::Clone(info) if info.ordered => group_chain(model, r, &mut pairs),
            Kind::Group { ordered: false, .. } | Kind::Clone(_) | Kind::Primitive => {}
        }
    }
    let cib = model.cib;
    for constraint in &cib.constraints {
        if let Constraint::Order(o) = constraint {
            unpack_order(model, o, &mut pairs);
        }
    }
    pairs
}

fn group_chain<'a>(model: &Model<'a>, r: RscIx, pairs: &mut Vec<Pair<'a>>) {
    let clone = matches!(model.rscs[r].kind, Kind::Clone(_));
    let kind = if clone { OrderKind::Optional } else { OrderKind::Mandatory };
    let roles = model.rscs[r].clone.is_some_and(|c| model.rscs[c].promotable());
    for two in model.rscs[r].children.windows(2) {
        let &[first, then] = two else { continue };
        let id = model.rscs[r].id;
        for task in [Task::Start, Task::Promote] {
            if task == Task::Start || roles {
                let (first_task, then_task) = (task, task);
                pairs.push(Pair {
                    id,
                    first,
                    first_task,
                    then,
                    then_task,
                    kind,
                    symmetrical: true,
                });
            }
        }
    }
}

fn unpack_order<'a>(model: &Model<'a>, o: &'a Order, pairs: &mut Vec<Pair<'a>>) {
    if o.sets.is_empty() {
        let first_task = o.first_action.map_or(Task::Start, task_of);
        let then_task = o.then_action.map_or(first_task, task_of);
        push_pair(model, o, (&o.first, first_task), (&o.then, then_task), pairs);
        return;
    }
    let action = |set: &ResourceSet| set.action.map_or(Task::Start, task_of);
    for set in &o.sets {
        for two in set.members.windows(2) {
            if let ([a, b], true) = (two, set.sequential) {
                push_pair(model, o, (&a.resource, action(set)), (&b.resource, action(set)), pairs);
            }
        }
    }
    for two in o.sets.windows(2) {
        let [a, b] = two else { continue };
        if !a.require_all {
            continue;
        }
        for first in edge_members(a, true) {
            for then in edge_members(b, false) {
                push_pair(model, o, (first, action(a)), (then, action(b)), pairs);
            }
        }
    }
}

/// Members of a set that meet its neighbour: all of a parallel one, the last or first of a sequential one.
fn edge_members(set: &ResourceSet, last: bool) -> Vec<&str> {
    let end = if last { set.members.last() } else { set.members.first() };
    let members: Vec<_> =
        if set.sequential { end.into_iter().collect() } else { set.members.iter().collect() };
    members.into_iter().map(|m| m.resource.as_str()).collect()
}

fn push_pair<'a>(
    model: &Model<'a>,
    o: &'a Order,
    first: (&str, Task),
    then: (&str, Task),
    pairs: &mut Vec<Pair<'a>>,
) {
    let (Some(f), Some(t)) = (model.constrained(first.0), model.constrained(then.0)) else {
        return;
    };
    if f == t {
        return;
    }
    pairs.push(Pair {
        id: &o.id,
        first: f,
        first_task: first.1,
        then: t,
        then_task: then.1,
        kind: o.kind,
        symmetrical: o.symmetrical.unwrap_or(o.kind != OrderKind::Serialize),
    });
}

/// Binds the actions of the table.
pub(super) fn bind(model: &mut Model<'_>, table: &mut Table, pairs: &[Pair<'_>]) {
    for pair in pairs {
        bind_pair(model, table, pair);
    }
    bind_alternatives(model, table);
    bind_colocations(model, table);
    bind_probes(model, table, pairs);
}

fn is_clone(model: &Model<'_>, r: RscIx) -> bool {
    model.rscs[r].clone.is_some() || matches!(model.rscs[r].kind, Kind::Clone(_))
}

fn bind_pair(model: &mut Model<'_>, table: &mut Table, pair: &Pair<'_>) {
    if let Some(min) = clone_min(model, pair) {
        bind_min(model, table, pair, min);
        return;
    }
    if interleaved(model, pair) {
        let instances = model.rscs[pair.then].children.clone();
        for then in instances {
            bind_interleaved(model, table, pair, then);
        }
        return;
    }
    match pair.kind {
        OrderKind::Optional | OrderKind::Serialize => {
            order_only(table, (pair.first, pair.first_task), (pair.then, pair.then_task));
            if pair.symmetrical {
                let (then, first) = (pair.then_task.inverse(), pair.first_task.inverse());
                order_only(table, (pair.then, then), (pair.first, first));
            }
        }
        OrderKind::Mandatory => {
            bind_forward(model, table, pair);
            if pair.symmetrical {
                bind_inverse(model, table, pair);
            }
        }
    }
}

/// `clone-min` of what comes first, when it counts.
fn clone_min(model: &Model<'_>, pair: &Pair<'_>) -> Option<u32> {
    let info = model.rscs[pair.first].clone_info()?;
    let mandatory = pair.kind == OrderKind::Mandatory && pair.first_task.rises();
    (mandatory && model.props.exact && info.min > 0).then_some(info.min)
}

/// So many instances suffice; all of them come first where they come at all.
fn bind_min(model: &Model<'_>, table: &mut Table, pair: &Pair<'_>, min: u32) {
    let point = table.add(What::Point(format!("clone-one-or-more:{}", pair.id)), pair.first, None);
    let mut granted = 0;
    for instance in &model.rscs[pair.first].children {
        granted += u32::from(model.satisfied(*instance, pair.first_task));
        for e in table.ends(*instance, pair.first_task) {
            table.link(e, point, Link::ORDER | Link::ANY | Link::IMPLIES_THEN);
        }
    }
    table.acts[point].granted = granted;
    table.acts[point].enough = min;
    table.acts[point].runnable = possible_input(table, point);
    for begin in table.begins(pair.then, pair.then_task) {
        table.link(point, begin, Link::ORDER);
    }
    for then in table.operations(model, pair.then, pair.then_task) {
        table.link(point, then, Link::BLOCKS);
    }
    if pair.symmetrical {
        let (then, first) = (pair.then_task.inverse(), pair.first_task.inverse());
        order_only(table, (pair.then, then), (pair.first, first));
    }
}

fn interleaved(model: &Model<'_>, pair: &Pair<'_>) -> bool {
    let info = |r: RscIx| model.rscs[r].clone_info();
    pair.kind == OrderKind::Mandatory
        && info(pair.first).is_some()
        && info(pair.then).is_some_and(|i| i.interleave)
}

/// Each instance waits only for its partner on the same node.
fn bind_interleaved(model: &mut Model<'_>, table: &mut Table, pair: &Pair<'_>, then: RscIx) {
    let on = |m: &Model<'_>, i: RscIx| {
        let leaves = m.leaves(i);
        let active = leaves.iter().find_map(|l| m.rscs[*l].active.first()).map(|a| a.node);
        (m.rscs[i].assigned, active)
    };
    let (assigned, active) = on(model, then);
    let partners = model.rscs[pair.first].children.clone();
    let partner =
        partners.iter().copied().find(|p| assigned.is_some() && on(model, *p).0 == assigned);
    if assigned.is_some() {
        match partner {
            Some(first) => bind_forward(model, table, &Pair { first, then, ..*pair }),
            None => block_all(model, table, pair, then),
        }
    }
    if !pair.symmetrical || active.is_none() {
        return;
    }
    if let Some(first) = partners.into_iter().find(|p| on(model, *p).1 == active) {
        bind_inverse(model, table, &Pair { first, then, ..*pair });
    }
}

fn order_only(table: &mut Table, first: (RscIx, Task), then: (RscIx, Task)) {
    let (ends, begins) = (table.ends(first.0, first.1), table.begins(then.0, then.1));
    for e in &ends {
        for b in &begins {
            table.link(*e, *b, Link::ORDER);
        }
    }
}

fn bind_forward(model: &mut Model<'_>, table: &mut Table, pair: &Pair<'_>) {
    order_only(table, (pair.first, pair.first_task), (pair.then, pair.then_task));
    let ends = table.ends(pair.first, pair.first_task);
    let thens = table.operations(model, pair.then, pair.then_task);
    if ends.is_empty() && pair.first_task.rises() && !model.satisfied(pair.first, pair.first_task) {
        block_all(model, table, pair, pair.then);
        return;
    }
    for e in &ends {
        for t in &thens {
            // An asymmetric order does not undo what is already done.
            let undoes = pair.symmetrical || table.acts[*t].required;
            if pair.then_task.rises() && pair.first_task.rises() && undoes {
                table.link(*e, *t, Link::BLOCKS);
            } else if pair.then_task.rises() {
                table.link(*e, *t, Link::BLOCKS_IF_NEEDED);
            }
        }
    }
    if !pair.symmetrical {
        return;
    }
    if !is_clone(model, pair.first) {
        for e in &ends {
            for t in &thens {
                table.link(*e, *t, Link::IMPLIES_THEN);
            }
        }
        return;
    }
    // One instance that starts elsewhere restarts nobody here.
    for f in table.operations(model, pair.first, pair.first_task) {
        for t in &thens {
            if table.acts[f].node == table.acts[*t].node {
                table.link(f, *t, Link::IMPLIES_THEN);
            }
        }
    }
}

/// The first can not happen: neither can the second.
fn block_all(model: &mut Model<'_>, table: &mut Table, pair: &Pair<'_>, then: RscIx) {
    let mut told = false;
    for t in table.operations(model, then, pair.then_task) {
        if !pair.then_task.rises() || (!pair.symmetrical && !table.acts[t].required) {
            continue;
        }
        table.acts[t].runnable = false;
        if !told {
            let (verb, other) = (pair.first_task.op(), model.rscs[pair.first].id);
            let text =
                format!("waits for {verb} of {other}, which is not going to happen ({})", pair.id);
            model.because(then, table.acts[t].node, "order", text).by(other);
            told = true;
        }
    }
}

fn bind_inverse(model: &mut Model<'_>, table: &mut Table, pair: &Pair<'_>) {
    let (down, up) = (pair.then_task.inverse(), pair.first_task.inverse());
    order_only(table, (pair.then, down), (pair.first, up));
    let firsts = table.operations(model, pair.then, down);
    let local = is_clone(model, pair.first);
    let thens = table.operations(model, pair.first, up);
    for f in &firsts {
        for t in &thens {
            if !local || table.acts[*f].node == table.acts[*t].node {
                table.link(*f, *t, Link::IMPLIES_FIRST | Link::BLOCKS_IF_NEEDED);
            }
        }
    }
    if down.rises() || up.rises() {
        return;
    }
    // Something above it can not be taken down: it stays up.
    for leaf in model.leaves(pair.then) {
        let held: Vec<_> = model.rscs[leaf].active.iter().filter(|a| a.blocked).copied().collect();
        for seen in held {
            for t in &thens {
                if !local || table.acts[*t].node == Some(seen.node) {
                    table.acts[*t].runnable = false;
                    let text = format!(
                        "stays up: {} above it is blocked ({})",
                        model.rscs[leaf].id, pair.id
                    );
                    let above = model.rscs[leaf].id;
                    model.because(table.acts[*t].rsc, Some(seen.node), "blocked", text).by(above);
                }
            }
        }
    }
}

/// `require-all=false`: one of the first set suffices.
fn bind_alternatives(model: &mut Model<'_>, table: &mut Table) {
    let cib = model.cib;
    for constraint in &cib.constraints {
        let Constraint::Order(o) = constraint else { continue };
        for (number, two) in o.sets.windows(2).enumerate() {
            let [a, b] = two else { continue };
            if a.require_all {
                continue;
            }
            let first_task = a.action.map_or(Task::Start, task_of);
            let then_task = b.action.map_or(Task::Start, task_of);
            let firsts = a.members.iter().filter_map(|m| model.constrained(&m.resource));
            let firsts: Vec<RscIx> = firsts.collect();
            let Some(owner) = firsts.first().copied() else { continue };
            let name = format!("one-or-more:{}:{number}", o.id);
            let point = table.add(What::Point(name), owner, None);
            let (mut possible, mut granted) = (false, 0);
            for first in firsts {
                granted += u32::from(model.satisfied(first, first_task));
                for e in table.ends(first, first_task) {
                    possible |= table.acts[e].runnable;
                    table.link(e, point, Link::ORDER | Link::ANY | Link::IMPLIES_THEN);
                }
            }
            table.acts[point].granted = granted;
            table.acts[point].runnable = possible || granted > 0;
            for then in edge_members(b, false).into_iter().filter_map(|id| model.constrained(id)) {
                for begin in table.begins(then, then_task) {
                    table.link(point, begin, Link::ORDER);
                }
                for t in table.operations(model, then, then_task) {
                    table.link(point, t, Link::BLOCKS);
                }
            }
        }
    }
}

fn bind_colocations(model: &Model<'_>, table: &mut Table) {
    for c in &model.colocs {
        let task = |role: Option<Role>| {
            if role == Some(Role::Promoted) { Task::Promote } else { Task::Start }
        };
        if c.score == Score::NEG_INF {
            for (leaver, comer) in [(c.primary, c.dependent), (c.dependent, c.primary)] {
                for stop in table.operations(model, leaver, Task::Stop) {
                    for start in table.operations(model, comer, Task::Start) {
                        if table.acts[stop].node == table.acts[start].node {
                            table.link(stop, start, Link::ORDER);
                        }
                    }
                }
            }
        }
        if c.score != Score::INF {
            continue;
        }
        // Who must be with something that can not come does not come either.
        let first = match model.rscs[c.primary].kind {
            Kind::Group { .. } => model.rscs[c.primary].children.last().copied(),
            Kind::Primitive | Kind::Clone(_) => Some(c.primary),
        };
        let Some(first) = first else { continue };
        for e in table.ends(first, task(c.primary_role)) {
            for t in table.operations(model, c.dependent, task(c.dependent_role)) {
                table.link(e, t, Link::BLOCKS);
            }
        }
    }
}

/// Nothing of a family of resources (bound by constraints) changes before all of it is known.
fn bind_probes(model: &Model<'_>, table: &mut Table, pairs: &[Pair<'_>]) {
    if model.props.exact {
        bind_probes_exactly(model, table, pairs);
        return;
    }
    let mut family = petgraph::unionfind::UnionFind::new(model.rscs.len());
    for (r, rsc) in model.rscs.iter().enumerate() {
        if let Some(parent) = rsc.parent {
            family.union(r, parent);
        }
    }
    for c in &model.colocs {
        family.union(c.dependent, c.primary);
    }
    for pair in pairs {
        family.union(pair.first, pair.then);
    }
    let mut barrier: Vec<Option<ActIx>> = vec![None; model.rscs.len()];
    for (r, node) in &model.probes {
        let n = &model.nodes[*node];
        let usable = n.online && n.clean && !n.pending && n.fence.is_none();
        if model.rscs[*r].no_probe.contains(node) || !usable {
            continue;
        }
        let probe = table.add(What::Probe, *r, Some(*node));
        table.acts[probe].required = true;
        let head = family.find(*r);
        let point = match barrier[head] {
            Some(point) => point,
            None => {
                let name = format!("{}_probed_0", model.rscs[model.top(*r)].id);
                let point = table.add(What::Point(name), *r, None);
                barrier[head] = Some(point);
                point
            }
        };
        table.link(probe, point, Link::ORDER | Link::IMPLIES_THEN | Link::BLOCKS);
    }
    for r in 0..model.rscs.len() {
        let Some(point) = barrier[family.find(r)] else { continue };
        for task in Task::ALL {
            for act in table.tasks(r, task).to_vec() {
                table.link(point, act, Link::ORDER);
            }
        }
    }
}

/// A resource's probes come before its start (the whole clone's where instances are alike), and before the stop of what it stands on.
fn bind_probes_exactly(model: &Model<'_>, table: &mut Table, pairs: &[Pair<'_>]) {
    let mut probes: Vec<Vec<ActIx>> = vec![Vec::new(); model.rscs.len()];
    for (r, node) in &model.probes {
        let n = &model.nodes[*node];
        let usable = n.online && n.clean && !n.pending && n.fence.is_none();
        if model.rscs[*r].no_probe.contains(node) || !usable {
            continue;
        }
        let probe = table.add(What::Probe, *r, Some(*node));
        table.acts[probe].required = true;
        probes[*r].push(probe);
        let parent = model.rscs[*r].parent;
        let alike =
            |p: &RscIx| model.rscs[*p].clone_info().is_some_and(|info| !info.globally_unique);
        let whole = parent.filter(alike).unwrap_or(*r);
        for begin in table.begins(whole, Task::Start) {
            table.link(probe, begin, Link::ORDER);
        }
    }
    for pair in pairs.iter().filter(|p| p.first_task == Task::Start && p.symmetrical) {
        let stops = table.operations(model, pair.first, Task::Stop);
        let above: Vec<ActIx> =
            model.leaves(pair.then).into_iter().flat_map(|l| probes[l].clone()).collect();
        for stop in stops {
            for probe in &above {
                table.link(*probe, stop, Link::ORDER);
            }
        }
    }
}

/// Spreads "needed" and "impossible" until nothing changes. Both only ever grow, so this ends.
pub(super) fn settle(table: &mut Table) {
    let mut work: Vec<ActIx> = (0..table.acts.len())
        .rev()
        .filter(|a| table.acts[*a].required || !table.acts[*a].runnable)
        .collect();
    while let Some(act) = work.pop() {
        let mut next = Vec::new();
        let (required, runnable) = (table.acts[act].required, table.acts[act].runnable);
        for (then, link) in table.out[act].clone() {
            let stuck = !runnable
                && (link.has(Link::BLOCKS) || (required && link.has(Link::BLOCKS_IF_NEEDED)));
            let starved = !runnable && link.has(Link::ANY);
            if required && link.has(Link::IMPLIES_THEN) {
                need(table, then, &mut next);
            }
            if stuck || (starved && !possible_input(table, then)) {
                forbid(table, then, &mut next);
            }
        }
        for (first, link) in table.into[act].clone() {
            if (required && link.has(Link::IMPLIES_FIRST))
                || (!runnable && link.has(Link::GIVES_UP))
            {
                need(table, first, &mut next);
            }
        }
        work.extend(next);
    }
}

/// Enough of the inputs of which some suffice are still possible.
fn possible_input(table: &Table, point: ActIx) -> bool {
    let possible =
        |(first, link): &&(ActIx, Link)| link.has(Link::ANY) && table.acts[*first].runnable;
    let count = table.into[point].iter().filter(possible).count();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    count.saturating_add(table.acts[point].granted) >= table.acts[point].enough
}

fn need(table: &mut Table, act: ActIx, next: &mut Vec<ActIx>) {
    if !table.acts[act].required {
        table.acts[act].required = true;
        next.push(act);
    }
}

fn forbid(table: &mut Table, act: ActIx, next: &mut Vec<ActIx>) {
    if table.acts[act].runnable {
        table.acts[act].runnable = false;
        next.push(act);
    }
}
