//! Debian's own agents and ours through the executor, for real: each test that needs root runs in namespaces of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "tests build their worlds with the tools of the system"
)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use crm_agents::exec::{self, Ended, Job};
use crm_agents::{Executor, ExecutorConfig};
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, OpResult, rc};
use crm_proto::local::{Reply, Request};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// True inside namespaces of our own. Outside: runs this very test inside them and checks that it passed.
fn inside(test: &str) -> bool {
    if std::env::var_os("CRM_TEST_INSIDE").is_some() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test} needs root");
        return false;
    }
    let me = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("CRM_TEST_INSIDE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespaces");
    false
}

fn sh(text: &str) -> String {
    let output = Command::new("sh").args(["-ec", text]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}: {err}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

struct World {
    dir: tempfile::TempDir,
    attrs: Arc<Mutex<BTreeMap<String, String>>>,
    loops: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        for device in &self.loops {
            if let Err(error) = Command::new("losetup").args(["-d", device]).status() {
                eprintln!("detach {device}: {error}");
            }
        }
    }
}

impl World {
    /// A run directory with a socket that keeps attributes as crmd would.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let attrs = Arc::new(Mutex::new(BTreeMap::new()));
        let listener = UnixListener::bind(dir.path().join("crmd.sock")).unwrap();
        let kept = Arc::clone(&attrs);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let reply = match serde_json::from_str(&line).unwrap() {
                    Request::SetAttr { name, value } => {
                        let mut attrs = kept.lock().unwrap();
                        match &value {
                            Some(value) => attrs.insert(name, value.clone()),
                            None => attrs.remove(&name),
                        };
                        Reply::Attr(value)
                    }
                    Request::GetAttr { name, .. } => {
                        Reply::Attr(kept.lock().unwrap().get(&name).cloned())
                    }
                    other => panic!("unexpected {other:?}"),
                };
                let mut text = serde_json::to_vec(&reply).unwrap();
                text.push(b'\n');
                (&stream).write_all(&text).unwrap();
            }
        });
        Self { dir, attrs, loops: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn executor(&self, native: bool) -> Executor {
        let me = std::env::current_exe().unwrap();
        let config = ExecutorConfig {
            node: "alpha".to_owned(),
            run_dir: self.dir.path().to_owned(),
            // Cargo builds examples beside the tests.
            self_exe: me.parent().unwrap().parent().unwrap().join("examples/agent"),
            prefer_native: native,
        };
        assert!(config.self_exe.exists(), "{} is not built", config.self_exe.display());
        Executor::new(config).unwrap()
    }

    fn loop_device(&mut self) -> String {
        let image = self.path("image").display().to_string();
        sh(&format!("truncate -s 64M {image} && mkfs.ext4 -q {image}"));
        let device = sh(&format!("losetup -f --show {image}"));
        self.loops.push(device.clone());
        device
    }

    fn score(&self, resource: &str) -> Option<String> {
        self.attrs.lock().unwrap().get(&format!("master-{resource}")).cloned()
    }
}

fn spec(agent: &str, op: &str, params: &[(&str, &str)]) -> OpSpec {
    OpSpec {
        node: "alpha".to_owned(),
        resource: "r1".to_owned(),
        agent: agent.to_owned(),
        op: op.to_owned(),
        interval_ms: 0,
        timeout_ms: 20_000,
        expected_rc: rc::OK,
        params: params.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        digest: 7,
    }
}

struct Resource<'a> {
    runtime: tokio::runtime::Runtime,
    executor: Executor,
    agent: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Resource<'a> {
    fn new(world: &World, native: bool, agent: &'a str, params: &[(&'a str, &'a str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, executor: world.executor(native), agent, params: params.to_vec() }
    }

    fn run(&self, op: &str) -> OpResult {
        self.runtime.block_on(self.executor.run(&spec(self.agent, op, &self.params), 1))
    }

    fn recurring(&self) -> OpResult {
        let mut spec = spec(self.agent, "monitor", &self.params);
        spec.interval_ms = 5000;
        self.runtime.block_on(self.executor.run(&spec, 1))
    }

    #[track_caller]
    fn expect(&self, op: &str, code: i32) -> OpResult {
        let result = self.run(op);
        assert_eq!((result.status, result.rc), (ExecStatus::Complete, code), "{op}: {result:?}");
        result
    }
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let job = Job {
        program: "/bin/sh".to_owned(),
        args: vec![
            "-c".to_owned(),
            "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000".to_owned(),
        ],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        leashed: false,
    };
    // On a busy machine the shell may not have come to its word in so short a time: then it gets longer.
    let (outcome, child, limit) = [300, 1_000, 3_000, 10_000]
        .into_iter()
        .find_map(|limit| {
            let limit = Duration::from_millis(limit);
            let outcome = runtime.block_on(exec::run(&job, limit));
            let child = outcome.stdout.trim().parse::<u32>().ok()?;
            Some((outcome, child, limit))
        })
        .unwrap();
    assert!(matches!(outcome.ended, Ended::Timeout), "after {limit:?}: {outcome:?}");
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "still there: {state}");
}

#[test]
fn a_daemon_left_behind_does_not_hold_the_operation() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let job = Job {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), "sleep 5 & echo started; exit 3".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        leashed: false,
    };
    let began = Instant::now();
    let outcome = runtime.block_on(exec::run(&job, Duration::from_secs(10)));
    assert!(matches!(outcome.ended, Ended::Exit(3)), "{outcome:?}");
    assert_eq!(outcome.stdout.trim(), "started");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_agent_that_is_not_there_is_not_installed() {
    let world = World::new();
    let resource = Resource::new(&world, true, "ocf:heartbeat:NoSuchThing", &[]);
    let result = resource.run("start");
    assert_eq!((result.status, result.rc), (ExecStatus::NotInstalled, rc::ERR_INSTALLED));
    assert!(result.reason.contains("NoSuchThing"), "{}", result.reason);
}

#[test]
fn a_volume_without_its_daemon_is_stopped() {
    if !inside("a_volume_without_its_daemon_is_stopped") {
        return;
    }
    sh("mount -t tmpfs none /run");
    let world = World::new();
    for agent in ["ocf:linbit:drbd", "ocf:crm:volume"] {
        let volume = Resource::new(&world, true, agent, &[("drbd_resource", "r0")]);
        volume.expect("monitor", rc::NOT_RUNNING);
        volume.expect("stop", rc::OK);
        let refused = volume.run("promote");
        assert_eq!(refused.rc, rc::ERR_GENERIC, "{refused:?}");
        assert!(refused.reason.contains("crm-blockd"), "{}", refused.reason);
    }
}

#[test]
fn dummies_start_and_stop() {
    let world = World::new();
    for (native, agent) in
        [(true, "ocf:heartbeat:Dummy"), (false, "ocf:heartbeat:Dummy"), (true, "ocf:crm:Dummy")]
    {
        if !native && !Path::new("/usr/lib/ocf/resource.d/heartbeat/Dummy").exists() {
            eprintln!("SKIPPED: Debian's Dummy is not installed");
            continue;
        }
        let dummy = Resource::new(&world, native, agent, &[]);
        dummy.expect("monitor", rc::NOT_RUNNING);
        let started = dummy.expect("start", rc::OK);
        assert_eq!((started.digest, started.reason.as_str()), (7, ""));
        dummy.expect("monitor", rc::OK);
        dummy.expect("stop", rc::OK);
        dummy.expect("stop", rc::OK);
        dummy.expect("monitor", rc::NOT_RUNNING);
    }
}

#[test]
fn stateful_agents_set_their_promotion_score() {
    if !inside("stateful_agents_set_their_promotion_score") {
        return;
    }
    for (native, scores) in [(true, ["5", "10"]), (false, ["5", "10"])] {
        let world = World::new();
        // The executor hands its own socket on to the tools.
        std::fs::create_dir_all("/run/crm").unwrap();
        sh(&format!(
            "mount -t tmpfs none /run && mkdir -p /run/crm && ln -s {} /run/crm/crmd.sock",
            world.path("crmd.sock").display()
        ));
        let stateful = Resource::new(&world, native, "ocf:pacemaker:Stateful", &[]);
        stateful.expect("monitor", rc::NOT_RUNNING);
        stateful.expect("start", rc::OK);
        assert_eq!(world.score("r1").as_deref(), Some(scores[0]), "native: {native}");
        stateful.expect("promote", rc::OK);
        stateful.expect("monitor", rc::RUNNING_PROMOTED);
        assert_eq!(world.score("r1").as_deref(), Some(scores[1]));
        stateful.expect("demote", rc::OK);
        stateful.expect("monitor", rc::OK);
        stateful.expect("stop", rc::OK);
        assert_eq!(world.score("r1"), None);
        sh("umount /run");
    }
}

#[test]
fn file_systems_are_mounted_watched_and_let_go() {
    if !inside("file_systems_are_mounted_watched_and_let_go") {
        return;
    }
    let mut world = World::new();
    let device = world.loop_device();
    let point = world.path("mnt").display().to_string();
    let params = [
        ("device", device.as_str()),
        ("directory", &point),
        ("fstype", "ext4"),
        ("options", "noatime"),
    ];
    for native in [true, false] {
        let fs = Resource::new(&world, native, "ocf:heartbeat:Filesystem", &params);
        fs.expect("monitor", rc::NOT_RUNNING);
        fs.expect("start", rc::OK);
        fs.expect("start", rc::OK);
        fs.expect("monitor", rc::OK);
        assert_eq!(fs.recurring().rc, rc::OK);
        assert!(sh("cat /proc/self/mounts").contains(&format!("{point} ext4 rw,noatime")));
        fs.expect("stop", rc::OK);
        fs.expect("stop", rc::OK);
        fs.expect("monitor", rc::NOT_RUNNING);
    }
}

#[test]
fn a_held_file_system_names_its_holder_or_ends_it() {
    if !inside("a_held_file_system_names_its_holder_or_ends_it") {
        return;
    }
    let mut world = World::new();
    let device = world.loop_device();
    let point = world.path("mnt").display().to_string();
    let params = [("device", device.as_str()), ("directory", &point), ("fstype", "ext4")];
    let gentle = [params.as_slice(), &[("force_unmount", "no")]].concat();
    let fs = Resource::new(&world, true, "ocf:crm:Filesystem", &params);
    let gentle = Resource::new(&world, true, "ocf:crm:Filesystem", &gentle);
    fs.expect("start", rc::OK);
    sh(&format!("mkdir {point}/sub && mount -t tmpfs none {point}/sub"));
    let mut holder = Command::new("sleep").arg("1000").current_dir(&point).spawn().unwrap();
    let file = std::fs::File::create(world.path("elsewhere")).unwrap();
    let refused = gentle.run("stop");
    assert_eq!(refused.rc, rc::ERR_GENERIC, "{refused:?}");
    assert!(refused.reason.contains("sleep"), "{}", refused.reason);
    let began = Instant::now();
    fs.expect("stop", rc::OK);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!holder.wait().unwrap().success());
    drop(file);
    // A file system that turned read-only is a failure.
    fs.expect("start", rc::OK);
    sh(&format!("mount -o remount,ro {point}"));
    let sick = fs.recurring();
    assert_eq!(sick.rc, rc::ERR_GENERIC, "{sick:?}");
    fs.expect("stop", rc::OK);
}

#[test]
fn addresses_come_and_go_and_are_announced() {
    if !inside("addresses_come_and_go_and_are_announced") {
        return;
    }
    sh(
        "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && ip addr add 10.9.0.1/24 dev v0 && ip addr add fd09::1/64 dev v0 nodad",
    );
    let world = World::new();
    let heard =
        || sh("ip -s link show v1 | awk '/RX:/ {getline; print $2}'").parse::<u32>().unwrap();
    for (native, ip) in [(true, "10.9.0.50"), (false, "10.9.0.51"), (true, "fd09::50")] {
        let address = Resource::new(&world, native, "ocf:heartbeat:IPaddr2", &[("ip", ip)]);
        address.expect("monitor", rc::NOT_RUNNING);
        let before = heard();
        address.expect("start", rc::OK);
        address.expect("start", rc::OK);
        assert!(sh("ip -o addr show v0").contains(&format!("{ip}/")), "{ip}");
        if native && ip.contains('.') {
            assert!(heard() >= before + 5, "announced: {before} -> {}", heard());
        }
        address.expect("monitor", rc::OK);
        address.expect("stop", rc::OK);
        address.expect("stop", rc::OK);
        address.expect("monitor", rc::NOT_RUNNING);
    }
    let nowhere = Resource::new(&world, true, "ocf:heartbeat:IPaddr2", &[("ip", "172.31.0.1")]);
    let refused = nowhere.run("start");
    assert_eq!(refused.rc, rc::ERR_INSTALLED);
    assert!(refused.reason.contains("nic"), "{}", refused.reason);
}

#[test]
fn clients_hear_at_once_that_a_service_address_has_left() {
    if !inside("clients_hear_at_once_that_a_service_address_has_left") {
        return;
    }
    sh("mount -t tmpfs none /run && ip netns add far && ip link set lo up");
    sh("ip link add v0 type veth peer name v1 netns far");
    sh("ip addr add 10.9.0.1/24 dev v0 && ip link set v0 up");
    sh("ip -n far addr add 10.9.0.2/24 dev v1 && ip -n far link set v1 up");
    let world = World::new();
    let ip = ("ip", "10.9.0.60");
    let address = Resource::new(&world, true, "ocf:heartbeat:IPaddr2", &[ip]);
    address.expect("start", rc::OK);
    let listener = std::net::TcpListener::bind("0.0.0.0:7000").unwrap();
    let client = Command::new("ip")
        .args(["netns", "exec", "far", "bash", "-c"])
        .arg("exec 3<>/dev/tcp/10.9.0.60/7000; read -t 10 -u 3; echo ended with $?")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (connection, _) = listener.accept().unwrap();
    address.expect("stop", rc::OK);
    let start = Instant::now();
    // 1: the end of the stream or an error; more than 128: nothing within its 10 s.
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ended with 1\n");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(connection);
    assert!(!sh("ip -o addr show v0").contains("10.9.0.60/"));
    address.expect("start", rc::OK);
    sh("ip netns exec far bash -c 'exec 3<>/dev/tcp/10.9.0.60/7000'");
    address.expect("stop", rc::OK);
}

/// ONC RPC NULL call; true when the answer belongs to it.
fn null_call(port: u16, program: u32, version: u32) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut call = 0x8000_0028_u32.to_be_bytes().to_vec();
    call.extend(
        [77, 0, 2, program, version, 0, 0, 0, 0, 0].iter().flat_map(|w: &u32| w.to_be_bytes()),
    );
    stream.write_all(&call).unwrap();
    let mut reply = [0; 28];
    // Accepted, and executed.
    stream.read_exact(&mut reply).is_ok() && reply[4..8] == [0, 0, 0, 77] && reply[24..28] == [0; 4]
}

#[test]
fn nfs_serves_exports_and_lets_go_of_the_file_system() {
    if !inside("nfs_serves_exports_and_lets_go_of_the_file_system") {
        return;
    }
    if !Path::new("/usr/bin/ganesha.nfsd").exists() {
        eprintln!("SKIPPED: nfs-ganesha is not installed");
        return;
    }
    sh(
        "ip link set lo up && mount -t tmpfs none /run && mkdir -p /srv && printf '/srv *(rw,no_root_squash,insecure)\\n' > /run/exports && touch /etc/exports && mount --bind /run/exports /etc/exports",
    );
    let mut world = World::new();
    let device = world.loop_device();
    let fs = Resource::new(
        &world,
        true,
        "ocf:heartbeat:Filesystem",
        &[("device", &device), ("directory", "/srv"), ("fstype", "ext4")],
    );
    let nfs = Resource::new(
        &world,
        true,
        "ocf:heartbeat:nfsserver",
        &[
            ("nfs_shared_infodir", "/srv/nfs_shared"),
            ("nfs_init_script", "/etc/init.d/nfs-kernel-server"),
            ("nfs_ip", "nfs.mydomain.com"),
        ],
    );
    let share = Resource::new(
        &world,
        true,
        "ocf:heartbeat:exportfs",
        &[
            ("directory", "/srv/sub"),
            ("clientspec", "*"),
            ("options", "rw,no_root_squash"),
            ("fsid", "42"),
        ],
    );
    fs.expect("start", rc::OK);
    sh("mkdir /srv/sub && echo hello > /srv/sub/file");
    nfs.expect("monitor", rc::NOT_RUNNING);
    let began = Instant::now();
    nfs.expect("start", rc::OK);
    eprintln!("nfsserver start took {:?}", began.elapsed());
    assert!(
        null_call(2049, 100_003, 3) && null_call(2049, 100_003, 4) && null_call(20_048, 100_005, 3)
    );
    assert_eq!(nfs.recurring().rc, rc::OK);
    share.expect("monitor", rc::NOT_RUNNING);
    share.expect("start", rc::OK);
    share.expect("monitor", rc::OK);
    a_client_lists_both_exports();
    share.expect("stop", rc::OK);
    share.expect("monitor", rc::NOT_RUNNING);
    let killed = sh(&format!("cat {}", world.path("ganesha/pid").display()));
    sh(&format!("kill -9 {killed}"));
    wait_until(|| nfs.recurring().rc == rc::NOT_RUNNING);
    nfs.expect("start", rc::OK);
    let began = Instant::now();
    nfs.expect("stop", rc::OK);
    fs.expect("stop", rc::OK);
    eprintln!("nfsserver and Filesystem stop took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2));
    nfs.expect("monitor", rc::NOT_RUNNING);
    assert!(!null_call(2049, 100_003, 3));
    assert_eq!(sh("pidof rpcbind ganesha.nfsd || true"), "", "left behind");
}

fn a_client_lists_both_exports() {
    let list = |url: &str| {
        Command::new("nfs-ls")
            .arg(url)
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    if list("nfs://127.0.0.1/").is_ok() {
        let listed = list("nfs://127.0.0.1/srv?nfsport=2049&mountport=20048&version=3").unwrap();
        assert!(listed.contains("sub"), "the export of /etc/exports: {listed}");
        wait_until(|| {
            list("nfs://127.0.0.1/srv/sub?nfsport=2049&mountport=20048&version=3")
                .unwrap()
                .contains("file")
        });
        assert!(list("nfs://127.0.0.1/srv?version=4").unwrap().contains("sub"));
    } else {
        eprintln!(
            "SKIPPED: nfs-ls (libnfs-utils) is not installed: exports not listed by a client"
        );
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "did not come about within 10 s");
    }
}
