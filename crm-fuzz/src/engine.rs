//! Both engines behind one face: a document goes in, a decision comes out.

use crate::summary::{self, Decision};
use crate::tree::Xml;
use crm_core::plan::Habits;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The time at which everything is evaluated: the documents carry it too (`execution-date`).
pub const NOW_MS: u64 = 1_700_000_000_000;

/// What the engine of this workspace decides, and what it would print.
///
/// # Errors
/// What the reader refuses.
pub fn ours(document: &Xml) -> Result<(Decision, String), String> {
    ours_with(document, Habits::default())
}

/// The same with habits of an old release.
///
/// # Errors
/// What the reader refuses.
pub fn ours_with(document: &Xml, habits: Habits) -> Result<(Decision, String), String> {
    ours_of(&document.to_string(), habits)
}

/// The same of a text.
///
/// # Errors
/// What the reader refuses.
pub fn ours_of(text: &str, habits: Habits) -> Result<(Decision, String), String> {
    let mut document = crm_core::xml::read(text, NOW_MS).map_err(|problems| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    document.habits = habits;
    // A panic is a finding like any other; it must not end the run.
    let run = || crm_cli::pacemaker_style(&crm_core::simulate::run(&document, &[]));
    let text = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .map_err(|_| PANICKED.to_owned())?;
    Ok((summary::read(&text)?, text))
}

/// What is said of an engine that panicked; where it did is on standard error.
pub const PANICKED: &str = "panicked";

/// Why there is no decision of `crm_simulate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It ended itself: a promise that its source makes was not kept (`CRM_ASSERT`, a crash).
    Aborted(String),
    /// It refused the document, or what it printed was not understood.
    Refused(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Aborted(why) => write!(f, "aborts: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// Debian's `crm_simulate`.
#[derive(Debug, Clone)]
pub struct Oracle {
    program: PathBuf,
    file: PathBuf,
}

impl Oracle {
    /// Where it is installed; nothing where it is not. `name` keeps several of them apart.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let program = ["/usr/sbin/crm_simulate", "/usr/bin/crm_simulate"]
            .into_iter()
            .map(PathBuf::from)
            .find(|p| p.is_file())?;
        let file = std::env::temp_dir().join(format!("crm-fuzz-{}-{name}.xml", std::process::id()));
        Some(Self { program, file })
    }

    /// What it decides, and what it printed.
    ///
    /// # Errors
    /// It aborted, refused the document, or printed what cannot be read.
    #[expect(clippy::disallowed_methods, reason = "a development tool drives Debian's program")]
    pub fn decide(&self, document: &Xml) -> Result<(Decision, String), Failure> {
        let note = |e: std::io::Error| Failure::Refused(format!("{}: {e}", self.file.display()));
        fs::write(&self.file, document.to_string()).map_err(note)?;
        let mut command = Command::new(&self.program);
        command.args(["-S", "-x"]).arg(&self.file).env("LC_ALL", "C").stdin(Stdio::null());
        let output =
            command.output().map_err(|e| Failure::Refused(format!("crm_simulate: {e}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(signal) = output.status.signal() {
            let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
            return Err(Failure::Aborted(format!("signal {signal}: {}", last.trim())));
        }
        let mut read = summary::read(&text).map_err(Failure::Refused)?;
        read.stuck = said.contains("An invalid transition was produced");
        if !output.status.success() && !read.stuck {
            let why = format!("crm_simulate: {}: {}", output.status, said.trim());
            return Err(Failure::Refused(why));
        }
        Ok((read, text))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Another one may not have written yet, or it is gone already.
        drop(fs::remove_file(&self.file));
    }
}

/// Where two decisions differ.
#[expect(clippy::struct_excessive_bools, reason = "each level differs or not by itself")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// What is seen at the beginning.
    pub before: bool,
    /// Final placement.
    pub placement: bool,
    /// Set of actions.
    pub actions: bool,
    /// Everything executed.
    pub executed: bool,
}

impl Levels {
    /// The levels on which they differ.
    #[must_use]
    pub fn of(a: &Decision, b: &Decision) -> Self {
        // Where a transition got stuck, what was executed of it says nothing.
        let ended = !a.stuck && !b.stuck;
        Self {
            before: a.before != b.before,
            placement: ended && a.after != b.after,
            actions: if ended { a.actions != b.actions } else { a.announced() != b.announced() },
            executed: ended && a.executed != b.executed,
        }
    }

    /// Different on L1 or L2.
    #[must_use]
    pub const fn decides_differently(self) -> bool {
        self.placement || self.actions
    }
}
