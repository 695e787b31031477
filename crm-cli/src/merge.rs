//! `crm cluster merge`: two lines that have parted, side by side, and one made of them (ADR-0016).

use crate::Shell;
use crate::args::{MergeArgs, Word};
use crate::commit::findings;
use crate::fail::Fail;
use crate::source::{Input, Source};
use crate::status::clock::sortable;
use crate::text_file::refuse;
use crm_core::cib::{Cib, Resource, Role};
use crm_core::diff::{Change, diff, render};
use crm_core::merge::{Choices, Difference, Fate, Side, Trouble, compare, merge};
use crm_core::text::Spans;
use crm_proto::local::{Divergence, Request};
use crm_proto::peer::Line;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

/// Carries it out; without `--keep` it only shows.
pub(crate) fn run(shell: &mut Shell<'_>, args: &MergeArgs) -> Result<(), Fail> {
    let lines = shell.daemon.divergence()?;
    let choices = choices(args);
    let base = lines.base.as_ref().map(|revision| &*revision.cib);
    let merged = merge(base, &lines.ours.cib, &lines.theirs.cib, &choices);
    if let Err(unknown @ Trouble::Unknown(_)) = merged {
        return Err(Fail::with_remedy(unknown.to_string(), "crm cluster merge"));
    }
    let Some(keep) = &args.keep else {
        let differences = compare(base, &lines.ours.cib, &lines.theirs.cib);
        shell.ui.data(&picture(&lines, &differences, &shell.zone));
        shell.ui.data(&prospect(&lines, merged.as_ref()));
        return Ok(());
    };
    check_sides(&lines, keep)?;
    let cib = merged.map_err(|trouble| stuck(&trouble))?;
    let (warnings, errors) = findings(shell, &lines.ours.cib, &cib, &Spans::new());
    for warning in &warnings {
        shell.ui.say(&warning.render());
    }
    if !errors.is_empty() {
        return Err(refuse(&errors));
    }
    shell.ui.say(&prospect(&lines, Ok(&cib)));
    let other = &lines.theirs.node;
    if !args.yes && !asked(other)? {
        shell.ui.say(&format!("nothing was changed; `--yes` has {other} give up its line"));
        return Ok(());
    }
    let words = shell.daemon.done(&Request::Merge {
        base: lines.ours.version,
        theirs: lines.theirs.version,
        cib: Box::new(cib),
        message: format!("cluster merge --keep {keep}"),
    })?;
    shell.ui.say(&words);
    Ok(())
}

const fn side(word: Word) -> Side {
    match word {
        Word::Ours => Side::Ours,
        Word::Theirs => Side::Theirs,
    }
}

fn choices(args: &MergeArgs) -> Choices {
    let take = args.take.iter().map(|(word, object)| (object.clone(), side(*word)));
    Choices { prefer: args.prefer.map(side), take: take.collect() }
}

/// Who keeps its line has to be asked itself; and the other one must be alone.
fn check_sides(lines: &Divergence, keep: &str) -> Result<(), Fail> {
    let (ours, theirs) = (&lines.ours.node, &lines.theirs.node);
    if keep == theirs {
        return Err(Fail::with_remedy(
            format!("{theirs} keeps its line only by its own word"),
            format!("run it there: crm cluster merge --keep {theirs}"),
        ));
    }
    if keep != ours {
        return Err(Fail::with_remedy(
            format!("`{keep}` is neither side of the divergence"),
            format!("--keep {ours}, or on {theirs}: --keep {theirs}"),
        ));
    }
    let others: Vec<&str> =
        lines.theirs.voters.iter().filter(|v| *v != theirs).map(String::as_str).collect();
    if let Some(first) = others.first() {
        return Err(Fail::with_remedy(
            format!("on the side of {theirs} {} votes too", others.join(", ")),
            format!("on {theirs}: crm cluster remove {first}; it joins anew after the merge"),
        ));
    }
    Ok(())
}

fn stuck(trouble: &Trouble) -> Fail {
    let remedy = match trouble {
        Trouble::Undecided(_) => {
            "say whose word counts: --take ours:ID or --take theirs:ID for each, or --prefer ours (or theirs) for all"
        }
        Trouble::Torn(_) => "decide otherwise with --take ours:ID or --take theirs:ID",
        Trouble::Unknown(_) => "crm cluster merge",
    };
    Fail::with_remedy(trouble.to_string(), remedy)
}

/// Asks on a terminal; elsewhere nobody said yes.
fn asked(other: &str) -> Result<bool, Fail> {
    let mut source = Source::stdin()?;
    if !source.interactive() {
        return Ok(false);
    }
    let prompt = format!("type {other} to have it give up its line, anything else to leave it: ");
    Ok(matches!(source.next(&prompt)?, Input::Line(line) if line.trim() == other))
}

/// Who went on when, and every object in which the two differ.
fn picture(lines: &Divergence, differences: &[Difference], zone: &TimeZone) -> String {
    let Divergence { ours, theirs, common, base } = lines;
    let mut out = format!("DIVERGED after generation {}\n", common.saturating_sub(1));
    for line in [ours, theirs] {
        for branch in line.branch.iter().skip(*common) {
            let at = sortable(branch.at_ms, zone);
            out.push_str(&format!("  {}: {at}  {}\n", line.node, branch.words));
        }
    }
    out.push_str(&match base {
        Some(r) => format!(
            "Both have version {} of the configuration ({} by {}: {}); {} is at {}, {} at {}\n",
            r.version,
            sortable(r.when_ms, zone),
            r.author,
            r.message,
            ours.node,
            ours.version,
            theirs.node,
            theirs.version
        ),
        None => "The last common configuration is not kept any more: what only one side has is taken for new there\n"
            .to_owned(),
    });
    let of = |fate| differences.iter().filter(move |d| d.fate == fate);
    for (node, whose) in [(&ours.node, Side::Ours), (&theirs.node, Side::Theirs)] {
        let changes = of(Fate::Only(whose)).filter_map(|d| d.change(whose));
        section(&mut out, &format!("Only {node} has changed"), changes);
    }
    section(
        &mut out,
        "Both have changed alike",
        of(Fate::Alike).filter_map(|d| d.change(Side::Ours)),
    );
    for difference in of(Fate::Conflict) {
        out.push_str(&format!("CONFLICT: both have changed {}\n", difference.object));
        for (node, whose) in [(&ours.node, Side::Ours), (&theirs.node, Side::Theirs)] {
            let words = difference.change(whose).map(|c| render(&[c])).unwrap_or_default();
            out.push_str(&indented(&format!("{node}: {words}"), "  "));
        }
    }
    if differences.is_empty() {
        out.push_str("The configurations say the same\n");
    }
    out
}

fn section(out: &mut String, head: &str, changes: impl Iterator<Item = Change>) {
    let changes: Vec<Change> = changes.collect();
    if !changes.is_empty() {
        out.push_str(&format!("{head}:\n{}", indented(&render(&changes), "  ")));
    }
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}

/// What runs on a node of its own line: primitives, by id.
fn running(line: &Line) -> BTreeSet<&str> {
    let known = line.status.nodes.get(&line.node).into_iter().flat_map(|n| &n.resources);
    let active = known.filter(|(_, h)| h.role.is_some_and(|role| role != Role::Stopped));
    active.map(|(id, _)| id.as_str()).collect()
}

/// A copy on each node is what was asked for.
fn cloned(cib: &Cib, id: &str) -> bool {
    matches!(cib.top_of(id), Some(Resource::Clone(_) | Resource::Bundle(_)))
}

/// What would be done if this node kept its line.
fn prospect(lines: &Divergence, merged: Result<&Cib, &Trouble>) -> String {
    let Divergence { ours, theirs, .. } = lines;
    let (here, there) = (running(ours), running(theirs));
    let both: Vec<&str> =
        here.intersection(&there).copied().filter(|id| !cloned(&ours.cib, id)).collect();
    let mut out = String::new();
    if !both.is_empty() {
        let both = both.join(", ");
        out.push_str(&format!("RUNS ON BOTH {} and {}: {both}\n", ours.node, theirs.node));
    }
    let only: Vec<&str> = there.difference(&here).copied().collect();
    if !only.is_empty() {
        out.push_str(&format!("Runs only on {}: {}\n", theirs.node, only.join(", ")));
    }
    out.push_str(&format!("`crm cluster merge --keep {}` on {} would:\n", ours.node, ours.node));
    out.push_str(&match merged {
        Err(trouble) => format!("  be refused: {trouble}\n"),
        Ok(cib) => match diff(&ours.cib, cib) {
            changes if changes.is_empty() => "  leave the configuration as it is here\n".to_owned(),
            changes => format!("  commit here:\n{}", indented(&render(&changes), "    ")),
        },
    });
    let stops: Vec<&str> = there.iter().copied().collect();
    if !stops.is_empty() {
        out.push_str(&format!("  stop on {}: {}\n", theirs.node, stops.join(", ")));
    }
    out.push_str(&format!(
        "  have {} keep a copy of its line, empty its log, and join again\n",
        theirs.node
    ));
    out.push_str(&volumes(ours, theirs, merged));
    out
}

/// Data are not merged: the block engine tells when both sides have written.
fn volumes(ours: &Line, theirs: &Line, merged: Result<&Cib, &Trouble>) -> String {
    let mut shared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in [ours, theirs] {
        let there = line.cib.volumes.iter().filter_map(|v| Some((v, line.volumes.get(&v.name)?)));
        for (volume, record) in there {
            let nodes: Vec<&str> = record.in_sync.iter().map(String::as_str).collect();
            let words = format!("{} says {}", line.node, nodes.join(", "));
            shared.entry(&volume.name).or_default().push(words);
        }
    }
    let kept = |name: &&str| merged.is_ok_and(|cib| cib.volume(name).is_some()) || merged.is_err();
    let mut out = String::new();
    for (name, words) in shared.iter().filter(|(name, _)| kept(name)) {
        out.push_str(&format!(
            "  leave the data of volume {name} alone (good ones: {})\n",
            words.join("; ")
        ));
    }
    if !out.is_empty() {
        out.push_str(&format!(
            "  (`crm volume status` tells then if both sides have written: `crm volume resolve NAME --discard {}` on {})\n",
            theirs.node, theirs.node
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::test_bed::Bed;
    use crm_core::cib::{Cib, Role};
    use crm_core::status::{ResourceHistory, Status};
    use crm_core::store::{Revision, VolumeRecord};
    use crm_core::text::{Session, read};
    use crm_proto::local::Divergence;
    use crm_proto::peer::{Branch, Line};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    fn cib(text: &str) -> Cib {
        let mut session = Session::new(Cib::default(), 1);
        read("t", text, &mut session).unwrap();
        session.cib().clone()
    }

    const COMMON: &str = "node 1: alpha\nnode 2: delta\nprimitive web Dummy params fake=1\n\
        volume r0 size=1GiB replica=alpha:/dev/a replica=delta:/dev/a\n";

    fn line(node: &str, version: u64, text: &str, runs: &[&str]) -> Line {
        let branch = |id: &str, words: &str, at_ms| {
            let (id, words) = (id.to_owned(), words.to_owned());
            Branch { id, words, at_ms }
        };
        let mut status = Status::default();
        let own = status.nodes.entry(node.to_owned()).or_default();
        for id in runs {
            let role = Some(Role::Started);
            let history = ResourceHistory { role, ..ResourceHistory::default() };
            own.resources.insert((*id).to_owned(), history);
        }
        let record = VolumeRecord { epoch: 2, in_sync: BTreeSet::from([node.to_owned()]) };
        let words = format!("generation 1 ({node}): UNFENCED, forced on {node} by root");
        Line {
            node: node.to_owned(),
            branch: vec![branch("0", "the founding", 0), branch(node, &words, 1_544_449_223_000)],
            voters: BTreeSet::from([node.to_owned()]),
            version,
            cib: cib(text),
            revisions: Vec::new(),
            status,
            volumes: BTreeMap::from([("r0".to_owned(), record)]),
        }
    }

    /// alpha (here) and delta: each has added a primitive, both have changed `web`.
    fn diverged() -> Bed {
        let ours = COMMON.replace("fake=1", "fake=2") + "primitive a Dummy\n";
        let theirs = COMMON.replace("fake=1", "fake=3") + "primitive d Dummy\n";
        let mut bed = Bed::new();
        let (author, message) = ("root@alpha".to_owned(), "configure".to_owned());
        let cib = Arc::new(cib(COMMON));
        bed.divergence = Some(Divergence {
            ours: line("alpha", 5, &ours, &["web", "a"]),
            theirs: line("delta", 4, &theirs, &["web", "d"]),
            common: 1,
            base: Some(Revision { version: 3, author, message, when_ms: 1_544_449_000_000, cib }),
        });
        bed
    }

    #[test]
    fn both_lines_are_shown_with_what_would_be_done_and_nothing_is_changed() {
        let mut bed = diverged();
        let (code, out, words) = bed.crm(&["cluster", "merge"]);
        assert_eq!((code, words.as_str()), (0, ""));
        assert_eq!(
            out,
            "DIVERGED after generation 0
  alpha: 2018-12-10 13:40:23  generation 1 (alpha): UNFENCED, forced on alpha by root
  delta: 2018-12-10 13:40:23  generation 1 (delta): UNFENCED, forced on delta by root
Both have version 3 of the configuration (2018-12-10 13:36:40 by root@alpha: configure); alpha is at 5, delta at 4
Only alpha has changed:
  + primitive a Dummy
Only delta has changed:
  + primitive d Dummy
CONFLICT: both have changed web
  alpha: ~ primitive web Dummy
      - params fake=1
      + params fake=2
  delta: ~ primitive web Dummy
      - params fake=1
      + params fake=3
RUNS ON BOTH alpha and delta: web
Runs only on delta: d
`crm cluster merge --keep alpha` on alpha would:
  be refused: both sides have changed web
  stop on delta: d, web
  have delta keep a copy of its line, empty its log, and join again
  leave the data of volume r0 alone (good ones: alpha says alpha; delta says delta)
  (`crm volume status` tells then if both sides have written: `crm volume resolve NAME --discard delta` on delta)
"
        );
        let (_, out, _) = bed.crm(&["cluster", "merge", "--take", "theirs:web"]);
        let commit = "  commit here:\n    + primitive d Dummy\n    ~ primitive web Dummy\n        - params fake=2\n        + params fake=3\n";
        assert!(out.contains(commit), "{out}");
        assert!(bed.merged.is_none());
    }

    #[test]
    fn a_line_is_given_up_only_when_all_is_decided_and_somebody_says_yes() {
        let mut bed = diverged();
        let keep = ["cluster", "merge", "--keep", "alpha"];
        let (code, _, words) = bed.crm(&keep);
        assert!(code == 1 && words.contains("both sides have changed web"), "{words}");
        assert!(words.contains("--take ours:ID"), "{words}");
        let (code, _, words) = bed.crm(&[&keep[..], &["--prefer", "ours"]].concat());
        assert!(code == 0 && words.contains("nothing was changed; `--yes`"), "{words}");
        assert!(bed.merged.is_none());
        let (code, _, words) = bed.crm(&[&keep[..], &["--prefer", "ours", "--yes"]].concat());
        assert_eq!(code, 0, "{words}");
        let (base, theirs, cib) = bed.merged.take().unwrap();
        assert_eq!((base, theirs), (5, 4));
        assert!(cib.primitive("a").is_some() && cib.primitive("d").is_some());
        assert_eq!(cib.primitive("web").unwrap().params.get("fake"), Some("2"));
    }

    #[test]
    fn the_other_side_is_kept_from_there_and_only_one_node_gives_up() {
        let mut bed = diverged();
        let keep = |bed: &mut Bed, node| {
            bed.crm(&["cluster", "merge", "--keep", node, "--prefer", "ours", "--yes"]).2
        };
        let words = keep(&mut bed, "delta");
        assert!(words.contains("run it there: crm cluster merge --keep delta"), "{words}");
        let words = keep(&mut bed, "beta");
        assert!(words.contains("neither side"), "{words}");
        let lines = bed.divergence.as_mut().unwrap();
        lines.theirs.voters.insert("gamma".to_owned());
        let words = keep(&mut bed, "alpha");
        assert!(words.contains("crm cluster remove gamma"), "{words}");
        assert!(bed.merged.is_none());
        let (code, _, words) = bed.crm(&["cluster", "merge", "--take", "theirs:nobody"]);
        assert!(code == 1 && words.contains("nobody is no object"), "{words}");
        let (code, _, words) = bed.crm(&["cluster", "merge", "--take", "nobody"]);
        assert!(code == 1 && words.contains("ours:ID or theirs:ID"), "{words}");
    }

    #[test]
    fn an_invalid_result_is_refused_as_a_whole_and_without_a_divergence_nothing_is_shown() {
        let mut bed = diverged();
        let lines = bed.divergence.as_mut().unwrap();
        lines.theirs.cib = cib(&(COMMON.to_owned() + "location l web 5: delta\n"));
        lines.ours.cib = cib(&COMMON.replace("primitive web Dummy params fake=1\n", ""));
        let (code, _, words) = bed.crm(&["cluster", "merge", "--keep", "alpha", "--yes"]);
        assert!(code == 1 && words.contains("nothing was changed"), "{words}");
        assert!(bed.merged.is_none());
        let (code, _, words) = Bed::new().crm(&["cluster", "merge"]);
        assert!(code == 1 && words.contains("the cluster has not diverged"), "{words}");
    }
}
