//! The top level: one command, a prompt, or a script of commands.

use crate::args::{Cmd, Format, PromptLine, StatusArgs, StatusWord};
use crate::configure::{Next, level};
use crate::fail::Fail;
use crate::source::{Input, Source};
use crate::status::json;
use crate::status::picture::Picture;
use crate::status::text::{Grouping, render};
use crate::{
    Shell, audit, cluster, configure, node, offline, resource, simulate, usage, volume, why,
};
use clap::{CommandFactory, Parser};
use crm_proto::local::{Reply, Request, StatusReply};
use std::path::Path;

/// Carries out one command.
pub(crate) fn command(shell: &mut Shell<'_>, command: Cmd) -> Result<(), Fail> {
    match command {
        Cmd::Status(args) => status(shell, &args),
        Cmd::Configure(args) => configure::run(shell, &args),
        Cmd::Node(command) => node::run(shell, command),
        Cmd::Resource(command) => resource::run(shell, command),
        Cmd::Volume(command) => volume::run(shell, command),
        Cmd::Disarm(args) => crate::admin::disarm(shell, args),
        Cmd::Arm => crate::admin::arm(shell),
        Cmd::Fence(command) => crate::fence::run(shell, command),
        Cmd::Cluster(command) => cluster::run(shell, command),
        Cmd::Apply(args) => offline::apply(shell, &args),
        Cmd::Export => offline::export(shell),
        Cmd::Diff { file } => offline::difference(shell, &file),
        Cmd::Lint { file } => offline::lint(shell, file),
        Cmd::Verify { file } => offline::verify(shell, file),
        Cmd::Why(args) => why::run(shell, &args),
        Cmd::Audit(args) => audit::run(shell, &args),
        Cmd::Log { version, output } => offline::log(shell, version, output),
        Cmd::Simulate(args) => simulate::run(shell, &args),
        Cmd::Monitor { output } => monitor(shell, output),
    }
}

fn status(shell: &mut Shell<'_>, args: &StatusArgs) -> Result<(), Fail> {
    let reply = shell.daemon.status()?;
    let by_node = args.by_node || args.words.contains(&StatusWord::Bynode);
    let grouping = if by_node { Grouping::ByNode } else { Grouping::ByResource };
    show(shell, &reply, grouping, args.output)
}

/// `status` inside a session.
pub(crate) fn print_status(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let reply = shell.daemon.status()?;
    show(shell, &reply, Grouping::ByResource, Format::Text)
}

fn show(
    shell: &mut Shell<'_>,
    reply: &StatusReply,
    grouping: Grouping,
    output: Format,
) -> Result<(), Fail> {
    let picture = Picture::new(reply);
    match output {
        Format::Json => shell.json(&json::render(&picture)),
        Format::Text => {
            let text = render(&picture, grouping, &shell.zone);
            shell.ui.data(&text);
            Ok(())
        }
    }
}

/// The status again after every change: redrawn on a terminal, else one after the other (JSON: one document a line).
fn monitor(shell: &mut Shell<'_>, output: Format) -> Result<(), Fail> {
    let terminal = shell.ui.out_is_terminal();
    let ui = &mut *shell.ui;
    let zone = &shell.zone;
    let mut refused = None;
    shell.daemon.stream(&Request::Watch, &mut |reply| {
        match reply {
            Reply::Status(reply) => {
                let picture = Picture::new(&reply);
                let text = match output {
                    Format::Json => json::render(&picture).to_string(),
                    Format::Text if terminal => {
                        // Home, the picture, then clear what is left below it.
                        let body = render(&picture, Grouping::ByResource, zone);
                        format!("\x1b[H{}\x1b[J", body.replace('\n', "\x1b[K\n"))
                    }
                    Format::Text => {
                        format!("{}\n", render(&picture, Grouping::ByResource, zone))
                    }
                };
                ui.data(&text);
            }
            Reply::Refused { why, remedy } => refused = Some(Fail::Refused { why, remedy }),
            Reply::Cib { .. }
            | Reply::Outcome(_)
            | Reply::Waited { .. }
            | Reply::Attr(_)
            | Reply::Token(_)
            | Reply::Revision(_)
            | Reply::Fenced(_)
            | Reply::Fencing { .. }
            | Reply::FenceAnswer(_)
            | Reply::Divergence(_)
            | Reply::Said(_)
            | Reply::Block(_) => {}
        }
        refused.is_none() && !ui.closed()
    })?;
    refused.map_or_else(
        || {
            if shell.ui.closed() {
                return Ok(());
            }
            Err(Fail::Broken(anyhow::anyhow!("crmd ended the stream (was it stopped?)")))
        },
        Err,
    )
}

/// Commands from a prompt, or from standard input when it is no terminal.
pub(crate) fn interactive(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let mut source = Source::stdin()?;
    lines(shell, &mut source)
}

/// Commands from a file.
pub(crate) fn script(shell: &mut Shell<'_>, path: &Path) -> Result<(), Fail> {
    let mut source = Source::file(path)?;
    lines(shell, &mut source)
}

/// Reads and carries out commands. A script ends at the first one that does not succeed.
pub(crate) fn lines(shell: &mut Shell<'_>, source: &mut Source) -> Result<(), Fail> {
    let prompt = if source.interactive() {
        format!("crm(live/{})# ", shell.daemon.status()?.me)
    } else {
        String::new()
    };
    loop {
        if source.interactive() {
            source.completes(commands(), Vec::new());
        }
        let line = match source.next(&prompt)? {
            Input::Line(line) => line,
            Input::Interrupted => continue,
            Input::End => return Ok(()),
        };
        let words = split(&line);
        let result = match words.first().map(String::as_str) {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some("quit" | "bye" | "exit") if words.len() == 1 => return Ok(()),
            Some("up" | "end" | "back" | "cd") if words.len() == 1 => continue,
            Some("configure") if words.len() == 1 => match level(shell, source) {
                Ok(Next::Quit) => return Ok(()),
                Ok(Next::Up | Next::Stay) => Ok(()),
                Err(fail) => Err(fail),
            },
            Some(_) => prompt_line(shell, &words),
        };
        if let Err(fail) = result {
            if !source.interactive() {
                let at = format!("{}:{}", source.name, source.lines);
                shell.ui.say(&fail.words());
                shell.ui.say(&format!("crm: stopped at {at}"));
                return Err(match fail {
                    Fail::Refused { .. } | Fail::Said => Fail::Said,
                    Fail::Broken(error) => Fail::Broken(error),
                });
            }
            shell.ui.say(&fail.words());
        }
    }
}

fn prompt_line(shell: &mut Shell<'_>, words: &[String]) -> Result<(), Fail> {
    let words =
        if words.first().is_some_and(|w| w == "help") { &["--help".to_owned()] } else { words };
    match PromptLine::try_parse_from(words) {
        Ok(line) => command(shell, line.command),
        Err(error) => match usage(shell, &error) {
            0 => Ok(()),
            _ => Err(Fail::Said),
        },
    }
}

/// What a line at the prompt may start with: the commands themselves.
fn commands() -> Vec<String> {
    let line = PromptLine::command();
    let mut words: Vec<String> = line.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    words.extend(["help".to_owned(), "quit".to_owned()]);
    words
}

/// Splits a line into words; quotes keep blanks together.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_keep_blanks_and_are_taken_off() {
        assert_eq!(
            split(r#"node  standby "al pha" x='' y\ z"#),
            ["node", "standby", "al pha", "x=", "y z"]
        );
        assert!(split("   ").is_empty());
    }
}
