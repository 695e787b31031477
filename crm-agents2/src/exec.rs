//! The one place that starts processes: own process group, clean environment, limits on time and output.
#![expect(clippy::disallowed_methods, reason = "this module is where processes are started")]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Output kept of each stream, in bytes (the last ones).
pub const OUTPUT_MAX: usize = 64 << 10;
/// Time between TERM and KILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time that is waited for the output of a process that has ended but left children with its pipes.
const PIPE_GRACE: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Executable.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, with this code; a signal counts as 128 + its number.
    Exit(i32),
    /// Killed after its time.
    Timeout,
    /// Could not be started.
    NotStarted(io::Error),
}

/// Outcome of a job.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Last part of stdout.
    pub stdout: String,
    /// Last part of stderr.
    pub stderr: String,
}

/// Runs a job to its end or its time limit.
pub async fn run(job: &Job, limit: Duration) -> Outcome {
    let mut command = tokio::process::Command::new(&job.program);
    command
        .args(&job.args)
        .env_clear()
        .envs(&job.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let (stdout, stderr) = (String::new(), String::new());
            return Outcome { ended: Ended::NotStarted(error), stdout, stderr };
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let out = tokio::spawn(keep_last(child.stdout.take()));
    let err = tokio::spawn(keep_last(child.stderr.take()));
    let ended = match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) => Ended::Exit(exit_code(status)),
        Ok(Err(error)) => Ended::NotStarted(error),
        Err(_) => {
            end_group(&mut child, group).await;
            Ended::Timeout
        }
    };
    Outcome { ended, stdout: collected(out).await, stderr: collected(err).await }
}

async fn end_group(child: &mut tokio::process::Child, group: Option<i32>) {
    signal_group(group, nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_ok() {
        return;
    }
    signal_group(group, nix::sys::signal::Signal::SIGKILL);
    // One that hangs in the kernel (a mount of a dead server) cannot be killed now: it is not waited for.
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
        tracing::error!(?group, "a killed process does not end: it hangs in the kernel");
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn signal_group(group: Option<i32>, signal: nix::sys::signal::Signal) {
    let Some(group) = group else { return };
    match nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, group, "signal a process group"),
    }
}

async fn keep_last<R: AsyncRead + Unpin>(stream: Option<R>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 8 << 10]);
    while let Ok(read) = stream.read(&mut chunk).await {
        if read == 0 {
            break;
        }
        kept.extend(chunk.iter().take(read));
        if kept.len() > 2 * OUTPUT_MAX {
            kept.drain(..kept.len() - OUTPUT_MAX);
        }
    }
    kept
}

async fn collected(mut task: tokio::task::JoinHandle<Vec<u8>>) -> String {
    // A daemon started by the agent may keep the pipe open for ever.
    match tokio::time::timeout(PIPE_GRACE, &mut task).await {
        Ok(Ok(bytes)) => {
            let from = bytes.len().saturating_sub(OUTPUT_MAX);
            String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
        }
        Ok(Err(_)) => String::new(),
        Err(_) => {
            task.abort();
            String::new()
        }
    }
}

/// Runs a helper program of a native agent (no shell), waits for it.
///
/// # Errors
/// When it cannot be started, or ended with a code other than 0 (the message carries its last words).
pub fn call(program: &str, args: &[&str]) -> io::Result<String> {
    let output = std::process::Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no message").to_owned();
    Err(io::Error::other(format!("{program} {}: {last}", args.join(" "))))
}

/// Starts a daemon that outlives the agent: process group of its own, no pipe of ours.
///
/// # Errors
/// When it cannot be started, or when it ended at once with a failure.
pub fn daemon(program: &str, args: &[&str], log: &Path) -> io::Result<()> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let status = std::process::Command::new(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{program} ended with {status}")))
    }
}
