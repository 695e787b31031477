//! LINT017: what the configuration may say and our own nodes do not carry out (`crm simulate` does: it decides as Pacemaker would).

use super::Lint;
use crate::cib::{Primitive, Resource};

impl Lint<'_> {
    /// All of it, object by object.
    pub(super) fn beyond(&mut self) {
        let cib = self.cib;
        for resource in &cib.resources {
            if let Resource::Bundle(bundle) = resource {
                self.not_done(
                    &bundle.id,
                    "containers of bundles are not run",
                    "run the container as a primitive (ocf:heartbeat:docker, podman), or leave the bundle to Pacemaker",
                );
            }
            let live = || resource.meta().flag("allow-migrate") == Some(true);
            if matches!(resource, Resource::Clone(_)) && live() {
                self.not_done(
                    resource.id(),
                    "instances of a clone are not migrated live: a move stops and starts them",
                    "plan its moves for a quiet hour",
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
        if p.meta.get("remote-node").is_some() || p.agent.kind == "remote" {
            self.not_done(
                &p.id,
                "remote and guest nodes are not served",
                "make the machine a member with `crm cluster join`",
            );
        }
        for op in &p.ops {
            if op.attrs.get("on-fail") == Some("restart-container") {
                self.not_done(
                    &p.id,
                    &format!("`op {} on-fail=restart-container` restarts it alone", op.name),
                    "write on-fail=restart, which is what happens",
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
