//! Which resource, and which instance, a name in a history stands for.

use super::model::{Kind, NodeIx, NodeKind, RscIx};
use super::replay::Replay;
use crate::cib::Score;
use crate::lrm::RscRecord;

impl<'a> Replay<'_, 'a> {
    /// What is recorded and not configured: it has no settings but the defaults, and nowhere to be.
    pub(super) fn removed(&mut self, record: &'a RscRecord) -> RscIx {
        let r = self.b.add_removed(&record.id, &record.agent);
        // One that still runs can be used.
        self.model().props.fence_device |= record.agent.class == "stonith";
        if !self.b.model.props.stop_removed {
            self.model().rscs[r].meta.is_managed = false;
        } else {
            self.model().rscs[r].scores.fill(Score::NEG_INF);
        }
        r
    }

    /// The primitive a name in a history stands for; none when there is no such primitive (any more).
    pub(super) fn find(&mut self, n: NodeIx, id: &str) -> Option<RscIx> {
        let exact = self.b.labels.get(id).copied();
        let r = exact.or_else(|| {
            let base = match id.rsplit_once(':') {
                Some((base, number)) if number.parse::<u32>().is_ok() => base,
                Some(_) | None => id,
            };
            let first = self.b.labels.get(&format!("{base}:0")).copied()?;
            // What is not configured any more has a name, and no number.
            let alike = self.b.model.rscs[first].clone.is_some() && !self.b.model.unique(first);
            alike.then_some(first)
        })?;
        if !matches!(self.b.model.rscs[r].kind, Kind::Primitive) {
            return None;
        }
        let alike = self.b.model.rscs[r].clone.filter(|_| !self.b.model.unique(r));
        let found = match alike {
            Some(_) if self.bundled(r) => self.b.model.bundled_on(r, n).unwrap_or(r),
            Some(clone) => self.instance(n, clone, self.b.model.rscs[r].id),
            None => r,
        };
        if self.b.model.rscs[found].id != id && !self.b.model.unique(found) {
            self.model().rscs[found].now.history = Some(id.to_owned());
        }
        Some(found)
    }

    /// The instance that is active there, else the first that is active nowhere, else one more.
    fn instance(&mut self, n: NodeIx, clone: RscIx, id: &str) -> RscIx {
        let model = &self.b.model;
        let member =
            |instance: RscIx| model.leaves(instance).into_iter().find(|l| model.rscs[*l].id == id);
        let (mut found, mut idle, mut no_idle) = (None, None, false);
        for instance in &model.rscs[clone].children {
            let leaves = model.leaves(*instance);
            let places = leaves.iter().flat_map(|l| {
                let rsc = &model.rscs[*l];
                let pending = rsc.now.pending.as_ref().map(|(_, node)| *node);
                rsc.active.iter().map(|a| a.node).chain(pending)
            });
            let places: Vec<NodeIx> = places.collect();
            if places.contains(&n) {
                found = member(*instance);
                if found.is_some_and(|f| !model.rscs[f].active.is_empty()) {
                    // More than one history on a node, of what had numbers once: all but one are too many.
                    no_idle = true;
                    found = None;
                }
                if found.is_some() {
                    break;
                }
            } else if places.is_empty() && !no_idle && idle.is_none() {
                let held = leaves.iter().any(|l| model.rscs[*l].now.held);
                idle = member(*instance).filter(|_| !held);
            }
        }
        let found = found.or_else(|| idle.filter(|_| !no_idle)).filter(|f| {
            let node = &model.nodes[n];
            let universal =
                model.rscs[clone].clone_info().is_some_and(|i| i.max == model.nodes.len());
            model.rscs[*f].meta.needs_fencing
                || (node.online && node.clean)
                || matches!(node.kind, NodeKind::Guest { .. })
                || universal
        });
        match found {
            Some(found) => found,
            None => self.b.grow(clone, id),
        }
    }
}
