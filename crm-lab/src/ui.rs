//! The only place of the lab that prints: data and progress on standard output, refusals on standard error.

use std::io::{IsTerminal, Write};

/// A line of output. A reader that went away is no error of ours.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Text without a line end.
pub(crate) fn raw(text: &str) {
    let mut out = std::io::stdout();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// A line about what went wrong.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// A person watches.
pub(crate) fn terminal() -> bool {
    std::io::stdout().is_terminal()
}
