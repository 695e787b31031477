//! Worldly: `crm`, the command. Sessions, one-shot commands, status, YAML apply; talks to `crmd` over its local socket and never decides.

mod admin;
mod args;
mod audit;
mod cluster;
mod commit;
mod configure;
mod daemon;
mod fail;
mod fence;
mod fence_setup;
mod fence_test;
mod merge;
mod node;
mod offline;
mod preview;
mod random;
mod resource;
mod root;
mod scene;
mod simulate;
mod source;
mod status;
mod text_file;
mod ui;
mod volume;
mod why;

#[cfg(test)]
mod session_test;
#[cfg(test)]
mod test_bed;

use crate::daemon::{Daemon, Socket};
use crate::fail::Fail;
use crate::ui::Ui;
use anyhow::Context;
use clap::Parser;
use crm_core::text::AgentCatalog;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

/// A simulation in the sections and words of `crm_simulate -S`.
#[must_use]
pub fn pacemaker_style(run: &crm_core::simulate::Run) -> String {
    simulate::pacemaker_style(run)
}

/// What the command needs from packages that it may not depend on.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// The agents known on this node; asked for only when a configuration is checked.
    pub agent_catalog: fn() -> Box<dyn AgentCatalog>,
    /// Founds a cluster on this node; the words to show.
    pub cluster_init: fn(InitArgs) -> anyhow::Result<String>,
    /// Joins this node to a cluster; the words to show.
    pub cluster_join: fn(JoinArgs) -> anyhow::Result<String>,
    /// The fence agents installed on this node, each with what it is.
    pub fence_agents: fn() -> Vec<(String, String)>,
    /// What a fence agent says of itself.
    pub fence_agent: fn(&str) -> anyhow::Result<FenceAgent>,
    /// Checks parameters against the agent's own words, then asks the device whether it is there.
    pub fence_try: fn(&str, &BTreeMap<String, String>) -> anyhow::Result<FenceTrial>,
}

/// What a fence agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceAgent {
    /// One line about it.
    pub about: String,
    /// What can be given to it, without what the cluster gives.
    pub params: Vec<FenceParameter>,
}

/// A parameter of a fence agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceParameter {
    /// Its name.
    pub name: String,
    /// It has to be given.
    pub required: bool,
    /// One line about it.
    pub about: String,
    /// Default, where there is one.
    pub default: Option<String>,
}

/// What came of trying a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceTrial {
    /// It answers.
    Works,
    /// The parameters do not fit the agent: what is wrong.
    Wrong(Vec<String>),
    /// It was asked and did not say that it is well.
    Silent(String),
}

/// Arguments of `crm cluster init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitArgs {
    /// The cluster's name.
    pub name: String,
    /// This node's name.
    pub node: String,
    /// `HOST:PORT` at which the other nodes reach this one, when given.
    pub address: Option<String>,
    /// `HOST:PORT` of each further link.
    pub links: Vec<String>,
}

/// Arguments of `crm cluster join`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinArgs {
    /// `HOST:PORT` of a member.
    pub peer: String,
    /// Token made on a member.
    pub token: String,
    /// This node's name.
    pub node: String,
    /// `HOST:PORT` at which the other nodes reach this one, when given.
    pub address: Option<String>,
    /// It votes only.
    pub witness: bool,
    /// `HOST:PORT` of each further link.
    pub links: Vec<String>,
}

/// Runs the command; `args` begins with the program's own name. Exit codes: 0 done, 1 refused, 2 broken.
#[must_use]
pub fn main(args: Vec<OsString>, hooks: Hooks) -> ExitCode {
    let mut ui = Ui::process();
    let mut socket = Socket::here();
    let code = {
        let mut shell =
            Shell { daemon: &mut socket, ui: &mut ui, hooks: &hooks, zone: TimeZone::system() };
        run(&mut shell, args)
    };
    if let Err(error) = ui.finish() {
        // Standard output is gone for another reason than a reader that left: the exit code is all that is left to tell it.
        let _unsaid = error;
        return ExitCode::from(2);
    }
    ExitCode::from(code)
}

/// What every command works with.
pub(crate) struct Shell<'a> {
    /// The other end.
    pub(crate) daemon: &'a mut dyn Daemon,
    /// Output.
    pub(crate) ui: &'a mut Ui,
    /// What comes from other packages.
    pub(crate) hooks: &'a Hooks,
    /// For showing times.
    pub(crate) zone: TimeZone,
}

impl Shell<'_> {
    /// Prints a JSON document.
    pub(crate) fn json(&mut self, value: &serde_json::Value) -> Result<(), Fail> {
        let text = serde_json::to_string_pretty(value).context("write JSON")?;
        self.ui.data(&text);
        Ok(())
    }
}

/// Parses and carries out a command line; the exit code.
pub(crate) fn run(shell: &mut Shell<'_>, args: Vec<OsString>) -> u8 {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(shell, &error),
    };
    let result = match (cli.file, cli.command) {
        (None, Some(command)) => root::command(shell, command),
        (None, None) => root::interactive(shell),
        (Some(file), None) => root::script(shell, &file),
        (Some(_), Some(_)) => Err(Fail::with_remedy(
            "`-f FILE` and a command exclude each other",
            "crm -f FILE, or crm configure -f FILE",
        )),
    };
    match result {
        Ok(()) => 0,
        Err(fail) => {
            shell.ui.say(&fail.words());
            fail.code()
        }
    }
}

/// Help and version are data; anything else that clap says is a refusal.
pub(crate) fn usage(shell: &mut Shell<'_>, error: &clap::Error) -> u8 {
    if error.use_stderr() {
        shell.ui.say(&error.to_string());
        1
    } else {
        shell.ui.data(&error.to_string());
        0
    }
}
