//! The one executable: `crm`, `crmd` (`crm daemon`), `crm-blockd` (`crm blockd`), the native agents and the agents' shims,
//! by subcommand or by the name it is called as.

mod hooks;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Names under which agents call back (`crm_agents::shim`).
const SHIMS: &[&str] =
    &["crm_master", "crm_attribute", "attrd_updater", "crm_node", "crm_resource"];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().map(Path::new).and_then(Path::file_name);
    let called = called.and_then(|n| n.to_str()).unwrap_or("crm").to_owned();
    if SHIMS.contains(&called.as_str()) {
        return crm_agents::shim::main(&called, &text(&args, 1));
    }
    let first = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    match (called.as_str(), first) {
        ("fence_lab", _) => crm_lab::power::agent(),
        ("crmd", _) | (_, "daemon") => crmd::main(),
        ("crm-blockd", _) => crm_block::main(text(&args, 1)),
        (_, "blockd") => crm_block::main(text(&args, 2)),
        (_, "agent") => {
            let words = text(&args, 2);
            let word = |n: usize| words.get(n).map(String::as_str).unwrap_or_default();
            crm_agents::native::main(word(0), word(1))
        }
        (_, "demo") => crm_lab::main(args.into_iter().skip(2).collect()),
        _ => crm_cli::main(
            args,
            crm_cli::Hooks {
                agent_catalog: hooks::agent_catalog,
                cluster_init: hooks::cluster_init,
                cluster_join: hooks::cluster_join,
                fence_agents: hooks::fence_agents,
                fence_agent: hooks::fence_agent,
                fence_try: hooks::fence_try,
            },
        ),
    }
}

/// The arguments from `skip` on as text; bytes that are no UTF-8 are replaced (no argument of ours needs them).
fn text(args: &[OsString], skip: usize) -> Vec<String> {
    args.iter().skip(skip).map(|a| a.to_string_lossy().into_owned()).collect()
}
