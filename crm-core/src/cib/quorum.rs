//! The options of service quorum in the CIB (ADR-0019): cluster properties with votequorum's words, and the votes of nodes as an attribute.

use super::Cib;
use crm_quorum::{Policy, PolicyError};

/// Cluster properties that are options of service quorum. An arbiter is not among them: a witness takes its place.
pub const QUORUM_OPTIONS: &[&str] = &[
    "allow_downscale",
    "auto_tie_breaker",
    "auto_tie_breaker_node",
    "expected_votes",
    "expected_votes_tracking",
    "last_man_standing",
    "last_man_standing_window",
    "two_node",
    "wait_for_all",
];
/// The permanent attribute of a node that says how many votes it has; 1 without it.
pub const QUORUM_VOTES: &str = "quorum_votes";

impl Cib {
    /// What the properties ask of service quorum; `None` when there is nothing of it: then raft's majority is all that counts (and the
    /// survivor of two, ADR-0010).
    ///
    /// # Errors
    /// A value that its option does not take.
    pub fn quorum_policy(&self) -> Result<Option<Policy>, PolicyError> {
        let weighted = self.nodes.iter().any(|node| node.attributes.get(QUORUM_VOTES).is_some());
        let mut policy = weighted.then(Policy::default);
        for pair in &self.properties.pairs {
            if QUORUM_OPTIONS.contains(&pair.name.as_str()) {
                let value = pair.value.as_deref().unwrap_or_default();
                policy.get_or_insert_default().set(&pair.name, value)?;
            }
        }
        Ok(policy)
    }

    /// The votes of a member: those of its node's attribute, 1 without one.
    ///
    /// # Errors
    /// Words for people, when the attribute is no number.
    pub fn quorum_votes(&self, name: &str) -> Result<u32, String> {
        let value = self.node(name).and_then(|node| node.attributes.get(QUORUM_VOTES));
        value.map_or(Ok(1), |value| {
            let votes = value.parse().ok().filter(|votes| *votes <= 1000);
            votes.ok_or_else(|| {
                format!("`{QUORUM_VOTES}={value}` of node `{name}` is no number of votes: give 0 to 1000")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::QUORUM_OPTIONS;
    use crate::text::known::PROPERTIES;

    #[test]
    fn each_option_of_service_quorum_is_a_property_but_those_of_an_arbiter() {
        let options = crm_quorum::options::OPTIONS.iter().map(|(name, _)| *name);
        let options: Vec<&str> = options.filter(|name| !name.contains("arbiter")).collect();
        let mut ours = QUORUM_OPTIONS.to_vec();
        let mut theirs = options.clone();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        for name in options {
            assert!(PROPERTIES.contains(&name), "{name}");
        }
    }
}
