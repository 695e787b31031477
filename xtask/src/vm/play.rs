//! The stage: the machines, what is typed on their consoles, what they answer, what is found.

use super::image::Images;
use super::machine::{Line, Machine, Reset, World};
use crate::exec::say;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machines of a play: names and addresses.
pub(super) type Cast = &'static [(&'static str, &'static str)];
/// Times that a condition is looked at again, half a second apart.
const LOOKS: u32 = 120;

/// What was said and found so far.
#[derive(Debug)]
pub(super) struct Play {
    cast: Cast,
    machines: BTreeMap<&'static str, Machine>,
    tells: Sender<Line>,
    told: Receiver<Line>,
    /// What the machines have told on their second serial ports, as far as it was asked for.
    pub(super) heard: Vec<Line>,
    start: Instant,
    /// What was typed and answered.
    pub(super) record: String,
    /// What is worth a line in the summary.
    pub(super) findings: Vec<(&'static str, String)>,
}

impl Play {
    /// Nothing runs yet.
    pub(super) fn new(title: &str, cast: Cast) -> Self {
        say(title);
        let (tells, told) = channel();
        Self {
            cast,
            machines: BTreeMap::new(),
            tells,
            told,
            heard: Vec::new(),
            start: Instant::now(),
            record: String::new(),
            findings: Vec::new(),
        }
    }

    /// Boots all machines.
    pub(super) fn boot(&mut self, images: &Images, reset: Reset) -> Result<(), String> {
        // Another run of ours on this host has another wire.
        let wire = 20_000 + std::process::id() % 40_000;
        let world = World { wire, reset, tells: self.tells.clone() };
        for (number, seat) in self.cast.iter().enumerate() {
            let machine = Machine::start(images, *seat, number + 1, &world)?;
            self.machines.insert(seat.0, machine);
        }
        self.machines.values_mut().try_for_each(|machine| machine.up().map(drop))
    }

    /// Mounts the payload, installs the executable, tells the machine the time and the others' names.
    pub(super) fn install(&mut self, name: &str) -> Result<(), String> {
        let mut hosts = "127.0.0.1 localhost\\n192.168.7.200 nfs.mydomain.com\\n".to_owned();
        for (name, address) in self.cast {
            hosts += &format!("{address} {name}\\n");
        }
        self.quiet(name, "mkdir -p /opt/crm /mnt/c && mount -o ro /dev/vdc /opt/crm")?;
        self.quiet(name, "cp /opt/crm/crm /usr/local/bin/crm && crm --version")?;
        self.quiet(name, &format!("printf '{hosts}' >/etc/hosts"))?;
        self.set_clock(name)
    }

    /// At boot a machine knows the time to the second.
    pub(super) fn set_clock(&mut self, name: &str) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
        self.quiet(name, &format!("date -s @{}.{:09}", now.as_secs(), now.subsec_nanos()))?;
        Ok(())
    }

    fn machine(&mut self, name: &str) -> Result<&mut Machine, String> {
        self.machines.get_mut(name).ok_or_else(|| format!("no machine {name}"))
    }

    /// Waits until a machine that is reset is up again; what its console said until then.
    pub(super) fn up_again(&mut self, name: &str) -> Result<Vec<Line>, String> {
        self.machine(name)?.up()
    }

    /// Waits for a line on a second serial port.
    pub(super) fn hears(
        &mut self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&Line) -> bool,
    ) -> Result<Line, String> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.told.recv_timeout(left).map_err(|_| format!("never heard: {what}"))?;
            self.heard.push(line.clone());
            if is_it(&line) {
                return Ok(line);
            }
        }
    }

    /// Takes what was told until now.
    pub(super) fn hear_all(&mut self) {
        self.heard.extend(self.told.try_iter());
    }

    /// All that was told: when, by whom, what.
    pub(super) fn story(&mut self) -> String {
        self.hear_all();
        let lines = self.heard.iter();
        lines.map(|l| format!("{:>8.3} {} {}\n", self.second(l.at), l.who, l.text)).collect()
    }

    /// Seconds since the play began.
    pub(super) fn second(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
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
        let answer = self.machine(name)?.ask(line)?;
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
        for (name, _) in self.cast {
            let said = self.quiet(name, look).unwrap_or_else(|why| why);
            if let Err(why) = self.note(name, "(after the failure)", &said) {
                say(&why);
            }
        }
    }
}
