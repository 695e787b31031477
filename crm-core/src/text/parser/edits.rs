//! Our own `volume`, and the statements that edit: `monitor`, `delete`, `modgroup`, `rename`, `set`.

use super::{Cursor, Parsed, check_id, unexpected};
use crate::cib::{NvSet, Replica, parse_bool};
use crate::text::diagnostic::Diagnostic;
use crate::text::lexer::Token;
use crate::text::nearest::nearest;
use crate::text::size::parse_size;
use crate::text::statement::{ModgroupStatement, StatementKind, VolumeStatement};

const VOLUME_WORDS: [&str; 6] = ["size", "device", "port", "day0", "assume-clean", "replica"];

/// `volume NAME size=.. [device=..] [port=..] [day0=..] [assume-clean=..] replica=NODE:DISK ...`.
pub(super) fn volume(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let token = cursor.word("the volume's name")?;
    check_id(&token.text, token)?;
    let object = format!("volume:{}", token.text);
    cursor.mark(&object, "", token.place.clone());
    let mut out = VolumeStatement {
        name: token.text.clone(),
        size_bytes: 0,
        device: None,
        port: None,
        day0: 0,
        assume_clean: false,
        replicas: Vec::new(),
    };
    while let Some(token) = cursor.next() {
        let Some((name, value)) = token.text.split_once('=') else {
            return Err(unexpected(token, "NAME=VALUE"));
        };
        volume_word(&mut out, name, value, token)?;
        let part = match name {
            "replica" => format!("replica/{}", value.split(':').next().unwrap_or_default()),
            _ => name.to_owned(),
        };
        cursor.mark(&object, part, token.place.clone());
    }
    if out.size_bytes == 0 {
        return Err(Diagnostic::error("CRM0025", &cursor.end_place(), "the volume has no size")
            .expecting("size=256MiB"));
    }
    if out.replicas.is_empty() {
        return Err(Diagnostic::error("CRM0025", &cursor.end_place(), "the volume has no replica")
            .expecting("replica=NODE:/path/of/the/disk, once for each node"));
    }
    Ok(StatementKind::Volume(out))
}

fn volume_word(out: &mut VolumeStatement, name: &str, value: &str, token: &Token) -> Parsed<()> {
    let wrong = |why: String, expected: &str| {
        Diagnostic::error("CRM0025", &token.place, why).expecting(expected)
    };
    match name {
        "size" => {
            out.size_bytes = parse_size(value).ok_or_else(|| {
                wrong(format!("`{value}` is not a size"), "a multiple of 4096 bytes: 256MiB, 1GiB")
            })?;
        }
        "device" if value.starts_with('/') => out.device = Some(value.to_owned()),
        "device" => return Err(wrong(format!("`{value}` is not a path"), "/dev/NAME")),
        "port" => {
            let port = value.parse().ok().filter(|p| *p != 0);
            out.port = Some(port.ok_or_else(|| wrong(format!("`{value}` is no port"), "1-65535"))?);
        }
        "day0" => {
            out.day0 =
                u64::from_str_radix(value, 16).ok().filter(|d| *d != 0).ok_or_else(|| {
                    wrong(
                        format!("`{value}` is not a generation"),
                        "16 hexadecimal digits, not zero",
                    )
                })?;
        }
        "assume-clean" => {
            out.assume_clean = parse_bool(value)
                .ok_or_else(|| wrong(format!("`{value}` is no boolean"), "true or false"))?;
        }
        "replica" => {
            let (node, disk) = value
                .split_once(':')
                .filter(|(node, disk)| !node.is_empty() && disk.starts_with('/'))
                .ok_or_else(|| wrong(format!("`{value}` is not a replica"), "NODE:/path"))?;
            if out.replicas.iter().any(|r| r.node == node) {
                return Err(wrong(format!("`{node}` has two replicas"), "one replica on a node"));
            }
            out.replicas.push(Replica { node: node.to_owned(), disk: disk.to_owned() });
        }
        other => {
            return Err(unexpected(token, &VOLUME_WORDS.join("=, "))
                .suggesting(nearest(other, VOLUME_WORDS)));
        }
    }
    Ok(())
}

/// `monitor RSC[:ROLE] INTERVAL[:TIMEOUT]`.
pub(super) fn monitor(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let token = cursor.word("a primitive")?;
    let (resource, role) = match token.text.split_once(':') {
        Some((resource, role)) => (resource, Some(role)),
        None => (token.text.as_str(), None),
    };
    check_id(resource, token)?;
    let times = cursor.word("INTERVAL or INTERVAL:TIMEOUT")?;
    let (interval, timeout) = match times.text.split_once(':') {
        Some((interval, timeout)) => (interval, Some(timeout)),
        None => (times.text.as_str(), None),
    };
    let mut attrs = NvSet::default();
    attrs.set("interval", interval);
    if let Some(timeout) = timeout {
        attrs.set("timeout", timeout);
    }
    if let Some(role) = role {
        attrs.set("role", role);
    }
    cursor.mark(resource, "ref", token.place.clone());
    cursor.end("nothing more")?;
    Ok(StatementKind::Monitor { resource: resource.to_owned(), attrs })
}

/// `delete [--cascade|--force] ID...`.
pub(super) fn delete(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let mut cascade = false;
    let mut ids = Vec::new();
    while let Some(token) = cursor.next() {
        if matches!(token.text.as_str(), "--cascade" | "--force") {
            cascade = true;
            continue;
        }
        cursor.mark(&token.text, "ref", token.place.clone());
        ids.push(token.text.clone());
    }
    if ids.is_empty() {
        cursor.word("the ids of what to delete")?;
    }
    Ok(StatementKind::Delete { ids, cascade })
}

/// `modgroup GROUP add|remove MEMBER [after|before MEMBER]`.
pub(super) fn modgroup(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let (group, place) = cursor.reference("a group")?;
    cursor.mark(&group, "ref", place);
    let what = cursor.word("`add` or `remove`")?;
    let add = match what.text.to_ascii_lowercase().as_str() {
        "add" => true,
        "remove" => false,
        other => {
            return Err(
                unexpected(what, "`add` or `remove`").suggesting(nearest(other, ["add", "remove"]))
            );
        }
    };
    let (member, place) = cursor.reference("a primitive")?;
    cursor.mark(&member, "ref", place);
    let mut anchor = None;
    if let Some(token) = cursor.next() {
        let after = match token.text.to_ascii_lowercase().as_str() {
            "after" => true,
            "before" => false,
            _ => return Err(unexpected(token, "`after` or `before`")),
        };
        let (other, place) = cursor.reference("a member of the group")?;
        cursor.mark(&other, "ref", place);
        anchor = Some((after, other));
    }
    cursor.end("nothing more")?;
    Ok(StatementKind::Modgroup(ModgroupStatement { group, add, member, anchor }))
}

/// `rename OLD NEW`.
pub(super) fn rename(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let (from, place) = cursor.reference("an id")?;
    cursor.mark(&from, "ref", place);
    let (to, place) = cursor.reference("the new id")?;
    cursor.mark(&to, "ref", place);
    cursor.end("nothing more")?;
    Ok(StatementKind::Rename { from, to })
}

/// `set PATH VALUE`.
pub(super) fn set(cursor: &mut Cursor<'_>) -> Parsed<StatementKind> {
    let path = cursor.word("ID.NAME")?;
    let value = cursor.word("the value")?;
    cursor.mark(&path.text, "ref", path.place.clone());
    cursor.end("nothing more")?;
    Ok(StatementKind::Set { path: path.text.clone(), value: value.text.clone() })
}
