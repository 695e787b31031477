//! `Dummy` and `Stateful`: agents that only remember their state, for tests and examples.

use super::context::{Context, Failure};
use super::{Action, Agent, Param, param};
use crm_core::status::rc;
use std::path::PathBuf;

const PARAMS: &[Param] = &[
    param("state", false, "File that holds the state; default below the run directory"),
    param("fake", false, "Not used; changing it reloads"),
];

/// Runs or does not run.
pub(super) static DUMMY: Agent = Agent {
    name: "Dummy",
    about: "Keeps a state file: running while it is there",
    promotable: false,
    migratable: true,
    params: PARAMS,
    run,
};

/// Can also be promoted.
pub(super) static STATEFUL: Agent = Agent {
    name: "Stateful",
    about: "Keeps a state file: unpromoted or promoted as it says",
    promotable: true,
    migratable: false,
    params: PARAMS,
    run,
};

fn file(context: &Context) -> PathBuf {
    context.get("state").map_or_else(
        || context.run_dir.join("rsctmp").join(format!("native-{}.state", context.instance)),
        PathBuf::from,
    )
}

fn write(context: &Context, state: &str) -> Result<(), Failure> {
    let path = file(context);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| Failure::io("create the state directory", &e))?;
    }
    std::fs::write(&path, state).map_err(|e| Failure::io("write the state", &e))
}

fn read(context: &Context) -> Option<String> {
    std::fs::read_to_string(file(context)).ok()
}

fn score(context: &Context, promoted: bool) -> Result<(), Failure> {
    if std::env::var("OCF_RESOURCE_TYPE").is_ok_and(|t| t == "Stateful") {
        context.promotion_score(Some(if promoted { 10 } else { 5 }))?;
    }
    Ok(())
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let state = read(context);
    match action {
        Action::Start => {
            if state.is_none() {
                write(context, "unpromoted")?;
            }
            score(context, false)?;
            Ok(rc::OK)
        }
        Action::Stop => {
            if state.is_some() {
                std::fs::remove_file(file(context))
                    .map_err(|e| Failure::io("remove the state", &e))?;
            }
            if std::env::var("OCF_RESOURCE_TYPE").is_ok_and(|t| t == "Stateful") {
                context.promotion_score(None)?;
            }
            Ok(rc::OK)
        }
        Action::Promote | Action::Demote if state.is_none() => Ok(rc::NOT_RUNNING),
        Action::Promote => {
            write(context, "promoted")?;
            score(context, true)?;
            Ok(rc::OK)
        }
        Action::Demote => {
            write(context, "unpromoted")?;
            score(context, false)?;
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify => Ok(match state.as_deref() {
            None => rc::NOT_RUNNING,
            Some("promoted") => rc::RUNNING_PROMOTED,
            Some(_) => rc::OK,
        }),
    }
}
