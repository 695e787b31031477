//! Worldly: the control-plane daemon `crmd`. It wires membership, the controller, the agents and the data plane together and decides nothing.

mod admin;
mod api;
mod block;
mod boot;
mod daemon;
mod fencing;
mod merge;
mod propose;
mod sys;
mod watchdog;

use std::process::ExitCode;

/// `crm daemon`: runs until SIGTERM or a fatal error.
#[must_use]
pub fn main() -> ExitCode {
    boot::log();
    loop {
        match live() {
            Ok(daemon::Ending::Over) => return ExitCode::SUCCESS,
            Ok(daemon::Ending::Anew) => tracing::warn!("crmd starts anew, as another voter"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "crmd ends");
                return ExitCode::from(2);
            }
        }
    }
}

/// One life of the daemon, in a runtime of its own: nothing of the one before goes on.
fn live() -> anyhow::Result<daemon::Ending> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("crmd")
        .enable_all()
        .build()?;
    runtime.block_on(daemon::run())
}
