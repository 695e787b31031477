//! The configure text against what Debian's crmsh 4.4.1 answered. Needs `../shared`; skips loudly where it is absent.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use crm_core::cib::Cib;
use crm_core::text::{Event, Session, show};
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "a test that reads its cases")]
fn shared(path: &str) -> Option<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let text = std::fs::read_to_string(root.join(path)).ok();
    if text.is_none() {
        eprintln!("SKIPPED: {path} is not in {}", root.display());
    }
    text
}

/// Runs a text; the CIB and the first refusal.
fn run(text: &str) -> (Session, Option<String>) {
    let mut session = Session::new(Cib::default(), 1);
    session.feed("case", text);
    let mut refused = None;
    while let Some(event) = session.next_event().or_else(|| session.end()) {
        if let Event::Refused(error) = event {
            refused.get_or_insert_with(|| error.to_string());
        }
    }
    (session, refused)
}

/// The configure block of seed 002, up to `quit`.
fn seed_block(seed: &str) -> &str {
    let start = seed.find("property stonith-enabled=false").expect("the block");
    let rest = seed.get(start..).expect("a start on a character");
    let end = rest.find("\nquit\n").expect("its end");
    rest.get(..end + "\nquit\n".len()).expect("an end on a character")
}

#[test]
fn the_seed_commits_verbatim_and_is_shown_as_crmsh_shows_it() {
    let Some(seed) = shared("seeds/002-pacemaker-drbd-nfs.txt") else { return };
    let mut session = Session::new(Cib::default(), 1);
    session.feed("<stdin>", seed_block(&seed));
    let mut verbs = Vec::new();
    while let Some(event) = session.next_event() {
        match event {
            Event::Changed => {}
            Event::Verb(verb) => verbs.push(verb.name),
            Event::Refused(error) => panic!("{}", error.render()),
        }
    }
    assert_eq!(verbs, ["show", "commit", "quit"]);
    assert_eq!(show(session.cib()), include_str!("data/seed-002.show"));
}

/// The cases name resources that they do not define; the oracle had a primitive for each of them.
fn stand_ins(input: &str, shown: &str) -> String {
    let defines = |id: &str| {
        let mut words = input.split_whitespace();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("primitive") && words.next() == Some(id) {
                return true;
            }
        }
        false
    };
    let stand_in = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words.as_slice(), ["primitive", id, "ocf:pacemaker:Stateful"] if !defines(id))
    };
    shown.lines().filter(stand_in).map(|line| format!("{line}\n")).collect()
}

#[test]
fn public_cases_are_shown_as_crmsh_shows_them() {
    let Some(cases) = shared("conformance/crmsh/cases.jsonl") else { return };
    let (mut same, mut refused, mut differs) = (0, 0, Vec::new());
    let mut total = 0;
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("one JSON per line");
        let oracle = &case["debian_4_4_1"];
        let (Some(input), Some(expected)) = (case["input"].as_str(), oracle["show"].as_str())
        else {
            continue;
        };
        if case.get("base").is_some() || oracle["ok"] != true {
            continue;
        }
        // The oracle had no nodes: it writes levels without a target for the nodes of the day, and so for none (docs/compat.md).
        if expected.trim_end() == "fencing_topology" {
            assert_eq!(run(input).1, None, "{input}");
            continue;
        }
        total += 1;
        let (session, error) = run(&(stand_ins(input, expected) + input));
        match error {
            Some(why) => {
                refused += 1;
                if std::env::args().any(|a| a == "--nocapture") {
                    println!("REFUSED {input:?}: {why}");
                }
            }
            None if show(session.cib()).trim_end() == expected.trim_end() => same += 1,
            None => differs.push((input.to_owned(), expected.to_owned(), show(session.cib()))),
        }
    }
    for (input, expected, ours) in &differs {
        println!("DIFFERS\n{input}\n--- crmsh\n{expected}\n--- ours\n{ours}");
    }
    println!("{total} cases: {same} the same, {} differ, {refused} refused", differs.len());
    assert!(same >= 277 && differs.len() <= 10, "{same} of {total} the same");
}
