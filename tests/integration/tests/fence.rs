//! Seed 002 with fencing: what is lost is cut off by a device before anything of it is taken over.

use anyhow::{Result, ensure};
use crm_integration::{Stage, TWO};
use crm_lab::cluster::{self, MOVE_LIMIT};
use crm_lab::{net, node, power, wait};
use std::time::Duration;

/// For what happens within a few heartbeats.
const SOON: Duration = Duration::from_secs(20);

/// A fence device for all nodes of the lab, and fencing on. Without a word on quorum: two nodes go on with what they have.
const FENCING: &str = "\
primitive power stonith:fence_lab params pcmk_host_list=\"alpha delta gamma\" op monitor interval=30s
property stonith-enabled=true no-quorum-policy=stop
commit
quit
";

fn fencing(stage: &Stage) -> Result<()> {
    cluster::configure(&stage.lab, FENCING)?;
    let any = cluster::any_on(&stage.lab)?;
    wait::until("the fence device to be started", SOON, || {
        let text = node::exec(&stage.lab, &any, &["crm", "status"])?;
        ensure!(text.contains("stonith:fence_lab") && text.contains("Started"), "{text}");
        Ok(Some(()))
    })
}

fn moved(stage: &Stage, to: &str) -> Result<String> {
    wait::until("the service on the other node", MOVE_LIMIT, || {
        Ok(cluster::active(&stage.lab)?.filter(|on| *on == to))
    })
}

fn history(stage: &Stage, on: &str) -> Result<String> {
    node::exec(&stage.lab, on, &["crm", "fence", "status"])
}

#[test]
fn a_dead_node_is_fenced_and_then_its_service_goes_on() -> Result<()> {
    let Some(stage) = Stage::playing("fence-kill", TWO)? else { return Ok(()) };
    fencing(&stage)?;
    let active = stage.active()?;
    let other = stage.other(&active)?;
    stage.scene("kill, with fencing", || {
        node::kill(&stage.lab, &active)?;
        moved(&stage, &other)?;
        Ok(String::new())
    })?;
    let told = history(&stage, &other)?;
    ensure!(told.contains(&format!("{active} was rebooted by power")), "{told}");
    // The survivor has taken over the configuration too: a generation is recorded, by the proof of the device.
    wait::until("the generation", SOON, || {
        let told = node::exec(&stage.lab, &other, &["crm", "cluster", "status"])?;
        Ok(told.contains("generation 1").then_some(()))
    })?;
    // The device has started it again: it joins, and takes nothing back.
    cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)?;
    cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    // The log has it for all, also for the one that was fenced.
    wait::until("the history on the node that was fenced", SOON, || {
        let told = history(&stage, &active)?;
        ensure!(told.contains(&format!("{active} was rebooted by power")), "{told}");
        Ok(Some(()))
    })?;
    stage.finish().map(|_| ())
}

/// Who was shot, in order.
fn shots(stage: &Stage) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(power::log(&stage.lab))?;
    Ok(log.lines().filter_map(|l| l.strip_prefix("reboot ")).map(str::to_owned).collect())
}

/// Cuts the node with the service off and waits until the cluster is whole again; who was shot.
fn race(stage: &Stage) -> Result<Vec<String>> {
    fencing(stage)?;
    net::cut(&stage.lab, &stage.active()?)?;
    let shot = wait::until("somebody to be fenced", MOVE_LIMIT, || {
        Ok(Some(shots(stage)?).filter(|shot| !shot.is_empty()))
    })?;
    for name in stage.lab.nodes()? {
        // Both may have shot; whoever is down is started again by the device.
        wait::until("both nodes to be on", MOVE_LIMIT, || {
            Ok(node::is_on(&stage.lab, &name).then_some(()))
        })?;
        // A node that was switched on a moment ago gets its wire a little later.
        wait::until("its wire", MOVE_LIMIT, || Ok(net::mend(&stage.lab, &name).ok()))?;
    }
    cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)?;
    stage.active()?;
    cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    Ok(shot)
}

#[test]
fn of_two_that_lose_each_other_somebody_is_fenced_and_the_client_loses_nothing() -> Result<()> {
    let Some(stage) = Stage::playing("fence-race", TWO)? else { return Ok(()) };
    race(&stage)?;
    stage.finish().map(|_| ())
}

#[test]
fn with_a_delay_the_one_that_runs_the_service_wins_the_race() -> Result<()> {
    let Some(stage) = Stage::playing("fence-delay", TWO)? else { return Ok(()) };
    let active = stage.active()?;
    let other = stage.other(&active)?;
    cluster::configure(&stage.lab, "property priority-fencing-delay=5s\ncommit\nquit\n")?;
    let shot = race(&stage)?;
    ensure!(shot == [other.clone()], "{active} had the service, and shot was {shot:?}");
    ensure!(stage.active()? == active, "the service moved");
    stage.finish().map(|_| ())
}

#[test]
fn what_cannot_be_fenced_keeps_its_services_until_a_person_says_that_it_is_off() -> Result<()> {
    let Some(stage) = Stage::playing("fence-broken", TWO)? else { return Ok(()) };
    fencing(&stage)?;
    let active = stage.active()?;
    let other = stage.other(&active)?;
    std::fs::write(power::broken(&stage.lab), "")?;
    let refused = node::exec(&stage.lab, &other, &["crm", "node", "fence", &active, "--confirm"]);
    let refused = format!("{:#}", refused.err().map_or_else(String::new, |e| format!("{e:#}")));
    ensure!(refused.contains("is alive"), "a node that lives was confirmed to be off: {refused}");
    node::kill(&stage.lab, &active)?;
    wait::until("the device to fail", MOVE_LIMIT, || {
        let told = history(&stage, &other)?;
        Ok(told.contains("the strip is broken").then_some(()))
    })?;
    ensure!(cluster::active(&stage.lab)?.is_none(), "taken over from a node that may live");
    let status = node::exec(&stage.lab, &other, &["crm", "cluster", "status"])?;
    ensure!(status.contains(&format!("crm node fence {active} --confirm")), "{status}");
    node::exec(&stage.lab, &other, &["crm", "node", "fence", &active, "--confirm"])?;
    moved(&stage, &other)?;
    // It decides alone now, and may be configured: the other one is behind, and learns of it when it is back.
    wait::until("the takeover", SOON, || {
        let told = node::exec(&stage.lab, &other, &["crm", "cluster", "status"])?;
        Ok(told.contains("the only voter since generation 1").then_some(()))
    })?;
    let change = "property migration-threshold=7\ncommit\nquit\n";
    node::exec_with_input(&stage.lab, &other, &["crm", "configure"], change)?;
    std::fs::remove_file(power::broken(&stage.lab))?;
    node::start(&stage.lab, &active)?;
    cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)?;
    let shown = node::exec(&stage.lab, &active, &["crm", "configure", "show"])?;
    ensure!(shown.contains("migration-threshold=7"), "{shown}");
    cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    stage.finish().map(|_| ())
}

#[test]
fn a_drained_node_whose_daemon_is_told_to_end_is_not_fenced() -> Result<()> {
    let Some(stage) = Stage::playing("fence-leave", TWO)? else { return Ok(()) };
    fencing(&stage)?;
    let active = stage.active()?;
    let other = stage.other(&active)?;
    node::exec(&stage.lab, &other, &["crm", "node", "standby", "--wait"])?;
    // The node's first process would start the daemon again.
    let first = std::fs::read_to_string(stage.lab.dir().join("run").join(format!("{other}.pid")))?;
    let first = first.split(' ').next().unwrap_or_default().parse()?;
    let first = nix::unistd::Pid::from_raw(first);
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGSTOP)?;
    for pid in node::daemon_pids(&stage.lab, &other, "daemon")? {
        node::exec(&stage.lab, &other, &["kill", "-TERM", &pid])?;
    }
    wait::until("the daemon to be missed", SOON, || {
        let picture = node::status(&stage.lab, &active)?;
        Ok(picture.nodes.get(&other).is_some_and(|line| !line.alive).then_some(()))
    })?;
    // Whoever decides would have shot by the time it says that it runs on alone.
    wait::until("the other one to go on alone", SOON, || {
        let waiting = node::status(&stage.lab, &active)?.waiting.unwrap_or_default();
        ensure!(waiting.contains("running on alone"), "{waiting}");
        Ok(Some(()))
    })?;
    ensure!(shots(&stage)?.is_empty(), "shot: {:?}", shots(&stage)?);
    ensure!(stage.active()? == active, "the service moved");
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGCONT)?;
    cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)?;
    node::exec(&stage.lab, &other, &["crm", "node", "online", "--wait"])?;
    cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    ensure!(shots(&stage)?.is_empty(), "shot: {:?}", shots(&stage)?);
    stage.finish().map(|_| ())
}
