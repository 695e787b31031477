//! A volume in memory shown as a real block device: file system on it, worker killed under load, keeper killed.
//! Needs root and either ublk, NBD, or FUSE and loop; skips loudly without.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test with its own harness"
)]

use crm_block::front::{self, Completion, Front, FrontSpec, Io, MemTarget, Target};
use crm_block::keeper::{self, KeeperHandle};
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const SIZE: u64 = 256 << 20;
const DIR: &str = "CRM_FRONT_TEST_DIR";
const LIMIT: Duration = Duration::from_secs(60);

/// Answers from other threads than it is asked on, so that requests are in flight when the worker is killed.
struct Elsewhere {
    queue: mpsc::Sender<(Io, Completion)>,
    size: u64,
}

impl Elsewhere {
    fn new(inner: &Arc<MemTarget>) -> Self {
        let (queue, tasks) = mpsc::channel::<(Io, Completion)>();
        let tasks = Arc::new(Mutex::new(tasks));
        let size = inner.size_bytes();
        for _ in 0..2 {
            let tasks = Arc::clone(&tasks);
            let inner = Arc::clone(inner);
            std::thread::spawn(move || {
                front::mark_io_thread();
                loop {
                    let next = tasks.lock().unwrap().recv();
                    let Ok((io, done)) = next else { return };
                    inner.submit(io, done);
                }
            });
        }
        Self { queue, size }
    }
}

impl Target for Elsewhere {
    fn submit(&self, io: Io, done: Completion) {
        self.queue.send((io, done)).unwrap();
    }

    fn size_bytes(&self) -> u64 {
        self.size
    }
}

fn spec(dir: &Path) -> FrontSpec {
    FrontSpec { name: "vol0".to_owned(), device: dir.join("dev/drbd0"), size_bytes: SIZE }
}

/// What the worker does: shows the volume, says so, takes it away on SIGTERM.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the keeper calls")]
fn worker(keeper: KeeperHandle, _args: Vec<String>) -> ExitCode {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block().unwrap();
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let target = Arc::new(MemTarget::at(&dir.join("backing"), SIZE).unwrap());
    let target: Arc<dyn Target> = Arc::new(Elsewhere::new(&target));
    front::clean_stale(&front::run_dir(), &keeper).unwrap();
    if let Some(deposit) = keeper.inherited().pop()
        && dir.join("abandon").exists()
    {
        front::abandon(&deposit, &keeper).unwrap();
        assert!(keeper.inherited().is_empty());
        fs::write(dir.join("abandoned"), "").unwrap();
    }
    let shown: Box<dyn Front> = match keeper.inherited().pop() {
        Some(deposit) => front::resume(deposit, spec(&dir), target, &keeper).unwrap(),
        None => front::open(spec(&dir), target, &keeper).unwrap(),
    };
    eprintln!("worker {} serves by {}", std::process::id(), shown.kind());
    fs::write(dir.join("pid.new"), std::process::id().to_string()).unwrap();
    fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
    set.wait().unwrap();
    let in_use = shown.device_in_use();
    match shown.close() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("close: {error}, in use: {in_use}");
            ExitCode::from(if in_use { 2 } else { 3 })
        }
    }
}

/// Its own harness: the daemon's processes are this program too, and a keeper must run on the main thread of a process
/// that has no other thread to receive its signals.
fn main() -> ExitCode {
    if std::env::var_os(DIR).is_some() {
        return keeper::run(worker, Vec::new());
    }
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    // A runner asks for the tests first; it must not run them by asking. None is marked ignored.
    if asked("--list") {
        if !asked("--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let exact = asked("--exact");
    let meant = |part: &String, name: &str| if exact { part == name } else { name.contains(part) };
    let mut failures = 0;
    for (name, test) in TESTS {
        if filter.is_empty() || filter.iter().any(|part| meant(part, name)) {
            let good = std::panic::catch_unwind(test).is_ok();
            eprintln!("test {name} ... {}", if good { "ok" } else { "FAILED" });
            failures += u32::from(!good);
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const TESTS: &[(&str, fn())] = &[
    (
        "a_cached_write_survives_the_close_and_an_exclusive_opener_blocks_it",
        a_cached_write_survives_the_close_and_an_exclusive_opener_blocks_it,
    ),
    (
        "a_file_system_lives_on_it_and_a_mounted_device_is_not_taken_away",
        a_file_system_lives_on_it_and_a_mounted_device_is_not_taken_away,
    ),
    (
        "a_killed_keeper_takes_its_worker_along_and_the_next_start_cleans_up",
        a_killed_keeper_takes_its_worker_along_and_the_next_start_cleans_up,
    ),
    (
        "a_loop_device_taken_away_is_attached_again_by_the_next_worker",
        a_loop_device_taken_away_is_attached_again_by_the_next_worker,
    ),
    (
        "a_deposit_that_may_not_go_on_is_abandoned_without_rests",
        a_deposit_that_may_not_go_on_is_abandoned_without_rests,
    ),
    (
        "a_regular_file_in_the_way_of_the_device_is_left_alone",
        a_regular_file_in_the_way_of_the_device_is_left_alone,
    ),
    (
        "killing_the_worker_under_load_costs_no_io_error",
        killing_the_worker_under_load_costs_no_io_error,
    ),
];

/// A keeper with its worker, on its own run directory; cleans up whatever happens.
struct Daemon {
    dir: tempfile::TempDir,
    keeper: Option<Child>,
}

impl Daemon {
    fn start() -> Option<Self> {
        let loopable = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
        let possible =
            loopable || Path::new("/dev/ublk-control").exists() || Path::new("/dev/nbd0").exists();
        if !nix::unistd::geteuid().is_root() || !possible {
            eprintln!("SKIPPED: needs root and ublk, NBD, or FUSE and loop");
            return None;
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut daemon = Self { dir, keeper: None };
        daemon.start_keeper();
        Some(daemon)
    }

    #[expect(clippy::disallowed_methods, reason = "the test starts itself as the daemon")]
    fn start_keeper(&mut self) {
        drop(fs::remove_file(self.path("pid")));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(DIR, self.dir.path()).env("CRM_RUN_DIR", self.path("run"));
        self.keeper = Some(command.spawn().unwrap());
        self.worker_after(None);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn device(&self) -> PathBuf {
        spec(self.dir.path()).device
    }

    /// Waits for a worker other than `old`.
    fn worker_after(&self, old: Option<Pid>) -> Pid {
        let mut found = None;
        eventually("a new worker", || {
            let text = fs::read_to_string(self.path("pid")).unwrap_or_default();
            found = text.parse().ok().map(Pid::from_raw).filter(|pid| Some(*pid) != old);
            found.is_some()
        });
        found.unwrap()
    }

    fn end(&mut self) -> bool {
        let mut keeper = self.keeper.take().unwrap();
        kill(Pid::from_raw(keeper.id().cast_signed()), Signal::SIGTERM).unwrap();
        keeper.wait().unwrap().success()
    }

    fn is_gone(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let run = self.path("run");
        !mounts.contains(run.to_str().unwrap()) && bound_loops(&run).is_empty()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(run("umount", &[&self.path("mnt")]));
        if let Some(mut keeper) = self.keeper.take() {
            kill(Pid::from_raw(keeper.id().cast_signed()), Signal::SIGTERM).ok();
            drop(keeper.wait());
        }
        for number in bound_loops(&self.path("run")) {
            drop(run("losetup", &[Path::new("-d"), Path::new(&format!("/dev/loop{number}"))]));
        }
        drop(run("umount", &[&self.path("run/fuse/vol0")]));
    }
}

fn bound_loops(run: &Path) -> Vec<u32> {
    let below = |number: &u32| {
        fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"))
            .is_ok_and(|backing| Path::new(backing.trim()).starts_with(run))
    };
    (0..256).filter(below).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        pause(10);
    }
}

fn pause(milliseconds: u16) {
    poll(&mut [], PollTimeout::from(milliseconds)).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the test uses the file-system tools")]
fn run(program: &str, args: &[&Path]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn must(program: &str, args: &[&Path]) {
    let output = run(program, args);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn a_file_system_lives_on_it_and_a_mounted_device_is_not_taken_away() {
    let Some(mut daemon) = Daemon::start() else { return };
    let (device, mount) = (daemon.device(), daemon.path("mnt"));
    fs::create_dir(&mount).unwrap();
    must("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &device]);
    must("mount", &[&device, &mount]);
    let content: Vec<u8> = (0..40_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_be_bytes()[3])
        .collect();
    let mut file = File::create(mount.join("file")).unwrap();
    file.write_all(&content).unwrap();
    file.sync_all().unwrap();
    drop(file);
    must("fstrim", &[&mount]);
    assert!(!daemon.end(), "close must refuse while mounted");
    // the keeper has gone for good with the worker: what is mounted is dead now
    // under FUSE it ends with errors at once; under NBD and ublk it waits for the next daemon's clean-up
    let unmounting = mount.clone();
    let unmounted = std::thread::spawn(move || run("umount", &[&unmounting]));
    daemon.start_keeper();
    drop(unmounted.join().unwrap());
    // as after a power loss: the journal is replayed, free counts are made right (1 = corrected)
    let repaired = run("fsck.ext4", &[Path::new("-fy"), &device]);
    assert!(matches!(repaired.status.code(), Some(0 | 1)), "{repaired:?}");
    must("mount", &[&device, &mount]);
    assert!(fs::read(mount.join("file")).unwrap() == content, "content differs");
    must("umount", &[&mount]);
    must("fsck.ext4", &[Path::new("-fn"), &device]);
    assert!(daemon.end());
    assert!(!device.exists());
    assert!(daemon.is_gone());
}

#[expect(clippy::disallowed_methods, reason = "the test uses fio")]
fn killing_the_worker_under_load_costs_no_io_error() {
    let Some(mut daemon) = Daemon::start() else { return };
    if !Path::new("/usr/bin/fio").exists() {
        eprintln!("SKIPPED: needs fio");
        return;
    }
    let mut worker = daemon.worker_after(None);
    let mut command = Command::new("fio");
    command.arg("--name=verify").arg(format!("--filename={}", daemon.device().display()));
    command.args(["--direct=1", "--rw=randwrite", "--bs=4k", "--iodepth=32"]);
    let mebibytes = std::env::var("CRM_FRONT_TEST_MIB").unwrap_or_else(|_| "192".to_owned());
    command.arg(format!("--size={mebibytes}M"));
    command.args([
        "--ioengine=libaio",
        "--verify=crc32c",
        "--verify_backlog=1024",
        "--verify_fatal=1",
    ]);
    command.args(["--rate_iops=12000", "--verify_state_save=0", "--output-format=terse"]);
    let mut fio = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    for _ in 0..3 {
        pause(700);
        assert!(fio.try_wait().unwrap().is_none(), "fio ended before the kill");
        let killed = Instant::now();
        kill(worker, Signal::SIGKILL).unwrap();
        worker = daemon.worker_after(Some(worker));
        eprintln!("new worker after {:?}", killed.elapsed());
    }
    assert!(fio.wait().unwrap().success(), "fio saw an error");
    assert!(daemon.end());
    assert!(daemon.is_gone());
}

fn a_killed_keeper_takes_its_worker_along_and_the_next_start_cleans_up() {
    let Some(mut daemon) = Daemon::start() else { return };
    let worker = daemon.worker_after(None);
    let mut file = OpenOptions::new().write(true).open(daemon.device()).unwrap();
    file.write_all(&[0x5A; 4096]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let mut keeper = daemon.keeper.take().unwrap();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    eventually("the worker's death", || kill(worker, None).is_err());
    daemon.start_keeper();
    assert!(bound_loops(&daemon.path("run")).len() <= 1, "the stale loop device is still there");
    let mut file = File::open(daemon.device()).unwrap();
    let mut back = [0; 4096];
    file.read_exact(&mut back).unwrap();
    assert!(back == [0x5A; 4096], "content differs");
    drop(file);
    assert!(daemon.end());
    assert!(daemon.is_gone());
}

fn a_cached_write_survives_the_close_and_an_exclusive_opener_blocks_it() {
    let Some(mut daemon) = Daemon::start() else { return };
    let device = daemon.device();
    let mut options = OpenOptions::new();
    let mut file = options.write(true).custom_flags(nix::libc::O_EXCL).open(&device).unwrap();
    file.seek(SeekFrom::Start(8192)).unwrap();
    file.write_all(&[0xC3; 12288]).unwrap();
    drop(file);
    assert!(daemon.end());
    assert!(daemon.is_gone());
    let backing = fs::read(daemon.path("backing")).unwrap();
    assert!(backing[8192..20480].iter().all(|byte| *byte == 0xC3));
    assert!(backing[..8192].iter().all(|byte| *byte == 0));
}

fn a_loop_device_taken_away_is_attached_again_by_the_next_worker() {
    let Some(mut daemon) = Daemon::start() else { return };
    let bound = bound_loops(&daemon.path("run"));
    let [number] = bound[..] else {
        eprintln!("SKIPPED: only with FUSE and loop");
        return;
    };
    let worker = daemon.worker_after(None);
    must("losetup", &[Path::new("-d"), Path::new(&format!("/dev/loop{number}"))]);
    kill(worker, Signal::SIGKILL).unwrap();
    daemon.worker_after(Some(worker));
    let mut file = OpenOptions::new().write(true).open(daemon.device()).unwrap();
    file.write_all(&[0x77; 4096]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(daemon.end());
    assert!(daemon.is_gone());
    let backing = fs::read(daemon.path("backing")).unwrap();
    assert!(backing[..4096].iter().all(|byte| *byte == 0x77));
}

fn a_regular_file_in_the_way_of_the_device_is_left_alone() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let spec = spec(dir.path());
    fs::create_dir(dir.path().join("dev")).unwrap();
    fs::write(&spec.device, "precious").unwrap();
    let target = Arc::new(MemTarget::new(SIZE).unwrap());
    let opened = front::open(spec.clone(), target, &KeeperHandle::none());
    assert!(matches!(opened, Err(front::FrontError::Taken { .. })));
    assert_eq!(fs::read(&spec.device).unwrap(), b"precious");
}

fn a_deposit_that_may_not_go_on_is_abandoned_without_rests() {
    let Some(mut daemon) = Daemon::start() else { return };
    let mut file = OpenOptions::new().write(true).open(daemon.device()).unwrap();
    file.write_all(&[1; 4096]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let worker = daemon.worker_after(None);
    fs::write(daemon.path("abandon"), "").unwrap();
    kill(worker, Signal::SIGKILL).unwrap();
    daemon.worker_after(Some(worker));
    assert!(daemon.path("abandoned").exists());
    let mut back = [0; 4096];
    File::open(daemon.device()).unwrap().read_exact(&mut back).unwrap();
    assert!(back == [1; 4096], "content differs");
    assert!(daemon.end());
    assert!(daemon.is_gone());
}
