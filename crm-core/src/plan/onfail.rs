//! What a failure asks for (`on-fail`), mildest first.

use super::model::{Model, RscIx};
use crate::cib::{Op, Role, parse_bool};
use crate::lrm::OpRecord;

/// The ladder: of several failures the one that asks for most counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OnFail {
    /// Nothing.
    Ignore,
    /// To go on unpromoted.
    Demote,
    /// A stop and a start, here or elsewhere.
    Restart,
    /// A new connection, and the fencing of the node that it led to.
    ResetRemote,
    /// The recovery of what it lives in.
    RestartContainer,
    /// To go elsewhere.
    Ban,
    /// Nothing, until somebody has looked at it.
    Block,
    /// To stay down.
    Stop,
    /// That everything leaves the node.
    Standby,
    /// That the node is fenced.
    Fence,
}

/// The configured operation of a name and interval, the first that is enabled before all others.
fn configured<'o>(ops: &'o [Op], name: &str, interval_ms: u64) -> Option<&'o Op> {
    let mut same = ops.iter().filter(|op| op.name == name && op.interval_ms() == interval_ms);
    let first = same.clone().next();
    same.find(|op| enabled(op)).or(first)
}

pub(super) fn enabled(op: &Op) -> bool {
    op.attrs.get("enabled").and_then(parse_bool).unwrap_or(true)
}

fn promoted(op: &Op) -> bool {
    super::history::op_role(op) == Some(Role::Promoted)
}

impl Model<'_> {
    /// What the failure of an operation asks for, and the role to be had after it.
    pub(super) fn on_fail(&self, r: RscIx, record: &OpRecord) -> (OnFail, Role) {
        let asked = self.asked(r, record);
        let default = if record.op == "promote" { Role::Unpromoted } else { Role::Started };
        let down = asked == OnFail::Stop
            || (asked == OnFail::ResetRemote && self.rscs[r].reconnect_ms > 0);
        (asked, if down { Role::Stopped } else { default })
    }

    fn asked(&self, r: RscIx, record: &OpRecord) -> OnFail {
        let rsc = &self.rscs[r];
        let word = self.on_fail_word(r, record);
        let parsed = word.and_then(|word| match word {
            "ignore" | "nothing" => Some(OnFail::Ignore),
            "demote" => Some(OnFail::Demote),
            "restart" => Some(OnFail::Restart),
            "restart-container" => rsc.container.map(|_| OnFail::RestartContainer),
            "migrate" => Some(OnFail::Ban),
            "block" => Some(OnFail::Block),
            // Without fencing the next best.
            "fence" if !self.props.fencing => Some(OnFail::Stop),
            "stop" => Some(OnFail::Stop),
            "standby" => Some(OnFail::Standby),
            "fence" => Some(OnFail::Fence),
            _ => None,
        });
        if parsed.is_none() && rsc.container.is_some() {
            return OnFail::RestartContainer;
        }
        let probe = record.op == "monitor" && record.interval_ms == 0;
        let managed = rsc.meta.is_managed;
        let remote = rsc.connection_of.is_some_and(|n| self.nodes[n].kind.container().is_none());
        if (parsed.is_none() || !managed) && remote && !probe && record.op != "start" {
            // What drops a connection leaves nobody who knows what the node runs.
            return if managed { OnFail::ResetRemote } else { OnFail::Stop };
        }
        match parsed {
            Some(parsed) => parsed,
            None if record.op == "stop" && self.props.fencing => OnFail::Fence,
            None if record.op == "stop" => OnFail::Block,
            None => OnFail::Restart,
        }
    }

    fn on_fail_word(&self, r: RscIx, record: &OpRecord) -> Option<&str> {
        let ops = self.rscs[r].prim.map_or(&[][..], |p| &p.ops);
        let op = configured(ops, &record.op, record.interval_ms);
        let own = op.and_then(|op| op.attrs.get("on-fail"));
        let word = own.or_else(|| self.cib.op_defaults.get("on-fail"));
        // Only what is promoted can be demoted.
        let fits = record.op == "promote"
            || (record.op == "monitor" && record.interval_ms > 0 && op.is_some_and(promoted));
        let word = word.filter(|w| *w != "demote" || fits);
        // What does not stop cannot be left alone: these say nothing of a failed stop.
        let word = word.filter(|w| record.op != "stop" || !matches!(*w, "stop" | "standby"));
        if word.is_some() || record.op != "demote" {
            return word;
        }
        // A demote that fails is as bad as the failure of what it ends.
        let monitor =
            |op: &&Op| op.name == "monitor" && op.interval_ms() > 0 && enabled(op) && promoted(op);
        let words = ops.iter().filter(monitor).filter_map(|op| op.attrs.get("on-fail"));
        words.into_iter().find(|word| *word != "demote")
    }
}
