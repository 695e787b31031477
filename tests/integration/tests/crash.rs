//! One process dies, the node lives.

use anyhow::{Context, Result, bail, ensure};
use crm_integration::{Stage, TWO};
use crm_lab::{cluster, node, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Default of Pacemaker and ours is no limit: the test sets one.
const THRESHOLD: usize = 3;

fn kill_processes(stage: &Stage, on: &str, pids: &[String]) -> Result<()> {
    // Children first: a worker dies with its keeper, and then there is nothing left to be killed.
    let mut pids: Vec<i32> = pids.iter().map(|p| p.parse()).collect::<Result<_, _>>()?;
    pids.sort_unstable_by(|a, b| b.cmp(a));
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    let mut words = vec!["kill", "-9"];
    words.extend(pids.iter().map(String::as_str));
    node::exec(&stage.lab, on, &words).map(|_| ())
}

#[test]
fn the_death_of_crmd_alone_disturbs_no_io_and_moves_nothing() -> Result<()> {
    let Some(stage) = Stage::playing("crash-crmd", TWO)? else { return Ok(()) };
    let active = stage.active()?;
    for round in 1..=3 {
        let scene = stage.scene(&format!("{round} kill -9 crmd on {active}"), || {
            let pids = node::daemon_pids(&stage.lab, &active, "daemon")?;
            kill_processes(&stage, &active, &pids)?;
            node::wait_for_daemons(&stage.lab, &active)?;
            cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)?;
            cluster::wait_idle(&stage.lab, &active)?;
            found_again(&stage, &active)
        })?;
        ensure!(scene.active == active, "the service moved to {}", scene.active);
        ensure!(scene.tally.retried == 0, "an operation had to be sent again: {:?}", scene.tally);
    }
    stage.finish().map(|_| ())
}

/// The state is known again, by probe.
fn found_again(stage: &Stage, active: &str) -> Result<String> {
    let all =
        ["drbd_nfs Promoted", "fs_nfs Started", "nfs Started", "exp_srv Started", "vip Started"];
    wait::until("the resources to be found again", SOON, || {
        let held = cluster::holdings(&stage.lab, active, active)?;
        if let Some(missing) = all.iter().find(|r| !held.iter().any(|h| h == *r)) {
            bail!("{missing} is not found; {held:?}");
        }
        Ok(Some(String::new()))
    })
}

#[test]
fn the_death_of_blockd_alone_loses_no_acknowledged_record() -> Result<()> {
    let Some(stage) = Stage::playing("crash-blockd", TWO)? else { return Ok(()) };
    for round in 1..=3 {
        let active = stage.active()?;
        stage.scene(&format!("{round} kill -9 blockd on {active}"), || {
            let pids = node::daemon_pids(&stage.lab, &active, "blockd")?;
            kill_processes(&stage, &active, &pids)?;
            node::wait_for_daemons(&stage.lab, &active)?;
            Ok(format!("{} processes", pids.len()))
        })?;
        cluster::wait_for_sync(&stage.lab, &stage.lab.nodes()?)?;
    }
    // Until it is taken down the server answers from a file system whose device is gone: errors are honest then.
    stage.finish_whatever_was_seen().map(|_| ())
}

#[test]
fn a_dead_nfs_server_is_recovered_in_place_and_moves_after_the_threshold() -> Result<()> {
    let Some(stage) = Stage::playing("crash-nfs", TWO)? else { return Ok(()) };
    let home = stage.active()?;
    let edit = format!("rsc_defaults migration-threshold={THRESHOLD}\ncommit\nquit\n");
    cluster::configure(&stage.lab, &edit)?;
    for round in 1..=THRESHOLD {
        let scene = stage.scene(&format!("{round} kill -9 the NFS server on {home}"), || {
            node::exec(&stage.lab, &home, &["pkill", "-9", "ganesha.nfsd"])?;
            wait_for_failures(&stage, &home, round)
        })?;
        let moved = scene.active != home;
        ensure!(moved == (round == THRESHOLD), "round {round}: the service is on {}", scene.active);
    }
    let picture = node::exec(&stage.lab, &home, &["crm", "status"])?;
    ensure!(picture.contains("nfs"), "the failure is shown: {picture}");
    node::exec(&stage.lab, &home, &["crm", "resource", "cleanup", "nfs"])?;
    cluster::wait_idle(&stage.lab, &home)?;
    stage.finish().map(|_| ())
}

fn wait_for_failures(stage: &Stage, on: &str, count: usize) -> Result<String> {
    let count = u32::try_from(count).context("few failures")?;
    wait::until(&format!("failure {count} to be found"), SOON, || {
        let picture = node::status(&stage.lab, on)?;
        let history = picture.state.status.nodes.get(on).and_then(|n| n.resources.get("nfs"));
        Ok((history.map_or(0, |h| h.fail_count) >= count).then(String::new))
    })
}
