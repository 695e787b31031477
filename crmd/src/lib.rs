//! Worldly: the control-plane daemon `crmd`. It wires membership, the controller, the agents and the data plane together and decides nothing.

mod admin;
mod api;
mod block;
mod boot;
mod daemon;
mod fencing;
mod propose;
mod sys;
mod watchdog;

use std::process::ExitCode;

/// `crm daemon`: runs until SIGTERM or a fatal error.
#[must_use]
pub fn main() -> ExitCode {
    boot::log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("crmd")
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(daemon::run()),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "crmd ends");
            ExitCode::from(2)
        }
    }
}
