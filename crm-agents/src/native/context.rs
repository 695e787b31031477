//! What a native agent is told (the OCF environment) and how it answers.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "agents answer on stdout and stderr"
)]

use super::Agent;
use crm_core::status::rc;
use crm_proto::line::{CallError, Line};
use crm_proto::local::{self, Request};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Limit for talking to crmd.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Why an action did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// OCF exit code.
    pub(crate) code: i32,
    /// One clause.
    pub(crate) why: String,
}

impl Failure {
    pub(crate) fn new(code: i32, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    /// `ERR_GENERIC` with what was tried and the cause.
    pub(crate) fn io(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(rc::ERR_GENERIC, format!("{what}: {error}"))
    }
}

/// The environment of an action.
#[derive(Debug)]
pub(crate) struct Context {
    agent: &'static Agent,
    /// Resource id.
    pub(crate) instance: String,
    /// Directory for state that does not survive a reboot.
    pub(crate) run_dir: PathBuf,
    deadline: Instant,
}

impl Context {
    pub(crate) fn read(agent: &'static Agent) -> Result<Self, Failure> {
        let instance = std::env::var("OCF_RESOURCE_INSTANCE").unwrap_or_else(|_| "default".into());
        let run_dir = std::env::var_os("CRM_RUN_DIR")
            .map_or_else(|| PathBuf::from("/run/crm"), PathBuf::from);
        std::fs::create_dir_all(&run_dir)
            .map_err(|e| Failure::io(&format!("create {}", run_dir.display()), &e))?;
        let mut context = Self { agent, instance, run_dir, deadline: Instant::now() };
        let limit = context.meta("timeout").and_then(|t| t.parse().ok()).unwrap_or(20_000);
        context.deadline += Duration::from_millis(limit);
        Ok(context)
    }

    /// A parameter that is given and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        std::env::var(format!("OCF_RESKEY_{name}")).ok().filter(|v| !v.is_empty())
    }

    /// A parameter that must be given.
    pub(crate) fn need(&self, name: &str) -> Result<String, Failure> {
        self.get(name).ok_or_else(|| {
            Failure::new(rc::ERR_CONFIGURED, format!("parameter `{name}` is required"))
        })
    }

    /// A meta value (`CRM_meta_NAME`).
    pub(crate) fn meta(&self, name: &str) -> Option<String> {
        self.get(&format!("CRM_meta_{name}"))
    }

    /// Time left until the operation's time limit, less a margin for the answer.
    pub(crate) fn left(&self) -> Duration {
        let margin = Duration::from_millis(500);
        self.deadline.saturating_duration_since(Instant::now()).saturating_sub(margin)
    }

    /// Every required parameter is given.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for param in self.agent.params.iter().filter(|p| p.required) {
            self.need(param.name)?;
        }
        Ok(())
    }

    /// Sets the promotion score of this resource on this node, by crmd, or by a real Pacemaker where there is one.
    pub(crate) fn promotion_score(&self, score: Option<i32>) -> Result<(), Failure> {
        // Instances of an anonymous clone share the primitive's attribute.
        let primitive = self.instance.split(':').next().unwrap_or_default();
        let name = format!("master-{primitive}");
        let request = Request::SetAttr { name, value: score.map(|s| s.to_string()) };
        match Line::call::<_, local::Reply>(&local::socket_path(), Some(CALL_LIMIT), &request) {
            Ok(local::Reply::Refused { why, .. }) => {
                Err(Failure::new(rc::ERR_GENERIC, format!("set the promotion score: {why}")))
            }
            Ok(_) => Ok(()),
            // crmd has gone while this action runs: attributes are the session's, its successor probes and learns them anew.
            Err(CallError::Connect { .. }) if std::env::var_os("CRM_NODE").is_some() => Ok(()),
            Err(CallError::Connect { .. }) => {
                let score = score.map(|s| s.to_string());
                let args = match &score {
                    Some(score) => vec!["-l", "reboot", "-v", score],
                    None => vec!["-l", "reboot", "-D"],
                };
                let pacemaker = "/usr/sbin/crm_master";
                if std::path::Path::new(pacemaker).exists() {
                    crate::exec::call(pacemaker, &args)
                        .map_err(|e| Failure::io("set the promotion score", &e))?;
                }
                Ok(())
            }
            Err(error) => Err(Failure::io("set the promotion score", &error)),
        }
    }
}

/// The reason, in the form that Pacemaker and crmd pick up.
pub(crate) fn say(why: &str) {
    eprintln!("ocf-exit-reason:{}", why.replace('\n', "; "));
}

/// A remark for the log; no reason of a failure.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

pub(crate) fn print(text: &str) {
    print!("{text}");
}
