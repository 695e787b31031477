//! The daemon: volumes by name, what the control socket may ask of them, start and end.

use crate::front::{self, Front, FrontError, FrontSpec};
use crate::keeper::KeeperHandle;
use crate::peers::Peers;
use crate::store::{self, Places};
use crate::volume::status::down as down_status;
use crate::volume::{Bus, CommandError, Volume};
use crm_block_engine::{Refusal, meta};
use crm_proto::block::{Event, Reply, VolumeSpec, VolumeStatus};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All volumes of this node.
pub(crate) struct Daemon {
    places: Places,
    peers: Arc<Peers>,
    keeper: KeeperHandle,
    volumes: Mutex<BTreeMap<String, Arc<Entry>>>,
    watchers: Arc<Mutex<Vec<Sender<Event>>>>,
}

/// One volume: commands that change it take `serial` first; what only asks does not wait for them.
struct Entry {
    serial: Mutex<()>,
    spec: Mutex<VolumeSpec>,
    live: Mutex<Option<Arc<Volume>>>,
    front: Mutex<Option<Box<dyn Front>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal on its way to the asker.
#[derive(Debug)]
pub(crate) struct No {
    code: &'static str,
    why: String,
}

impl No {
    pub(crate) fn new(code: &'static str, why: impl std::fmt::Display) -> Self {
        Self { code, why: why.to_string() }
    }
}

impl From<io::Error> for No {
    fn from(error: io::Error) -> Self {
        Self::new("io", error)
    }
}

impl From<CommandError> for No {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Refused(Refusal::NotUpToDate) => "not-up-to-date",
            CommandError::Refused(Refusal::PeerPrimary) => "peer-primary",
            CommandError::Refused(Refusal::PeerUnknown) => "peer-unknown",
            CommandError::Refused(Refusal::NoQuorum) => "no-quorum",
            CommandError::Refused(Refusal::Busy) => "busy",
            CommandError::Refused(Refusal::Disk) | CommandError::Late => "io",
        };
        Self::new(code, error)
    }
}

fn front_error(error: &FrontError) -> No {
    let code = if matches!(error, FrontError::Busy { .. }) { "busy" } else { "io" };
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    No::new(code, why)
}

/// Outcome of a request as a reply.
pub(crate) fn reply(outcome: Result<(), No>) -> Reply {
    match outcome {
        Ok(()) => Reply::Ok,
        Err(No { code, why }) => Reply::Refused { code: code.to_owned(), why },
    }
}

impl Daemon {
    /// Loads the definitions and brings up what was up.
    pub(crate) fn start(keeper: KeeperHandle) -> io::Result<Arc<Self>> {
        let places = Places::from_environment();
        places.prepare()?;
        if let Err(error) = front::clean_stale(places.run_dir(), &keeper) {
            tracing::warn!(why = front_error(&error).why, "rests of an earlier run");
        }
        let daemon = Arc::new(Self {
            peers: Peers::new(places.clone()),
            places,
            keeper,
            volumes: Mutex::default(),
            watchers: Arc::default(),
        });
        for (spec, up) in daemon.places.definitions()? {
            let entry = daemon.remember(spec);
            if up && let Err(No { code, why }) = daemon.bring_up(&entry) {
                tracing::error!(
                    volume = lock(&entry.spec).name,
                    code,
                    why,
                    "volume does not come up"
                );
            }
        }
        daemon.drop_orphans();
        Ok(daemon)
    }

    fn remember(&self, spec: VolumeSpec) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            serial: Mutex::new(()),
            spec: Mutex::new(spec.clone()),
            live: Mutex::new(None),
            front: Mutex::new(None),
        });
        lock(&self.volumes).insert(spec.name, Arc::clone(&entry));
        entry
    }

    /// Devices kept for volumes that are not primary any more.
    fn drop_orphans(&self) {
        for deposit in self.keeper.inherited() {
            let Some(spec) = front::deposited_spec(&deposit) else { continue };
            let entry = lock(&self.volumes).get(&spec.name).cloned();
            let used = entry.is_some_and(|e| lock(&e.front).is_some());
            if !used && let Err(error) = front::abandon(&deposit, &self.keeper) {
                let why = front_error(&error).why;
                tracing::warn!(
                    label = deposit.label,
                    why,
                    "device of a volume that is not primary"
                );
            }
        }
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, No> {
        let known = lock(&self.volumes).get(name).cloned();
        known.ok_or_else(|| {
            No::new("unknown-volume", format!("volume `{name}` is not defined here"))
        })
    }

    fn live(&self, name: &str) -> Result<(Arc<Entry>, Arc<Volume>), No> {
        let entry = self.entry(name)?;
        let live = lock(&entry.live).clone();
        let live = live.ok_or_else(|| No::new("invalid", format!("volume `{name}` is down")))?;
        Ok((entry, live))
    }

    fn bus(&self) -> Bus {
        let watchers = Arc::clone(&self.watchers);
        Arc::new(move |event| lock(&watchers).retain(|w| w.send(event.clone()).is_ok()))
    }

    fn bring_up(&self, entry: &Entry) -> Result<(), No> {
        let spec = lock(&entry.spec).clone();
        let volume = Volume::attach(spec.clone(), &self.places, self.bus())?;
        *lock(&entry.live) = Some(Arc::clone(&volume));
        if volume.status().primary {
            self.show_again(entry, &volume)?;
        }
        self.peers.join(&volume)?;
        Ok(())
    }

    fn show(&self, entry: &Entry, volume: &Arc<Volume>) -> Result<(), No> {
        let spec = front_spec(volume.spec());
        let shown = front::open(spec, Arc::clone(volume) as _, &self.keeper)
            .map_err(|e| front_error(&e))?;
        volume.set_shown(Some(shown.kind()));
        *lock(&entry.front) = Some(shown);
        Ok(())
    }

    /// The last worker died as primary: its device goes on.
    fn show_again(&self, entry: &Entry, volume: &Arc<Volume>) -> Result<(), No> {
        let spec = front_spec(volume.spec());
        let kept = self
            .keeper
            .inherited()
            .into_iter()
            .find(|d| front::deposited_spec(d).as_ref() == Some(&spec));
        let Some(deposit) = kept else {
            // The keeper died too, and with it the device: what is mounted on the old one is dead. Secondary, so that the monitor sees a
            // failed primary and the cluster takes down what was on it and promotes anew; a fresh device would hide that.
            tracing::warn!(
                volume = volume.spec().name,
                "the device died with the last keeper: secondary now"
            );
            return Ok(volume.demote()?);
        };
        let shown = front::resume(deposit, spec, Arc::clone(volume) as _, &self.keeper)
            .map_err(|e| front_error(&e))?;
        volume.set_shown(Some(shown.kind()));
        *lock(&entry.front) = Some(shown);
        tracing::info!(volume = volume.spec().name, "device taken over from the last worker");
        Ok(())
    }

    // ---- requests

    pub(crate) fn define(&self, spec: &VolumeSpec) -> Result<(), No> {
        let config = store::config(spec).map_err(|why| No::new("invalid", why))?;
        let known = lock(&self.volumes).get(&spec.name).cloned();
        let _serial = known.as_ref().map(|e| lock(&e.serial));
        if let Some(entry) = &known
            && *lock(&entry.spec) != *spec
            && lock(&entry.live).is_some()
        {
            return Err(No::new("busy", "the volume is up with another definition"));
        }
        if self.places.meta(&spec.name).exists() {
            let (_, bytes) = self.places.open_meta(&spec.name, &config)?;
            meta::read(&config, &bytes).map_err(|e| No::new("invalid", e))?;
        }
        let disk = &spec.replicas[usize::from(config.index)].disk;
        if !Path::new(disk).is_absolute() {
            return Err(No::new("invalid", format!("disk `{disk}` is not an absolute path")));
        }
        crate::disk::Disk::create_missing(Path::new(disk), spec.size_bytes)
            .map_err(|e| No::new("io", format!("{disk}: {e}")))?;
        crate::disk::Disk::open(Path::new(disk), spec.size_bytes)
            .map_err(|e| No::new("io", format!("{disk}: {e}")))?;
        self.places.create_meta(&spec.name, &config)?;
        self.places.save(spec)?;
        match known {
            Some(ref entry) => *lock(&entry.spec) = spec.clone(),
            None => drop(self.remember(spec.clone())),
        }
        Ok(())
    }

    pub(crate) fn undefine(&self, name: &str) -> Result<(), No> {
        let entry = self.entry(name)?;
        let _serial = lock(&entry.serial);
        if lock(&entry.live).is_some() {
            return Err(No::new("busy", "the volume is up"));
        }
        self.places.forget(name)?;
        lock(&self.volumes).remove(name);
        Ok(())
    }

    pub(crate) fn up(&self, name: &str) -> Result<(), No> {
        let entry = self.entry(name)?;
        let _serial = lock(&entry.serial);
        if lock(&entry.live).is_none() {
            self.bring_up(&entry)?;
        }
        Ok(self.places.mark_up(name, true)?)
    }

    pub(crate) fn down(&self, name: &str) -> Result<(), No> {
        let entry = self.entry(name)?;
        let _serial = lock(&entry.serial);
        self.take_down(&entry)?;
        Ok(self.places.mark_up(name, false)?)
    }

    fn take_down(&self, entry: &Entry) -> Result<(), No> {
        let Some(volume) = lock(&entry.live).clone() else { return Ok(()) };
        hide(entry, &volume)?;
        volume.down()?;
        *lock(&entry.live) = None;
        self.peers.leave(&volume.spec().name);
        self.bus()(Event::Changed(down_status(volume.spec())));
        Ok(())
    }

    pub(crate) fn promote(&self, name: &str, lost: &[String]) -> Result<(), No> {
        let (entry, volume) = self.live(name)?;
        let _serial = lock(&entry.serial);
        volume.promote(lost)?;
        if lock(&entry.front).is_some() {
            return Ok(());
        }
        if let Err(no) = self.show(&entry, &volume) {
            tracing::error!(
                volume = name,
                why = no.why,
                "the device cannot be made: secondary again"
            );
            volume.demote()?;
            return Err(no);
        }
        self.bus()(Event::Changed(volume.status()));
        Ok(())
    }

    pub(crate) fn demote(&self, name: &str) -> Result<(), No> {
        let (entry, volume) = self.live(name)?;
        let _serial = lock(&entry.serial);
        hide(&entry, &volume)
    }

    /// Not behind `serial`: the command that holds it may be waiting for just this.
    pub(crate) fn drop_peers(&self, name: &str, peers: &[String], epoch: u64) -> Result<(), No> {
        let (_, volume) = self.live(name)?;
        volume.drop_peers(peers, epoch);
        Ok(())
    }

    pub(crate) fn discard(&self, name: &str) -> Result<(), No> {
        let (entry, volume) = self.live(name)?;
        let _serial = lock(&entry.serial);
        Ok(volume.discard()?)
    }

    pub(crate) fn status(&self, name: Option<&str>) -> Result<Vec<VolumeStatus>, No> {
        let entries = match name {
            Some(name) => vec![self.entry(name)?],
            None => lock(&self.volumes).values().cloned().collect(),
        };
        let state = |entry: Arc<Entry>| {
            let live = lock(&entry.live).clone();
            live.map_or_else(|| down_status(&lock(&entry.spec)), |v| v.status())
        };
        Ok(entries.into_iter().map(state).collect())
    }

    /// Events from now on, with what has to be said again to a new watcher.
    pub(crate) fn watch(&self) -> (Receiver<Event>, Vec<Event>) {
        let (sender, events) = channel();
        lock(&self.watchers).push(sender);
        let entries: Vec<Arc<Entry>> = lock(&self.volumes).values().cloned().collect();
        let live = entries.iter().filter_map(|e| lock(&e.live).clone());
        (events, live.flat_map(|v| v.questions()).collect())
    }

    /// The daemon ends: what can be taken down cleanly is.
    pub(crate) fn end(&self) {
        let entries: Vec<(String, Arc<Entry>)> =
            lock(&self.volumes).iter().map(|(n, e)| (n.clone(), Arc::clone(e))).collect();
        for (volume, entry) in entries {
            let _serial = lock(&entry.serial);
            if let Err(No { code, why }) = self.take_down(&entry) {
                tracing::warn!(volume, code, why, "left as it is");
            }
        }
    }
}

fn front_spec(spec: &VolumeSpec) -> FrontSpec {
    FrontSpec {
        name: spec.name.clone(),
        device: PathBuf::from(&spec.device),
        size_bytes: spec.size_bytes,
    }
}

/// Takes the device away and becomes secondary.
fn hide(entry: &Entry, volume: &Volume) -> Result<(), No> {
    let mut front = lock(&entry.front);
    if let Some(shown) = front.as_ref() {
        shown.close().map_err(|e| front_error(&e))?;
    }
    *front = None;
    drop(front);
    volume.set_shown(None);
    Ok(volume.demote()?)
}
