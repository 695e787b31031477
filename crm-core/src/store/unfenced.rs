//! Replicated storage without fencing is refused unless the operator has put in writing that it is wanted: `stonith-enabled=false`.

use crate::cib::Cib;
use crate::fencing::{Answers, Config, Finding};
use std::collections::{BTreeMap, BTreeSet};

impl Cib {
    /// Why this configuration would run replicated storage that nothing guards: several nodes, fencing on (or nothing said of it), and a
    /// node that no device can reach. `None` when it may be taken.
    #[must_use]
    pub fn unfenced_storage(&self) -> Option<String> {
        if !self.fencing_enabled() || self.nodes.len() < 2 {
            return None;
        }
        let storage = self.primitives().into_iter().find(|p| {
            let agent = (p.agent.provider.as_deref(), p.agent.kind.as_str());
            matches!(agent, (Some("linbit"), "drbd") | (Some("crm"), "volume"))
        })?;
        // A node with a watchdog sees to itself; whether it has one, the node will say.
        let armed: BTreeSet<String> = self.nodes.iter().map(|n| n.name.clone()).collect();
        let config = Config::read(self, &BTreeMap::new(), 0);
        let coverage = config.coverage(&Answers::default(), &armed, 0);
        let bare: Vec<&str> = coverage
            .findings
            .iter()
            .filter_map(|finding| match finding {
                Finding::NoDevice { node } => Some(node.as_str()),
                Finding::OnlyItself { .. } | Finding::UnknownDevice { .. } => None,
            })
            .collect();
        (!bare.is_empty()).then(|| {
            format!(
                "`{}` is replicated storage, and nothing can fence {}: two sides could write different data. Configure a fence device \
                 (`crm fence setup`), or put in writing that you do without: property stonith-enabled=false",
                storage.id,
                bare.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::cib::Cib;
    use crate::store::{Command, Member, Outcome, State};
    use crate::text::{Session, read};

    const STORAGE: &str = "primitive disk ocf:linbit:drbd params drbd_resource=r0\n";

    fn commit(state: &mut State, text: &str) -> Outcome {
        let mut session = Session::new(Cib::clone(&state.cib), state.version);
        read("t", text, &mut session).unwrap();
        let cib: Box<Cib> = Box::new(session.cib().clone());
        let (base, author, message) = (state.version, String::new(), String::new());
        state.apply(Command::CommitCib { base, cib, author, message, when_ms: 0 })
    }

    fn nodes(names: &[&str]) -> State {
        let mut state = State::default();
        for (raft_id, name) in (1..).zip(names) {
            let member = Member::new(raft_id, format!("{name}:7631"));
            state.apply(Command::SetMember { name: (*name).to_owned(), member });
        }
        state
    }

    #[test]
    fn storage_on_several_nodes_needs_a_device_for_each_or_a_word_in_writing() {
        let device = |hosts: &str| {
            format!("primitive power stonith:fence_x params pcmk_host_list=\"{hosts}\"\n")
        };
        let all = device("alpha delta");
        let some = device("alpha");
        let cases: [(&[&str], String, Option<&str>); 7] = [
            (&["alpha", "delta"], STORAGE.to_owned(), Some("alpha, delta")),
            (&["alpha", "delta"], format!("{STORAGE}{some}"), Some("fence delta")),
            (&["alpha", "delta"], format!("{STORAGE}{all}"), None),
            (&["alpha", "delta"], format!("{STORAGE}property stonith-enabled=false\n"), None),
            (
                &["alpha", "delta"],
                format!("{STORAGE}property stonith-watchdog-timeout=10s\n"),
                None,
            ),
            (&["alpha"], STORAGE.to_owned(), None),
            (&["alpha", "delta"], "primitive web ocf:heartbeat:Dummy\n".to_owned(), None),
        ];
        for (names, text, refusal) in cases {
            let mut state = nodes(names);
            match (commit(&mut state, &text), refusal) {
                (Outcome::Done { .. }, None) => {}
                (Outcome::Refused { why }, Some(part)) => assert!(why.contains(part), "{why}"),
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn what_was_taken_once_can_be_changed_without_a_quarrel() {
        let mut state = nodes(&["alpha"]);
        commit(&mut state, STORAGE);
        let member = Member::new(2, "delta:7631".into());
        state.apply(Command::SetMember { name: "delta".into(), member });
        let change = commit(&mut state, "primitive web ocf:heartbeat:Dummy\n");
        assert!(matches!(change, Outcome::Done { .. }), "{change:?}");
    }
}
