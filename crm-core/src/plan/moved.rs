//! Migrations as they are recorded: what is known of one half from the other node's records.

use super::model::RscIx;
use super::replay::{Event, Replay};
use crate::cib::Role;
use crate::lrm::{Exec, OpRecord, RscRecord, age};
use crate::status::rc;
use std::cmp::Ordering;

/// An exit code that says that nothing is known.
const UNKNOWN: i32 = 193;

impl<'a> Replay<'_, 'a> {
    fn recorded(&self, node: &str, id: &str) -> Option<&'a RscRecord> {
        self.by_node.get(node)?.resources.iter().find(|r| r.id == id)
    }

    /// The name under which the other half is looked for: the instance's, though histories of instances that are alike have none.
    fn history_id(&self, r: RscIx) -> String {
        self.b.model.label(r)
    }

    fn half(&self, node: &str, id: &str, task: &str, peer: &str) -> Option<&'a OpRecord> {
        let fits = |op: &&OpRecord| {
            let other = op.peer.as_ref();
            op.op == task
                && match task {
                    "migrate_to" => other.is_some_and(|(_, target)| target == peer),
                    _ => other.is_some_and(|(source, _)| source == peer),
                }
        };
        self.recorded(node, id)?.ops.iter().find(fits)
    }

    fn unknown_on(&self, node: &str, id: &str) -> bool {
        self.recorded(node, id).is_none_or(|r| r.ops.iter().all(|op| op.rc == UNKNOWN))
    }

    /// Something was done to it there after `op`.
    fn touched_after(&self, node: &str, id: &str, op: &OpRecord, same_node: bool) -> bool {
        let task = |o: &OpRecord| {
            matches!(o.op.as_str(), "start" | "stop" | "migrate_to" | "migrate_from")
        };
        let newer = |o: &OpRecord| age(o, op, same_node) == Ordering::Greater;
        self.recorded(node, id)
            .is_some_and(|r| r.ops.iter().any(|o| !std::ptr::eq(o, op) && task(o) && newer(o)))
    }

    /// What the migration did there does not count any more.
    fn newer_state(
        &self,
        node: &str,
        id: &str,
        to: Option<&OpRecord>,
        from: Option<&OpRecord>,
        target: bool,
    ) -> bool {
        // Entries of one node are compared best, so the half that was recorded there is taken if it is known.
        let own = if target { from } else { to };
        let Some(op) = own.or(to).or(from) else { return false };
        let same = own.is_some();
        let found_stopped = || {
            let record = self.recorded(node, id)?;
            let is = |o: &&OpRecord| {
                o.op == "monitor" && o.rc == rc::NOT_RUNNING && o.exec == Exec::Done
            };
            let monitor = record.ops.iter().find(is)?;
            Some(age(monitor, op, same) == Ordering::Greater)
        };
        self.touched_after(node, id, op, same) || found_stopped().unwrap_or(false)
    }

    pub(super) fn migrate_to_done(&mut self, event: &Event<'a>) {
        let (r, n) = (event.r, event.n);
        let Some((source, target)) = &event.record.peer else { return };
        if *source != self.b.model.nodes[n].name {
            return;
        }
        let id = self.history_id(r);
        let source_newer = self.touched_after(source, &id, event.record, true);
        let from = self.half(target, &id, "migrate_from", source);
        if from.is_some() && source_newer {
            return;
        }
        let target_newer = self.newer_state(target, &id, Some(event.record), from, true);
        if source_newer && target_newer {
            return;
        }
        if from.is_some_and(|f| f.rc == rc::OK && f.exec == Exec::Done) {
            // It has arrived; what is left behind here is to be stopped.
            self.set_role(r, Role::Stopped);
            self.model().rscs[r].now.dangling.push(n);
            return;
        }
        self.set_role(r, Role::Started);
        let there = self.b.model.node_named(target);
        let online = there.filter(|t| self.b.model.nodes[*t].online);
        let active = online.filter(|_| !target_newer);
        if from.is_some_and(|f| f.exec != Exec::Pending) {
            match active {
                Some(t) => {
                    self.model().add_running(r, t);
                    self.model().rscs[r].now.failed = true;
                }
                None => {
                    self.model().rscs[r].now.failed = true;
                    self.model().rscs[r].now.no_migration = true;
                }
            }
            return;
        }
        if online.is_some() && self.unknown_on(target, &id) {
            // It was cleaned up there: the probe will tell.
            return;
        }
        if let Some(t) = active {
            self.model().add_running(r, t);
            if self.b.model.nodes[n].online {
                self.model().rscs[r].now.partial = Some((n, t));
            }
        } else if !source_newer {
            self.model().rscs[r].now.failed = true;
            self.model().rscs[r].now.no_migration = true;
        }
    }

    pub(super) fn migrate_to_failed(&mut self, event: &Event<'a>) {
        let (r, n) = (event.r, event.n);
        let Some((source, target)) = &event.record.peer else { return };
        if *source != self.b.model.nodes[n].name {
            return;
        }
        self.set_role(r, Role::Started);
        let id = self.history_id(r);
        let from = self.half(target, &id, "migrate_from", source);
        let from = from.filter(|f| f.rc == rc::OK && f.exec == Exec::Done);
        if !self.unknown_on(target, &id)
            && !self.newer_state(target, &id, Some(event.record), from, true)
        {
            let there = self.b.model.node_named(target);
            if let Some(t) = there.filter(|t| self.b.model.nodes[*t].online) {
                self.model().add_running(r, t);
            }
        } else if !self.touched_after(source, &id, event.record, true) {
            self.model().rscs[r].now.dangling.push(n);
        }
    }

    pub(super) fn migrate_from_failed(&mut self, event: &Event<'a>) {
        let (r, n) = (event.r, event.n);
        let Some((source, target)) = &event.record.peer else { return };
        if *target != self.b.model.nodes[n].name {
            return;
        }
        self.set_role(r, Role::Started);
        let id = self.history_id(r);
        let to = self.half(source, &id, "migrate_to", target);
        let to = to.filter(|f| f.rc == rc::OK && f.exec == Exec::Done);
        if !self.unknown_on(source, &id)
            && !self.newer_state(source, &id, to, Some(event.record), false)
        {
            let there = self.b.model.node_named(source);
            if let Some(s) = there.filter(|s| self.b.model.nodes[*s].online) {
                self.model().add_running(r, s);
                self.model().rscs[r].now.failed = true;
            }
        }
    }
}
