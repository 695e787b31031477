//! Configuration files: YAML or crm text, read into a CIB.

use crate::Shell;
use crate::fail::Fail;
use crate::source::read_text;
use crm_core::cib::{AgentName, Cib, Constraint, Node, Resource};
use crm_core::text::{
    self, AgentCatalog, AgentInfo, Diagnostic, Event, Session, Spans, Statement, StatementKind,
    complete, objects,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Session commands that a pasted text may contain; in a file that is only read they do nothing.
const PASTED_VERBS: &[&str] =
    &["show", "verify", "commit", "quit", "bye", "exit", "end", "up", "back", "configure"];

/// The findings as one refusal.
pub(crate) fn refuse(findings: &[Diagnostic]) -> Fail {
    let errors = findings.iter().filter(|d| d.is_error()).count();
    let mut why: String = String::from("\n");
    for finding in findings {
        why.push_str(&finding.render());
    }
    let plural = if errors == 1 { "" } else { "s" };
    Fail::refused(format!("{errors} error{plural}; nothing was changed{}", why.trim_end()))
}

/// True for a file that is to be read as YAML.
pub(crate) fn is_yaml(path: &Path, text: &str) -> bool {
    let ends = |e: &str| path.extension().is_some_and(|x| x.eq_ignore_ascii_case(e));
    if ends("yaml") || ends("yml") || ends("json") {
        return true;
    }
    let first = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'));
    first
        .is_some_and(|l| l == "---" || l.starts_with('{') || (l.ends_with(':') && !l.contains(' ')))
}

/// Reads a whole configuration, completed from `base` (nodes that it does not mention, numbers that it leaves out).
pub(crate) fn whole(
    shell: &Shell<'_>,
    path: &Path,
    base: &Cib,
    version: u64,
) -> Result<(Cib, Spans), Fail> {
    whole_text(shell, path, &read_text(path)?, base, version)
}

/// Same as [`whole`], of a text already read.
pub(crate) fn whole_text(
    shell: &Shell<'_>,
    path: &Path,
    text: &str,
    base: &Cib,
    version: u64,
) -> Result<(Cib, Spans), Fail> {
    let name =
        if path.as_os_str() == "-" { "<stdin>".to_owned() } else { path.display().to_string() };
    let (mut cib, spans) = if is_yaml(path, text) {
        let catalog = (shell.hooks.agent_catalog)();
        crm_core::yaml::read(&name, text, Some(catalog.as_ref())).map_err(|wrong| refuse(&wrong))?
    } else {
        replaced(&name, text, version, (shell.hooks.agent_catalog)())?
    };
    fill_in(base, &mut cib)?;
    Ok((cib, spans))
}

/// Agents of this node, and any other: a configuration that is only thought about may name agents of other nodes.
#[derive(Debug)]
struct AnyAgent(Box<dyn AgentCatalog>);

impl AgentCatalog for AnyAgent {
    fn agent(&self, name: &AgentName) -> Option<AgentInfo> {
        self.0.agent(name).or_else(|| Some(AgentInfo::default()))
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// A configuration that is only thought about, with what is unwise in it; `named` are the nodes that the command line names.
pub(crate) fn scene_text(
    shell: &Shell<'_>,
    (name, text): (&str, &str),
    yaml: bool,
    named: &[String],
) -> Result<(Cib, Vec<Diagnostic>), Fail> {
    let catalog = Box::new(AnyAgent((shell.hooks.agent_catalog)()));
    let (mut cib, spans) = if yaml {
        crm_core::yaml::read(name, text, Some(catalog.as_ref())).map_err(|wrong| refuse(&wrong))?
    } else {
        replaced(name, text, 0, catalog)?
    };
    fill_in(&Cib::default(), &mut cib)?;
    let mut whole = cib.clone();
    for (number, name) in (1..).zip(named).filter(|_| cib.nodes.is_empty()) {
        whole.nodes.push(Node { id: number, name: name.clone(), ..Node::default() });
    }
    let catalog = AnyAgent((shell.hooks.agent_catalog)());
    let mut found = text::validate(&whole, &spans, &catalog);
    // Nodes cannot run bundles yet, agents may be those of other nodes, and volumes are not planned.
    let elsewhere = |d: &Diagnostic| {
        matches!(d.code.as_str(), "CRM0003" | "CRM0014" | "CRM0015" | "CRM0016" | "CRM0032")
            || (whole.nodes.is_empty() && d.code == "CRM0013")
    };
    found.retain(|d| !elsewhere(d));
    if found.iter().any(Diagnostic::is_error) {
        return Err(refuse(&found));
    }
    Ok((cib, found))
}

/// Fills in what a wanted configuration leaves out; new volumes get a random first generation.
pub(crate) fn fill_in(base: &Cib, wanted: &mut Cib) -> Result<(), Fail> {
    // `complete` cannot fail: read as many random numbers beforehand as it can need.
    let mut numbers = Vec::new();
    for _ in &wanted.volumes {
        numbers.push(crate::random::nonzero()?);
    }
    complete(base, wanted, &mut || numbers.pop().unwrap_or(1));
    Ok(())
}

/// A text as a whole new configuration.
fn replaced(
    name: &str,
    text: &str,
    version: u64,
    catalog: Box<dyn AgentCatalog>,
) -> Result<(Cib, Spans), Fail> {
    let mut session = Session::new(Cib::default(), version).with_catalog(catalog);
    session.feed(name, text);
    let mut wrong = Vec::new();
    while let Some(event) = session.next_event().or_else(|| session.end()) {
        match event {
            Event::Changed => {}
            Event::Verb(verb) if PASTED_VERBS.contains(&verb.name.as_str()) => {}
            Event::Verb(verb) => wrong.push(Diagnostic::new(
                text::Severity::Error,
                "CRM0002",
                Some(&verb.place),
                format!("the command `{}` cannot stand in a file that is loaded", verb.name),
            )),
            Event::Refused(error) => wrong.push(*error),
        }
    }
    if wrong.is_empty() {
        Ok((session.cib().clone(), session.spans().clone()))
    } else {
        Err(refuse(&wrong))
    }
}

/// `load replace`: the file is the whole configuration.
pub(crate) fn load_replace(
    name: &str,
    text: &str,
    session: &mut Session,
    catalog: Box<dyn AgentCatalog>,
) -> Result<(), Fail> {
    let (cib, spans) = if is_yaml(Path::new(name), text) {
        crm_core::yaml::read(name, text, Some(catalog.as_ref())).map_err(|wrong| refuse(&wrong))?
    } else {
        replaced(name, text, session.version(), catalog)?
    };
    session.replace(cib, spans);
    Ok(())
}

/// `load update`: what the file defines takes the place of what has the same name; the rest stays.
pub(crate) fn load_update(
    name: &str,
    text: &str,
    session: &mut Session,
    catalog: Box<dyn AgentCatalog>,
) -> Result<(), Fail> {
    let new_text = if is_yaml(Path::new(name), text) {
        let read = crm_core::yaml::read(name, text, Some(catalog.as_ref()));
        let (cib, _) = read.map_err(|wrong| refuse(&wrong))?;
        text::show(&cib)
    } else {
        text.to_owned()
    };
    let (mut new, mut wrong) = text::parse(name, &new_text);
    new.retain(|s| match &s.kind {
        StatementKind::Verb(verb) => !PASTED_VERBS.contains(&verb.name.as_str()),
        _ => true,
    });
    let old_text: String = objects(session.cib()).into_iter().map(|(_, t)| t + "\n").collect();
    let (mut old, old_wrong) = text::parse("<configuration>", &old_text);
    wrong.extend(old_wrong);
    let defined: BTreeSet<(u8, String)> = new.iter().filter_map(definition).collect();
    old.retain(|s| definition(s).is_none_or(|key| !defined.contains(&key)));
    let mut all = old;
    all.append(&mut new);
    all.sort_by_key(|s| rank(&s.kind));
    let mut merged = Session::new(Cib::default(), session.version()).with_catalog(catalog);
    for statement in all {
        if let Err(error) = merged.apply(statement) {
            wrong.push(*error);
        }
    }
    if !wrong.is_empty() {
        return Err(refuse(&wrong));
    }
    let mut cib = merged.cib().clone();
    keep_order(session.cib(), &mut cib);
    session.replace(cib, merged.spans().clone());
    Ok(())
}

/// The object that a statement defines anew; options and nodes are merged, so they define nothing.
fn definition(statement: &Statement) -> Option<(u8, String)> {
    match &statement.kind {
        StatementKind::Primitive(p, _) => Some((0, p.id.clone())),
        StatementKind::Group(g) => Some((0, g.id.clone())),
        StatementKind::Clone(c) => Some((0, c.id.clone())),
        StatementKind::Bundle(b) => Some((0, b.bundle.id.clone())),
        StatementKind::Constraint(c) => Some((0, c.id().to_owned())),
        StatementKind::Volume(v) => Some((1, v.name.clone())),
        StatementKind::Fencing(_) => Some((2, String::new())),
        StatementKind::Node { .. }
        | StatementKind::Property(_)
        | StatementKind::RscDefaults(_)
        | StatementKind::OpDefaults(_)
        | StatementKind::Monitor { .. }
        | StatementKind::Delete { .. }
        | StatementKind::Modgroup(_)
        | StatementKind::Rename { .. }
        | StatementKind::Set { .. }
        | StatementKind::Verb(_) => None,
    }
}

/// What is referred to comes before what refers to it; edits come last.
const fn rank(kind: &StatementKind) -> u8 {
    match kind {
        StatementKind::Node { .. } | StatementKind::Volume(_) => 0,
        StatementKind::Primitive(..) => 1,
        StatementKind::Group(_) => 2,
        StatementKind::Clone(_) | StatementKind::Bundle(_) => 3,
        StatementKind::Constraint(_)
        | StatementKind::Property(_)
        | StatementKind::RscDefaults(_)
        | StatementKind::OpDefaults(_)
        | StatementKind::Fencing(_) => 4,
        StatementKind::Monitor { .. }
        | StatementKind::Delete { .. }
        | StatementKind::Modgroup(_)
        | StatementKind::Rename { .. }
        | StatementKind::Set { .. }
        | StatementKind::Verb(_) => 5,
    }
}

/// Gives what was there before its old place in the document; what is new follows.
fn keep_order(old: &Cib, new: &mut Cib) {
    let place = |ids: Vec<&str>| -> BTreeMap<String, usize> {
        ids.into_iter().enumerate().map(|(n, id)| (id.to_owned(), n)).collect()
    };
    let resources = place(old.resources.iter().map(Resource::id).collect());
    let constraints = place(old.constraints.iter().map(Constraint::id).collect());
    let volumes = place(old.volumes.iter().map(|v| v.name.as_str()).collect());
    let of = |map: &BTreeMap<String, usize>, id: &str| map.get(id).copied().unwrap_or(usize::MAX);
    new.resources.sort_by_key(|r| of(&resources, r.id()));
    new.constraints.sort_by_key(|c| of(&constraints, c.id()));
    new.volumes.sort_by_key(|v| of(&volumes, &v.name));
}
