//! The crm shell's configure text: reader, session, checks and the way back ([`show()`]).
//!
//! Codes: CRM0001-CRM0009 and CRM0023-CRM0028 the text itself, CRM0010-CRM0022 and CRM0031-CRM0032 what it means, CRM0040 YAML.

mod catalog;
mod complete;
mod diagnostic;
mod edit;
pub(crate) mod known;
mod lexer;
pub(crate) mod loops;
mod nearest;
pub(crate) mod parser;
mod session;
pub(crate) mod show;
mod size;
mod statement;
#[cfg(test)]
mod tests;
mod validate;

pub use catalog::{AgentCatalog, AgentInfo, ListedAgents, resolve};
pub use complete::complete;
pub use diagnostic::{Diagnostic, Place, Severity, Spans};
pub use nearest::nearest;
pub use session::{Event, Session};
pub use show::{objects, show, show_object};
pub use size::{parse_size, show_size};
pub use statement::{
    BundleStatement, CloneStatement, GroupStatement, ModgroupStatement, Statement, StatementKind,
    Verb, VolumeStatement,
};
pub use validate::validate;

/// The first port that a volume gets when none is given.
pub const FIRST_VOLUME_PORT: u16 = 7789;

/// Reads a whole text: the statements that can be read, and what is wrong with the others.
#[must_use]
pub fn parse(file: &str, text: &str) -> (Vec<Statement>, Vec<Diagnostic>) {
    let mut lines = lexer::Lines::new(file);
    lines.push(text);
    let (mut statements, mut wrong) = (Vec::new(), Vec::new());
    while let Some(line) = lines.next().or_else(|| lines.finish()) {
        match lines.tokens(&line).and_then(|tokens| parser::statement(&tokens)) {
            Ok(statement) => statements.push(statement),
            Err(error) => wrong.push(*error),
        }
    }
    (statements, wrong)
}

/// Reads a whole text into a CIB, starting from `base`; verbs are refused.
///
/// # Errors
/// All that is wrong with the text.
pub fn read(file: &str, text: &str, session: &mut Session) -> Result<(), Vec<Diagnostic>> {
    session.feed(file, text);
    let mut wrong = Vec::new();
    while let Some(event) = session.next_event().or_else(|| session.end()) {
        match event {
            Event::Changed => {}
            Event::Refused(error) => wrong.push(*error),
            Event::Verb(verb) => wrong.push(
                *Diagnostic::error("CRM0002", &verb.place, format!("`{}` is a command", verb.name))
                    .helping("only statements can stand here"),
            ),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
