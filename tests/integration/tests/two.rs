//! Two nodes without fencing that lose sight of each other: what the owner's configuration asks for, and the way back.

use anyhow::{Result, ensure};
use crm_integration::{Stage, TWO};
use crm_lab::{cluster, net, node, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_split_brain_is_named_at_once_and_one_command_ends_it() -> Result<()> {
    let Some(stage) = Stage::playing("two-split", TWO)? else { return Ok(()) };
    let (lab, active) = (&stage.lab, stage.active()?);
    let lonely = stage.other(&active)?;
    net::cut(lab, &lonely)?;
    // stonith-enabled=false, no-quorum-policy=ignore: both run.
    wait::until("the lonely node to run the service too", SOON, || {
        let addresses = node::exec(lab, &lonely, &["ip", "-o", "addr", "show"])?;
        Ok(addresses.contains(crm_lab::VIP).then_some(()))
    })?;
    net::mend(lab, &lonely)?;
    cluster::wait_for_members(lab, &lab.nodes()?)?;
    let Err(error) = cluster::wait_for_sync(lab, &lab.nodes()?) else {
        anyhow::bail!("replicas that were both written to are taken for equal");
    };
    let told = format!("{error:#}");
    ensure!(told.contains("StandAlone") && told.contains("crm volume resolve r0"), "{told}");
    // Told at both nodes, with the command.
    for name in lab.nodes()? {
        let text = node::exec(lab, &name, &["crm", "volume", "status"])?;
        ensure!(text.contains("crm volume resolve r0 --discard"), "{name}: {text}");
    }
    node::exec(lab, &lonely, &["crm", "volume", "resolve", "r0", "--discard", &lonely])?;
    // The other side refuses until it has been met again.
    wait::until("the replicas to meet", SOON, || {
        cluster::wait_for_sync(lab, &lab.nodes()?).map(Some)
    })?;
    ensure!(stage.active()? == active, "the service left {active}, whose data were kept");
    stage.finish().map(|_| ())
}
