//! The actions of bundles: points in the order for the whole, and what belongs to a container before and after it.

use super::actions::{Table, Task};
use super::model::{Model, ReplicaIx, RscIx};
use super::order::{End, Link};
use super::{create, internal};

impl Task {
    /// Only what runs inside of a container can do it.
    pub(super) const fn is_inside(self) -> bool {
        matches!(
            self,
            Self::Promote | Self::Promoted | Self::Demote | Self::Demoted | Self::Notify(..)
        )
    }
}

impl Model<'_> {
    fn replicas(&self, bundle: RscIx) -> Vec<ReplicaIx> {
        self.rscs[bundle].bundle.as_ref().map(|b| b.replicas.clone()).unwrap_or_default()
    }

    /// The clone inside of a bundle.
    pub(super) fn inner_clone(&self, bundle: RscIx) -> Option<RscIx> {
        self.rscs[bundle].bundle.as_ref().and_then(|b| b.child)
    }

    /// What a collection consists of; of a bundle, everything.
    pub(super) fn parts(&self, r: RscIx) -> Vec<RscIx> {
        let mut out = self.rscs[r].children.clone();
        for replica in self.replicas(r) {
            out.extend(replica.ip);
            out.extend(replica.connection);
        }
        out.extend(self.inner_clone(r));
        out
    }

    /// The resources whose actions make up a collection's action with this task.
    pub(super) fn doers(&self, r: RscIx, task: Task) -> Vec<RscIx> {
        match self.inner_clone(r).filter(|_| task.is_inside()) {
            Some(clone) => self.rscs[clone].children.clone(),
            None => self.rscs[r].children.clone(),
        }
    }

    /// What of a bundle's instance takes part in an order between two collections. What comes later waits for the service inside, but its own
    /// container may need what is ordered before it; only what is inside has roles.
    pub(super) fn partaker(&self, instance: RscIx, task: Task, first: bool) -> Option<RscIx> {
        let inside =
            if first { !matches!(task, Task::Stop | Task::Stopped) } else { task.is_inside() };
        self.replica(instance).filter(|_| inside).and_then(|r| r.child)
    }
}

/// Makes the actions of all that a bundle consists of, and its own points.
pub(super) fn create(model: &mut Model<'_>, table: &mut Table, bundle: RscIx) {
    for replica in model.replicas(bundle) {
        let parts = [replica.ip, Some(replica.container), replica.connection];
        for r in parts.into_iter().flatten() {
            create::resource(model, table, r);
        }
    }
    create::points(model, table, bundle);
    let Some(clone) = model.inner_clone(bundle) else { return };
    create::resource(model, table, clone);
    if model.rscs[clone].promotable() {
        for task in [Task::Promote, Task::Promoted, Task::Demote, Task::Demoted] {
            table.point(model, bundle, task, true, true);
        }
    }
}

/// Notes the orders that a bundle brings with it.
pub(super) fn note(model: &Model<'_>, table: &mut Table, bundle: RscIx) {
    let clone = model.inner_clone(bundle);
    if let Some(clone) = clone {
        // With roles the start of what is inside does not show that of the whole: containers do.
        let roles = model.rscs[clone].promotable();
        let shows = if roles { Link::ORDERED } else { Link::SHOWS_FIRST };
        table.sequence(model, (bundle, Task::Start), (clone, Task::Start), shows);
        table.sequence(model, (clone, Task::Running), (bundle, Task::Running), Link::SHOWS_THEN);
        around(model, table, bundle, clone, (Task::Stop, Task::Stopped));
    }
    for replica in model.replicas(bundle) {
        note_replica(model, table, bundle, replica);
    }
    let Some(clone) = clone else { return };
    internal::resource(model, table, clone);
    if model.rscs[clone].promotable() {
        internal::roles(model, table, bundle);
        around(model, table, bundle, clone, (Task::Demote, Task::Demoted));
        around(model, table, bundle, clone, (Task::Promote, Task::Promoted));
    }
}

/// The points of the clone inside lie between the bundle's.
fn around(
    model: &Model<'_>,
    table: &mut Table,
    bundle: RscIx,
    clone: RscIx,
    (begin, end): (Task, Task),
) {
    table.sequence(model, (bundle, begin), (clone, begin), Link::SHOWS_FIRST);
    table.sequence(model, (clone, end), (bundle, end), Link::SHOWS_THEN);
}

fn note_replica(model: &Model<'_>, table: &mut Table, bundle: RscIx, replica: ReplicaIx) {
    let container = replica.container;
    internal::resource(model, table, container);
    let up = Link::BLOCKS | Link::SHOWS_FIRST;
    table.sequence(model, (bundle, Task::Start), (container, Task::Start), up);
    if let Some(child) = replica.child {
        table.sequence(model, (bundle, Task::Stop), (child, Task::Stop), Link::SHOWS_FIRST);
    }
    table.sequence(model, (bundle, Task::Stop), (container, Task::Stop), Link::SHOWS_FIRST);
    table.sequence(model, (container, Task::Start), (bundle, Task::Running), Link::SHOWS_THEN);
    table.sequence(model, (container, Task::Stop), (bundle, Task::Stopped), Link::SHOWS_THEN);
    if let Some(ip) = replica.ip {
        internal::resource(model, table, ip);
        let up = Link::BLOCKS | Link::GUEST;
        table.sequence(model, (ip, Task::Start), (container, Task::Start), up);
        let down = Link::THEN_IMPLIES_FIRST | Link::GUEST;
        table.sequence(model, (container, Task::Stop), (ip, Task::Stop), down);
    }
    if let Some(connection) = replica.connection {
        internal::resource(model, table, connection);
    }
}

/// What else a probe of a part of a bundle comes before or after.
pub(super) fn probed(model: &Model<'_>, table: &mut Table, r: RscIx, probe: super::actions::ActIx) {
    let Some(bundle) = model.bundle_of(r) else { return };
    let replicas = model.replicas(bundle);
    if let Some(own) = replicas.iter().find(|x| x.connection == Some(r)) {
        // Where the connection may be is known when it is known where its container is.
        let start = End::Op(own.container, Task::Start);
        table.order(model, start, End::Act(probe), Link::NESTED_PROBE);
    }
    if let Some(clone) = model.inner_clone(bundle).filter(|_| model.is_container(r)) {
        // What is inside starts as a whole when it is known where containers run already.
        table.order(model, End::Act(probe), End::Op(clone, Task::Start), Link::ORDERED);
    }
    let alone = model.rscs[bundle].clone_info().is_some_and(|info| info.node_max == 1);
    if alone && model.is_container(r) {
        // Two containers cannot share a node: none starts before it is known that no other one runs there.
        for other in replicas.iter().filter(|x| x.container != r) {
            let start = End::Op(other.container, Task::Start);
            table.order(model, End::Act(probe), start, Link::ORDERED | Link::SAME_NODE);
        }
    }
}
