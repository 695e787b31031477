//! `crm fence test`: asks every device that covers a node whether it is there and sees the node; on request, the real thing.

use crate::Shell;
use crate::args::FenceTestArgs;
use crate::fail::Fail;
use crate::node::known;
use crate::source::{Input, Source};
use crate::ui::table;
use crm_core::fencing::{Action, Answer, Coverage, Reached, Task, Verb};
use crm_core::store::FenceRequest;

/// What a device said.
struct Seen {
    device: String,
    level: String,
    monitor: Result<(), String>,
    status: Result<&'static str, String>,
}

/// Carries it out. The devices are asked from this node.
pub(crate) fn run(shell: &mut Shell<'_>, args: &FenceTestArgs) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    known(&cib, &args.node)?;
    let (coverage, _, _) = shell.daemon.fencing()?;
    let devices = devices(&coverage, &args.node, args.device.as_deref())?;
    let mut seen = Vec::new();
    for (level, device) in devices {
        seen.push(look(shell, &args.node, level, device)?);
    }
    shell.ui.data(&text(&seen));
    let bad: Vec<&str> = seen
        .iter()
        .filter(|s| s.monitor.is_err() || s.status.is_err())
        .map(|s| s.device.as_str())
        .collect();
    if !bad.is_empty() {
        return Err(Fail::with_remedy(
            format!("{} could not fence {} now", bad.join(", "), args.node),
            "mend the device or its parameters (`crm configure edit`), then test again",
        ));
    }
    if !args.yes && !asked(shell, &args.node)? {
        shell.ui.say(&format!(
            "{} was not touched; `crm fence test {} --yes` reboots it for real",
            args.node, args.node
        ));
        return Ok(());
    }
    reboot(shell, args)
}

/// Devices that cover the node, with their levels.
fn devices(
    coverage: &Coverage,
    node: &str,
    only: Option<&str>,
) -> Result<Vec<(String, String)>, Fail> {
    let levels = coverage.nodes.iter().filter(|n| n.node == node).flat_map(|n| &n.levels);
    let mut all = Vec::new();
    for level in levels {
        let number = level.number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let reach = level.devices.iter().filter(|(_, r)| !matches!(r, Reached::No(_)));
        all.extend(reach.map(|(device, _)| (number.clone(), device.clone())));
    }
    let names: Vec<String> = all.iter().map(|(_, device)| device.clone()).collect();
    if let Some(only) = only {
        all.retain(|(_, device)| device == only);
    }
    match (all.is_empty(), names.is_empty()) {
        (false, _) => Ok(all),
        (true, true) => Err(Fail::with_remedy(
            format!("no device covers {node}: nothing can fence it"),
            format!("crm fence setup AGENT NAME=VALUE.. --for {node}"),
        )),
        (true, false) => Err(Fail::with_remedy(
            format!("{} does not cover {node}", only.unwrap_or_default()),
            format!("these do: {}", names.join(", ")),
        )),
    }
}

fn look(shell: &mut Shell<'_>, node: &str, level: String, device: String) -> Result<Seen, Fail> {
    let task = |verb, target| Task { device: device.clone(), verb, target };
    let monitor = verdict(&shell.daemon.check_device(task(Verb::Monitor, None))?);
    let answer = shell.daemon.check_device(task(Verb::Status, Some(node.to_owned())))?;
    let status = match answer.exit {
        Some(0) => Ok("on"),
        Some(2) => Ok("off"),
        _ => Err(verdict(&answer).err().unwrap_or_default()),
    };
    Ok(Seen { device, level, monitor, status })
}

fn verdict(answer: &Answer) -> Result<(), String> {
    match (answer.exit, answer.message.as_str()) {
        (Some(0), _) => Ok(()),
        (Some(code), "") => Err(format!("exit code {code}")),
        (_, message) => Err(message.to_owned()),
    }
}

fn text(seen: &[Seen]) -> String {
    let mut rows = vec![["DEVICE", "LEVEL", "MONITOR", "NODE IS"].map(str::to_owned).to_vec()];
    for one in seen {
        let monitor =
            one.monitor.as_ref().map_or_else(|why| format!("FAILED: {why}"), |()| "ok".to_owned());
        let status =
            one.status.as_ref().map_or_else(|why| format!("NOT TOLD: {why}"), |s| (*s).to_owned());
        rows.push(vec![one.device.clone(), one.level.clone(), monitor, status]);
    }
    table(&rows, "")
}

/// Asks on a terminal; elsewhere nobody said yes.
fn asked(shell: &mut Shell<'_>, node: &str) -> Result<bool, Fail> {
    let mut source = Source::stdin()?;
    if !source.interactive() {
        return Ok(false);
    }
    shell.ui.say(&format!(
        "A real test cuts {node} off without a shutdown; what runs there is started elsewhere."
    ));
    let prompt = format!("type {node} to reboot it now, anything else to leave it: ");
    Ok(matches!(source.next(&prompt)?, Input::Line(line) if line.trim() == node))
}

fn reboot(shell: &mut Shell<'_>, args: &FenceTestArgs) -> Result<(), Fail> {
    let node = &args.node;
    shell.ui.say(&format!("rebooting {node} through the cluster, as if it were lost"));
    let request = FenceRequest {
        target: node.clone(),
        action: Some(Action::Reboot),
        by: "crm fence test".to_owned(),
        confirm: false,
    };
    match shell.daemon.fence(request, args.timeout)? {
        Some(record) if record.evidence().is_some() => {
            shell.ui.say(&record.sentence());
            Ok(())
        }
        Some(record) => Err(Fail::with_remedy(record.sentence(), "see `crm fence status`")),
        None => Err(Fail::with_remedy(
            format!("{node} is not fenced after {}", crate::status::clock::span(args.timeout)),
            "it goes on; see `crm fence status`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::test_bed::Bed;

    const DEVICE: &[&str] =
        &["configure", "primitive", "power", "stonith:fence_x", "params", "pcmk_host_list=delta"];

    #[test]
    fn every_device_that_covers_the_node_is_asked_and_nothing_is_fenced_without_a_yes() {
        let mut bed = Bed::new();
        let (code, _, words) = bed.crm(&["fence", "test", "delta"]);
        assert!(code == 1 && words.contains("crm fence setup"), "{words}");
        assert_eq!(bed.crm(DEVICE).0, 0);
        let (code, out, words) = bed.crm(&["fence", "test", "delta"]);
        assert_eq!(code, 0, "{words}");
        assert!(out.contains("power   -      ok       on"), "{out}");
        assert!(words.contains("was not touched") && words.contains("--yes"), "{words}");
        assert!(bed.state.fencing.requests.is_empty());
        let (code, _, words) = bed.crm(&["fence", "test", "delta", "--device", "other"]);
        assert!(code == 1 && words.contains("these do: power"), "{words}");
        bed.crm(&["fence", "test", "delta", "--yes"]);
        assert_eq!(bed.state.fencing.requests.len(), 1);
    }

    #[test]
    fn a_device_that_does_not_work_is_told_and_keeps_the_node_from_being_rebooted() {
        let mut bed = Bed::new();
        assert_eq!(bed.crm(DEVICE).0, 0);
        bed.device_fails = Some("login refused".to_owned());
        let (code, out, words) = bed.crm(&["fence", "test", "delta", "--yes"]);
        assert_eq!(code, 1);
        assert!(out.contains("FAILED: login refused"), "{out}");
        assert!(words.contains("power could not fence delta"), "{words}");
        assert!(bed.state.fencing.requests.is_empty());
    }
}
