//! `crm why RESOURCE [NODE]`: the plan's reasons as an answer; the first line is it.

use crate::Shell;
use crate::args::{Format, WhyArgs};
use crate::fail::Fail;
use crate::resource::known as known_resource;
use crate::scene::{Extent, Scene, load};
use crate::status::clock;
use crate::status::picture::rc_word;
use crate::ui::table;
use crm_core::text::nearest;
use crm_core::why::{Answer, Facts, Failure, Standing, Verdict, why};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Version of the JSON layout: counts up when a field changes its meaning or goes.
const LAYOUT: u32 = 1;

/// Carries the command out.
pub(crate) fn run(shell: &mut Shell<'_>, args: &WhyArgs) -> Result<(), Fail> {
    let scene = load(shell, &args.scene, Extent::All)?;
    let facts = Facts::new(&scene.document, scene.mind);
    if let Some(node) = &args.node {
        known_node(&scene, node)?;
    }
    let Some(answer) = why(&facts, &args.resource, args.node.as_deref()) else {
        known_resource(&scene.document.cib, &args.resource)?;
        return Err(Fail::refused(format!("`{}` has nothing in it", args.resource)));
    };
    match args.output {
        Format::Json => {
            let mut value = serde_json::to_value(&answer)
                .map_err(|e| Fail::Broken(anyhow::Error::new(e).context("write JSON")))?;
            if let Value::Object(map) = &mut value {
                map.insert("layout".to_owned(), LAYOUT.into());
                map.insert("assumed".to_owned(), json!(scene.assumed));
                map.insert("warnings".to_owned(), json!(scene.warnings));
            }
            shell.json(&value)
        }
        Format::Text => {
            let text = render(&answer, args.node.is_some(), &shell.zone);
            shell.ui.data(&text);
            Ok(())
        }
    }
}

/// Nodes that run things may be known from the status alone.
fn known_node(scene: &Scene, name: &str) -> Result<(), Fail> {
    let document = &scene.document;
    if document.cib.node(name).is_some() || document.nodes.contains_key(name) {
        return Ok(());
    }
    let mut names: Vec<&str> = document.cib.nodes.iter().map(|n| n.name.as_str()).collect();
    names.extend(document.nodes.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    let remedy = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the nodes are: {}", names.join(", ")),
    };
    Err(Fail::with_remedy(format!("there is no node `{name}`"), remedy))
}

/// The whole answer.
fn render(answer: &Answer, about_node: bool, zone: &TimeZone) -> String {
    let mut out = format!("{}\n", answer.answer);
    let told = |text: &str| text == answer.answer;
    if answer.instances.len() > 1 && !about_node {
        for instance in answer.instances.iter().filter(|i| !told(&i.answer)) {
            let _infallible = writeln!(out, "  {}", instance.answer);
        }
    }
    let rows: Vec<Vec<String>> = answer.nodes.iter().map(row).collect();
    out.push_str(&table(&rows, "  "));
    for cause in &answer.waits {
        let line = format!("{} {}", cause.resource, cause.text);
        if !answer.answer.contains(&cause.text) {
            let _infallible = writeln!(out, "waits: {line}");
        }
    }
    for failure in &answer.failures {
        let _infallible = writeln!(out, "failed: {}", failure_words(failure, zone));
    }
    if !answer.remedies.is_empty() {
        out.push_str("to change it:\n");
        let rows: Vec<Vec<String>> = answer
            .remedies
            .iter()
            .map(|r| match r.command.as_str() {
                "" => vec!["-".to_owned(), r.effect.clone()],
                command => vec![command.to_owned(), r.effect.clone()],
            })
            .collect();
        out.push_str(&table(&rows, "  "));
    }
    out
}

/// Node, what it is to the resource, its score, what that is made of.
fn row(verdict: &Verdict) -> Vec<String> {
    let word = match verdict.standing {
        Standing::Runs => "runs here",
        Standing::Leaves => "leaves",
        Standing::Chosen => "chosen",
        Standing::Possible => "possible",
        Standing::Cannot => "cannot",
    };
    let score = verdict.score.map(|s| format!("score {s}")).unwrap_or_default();
    let mut texts: Vec<&str> = Vec::new();
    for text in verdict.parts.iter().map(|p| p.text.as_str()) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        texts.push(&verdict.text);
    }
    vec![verdict.node.clone(), word.to_owned(), score, texts.join("; ")]
}

/// `web: monitor every 10s on alpha returned 7 (not running) at TIME: the agent's words; 2 failures, forgotten in 40s`.
pub(crate) fn failure_words(failure: &Failure, zone: &TimeZone) -> String {
    let op = match (failure.op.as_str(), failure.interval_ms) {
        ("", _) => "an operation".to_owned(),
        ("monitor", 0) => "probe".to_owned(),
        (op, 0) => op.to_owned(),
        (op, ms) => format!("{op} every {}", clock::span(ms)),
    };
    let how = match failure.ended {
        "timeout" => "timed out".to_owned(),
        "not-started" => "could not be started".to_owned(),
        "cancelled" => "was cancelled".to_owned(),
        "unknown" => "failed".to_owned(),
        _ => format!("returned {} ({})", failure.rc, rc_word(failure.rc)),
    };
    let when = match failure.when_ms {
        0 => String::new(),
        ms => format!(" at {}", clock::long(ms, zone)),
    };
    let reason = match failure.reason.trim() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    let count = match failure.fail_count {
        0 => "not counted".to_owned(),
        1 => "1 failure".to_owned(),
        n if n >= 1_000_000 => "fail count INFINITY".to_owned(),
        n => format!("{n} failures"),
    };
    let end = match failure.expires_in_ms {
        None if failure.fail_count > 0 => ", kept until a cleanup".to_owned(),
        None => String::new(),
        Some(0) => ", no longer counted".to_owned(),
        Some(ms) => format!(", forgotten in {}", clock::span(ms.div_ceil(1_000) * 1_000)),
    };
    let (resource, node) = (&failure.resource, &failure.node);
    format!("{resource}: {op} on {node} {how}{when}{reason}; {count}{end}")
}
