//! What `crm` needs of packages that it may not depend on.

use anyhow::Context;
use crm_agents::fence;
use crm_cli::{FenceAgent, FenceParameter, FenceTrial, InitArgs, JoinArgs};
use crm_core::fencing::{Call, Params, Verb, is_own_parameter};
use crm_core::store::MemberRole;
use crm_core::text::AgentCatalog;
use crm_membership::bootstrap::{self, Dirs, Newcomer};
use crm_membership::{Addresses, Settings};
use std::collections::BTreeMap;

/// Port of the cluster when none is given.
const PORT: u16 = 7631;
/// How long a device may take to say that it is there, in milliseconds.
const TRIAL_LIMIT_MS: u64 = 60_000;

pub(crate) fn agent_catalog() -> Box<dyn AgentCatalog> {
    Box::new(crm_agents::catalog::Catalog::installed())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

pub(crate) fn fence_agents() -> Vec<(String, String)> {
    let mut names: Vec<String> = fence::installed(&fence::dir()).collect();
    names.sort();
    let Ok(runtime) = runtime() else { return Vec::new() };
    let about = |name: String| {
        let found = runtime.block_on(fence::metadata(&fence::dir(), &name));
        let words =
            found.map_or_else(|_| "(does not describe itself)".to_owned(), |found| found.about);
        (name, words)
    };
    names.into_iter().map(about).collect()
}

pub(crate) fn fence_agent(agent: &str) -> anyhow::Result<FenceAgent> {
    let found = runtime()?.block_on(fence::metadata(&fence::dir(), agent))?;
    let fit = found.params.into_iter().filter(|(_, p)| !p.deprecated && !p.by_cluster);
    let params = fit.map(|(name, p)| FenceParameter {
        name,
        required: p.required,
        about: p.about,
        default: p.default,
    });
    Ok(FenceAgent { about: found.about, params: params.collect() })
}

pub(crate) fn fence_try(
    agent: &str,
    params: &BTreeMap<String, String>,
) -> anyhow::Result<FenceTrial> {
    let runtime = runtime()?;
    let metadata = runtime.block_on(fence::metadata(&fence::dir(), agent))?;
    let wrong = metadata.validate(agent, &Params(params.clone()));
    if !wrong.is_empty() {
        return Ok(FenceTrial::Wrong(wrong));
    }
    let own = params.clone().into_iter().filter(|(name, _)| !is_own_parameter(name));
    let call = Call {
        agent: agent.to_owned(),
        verb: Verb::Monitor,
        action: Verb::Monitor.word().to_owned(),
        params: Params(own.collect()),
        limit_ms: TRIAL_LIMIT_MS,
    };
    let answer = runtime.block_on(fence::run(&fence::dir(), &call));
    Ok(match (answer.exit, answer.message.as_str()) {
        (Some(0), _) => FenceTrial::Works,
        (Some(code), "") => FenceTrial::Silent(format!("exit code {code}")),
        _ => FenceTrial::Silent(answer.message),
    })
}

pub(crate) fn cluster_init(args: InitArgs) -> anyhow::Result<String> {
    let address = args.address.unwrap_or_else(|| format!("{}:{PORT}", args.node));
    let addresses = Addresses { address, links: args.links };
    let settings = bootstrap::init(&Dirs::usual(), &args.name, &args.node, addresses)?;
    Ok(format!(
        "cluster {} founded by {} at {}\nstart it:    systemctl enable --now crm-blockd crmd\nthen join:   crm cluster token",
        settings.cluster.name,
        settings.name,
        words_of(&settings)
    ))
}

/// Where a node is to be reached.
fn words_of(settings: &Settings) -> String {
    let all: Vec<String> = settings.addresses().all().cloned().collect();
    all.join(" and ")
}

pub(crate) fn cluster_join(args: JoinArgs) -> anyhow::Result<String> {
    let address = args.address.unwrap_or_else(|| format!("{}:{PORT}", args.node));
    let addresses = Addresses { address, links: args.links };
    let runtime = runtime()?;
    let dirs = Dirs::usual();
    let role = if args.witness { MemberRole::Witness } else { MemberRole::Node };
    let newcomer = Newcomer { name: &args.node, addresses, role };
    let joined = bootstrap::join(&dirs, newcomer, Some(&args.peer), &args.token);
    let settings = runtime.block_on(joined)?;
    let (how, units) = match role {
        MemberRole::Node => ("", "crm-blockd crmd"),
        MemberRole::Witness => (" as a witness: it votes and runs nothing", "crmd"),
    };
    Ok(format!(
        "{} has joined cluster {}{how}\nstart it:    systemctl enable --now {units}",
        settings.name, settings.cluster.name
    ))
}
