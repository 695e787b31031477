//! The lab's power strip: a process outside of the nodes that switches them off and on, and the fence agent `fence_lab` that the nodes' daemons
//! run to reach it. One line in, one line out, over a Unix socket in the lab's directory: `ACTION NODE`, `ok WORDS` or `error WORDS`.

use crate::lab::Lab;
use crate::{node, ns, pid, shell, ui};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

/// Name of the process among the lab's.
pub(crate) const POWER: &str = "power";
/// Where Debian's fence agents are.
const AGENTS: &str = "/usr/sbin";

const METADATA: &str = r#"<?xml version="1.0"?>
<resource-agent name="fence_lab" shortdesc="Fence agent for the nodes of `crm demo`">
<parameters>
<parameter name="action" required="0"><content type="string" default="reboot"/><shortdesc lang="en">What to do</shortdesc></parameter>
<parameter name="plug" required="0" obsoletes="port"><content type="string"/><shortdesc lang="en">The node</shortdesc></parameter>
<parameter name="port" required="0" deprecated="1"><content type="string"/><shortdesc lang="en">The node</shortdesc></parameter>
</parameters>
<actions>
<action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/>
<action name="list"/><action name="monitor"/><action name="metadata"/>
</actions>
</resource-agent>
"#;

fn socket(dir: &Path) -> PathBuf {
    dir.join("power.sock")
}

/// While this file is there the strip does nothing it is told.
#[must_use]
pub fn broken(lab: &Lab) -> PathBuf {
    lab.dir().join("power.broken")
}

/// What the strip was told, a line each: `ACTION NODE`.
#[must_use]
pub fn log(lab: &Lab) -> PathBuf {
    lab.dir().join("run").join("power.log")
}

/// The directory with the agents that the lab's daemons find: ours and those of the machine.
pub(crate) fn agents(lab: &Lab) -> PathBuf {
    lab.dir().join("fence")
}

/// Makes the agents' directory and starts the strip.
pub(crate) fn start(lab: &Lab) -> Result<()> {
    let dir = agents(lab);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    symlink(lab.executable(), dir.join("fence_lab")).context("make the lab's fence agent")?;
    for entry in fs::read_dir(AGENTS).context("look for fence agents")? {
        let entry = entry.context("look for fence agents")?;
        if entry.file_name().to_string_lossy().starts_with("fence_") {
            symlink(entry.path(), dir.join(entry.file_name())).context("link a fence agent")?;
        }
    }
    let out = ns::open_log(&log(lab))?;
    let error = out.try_clone().context("share the log")?;
    let mut strip = shell::command("setsid");
    strip.arg(lab.executable()).args(["demo", POWER, "--dir"]).arg(lab.dir());
    strip.stdin(Stdio::null()).stdout(out).stderr(error);
    strip.spawn().context("start the power strip")?;
    crate::wait::until("the power strip", std::time::Duration::from_secs(10), || {
        Ok(UnixStream::connect(socket(lab.dir())).ok().map(drop))
    })
}

/// The strip itself.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    pid::note(lab, POWER, i32::try_from(std::process::id()).context("know the own pid")?)?;
    let listener =
        UnixListener::bind(socket(lab.dir())).context("bind the power strip's socket")?;
    for client in listener.incoming() {
        let client = client.context("accept on the power strip's socket")?;
        let lab = lab.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve(&lab, client) {
                ui::complain(&format!("power: {error:#}"));
            }
        });
    }
    Ok(())
}

fn serve(lab: &Lab, mut client: UnixStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(client.try_clone().context("share the socket")?)
        .read_line(&mut line)
        .context("read a request")?;
    let Some((action, name)) = line.trim().split_once(' ') else { return Ok(()) };
    ui::say(&format!("{action} {name}"));
    let answer = match act(lab, action, name.trim()) {
        Ok(words) => format!("ok {words}\n"),
        Err(error) => format!("error {error:#}\n"),
    };
    client.write_all(answer.as_bytes()).context("answer")
}

fn act(lab: &Lab, action: &str, name: &str) -> Result<String> {
    match action {
        "list" => return Ok(lab.nodes()?.join(" ")),
        "monitor" => return Ok(String::new()),
        "status" => return Ok(if node::is_on(lab, name) { "on" } else { "off" }.to_owned()),
        "off" | "on" | "reboot" if broken(lab).exists() => bail!("the strip is broken"),
        "off" | "reboot" => node::kill(lab, name)?,
        "on" => {}
        other => bail!("the strip does not know `{other}`"),
    }
    if action != "off" {
        node::start(lab, name)?;
    }
    Ok(String::new())
}

/// The fence agent: parameters as lines on standard input, the result by exit code (0 done or on, 1 failed, 2 off).
#[must_use]
pub fn agent() -> ExitCode {
    match answer() {
        Ok(code) => code,
        Err(error) => {
            ui::complain(&format!("fence_lab: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn answer() -> Result<ExitCode> {
    if std::env::args().skip(1).eq(["-o", "metadata"]) {
        ui::say(METADATA.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).context("read the parameters")?;
    let params: BTreeMap<&str, &str> =
        input.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let action = params.get("action").copied().unwrap_or("reboot");
    if action == "metadata" {
        ui::say(METADATA.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let name = ["plug", "port", "nodename"].iter().find_map(|key| params.get(key)).copied();
    // DIR/bin/crm
    let executable = std::env::current_exe().context("find the own executable")?;
    let dir = executable.ancestors().nth(2).context("find the lab")?;
    let mut strip = UnixStream::connect(socket(dir)).context("reach the power strip")?;
    let request = format!("{action} {}\n", name.unwrap_or("-"));
    strip.write_all(request.as_bytes()).context("ask the power strip")?;
    let mut reply = String::new();
    strip.read_to_string(&mut reply).context("hear the power strip")?;
    match reply.trim().split_once(' ').unwrap_or_else(|| (reply.trim(), "")) {
        ("ok", words) if action == "list" => {
            for word in words.split(' ') {
                ui::say(&format!("{word},"));
            }
            Ok(ExitCode::SUCCESS)
        }
        ("ok", "off") if action == "status" => Ok(ExitCode::from(2)),
        ("ok", _) => Ok(ExitCode::SUCCESS),
        (_, why) => bail!("{why}"),
    }
}
