//! The stage: three machines, what is typed on their consoles, what they answer, what is found.

use super::image::Images;
use super::machine::Machine;
use crate::exec::say;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

/// The nodes of seed 002, and where the clients live.
pub(super) const MACHINES: [(&str, &str); 3] =
    [("alpha", "192.168.7.123"), ("delta", "192.168.7.140"), ("client", "192.168.7.9")];
/// Times that a condition is looked at again, half a second apart.
const LOOKS: u32 = 120;

/// What was said and found so far.
#[derive(Debug)]
pub(super) struct Play {
    machines: BTreeMap<&'static str, Machine>,
    start: Instant,
    /// What was typed and answered.
    pub(super) record: String,
    /// What is worth a line in the summary.
    pub(super) findings: Vec<(&'static str, String)>,
}

impl Play {
    /// Nothing runs yet.
    pub(super) fn new(title: &str) -> Self {
        say(&format!("vm-drain: {title}"));
        let (record, findings) = (String::new(), Vec::new());
        Self { machines: BTreeMap::new(), start: Instant::now(), record, findings }
    }

    /// Boots all machines.
    pub(super) fn boot(&mut self, images: &Images) -> Result<(), String> {
        // Another run of ours on this host has another wire.
        let wire = 20_000 + std::process::id() % 40_000;
        for (number, (name, address)) in MACHINES.into_iter().enumerate() {
            let machine = Machine::start(images, name, address, number + 1, wire)?;
            self.machines.insert(name, machine);
        }
        self.machines.values_mut().try_for_each(Machine::up)
    }

    /// A headline.
    pub(super) fn scene(&mut self, title: &str) {
        let line = format!("==== {:>3} s: {title}", self.start.elapsed().as_secs());
        say(&line);
        self.record.push_str(&format!("{line}\n"));
    }

    /// What is worth a line in the summary.
    pub(super) fn find(&mut self, key: &'static str, value: impl Into<String>) {
        self.findings.push((key, value.into()));
    }

    /// Runs a line on a machine; it must end with 0. Not recorded.
    pub(super) fn quiet(&mut self, name: &str, line: &str) -> Result<String, String> {
        let machine = self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))?;
        let answer = machine.ask(line)?;
        match answer.code {
            0 => Ok(answer.text),
            code => Err(format!("on {name}: `{line}` ended with {code}:\n{}", answer.text)),
        }
    }

    /// Runs a line on a machine and records it with its answer; it must end with 0.
    pub(super) fn tell(&mut self, name: &str, line: &str) -> Result<String, String> {
        let answer = self.quiet(name, line);
        let said = match &answer {
            Ok(text) | Err(text) => text.as_str(),
        };
        self.note(name, line, said)?;
        answer
    }

    /// Records a line and its answer.
    pub(super) fn note(&mut self, who: &str, line: &str, said: &str) -> Result<(), String> {
        let text = said.trim_end();
        let end = if text.is_empty() { "" } else { "\n" };
        say(&format!("{who}# {line}{end}{text}"));
        writeln!(self.record, "{who}# {line}{end}{text}").map_err(|e| e.to_string())
    }

    /// Waits until a line ends with 0 on a machine.
    pub(super) fn until(&mut self, name: &str, line: &str) -> Result<(), String> {
        // In the machine: looking is slow enough there.
        let looking = format!(
            "( i=0; until {line}; do i=$((i+1)); [ $i -lt {LOOKS} ] || exit 1; sleep 0.5; done ) 2>&1 | tail -n 3; {line}"
        );
        let waited = self.quiet(name, &looking);
        let said = waited.as_ref().err().map_or("", String::as_str).to_owned();
        self.note(name, &format!("until {line}"), &said)?;
        waited.map(drop)
    }

    /// Switches a machine off in good order.
    pub(super) fn power_off(&mut self, name: &str) -> Result<(), String> {
        self.machines.remove(name).map_or(Ok(()), Machine::power_off)
    }

    /// After a failure: what the daemons have said last.
    pub(super) fn postmortem(&mut self) {
        let look = "tail -n 40 /var/log/blockd.log /var/log/crmd.log /tmp/*.log 2>&1; dmesg | tail -n 15; crm status; crm volume status";
        for (name, _) in MACHINES {
            let said = self.quiet(name, look).unwrap_or_else(|why| why);
            if let Err(why) = self.note(name, "(after the failure)", &said) {
                say(&why);
            }
        }
    }
}
