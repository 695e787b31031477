//! `crm configure`: a session on a copy of the configuration, from a terminal, a file, standard input or the command line.
//!
//! An error poisons a session that nobody watches: `commit` then refuses, so nothing is ever half applied.

use crate::Shell;
use crate::args::ConfigureArgs;
use crate::commit::{Wanted, commit};
use crate::fail::Fail;
use crate::source::{Input, Source, read_text};
use crate::text_file;
use crm_core::cib::Cib;
use crm_core::text::{Event, Session, Verb, nearest, objects, show, show_object};
use std::path::Path;

/// What to do after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read on.
    Stay,
    /// Back to the level above.
    Up,
    /// Leave the program.
    Quit,
}

/// One run of the configure level.
pub(crate) struct Level {
    session: Session,
    /// Node name, for the prompt.
    me: String,
    /// A person types: errors are shown and forgotten.
    interactive: bool,
    /// Something was refused that the session itself does not know of.
    refused: usize,
    /// Lines fed to the session under the source's name (0 after another file was read).
    fed: usize,
    /// What the history says about a commit.
    message: String,
}

/// Carries out `crm configure ...`.
pub(crate) fn run(shell: &mut Shell<'_>, args: &ConfigureArgs) -> Result<(), Fail> {
    if args.words.first().is_some_and(|w| w == "show") && args.file.is_none() {
        let (_, cib) = shell.daemon.cib()?;
        let changed: &[String] = &[];
        return show_objects(shell, &cib, changed, args.words.get(1..).unwrap_or_default());
    }
    if !args.words.is_empty() {
        return one_shot(shell, &args.words);
    }
    let mut source = match &args.file {
        Some(path) => Source::file(path)?,
        None => Source::stdin()?,
    };
    level(shell, &mut source).map(|_| ())
}

/// Reads statements and commands from `source` until it ends or the level is left.
pub(crate) fn level(shell: &mut Shell<'_>, source: &mut Source) -> Result<Next, Fail> {
    let mut level = Level::open(shell, source.interactive(), "crm configure")?;
    let next = loop {
        let prompt = level.prompt();
        if level.interactive {
            source.completes(owned(FIRST), level.names());
        }
        match source.next(&prompt)? {
            Input::Line(line) => match level.line(shell, source, &line)? {
                Next::Stay => {}
                next => {
                    if level.may_leave(shell, source)? {
                        break next;
                    }
                }
            },
            Input::Interrupted => level.drop_begun_line(),
            Input::End => {
                level.end(shell)?;
                if level.may_leave(shell, source)? {
                    break Next::Quit;
                }
            }
        }
    };
    level.verdict()?;
    Ok(next)
}

/// One statement or command as words of the command line; a change is committed at once.
fn one_shot(shell: &mut Shell<'_>, words: &[String]) -> Result<(), Fail> {
    let message = words.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut level = Level::open(shell, false, &format!("crm configure {message}"))?;
    let line = match words {
        [single] => single.clone(),
        _ => words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" "),
    };
    let mut source = Source::text("<command line>", String::new());
    source.lines = 1;
    level.line(shell, &source, &line)?;
    level.end(shell)?;
    level.verdict()?;
    if level.session.dirty() {
        level.commit(shell)?;
    }
    level.verdict()
}

/// A word as the text reader reads it back: values with blanks, quotes or backslashes are quoted.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    match word.split_once('=') {
        Some((name, value)) if !name.is_empty() && name.chars().all(plain) => {
            format!("{name}=\"{}\"", escape(value))
        }
        _ => format!("\"{}\"", escape(word)),
    }
}

impl Level {
    fn open(shell: &mut Shell<'_>, interactive: bool, message: &str) -> Result<Self, Fail> {
        let me = if interactive { shell.daemon.status()?.me } else { String::new() };
        let (version, cib) = shell.daemon.cib()?;
        let session = Session::new(cib, version).with_catalog((shell.hooks.agent_catalog)());
        Ok(Self { session, me, interactive, refused: 0, fed: 0, message: message.to_owned() })
    }

    fn prompt(&self) -> String {
        if self.session.incomplete() {
            return "   > ".to_owned();
        }
        let dirty = if self.session.dirty() { "*" } else { "" };
        format!("crm(live/{})configure{dirty}# ", self.me)
    }

    /// Words that may follow a first one: keywords, ids, agents are too many.
    fn names(&self) -> Vec<String> {
        let mut names = owned(KEYWORDS);
        names.extend(objects(self.session.cib()).into_iter().map(|(name, _)| name));
        names
    }

    /// Takes in one line.
    fn line(&mut self, shell: &mut Shell<'_>, source: &Source, line: &str) -> Result<Next, Fail> {
        // Line numbers are those of the source, also when another file was read in between.
        let missing = source.lines.saturating_sub(1).saturating_sub(self.fed);
        self.session.feed(&source.name, &"\n".repeat(missing));
        self.session.feed(&source.name, &format!("{line}\n"));
        self.fed = source.lines.max(1);
        while let Some(event) = self.session.next_event() {
            let next = self.event(shell, event)?;
            if next != Next::Stay {
                return Ok(next);
            }
        }
        Ok(Next::Stay)
    }

    /// The input has ended: a statement that still waited for its next line is carried out.
    fn end(&mut self, shell: &mut Shell<'_>) -> Result<(), Fail> {
        while let Some(event) = self.session.end() {
            self.event(shell, event)?;
        }
        Ok(())
    }

    fn drop_begun_line(&mut self) {
        if self.session.incomplete() {
            // A name of its own makes the session drop what was begun; the next line restores the source's.
            self.session.feed("<dropped>", "\n");
            self.fed = 0;
        }
    }

    fn event(&mut self, shell: &mut Shell<'_>, event: Event) -> Result<Next, Fail> {
        match event {
            Event::Changed => Ok(Next::Stay),
            Event::Refused(error) => {
                shell.ui.say(&error.render());
                if self.interactive {
                    self.session.forgive();
                }
                Ok(Next::Stay)
            }
            Event::Verb(verb) => match self.verb(shell, &verb) {
                Ok(next) => Ok(next),
                Err(fail @ (Fail::Refused { .. } | Fail::Said)) => {
                    shell.ui.say(&fail.words());
                    if !self.interactive {
                        self.refused += 1;
                    }
                    Ok(Next::Stay)
                }
                Err(fail @ Fail::Broken(_)) => Err(fail),
            },
        }
    }

    /// Carries out a command of the session.
    fn verb(&mut self, shell: &mut Shell<'_>, verb: &Verb) -> Result<Next, Fail> {
        let words: Vec<&str> = verb.args.iter().map(String::as_str).collect();
        match verb.name.as_str() {
            "quit" | "bye" | "exit" => return Ok(Next::Quit),
            "end" | "up" | "back" | "cd" => return Ok(Next::Up),
            "show" => {
                let changed: Vec<String> =
                    crm_core::diff::diff(self.session.base(), self.session.cib())
                        .iter()
                        .map(|c| c.object().to_owned())
                        .collect();
                show_objects(shell, self.session.cib(), &changed, &verb.args)?;
            }
            "commit" => self.commit_verb(shell, &words)?,
            "verify" | "validate-all" => self.verify(shell)?,
            "lint" => crate::offline::print_lint(shell, self.session.cib()),
            "diff" => self.difference(shell),
            "plan" | "ptest" | "simulate" => {
                self.difference(shell);
                crate::preview::say(shell, self.session.cib())?;
            }
            "refresh" => self.refresh(shell)?,
            "erase" => {
                let nodes = self.session.cib().nodes.clone();
                let spans = crm_core::text::Spans::new();
                self.session.replace(Cib { nodes, ..Cib::default() }, spans);
            }
            "load" => self.load(shell, &words)?,
            "save" => self.save(shell, &words)?,
            "export" => shell.ui.data(&crm_core::yaml::to_yaml(self.session.cib())),
            "status" => crate::root::print_status(shell)?,
            "help" | "ls" => shell.ui.say(HELP),
            "configure" => {}
            name => {
                return Err(Fail::with_remedy(
                    format!("{}: `{name}` is not supported", verb.place),
                    "`help` lists what is; for `edit`: save FILE, edit it, load replace FILE",
                ));
            }
        }
        Ok(Next::Stay)
    }

    fn commit_verb(&mut self, shell: &mut Shell<'_>, words: &[&str]) -> Result<(), Fail> {
        match words {
            [] => self.commit(shell),
            _ => Err(Fail::with_remedy(
                format!("`commit {}` is not supported", words.join(" ")),
                "`commit` alone; when the configuration has changed meanwhile: `refresh`, and make the change again",
            )),
        }
    }

    fn commit(&mut self, shell: &mut Shell<'_>) -> Result<(), Fail> {
        let errors = self.session.errors().len() + self.refused;
        if errors > 0 {
            let plural = if errors == 1 { "" } else { "s" };
            return Err(Fail::with_remedy(
                format!("not committed: {errors} error{plural} above; nothing was changed"),
                "correct the text and run it again as a whole",
            ));
        }
        if !self.session.dirty() {
            shell.ui.say("nothing to commit");
            return Ok(());
        }
        let wanted = Wanted {
            base: self.session.base(),
            version: self.session.version(),
            cib: self.session.cib().clone(),
            spans: self.session.spans(),
            message: self.message.clone(),
        };
        let (cib, version) = commit(shell, wanted)?;
        self.session.committed(cib, version);
        Ok(())
    }

    fn verify(&mut self, shell: &mut Shell<'_>) -> Result<(), Fail> {
        if self.session.poisoned() || self.refused > 0 {
            return Err(Fail::refused("the session has errors (above)"));
        }
        let catalog = (shell.hooks.agent_catalog)();
        let found = self.session.validate(catalog.as_ref());
        for finding in &found {
            shell.ui.say(&finding.render());
        }
        let errors = found.iter().filter(|f| f.is_error()).count();
        if errors > 0 {
            return Err(Fail::refused(format!("{errors} error(s): it cannot be committed")));
        }
        shell.ui.say("the configuration is valid");
        Ok(())
    }

    fn difference(&self, shell: &mut Shell<'_>) {
        let changes = crm_core::diff::diff(self.session.base(), self.session.cib());
        if changes.is_empty() {
            shell.ui.say("no changes");
        }
        shell.ui.data(&crm_core::diff::render(&changes));
    }

    /// Drops the changes and starts again from the cluster's configuration of now.
    fn refresh(&mut self, shell: &mut Shell<'_>) -> Result<(), Fail> {
        let (version, cib) = shell.daemon.cib()?;
        self.session.refresh();
        self.session.committed(cib, version);
        self.refused = 0;
        Ok(())
    }

    fn load(&mut self, shell: &mut Shell<'_>, words: &[&str]) -> Result<(), Fail> {
        let (method, file) = match words {
            [method @ ("update" | "replace" | "push"), file] => (*method, *file),
            _ => {
                return Err(Fail::with_remedy(
                    format!("`load {}` is not understood", words.join(" ")),
                    "load update|replace FILE (`push` is `replace`)",
                ));
            }
        };
        let text = read_text(Path::new(file))?;
        let catalog = (shell.hooks.agent_catalog)();
        if method == "update" {
            text_file::load_update(file, &text, &mut self.session, catalog)?;
        } else {
            text_file::load_replace(file, &text, &mut self.session, catalog)?;
            let base = self.session.base().clone();
            let mut cib = self.session.cib().clone();
            text_file::fill_in(&base, &mut cib)?;
            let spans = self.session.spans().clone();
            self.session.replace(cib, spans);
        }
        Ok(())
    }

    fn save(&self, shell: &mut Shell<'_>, words: &[&str]) -> Result<(), Fail> {
        let Some((file, ids)) = words.split_last() else {
            return Err(Fail::with_remedy("`save` needs a file", "save [ID..] FILE"));
        };
        let cib = self.session.cib();
        let yaml = Path::new(file).extension().is_some_and(|e| e == "yaml" || e == "yml");
        let text = match (ids, yaml) {
            ([], true) => crm_core::yaml::to_yaml(cib),
            ([], false) => show(cib),
            (ids, _) => select(cib, ids.iter().copied())?,
        };
        if *file == "-" {
            shell.ui.data(&text);
            return Ok(());
        }
        std::fs::write(file, text)
            .map_err(|error| Fail::refused(format!("cannot write {file}: {error}")))
    }

    /// Changes that are not committed are not thrown away in silence.
    fn may_leave(&mut self, shell: &mut Shell<'_>, source: &mut Source) -> Result<bool, Fail> {
        let bad = self.session.poisoned() || self.refused > 0;
        if !self.session.dirty() || bad {
            return Ok(true);
        }
        if !self.interactive {
            self.refused += 1;
            shell.ui.say("crm: there are changes that were not committed; they are dropped\n  do this: end the text with `commit`");
            return Ok(true);
        }
        self.difference(shell);
        match source.next("commit these changes? (y/n/c) ")? {
            Input::Line(answer) if answer.trim().eq_ignore_ascii_case("y") => {
                match self.commit(shell) {
                    Ok(()) => Ok(true),
                    Err(fail @ Fail::Broken(_)) => Err(fail),
                    Err(fail) => {
                        shell.ui.say(&fail.words());
                        Ok(false)
                    }
                }
            }
            Input::Line(answer) => Ok(answer.trim().eq_ignore_ascii_case("n")),
            Input::Interrupted => Ok(false),
            Input::End => Ok(true),
        }
    }

    /// Whether something was refused on the way.
    fn verdict(&self) -> Result<(), Fail> {
        if self.session.poisoned() || self.refused > 0 { Err(Fail::Said) } else { Ok(()) }
    }
}

/// `show [ID.. | changed]`.
fn show_objects(
    shell: &mut Shell<'_>,
    cib: &Cib,
    changed: &[String],
    words: &[String],
) -> Result<(), Fail> {
    let text = match words {
        [] => show(cib),
        [word] if word == "changed" => {
            let there =
                changed.iter().map(String::as_str).filter(|id| show_object(cib, id).is_some());
            select(cib, there)?
        }
        [word, ..] if word == "xml" => {
            return Err(Fail::with_remedy(
                "`show xml` is not supported",
                "`crm export` prints YAML",
            ));
        }
        ids => select(cib, ids.iter().map(String::as_str))?,
    };
    shell.ui.data(&text);
    Ok(())
}

/// The statements of some objects, in the order asked for.
fn select<'i>(cib: &Cib, ids: impl Iterator<Item = &'i str>) -> Result<String, Fail> {
    let mut text = String::new();
    for id in ids {
        let Some(statement) = show_object(cib, id) else {
            let known: Vec<String> = objects(cib).into_iter().map(|(name, _)| name).collect();
            let remedy = nearest(id, known.iter().map(String::as_str))
                .map(|near| format!("did you mean `{near}`?"));
            return Err(Fail::with_remedy(
                format!("there is no object `{id}`"),
                remedy.unwrap_or_default(),
            ));
        };
        text.push_str(&statement);
        text.push('\n');
    }
    Ok(text)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// What a line may start with.
const FIRST: &[&str] = &[
    "clone",
    "colocation",
    "commit",
    "delete",
    "diff",
    "export",
    "group",
    "help",
    "lint",
    "load",
    "location",
    "modgroup",
    "monitor",
    "ms",
    "node",
    "op_defaults",
    "order",
    "plan",
    "primitive",
    "property",
    "quit",
    "refresh",
    "rename",
    "rsc_defaults",
    "save",
    "set",
    "show",
    "status",
    "up",
    "verify",
    "volume",
];

/// What may stand inside of a statement.
const KEYWORDS: &[&str] = &[
    "attributes",
    "changed",
    "inf:",
    "interval=",
    "meta",
    "op",
    "params",
    "replace",
    "timeout=",
    "update",
];

/// The level's words.
const HELP: &str = "\
statements  primitive group clone ms location colocation order property rsc_defaults op_defaults
            node volume monitor
edits       delete ID..  modgroup G add|remove P [after|before X]  rename OLD NEW  set ID.NAME VALUE
session     show [ID..|changed]  diff  verify  lint  commit  refresh  erase
            load update|replace FILE  save [ID..] FILE  export  status  up  quit";
