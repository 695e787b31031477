//! `crm fence setup`: from an installed fence agent to a device in the configuration, tried before it is written.

use crate::args::{ConfigureArgs, FenceSetupArgs};
use crate::configure;
use crate::fail::Fail;
use crate::node::known;
use crate::source::{Input, Source};
use crate::ui::table;
use crate::{FenceAgent, FenceTrial, Shell};
use crm_core::cib::Cib;
use std::collections::BTreeMap;

/// Carries it out.
pub(crate) fn run(shell: &mut Shell<'_>, args: &FenceSetupArgs) -> Result<(), Fail> {
    let mut source = Source::stdin()?;
    let agent = match args.agent.clone() {
        Some(agent) => agent,
        None => match choose(shell, &mut source)? {
            Some(agent) => agent,
            None => return Ok(()),
        },
    };
    let about = (shell.hooks.fence_agent)(&agent)
        .map_err(|e| Fail::with_remedy(format!("{e:#}"), "crm fence setup (lists the agents)"))?;
    let (_, cib) = shell.daemon.cib()?;
    for node in &args.nodes {
        known(&cib, node)?;
    }
    let mut params = given(&args.params)?;
    if params.is_empty() && source.interactive() {
        ask(shell, &mut source, &about, &mut params)?;
    }
    if !args.nodes.is_empty() && !params.iter().any(|(name, _)| name == "pcmk_host_list") {
        params.push(("pcmk_host_list".to_owned(), args.nodes.join(" ")));
    }
    try_it(shell, &agent, &params.iter().cloned().collect())?;
    let id = args.id.clone().unwrap_or_else(|| free_id(&cib, &agent));
    commit(shell, &id, &agent, &params)?;
    if args.enable {
        statement(shell, vec!["property".to_owned(), "stonith-enabled=true".to_owned()])?;
    }
    crate::fence::show(shell)?;
    if !args.enable && !cib.fencing_enabled() {
        shell.ui.say("fencing is still off: crm configure property stonith-enabled=true");
    }
    shell.ui.say("test it: crm fence test NODE");
    Ok(())
}

/// Lists the agents; on a terminal, asks for one.
fn choose(shell: &mut Shell<'_>, source: &mut Source) -> Result<Option<String>, Fail> {
    let agents = (shell.hooks.fence_agents)();
    if agents.is_empty() {
        return Err(Fail::with_remedy(
            "no fence agent is installed on this node",
            "apt install fence-agents (on every node)",
        ));
    }
    let mut rows = vec![["AGENT", "WHAT IT IS"].map(str::to_owned).to_vec()];
    rows.extend(agents.into_iter().map(|(name, about)| vec![name, about]));
    shell.ui.data(&table(&rows, ""));
    if !source.interactive() {
        shell.ui.say("choose one: crm fence setup AGENT NAME=VALUE.. [--for NODE]");
        return Ok(None);
    }
    match source.next("agent: ")? {
        Input::Line(line) if !line.trim().is_empty() => Ok(Some(line.trim().to_owned())),
        Input::Line(_) | Input::Interrupted | Input::End => Ok(None),
    }
}

fn given(words: &[String]) -> Result<Vec<(String, String)>, Fail> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Fail::with_remedy(
            format!("`{word}` is no parameter"),
            "write NAME=VALUE, as in ip=10.0.0.9",
        )),
    };
    words.iter().map(pair).collect()
}

fn ask(
    shell: &mut Shell<'_>,
    source: &mut Source,
    agent: &FenceAgent,
    params: &mut Vec<(String, String)>,
) -> Result<(), Fail> {
    shell.ui.say(&format!("{}\nwhat it needs (Enter leaves the default):", agent.about));
    for parameter in agent.params.iter().filter(|p| p.required) {
        let default = parameter.default.as_deref().unwrap_or_default();
        let prompt = format!("{} ({}) [{default}]: ", parameter.name, parameter.about);
        if let Input::Line(line) = source.next(&prompt)?
            && !line.trim().is_empty()
        {
            params.push((parameter.name.clone(), line.trim().to_owned()));
        }
    }
    let others: Vec<&str> =
        agent.params.iter().filter(|p| !p.required).map(|p| p.name.as_str()).collect();
    shell.ui.say(&format!("others, as NAME=VALUE, Enter when done: {}", others.join(" ")));
    loop {
        match source.next("> ")? {
            Input::Line(line) if !line.trim().is_empty() => {
                params.extend(given(&[line.trim().to_owned()])?);
            }
            Input::Line(_) | Input::Interrupted | Input::End => return Ok(()),
        }
    }
}

/// Checks the parameters against the agent's own words, and asks the device whether it is there.
fn try_it(
    shell: &mut Shell<'_>,
    agent: &str,
    params: &BTreeMap<String, String>,
) -> Result<(), Fail> {
    match (shell.hooks.fence_try)(agent, params).map_err(Fail::Broken)? {
        FenceTrial::Works => {
            shell.ui.say("the device answers");
            Ok(())
        }
        FenceTrial::Wrong(what) => Err(Fail::with_remedy(
            format!("nothing was written:\n  {}", what.join("\n  ")),
            "give the parameters as NAME=VALUE",
        )),
        FenceTrial::Silent(why) => Err(Fail::with_remedy(
            format!("nothing was written: {agent} does not reach its device: {why}"),
            "check address, login and password; the device must be reached from this node",
        )),
    }
}

fn free_id(cib: &Cib, agent: &str) -> String {
    let stem = format!("fence_{}", agent.trim_start_matches("fence_"));
    let taken = |id: &String| cib.resource(id).is_some() || cib.primitive(id).is_some();
    let numbered = (2_u32..).map(|n| format!("{stem}_{n}"));
    std::iter::once(stem.clone()).chain(numbered).find(|id| !taken(id)).unwrap_or(stem)
}

fn commit(
    shell: &mut Shell<'_>,
    id: &str,
    agent: &str,
    params: &[(String, String)],
) -> Result<(), Fail> {
    let mut words = vec!["primitive".to_owned(), id.to_owned(), format!("stonith:{agent}")];
    if !params.is_empty() {
        words.push("params".to_owned());
        words.extend(params.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(["op", "monitor", "interval=60s"].map(str::to_owned));
    statement(shell, words)
}

/// A statement of the configuration, committed as `crm configure` does it.
fn statement(shell: &mut Shell<'_>, words: Vec<String>) -> Result<(), Fail> {
    configure::run(shell, &ConfigureArgs { file: None, words })
}

#[cfg(test)]
mod tests {
    use crate::test_bed::Bed;

    #[test]
    fn a_device_that_works_is_written_and_shown_with_what_it_covers() {
        let mut bed = Bed::new();
        let (code, out, words) =
            bed.crm(&["fence", "setup", "fence_x", "ip=10.0.0.9", "--for", "delta", "--enable"]);
        assert_eq!(code, 0, "{words}");
        assert!(words.contains("the device answers"), "{words}");
        let device = bed.state.cib.primitive("fence_x").unwrap();
        assert_eq!(device.agent.to_string(), "stonith:fence_x");
        assert_eq!(device.params.get("ip"), Some("10.0.0.9"));
        assert_eq!(device.params.get("pcmk_host_list"), Some("delta"));
        assert_eq!(bed.state.cib.properties.get("stonith-enabled"), Some("true"));
        assert!(out.contains("delta: fence_x") && out.contains("nothing can fence alpha"), "{out}");
        let again = bed.crm(&["fence", "setup", "fence_x", "ip=10.0.0.8", "--for", "alpha"]);
        assert_eq!(again.0, 0, "{}", again.2);
        assert!(bed.state.cib.primitive("fence_x_2").is_some());
    }

    #[test]
    fn what_does_not_fit_the_agent_or_does_not_answer_is_not_written() {
        let mut bed = Bed::new();
        let before = bed.state.clone();
        let cases: [(&[&str], &str); 5] = [
            (&["fence_x", "adress=10.0.0.9"], "no parameter `adress`"),
            (&["fence_x", "ip=silent"], "login refused"),
            (&["fence_x", "ip"], "`ip` is no parameter"),
            (&["fence_nothing", "ip=10.0.0.9"], "fence_nothing"),
            (&["fence_x", "ip=10.0.0.9", "--for", "dleta"], "did you mean `delta`?"),
        ];
        for (given, part) in cases {
            let mut words = vec!["fence", "setup"];
            words.extend(given);
            let (code, _, told) = bed.crm(&words);
            assert!(code != 0 && told.contains(part), "{given:?}: {told}");
            assert_eq!(bed.state, before, "{given:?}");
        }
        let (code, out, _) = bed.crm(&["fence", "setup"]);
        assert!(code == 0 && out.contains("fence_x") && out.contains("a test device"), "{out}");
    }
}
