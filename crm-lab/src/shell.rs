//! Commands of the system that the lab calls (`ip`, `nsenter`, `losetup`, `mkfs.ext4`): started here and nowhere else, always with
//! their words shown in the error.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Search path inside the lab, after the lab's own `bin`.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with the lab's search path.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab drives system tools; it is no part of the daemons"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", PATH).env("LC_ALL", "C.UTF-8");
    command
}

/// The command's words, for messages.
pub(crate) fn words(command: &Command) -> String {
    let mut all = vec![command.get_program().to_string_lossy().into_owned()];
    all.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    all.join(" ")
}

/// Runs a command to its end; an exit code other than 0 is an error with its standard error in it.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let said = words(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run `{said}`"))?;
    checked(&said, &output)
}

/// As [`run`], with text on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let said = words(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run `{said}`"))?;
    let fed = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("run `{said}`"))?;
    // A command that refuses its input closes early: its own words matter more than the broken pipe.
    let text = checked(&said, &output)?;
    fed.with_context(|| format!("feed `{said}`"))?;
    Ok(text)
}

/// Runs `program args...`.
pub(crate) fn sh(program: &str, args: &[&str]) -> Result<String> {
    run(command(program).args(args))
}

fn checked(said: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{said}`: {}: {}{}", output.status, error.trim(), last_words(&text));
    }
    Ok(text)
}

fn last_words(text: &str) -> String {
    let tail: Vec<&str> = text.trim().lines().rev().take(20).collect();
    if tail.is_empty() {
        return String::new();
    }
    let shown: Vec<&str> = tail.into_iter().rev().collect();
    format!("\n{}", shown.join("\n"))
}
