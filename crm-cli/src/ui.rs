//! The one place that writes to the terminal: data on standard output, words on standard error.

use std::io::{ErrorKind, IsTerminal, Write};

/// Where a text goes.
#[derive(Debug)]
enum Sink {
    /// The process's own standard output and error.
    Process,
    /// Kept in memory (tests).
    #[cfg(test)]
    Memory { out: String, err: String },
}

/// Output of the command.
#[derive(Debug)]
pub(crate) struct Ui {
    sink: Sink,
    /// First failure to write data; a reader that went away (`| head`) is none.
    broken: Option<std::io::Error>,
    /// The reader of standard output has gone.
    closed: bool,
}

impl Ui {
    /// Writes to the process's standard output and error.
    pub(crate) const fn process() -> Self {
        Self { sink: Sink::Process, broken: None, closed: false }
    }

    /// Keeps everything in memory.
    #[cfg(test)]
    pub(crate) const fn memory() -> Self {
        Self {
            sink: Sink::Memory { out: String::new(), err: String::new() },
            broken: None,
            closed: false,
        }
    }

    /// What was written to memory so far: data and words.
    #[cfg(test)]
    pub(crate) fn taken(&mut self) -> (String, String) {
        match &mut self.sink {
            Sink::Process => (String::new(), String::new()),
            Sink::Memory { out, err } => (std::mem::take(out), std::mem::take(err)),
        }
    }

    /// Prints data; a missing final newline is added.
    pub(crate) fn data(&mut self, text: &str) {
        if text.is_empty() || self.closed {
            return;
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match &mut self.sink {
            Sink::Process => {
                let mut out = std::io::stdout().lock();
                let result = write!(out, "{text}{end}").and_then(|()| out.flush());
                if let Err(error) = result {
                    self.closed = true;
                    if error.kind() != ErrorKind::BrokenPipe {
                        self.broken = Some(error);
                    }
                }
            }
            #[cfg(test)]
            Sink::Memory { out, .. } => {
                out.push_str(text);
                out.push_str(end);
            }
        }
    }

    /// Prints words for a person.
    pub(crate) fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match &mut self.sink {
            Sink::Process => {
                if let Err(error) = write!(std::io::stderr().lock(), "{text}{end}") {
                    self.broken.get_or_insert(error);
                }
            }
            #[cfg(test)]
            Sink::Memory { err, .. } => {
                err.push_str(text);
                err.push_str(end);
            }
        }
    }

    /// True when the reader of standard output has gone: a stream may end.
    pub(crate) const fn closed(&self) -> bool {
        self.closed
    }

    /// True when standard output is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        match &self.sink {
            Sink::Process => std::io::stdout().is_terminal(),
            #[cfg(test)]
            Sink::Memory { .. } => false,
        }
    }

    /// The first failure to write, if there was one.
    pub(crate) fn finish(self) -> Result<(), std::io::Error> {
        self.broken.map_or(Ok(()), Err)
    }
}

/// Lays out rows as columns separated by two blanks; the first row is the head. No trailing blanks.
pub(crate) fn table(rows: &[Vec<String>], indent: &str) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let fill = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', fill));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
