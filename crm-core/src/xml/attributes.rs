//! Attribute sets: several of them, with scores, references and rules, become one set of pairs.

use super::Reader;
use super::rule::About;
use super::tree::Element;
use crate::cib::{Nv, NvSet, Score};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The set of cluster options that Pacemaker's own tools write.
const FIRST_OPTIONS: &str = "cib-bootstrap-options";

/// What the rules of a set may be about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sets<'a> {
    /// Nothing but the time.
    Plain,
    /// This agent (`rsc_defaults`) and operation (`op_defaults`).
    Of(About<'a>),
}

impl<'a> Reader<'a> {
    /// The sets called `name` below `owner` as one: higher scores first, of equal ones the last; the first to give a name wins.
    pub(super) fn attributes(
        &mut self,
        owner: Element<'a>,
        name: &'static str,
        sets: Sets<'_>,
    ) -> NvSet {
        let mut found: Vec<Element<'a>> = Vec::new();
        for set in owner.named(name) {
            match self.resolve(set) {
                Some(set) => found.push(set),
                None => self.wrong(set, format!("no element has the id `{}`", set.word("id-ref"))),
            }
        }
        found.reverse();
        found.sort_by_key(|set| {
            // The cluster's own options stand in a set that counts before all others.
            let own = name == "cluster_property_set" && set.attr("id") == Some(FIRST_OPTIONS);
            let score = set.attr("score").and_then(Score::parse).unwrap_or_default();
            (!own, Reverse(score))
        });
        let mut out = NvSet::default();
        let mut taken: BTreeSet<&'a str> = BTreeSet::new();
        for set in found {
            let about = match sets {
                Sets::Plain => About::default(),
                Sets::Of(about) => about,
            };
            let mut rules = set.named("rule").peekable();
            let applies = rules.peek().is_none() || rules.any(|rule| self.rule(rule, &about));
            for child in set.children() {
                match child.name() {
                    "rule" => {}
                    "nvpair" if applies => self.pair(child, &mut taken, &mut out),
                    "nvpair" => {}
                    _ => self.unknown(child, name),
                }
            }
        }
        out
    }

    fn pair(&mut self, pair: Element<'a>, taken: &mut BTreeSet<&'a str>, out: &mut NvSet) {
        let Some(target) = self.resolve(pair) else {
            self.wrong(pair, format!("no element has the id `{}`", pair.word("id-ref")));
            return;
        };
        let Some(name) = pair.attr("name").or_else(|| target.attr("name")) else {
            self.wrong(pair, "`nvpair` without a name".to_owned());
            return;
        };
        // Pacemaker's word for "as if it were not there".
        let given = target.attr("value").filter(|v| *v == "#default").is_none();
        if given && taken.insert(name) {
            let value = target.attr("value").map(str::to_owned);
            out.pairs.push(Nv { name: name.to_owned(), value });
        }
    }

    /// The element itself, or the one that it refers to.
    pub(super) fn resolve(&self, element: Element<'a>) -> Option<Element<'a>> {
        match element.attr("id-ref") {
            Some(id) => self.ids.get(id).copied(),
            None => Some(element),
        }
    }
}
