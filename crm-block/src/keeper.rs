//! The keeper: the parent of the data-plane worker. It holds the descriptors of the devices that are shown, starts the
//! worker again when it dies, and hands the descriptors to the new one, so that users of the devices see a pause and no
//! error. It never reads or writes data. The worker talks to it over a socket it finds as its standard input.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt::SockType as SockTypeOption,
};
use nix::unistd::{Pid, getpid, getppid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod sys;

/// Tells a worker the process id of its keeper.
const MARK: &str = "CRM_KEEPER_PID";
/// Pause before the second start in a row; doubles each time. The first restart is immediate.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A worker that lived this long starts the count anew.
const STEADY: Duration = Duration::from_secs(10);

/// Why the keeper could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The socket failed: the keeper is gone or going.
    #[error("talk to the keeper")]
    Socket(#[source] io::Error),
    /// A message was not understood.
    #[error("message of the keeper is not readable")]
    Message(#[source] serde_json::Error),
    /// Something else came than was due.
    #[error("keeper answered out of turn")]
    OutOfTurn,
}

/// Descriptors in the keeper's care.
#[derive(Debug, Clone)]
pub struct Deposit {
    /// Names it; a deposit under the same label replaces it.
    pub label: String,
    /// What the next worker must know besides the descriptors.
    pub blob: String,
    /// The descriptors.
    pub fds: Vec<Arc<OwnedFd>>,
}

/// The worker's side of the keeper. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeeperHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Option<Mutex<OwnedFd>>,
    inherited: Mutex<Vec<Deposit>>,
}

#[derive(Debug, Serialize, Deserialize)]
enum ToKeeper {
    Deposit { label: String, blob: String },
    Withdraw { label: String },
}

#[derive(Debug, Serialize, Deserialize)]
enum ToWorker {
    Kept { label: String, blob: String },
    EndOfKept,
    Done,
}

impl KeeperHandle {
    /// No keeper: nothing survives this process. For tests and for running without a supervisor.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(Inner { socket: None, inherited: Mutex::new(Vec::new()) }))
    }

    /// Gives `fds` into the keeper's care, with what the next worker must know.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn deposit(
        &self,
        label: &str,
        blob: &str,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), KeeperError> {
        let message = ToKeeper::Deposit { label: label.to_owned(), blob: blob.to_owned() };
        self.ask(&message, fds)
    }

    /// Ends the keeper's care for `label`; unknown is fine.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn withdraw(&self, label: &str) -> Result<(), KeeperError> {
        lock(&self.0.inherited).retain(|deposit| deposit.label != label);
        self.ask(&ToKeeper::Withdraw { label: label.to_owned() }, &[])
    }

    /// What a previous worker left, less what has been withdrawn since.
    #[must_use]
    pub fn inherited(&self) -> Vec<Deposit> {
        lock(&self.0.inherited).clone()
    }

    fn ask(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> Result<(), KeeperError> {
        let Some(socket) = &self.0.socket else { return Ok(()) };
        let socket = lock(socket);
        send(socket.as_fd(), message, fds)?;
        match receive(socket.as_fd())? {
            Some((ToWorker::Done, _)) => Ok(()),
            Some((ToWorker::Kept { .. } | ToWorker::EndOfKept, _)) => Err(KeeperError::OutOfTurn),
            None => Err(KeeperError::Socket(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The worker's side, if this process was started by a keeper; an error if that keeper is gone already.
    fn from_environment() -> Result<Option<Self>, KeeperError> {
        let Some(keeper) = std::env::var(MARK).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
            return Ok(None);
        };
        let input = io::stdin();
        if getsockopt(&input, SockTypeOption) != Ok(SockType::SeqPacket) {
            return Ok(None); // a child of a worker, not a worker
        }
        let died = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        died.map_err(|error| KeeperError::Socket(error.into()))?;
        if getppid() != Pid::from_raw(keeper) {
            return Err(KeeperError::Socket(io::ErrorKind::BrokenPipe.into()));
        }
        let socket = input.as_fd().try_clone_to_owned().map_err(KeeperError::Socket)?;
        let null = OpenOptions::new().read(true).open("/dev/null").map_err(KeeperError::Socket)?;
        nix::unistd::dup2_stdin(&null).map_err(|error| KeeperError::Socket(error.into()))?;
        SigSet::all().thread_unblock().map_err(|error| KeeperError::Socket(error.into()))?;
        let mut inherited = Vec::new();
        while let Some((message, fds)) = receive(socket.as_fd())? {
            match message {
                ToWorker::Kept { label, blob } => {
                    let fds = fds.into_iter().map(Arc::new).collect();
                    inherited.push(Deposit { label, blob, fds });
                }
                ToWorker::EndOfKept => {
                    let socket = Some(Mutex::new(socket));
                    return Ok(Some(Self(Arc::new(Inner {
                        socket,
                        inherited: Mutex::new(inherited),
                    }))));
                }
                ToWorker::Done => return Err(KeeperError::OutOfTurn),
            }
        }
        Err(KeeperError::Socket(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// Runs `worker_main` under a keeper. The program calls this at its start: in the first process it becomes the keeper
/// and starts the program anew, with the same arguments, as the worker; there it calls `worker_main`. Returns when the
/// worker has ended in good order, with its exit code, or when it may not be started again.
///
/// Call it on the main thread: the worker dies with the thread that started it. SIGTERM, SIGINT and SIGHUP are passed
/// on to the worker; an exit after SIGTERM or SIGINT is final, whatever its code. A worker that died by a signal, or
/// that ended by itself with deposits left, is started again: a worker that exits on SIGHUP without closing its devices
/// is thus replaced by the program as it is on disk now. One keeper runs per run directory.
pub fn run(worker_main: fn(KeeperHandle, Vec<String>) -> ExitCode, args: Vec<String>) -> ExitCode {
    protect_from_oom_killer();
    match KeeperHandle::from_environment() {
        Ok(Some(handle)) => return worker_main(handle, args),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(error = %chain(&error), "worker without a keeper ends");
            return ExitCode::FAILURE;
        }
    }
    match Keeper::new().and_then(Keeper::keep) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %chain(&error), "keeper ends");
            ExitCode::FAILURE
        }
    }
}

/// The parent process.
#[derive(Debug)]
struct Keeper {
    signals: SignalFd,
    deposits: BTreeMap<String, Deposit>,
    ending: bool,
    /// Where this program was at start: after an upgrade, the new one is there.
    program: PathBuf,
    /// Held while alive: one keeper for a run directory.
    _lock: File,
}

impl Keeper {
    fn new() -> io::Result<Self> {
        let run_dir = crate::front::run_dir();
        fs::create_dir_all(&run_dir)?;
        let lock = File::create(run_dir.join("keeper.lock"))?;
        if let Err(error) = lock.try_lock() {
            tracing::error!(run_dir = %run_dir.display(), "another keeper runs here");
            return Err(error.into());
        }
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags)?;
        let program = std::env::current_exe()?;
        Ok(Self { signals, deposits: BTreeMap::new(), ending: false, program, _lock: lock })
    }

    fn keep(mut self) -> io::Result<ExitCode> {
        let mut pause = Duration::ZERO;
        loop {
            let started = Instant::now();
            let status = self.one_worker()?;
            let by_signal = status.signal();
            let again = !self.ending && (by_signal.is_some() || !self.deposits.is_empty());
            if !again {
                tracing::info!(%status, "worker ended");
                return Ok(exit_code(status));
            }
            if started.elapsed() >= STEADY {
                pause = Duration::ZERO;
            }
            tracing::error!(%status, deposits = self.deposits.len(), ?pause, "worker died; again");
            if self.signal_within(pause)?.is_some_and(is_final) {
                return Ok(exit_code(status));
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Starts a worker and serves it until it is dead.
    fn one_worker(&mut self) -> io::Result<ExitStatus> {
        let (mine, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut child = spawn(&self.program, theirs)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let watch = rustix::process::Pid::from_raw(pid.as_raw())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let watch = rustix::process::pidfd_open(watch, rustix::process::PidfdFlags::empty())?;
        if let Err(error) = self.hand_over(mine.as_fd()) {
            tracing::warn!(error = %chain(&error), "hand-over to the new worker");
        }
        let mut listening = true;
        loop {
            let dead = self.wait(mine.as_fd(), watch.as_fd(), listening)?;
            if let Some(signal) = self.read_signal()? {
                self.ending |= is_final(signal);
                forward(&mut child, pid, signal)?;
            }
            listening = listening && self.serve(mine.as_fd());
            if dead {
                while listening {
                    listening = self.serve(mine.as_fd());
                }
                return child.wait();
            }
        }
    }

    /// Waits for a signal, a message, or the worker's death; true = death.
    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        watch: BorrowedFd<'_>,
        listening: bool,
    ) -> io::Result<bool> {
        let mut fds = vec![
            PollFd::new(watch, PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if listening {
            fds.push(PollFd::new(socket, PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(fds[0].any() == Some(true))
    }

    fn hand_over(&self, socket: BorrowedFd<'_>) -> Result<(), KeeperError> {
        for deposit in self.deposits.values() {
            let message =
                ToWorker::Kept { label: deposit.label.clone(), blob: deposit.blob.clone() };
            let fds: Vec<BorrowedFd<'_>> = deposit.fds.iter().map(|fd| fd.as_fd()).collect();
            send(socket, &message, &fds)?;
        }
        send(socket, &ToWorker::EndOfKept, &[])
    }

    /// Takes one message if there is one; false = the worker has closed its side.
    fn serve(&mut self, socket: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..)) {
            return true;
        }
        let outcome = match receive(socket) {
            Ok(Some((message, fds))) => {
                self.record(message, fds);
                send(socket, &ToWorker::Done, &[]).map(|()| true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            tracing::debug!(error = %chain(&error), "worker's socket");
            false
        })
    }

    fn record(&mut self, message: ToKeeper, fds: Vec<OwnedFd>) {
        match message {
            ToKeeper::Deposit { label, blob } => {
                let fds = fds.into_iter().map(Arc::new).collect();
                self.deposits.insert(label.clone(), Deposit { label, blob, fds });
            }
            ToKeeper::Withdraw { label } => {
                self.deposits.remove(&label);
            }
        }
    }

    fn read_signal(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.signals.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }

    /// A signal that arrives within `pause`.
    fn signal_within(&self, pause: Duration) -> io::Result<Option<Signal>> {
        let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], pause) {
            Ok(_) | Err(Errno::EINTR) => self.read_signal(),
            Err(error) => Err(error.into()),
        }
    }
}

/// Starts this program anew as the worker, with `socket` as its standard input.
#[expect(
    clippy::disallowed_methods,
    reason = "the keeper re-executes itself; crm_agents::exec is for agents and scripts"
)]
fn spawn(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    let mut args = std::env::args_os();
    let program = if program.exists() { program } else { Path::new("/proc/self/exe") };
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env(MARK, getpid().to_string()).stdin(Stdio::from(socket)).spawn()
}

fn forward(child: &mut Child, pid: Pid, signal: Signal) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(()); // reaped: the number may be another process's by now
    }
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_final(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> Result<(), KeeperError> {
    let text = serde_json::to_vec(message).map_err(KeeperError::Message)?;
    sys::send(socket, &text, fds).map_err(KeeperError::Socket)
}

fn receive<M: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(M, Vec<OwnedFd>)>, KeeperError> {
    let (text, fds) = sys::receive(socket).map_err(KeeperError::Socket)?;
    if text.is_empty() {
        return Ok(None);
    }
    let message = serde_json::from_slice(&text).map_err(KeeperError::Message)?;
    Ok(Some((message, fds)))
}

/// Best effort: without the privilege the daemon is as killable as any process.
fn protect_from_oom_killer() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%error, "not protected from the OOM killer");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
