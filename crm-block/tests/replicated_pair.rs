//! Two daemons on one machine, a real block device on one of them: workers killed under load, replicas compared byte by byte.
//! Needs root and FUSE with loop (or ublk, NBD); skips loudly without.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test with its own harness"
)]

use crm_proto::block::{DiskState, Event, ReplicaSpec, Reply, Request, VolumeSpec, VolumeStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const SIZE: u64 = 128 << 20;
const NAME: &str = "pair_survives_kills_of_its_workers";
const CHILD: &str = "CRM_PAIR_TEST_CHILD";
const LIMIT: Duration = Duration::from_secs(40);

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return crm_block::main(Vec::new());
    }
    // A runner asks for the tests first; it must not run them by asking.
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    if asked("--list") {
        if !asked("--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    let able = nix::unistd::geteuid().is_root()
        && Path::new("/dev/fuse").exists()
        && Path::new("/dev/loop-control").exists();
    if !able {
        eprintln!("SKIPPED: replicated_pair needs root, /dev/fuse and loop devices");
        return ExitCode::SUCCESS;
    }
    pair_survives_kills_of_its_workers();
    eprintln!("test {NAME} ... ok");
    ExitCode::SUCCESS
}

struct Daemon {
    dir: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("data")).unwrap();
        fs::write(dir.join("data/data.key"), "ab".repeat(32)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test starts the daemon itself")]
        let child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .env("CRM_DATA_DIR", dir.join("data"))
            .env("CRM_RUN_DIR", dir.join("run"))
            .env("CRM_BLOCKD_SOCKET", dir.join("sock"))
            .spawn()
            .unwrap();
        Self { dir: dir.to_owned(), child }
    }

    fn socket(&self) -> UnixStream {
        let end = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(self.dir.join("sock")) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < end, "{}: {error}", self.dir.display()),
            }
            pause(20);
        }
    }

    /// The worker may die under the request: then it is asked again.
    fn ask(&self, request: &Request) -> Reply {
        let end = Instant::now() + LIMIT;
        loop {
            let mut stream = self.socket();
            let text = serde_json::to_string(request).unwrap() + "\n";
            let mut line = String::new();
            let sent = stream
                .write_all(text.as_bytes())
                .and_then(|()| BufReader::new(stream).read_line(&mut line));
            match sent {
                Ok(n) if n > 0 => return serde_json::from_str(&line).unwrap(),
                other => assert!(Instant::now() < end, "{request:?}: {other:?}"),
            }
        }
    }

    fn must(&self, request: &Request) {
        assert_eq!(self.ask(request), Reply::Ok, "{request:?}");
    }

    fn status(&self) -> VolumeStatus {
        match self.ask(&Request::Status { volume: Some("v".into()) }) {
            Reply::Status(all) => all.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn wait(&self, what: &str, test: impl Fn(&VolumeStatus) -> bool) {
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if test(&status) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {status:#?}");
            pause(20);
        }
    }

    fn wait_in_sync(&self) {
        self.wait("in sync", |s| {
            s.disk == DiskState::UpToDate
                && s.peers.iter().all(|p| p.disk == DiskState::UpToDate && p.out_of_sync_bytes == 0)
        });
    }

    fn kill_worker(&self) {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let worker: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        if let Err(error) = kill(pid, Signal::SIGTERM) {
            eprintln!("{error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("{error}");
        }
    }
}

fn pause(ms: u64) {
    let (_keep, never) = mpsc::channel::<()>();
    assert!(never.recv_timeout(Duration::from_millis(ms)).is_err());
}

/// The authority: whatever a primary asks to leave behind is left behind.
fn answer_questions(daemon: &Daemon, dir: PathBuf) {
    let stream = daemon.socket();
    std::thread::spawn(move || {
        let mut epoch = 1;
        let mut stream = stream;
        stream.write_all(b"\"Watch\"\n").unwrap();
        for line in BufReader::new(stream).lines().skip(1) {
            let Ok(line) = line else { return };
            if let Event::MayIDrop { volume, peers, .. } = serde_json::from_str(&line).unwrap() {
                epoch += 1;
                let request = Request::Drop { volume, peers, epoch };
                let mut other = UnixStream::connect(dir.join("sock")).unwrap();
                other
                    .write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes())
                    .unwrap();
                let mut reply = String::new();
                BufReader::new(other).read_line(&mut reply).unwrap();
            }
        }
    });
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn specs(dir: &Path, device: &str) -> Vec<VolumeSpec> {
    let names = ["alpha", "beta"];
    let replicas: Vec<ReplicaSpec> = names
        .iter()
        .map(|n| ReplicaSpec {
            node: (*n).to_owned(),
            address: format!("127.0.0.1:{}", free_port()),
            disk: dir.join(format!("{n}.img")).display().to_string(),
        })
        .collect();
    let spec = |me: &&str| VolumeSpec {
        name: "v".into(),
        size_bytes: SIZE,
        device: format!("{device}-{me}"),
        me: (*me).to_owned(),
        replicas: replicas.clone(),
        day0: 4711,
        assume_clean: true,
    };
    names.iter().map(spec).collect()
}

/// Writes to the device and syncs, again and again; any error ends the test.
fn load(
    device: &str,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
) -> std::thread::JoinHandle<()> {
    let file: File = OpenOptions::new().read(true).write(true).open(device).unwrap();
    std::thread::spawn(move || {
        let mut round = 0u64;
        while !stop.load(Ordering::Acquire) {
            round += 1;
            let block = vec![u8::try_from(round % 251).unwrap() + 1; 16384];
            for i in 0..16u64 {
                let at = (round * 37 + i * 97) % (SIZE / 16384) * 16384;
                file.write_all_at(&block, at).expect("the device never fails");
            }
            file.sync_data().expect("the device never fails");
            rounds.store(round, Ordering::Release);
        }
    })
}

fn progress(rounds: &AtomicU64) {
    let (from, end) = (rounds.load(Ordering::Acquire), Instant::now() + LIMIT);
    while rounds.load(Ordering::Acquire) < from + 20 {
        assert!(Instant::now() < end, "no progress after round {from}");
        pause(10);
    }
}

fn pair_survives_kills_of_its_workers() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let device = format!("{}/dev", dir.path().display());
    let specs = specs(dir.path(), &device);
    let a = Daemon::start(&dir.path().join("a"));
    let b = Daemon::start(&dir.path().join("b"));
    for (daemon, spec) in [(&a, &specs[0]), (&b, &specs[1])] {
        daemon.must(&Request::Define(spec.clone()));
        daemon.must(&Request::Up { volume: "v".into() });
    }
    a.wait_in_sync();
    b.wait_in_sync();
    a.must(&Request::Promote { volume: "v".into(), lost: vec![] });
    let refused = b.ask(&Request::Promote { volume: "v".into(), lost: vec![] });
    assert!(
        matches!(refused, Reply::Refused { ref code, .. } if code == "peer-primary"),
        "{refused:?}"
    );

    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = load(&specs[0].device, Arc::clone(&stop), Arc::clone(&rounds));
    progress(&rounds);
    for kill_no in 1..=3 {
        a.kill_worker();
        progress(&rounds);
        eprintln!("primary's worker killed {kill_no} times, writes went on");
        a.wait_in_sync();
    }
    answer_questions(&a, dir.path().join("a"));
    b.kill_worker();
    progress(&rounds);
    a.wait_in_sync();
    b.wait_in_sync();
    stop.store(true, Ordering::Release);
    assert!(writer.join().is_ok(), "the writer saw an error");

    a.must(&Request::Demote { volume: "v".into() });
    let (one, two) = (
        fs::read(dir.path().join("alpha.img")).unwrap(),
        fs::read(dir.path().join("beta.img")).unwrap(),
    );
    let differs = one.chunks(4096).zip(two.chunks(4096)).position(|(x, y)| x != y);
    assert_eq!(differs, None, "replicas differ");
    b.wait("no primary", |s| !s.peers[0].primary);
    b.must(&Request::Promote { volume: "v".into(), lost: vec![] });
    b.must(&Request::Demote { volume: "v".into() });
    for daemon in [&a, &b] {
        daemon.must(&Request::Down { volume: "v".into() });
        daemon.must(&Request::Undefine { volume: "v".into() });
    }
}
