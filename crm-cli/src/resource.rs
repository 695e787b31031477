//! `crm resource`: start, stop and the rest are edits of meta attributes; cleanup forgets failures.

use crate::Shell;
use crate::args::{Format, ResourceArgs, ResourceCmd, WaitArgs};
use crate::fail::{Fail, version_of};
use crate::node::{idle, known as known_node, settled};
use crate::status::picture::{Picture, Tree};
use crate::status::{json, text};
use crm_core::cib::{Cib, Resource, Role};
use crm_core::store::Edit;
use crm_core::text::nearest;
use crm_proto::local::Request;

/// Carries out one command.
pub(crate) fn run(shell: &mut Shell<'_>, command: ResourceCmd) -> Result<(), Fail> {
    match command {
        ResourceCmd::Start(args) => role(shell, &args, "start", "Started"),
        ResourceCmd::Stop(args) => role(shell, &args, "stop", "Stopped"),
        ResourceCmd::Promote(args) => role(shell, &args, "promote", "Promoted"),
        ResourceCmd::Demote(args) => role(shell, &args, "demote", "Unpromoted"),
        ResourceCmd::Manage(args) => managed(shell, &args, "manage", "true"),
        ResourceCmd::Unmanage(args) => managed(shell, &args, "unmanage", "false"),
        ResourceCmd::Restart(args) => restart(shell, &args),
        ResourceCmd::Cleanup { resource, node, wait } => {
            cleanup(shell, resource.as_deref(), node.as_deref(), wait)
        }
        ResourceCmd::Status { resource, output } => status(shell, resource.as_deref(), output),
    }
}

/// Refuses a resource that is not configured.
pub(crate) fn known(cib: &Cib, id: &str) -> Result<(), Fail> {
    if cib.resource(id).is_some() || cib.primitive(id).is_some() {
        return Ok(());
    }
    let mut names: Vec<&str> = cib.resources.iter().map(Resource::id).collect();
    let inner = cib.primitives();
    names.extend(inner.iter().map(|p| p.id.as_str()).filter(|id| cib.resource(id).is_none()));
    let remedy = match nearest(id, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "no resources are configured".to_owned(),
        None => format!("the resources are: {}", names.join(", ")),
    };
    Err(Fail::with_remedy(format!("there is no resource `{id}`"), remedy))
}

/// The object that carries `target-role` for `id`: a clone for what is cloned, else the resource itself.
fn carrier<'a>(cib: &'a Cib, id: &'a str) -> &'a str {
    match cib.top_of(id) {
        Some(Resource::Clone(clone)) if !in_cloned_group(clone, id) => &clone.id,
        Some(Resource::Bundle(bundle)) => &bundle.id,
        Some(Resource::Clone(_) | Resource::Group(_) | Resource::Primitive(_)) | None => id,
    }
}

fn in_cloned_group(clone: &crm_core::cib::CloneResource, id: &str) -> bool {
    match clone.child.as_ref() {
        Resource::Group(group) => group.members.iter().any(|m| m.id == id),
        Resource::Primitive(_) | Resource::Clone(_) | Resource::Bundle(_) => false,
    }
}

fn role(shell: &mut Shell<'_>, args: &ResourceArgs, verb: &str, role: &str) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    let id = args.resource.as_str();
    known(&cib, id)?;
    let target = carrier(&cib, id);
    let promotable = matches!(cib.top_of(id), Some(Resource::Clone(c)) if c.promotable());
    if matches!(verb, "promote" | "demote") && !promotable {
        return Err(Fail::refused(format!("`{id}` is not promotable; it cannot be {verb}d")));
    }
    if target != id {
        shell.ui.say(&format!("`{id}` is cloned: setting it on `{target}`"));
    }
    if role != "Stopped" {
        warn_about_stopped_members(shell, &cib, target);
    }
    let version = set(shell, target, "target-role", Some(role), &format!("{verb} {id}"))?;
    settled(shell, version, args.wait, &format!("{target}: target-role={role}"))
}

/// A member's own `target-role=Stopped` wins over its group's: say so.
fn warn_about_stopped_members(shell: &mut Shell<'_>, cib: &Cib, target: &str) {
    let Some(found) = cib.resource(target) else { return };
    let mut members = Vec::new();
    found.collect_primitives(&mut members);
    for member in members.iter().filter(|m| m.id != target) {
        let own = member.meta.get("target-role");
        if own.is_some_and(|r| r.eq_ignore_ascii_case("stopped")) {
            shell.ui.say(&format!(
                "`{0}` stays stopped: it has target-role=Stopped of its own (`crm resource start {0}`)",
                member.id
            ));
        }
    }
}

fn set(
    shell: &mut Shell<'_>,
    id: &str,
    name: &str,
    value: Option<&str>,
    what: &str,
) -> Result<u64, Fail> {
    let edit = Edit::Meta {
        resource: id.to_owned(),
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    shell.daemon.edit(vec![edit], format!("crm resource {what}"))
}

fn managed(
    shell: &mut Shell<'_>,
    args: &ResourceArgs,
    verb: &str,
    value: &str,
) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    let id = args.resource.as_str();
    known(&cib, id)?;
    let version = set(shell, id, "is-managed", Some(value), &format!("{verb} {id}"))?;
    settled(shell, version, args.wait, &format!("{id}: is-managed={value}"))
}

/// Stops, waits, gives `target-role` its old value back (also when the stop did not finish), waits.
fn restart(shell: &mut Shell<'_>, args: &ResourceArgs) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    let id = args.resource.as_str();
    known(&cib, id)?;
    let target = carrier(&cib, id);
    let meta = match cib.resource(target) {
        Some(resource) => Some(resource.meta()),
        None => cib.primitive(target).map(|p| &p.meta),
    };
    let before = meta.and_then(|m| m.get("target-role")).map(str::to_owned);
    if before.as_deref().is_some_and(|r| r.eq_ignore_ascii_case("stopped")) {
        return Err(Fail::with_remedy(
            format!("`{target}` is stopped (target-role=Stopped)"),
            format!("crm resource start {target}"),
        ));
    }
    let what = format!("restart {id}");
    let version = set(shell, target, "target-role", Some("Stopped"), &what)?;
    let stopped = idle(shell, version, args.wait);
    let version = set(shell, target, "target-role", before.as_deref(), &what)?;
    stopped?;
    idle(shell, version, args.wait)?;
    shell.ui.say(&format!("{target} was stopped and started again"));
    Ok(())
}

fn cleanup(
    shell: &mut Shell<'_>,
    resource: Option<&str>,
    node: Option<&str>,
    wait: WaitArgs,
) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    if let Some(node) = node {
        known_node(&cib, node)?;
    }
    let mut targets = Vec::new();
    match resource {
        None => targets.push(None),
        Some(id) => {
            known(&cib, id)?;
            match cib.resource(id) {
                Some(found) => {
                    let mut all = Vec::new();
                    found.collect_primitives(&mut all);
                    targets.extend(all.iter().map(|p| Some(p.id.clone())));
                }
                None => targets.push(Some(id.to_owned())),
            }
        }
    }
    let mut version = 0;
    for target in targets {
        let request = Request::Cleanup { resource: target.clone(), node: node.map(str::to_owned) };
        version = version_of(shell.daemon.change(&request)?)?;
        let at = node.unwrap_or("all nodes");
        match target {
            Some(id) => shell.ui.say(&format!("Cleaned up {id} on {at}")),
            None => shell.ui.say(&format!("Cleaned up all failed resources on {at}")),
        }
    }
    if wait.wait {
        idle(shell, version, wait)?;
    }
    Ok(())
}

fn status(shell: &mut Shell<'_>, only: Option<&str>, output: Format) -> Result<(), Fail> {
    let status = shell.daemon.status()?;
    let picture = Picture::new(&status);
    let Some(id) = only else {
        match output {
            Format::Text => shell.ui.data(&text::resources(&picture)),
            Format::Json => shell.json(&json::resources(&picture))?,
        }
        return Ok(());
    };
    known(&status.state.cib, id)?;
    let at = running_on(&picture, id);
    match output {
        Format::Json => {
            let entries: Vec<_> = at
                .iter()
                .map(|(node, role)| serde_json::json!({ "node": node, "promoted": role == &Role::Promoted }))
                .collect();
            shell.json(&serde_json::json!({ "id": id, "running_on": entries }))?;
        }
        Format::Text if at.is_empty() => {
            shell.ui.data(&format!("resource {id} is NOT running"));
        }
        Format::Text => {
            let mut lines = String::new();
            for (node, role) in at {
                let promoted = if role == Role::Promoted { " Promoted" } else { "" };
                lines.push_str(&format!("resource {id} is running on: {node}{promoted}\n"));
            }
            shell.ui.data(&lines);
        }
    }
    Ok(())
}

/// Nodes where `id` runs: a group where its first member does, a clone where any instance does.
fn running_on(picture: &Picture<'_>, id: &str) -> Vec<(String, Role)> {
    for top in &picture.resources {
        if let Some(prim) = top.prims().find(|p| p.primitive.id == id) {
            return prim.active.clone();
        }
        let inner = match top {
            Tree::Clone(c) => c.clone.child.id() == id,
            Tree::Prim(_) | Tree::Group(_) => false,
        };
        if top.id() == id || inner {
            return top.prims().next().map(|p| p.active.clone()).unwrap_or_default();
        }
    }
    Vec::new()
}
