//! Commands that read: `apply`, `export`, `diff`, `lint`, `verify`, `log`.

use crate::Shell;
use crate::args::{ApplyArgs, Format};
use crate::commit::{Wanted, commit, findings};
use crate::fail::Fail;
use crate::node::idle;
use crate::status::clock;
use crate::text_file::{refuse, whole};
use crate::ui::table;
use crm_core::cib::Cib;
use crm_core::diff::{diff, render};
use crm_core::text::{Spans, show, validate};
use std::path::{Path, PathBuf};

/// `crm apply`: the configuration becomes what the file says.
pub(crate) fn apply(shell: &mut Shell<'_>, args: &ApplyArgs) -> Result<(), Fail> {
    let (version, base) = shell.daemon.cib()?;
    let (cib, spans) = whole(shell, &args.file, &base, version)?;
    let changes = diff(&base, &cib);
    shell.ui.data(&render(&changes));
    if args.dry_run {
        let (warnings, errors) = findings(shell, &base, &cib, &spans);
        for warning in &warnings {
            shell.ui.say(&warning.render());
        }
        if !errors.is_empty() {
            return Err(refuse(&errors));
        }
        crate::preview::say(shell, &cib)?;
        shell.ui.say(&format!("{} change(s); nothing was changed (--dry-run)", changes.len()));
        return Ok(());
    }
    if changes.is_empty() {
        shell.ui.say("nothing to change");
        return Ok(());
    }
    let message = format!("crm apply {}", args.file.display());
    let wanted = Wanted { base: &base, version, cib, spans: &spans, message };
    let (_, made) = commit(shell, wanted)?;
    if args.wait.wait {
        idle(shell, made, args.wait)?;
        shell.ui.say("the cluster is as the file says");
    }
    Ok(())
}

/// `crm export`.
pub(crate) fn export(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let (_, cib) = shell.daemon.cib()?;
    shell.ui.data(&crm_core::yaml::to_yaml(&cib));
    Ok(())
}

/// `crm diff FILE`.
pub(crate) fn difference(shell: &mut Shell<'_>, file: &Path) -> Result<(), Fail> {
    let (version, base) = shell.daemon.cib()?;
    let (cib, _) = whole(shell, file, &base, version)?;
    let changes = diff(&base, &cib);
    shell.ui.data(&render(&changes));
    if changes.is_empty() {
        shell.ui.say("no difference");
        return Ok(());
    }
    crate::preview::say(shell, &cib)
}

/// The configuration of the cluster, or of a file (which needs no cluster).
fn either(shell: &mut Shell<'_>, file: Option<PathBuf>) -> Result<(Cib, Spans), Fail> {
    match file {
        Some(file) => whole(shell, &file, &Cib::default(), 0),
        None => Ok((shell.daemon.cib()?.1, Spans::new())),
    }
}

/// `crm lint`.
pub(crate) fn lint(shell: &mut Shell<'_>, file: Option<PathBuf>) -> Result<(), Fail> {
    let (cib, _) = either(shell, file)?;
    print_lint(shell, &cib);
    Ok(())
}

/// Prints all findings.
pub(crate) fn print_lint(shell: &mut Shell<'_>, cib: &Cib) {
    let found = crm_core::lint::lint(cib);
    let text: String = found.iter().map(|f| format!("{f}\n")).collect();
    shell.ui.data(&text);
    shell.ui.say(&match found.len() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    });
}

/// `crm verify`.
pub(crate) fn verify(shell: &mut Shell<'_>, file: Option<PathBuf>) -> Result<(), Fail> {
    let (cib, spans) = either(shell, file)?;
    let catalog = (shell.hooks.agent_catalog)();
    let found = validate(&cib, &spans, catalog.as_ref());
    if found.iter().any(crm_core::text::Diagnostic::is_error) {
        return Err(refuse(&found));
    }
    for finding in &found {
        shell.ui.say(&finding.render());
    }
    shell.ui.say("the configuration is valid");
    Ok(())
}

/// `crm log [VERSION]`.
pub(crate) fn log(shell: &mut Shell<'_>, version: Option<u64>, output: Format) -> Result<(), Fail> {
    if let Some(version) = version {
        let Some(revision) = shell.daemon.revision(version)? else {
            return Err(Fail::refused(format!("version {version} is not kept (any more)")));
        };
        if output == Format::Json {
            return shell.json(&to_value(&revision)?);
        }
        shell.ui.data(&show(&revision.cib));
        return Ok(());
    }
    let (newest, _) = shell.daemon.cib()?;
    let oldest = newest.saturating_sub(crm_core::store::REVISIONS_KEPT as u64);
    let mut rows = vec![["VERSION", "WHEN", "WHO", "WHAT"].map(str::to_owned).to_vec()];
    let mut all = Vec::new();
    for version in (oldest..=newest).rev() {
        let Some(revision) = shell.daemon.revision(version)? else { continue };
        rows.push(vec![
            revision.version.to_string(),
            clock::sortable(revision.when_ms, &shell.zone),
            revision.author.clone(),
            revision.message.clone(),
        ]);
        all.push(serde_json::json!({
            "version": revision.version,
            "when_ms": revision.when_ms,
            "author": revision.author,
            "message": revision.message,
        }));
    }
    match output {
        Format::Json => shell.json(&serde_json::Value::Array(all)),
        Format::Text => {
            shell.ui.data(&table(&rows, ""));
            Ok(())
        }
    }
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, Fail> {
    serde_json::to_value(value)
        .map_err(|e| Fail::Broken(anyhow::Error::new(e).context("write JSON")))
}
