//! A node that the others have removed: it stops what it runs, whatever the configuration says of quorum, and then its daemon may end.

mod stage;

use crm_core::controller::{Event, Mode};
use crm_core::store::{Command, State};
use stage::Actor;

const WORDS: &str = "gamma was removed from cluster lab";

fn gamma(state: State) -> Actor {
    Actor::new("gamma", state, &["web"])
}

fn cluster(nodes: &[&str], properties: &str) -> Result<State, String> {
    let web = "primitive web ocf:heartbeat:Dummy op monitor interval=10s";
    stage::cluster(nodes, &format!("{web}\nproperty {properties}\n"))
}

#[test]
fn a_removed_node_stops_what_it_runs_and_only_then_may_go() -> Result<(), String> {
    for properties in [
        "stonith-enabled=false no-quorum-policy=ignore",
        "stonith-enabled=false no-quorum-policy=freeze",
        "stonith-enabled=false maintenance-mode=true",
    ] {
        let state = cluster(&["alpha", "gamma"], properties)?;
        let mut gamma = gamma(state);
        gamma.happens(Event::Expelled(WORDS.to_owned()));
        assert_eq!(gamma.controller.may_go(), None, "it has not even looked what it runs");
        gamma.passes(5_000);
        assert_eq!(gamma.controller.mode(), Mode::NoQuorum);
        assert_eq!(gamma.ran, ["stop web"], "{properties}");
        assert_eq!(gamma.controller.may_go(), Some(WORDS), "{properties}");
    }
    Ok(())
}

#[test]
fn a_removed_node_that_has_read_of_its_removal_still_stops_what_it_runs() -> Result<(), String> {
    let mut state = cluster(&["alpha", "gamma"], "stonith-enabled=false")?;
    let (by, name) = ("root@alpha".to_owned(), "gamma".to_owned());
    state.apply(Command::RemoveMember { name, raft_id: 2, force: true, by, when_ms: 0 });
    let mut gamma = gamma(state);
    gamma.happens(Event::Expelled(WORDS.to_owned()));
    gamma.passes(5_000);
    assert_eq!(gamma.ran, ["stop web"]);
    assert!(gamma.controller.may_go().is_some());
    Ok(())
}

#[test]
fn a_member_may_not_go() -> Result<(), String> {
    let state = cluster(&["alpha", "gamma"], "stonith-enabled=false")?;
    let mut gamma = Actor::new("gamma", state, &[]);
    gamma.passes(5_000);
    assert_eq!(gamma.controller.may_go(), None);
    Ok(())
}
