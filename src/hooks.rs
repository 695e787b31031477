//! What `crm` needs of packages that it may not depend on.

use anyhow::Context;
use crm_cli::{InitArgs, JoinArgs};
use crm_core::text::AgentCatalog;
use crm_membership::bootstrap::{self, Dirs};

/// Port of the cluster when none is given.
const PORT: u16 = 7631;

pub(crate) fn agent_catalog() -> Box<dyn AgentCatalog> {
    Box::new(crm_agents::catalog::Catalog::installed())
}

pub(crate) fn cluster_init(args: InitArgs) -> anyhow::Result<String> {
    let address = args.address.unwrap_or_else(|| format!("{}:{PORT}", args.node));
    let settings = bootstrap::init(&Dirs::usual(), &args.name, &args.node, &address)?;
    Ok(format!(
        "cluster {} founded by {} at {}\nstart it:    systemctl enable --now crm-blockd crmd\nthen join:   crm cluster token",
        settings.cluster.name, settings.name, settings.address
    ))
}

pub(crate) fn cluster_join(args: JoinArgs) -> anyhow::Result<String> {
    let address = args.address.unwrap_or_else(|| format!("{}:{PORT}", args.node));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let dirs = Dirs::usual();
    let joined = bootstrap::join(&dirs, &args.node, &address, Some(&args.peer), &args.token);
    let settings = runtime.block_on(joined)?;
    Ok(format!(
        "{} has joined cluster {}\nstart it:    systemctl enable --now crm-blockd crmd",
        settings.name, settings.cluster.name
    ))
}
