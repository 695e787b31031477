//! Members that leave, their certificates, and the time during which the cluster keeps its hands off (ADR-0014, ADR-0015).

use super::{Outcome, State};
use crate::cib::{Cib, Constraint, FencingTarget, Role};
use crate::status::{NodeStatus, ResourceHistory};
use serde::{Deserialize, Serialize};

/// A node that was removed. Its raft id is never given to another one, and nobody talks to it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// Its name; a node that joined later may have the same.
    pub name: String,
    /// Who removed it.
    pub by: String,
    /// Wall clock, milliseconds since the epoch.
    pub when_ms: u64,
    /// Fingerprint of its last certificate, if it ever told one: revoked.
    pub certificate: Option<String>,
}

/// A member's certificate, as the member tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of the certificate (DER), hex.
    pub fingerprint: String,
    /// The CA's key is on this node: it can admit others and renew certificates.
    pub signs: bool,
}

/// The cluster keeps its hands off: nothing is fenced, recovered or begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarmed {
    /// Ends by itself at this wall clock time, milliseconds since the epoch.
    pub until_ms: u64,
    /// Wall clock of its beginning, milliseconds since the epoch.
    pub since_ms: u64,
    /// Who.
    pub by: String,
    /// Why, in the words of who did it; may be empty.
    pub reason: String,
}

impl State {
    /// The cluster is disarmed at this time (wall clock, milliseconds since the epoch).
    #[must_use]
    pub fn disarmed_at(&self, wall_ms: u64) -> Option<&Disarmed> {
        self.disarmed.as_ref().filter(|d| wall_ms < d.until_ms)
    }

    /// Why a node cannot be removed, and what to do first. `force`: what it was last known to run does not count.
    ///
    /// # Errors
    /// With the reason, in one clause.
    pub fn may_remove(&self, name: &str, force: bool) -> Result<(), String> {
        if !self.members.contains_key(name) {
            return Err(format!("there is no node `{name}`"));
        }
        if !self.is_witness(name) && self.nodes().count() == 1 {
            return Err(format!(
                "`{name}` is the only node: a cluster ends by stopping crmd and removing its files"
            ));
        }
        let here = |v: &&crate::cib::Volume| v.replicas.iter().any(|r| r.node == name);
        if let Some(volume) = self.cib.volumes.iter().find(here) {
            let volume = &volume.name;
            return Err(format!(
                "volume `{volume}` has a replica on {name}: take that replica out first (`crm configure edit`, statement `volume {volume}`)"
            ));
        }
        let running = self.running_on(name);
        if !force && !running.is_empty() {
            return Err(format!(
                "{name} runs {}: `crm node standby {name} --wait` first",
                running.join(", ")
            ));
        }
        Ok(())
    }

    /// The members that run resources: all but witnesses.
    pub fn nodes(&self) -> impl Iterator<Item = &String> {
        self.members.iter().filter(|(_, member)| member.role.is_node()).map(|(name, _)| name)
    }

    /// A member that votes only.
    #[must_use]
    pub fn is_witness(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|member| member.role.is_witness())
    }

    /// Why a node cannot be fenced by hand.
    ///
    /// # Errors
    /// With the reason, in one clause.
    pub fn may_fence(&self, name: &str) -> Result<(), String> {
        match self.members.get(name) {
            None => Err(format!("there is no node `{name}`")),
            Some(member) if member.role.is_witness() => Err(format!(
                "`{name}` is a witness: it runs nothing that would have to be stopped, and is never fenced"
            )),
            Some(_) => Ok(()),
        }
    }

    /// Why a node cannot have these addresses, and what to do first.
    ///
    /// # Errors
    /// With the reason, in one clause.
    pub fn may_move(&self, name: &str, address: &str, links: &[String]) -> Result<(), String> {
        let Some(member) = self.members.get(name) else {
            return Err(format!("there is no node `{name}`"));
        };
        let others = self.members.iter().filter(|(other, _)| *other != name);
        for wanted in std::iter::once(address).chain(links.iter().map(String::as_str)) {
            let mut taken = others.clone().filter(|(_, m)| m.addresses().any(|a| a == wanted));
            if let Some((other, _)) = taken.next() {
                return Err(format!("`{wanted}` is an address of {other}"));
            }
        }
        let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
        let here = |v: &&crate::cib::Volume| v.replicas.iter().any(|r| r.node == name);
        let volume = self.cib.volumes.iter().find(here);
        match volume.filter(|_| host(address) != host(&member.address)) {
            Some(volume) => Err(format!(
                "volume `{}` has a replica on {name}, and its data goes over the first address: take that replica out first (`crm configure edit`, statement `volume`), or leave the first address as it is",
                volume.name
            )),
            None => Ok(()),
        }
    }

    pub(super) fn set_addresses(
        &mut self,
        name: &str,
        raft_id: u64,
        address: String,
        links: Vec<String>,
    ) -> Outcome {
        if let Err(why) = self.may_move(name, &address, &links) {
            return Outcome::Refused { why };
        }
        match self.members.get_mut(name).filter(|m| m.raft_id == raft_id) {
            Some(member) => {
                (member.address, member.links) = (address, links);
                self.done()
            }
            None => Outcome::Stale,
        }
    }

    /// Ids of what runs on a node, or may run there, as far as is known.
    #[must_use]
    pub fn running_on(&self, name: &str) -> Vec<String> {
        let may_run = |h: &ResourceHistory| {
            h.pending.is_some() || h.role.is_none_or(|role| role != Role::Stopped)
        };
        let resources = self.status.nodes.get(name).map(|n| &n.resources);
        let all = resources.into_iter().flatten();
        all.filter(|(_, h)| may_run(h)).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn remove_member(
        &mut self,
        name: &str,
        raft_id: u64,
        force: bool,
        (by, when_ms): (String, u64),
    ) -> Outcome {
        if self.departed.contains_key(&raft_id) {
            return self.done(); // asked for twice
        }
        if let Err(why) = self.may_remove(name, force) {
            return Outcome::Refused { why };
        }
        if self.members.get(name).is_some_and(|m| m.raft_id != raft_id) {
            return Outcome::Stale;
        }
        self.members.remove(name);
        self.raise_level();
        let certificate = self.certificates.remove(name).map(|c| c.fingerprint);
        let departed = Departed { name: name.to_owned(), by: by.clone(), when_ms, certificate };
        self.departed.insert(raft_id, departed);
        self.status.replace(name, NodeStatus::default());
        self.status.nodes.remove(name);
        self.fencing.requests.retain(|_, request| request.target != name);
        let mut cib = Cib::clone(&self.cib);
        let dropped = forget(&mut cib, name);
        let message = match dropped.is_empty() {
            true => format!("node {name} removed"),
            false => format!("node {name} removed, and what named it: {}", dropped.join(", ")),
        };
        self.adopt(cib, by, message, when_ms)
    }

    pub(super) fn certificate(
        &mut self,
        node: &str,
        raft_id: u64,
        certificate: Certificate,
    ) -> Outcome {
        if self.members.get(node).is_none_or(|m| m.raft_id != raft_id) {
            return Outcome::Stale;
        }
        if self.revoked.contains(&certificate.fingerprint) {
            let why = format!("this certificate of {node} is revoked");
            return Outcome::Refused { why };
        }
        let fingerprint = certificate.fingerprint.clone();
        let old = self.certificates.insert(node.to_owned(), certificate);
        self.revoked.extend(old.map(|c| c.fingerprint).filter(|old| *old != fingerprint));
        self.done()
    }
}

impl State {
    /// Whether a certificate in the name of `node` counts no more: it was replaced, or is that of a node which was removed and whose name
    /// another one has now.
    #[must_use]
    pub fn is_revoked(&self, node: &str, fingerprint: &str) -> bool {
        let departed = |d: &Departed| d.certificate.as_deref() == Some(fingerprint);
        self.revoked.contains(fingerprint)
            || self.members.contains_key(node) && self.departed.values().any(departed)
    }
}

/// Takes a node out of a configuration, with what names it and would be an error without it; ids of that.
fn forget(cib: &mut Cib, name: &str) -> Vec<String> {
    cib.nodes.retain(|n| n.name != name);
    let mut dropped = Vec::new();
    cib.constraints.retain(|c| match c {
        Constraint::Location(location) if location.node == name => {
            dropped.push(location.id.clone());
            false
        }
        Constraint::Location(_) | Constraint::Colocation(_) | Constraint::Order(_) => true,
    });
    let before = cib.fencing.len();
    cib.fencing.retain(|rule| rule.target != FencingTarget::Node(name.to_owned()));
    if cib.fencing.len() < before {
        dropped.push("its fencing_topology".to_owned());
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cib::{Location, LocationTarget, Replica, Score, Volume};
    use crate::store::{Command, Member};
    use std::sync::Arc;

    fn cluster() -> State {
        let mut state = State::default();
        for (raft_id, name) in [(1, "alpha"), (2, "delta"), (7, "gamma")] {
            let member = Member::new(raft_id, format!("{name}:7631"));
            state.apply(Command::SetMember { name: name.to_owned(), member });
        }
        state
    }

    fn runs(state: &mut State, node: &str, role: Role) {
        let history = ResourceHistory { role: Some(role), ..ResourceHistory::default() };
        let status = state.status.nodes.entry(node.to_owned()).or_default();
        status.resources.insert("web".to_owned(), history);
    }

    fn remove(name: &str, raft_id: u64, force: bool) -> Command {
        let by = "root@alpha".to_owned();
        Command::RemoveMember { name: name.to_owned(), raft_id, force, by, when_ms: 5 }
    }

    fn told(node: &str, raft_id: u64, fingerprint: &str) -> Command {
        let certificate = Certificate { fingerprint: fingerprint.to_owned(), signs: false };
        Command::Certificate { node: node.to_owned(), raft_id, certificate }
    }

    #[test]
    fn a_node_that_runs_something_or_has_a_replica_is_not_removed() {
        let mut state = cluster();
        runs(&mut state, "gamma", Role::Started);
        let before = state.clone();
        let Outcome::Refused { why } = state.apply(remove("gamma", 7, false)) else {
            panic!("removed with what it runs")
        };
        assert!(why.contains("gamma runs web") && why.contains("standby"), "{why}");
        assert_eq!(state, before);
        assert!(matches!(state.apply(remove("nobody", 9, true)), Outcome::Refused { .. }));

        let replicas = vec![Replica { node: "gamma".into(), disk: "/d".into() }];
        Arc::make_mut(&mut state.cib).volumes.push(Volume {
            name: "r0".into(),
            size_bytes: 4096,
            device: "/dev/drbd0".into(),
            replicas,
            port: 7700,
            day0: 1,
            assume_clean: true,
        });
        let Outcome::Refused { why } = state.apply(remove("gamma", 7, true)) else {
            panic!("removed with its replica")
        };
        assert!(why.contains("`r0` has a replica on gamma"), "{why}");
    }

    #[test]
    fn a_node_moves_alone_to_addresses_of_its_own_and_takes_no_volume_along() {
        let mut state = cluster();
        let to = |raft_id, address: &str, links: &[&str]| Command::SetAddresses {
            name: "gamma".to_owned(),
            raft_id,
            address: address.to_owned(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
        };
        assert_eq!(state.apply(to(6, "new:7631", &[])), Outcome::Stale);
        let links = ["delta:7631"];
        assert!(matches!(state.apply(to(7, "gamma:7631", &links)), Outcome::Refused { .. }));
        assert!(matches!(state.apply(to(7, "new:7631", &["b:7631"])), Outcome::Done { .. }));
        let all: Vec<&str> = state.members["gamma"].addresses().map(String::as_str).collect();
        assert_eq!(all, ["new:7631", "b:7631"]);
        let replicas = vec![Replica { node: "gamma".into(), disk: "/d".into() }];
        Arc::make_mut(&mut state.cib).volumes.push(Volume {
            name: "r0".into(),
            size_bytes: 4096,
            device: "/dev/drbd0".into(),
            replicas,
            port: 7700,
            day0: 1,
            assume_clean: true,
        });
        assert!(matches!(state.apply(to(7, "new:7632", &[])), Outcome::Done { .. }));
        let Outcome::Refused { why } = state.apply(to(7, "far:7631", &[])) else {
            panic!("moved away from its replica's peers")
        };
        assert!(why.contains("`r0` has a replica on gamma"), "{why}");
    }

    #[test]
    fn what_names_a_removed_node_goes_with_it_and_its_id_and_certificate_never_come_back() {
        let mut state = cluster();
        runs(&mut state, "gamma", Role::Stopped);
        state.apply(told("gamma", 7, "aa"));
        let location = |id: &str, node: &str| {
            Constraint::Location(Location {
                id: id.to_owned(),
                target: LocationTarget::Resource("web".into()),
                score: Score::INF,
                node: node.to_owned(),
                role: None,
                discovery: None,
            })
        };
        Arc::make_mut(&mut state.cib).constraints =
            vec![location("here", "alpha"), location("there", "gamma")];
        assert!(matches!(state.apply(remove("gamma", 7, false)), Outcome::Done { .. }));
        assert!(!state.members.contains_key("gamma") && state.cib.node("gamma").is_none());
        assert!(!state.status.nodes.contains_key("gamma"));
        let left: Vec<&str> = state.cib.constraints.iter().map(Constraint::id).collect();
        assert_eq!(left, ["here"]);
        assert!(state.revisions.last().is_some_and(|r| r.message.contains("there")));
        assert_eq!(state.departed[&7].certificate.as_deref(), Some("aa"));

        let old = Member::new(7, "gamma:1".into());
        let again = state.apply(Command::SetMember { name: "gamma".into(), member: old });
        assert!(matches!(again, Outcome::Refused { .. }), "an id was used twice");
        assert_eq!(state.apply(told("gamma", 7, "bb")), Outcome::Stale);
        let anew = Member::new(31, "gamma:1".into());
        let joined = state.apply(Command::SetMember { name: "gamma".into(), member: anew });
        assert!(matches!(joined, Outcome::Done { .. }));
        // Asked for twice: the one that joined anew stays.
        state.apply(remove("gamma", 7, false));
        assert!(state.members.contains_key("gamma"));
    }

    #[test]
    fn a_new_certificate_revokes_the_old_one_for_good() {
        let mut state = cluster();
        state.apply(told("delta", 2, "aa"));
        state.apply(told("delta", 2, "aa"));
        assert!(state.revoked.is_empty());
        state.apply(told("delta", 2, "bb"));
        assert!(state.revoked.contains("aa"));
        assert!(matches!(state.apply(told("delta", 2, "aa")), Outcome::Refused { .. }));
        assert_eq!(state.certificates["delta"].fingerprint, "bb");
    }

    #[test]
    fn the_certificate_of_a_removed_node_counts_no_more_when_its_name_is_taken_again() {
        let mut state = cluster();
        let (id, name) = (state.members["gamma"].raft_id, "gamma");
        state.apply(told(name, id, "aa"));
        assert!(!state.is_revoked(name, "aa"));
        state.apply(remove(name, id, false));
        // Raft may need it until its own membership has followed.
        assert!(!state.is_revoked(name, "aa"));
        let member = Member::new(31, "gamma:1".into());
        state.apply(Command::SetMember { name: name.into(), member });
        assert!(state.is_revoked(name, "aa"));
        assert!(!state.is_revoked(name, "bb"));
    }

    #[test]
    fn disarmed_ends_by_itself() {
        let mut state = cluster();
        let by = "root@alpha".to_owned();
        let disarmed = Disarmed { until_ms: 100, since_ms: 10, by, reason: String::new() };
        state.apply(Command::Disarm { disarmed: Some(disarmed) });
        assert!(state.disarmed_at(99).is_some() && state.disarmed_at(100).is_none());
        state.apply(Command::Disarm { disarmed: None });
        assert!(state.disarmed_at(50).is_none());
    }
}
