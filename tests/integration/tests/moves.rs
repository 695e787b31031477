//! A resource that moves without a stop, one that is taken out of the configuration, and one whose agent is exchanged.

use anyhow::{Context, Result, ensure};
use crm_core::cib::Role;
use crm_core::status::ResourceHistory;
use crm_integration::{Stage, Wish};
use crm_lab::{cluster, node, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Debian's own agent: it takes part in live migrations.
const TEXT: &str = "
property stonith-enabled=false no-quorum-policy=ignore
rsc_defaults resource-stickiness=200
primitive vm ocf:heartbeat:Dummy meta allow-migrate=true op monitor interval=5s
primitive old ocf:heartbeat:Dummy op monitor interval=5s
commit
";

fn history(stage: &Stage, on: &str, resource: &str) -> Result<ResourceHistory> {
    let status = node::status(&stage.lab, on)?.state.status;
    let node = status.nodes.get(on).with_context(|| format!("status of {on}"))?;
    Ok(node.resources.get(resource).cloned().unwrap_or_default())
}

/// The node that says that it runs the resource.
fn host(stage: &Stage, resource: &str) -> Result<Option<String>> {
    for name in stage.lab.nodes()? {
        if history(stage, &name, resource)?.role == Some(Role::Started) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn last(history: &ResourceHistory) -> &str {
    history.last.as_ref().map_or("nothing", |result| result.op.as_str())
}

#[test]
fn a_live_migration_needs_no_start_and_what_is_deleted_is_stopped() -> Result<()> {
    let wish = Wish { nodes: 2, debian_agents: true };
    let Some(stage) = Stage::bare("moves", wish)? else { return Ok(()) };
    let lab = &stage.lab;
    cluster::form(lab, &lab.nodes()?)?;
    cluster::configure(lab, TEXT)?;
    let from = wait::until("vm to run", SOON, || host(&stage, "vm"))?;
    wait::until("the other one to run", SOON, || host(&stage, "old"))?;
    let to = stage.other(&from)?;
    node::exec(lab, &to, &["crm", "node", "standby", &from, "--wait"])?;
    let (left, arrived) = (history(&stage, &from, "vm")?, history(&stage, &to, "vm")?);
    ensure!(last(&arrived) == "migrate_from", "on {to}: {}", last(&arrived));
    ensure!(last(&left) == "stop" && left.role == Some(Role::Stopped), "on {from}: {left:?}");
    ensure!(left.migrated_to.is_none() && left.pending.is_none(), "{left:?}");
    ensure!(left.fail_count + arrived.fail_count == 0, "{left:?} {arrived:?}");
    node::exec(lab, &to, &["crm", "node", "online", &from, "--wait"])?;
    // Another agent under the same name would be asked to stop what it has not started.
    let other = "delete vm\nprimitive vm ocf:pacemaker:Dummy\ncommit\n";
    let Err(refused) = cluster::configure(lab, other) else {
        anyhow::bail!("the agent of what runs was exchanged");
    };
    ensure!(format!("{refused:#}").contains("crm resource stop vm"), "{refused:#}");
    cluster::configure(lab, "delete old\ncommit\n")?;
    wait::until("what was deleted to stop", SOON, || {
        Ok(host(&stage, "old")?.is_none().then_some(()))
    })?;
    ensure!(host(&stage, "vm")? == Some(to), "vm runs on");
    Ok(())
}
