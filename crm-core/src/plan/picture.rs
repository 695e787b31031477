//! What runs where as the engine reads it from the histories: the tree of resources with their states, for `status` and simulations.

use super::model::{BundleIx, Kind, Model, NodeKind, ReplicaIx, RscIx};
use super::{Habit, Input};
use crate::cib::{Resource, Role};

/// A cluster as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Nodes in natural order.
    pub nodes: Vec<NodePicture>,
    /// Top-level resources in document order, then those that are not configured any more.
    pub resources: Vec<RscPicture>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact about a node")]
pub struct NodePicture {
    /// Name.
    pub name: String,
    /// A member that runs the cluster.
    pub online: bool,
    /// Nothing unknown may run there.
    pub clean: bool,
    /// Is just coming or going.
    pub pending: bool,
    /// Is to run nothing.
    pub standby: bool,
    /// Is to be left alone.
    pub maintenance: bool,
    /// How it belongs to the cluster.
    pub place: NodePlace,
}

/// How a node belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodePlace {
    /// A member.
    #[default]
    Member,
    /// Reached over a connection.
    Remote,
    /// The same, and it lives in a resource.
    Guest,
}

/// What a resource is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// A primitive with its agent.
    Primitive {
        /// `class:provider:type`.
        agent: String,
    },
    /// A group.
    Group,
    /// A clone.
    Clone {
        /// Some instances are promoted.
        promotable: bool,
        /// Instances differ.
        unique: bool,
        /// Id of what is cloned.
        of: String,
    },
    /// A bundle; its children are its replicas.
    Bundle {
        /// Several replicas may run on one node.
        unique: bool,
        /// Image of the containers.
        image: String,
    },
}

/// A resource or an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact about a resource")]
pub struct RscPicture {
    /// Id, with the instance number in unique clones.
    pub label: String,
    /// What it is.
    pub made: Made,
    /// Members or instances.
    pub children: Vec<Self>,
    /// Nodes it is active on, with role.
    pub active: Vec<(String, Role)>,
    /// It failed and has not recovered.
    pub failed: bool,
    /// It must not be touched.
    pub blocked: bool,
    /// It may be acted on.
    pub managed: bool,
    /// Not configured any more.
    pub removed: bool,
    /// An operation that is under way, and its node.
    pub pending: Option<(String, String)>,
    /// An active instance on a node that may have lost it.
    pub unclean: bool,
    /// All that is active of it is on nodes that are off: it counts as stopped.
    pub gone: bool,
    /// An old release does not show it: nobody may touch it, and it is active on nodes only that are not there.
    pub hidden: bool,
}

impl RscPicture {
    /// It and all below it.
    #[must_use]
    pub fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        test(self) || self.children.iter().any(|c| c.any(test))
    }

    /// Primitives at or below it.
    #[must_use]
    pub fn leaves(&self) -> Vec<&Self> {
        if self.children.is_empty() {
            return vec![self];
        }
        self.children.iter().flat_map(Self::leaves).collect()
    }
}

/// What is seen, read as the planner reads it.
#[must_use]
pub fn picture(input: &Input<'_>) -> Picture {
    let implicit = super::implicit::Implicit::of(input);
    of(&super::read::read(input, &implicit))
}

/// The same of a model that was read and nothing else.
pub(super) fn of(model: &Model<'_>) -> Picture {
    let nodes = model
        .nodes
        .iter()
        .map(|n| NodePicture {
            name: n.name.to_owned(),
            online: n.online,
            clean: n.clean,
            pending: n.pending,
            standby: n.standby,
            maintenance: n.maintenance,
            place: match n.kind {
                NodeKind::Cluster => NodePlace::Member,
                NodeKind::Remote { .. } => NodePlace::Remote,
                NodeKind::Guest { .. } => NodePlace::Guest,
            },
        })
        .collect();
    // The connection of a guest is a matter of the guest; what is gone, of nobody.
    let shown = |r: &RscIx| {
        let rsc = &model.rscs[*r];
        let implied = rsc.connection_of.is_some() && rsc.container.is_some();
        !implied && (!rsc.removed || !rsc.active.is_empty() || !model.props.exact)
    };
    let tops = model.tops.iter().filter(|r| shown(r));
    let resources = tops.map(|r| resource(model, *r)).collect();
    Picture { nodes, resources }
}

/// A bundle with one line for each replica.
fn bundle(model: &Model<'_>, r: RscIx, parts: &BundleIx) -> RscPicture {
    let configured = model.cib.resources.iter().find_map(|c| match c {
        Resource::Bundle(b) if b.id == model.rscs[r].id => Some(b),
        Resource::Bundle(_) | Resource::Primitive(_) | Resource::Group(_) | Resource::Clone(_) => {
            None
        }
    });
    let image = configured.and_then(|b| b.container.attrs.get("image")).unwrap_or_default();
    let replica = |replica: &ReplicaIx| {
        let (shown, active) = model.replica_shown(replica);
        let named = replica.connection.unwrap_or(replica.container);
        let address = replica.ip.and_then(|ip| model.rscs[ip].prim?.params.get("ip"));
        let address = address.map(|ip| format!(" ({ip})")).unwrap_or_default();
        RscPicture {
            label: format!("{}{address}", model.rscs[named].id),
            active: active
                .iter()
                .map(|(n, role)| (model.nodes[*n].name.to_owned(), *role))
                .collect(),
            ..resource(model, shown)
        }
    };
    RscPicture {
        label: model.rscs[r].id.to_owned(),
        made: Made::Bundle {
            unique: configured.is_some_and(|b| b.replicas_per_host() > 1),
            image: image.to_owned(),
        },
        children: parts.replicas.iter().map(replica).collect(),
        active: Vec::new(),
        failed: false,
        blocked: false,
        managed: model.managed(r),
        removed: false,
        pending: None,
        unclean: false,
        gone: false,
        hidden: false,
    }
}

/// Is it active at all, as Pacemaker shows it? What runs on a node that is off, and known to be, has ended with it.
fn alive(model: &Model<'_>, r: RscIx) -> bool {
    let mut at = model.rscs[r].active.iter().map(|a| &model.nodes[a.node]);
    at.any(|n| n.online || !n.clean || !model.managed(r))
}

/// An old release does not look for members and instances one by one: a collection is where its managed ones are, or where one of them is to be seen.
fn hidden(model: &Model<'_>, r: RscIx) -> bool {
    let leaves = model.leaves(r);
    let online = |l: &RscIx| model.rscs[*l].active.iter().any(|a| model.nodes[a.node].online);
    model.habit(Habit::HidesUntouched)
        && model.rscs[r].parent.is_none()
        && !model.rscs[r].children.is_empty()
        && leaves.iter().any(|l| alive(model, *l))
        && model.places(r).is_empty()
        && !leaves.iter().any(online)
}

fn resource(model: &Model<'_>, r: RscIx) -> RscPicture {
    let rsc = &model.rscs[r];
    if let Some(parts) = &rsc.bundle {
        return bundle(model, r, parts);
    }
    let made = match &rsc.kind {
        Kind::Primitive => {
            Made::Primitive { agent: rsc.agent.map_or_else(String::new, ToString::to_string) }
        }
        Kind::Group { .. } => Made::Group,
        Kind::Clone(info) => Made::Clone {
            promotable: info.promotable,
            unique: info.globally_unique,
            of: rsc.cloned.unwrap_or(rsc.id).to_owned(),
        },
    };
    let unique =
        rsc.clone.and_then(|c| model.rscs[c].clone_info()).is_some_and(|i| i.globally_unique);
    RscPicture {
        label: if unique { model.label(r) } else { rsc.id.to_owned() },
        made,
        children: rsc.children.iter().map(|c| resource(model, *c)).collect(),
        active: rsc
            .active
            .iter()
            .map(|a| {
                // Where there are roles, what is started is unpromoted.
                let started = a.role == Role::Started && rsc.children.is_empty();
                let role = if started { model.active_role(r) } else { a.role };
                (model.nodes[a.node].name.to_owned(), role)
            })
            .collect(),
        failed: rsc.active.iter().any(|a| a.failed),
        blocked: rsc.blocked(),
        managed: model.managed(r),
        removed: rsc.removed || rsc.surplus || rsc.parent.is_some_and(|p| model.rscs[p].surplus),
        pending: rsc
            .now
            .pending
            .as_ref()
            .map(|(op, node)| (op.clone(), model.nodes[*node].name.to_owned())),
        unclean: rsc.active.iter().any(|a| {
            let node = &model.nodes[a.node];
            !node.online && !node.clean
        }),
        gone: !rsc.active.is_empty() && !alive(model, r),
        hidden: hidden(model, r),
    }
}
