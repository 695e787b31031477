//! What an agent is called with: instance attributes, `CRM_meta_*`, timeouts.

use super::OpSpec;
use super::digest::digest;
use super::model::{Kind, Model, NodeIx, RscIx};
use crate::cib::{NvSet, Op, parse_duration_ms};
use std::collections::BTreeMap;

/// Time limit of an operation that has none of its own.
pub(super) const DEFAULT_TIMEOUT_MS: u64 = 20_000;

/// Instance attributes, own ones over the group's over the clone's (`chain`: nearest first).
pub(super) fn instance_attributes(chain: &[&NvSet]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for set in chain.iter().rev() {
        for pair in &set.pairs {
            if let Some(value) = &pair.value {
                out.insert(pair.name.clone(), value.clone());
            }
        }
    }
    out
}

/// Parameters as Pacemaker writes them before it makes a digest.
pub(super) fn written<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut out = String::from(" <parameters");
    for (name, value) in pairs {
        let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let value = value.replace('"', "&quot;");
        out.push_str(&format!(" {name}=\"{value}\""));
    }
    out.push_str("/>\n");
    out
}

/// Which operation on which node.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpCall<'a> {
    pub(super) rsc: RscIx,
    pub(super) node: NodeIx,
    pub(super) op: &'a str,
    pub(super) interval_ms: u64,
    /// Configured operation, if there is one.
    pub(super) config: Option<&'a Op>,
    pub(super) expected_rc: i32,
}

impl<'a> Model<'a> {
    /// What a resource is configured with on a node.
    pub(super) fn attributes_of(&self, r: RscIx, node: NodeIx) -> BTreeMap<String, String> {
        let name = self.nodes[node].name;
        let there = |id: &str, plain: &'a NvSet| {
            let ruled = self.pacemaker.and_then(|p| p.params.get(id)?.get(name));
            ruled.unwrap_or(plain)
        };
        let mut chain: Vec<&NvSet> = Vec::new();
        if let Some(prim) = self.rscs[r].prim {
            chain.push(there(&prim.id, &prim.params));
        }
        let mut at = self.rscs[r].parent;
        while let Some(parent) = at {
            match self.cib.resource(self.rscs[parent].id) {
                Some(crate::cib::Resource::Group(g)) => chain.push(there(&g.id, &g.params)),
                Some(crate::cib::Resource::Clone(c)) => chain.push(there(&c.id, &c.params)),
                Some(crate::cib::Resource::Primitive(_) | crate::cib::Resource::Bundle(_))
                | None => {}
            }
            at = self.rscs[parent].parent;
        }
        instance_attributes(&chain)
    }

    /// Where something will be, or else is.
    fn location_of(&self, r: RscIx) -> Option<NodeIx> {
        self.rscs[r].assigned.or_else(|| self.rscs[r].active.first().map(|a| a.node))
    }

    /// A connection into a container without an address goes to the node that the container is on.
    pub(super) fn with_address(
        &self,
        params: &BTreeMap<String, String>,
        host: &str,
    ) -> BTreeMap<String, String> {
        let mut out = params.clone();
        if let Some(address) = out.get_mut("addr").filter(|a| *a == "#uname") {
            host.clone_into(address);
        }
        out
    }

    /// The complete call of an operation.
    pub(super) fn op_spec(&self, call: OpCall<'_>) -> OpSpec {
        let r = &self.rscs[call.rsc];
        let mut params = self.attributes_of(call.rsc, call.node);
        if let Some(host) = r.container.and_then(|c| self.location_of(c)) {
            params = self.with_address(&params, self.nodes[host].name);
        }
        let digest = digest(&params);
        let timeout_ms = call
            .config
            .and_then(Op::timeout_ms)
            .or_else(|| self.cib.op_defaults.get("timeout").and_then(parse_duration_ms))
            .unwrap_or(DEFAULT_TIMEOUT_MS);
        self.add_meta(&call, timeout_ms, &mut params);
        OpSpec {
            node: self.nodes[call.node].name.to_owned(),
            resource: self.key(call.rsc),
            agent: r.agent.map_or_else(String::new, ToString::to_string),
            op: call.op.to_owned(),
            interval_ms: call.interval_ms,
            timeout_ms,
            expected_rc: call.expected_rc,
            params,
            digest,
        }
    }

    fn add_meta(&self, call: &OpCall<'_>, timeout_ms: u64, out: &mut BTreeMap<String, String>) {
        let mut put = |name: &str, value: String| out.insert(format!("CRM_meta_{name}"), value);
        let node = &self.nodes[call.node];
        put("name", call.op.to_owned());
        put("interval", call.interval_ms.to_string());
        put("timeout", timeout_ms.to_string());
        put("on_node", node.name.to_owned());
        put("on_node_uuid", node.id.to_string());
        let clone = self.rscs[call.rsc].clone.map(|c| (&self.rscs[c].kind, c));
        if let Some((Kind::Clone(info), _)) = clone {
            put("clone", self.rscs[call.rsc].number.to_string());
            put("clone_max", info.max.to_string());
            put("clone_node_max", info.node_max.to_string());
            put("globally_unique", info.globally_unique.to_string());
            put("notify", info.notify.to_string());
            if info.promotable {
                for prefix in ["promoted", "master"] {
                    put(&format!("{prefix}_max"), info.promoted_max.to_string());
                    put(&format!("{prefix}_node_max"), info.promoted_node_max.to_string());
                }
            }
        }
        for pair in call.config.iter().flat_map(|op| &op.attrs.pairs) {
            // What is no setting of the operation is a parameter of it (`OCF_CHECK_LEVEL`, `trace_ra`).
            let meta = super::records::OP_META.contains(&pair.name.as_str());
            if let (false, Some(value)) = (meta, &pair.value) {
                out.insert(pair.name.clone(), value.clone());
            }
        }
    }

    /// A probe's settings: its own, or those of the first monitor.
    pub(super) fn probe_config(&self, rsc: RscIx) -> Option<&Op> {
        let prim = self.rscs[rsc].prim?;
        let own = self.configured(rsc, "monitor");
        own.or_else(|| prim.ops.iter().find(|op| op.name == "monitor"))
    }

    /// The configured one-shot operation `name` of a primitive.
    pub(super) fn configured(&self, rsc: RscIx, name: &str) -> Option<&Op> {
        let prim = self.rscs[rsc].prim?;
        prim.ops.iter().find(|op| op.name == name && op.interval_ms() == 0)
    }
}
