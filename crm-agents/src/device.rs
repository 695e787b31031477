//! Operations of fencing devices as resources (what they mean: `crm_core::fencing::Operation`). Nothing runs between operations: a mark in
//! the run directory says that the device is started on this node, and is gone with the boot.

use crate::fence;
use crm_core::cib::parse_duration_ms;
use crm_core::fencing::{Call, Params, Verb};
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, rc};
use std::io;
use std::path::{Path, PathBuf};

type Result = (ExecStatus, i32, String);

fn mark(run_dir: &Path, resource: &str) -> PathBuf {
    // Instances of clones have a colon in their names; nothing else is possible in an id.
    run_dir.join("devices").join(resource.replace('/', "_"))
}

fn done(result: io::Result<()>) -> Result {
    match result {
        Ok(()) => (ExecStatus::Complete, rc::OK, String::new()),
        Err(error) => {
            (ExecStatus::Complete, rc::ERR_GENERIC, format!("mark of the device: {error}"))
        }
    }
}

/// Runs one operation of a device.
pub(crate) async fn run(run_dir: &Path, agent: &str, spec: &OpSpec) -> Result {
    let mark = mark(run_dir, &spec.resource);
    match (spec.op.as_str(), spec.interval_ms) {
        ("stop", _) => done(match std::fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }),
        ("monitor", 0) => match mark.try_exists() {
            Ok(false) => (ExecStatus::Complete, rc::NOT_RUNNING, String::new()),
            known => done(known.map(drop)),
        },
        ("start", _) => match check(agent, spec).await {
            (ExecStatus::Complete, rc::OK, _) => done(set(&mark)),
            failed => failed,
        },
        ("monitor", _) => check(agent, spec).await,
        (other, _) => {
            let text = format!("a fencing device has no operation {other}");
            (ExecStatus::Complete, rc::ERR_UNIMPLEMENTED, text)
        }
    }
}

fn set(mark: &Path) -> io::Result<()> {
    mark.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(mark, "")
}

/// Asks the agent whether the device is there.
async fn check(agent: &str, spec: &OpSpec) -> Result {
    if agent == fence::WATCHDOG {
        return done(Ok(()));
    }
    let installed = fence::path(&fence::dir(), agent).is_some_and(|path| path.is_file());
    if !installed {
        let text = format!("{} is not there", fence::dir().join(agent).display());
        return (ExecStatus::NotInstalled, rc::ERR_INSTALLED, text);
    }
    let params = Params(spec.params.clone());
    let limit = params.get("pcmk_monitor_timeout").and_then(parse_duration_ms);
    let word = params.get("pcmk_monitor_action").unwrap_or(Verb::Monitor.word());
    let call = Call {
        agent: agent.to_owned(),
        verb: Verb::Monitor,
        action: word.to_owned(),
        params: params.of_agent(),
        limit_ms: limit.unwrap_or(spec.timeout_ms).max(1),
    };
    let answer = fence::run(&fence::dir(), &call).await;
    match answer.exit {
        Some(0) => done(Ok(())),
        Some(_) => (ExecStatus::Complete, rc::ERR_GENERIC, answer.message),
        None => (ExecStatus::Timeout, rc::ERR_GENERIC, answer.message),
    }
}
