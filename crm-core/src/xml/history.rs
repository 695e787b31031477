//! `lrm_rsc_op` histories as they are written; the planner replays them.

use super::Reader;
use super::tree::{Attributes, Element};
use crate::cib::{AgentName, parse_bool, parse_duration_ms};
use crate::lrm::{Exec, NodeRecord, OpRecord, RscRecord};

impl<'a> Reader<'a> {
    pub(super) fn histories(&mut self, states: Element<'a>) {
        for state in states.named("node_state") {
            let Some(name) = self.state_name(state) else { continue };
            let fenced = state.attr("node_fenced").is_some_and(|v| {
                parse_bool(v).unwrap_or_else(|| v.parse::<u64>().is_ok_and(|at| at > 0))
            });
            let mut node = NodeRecord { name, fenced, resources: Vec::new() };
            let resources = state.named("lrm").flat_map(|l| l.named("lrm_resources"));
            for section in resources {
                // What was cut out has been read already.
                node.resources.extend(self.cut.remove(&section.start()).unwrap_or_default());
                for element in section.named("lrm_resource") {
                    let record = self.resource_record(element);
                    node.resources.push(record);
                }
            }
            self.out.records.push(node);
        }
    }

    /// Codes that are no numbers are taken as errors: that is told.
    fn numbers(&mut self, op: Element<'a>, resource: &str) {
        for (name, effect) in NUMBERS {
            let Some(value) = op.attr(name) else { continue };
            if value.parse::<i64>().is_err() && self.out.warnings.len() < super::PROBLEMS_MAX {
                let text = format!(
                    "`{value}` is no value for `{name}` in the history of `{resource}`: {effect}"
                );
                let problem = op.problem_of(name, "CRM0031", text).expecting("a whole number");
                self.out.warnings.push(problem);
            }
        }
    }

    fn resource_record(&mut self, element: Element<'a>) -> RscRecord {
        let id = element.word("id");
        let mut ops = Vec::new();
        for op in element.children() {
            if op.name() == "lrm_rsc_op" {
                self.numbers(op, id);
                ops.push(operation(&op, id));
            } else {
                self.unknown(op, "lrm_resource");
            }
        }
        resource(&element, ops)
    }
}

/// What has to be a number, and what it means if it is none.
const NUMBERS: [(&str, &str); 3] = [
    ("rc-code", "the operation counts as failed"),
    ("op-status", "the operation counts as failed"),
    ("call-id", "the operation counts as the oldest"),
];

/// Nothing is to be said of its numbers.
pub(super) fn is_plain(op: &impl Attributes) -> bool {
    let number = |name| op.attr(name).is_none_or(|value| value.parse::<i64>().is_ok());
    NUMBERS.iter().all(|(name, _)| number(name))
}

pub(super) fn resource(element: &impl Attributes, ops: Vec<OpRecord>) -> RscRecord {
    let word = |name: &str| element.attr(name).unwrap_or_default().to_owned();
    RscRecord {
        id: word("id"),
        agent: AgentName {
            class: word("class"),
            provider: element.attr("provider").map(str::to_owned),
            kind: word("type"),
        },
        container: element.attr("container").map(str::to_owned),
        locked_s: element.attr("shutdown-lock").and_then(|v| v.parse().ok()),
        ops,
    }
}

pub(super) fn operation(op: &impl Attributes, resource: &str) -> OpRecord {
    let word = |name: &str| op.attr(name).unwrap_or_default();
    let number = |name: &str| op.attr(name).and_then(|v| v.parse::<i64>().ok());
    let code = |value: &str| value.parse::<i32>().ok().filter(|c| *c >= 0);
    let task = word("operation");
    let interval = op.attr("interval").unwrap_or("0");
    // Here an interval is a bare number of milliseconds.
    let interval_ms = interval.parse().ok().or_else(|| parse_duration_ms(interval)).unwrap_or(0);
    // transition-key: action:transition:expected:planner; transition-magic has the result before it.
    let key: Vec<&str> = word("transition-key").splitn(4, ':').collect();
    let magic = op.attr("transition-magic").and_then(|m| m.split_once(';')).map(|(_, key)| key);
    let origin: Vec<&str> = magic.unwrap_or_default().splitn(4, ':').collect();
    let listed = |list: &str, digest: &str| {
        let both = op.attr(list).zip(op.attr(digest));
        both.map(|(list, digest)| (list.to_owned(), digest.to_owned()))
    };
    let peer = op.attr("migrate_source").zip(op.attr("migrate_target"));
    let key_of = || format!("{resource}_{task}_{interval_ms}");
    OpRecord {
        id: word("id").to_owned(),
        key: op.attr("operation_key").map_or_else(key_of, str::to_owned),
        op: task.to_owned(),
        interval_ms,
        call_id: number("call-id").unwrap_or(-1),
        exec: number("op-status").map_or(Exec::Error, Exec::from_code),
        rc: op.attr("rc-code").and_then(code).unwrap_or(1),
        expected_rc: key.get(2).and_then(|c| code(c)),
        transition: match origin.as_slice() {
            [_, plan, _, planner] => plan.parse().ok().map(|plan| ((*planner).to_owned(), plan)),
            _ => None,
        },
        changed_s: op.attr("last-rc-change").and_then(|v| v.parse().ok()),
        reason: word("exit-reason").to_owned(),
        peer: peer.map(|(s, t)| (s.to_owned(), t.to_owned())),
        digest: op.attr("op-digest").map(str::to_owned),
        restart: listed("op-force-restart", "op-restart-digest"),
        secure: listed("op-secure-params", "op-secure-digest"),
    }
}
