//! Tokens of one logical line to a [`Statement`]. Constraints are in `constraint`, our own statements and edits in `edits`.

mod bundle;
mod constraint;
mod edits;
mod fencing;

use super::diagnostic::{Diagnostic, Place};
use super::known;
use super::lexer::Token;
use super::nearest::nearest;
use super::statement::{CloneStatement, GroupStatement, Statement, StatementKind, Verb};
use crate::cib::{AgentName, Nv, NvSet, Op, Primitive, Score, Section as Layout};

pub(crate) use constraint::{action as constraint_action, order_kind, role as constraint_role};

pub(crate) type Parsed<T> = Result<T, Box<Diagnostic>>;

/// Reads one statement; `tokens` is not empty.
pub(crate) fn statement(tokens: &[Token]) -> Parsed<Statement> {
    let mut cursor = Cursor::new(tokens);
    let first = cursor.word("a statement")?.clone();
    if first.is("configure") && tokens.len() > 1 {
        return statement(&tokens[1..]);
    }
    let keyword = first.text.to_ascii_lowercase();
    let kind = match keyword.as_str() {
        "node" => node(&mut cursor)?,
        "primitive" => primitive(&mut cursor)?,
        "group" => group(&mut cursor)?,
        "clone" => clone(&mut cursor, false)?,
        "ms" | "master" => clone(&mut cursor, true)?,
        "bundle" => bundle::bundle(&mut cursor)?,
        "location" => StatementKind::Constraint(constraint::location(&mut cursor)?),
        "colocation" | "collocation" => {
            StatementKind::Constraint(constraint::colocation(&mut cursor)?)
        }
        "order" => StatementKind::Constraint(constraint::order(&mut cursor)?),
        "fencing_topology" | "fencing-topology" => fencing::topology(&mut cursor)?,
        "property" => StatementKind::Property(options(&mut cursor, "property:")?),
        "rsc_defaults" => StatementKind::RscDefaults(options(&mut cursor, "rsc_defaults:")?),
        "op_defaults" => StatementKind::OpDefaults(options(&mut cursor, "op_defaults:")?),
        "volume" => edits::volume(&mut cursor)?,
        "monitor" => edits::monitor(&mut cursor)?,
        "delete" | "rm" => edits::delete(&mut cursor)?,
        "modgroup" => edits::modgroup(&mut cursor)?,
        "rename" => edits::rename(&mut cursor)?,
        "set" => edits::set(&mut cursor)?,
        verb if known::VERBS.contains(&verb) => StatementKind::Verb(Verb {
            name: keyword.clone(),
            args: cursor.rest().iter().map(|t| t.text.clone()).collect(),
            place: first.place.clone(),
        }),
        other => return Err(unknown(&first, other)),
    };
    Ok(Statement { place: first.place, kind, marks: cursor.marks })
}

fn unknown(first: &Token, keyword: &str) -> Box<Diagnostic> {
    if let Some((name, help)) = known::UNSUPPORTED.iter().find(|(name, _)| *name == keyword) {
        return Diagnostic::error(
            "CRM0003",
            &first.place,
            format!("`{name}` is not supported yet"),
        )
        .helping(*help);
    }
    let all = known::STATEMENTS.iter().chain(known::VERBS).copied();
    let near = nearest(keyword, all);
    let error = Diagnostic::error(
        "CRM0002",
        &first.place,
        format!("there is no statement or command `{}`", first.text),
    );
    match near {
        Some(near) => error.suggesting(Some(near)),
        None => error.expecting(known::STATEMENTS.join(", ")),
    }
}

/// The tokens of a statement while they are read, and the places noted.
pub(crate) struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Object, part, place.
    pub marks: Vec<(String, String, Place)>,
}

impl<'a> Cursor<'a> {
    const fn new(tokens: &'a [Token]) -> Self {
        Self { tokens, at: 0, marks: Vec::new() }
    }

    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub(crate) fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// The tokens not read yet; marks them as read.
    pub(crate) fn rest(&mut self) -> &'a [Token] {
        let rest = &self.tokens[self.at..];
        self.at = self.tokens.len();
        rest
    }

    /// Just after the last token.
    pub(crate) fn end_place(&self) -> Place {
        let mut place = self.tokens[self.tokens.len() - 1].place.clone();
        place.column += place.length;
        place.length = 1;
        place
    }

    pub(crate) fn word(&mut self, expected: &str) -> Parsed<&'a Token> {
        self.next().ok_or_else(|| {
            Diagnostic::error("CRM0004", &self.end_place(), "the statement ends too early")
                .expecting(expected)
        })
    }

    pub(crate) fn mark(&mut self, object: &str, part: impl Into<String>, place: Place) {
        self.marks.push((object.to_owned(), part.into(), place));
    }

    pub(crate) fn end(&mut self, expected: &str) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(token) => Err(unexpected(token, expected)),
        }
    }

    /// An id of an object that is being defined.
    pub(crate) fn id(&mut self, what: &str) -> Parsed<String> {
        let token = self.word(&format!("the id of the {what}"))?;
        let id = token.text.strip_prefix("id=").unwrap_or(&token.text);
        check_id(id, token)?;
        self.mark(id, "", token.place.clone());
        Ok(id.to_owned())
    }

    /// A name of an existing object, without checking that it exists.
    pub(crate) fn reference(&mut self, what: &str) -> Parsed<(String, Place)> {
        let token = self.word(what)?;
        check_id(&token.text, token)?;
        Ok((token.text.clone(), token.place.clone()))
    }
}

pub(crate) fn unexpected(token: &Token, expected: &str) -> Box<Diagnostic> {
    Diagnostic::error("CRM0005", &token.place, format!("`{}` does not belong here", token.text))
        .expecting(expected)
}

pub(crate) fn unsupported(token: &Token, what: &str) -> Box<Diagnostic> {
    Diagnostic::error("CRM0026", &token.place, format!("{what} are not supported yet"))
}

/// True for an id: a letter or `_`, then letters, digits, `_`, `-`, `.`.
pub(crate) fn is_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && id.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

pub(crate) fn check_id(id: &str, token: &Token) -> Parsed<()> {
    if is_id(id) {
        return Ok(());
    }
    Err(Diagnostic::error("CRM0024", &token.place, format!("`{id}` is not an id"))
        .expecting("a letter or `_`, then letters, digits, `_`, `-` and `.`"))
}

/// `ocf:heartbeat:Dummy`, `systemd:nginx`, `Dummy`; the flag tells a bare type.
pub(crate) fn agent_name(text: &str) -> Option<(AgentName, bool)> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|p| p.is_empty() || p.contains(char::is_whitespace)) {
        return None;
    }
    let name = |class: &str, provider: Option<&str>, kind: &str| AgentName {
        class: class.to_owned(),
        provider: provider.map(str::to_owned),
        kind: kind.to_owned(),
    };
    match parts.as_slice() {
        [kind] if !kind.starts_with('@') => Some((name("ocf", Some("heartbeat"), kind), true)),
        [class, kind] if *class != "ocf" => Some((name(class, None, kind), false)),
        [class, provider, kind] if *class == "ocf" => {
            Some((name(class, Some(provider), kind), false))
        }
        // systemd units may have an instance with colons in it.
        [class, ..] if matches!(*class, "systemd" | "service") => {
            Some((name(class, None, text.split_once(':')?.1), false))
        }
        _ => None,
    }
}

/// Reads `NAME=VALUE` or `NAME`; `None` for what cannot be one.
fn pair(token: &Token) -> Parsed<Nv> {
    let (name, value) = match token.text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (token.text.as_str(), None),
    };
    if name.starts_with('$') || name.starts_with('@') {
        return Err(unsupported(token, "shared attribute sets (`$id-ref=`, `@id`, `$id:name=`)")
            .helping("write the attributes out"));
    }
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Diagnostic::error("CRM0009", &token.place, "there is no name before the `=`")
            .expecting("NAME=VALUE"));
    }
    Ok(Nv { name: name.to_owned(), value })
}

/// A word that starts another section or an attribute of the object.
fn is_section(token: &Token, sections: &[&str]) -> bool {
    sections.iter().any(|s| token.is(s))
}

/// Where the pairs of a section go and which words end it.
pub(crate) struct Section<'s> {
    object: &'s str,
    part: &'s str,
    ends: &'s [&'s str],
}

/// Reads the pairs of a section into `set`, up to the next section.
fn pairs(cursor: &mut Cursor<'_>, set: &mut NvSet, section: &Section<'_>) -> Parsed<()> {
    while let Some(token) = cursor.peek() {
        if is_section(token, section.ends) {
            return Ok(());
        }
        cursor.at += 1;
        if token.text.starts_with("$id=") {
            continue;
        }
        if token.is("rule") {
            return Err(unsupported(token, "rules").helping("use plain attributes"));
        }
        if Score::parse(token.text.trim_end_matches(':')).is_some() && token.text.ends_with(':') {
            return Err(unsupported(token, "scores of attribute sets"));
        }
        let nv = pair(token)?;
        add(cursor, set, nv, token, section)?;
    }
    Ok(())
}

fn add(
    cursor: &mut Cursor<'_>,
    set: &mut NvSet,
    nv: Nv,
    token: &Token,
    section: &Section<'_>,
) -> Parsed<()> {
    if set.pairs.iter().any(|p| p.name == nv.name) {
        return Err(Diagnostic::error(
            "CRM0023",
            &token.place,
            format!("`{}` is given twice in `{}`", nv.name, section.object.trim_end_matches(':')),
        )
        .helping("keep one of them"));
    }
    cursor.mark(section.object, format!("{}/{}", section.part, nv.name), token.place.clone());
    set.pairs.push(nv);
    Ok(())
}

fn node(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    const ENDS: &[&str] = &["attributes", "utilization"];
    let mut token = cursor.word("the node's name")?;
    let mut id = 0;
    let number =
        token.text.strip_prefix("$id=").or_else(|| token.text.strip_suffix(':')).map(str::to_owned);
    if let Some(number) = number {
        id = number.trim_matches('"').parse().map_err(|_| {
            Diagnostic::error("CRM0024", &token.place, format!("`{number}` is not a node number"))
                .expecting("a whole number, as in `node 1: alpha`")
        })?;
        token = cursor.word("the node's name")?;
    }
    let (name, kind) = match token.text.split_once(':') {
        Some((name, kind)) => (name, kind),
        None => (token.text.as_str(), "member"),
    };
    if !kind.eq_ignore_ascii_case("member") {
        return Err(unsupported(token, &format!("nodes of the type `{kind}`")));
    }
    if name.is_empty()
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    {
        return Err(Diagnostic::error(
            "CRM0024",
            &token.place,
            format!("`{name}` is no node name"),
        )
        .expecting("letters, digits, `-`, `_` and `.`"));
    }
    let object = format!("node:{name}");
    cursor.mark(&object, "", token.place.clone());
    let (mut attributes, mut utilization) = (NvSet::default(), NvSet::default());
    while let Some(section) = cursor.next() {
        if section.is("attributes") {
            let section = Section { object: &object, part: "attributes", ends: ENDS };
            pairs(cursor, &mut attributes, &section)?;
        } else if section.is("utilization") {
            let section = Section { object: &object, part: "utilization", ends: ENDS };
            pairs(cursor, &mut utilization, &section)?;
        } else if section.text.starts_with("description=") {
            return Err(unsupported(section, "descriptions of nodes"));
        } else {
            return Err(unexpected(
                section,
                "`attributes` or `utilization`, then `NAME=VALUE ...`",
            ));
        }
    }
    Ok(StatementKind::Node { id, name: name.to_owned(), attributes, utilization })
}

const PRIMITIVE_ENDS: &[&str] =
    &["params", "meta", "utilization", "operations", "op", "op_params", "op_meta"];

fn primitive(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let id = cursor.id("primitive")?;
    let agent_token = cursor.word("an agent, as in `ocf:heartbeat:Filesystem`")?;
    if agent_token.text.starts_with('@') {
        return Err(unsupported(agent_token, "templates"));
    }
    let (agent, bare) = agent_name(&agent_token.text).ok_or_else(|| {
        let text = format!("`{}` is not the name of an agent", agent_token.text);
        Diagnostic::error("CRM0014", &agent_token.place, text)
            .expecting("TYPE, CLASS:TYPE or ocf:PROVIDER:TYPE")
    })?;
    cursor.mark(&id, "agent", agent_token.place.clone());
    let mut out = Primitive {
        id,
        agent,
        description: None,
        params: NvSet::default(),
        meta: NvSet::default(),
        utilization: NvSet::default(),
        ops: Vec::new(),
        layout: Vec::new(),
    };
    let mut written = Vec::new();
    while let Some(token) = cursor.next() {
        written.extend(primitive_part(cursor, &mut out, token)?);
    }
    out.set_layout(&written);
    Ok(StatementKind::Primitive(Box::new(out), bare))
}

/// Reads one part; which section it was, if it is one.
fn primitive_part(
    cursor: &mut Cursor<'_>,
    out: &mut Primitive,
    token: &Token,
) -> Parsed<Option<Layout>> {
    let object = out.id.clone();
    let section = |part| Section { object: &object, part, ends: PRIMITIVE_ENDS };
    match token.text.to_ascii_lowercase().as_str() {
        "params" => {
            pairs(cursor, &mut out.params, &section("params"))?;
            Ok((!out.params.is_empty()).then_some(Layout::Params))
        }
        "meta" => {
            pairs(cursor, &mut out.meta, &section("meta"))?;
            Ok((!out.meta.is_empty()).then_some(Layout::Meta))
        }
        "utilization" => {
            pairs(cursor, &mut out.utilization, &section("utilization"))?;
            Ok((!out.utilization.is_empty()).then_some(Layout::Utilization))
        }
        "op" => {
            let op = operation(cursor, &object, out.ops.len())?;
            out.ops.push(op);
            Ok(Some(Layout::Operations))
        }
        "operations" => {
            let set = cursor.word("`$id=ID`")?;
            if set.text.starts_with("$id=") {
                return Ok(None);
            }
            Err(unsupported(set, "shared operations (`$id-ref=`)"))
        }
        "op_params" | "op_meta" => Err(unexpected(token, "`op NAME` before it")),
        _ => match token.text.strip_prefix("description=") {
            Some(text) => {
                out.description = Some(text.to_owned());
                Ok(None)
            }
            None if token.text.contains('=') => {
                cursor.at -= 1;
                pairs(cursor, &mut out.params, &section("params"))?;
                Ok(Some(Layout::Params))
            }
            None => Err(primitive_word(token)),
        },
    }
}

fn primitive_word(token: &Token) -> Box<Diagnostic> {
    let word = token.text.to_ascii_lowercase();
    unexpected(token, "`params`, `meta`, `utilization`, `op` or `description=`")
        .suggesting(nearest(&word, ["params", "meta", "utilization", "op", "operations"]))
}

/// `op NAME ...` after the `op`, with its `op_params`.
fn operation(cursor: &mut Cursor<'_>, object: &str, index: usize) -> Parsed<Op> {
    let name = cursor.word("the operation's name, as in `op monitor interval=10s`")?;
    check_id(&name.text, name)?;
    if name.text.contains('=') || is_section(name, PRIMITIVE_ENDS) {
        return Err(unexpected(name, "the operation's name"));
    }
    let part = format!("op/{index}");
    cursor.mark(object, part.clone(), name.place.clone());
    let section = Section { object, part: &part, ends: PRIMITIVE_ENDS };
    let mut attrs = NvSet::default();
    pairs(cursor, &mut attrs, &section)?;
    while let Some(token) = cursor.peek() {
        if token.is("op_meta") {
            return Err(unsupported(token, "meta attributes of operations (`op_meta`)")
                .helping("write them as attributes of the `op`"));
        }
        if !token.is("op_params") {
            break;
        }
        cursor.at += 1;
        pairs(cursor, &mut attrs, &section)?;
    }
    // Operations without an interval run once, on demand.
    if attrs.get("interval").is_none() {
        attrs.set("interval", "0");
    }
    // The operation's own attributes first, then its parameters: the order in which they are shown.
    attrs.pairs.sort_by_key(|nv| !known::OP_ATTRIBUTES.contains(&nv.name.as_str()));
    Ok(Op { name: name.text.clone(), attrs })
}

const HOLDER_ENDS: &[&str] = &["params", "meta"];

/// Description, `params` and `meta` of a group or clone; a bare pair is a parameter, as in the crm shell.
fn holder(cursor: &mut Cursor<'_>, id: &str) -> Parsed<(Option<String>, NvSet, NvSet)> {
    let (mut description, mut params, mut meta) = (None, NvSet::default(), NvSet::default());
    let section = |part| Section { object: id, part, ends: HOLDER_ENDS };
    while let Some(token) = cursor.next() {
        if token.is("params") {
            pairs(cursor, &mut params, &section("params"))?;
        } else if token.is("meta") {
            pairs(cursor, &mut meta, &section("meta"))?;
        } else if let Some(text) = token.text.strip_prefix("description=") {
            description = Some(text.to_owned());
        } else if token.text.contains('=') {
            let name = token.text.split_once('=').map_or("", |(name, _)| name);
            if known::META.contains(&name) || known::CLONE_META.contains(&name) {
                return Err(Diagnostic::error(
                    "CRM0028",
                    &token.place,
                    format!("`{name}` is a meta attribute; without `meta` it would do nothing"),
                )
                .helping(format!("write `meta {}`", token.text)));
            }
            cursor.at -= 1;
            pairs(cursor, &mut params, &section("params"))?;
        } else {
            return Err(unexpected(token, "`meta`, `params` or `description=`")
                .suggesting(nearest(&token.text, ["params", "meta"])));
        }
    }
    Ok((description, params, meta))
}

fn group(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let id = cursor.id("group")?;
    let mut members: Vec<String> = Vec::new();
    while let Some(token) = cursor.peek() {
        if is_section(token, HOLDER_ENDS) || token.text.contains('=') {
            break;
        }
        let (member, place) = cursor.reference("a member")?;
        if members.contains(&member) {
            let text = format!("`{member}` is in the group `{id}` twice");
            return Err(Diagnostic::error("CRM0022", &place, text));
        }
        cursor.mark(&id, format!("ref/{member}"), place);
        members.push(member);
    }
    if members.is_empty() {
        cursor.word("the members of the group")?;
        let token = &cursor.tokens[cursor.at - 1];
        return Err(unexpected(token, "the members of the group"));
    }
    let (description, params, meta) = holder(cursor, &id)?;
    Ok(StatementKind::Group(GroupStatement { id, description, members, params, meta }))
}

fn clone(cursor: &mut Cursor<'_>, ms: bool) -> Parsed<StatementKind> {
    let id = cursor.id(if ms { "promotable clone" } else { "clone" })?;
    let (child, place) = cursor.reference("the resource to clone")?;
    cursor.mark(&id, format!("ref/{child}"), place);
    let (description, params, meta) = holder(cursor, &id)?;
    Ok(StatementKind::Clone(CloneStatement { id, description, child, ms, params, meta }))
}

/// `property`, `rsc_defaults`, `op_defaults`: an optional set id, then pairs.
fn options(cursor: &mut Cursor<'_>, object: &str) -> Parsed<NvSet> {
    let mut set = NvSet::default();
    let first = cursor.peek().map(|t| t.text.clone()).unwrap_or_default();
    let id = first
        .strip_prefix("$id=")
        .or_else(|| first.strip_suffix(':').filter(|id| !id.contains('=')))
        .map(str::to_owned);
    if let Some(id) = id {
        let token = cursor.word("an id")?;
        check_id(&id, token)?;
        cursor.mark(object, "", token.place.clone());
        set.id = Some(id);
    }
    while let Some(token) = cursor.next() {
        if token.is("rule") {
            return Err(unsupported(token, "rules"));
        }
        let nv = pair(token)?;
        if nv.value.is_none() {
            return Err(Diagnostic::error(
                "CRM0009",
                &token.place,
                format!("`{}` has no value", token.text),
            )
            .expecting("NAME=VALUE"));
        }
        add(cursor, &mut set, nv, token, &Section { object, part: "options", ends: &[] })?;
    }
    if set.id.is_none() && set.pairs.is_empty() {
        cursor.word("NAME=VALUE")?;
    }
    Ok(set)
}
