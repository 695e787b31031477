//! Remote and guest nodes: where their connections may be, and when such a node can be used.

use super::model::{Coloc, Kind, Model, NodeIx, RscIx};
use crate::cib::{Role, Score};

/// What follows from living inside something or being the way to a node: locations and colocations.
pub(super) fn constrain(model: &mut Model<'_>) {
    if !model.props.exact {
        return;
    }
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) {
            continue;
        }
        let connection = model.rscs[r].connection_of.is_some();
        if let Some(container) = model.rscs[r].container {
            inside(model, r, container, connection);
        }
        let device = model.rscs[r].agent.is_some_and(|a| a.class == "stonith");
        if connection || device {
            avoid_remote_nodes(model, r);
        }
    }
}

fn inside(model: &mut Model<'_>, r: RscIx, container: RscIx, connection: bool) {
    let nests = model.rscs[r].nests;
    let way = if connection {
        if !nests {
            // A node that is reached over a connection does not carry another one.
            avoid_remote_nodes(model, container);
        }
        None
    } else if model.rscs[container].connection_of.is_some() {
        Some(container)
    } else {
        let fillers = model.rscs[container].fillers.iter().copied();
        fillers.into_iter().find(|f| model.rscs[*f].connection_of.is_some())
    };
    if let Some(way) = way {
        // It belongs onto the node that lives there, not beside it.
        let there = model.rscs[way].connection_of;
        for n in (0..model.nodes.len()).filter(|n| Some(*n) != there) {
            model.rscs[r].scores[n] = Score::NEG_INF;
        }
        return;
    }
    model.colocs.push(Coloc {
        id: "#resource-with-container",
        score: if nests { Score::new(10_000) } else { Score::INF },
        dependent: r,
        dependent_role: None,
        primary: container,
        primary_role: None,
        attribute: "#uname",
        internal: false,
        influence: true,
    });
}

/// Only members of the cluster can have it.
pub(super) fn avoid_remote_nodes(model: &mut Model<'_>, r: RscIx) {
    for n in 0..model.nodes.len() {
        if model.nodes[n].kind.connection().is_some() {
            model.rscs[r].scores[n] = Score::NEG_INF;
        }
    }
}

impl Model<'_> {
    /// The way to a node has its place: now it is known whether the node can be used.
    pub(super) fn connection_assigned(&mut self, connection: RscIx, node: NodeIx) {
        let rsc = &self.rscs[connection];
        let goes_up = rsc.assigned.is_some() && rsc.next_role != Role::Stopped;
        let node = &mut self.nodes[node];
        if goes_up {
            node.online = true;
            if node.unseen {
                // It will be asked what it runs; no need to cut it off.
                node.clean = true;
                node.fence = None;
            }
        } else {
            node.leaving = true;
        }
        self.voices.forget();
    }
}
