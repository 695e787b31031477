//! An NFS server that runs as one process of ours: its directory, its pid file, whether it lives and answers.

use super::context::{Context, Failure};
use super::nfs::PORT;
use super::rpc;
use crm_core::status::rc;
use std::path::PathBuf;
use std::time::Duration;

/// One question of the monitor.
pub(super) const ASK: Duration = Duration::from_secs(5);

/// A server of one kind.
pub(super) struct Server {
    /// Directory below the run directory of the resource's node.
    pub(super) place: &'static str,
    /// A word of its command line that no other process under its old pid would have.
    pub(super) mark: &'static str,
    /// How messages call it.
    pub(super) title: &'static str,
}

impl Server {
    /// What belongs to it lies here.
    pub(super) fn directory(&self, context: &Context) -> PathBuf {
        context.run_dir.join(self.place)
    }

    /// Holds its process number while it runs.
    pub(super) fn pid_file(&self, context: &Context) -> PathBuf {
        self.directory(context).join("pid")
    }

    /// One file for each export.
    pub(super) fn exports_dir(&self, context: &Context) -> PathBuf {
        self.directory(context).join("exports")
    }

    /// Its process, when it runs: a process that has ended has no command line, also before it is reaped.
    pub(super) fn process(&self, context: &Context) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.pid_file(context)).ok()?.trim().parse().ok()?;
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        words.split(|byte| *byte == 0).any(|word| word == self.mark.as_bytes()).then_some(pid)
    }

    /// It runs, and answers.
    pub(super) fn serves(&self, context: &Context) -> bool {
        self.process(context).is_some() && rpc::null_call(PORT, 3, ASK).is_ok()
    }

    /// The monitor action.
    pub(super) fn monitor(&self, context: &Context) -> Result<i32, Failure> {
        if self.process(context).is_none() {
            return Ok(rc::NOT_RUNNING);
        }
        rpc::null_call(PORT, 3, ASK.min(context.left()))
            .map_err(|e| Failure::io(&format!("{} runs but does not answer", self.title), &e))?;
        Ok(rc::OK)
    }
}
