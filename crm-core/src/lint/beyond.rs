//! LINT017: what the configuration may say and our own nodes do not carry out (`crm simulate` does: it decides as Pacemaker would).

use super::Lint;
use crate::cib::{Primitive, Resource};

impl Lint<'_> {
    /// All of it, object by object.
    pub(super) fn beyond(&mut self) {
        let cib = self.cib;
        if !matches!(cib.properties.get("placement-strategy"), None | Some("default")) {
            self.not_done(
                "cib-bootstrap-options",
                "capacities are not counted: `placement-strategy` has no effect",
                "keep resources apart with colocations of negative score",
            );
        }
        for resource in &cib.resources {
            if let Resource::Bundle(bundle) = resource {
                self.not_done(
                    &bundle.id,
                    "containers of bundles are not run",
                    "run the container as a primitive (ocf:heartbeat:docker, podman), or leave the bundle to Pacemaker",
                );
            }
            let several = resource.meta().get("clone-node-max").is_some_and(|n| n != "1");
            if resource.meta().flag("globally-unique") == Some(true) && several {
                self.not_done(
                    resource.id(),
                    "a node runs one instance of it at most, whatever `clone-node-max` says",
                    "set clone-node-max=1",
                );
            }
        }
        for primitive in cib.primitives() {
            self.beyond_primitive(primitive);
        }
    }

    fn beyond_primitive(&mut self, p: &Primitive) {
        if p.meta.flag("allow-migrate") == Some(true) {
            self.not_done(
                &p.id,
                "it is not migrated live: a move stops it and starts it again",
                "plan its moves for a quiet hour",
            );
        }
        if p.meta.get("remote-node").is_some() || p.agent.kind == "remote" {
            self.not_done(
                &p.id,
                "remote and guest nodes are not served",
                "make the machine a member with `crm cluster join`",
            );
        }
        for op in &p.ops {
            let what = op.attrs.get("on-fail").unwrap_or_default();
            if matches!(what, "demote" | "restart-container") {
                self.not_done(
                    &p.id,
                    &format!("`op {} on-fail={what}` restarts it", op.name),
                    "write on-fail=restart, which is what happens",
                );
            }
            if op.name == "monitor" && op.attrs.get("role") == Some("Stopped") {
                self.not_done(
                    &p.id,
                    "where it is stopped it is not monitored (`op monitor role=Stopped`)",
                    "remove this operation",
                );
            }
        }
    }

    fn not_done(&mut self, object: &str, text: &str, remedy: &str) {
        self.add(
            "LINT017",
            object,
            format!("not carried out by our nodes yet: {text}"),
            remedy.to_owned(),
        );
    }
}
