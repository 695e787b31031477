//! Rules: conditions on time, node attributes, agents and operations.

use super::Reader;
use super::time::parse_time_ms;
use super::tree::Element;
use crate::cib::parse_duration_ms;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What a rule is asked about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About<'a> {
    /// Attributes of the node, `#uname` and the like included.
    pub(super) node: Option<&'a BTreeMap<String, String>>,
    /// Class, provider, type.
    pub(super) agent: Option<(&'a str, &'a str, &'a str)>,
    /// Operation and interval.
    pub(super) op: Option<(&'a str, u64)>,
    /// Parameters and meta attributes of the resource, for `value-source`.
    pub(super) values: Option<(&'a crate::cib::NvSet, &'a crate::cib::NvSet)>,
    /// What the parts of a pattern matched, for `%0` to `%9` in names.
    pub(super) captures: &'a [String],
}

/// Puts what the parts of a pattern matched into a name.
pub(super) fn expand(name: &str, captures: &[String]) -> String {
    if captures.is_empty() {
        return name.to_owned();
    }
    let mut out = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.peek().and_then(|digit| digit.to_digit(10)).filter(|_| c == '%') {
            Some(digit) => {
                rest.next();
                let part = usize::try_from(digit).ok().and_then(|d| captures.get(d));
                out.push_str(part.map_or("", String::as_str));
            }
            None => out.push(c),
        }
    }
    out
}

impl<'a> Reader<'a> {
    /// Does the rule hold?
    pub(super) fn rule(&mut self, rule: Element<'a>, about: &About<'_>) -> bool {
        let Some(rule) = self.resolve(rule) else {
            self.wrong(rule, format!("no rule has the id `{}`", rule.word("id-ref")));
            return false;
        };
        let any = rule.attr("boolean-op") == Some("or");
        let mut holds = Vec::new();
        for part in rule.children() {
            holds.push(match part.name() {
                "rule" => self.rule(part, about),
                "expression" => node_expression(part, about),
                "date_expression" => self.date(part),
                "rsc_expression" => agent_expression(part, about),
                "op_expression" => op_expression(part, about),
                _ => {
                    self.unknown(part, "rule");
                    false
                }
            });
        }
        if any { holds.contains(&true) } else { !holds.contains(&false) }
    }

    fn date(&mut self, part: Element<'a>) -> bool {
        let time = |name: &str| part.attr(name).and_then(parse_time_ms);
        let now = self.now_ms;
        match part.attr("operation").unwrap_or("in_range") {
            "gt" => time("start").is_some_and(|start| now > start),
            "lt" => time("end").is_some_and(|end| now < end),
            "in_range" => {
                let start = time("start");
                let length = part.child("duration").and_then(super::time::duration_ms);
                let end = time("end").or_else(|| Some(start? + length?));
                start.is_none_or(|s| now >= s) && end.is_none_or(|e| now <= e)
            }
            "date_spec" => {
                let spec = part.child("date_spec");
                spec.is_some_and(|spec| super::time::matches_spec(spec, now))
            }
            other => {
                self.wrong(part, format!("no such operation on dates: `{other}`"));
                false
            }
        }
    }
}

fn agent_expression(part: Element<'_>, about: &About<'_>) -> bool {
    let Some((class, provider, kind)) = about.agent else { return false };
    let fits = |name: &str, value: &str| part.attr(name).is_none_or(|wanted| wanted == value);
    fits("class", class) && fits("provider", provider) && fits("type", kind)
}

fn op_expression(part: Element<'_>, about: &About<'_>) -> bool {
    let Some((name, interval)) = about.op else { return false };
    let wanted = part.attr("interval").and_then(parse_duration_ms);
    part.attr("name").is_none_or(|n| n == name) && wanted.is_none_or(|i| i == interval)
}

fn node_expression(part: Element<'_>, about: &About<'_>) -> bool {
    let Some(node) = about.node else { return false };
    let value = node.get(&expand(part.word("attribute"), about.captures)).map(String::as_str);
    let literal = part.attr("value");
    let wanted = match (part.attr("value-source"), about.values, literal) {
        (Some("param"), Some((params, _)), Some(name)) => params.get(name),
        (Some("meta"), Some((_, meta)), Some(name)) => meta.get(name),
        _ => literal,
    };
    let order = match (value, wanted) {
        (Some(value), Some(wanted)) => compare(value, wanted, part),
        _ => None,
    };
    match part.word("operation") {
        "defined" => value.is_some(),
        "not_defined" => value.is_none(),
        "eq" => order == Some(Ordering::Equal),
        "ne" => order != Some(Ordering::Equal),
        "lt" => order == Some(Ordering::Less),
        "lte" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        "gte" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => false,
    }
}

/// Numbers where both are (or the rule says so), else text without case.
fn compare(value: &str, wanted: &str, part: Element<'_>) -> Option<Ordering> {
    let ordering = !matches!(part.word("operation"), "eq" | "ne");
    match part.attr("type") {
        Some("string") => Some(fold(value).cmp(&fold(wanted))),
        Some("version") => {
            let numbers =
                |v: &str| v.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u64>>();
            Some(numbers(value).cmp(&numbers(wanted)))
        }
        Some(kind @ ("number" | "integer")) => {
            match (value.parse::<f64>(), wanted.parse::<f64>()) {
                (Ok(a), Ok(b)) if kind == "integer" => a.trunc().partial_cmp(&b.trunc()),
                (Ok(a), Ok(b)) => a.partial_cmp(&b),
                // What is no number is compared as text, as Pacemaker does.
                _ => Some(fold(value).cmp(&fold(wanted))),
            }
        }
        Some(_) | None if ordering => match (value.parse::<f64>(), wanted.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.partial_cmp(&b),
            _ => Some(fold(value).cmp(&fold(wanted))),
        },
        Some(_) | None => Some(fold(value).cmp(&fold(wanted))),
    }
}

fn fold(text: &str) -> String {
    text.to_ascii_lowercase()
}
