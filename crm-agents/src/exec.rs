//! The one place that starts processes: own session, clean environment, limits on time and output.
#![expect(clippy::disallowed_methods, reason = "this module is where processes are started")]

use crate::sys;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

/// Output kept of each stream, in bytes (the last ones).
pub const OUTPUT_MAX: usize = 64 << 10;
/// Longest time between TERM and KILL; it is a tenth of the operation's time limit.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Shortest time between TERM and KILL.
const TERM_GRACE_MIN: Duration = Duration::from_millis(200);
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
    /// It is killed when nobody waits for it any more. (Operations of resources go on without their daemon.)
    pub leashed: bool,
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
    run_with(job, String::new(), limit).await
}

/// The same with something to read for it; it may hold passwords and is shown nowhere.
pub async fn run_with(job: &Job, input: String, limit: Duration) -> Outcome {
    let mut command = std::process::Command::new(&job.program);
    command
        .args(&job.args)
        .env_clear()
        .envs(&job.env)
        .current_dir("/")
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    sys::own_session(&mut command);
    let mut child = match tokio::process::Command::from(command).spawn() {
        Ok(child) => child,
        Err(error) => {
            let (stdout, stderr) = (String::new(), String::new());
            return Outcome { ended: Ended::NotStarted(error), stdout, stderr };
        }
    };
    if let Some(pipe) = child.stdin.take() {
        // On its own: a child that reads late must not keep us from reading what it writes.
        tokio::spawn(feed(pipe, input));
    }
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    // A run that is called off (the future is dropped) leaves nothing behind.
    let mut leash = Leash(group.filter(|_| job.leashed));
    let mut out = Tail::new(child.stdout.take());
    let mut err = Tail::new(child.stderr.take());
    let (mut phase, mut until) = (Phase::Running, Instant::now() + limit);
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break Some(status),
            () = out.read(), if out.open() => {}
            () = err.read(), if err.open() => {}
            () = sleep_until(until) => {
                let Some(next) = escalate(phase, group, limit) else { break None };
                (phase, until) = next;
            }
        }
    };
    if phase != Phase::Running {
        // What the child left behind of its group goes too.
        signal_group(group, Signal::SIGKILL);
        match tokio::task::spawn_blocking(move || gone(group)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(?group, %error, "a killed process does not end"),
            Err(error) => tracing::error!(?group, %error, "wait for the end of a killed group"),
        }
    }
    let rest = async {
        while out.open() || err.open() {
            tokio::select! {
                biased;
                () = out.read(), if out.open() => {}
                () = err.read(), if err.open() => {}
            }
        }
    };
    if timeout(PIPE_GRACE, rest).await.is_err() {
        // A daemon started by the agent may keep the pipe open for ever; what was said so far is kept.
        tracing::debug!(program = job.program, "something that it started holds its output");
    }
    leash.0 = None;
    let ended = match (phase, status) {
        (Phase::Running, Some(Ok(status))) => Ended::Exit(exit_code(status)),
        (Phase::Running, Some(Err(error))) => Ended::NotStarted(error),
        (Phase::Running | Phase::Asked | Phase::Killed, _) => Ended::Timeout,
    };
    Outcome { ended, stdout: out.text(), stderr: err.text() }
}

/// Kills a process group that is not waited for any more.
struct Leash(Option<i32>);

impl Drop for Leash {
    fn drop(&mut self) {
        signal_group(self.0.take(), Signal::SIGKILL);
    }
}

/// Gives a child its input and closes it. One that does not want all of it has ended, or will: its exit code tells.
async fn feed(mut pipe: tokio::process::ChildStdin, input: String) {
    if let Err(error) = pipe.write_all(input.as_bytes()).await {
        tracing::debug!(%error, "a program did not read its input");
    }
}

/// Where a child stands with its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Asked,
    Killed,
}

/// The next step against a child whose time is up: TERM, then KILL; `None` when it hangs in the kernel and is left behind.
fn escalate(phase: Phase, group: Option<i32>, limit: Duration) -> Option<(Phase, Instant)> {
    let grace = (limit / 10).clamp(TERM_GRACE_MIN, TERM_GRACE);
    match phase {
        Phase::Running => {
            signal_group(group, Signal::SIGTERM);
            Some((Phase::Asked, Instant::now() + grace))
        }
        Phase::Asked => {
            signal_group(group, Signal::SIGKILL);
            Some((Phase::Killed, Instant::now() + TERM_GRACE))
        }
        Phase::Killed => {
            tracing::error!(?group, "a killed process does not end: it hangs in the kernel");
            None
        }
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn signal_group(group: Option<i32>, signal: Signal) {
    let Some(group) = group else { return };
    match killpg(Pid::from_raw(group), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, group, "signal a process group"),
    }
}

/// Waits until nothing of a killed group runs any more: a signal is only sent when kill(2) returns, and the
/// next operation on the resource must not meet what is left of this one.
///
/// # Errors
/// When one does not end within [`TERM_GRACE`]: it hangs in the kernel.
fn gone(group: Option<i32>) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    let until = Instant::now() + TERM_GRACE;
    for member in members(group) {
        let Some(pid) = rustix::process::Pid::from_raw(member) else { continue };
        // One that cannot be opened has ended and been reaped meanwhile.
        let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        let left = until.saturating_duration_since(Instant::now());
        let limit = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = [PollFd::new(&fd, PollFlags::IN)];
        if rustix::event::poll(&mut watched, Some(&limit))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("process {member} hangs in the kernel"),
            ));
        }
    }
    Ok(())
}

/// The processes of a group (proc(5): the third field after the name in parentheses).
fn members(group: i32) -> Vec<i32> {
    let of_group = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        (fields.split_whitespace().nth(2)?.parse() == Ok(group)).then_some(())
    };
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of_group(pid).is_some()).collect()
}

/// The end of a stream.
#[derive(Debug)]
struct Tail<R> {
    stream: Option<R>,
    kept: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Tail<R> {
    const fn new(stream: Option<R>) -> Self {
        Self { stream, kept: Vec::new() }
    }

    const fn open(&self) -> bool {
        self.stream.is_some()
    }

    /// Reads once. A broken pipe ends the stream like its end does: what came before still counts.
    async fn read(&mut self) {
        let Some(stream) = self.stream.as_mut() else { return };
        let mut chunk = vec![0; 8 << 10];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            self.stream = None;
        }
        self.kept.extend(chunk.iter().take(read));
        if self.kept.len() > 2 * OUTPUT_MAX {
            self.kept.drain(..self.kept.len() - OUTPUT_MAX);
        }
    }

    fn text(&self) -> String {
        let from = self.kept.len().saturating_sub(OUTPUT_MAX);
        String::from_utf8_lossy(self.kept.get(from..).unwrap_or_default()).into_owned()
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

/// As [`call`], for programs whose exit code says more than yes or no: the code, and their last words.
///
/// # Errors
/// When it cannot be started, or was ended by a signal.
pub fn call_for_code(program: &str, args: &[&str]) -> io::Result<(i32, String)> {
    let output = std::process::Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    let code = output.status.code();
    let code = code.ok_or_else(|| io::Error::other(format!("{program}: {}", output.status)))?;
    let said = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    let last = said.iter().find_map(|t| t.lines().rfind(|l| !l.trim().is_empty()));
    Ok((code, last.unwrap_or("no message").to_owned()))
}

/// Starts a daemon that outlives the agent: session of its own, no pipe of ours. Waits until it has gone to the background.
///
/// # Errors
/// When it cannot be started, or when it ended at once with a failure.
pub fn daemon(program: &str, args: &[&str], log: &Path) -> io::Result<()> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = std::process::Command::new(program);
    command.args(args).current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    sys::own_session(&mut command);
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{program} ended with {status}")))
    }
}

/// Starts a helper that nobody waits for: session of its own, output into `log` or dropped. Returns its process id.
///
/// # Errors
/// When it cannot be started.
pub fn detach(program: &Path, args: &[&str], log: Option<&Path>) -> io::Result<u32> {
    let output = || match log {
        Some(log) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
            io::Result::Ok(Stdio::from(file))
        }
        None => Ok(Stdio::null()),
    };
    let mut command = std::process::Command::new(program);
    command.args(args).current_dir("/").stdin(Stdio::null()).stdout(output()?).stderr(output()?);
    sys::own_session(&mut command);
    command.spawn().map(|child| child.id())
}
