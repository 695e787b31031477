//! ext4 through FUSE: for a volume that is shown as a plain file because there are no loop devices (a user namespace).
//!
//! fuse2fs answers an fsync when everything it holds has been written and flushed, so what an NFS server acknowledges is on the volume.
//! It keeps no journal: e2fsck goes over the file system before every mount.

use super::context::{Context, Failure};
use super::holders::{self, Holder};
use crate::exec;
use crm_core::status::rc;
use std::io::ErrorKind;
use std::path::Path;

const PROGRAM: &str = "fuse2fs";
const CHECK: &str = "e2fsck";
/// From this exit code on e2fsck has left something unmended.
const UNMENDED: i32 = 4;
/// Mount options that mean nothing to fuse2fs.
const DROPPED: [&str; 5] = ["defaults", "nodiratime", "diratime", "relatime", "errors=remount-ro"];

/// Whether `device` is a file with a file system that only fuse2fs can mount here.
pub(super) fn applies(device: &str, fstype: &str) -> bool {
    matches!(fstype, "ext2" | "ext3" | "ext4")
        && !Path::new("/dev/loop-control").exists()
        && std::fs::metadata(device).is_ok_and(|found| found.is_file())
}

/// The processes that serve the file system on `device`.
pub(super) fn servers(device: &str, fstype: &str) -> Vec<Holder> {
    if !applies(device, fstype) {
        return Vec::new();
    }
    let all = holders::of_file(Path::new(device));
    all.into_iter().filter(|holder| holder.name == PROGRAM).collect()
}

/// Checks and mounts.
pub(super) fn mount(
    context: &Context,
    device: &str,
    directory: &Path,
    options: Option<&str>,
) -> Result<(), Failure> {
    let missing = |program: &str, e: &std::io::Error| match e.kind() {
        ErrorKind::NotFound => {
            let why = format!("{program} is not here (apt-get install fuse2fs e2fsprogs)");
            Failure::new(rc::ERR_INSTALLED, why)
        }
        _ => Failure::io(&format!("run {program}"), e),
    };
    let (code, said) = exec::call_for_code(CHECK, &["-f", "-p", device])
        .map_err(|error| missing(CHECK, &error))?;
    if code >= UNMENDED {
        let why = format!("{CHECK} -p {device}: {said} (exit code {code})");
        return Err(Failure::new(rc::ERR_GENERIC, why));
    }
    let log = context.run_dir.join(format!("{PROGRAM}-{}.log", context.instance));
    let target = directory.display().to_string();
    let options = known_options(options.unwrap_or_default());
    let mut args = vec![device, target.as_str()];
    if !options.is_empty() {
        args.extend(["-o", options.as_str()]);
    }
    // It goes to the background by itself, when it has mounted.
    exec::daemon(PROGRAM, &args, &log).map_err(|error| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
        match error.kind() {
            ErrorKind::NotFound => missing(PROGRAM, &error),
            _ => Failure::io(&format!("mount {device} by {PROGRAM}: {last}"), &error),
        }
    })
}

fn known_options(options: &str) -> String {
    let known = options.split(',').map(str::trim);
    let known: Vec<_> = known.filter(|o| !o.is_empty() && !DROPPED.contains(o)).collect();
    known.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_fuse2fs_refuses_are_left_out() {
        assert_eq!(known_options("noatime,nodiratime"), "noatime");
        assert_eq!(known_options("defaults"), "");
        assert_eq!(known_options("ro, noatime"), "ro,noatime");
    }
}
