//! How a command ends when it does not succeed: refused (exit code 1) or broken (exit code 2).

use crm_core::store::Outcome;
use crm_proto::line::CallError;
use std::fmt::Write as _;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fail {
    /// Refused: bad input, or not possible now. Nothing was changed.
    #[error("{why}")]
    Refused {
        /// Why, in words; may be several lines (diagnostics).
        why: String,
        /// What to do, if something is known.
        remedy: String,
    },
    /// Everything has been said already; only the exit code is left.
    #[error("refused")]
    Said,
    /// Something outside did not work.
    #[error("{0:#}")]
    Broken(#[from] anyhow::Error),
}

impl Fail {
    /// A refusal without a remedy.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), remedy: String::new() }
    }

    /// A refusal with a remedy.
    pub(crate) fn with_remedy(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), remedy: remedy.into() }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Said => 1,
            Self::Broken(_) => 2,
        }
    }

    /// The words for standard error.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Said => String::new(),
            Self::Refused { why, remedy } => {
                let mut text = format!("crm: {why}");
                if !remedy.is_empty() {
                    let _infallible = write!(text, "\n  do this: {remedy}");
                }
                text
            }
            Self::Broken(error) => format!("crm: {error:#}"),
        }
    }
}

impl From<CallError> for Fail {
    fn from(error: CallError) -> Self {
        let connect = matches!(error, CallError::Connect { .. });
        let error = anyhow::Error::new(error);
        Self::Broken(if connect {
            error.context(
                "no answer from crmd on this node (is `crm daemon` running, are you root?)",
            )
        } else {
            error
        })
    }
}

/// The version that a change made, or why it was not made.
pub(crate) fn version_of(outcome: Outcome) -> Result<u64, Fail> {
    match outcome {
        Outcome::Done { version } => Ok(version),
        Outcome::Outdated { version } => Err(Fail::with_remedy(
            format!("the configuration has changed meanwhile (it is at version {version} now)"),
            "run the command again",
        )),
        Outcome::Refused { why } => Err(Fail::refused(why)),
        Outcome::Stale => Err(Fail::refused("the change was overtaken by a newer one")),
    }
}
