//! Operators' commands on real daemons: members that leave and come back, new certificates, a disarmed cluster, other users, another
//! address, two lines that are merged, a fence device that is set up and tried.

use anyhow::{Context, Result, bail, ensure};
use crm_integration::{Stage, TWO, Wish};
use crm_lab::{PORT, cluster, net, node, power, wait};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const THREE: Wish = Wish { nodes: 3, debian_agents: false };

/// Three nodes, one resource, nothing else.
fn plain(name: &str) -> Result<Option<Stage>> {
    formed(name, THREE)
}

/// So many nodes, one resource, nothing else.
fn formed(name: &str, wish: Wish) -> Result<Option<Stage>> {
    let Some(stage) = Stage::bare(name, wish)? else { return Ok(None) };
    cluster::form(&stage.lab, &stage.lab.nodes()?)?;
    let text = "primitive web ocf:heartbeat:Dummy op monitor interval=10s\n\
        property stonith-enabled=false\ncommit\nquit\n";
    cluster::configure(&stage.lab, text)?;
    Ok(Some(stage))
}

fn crm(stage: &Stage, on: &str, words: &str) -> Result<String> {
    let words: Vec<&str> = std::iter::once("crm").chain(words.split(' ')).collect();
    node::exec(&stage.lab, on, &words)
}

/// What it says when it refuses.
fn refusal(stage: &Stage, on: &str, words: &str) -> Result<String> {
    match crm(stage, on, words) {
        Ok(said) => bail!("`crm {words}` was not refused: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Which node runs the resource.
fn place(stage: &Stage) -> Result<String> {
    let nodes = stage.lab.nodes()?;
    wait::until("the resource to run", SOON, || {
        let any = cluster::any_on(&stage.lab)?;
        let state = node::status(&stage.lab, &any)?.state;
        let on = state.status.nodes.iter().find(|(_, status)| {
            let history = status.resources.get("web");
            history.is_some_and(|h| h.role == Some(crm_core::cib::Role::Started))
        });
        Ok(on.map(|(name, _)| name.clone()).filter(|name| nodes.contains(name)))
    })
}

fn members(stage: &Stage, on: &str, want: usize) -> Result<()> {
    wait::until(&format!("{want} members"), SOON, || {
        let picture = node::status(&stage.lab, on)?;
        let online = picture.nodes.values().filter(|n| n.online).count();
        Ok((picture.state.members.len() == want && online == want && picture.quorate).then_some(()))
    })
}

#[test]
fn a_node_leaves_and_joins_anew_and_another_is_removed_without_stopping_anything() -> Result<()> {
    let Some(stage) = plain("admin-leave")? else { return Ok(()) };
    let runs = place(&stage)?;
    let refused = refusal(&stage, &runs, "cluster leave")?;
    ensure!(refused.contains(&format!("crm node standby {runs} --wait")), "{refused}");
    let founder = stage.lab.nodes()?.first().cloned().context("a founder")?;
    let guests: Vec<String> = stage.lab.nodes()?.into_iter().filter(|n| *n != founder).collect();
    let leaver = guests.iter().find(|n| **n != runs).cloned().context("an idle node")?;
    let stays = guests.iter().find(|n| **n != leaver).cloned().context("another node")?;
    crm(&stage, &leaver, "cluster leave")?;
    members(&stage, &founder, 2)?;
    ensure!(place(&stage)? == runs, "the resource moved");

    let token = crm(&stage, &founder, "cluster token")?;
    let door = node::status(&stage.lab, &founder)?.state.members;
    let door = door.get(&founder).context("the founder's address")?.address.clone();
    let own = door.rsplit_once(':').context("a port")?.1;
    let own = format!("{}:{own}", crm_lab::address(&leaver)?);
    let join =
        format!("cluster join {door} --token {} --node {leaver} --address {own}", token.trim());
    crm(&stage, &leaver, &join)?;
    members(&stage, &founder, 3)?;

    crm(&stage, &founder, &format!("node standby {stays} --wait"))?;
    crm(&stage, &founder, &format!("cluster remove {stays}"))?;
    members(&stage, &founder, 2)?;
    let refused = refusal(&stage, &leaver, &format!("cluster remove {founder}"))?;
    ensure!(refused.contains("ca.key") || refused.contains("standby"), "{refused}");
    place(&stage).map(|_| ())
}

#[test]
fn certificates_are_renewed_and_a_disarmed_cluster_recovers_nothing() -> Result<()> {
    let Some(stage) = plain("admin-rotate")? else { return Ok(()) };
    let runs = place(&stage)?;
    let any = stage.lab.nodes()?.into_iter().find(|n| *n != runs).context("another node")?;
    crm(&stage, &any, "cluster rotate --all")?;
    members(&stage, &any, 3)?;
    ensure!(place(&stage)? == runs, "the resource moved");

    crm(&stage, &any, "disarm --for 10min --reason test")?;
    let status = crm(&stage, &any, "status")?;
    ensure!(status.contains("*** DISARMED until"), "{status}");
    node::kill(&stage.lab, &runs)?;
    let gone = |want: bool| {
        wait::until("the node to be seen dead", SOON, || {
            let picture = node::status(&stage.lab, &any)?;
            let alive = picture.nodes.get(&runs).is_some_and(|n| n.alive);
            let idle = picture.plan.actions.is_empty();
            Ok((!alive && picture.quorate && (idle || want)).then_some(idle))
        })
    };
    ensure!(gone(false)?, "something is planned though disarmed");
    crm(&stage, &any, "arm")?;
    wait::until("the resource to be recovered", SOON, || {
        let state = node::status(&stage.lab, &any)?.state;
        let started = state.status.nodes.iter().any(|(name, status)| {
            let role = status.resources.get("web").and_then(|h| h.role);
            *name != runs && role == Some(crm_core::cib::Role::Started)
        });
        Ok(started.then_some(()))
    })
}

#[test]
fn a_user_may_what_the_role_of_his_group_says() -> Result<()> {
    let Some(stage) = plain("admin-roles")? else { return Ok(()) };
    let runs = place(&stage)?;
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "crm"];
    let ask = |words: &[&str]| node::exec(&stage.lab, &runs, &[&user, words].concat());
    ensure!(ask(&["status"]).is_err(), "a stranger was answered");
    crm(&stage, &runs, "configure property acl-read-only-groups=nogroup")?;
    wait::until("the socket to be open", SOON, || Ok(ask(&["status"]).ok().map(|_| ())))?;
    let refused = ask(&["resource", "stop", "web"]).err().context("a reader stopped a resource")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("has the role read-only; this needs operator"), "{refused}");
    crm(&stage, &runs, "configure property acl-operator-groups=nogroup")?;
    ask(&["resource", "stop", "web", "--wait"])?;
    let refused = ask(&["cluster", "token"]).err().context("an operator made a token")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("has the role operator; this needs admin"), "{refused}");
    let log = crm(&stage, &runs, "log")?;
    ensure!(log.contains(&format!("nobody@{runs}")), "{log}");
    Ok(())
}

/// What tells one start of the resource from another: its agent's file goes with every stop.
fn run_of(stage: &Stage, on: &str) -> Result<String> {
    node::exec(&stage.lab, on, &["stat", "-c", "%i %y", "/run/crm/rsctmp/native-web.state"])
}

/// Whether all have this address for the node, and hear it.
fn reached_at(stage: &Stage, moved: &str, address: &str) -> Result<()> {
    for name in stage.lab.nodes()? {
        wait::until(&format!("{moved} at {address}, seen from {name}"), SOON, || {
            let told = crm(stage, &name, "cluster status")?;
            let row = told.lines().find(|row| row.starts_with(&format!("{moved} ")));
            let row = row.with_context(|| told.clone())?;
            let words: Vec<&str> = row.split_whitespace().collect();
            ensure!(words.contains(&address) && !words.contains(&"NO"), "{told}");
            Ok(Some(()))
        })?;
    }
    cluster::wait_for_members(&stage.lab, &stage.lab.nodes()?)
}

#[test]
fn a_node_gets_another_address_while_its_resource_runs_on() -> Result<()> {
    let Some(stage) = plain("admin-address")? else { return Ok(()) };
    let runs = place(&stage)?;
    let started = run_of(&stage, &runs)?;
    let inside = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        node::exec(&stage.lab, &runs, &words)
    };
    let (old, new) = (crm_lab::address(&runs)?, "192.168.7.200");
    let there = format!("{new}:{PORT}");
    let refused = refusal(&stage, &runs, &format!("cluster address {runs} {there}"))?;
    ensure!(refused.contains("nothing has changed"), "not an address of the machine: {refused}");
    let other = stage.other(&runs)?;
    let refused = refusal(&stage, &other, &format!("cluster address {runs} {there}"))?;
    ensure!(refused.contains(&format!("run it on {runs}")), "{refused}");

    // An address of this machine that is on nobody's net.
    inside("ip addr add 10.9.9.9/32 dev eth0")?;
    let lost = format!("10.9.9.9:{PORT}");
    let refused = refusal(&stage, &runs, &format!("cluster address {runs} {lost}"))?;
    for name in stage.lab.nodes()?.iter().filter(|name| **name != runs) {
        ensure!(refused.contains(&format!("{name} cannot reach {lost}")), "{refused}");
    }
    reached_at(&stage, &runs, &format!("{old}:{PORT}"))?;

    // Of two addresses of one net the second would vanish with the first.
    inside("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1")?;
    inside(&format!("ip addr add {new}/24 dev eth0"))?;
    crm(&stage, &runs, &format!("cluster address {runs} {there}"))?;
    reached_at(&stage, &runs, &there)?;
    inside(&format!("ip addr del {old}/24 dev eth0"))?;
    // Longer than it takes to miss a node that is not heard.
    wait::pause(Duration::from_secs(3));
    reached_at(&stage, &runs, &there)?;
    ensure!(run_of(&stage, &runs)? == started && place(&stage)? == runs, "it was interrupted");

    let before = node::daemon_pids(&stage.lab, &runs, "daemon")?;
    node::signal(&stage.lab, &runs, "daemon", "KILL")?;
    wait::until("crmd to be started anew", SOON, || {
        let now = node::daemon_pids(&stage.lab, &runs, "daemon")?;
        Ok(now.iter().all(|pid| !before.contains(pid)).then_some(()))
    })?;
    node::wait_for_daemons(&stage.lab, &runs)?;
    reached_at(&stage, &runs, &there)?;
    ensure!(run_of(&stage, &runs)? == started && place(&stage)? == runs, "it was interrupted");
    Ok(())
}

/// Two nodes that have lost each other, each of which goes on by force and is configured.
fn parted(stage: &Stage) -> Result<()> {
    cluster::configure(&stage.lab, "property no-quorum-policy=ignore\ncommit\nquit\n")?;
    place(stage)?;
    let nodes = stage.lab.nodes()?;
    for name in &nodes {
        net::cut(&stage.lab, name)?;
    }
    for name in &nodes {
        wait::until(&format!("{name} to miss the other one"), SOON, || {
            let picture = node::status(&stage.lab, name)?;
            let lost = picture.nodes.iter().any(|(other, line)| other != name && !line.alive);
            Ok((lost && !picture.quorate).then_some(()))
        })?;
        let refused = refusal(stage, name, "cluster force")?;
        ensure!(refused.contains("--accept-divergence"), "{refused}");
        crm(stage, name, "cluster force --accept-divergence")?;
        wait::until(&format!("{name} to lead alone"), SOON, || {
            let told = crm(stage, name, "cluster status")?;
            ensure!(told.contains("generation 1") && told.contains("quorum yes"), "{told}");
            Ok(Some(()))
        })?;
        let text = format!(
            "primitive only-{name} ocf:heartbeat:Dummy\nproperty migration-threshold={}\ncommit\nquit\n",
            name.len() + usize::from(*name == nodes[0])
        );
        node::exec_with_input(&stage.lab, name, &["crm", "configure"], &text)?;
        wait::until(&format!("{name} to run all"), SOON, || {
            let holds = cluster::holdings(&stage.lab, name, name)?;
            Ok((holds.len() == 2).then_some(()))
        })?;
    }
    for name in &nodes {
        net::mend(&stage.lab, name)?;
    }
    for name in &nodes {
        wait::until("the divergence", SOON, || {
            let told = crm(stage, name, "cluster status")?;
            ensure!(told.contains("DIVERGED from"), "{told}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

#[test]
fn two_lines_are_merged_and_the_loser_stops_all_before_it_joins_anew() -> Result<()> {
    let Some(stage) = formed("admin-merge", TWO)? else { return Ok(()) };
    parted(&stage)?;
    let nodes = stage.lab.nodes()?;
    let [winner, loser] = &nodes[..] else { bail!("{nodes:?}") };
    let shown = crm(&stage, winner, "cluster merge")?;
    for words in [
        "DIVERGED after generation 0".to_owned(),
        format!("Only {winner} has changed:\n  + primitive only-{winner}"),
        format!("Only {loser} has changed:\n  + primitive only-{loser}"),
        "CONFLICT: both have changed migration-threshold".to_owned(),
        format!("RUNS ON BOTH {winner} and {loser}: web"),
        format!("stop on {loser}: only-{loser}, web"),
    ] {
        ensure!(shown.contains(&words), "`{words}` is missing in:\n{shown}");
    }
    let keep = format!("cluster merge --keep {winner}");
    let refused = refusal(&stage, winner, &format!("{keep} --yes"))?;
    ensure!(refused.contains("--take ours:ID"), "{refused}");
    let refused = refusal(&stage, loser, &format!("{keep} --prefer ours --yes"))?;
    ensure!(refused.contains("only by its own word"), "{refused}");
    let log = stage.lab.node_dir(loser).join("log/crmd.log");
    let before = fs::read_to_string(&log)?.len();
    crm(&stage, winner, &format!("{keep} --prefer ours --yes"))?;

    cluster::wait_for_members(&stage.lab, &nodes)?;
    for name in &nodes {
        wait::until(&format!("one line on {name}"), SOON, || {
            let told = crm(&stage, name, "cluster status")?;
            let config = crm(&stage, name, "configure show")?;
            let all = nodes.iter().all(|n| config.contains(&format!("primitive only-{n} ")));
            ensure!(all && !told.contains("DIVERGED"), "{told}\n{config}");
            let chosen = format!("migration-threshold={}", winner.len() + 1);
            ensure!(config.contains(&chosen), "{config}");
            Ok(Some(()))
        })?;
    }
    cluster::wait_idle(&stage.lab, winner)?;
    let mut held = Vec::new();
    for name in &nodes {
        held.extend(cluster::holdings(&stage.lab, winner, name)?);
    }
    held.sort();
    let mut want = vec!["web Started".to_owned()];
    want.extend(nodes.iter().map(|n| format!("only-{n} Started")));
    want.sort();
    ensure!(held == want, "{held:?}");

    let told = fs::read_to_string(&log)?;
    let told = told.get(before..).context("the log goes on")?;
    let (stopping, _) = told
        .split_once("crmd starts anew")
        .with_context(|| format!("the daemon did not start anew:\n{told}"))?;
    for id in ["web".to_owned(), format!("only-{loser}")] {
        let stopped = stopping.lines().any(|line| {
            line.contains("operation done") && line.contains(&id) && line.contains("stop")
        });
        ensure!(stopped, "{id} was not stopped before the daemon started anew:\n{told}");
    }
    ensure!(stopping.contains("nothing runs here any more"), "{told}");
    let kept = stage.lab.node_dir(loser).join("lib-crm/given-up");
    let copies: Vec<_> = fs::read_dir(&kept)?.collect::<Result<_, _>>()?;
    ensure!(copies.len() == 1, "{copies:?}");
    let copy = fs::read_to_string(copies[0].path().join("configuration.crm"))?;
    ensure!(copy.contains(&format!("only-{loser}")), "{copy}");
    ensure!(!copy.contains(&format!("only-{winner}")), "{copy}");
    Ok(())
}

#[test]
fn a_fence_device_is_set_up_and_tried_for_real() -> Result<()> {
    let Some(stage) = plain("admin-fence")? else { return Ok(()) };
    let runs = place(&stage)?;
    let target = stage.other(&runs)?;
    let shots = || -> Result<Vec<String>> {
        let log = fs::read_to_string(power::log(&stage.lab))?;
        let words = ["off ", "on ", "reboot "];
        let shots = log.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
        Ok(shots.map(str::to_owned).collect())
    };
    let refused = refusal(&stage, &runs, &format!("fence test {target}"))?;
    ensure!(refused.contains(&format!("no device covers {target}")), "{refused}");
    let refused = refusal(&stage, &runs, "fence setup fence_lab color=red")?;
    ensure!(refused.contains("nothing was written"), "{refused}");
    ensure!(!crm(&stage, &runs, "configure show")?.contains("fence_lab"), "it was written");
    let agents = crm(&stage, &runs, "fence setup")?;
    ensure!(agents.contains("fence_lab"), "{agents}");

    let nodes: Vec<String> = stage.lab.nodes()?;
    let covered = nodes.iter().map(|n| format!(" --for {n}")).collect::<String>();
    crm(&stage, &runs, &format!("fence setup fence_lab --enable{covered}"))?;
    let config = crm(&stage, &runs, "configure show")?;
    ensure!(config.contains("primitive fence_lab stonith:fence_lab"), "{config}");
    ensure!(config.contains("stonith-enabled=true"), "{config}");
    cluster::wait_idle(&stage.lab, &runs)?;
    crm(&stage, &runs, &format!("fence test {target}"))?;
    ensure!(shots()?.is_empty(), "shot without --yes: {:?}", shots()?);

    let boot = || node::path(&stage.lab, &target, "/");
    let before = boot()?;
    let said = crm(&stage, &runs, &format!("fence test {target} --yes"))?;
    ensure!(shots()? == [format!("reboot {target}")], "{:?}: {said}", shots()?);
    ensure!(boot()? != before, "it was not switched off");
    cluster::wait_for_members(&stage.lab, &nodes)?;
    let history = crm(&stage, &runs, "fence status")?;
    ensure!(history.contains(&format!("{target} was rebooted by fence_lab")), "{history}");
    ensure!(place(&stage)? == runs, "the resource moved");

    fs::write(power::broken(&stage.lab), "")?;
    let refused = refusal(&stage, &runs, &format!("fence test {target} --yes --timeout 20s"))?;
    ensure!(refused.contains("the strip is broken"), "{refused}");
    fs::remove_file(power::broken(&stage.lab))?;
    Ok(())
}
