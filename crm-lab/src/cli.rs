//! `crm demo`: its words and what they call.

use crate::client::{self, Question};
use crate::cluster::Profile;
use crate::down::down;
use crate::lab::{Lab, VOLUME};
use crate::rootless::{self, Ground};
use crate::up::{Plan, bare, up};
use crate::{bench, cluster, init, loopback, net, node, ns, power, script, ui, view};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A cluster in namespaces of this machine, with an NFS client that writes all the while.
#[derive(Debug, Parser)]
#[command(name = "crm demo", no_binary_name = true)]
struct Demo {
    /// Where the lab lives [default: /var/tmp/crm-demo, or ~/.crm-demo when not root]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    build: Build,
    /// Build, run drain, return, kill and heal, prove that nothing was lost, take the lab away
    #[arg(long)]
    script: bool,
    /// With --script: leave the lab as it is at the end
    #[arg(long, requires = "script")]
    keep: bool,
    /// Measure gaps, disks and commits; figures into FILE, the lab is taken away
    #[arg(long, value_name = "FILE", conflicts_with = "script")]
    bench: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Word>,
}

#[derive(Debug, Clone, Copy, Args)]
struct Build {
    /// Number of nodes, 2 or 3
    #[arg(long, default_value_t = 2, global = true)]
    nodes: usize,
    /// Our own agents (the default)
    #[arg(long, conflicts_with = "debian_agents", global = true)]
    native: bool,
    /// Debian's `IPaddr2`, `Filesystem` and Stateful instead of ours
    #[arg(long, global = true)]
    debian_agents: bool,
    /// No namespaces: nodes on loopback addresses, a volume without a file system (what is left where nothing else is allowed)
    #[arg(long, conflicts_with = "debian_agents", global = true)]
    loopback: bool,
    /// How fast the nodes notice failures [default: normal]
    #[arg(long, global = true)]
    profile: Option<Profile>,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Build the lab and start the client
    Up {
        /// Nodes and a cluster only: no volume, no service, no client
        #[arg(long)]
        plain: bool,
    },
    /// Show it once
    Status,
    /// Move everything off a node
    Standby {
        /// The node
        node: String,
    },
    /// Let a node take part again
    Online {
        /// The node
        node: String,
    },
    /// Cut a node's link and kill all its processes
    Kill {
        /// The node
        node: String,
    },
    /// Cut a node's link [default: the node without the service]
    Partition {
        /// The node
        node: Option<String>,
    },
    /// Mend all links, start all dead nodes
    Heal,
    /// Run a command inside a node
    Exec {
        /// The node
        node: String,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Take everything away
    Down,
    #[command(hide = true)]
    Spawn { name: String, kind: String },
    #[command(hide = true)]
    NodeInit { name: String },
    #[command(hide = true)]
    Power,
    #[command(hide = true)]
    Hold { name: String },
    #[command(hide = true)]
    Client {
        #[arg(long)]
        export: String,
    },
}

/// `crm demo ARGS`: the words after `demo`.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let demo = match Demo::try_parse_from(args) {
        Ok(demo) => demo,
        Err(error) => {
            let code = if error.use_stderr() { 1 } else { 0 };
            ui::complain(error.to_string().trim_end());
            return ExitCode::from(code);
        }
    };
    match run(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::complain(&format!("demo: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(demo: Demo) -> Result<()> {
    let lab = Lab::new(demo.dir)?;
    // What is built anew need not stand where the old one stands.
    let fresh = matches!(demo.command, None | Some(Word::Up { .. })) && lab.is_loopback();
    if fresh {
        down(&lab)?;
    }
    let ground = match demo.build.loopback {
        true => Ground::Loopback("as you wish".to_owned()),
        false => rootless::enter(&lab)?,
    };
    let executable = std::env::current_exe().context("find the own executable")?;
    let plan = Plan {
        executable,
        nodes: demo.build.nodes,
        debian_agents: demo.build.debian_agents,
        loopback: matches!(ground, Ground::Loopback(_)),
    };
    if let Some(out) = &demo.bench {
        if plan.loopback || rootless::active() {
            bail!("--bench measures what the kernel does with disks and NFS: it needs root");
        }
        return bench::run(&lab, &plan, out);
    }
    match demo.command {
        None if demo.script => {
            let built = build(&lab, &plan, &ground, demo.build.profile);
            run_script(&lab, built, demo.keep)
        }
        None => {
            build(&lab, &plan, &ground, demo.build.profile)?;
            client::start(&lab, "/srv")?;
            view::watch(&lab, None)
        }
        Some(Word::Up { plain: true }) => plain(&lab, &plan, demo.build.profile),
        Some(Word::Up { plain: false }) => {
            build(&lab, &plan, &ground, demo.build.profile)?;
            client::start(&lab, "/srv")?;
            ui::say(&view::picture(&lab)?);
            Ok(())
        }
        Some(word) => run_word(&lab, word),
    }
}

fn run_word(lab: &Lab, word: Word) -> Result<()> {
    match word {
        Word::Up { .. } => Ok(()),
        Word::Status => {
            ui::say(&view::picture(lab)?);
            Ok(())
        }
        Word::Standby { node } => {
            lab.check_node(&node)?;
            told(lab, &format!("standby {node}"), || script::drain(lab, &node))
        }
        Word::Online { node } => {
            lab.check_node(&node)?;
            told(lab, &format!("online {node}"), || script::bring_back(lab, &node))
        }
        Word::Kill { node } => told(lab, &format!("kill {node}"), || {
            node::kill(lab, &node)?;
            Ok(String::new())
        }),
        Word::Partition { node } => partition(lab, node),
        Word::Heal => heal(lab),
        Word::Exec { node, words } => {
            lab.check_node(&node)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            ui::raw(&node::exec(lab, &node, &words)?);
            Ok(())
        }
        Word::Down => down(lab),
        Word::Spawn { name, kind } => ns::spawn(lab, &name, &kind),
        Word::NodeInit { name } => init::node(lab, &name),
        Word::Power => power::run(lab),
        Word::Hold { name } => init::hold(lab, &name),
        Word::Client { export } => client::run(lab, &client::Options { export }),
    }
}

/// Nodes and a cluster of them, nothing else: what it is to run is configured by whoever asked for it.
fn plain(lab: &Lab, plan: &Plan, profile: Option<Profile>) -> Result<()> {
    bare(lab, plan)?;
    let nodes = lab.nodes()?;
    cluster::form(lab, &nodes)?;
    profile.map_or(Ok(()), |profile| cluster::set_profile(lab, profile))?;
    ui::say(&format!("  cluster   {} nodes online", nodes.len()));
    Ok(())
}

fn build(lab: &Lab, plan: &Plan, ground: &Ground, profile: Option<Profile>) -> Result<()> {
    let start = Instant::now();
    ui::say(&format!("demo: {} nodes, files in {}", plan.nodes, lab.dir().display()));
    match ground {
        Ground::Loopback(why) => {
            ui::say(loopback::DIFFERENCES);
            ui::say(&format!("  because   {why}"));
        }
        Ground::Namespaces if rootless::active() => ui::say(rootless::DIFFERENCES),
        Ground::Namespaces => {}
    }
    up(lab, plan)?;
    profile.map_or(Ok(()), |profile| cluster::set_profile(lab, profile))?;
    ui::say(&format!("  ready     in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

fn run_script(lab: &Lab, built: Result<()>, keep: bool) -> Result<()> {
    let result = built.and_then(|()| script::run(lab));
    if keep {
        return result;
    }
    match (result, down(lab)) {
        (Ok(()), gone) => gone,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(left)) => {
            Err(error.context(format!("and the lab cannot be taken away: {left:#}")))
        }
    }
}

/// Does something and says what the client saw of it, if it runs.
fn told(lab: &Lab, name: &str, act: impl FnOnce() -> Result<String>) -> Result<()> {
    if client::ask(lab, Question::Tally).is_err() {
        ui::say(&format!("  {name}: {} (the client is not running)", act()?));
        return Ok(());
    }
    let scene = script::scene(lab, name, act)?;
    ui::say(&format!("  {name}: {}  service on {}", scene.note, scene.active));
    ui::say(&format!("  client: {}", scene.tally.line()));
    Ok(())
}

fn partition(lab: &Lab, node: Option<String>) -> Result<()> {
    let cut = match node {
        Some(node) => {
            lab.check_node(&node)?;
            node
        }
        None => {
            let active = cluster::wait_for_service(lab)?;
            let Some(other) = lab.nodes()?.into_iter().rev().find(|n| *n != active) else {
                bail!("the lab has one node only");
            };
            other
        }
    };
    net::cut(lab, &cut)?;
    ui::say(&format!("  {cut} is cut off; `crm demo heal` mends it"));
    Ok(())
}

fn heal(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes()?;
    for name in &nodes {
        if !node::is_on(lab, name) {
            node::start(lab, name)?;
        } else if !net::is_plugged(lab, name) {
            net::mend(lab, name)?;
        }
    }
    cluster::wait_for_members(lab, &nodes)?;
    let asked = cluster::any_on(lab)?;
    if node::status(lab, &asked)?.state.cib.volume(VOLUME).is_some() {
        cluster::wait_for_sync(lab, &nodes)?;
        ui::say("  all nodes are online, the volume is in sync");
    } else {
        ui::say("  all nodes are online");
    }
    cluster::wait_idle(lab, &asked)
}

#[cfg(test)]
mod tests {
    use super::{Demo, Profile, Word};
    use clap::Parser;

    #[test]
    fn a_plain_lab_with_a_profile_is_asked_for_as_the_bench_does() {
        let words = ["up", "--profile", "fast", "--dir", "/var/tmp/x", "--plain"];
        let demo = Demo::try_parse_from(words).unwrap();
        assert!(matches!(demo.command, Some(Word::Up { plain: true })));
        assert_eq!(demo.build.profile, Some(Profile::Fast));
        let demo = Demo::try_parse_from(["up"]).unwrap();
        assert!(matches!(demo.command, Some(Word::Up { plain: false })));
        assert!(Demo::try_parse_from(["kill", "alpha", "--plain"]).is_err());
    }
}
