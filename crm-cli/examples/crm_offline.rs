//! `crm` without a cluster: the commands that only read files, built without the daemon and what it needs.
//!
//! It knows no agents: crm text and YAML that name any are refused; XML is not checked against agents.
//!
//! `cargo run -p crm-cli --example crm_offline -- simulate --cib FILE`; `cargo xtask conformance EXECUTABLE` takes it in place of `crm`.

use crm_core::text::{AgentCatalog, ListedAgents};
use std::process::ExitCode;

fn main() -> ExitCode {
    let hooks = crm_cli::Hooks {
        agent_catalog: || -> Box<dyn AgentCatalog> { Box::new(ListedAgents::default()) },
        cluster_init: |_| Err(anyhow::anyhow!("this executable has no cluster in it: use `crm`")),
        cluster_join: |_| Err(anyhow::anyhow!("this executable has no cluster in it: use `crm`")),
        fence_agents: Vec::new,
        fence_agent: |_| Err(anyhow::anyhow!("this executable knows no fence agents: use `crm`")),
        fence_try: |_, _| Err(anyhow::anyhow!("this executable knows no fence agents: use `crm`")),
    };
    crm_cli::main(std::env::args_os().collect(), hooks)
}
