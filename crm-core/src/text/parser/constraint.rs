//! `location`, `colocation`, `order`, and their resource sets.

use super::{Cursor, Parsed, unexpected, unsupported};
use crate::cib::{
    Colocation, Constraint, Location, LocationTarget, Order, OrderAction, OrderKind, ResourceSet,
    Role, Score, SetMember, parse_bool,
};
use crate::text::diagnostic::{Diagnostic, Place};
use crate::text::known;
use crate::text::lexer::Token;
use crate::text::nearest::nearest;

/// Reads a role, also in Pacemaker 1.x's words.
pub(crate) fn role(text: &str) -> Option<Role> {
    match text.to_ascii_lowercase().as_str() {
        "started" => Some(Role::Started),
        "stopped" => Some(Role::Stopped),
        "promoted" | "master" => Some(Role::Promoted),
        "unpromoted" | "slave" => Some(Role::Unpromoted),
        _ => None,
    }
}

fn role_at(text: &str, place: &Place) -> Parsed<Role> {
    role(text).ok_or_else(|| {
        Diagnostic::error("CRM0007", place, format!("`{text}` is not a role"))
            .expecting(known::ROLES.join(", "))
            .suggesting(nearest(text, known::ROLES.iter().copied()))
    })
}

/// Reads an action of an order constraint.
pub(crate) fn action(text: &str) -> Option<OrderAction> {
    match text.to_ascii_lowercase().as_str() {
        "start" => Some(OrderAction::Start),
        "stop" => Some(OrderAction::Stop),
        "promote" => Some(OrderAction::Promote),
        "demote" => Some(OrderAction::Demote),
        _ => None,
    }
}

fn action_at(text: &str, place: &Place) -> Parsed<OrderAction> {
    action(text).ok_or_else(|| {
        Diagnostic::error("CRM0008", place, format!("`{text}` is not an action"))
            .expecting("start, stop, promote or demote")
            .suggesting(nearest(text, ["start", "stop", "promote", "demote"]))
    })
}

/// `SCORE:`.
fn score(cursor: &mut Cursor<'_>) -> Parsed<Score> {
    let token = cursor.word("a score and a colon, as in `inf:` or `100:`")?;
    let Some(word) = token.text.strip_suffix(':') else {
        return Err(Diagnostic::error(
            "CRM0006",
            &token.place,
            format!("`{}` is not a score with its colon", token.text),
        )
        .expecting("a number, `inf`, `-inf`, `mandatory` or `advisory`, then `:`")
        .suggesting(Score::parse(&token.text).map(|_| format!("{}:", token.text)).as_deref()));
    };
    score_word(word, token)
}

fn score_word(word: &str, token: &Token) -> Parsed<Score> {
    Score::parse(word).ok_or_else(|| {
        Diagnostic::error("CRM0006", &token.place, format!("`{word}` is not a score"))
            .expecting("a number, `inf`, `-inf`, `mandatory` or `advisory`")
            .suggesting(nearest(word, known::SCORE_WORDS.iter().copied()))
    })
}

/// `location ID RSC SCORE: NODE` with options before the score or at the end.
pub(super) fn location(cursor: &mut Cursor<'_>) -> Parsed<Constraint> {
    let id = cursor.id("constraint")?;
    let target = location_target(cursor, &id)?;
    let (mut for_role, mut discovery) = (None, None);
    while let Some(token) = cursor.peek() {
        if !option(token, &mut for_role, &mut discovery)? {
            break;
        }
        cursor.next();
    }
    if let Some(token) = cursor.peek().filter(|t| t.is("rule")) {
        return Err(unsupported(token, "rules").helping("write `SCORE: NODE`"));
    }
    let score = score(cursor)?;
    let node = cursor.word("the name of a node")?;
    cursor.mark(&id, format!("node/{}", node.text), node.place.clone());
    while let Some(token) = cursor.peek() {
        if !option(token, &mut for_role, &mut discovery)? {
            return Err(unexpected(token, "`role=ROLE`, `resource-discovery=...` or nothing"));
        }
        cursor.next();
    }
    let node = node.text.clone();
    Ok(Constraint::Location(Location { id, target, score, node, role: for_role, discovery }))
}

fn location_target(cursor: &mut Cursor<'_>, id: &str) -> Parsed<LocationTarget> {
    let token = cursor.word("a resource")?;
    if token.text.starts_with('{') {
        return Err(unsupported(token, "resource sets in `location`")
            .helping("write one `location` for each resource, or use a pattern: /REGEX/"));
    }
    if let Some(regex) = token.text.strip_prefix('/') {
        let Some(regex) = regex.strip_suffix('/').filter(|r| !r.is_empty()) else {
            return Err(Diagnostic::error(
                "CRM0005",
                &token.place,
                format!("the pattern `{}` does not end", token.text),
            )
            .expecting("/REGEX/"));
        };
        return Ok(LocationTarget::Pattern(regex.to_owned()));
    }
    super::check_id(&token.text, token)?;
    cursor.mark(id, format!("ref/{}", token.text), token.place.clone());
    Ok(LocationTarget::Resource(token.text.clone()))
}

/// Takes `role=` and `resource-discovery=`; tells whether the token is one of them.
fn option(
    token: &Token,
    for_role: &mut Option<Role>,
    discovery: &mut Option<String>,
) -> Parsed<bool> {
    let text = token.text.strip_prefix('$').unwrap_or(&token.text);
    let Some((name, value)) = text.split_once('=') else { return Ok(false) };
    match name {
        "role" => *for_role = Some(role_at(value, &value_place(token, value))?),
        "resource-discovery" => {
            const KNOWN: [&str; 3] = ["always", "never", "exclusive"];
            if !KNOWN.contains(&value) {
                return Err(Diagnostic::error(
                    "CRM0008",
                    &value_place(token, value),
                    format!("`{value}` is not a kind of resource discovery"),
                )
                .expecting(KNOWN.join(", "))
                .suggesting(nearest(value, KNOWN)));
            }
            *discovery = Some(value.to_owned());
        }
        _ => return Err(unexpected(token, "`role=`, `resource-discovery=` or `SCORE:`")),
    }
    Ok(true)
}

fn value_place(token: &Token, value: &str) -> Place {
    let length = value.chars().count();
    token.part(token.text.chars().count() - length, length)
}

/// A member of a constraint with what follows its colon.
#[derive(Clone)]
struct Member {
    resource: String,
    qualifier: Option<(String, Place)>,
}

fn member(cursor: &mut Cursor<'_>, id: &str, text: &str, token: &Token) -> Parsed<Member> {
    let offset = token.text.find(text).map_or(0, |b| token.text.chars().count().min(b));
    let (resource, qualifier) = match text.split_once(':') {
        Some((resource, q)) => {
            let at = offset + resource.chars().count() + 1;
            let place = token.part(at, q.chars().count());
            if !q.is_empty() && q.bytes().all(|b| b.is_ascii_digit()) {
                let what = format!("instances of clones (`{text}`)");
                return Err(unsupported(token, &what).helping(format!("write `{resource}`")));
            }
            (resource, Some((q.to_owned(), place)))
        }
        None => (text, None),
    };
    super::check_id(resource, token)?;
    let place = token.part(offset, resource.chars().count());
    cursor.mark(id, format!("ref/{resource}"), place);
    Ok(Member { resource: resource.to_owned(), qualifier })
}

/// What a list of members says: two, or sets.
enum Members {
    Two(Member, Member),
    Sets(Vec<RawSet>),
}

struct RawSet {
    members: Vec<Member>,
    sequential: bool,
    require_all: bool,
}

impl RawSet {
    const fn new(sequential: bool, require_all: bool) -> Self {
        Self { members: Vec::new(), sequential, require_all }
    }
}

fn opening(text: &str) -> Option<(&'static str, &str)> {
    ["(", "["].into_iter().find_map(|b| Some((b, text.strip_prefix(b)?)))
}

fn closing(text: &str) -> Option<(&'static str, &str)> {
    [")", "]"].into_iter().find_map(|b| Some((b, text.strip_suffix(b)?)))
}

/// Splits brackets off the words that they touch.
fn pieces(tokens: &[Token]) -> Vec<(&str, &Token)> {
    let mut out = Vec::new();
    for token in tokens {
        let mut text = token.text.as_str();
        let mut tail = Vec::new();
        if !token.quoted {
            while let Some((bracket, rest)) = opening(text) {
                out.push((bracket, token));
                text = rest;
            }
            while let Some((bracket, rest)) = closing(text) {
                tail.push((bracket, token));
                text = rest;
            }
        }
        if !text.is_empty() {
            out.push((text, token));
        }
        out.extend(tail.into_iter().rev());
    }
    out
}

/// Reads the members up to the end of the statement.
fn members(cursor: &mut Cursor<'_>, id: &str, tokens: &[Token]) -> Parsed<Members> {
    let mut reader =
        SetReader { id, closed: Vec::new(), open: None, bare: RawSet::new(true, true) };
    let mut marker = false;
    let mut flags = false;
    for (text, token) in pieces(tokens) {
        match text {
            "(" | "[" => reader.open(text, token)?,
            ")" | "]" => reader.close(text, token)?,
            "_rsc_set_" => marker = true,
            _ if text.contains('=') => {
                flags |= reader.open.is_none();
                reader.flag(text, token)?;
            }
            _ => reader.item(cursor, text, token)?,
        }
    }
    if let Some((_, _, token)) = &reader.open {
        return Err(Diagnostic::error("CRM0005", &token.place, "this bracket is not closed"));
    }
    reader.flush();
    let sets = reader.closed;
    let plain = sets.iter().all(|s| s.sequential && s.require_all) && !marker && !flags;
    let all: Vec<Member> = sets.iter().flat_map(|s| s.members.clone()).collect();
    match all.as_slice() {
        [first, second]
            if plain && sets.iter().all(|s| !s.members.is_empty()) && !bracketed(tokens) =>
        {
            Ok(Members::Two(first.clone(), second.clone()))
        }
        [] | [_] if sets.len() < 2 && !bracketed(tokens) && !marker => Err(Diagnostic::error(
            "CRM0004",
            &cursor.end_place(),
            "the constraint names fewer than two resources",
        )
        .expecting("two resources, or sets of them")),
        _ => Ok(Members::Sets(sets)),
    }
}

fn bracketed(tokens: &[Token]) -> bool {
    pieces(tokens).iter().any(|(text, _)| matches!(*text, "(" | "["))
}

struct SetReader<'a> {
    id: &'a str,
    closed: Vec<RawSet>,
    open: Option<(RawSet, &'a str, &'a Token)>,
    bare: RawSet,
}

impl<'a> SetReader<'a> {
    fn flush(&mut self) {
        if !self.bare.members.is_empty() {
            let next = RawSet::new(self.bare.sequential, self.bare.require_all);
            self.closed.push(std::mem::replace(&mut self.bare, next));
        }
    }

    fn open(&mut self, bracket: &'a str, token: &'a Token) -> Parsed<()> {
        if self.open.is_some() {
            return Err(Diagnostic::error("CRM0005", &token.place, "sets cannot hold sets"));
        }
        self.flush();
        self.open = Some((RawSet::new(false, bracket == "("), bracket, token));
        Ok(())
    }

    fn close(&mut self, bracket: &str, token: &Token) -> Parsed<()> {
        let Some((set, opened, _)) = self.open.take() else {
            return Err(Diagnostic::error("CRM0005", &token.place, "this bracket was not opened"));
        };
        if (opened == "(") != (bracket == ")") {
            return Err(Diagnostic::error("CRM0005", &token.place, "the brackets do not match"));
        }
        if set.members.is_empty() {
            return Err(Diagnostic::error("CRM0004", &token.place, "the set is empty"));
        }
        self.closed.push(set);
        Ok(())
    }

    fn flag(&mut self, text: &str, token: &Token) -> Parsed<()> {
        let value = text.split_once('=').and_then(|(name, value)| Some((name, parse_bool(value)?)));
        let set = self.open.as_mut().map_or(&mut self.bare, |(set, _, _)| set);
        match value {
            Some(("sequential", value)) => set.sequential = value,
            Some(("require-all", value)) => set.require_all = value,
            _ => {
                return Err(unexpected(
                    token,
                    "`sequential=true|false` or `require-all=true|false`",
                ));
            }
        }
        Ok(())
    }

    fn item(&mut self, cursor: &mut Cursor<'_>, text: &str, token: &'a Token) -> Parsed<()> {
        let item = member(cursor, self.id, text, token)?;
        if let Some((set, _, _)) = &mut self.open {
            if set.members.first().is_some_and(|m| !same_qualifier(m, &item)) {
                return Err(Diagnostic::error(
                    "CRM0005",
                    &token.place,
                    "the members of one set have one role or action",
                ));
            }
            set.members.push(item);
            return Ok(());
        }
        if self.bare.members.first().is_some_and(|m| !same_qualifier(m, &item)) {
            self.flush();
        }
        self.bare.members.push(item);
        Ok(())
    }
}

fn same_qualifier(a: &Member, b: &Member) -> bool {
    let word = |m: &Member| m.qualifier.as_ref().map(|(q, _)| q.to_ascii_lowercase());
    word(a) == word(b)
}

fn resource_set(raw: RawSet, role: Option<Role>, action: Option<OrderAction>) -> ResourceSet {
    ResourceSet {
        id: None,
        members: raw.members.into_iter().map(|m| SetMember { resource: m.resource }).collect(),
        sequential: raw.sequential,
        require_all: raw.require_all,
        role,
        action,
    }
}

/// Takes `NAME=VALUE` off the end of the tokens.
fn tail<'t>(tokens: &'t [Token], name: &str) -> (&'t [Token], Option<(&'t str, &'t Token)>) {
    if let Some((last, rest)) = tokens.split_last()
        && let Some(value) = last.text.strip_prefix(name).and_then(|v| v.strip_prefix('='))
    {
        return (rest, Some((value, last)));
    }
    (tokens, None)
}

/// `colocation ID SCORE: A B`, or sets.
pub(super) fn colocation(cursor: &mut Cursor<'_>) -> Parsed<Constraint> {
    let id = cursor.id("constraint")?;
    let score = score(cursor)?;
    let (tokens, attribute) = tail(cursor.rest(), "node-attribute");
    let mut out = Colocation {
        id: id.clone(),
        score,
        rsc: String::new(),
        rsc_role: None,
        with: String::new(),
        with_role: None,
        node_attribute: attribute.map(|(value, _)| value.to_owned()),
        influence: None,
        sets: Vec::new(),
    };
    let read = |q: &Option<(String, Place)>| match q {
        Some((word, place)) => role_at(word, place).map(Some),
        None => Ok(None),
    };
    match members(cursor, &id, tokens)? {
        Members::Two(first, second) => {
            out.rsc_role = read(&first.qualifier)?;
            out.with_role = read(&second.qualifier)?;
            out.rsc = first.resource;
            out.with = second.resource;
        }
        Members::Sets(sets) => {
            for set in sets {
                let role = set.members.first().map_or(Ok(None), |m| read(&m.qualifier))?;
                out.sets.push(resource_set(set, role, None));
            }
        }
    }
    Ok(Constraint::Colocation(out))
}

/// Reads a kind of order, in words or as a score.
pub(crate) fn order_kind(text: &str) -> Option<OrderKind> {
    match text.to_ascii_lowercase().as_str() {
        "mandatory" => Some(OrderKind::Mandatory),
        "optional" | "advisory" => Some(OrderKind::Optional),
        "serialize" => Some(OrderKind::Serialize),
        _ => Score::parse(text).map(|score| match score {
            Score::ZERO => OrderKind::Optional,
            _ => OrderKind::Mandatory,
        }),
    }
}

/// `order ID [KIND:] A[:ACTION] B[:ACTION] [symmetrical=BOOL]`, or sets.
pub(super) fn order(cursor: &mut Cursor<'_>) -> Parsed<Constraint> {
    let id = cursor.id("constraint")?;
    let mut kind = None;
    if let Some(token) = cursor.peek()
        && let Some(word) = token.text.strip_suffix(':')
    {
        cursor.next();
        kind = Some(order_kind(word).ok_or_else(|| {
            Diagnostic::error("CRM0008", &token.place, format!("`{word}` is not a kind of order"))
                .expecting("Mandatory, Optional or Serialize")
                .suggesting(nearest(word, ["Mandatory", "Optional", "Serialize", "inf"]))
        })?);
    }
    let (tokens, flag) = tail(cursor.rest(), "symmetrical");
    let symmetrical = match flag {
        Some((value, token)) => Some(parse_bool(value).ok_or_else(|| {
            let text = format!("`{value}` is neither true nor false");
            Diagnostic::error("CRM0008", &value_place(token, value), text)
        })?),
        None => None,
    };
    let mut out = Order {
        id: id.clone(),
        kind: kind.unwrap_or(OrderKind::Mandatory),
        first: String::new(),
        first_action: None,
        then: String::new(),
        then_action: None,
        symmetrical,
        sets: Vec::new(),
    };
    let read = |q: &Option<(String, Place)>| match q {
        Some((word, place)) => action_at(word, place).map(Some),
        None => Ok(None),
    };
    match members(cursor, &id, tokens)? {
        Members::Two(first, second) => {
            out.first_action = read(&first.qualifier)?;
            out.then_action = read(&second.qualifier)?;
            out.first = first.resource;
            out.then = second.resource;
        }
        Members::Sets(sets) => {
            for set in sets {
                let action = set.members.first().map_or(Ok(None), |m| read(&m.qualifier))?;
                out.sets.push(resource_set(set, None, action));
            }
        }
    }
    Ok(Constraint::Order(out))
}
