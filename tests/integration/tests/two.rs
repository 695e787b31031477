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
    // Told at both nodes, with the command, as soon as each has heard the other.
    for name in lab.nodes()? {
        wait::until("both sides to tell what to do", SOON, || {
            let text = node::exec(lab, &name, &["crm", "volume", "status"])?;
            ensure!(text.contains("crm volume resolve r0 --discard"), "{name}: {text}");
            Ok(Some(()))
        })?;
    }
    // The cluster, whole again, takes the service from the one that had not had it.
    let loser = wait::until("one primary to be left", SOON, || {
        let primary = |name: &String| Ok(node::volume(lab, name)?.is_some_and(|v| v.primary));
        let sides: Result<Vec<(String, bool)>> =
            lab.nodes()?.into_iter().map(|n| primary(&n).map(|is| (n, is))).collect();
        let (kept, lost): (Vec<_>, Vec<_>) = sides?.into_iter().partition(|(_, is)| *is);
        Ok(lost.into_iter().next().map(|(name, _)| name).filter(|_| kept.len() == 1))
    })?;
    ensure!(loser == lonely, "{active} had the service and the client, and lost it");
    node::exec(lab, &loser, &["crm", "volume", "resolve", "r0", "--discard", &loser])?;
    // The other side refuses until it has been met again.
    wait::until("the replicas to meet", SOON, || {
        cluster::wait_for_sync(lab, &lab.nodes()?).map(Some)
    })?;
    ensure!(stage.active()? == active, "the service left {active}, whose data were kept");
    stage.finish().map(|_| ())
}
