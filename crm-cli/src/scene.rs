//! What `simulate`, `why` and `audit` look at: the live cluster or a file, with what is assumed of it.

use crate::Shell;
use crate::args::{FileFormat, SceneArgs};
use crate::fail::Fail;
use crate::text_file::{is_yaml, refuse, scene_text};
use anyhow::Context;
use crm_core::cib::{Cib, Node};
use crm_core::plan::NodeView;
use crm_core::simulate::{
    Change, Impossible, Mind, NodeChange, TicketChange, assume, parse_failure, parse_outcome,
};
use crm_core::status::{NodeStatus, Status};
use crm_core::text::{Diagnostic, Place, Severity};
use crm_core::xml::{self, Document};
use crm_proto::local::{Mode, StatusReply};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// A cluster to think about.
pub(crate) struct Scene {
    /// Configuration and status, with all that is assumed.
    pub(crate) document: Document,
    /// Before anything was assumed; nothing when nothing is.
    unchanged: Option<Document>,
    /// Whose decisions are asked for.
    pub(crate) mind: Mind,
    /// What was assumed, in words.
    pub(crate) assumed: Vec<String>,
    /// What in the file was probably not meant so, a line each.
    pub(crate) warnings: Vec<String>,
}

/// How much of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All.
    All,
    /// What a plan needs that is not executed.
    Plan,
}

/// Loads what is asked for and makes the assumptions true.
pub(crate) fn load(shell: &mut Shell<'_>, args: &SceneArgs, extent: Extent) -> Result<Scene, Fail> {
    let at = match &args.at {
        Some(text) => Some(xml::parse_time_ms(text).ok_or_else(|| {
            let remedy = "--at '2026-03-01 12:00:00Z', or seconds since the epoch";
            Fail::with_remedy(format!("`{text}` is not a time"), remedy)
        })?),
        None => None,
    };
    let stdin = Path::new("-");
    let path = args.cib.as_deref().or_else(|| args.pipe.then_some(stdin));
    let (mut document, mind, warnings) = match path {
        Some(path) => {
            let now = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
            let how = (args.format, args.node_up.as_slice());
            let (mut document, warnings) = file(shell, path, how, at.unwrap_or_else(now))?;
            name_nodes(&mut document, args)?;
            (document, Mind::Pacemaker, warnings)
        }
        None => (live(shell, args, at)?, Mind::Crm, Vec::new()),
    };
    let changes = changes(args)?;
    if path.is_some() && (extent == Extent::All || !changes.is_empty()) {
        document.fold();
    }
    let unchanged = (!changes.is_empty()).then(|| document.clone());
    let mut assumed = Vec::new();
    for change in changes {
        assumed.push(assume(&mut document, &change).map_err(impossible)?);
    }
    Ok(Scene { document, unchanged, mind, assumed, warnings })
}

impl Scene {
    /// Before anything was assumed.
    pub(crate) fn unchanged(&self) -> &Document {
        self.unchanged.as_ref().unwrap_or(&self.document)
    }
}

fn impossible(error: Impossible) -> Fail {
    Fail::with_remedy(error.why, error.remedy)
}

/// In the order in which Pacemaker's tool takes them.
fn changes(args: &SceneArgs) -> Result<Vec<Change>, Fail> {
    let mut out: Vec<Change> = args.quorum.map(Change::Quorum).into_iter().collect();
    let tickets = [
        (&args.ticket_grant, TicketChange::Grant),
        (&args.ticket_revoke, TicketChange::Revoke),
        (&args.ticket_standby, TicketChange::Standby),
        (&args.ticket_activate, TicketChange::Activate),
    ];
    for (names, what) in tickets {
        out.extend(names.iter().map(|name| Change::Ticket(name.clone(), what)));
    }
    let nodes = [
        (&args.node_up, NodeChange::Up),
        (&args.node_down, NodeChange::Down),
        (&args.node_lost, NodeChange::Lost),
        (&args.node_standby, NodeChange::Standby),
        (&args.node_online, NodeChange::Online),
    ];
    for (names, what) in nodes {
        out.extend(names.iter().map(|name| Change::Node(name.clone(), what)));
    }
    for text in &args.op {
        let outcome = parse_outcome(text).ok_or_else(|| not_a_result(text, "--op"))?;
        out.push(Change::Result(outcome));
    }
    for text in &args.fail {
        out.push(parse_failure(text).ok_or_else(|| {
            let remedy = "--fail web@alpha, --fail web:start@alpha=5";
            Fail::with_remedy(format!("`{text}` is not RSC[:OP]@NODE[=RC]"), remedy)
        })?);
    }
    Ok(out)
}

/// The refusal of what is no `RSC_OP_INTERVAL@NODE=RC`.
pub(crate) fn not_a_result(text: &str, option: &str) -> Fail {
    let why = format!("`{text}` is not RSC_OP_INTERVAL@NODE=RC");
    Fail::with_remedy(why, format!("{option} web_monitor_10000@alpha=7 (milliseconds)"))
}

/// The live cluster as the daemon sees it.
fn live(shell: &mut Shell<'_>, args: &SceneArgs, at: Option<u64>) -> Result<Document, Fail> {
    if args.format.is_some() {
        let remedy = "crm simulate --cib FILE --format ...";
        return Err(Fail::with_remedy("`--format` is about a file, and none is named", remedy));
    }
    let reply = shell.daemon.status().map_err(|fail| match fail {
        Fail::Broken(error) => Fail::Broken(
            error.context("no live cluster to ask; name a file with --cib FILE to ask that"),
        ),
        Fail::Refused { .. } | Fail::Said => fail,
    })?;
    let mut document = of_reply(&reply);
    document.now_ms = at.unwrap_or(document.now_ms);
    Ok(document)
}

/// The daemon's picture as a document.
pub(crate) fn of_reply(reply: &StatusReply) -> Document {
    let cib = Cib::clone(&reply.state.cib);
    let mut status = reply.state.status.clone();
    let records = crm_core::lrm::of_status(&mut status);
    Document {
        nodes: views(reply),
        status,
        records,
        quorate: match reply.mode {
            Mode::Alone => true,
            Mode::Leader | Mode::Follower => reply.may_run(),
            Mode::NoQuorum | Mode::Joining => false,
        },
        now_ms: reply.now_ms,
        coordinator: reply.leader.clone(),
        uuids: cib.nodes.iter().map(|n| (n.name.clone(), n.id.to_string())).collect(),
        cib,
        ..Document::default()
    }
}

/// What the planner is told of the nodes, from what the daemon tells of them.
fn views(reply: &StatusReply) -> BTreeMap<String, NodeView> {
    let fencing = reply.state.cib.fencing_enabled();
    let lines = reply.nodes.iter();
    let views = lines.map(|(name, line)| {
        let session = reply.state.status.nodes.get(name).map_or(0, |s| s.session);
        let view = match (line.online, line.alive) {
            (true, _) => NodeView::ONLINE,
            (false, true) => NodeView::PENDING,
            (false, false) if session != 0 && fencing => NodeView::LOST,
            (false, false) => NodeView::GONE,
        };
        (name.clone(), view)
    });
    views.collect()
}

/// A file by what is in it. Without a status all nodes are up and nothing is known of any resource.
fn file(
    shell: &mut Shell<'_>,
    path: &Path,
    (format, named): (Option<FileFormat>, &[String]),
    now_ms: u64,
) -> Result<(Document, Vec<String>), Fail> {
    let name = if path.as_os_str() == "-" { "<stdin>".into() } else { path.display().to_string() };
    let bytes = read(path)?;
    packed(&name, &bytes)?;
    let text = text(&name, bytes)?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        let remedy =
            "a CIB in XML (cibadmin -Q), crm text (crm configure show) or YAML (crm export)";
        return Err(Fail::with_remedy(format!("{name}:1:1: the file is empty"), remedy));
    }
    let format = format.unwrap_or_else(|| {
        if text.trim_start().starts_with('<') {
            FileFormat::Xml
        } else if is_yaml(path, text) {
            FileFormat::Yaml
        } else {
            FileFormat::Crm
        }
    });
    if format == FileFormat::Xml {
        let document = xml::read_recorded(text, now_ms)
            .map_err(|problems| refuse(&findings(Severity::Error, &name, text, &problems)))?;
        let found = findings(Severity::Warning, &name, text, &document.warnings);
        let warnings = warn(shell, &found, document.warnings.len());
        return Ok((document, warnings));
    }
    let (cib, found) = scene_text(shell, (&name, text), format == FileFormat::Yaml, named)?;
    let warnings = warn(shell, &found, found.len());
    Ok((started(cib, now_ms), warnings))
}

/// All nodes are up, and nothing runs.
fn started(cib: Cib, now_ms: u64) -> Document {
    let names = || cib.nodes.iter().map(|n| n.name.clone());
    let status = Status {
        nodes: names().map(|name| (name, NodeStatus::default())).collect(),
        ..Status::default()
    };
    Document {
        nodes: names().map(|name| (name, NodeView::ONLINE)).collect(),
        status,
        uuids: cib.nodes.iter().map(|n| (n.name.clone(), n.id.to_string())).collect(),
        quorate: true,
        now_ms,
        cib,
        ..Document::default()
    }
}

/// A text may name no nodes: then those that are assumed to be up are all there are.
fn name_nodes(document: &mut Document, args: &SceneArgs) -> Result<(), Fail> {
    if !document.cib.nodes.is_empty() || !document.nodes.is_empty() {
        return Ok(());
    }
    if args.node_up.is_empty() {
        let remedy = "add lines `node NAME`, or say --node-up NAME for each of them";
        return Err(Fail::with_remedy("the file names no nodes: nothing can run", remedy));
    }
    for (id, name) in (1..).zip(&args.node_up) {
        let node = Node { id, name: name.clone(), ..Node::default() };
        document.cib.nodes.push(node);
    }
    let now_ms = document.now_ms;
    *document = started(std::mem::take(&mut document.cib), now_ms);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Fail> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| {
        let remedy = "name a file that you may read, or `-` for standard input";
        Fail::with_remedy(format!("cannot read {}: {error}", path.display()), remedy)
    })
}

/// Files as Pacemaker keeps its inputs (`pe-input-0.bz2`) are unpacked by others.
fn packed(name: &str, bytes: &[u8]) -> Result<(), Fail> {
    let kinds: [(&[u8], &str, &str); 4] = [
        (b"BZh", "bzip2", "bzcat"),
        (b"\x1f\x8b", "gzip", "zcat"),
        (b"\xfd7zXZ", "xz", "xzcat"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    ];
    let Some((_, kind, tool)) = kinds.iter().find(|(magic, ..)| bytes.starts_with(magic)) else {
        return Ok(());
    };
    let remedy = format!("{tool} {name} | crm simulate --cib -");
    Err(Fail::with_remedy(format!("{name}: it is packed with {kind}"), remedy))
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, Fail> {
    String::from_utf8(bytes).map_err(|error| {
        let upto = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..upto]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        let wide = matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let (is, from) = if wide { (", it is UTF-16", "utf16") } else { ("", "latin1") };
        let why = format!("{name}:{line}:{column}: this is not UTF-8{is}");
        Fail::with_remedy(why, format!("iconv -f {from} -t utf8 {name} | crm simulate --cib -"))
    })
}

/// A problem of the XML reader as all texts' problems are shown.
fn diagnostic(
    severity: Severity,
    name: &str,
    lines: &[&str],
    problem: &xml::Problem,
) -> Diagnostic {
    let number = usize::try_from(problem.line).unwrap_or(1).max(1);
    let line = lines.get(number - 1).copied().unwrap_or_default();
    let column = usize::try_from(problem.column).unwrap_or(1).max(1);
    // Of a long line (some documents are one) the part around the place is shown.
    let cut = if line.chars().nth(LINE_MAX).is_some() { column.saturating_sub(60) } else { 0 };
    let source: String = line.chars().skip(cut).take(LINE_MAX).collect();
    let source = source.as_str().into();
    let place = Place { file: name.into(), line: number, column, length: 1, source };
    let mut out = Diagnostic::new(severity, problem.code, Some(&place), problem.text.clone());
    out.cut = cut;
    out.expected.clone_from(&problem.expected);
    out.help.clone_from(&problem.help);
    out
}

/// Longest line that is shown whole.
const LINE_MAX: usize = 120;
/// Findings that are shown: those after them mostly come from the first ones.
const SHOWN: usize = 20;

fn findings(
    severity: Severity,
    name: &str,
    text: &str,
    problems: &[xml::Problem],
) -> Vec<Diagnostic> {
    let lines: Vec<&str> = text.lines().collect();
    problems.iter().take(SHOWN).map(|p| diagnostic(severity, name, &lines, p)).collect()
}

/// Shows what was taken and probably not meant so.
fn warn(shell: &mut Shell<'_>, found: &[Diagnostic], all: usize) -> Vec<String> {
    for finding in found {
        shell.ui.say(&finding.render());
    }
    if all > found.len() {
        shell.ui.say(&format!("... and {} more", all - found.len()));
    }
    found.iter().map(ToString::to_string).collect()
}
