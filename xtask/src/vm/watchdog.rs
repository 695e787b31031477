//! What happens: a cluster of three forms whose watchdogs fence; nobody is reset while all is well, nor when a daemon is killed and started again
//! at once; the daemon of the node with the service hangs, once that of the leader and once that of another one, or the service cannot be stopped,
//! and the node resets itself before the service is started elsewhere.

use super::machine::Line;
use super::play::Play;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// All of them are nodes.
pub(super) const MACHINES: [(&str, &str); 3] =
    [("alpha", "192.168.7.11"), ("beta", "192.168.7.12"), ("gamma", "192.168.7.13")];
/// The watchdogs' own time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// `stonith-watchdog-timeout`: that, three dead intervals of the profile `wan` (3.6 s), two seconds, and some more.
const WAIT: Duration = Duration::from_secs(20);
/// Nothing happens for so long, and nobody may be reset.
const REST: Duration = Duration::from_secs(60);
/// Until the service runs elsewhere; an emulated machine takes its time.
const MOVE_LIMIT: Duration = Duration::from_secs(120);
/// What softdog says when it fires.
const FIRES: &str = "Initiating system reboot";

/// Starts the daemon.
const DAEMON: &str = "(setsid crm daemon </dev/null >>/var/log/crmd.log 2>&1 &)";

/// Whose node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Follower,
}

/// What happens to a node that has to go.
#[derive(Debug, Clone, Copy)]
struct Mishap {
    victim: Victim,
    /// Line in the summary.
    key: &'static str,
    title: &'static str,
    /// What is typed on the node.
    line: &'static str,
}

const MISHAPS: [Mishap; 3] = [
    Mishap {
        victim: Victim::Leader,
        key: "the leader hangs",
        title: "the daemon of the node that runs the service, and that leads, hangs",
        line: "kill -STOP $(pgrep -f '^crm daemon')",
    },
    Mishap {
        victim: Victim::Follower,
        key: "a follower hangs",
        title: "the daemon of the node that runs the service, and that follows, hangs",
        line: "kill -STOP $(pgrep -f '^crm daemon')",
    },
    Mishap {
        victim: Victim::Follower,
        key: "a stop fails",
        title: "the service on a node that follows cannot be stopped",
        line: "touch /run/ticker-stubborn; crm node standby $(hostname)",
    },
];

/// The boots of the machines: what the kernel calls them.
type Boots = BTreeMap<&'static str, String>;

/// All of it.
pub(super) fn run(play: &mut Play) -> Result<(), String> {
    let mut boots = prepare(play)?;
    form(play)?;
    rest(play, &boots)?;
    for victim in [Victim::Follower, Victim::Leader] {
        crash(play, victim, &boots)?;
    }
    MISHAPS.into_iter().try_for_each(|mishap| suffer(play, mishap, &mut boots))
}

fn prepare(play: &mut Play) -> Result<Boots, String> {
    play.scene("three machines are up");
    for (name, _) in MACHINES {
        play.install(name)?;
        play.quiet(
            name,
            "mkdir -p /usr/lib/ocf/resource.d/lab && install -m 755 /opt/crm/ticker /usr/lib/ocf/resource.d/lab/ticker",
        )?;
        play.quiet(name, "modprobe softdog; sync")?;
    }
    let kernel = play.tell("alpha", "uname -r")?;
    play.find("kernel", kernel);
    play.tell("alpha", "ls -l /dev/watchdog*; cat /sys/class/watchdog/watchdog0/identity")?;
    let times = [("watchdog", TIMEOUT), ("stonith-watchdog-timeout", WAIT)];
    for (key, time) in times {
        play.find(key, format!("{} s", time.as_secs()));
    }
    MACHINES.iter().map(|(name, _)| Ok((*name, boot_id(play, name)?))).collect()
}

fn boot_id(play: &mut Play, name: &str) -> Result<String, String> {
    play.quiet(name, "cat /proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// The node is a member already.
fn start(play: &mut Play, name: &str) -> Result<(), String> {
    play.tell(name, DAEMON)?;
    // What it logs survives a reset only here.
    play.quiet(name, "(setsid tail -n +1 -F /var/log/crmd.log </dev/null 2>/dev/null | sed -u 's/^/LOG /' >/dev/ttyS1 &)")
        .map(drop)
}

fn form(play: &mut Play) -> Result<(), String> {
    play.scene("a cluster of three nodes");
    // An emulated processor may keep a heartbeat waiting for longer than `normal` allows.
    let settings = format!(
        "sed -i 's/^profile: .*/profile: wan/' /etc/crm/node.yaml && echo 'watchdog: {{device: /dev/watchdog, timeout: {}s}}' >>/etc/crm/node.yaml && sync",
        TIMEOUT.as_secs()
    );
    for (number, (name, address)) in MACHINES.into_iter().enumerate() {
        if number == 0 {
            play.tell(
                name,
                &format!("crm cluster init --name vm --node {name} --address {address}:7631"),
            )?;
        } else {
            play.until("alpha", "crm cluster token >/tmp/token 2>/dev/null")?;
            let token = play.quiet("alpha", "cat /tmp/token")?;
            play.quiet(name, &format!("TOKEN={}", token.trim()))?;
            play.tell(name, &format!("crm cluster join {}:7631 --token $TOKEN --node {name} --address {address}:7631", MACHINES[0].1))?;
        }
        play.tell(name, &settings)?;
        start(play, name)?;
        let online: Vec<&str> = MACHINES.iter().take(number + 1).map(|(name, _)| *name).collect();
        all_online(play, "alpha", &online)?;
        if number == 0 {
            configure(play)?;
        }
    }
    play.tell("alpha", "crm status; crm fence status").map(drop)
}

fn all_online(play: &mut Play, on: &str, nodes: &[&str]) -> Result<(), String> {
    let line = format!("crm status 2>/dev/null | grep -q 'Online: \\[ {} \\]'", nodes.join(" "));
    play.until(on, &line)
}

fn configure(play: &mut Play) -> Result<(), String> {
    // Before there is a third one: the cluster forms while it relies on watchdogs.
    play.tell(
        "alpha",
        &format!(
            "printf 'property stonith-enabled=true stonith-watchdog-timeout={}s\\nrsc_defaults resource-stickiness=100\\nprimitive web ocf:lab:ticker op monitor interval=10s\\ncommit\\n' | crm configure",
            WAIT.as_secs()
        ),
    )?;
    play.until("alpha", "crm status | grep -q 'web.*Started'")
}

/// Nobody may be reset without a reason.
fn rest(play: &mut Play, boots: &Boots) -> Result<(), String> {
    play.scene(&format!("nothing happens for {} s", REST.as_secs()));
    play.tell("alpha", &format!("sleep {}", REST.as_secs()))?;
    nobody_was_reset(play, boots)?;
    for (name, _) in MACHINES {
        play.tell(name, "cut -d' ' -f1 /proc/uptime; grep -i watchdog /var/log/crmd.log")?;
    }
    play.find("while it forms, and then rests", "nobody is reset");
    Ok(())
}

fn nobody_was_reset(play: &mut Play, boots: &Boots) -> Result<(), String> {
    for (name, boot) in boots {
        if boot_id(play, name)? != *boot {
            return Err(format!("{name} was reset"));
        }
    }
    Ok(())
}

/// A daemon that is back within the watchdog's time takes it over.
fn crash(play: &mut Play, victim: Victim, boots: &Boots) -> Result<(), String> {
    let (key, word) = match victim {
        Victim::Leader => ("the leader crashes", "leads"),
        Victim::Follower => ("a follower crashes", "follows"),
    };
    play.scene(&format!("the daemon of the node that runs the service, and that {word}, is killed and started again at once"));
    let name = place(play, victim)?;
    play.hear_all();
    let mark = play.heard.len();
    play.tell(name, "kill -9 $(pgrep -f '^crm daemon')")?;
    let killed = Instant::now();
    play.tell(name, DAEMON)?;
    let armed = play.hears("the watchdog taken over", TIMEOUT * 2, |line| {
        line.who == name && line.text.contains("watchdog armed")
    })?;
    all_online(play, name, &MACHINES.map(|(name, _)| name))?;
    play.tell(name, &format!("sleep {}", WAIT.as_secs()))?;
    nobody_was_reset(play, boots)?;
    play.until(name, &format!("crm status | grep -q 'web.*Started {name}'"))?;
    play.hear_all();
    if play.heard.iter().skip(mark).any(|l| l.text.starts_with("START web")) {
        return Err("the service was started again".to_owned());
    }
    let took = armed.at.saturating_duration_since(killed).as_secs_f64();
    play.find(
        key,
        format!(
            "{name}: the next daemon feeds after {took:.1} s; nobody is reset, the service goes on"
        ),
    );
    Ok(())
}

/// Where the service runs and who leads.
fn places(play: &mut Play) -> Result<(&'static str, &'static str), String> {
    let status = play.tell("alpha", "crm status")?;
    let node = |found: Option<&str>| {
        let word = found.unwrap_or_default();
        MACHINES.iter().map(|(name, _)| *name).find(|name| *name == word)
    };
    let web =
        status.lines().find_map(|l| l.split_once("(ocf:lab:ticker):")?.1.split_whitespace().nth(1));
    let dc = status.lines().find_map(|l| l.split_once("Current DC: ")?.1.split_whitespace().next());
    node(web).zip(node(dc)).ok_or_else(|| format!("who runs and who leads?\n{status}"))
}

/// The service gets to the leader, or away from it; where it is then.
fn place(play: &mut Play, victim: Victim) -> Result<&'static str, String> {
    let (web, dc) = places(play)?;
    let other = MACHINES.iter().map(|(name, _)| *name).find(|name| *name != dc);
    let wanted = match victim {
        Victim::Leader => dc,
        Victim::Follower if web != dc => web,
        Victim::Follower => other.unwrap_or(web),
    };
    let others = MACHINES.iter().map(|(name, _)| *name).filter(|name| *name != wanted);
    let steps = if wanted == web { &[][..] } else { &["standby", "online"] };
    for step in steps {
        for name in others.clone() {
            play.tell("alpha", &format!("crm node {step} {name} --wait"))?;
        }
    }
    play.until("alpha", &format!("crm status | grep -q 'web.*Started {wanted}'"))?;
    Ok(wanted)
}

/// What was seen of a reset.
struct Seen {
    began: Instant,
    ticked: Instant,
    fired: Instant,
    up: Instant,
    started: Line,
}

fn suffer(play: &mut Play, mishap: Mishap, boots: &mut Boots) -> Result<(), String> {
    play.scene(mishap.title);
    let name = place(play, mishap.victim)?;
    let seen = watch(play, name, mishap.line)?;
    judge(play, name, &seen)?;
    let other = seen.started.who;
    play.scene(&format!("{name} comes back"));
    play.install(name)?;
    play.tell(name, "modprobe softdog")?;
    start(play, name)?;
    play.quiet(other, &format!("crm node online {name}"))?;
    all_online(play, other, &MACHINES.map(|(name, _)| name))?;
    for (node, boot) in &mut *boots {
        let now = boot_id(play, node)?;
        if (now != *boot) != (*node == name) {
            return Err(format!("{node}: was boot {boot}, is boot {now}"));
        }
        *boot = now;
    }
    let said = play.tell(other, "crm status; crm fence status")?;
    let newest = said.lines().skip_while(|line| *line != "History:").nth(1).unwrap_or_default();
    if !newest.contains(&format!("{name} was rebooted by watchdog")) {
        return Err(format!("{name} was reset by its watchdog, and the history says `{newest}`"));
    }
    let after = |at: Instant| at.saturating_duration_since(seen.began).as_secs_f64();
    play.find(
        mishap.key,
        format!(
            "{name} at 0 s: its service ticked last at {:.1} s, its watchdog fired at {:.1} s, it was up again at {:.1} s; {other} started the service at {:.1} s; {name} is a member again, the others were not reset",
            after(seen.ticked), after(seen.fired), after(seen.up), after(seen.started.at),
        ),
    );
    Ok(())
}

/// Types what brings a node down and waits for what comes of it.
fn watch(play: &mut Play, name: &'static str, line: &str) -> Result<Seen, String> {
    play.hear_all();
    let mark = play.heard.len();
    let began = Instant::now();
    play.tell(name, line)?;
    let console = play.up_again(name)?;
    let started = play.hears("the service started elsewhere", MOVE_LIMIT, |line| {
        line.who != name && line.text.starts_with("START web")
    })?;
    play.hear_all();
    let fired = console.iter().find(|line| line.text.contains(FIRES));
    let fired = fired.ok_or("the console does not say that the watchdog fired")?;
    let up = console.last().ok_or("the console says nothing")?;
    let ticks = play.heard.iter().skip(mark);
    let ticked = ticks.filter(|l| l.who == name && l.text.starts_with("TICK web")).map(|l| l.at);
    let ticked = ticked.max().ok_or("the service was not heard")?;
    Ok(Seen { began, ticked, fired: fired.at, up: up.at, started })
}

/// The service ended, and the machine was reset, before it was started elsewhere.
fn judge(play: &mut Play, name: &str, seen: &Seen) -> Result<(), String> {
    let rows = [
        (seen.began, format!("{name}: the mishap")),
        (seen.ticked, format!("{name}: last tick of the service")),
        (seen.fired, format!("{name}: the kernel says `{FIRES}`")),
        (seen.up, format!("{name}: up again")),
        (seen.started.at, format!("{}: `{}`", seen.started.who, seen.started.text)),
    ];
    let table: Vec<String> =
        rows.iter().map(|(at, what)| format!("{:>7.2} s {what}", play.second(*at))).collect();
    play.note("host", "(when the serial ports said it)", &table.join("\n"))?;
    if seen.ticked.max(seen.fired) >= seen.started.at {
        return Err(format!("{} started the service before {name} was reset", seen.started.who));
    }
    Ok(())
}
