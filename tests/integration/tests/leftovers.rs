//! The lab leaves nothing behind, also after a crash.

use anyhow::{Context, Result, ensure};
use crm_integration::{Stage, TWO};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a lab could leave on the machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: String,
    loops: BTreeSet<String>,
    processes: usize,
    places: Vec<bool>,
}

fn traces(dir: &Path) -> Result<Traces> {
    let mut loops = BTreeSet::new();
    for entry in fs::read_dir("/sys/block").context("read /sys/block")? {
        let path = entry.context("read /sys/block")?.path();
        if path.join("loop/backing_file").exists() {
            loops.insert(path.display().to_string());
        }
    }
    let mut processes = 0;
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let exe = fs::read_link(entry.context("read /proc")?.path().join("exe"));
        processes += usize::from(exe.is_ok_and(|path| path.starts_with(dir)));
    }
    let mounts = fs::read_to_string("/proc/mounts").context("read the mounts")?;
    let places = ["/etc/crm", "/var/lib/crm", "/run/crm"].map(|p| Path::new(p).exists()).to_vec();
    Ok(Traces { mounts, loops, processes, places })
}

#[test]
fn down_leaves_no_mount_loop_device_process_or_file_behind() -> Result<()> {
    let Some(stage) = Stage::empty("leftovers")? else { return Ok(()) };
    let dir = stage.lab.dir();
    let before = traces(dir)?;
    crm_lab::up(&stage.lab, &stage.plan(TWO)?)?;
    crm_lab::client::start(&stage.lab, "/srv")?;
    crm_lab::down(&stage.lab)?;
    ensure!(!dir.exists(), "{} is still there", dir.display());
    ensure!(traces(dir)? == before, "before: {before:?}\nafter: {:?}", traces(dir)?);
    crm_lab::down(&stage.lab).context("a second down")?;
    Ok(())
}

#[test]
fn a_lab_that_was_abandoned_is_replaced_and_removed() -> Result<()> {
    let Some(stage) = Stage::empty("abandoned")? else { return Ok(()) };
    let dir = stage.lab.dir();
    let before = traces(dir)?;
    crm_lab::bare(&stage.lab, &stage.plan(TWO)?)?;
    // What a crash in the middle leaves: no pid files.
    fs::remove_dir_all(dir.join("run")).context("forget the pids")?;
    crm_lab::bare(&stage.lab, &stage.plan(TWO)?).context("build over the remains")?;
    crm_lab::down(&stage.lab)?;
    ensure!(traces(dir)? == before, "before: {before:?}\nafter: {:?}", traces(dir)?);
    Ok(())
}
