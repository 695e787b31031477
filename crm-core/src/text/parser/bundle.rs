//! `bundle ID ENGINE ... [network ... [port-mapping ...]...] [storage storage-mapping ...] [primitive RSC] [meta ...]`.

use super::{Cursor, Parsed, Section, pairs, unexpected};
use crate::cib::{Bundle, Container, Engine, Network, NvSet, PortMapping, StorageMapping};
use crate::text::diagnostic::Diagnostic;
use crate::text::lexer::Token;
use crate::text::nearest::nearest;
use crate::text::statement::{BundleStatement, StatementKind};

const ENDS: &[&str] = &[
    "docker",
    "podman",
    "rkt",
    "network",
    "port-mapping",
    "storage",
    "storage-mapping",
    "primitive",
    "meta",
];

pub(super) fn bundle(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let id = cursor.id("bundle")?;
    let mut container = None;
    let mut description = None;
    let mut out = BundleStatement {
        bundle: Bundle {
            id: id.clone(),
            description: None,
            container: Container { engine: Engine::Podman, attrs: NvSet::default() },
            network: None,
            storage: Vec::new(),
            child: None,
            meta: NvSet::default(),
        },
        child: None,
    };
    while let Some(token) = cursor.next() {
        let word = token.text.to_ascii_lowercase();
        if let Some(engine) = Engine::ALL.into_iter().find(|e| e.name() == word) {
            let attrs = section(cursor, &id, engine.name())?;
            container = Some(Container { engine, attrs });
        } else if let Some(text) = token.text.strip_prefix("description=") {
            description = Some(text.to_owned());
        } else {
            part(cursor, &mut out, &word, token)?;
        }
    }
    let Some(container) = container else {
        let text = format!("the bundle `{id}` says nothing of its containers");
        return Err(Diagnostic::error("CRM0025", &cursor.end_place(), text)
            .expecting("`docker image=...` or `podman image=...`"));
    };
    if container.attrs.get("image").is_none() {
        let text = format!("the containers of `{id}` have no image");
        return Err(Diagnostic::error("CRM0025", &cursor.end_place(), text).expecting("image=NAME"));
    }
    out.bundle.container = container;
    out.bundle.description = description;
    if out.child.is_some() && !out.bundle.reachable() {
        let text = format!("what is in `{id}` cannot be reached");
        return Err(Diagnostic::error("CRM0025", &cursor.end_place(), text)
            .expecting("`network control-port=...` or `network ip-range-start=...`"));
    }
    Ok(StatementKind::Bundle(Box::new(out)))
}

fn section(cursor: &mut Cursor<'_>, object: &str, part: &str) -> Parsed<NvSet> {
    let mut set = NvSet::default();
    pairs(cursor, &mut set, &Section { object, part, ends: ENDS })?;
    Ok(set)
}

fn part(
    cursor: &mut Cursor<'_>,
    out: &mut BundleStatement,
    word: &str,
    token: &Token,
) -> Parsed<()> {
    let id = out.bundle.id.clone();
    match word {
        "network" => {
            let attrs = section(cursor, &id, "network")?;
            out.bundle.network.get_or_insert_default().attrs = attrs;
        }
        "port-mapping" => {
            let network: &mut Network = out.bundle.network.get_or_insert_default();
            let part = format!("port-mapping/{}", network.ports.len());
            let (id, attrs) = mapping(cursor, &id, &part, token)?;
            network.ports.push(PortMapping { id, attrs });
        }
        "storage" => {}
        "storage-mapping" => {
            let part = format!("storage-mapping/{}", out.bundle.storage.len());
            let (id, attrs) = mapping(cursor, &id, &part, token)?;
            out.bundle.storage.push(StorageMapping { id, attrs });
        }
        "primitive" => {
            let (child, place) = cursor.reference("the resource inside")?;
            cursor.mark(&id, format!("ref/{child}"), place);
            out.child = Some(child);
        }
        "meta" => out.bundle.meta = section(cursor, &id, "meta")?,
        other => {
            return Err(unexpected(
                token,
                "`docker`, `podman`, `network`, `storage`, `primitive`, `meta`",
            )
            .suggesting(nearest(other, ENDS.iter().copied())));
        }
    }
    Ok(())
}

/// The pairs of a mapping, its id apart.
fn mapping(
    cursor: &mut Cursor<'_>,
    object: &str,
    part: &str,
    token: &Token,
) -> Parsed<(String, NvSet)> {
    let mut attrs = section(cursor, object, part)?;
    let id = attrs.get("id").map(str::to_owned);
    attrs.unset("id");
    id.map(|id| (id, attrs)).ok_or_else(|| {
        Diagnostic::error("CRM0025", &token.place, "the mapping has no id").expecting("id=NAME")
    })
}
