//! Drain and return, with our agents and with Debian's.

use anyhow::{Result, ensure};
use crm_integration::{Stage, TWO, Wish};
use crm_lab::{cluster, node, script};

fn drain_and_return(name: &str, wish: Wish) -> Result<()> {
    let Some(stage) = Stage::playing(name, wish)? else { return Ok(()) };
    drain_and_return_on(&stage)
}

fn drain_and_return_on(stage: &Stage) -> Result<()> {
    for _ in 0..2 {
        let from = stage.active()?;
        let drained = stage.scene(&format!("drain {from}"), || script::drain(&stage.lab, &from))?;
        ensure!(drained.active != from, "the service is still on {from}");
        let back =
            stage.scene(&format!("return {from}"), || script::bring_back(&stage.lab, &from))?;
        ensure!(back.active == drained.active, "it failed back");
    }
    stage.finish().map(|_| ())
}

#[test]
fn a_drained_node_holds_nothing_and_nothing_fails_back() -> Result<()> {
    drain_and_return("drain", TWO)
}

#[test]
fn debians_own_agents_pass_the_same_drain() -> Result<()> {
    drain_and_return("debian", Wish { nodes: 2, debian_agents: true })
}

/// The repaired form of the owner's configuration: `crm lint` has only the faults left that come from having no fencing.
#[test]
fn the_yaml_example_applied_to_the_running_seed_passes_the_same_drain() -> Result<()> {
    let Some(stage) = Stage::playing("yaml", TWO)? else { return Ok(()) };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/examples/nfs.yaml");
    let active = stage.active()?;
    node::exec(&stage.lab, &active, &["crm", "apply", file, "--wait"])?;
    let orders =
        node::exec(&stage.lab, &active, &["crm", "configure", "show", "promote-before-HA"])?;
    ensure!(orders.contains("ms_drbd_nfs:promote"), "{orders}");
    cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    drain_and_return_on(&stage)
}
