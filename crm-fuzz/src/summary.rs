//! What `crm_simulate -S` prints, read back: where things are afterwards, what is done. Instance numbers are dropped.
//!
//! Strict: a line it does not understand is an error, so that nothing is taken for equal that was not read.

use std::collections::{BTreeMap, BTreeSet};

/// Node and role of each running instance, by resource; and the nodes' states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scene {
    /// Sorted.
    pub resources: BTreeMap<String, Vec<(String, String)>>,
    /// Online or offline, with what else is said of it.
    pub nodes: BTreeMap<String, (bool, BTreeSet<String>)>,
}

/// A run of either engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Before anything is done.
    pub before: Scene,
    /// After the transition has run to its end.
    pub after: Scene,
    /// What is done, one line each, sorted: resource actions, fencing, shutdowns.
    pub actions: Vec<String>,
    /// Everything that was executed, sorted.
    pub executed: Vec<String>,
    /// The actions wait for each other in a ring: the transition did not run to its end.
    pub stuck: bool,
}

impl Decision {
    /// The actions without shutdowns, which are only seen when they are executed.
    #[must_use]
    pub fn announced(&self) -> Vec<&String> {
        self.actions.iter().filter(|a| !a.starts_with("Shutdown ")).collect()
    }
}

const WORDS: [&str; 14] = [
    "Started",
    "Stopped",
    "Promoted",
    "Unpromoted",
    "Starting",
    "Stopping",
    "Promoting",
    "Demoting",
    "Migrating",
    "Monitoring",
    "FAILED",
    "ORPHANED",
    "Master",
    "Slave",
];

/// Reads the whole text.
///
/// # Errors
/// The line that was not understood.
pub fn read(text: &str) -> Result<Decision, String> {
    let mut out = Decision::default();
    let mut section = "";
    let mut clone: Option<(String, usize)> = None;
    let mut fences = BTreeSet::new();
    for line in text.lines() {
        let header = [
            "Current cluster status",
            "Transition Summary",
            "Executing Cluster Transition",
            "Revised Cluster Status",
        ]
        .into_iter()
        .find(|h| line.get(..h.len()).is_some_and(|start| start.eq_ignore_ascii_case(h)));
        if let Some(header) = header {
            section = header;
            clone = None;
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let words = line.trim();
        if words.is_empty() || noise(words) {
            continue;
        }
        let words = words.strip_prefix("* ").unwrap_or(words);
        let done = match section {
            "Current cluster status" => status(&mut out.before, words, indent, &mut clone),
            "Revised Cluster Status" => status(&mut out.after, words, indent, &mut clone),
            "Transition Summary" => action(words).map(|a| out.actions.push(a)),
            "Executing Cluster Transition" => executed(words).map(|(text, shutdown)| {
                if let Some(node) = shutdown {
                    fences.insert(format!("Shutdown {node}"));
                }
                out.executed.push(text);
            }),
            // What stands before the first section is a preface.
            _ => Some(()),
        };
        done.ok_or_else(|| format!("not understood: {line:?}"))?;
    }
    for at in out.before.resources.values_mut().chain(out.after.resources.values_mut()) {
        at.sort();
    }
    out.actions.extend(fences);
    out.actions.sort();
    out.executed.sort();
    Ok(out)
}

fn noise(line: &str) -> bool {
    let begins = [
        "Using the original execution date",
        "Setting effective cluster time",
        "Performing Requested Modifications",
        "Transition failed: terminated",
        "An invalid transition was produced",
        "The cluster will",
        "notice: Unfencing Pacemaker Remote node",
        "notice: Only 'private' parameters",
        "Only 'private' parameters",
        "* Node List:",
        "* Full List of Resources:",
        "* No resources",
        "* No inactive resources",
        "No resources",
    ];
    begins.iter().any(|b| line.starts_with(b))
        || line.contains("*** Resource management is ")
        || line.contains("resource instances DISABLED")
        || line.contains("resource instances BLOCKED")
        || line.contains("Quorum")
        || (line.starts_with('(') && line.contains(")") && line.contains("warning:"))
}

fn role(word: &str) -> &str {
    match word {
        "Master" => "Promoted",
        "Slave" => "Unpromoted",
        other => other,
    }
}

/// Without the instance number.
fn base(id: &str) -> &str {
    match id.rsplit_once(':') {
        Some((base, number))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            base
        }
        _ => id,
    }
}

fn status(
    scene: &mut Scene,
    words: &str,
    indent: usize,
    clone: &mut Option<(String, usize)>,
) -> Option<()> {
    // Remote nodes and guests are nodes like others.
    let node = words.strip_prefix("Remote").or_else(|| words.strip_prefix("Guest"));
    let node = node.unwrap_or(words);
    for (prefix, online) in [("Online: [", true), ("OFFLINE: [", false)] {
        if let Some(rest) = node.strip_prefix(prefix) {
            for name in rest.trim_end_matches(']').split_whitespace() {
                scene.nodes.insert(name.to_owned(), (online, BTreeSet::new()));
            }
            return Some(());
        }
    }
    if let Some(rest) = node.strip_prefix("Node ") {
        let (name, state) = rest.split_once(": ")?;
        let name = name.split('@').next().unwrap_or(name);
        scene.nodes.insert(name.to_owned(), node_state(state));
        return Some(());
    }
    if clone.as_ref().is_some_and(|(_, at)| indent <= *at) {
        *clone = None;
    }
    if let Some(rest) = words.strip_prefix("Clone Set: ") {
        let (_, inner) = rest.split_once(" [")?;
        let (inner, _) = inner.split_once(']')?;
        *clone = Some((inner.to_owned(), indent));
        return Some(());
    }
    if words.starts_with("Resource Group: ") || words.starts_with("Container bundle") {
        return Some(());
    }
    if let Some((name, state)) = words.split_once("\t(") {
        let (_, state) = state.split_once("):")?;
        return resource(scene, base(name), state);
    }
    // `Started: [ a b ]`, `Stopped (disabled): [ c ]` in a clone.
    let (inner, _) = clone.as_ref()?;
    let (word, nodes) = words.split_once(": [")?;
    let word = role(word.split(' ').next()?);
    if !WORDS.contains(&word) {
        return None;
    }
    if word != "Stopped" {
        let word = if word == "Promoted" || word == "Unpromoted" { word } else { "Started" };
        let at = scene.resources.entry(inner.clone()).or_default();
        at.extend(
            nodes.trim_end_matches(']').split_whitespace().map(|n| (n.to_owned(), word.to_owned())),
        );
    }
    Some(())
}

fn node_state(text: &str) -> (bool, BTreeSet<String>) {
    let mut flags = BTreeSet::new();
    let mut online = true;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    for word in words {
        match word {
            "OFFLINE" | "offline" => online = false,
            "UNCLEAN" | "standby" | "maintenance" | "pending" => {
                flags.insert(word.to_lowercase());
            }
            _ => {}
        }
    }
    (online, flags)
}

fn resource(scene: &mut Scene, name: &str, state: &str) -> Option<()> {
    let mut text = state.trim();
    let mut nodes: Vec<&str> = Vec::new();
    if let Some((head, list)) = text.strip_suffix(']').and_then(|t| t.rsplit_once("[ ")) {
        nodes = list.split_whitespace().collect();
        text = head.trim();
    }
    while let Some((head, _)) = text.strip_suffix(')').and_then(|t| t.rsplit_once('(')) {
        text = head.trim();
    }
    let mut words = text.split_whitespace().peekable();
    let mut found = None;
    while let Some(word) = words.peek().copied().filter(|w| WORDS.contains(w)) {
        words.next();
        if !matches!(word, "FAILED" | "ORPHANED") {
            found = Some(role(word));
        }
    }
    let found =
        found.filter(|w| matches!(*w, "Stopped" | "Promoted" | "Unpromoted")).unwrap_or("Started");
    if nodes.is_empty() {
        nodes = words.by_ref().take(1).collect();
    }
    if words.next().is_some() {
        return None;
    }
    if found != "Stopped" {
        let at = scene.resources.entry(name.to_owned()).or_default();
        at.extend(nodes.into_iter().map(|n| (n.to_owned(), found.to_owned())));
    }
    Some(())
}

/// One line of the summary, in one form: `Move p1 n1 -> n2`.
fn action(words: &str) -> Option<String> {
    if words.starts_with("Fence (") || words.starts_with("Fencing (") {
        let (_, rest) = words.split_once('(')?;
        let (how, rest) = rest.split_once(") ")?;
        return Some(format!("Fence {} {how}", rest.split(' ').next()?));
    }
    let (word, rest) = words.split_once(' ')?;
    let (name, rest) = rest.trim().split_once(' ')?;
    let (_, details) = rest.split_once('(')?;
    let (details, _) = details.split_once(')')?;
    let sides: Vec<Vec<&str>> =
        details.split("->").map(|side| side.split_whitespace().collect()).collect();
    let is_role = |w: &str| {
        matches!(w, "Stopped" | "Started" | "Promoted" | "Unpromoted" | "Master" | "Slave")
    };
    let (mut from, mut to, from_role, to_role) = match sides.as_slice() {
        [one] => match one.as_slice() {
            [node] => (*node, *node, "", ""),
            [r, node] if is_role(r) => (*node, *node, role(r), role(r)),
            _ => return None,
        },
        [a, b] => match (a.as_slice(), b.as_slice()) {
            ([r], [s, node]) if is_role(r) && is_role(s) => {
                (if role(r) == "Stopped" { "" } else { *node }, *node, role(r), role(s))
            }
            ([a], [b]) => (*a, *b, "", ""),
            ([a], [b, r]) if is_role(r) => (*a, *b, role(r), role(r)),
            ([r, a], [s, b]) if is_role(r) && is_role(s) => (*a, *b, role(r), role(s)),
            _ => return None,
        },
        _ => return None,
    };
    match word {
        "Start" => from = "",
        "Stop" => to = "",
        _ => {}
    }
    Some(format!("{word} {} {from_role} {from} -> {to_role} {to}", base(name)))
}

/// One executed line without instance numbers, and the node when it shuts one down.
fn executed(words: &str) -> Option<(String, Option<String>)> {
    let known = ["Pseudo action:", "Resource action:", "Cluster action:", "Fencing "];
    if !known.iter().any(|k| words.starts_with(k)) {
        return None;
    }
    let shutdown = words
        .strip_prefix("Cluster action:")
        .filter(|rest| rest.trim().starts_with("do_shutdown"))
        .and_then(|rest| rest.rsplit_once(" on "))
        .map(|(_, node)| node.trim().to_owned());
    let plain: Vec<String> = words.split_whitespace().map(unnumbered).collect();
    Some((plain.join(" "), shutdown))
}

/// `p:0_start_0` and `p:0` become `p_start_0` and `p`.
fn unnumbered(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((head, tail)) = rest.split_once(':') {
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let after = tail.get(digits..).unwrap_or_default();
        out.push_str(head);
        if digits == 0 || !(after.is_empty() || after.starts_with('_')) {
            out.push(':');
            rest = tail;
        } else {
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::read;

    const TEXT: &str = "\
Current cluster status:
  * Node List:
    * Node n2: UNCLEAN (offline)
    * Online: [ n1 ]

  * Full List of Resources:
    * p\t(ocf:pacemaker:Dummy):\t FAILED n2 (UNCLEAN)
    * Clone Set: ms [m] (promotable):
      * m\t(ocf:pacemaker:Stateful):\t Promoted n2 (UNCLEAN)
      * Unpromoted: [ n1 ]

Transition Summary:
  * Fence (reboot) n2 'peer is no longer part of the cluster'
  * Recover    p     (       n2 -> n1 )
  * Promote    m:1   ( Unpromoted -> Promoted n1 )
  * Stop       m:0   ( Promoted n2 )  due to node availability

Executing Cluster Transition:
  * Fencing n2 (reboot)
  * Pseudo action:   m:0_stop_0
  * Resource action: p               start on n1

Revised Cluster Status:
  * Node List:
    * Online: [ n1 ]
    * OFFLINE: [ n2 ]

  * Full List of Resources:
    * p\t(ocf:pacemaker:Dummy):\t Started n1
    * Clone Set: ms [m] (promotable):
      * Promoted: [ n1 ]
      * Stopped: [ n2 ]
";

    #[test]
    fn all_sections_are_read() {
        let run = read(TEXT).unwrap();
        assert_eq!(
            run.actions,
            [
                "Fence n2 reboot",
                "Promote m Unpromoted n1 -> Promoted n1",
                "Recover p  n2 ->  n1",
                "Stop m Promoted n2 -> Promoted ",
            ]
        );
        let at = |node: &str, role: &str| (node.to_owned(), role.to_owned());
        assert_eq!(run.before.resources["m"], [at("n1", "Unpromoted"), at("n2", "Promoted")]);
        assert_eq!(run.after.resources["m"], [at("n1", "Promoted")]);
        assert_eq!(run.after.resources["p"], [at("n1", "Started")]);
        assert!(run.before.nodes["n2"].1.contains("unclean"));
        assert!(!run.after.nodes["n2"].0);
        assert_eq!(run.executed[1], "Pseudo action: m_stop_0");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(read("Transition Summary:\n  * Frobnicate everything\n").is_err());
        assert!(read("Revised Cluster Status:\n  * something new\n").is_err());
    }
}
