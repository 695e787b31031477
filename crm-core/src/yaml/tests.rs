//! Claims about YAML.

use super::{from_yaml, to_yaml};
use crate::cib::Cib;
use crate::text::{Session, read};

pub(crate) fn cib(text: &str) -> Cib {
    let mut session = Session::new(Cib::default(), 1);
    read("t", text, &mut session).unwrap();
    session.cib().clone()
}

#[test]
fn the_seed_survives_yaml() {
    let seed = cib(include_str!("../../../config/examples/seed-002.crm"));
    let yaml = to_yaml(&seed);
    println!("{yaml}");
    assert_eq!(from_yaml("t", &yaml).unwrap(), seed);
}

#[test]
fn an_unknown_field_is_refused_with_its_place() {
    let wrong =
        from_yaml("f.yaml", "resources:\n  - primitive: a\n    agnet: Dummy\n").unwrap_err();
    assert_eq!(wrong[0].help.as_deref(), Some("did you mean `agent`?"), "{:?}", wrong[0]);
    assert_eq!(
        (wrong[0].code.as_str(), wrong[0].line, wrong[0].column),
        ("CRM0040", 3, 5),
        "{}",
        wrong[0].render()
    );
}

#[test]
fn a_bad_word_is_refused_with_its_place() {
    let text = "constraints:\n  - order: {first: a:strat, then: b}\n  - location: {resource: a, node: n, score: much}\n";
    let wrong = from_yaml("f.yaml", text).unwrap_err();
    let places: Vec<_> = wrong.iter().map(|d| (d.code.as_str(), d.line, d.column)).collect();
    assert_eq!(places, [("CRM0008", 2, 20), ("CRM0006", 3, 45)], "{wrong:?}");
}
