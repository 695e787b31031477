//! The kernel's NBD client, connected over a socket pair to a server in this process. When the worker dies the kernel
//! keeps the device and waits for the next worker's connection; requests that were in flight are sent again after the
//! timeout.

use super::error::{FrontError, step};
use super::node::{self, KernelDevice};
use super::{
    BLOCK_BYTES, Front, FrontSpec, KeeperHandle, Means, Record, Target, identity, label, pause,
    run_dir,
};
use netlink::{Netlink, Wish};
use nix::errno::Errno;
use serve::End;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

mod netlink;
mod serve;
pub(super) mod socket;

/// A request unanswered this long is sent again on a new connection: bounds the pause after a worker's death. Less than monitors of what
/// runs on the volume wait for an answer (5 s).
const TIMEOUT_S: u64 = 3;
/// How long users wait for a new worker before they see errors.
const DEAD_CONNECTION_S: u64 = 3600;
/// The kernel notices a dead connection within this many pauses of 50 ms.
const RECONNECT_ATTEMPTS: u32 = 200;
/// Largest request, in KiB: fits the buffer pool.
const MAX_REQUEST_KIB: &str = "1024";

/// A device of the kernel's NBD client.
#[derive(Debug)]
pub(super) struct NbdFront {
    spec: FrontSpec,
    index: u32,
    device: KernelDevice,
    keeper: KeeperHandle,
    closing: Arc<AtomicBool>,
    /// `None` = closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether this kernel has NBD, after trying to load it.
pub(super) fn is_available() -> bool {
    if Netlink::open().is_ok() {
        return true;
    }
    super::load_module("nbd") && Netlink::open().is_ok()
}

impl NbdFront {
    /// Makes a new device.
    pub(super) fn open(
        spec: FrontSpec,
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let identity = identity(&run_dir(), &spec.name)?;
        let (mine, kernels) = pair()?;
        let wish = Wish {
            size_bytes: spec.size_bytes,
            block_bytes: u64::from(BLOCK_BYTES),
            server_flags: serve::SERVER_FLAGS,
            timeout_s: TIMEOUT_S,
            dead_connection_s: DEAD_CONNECTION_S,
            identity: &identity,
        };
        let netlink = netlink()?;
        let index = netlink.connect(&wish, &kernels).map_err(step("connect", Path::new("nbd")))?;
        drop(kernels);
        let front = Self::serving(spec, index, mine, target, keeper)?;
        match front.show() {
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
        index: u32,
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let identity = identity(&run_dir(), &spec.name)?;
        let mine = reconnect(index, &identity)?;
        let front = Self::serving(spec, index, mine, target, keeper)?;
        front.device.show_at(&front.spec.device)?;
        Ok(front)
    }

    fn serving(
        spec: FrontSpec,
        index: u32,
        connection: UnixStream,
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let closing = Arc::new(AtomicBool::new(false));
        let identity = identity(&run_dir(), &spec.name)?;
        let name = format!("nbd{index}");
        let size_bytes = spec.size_bytes;
        let flag = Arc::clone(&closing);
        let body = move || {
            let mut connection = connection;
            let flying = Arc::default();
            while serve::serve(&connection, size_bytes, target.as_ref(), &flying) == End::Broken
                && !flag.load(Ordering::SeqCst)
            {
                // a request took longer than the timeout: the kernel has dropped the connection
                match reconnect(index, &identity) {
                    Ok(fresh) => connection = fresh,
                    Err(error) => {
                        tracing::error!(index, %error, "NBD device is lost");
                        return;
                    }
                }
            }
        };
        let builder = std::thread::Builder::new().name(name.clone());
        let thread = builder.spawn(body).map_err(step("start a thread for", Path::new(&name)))?;
        Ok(Self {
            spec,
            index,
            device: KernelDevice { name, major: node::NBD_MAJOR, minor: 0 },
            keeper: keeper.clone(),
            closing,
            thread: Mutex::new(Some(thread)),
        }
        .with_numbers())
    }

    /// Minor numbers are spaced for partitions: sysfs knows.
    fn with_numbers(mut self) -> Self {
        match KernelDevice::from_sysfs(&self.device.name) {
            Ok(device) => self.device = device,
            Err(error) => tracing::error!(%error, "device numbers"),
        }
        self
    }

    fn show(&self) -> Result<(), FrontError> {
        let limit = format!("/sys/block/{}/queue/max_sectors_kb", self.device.name);
        if let Err(error) = fs::write(&limit, MAX_REQUEST_KIB) {
            tracing::debug!(%error, limit, "request size is not limited");
        }
        let record = Record { spec: self.spec.clone(), means: Means::Nbd { index: self.index } };
        record.deposit(&self.keeper, &[])?;
        self.device.show_at(&self.spec.device)
    }
}

impl Front for NbdFront {
    fn kind(&self) -> &'static str {
        "nbd"
    }

    fn device_in_use(&self) -> bool {
        self.device.is_in_use()
    }

    fn close(&self) -> Result<(), FrontError> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            return Ok(());
        }
        let claim = self.device.claim(&self.spec.device)?;
        self.closing.store(true, Ordering::SeqCst);
        let outcome = netlink()?.disconnect(self.index);
        outcome.map_err(step("disconnect", Path::new(&self.device.name)))?;
        drop(claim);
        node::remove_node(&self.spec.device)?;
        self.keeper.withdraw(&label(&self.spec)).map_err(FrontError::Keeper)?;
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(volume = self.spec.name, "the front-end thread had panicked");
        }
        Ok(())
    }
}

/// Disconnects device `index`.
pub(super) fn abandon(index: u32) -> Result<(), FrontError> {
    let outcome = netlink()?.disconnect(index);
    outcome.map_err(step("disconnect", Path::new(&format!("nbd{index}"))))
}

/// Disconnects devices of ours that nobody serves. See [`super::clean_stale`].
pub(super) fn clean_stale(run_dir: &Path, kept: &[Record]) -> Result<(), FrontError> {
    let blocks = Path::new("/sys/block");
    let own = identity(run_dir, "")?;
    for entry in fs::read_dir(blocks).map_err(step("list", blocks))? {
        let entry = entry.map_err(step("list", blocks))?;
        let Some(index) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("nbd").and_then(|index| index.parse::<u32>().ok()))
        else {
            continue;
        };
        let Ok(backend) = fs::read_to_string(entry.path().join("backend")) else { continue };
        let Some(volume) = backend.trim_end().strip_prefix(own.as_str()) else { continue };
        if !kept.iter().any(|record| record.spec.name == volume) {
            tracing::info!(index, volume, "stale NBD device");
            abandon(index)?;
        }
    }
    Ok(())
}

fn netlink() -> Result<Netlink, FrontError> {
    Netlink::open().map_err(step("find netlink family", Path::new("nbd")))
}

/// Our end and the kernel's end of a connection.
fn pair() -> Result<(UnixStream, OwnedFd), FrontError> {
    let (mine, kernels) = UnixStream::pair().map_err(step("make socket pair", Path::new("nbd")))?;
    Ok((mine, kernels.into()))
}

/// A new connection for device `index`, as soon as the kernel has noticed the end of the old one.
fn reconnect(index: u32, identity: &str) -> Result<UnixStream, FrontError> {
    let netlink = netlink()?;
    let name = format!("nbd{index}");
    for _ in 0..RECONNECT_ATTEMPTS {
        let (mine, kernels) = pair()?;
        match netlink.reconnect(index, identity, &kernels) {
            Ok(()) => return Ok(mine),
            Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => pause(),
            Err(error) => return Err(step("reconnect", Path::new(&name))(error)),
        }
    }
    Err(step("reconnect", Path::new(&name))(io::Error::from(io::ErrorKind::TimedOut)))
}
