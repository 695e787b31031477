//! What the agent of a clone instance is told of the others of its clone (`CRM_meta_notify_*`; OCF: Pacemaker Explained, "Clone Notifications").

use super::actions::{Stage, Table, Task};
use super::model::{Model, NodeIx, RscIx};
use crate::cib::Role;
use std::collections::{BTreeMap, BTreeSet};

/// Instances and where they are.
type Places = BTreeSet<(String, NodeIx)>;

/// What all instances of a clone are told alike, made once for each clone of a plan.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<RscIx, Vec<(String, String)>>);

impl Told {
    /// Adds it to the parameters of an operation of an instance of a clone with `notify=true`; of a notification also when and of what it tells.
    pub(super) fn add(
        &mut self,
        model: &Model<'_>,
        table: &Table,
        (r, task): (RscIx, Task),
        params: &mut BTreeMap<String, String>,
    ) {
        let changes = matches!(
            task,
            Task::Start | Task::Stop | Task::Promote | Task::Demote | Task::Notify(..)
        );
        if !changes || !super::notify::wanted(model, r) {
            return;
        }
        if let Task::Notify(stage, of) = task {
            let when = match stage {
                Stage::Pre | Stage::PreDone => "pre",
                Stage::Post | Stage::PostDone => "post",
            };
            let what = of.task().word();
            for (name, value) in
                [("type", when), ("key_type", when), ("operation", what), ("key_operation", what)]
            {
                params.insert(key(name), value.to_owned());
            }
        }
        let clone = model.rscs[r].clone.unwrap_or(r);
        let lists = self.0.entry(clone).or_insert_with(|| lists(model, table, clone));
        params.extend(lists.iter().cloned());
    }
}

fn key(name: &str) -> String {
    ["CRM_meta_notify_", name].concat()
}

fn lists(model: &Model<'_>, table: &Table, clone: RscIx) -> Vec<(String, String)> {
    let mut out = Vec::with_capacity(24);
    let mut put = |name: &str, value: String| out.push((key(name), value));
    let leaves = model.leaves(clone);
    for (name, task) in [
        ("start", Task::Start),
        ("stop", Task::Stop),
        ("promote", Task::Promote),
        ("demote", Task::Demote),
    ] {
        pair(model, &[name], &changing(model, table, &leaves, task), &mut put);
    }
    let promoted = now(model, &leaves, |role| role == Role::Promoted);
    let unpromoted = now(model, &leaves, |role| role == Role::Unpromoted);
    pair(model, &["promoted", "master"], &promoted, &mut put);
    pair(model, &["unpromoted", "slave"], &unpromoted, &mut put);
    pair(model, &["active"], &now(model, &leaves, |role| role > Role::Stopped), &mut put);
    let idle = leaves.iter().filter(|l| model.rscs[**l].active.is_empty());
    put("inactive_resource", words(idle.map(|l| label(model, *l))));
    let names = |nodes: &mut dyn Iterator<Item = NodeIx>| {
        words(nodes.map(|n| model.nodes[n].name.to_owned()))
    };
    put("available_uname", names(&mut (0..model.nodes.len()).filter(|n| model.nodes[*n].online)));
    put("all_uname", names(&mut (0..model.nodes.len())));
    out
}

/// The instances that an action of the plan is about.
fn changing(model: &Model<'_>, table: &Table, leaves: &[RscIx], task: Task) -> Places {
    let mut out = Places::new();
    for leaf in leaves {
        for act in table.all(*leaf, task).into_iter().filter(|a| table.happens(*a)) {
            out.extend(table.acts[act].node.map(|node| (label(model, *leaf), node)));
        }
    }
    out
}

/// The instances that have such a role before the plan.
fn now(model: &Model<'_>, leaves: &[RscIx], is: impl Fn(Role) -> bool) -> Places {
    let of = |leaf: &RscIx| {
        let name = label(model, *leaf);
        let seen = model.rscs[*leaf].active.iter().filter(|s| is(s.role));
        seen.map(move |s| (name.clone(), s.node)).collect::<Vec<_>>()
    };
    leaves.iter().flat_map(of).collect()
}

fn label(model: &Model<'_>, leaf: RscIx) -> String {
    format!("{}:{}", model.rscs[leaf].id, model.rscs[leaf].number)
}

/// `NAME_resource` and `NAME_uname`, entry by entry about the same instance.
fn pair(model: &Model<'_>, names: &[&str], places: &Places, put: &mut impl FnMut(&str, String)) {
    for name in names {
        put(&format!("{name}_resource"), words(places.iter().map(|(id, _)| id.clone())));
        let nodes = places.iter().map(|(_, node)| model.nodes[*node].name.to_owned());
        put(&format!("{name}_uname"), words(nodes));
    }
}

/// Agents expect a space where there is nothing.
fn words(list: impl Iterator<Item = String>) -> String {
    let joined = list.collect::<Vec<_>>().join(" ");
    if joined.is_empty() { " ".to_owned() } else { joined }
}
