//! Levels of devices for a node: by the topology, else by priority.

use super::device::{Action, Config, Kind};
use crate::cib::{FencingRule, FencingTarget};
use regex::Regex;

/// Devices that must all succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Place in the topology, from 1; `None` for a device that is tried because it reaches the node.
    pub number: Option<usize>,
    /// Ids.
    pub devices: Vec<String>,
}

/// A rule with its expression compiled.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) rule: FencingRule,
    /// `None` also for an expression that cannot be read: it finds no node.
    regex: Option<Regex>,
}

impl Rule {
    pub(super) fn new(rule: &FencingRule) -> Self {
        let regex = match &rule.target {
            FencingTarget::Pattern(regex) => Regex::new(regex).ok(),
            FencingTarget::Every | FencingTarget::Node(_) | FencingTarget::Attribute { .. } => None,
        };
        Self { rule: rule.clone(), regex }
    }
}

impl Config {
    /// The rule of the topology for a node: by its name, else the first pattern or attribute in the order written, else the levels of every
    /// node. (Pacemaker's order among patterns and attributes is that of a hash table.)
    pub(super) fn rule(&self, target: &str) -> Option<&FencingRule> {
        let attributes = self.nodes.get(target);
        let class = |rule: &&Rule| match &rule.rule.target {
            FencingTarget::Node(name) => name.eq_ignore_ascii_case(target).then_some(0),
            FencingTarget::Pattern(_) => {
                rule.regex.as_ref().is_some_and(|r| r.is_match(target)).then_some(1)
            }
            FencingTarget::Attribute { name, value } => {
                attributes.is_some_and(|set| set.get(name) == Some(value)).then_some(1)
            }
            FencingTarget::Every => Some(2),
        };
        let ranked = self.rules.iter().filter_map(|rule| Some((class(&rule)?, rule)));
        // The first of the lowest class.
        ranked.min_by_key(|(class, _)| *class).map(|(_, rule)| &rule.rule)
    }

    /// The levels to try for a node, in order. Without a topology each device is a level of its own, by priority and then by id; whether it
    /// reaches the node is found out when its turn comes. Access is given by all devices that guard something.
    #[must_use]
    pub fn levels(&self, target: &str, action: Action) -> Vec<Level> {
        if action == Action::On {
            let guards = self.devices.values().filter(|d| d.unfences);
            let devices: Vec<String> = guards.map(|d| d.id.clone()).collect();
            if !devices.is_empty() {
                return vec![Level { number: None, devices }];
            }
        }
        if let Some(rule) = self.rule(target) {
            let numbered = rule.levels.iter().zip(1..);
            return numbered
                .map(|(devices, n)| Level { number: Some(n), devices: devices.clone() })
                .collect();
        }
        let able = |kind: Kind| kind == Kind::Agent || action.fences();
        let mut devices: Vec<_> = self.devices.values().filter(|d| able(d.kind)).collect();
        devices.sort_by_key(|d| (std::cmp::Reverse(d.priority), &d.id));
        let level = |id: &String| Level { number: None, devices: vec![id.clone()] };
        devices.into_iter().map(|d| level(&d.id)).collect()
    }
}
