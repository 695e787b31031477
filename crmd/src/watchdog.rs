//! The node's watchdog: fed by the daemon's own task after each of its turns and by nothing else, so that a daemon that is stopped, hung or
//! killed feeds no more. Whether it may be fed is the controller's decision (ADR-0013).

use crate::sys;
use anyhow::Context;
use crm_core::controller::{Event, Feed};
use crm_membership::Watchdog;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest pause between two meals.
const PACE: Duration = Duration::from_secs(1);
/// A device that could not be opened is tried again after so long.
const AGAIN: Duration = Duration::from_secs(10);
/// A meal that took longer than this was decided on what is not true any more. A busy processor may take some of it; the promise has room for
/// all of it (`crm_membership::Handle::lease_lag`).
const STALE: Duration = Duration::from_secs(1);

/// An open watchdog. Dropping it disarms nothing: it fires unless another daemon comes and feeds it.
#[derive(Debug)]
struct Device {
    file: File,
    fed: Instant,
}

impl Device {
    /// Arms it.
    fn open(path: &Path, limit: Duration) -> anyhow::Result<(Self, Duration)> {
        let seconds = u32::try_from(limit.as_secs()).context("its timeout is too long")?;
        let file = File::options().write(true).open(path).context("open")?;
        let mut device = Self { file, fed: Instant::now() };
        match sys::set_timeout(&device.file, seconds) {
            Ok(real) => Ok((device, Duration::from_secs(real.into()))),
            Err(error) => {
                device.disarm()?;
                Err(error).context("set its timeout")
            }
        }
    }

    fn feed(&mut self) -> std::io::Result<()> {
        self.file.write_all(b"\0")?;
        self.fed = Instant::now();
        Ok(())
    }

    /// The "magic close" of the kernel's interface: without it closing stops nothing.
    fn disarm(&mut self) -> anyhow::Result<()> {
        self.file.write_all(b"V").context("disarm")
    }
}

/// What the daemon's task does about the watchdog.
#[derive(Debug)]
pub(crate) struct Feeder {
    settings: Option<Watchdog>,
    device: Option<Device>,
    tried: Option<Instant>,
    /// It is not fed any more, whatever the controller says.
    over: bool,
}

impl Feeder {
    /// Nothing is armed yet.
    pub(crate) fn new(settings: Option<Watchdog>) -> Self {
        Self { settings, device: None, tried: None, over: false }
    }

    /// Longest time between two turns of the daemon's task; `None` without a watchdog.
    pub(crate) fn pace(&self) -> Option<Duration> {
        let limit = self.settings.as_ref()?.limit()?;
        Some(PACE.min(limit / 4))
    }

    /// A device is open.
    pub(crate) const fn armed(&self) -> bool {
        self.device.is_some()
    }

    /// One turn: `decided` is when the controller was asked. The controller is to be told what comes of it. `lag` is what passes at most
    /// between the last word that others have of this node and its last meal.
    pub(crate) fn turn(&mut self, feed: Feed, decided: Instant, lag: Duration) -> Option<Event> {
        let pace = self.pace()?;
        if feed != Feed::Feed || self.over {
            return None;
        }
        let Some(device) = &mut self.device else { return self.arm(lag) };
        if device.fed.elapsed() < pace / 2 {
            return None;
        }
        if let Err(error) = device.feed() {
            tracing::error!(%error, "the watchdog cannot be fed: this node will be reset");
            self.over = true;
            return Some(Event::Watchdog(None));
        }
        if decided.elapsed() > STALE {
            // This process stood still between decision and meal: the time that was won is given back.
            tracing::error!("the watchdog was fed too late: this node will be reset");
            self.over = true;
            if let Err(error) = sys::set_timeout(&device.file, 1) {
                tracing::error!(%error, "the watchdog's time cannot be shortened");
            }
        }
        None
    }

    fn arm(&mut self, lag: Duration) -> Option<Event> {
        let settings = self.settings.as_ref()?;
        if self.tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return None;
        }
        self.tried = Some(Instant::now());
        let path = &settings.device;
        match Device::open(path, settings.limit()?) {
            Ok((device, timeout)) => {
                let bound = timeout + lag;
                tracing::info!(device = %path.display(), ?timeout, ?bound, "watchdog armed");
                self.device = Some(device);
                Some(Event::Watchdog(Some(u64::try_from(bound.as_millis()).unwrap_or(u64::MAX))))
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(device = %path.display(), error, "no watchdog");
                None
            }
        }
    }

    /// Nobody relies on it any more, and this daemon ends.
    pub(crate) fn disarm(&mut self) {
        let Some(device) = self.device.as_mut().filter(|_| !self.over) else { return };
        match device.disarm() {
            Ok(()) => tracing::info!("watchdog disarmed"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "this node will be reset");
            }
        }
        self.device = None;
    }

    /// This node has to go.
    pub(crate) fn die(&mut self, why: &str) {
        self.over = true;
        if self.armed() {
            tracing::error!(why, "this node will be reset by its watchdog");
        } else if self.settings.as_ref().is_none_or(|settings| !settings.reboot) {
            tracing::error!(
                why,
                "this node has to go and has no watchdog: it only stops what it runs"
            );
        } else if let Err(error) = reboot(Path::new("/proc"), why) {
            let error = format!("{error:#}");
            tracing::error!(
                why,
                error,
                "this node has to go and cannot be rebooted: it only stops what it runs"
            );
        }
    }
}

/// Reboots the machine at once, without writing anything back; only where this process belongs to the machine itself: in a container or a lab
/// it would be the wrong one.
fn reboot(proc: &Path, why: &str) -> anyhow::Result<()> {
    if !in_the_machine(proc) {
        anyhow::bail!("this is a container or a lab: the machine is not its own");
    }
    tracing::error!(why, "this node is rebooted");
    std::fs::write(proc.join("sysrq-trigger"), "b").context("ask the kernel for it")
}

/// The namespaces are those that the kernel began with: process and user ids by their fixed numbers, the network as process 1 has it.
fn in_the_machine(proc: &Path) -> bool {
    let link = |path: &str| std::fs::read_link(proc.join(path)).ok();
    let network = link("self/ns/net");
    link("self/ns/pid").is_some_and(|l| l == Path::new("pid:[4026531836]"))
        && link("self/ns/user").is_some_and(|l| l == Path::new("user:[4026531837]"))
        && network.is_some()
        && network == link("1/ns/net")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn settings(device: &Path) -> Watchdog {
        Watchdog { device: device.to_owned(), timeout: "4s".to_owned(), reboot: true }
    }

    #[test]
    fn what_is_no_watchdog_is_not_armed_and_not_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let mut feeder = Feeder::new(Some(settings(&path)));
        assert_eq!(feeder.pace(), Some(Duration::from_secs(1)));
        let lag = Duration::from_secs(1);
        assert!(feeder.turn(Feed::Feed, Instant::now(), lag).is_none());
        assert!(!feeder.armed());
        // Closed in the kernel's way, in case that it counted.
        assert_eq!(std::fs::read(&path).unwrap(), b"V");
    }

    #[test]
    fn a_device_that_is_not_to_be_touched_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        let mut feeder = Feeder::new(Some(settings(&path)));
        for feed in [Feed::Leave, Feed::Starve] {
            assert!(feeder.turn(feed, Instant::now(), Duration::ZERO).is_none());
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(Feeder::new(None).pace(), None);
    }

    #[test]
    fn only_the_machine_itself_is_rebooted() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        std::fs::create_dir_all(proc.join("self/ns")).unwrap();
        std::fs::create_dir_all(proc.join("1/ns")).unwrap();
        let link = |path: &str, to: &str| {
            drop(std::fs::remove_file(proc.join(path)));
            symlink(to, proc.join(path)).unwrap();
        };
        link("self/ns/pid", "pid:[4026531836]");
        link("self/ns/user", "user:[4026531837]");
        link("self/ns/net", "net:[4026531840]");
        link("1/ns/net", "net:[4026531840]");
        assert!(in_the_machine(proc));
        for (path, to) in [
            ("self/ns/pid", "pid:[4026532211]"),
            ("self/ns/user", "user:[4026532210]"),
            ("self/ns/net", "net:[4026532345]"),
        ] {
            let right = std::fs::read_link(proc.join(path)).unwrap();
            link(path, to);
            assert!(!in_the_machine(proc), "{path}");
            assert!(reboot(proc, "a test").is_err());
            link(path, right.to_str().unwrap());
        }
        assert!(!proc.join("sysrq-trigger").exists());
        reboot(proc, "a test").unwrap();
        assert_eq!(std::fs::read(proc.join("sysrq-trigger")).unwrap(), b"b");
    }
}
