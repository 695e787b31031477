//! Pacemaker's CIB as XML: configuration, node states and histories become our [`Cib`] and [`Status`].
//!
//! Rules are evaluated while reading, at the time given: what comes out holds for that time and for the node attributes seen. What this
//! reader does not know is refused with its place; nothing that could change a decision is left out silently.

mod attributes;
mod bundle;
mod constraints;
mod doubts;
mod fencing;
mod folded;
mod history;
mod nodes;
mod recorded;
mod resources;
mod rule;
mod shape;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod upgraded;

use crate::cib::{Cib, Constraint, NvSet, Resource};
use crate::lrm::RscRecord;
use crate::plan::{NodeView, SetWords};
use crate::status::Status;
use attributes::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tree::Element;

pub use time::parse_time_ms;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong, in words.
    pub text: String,
    /// Code of this kind of problem (docs/compat.md).
    pub code: &'static str,
    /// What may stand there.
    pub expected: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    const fn new((line, column): (u32, u32), code: &'static str, text: String) -> Self {
        Self { line, column, text, code, expected: None, help: None }
    }

    fn expecting(mut self, what: impl Into<String>) -> Self {
        self.expected = Some(what.into());
        self
    }

    fn helping(mut self, what: impl Into<String>) -> Self {
        self.help = Some(what.into());
        self
    }

    /// With the nearest known name, if one is near.
    fn near(mut self, name: Option<&str>) -> Self {
        self.help = name.map(|name| format!("did you mean `{name}`?")).or(self.help);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// A cluster as a CIB document shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// What is wanted.
    pub cib: Cib,
    /// What is seen.
    pub status: Status,
    /// Node states as membership would report them.
    pub nodes: BTreeMap<String, NodeView>,
    /// Why a node has to be fenced, for those that have to.
    pub fence: BTreeMap<String, String>,
    /// `have-quorum`.
    pub quorate: bool,
    /// The time it was evaluated at, milliseconds since the epoch.
    pub now_ms: u64,
    /// `dc-uuid` as a node name.
    pub coordinator: Option<String>,
    /// What the nodes have recorded of their operations.
    pub records: Vec<crate::lrm::NodeRecord>,
    /// Node ids as written (they may be words), by name.
    pub uuids: BTreeMap<String, String>,
    /// Parameters on single nodes, where rules make them others than without a node: by resource, by node.
    pub params: BTreeMap<String, BTreeMap<String, NvSet>>,
    /// What was taken as Pacemaker takes it and was probably not meant so.
    pub warnings: Vec<Problem>,
    /// What resource sets say beyond what our own sets can, by their ids.
    pub sets: BTreeMap<String, SetWords>,
    /// Not in the document: what an old release is known to decide otherwise (for comparing with that).
    pub habits: crate::plan::Habits,
}

/// Everything the parts of the reader share.
struct Reader<'a> {
    now_ms: u64,
    problems: Vec<Problem>,
    /// Elements by id, for `id-ref`.
    ids: BTreeMap<&'a str, Element<'a>>,
    /// Resources by id.
    taken: BTreeMap<&'a str, Element<'a>>,
    /// Nodes that are reached over connections, with their kind.
    remotes: Vec<(String, &'static str)>,
    /// Histories that were cut out of the text, by where their element begins.
    cut: BTreeMap<usize, Vec<RscRecord>>,
    /// Ids that constraints may name.
    known: BTreeSet<String>,
    /// The names of schemas before 3.0 mean something.
    old: bool,
    /// Options of the cluster that are defaults now: of resources, of operations.
    moved: (NvSet, NvSet),
    out: Document,
}

impl Reader<'_> {
    fn wrong(&mut self, at: Element<'_>, text: String) {
        self.note(|| at.problem("CRM0050", text));
    }

    /// Finding a place takes time: what is wrong all over is told of its beginning.
    fn note(&mut self, problem: impl FnOnce() -> Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem());
        }
    }

    /// An element that is not known here could change what is decided: it is not left out silently.
    fn unknown(&mut self, at: Element<'_>, inside: &str) {
        let known = shape::children(inside);
        let near = crate::text::nearest(at.name(), known.iter().copied());
        let text = format!("`{}` in `{inside}` is not supported", at.name());
        let take_out = "it could change what is decided, so it is not left out silently: take it out of the file";
        self.note(|| {
            let problem = at.problem("CRM0051", text).helping(take_out).near(near);
            if known.is_empty() { problem } else { problem.expecting(known.join(", ")) }
        });
    }
}

/// Reads a CIB document. `now_ms` is the time rules and failure expiry are evaluated at; a document with `execution-date` brings its own.
///
/// # Errors
/// Everything that is wrong or not supported, each with its place.
pub fn read(text: &str, now_ms: u64) -> Result<Document, Vec<Problem>> {
    let mut document = read_recorded(text, now_ms)?;
    document.fold();
    Ok(document)
}

/// The same without histories in [`Document::status`]: enough for a plan as Pacemaker makes it, and half the memory.
///
/// # Errors
/// As [`read`].
pub fn read_recorded(text: &str, now_ms: u64) -> Result<Document, Vec<Problem>> {
    if let Some(cut) = recorded::cut(text)
        && let Ok(document) = tree(&cut.text, now_ms, cut.records)
    {
        return Ok(document);
    }
    // Only the whole text tells where something is wrong.
    tree(text, now_ms, BTreeMap::new())
}

#[cfg(test)]
fn read_whole(text: &str, now_ms: u64) -> Result<Document, Vec<Problem>> {
    let mut document = tree(text, now_ms, BTreeMap::new())?;
    document.fold();
    Ok(document)
}

/// A text that was relieved of some histories.
fn tree(
    text: &str,
    now_ms: u64,
    cut: BTreeMap<usize, Vec<RscRecord>>,
) -> Result<Document, Vec<Problem>> {
    sizes(text).map_err(|problem| vec![problem])?;
    let parsed = roxmltree::Document::parse(text).map_err(|error| {
        let at = error.pos();
        let words = error.to_string();
        // The place is told apart from the words.
        let words = words.replace(&format!(" at {}:{}", at.row, at.col), "");
        vec![Problem::new((at.row, at.col), "CRM0050", words).helping(MALFORMED)]
    })?;
    let root = Element::new(parsed.root_element());
    let mut reader = Reader {
        now_ms: root.attr("execution-date").and_then(parse_time_ms).unwrap_or(now_ms),
        problems: Vec::new(),
        ids: ids(root),
        taken: BTreeMap::new(),
        remotes: Vec::new(),
        cut,
        known: BTreeSet::new(),
        old: upgraded::is_old(root.attr("validate-with")),
        moved: (NvSet::default(), NvSet::default()),
        out: Document::default(),
    };
    if root.name() == "cib" {
        reader.document(root);
    } else {
        reader.wrong(root, format!("a CIB begins with `cib`, not with `{}`", root.name()));
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let doubts = doubts::find(root, &reader);
    reader.out.warnings.extend(doubts);
    Ok(reader.out)
}

/// What to do about a file that is no XML.
const MALFORMED: &str =
    "`xmllint --noout FILE` checks the whole file; `cibadmin -Q` writes a whole one";
/// Problems that are told; then the rest of the file is of no interest.
const PROBLEMS_MAX: usize = 100;

/// Elements in elements: no CIB comes near.
const DEPTH_MAX: usize = 64;
/// Resources: beyond that the histories alone would not fit into memory.
const PRIMITIVES_MAX: usize = 100_000;

/// Attributes of one element: whoever writes more means something else.
const ATTRIBUTES_MAX: usize = 1_000;
/// Bytes of one value.
const VALUE_MAX: usize = 16 << 20;

/// Refuses what is too large, before anything is built from it.
fn sizes(text: &str) -> Result<(), Problem> {
    let (mut depth, mut primitives, mut at) = (0_usize, 0_usize, 0_usize);
    while let Some(tag) = text.get(at..).and_then(|rest| rest.find('<')).map(|n| at + n) {
        let rest = text.get(tag..).unwrap_or_default();
        let Tag { end, attributes, longest } = first_tag(rest);
        let body = rest.get(..end).unwrap_or(rest);
        match body.as_bytes().get(1) {
            Some(b'/') => depth = depth.saturating_sub(1),
            Some(b'!' | b'?') | None => {}
            Some(_) if body.ends_with("/>") => {}
            Some(_) => depth += 1,
        }
        primitives += usize::from(body.starts_with("<primitive "));
        at = tag + end.max(1);
        let (why, help) = if attributes > ATTRIBUTES_MAX {
            let help = "elements of a CIB have some ten: was a file of another kind meant?";
            (format!("an element with more than {ATTRIBUTES_MAX} attributes"), help)
        } else if longest > VALUE_MAX {
            let help = "was a file of another kind meant?";
            (format!("a value of more than {} MiB", VALUE_MAX >> 20), help)
        } else if depth > DEPTH_MAX {
            let help =
                "a CIB is some ten levels deep: was something else written here, or an end lost?";
            (format!("nested more than {DEPTH_MAX} deep: this is no CIB"), help)
        } else if primitives > PRIMITIVES_MAX {
            let help = "no cluster of Pacemaker holds that many: split it";
            (format!("more than {PRIMITIVES_MAX} resources"), help)
        } else {
            continue;
        };
        let before = text.get(..tag).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = (number(line), number(column));
        return Err(Problem::new(at, "CRM0050", why).helping(help));
    }
    Ok(())
}

/// The tag, comment or section that a text begins with.
struct Tag {
    /// How long it is.
    end: usize,
    attributes: usize,
    /// Bytes of the longest value.
    longest: usize,
}

/// Looks for its end; `>` in a quoted value is none.
fn first_tag(rest: &str) -> Tag {
    let close = |mark: &str| {
        let end = rest.find(mark).map_or(rest.len(), |n| n + mark.len());
        Tag { end, attributes: 0, longest: 0 }
    };
    if rest.starts_with("<!--") {
        return close("-->");
    }
    if rest.starts_with("<![CDATA[") {
        return close("]]>");
    }
    let mut quote = None;
    let (mut attributes, mut longest) = (0, 0);
    for (at, byte) in rest.bytes().enumerate() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some((byte, at)),
            (Some((open, from)), _) if open == byte => {
                attributes += 1;
                longest = longest.max(at - from);
                quote = None;
            }
            (None, b'>') => return Tag { end: at + 1, attributes, longest },
            _ => {}
        }
    }
    Tag { end: rest.len(), attributes, longest }
}

/// The first element with each id; what only names another element has none of its own.
fn ids(root: Element<'_>) -> BTreeMap<&str, Element<'_>> {
    let mut out = BTreeMap::new();
    let own = |e: &Element<'_>| !matches!(e.name(), "resource_ref" | "obj_ref" | "lrm_rsc_op");
    for element in root.descendants().filter(own) {
        if let Some(id) = element.attr("id") {
            out.entry(id).or_insert(element);
        }
    }
    out
}

impl<'a> Reader<'a> {
    fn document(&mut self, root: Element<'a>) {
        self.out.now_ms = self.now_ms;
        self.out.quorate = root.flag("have-quorum").unwrap_or(true);
        let Some(configuration) = root.child("configuration") else {
            self.wrong(root, "`configuration` is missing".to_owned());
            return;
        };
        for part in root.children() {
            if !matches!(part.name(), "configuration" | "status") {
                self.unknown(part, "cib");
            }
        }
        let states = root.child("status");
        self.properties(configuration);
        self.nodes(configuration, states);
        if let Some(dc) = root.attr("dc-uuid") {
            let name =
                self.out.uuids.iter().find(|(_, id)| *id == dc).map(|(name, _)| name.clone());
            self.out.coordinator = name;
        }
        self.resources(configuration);
        self.remotes = crate::plan::remote_nodes(&self.out.cib);
        self.note_names();
        self.params_on_nodes(configuration);
        self.constraints(configuration);
        if let Some(states) = states {
            self.histories(states);
        }
        self.order_constraints();
        self.levels(configuration);
        for part in configuration.children() {
            match part.name() {
                "crm_config" | "nodes" | "resources" | "constraints" | "rsc_defaults"
                | "op_defaults" | "tags" | "fencing-topology" => {}
                // These change nothing about what runs where.
                "acls" | "alerts" => {}
                _ => self.unknown(part, "configuration"),
            }
        }
    }

    fn properties(&mut self, configuration: Element<'a>) {
        let Some(section) = configuration.child("crm_config") else { return };
        self.out.cib.properties = self.attributes(section, "cluster_property_set", Sets::Plain);
        if self.old {
            self.moved = upgraded::properties(&mut self.out.cib.properties);
        }
        for (old, new) in OLD_PROPERTIES {
            if let Some(value) = self.out.cib.properties.get(old).map(str::to_owned) {
                self.out.cib.properties.unset(old);
                self.out.cib.properties.set(new, &value);
            }
        }
    }

    /// Constraints are taken in the order in which Pacemaker takes them: as written, locations first.
    fn order_constraints(&mut self) {
        let rank = |c: &Constraint| u8::from(!matches!(c, Constraint::Location(_)));
        self.out.cib.constraints.sort_by_key(rank);
    }

    /// Ids that constraints may name.
    fn note_names(&mut self) {
        let cib = &self.out.cib;
        let mut known: BTreeSet<String> = cib.primitives().iter().map(|p| p.id.clone()).collect();
        for resource in &cib.resources {
            let mut at = Some(resource);
            while let Some(resource) = at {
                known.insert(resource.id().to_owned());
                at = match resource {
                    Resource::Clone(c) => Some(&c.child),
                    Resource::Primitive(_) | Resource::Group(_) | Resource::Bundle(_) => None,
                };
            }
        }
        known.extend(self.remotes.iter().map(|(name, _)| name.clone()));
        self.known = known;
    }

    fn knows(&self, id: &str) -> bool {
        self.known.contains(id)
    }
}

/// Newer names of cluster properties and the ones this engine reads.
const OLD_PROPERTIES: &[(&str, &str)] = &[
    ("fencing-enabled", "stonith-enabled"),
    ("fencing-action", "stonith-action"),
    ("fencing-timeout", "stonith-timeout"),
];
