//! Where commands are read from: a terminal with line editing, a file, standard input.

use crate::fail::Fail;
use anyhow::Context;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context as LineContext, Editor, Helper};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

/// A line, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line without its line feed.
    Line(String),
    /// Ctrl-C: what was begun on this line is dropped.
    Interrupted,
    /// No more.
    End,
}

/// Where lines come from.
pub(crate) struct Source {
    /// Name for diagnostics.
    pub(crate) name: String,
    /// Lines read so far.
    pub(crate) lines: usize,
    from: From,
}

enum From {
    Terminal(Box<Editor<Words, DefaultHistory>>),
    Reader(Box<dyn BufRead>),
}

impl Source {
    /// Standard input: with line editing when both ends are terminals.
    pub(crate) fn stdin() -> Result<Self, Fail> {
        let from = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let mut editor = Editor::new().context("open the terminal")?;
            editor.set_helper(Some(Words::default()));
            From::Terminal(Box::new(editor))
        } else {
            From::Reader(Box::new(BufReader::new(std::io::stdin())))
        };
        Ok(Self { name: "<stdin>".to_owned(), lines: 0, from })
    }

    /// A file; `-` is standard input.
    pub(crate) fn file(path: &Path) -> Result<Self, Fail> {
        if path.as_os_str() == "-" {
            return Self::stdin();
        }
        let text = read_text(path)?;
        Ok(Self::text(&path.display().to_string(), text))
    }

    /// A text in memory.
    pub(crate) fn text(name: &str, text: String) -> Self {
        let reader = BufReader::new(std::io::Cursor::new(text));
        Self { name: name.to_owned(), lines: 0, from: From::Reader(Box::new(reader)) }
    }

    /// True when a person types.
    pub(crate) const fn interactive(&self) -> bool {
        matches!(self.from, From::Terminal(_))
    }

    /// What TAB completes to, from now on: words for the start of a line, and for the rest of it.
    pub(crate) fn completes(&mut self, first: Vec<String>, rest: Vec<String>) {
        if let From::Terminal(editor) = &mut self.from
            && let Some(words) = editor.helper_mut()
        {
            *words = Words { first, rest };
        }
    }

    /// The next line; `prompt` is shown on a terminal.
    pub(crate) fn next(&mut self, prompt: &str) -> Result<Input, Fail> {
        let input = match &mut self.from {
            From::Reader(reader) => {
                let mut line = String::new();
                let name = &self.name;
                let count = reader.read_line(&mut line).with_context(|| format!("read {name}"))?;
                if count == 0 {
                    Input::End
                } else {
                    let line = line.strip_suffix('\n').unwrap_or(&line);
                    Input::Line(line.strip_suffix('\r').unwrap_or(line).to_owned())
                }
            }
            From::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        editor.add_history_entry(&line).context("keep the history")?;
                    }
                    Input::Line(line)
                }
                Err(ReadlineError::Interrupted) => Input::Interrupted,
                Err(ReadlineError::Eof) => Input::End,
                Err(error) => {
                    return Err(anyhow::Error::new(error).context("read the terminal").into());
                }
            },
        };
        if matches!(input, Input::Line(_)) {
            self.lines += 1;
        }
        Ok(input)
    }
}

/// Completion by lists of words.
#[derive(Debug, Default)]
struct Words {
    first: Vec<String>,
    rest: Vec<String>,
}

impl Words {
    /// Where the word under the cursor starts, and what it may become.
    fn matching(&self, before: &str) -> (usize, Vec<String>) {
        let blank = |c: char| c.is_whitespace();
        let start = before.rfind(blank).map_or(0, |at| at + 1);
        let (head, word) = before.split_at_checked(start).unwrap_or((before, ""));
        let words = if head.trim().is_empty() { &self.first } else { &self.rest };
        (start, words.iter().filter(|w| w.starts_with(word)).map(|w| format!("{w} ")).collect())
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &LineContext<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.matching(line.get(..at).unwrap_or(line)))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

/// Reads a whole file of text; `-` is standard input. A missing file is a refusal, not a breakdown.
pub(crate) fn read_text(path: &Path) -> Result<String, Fail> {
    if path.as_os_str() == "-" {
        return Ok(std::io::read_to_string(std::io::stdin()).context("read standard input")?);
    }
    std::fs::read_to_string(path)
        .map_err(|error| Fail::refused(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn the_first_word_completes_to_commands_the_others_to_names() {
        let words = Words {
            first: vec!["primitive".to_owned(), "property".to_owned()],
            rest: vec!["ms_drbd_nfs".to_owned(), "meta".to_owned()],
        };
        assert_eq!(words.matching("pri"), (0, vec!["primitive ".to_owned()]));
        assert_eq!(words.matching("show ms"), (5, vec!["ms_drbd_nfs ".to_owned()]));
        assert_eq!(words.matching("show ").1.len(), 2);
    }
}
