//! Where commands are read from: a terminal with line editing, a file, standard input.

use crate::fail::Fail;
use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
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
    Terminal(Box<DefaultEditor>),
    Reader(Box<dyn BufRead>),
}

impl Source {
    /// Standard input: with line editing when both ends are terminals.
    pub(crate) fn stdin() -> Result<Self, Fail> {
        let from = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            From::Terminal(Box::new(DefaultEditor::new().context("open the terminal")?))
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

/// Reads a whole file of text; `-` is standard input. A missing file is a refusal, not a breakdown.
pub(crate) fn read_text(path: &Path) -> Result<String, Fail> {
    if path.as_os_str() == "-" {
        return Ok(std::io::read_to_string(std::io::stdin()).context("read standard input")?);
    }
    std::fs::read_to_string(path)
        .map_err(|error| Fail::refused(format!("cannot read {}: {error}", path.display())))
}
