//! `cargo xtask bench failover`: kill, drain and cold start until the address answers, beside the real Pacemaker + Corosync, measured by
//! the same code; what an idle node costs; whom hogs make accuse. Promises: issue 4. Figures: docs/bench.md.

use super::figures::{COLD, DEFAULTS, DRAIN, Figures, GAP, KILL, TOKEN, verdicts};
use super::probe::{self, Probe, now};
use super::side::{self, NODES, Side, Whose};
use super::{cost, keep};
use crate::exec::{self, is_root, say};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How long an address may take to answer.
const LIMIT: Duration = Duration::from_secs(90);
/// Peace before a kill: a survivor of ours that has itself just started takes nobody for dead within its first 3 s
/// (`START_GRACE_MS`, crm-core/src/controller/mod.rs).
const STEADY: Duration = Duration::from_millis(3500);
/// Peace before every other blow, plus a part that differs, so that no clock of a cluster is met at one phase only.
const CALM: Duration = Duration::from_millis(700);

/// What both clusters run: an address behind a dummy service, as the peer's own measurements have it, without their disk.
const CONFIGURATION: &str = "\
property stonith-enabled=false
property no-quorum-policy=ignore
primitive nfs ocf:heartbeat:Dummy \\
\top monitor interval=5s
primitive vip ocf:heartbeat:IPaddr2 \\
\tparams ip=192.168.7.200 cidr_netmask=24 nic=eth0 \\
\top monitor interval=5s
group HA nfs vip
rsc_defaults resource-stickiness=200
commit
quit
";

/// What is measured on request; all but `hogs` without one.
const PARTS: [&str; 6] = ["normal", "fast", "defaults", "token", "nfs", "hogs"];

/// What the words asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    executable: Option<PathBuf>,
    rounds: u32,
    hogs: u32,
    parts: Vec<String>,
}

impl Wish {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut wish = Self { executable: None, rounds: 10, hogs: 0, parts: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} what?"));
            let number = |text: &String| text.parse().map_err(|e| format!("{word} {text}: {e}"));
            match word.as_str() {
                "--rounds" => wish.rounds = number(value()?)?,
                "--hogs" => wish.hogs = number(value()?)?,
                "--only" => wish.parts = value()?.split(',').map(str::to_owned).collect(),
                option if option.starts_with("--") => return Err(format!("unknown: {option}")),
                path => wish.executable = Some(PathBuf::from(path)),
            }
        }
        if let Some(part) = wish.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("no part `{part}`: {}", PARTS.join(", ")));
        }
        if wish.parts.iter().any(|part| part == "hogs") && wish.hogs == 0 {
            wish.hogs = 10;
        }
        Ok(wish)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

/// Rests.
#[expect(clippy::disallowed_methods, reason = "a plain program that watches others by asking")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The machine's load, over a minute.
fn load() -> Result<f64, String> {
    let text = fs::read_to_string("/proc/loadavg").map_err(|e| format!("/proc/loadavg: {e}"))?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().map_err(|e| format!("/proc/loadavg: {e}"))
}

/// Held while a bench runs: two at once would take each other's clusters away and measure each other.
const LOCK: &str = "/var/tmp/crm-bench.lock";
/// More load than this before anything has begun is other people's.
const QUIET: f64 = 0.5;

fn lock() -> Result<fs::File, String> {
    let file = fs::File::create(LOCK).map_err(|e| format!("{LOCK}: {e}"))?;
    file.try_lock().map_err(|e| format!("another bench runs ({LOCK}: {e})"))?;
    Ok(file)
}

/// `[EXECUTABLE] [--rounds N] [--hogs MINUTES] [--only PART,..]`.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let wish = Wish::parse(words)?;
    if !is_root() {
        return Err("the bench makes namespaces: it needs root".to_owned());
    }
    let _only_one = lock()?;
    let before = load()?;
    if before > QUIET {
        say(&format!("NOT QUIET: load {before}; what follows is no better than that"));
    }
    let (mut whole, mut troubles) = (Figures::default(), Vec::new());
    let binary = wish.executable.clone().map_or_else(exec::build_release, Ok)?;
    let ours = |profile, whole| Whose::Ours { binary: binary.clone(), profile, whole };
    let mut sides = vec![
        ("normal", "crm normal", ours("normal", false)),
        ("fast", "crm fast", ours("fast", false)),
        ("nfs", "crm normal nfs", ours("normal", true)),
    ];
    match side::peer_scripts() {
        Ok(_) => sides.extend([
            ("defaults", DEFAULTS, Whose::Theirs { token: "default" }),
            ("token", TOKEN, Whose::Theirs { token: "1000" }),
        ]),
        Err(why) => say(&format!("SKIPPED: the peer, and with it every ratio: {why}")),
    }
    for (part, name, whose) in sides {
        if wish.wants(part) {
            let mut figures = Figures::default();
            if let Err(why) = measure(name, whose, &wish, &mut figures) {
                say(&format!("FAILED {name}: {why}"));
                troubles.push(format!("{name}: {why}"));
            }
            whole.join(figures);
        }
    }
    if wish.hogs > 0 {
        match cost::hogs(&binary, wish.hogs) {
            Ok(figures) => whole.join(figures),
            Err(why) => troubles.push(format!("hogs: {why}")),
        }
    }
    report(&wish, &whole, troubles)
}

fn report(wish: &Wish, figures: &Figures, mut troubles: Vec<String>) -> Result<(), String> {
    let verdicts = verdicts(figures);
    let quoted: Vec<String> = verdicts.iter().map(|v| format!("    \"{}\"", v.line)).collect();
    keep(
        "failover-",
        &format!(
            "{{\n  \"rounds\": {},\n  \"hogs_minutes\": {},\n  \"sides\": {},\n  \"promises\": [\n{}\n  ]}}",
            wish.rounds,
            wish.hogs,
            figures.json(),
            quoted.join(",\n")
        ),
    )?;
    say(&figures.table());
    for verdict in &verdicts {
        say(&verdict.line);
        if verdict.met == Some(false) {
            troubles.push(verdict.line.clone());
        }
    }
    if troubles.is_empty() { Ok(()) } else { Err(format!("\n{}", troubles.join("\n"))) }
}

/// Configures a cluster that stands, and waits until its address answers and nothing is left to do.
pub(crate) fn settled(side: &Side) -> Result<Probe, String> {
    let (began, probe) = (now()?, Probe::start(side.client()?)?);
    side.configure(CONFIGURATION)?;
    probe.wait(began, "", LIMIT)?;
    side.settle()?;
    Ok(probe)
}

/// All of one side.
fn measure(name: &str, whose: Whose, wish: &Wish, figures: &mut Figures) -> Result<(), String> {
    say(&format!("== {name}"));
    let whole = matches!(whose, Whose::Ours { whole: true, .. });
    let side = Side::build(name, whose)?;
    let probe = if whole {
        let (began, probe) = (now()?, Probe::start(side.client()?)?);
        probe.wait(began, "", LIMIT)?;
        probe
    } else {
        settled(&side)?
    };
    cost::idle(&side, figures)?;
    for round in 0..wish.rounds {
        kill(&side, &probe, round, figures)?;
    }
    for round in 0..wish.rounds {
        drain(&side, &probe, round, figures)?;
    }
    // `crm demo kill` waits until the NFS client writes again: without any node it would wait for ever.
    for _ in 0..if whole { 0 } else { wish.rounds } {
        cold_start(&side, &probe, figures)?;
    }
    Ok(())
}

fn note(side: &Side, figures: &mut Figures, what: &str, value: f64) -> Result<(), String> {
    let load = load()?;
    say(&format!("{} {what} {value:.3} (load {load})", side.name));
    figures.note(&side.name, what, value);
    figures.note(&side.name, "load", load);
    Ok(())
}

/// The node that answers, after a while of peace.
fn active(probe: &Probe, round: u32) -> Result<String, String> {
    pause(CALM + Duration::from_millis(u64::from(round) * 137 % 700));
    probe.last().ok_or_else(|| "nobody has ever answered".to_owned())
}

fn kill(side: &Side, probe: &Probe, round: u32, figures: &mut Figures) -> Result<(), String> {
    pause(STEADY);
    let victim = active(probe, round)?;
    let at = now()?;
    side.kill(&victim)?;
    let answer = probe.wait(at, &victim, LIMIT)?;
    note(side, figures, KILL, answer.at - at)?;
    side.settle()
}

fn drain(side: &Side, probe: &Probe, round: u32, figures: &mut Figures) -> Result<(), String> {
    let from = active(probe, round)?;
    let at = now()?;
    side.on(&from, &["crm", "node", "standby", &from])?;
    let answer = probe.wait(at, &from, LIMIT)?;
    note(side, figures, DRAIN, answer.at - at)?;
    figures.note(&side.name, GAP, answer.at - answer.before);
    pause(CALM);
    side.on(&answer.name, &["crm", "node", "online", &from])?;
    side.settle()
}

fn cold_start(side: &Side, probe: &Probe, figures: &mut Figures) -> Result<(), String> {
    for node in NODES {
        side.kill(node)?;
    }
    pause(CALM);
    let at = now()?;
    side.settle()?;
    note(side, figures, COLD, probe.wait(at, "", LIMIT)?.at - at)
}

/// The hidden words: what this executable is inside the clusters' namespaces.
pub(crate) fn part(word: &str, rest: &[String]) -> Option<Result<(), String>> {
    match word {
        "echo" => Some(probe::echo(rest.first().map_or("nobody", String::as_str))),
        "probe" => Some(probe::probe()),
        "spin" => Some(probe::spin()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Wish;

    fn parse(text: &str) -> Result<Wish, String> {
        Wish::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn ten_rounds_of_all_parts_unless_told_otherwise() {
        let wish = parse("").unwrap();
        assert_eq!((wish.rounds, wish.hogs), (10, 0));
        assert!(wish.wants("normal") && wish.wants("token"));
        let wish = parse("--rounds 3 --only fast,hogs target/crm").unwrap();
        assert_eq!((wish.rounds, wish.hogs), (3, 10));
        assert!(wish.wants("fast") && !wish.wants("normal"));
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(parse("--only fastest").unwrap_err().contains("fastest"));
        assert!(parse("--rounds many").is_err());
        assert!(parse("--hog 3").is_err());
        assert!(parse("--rounds").is_err());
    }
}
