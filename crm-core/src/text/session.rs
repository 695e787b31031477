//! A configure session: statements in, a wanted CIB out. An error poisons the session, so that nothing is half committed.

use super::catalog::AgentCatalog;
use super::diagnostic::{Diagnostic, Place, Spans};
use super::edit;
use super::lexer::{Lines, Logical};
use super::nearest::nearest;
use super::parser;
use super::statement::{
    BundleStatement, CloneStatement, GroupStatement, Statement, StatementKind, Verb,
    VolumeStatement,
};
use super::{FIRST_VOLUME_PORT, validate};
use crate::cib::{
    Cib, CloneResource, Constraint, FencingRule, Group, Node, NvSet, Op, Primitive, Resource,
    Volume,
};
use std::collections::VecDeque;

/// What came of the next statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The statement changed the session's CIB.
    Changed,
    /// A command for the caller: `show`, `commit`, `quit`, ...
    Verb(Verb),
    /// The statement was refused; the session is poisoned.
    Refused(Box<Diagnostic>),
}

/// A session on a copy of the CIB.
///
/// ```
/// use crm_core::{cib::Cib, text::{Event, Session}};
/// let mut session = Session::new(Cib::default(), 7);
/// session.feed("example", "primitive a Dummy\ncommit\n");
/// assert_eq!(session.next_event(), Some(Event::Changed));
/// assert!(matches!(session.next_event(), Some(Event::Verb(verb)) if verb.name == "commit"));
/// assert!(!session.poisoned());
/// ```
#[derive(Debug)]
pub struct Session {
    base: Cib,
    version: u64,
    cib: Cib,
    spans: Spans,
    lines: Lines,
    later: VecDeque<Lines>,
    errors: Vec<Diagnostic>,
    catalog: Option<Box<dyn AgentCatalog>>,
}

type Done = Result<(), Box<Diagnostic>>;

impl Session {
    /// A session that starts from version `version` of the CIB.
    #[must_use]
    pub fn new(base: Cib, version: u64) -> Self {
        Self {
            cib: base.clone(),
            base,
            version,
            spans: Spans::new(),
            lines: Lines::new("<input>"),
            later: VecDeque::new(),
            errors: Vec::new(),
            catalog: None,
        }
    }

    /// Finds bare agent types (`Filesystem`) in this catalog: heartbeat first, then crm, then pacemaker.
    #[must_use]
    pub fn with_catalog(mut self, catalog: Box<dyn AgentCatalog>) -> Self {
        self.catalog = Some(catalog);
        self
    }

    /// Queues text: whole lines. A new file name starts again at line 1, after what was fed before.
    pub fn feed(&mut self, file: &str, text: &str) {
        let last = self.later.back_mut().unwrap_or(&mut self.lines);
        if last.file() == file {
            last.push(text);
        } else {
            let mut lines = Lines::new(file);
            lines.push(text);
            self.later.push_back(lines);
        }
    }

    /// Carries out the next complete statement of what was fed; `None` when there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(self.step(&line));
            }
            let next = self.later.pop_front()?;
            // The file before has ended: so has its last statement.
            let last = self.lines.finish().map(|line| self.step(&line));
            self.lines = next;
            if last.is_some() {
                return last;
            }
        }
    }

    /// At the end of the input: carries out a last statement that still waited for its next line.
    pub fn end(&mut self) -> Option<Event> {
        self.lines.finish().map(|line| self.step(&line))
    }

    /// True while a line that ends in a backslash waits for the next one.
    #[must_use]
    pub fn incomplete(&self) -> bool {
        self.lines.incomplete()
    }

    /// The CIB as the session wants it.
    #[must_use]
    pub const fn cib(&self) -> &Cib {
        &self.cib
    }

    /// The CIB that the session started from.
    #[must_use]
    pub const fn base(&self) -> &Cib {
        &self.base
    }

    /// The version that the session started from.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Places of what the session read.
    #[must_use]
    pub const fn spans(&self) -> &Spans {
        &self.spans
    }

    /// True when something is to be committed.
    #[must_use]
    pub fn dirty(&self) -> bool {
        self.cib != self.base
    }

    /// True after an error: `commit` must be refused.
    #[must_use]
    pub const fn poisoned(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The errors since the last [`Self::forgive`].
    #[must_use]
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// Forgets the errors: a person at a terminal has seen them and types the statement again.
    pub fn forgive(&mut self) {
        self.errors.clear();
    }

    /// Drops all changes.
    pub fn refresh(&mut self) {
        self.cib = self.base.clone();
        self.spans = Spans::new();
        self.errors.clear();
    }

    /// Goes on from a newer version, after a commit.
    pub fn committed(&mut self, cib: Cib, version: u64) {
        self.base = cib.clone();
        self.cib = cib;
        self.version = version;
    }

    /// Replaces the session's CIB, as `edit` and `load` of YAML do.
    pub fn replace(&mut self, cib: Cib, spans: Spans) {
        self.cib = cib;
        self.spans = spans;
    }

    /// All findings about the session's CIB.
    #[must_use]
    pub fn validate(&self, catalog: &dyn AgentCatalog) -> Vec<Diagnostic> {
        validate(&self.cib, &self.spans, catalog)
    }

    fn step(&mut self, line: &Logical) -> Event {
        let read = self.lines.tokens(line).and_then(|tokens| parser::statement(&tokens));
        let outcome = read.and_then(|statement| {
            if let StatementKind::Verb(verb) = statement.kind {
                return Ok(Event::Verb(verb));
            }
            self.apply(statement).map(|()| Event::Changed)
        });
        match outcome {
            Ok(event) => event,
            Err(error) => {
                self.errors.push((*error).clone());
                Event::Refused(error)
            }
        }
    }

    /// Carries out one statement; all or nothing.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn apply(&mut self, statement: Statement) -> Result<(), Box<Diagnostic>> {
        let Statement { place, kind, marks } = statement;
        let at = |object: &str, part: &str| {
            let found = marks.iter().find(|(o, p, _)| o == object && p == part);
            found.map_or_else(|| place.clone(), |(_, _, place)| place.clone())
        };
        match kind {
            StatementKind::Node { id, name, attributes, utilization } => {
                self.node(id, &name, &attributes, &utilization);
            }
            StatementKind::Primitive(primitive, bare) => self.primitive(*primitive, bare, &at)?,
            StatementKind::Group(group) => self.group(group, &at)?,
            StatementKind::Clone(clone) => self.clone_of(clone, &at)?,
            StatementKind::Bundle(bundle) => self.bundle(*bundle, &at)?,
            StatementKind::Constraint(constraint) => self.constraint(constraint, &at)?,
            StatementKind::Fencing(rules) => self.fencing(rules, &place)?,
            StatementKind::Property(set) => {
                merge(&mut self.cib.properties, set, "cib-bootstrap-options", &place)?;
            }
            StatementKind::RscDefaults(set) => {
                merge(&mut self.cib.rsc_defaults, set, "rsc-options", &place)?;
            }
            StatementKind::OpDefaults(set) => {
                merge(&mut self.cib.op_defaults, set, "op-options", &place)?;
            }
            StatementKind::Volume(volume) => self.volume(volume, &at)?,
            StatementKind::Monitor { resource, attrs } => {
                let found = self.cib.primitive_mut(&resource);
                let op = Op { name: "monitor".to_owned(), attrs };
                match found {
                    Some(primitive) => primitive.ops.push(op),
                    None => return Err(self.no_such(&resource, &at(&resource, "ref"))),
                }
            }
            StatementKind::Delete { ids, cascade } => {
                edit::delete(&mut self.cib, &ids, cascade, &|id| at(id, "ref"))?;
                ids.iter().for_each(|id| self.spans.forget(id));
                return Ok(());
            }
            StatementKind::Modgroup(change) => {
                edit::modgroup(&mut self.cib, &change, &|id| at(id, "ref"))?;
                return Ok(());
            }
            StatementKind::Rename { from, to } => {
                edit::rename(&mut self.cib, &from, &to, &|id| at(id, "ref"))?;
                self.spans.rename(&from, &to);
                return Ok(());
            }
            StatementKind::Set { path, value } => {
                edit::set(&mut self.cib, &path, &value, &at(&path, "ref"))?;
                return Ok(());
            }
            StatementKind::Verb(_) => return Ok(()),
        }
        for (object, part, place) in marks {
            let key = if part.is_empty() { object } else { format!("{object}/{part}") };
            self.spans.note(key, place);
        }
        Ok(())
    }

    fn no_such(&self, id: &str, place: &Place) -> Box<Diagnostic> {
        let known = edit::ids(&self.cib);
        Diagnostic::error("CRM0011", place, format!("there is no resource `{id}`"))
            .suggesting(nearest(id, known.iter().map(String::as_str)))
    }

    /// Refuses an id that is in use already.
    fn free(&self, id: &str, place: &Place) -> Done {
        if !edit::in_use(&self.cib, id) {
            return Ok(());
        }
        let error = Diagnostic::error("CRM0010", place, format!("the id `{id}` is in use already"));
        Err(match self.spans.find(id, "") {
            Some(first) => error.helping(format!("it was first defined at {first}")),
            None => error.helping(format!(
                "the cluster's configuration has it; change it with `set {id}.NAME VALUE`, or `delete {id}` first"
            )),
        })
    }

    fn node(&mut self, id: u64, name: &str, attributes: &NvSet, utilization: &NvSet) {
        if self.cib.node(name).is_none() {
            let (attributes, utilization) = (NvSet::default(), NvSet::default());
            self.cib.nodes.push(Node { id, name: name.to_owned(), attributes, utilization });
        }
        if let Some(node) = self.cib.node_mut(name) {
            if node.id == 0 {
                node.id = id;
            }
            for nv in &attributes.pairs {
                put(&mut node.attributes, nv.clone());
            }
            for nv in &utilization.pairs {
                put(&mut node.utilization, nv.clone());
            }
        }
    }

    fn primitive(
        &mut self,
        mut primitive: Primitive,
        bare: bool,
        at: &dyn Fn(&str, &str) -> Place,
    ) -> Done {
        self.free(&primitive.id, &at(&primitive.id, ""))?;
        if bare && let Some(catalog) = &self.catalog {
            primitive.agent = super::catalog::resolve(&primitive.agent.kind, catalog.as_ref());
        }
        self.cib.resources.push(Resource::Primitive(primitive));
        Ok(())
    }

    fn group(&mut self, statement: GroupStatement, at: &dyn Fn(&str, &str) -> Place) -> Done {
        let GroupStatement { id, description, members, params, meta } = statement;
        self.free(&id, &at(&id, ""))?;
        for member in &members {
            self.joinable(member, &at(&id, &format!("ref/{member}")), false)?;
        }
        let members = members.iter().filter_map(|m| edit::take_primitive(&mut self.cib, m));
        let members = members.collect();
        self.cib.resources.push(Resource::Group(Group { id, description, members, params, meta }));
        Ok(())
    }

    /// Refuses what cannot be a member of a group or a clone's child.
    fn joinable(&self, id: &str, place: &Place, groups_too: bool) -> Done {
        let Some(top) = self.cib.top_of(id) else { return Err(self.no_such(id, place)) };
        if top.id() != id {
            let message = format!("`{id}` belongs to `{}` already", top.id());
            return Err(Diagnostic::error("CRM0022", place, message).helping(format!(
                "a resource can be in one group or clone; `delete {}` frees it",
                top.id()
            )));
        }
        match top {
            Resource::Primitive(_) => Ok(()),
            Resource::Group(_) if groups_too => Ok(()),
            Resource::Group(_) => {
                let message = format!("`{id}` is a group; groups hold primitives only");
                Err(Diagnostic::error("CRM0011", place, message))
            }
            Resource::Bundle(_) => {
                let message =
                    format!("`{id}` is a bundle; it cannot be inside of another resource");
                Err(Diagnostic::error("CRM0011", place, message))
            }
            Resource::Clone(_) => {
                let message = format!("`{id}` is a clone; it cannot be inside of another resource");
                Err(Diagnostic::error("CRM0011", place, message))
            }
        }
    }

    fn clone_of(&mut self, statement: CloneStatement, at: &dyn Fn(&str, &str) -> Place) -> Done {
        let CloneStatement { id, description, child, ms, params, meta } = statement;
        self.free(&id, &at(&id, ""))?;
        let place = at(&id, &format!("ref/{child}"));
        self.joinable(&child, &place, true)?;
        let Some(index) = self.cib.resources.iter().position(|r| r.id() == child) else {
            return Err(self.no_such(&child, &place));
        };
        let child = Box::new(self.cib.resources.remove(index));
        let clone = CloneResource { id, description, child, ms, params, meta };
        self.cib.resources.push(Resource::Clone(clone));
        Ok(())
    }

    fn bundle(&mut self, statement: BundleStatement, at: &dyn Fn(&str, &str) -> Place) -> Done {
        let BundleStatement { mut bundle, child } = statement;
        self.free(&bundle.id, &at(&bundle.id, ""))?;
        if let Some(child) = child {
            let place = at(&bundle.id, &format!("ref/{child}"));
            self.joinable(&child, &place, false)?;
            bundle.child = edit::take_primitive(&mut self.cib, &child);
        }
        self.cib.resources.push(Resource::Bundle(Box::new(bundle)));
        Ok(())
    }

    fn constraint(&mut self, constraint: Constraint, at: &dyn Fn(&str, &str) -> Place) -> Done {
        self.free(constraint.id(), &at(constraint.id(), ""))?;
        self.cib.constraints.push(constraint);
        Ok(())
    }

    /// One object for all levels, as in the crm shell.
    fn fencing(&mut self, rules: Vec<FencingRule>, place: &Place) -> Done {
        if !self.cib.fencing.is_empty() {
            let message = "there are fencing levels already";
            return Err(Diagnostic::error("CRM0010", place, message).helping(
                "`delete fencing_topology` first, then write all levels in one statement",
            ));
        }
        self.cib.fencing = rules;
        Ok(())
    }

    fn volume(&mut self, volume: VolumeStatement, at: &dyn Fn(&str, &str) -> Place) -> Done {
        let object = format!("volume:{}", volume.name);
        let place = at(&object, "");
        if self.cib.volume(&volume.name).is_some() {
            let message = format!("the volume `{}` exists already", volume.name);
            return Err(Diagnostic::error("CRM0010", &place, message));
        }
        let port = match volume.port {
            Some(port) => port,
            None => free_port(&self.cib).ok_or_else(|| {
                Diagnostic::error("CRM0025", &place, "no port is free for the volume")
            })?,
        };
        let device = volume.device.unwrap_or_else(|| format!("/dev/crm/by-name/{}", volume.name));
        let taken =
            self.cib.volumes.iter().find(|other| other.port == port || other.device == device);
        if let Some(other) = taken {
            let what = if other.port == port { "port" } else { "device" };
            let message = format!("the volume `{}` has the same {what}", other.name);
            return Err(Diagnostic::error("CRM0025", &at(&object, what), message));
        }
        self.cib.volumes.push(Volume {
            name: volume.name,
            size_bytes: volume.size_bytes,
            device,
            replicas: volume.replicas,
            port,
            day0: volume.day0,
            assume_clean: volume.assume_clean,
        });
        Ok(())
    }
}

/// The lowest port from [`FIRST_VOLUME_PORT`] that no volume uses.
pub(crate) fn free_port(cib: &Cib) -> Option<u16> {
    (FIRST_VOLUME_PORT..=u16::MAX).find(|port| cib.volumes.iter().all(|v| v.port != *port))
}

pub(crate) fn put(set: &mut NvSet, nv: crate::cib::Nv) {
    match set.pairs.iter_mut().find(|p| p.name == nv.name) {
        Some(pair) => pair.value = nv.value,
        None => set.pairs.push(nv),
    }
}

/// Merges an option set; one set of each kind is supported.
fn merge(into: &mut NvSet, set: NvSet, default_id: &str, place: &Place) -> Done {
    let id = set.id.filter(|id| id != default_id);
    if id != into.id && !into.pairs.is_empty() && id.is_some() {
        return Err(Diagnostic::error(
            "CRM0026",
            place,
            "more than one set of options is not supported yet",
        )
        .helping(format!("leave the set's id out, or write `{default_id}`")));
    }
    if id.is_some() {
        into.id = id;
    }
    for nv in set.pairs {
        put(into, nv);
    }
    Ok(())
}
