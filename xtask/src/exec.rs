//! Starting programs, saying things.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A line of output. A reader that went away is no error of ours.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// A program, started in the workspace's root.
#[expect(clippy::disallowed_methods, reason = "xtask drives cargo and Debian's tools")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo, as it called us.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(program);
    command.args(words);
    command
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn words(command: &Command) -> String {
    let mut all = vec![command.get_program().to_string_lossy().into_owned()];
    all.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    all.join(" ")
}

/// Runs to the end, output passed through.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let said = words(command);
    let status = command.status().map_err(|e| format!("`{said}`: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{said}`: {status}")) }
}

/// Runs to the end; its standard output. Standard error is passed through.
pub(crate) fn read(command: &mut Command) -> Result<String, String> {
    let said = words(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("`{said}`: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("`{said}`: {}\n{text}", output.status))
    }
}

/// Whether a program can be started and ends well.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let mut command = command(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    read(command("id").arg("-u")).is_ok_and(|text| text.trim() == "0")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the one that pretends to be the next version (tests of rolling upgrades), beside the ordinary one; where it is.
pub(crate) fn build_next() -> Result<PathBuf, String> {
    let features = ["--package", "crm", "--features", "pretend-next"];
    run(&mut cargo(&[&["build", "--locked"], &features[..]].concat()))?;
    let next = target_dir().join("debug/crm-next");
    // Cargo puts every build of it into the same place.
    std::fs::copy(target_dir().join("debug/crm"), &next)
        .map_err(|e| format!("keep `{}`: {e}", next.display()))?;
    Ok(next)
}

/// Builds the one executable; where it is.
pub(crate) fn build_release() -> Result<PathBuf, String> {
    run(&mut cargo(&["build", "--release", "--locked", "--package", "crm"]))?;
    Ok(target_dir().join("release/crm"))
}
