//! The demo without root: an unprivileged user runs the whole script, in a user namespace, and on loopback addresses.
//!
//! Run by root, the test lends itself to a user without any rights (`nobody`'s number), in a mount namespace whose `/dev/fuse` everybody
//! may open, as udev makes it. Run by a user, it is that user.

use anyhow::{Context, Result, ensure};
use crm_integration::{alone, executable, say};
use crm_lab::wait;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// A user that owns nothing.
const NOBODY: u32 = 65_534;
/// How long processes of the lab may take to be reaped.
const REAP_LIMIT: Duration = Duration::from_secs(10);
/// As root: `/dev/fuse` for everybody, seen by this test only; then the words as nobody.
const LEND: &str = "set -e
mount -t tmpfs tmpfs \"$1\"
mknod \"$1/fuse\" c 10 229
chmod 666 \"$1/fuse\"
mount --bind \"$1/fuse\" /dev/fuse
umount -l \"$1\"
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs words as a user without rights.
#[expect(clippy::disallowed_methods, reason = "the test stands in for a person at a shell")]
fn as_user(mount_point: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(if is_root() { "unshare" } else { "env" });
    if is_root() {
        command.args(["--mount", "sh", "-c", LEND, "sh"]).arg(mount_point);
    }
    command.args(words).current_dir("/");
    command.output().with_context(|| format!("run {words:?} as a user"))
}

/// Why this machine cannot run it, if it cannot.
fn obstacle(mount_point: &Path) -> Result<Option<String>> {
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let fuse2fs = ["/usr/bin/fuse2fs", "/usr/sbin/fuse2fs"].iter().any(|p| Path::new(p).exists());
    if !fuse2fs {
        return Ok(Some("fuse2fs is not installed".to_owned()));
    }
    let fuse = as_user(mount_point, &["sh", "-c", "exec 3<>/dev/fuse"])?;
    if !fuse.status.success() {
        return Ok(Some(format!("/dev/fuse: {}", said(&fuse))));
    }
    let space = as_user(mount_point, &["unshare", "--user", "--map-root-user", "--net", "true"])?;
    Ok((!space.status.success()).then(|| format!("user namespaces: {}", said(&space))))
}

/// Living processes whose executable is in `dir`.
fn processes(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let exe = fs::read_link(entry.context("read /proc")?.path().join("exe"));
        count += usize::from(exe.is_ok_and(|path| path.starts_with(dir)));
    }
    Ok(count)
}

#[test]
fn a_user_without_rights_runs_the_whole_script_and_nothing_is_left() -> Result<()> {
    staged(&[], &["no root", ", fsck clean"])
}

#[test]
fn without_namespaces_the_script_runs_on_loopback_addresses_and_nothing_is_left() -> Result<()> {
    staged(&["--loopback"], &["reduced", "as you wish", " MiB equal on "])
}

/// The script with more `words`, in a home of its own; it must say all of `wanted`.
fn staged(words: &[&str], wanted: &[&str]) -> Result<()> {
    // A user has no right to root's lock, and no other lab beside this one.
    let _alone = if is_root() { Some(alone()?) } else { None };
    let scratch =
        Path::new("/var/tmp").join(format!("crm-rootless-{}-{}", words.len(), std::process::id()));
    let result = fs::create_dir_all(scratch.join("home"))
        .context("make the user's home")
        .and_then(|()| in_home(&scratch, words, wanted));
    let gone = fs::remove_dir_all(&scratch).context("remove the user's home");
    result.and(gone)
}

fn in_home(scratch: &Path, words: &[&str], wanted: &[&str]) -> Result<()> {
    let home = scratch.join("home");
    // The user may not enter root's directories: the executable goes where everybody can read it.
    let program = scratch.join("crm");
    fs::copy(executable()?, &program).context("copy the executable")?;
    for path in [scratch, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("open it to all")?;
    }
    if is_root() {
        chown(&home, Some(NOBODY), Some(NOBODY)).context("give the home to the user")?;
    }
    let mount_point = scratch.join("dev");
    fs::create_dir_all(&mount_point).context("make a mount point")?;
    // On loopback addresses nothing of the machine is needed.
    if words.is_empty()
        && let Some(why) = obstacle(&mount_point)?
    {
        say(&format!("SKIPPED: rootless: {why}"));
        return Ok(());
    }
    let program = program.to_str().context("the path is text")?;
    let dir = home.join("lab");
    let dir_text = dir.to_str().context("the path is text")?;
    let base = [program, "demo", "--script", "--dir", dir_text];
    let script = as_user(&mount_point, &[&base, words].concat())?;
    let (out, error) =
        (String::from_utf8_lossy(&script.stdout), String::from_utf8_lossy(&script.stderr));
    say(&format!("rootless:\n{out}{error}"));
    ensure!(script.status.success(), "the script ended with {}", script.status);
    ensure!(out.contains(" lost 0 ") && out.contains(" errors 0 "), "records are lost");
    for part in wanted {
        ensure!(out.contains(part), "it does not say `{part}`");
    }
    ensure!(!dir.exists(), "{dir_text} is still there");
    // Others on the machine mount and unmount meanwhile: only what is ours counts.
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let ours = scratch.to_str().context("the path is text")?;
    ensure!(!mounts.contains(ours), "mounts are left behind:\n{mounts}");
    wait::until("the lab's processes to be gone", REAP_LIMIT, || {
        Ok((processes(&dir)? == 0).then_some(()))
    })?;
    let down = as_user(&mount_point, &[program, "demo", "down", "--dir", dir_text])?;
    ensure!(down.status.success(), "a second down: {}", String::from_utf8_lossy(&down.stderr));
    Ok(())
}
