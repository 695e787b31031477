//! The mount table of this mount namespace (`/proc/self/mountinfo`, proc(5)).

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the mount.
    pub(crate) id: u64,
    /// `major:minor` of what is mounted.
    pub(crate) device: String,
    /// Where.
    pub(crate) target: PathBuf,
    /// Type of the file system.
    pub(crate) kind: String,
    /// What.
    pub(crate) source: String,
    /// Options of the mount and of the file system.
    pub(crate) options: Vec<String>,
}

/// All mounts, later ones over earlier ones.
pub(crate) fn all() -> Vec<Mount> {
    of("self").unwrap_or_default()
}

/// The mounts that a process sees.
pub(crate) fn of(process: &str) -> std::io::Result<Vec<Mount>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// The mount on top at `target`.
pub(crate) fn at(target: &Path) -> Option<Mount> {
    let wanted = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    all().into_iter().rfind(|m| m.target == wanted)
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let options = left.get(5)?.split(',').chain(right.get(2)?.split(','));
    Some(Mount {
        id: left.first()?.parse().ok()?,
        device: (*left.get(2)?).to_owned(),
        target: PathBuf::from(unescape(left.get(4)?)),
        kind: (*right.first()?).to_owned(),
        source: unescape(right.get(1)?),
        options: options.map(str::to_owned).collect(),
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = "36 35 98:0 / /mnt/with\\040space rw,noatime shared:1 - ext4 /dev/drbd0 rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.target, Path::new("/mnt/with space"));
        assert_eq!(mount.source, "/dev/drbd0");
        assert!(mount.options.contains(&"noatime".to_owned()));
    }
}
