//! Runs operations of agents: finds the agent, makes its environment, turns its end into an [`OpResult`].

use crate::device;
use crate::exec::{self, Ended, Job, Outcome};
use crate::native;
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, OpResult, rc};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where Debian's agents are.
const OCF_ROOT: &str = "/usr/lib/ocf";
/// Names that agents call back by; each becomes a link to this executable.
const SHIMS: &[&str] =
    &["crm_master", "crm_attribute", "attrd_updater", "crm_node", "crm_resource"];
/// A reason is cut to this many characters.
const REASON_MAX: usize = 300;

/// What an executor needs to know.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// This node's name.
    pub node: String,
    /// Directory for shims and agents' state.
    pub run_dir: PathBuf,
    /// The `crm` executable.
    pub self_exe: PathBuf,
    /// Our own agents answer to `ocf:heartbeat:{Filesystem,IPaddr2,nfsserver,exportfs,Dummy}` and `ocf:pacemaker:{Dummy,Stateful}`. A resource overrides it with `meta crm-native=true|false`.
    pub prefer_native: bool,
}

impl ExecutorConfig {
    /// The usual configuration; `CRM_NATIVE=0` in the daemon's environment prefers the agents that are installed.
    #[must_use]
    pub fn for_node(node: &str, run_dir: &Path) -> Self {
        Self {
            node: node.to_owned(),
            run_dir: run_dir.to_owned(),
            self_exe: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/crm")),
            prefer_native: std::env::var_os("CRM_NATIVE").is_none_or(|v| v != "0"),
        }
    }
}

/// The executor could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("make {path}")]
pub struct SetUpError {
    path: String,
    #[source]
    source: std::io::Error,
}

/// Runs operations.
#[derive(Debug)]
pub struct Executor {
    config: ExecutorConfig,
}

impl Executor {
    /// Makes the directory of shims.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(config: ExecutorConfig) -> Result<Self, SetUpError> {
        let bin = config.run_dir.join("bin");
        let fail = |path: &Path| {
            let path = path.display().to_string();
            move |source| SetUpError { path, source }
        };
        std::fs::create_dir_all(&bin).map_err(fail(&bin))?;
        for name in ["rsctmp", "varrun"] {
            let dir = config.run_dir.join(name);
            std::fs::create_dir_all(&dir).map_err(fail(&dir))?;
        }
        for name in SHIMS {
            let link = bin.join(name);
            if std::fs::read_link(&link).is_ok_and(|to| to == config.self_exe) {
                continue;
            }
            match std::fs::remove_file(&link) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(fail(&link)(source)),
            }
            std::os::unix::fs::symlink(&config.self_exe, &link).map_err(fail(&link))?;
        }
        Ok(Self { config })
    }

    /// Runs one operation to its end. Never fails as such: every way it can end is a result.
    pub async fn run(&self, spec: &OpSpec, call_id: u64) -> OpResult {
        let started = Instant::now();
        let limit = Duration::from_millis(spec.timeout_ms.max(1));
        let (status, code, reason) = match (spec.agent.strip_prefix("stonith:"), self.job(spec)) {
            (Some(agent), _) => device::run(&self.config.run_dir, agent, spec).await,
            (None, Ok(job)) => {
                let outcome = exec::run(&job, limit).await;
                judge(spec, outcome)
            }
            (None, Err(why)) => (ExecStatus::NotInstalled, rc::ERR_INSTALLED, why),
        };
        OpResult {
            resource: spec.resource.clone(),
            op: spec.op.clone(),
            interval_ms: spec.interval_ms,
            rc: code,
            expected_rc: spec.expected_rc,
            status,
            reason,
            digest: spec.digest,
            call_id,
            when_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|d| u64::try_from(d.as_millis()).ok())
                .unwrap_or(0),
            exec_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peer: spec.peer(),
        }
    }

    fn job(&self, spec: &OpSpec) -> Result<Job, String> {
        let mut parts = spec.agent.split(':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("ocf"), Some(provider), Some(kind)) => self.ocf(spec, provider, kind),
            (Some("systemd"), Some(unit), None) => Ok(systemd(spec, unit)),
            (Some("lsb"), Some(script), None) => Ok(lsb(spec, script)),
            _ => Err(format!("no way to run agents like {}", spec.agent)),
        }
    }

    fn ocf(&self, spec: &OpSpec, provider: &str, kind: &str) -> Result<Job, String> {
        let mut env = self.environment(spec, provider, kind);
        if let Some(name) = self.native_name(spec, provider, kind) {
            let program = self.config.self_exe.display().to_string();
            return Ok(Job {
                program,
                args: vec!["agent".to_owned(), name, spec.op.clone()],
                env,
                leashed: false,
            });
        }
        let script = format!("{OCF_ROOT}/resource.d/{provider}/{kind}");
        if !Path::new(&script).is_file() {
            return Err(format!("{script} is not there (agent {} not installed)", spec.agent));
        }
        env.insert("OCF_ROOT".to_owned(), OCF_ROOT.to_owned());
        Ok(Job { program: script, args: vec![spec.op.clone()], env, leashed: false })
    }

    /// The native agent that answers for `ocf:provider:kind` here, if one does.
    fn native_name(&self, spec: &OpSpec, provider: &str, kind: &str) -> Option<String> {
        let wanted = spec
            .params
            .get("CRM_meta_crm_native")
            .and_then(|v| crm_core::cib::parse_bool(v))
            .unwrap_or(self.config.prefer_native);
        let name = match (provider, kind) {
            ("crm", kind) => kind.to_owned(),
            ("linbit", "drbd") if !drbd_is_here() => "volume".to_owned(),
            ("heartbeat", "Filesystem" | "nfsserver" | "exportfs" | "Dummy") if wanted => {
                kind.to_owned()
            }
            ("heartbeat", "IPaddr2") if wanted => "VIP".to_owned(),
            ("pacemaker", "Dummy" | "Stateful") if wanted => kind.to_owned(),
            _ => return None,
        };
        native::exists(&name).then(|| format!("ocf:crm:{name}"))
    }

    fn environment(&self, spec: &OpSpec, provider: &str, kind: &str) -> BTreeMap<String, String> {
        let run_dir = self.config.run_dir.display();
        let bin = format!("{run_dir}/bin");
        let mut env = BTreeMap::new();
        let mut put = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        put("PATH", &format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"));
        put("LC_ALL", "C");
        put("HOME", "/root");
        put("HA_SBIN_DIR", &bin);
        put("HA_RSCTMP", &format!("{run_dir}/rsctmp"));
        put("HA_VARRUN", &format!("{run_dir}/varrun"));
        put("HA_LOGTAG", &format!("{}({})", kind, spec.resource));
        put("HA_debug", "0");
        put("OCF_ROOT", OCF_ROOT);
        put("OCF_RA_VERSION_MAJOR", "1");
        put("OCF_RA_VERSION_MINOR", "1");
        put("OCF_RESOURCE_INSTANCE", &spec.resource);
        put("OCF_RESOURCE_PROVIDER", provider);
        put("OCF_RESOURCE_TYPE", kind);
        put("OCF_RESKEY_crm_feature_set", "3.16.2");
        put("OCF_EXIT_REASON_PREFIX", "ocf-exit-reason:");
        put("OCF_RESKEY_CRM_meta_name", &spec.op);
        put("OCF_RESKEY_CRM_meta_interval", &spec.interval_ms.to_string());
        put("OCF_RESKEY_CRM_meta_timeout", &spec.timeout_ms.to_string());
        put("OCF_RESKEY_CRM_meta_on_node", &self.config.node);
        put("CRM_NODE", &self.config.node);
        put("CRM_RUN_DIR", &run_dir.to_string());
        for name in ["CRM_SOCKET", "CRM_BLOCKD_SOCKET", "CRM_DATA_DIR"] {
            if let Ok(value) = std::env::var(name) {
                put(name, &value);
            }
        }
        for (name, value) in &spec.params {
            put(&format!("OCF_RESKEY_{name}"), value);
            if matches!(name.as_str(), "OCF_CHECK_LEVEL" | "CRM_meta_OCF_CHECK_LEVEL") {
                put("OCF_CHECK_LEVEL", value);
            }
        }
        env
    }
}

fn drbd_is_here() -> bool {
    Path::new("/proc/drbd").exists()
        && Path::new(&format!("{OCF_ROOT}/resource.d/linbit/drbd")).exists()
}

fn plain_environment() -> BTreeMap<String, String> {
    let pairs = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
    pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn systemd(spec: &OpSpec, unit: &str) -> Job {
    let verb = match spec.op.as_str() {
        "monitor" => "is-active",
        other => other,
    };
    let args = vec![verb.to_owned(), "--quiet".to_owned(), unit.to_owned()];
    Job { program: "systemctl".to_owned(), args, env: plain_environment(), leashed: false }
}

fn lsb(spec: &OpSpec, script: &str) -> Job {
    let verb = if spec.op == "monitor" { "status" } else { spec.op.as_str() };
    let program = format!("/etc/init.d/{script}");
    Job { program, args: vec![verb.to_owned()], env: plain_environment(), leashed: false }
}

fn judge(spec: &OpSpec, outcome: Outcome) -> (ExecStatus, i32, String) {
    let words = reason(&outcome);
    match outcome.ended {
        Ended::Exit(code) => {
            // systemctl is-active and init scripts: 1 to 3 dead in some way, 4 not loaded.
            let dead = if spec.agent.starts_with("systemd:") { 1..=4 } else { 1..=3 };
            let foreign =
                !spec.agent.starts_with("ocf:") && spec.op == "monitor" && dead.contains(&code);
            let code = if foreign { rc::NOT_RUNNING } else { code };
            let quiet = code == spec.expected_rc;
            (ExecStatus::Complete, code, if quiet { String::new() } else { words })
        }
        Ended::Timeout => {
            let said = if words.is_empty() { String::new() } else { format!("; it said: {words}") };
            let text = format!("{} did not end within {} ms{said}", spec.op, spec.timeout_ms);
            (ExecStatus::Timeout, rc::ERR_GENERIC, text)
        }
        Ended::NotStarted(error) => {
            (ExecStatus::NotInstalled, rc::ERR_INSTALLED, format!("not started: {error}"))
        }
    }
}

/// The agent's own words: its exit reason, else its last line.
fn reason(outcome: &Outcome) -> String {
    let lines = || outcome.stderr.lines().rev().filter(|l| !l.trim().is_empty());
    let exit_reason = lines().find_map(|l| l.strip_prefix("ocf-exit-reason:"));
    let last = exit_reason
        .or_else(|| lines().next())
        .or_else(|| outcome.stdout.lines().rev().find(|l| !l.trim().is_empty()))
        .unwrap_or_default();
    last.trim().chars().take(REASON_MAX).collect()
}
