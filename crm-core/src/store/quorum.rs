//! Who has how many votes in service quorum, and which options of it are refused before they are written.

use super::{Command, State, apply_edit};
use crate::cib::Cib;
use crm_quorum::Member;

impl State {
    /// The members with their votes, a witness too. An attribute that is no number counts as one vote: it was refused when it was written.
    #[must_use]
    pub fn quorum_members(&self) -> Vec<Member> {
        let votes = |name: &str| self.cib.quorum_votes(name).unwrap_or(1);
        let member = |(name, member): (&String, &super::Member)| Member {
            name: name.clone(),
            id: member.raft_id,
            votes: votes(name),
        };
        self.members.iter().map(member).collect()
    }

    /// Why a change must not be written: options of service quorum that do not go together or name nobody. What was written once may be
    /// changed step by step.
    #[must_use]
    pub fn refused_quorum(&self, command: &Command) -> Option<String> {
        let edited: Cib;
        let next = if let Command::CommitCib { cib, .. } = command {
            cib
        } else if let Command::Edit { edits, .. } = command {
            let mut cib = Cib::clone(&self.cib);
            // An edit that cannot be made is refused by the log, in its own words.
            edits.iter().try_for_each(|edit| apply_edit(&mut cib, edit)).ok()?;
            edited = cib;
            &edited
        } else {
            return None;
        };
        let members = self.quorum_members();
        bad(next, &members).filter(|_| bad(&self.cib, &members).is_none())
    }
}

fn bad(cib: &Cib, members: &[Member]) -> Option<String> {
    if let Some(why) = cib.nodes.iter().find_map(|node| cib.quorum_votes(&node.name).err()) {
        return Some(why);
    }
    let policy = match cib.quorum_policy() {
        Ok(policy) => policy?,
        Err(error) => return Some(error.to_string()),
    };
    policy.check(members).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::cib::Cib;
    use crate::store::{Command, Edit, Member, State};
    use crate::text::{Session, read};

    fn three() -> State {
        let mut state = State::default();
        for (raft_id, name) in (1..).zip(["alpha", "delta", "gamma"]) {
            let member = Member::new(raft_id, format!("{name}:7631"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        state
    }

    fn commit(state: &State, text: &str) -> Command {
        let mut session = Session::new(Cib::clone(&state.cib), state.version);
        read("t", text, &mut session).unwrap();
        let cib = Box::new(session.cib().clone());
        let (author, message) = (String::new(), String::new());
        Command::CommitCib { base: state.version, cib, author, message, when_ms: 0 }
    }

    #[test]
    fn options_that_do_not_go_together_are_refused_before_they_are_written() {
        let state = three();
        let cases = [
            ("property two_node=1", None),
            ("property wait_for_all=1 last_man_standing=1 last_man_standing_window=20s", None),
            ("node alpha attributes quorum_votes=3", None),
            (
                "property auto_tie_breaker=1 last_man_standing=1",
                Some("`auto_tie_breaker=1` does not go with `last_man_standing=1`"),
            ),
            (
                "property auto_tie_breaker=1 wait_for_all=1 auto_tie_breaker_node=\"delta omega\"",
                Some("names `omega`, which is no member; members: alpha, delta, gamma"),
            ),
            ("property expected_votes=many", Some("does not take `many`; give it a number from 1")),
            (
                "node alpha attributes quorum_votes=several",
                Some("`quorum_votes=several` of node `alpha` is no number of votes"),
            ),
        ];
        for (text, want) in cases {
            let said = state.refused_quorum(&commit(&state, &format!("{text}\n")));
            match want {
                None => assert_eq!(said, None, "{text}"),
                Some(words) => {
                    assert!(said.as_ref().is_some_and(|s| s.contains(words)), "{text}: {said:?}");
                }
            }
        }
    }

    #[test]
    fn an_edit_is_looked_at_like_a_commit_and_what_is_wrong_already_can_be_mended_in_steps() {
        let mut state = three();
        let edit = |value: &str| Command::Edit {
            edits: vec![Edit::NodeAttr {
                node: "alpha".to_owned(),
                name: "quorum_votes".to_owned(),
                value: Some(value.to_owned()),
            }],
            author: String::new(),
            message: String::new(),
            when_ms: 0,
        };
        assert_eq!(state.refused_quorum(&edit("2")), None);
        assert!(state.refused_quorum(&edit("-1")).is_some());
        state.apply(edit("-1"));
        assert_eq!(state.refused_quorum(&commit(&state, "property two_node=1\n")), None);
    }

    #[test]
    fn members_have_the_votes_of_their_attribute_and_one_without() {
        let mut state = three();
        let weights = commit(&state, "node delta attributes quorum_votes=0\n");
        state.apply(weights);
        let votes: Vec<(String, u64, u32)> =
            state.quorum_members().into_iter().map(|m| (m.name, m.id, m.votes)).collect();
        let want = [("alpha", 1, 1), ("delta", 2, 0), ("gamma", 3, 1)];
        assert_eq!(votes, want.map(|(name, id, votes)| (name.to_owned(), id, votes)));
        assert!(state.cib.quorum_policy().unwrap().is_some());
    }
}
