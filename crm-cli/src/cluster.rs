//! `crm cluster`: founding and joining (done by the daemon's package through hooks), tokens, members.

use crate::admin;
use crate::args::{ClusterCmd, Format, HereArgs};
use crate::fail::Fail;
use crate::ui::table;
use crate::{InitArgs, JoinArgs, Shell};
use anyhow::Context;
use crm_core::store::State;
use crm_proto::local::{Mode, Request, StatusReply};

/// Carries out one command.
pub(crate) fn run(shell: &mut Shell<'_>, command: ClusterCmd) -> Result<(), Fail> {
    match command {
        ClusterCmd::Init { name, here } => {
            let (node, address) = this_node(here)?;
            let words = (shell.hooks.cluster_init)(InitArgs { name, node, address })?;
            shell.ui.say(&words);
            Ok(())
        }
        ClusterCmd::Join { peer, token, witness, here } => {
            let (node, address) = this_node(here)?;
            let args = JoinArgs { peer, token, node, address, witness };
            let words = (shell.hooks.cluster_join)(args)?;
            shell.ui.say(&words);
            Ok(())
        }
        ClusterCmd::Remove { node, force } => admin::remove(shell, node, force),
        ClusterCmd::Leave => admin::leave(shell),
        ClusterCmd::Rotate { node, all: _ } => admin::rotate(shell, node),
        ClusterCmd::Token { ttl } => {
            let token = shell.daemon.token(ttl.div_ceil(1000).max(1))?;
            shell.ui.data(&token);
            Ok(())
        }
        ClusterCmd::Force { accept_divergence } => {
            let standing = shell.daemon.done(&Request::Force { accept_divergence })?;
            shell.ui.say(&standing);
            Ok(())
        }
        ClusterCmd::Merge(args) => crate::merge::run(shell, &args),
        ClusterCmd::Status { output } => {
            let status = shell.daemon.status()?;
            match output {
                Format::Json => shell.json(&json(&status)),
                Format::Text => {
                    shell.ui.data(&text(&status));
                    Ok(())
                }
            }
        }
    }
}

fn this_node(here: HereArgs) -> Result<(String, Option<String>), Fail> {
    let node = match here.node {
        Some(node) => node,
        None => {
            let host = nix::unistd::gethostname().context("read the host name")?;
            let host = host.to_string_lossy().into_owned();
            host.split('.').next().unwrap_or(&host).to_owned()
        }
    };
    Ok((node, here.address))
}

const fn mode_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Joining => "joining",
        Mode::Leader => "leader",
        Mode::Follower => "follower",
        Mode::Alone => "ALONE (its peer is lost; runs on from its last state)",
        Mode::NoQuorum => "NO QUORUM (may not run resources)",
    }
}

/// Members and what this node may do.
pub(crate) fn text(status: &StatusReply) -> String {
    let state = &status.state;
    let mut out = format!(
        "cluster {}  {}\nthis node {}: {}\nleader {}  quorum {}\n",
        state.cluster_name,
        state.cluster_uuid,
        status.me,
        mode_words(status.mode),
        status.leader.as_deref().unwrap_or("NONE"),
        if status.quorate { "yes" } else { "NO" },
    );
    out.push_str(&format!("feature level {}{}\n", state.feature_level(), ahead(state)));
    if let Some(waiting) = &status.waiting {
        out.push_str(&format!("waiting: {waiting}\n"));
    }
    if !status.standing.is_empty() {
        out.push_str(&format!("standing: {}\n", status.standing));
    }
    for generation in &status.generations {
        out.push_str(&format!("  {generation}\n"));
    }
    let mut rows = vec![
        ["MEMBER", "ID", "ROLE", "ADDRESS", "HEARTBEAT", "ONLINE"].map(str::to_owned).to_vec(),
    ];
    for (name, member) in &state.members {
        let line = status.nodes.get(name);
        let witness = status.witnesses.get(name).copied();
        let yes = |flag: Option<bool>| if flag == Some(true) { "yes" } else { "NO" }.to_owned();
        rows.push(vec![
            name.clone(),
            member.raft_id.to_string(),
            if member.role.is_witness() { "witness" } else { "node" }.to_owned(),
            member.address.clone(),
            yes(witness.or_else(|| line.map(|l| l.alive))),
            if member.role.is_witness() { "-".to_owned() } else { yes(line.map(|l| l.online)) },
        ]);
    }
    out.push_str(&table(&rows, ""));
    out
}

/// Who could do more than the cluster does now, and who is waited for.
fn ahead(state: &State) -> String {
    let level = state.feature_level();
    let able: Vec<&str> =
        state.members.keys().filter(|n| state.level_of(n) > level).map(String::as_str).collect();
    let old: Vec<&str> =
        state.members.keys().filter(|n| state.level_of(n) == level).map(String::as_str).collect();
    if able.is_empty() {
        return String::new();
    }
    format!(" ({} can do more: upgrade {} too)", able.join(", "), old.join(", "))
}

fn json(status: &StatusReply) -> serde_json::Value {
    serde_json::json!({
        "cluster_name": status.state.cluster_name,
        "cluster_uuid": status.state.cluster_uuid,
        "me": status.me,
        "mode": status.mode,
        "leader": status.leader,
        "quorate": status.quorate,
        "waiting": status.waiting,
        "standing": status.standing,
        "generations": status.generations,
        "feature_level": status.state.feature_level(),
        "members": status.state.members.iter().map(|(name, member)| {
            let line = status.nodes.get(name);
            let witness = status.witnesses.get(name).copied();
            serde_json::json!({
                "name": name,
                "raft_id": member.raft_id,
                "role": member.role,
                "build": status.state.builds.get(name),
                "address": member.address,
                "alive": witness.unwrap_or_else(|| line.is_some_and(|l| l.alive)),
                "online": line.is_some_and(|l| l.online),
            })
        }).collect::<Vec<_>>(),
    })
}
