//! Whatever is fed in: a message with its place or a plan, no panic, in bounded time. `CRM_FUZZ_SEEDS` says how much.

use crm_core::simulate::run;
use crm_core::xml::read;
use crm_fuzz::dice::Dice;
use crm_fuzz::engine::NOW_MS;
use crm_fuzz::generate::{Mask, cluster};
use crm_fuzz::tree::Xml;
use std::time::{Duration, Instant};

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CRM_FUZZ_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    2_000_000..2_000_000 + count
}

/// Reads, and plans what could be read. What is refused has a place and words.
fn survives(text: &str) -> bool {
    match read(text, NOW_MS) {
        Ok(document) => {
            drop(run(&document, &[]));
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|p| p.line > 0 && p.column > 0 && !p.text.is_empty()));
            false
        }
    }
}

/// Runs with the input at hand when it panics or takes too long.
fn watched(seed: u64, text: &str) {
    let start = Instant::now();
    let result = std::panic::catch_unwind(|| survives(text));
    assert!(result.is_ok(), "seed {seed} panicked on\n{text}");
    let took = start.elapsed();
    // Generous: other tests run on the same machine.
    assert!(took < Duration::from_secs(20), "seed {seed} took {took:?} on\n{text}");
}

#[test]
fn text_with_bytes_changed_is_refused_or_planned() {
    for seed in seeds() {
        let mut dice = Dice::new(seed);
        let mut bytes = cluster(seed, &Mask::default()).to_string().into_bytes();
        for _ in 0..dice.between(1, 4) {
            let at = dice.below(bytes.len());
            let end = (at + dice.between(1, 40)).min(bytes.len());
            match dice.below(5) {
                0 => drop(bytes.drain(at..end)),
                1 => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                2 => bytes[at] = b"<>\"&=/ \0\xff-0"[dice.below(11)],
                3 => bytes.truncate(at.max(1)),
                _ => bytes.swap(at, end - 1),
            }
        }
        watched(seed, &String::from_utf8_lossy(&bytes));
    }
}

const VALUES: [&str; 22] = [
    "",
    "-1",
    "0",
    "1",
    "99999999999999999999999",
    "-99999999999999999999999",
    "INFINITY",
    "-INFINITY",
    "true",
    "n1",
    "p0",
    "m1",
    "Master",
    "Stopped",
    "monitor",
    "migrate_to",
    "stop",
    "a:b:c",
    ":",
    "\u{e9}\u{20ac}",
    "10s",
    "P1Y2M3DT4H5M6S",
];

/// Some element below, by chance.
fn any<'a>(tree: &'a mut Xml, dice: &mut Dice) -> &'a mut Xml {
    if tree.children.is_empty() || dice.percent(15) {
        return tree;
    }
    let at = dice.below(tree.children.len());
    any(&mut tree.children[at], dice)
}

fn spoil(tree: &mut Xml, dice: &mut Dice) {
    let known: Vec<String> =
        tree.all().iter().flat_map(|e| e.attrs.iter().map(|a| a.1.clone())).collect();
    let taken = known[dice.below(known.len())].clone();
    let copied = any(tree, dice).clone();
    let element = any(tree, dice);
    match dice.below(6) {
        0 | 1 if !element.attrs.is_empty() => {
            let at = dice.below(element.attrs.len());
            element.attrs[at].1 = dice.pick(&VALUES).to_owned();
        }
        2 if !element.attrs.is_empty() => {
            // Dangling references, ids given twice, loops.
            let at = dice.below(element.attrs.len());
            element.attrs[at].1 = taken;
        }
        3 if !element.attrs.is_empty() => {
            let at = dice.below(element.attrs.len());
            element.attrs.remove(at);
        }
        4 if !element.children.is_empty() => {
            let at = dice.below(element.children.len());
            element.children.remove(at);
        }
        _ => element.children.push(copied),
    }
}

#[test]
fn documents_with_values_references_and_elements_changed_are_refused_or_planned() {
    for seed in seeds() {
        let mut dice = Dice::new(seed);
        let mut tree = cluster(seed, &Mask::default());
        for _ in 0..dice.between(1, 6) {
            spoil(&mut tree, &mut dice);
        }
        watched(seed, &tree.to_string());
    }
}

fn frame(resources: &str, constraints: &str) -> String {
    format!(
        "<cib><configuration><crm_config/><nodes><node id=\"1\" uname=\"n1\"/></nodes>\
         <resources>{resources}</resources><constraints>{constraints}</constraints></configuration>\
         <status><node_state id=\"1\" uname=\"n1\" in_ccm=\"true\" crmd=\"online\" join=\"member\" expected=\"member\"/></status></cib>"
    )
}

fn primitive(id: usize) -> String {
    format!("<primitive id=\"p{id}\" class=\"ocf\" provider=\"pacemaker\" type=\"Dummy\"/>")
}

#[test]
fn loops_of_orders_and_colocations_end_in_a_plan() {
    let resources: String = (0..4).map(primitive).collect();
    let pairs = (0..4).map(|i| (i, (i + 1) % 4));
    let constraints: String = pairs
        .map(|(a, b)| {
            format!(
                "<rsc_order id=\"o{a}\" first=\"p{a}\" then=\"p{b}\"/>\
                 <rsc_colocation id=\"c{a}\" score=\"INFINITY\" rsc=\"p{a}\" with-rsc=\"p{b}\"/>"
            )
        })
        .collect();
    assert!(survives(&frame(&resources, &constraints)));
}

#[test]
fn a_resource_ordered_after_itself_is_no_endless_loop() {
    let constraints = "<rsc_order id=\"o\" first=\"p0\" then=\"p0\"/><rsc_colocation id=\"c\" score=\"INFINITY\" rsc=\"p0\" with-rsc=\"p0\"/>";
    assert!(survives(&frame(&primitive(0), constraints)));
}

#[test]
fn a_million_resources_are_refused_at_the_first_that_is_too_many() {
    let text = frame(&(0..1_000_000).map(primitive).collect::<String>(), "");
    let problems = read(&text, NOW_MS).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].text.contains("100000"), "{}", problems[0]);
}

fn refused(text: &str, words: &str) {
    let problems = read(text, NOW_MS).err().unwrap_or_default();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = &problems[0];
    assert!(problem.text.contains(words) && problem.help.is_some(), "{problem:?}");
}

#[test]
fn an_element_with_very_many_attributes_is_refused() {
    let attributes: String = (0..100_000).map(|i| format!(" a{i}=\"1\"")).collect();
    refused(&format!("<cib{attributes}><configuration/></cib>"), "more than 1000 attributes");
}

#[test]
fn a_value_of_many_megabytes_is_refused() {
    let long = "n".repeat(40 << 20);
    refused(&frame(&primitive(0).replace("p0", &long), ""), "more than 16 MiB");
}

fn set(id: &str, attributes: &str, members: std::ops::Range<usize>) -> String {
    let members: String = members.map(|i| format!("<resource_ref id=\"p{i}\"/>")).collect();
    format!("<resource_set id=\"{id}\" {attributes}>{members}</resource_set>")
}

#[test]
fn sets_that_stand_for_millions_of_pairs_are_refused() {
    let resources: String = (0..3000).map(primitive).collect();
    let loose = "sequential=\"false\"";
    let two = set("s1", loose, 0..1500) + &set("s2", loose, 1500..3000);
    let apart = set("s3", "", 0..3000);
    for constraint in [
        format!("<rsc_order id=\"c\">{two}</rsc_order>"),
        format!("<rsc_colocation id=\"c\" score=\"INFINITY\">{two}</rsc_colocation>"),
        format!("<rsc_colocation id=\"c\" score=\"-INFINITY\">{apart}</rsc_colocation>"),
    ] {
        refused(&frame(&resources, &constraint), "pairs");
    }
    let chain = format!("<rsc_colocation id=\"c\" score=\"INFINITY\">{apart}</rsc_colocation>");
    assert!(read(&frame(&resources, &chain), NOW_MS).is_ok());
}

#[test]
fn a_hundred_thousand_references_to_nothing_are_told_in_a_hundred_lines() {
    let resources: String = (0..2000).map(primitive).collect();
    let orders: String = (0..100_000)
        .map(|i| format!("<rsc_order id=\"o{i}\" first=\"q{i}\" then=\"p0\"/>"))
        .collect();
    let document = read(&frame(&resources, &orders), NOW_MS).unwrap();
    assert_eq!(document.warnings.len(), 100);
}

#[test]
fn deep_nesting_is_refused_with_its_place() {
    let deep = 1_000_000;
    let text =
        format!("<cib>{}{}</cib>", "<configuration>".repeat(deep), "</configuration>".repeat(deep));
    let problems = read(&text, NOW_MS).unwrap_err();
    assert!(problems[0].text.contains("nested"), "{}", problems[0]);
}

#[test]
fn what_only_looks_like_nesting_is_read() {
    let many = "<!-- <a> <b> --><nvpair id=\"x\" name=\"a > b\" value=\"<\"/>"
        .replace("\"<\"", "\"&lt;\"");
    let resources = format!(
        "<primitive id=\"p\" class=\"ocf\" type=\"Dummy\"><meta_attributes id=\"m\">{}</meta_attributes></primitive>",
        many.repeat(200)
    );
    assert!(survives(&frame(&resources, "")));
}

#[test]
fn entities_that_blow_up_are_refused() {
    let text = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><cib><configuration>&b;</configuration></cib>";
    assert!(read(text, NOW_MS).is_err());
}
