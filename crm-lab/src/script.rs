//! The scenes, one after the other, with what the client saw of each: drain, return, kill, heal; then the proof.

use crate::client::{self, Question, Tally};
use crate::cluster::{self, MOVE_LIMIT};
use crate::lab::Lab;
use crate::{check, net, node, ui, wait};
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// How long the client writes undisturbed before and after each scene.
const CALM: Duration = Duration::from_secs(2);
/// Records that must be acknowledged after a scene before it counts as over.
const RECORDS_AFTER: u64 = 50;

/// What a scene came to.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Its name.
    pub name: String,
    /// Node that held the service afterwards.
    pub active: String,
    /// The client's counters at its end; the gap is this scene's.
    pub tally: Tally,
    /// What else is worth knowing.
    pub note: String,
}

/// Lets the client write undisturbed until `RECORDS_AFTER` more records are acknowledged; its tally then.
///
/// # Errors
/// When it does not get that far within a minute.
pub fn calm(lab: &Lab) -> Result<Tally> {
    let before = client::ask(lab, Question::Tally)?.acknowledged;
    wait::until("the client to write on", MOVE_LIMIT, || {
        let tally = client::ask(lab, Question::Tally)?;
        if tally.acknowledged < before + RECORDS_AFTER {
            bail!(
                "{} records acknowledged since; {}",
                tally.acknowledged - before,
                tally.last_error
            );
        }
        Ok(Some(tally))
    })
}

/// Runs one scene: marks, acts, waits until the client writes again.
///
/// # Errors
/// When the act fails or the client does not get on.
pub fn scene(lab: &Lab, name: &str, act: impl FnOnce() -> Result<String>) -> Result<Scene> {
    client::ask(lab, Question::Mark)?;
    let note = act().with_context(|| name.to_owned())?;
    let active = cluster::wait_for_service(lab).with_context(|| name.to_owned())?;
    let tally = calm(lab).with_context(|| name.to_owned())?;
    Ok(Scene { name: name.to_owned(), active, tally, note })
}

/// `crm node standby NODE --wait`, and proof that the node holds nothing then.
///
/// # Errors
/// When it still holds something, or the cluster refuses.
pub fn drain(lab: &Lab, name: &str) -> Result<String> {
    node::exec(lab, name, &["crm", "node", "standby", name, "--wait"])?;
    let held = cluster::holdings(lab, name, name)?;
    if !held.is_empty() {
        bail!("{name} is in standby and still holds {}", held.join(", "));
    }
    if lab.is_loopback() {
        return Ok(format!("{name} holds nothing"));
    }
    let mounts = node::exec(lab, name, &["cat", "/proc/mounts"])?;
    if cluster::is_srv_mounted(&mounts) {
        bail!("{name} is in standby and still has /srv mounted");
    }
    Ok(format!("{name} holds nothing"))
}

/// `crm node online NODE`: waits for the resync; how much was resynced. Nothing may move.
///
/// # Errors
/// When the service moves, or the resync does not end.
pub fn bring_back(lab: &Lab, name: &str) -> Result<String> {
    let before = cluster::wait_for_service(lab)?;
    node::exec(lab, &before, &["crm", "node", "online", name])?;
    settle(lab, name, &before)
}

/// Starts a dead node, or mends its link; waits for the resync. Nothing may move.
///
/// # Errors
/// As [`bring_back`].
pub fn heal(lab: &Lab, name: &str) -> Result<String> {
    let before = cluster::wait_for_service(lab)?;
    if node::is_on(lab, name) {
        net::mend(lab, name)?;
    } else {
        node::start(lab, name)?;
    }
    cluster::wait_for_members(lab, &lab.nodes()?)?;
    settle(lab, name, &before)
}

fn settle(lab: &Lab, name: &str, before: &str) -> Result<String> {
    cluster::wait_for_sync(lab, &lab.nodes()?)?;
    cluster::wait_idle(lab, before)?;
    let after = cluster::wait_for_service(lab)?;
    if after != before {
        bail!("the service moved from {before} to {after}, nobody asked for that");
    }
    let bytes = node::volume(lab, name)?
        .map_or(0, |status| status.peers.iter().map(|peer| peer.resynced_bytes).sum::<u64>());
    Ok(format!("{} KiB resynced", bytes / 1024))
}

/// The whole script.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    client::start(lab, "/srv")?;
    wait::pause(CALM);
    let mut scenes = Vec::new();
    let first = cluster::wait_for_service(lab)?;
    show(&mut scenes, scene(lab, &format!("drain {first}"), || drain(lab, &first))?);
    show(&mut scenes, scene(lab, &format!("return {first}"), || bring_back(lab, &first))?);
    wait::pause(CALM);
    let second = cluster::wait_for_service(lab)?;
    if second == first {
        bail!("the service is on {first} again: it must stay where it was drained to");
    }
    let kill = scene(lab, &format!("kill {second}"), || {
        node::kill(lab, &second)?;
        Ok(String::new())
    });
    show(&mut scenes, kill?);
    show(&mut scenes, scene(lab, &format!("heal {second}"), || heal(lab, &second))?);
    wait::pause(CALM);
    let end = client::ask(lab, Question::Finish)?;
    ui::say(&format!(
        "  records   written {}  acknowledged {}  found {}  lost {}  retried {}  errors {}  stale {}  longest gap {} ms",
        end.written,
        end.acknowledged,
        end.found,
        end.acknowledged - end.found,
        end.retried,
        end.errors,
        end.stale,
        end.longest.ms
    ));
    let proof = check::prove(lab)?;
    ui::say(&format!(
        "  replicas  {} MiB equal on {}{}",
        proof.bytes >> 20,
        proof.nodes.join(" and "),
        if proof.clean { ", fsck clean" } else { "" }
    ));
    if !end.is_clean() {
        bail!("the client saw errors or lost records: {end:?}");
    }
    Ok(())
}

fn show(scenes: &mut Vec<Scene>, scene: Scene) {
    let records = &scene.tally;
    ui::say(&format!(
        "  {:<13} gap {:>6} ms   written {:>6}  acknowledged {:>6}  errors {}   now on {}  {}",
        scene.name,
        records.gap.ms,
        records.written,
        records.acknowledged,
        records.errors,
        scene.active,
        scene.note
    ));
    scenes.push(scene);
}
