//! What is not configured any more and may still run: its definition is found in the revisions, so that it can be stopped.

use super::State;
use crate::cib::{Cib, Primitive, Resource, Role};
use crate::status::{Removed, ResourceHistory, Status};
use std::collections::{BTreeMap, BTreeSet};

fn may_run(history: &ResourceHistory) -> bool {
    history.role.is_none_or(|role| role != Role::Stopped)
}

impl State {
    /// Definitions of what may run according to `status` and is not in `wanted` (any more), as far as the revisions kept have them.
    #[must_use]
    pub fn removed(&self, wanted: &Cib, status: &Status) -> BTreeMap<String, Removed> {
        let configured: BTreeSet<&str> =
            wanted.primitives().into_iter().map(|p| p.id.as_str()).collect();
        let known = status.nodes.values().flat_map(|node| &node.resources);
        known
            .filter(|(id, history)| may_run(history) && !configured.contains(id.as_str()))
            .filter_map(|(id, _)| Some((id.clone(), self.last_definition(id)?)))
            .collect()
    }

    fn last_definition(&self, id: &str) -> Option<Removed> {
        let older = || self.revisions.iter().rev().find_map(|r| definition(&r.cib, id));
        definition(&self.cib, id).or_else(older)
    }

    /// Of what was not configured and runs nowhere, nothing more need be known. (Called before a new configuration is taken.)
    pub(super) fn forget_removed(&mut self) {
        let configured: BTreeSet<&str> =
            self.cib.primitives().into_iter().map(|p| p.id.as_str()).collect();
        for node in self.status.nodes.values_mut() {
            node.resources.retain(|id, history| {
                configured.contains(id.as_str()) || history.role != Some(Role::Stopped)
            });
        }
    }

    /// Why the configuration cannot be taken: something runs, and its agent would be another one. That one would be asked to stop what the
    /// old one has started.
    pub(super) fn other_agent(&self, wanted: &Cib) -> Option<String> {
        let runs = |id: &str| {
            let known = |node: &crate::status::NodeStatus| {
                let role = node.resources.get(id).and_then(|history| history.role);
                role.is_some_and(|role| role != Role::Stopped)
            };
            self.status.nodes.iter().find(|(_, node)| known(node)).map(|(name, _)| name)
        };
        wanted.primitives().into_iter().find_map(|primitive| {
            let id = primitive.id.as_str();
            let node = runs(id)?;
            let old = self.last_definition(id)?.primitive.agent;
            (old != primitive.agent).then(|| {
                format!(
                    "`{id}` runs on {node} by the agent {old}: stop it (`crm resource stop {id}`) before its agent becomes {}",
                    primitive.agent
                )
            })
        })
    }
}

fn definition(cib: &Cib, id: &str) -> Option<Removed> {
    let primitive = cib.primitive(id)?;
    let mut out = Removed { primitive: primitive.clone(), cloned: false, promotable: false };
    let mut at = cib.top_of(id);
    while let Some(resource) = at {
        at = match resource {
            Resource::Clone(clone) => {
                out.cloned = true;
                out.promotable = clone.promotable();
                inherit(&mut out.primitive, &clone.params, &clone.meta);
                Some(&clone.child)
            }
            Resource::Group(group) => {
                inherit(&mut out.primitive, &group.params, &group.meta);
                None
            }
            Resource::Primitive(_) | Resource::Bundle(_) => None,
        };
    }
    Some(out)
}

/// Parameters come from the parents where the primitive has none of its own; of the meta attributes whether it is managed.
fn inherit(primitive: &mut Primitive, params: &crate::cib::NvSet, meta: &crate::cib::NvSet) {
    for pair in &params.pairs {
        if primitive.params.get(&pair.name).is_none() {
            primitive.params.pairs.push(pair.clone());
        }
    }
    for name in ["is-managed", "maintenance"] {
        if let (None, Some(value)) = (primitive.meta.get(name), meta.get(name)) {
            let value = value.to_owned();
            primitive.meta.set(name, &value);
        }
    }
}
