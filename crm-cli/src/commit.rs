//! Committing a wanted configuration: completed, checked, compared, all or nothing.

use crate::Shell;
use crate::fail::{Fail, version_of};
use crate::text_file::{fill_in, refuse};
use crm_core::cib::Cib;
use crm_core::diff;
use crm_core::lint::lint;
use crm_core::store::Outcome;
use crm_core::text::{Diagnostic, Spans, validate};
use crm_proto::local::Request;

/// What is to be committed.
pub(crate) struct Wanted<'a> {
    /// The configuration that it was made from.
    pub(crate) base: &'a Cib,
    /// Its version.
    pub(crate) version: u64,
    /// The new one.
    pub(crate) cib: Cib,
    /// Where its parts were written.
    pub(crate) spans: &'a Spans,
    /// Which command, for the history.
    pub(crate) message: String,
}

/// Checks and commits; what was committed and its version.
pub(crate) fn commit(shell: &mut Shell<'_>, wanted: Wanted<'_>) -> Result<(Cib, u64), Fail> {
    let Wanted { base, version, mut cib, spans, message } = wanted;
    fill_in(base, &mut cib)?;
    let (warnings, errors) = findings(shell, base, &cib, spans);
    for warning in &warnings {
        shell.ui.say(&warning.render());
    }
    if !errors.is_empty() {
        return Err(refuse(&errors));
    }
    brief_lint(shell, base, &cib);
    let request = Request::Commit { base: version, cib: Box::new(cib.clone()), message };
    match shell.daemon.change(&request)? {
        Outcome::Outdated { version: now } => Err(outdated(shell, base, version, now, &cib)?),
        outcome @ (Outcome::Done { .. } | Outcome::Refused { .. } | Outcome::Stale) => {
            let made = version_of(outcome)?;
            shell.ui.say(&format!("committed: version {made}"));
            Ok((cib, made))
        }
    }
}

/// Warnings and errors of a configuration, without those that the one in force has too.
pub(crate) fn findings(
    shell: &Shell<'_>,
    base: &Cib,
    cib: &Cib,
    spans: &Spans,
) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let catalog = (shell.hooks.agent_catalog)();
    let found = validate(cib, spans, catalog.as_ref());
    if found.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let before = validate(base, &Spans::new(), catalog.as_ref());
    let known = |d: &Diagnostic| before.iter().any(|b| b.code == d.code && b.message == d.message);
    found.into_iter().filter(|d| !known(d)).partition(|d| !d.is_error())
}

/// One line for each finding that this change brings.
fn brief_lint(shell: &mut Shell<'_>, base: &Cib, cib: &Cib) {
    let before = lint(base);
    let new: Vec<_> = lint(cib).into_iter().filter(|f| !before.contains(f)).collect();
    for finding in &new {
        shell.ui.say(&format!("warning[{}]: {}: {}", finding.code, finding.object, finding.text));
    }
    if !new.is_empty() {
        shell.ui.say("(`crm lint` tells the remedies)");
    }
}

/// The refusal of a commit that was made from an old version, with what has changed since.
fn outdated(
    shell: &mut Shell<'_>,
    base: &Cib,
    version: u64,
    now: u64,
    mine: &Cib,
) -> Result<Fail, Fail> {
    let (_, current) = shell.daemon.cib()?;
    let theirs = diff::render(&diff::diff(base, &current));
    let mine = diff::render(&diff::diff(base, mine));
    Ok(Fail::with_remedy(
        format!(
            "not committed: this was made from version {version}, the configuration is at version {now} now\n\
             changed meanwhile:\n{}\nyour change:\n{}",
            indented(&theirs),
            indented(&mine)
        ),
        "make the change again from the present version (in a session: `refresh`)",
    ))
}

fn indented(text: &str) -> String {
    if text.is_empty() {
        return "  (nothing that counts)".to_owned();
    }
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
