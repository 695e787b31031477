//! `fencing_topology`: levels for every node, or for named ones.

use super::{Cursor, Parsed, check_id, unexpected};
use crate::cib::{FencingRule, FencingTarget};
use crate::text::diagnostic::Diagnostic;
use crate::text::known::FENCING;
use crate::text::lexer::Token;
use crate::text::statement::StatementKind;

const EXPECTED: &str =
    "NODE:, pattern:REGEX or attr:NAME=VALUE, then levels, as in `alpha: ipmi pdu1,pdu2`";

/// `fencing_topology [TARGET] LEVEL.. [TARGET LEVEL..]..`; a level is `DEVICE[,DEVICE..]`.
pub(super) fn topology(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let mut rules: Vec<FencingRule> = Vec::new();
    let first = cursor.word(EXPECTED)?;
    cursor.mark(FENCING, "", first.place.clone());
    let mut next = Some(first);
    while let Some(token) = next {
        if let Some(target) = target(token)? {
            levels_given(rules.last(), token)?;
            if rules.iter().any(|rule| rule.target == target) {
                let message = format!("`{}` has levels twice", token.text);
                return Err(Diagnostic::error("CRM0023", &token.place, message)
                    .helping("write all levels of a target behind it, in one row"));
            }
            match &target {
                FencingTarget::Node(name) => {
                    cursor.mark(FENCING, format!("node/{name}"), token.place.clone());
                }
                FencingTarget::Pattern(regex) => {
                    cursor.mark(FENCING, format!("pattern/{regex}"), token.place.clone());
                }
                FencingTarget::Every | FencingTarget::Attribute { .. } => {}
            }
            rules.push(FencingRule { target, levels: Vec::new() });
        } else {
            let level = level(cursor, token)?;
            match rules.last_mut() {
                Some(rule) => rule.levels.push(level),
                None => {
                    let target = FencingTarget::Every;
                    rules.push(FencingRule { target, levels: vec![level] });
                }
            }
        }
        next = cursor.next();
    }
    if rules.last().is_none_or(|rule| rule.levels.is_empty()) {
        cursor.word("a level: DEVICE or DEVICE,DEVICE")?;
    }
    Ok(StatementKind::Fencing(rules))
}

fn levels_given(last: Option<&FencingRule>, token: &Token) -> Parsed<()> {
    match last {
        Some(rule) if rule.levels.is_empty() => {
            Err(unexpected(token, "a level of the target before it: DEVICE or DEVICE,DEVICE"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The target that a word is, if it is one.
fn target(token: &Token) -> Parsed<Option<FencingTarget>> {
    let text = token.text.as_str();
    if let Some(regex) = text.strip_prefix("pattern:").filter(|rest| !rest.is_empty()) {
        return Ok(Some(FencingTarget::Pattern(regex.to_owned())));
    }
    if let Some(pair) = text.strip_prefix("attr:").filter(|rest| !rest.is_empty()) {
        let (name, value) =
            pair.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Diagnostic::error("CRM0009", &token.place, format!("`{text}` is no attribute"))
                    .expecting("attr:NAME=VALUE")
            })?;
        let (name, value) = (name.to_owned(), value.to_owned());
        return Ok(Some(FencingTarget::Attribute { name, value }));
    }
    Ok(text.strip_suffix(':').map(|name| FencingTarget::Node(name.to_owned())))
}

fn level(cursor: &mut Cursor<'_>, token: &Token) -> Parsed<Vec<String>> {
    let mut out = Vec::new();
    for id in token.text.split(',') {
        check_id(id, token)?;
        cursor.mark(FENCING, format!("ref/{id}"), token.place.clone());
        out.push(id.to_owned());
    }
    Ok(out)
}
