//! What survives a restart of the daemon but not a reboot: the mark that this node is current. Also the log's set-up and the clocks.

use anyhow::Context;
use crm_core::store::VolumeRecord;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Directory for sockets and marks: `CRM_RUN_DIR`, else `/run/crm`.
pub(crate) fn run_dir() -> PathBuf {
    std::env::var_os("CRM_RUN_DIR").map_or_else(|| PathBuf::from("/run/crm"), PathBuf::from)
}

/// Sends tracing to stderr (journald or the supervisor keeps it); `CRM_LOG` filters, default `info`.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CRM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn,h2=warn"));
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    if installed.is_err() {
        tracing::debug!("a log subscriber is installed already");
    }
}

/// Wall clock in milliseconds since the epoch.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}

/// Milliseconds since `start`.
pub(crate) fn since_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn boot_id() -> anyhow::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read boot id")?;
    Ok(id.trim().to_owned())
}

fn mark(dir: &Path) -> PathBuf {
    dir.join("current")
}

/// True when this node has been in a quorate cluster since it booted (membership.md 3.2, precondition c).
pub(crate) fn is_current(dir: &Path) -> bool {
    let stored = std::fs::read_to_string(mark(dir));
    matches!((stored, boot_id()), (Ok(stored), Ok(boot)) if stored.trim() == boot)
}

/// Makes the mark that [`is_current`] reads. The directory is on a tmpfs: a reboot forgets it, and the boot id says so where it is not.
pub(crate) fn set_current(dir: &Path) -> anyhow::Result<()> {
    let temporary = dir.join("current.new");
    let mut file = std::fs::File::create(&temporary).context("create the mark")?;
    file.write_all(boot_id()?.as_bytes()).context("write the mark")?;
    file.sync_all().context("sync the mark")?;
    std::fs::rename(&temporary, mark(dir)).context("rename the mark")
}

/// A number that nobody can foresee.
pub(crate) fn dice() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Keyed by the operating system's randomness.
    std::hash::RandomState::new().build_hasher().finish()
}

fn records(dir: &Path) -> PathBuf {
    dir.join("volume-records.json")
}

/// The volume records that this node made while it was alone and that the log had not taken over when the daemon ended.
///
/// # Errors
/// When they are there and cannot be read: without them this node could promote a replica that it must not.
pub(crate) fn kept_records(dir: &Path) -> anyhow::Result<BTreeMap<String, VolumeRecord>> {
    let path = records(dir);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Replaces what [`kept_records`] reads; durable when it returns.
pub(crate) fn keep_records(
    dir: &Path,
    kept: &BTreeMap<String, VolumeRecord>,
) -> anyhow::Result<()> {
    let temporary = dir.join("volume-records.new");
    let mut file = std::fs::File::create(&temporary).context("create the records")?;
    file.write_all(&serde_json::to_vec(kept)?).context("write the records")?;
    file.sync_all().context("sync the records")?;
    std::fs::rename(&temporary, records(dir)).context("rename the records")?;
    std::fs::File::open(dir).and_then(|d| d.sync_all()).context("sync their directory")
}
