//! Feature levels: how nodes of different versions of crm work together while they are upgraded one after the other (ADR-0017).
//!
//! A build has a level, and every member tells the log its own. The cluster's level is the lowest of its members', and never falls. What a
//! command, or a changed meaning of one, needs is written to the log only when the cluster has that level; whoever is below it is refused.

use super::{Command, Outcome, State};
use serde::{Deserialize, Serialize};

/// What this build can do. Counted up with the first change that an older build would not understand or would do differently.
pub const LEVEL: u32 = if cfg!(feature = "pretend-next") { 2 } else { 1 };

/// A member's build, as the member tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its [`LEVEL`].
    pub level: u32,
    /// Its version, for people.
    pub version: String,
}

impl Build {
    /// This build.
    #[must_use]
    pub fn this() -> Self {
        Self { level: LEVEL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The level of a member, and of a cluster, that has told nothing yet.
const FIRST: u32 = 1;

impl Command {
    /// The level that a cluster needs to have before this may be written to its log.
    #[must_use]
    pub const fn level(&self) -> u32 {
        match self {
            #[cfg(feature = "pretend-next")]
            Self::Mark { .. } => 2,
            _ => 1,
        }
    }
}

impl State {
    /// Whether this cluster takes a command.
    ///
    /// # Errors
    /// Who has to be upgraded first, in one clause.
    pub fn may_propose(&self, command: &Command) -> Result<(), String> {
        let needed = command.level();
        let level = self.feature_level();
        if needed <= level {
            return Ok(());
        }
        let behind = self.members.keys().filter(|name| self.level_of(name) < needed);
        let behind: Vec<&str> = behind.map(String::as_str).collect();
        let behind = behind.join(", ");
        Err(format!(
            "this needs feature level {needed}, and the cluster has {level}: upgrade crm on {behind} first"
        ))
    }

    /// Whether a build of this level may be a member.
    ///
    /// # Errors
    /// With the reason, in one clause.
    pub fn may_run(&self, level: u32) -> Result<(), String> {
        let has = self.feature_level();
        if level >= has {
            return Ok(());
        }
        Err(format!(
            "the cluster has feature level {has}, and this crm knows {level} only: install a newer one"
        ))
    }

    /// The cluster's level.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.level.max(FIRST)
    }

    /// The level of a member's build; the first one until it has told.
    #[must_use]
    pub fn level_of(&self, name: &str) -> u32 {
        self.builds.get(name).map_or(FIRST, |build| build.level)
    }

    pub(super) fn build(&mut self, node: &str, raft_id: u64, build: Build) -> Outcome {
        if self.members.get(node).is_none_or(|m| m.raft_id != raft_id) {
            return Outcome::Stale;
        }
        if let Err(why) = self.may_run(build.level) {
            return Outcome::Refused { why };
        }
        self.builds.insert(node.to_owned(), build);
        self.raise_level();
        self.done()
    }

    #[cfg(feature = "pretend-next")]
    pub(super) fn mark(&mut self, text: String) -> Outcome {
        if let Err(why) = self.may_propose(&Command::Mark { text: text.clone() }) {
            return Outcome::Refused { why };
        }
        self.mark = Some(text);
        self.done()
    }

    /// The members, or what they run, may have changed.
    pub(super) fn raise_level(&mut self) {
        let members = &self.members;
        self.builds.retain(|name, _| members.contains_key(name));
        let lowest = self.members.keys().map(|name| self.level_of(name)).min();
        self.level = self.level.max(lowest.unwrap_or(FIRST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Member;

    fn told(state: &mut State, node: &str, raft_id: u64, level: u32) -> Outcome {
        let build = Build { level, version: format!("0.{level}") };
        state.apply(Command::Build { node: node.to_owned(), raft_id, build })
    }

    fn joins(state: &mut State, name: &str, raft_id: u64) {
        let member = Member::new(raft_id, format!("{name}:1"));
        state.apply(Command::SetMember { name: name.to_owned(), member });
    }

    #[test]
    fn the_level_is_the_lowest_of_all_members_and_never_falls() {
        let mut state = State::default();
        assert_eq!(state.feature_level(), 1);
        joins(&mut state, "alpha", 1);
        joins(&mut state, "delta", 2);
        told(&mut state, "alpha", 1, 3);
        assert_eq!(state.level, 1, "delta has not told");
        told(&mut state, "delta", 2, 2);
        assert_eq!(state.level, 2);
        // Back to an older one: refused, and nothing changes.
        assert!(matches!(told(&mut state, "delta", 2, 1), Outcome::Refused { .. }));
        assert_eq!((state.level, state.level_of("delta")), (2, 2));
        assert_eq!(told(&mut state, "delta", 9, 3), Outcome::Stale);
        // Whoever joins counts from then on, and lowers nothing.
        joins(&mut state, "gamma", 7);
        assert_eq!((state.level, state.level_of("gamma")), (2, 1));
        // When the last one that is behind goes, the rest need not wait for it.
        told(&mut state, "delta", 2, 3);
        assert_eq!(state.level, 2);
        let (name, by) = ("gamma".to_owned(), "root".to_owned());
        state.apply(Command::RemoveMember { name, raft_id: 7, force: true, by, when_ms: 1 });
        assert_eq!(state.level, 3);
        let why = state.may_run(2).unwrap_err();
        assert!(why.contains("feature level 3") && why.contains("knows 2 only"), "{why}");
    }

    #[cfg(feature = "pretend-next")]
    #[test]
    fn what_an_old_member_would_not_understand_is_not_proposed() {
        let mut state = State::default();
        joins(&mut state, "alpha", 1);
        joins(&mut state, "delta", 2);
        told(&mut state, "alpha", 1, 2);
        let mark = Command::Mark { text: "x".to_owned() };
        let why = state.may_propose(&mark).unwrap_err();
        assert!(why.contains("upgrade crm on delta first"), "{why}");
        assert!(matches!(state.apply(mark.clone()), Outcome::Refused { .. }));
        told(&mut state, "delta", 2, 2);
        assert_eq!(state.may_propose(&mark), Ok(()));
        state.apply(mark);
        assert_eq!(state.mark.as_deref(), Some("x"));
    }
}
