//! Bundles in the model: the containers are instances of a collection, and what belongs to a container follows it.

use super::bundle::Parts;
use super::meta;
use super::model::{BundleIx, CloneInfo, Coloc, ColocIx, Kind, Model, NodeIx, ReplicaIx, RscIx};
use super::read::{Builder, Context};
use crate::cib::{Bundle, Primitive, Role, Score, parse_bool};

impl<'a> Builder<'a> {
    fn parts(&self, bundle: &Bundle) -> Option<&'a Parts> {
        self.implicit.bundles.get(&bundle.id)
    }

    /// Adds a bundle with all that it consists of.
    pub(super) fn add_bundle(&mut self, bundle: &'a Bundle, at: &Context<'a>) -> RscIx {
        let metas = at.metas_with(&bundle.meta);
        let nodes = self.model.nodes.len();
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let info = CloneInfo {
            promotable: false,
            max: count(bundle.replicas()),
            node_max: count(bundle.replicas_per_host()),
            ordered: false,
            notify: false,
            globally_unique: false,
            ..meta::clone_info(&metas, false, nodes, true)
        };
        let top = self.push(&bundle.id, Kind::Clone(info), None, &metas, at);
        let own = bundle.child.iter().map(|child| &child.meta);
        let chain: Vec<_> = own.chain(metas.iter().copied()).collect();
        let on_host = meta::lookup(&chain, "container-attribute-target") == Some("host");
        let told = meta::lookup(&metas, "notify").and_then(parse_bool).unwrap_or(false);
        let mut inner = at.below(metas, Vec::new());
        inner.parent = Some(top);
        let mut ix = BundleIx { replicas: Vec::new(), child: None, on_host, told };
        let Some(parts) = self.parts(bundle) else { return top };
        for (number, replica) in parts.replicas.iter().enumerate() {
            let container = self.add_primitive(&replica.container, &inner);
            self.model.rscs[container].number = u32::try_from(number).unwrap_or(u32::MAX);
            self.model.rscs[top].children.push(container);
            let ip = replica.ip.as_ref().map(|(_, ip)| self.add_primitive(ip, &inner));
            let connection = replica.connection.as_ref().map(|c| {
                let connection = self.add_primitive(c, &inner);
                self.model.rscs[connection].nests = true;
                connection
            });
            let named = |c: &Primitive| self.model.nodes.iter().position(|n| n.name == c.id);
            let node = replica.connection.as_ref().and_then(named);
            ix.replicas.push(ReplicaIx { container, ip, connection, node, child: None });
        }
        if let Some(child) = &parts.child {
            let clone = self.add_clone(child, &inner);
            ix.child = Some(clone);
            let instances = &self.model.rscs[clone].children;
            for (replica, instance) in ix.replicas.iter_mut().zip(instances) {
                replica.child = Some(*instance);
            }
        }
        self.model.rscs[top].bundle = Some(ix);
        top
    }
}

/// Nothing but its own instance may run inside of a container, and each replica keeps together.
pub(super) fn constrain(model: &mut Model<'_>) {
    for top in 0..model.rscs.len() {
        let Some(bundle) = model.rscs[top].bundle.take() else { continue };
        for replica in &bundle.replicas {
            close(model, replica);
            if let Some(ip) = replica.ip {
                model.colocs.push(Coloc {
                    id: "#ip-with-container",
                    score: Score::INF,
                    dependent: ip,
                    dependent_role: None,
                    primary: replica.container,
                    primary_role: None,
                    attribute: "#uname",
                    internal: false,
                    influence: true,
                });
            }
        }
        model.rscs[top].bundle = Some(bundle);
    }
}

/// The node inside of a container is for the instance there alone.
fn close(model: &mut Model<'_>, replica: &ReplicaIx) {
    let Some(node) = replica.node else { return };
    for r in 0..model.rscs.len() {
        if replica.child != Some(r) {
            model.rscs[r].scores[node] = Score::NEG_INF;
            model.rscs[r].no_probe.insert(node);
        }
    }
    let Some(child) = replica.child else { return };
    for n in (0..model.nodes.len()).filter(|n| *n != node) {
        model.rscs[child].scores[n] = Score::NEG_INF;
        model.rscs[child].no_probe.insert(n);
    }
    let near = model.rscs[child].scores[node].plus(Score::new(500));
    model.rscs[child].scores[node] = near;
}

impl Model<'_> {
    /// The bundle that a resource belongs to, at any depth; not the bundle itself.
    pub(super) fn bundle_of(&self, r: RscIx) -> Option<RscIx> {
        let mut at = self.rscs[r].parent;
        while let Some(parent) = at {
            if self.rscs[parent].bundle.is_some() {
                return Some(parent);
            }
            at = self.rscs[parent].parent;
        }
        None
    }

    /// Containers, addresses and connections are told of fencing where what is inside is told of things.
    pub(super) fn told_with_bundle(&self, r: RscIx) -> bool {
        let parent = self.rscs[r].parent.filter(|_| self.rscs[r].children.is_empty());
        parent.and_then(|p| self.rscs[p].bundle.as_ref()).is_some_and(|b| b.told)
    }

    /// Part of a bundle.
    pub(super) fn bundled(&self, r: RscIx) -> bool {
        self.bundle_of(r).is_some()
    }

    /// The instance inside the bundle's container that is the node `n`; `r` is any instance of it.
    pub(super) fn bundled_on(&self, r: RscIx, n: NodeIx) -> Option<RscIx> {
        let bundle = self.rscs[self.bundle_of(r)?].bundle.as_ref()?;
        bundle.replicas.iter().find(|x| x.node == Some(n))?.child
    }

    /// A container of a bundle.
    pub(super) fn is_container(&self, r: RscIx) -> bool {
        let parent = self.rscs[r].parent;
        parent.is_some_and(|p| self.rscs[p].bundle.is_some() && self.rscs[p].children.contains(&r))
    }

    /// The replica that a container belongs to.
    pub(super) fn replica(&self, container: RscIx) -> Option<ReplicaIx> {
        let bundle = self.rscs[self.rscs[container].parent?].bundle.as_ref()?;
        bundle.replicas.iter().find(|r| r.container == container).copied()
    }

    /// The node inside of a container that an instance is for.
    pub(super) fn own_inside(&self, r: RscIx) -> Option<NodeIx> {
        self.rscs[r].clone?;
        let bundle = self.rscs[self.bundle_of(r)?].bundle.as_ref()?;
        bundle.replicas.iter().find(|x| x.child == Some(r))?.node
    }

    /// What has a container's role: the instance inside of it. Other resources have their own.
    pub(super) fn inside(&self, r: RscIx) -> RscIx {
        if !self.is_container(r) {
            return r;
        }
        self.replica(r).and_then(|replica| replica.child).unwrap_or(r)
    }

    /// The node that a node inside of a bundle's container is on; other nodes are where they are.
    pub(super) fn outside(&self, node: NodeIx) -> NodeIx {
        let container = self.nodes[node].kind.container().filter(|c| self.is_container(*c));
        container.and_then(|c| self.host(c)).unwrap_or(node)
    }

    fn host(&self, container: RscIx) -> Option<NodeIx> {
        let rsc = &self.rscs[container];
        if rsc.done { rsc.assigned } else { rsc.active.first().map(|a| a.node) }
    }

    /// The node whose attributes say how much an instance is to be promoted: its own, or (`container-attribute-target=host`) the one outside,
    /// if there is one.
    pub(super) fn speaker(&self, r: RscIx, node: NodeIx) -> Option<NodeIx> {
        let on_host = |b: RscIx| self.rscs[b].bundle.as_ref().is_some_and(|b| b.on_host);
        if !self.bundle_of(r).is_some_and(on_host) {
            return Some(node);
        }
        self.nodes[node].kind.container().and_then(|c| self.host(c))
    }

    /// The addresses of a bundle.
    pub(super) fn addresses(&self, r: RscIx) -> Vec<RscIx> {
        let replicas = self.rscs[r].bundle.iter().flat_map(|b| &b.replicas);
        replicas.filter_map(|replica| replica.ip).collect()
    }

    /// What a placed bundle means for those that follow it: where its containers are, if the role inside is the one asked for.
    pub(super) fn apply_bundle(&mut self, dependent: RscIx, bundle: RscIx, ix: ColocIx) -> Score {
        let c = self.colocs[ix];
        if !self.rscs[bundle].done {
            return Score::ZERO;
        }
        let containers: Vec<RscIx> = self.rscs[bundle].children.clone();
        if self.rscs[c.dependent].clone_info().is_some() {
            if let Some(partner) = self.container_for(dependent, &containers) {
                return self.apply_colocation(dependent, partner, ix);
            }
            if c.score == Score::INF && !self.rscs[dependent].done {
                let id = self.rscs[bundle].id;
                let text = format!("no container of {id} is where it could be ({})", c.id);
                self.because(dependent, None, "colocation", text);
                self.settle(dependent, None);
            }
            return Score::ZERO;
        }
        if c.score < Score::INF {
            let mut sum = Score::ZERO;
            for container in containers {
                sum = sum.plus(self.apply_colocation(dependent, container, ix));
            }
            return sum;
        }
        let mut at = Vec::new();
        for container in containers {
            let Some(node) = self.rscs[container].assigned else { continue };
            let promoted = self.role_of(container) == Some(Role::Promoted);
            let fits = c.primary_role != Some(Role::Promoted) || promoted;
            if fits && !self.rscs[container].blocked() {
                at.push((node, Score::ZERO));
            }
        }
        self.keep_to(dependent, bundle, &c, &at, false);
        Score::ZERO
    }

    /// The container that is where `r` is, or where `r` would like best to be.
    fn container_for(&self, r: RscIx, containers: &[RscIx]) -> Option<RscIx> {
        let nodes = match self.place_of(r) {
            Some(node) => vec![self.outside(node)],
            None => self.sorted_nodes(&self.rscs[r].scores, None),
        };
        let fits =
            |c: RscIx, n: NodeIx| self.rscs[c].assigned == Some(n) && !self.rscs[c].blocked();
        nodes.into_iter().find_map(|n| containers.iter().copied().find(|c| fits(*c, n)))
    }

    /// The containers have their places: addresses and connections follow, then what runs inside.
    pub(super) fn assign_replicas(&mut self, top: RscIx) {
        let Some(bundle) = &self.rscs[top].bundle else { return };
        let (replicas, child) = (bundle.replicas.clone(), bundle.child);
        for replica in &replicas {
            if let Some(ip) = replica.ip {
                self.assign(ip, None);
            }
            if let Some(connection) = replica.connection {
                self.follow_connection(connection, replica.container);
                self.assign(connection, None);
            }
            let (Some(instance), Some(node), Some(clone)) = (replica.child, replica.node, child)
            else {
                continue;
            };
            if self.rscs[instance].scores[node] >= Score::ZERO {
                self.rscs[instance].scores[node] = Score::INF;
            }
            self.rscs[clone].assigning = true;
            self.assign(instance, Some(node));
            self.rscs[clone].assigning = false;
        }
        let Some(clone) = child else { return };
        let inside: Vec<NodeIx> = replicas.iter().filter_map(|r| r.node).collect();
        for n in 0..self.nodes.len() {
            let score = if inside.contains(&n) { Score::ZERO } else { Score::NEG_INF };
            self.rscs[clone].scores[n] = score;
        }
        self.assign(clone, None);
    }

    /// A container on a remote node is reached from where that node is: only one connection may hold it.
    fn follow_connection(&mut self, connection: RscIx, container: RscIx) {
        let host = self.rscs[container].assigned;
        let Some(way) = host.and_then(|n| self.nodes[n].kind.connection()) else { return };
        let ix = self.colocs.len();
        self.colocs.push(Coloc {
            id: "#replica-remote-with-host-remote",
            score: Score::INF,
            dependent: connection,
            dependent_role: None,
            primary: way,
            primary_role: None,
            attribute: "#uname",
            internal: false,
            influence: true,
        });
        self.this_with[connection].push(ix);
        self.with_this[way].push(ix);
    }

    /// Do colocations of a bundle reach `r`, which is inside of it? They reach its containers; the instances inside when those have their
    /// places, and their clone while their roles are chosen.
    pub(super) fn bundle_speaks_for(&self, bundle: RscIx, r: RscIx) -> bool {
        if self.rscs[bundle].children.contains(&r) {
            return true;
        }
        let Some(child) = self.rscs[bundle].bundle.as_ref().and_then(|b| b.child) else {
            return false;
        };
        if !self.rscs[child].promotable() {
            return false;
        }
        if child == r {
            self.rscs[r].merging
        } else {
            self.rscs[r].clone == Some(child) && self.rscs[r].done
        }
    }

    /// What `status` shows for a replica: what runs inside as if it ran where the container is.
    pub(super) fn replica_shown(&self, replica: &ReplicaIx) -> (RscIx, Vec<(NodeIx, Role)>) {
        let shown = replica.child.unwrap_or(replica.container);
        let inside = self.rscs[shown].active.iter().map(|a| a.role).max();
        let role = inside.unwrap_or(Role::Stopped);
        let host = self.rscs[replica.container].active.first();
        (shown, host.map(|h| (h.node, role)).into_iter().collect())
    }
}
