//! Service quorum by the options of the CIB (ADR-0019), beside raft's majority: who is outvoted runs nothing although it has a leader, and
//! who has the votes and no leader goes on with what it runs.

use super::{Controller, Mode, QUORUM_GRACE_MS};
use std::collections::BTreeSet;

/// What the options of service quorum have come to on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Votes {
    /// May run resources and fence.
    pub quorate: bool,
    /// Why, for people.
    pub words: String,
    /// Peers that were counted as seen.
    pub seen: BTreeSet<String>,
}

/// The newest, and since when they say no.
#[derive(Debug, Default)]
pub(super) struct Ballot {
    votes: Option<Votes>,
    since_ms: Option<u64>,
}

impl Controller {
    pub(super) fn votes_told(&mut self, votes: Option<Votes>) {
        let no = votes.as_ref().is_some_and(|votes| !votes.quorate);
        self.ballot.since_ms = no.then(|| self.ballot.since_ms.unwrap_or(self.now_ms));
        self.ballot.votes = votes;
    }

    /// What the options of service quorum say, where one is set.
    pub(super) fn quorate_by_votes(&self) -> Option<bool> {
        self.ballot.votes.as_ref().map(|votes| votes.quorate)
    }

    /// They say that this node must not run resources.
    pub(super) fn outvoted(&self) -> bool {
        self.quorate_by_votes() == Some(false)
    }

    /// They were counted with somebody who is not heard any more: what they say now is on its way. Until then nobody is fenced and
    /// nothing taken over by them.
    pub(super) fn recounted(&self) -> bool {
        let heard = |node: &String| self.peers.get(node).is_some_and(|peer| peer.alive);
        self.ballot.votes.as_ref().is_some_and(|votes| !votes.seen.iter().all(heard))
    }

    /// They say that it may.
    pub(super) fn carried(&self) -> bool {
        self.quorate_by_votes() == Some(true)
    }

    /// Until then being outvoted means nothing yet: after a start, or when a node comes, the words of the others take a moment.
    pub(super) fn outvoted_from(&self) -> Option<u64> {
        self.ballot.since_ms.map(|since| self.listening_ms().max(since + QUORUM_GRACE_MS))
    }

    /// Raft has a majority, and the votes that the options ask for are not there.
    pub(super) fn outvoted_for_good(&self) -> bool {
        self.leadership.quorate && self.outvoted_from().is_some_and(|from| self.now_ms >= from)
    }

    /// One of the last two that vote in raft, the votes with it, and nobody else lives: `last_man_standing` has come down to two.
    pub(super) fn one_of_the_last_two(&self) -> bool {
        let voters = &self.leadership.voters;
        self.carried()
            && self.fencing_wanted()
            && voters.len() == 2
            && voters.contains(&self.me)
            && self.state.members.len() > 2
    }

    /// What to say of the votes when they decide what this node does.
    pub(super) fn words_of_votes(&self) -> Option<String> {
        let votes = self.ballot.votes.as_ref()?;
        if !votes.quorate {
            return Some(format!("no service quorum: {}", votes.words));
        }
        (self.mode == Mode::NoQuorum).then(|| {
            format!(
                "no leader, for raft has no majority here; service quorum is here ({}): what runs goes on, nothing is begun",
                votes.words
            )
        })
    }
}
