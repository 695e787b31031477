//! `crm node`: drain, bring back, maintenance. Edits of the replicated configuration, so they work on nodes that do not answer.

use crate::Shell;
use crate::args::{NodeArgs, NodeCmd, WaitArgs};
use crate::fail::Fail;
use crate::status::picture::{Picture, Tree, role_word};
use crm_core::cib::Cib;
use crm_core::store::Edit;
use crm_core::text::nearest;

/// Carries out one command.
pub(crate) fn run(shell: &mut Shell<'_>, command: NodeCmd) -> Result<(), Fail> {
    match command {
        NodeCmd::Standby(args) => {
            let (node, version) = set(shell, &args, "standby", "on", "standby")?;
            drained(shell, &node, version, args.wait)
        }
        NodeCmd::Online(args) => {
            let (node, version) = set(shell, &args, "standby", "off", "online")?;
            settled(shell, version, args.wait, &format!("{node} is online"))
        }
        NodeCmd::Maintenance(args) => {
            let (node, version) = set(shell, &args, "maintenance", "on", "maintenance")?;
            settled(shell, version, args.wait, &format!("{node} is in maintenance"))
        }
        NodeCmd::Ready(args) => {
            let (node, version) = set(shell, &args, "maintenance", "off", "ready")?;
            settled(shell, version, args.wait, &format!("{node} is managed again"))
        }
        NodeCmd::Fence(args) => crate::fence::node(shell, args),
        NodeCmd::Show { node } => show(shell, node.as_deref()),
    }
}

/// Sets an attribute of a node; the node's name and the version made.
fn set(
    shell: &mut Shell<'_>,
    args: &NodeArgs,
    name: &str,
    value: &str,
    verb: &str,
) -> Result<(String, u64), Fail> {
    let node = match &args.node {
        Some(node) => node.clone(),
        None => shell.daemon.status()?.me,
    };
    let (_, cib) = shell.daemon.cib()?;
    known(&cib, &node)?;
    let edit =
        Edit::NodeAttr { node: node.clone(), name: name.to_owned(), value: Some(value.to_owned()) };
    let version = shell.daemon.edit(vec![edit], format!("crm node {verb} {node}"))?;
    Ok((node, version))
}

/// Refuses a node that is not configured.
pub(crate) fn known(cib: &Cib, node: &str) -> Result<(), Fail> {
    if cib.node(node).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = cib.nodes.iter().map(|n| n.name.as_str()).collect();
    let remedy = match nearest(node, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the nodes are: {}", names.join(", ")),
    };
    Err(Fail::with_remedy(format!("there is no node `{node}`"), remedy))
}

/// With `--wait`: waits until the cluster is idle, and says what is left to do if it does not get there.
pub(crate) fn settled(
    shell: &mut Shell<'_>,
    version: u64,
    wait: WaitArgs,
    done: &str,
) -> Result<(), Fail> {
    if wait.wait {
        idle(shell, version, wait)?;
    }
    shell.ui.say(done);
    Ok(())
}

/// Waits until the cluster is idle at `version`.
pub(crate) fn idle(shell: &mut Shell<'_>, version: u64, wait: WaitArgs) -> Result<(), Fail> {
    if shell.daemon.wait_idle(version, wait.timeout)? {
        return Ok(());
    }
    let status = shell.daemon.status()?;
    let mut why = format!(
        "not done after {}; {} left to do",
        crate::status::clock::span(wait.timeout),
        Picture::new(&status).pending(),
    );
    for line in &status.plan.summary {
        why.push_str("\n  ");
        why.push_str(line);
    }
    Err(Fail::with_remedy(
        why,
        "see `crm status`; the change stays and the cluster goes on with it",
    ))
}

/// With `--wait`: waits until nothing runs on `node`.
fn drained(shell: &mut Shell<'_>, node: &str, version: u64, wait: WaitArgs) -> Result<(), Fail> {
    if !wait.wait {
        shell.ui.say(&format!("{node} is standby; the cluster moves what runs there"));
        return Ok(());
    }
    idle(shell, version, wait)?;
    let status = shell.daemon.status()?;
    let picture = Picture::new(&status);
    let left: Vec<String> = picture
        .resources
        .iter()
        .flat_map(Tree::prims)
        .filter_map(|p| p.role_on(node).map(|r| format!("{} ({})", p.primitive.id, role_word(r))))
        .collect();
    if left.is_empty() {
        shell.ui.say(&format!("{node} is standby; nothing runs on it"));
        return Ok(());
    }
    let mut why = format!("{node} is standby, but it still holds: {}", left.join(", "));
    for reason in &status.plan.reasons {
        if reason.node.as_deref().is_none_or(|n| n == node) {
            why.push_str(&format!("\n  {}: {}", reason.resource, reason.text));
        }
    }
    Err(Fail::with_remedy(why, "see `crm status` and `crm why RESOURCE`"))
}

fn show(shell: &mut Shell<'_>, only: Option<&str>) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    if let Some(name) = only {
        known(&cib, name)?;
    }
    let mut text = String::new();
    for node in cib.nodes.iter().filter(|n| only.is_none_or(|o| o == n.name)) {
        text.push_str(&format!("{}({}): member\n", node.name, node.id));
        for pair in &node.attributes.pairs {
            let value = pair.value.as_deref().unwrap_or_default();
            text.push_str(&format!("\t{}={value}\n", pair.name));
        }
    }
    shell.ui.data(&text);
    Ok(())
}
