//! `fencing-topology`: levels by target; numbers only say the order.

use super::tree::Element;
use super::{PROBLEMS_MAX, Reader};
use crate::cib::{FencingRule, FencingTarget};
use std::collections::BTreeMap;

const TARGETS: &str = "target, target-pattern, or target-attribute with target-value";

impl<'a> Reader<'a> {
    /// Levels with one number belong together, as Pacemaker takes them; targets stay in the order in which they are first named.
    pub(super) fn levels(&mut self, configuration: Element<'a>) {
        let Some(section) = configuration.child("fencing-topology") else { return };
        let mut order: Vec<FencingTarget> = Vec::new();
        let mut levels: BTreeMap<FencingTarget, BTreeMap<u8, Vec<String>>> = BTreeMap::new();
        for element in section.children() {
            if element.name() != "fencing-level" {
                self.unknown(element, "fencing-topology");
                continue;
            }
            let Some(target) = target(element) else {
                self.idle(element, "this level names no node".to_owned(), TARGETS);
                continue;
            };
            let index = element.word("index").parse::<u8>().ok().filter(|n| (1..=9).contains(n));
            let Some(index) = index else {
                let text = format!("`{}` is no number of a level (1-9)", element.word("index"));
                self.idle(element, text, "a number from 1 to 9");
                continue;
            };
            let devices = element.word("devices").split(',').map(str::trim);
            let devices = devices.filter(|id| !id.is_empty()).map(str::to_owned);
            if !levels.contains_key(&target) {
                order.push(target.clone());
            }
            levels.entry(target).or_default().entry(index).or_default().extend(devices);
        }
        for target in order {
            let own = levels.remove(&target).unwrap_or_default().into_values();
            let levels: Vec<Vec<String>> = own.filter(|devices| !devices.is_empty()).collect();
            if !levels.is_empty() {
                self.out.cib.fencing.push(FencingRule { target, levels });
            }
        }
    }

    /// As in Pacemaker, what cannot be read of a level takes only that level away; it is told.
    fn idle(&mut self, element: Element<'_>, text: String, expected: &str) {
        if self.out.warnings.len() < PROBLEMS_MAX {
            let problem = element.problem("CRM0052", text).expecting(expected);
            self.out.warnings.push(problem);
        }
    }
}

fn target(element: Element<'_>) -> Option<FencingTarget> {
    if let Some(name) = element.attr("target") {
        return Some(FencingTarget::Node(name.to_owned()));
    }
    if let Some(regex) = element.attr("target-pattern") {
        return Some(FencingTarget::Pattern(regex.to_owned()));
    }
    let (name, value) = (element.attr("target-attribute")?, element.attr("target-value")?);
    Some(FencingTarget::Attribute { name: name.to_owned(), value: value.to_owned() })
}
