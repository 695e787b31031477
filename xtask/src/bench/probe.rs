//! Who answers at the service address, asked every 10 ms from the client's namespace: the same code for both clusters.
//!
//! Three small processes of this executable: `echo NAME` in each node, `probe` beside the client, `spin` as a CPU hog.

use super::failover::pause;
use crate::exec::command;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The address both clusters move.
pub(crate) const VIP: &str = "192.168.7.200";
/// Where nodes answer with their names.
const PORT: u16 = 7777;
/// Between two questions.
const STEP: Duration = Duration::from_millis(10);
/// No answer for this long is silence.
const SILENCE: f64 = 0.05;

/// How often the probe looks whether it is still wanted while nobody answers.
const LOOK: Duration = Duration::from_secs(1);

/// Seconds since 1970: one clock for all processes of a machine.
pub(crate) fn now() -> Result<f64, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|time| time.as_secs_f64()).map_err(|e| format!("the clock is before 1970: {e}"))
}

/// This executable.
pub(crate) fn myself() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| format!("find the own executable: {e}"))
}

/// The hidden word `echo`: answers every datagram with the node's name, until the node dies.
pub(crate) fn echo(name: &str) -> Result<(), String> {
    let text = |e: std::io::Error| format!("echo: {e}");
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).map_err(text)?;
    let mut bytes = [0; 16];
    loop {
        let (_, from) = socket.recv_from(&mut bytes).map_err(text)?;
        // The asker may be unreachable at the moment; it asks again.
        drop(socket.send_to(name.as_bytes(), from));
    }
}

/// The hidden word `probe`: a line `SECONDS NAME SECONDS` for each answer of another node than before, or after silence: when it came,
/// who answers, when the last answer before it came (0: never).
pub(crate) fn probe() -> Result<(), String> {
    let text = |e: std::io::Error| format!("probe: {e}");
    let parent = parent_id();
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(text)?;
    socket.set_read_timeout(Some(LOOK)).map_err(text)?;
    let asker = socket.try_clone().map_err(text)?;
    std::thread::spawn(move || {
        loop {
            // It cannot be sent while nobody has the address: that is what is measured.
            drop(asker.send_to(b"?", (VIP, PORT)));
            pause(STEP);
        }
    });
    let (mut bytes, mut who, mut last) = ([0; 64], String::new(), 0.0);
    while parent_id() == parent {
        let Ok((length, _)) = socket.recv_from(&mut bytes) else { continue };
        let at = now()?;
        let name = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
        if name != who || at - last > SILENCE {
            writeln!(std::io::stdout(), "{at:.6} {name} {last:.6}").map_err(text)?;
            who = name;
        }
        last = at;
    }
    Ok(())
}

/// The hidden word `spin`: burns a core until its parent is gone.
pub(crate) fn spin() -> Result<(), String> {
    let parent = parent_id();
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
        if number.trailing_zeros() >= 24 && parent_id() != parent {
            return Ok(());
        }
    }
}

/// A change of who answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// Seconds since 1970.
    pub(crate) at: f64,
    /// The node.
    pub(crate) name: String,
    /// The answer before this one; 0: there was none.
    pub(crate) before: f64,
}

fn understand(line: &str) -> Option<Answer> {
    let mut words = line.split(' ');
    let at = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    let before = words.next()?.parse().ok()?;
    Some(Answer { at, name, before })
}

type Heard = (Mutex<Vec<Answer>>, Condvar);

/// The running probe; it ends with this value.
pub(crate) struct Probe {
    child: Child,
    heard: Arc<Heard>,
}

impl Probe {
    /// Starts asking from the network of process `client`.
    pub(crate) fn start(client: u32) -> Result<Self, String> {
        let mut nsenter = command("nsenter");
        nsenter
            .args(["-t", &client.to_string(), "-n", "--"])
            .arg(myself()?)
            .args(["bench", "probe"]);
        nsenter.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = nsenter.spawn().map_err(|e| format!("start the probe: {e}"))?;
        let out = child.stdout.take().ok_or("the probe has no output")?;
        let heard: Arc<Heard> = Arc::default();
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            for answer in lines.filter_map(|line| understand(&line)) {
                lock(&notes.0).push(answer);
                notes.1.notify_all();
            }
        });
        Ok(Self { child, heard })
    }

    /// Who answered last.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.heard.0).last().map(|answer| answer.name.clone())
    }

    /// How often the address changed hands or fell silent since.
    pub(crate) fn changes_since(&self, at: f64) -> usize {
        lock(&self.heard.0).iter().filter(|answer| answer.at > at).count()
    }

    /// The first answer after `after` of a node that is not `except`.
    pub(crate) fn wait(&self, after: f64, except: &str, limit: Duration) -> Result<Answer, String> {
        let fits = |answer: &&Answer| answer.at > after && answer.name != except;
        let end = Instant::now() + limit;
        let mut heard = lock(&self.heard.0);
        loop {
            if let Some(answer) = heard.iter().find(fits) {
                return Ok(answer.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{VIP} did not answer elsewhere within {limit:?}"));
            }
            let woken = self.heard.1.wait_timeout(heard, left);
            heard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lock(heard: &Mutex<Vec<Answer>>) -> MutexGuard<'_, Vec<Answer>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Probe {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Kills a child and takes its end. One that has ended is fine.
pub(crate) fn stop(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use super::{Answer, understand};

    #[test]
    fn a_line_of_the_probe_is_when_who_and_when_before() {
        let answer = Answer { at: 12.5, name: "delta".to_owned(), before: 11.25 };
        assert_eq!(understand("12.500000 delta 11.250000"), Some(answer));
        assert_eq!(understand("12.5 delta"), None);
    }
}
