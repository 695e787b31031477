//! Cuts a document down to what still shows something.

use crate::tree::Xml;

/// The smallest document found for which `shows` still holds; `tries` bounds the work.
#[must_use]
pub fn minimise(document: &Xml, mut tries: usize, shows: &mut dyn FnMut(&Xml) -> bool) -> Xml {
    let mut best = document.clone();
    loop {
        let mut smaller = false;
        let mut at = 0;
        // Big things first: resources with all that speaks of them, then single elements, then attributes.
        let mut cuts = cuts(&best);
        while at < cuts.len() && tries > 0 {
            if let Some(candidate) = cut(&best, &cuts[at])
                && candidate != best
            {
                tries -= 1;
                if shows(&candidate) {
                    best = candidate;
                    smaller = true;
                    cuts = self::cuts(&best);
                    continue;
                }
            }
            at += 1;
        }
        if !smaller || tries == 0 {
            return best;
        }
    }
}

#[derive(Debug, Clone)]
enum Cut {
    /// A node by name and number: everywhere.
    Node(String, String),
    /// A resource by id: everywhere.
    Resource(String),
    /// An element by its path.
    Element(Vec<usize>),
    /// A group or clone is replaced by what it holds.
    Unwrap(Vec<usize>),
    /// An attribute that may be absent.
    Attr(Vec<usize>, String),
}

const MAY_GO: [&str; 22] = [
    "cluster_property_set",
    "instance_attributes",
    "meta_attributes",
    "utilization",
    "nvpair",
    "operations",
    "op",
    "rsc_location",
    "rsc_colocation",
    "rsc_order",
    "rsc_ticket",
    "resource_set",
    "resource_ref",
    "lrm_resource",
    "expression",
    "date_expression",
    "rsc_expression",
    "op_expression",
    "rule",
    "lifetime",
    "transient_attributes",
    "tags",
];
const SECTIONS: [&str; 5] = ["rsc_defaults", "op_defaults", "tickets", "ticket_state", "template"];
const OPTIONAL: [&str; 14] = [
    "first-action",
    "then-action",
    "kind",
    "symmetrical",
    "require-all",
    "sequential",
    "rsc-role",
    "with-rsc-role",
    "influence",
    "node-attribute",
    "resource-discovery",
    "loss-policy",
    "on-fail",
    "role",
];

fn cuts(document: &Xml) -> Vec<Cut> {
    let mut out = Vec::new();
    for node in document.find("node").into_iter().skip(1) {
        if let (Some(name), Some(id)) = (node.attr("uname"), node.attr("id")) {
            out.push(Cut::Node(name.to_owned(), id.to_owned()));
        }
    }
    for kind in ["clone", "group", "primitive"] {
        let ids = document.find(kind).into_iter().filter_map(|e| e.attr("id"));
        out.extend(ids.map(|id| Cut::Resource(id.to_owned())));
    }
    let histories = document.find("lrm_resource");
    let numbered = histories.iter().any(|h| h.attr("id").is_some_and(|id| id.contains(':')));
    let (mut elements, mut unwraps, mut attrs) = (Vec::new(), Vec::new(), Vec::new());
    walk(document, &mut Vec::new(), &mut |element, path| {
        // Whether there is fencing stays as it is: without devices it changes everything.
        // A recurring monitor in the history belongs to a configured one.
        let stays = ["stonith-enabled", "globally-unique", "monitor"];
        let fencing =
            element.all().iter().any(|e| e.attr("name").is_some_and(|n| stays.contains(&n)));
        if !fencing && (MAY_GO.contains(&element.name) || SECTIONS.contains(&element.name)) {
            elements.push(Cut::Element(path.to_vec()));
        }
        // Histories with instance numbers are of a clone.
        if matches!(element.name, "group" | "clone") && !numbered {
            unwraps.push(Cut::Unwrap(path.to_vec()));
        }
        for (name, _) in &element.attrs {
            if OPTIONAL.contains(&name.as_str()) && element.name != "op" || name == "on-fail" {
                attrs.push(Cut::Attr(path.to_vec(), name.clone()));
            }
        }
    });
    elements.sort_by_key(|cut| if let Cut::Element(path) = cut { path.len() } else { 0 });
    out.extend(elements);
    out.extend(unwraps);
    out.extend(attrs);
    out
}

fn walk(element: &Xml, path: &mut Vec<usize>, visit: &mut dyn FnMut(&Xml, &[usize])) {
    visit(element, path);
    for (index, child) in element.children.iter().enumerate() {
        path.push(index);
        walk(child, path, visit);
        path.pop();
    }
}

fn at<'a>(document: &'a mut Xml, path: &[usize]) -> Option<&'a mut Xml> {
    let mut here = document;
    for index in path {
        here = here.children.get_mut(*index)?;
    }
    Some(here)
}

fn cut(document: &Xml, cut: &Cut) -> Option<Xml> {
    let mut out = document.clone();
    match cut {
        Cut::Node(name, id) => {
            let speaks = |e: &Xml| {
                e.attr("uname") == Some(name)
                    || e.attr("node") == Some(name)
                    || (e.name == "expression" && e.attr("value") == Some(name))
                    || (e.name == "node_state" && e.attr("id") == Some(id))
            };
            drop_all(&mut out, &speaks);
            // Only empty rules are left of some constraints.
            tidy(&mut out);
        }
        Cut::Resource(id) => {
            let mut gone = vec![id.clone()];
            let whole = document.all().into_iter().find(|e| {
                matches!(e.name, "primitive" | "group" | "clone") && e.attr("id") == Some(id)
            })?;
            gone.extend(
                whole
                    .all()
                    .iter()
                    .filter(|e| matches!(e.name, "primitive" | "group"))
                    .filter_map(|e| e.attr("id").map(str::to_owned)),
            );
            let is = |word: Option<&str>| {
                word.is_some_and(|w| {
                    let base = w.split(':').next().unwrap_or(w);
                    gone.iter().any(|g| g == w || g == base)
                })
            };
            let speaks = |e: &Xml| {
                let own = matches!(
                    e.name,
                    "primitive" | "group" | "clone" | "lrm_resource" | "resource_ref" | "obj_ref"
                );
                own && is(e.attr("id"))
                    || ["rsc", "with-rsc", "first", "then"].iter().any(|a| is(e.attr(a)))
            };
            drop_all(&mut out, &speaks);
            tidy(&mut out);
        }
        Cut::Element(path) => {
            let (last, parent) = path.split_last()?;
            let parent = at(&mut out, parent)?;
            (*last < parent.children.len()).then(|| parent.children.remove(*last))?;
            tidy(&mut out);
        }
        Cut::Unwrap(path) => {
            let (last, parent) = path.split_last()?;
            let parent = at(&mut out, parent)?;
            let whole = parent.children.get(*last)?.clone();
            let id = whole.attr("id")?.to_owned();
            let inner: Vec<Xml> = whole
                .children
                .into_iter()
                .filter(|c| matches!(c.name, "primitive" | "group"))
                .collect();
            if parent.name != "resources" && inner.len() != 1 {
                return None;
            }
            let first = inner.first()?.attr("id")?.to_owned();
            parent.children.splice(*last..=*last, inner);
            rename(&mut out, &id, &first);
        }
        Cut::Attr(path, name) => {
            let element = at(&mut out, path)?;
            element.attrs.retain(|(k, _)| k != name);
        }
    }
    Some(out)
}

fn drop_all(element: &mut Xml, speaks: &dyn Fn(&Xml) -> bool) {
    element.children.retain(|c| !speaks(c));
    for child in &mut element.children {
        drop_all(child, speaks);
    }
}

fn rename(element: &mut Xml, from: &str, to: &str) {
    for (name, value) in &mut element.attrs {
        if value == from && matches!(name.as_str(), "rsc" | "with-rsc" | "first" | "then" | "id") {
            to.clone_into(value);
        }
    }
    for child in &mut element.children {
        rename(child, from, to);
    }
}

/// Takes away what has become empty and may not be.
fn tidy(element: &mut Xml) {
    for child in &mut element.children {
        tidy(child);
    }
    element.children.retain(|c| {
        let hollow = c.children.is_empty()
            && matches!(
                c.name,
                "rule"
                    | "resource_set"
                    | "group"
                    | "operations"
                    | "lrm_resource"
                    | "rsc_defaults"
                    | "op_defaults"
                    | "tags"
                    | "tag"
                    | "tickets"
            );
        let pointless = matches!(c.name, "rsc_colocation" | "rsc_order" | "rsc_location")
            && c.children.is_empty()
            && !["rsc", "first"].iter().any(|a| c.attr(a).is_some());
        let bare = c.name == "rsc_location" && c.children.is_empty() && c.attr("node").is_none();
        let empty_clone = c.name == "clone"
            && !c.children.iter().any(|i| matches!(i.name, "primitive" | "group"));
        !(hollow || pointless || bare || empty_clone)
    });
}

#[cfg(test)]
mod tests {
    use super::minimise;
    use crate::generate::{Mask, cluster};

    #[test]
    fn what_does_not_matter_is_cut_away() {
        let document = (0..200)
            .map(|seed| cluster(seed, &Mask::default()))
            .find(|d| d.find("rsc_order").len() > 1 && d.find("primitive").len() > 5)
            .unwrap();
        let small = minimise(&document, 10_000, &mut |d| !d.find("rsc_order").is_empty());
        assert_eq!(small.find("rsc_order").len(), 1);
        assert!(small.find("lrm_resource").is_empty());
        assert_eq!(small.find("node").len(), 1);
    }
}
