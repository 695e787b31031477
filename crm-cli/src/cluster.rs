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
            let HereArgs { node, address, links } = here;
            let node = this_node(node)?;
            let words = (shell.hooks.cluster_init)(InitArgs { name, node, address, links })?;
            shell.ui.say(&words);
            Ok(())
        }
        ClusterCmd::Join { peer, token, witness, here } => {
            let HereArgs { node, address, links } = here;
            let node = this_node(node)?;
            let join = JoinArgs { peer, token, node, address, links, witness };
            let words = (shell.hooks.cluster_join)(join)?;
            shell.ui.say(&words);
            Ok(())
        }
        ClusterCmd::Remove { node, force } => admin::remove(shell, node, force),
        ClusterCmd::Leave => admin::leave(shell),
        ClusterCmd::Rotate { node, all: _ } => admin::rotate(shell, node),
        ClusterCmd::Address { node, address, links } => {
            let words = shell.daemon.done(&Request::Relocate { node, address, links })?;
            shell.ui.say(&words);
            Ok(())
        }
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
        ClusterCmd::Unblock => {
            let words = shell.daemon.done(&Request::CancelWait)?;
            shell.ui.say(&words);
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

/// This node's name, as given, or the host's.
fn this_node(given: Option<String>) -> Result<String, Fail> {
    if let Some(node) = given {
        return Ok(node);
    }
    let host = nix::unistd::gethostname().context("read the host name")?;
    let host = host.to_string_lossy().into_owned();
    Ok(host.split('.').next().unwrap_or(&host).to_owned())
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
    if let Some(votes) = &status.votes {
        out.push_str(&format!(
            "votes: {}: {}{}\n",
            if votes.quorate { "quorate" } else { "NOT QUORATE" },
            votes.words,
            if votes.struck.is_empty() {
                String::new()
            } else {
                let struck: Vec<&str> = votes.struck.iter().map(String::as_str).collect();
                format!(" (not counted now: {})", struck.join(", "))
            }
        ));
    }
    let learns = |name: &&String| !status.voters.is_empty() && !status.voters.contains(*name);
    let learners: Vec<&str> = state.members.keys().filter(learns).map(String::as_str).collect();
    if !learners.is_empty() {
        out.push_str(&format!("no voter of the configuration now: {}\n", learners.join(", ")));
    }
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
    out.push_str(&links(status));
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

/// The links to the other members, a line each.
fn links(status: &StatusReply) -> String {
    let titles = ["LINK TO", "NO", "ADDRESS", "STATE", "RTT", "LAST HEARD", ""];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (name, line) in &status.nodes {
        for (number, link) in line.links.iter().enumerate() {
            let state = if link.up { "up" } else { "DOWN" };
            let rtt = link.rtt_us.filter(|_| link.up).map_or_else(|| "-".to_owned(), millis);
            let heard = link.heard_ms_ago.map_or_else(|| "never".to_owned(), ago);
            let note = if link.in_use && line.links.len() > 1 { "in use" } else { "" };
            rows.push(vec![
                name.clone(),
                number.to_string(),
                link.address.clone(),
                state.to_owned(),
                rtt,
                heard,
                note.to_owned(),
            ]);
        }
    }
    if rows.len() == 1 { String::new() } else { format!("\n{}", table(&rows, "")) }
}

/// Microseconds for people.
fn millis(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

fn ago(ms: u64) -> String {
    format!("{}.{} s ago", ms / 1000, ms % 1000 / 100)
}

fn json(status: &StatusReply) -> serde_json::Value {
    serde_json::json!({
        "cluster_name": status.state.cluster_name,
        "cluster_uuid": status.state.cluster_uuid,
        "me": status.me,
        "mode": status.mode,
        "leader": status.leader,
        "quorate": status.quorate,
        "votes": status.votes,
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
                "links": member.links,
                "link_states": line.map(|l| &l.links),
                "alive": witness.unwrap_or_else(|| line.is_some_and(|l| l.alive)),
                "online": line.is_some_and(|l| l.online),
            })
        }).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_bed::Bed;
    use crm_proto::local::LinkLine;

    #[test]
    fn a_link_that_is_down_is_an_alarm_while_its_node_lives() {
        let mut status = Bed::new().picture();
        let link = |number: u8, up: bool| LinkLine {
            address: format!("10.0.{number}.2:7631"),
            up,
            in_use: up,
            for_ms: 1,
            heard_ms_ago: None,
            rtt_us: None,
        };
        status.nodes.get_mut("delta").unwrap().links = vec![link(0, false), link(1, true)];
        let alarms = |status: &StatusReply| {
            crate::status::picture::Picture::new(status).alarms(&jiff::tz::TimeZone::UTC)
        };
        assert_eq!(alarms(&status), ["LINK DOWN: alpha to delta at 10.0.0.2:7631"]);
        status.nodes.get_mut("delta").unwrap().alive = false;
        assert_eq!(alarms(&status), Vec::<String>::new());
    }

    #[test]
    fn links_are_shown_a_line_each_with_the_one_in_use() {
        let mut status = Bed::new().picture();
        assert!(!text(&status).contains("LINK TO"), "nothing is known of links");
        let link = |number: u8, up: bool| LinkLine {
            address: format!("10.0.{number}.2:7631"),
            up,
            in_use: up,
            for_ms: 90_000,
            heard_ms_ago: up.then_some(140),
            rtt_us: Some(1_234),
        };
        status.nodes.get_mut("delta").unwrap().links = vec![link(0, false), link(1, true)];
        let shown = text(&status);
        let (_, links) = shown.split_once("\n\n").unwrap();
        let want = "\
LINK TO  NO  ADDRESS        STATE  RTT      LAST HEARD
delta    0   10.0.0.2:7631  DOWN   -        never
delta    1   10.0.1.2:7631  up     1.23 ms  0.1 s ago   in use
";
        assert_eq!(links, want);
        let members = &json(&status)["members"];
        assert_eq!(members[1]["link_states"][1]["rtt_us"], 1_234);
        assert_eq!(members[1]["link_states"][0]["up"], false);
    }
}
