//! What the cluster would do if a configuration were committed: the same policy engine as the daemon's, on its last picture.

use crate::Shell;
use crate::fail::Fail;
use crm_core::cib::Cib;
use crm_core::plan::{Input, NodeView, plan};
use crm_proto::local::StatusReply;
use std::collections::BTreeMap;

/// The lines of the plan for `cib`, made from the daemon's picture.
pub(crate) fn actions(status: &StatusReply, cib: &Cib) -> Vec<String> {
    let nodes: BTreeMap<String, NodeView> = status
        .nodes
        .iter()
        .map(|(name, line)| {
            let view = match (line.online, line.alive) {
                (true, _) => NodeView::ONLINE,
                (false, true) => NodeView::PENDING,
                (false, false) => NodeView::GONE,
            };
            (name.clone(), view)
        })
        .collect();
    let mut seen = status.state.status.clone();
    seen.removed = status.state.removed(cib, &seen);
    let input = Input {
        cib,
        status: &seen,
        nodes: &nodes,
        quorate: status.may_run(),
        only: None,
        now_ms: status.now_ms,
        pacemaker: None,
    };
    plan(&input).summary
}

/// Says what the cluster would do.
pub(crate) fn say(shell: &mut Shell<'_>, cib: &Cib) -> Result<(), Fail> {
    let status = shell.daemon.status()?;
    let lines = actions(&status, cib);
    if lines.is_empty() {
        shell.ui.say("the cluster would move nothing");
        return Ok(());
    }
    shell.ui.say("the cluster would:");
    for line in lines {
        shell.ui.say(&format!("  {}", line.trim_start()));
    }
    Ok(())
}
