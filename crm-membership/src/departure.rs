//! Nodes that were removed (ADR-0014): who is refused and told so, what a node makes of being told, and where its old membership goes.
//!
//! A removed node is known by its raft id, its certificate by its fingerprint; both are in the replicated state. It is told at its first
//! call: the refusal names its raft id. Heartbeats of it are not listened to.

use crate::admission::{DATA_KEY, fingerprint_of};
use crate::bootstrap::Dirs;
use crate::durable;
use crate::site::Site;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tonic::Status;

/// In a refusal: the raft id of the removed node that the caller is.
const DEPARTED: &str = "crm-departed";
/// The note in the data directory of a node that was removed: the words for people.
const NOTE: &str = "departed";
/// Files of the data directory that belong to a membership. What counts up (`incarnation`) stays.
pub(crate) const OWN: [&str; 7] = [
    "takeover.json",
    "raft.redb",
    "raft.snapshot",
    "birth",
    "tokens.json",
    "volume-records.json",
    DATA_KEY,
];

/// Raft id of a caller by its certificate, or the refusal.
pub(crate) fn judge(site: &Site, certificate: &[u8]) -> Result<u64, Status> {
    let name = site
        .keys
        .name_in(certificate)
        .ok_or_else(|| Status::unauthenticated("the certificate is not of this cluster"))?;
    let shown = fingerprint_of(certificate);
    let members = site.members();
    let states = site.machine.states();
    let state = states.borrow();
    // Raft's membership follows the state: until it has, the node is needed for the change itself.
    let mut gone = state.departed.iter().rev().filter(|(id, _)| !members.contains_key(id));
    let known = members.iter().rev().find(|(_, peer)| peer.name == name).map(|(id, _)| *id);
    let revoked = gone.clone().find(|(_, d)| d.certificate.as_ref() == Some(&shown));
    let departed = revoked.or_else(|| gone.find(|(_, d)| known.is_none() && d.name == name));
    if let Some((id, departed)) = departed {
        let cluster = &site.settings.cluster.name;
        let mut refusal = Status::permission_denied(format!(
            "{} was removed from cluster {cluster} by {}",
            departed.name, departed.by
        ));
        refusal.metadata_mut().insert(DEPARTED, (*id).into());
        return Err(refusal);
    }
    if state.revoked.contains(&shown) {
        return Err(Status::permission_denied(format!("this certificate of {name} is revoked")));
    }
    known.ok_or_else(|| Status::permission_denied(format!("`{name}` is not a member")))
}

/// A member refuses us: perhaps because we were removed.
pub(crate) fn heed(site: &Site, refusal: &Status) {
    let id = refusal.metadata().get(DEPARTED).and_then(|v| v.to_str().ok()?.parse().ok());
    if id != Some(site.settings.raft_id) {
        return;
    }
    site.expelled.send_if_modified(|known| {
        let news = known.is_none();
        if news {
            tracing::error!("{}", refusal.message());
            *known = Some(refusal.message().to_owned());
        }
        news
    });
}

/// Leaves the note that this membership is over.
pub(crate) fn note(data: &Path, words: &str) -> io::Result<()> {
    durable::replace(&data.join(NOTE), words.as_bytes(), 0o600)
}

/// The words of the note, if there is one.
pub(crate) fn noted(data: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(data.join(NOTE)) {
        Ok(words) => Ok(Some(words)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".departed");
    PathBuf::from(name)
}

/// Puts an old membership aside, in place of one put aside before, so that the node can join anew. Nothing happens without the note.
pub(crate) fn put_aside(dirs: &Dirs) -> io::Result<()> {
    if noted(&dirs.data)?.is_none() {
        return Ok(());
    }
    let own = OWN.iter().map(|name| dirs.data.join(name));
    for path in own.chain([dirs.settings.clone(), dirs.tls.clone()]) {
        let to = aside(&path);
        let found = fs::symlink_metadata(&path);
        if found.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        if found?.is_dir() && to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::rename(&path, &to)?;
    }
    durable::remove(&dirs.data.join(NOTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_membership_is_put_aside_only_when_it_is_over() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            settings: root.path().join("node.yaml"),
            data: root.path().join("data"),
            tls: root.path().join("tls"),
        };
        let fill = |word: &str| {
            for dir in [&dirs.data, &dirs.tls] {
                fs::create_dir_all(dir).unwrap();
            }
            let files = [
                dirs.settings.clone(),
                dirs.tls.join("node.key"),
                dirs.data.join("raft.redb"),
                dirs.data.join("incarnation"),
            ];
            for file in files {
                fs::write(file, word).unwrap();
            }
        };
        fill("first");
        put_aside(&dirs).unwrap();
        assert!(dirs.settings.exists(), "a membership that goes on was put aside");
        for word in ["first", "second"] {
            fill(word);
            note(&dirs.data, "n1 was removed").unwrap();
            assert_eq!(noted(&dirs.data).unwrap().as_deref(), Some("n1 was removed"));
            put_aside(&dirs).unwrap();
            assert!(!dirs.settings.exists() && !dirs.tls.exists());
            assert!(!dirs.data.join("raft.redb").exists());
            assert!(dirs.data.join("incarnation").exists(), "it must go on counting");
            assert_eq!(noted(&dirs.data).unwrap(), None);
            let kept = fs::read_to_string(root.path().join("tls.departed/node.key")).unwrap();
            assert_eq!(kept, word);
        }
    }
}
