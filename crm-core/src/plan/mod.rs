//! The policy engine: what should run where, and the ordered actions that get there. Pure; phases are files.
//!
//! `read` (with `meta`, `history`) → `criteria` → orders that are known before anything is placed (`configured`, `internal`, `change`) →
//! `assign` (with `seats`, `colocate`, `pull`, `promote`, `capacity`) → actions (`probe`, `create` with `migrate`, `monitor`, `withhold`) → `fence`, `unfence` →
//! `order` (orders become edges) → `spread` with `collective` (needed, impossible) → `notify` → `graph` (with `params`, `digest`), `summary`.

mod actions;
mod assign;
mod bundle;
mod bundle_order;
mod bundled;
mod capacity;
mod change;
mod collective;
mod colocate;
mod configured;
mod create;
mod criteria;
mod depth;
mod digest;
mod distant;
mod fence;
mod graph;
mod health;
mod history;
mod implicit;
mod instances;
mod internal;
mod md5;
mod meta;
mod migrate;
mod model;
mod monitor;
mod moved;
mod moves;
mod notify;
mod notify_env;
mod onfail;
mod order;
mod params;
mod picture;
mod probe;
mod promote;
mod pull;
mod read;
mod records;
mod remote;
mod replay;
mod scores;
mod seats;
mod spread;
mod summary;
mod ticket;
mod told;
mod types;
mod unfence;
mod voice;
mod withhold;

pub use criteria::matches;
pub use digest::digest;
pub use implicit::remote_nodes;
pub use meta::{globally_unique, parse_role};
pub use picture::{Made, NodePicture, NodePlace, Picture, RscPicture, picture};
pub use records::digest_of;
pub use types::{
    Action, ActionId, ActionKind, ClusterOp, Explained, Habit, Habits, Input, Instance, NodeView,
    OpSpec, Pacemaker, Placement, Plan, Reason, ScorePhase, ScoreRow, SetWords,
};

use model::{Kind, Model};

#[cfg(test)]
mod tests;

/// Makes the plan that leads from what is seen to what is wanted. Same input, same plan.
#[must_use]
pub fn plan(input: &Input<'_>) -> Plan {
    depth::roomy(input, || {
        let implicit = implicit::Implicit::of(input);
        make(input, read::read(input, &implicit)).plan
    })
}

/// The same plan, with the scores it came from.
#[must_use]
pub fn explain(input: &Input<'_>) -> Explained {
    survey(input, true).1
}

/// What is seen, and the plan that is made from it: the histories are read once for both. With `scores` as [`explain`], else as [`plan`].
#[must_use]
pub fn survey(input: &Input<'_>, scores: bool) -> (Picture, Explained) {
    depth::roomy(input, || {
        let implicit = implicit::Implicit::of(input);
        let mut model = read::read(input, &implicit);
        let picture = picture::of(&model);
        model.trace = scores.then(Vec::new);
        (picture, make(input, model))
    })
}

fn make(input: &Input<'_>, mut model: Model<'_>) -> Explained {
    ticket::apply(&mut model);
    criteria::apply(&mut model);
    let mut table = actions::Table::new(&model);
    configured::note(&model, &mut table);
    internal::note(&model, &mut table);
    monitor::running(&mut model, &mut table);
    change::apply(&mut model, &mut table, input.now_ms);
    model.assign_all();
    model.lost_remotes();
    probe::schedule(&mut model, &mut table);
    create::apply(&mut model, &mut table);
    distant::order(&mut model, &mut table);
    fence::schedule(&mut model, &mut table);
    order::expand(&mut model, &mut table);
    spread::block(&mut model, &mut table);
    probe::order(&model, &mut table);
    spread::settle(&mut model, &mut table);
    graph::break_exchanges(&model, &mut table);
    let summary = summary::lines(&model, &table);
    notify::tell(&mut model, &mut table);
    graph::merge(&mut table);
    let actions = graph::emit(&mut model, &table, input.only);
    let placements = placements(&model);
    let fences = model.fences.into_iter().map(|(n, why)| (n.to_owned(), why)).collect();
    let mut reasons = model.reasons;
    reasons.sort_by(|a, b| key(a).cmp(&key(b)));
    reasons.dedup();
    let scores = model.trace.unwrap_or_default();
    Explained { plan: Plan { actions, placements, reasons, summary, fences }, scores }
}

fn key(reason: &Reason) -> (&str, Option<&str>, &str, &str) {
    (&reason.resource, reason.node.as_deref(), &reason.code, &reason.text)
}

fn placements(model: &Model<'_>) -> Vec<Placement> {
    let name = |n: usize| model.nodes[n].name.to_owned();
    let primitives = model.rscs.iter().filter(|r| matches!(r.kind, Kind::Primitive));
    primitives
        .map(|r| Placement {
            instance: Instance { resource: r.id.to_owned(), number: r.number },
            now: r.active.iter().map(|a| (name(a.node), a.role)).collect(),
            node: r.assigned.map(name),
            role: r.next_role,
        })
        .collect()
}
