//! What the demo and the tests need from Debian.

use crate::exec::{self, command, is_root, read, say};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Needed by the lab, by Debian's own agents in it, and as oracles (crmsh, `crm_simulate`) of the parity tests.
const PACKAGES: [&str; 17] = [
    "netbase",
    "nfs-ganesha",
    "nfs-ganesha-vfs",
    "rpcbind",
    "resource-agents",
    "pacemaker-resource-agents",
    "e2fsprogs",
    "fuse2fs",
    "iproute2",
    "fio",
    "psmisc",
    "procps",
    "util-linux",
    "kmod",
    "fence-agents",
    "crmsh",
    "pacemaker-cli-utils",
];
/// Asked by invoke-rc.d whether a package may start its service. The lab starts its own, in its own namespaces.
const POLICY: &str = "/usr/sbin/policy-rc.d";

fn missing() -> Result<Vec<&'static str>, String> {
    let mut query = command("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(PACKAGES);
    // It fails when a package is unknown, and still names the known ones.
    let output = query.output().map_err(|e| format!("`dpkg-query`: {e}; this needs Debian 12"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let has = |name: &str| text.lines().any(|line| line == format!("{name} installed"));
    Ok(PACKAGES.into_iter().filter(|name| !has(name)).collect())
}

fn install(packages: &[&str]) -> Result<(), String> {
    let apt = |words: &[&str]| {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]).args(words);
        apt
    };
    exec::run(&mut apt(&["update"]))?;
    exec::run(apt(&["install", "--no-install-recommends"]).args(packages))
}

fn quietly(packages: &[&str]) -> Result<(), String> {
    if Path::new(POLICY).exists() {
        return install(packages);
    }
    let note = |e: std::io::Error| format!("{POLICY}: {e}");
    fs::write(POLICY, "#!/bin/sh\nexit 101\n").map_err(note)?;
    fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).map_err(note)?;
    let result = install(packages);
    fs::remove_file(POLICY).map_err(note)?;
    result
}

/// The list of mounts under its old name, as systemd makes it at boot: NFS-Ganesha reads it, and a machine made by debootstrap has none.
fn link_mounts() -> Result<(), String> {
    const MTAB: &str = "/etc/mtab";
    if !is_root() || fs::symlink_metadata(MTAB).is_ok() {
        return Ok(());
    }
    std::os::unix::fs::symlink("../proc/self/mounts", MTAB).map_err(|e| format!("{MTAB}: {e}"))
}

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<(), String> {
    link_mounts()?;
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        let list = missing.join(" ");
        say(&format!("setup: not root, {list} are missing: tests that need them are skipped"));
        return Ok(());
    }
    say(&format!("setup: install {}", missing.join(" ")));
    quietly(&missing)?;
    read(command("dpkg-query").args(["-W", "-f=${Package} ${Version}\n"]).args(PACKAGES))
        .map(|text| say(text.trim()))
}
