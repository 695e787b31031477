//! Fence agents, unmodified: parameters as `name=value` lines on stdin, the result by exit code (the fence agent API of the fence-agents project).
//!
//! Passwords go to the agent's stdin only: not into its arguments or environment, and out of whatever it says.

use crate::exec::{self, Ended, Job};
use crm_core::cib::Cib;
use crm_core::fencing::{Abilities, Answer, Call, Params, Verb, is_own_parameter, is_secret};
use crm_core::text::nearest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Debian puts fence agents.
pub const DIR: &str = "/usr/sbin";
/// The directory in use: `CRM_FENCE_DIR`, else [`DIR`].
#[must_use]
pub fn dir() -> PathBuf {
    std::env::var_os("CRM_FENCE_DIR").map_or_else(|| PathBuf::from(DIR), PathBuf::from)
}

/// The device that nothing is run for ([`crm_core::fencing::Kind::Watchdog`]).
pub const WATCHDOG: &str = "fence_watchdog";
/// Time that an agent has to describe itself.
const METADATA_LIMIT: Duration = Duration::from_secs(30);
/// Lines of an agent's output that make its message: the last ones.
const LINES_MAX: usize = 4;

/// What an agent says of one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameter {
    /// It has to be given, by this or another of its names.
    pub required: bool,
    /// Other names of it, older or newer.
    pub aliases: BTreeSet<String>,
    /// It is an older name of another one.
    pub deprecated: bool,
    /// The cluster gives it: the action and the machine.
    pub by_cluster: bool,
    /// One line about it.
    pub about: String,
    /// Default, where there is one.
    pub default: Option<String>,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// One line about it.
    pub about: String,
    /// Parameters by name.
    pub params: BTreeMap<String, Parameter>,
    /// What it can do.
    pub abilities: Abilities,
}

/// Why metadata could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the name of a fence agent.
    #[error("`{0}` is not the name of a fence agent (fence_NAME)")]
    Name(String),
    /// It did not answer.
    #[error("{agent} does not describe itself: {message}")]
    Silent {
        /// Agent.
        agent: String,
        /// Its message.
        message: String,
    },
    /// What it answered is no metadata.
    #[error("the description of the agent cannot be read: {0}")]
    Xml(String),
}

/// The file of an agent; `None` for what is not the name of one.
#[must_use]
pub fn path(dir: &Path, agent: &str) -> Option<PathBuf> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let good = agent.starts_with("fence_") && agent.chars().all(word);
    good.then(|| dir.join(agent))
}

/// Names of the agents in a directory.
pub fn installed(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| path(Path::new(""), name).is_some())
}

impl Metadata {
    /// Reads what `metadata` printed.
    ///
    /// # Errors
    /// When it is not the metadata of an agent.
    pub fn parse(text: &str) -> Result<Self, Error> {
        // Some print warnings first.
        let from = text.find("<?xml").or_else(|| text.find("<resource-agent")).unwrap_or(0);
        let text = text.get(from..).unwrap_or_default();
        let document = roxmltree::Document::parse(text).map_err(|e| Error::Xml(e.to_string()))?;
        let root = document.root_element();
        if !root.has_tag_name("resource-agent") {
            return Err(Error::Xml(format!("it begins with `{}`", root.tag_name().name())));
        }
        let all = |name: &'static str| root.descendants().filter(move |n| n.has_tag_name(name));
        let mut params: BTreeMap<String, Parameter> = BTreeMap::new();
        for node in all("parameter") {
            let Some(name) = node.attribute("name") else { continue };
            let child = |name: &str| node.children().find(|n| n.has_tag_name(name));
            let default = child("content").and_then(|n| n.attribute("default"));
            let about = child("shortdesc").and_then(|n| n.text()).unwrap_or_default();
            let entry = params.entry(name.to_owned()).or_default();
            entry.required = is_true(node.attribute("required"));
            entry.deprecated = is_true(node.attribute("deprecated"));
            entry.by_cluster = matches!(name, "action" | "plug" | "port" | "nodename");
            about.trim().clone_into(&mut entry.about);
            entry.default = default.map(str::to_owned);
            if let Some(old) = node.attribute("obsoletes") {
                entry.aliases.insert(old.to_owned());
                params.entry(old.to_owned()).or_default().aliases.insert(name.to_owned());
            }
        }
        let actions = all("action").filter_map(|n| n.attribute("name")).map(str::to_owned);
        let on = || all("action").filter(|n| n.attribute("name") == Some("on"));
        let host = ["plug", "port"].into_iter().find(|name| params.contains_key(*name));
        let abilities = Abilities {
            actions: actions.collect(),
            on_target: on().any(|n| is_true(n.attribute("on_target"))),
            unfences: on().any(|n| is_true(n.attribute("automatic"))),
            host_parameter: host.map(str::to_owned),
        };
        let about = root.attribute("shortdesc").unwrap_or_default().to_owned();
        Ok(Self { about, params, abilities })
    }

    /// What is wrong with the parameters of a device, in words; values are not told. `pcmk_*` are the cluster's.
    #[must_use]
    pub fn validate(&self, agent: &str, params: &Params) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, value) in &params.0 {
            if value.contains(['\n', '\r', '\0']) {
                wrong.push(format!("the value of `{name}` has a line break in it"));
            }
            if self.params.contains_key(name) || is_own_parameter(name) {
                continue;
            }
            let near = nearest(name, self.params.keys().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            wrong.push(format!("{agent} has no parameter `{name}`{hint}"));
        }
        for (name, parameter) in &self.params {
            let given = std::iter::once(name).chain(&parameter.aliases);
            let given = given.into_iter().any(|name| params.0.contains_key(name));
            if parameter.required && !parameter.by_cluster && !parameter.deprecated && !given {
                wrong.push(format!("{agent} needs `{name}`: {}", parameter.about));
            }
        }
        wrong
    }
}

fn is_true(word: Option<&str>) -> bool {
    matches!(word, Some("1" | "true" | "yes"))
}

/// Asks an agent to describe itself.
///
/// # Errors
/// When it is not there, or says nothing that can be read.
pub async fn metadata(dir: &Path, agent: &str) -> Result<Metadata, Error> {
    let path = path(dir, agent).ok_or_else(|| Error::Name(agent.to_owned()))?;
    let outcome = exec::run_with(&job(&path), "action=metadata\n".to_owned(), METADATA_LIMIT).await;
    match outcome.ended {
        Ended::Exit(0) => Metadata::parse(&outcome.stdout),
        Ended::Exit(_) | Ended::Timeout | Ended::NotStarted(_) => {
            let answer = told(outcome, &Params::default(), METADATA_LIMIT);
            Err(Error::Silent { agent: agent.to_owned(), message: answer.message })
        }
    }
}

/// What the agents of all configured devices can do, for [`crm_core::fencing::Config::read`]. One that does not describe itself is left
/// out, with a warning: it is taken to be an ordinary one.
pub async fn abilities(dir: &Path, cib: &Cib) -> BTreeMap<String, Abilities> {
    let devices = cib.primitives().into_iter().filter(|p| p.agent.class == "stonith");
    let agents: BTreeSet<&str> = devices.map(|p| p.agent.kind.as_str()).collect();
    let mut out = BTreeMap::new();
    for agent in agents.into_iter().filter(|agent| *agent != WATCHDOG) {
        match metadata(dir, agent).await {
            Ok(found) => {
                out.insert(agent.to_owned(), found.abilities);
            }
            Err(error) => tracing::warn!(%error, "fence agent"),
        }
    }
    out
}

/// Runs an agent to its end. When its time is up it is killed with all of its process group, and waited for.
pub async fn run(dir: &Path, call: &Call) -> Answer {
    let refused = |message: String| Answer { exit: None, stdout: String::new(), message };
    let Some(path) = path(dir, &call.agent) else {
        return refused(Error::Name(call.agent.clone()).to_string());
    };
    let mut input = format!("action={}\n", call.action);
    for (name, value) in &call.params.0 {
        // A line break would be the begin of another parameter.
        if [name, value].iter().any(|text| text.contains(['\n', '\r', '\0'])) {
            return refused(format!("the value of `{name}` has a line break in it"));
        }
        input.push_str(&format!("{name}={value}\n"));
    }
    let limit = Duration::from_millis(call.limit_ms);
    tracing::debug!(agent = call.agent, action = call.action, params = ?call.params, "fence agent");
    let mut outcome = exec::run_with(&job(&path), input, limit).await;
    let list = std::mem::take(&mut outcome.stdout);
    if call.verb == Verb::List {
        return Answer { stdout: list, ..told(outcome, &call.params, limit) };
    }
    outcome.stdout = list;
    told(outcome, &call.params, limit)
}

fn job(path: &Path) -> Job {
    let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Job { program: path.display().to_string(), args: Vec::new(), env, leashed: true }
}

/// The outcome in the words of the fencer: what stderr said last, else stdout; without secrets.
fn told(outcome: exec::Outcome, params: &Params, limit: Duration) -> Answer {
    let said = [&outcome.stderr, &outcome.stdout].map(|text| last_lines(text));
    let said = said.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let said = without_secrets(said, params);
    let (exit, message) = match outcome.ended {
        Ended::Exit(code) => (Some(code), said),
        Ended::Timeout if said.is_empty() => {
            (None, format!("it did not end within {} ms and was killed", limit.as_millis()))
        }
        Ended::Timeout => {
            let after = limit.as_millis();
            (None, format!("it did not end within {after} ms and was killed; it had said: {said}"))
        }
        Ended::NotStarted(error) => (None, format!("it could not be started: {error}")),
    };
    Answer { exit, stdout: String::new(), message }
}

/// The last lines that say something, each once, in one line.
fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()).rev() {
        // Agents log to stderr twice, once with the time in front.
        let known = lines.iter().any(|seen| seen.ends_with(line) || line.ends_with(*seen));
        if !known {
            lines.push(line);
        }
        if lines.len() == LINES_MAX {
            break;
        }
    }
    lines.reverse();
    lines.join("; ")
}

/// Takes the values of secret parameters out of a text, also as a shell would quote them.
fn without_secrets(mut text: String, params: &Params) -> String {
    let secret = params.0.iter().filter(|(name, value)| is_secret(name) && !value.is_empty());
    let mut values: Vec<&String> = secret.map(|(_, value)| value).collect();
    // One may be in another.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        for form in [value.clone(), value.replace('\'', "'\"'\"'"), value.replace('\'', "'\\''")] {
            text = text.replace(&form, "(hidden)");
        }
    }
    text
}
