//! Native agents: the same executable, run as a child process like any other agent (`crm agent ocf:crm:NAME ACTION`).
//!
//! They follow the OCF resource agent API 1.1: environment in, exit code out, one line of reason on stderr.

mod connections;
mod context;
mod dummy;
mod export;
mod exports_table;
mod filesystem;
mod fuse2fs;
mod holders;
mod metadata;
mod mounts;
mod nfs;
mod nfs_ganesha;
mod nfs_kernel;
mod nfs_own;
mod nfs_process;
mod nfs_tree;
mod rpc;
mod vip;
mod volume;

use context::{Context, Failure};
use crm_core::status::rc;
use std::process::ExitCode;

/// A parameter of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Name.
    pub name: &'static str,
    /// Must be given.
    pub required: bool,
    /// One line.
    pub about: &'static str,
}

/// A native agent.
#[derive(Debug)]
pub struct Agent {
    /// Name after `ocf:crm:`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Can be promoted.
    pub promotable: bool,
    /// Can move without a stop: what `stop` ends on one node `start` begins on the other, at once.
    pub migratable: bool,
    /// Parameters.
    pub params: &'static [Param],
    run: fn(&Context, Action) -> Result<i32, Failure>,
}

/// Actions that agents run themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// start
    Start,
    /// stop
    Stop,
    /// monitor
    Monitor,
    /// promote
    Promote,
    /// demote
    Demote,
    /// notify
    Notify,
}

const fn param(name: &'static str, required: bool, about: &'static str) -> Param {
    Param { name, required, about }
}

/// All native agents.
pub static AGENTS: &[&Agent] = &[
    &volume::AGENT,
    &filesystem::AGENT,
    &vip::AGENT,
    &nfs::AGENT,
    &export::AGENT,
    &dummy::DUMMY,
    &dummy::STATEFUL,
];

/// Is there a native agent of this name (after `ocf:crm:`)?
#[must_use]
pub fn exists(name: &str) -> bool {
    find(name).is_some()
}

fn find(name: &str) -> Option<&'static Agent> {
    AGENTS.iter().copied().find(|a| a.name == name)
}

/// Runs one action of a native agent; `agent` is `ocf:crm:NAME` or `NAME`.
#[must_use]
pub fn main(agent: &str, action: &str) -> ExitCode {
    let name = agent.rsplit(':').next().unwrap_or_default();
    let Some(found) = find(name) else {
        context::say(&format!("there is no native agent called `{agent}`"));
        return exit(rc::ERR_INSTALLED);
    };
    match action {
        "meta-data" => {
            context::print(&metadata::xml(found));
            return exit(rc::OK);
        }
        "validate-all" => {
            return exit(finish(Context::read(found).and_then(|c| c.check().map(|()| rc::OK))));
        }
        nfs_own::SERVE if std::ptr::eq(found, &raw const nfs::AGENT) => {
            return exit(finish(nfs_own::serve(found)));
        }
        _ => {}
    }
    let action = match action {
        "start" => Action::Start,
        "stop" => Action::Stop,
        "monitor" | "status" => Action::Monitor,
        "promote" => Action::Promote,
        "demote" => Action::Demote,
        "notify" => Action::Notify,
        "migrate_to" if found.migratable => {
            let running = finish(act(found, Action::Monitor));
            if running != rc::OK {
                context::say("what does not run cannot move");
                return exit(running);
            }
            Action::Stop
        }
        "migrate_from" if found.migratable => Action::Start,
        other => {
            context::say(&format!("`{other}` is not an action of {agent}"));
            return exit(rc::ERR_UNIMPLEMENTED);
        }
    };
    exit(finish(act(found, action)))
}

fn act(agent: &'static Agent, action: Action) -> Result<i32, Failure> {
    let context = Context::read(agent)?;
    if action == Action::Notify {
        return Ok(rc::OK);
    }
    if matches!(action, Action::Promote | Action::Demote) && !agent.promotable {
        return Err(Failure::new(rc::ERR_UNIMPLEMENTED, "cannot be promoted"));
    }
    if matches!(action, Action::Start | Action::Promote) {
        context.check()?;
    }
    (agent.run)(&context, action)
}

fn finish(result: Result<i32, Failure>) -> i32 {
    match result {
        Ok(code) => code,
        Err(failure) => {
            context::say(&failure.why);
            failure.code
        }
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
