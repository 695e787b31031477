//! Three nodes: the majority goes on, the minority stops what it runs.

use anyhow::{Result, bail, ensure};
use crm_integration::{Stage, Wish};
use crm_lab::client::{self, Question};
use crm_lab::{cluster, net, node, script, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const THREE: Wish = Wish { nodes: 3, debian_agents: false };

/// Cuts the active node off: the others take over, it stops all it runs. Which node that was.
fn cut_the_active_node_off(stage: &Stage) -> Result<String> {
    cluster::configure(&stage.lab, "property no-quorum-policy=stop\ncommit\nquit\n")?;
    let lonely = stage.active()?;
    let cut = stage.scene(&format!("cut {lonely} off"), || {
        net::cut(&stage.lab, &lonely)?;
        wait::until(&format!("{lonely} to stop all it runs"), SOON, || {
            let held = node::exec(&stage.lab, &lonely, &["ip", "-o", "addr", "show"])?;
            let mounts = node::exec(&stage.lab, &lonely, &["cat", "/proc/mounts"])?;
            if held.contains(crm_lab::VIP) || mounts.contains(" /srv ext4 ") {
                bail!("it still holds the address or the file system");
            }
            Ok(Some(String::new()))
        })
    })?;
    ensure!(cut.active != lonely, "the service is still on {lonely}");
    let picture = node::status(&stage.lab, &lonely)?;
    ensure!(!picture.quorate, "{lonely} believes to have a quorum");
    Ok(lonely)
}

#[test]
fn the_majority_goes_on_and_the_minority_stops_what_it_runs() -> Result<()> {
    let Some(stage) = Stage::playing("three", THREE)? else { return Ok(()) };
    cut_the_active_node_off(&stage)?;
    let tally = client::ask(&stage.lab, Question::Finish)?;
    ensure!(tally.is_clean() && tally.stale == 0, "the client saw trouble: {tally:?}");
    Ok(())
}

#[test]
fn three_replicas_survive_the_death_of_the_primary() -> Result<()> {
    let Some(stage) = Stage::playing("three-kill", THREE)? else { return Ok(()) };
    let victim = stage.active()?;
    let killed = stage.scene(&format!("kill {victim}"), || {
        node::kill(&stage.lab, &victim).map(|()| String::new())
    })?;
    ensure!(killed.active != victim, "{victim} is dead and has the service");
    stage.scene(&format!("heal {victim}"), || script::heal(&stage.lab, &victim))?;
    stage.finish().map(|_| ())
}

#[test]
fn a_minority_that_was_primary_resyncs_when_its_link_is_mended() -> Result<()> {
    let Some(stage) = Stage::playing("three-mend", THREE)? else { return Ok(()) };
    let lonely = cut_the_active_node_off(&stage)?;
    stage.scene(&format!("mend {lonely}"), || script::heal(&stage.lab, &lonely))?;
    stage.finish().map(|_| ())
}

#[test]
fn two_of_three_serve_after_a_power_failure_of_all() -> Result<()> {
    let Some(stage) = Stage::playing("three-cold", THREE)? else { return Ok(()) };
    let absent = stage.active()?;
    let nodes = stage.lab.nodes()?;
    stage.scene("cold start without the former primary", || {
        for name in &nodes {
            node::kill(&stage.lab, name)?;
        }
        for name in nodes.iter().filter(|n| **n != absent) {
            node::start(&stage.lab, name)?;
        }
        cluster::wait_for_service(&stage.lab)
    })?;
    stage.scene(&format!("start {absent}"), || script::heal(&stage.lab, &absent))?;
    stage.finish().map(|_| ())
}
