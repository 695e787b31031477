//! One virtual machine: QEMU as a child process, its serial console as our pipe. On a second serial port it tells what nobody asked for.

use super::image::{Images, fresh};
use crate::exec::command;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Emulated machines boot in about 15 s; a busy host takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// One command on the console.
const ASK_LIMIT: Duration = Duration::from_secs(180);
/// Size of the disk; the volume is smaller.
const DISK_SIZE: &str = "256M";

/// What becomes of a machine that is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// It ends.
    Ends,
    /// It boots again, with what it has written to its disks.
    Boots,
}

/// What the machines of a play have in common.
#[derive(Debug)]
pub(super) struct World {
    /// A port: all machines of one wire see each other.
    pub(super) wire: u32,
    /// What becomes of them when they are reset.
    pub(super) reset: Reset,
    /// Where their second serial ports are heard.
    pub(super) tells: Sender<Line>,
}

/// A line from a machine.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The machine.
    pub(super) who: &'static str,
    /// When it arrived here: one clock for all machines.
    pub(super) at: Instant,
    /// Without its end.
    pub(super) text: String,
}

/// A running machine. Dropping it pulls its plug.
#[derive(Debug)]
pub(super) struct Machine {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    lines: Receiver<Line>,
    asked: u32,
}

/// What a command came to.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it printed.
    pub(super) text: String,
    /// Its exit code.
    pub(super) code: i32,
}

impl Machine {
    /// Starts the `number`th machine; [`Machine::up`] waits until it is there. What it says on its second serial port goes to `tells`.
    pub(super) fn start(
        images: &Images,
        (name, address): (&'static str, &str),
        number: usize,
        world: &World,
    ) -> Result<Self, String> {
        fresh(&images.disk(name), DISK_SIZE)?;
        let drive = |path: std::path::PathBuf, more: &str| {
            format!("file={},if=virtio,format=raw,{more}", path.display())
        };
        // setpriv: the machine must not outlive us, however we end. Emulated also where there is a /dev/kvm: one inside of a virtual
        // machine may not carry a kernel.
        let mut qemu = command("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=multi"]);
        qemu.args(["-cpu", "max", "-m", "768", "-smp", "1", "-display", "none"]);
        if world.reset == Reset::Ends {
            qemu.arg("-no-reboot");
        }
        qemu.arg("-kernel").arg(images.kernel()).arg("-initrd").arg(images.initrd());
        let words = "console=ttyS0 panic=-1 quiet mitigations=off";
        qemu.args(["-append", &format!("{words} lab.name={name} lab.ip={address}")]);
        qemu.args(["-drive", &drive(images.system(), "snapshot=on")]);
        qemu.args(["-drive", &drive(images.disk(name), "cache=none,aio=threads")]);
        qemu.args(["-drive", &drive(images.payload(), "readonly=on")]);
        let netdev = format!("socket,id=n0,mcast=230.0.0.1:{},localaddr=127.0.0.1", world.wire);
        qemu.args(["-netdev", &netdev, "-device"]);
        qemu.arg(format!("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{number:02x}"));
        qemu.args(["-monitor", "none", "-serial", "stdio", "-serial"]);
        let port =
            second_port(name, world.tells.clone()).map_err(|e| format!("start {name}: {e}"))?;
        qemu.arg(format!("tcp:127.0.0.1:{port}"));
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = qemu.spawn().map_err(|e| format!("start {name}: {e}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("start {name}: no console"));
        };
        let (say, lines) = channel();
        std::thread::spawn(move || listen(name, output, &say));
        Ok(Self { name, child, input, lines, asked: 0 })
    }

    /// Waits until the machine is up and its shell is fit for us: no prompt, no echo, no kernel messages but those of a machine that dies.
    /// What it said until then, that it is up being the last of it.
    pub(super) fn up(&mut self) -> Result<Vec<Line>, String> {
        let until = Instant::now() + BOOT_LIMIT;
        let mut said = Vec::new();
        loop {
            let line = self.line(until)?;
            let up = line.text.contains("LAB UP");
            said.push(line);
            if up {
                break;
            }
        }
        self.ask("stty -echo; PS1=; PS2=; dmesg -n 3")?;
        self.ask("export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?;
        Ok(said)
    }

    fn line(&self, until: Instant) -> Result<Line, String> {
        let left = until.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{}: no answer in time", self.name),
            RecvTimeoutError::Disconnected => format!("{}: the machine has ended", self.name),
        })
    }

    /// Types one line.
    pub(super) fn send(&mut self, line: &str) -> Result<(), String> {
        let sent = self.input.write_all(format!("{line}\n").as_bytes());
        sent.map_err(|e| format!("{}: console: {e}", self.name))
    }

    /// Runs one command to its end.
    pub(super) fn ask(&mut self, line: &str) -> Result<Answer, String> {
        self.asked += 1;
        let mark = format!("__END{}__ ", self.asked);
        // Quotes inside: where what is typed is echoed, it is not the mark.
        self.send(&format!("{line}\necho __END''{}__ $?", self.asked))?;
        let until = Instant::now() + ASK_LIMIT;
        let mut text = Vec::new();
        loop {
            let line = self
                .line(until)
                .map_err(|why| format!("{why}; so far it has said:\n{}", text.join("\n")))?
                .text;
            if let Some((before, code)) = line.split_once(&mark) {
                if !before.is_empty() {
                    text.push(before.to_owned());
                }
                let code =
                    code.trim().parse().map_err(|e| format!("{}: `{code}`: {e}", self.name))?;
                return Ok(Answer { text: text.join("\n"), code });
            }
            text.push(line);
        }
    }

    /// Switches the machine off, its disks written.
    pub(super) fn power_off(mut self) -> Result<(), String> {
        self.send("sync; echo o > /proc/sysrq-trigger")?;
        let until = Instant::now() + BOOT_LIMIT;
        while self.line(until).is_ok() {}
        if Instant::now() >= until {
            return Err(format!("{}: does not switch off", self.name));
        }
        // Its console is closed: it has ended or is about to.
        self.child.wait().map(drop).map_err(|e| format!("{}: {e}", self.name))
    }
}

/// Hands on what arrives, line by line. Ends with the machine, or when nobody listens any more.
fn listen(who: &'static str, input: impl Read, say: &Sender<Line>) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    while input.by_ref().read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // Zeroes: the end of a log as a reset leaves it behind.
        let text = String::from_utf8_lossy(&line).replace(['\r', '\n', '\0'], "");
        line.clear();
        if say.send(Line { who, at: Instant::now(), text }).is_err() {
            return;
        }
    }
}

/// Where a machine's second serial port is to call; what it says there is told on.
fn second_port(who: &'static str, tells: Sender<Line>) -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        // A machine that cannot start never calls: its console tells that.
        if let Ok((stream, _)) = listener.accept() {
            listen(who, stream, &tells);
        }
    });
    Ok(port)
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that it has ended already; nothing is left to do then.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
