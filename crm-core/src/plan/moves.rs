//! Live migrations in our own histories: what is half-way, what has arrived, what was left behind.

use super::history::Finding;
use super::model::{Node, NodeIx, Seen};
use crate::cib::Role;
use crate::status::{ResourceHistory, Status};

/// What the live migrations of a primitive have come to.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// From and to of one whose first half is done.
    pub(super) partial: Option<(NodeIx, NodeIx)>,
    /// Nodes that it has left without being stopped there.
    pub(super) left: Vec<NodeIx>,
}

/// Reads them for the primitive `id`; `findings` (by node) says afterwards where it is active.
pub(super) fn read(
    nodes: &[Node<'_>],
    status: &Status,
    id: &str,
    findings: &mut [Finding],
) -> Moves {
    let mut out = Moves::default();
    for n in 0..nodes.len() {
        let Some(history) = told(nodes, status, n, id) else { continue };
        let (Some(target), Some(here)) = (&history.migrated_to, findings[n].seen) else { continue };
        let Some(to) = nodes.iter().position(|node| node.name == target.as_str()) else {
            // It has been stopped there since, or the node is no member any more.
            again(&mut findings[n], here, "it has left by a live migration that was undone");
            continue;
        };
        if history.pending.is_some() {
            let text = format!("a live migration to {target} is under way");
            findings[n].seen = Some(Seen { blocked: true, ..here });
            findings[n].note = Some(("migration", text));
            continue;
        }
        let halfway = history.failure.as_ref().is_none_or(|f| f.op != "migrate_to");
        let there = told(nodes, status, to, id);
        match findings[to].seen {
            Some(seen) if seen.failed => {}
            Some(_) if halfway => {
                findings[n].seen = None;
                if nodes[n].online {
                    out.left.push(n);
                }
            }
            Some(_) => {}
            None if nodes[to].online && there.is_none() => {
                // The probe there will tell.
            }
            None if nodes[to].online => {
                let seen = Seen { node: to, failed: !halfway, ..here };
                findings[to].seen = Some(seen);
                if halfway && nodes[n].online {
                    out.partial = Some((n, to));
                }
            }
            None if nodes[to].clean => {
                again(&mut findings[n], here, "it was lost with the node that it had moved to");
            }
            None => {
                findings[to].seen = Some(Seen { node: to, blocked: true, ..here });
                let text = "it may have arrived there by live migration, and it is not confirmed that the node runs nothing";
                findings[to].note = Some(("unclean", text.to_owned()));
            }
        }
    }
    out
}

/// It has to be stopped and started.
fn again(finding: &mut Finding, here: Seen, why: &str) {
    finding.seen = Some(Seen { failed: true, ..here });
    finding.note = Some(("migration", why.to_owned()));
}

fn told<'s>(
    nodes: &[Node<'_>],
    status: &'s Status,
    node: NodeIx,
    id: &str,
) -> Option<&'s ResourceHistory> {
    let history = status.nodes.get(nodes[node].name)?.resources.get(id)?;
    (history.role.is_some_and(|r| r != Role::Promoted)).then_some(history)
}
