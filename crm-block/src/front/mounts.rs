//! What is mounted where, as the kernel tells this mount namespace.

use super::error::{FrontError, step};
use nix::sys::stat::makedev;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Device number of the file system.
    pub(super) device: u64,
    /// Type, e.g. `ext4`.
    pub(super) kind: String,
}

/// The topmost mount at `path`, an absolute path without links.
pub(super) fn at(path: &Path) -> Result<Option<Mount>, FrontError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(step("read", table))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(|line| parse(line, path)).next_back())
}

/// The mount of a line of `mountinfo`, if it is at `path`.
fn parse(line: &str, path: &Path) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = fields.nth(1)?;
    if unescape(point) != path.as_os_str().as_bytes() {
        return None;
    }
    let device = makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { device, kind: right.split(' ').next()?.to_owned() })
}

/// Undoes the kernel's `\040` and the like.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                bytes = &rest[3..];
            }
            Some(_) | None => out.push(*first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_point_even_with_a_space() {
        let line = r"36 35 0:57 / /run/a\040b/r0 rw,nosuid shared:1 - fuse.crm r0 rw,user_id=0";
        let found = parse(line, Path::new("/run/a b/r0")).unwrap();
        assert_eq!(found, Mount { device: 57, kind: "fuse.crm".to_owned() });
        assert_eq!(parse(line, Path::new("/run/a")), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
    }
}
