//! A FUSE file under a loop device: the front end for kernels that have neither ublk nor NBD. The file lives in a
//! private mount, `RUN/fuse/NAME/disk`; the kernel's FUSE queue outlives a worker as long as the keeper holds its
//! descriptors, and `FUSE_NOTIFY_RESEND` makes it repeat what the dead worker left unanswered.
//!
//! In a user namespace there are no loop devices: there the file itself is what users open, by a link at the device's
//! place. It takes requests of any length, and the mount is busy while somebody has it open.

use super::error::{FrontError, step};
use super::node::{self, KernelDevice};
use super::{
    Front, FrontSpec, KeeperHandle, Means, Record, Target, label, loopdev, mounts, run_dir,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serve::Session;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

mod serve;
mod wire;

/// Threads that read requests, each on its own clone of the device; they hand over and never wait for a disk.
const THREADS: usize = 4;
/// File system type in `/proc/mounts`.
const TYPE: &str = "fuse.crm";
const DEVICE: &str = "/dev/fuse";

/// Our FUSE file, with a loop device on it or bare.
pub(super) struct FuseFront {
    spec: FrontSpec,
    mount_point: PathBuf,
    keeper: KeeperHandle,
    channels: Vec<Arc<OwnedFd>>,
    /// Users get a loop device, not the file.
    under_loop: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` = closed, or bare.
    loop_number: Option<u32>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for FuseFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FuseFront").field("spec", &self.spec).field("state", &self.state).finish()
    }
}

impl FuseFront {
    /// Makes a new device, `under_loop` or the bare file.
    pub(super) fn open(
        spec: FrontSpec,
        under_loop: bool,
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let parent = mounts_dir(&run_dir());
        clean_one(&parent, &spec.name)?;
        let mount_point = parent.join(&spec.name);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&mount_point).map_err(step("make directory", &mount_point))?;
        let mount_point = fs::canonicalize(&mount_point).map_err(step("resolve", &mount_point))?;
        if mounts::at(&mount_point)?.is_some() {
            return Err(FrontError::Busy { device: mount_point });
        }
        let channels = mount_session(&mount_point, &spec)?;
        let session = Session::new(spec.size_bytes, target, under_loop, false);
        let front = Self::serving(spec, mount_point, channels, session, keeper)?;
        match front.attach_and_show() {
            Ok(()) => Ok(front),
            Err(error) => {
                if let Err(second) = front.close() {
                    tracing::warn!(%second, "taking down a front end that did not start");
                }
                Err(error)
            }
        }
    }

    /// Takes over from a dead worker.
    pub(super) fn resume(
        spec: FrontSpec,
        (loop_number, channels): (Option<u32>, Vec<Arc<OwnedFd>>),
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let mount_point = mounts_dir(&run_dir()).join(&spec.name);
        let mount_point = fs::canonicalize(mount_point.parent().unwrap_or(&mount_point))
            .map_err(step("resolve", &mount_point))?
            .join(&spec.name);
        let Some(found) = mounts::at(&mount_point)? else {
            return Err(step("find mount", &mount_point)(Errno::ENOENT));
        };
        let Some(first) = channels.first() else {
            return Err(FrontError::OtherVolume { label: label(&spec) });
        };
        // before the readers start, else they would take requests that are then repeated
        if let Err(error) = rustix::io::write(first, &wire::resend()) {
            force_unmount(&mount_point);
            return Err(step("ask for requests in flight", &mount_point)(error));
        }
        let session = Session::new(spec.size_bytes, target, loop_number.is_some(), true);
        let front = Self::serving(spec, mount_point, channels, session, keeper)?;
        let Some(loop_number) = loop_number else {
            front.show_file()?;
            return Ok(front);
        };
        if loopdev::is_bound_to(loop_number, found.device)? {
            front.lock().loop_number = Some(loop_number);
            KernelDevice::of_loop(loop_number).show_at(&front.spec.device)?;
        } else {
            tracing::warn!(volume = front.spec.name, loop_number, "loop device was taken away");
            front.attach_and_show()?;
        }
        Ok(front)
    }

    /// Starts the threads.
    fn serving(
        spec: FrontSpec,
        mount_point: PathBuf,
        channels: Vec<Arc<OwnedFd>>,
        session: Session,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let under_loop = session.under_loop();
        let session = Arc::new(session);
        let mut threads = Vec::new();
        for (index, channel) in channels.iter().enumerate() {
            let session = Arc::clone(&session);
            let channel = Arc::clone(channel);
            let builder = std::thread::Builder::new().name(format!("fuse{index}-{}", spec.name));
            let thread = builder.spawn(move || session.serve(&channel));
            threads.push(thread.map_err(step("start a thread for", &mount_point))?);
        }
        let state = Mutex::new(State { loop_number: None, threads });
        Ok(Self { spec, mount_point, keeper: keeper.clone(), channels, under_loop, state })
    }

    /// Loop device, deposit, node; without a loop device a link to the file.
    fn attach_and_show(&self) -> Result<(), FrontError> {
        if !self.under_loop {
            self.deposit(Means::Fuse)?;
            return self.show_file();
        }
        let loop_number = loopdev::attach(&self.mount_point.join(wire::FILE_NAME))?;
        self.lock().loop_number = Some(loop_number);
        self.deposit(Means::FuseLoop { loop_number })?;
        KernelDevice::of_loop(loop_number).show_at(&self.spec.device)
    }

    fn deposit(&self, means: Means) -> Result<(), FrontError> {
        let record = Record { spec: self.spec.clone(), means };
        let fds: Vec<BorrowedFd<'_>> =
            self.channels.iter().map(|channel| channel.as_fd()).collect();
        record.deposit(&self.keeper, &fds)
    }

    fn show_file(&self) -> Result<(), FrontError> {
        let device = &self.spec.device;
        if let Some(parent) = device.parent() {
            fs::create_dir_all(parent).map_err(step("make directory", parent))?;
        }
        node::remove_node(device)?;
        let file = self.mount_point.join(wire::FILE_NAME);
        std::os::unix::fs::symlink(&file, device).map_err(step("link", device))
    }

    /// Whether somebody has the bare file open. A mount that nobody uses is marked as such and kept; the look at it takes the mark away.
    fn file_is_open(&self) -> bool {
        let busy = umount2(&self.mount_point, MntFlags::MNT_EXPIRE) == Err(Errno::EBUSY);
        if let Err(error) = fs::metadata(&self.mount_point) {
            tracing::debug!(%error, mount = %self.mount_point.display(), "look at");
        }
        busy
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Front for FuseFront {
    fn kind(&self) -> &'static str {
        if self.under_loop { "fuse+loop" } else { "fuse" }
    }

    fn device_in_use(&self) -> bool {
        if !self.under_loop {
            return self.file_is_open();
        }
        let Some(loop_number) = self.lock().loop_number else { return false };
        KernelDevice::of_loop(loop_number).is_in_use()
    }

    fn close(&self) -> Result<(), FrontError> {
        let mut state = self.lock();
        if let Some(loop_number) = state.loop_number {
            loopdev::detach(loop_number, &self.spec.device)?;
            state.loop_number = None;
        }
        if state.threads.is_empty() {
            return Ok(());
        }
        if !self.under_loop {
            match umount2(&self.mount_point, MntFlags::empty()) {
                Err(Errno::EBUSY) => {
                    return Err(FrontError::Busy { device: self.spec.device.clone() });
                }
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(error) => return Err(step("unmount", &self.mount_point)(error)),
            }
        }
        node::remove_node(&self.spec.device)?;
        self.keeper.withdraw(&label(&self.spec)).map_err(FrontError::Keeper)?;
        match umount2(&self.mount_point, MntFlags::empty()) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(_somebody_looks_into_it) => force_unmount(&self.mount_point),
        }
        for thread in state.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(volume = self.spec.name, "a front-end thread had panicked");
            }
        }
        drop(state);
        fs::remove_dir(&self.mount_point).map_err(step("remove", &self.mount_point))
    }
}

fn mounts_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("fuse")
}

/// Mounts the file system, greets the kernel, and clones the device for each thread.
fn mount_session(mount_point: &Path, spec: &FrontSpec) -> Result<Vec<Arc<OwnedFd>>, FrontError> {
    let first = open_device()?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,max_read={}",
        first.as_raw_fd(),
        wire::MAX_IO
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(spec.name.as_str()), mount_point, Some(TYPE), flags, Some(options.as_str()))
        .map_err(step("mount", mount_point))?;
    let outcome = serve::greet(&first).map_err(step("greet the kernel for", mount_point));
    match outcome.and_then(|()| clones(first)) {
        Ok(channels) => Ok(channels),
        Err(error) => {
            force_unmount(mount_point);
            Err(error)
        }
    }
}

fn clones(first: OwnedFd) -> Result<Vec<Arc<OwnedFd>>, FrontError> {
    let first = Arc::new(first);
    let mut channels = vec![Arc::clone(&first)];
    for _ in 1..THREADS {
        let fresh = open_device()?;
        let cloned = super::sys::fuse_clone(fresh.as_fd(), first.as_fd());
        cloned.map_err(step("clone", Path::new(DEVICE)))?;
        channels.push(Arc::new(fresh));
    }
    Ok(channels)
}

fn open_device() -> Result<OwnedFd, FrontError> {
    let path = Path::new(DEVICE);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(step("open", path))?;
    Ok(file.into())
}

/// Breaks the connection and takes the mount out of the tree.
fn force_unmount(mount_point: &Path) {
    for flags in [MntFlags::MNT_FORCE, MntFlags::MNT_DETACH] {
        if let Err(error) = umount2(mount_point, flags) {
            tracing::debug!(%error, mount = %mount_point.display(), ?flags, "unmount");
        }
    }
}

/// Breaks the connection and removes the mount and its loop device, which may live on until its users are gone.
pub(super) fn abandon(run_dir: &Path, name: &str) -> Result<(), FrontError> {
    let parent = mounts_dir(run_dir);
    if let Err(error) = umount2(&parent.join(name), MntFlags::MNT_FORCE) {
        tracing::debug!(%error, name, "break the connection"); // still held by its loop device
    }
    clean_one(&parent, name)
}

/// See [`super::clean_stale`].
pub(super) fn clean_stale(run_dir: &Path, kept: &[Record]) -> Result<(), FrontError> {
    let parent = mounts_dir(run_dir);
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(step("list", &parent)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(step("list", &parent))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !kept.iter().any(|record| record.spec.name == name) {
            clean_one(&parent, &name)?;
        }
    }
    Ok(())
}

/// Removes the mounts at `parent/name` whose server is dead, the loop devices on them, and the directory.
fn clean_one(parent: &Path, name: &str) -> Result<(), FrontError> {
    let Ok(parent) = fs::canonicalize(parent) else { return Ok(()) };
    let mount_point = parent.join(name);
    while let Some(found) = mounts::at(&mount_point)? {
        if found.kind != TYPE || !is_dead(&mount_point) {
            tracing::warn!(mount = %mount_point.display(), "alive, left alone");
            return Ok(());
        }
        for number in loopdev::bound_to(found.device, &mount_point.join(wire::FILE_NAME))? {
            tracing::info!(number, mount = %mount_point.display(), "stale loop device");
            loopdev::abandon(number)?;
        }
        umount2(&mount_point, MntFlags::MNT_DETACH).map_err(step("unmount", &mount_point))?;
    }
    match fs::remove_dir(&mount_point) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(step("remove", &mount_point)(error)),
    }
}

/// Whether nobody serves the mount: statfs always asks the server.
fn is_dead(mount_point: &Path) -> bool {
    matches!(nix::sys::statfs::statfs(mount_point), Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}
