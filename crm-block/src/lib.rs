//! Worldly: the data-plane daemon `crm-blockd`: disks, sockets, the block device that users mount.

pub mod aligned;
mod auth;
mod control;
mod daemon;
mod disk;
pub mod front;
pub mod keeper;
mod link;
mod peers;
mod store;
mod volume;

use keeper::KeeperHandle;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

/// `crm blockd`: the keeper with its worker.
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    log_to_stderr();
    keeper::run(worker, args)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CRM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false);
    if let Err(error) = log.try_init() {
        tracing::debug!(%error, "a log is there already");
    }
}

/// The worker: serves until a signal ends it.
#[expect(clippy::needless_pass_by_value, reason = "the keeper calls it so")]
fn worker(keeper: KeeperHandle, args: Vec<String>) -> ExitCode {
    if !args.is_empty() {
        tracing::warn!(?args, "blockd takes no arguments");
    }
    match work(keeper) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "blockd ends");
            ExitCode::FAILURE
        }
    }
}

fn work(keeper: KeeperHandle) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    front::mark_io_thread();
    use rustix::mm::MlockAllFlags as Lock;
    if let Err(error) = rustix::mm::mlockall(Lock::CURRENT | Lock::FUTURE | Lock::ONFAULT) {
        tracing::debug!(%error, "memory is not locked");
    }
    let daemon = daemon::Daemon::start(keeper)?;
    let listener = control::open()?;
    let server = Arc::clone(&daemon);
    std::thread::spawn(move || control::serve(&server, &listener));
    tracing::info!("blockd serves");
    let signal = signals.wait()?;
    tracing::info!(%signal, "blockd ends");
    daemon.end();
    Ok(())
}
