//! Changes of existing objects: delete, modgroup, rename, set.

use super::diagnostic::{Diagnostic, Place};
use super::known;
use super::nearest::nearest;
use super::statement::ModgroupStatement;
use crate::cib::{
    Cib, Constraint, FencingRule, FencingTarget, LocationTarget, NvSet, Op, Primitive, Resource,
};

type Done = Result<(), Box<Diagnostic>>;
type At<'a> = &'a dyn Fn(&str) -> Place;

/// Ids of all resources, also inside groups and clones.
pub(crate) fn resource_ids(cib: &Cib) -> Vec<String> {
    fn visit(resource: &Resource, out: &mut Vec<String>) {
        out.push(resource.id().to_owned());
        match resource {
            Resource::Primitive(_) => {}
            Resource::Group(group) => out.extend(group.members.iter().map(|m| m.id.clone())),
            Resource::Clone(clone) => visit(&clone.child, out),
            Resource::Bundle(bundle) => out.extend(bundle.child.iter().map(|p| p.id.clone())),
        }
    }
    let mut out = Vec::new();
    for resource in &cib.resources {
        visit(resource, &mut out);
    }
    out
}

/// Ids of all resources and constraints.
pub(crate) fn ids(cib: &Cib) -> Vec<String> {
    let mut out = resource_ids(cib);
    out.extend(cib.constraints.iter().map(|c| c.id().to_owned()));
    out
}

/// True when a resource or constraint is called `id`.
pub(crate) fn in_use(cib: &Cib, id: &str) -> bool {
    fn inside(resource: &Resource, id: &str) -> bool {
        resource.id() == id
            || match resource {
                Resource::Primitive(_) => false,
                Resource::Group(group) => group.members.iter().any(|m| m.id == id),
                Resource::Clone(clone) => inside(&clone.child, id),
                Resource::Bundle(bundle) => bundle.child.as_ref().is_some_and(|p| p.id == id),
            }
    }
    cib.resources.iter().any(|r| inside(r, id)) || cib.constraints.iter().any(|c| c.id() == id)
}

/// Takes a top-level primitive out.
pub(crate) fn take_primitive(cib: &mut Cib, id: &str) -> Option<Primitive> {
    let index =
        cib.resources.iter().position(|r| matches!(r, Resource::Primitive(p) if p.id == id))?;
    match cib.resources.remove(index) {
        Resource::Primitive(primitive) => Some(primitive),
        Resource::Group(_) | Resource::Clone(_) | Resource::Bundle(_) => None,
    }
}

fn missing(cib: &Cib, id: &str, place: &Place) -> Box<Diagnostic> {
    let mut known = ids(cib);
    known.extend(cib.nodes.iter().map(|n| n.name.clone()));
    known.extend(cib.volumes.iter().map(|v| v.name.clone()));
    known.extend((!cib.fencing.is_empty()).then(|| known::FENCING.to_owned()));
    Diagnostic::error("CRM0011", place, format!("there is no object `{id}`"))
        .suggesting(nearest(id, known.iter().map(String::as_str)))
}

/// Removes objects. Constraints that name them are in the way, unless `cascade`.
pub(crate) fn delete(cib: &mut Cib, doomed: &[String], cascade: bool, at: At<'_>) -> Done {
    let mut next = cib.clone();
    // Constraints first, then what holds others, so that the order of the ids does not matter.
    next.constraints.retain(|c| !doomed.iter().any(|id| id == c.id()));
    if doomed.iter().any(|id| id == known::FENCING) {
        next.fencing.clear();
    }
    let mut inner_last: Vec<&String> = doomed.iter().collect();
    inner_last.sort_by_key(|id| match cib.resource(id) {
        Some(Resource::Clone(_) | Resource::Bundle(_)) => 0,
        Some(Resource::Group(_)) => 1,
        Some(Resource::Primitive(_)) | None => 2,
    });
    for id in inner_last {
        if cib.constraints.iter().any(|c| c.id() == id) {
            continue;
        }
        if id == known::FENCING && !cib.fencing.is_empty() {
            continue;
        }
        let before = (next.resources.clone(), next.nodes.len(), next.volumes.len());
        if next.resource(id).is_some() || next.primitive(id).is_some() {
            remove_resource(&mut next, id, at)?;
        } else {
            next.nodes.retain(|n| n.name != *id);
            next.volumes.retain(|v| v.name != *id);
        }
        if (&before.0, before.1, before.2)
            == (&next.resources, next.nodes.len(), next.volumes.len())
        {
            return Err(missing(cib, id, &at(id)));
        }
        let mut in_the_way: Vec<String> = next
            .constraints
            .iter()
            .filter(|c| {
                let node = matches!(c, Constraint::Location(l) if l.node == *id);
                c.resources().contains(&id.as_str()) || node
            })
            .map(|c| c.id().to_owned())
            .collect();
        let without = without_levels(&next.fencing, id);
        if without != next.fencing {
            in_the_way.push(known::FENCING.to_owned());
        }
        if !in_the_way.is_empty() && !cascade {
            return Err(Diagnostic::error(
                "CRM0027",
                &at(id),
                format!("`{id}` is still named by {}", in_the_way.join(", ")),
            )
            .helping(format!("`delete --cascade {id}` removes these too")));
        }
        next.constraints.retain(|c| !in_the_way.iter().any(|id| id == c.id()));
        next.fencing = without;
    }
    *cib = next;
    Ok(())
}

/// The fencing levels without what names `id`. A level goes as a whole: with one of its devices less it would confirm what it cannot.
fn without_levels(rules: &[FencingRule], id: &str) -> Vec<FencingRule> {
    let node = |rule: &&FencingRule| !matches!(&rule.target, FencingTarget::Node(n) if n == id);
    let keep = |rule: &FencingRule| FencingRule {
        target: rule.target.clone(),
        levels: rule.levels.iter().filter(|l| !l.iter().any(|d| d == id)).cloned().collect(),
    };
    let kept = rules.iter().filter(node).map(keep);
    kept.filter(|rule| !rule.levels.is_empty()).collect()
}

fn remove_resource(cib: &mut Cib, id: &str, at: At<'_>) -> Done {
    if let Some(index) = cib.resources.iter().position(|r| r.id() == id) {
        match cib.resources.remove(index) {
            Resource::Primitive(_) => {}
            // What a group or clone held stays, on its own.
            Resource::Group(group) => {
                let members = group.members.into_iter().map(Resource::Primitive);
                cib.resources.splice(index..index, members);
            }
            Resource::Clone(clone) => cib.resources.insert(index, *clone.child),
            Resource::Bundle(bundle) => {
                let child = bundle.child.map(Resource::Primitive);
                cib.resources.splice(index..index, child);
            }
        }
        return Ok(());
    }
    let holder = cib.top_of(id).map(|r| r.id().to_owned()).unwrap_or_default();
    let group = cib.resources.iter_mut().find_map(|r| group_with(r, id));
    match group {
        Some(group) if group.members.len() > 1 => {
            group.members.retain(|m| m.id != id);
            Ok(())
        }
        _ => Err(Diagnostic::error(
            "CRM0027",
            &at(id),
            format!("`{id}` is all that `{holder}` holds"),
        )
        .helping(format!("delete `{holder}` too"))),
    }
}

fn group_with<'a>(resource: &'a mut Resource, id: &str) -> Option<&'a mut crate::cib::Group> {
    match resource {
        Resource::Primitive(_) | Resource::Bundle(_) => None,
        Resource::Group(group) => group.members.iter().any(|m| m.id == id).then_some(group),
        Resource::Clone(clone) => group_with(&mut clone.child, id),
    }
}

/// `modgroup GROUP add|remove MEMBER [after|before X]`.
pub(crate) fn modgroup(cib: &mut Cib, change: &ModgroupStatement, at: At<'_>) -> Done {
    let mut next = cib.clone();
    let absent = |what: &str, id: &str| {
        let known = ids(cib);
        Diagnostic::error("CRM0011", &at(id), format!("there is no {what} `{id}`"))
            .suggesting(nearest(id, known.iter().map(String::as_str)))
    };
    if !matches!(cib.resource(&change.group), Some(Resource::Group(_))) {
        return Err(absent("group", &change.group));
    }
    if cib.primitive(&change.member).is_none() {
        return Err(absent("primitive", &change.member));
    }
    let incoming = change.add.then(|| take_primitive(&mut next, &change.member)).flatten();
    let Some(Resource::Group(group)) = next.resource_mut(&change.group) else {
        return Err(absent("group", &change.group));
    };
    let inside = group.members.iter().position(|m| m.id == change.member);
    match (change.add, incoming, inside) {
        (true, Some(primitive), _) => {
            let index = anchor(group, change, at)?;
            group.members.insert(index, primitive);
        }
        // Already a member: it moves when a place is given.
        (true, None, Some(old)) => {
            let primitive = group.members.remove(old);
            let index = anchor(group, change, at)?;
            group.members.insert(index, primitive);
        }
        (true, None, None) => {
            let holder = cib.top_of(&change.member).map_or("another resource", Resource::id);
            let message = format!("`{}` belongs to `{holder}` already", change.member);
            return Err(Diagnostic::error("CRM0022", &at(&change.member), message));
        }
        (false, _, None) => {
            let message = format!("`{}` is not in `{}`", change.member, change.group);
            return Err(Diagnostic::error("CRM0011", &at(&change.member), message));
        }
        (false, _, Some(_)) if group.members.len() == 1 => {
            let message = format!("`{}` is all that `{}` holds", change.member, change.group);
            return Err(Diagnostic::error("CRM0027", &at(&change.member), message)
                .helping(format!("`delete {}` frees it", change.group)));
        }
        (false, _, Some(old)) => {
            let primitive = group.members.remove(old);
            next.resources.push(Resource::Primitive(primitive));
        }
    }
    *cib = next;
    Ok(())
}

fn anchor(
    group: &crate::cib::Group,
    change: &ModgroupStatement,
    at: At<'_>,
) -> Result<usize, Box<Diagnostic>> {
    let Some((after, other)) = &change.anchor else { return Ok(group.members.len()) };
    match group.members.iter().position(|m| m.id == *other) {
        Some(index) => Ok(index + usize::from(*after)),
        None => Err(Diagnostic::error(
            "CRM0011",
            &at(other),
            format!("`{other}` is not in `{}`", change.group),
        )
        .suggesting(nearest(other, group.members.iter().map(|m| m.id.as_str())))),
    }
}

/// `rename OLD NEW`; constraints follow.
pub(crate) fn rename(cib: &mut Cib, from: &str, to: &str, at: At<'_>) -> Done {
    fn in_resource(resource: &mut Resource, from: &str, to: &str) -> bool {
        let id = match resource {
            Resource::Primitive(p) => &mut p.id,
            Resource::Group(g) => &mut g.id,
            Resource::Clone(c) => &mut c.id,
            Resource::Bundle(b) => &mut b.id,
        };
        if id == from {
            to.clone_into(id);
            return true;
        }
        match resource {
            Resource::Primitive(_) => false,
            Resource::Group(g) => g.members.iter_mut().any(|m| {
                let hit = m.id == from;
                if hit {
                    to.clone_into(&mut m.id);
                }
                hit
            }),
            Resource::Clone(c) => in_resource(&mut c.child, from, to),
            Resource::Bundle(b) => match &mut b.child {
                Some(child) if child.id == from => {
                    to.clone_into(&mut child.id);
                    true
                }
                Some(_) | None => false,
            },
        }
    }
    if ids(cib).iter().any(|id| id == to) {
        let message = format!("the id `{to}` is in use already");
        return Err(Diagnostic::error("CRM0010", &at(to), message));
    }
    if let Some(constraint) = cib.constraints.iter_mut().find(|c| c.id() == from) {
        match constraint {
            Constraint::Location(c) => to.clone_into(&mut c.id),
            Constraint::Colocation(c) => to.clone_into(&mut c.id),
            Constraint::Order(c) => to.clone_into(&mut c.id),
        }
        return Ok(());
    }
    if !cib.resources.iter_mut().any(|r| in_resource(r, from, to)) {
        return Err(missing(cib, from, &at(from)));
    }
    for device in cib.fencing.iter_mut().flat_map(|rule| rule.levels.iter_mut().flatten()) {
        if device == from {
            to.clone_into(device);
        }
    }
    for constraint in &mut cib.constraints {
        for name in names_mut(constraint) {
            if name == from {
                to.clone_into(name);
            }
        }
    }
    Ok(())
}

fn names_mut(constraint: &mut Constraint) -> Vec<&mut String> {
    match constraint {
        Constraint::Location(c) => match &mut c.target {
            LocationTarget::Resource(id) => vec![id],
            LocationTarget::Pattern(_) => Vec::new(),
        },
        Constraint::Colocation(c) => {
            let sets = c.sets.iter_mut().flat_map(|s| &mut s.members).map(|m| &mut m.resource);
            [&mut c.rsc, &mut c.with].into_iter().chain(sets).collect()
        }
        Constraint::Order(c) => {
            let sets = c.sets.iter_mut().flat_map(|s| &mut s.members).map(|m| &mut m.resource);
            [&mut c.first, &mut c.then].into_iter().chain(sets).collect()
        }
    }
}

/// `set ID.NAME VALUE`, `set ID.OP.NAME VALUE`, `set ID.OP.INTERVAL.NAME VALUE`; also of nodes and `cib-bootstrap-options`.
pub(crate) fn set(cib: &mut Cib, path: &str, value: &str, place: &Place) -> Done {
    let mut known: Vec<String> = resource_ids(cib);
    known.extend(cib.nodes.iter().map(|n| n.name.clone()));
    known.extend(["cib-bootstrap-options", "rsc-options", "op-options"].map(str::to_owned));
    // Ids may have dots in them: the longest one that fits.
    let id = known
        .iter()
        .filter(|id| path.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('.')))
        .max_by_key(|id| id.len());
    let Some(id) = id else {
        let word = path.split('.').next().unwrap_or(path);
        return Err(Diagnostic::error("CRM0011", place, format!("there is no object `{word}`"))
            .expecting("ID.NAME or ID.OPERATION[.INTERVAL].NAME")
            .suggesting(nearest(word, known.iter().map(String::as_str))));
    };
    let rest = path.strip_prefix(id.as_str()).unwrap_or_default().trim_start_matches('.');
    let parts: Vec<&str> = rest.split('.').collect();
    if let Some(node) = cib.node_mut(id) {
        node.attributes.set(rest, value);
        return Ok(());
    }
    match id.as_str() {
        "cib-bootstrap-options" => cib.properties.set(rest, value),
        "rsc-options" => cib.rsc_defaults.set(rest, value),
        "op-options" => cib.op_defaults.set(rest, value),
        id => {
            if let Some(primitive) = cib.primitive_mut(id) {
                return set_primitive(primitive, &parts, value, place);
            }
            match cib.resource_mut(id) {
                Some(Resource::Group(g)) => set_attribute(&mut g.params, &mut g.meta, rest, value),
                Some(Resource::Clone(c)) => set_attribute(&mut c.params, &mut c.meta, rest, value),
                Some(Resource::Bundle(b)) => b.meta.set(rest, value),
                Some(Resource::Primitive(_)) | None => return Err(missing(cib, id, place)),
            }
        }
    }
    Ok(())
}

/// Where the name is already, else by its name: a known meta attribute goes to `meta`.
fn set_attribute(params: &mut NvSet, meta: &mut NvSet, name: &str, value: &str) {
    let is_meta = meta.pairs.iter().any(|nv| nv.name == name)
        || (!params.pairs.iter().any(|nv| nv.name == name)
            && (known::META.contains(&name) || known::CLONE_META.contains(&name)));
    if is_meta { meta.set(name, value) } else { params.set(name, value) }
}

fn set_primitive(primitive: &mut Primitive, parts: &[&str], value: &str, place: &Place) -> Done {
    let matches = |op: &Op, name: &str, interval: Option<&str>| {
        op.name == name
            && interval.is_none_or(|i| {
                op.attrs.get("interval") == Some(i)
                    || crate::cib::parse_duration_ms(i) == Some(op.interval_ms())
            })
    };
    let (operation, interval, name) = match parts {
        [name] => {
            set_attribute(&mut primitive.params, &mut primitive.meta, name, value);
            return Ok(());
        }
        [op, name] => (*op, None, *name),
        [op, interval, name] => (*op, Some(*interval), *name),
        _ => {
            return Err(Diagnostic::error("CRM0005", place, "the path has too many parts")
                .expecting("ID.NAME or ID.OPERATION[.INTERVAL].NAME"));
        }
    };
    match primitive.ops.iter_mut().find(|op| matches(op, operation, interval)) {
        Some(op) => {
            op.attrs.set(name, value);
            Ok(())
        }
        None => {
            let message = format!("`{}` has no such operation `{operation}`", primitive.id);
            let known = primitive.ops.iter().map(|op| op.name.as_str());
            Err(Diagnostic::error("CRM0011", place, message).suggesting(nearest(operation, known)))
        }
    }
}
