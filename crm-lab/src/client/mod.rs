//! The NFS client of the lab: appends checksummed records to a file on the export, waits for each to be acknowledged as stable, and proves
//! at the end that every acknowledged record is there unchanged.
//!
//! It does what a hard mount does: an operation that gets no answer is sent again, over a new connection, until it is acknowledged. What
//! it counts: records sent, acknowledged, found; retries; errors (an answer that a program would have seen as a failure); the longest
//! time between two acknowledgements.

mod record;
mod session;
mod tally;
mod volume;
mod worker;

pub use record::RECORD_BYTES;
pub use tally::{Gap, Tally};
pub(crate) use worker::{Options, run};

use crate::lab::Lab;
use crate::ns::{self, CLIENT};
use crate::{shell, wait};
use anyhow::{Context, Result, bail};
use crm_proto::line::Line;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use std::time::Duration;

/// How long the client may take to mount and write its first record.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// Limit of a question to the client; reading all records back is one.
const CALL_LIMIT: Duration = Duration::from_secs(300);

/// A question to the running client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// How it goes.
    Tally,
    /// Start to measure anew: the next tally's gap counts from here.
    Mark,
    /// Stop writing, read all back, say what came of it, end.
    Finish,
}

/// Asks the running client.
///
/// # Errors
/// When it does not run or does not answer.
pub fn ask(lab: &Lab, question: Question) -> Result<Tally> {
    let socket = lab.client_dir().join("sock");
    Line::call(&socket, Some(CALL_LIMIT), &question).context("ask the NFS client")
}

/// Starts the client in its namespace and waits for its first acknowledged record.
///
/// # Errors
/// When it cannot mount or write within a minute; its last error is in the message.
pub fn start(lab: &Lab, export: &str) -> Result<()> {
    let log = ns::open_log(&lab.client_dir().join("client.log"))?;
    let error = log.try_clone().context("share the log")?;
    let mut command = ns::inside(lab, CLIENT)?;
    command.arg(lab.executable()).args(["demo", "client", "--export", export, "--dir"]);
    command.arg(lab.dir()).stdin(Stdio::null()).stdout(log).stderr(error);
    command.spawn().with_context(|| format!("start `{}`", shell::words(&command)))?;
    let first = wait::until("the NFS client's first record", FIRST_LIMIT, || {
        let tally = ask(lab, Question::Tally)?;
        if tally.acknowledged == 0 && !tally.last_error.is_empty() {
            bail!("{}", tally.last_error);
        }
        Ok((tally.acknowledged > 0).then_some(()))
    });
    first.context("start the NFS client")
}
