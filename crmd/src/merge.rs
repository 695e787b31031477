//! Two lines of the cluster that have parted: what `crm cluster merge` is told, and what it has done (ADR-0016).

use crate::api::{Client, refused};
use crate::boot;
use crm_core::cib::Cib;
use crm_core::merge::base;
use crm_core::store::{Command, Outcome, VolumeRecord};
use crm_proto::local::{Divergence, Reply};
use crm_proto::peer::Line;

const LOOK_AGAIN: &str = "crm cluster merge";

impl Client {
    /// Both lines, and the last configuration that they have in common.
    pub(crate) async fn divergence(&self) -> Reply {
        match self.handle.lines().await {
            Ok((ours, theirs, common)) => {
                let state = self.handle.state().borrow().clone();
                let base = base(&state.revisions, &theirs.revisions).cloned();
                Reply::Divergence(Box::new(Divergence { ours, theirs, common, base }))
            }
            Err(error) => refused(&error.to_string(), "crm cluster status"),
        }
    }

    /// Keeps this line, with what comes of both. `(base, theirs)`: the versions of the two configurations that this was made from.
    pub(crate) async fn merge(
        &self,
        (base, version): (u64, u64),
        cib: Box<Cib>,
        message: String,
        by: String,
    ) -> Reply {
        let (ours, theirs) = match self.handle.lines().await {
            Ok((ours, theirs, _)) => (ours, theirs),
            Err(error) => return refused(&error.to_string(), "crm cluster status"),
        };
        if theirs.version != version {
            let why = format!(
                "the configuration of {} has changed meanwhile (it is at version {} now)",
                theirs.node, theirs.version
            );
            return refused(&why, LOOK_AGAIN);
        }
        // Who holds the good data of a volume that comes from there is known before anybody may take its replica here for good.
        for (volume, record) in newcomers(&ours, &theirs, &cib) {
            let VolumeRecord { epoch, in_sync } = record.clone();
            let volume = volume.to_owned();
            match self.change(Command::VolumeInSync { volume, epoch, in_sync }).await {
                Reply::Outcome(Outcome::Done { .. } | Outcome::Stale) => {}
                other => return other,
            }
        }
        let when_ms = boot::wall_ms();
        if *cib != ours.cib {
            let author = by.clone();
            let command = Command::CommitCib { base, cib, author, message, when_ms };
            match self.change(command).await {
                Reply::Outcome(Outcome::Done { .. }) => {}
                other => return other,
            }
        }
        match self.handle.merge(version, &by, when_ms).await {
            Ok(()) => Reply::Said(format!(
                "{0} gives up its line: it stops what it runs, keeps a copy in given-up/ of its data directory, and joins again by itself; see `crm cluster status`",
                theirs.node
            )),
            Err(error) => refused(
                &format!(
                    "{error}; the merged configuration is committed here, and {} goes on for itself",
                    theirs.node
                ),
                LOOK_AGAIN,
            ),
        }
    }
}

/// Volumes that only the other side has had so far, with who holds their good data there.
fn newcomers<'a>(
    ours: &Line,
    theirs: &'a Line,
    merged: &'a Cib,
) -> impl Iterator<Item = (&'a str, &'a VolumeRecord)> {
    let new: Vec<&str> = merged
        .volumes
        .iter()
        .map(|v| v.name.as_str())
        .filter(|name| ours.cib.volume(name).is_none())
        .collect();
    new.into_iter().filter_map(|name| Some((name, theirs.volumes.get(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crm_core::text::{Session, read};
    use std::collections::{BTreeMap, BTreeSet};

    fn line(node: &str, text: &str) -> Line {
        let mut session = Session::new(Cib::default(), 1);
        read("t", text, &mut session).unwrap();
        let record = VolumeRecord { epoch: 4, in_sync: BTreeSet::from([node.to_owned()]) };
        Line {
            node: node.to_owned(),
            branch: Vec::new(),
            voters: BTreeSet::new(),
            version: 1,
            cib: session.cib().clone(),
            revisions: Vec::new(),
            status: crm_core::status::Status::default(),
            volumes: BTreeMap::from([("r0".to_owned(), record.clone()), ("r1".to_owned(), record)]),
        }
    }

    #[test]
    fn a_volume_of_the_other_side_comes_with_who_has_its_data_and_ours_stay_ours() {
        let r0 = "volume r0 size=1GiB replica=alpha:/dev/a replica=delta:/dev/a\n";
        let both = format!("{r0}volume r1 size=1GiB replica=alpha:/dev/b replica=delta:/dev/b\n");
        let (ours, theirs) = (line("alpha", r0), line("delta", &both));
        let new: Vec<_> = newcomers(&ours, &theirs, &theirs.cib).collect();
        assert_eq!(new.len(), 1);
        let (name, record) = new[0];
        assert!(name == "r1" && record.in_sync.contains("delta") && record.epoch == 4);
        assert_eq!(newcomers(&ours, &theirs, &ours.cib).count(), 0, "not taken");
    }
}
