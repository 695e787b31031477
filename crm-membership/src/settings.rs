//! What a node is told at its start: `node.yaml`. Written by `bootstrap`, read by the daemon.

use crate::durable;
use crm_core::cib::parse_duration_ms;
use crm_core::store::MemberRole;
use crm_quorum::Failover;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Port of the peer API (TCP) and of the heartbeats (UDP).
pub const PORT: u16 = 7631;
/// Addresses that a node may have, one for each link (knet has as many).
pub const LINKS_MAX: usize = 8;
/// Where the settings are, unless `CRM_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/crm/node.yaml";
/// Environment variable that names another file.
pub const PATH_VARIABLE: &str = "CRM_CONFIG";

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No file: the node is in no cluster.
    #[error("`{path}` does not exist; run `crm cluster init` or `crm cluster join` first")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("`{path}` is not valid: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The cluster's name and identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// For people.
    pub name: String,
    /// For certificates, tokens and the lineage.
    pub uuid: String,
}

/// The addresses of a node, one for each link: link i of a node talks to link i of another one, and what only one of the two has is not
/// used between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `HOST:PORT` of the first link.
    pub address: String,
    /// `HOST:PORT` of each further one.
    pub links: Vec<String>,
}

impl From<&str> for Addresses {
    fn from(address: &str) -> Self {
        Self { address: address.to_owned(), links: Vec::new() }
    }
}

impl From<&String> for Addresses {
    fn from(address: &String) -> Self {
        Self::from(address.as_str())
    }
}

impl Addresses {
    /// All of them, in the order of the links.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.address).chain(&self.links)
    }

    /// Why these cannot be a node's addresses.
    ///
    /// # Errors
    /// With the reason, in one clause.
    pub fn check(&self) -> Result<(), String> {
        let mut known = std::collections::BTreeSet::new();
        for address in self.all() {
            check_address(address)?;
            if !known.insert(address) {
                return Err(format!(
                    "`{address}` is given twice: each link has an address of its own"
                ));
            }
        }
        if known.len() > LINKS_MAX {
            return Err(format!("a node has {LINKS_MAX} links at most, not {}", known.len()));
        }
        Ok(())
    }
}

/// A member as known when this node joined; later ones come through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Node name.
    pub name: String,
    /// Raft id.
    pub raft_id: u64,
    /// `HOST:PORT` of the peer API.
    pub address: String,
    /// `HOST:PORT` of each further link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
}

impl Seat {
    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { address: self.address.clone(), links: self.links.clone() }
    }
}

/// The node's watchdog (ADR-0013).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// The device.
    #[serde(default = "default_device")]
    pub device: PathBuf,
    /// It resets the machine when it was not fed for so long: whole seconds (`5s`).
    #[serde(default = "default_timeout")]
    pub timeout: String,
    /// Without a device the machine may be rebooted by the kernel at once when it has to go (`no-quorum-policy=suicide`).
    #[serde(default)]
    pub reboot: bool,
}

impl Watchdog {
    /// [`Watchdog::timeout`], if it is one: 2 s at least, whole seconds (the kernel's unit).
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        let ms = parse_duration_ms(&self.timeout)?;
        (ms >= 2_000 && ms.is_multiple_of(1_000)).then(|| Duration::from_millis(ms))
    }
}

fn default_device() -> PathBuf {
    PathBuf::from("/dev/watchdog")
}

fn default_timeout() -> String {
    "5s".to_owned()
}

/// Contents of `node.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of this node.
    pub name: String,
    /// `HOST:PORT` under which the others reach it.
    pub address: String,
    /// `HOST:PORT` of each further link, in their order: heartbeats go over all of them, and everything else over the first that is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// `IP:PORT` to listen on when it is not `address`; the further links listen on their own addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Raft log, snapshots, data key.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Certificates and keys.
    #[serde(default = "default_tls_dir")]
    pub tls_dir: PathBuf,
    /// Raft id of this node; never reused.
    pub raft_id: u64,
    /// What this member is for: `node`, or `witness` (votes only).
    #[serde(default, skip_serializing_if = "MemberRole::is_node")]
    pub role: MemberRole,
    /// The cluster.
    pub cluster: Cluster,
    /// How fast failures are noticed.
    #[serde(default)]
    pub profile: Failover,
    /// Run the heartbeat thread with real-time priority and lock memory, where permitted.
    #[serde(default = "default_realtime")]
    pub realtime: bool,
    /// Its watchdog; without one it arms none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Watchdog>,
    /// Members known at join time, this node among them.
    pub seats: Vec<Seat>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/crm")
}

fn default_tls_dir() -> PathBuf {
    PathBuf::from("/etc/crm/tls")
}

const fn default_realtime() -> bool {
    true
}

impl Settings {
    /// This node's addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { address: self.address.clone(), links: self.links.clone() }
    }

    /// The file that `CRM_CONFIG` names, or the usual one.
    #[must_use]
    pub fn path() -> PathBuf {
        std::env::var_os(PATH_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from)
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// When the file is missing, unreadable or not valid.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::NotFound {
                SettingsError::Missing { path }
            } else {
                SettingsError::Read { path, source }
            }
        })?;
        let invalid = |why: String| SettingsError::Invalid { path: path.to_owned(), why };
        let settings: Self = serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        check_name(&settings.name).map_err(invalid)?;
        settings.addresses().check().map_err(invalid)?;
        for seat in &settings.seats {
            seat.addresses().check().map_err(invalid)?;
        }
        let wildcard = settings.listen.filter(|listen| listen.ip().is_unspecified());
        if let Some(listen) = wildcard.filter(|_| !settings.links.is_empty()) {
            return Err(invalid(format!(
                "`listen: {listen}` takes the port of every link: name an address"
            )));
        }
        if let Some(watchdog) = settings.watchdog.as_ref().filter(|w| w.limit().is_none()) {
            let why = format!("watchdog timeout `{}` is not 2s or more", watchdog.timeout);
            return Err(invalid(why));
        }
        Ok(settings)
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SettingsError> {
        let text = serde_saphyr::to_string(self)
            .map_err(|e| SettingsError::Invalid { path: path.to_owned(), why: e.to_string() })?;
        durable::replace(path, text.as_bytes(), 0o644)
            .map_err(|source| SettingsError::Write { path: path.to_owned(), source })
    }
}

/// A node name must fit into a DNS name: it is in the certificate.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let fits = name.len() <= 128
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    if fits {
        return Ok(());
    }
    Err(format!("node name `{name}` is not a host name (letters, digits, `-`, `_`, `.`)"))
}

/// `HOST:PORT` with a port.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        (!host.is_empty() && !host.contains(odd)).then_some(())?;
        port.parse::<u16>().ok()
    });
    port.map(|_| ()).ok_or_else(|| format!("`{address}` is not HOST:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_file_and_unknown_fields_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.yaml");
        let settings = Settings {
            name: "n1".into(),
            address: "10.0.0.1:7631".into(),
            links: vec!["10.1.0.1:7631".into()],
            listen: None,
            data_dir: "/var/lib/crm".into(),
            tls_dir: "/etc/crm/tls".into(),
            raft_id: 1,
            role: MemberRole::Node,
            cluster: Cluster { name: "lab".into(), uuid: "u".into() },
            profile: Failover::Fast,
            realtime: true,
            watchdog: None,
            seats: vec![Seat {
                name: "n1".into(),
                raft_id: 1,
                address: "10.0.0.1:7631".into(),
                links: vec!["10.1.0.1:7631".into()],
            }],
        };
        settings.save(&path).unwrap();
        assert_eq!(Settings::load(&path).unwrap(), settings);
        let wildcard = Settings { listen: "0.0.0.0:7631".parse().ok(), ..settings.clone() };
        wildcard.save(&path).unwrap();
        assert!(matches!(Settings::load(&path), Err(SettingsError::Invalid { .. })));
        let plain = Settings { links: Vec::new(), ..settings.clone() };
        plain.save(&path).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(!first.lines().any(|line| line.starts_with("links:")), "{first}");
        assert_eq!(Settings::load(&path).unwrap(), plain);
        settings.save(&path).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nprofile: fast\n") && !text.contains("role"), "{text}");
        let witness = Settings { role: MemberRole::Witness, ..settings };
        witness.save(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\nrole: witness\n"));
        assert_eq!(Settings::load(&path).unwrap(), witness);
        text.push_str("colour: red\n");
        std::fs::write(&path, text).unwrap();
        assert!(matches!(Settings::load(&path), Err(SettingsError::Invalid { .. })));
        assert!(matches!(
            Settings::load(&dir.path().join("none")),
            Err(SettingsError::Missing { .. })
        ));
    }

    #[test]
    fn a_watchdog_has_defaults_and_a_timeout_of_whole_seconds() {
        let read = |text: &str| serde_saphyr::from_str::<Watchdog>(text);
        let plain = read("{}").unwrap();
        let known = (plain.device.as_path(), plain.limit(), plain.reboot);
        assert_eq!(known, (Path::new("/dev/watchdog"), Some(Duration::from_secs(5)), false));
        let limit = |text: &str| read(&format!("timeout: {text}")).unwrap().limit();
        assert_eq!(limit("10s"), Some(Duration::from_secs(10)));
        assert_eq!(["1s", "2500ms", "soon"].map(limit), [None; 3]);
    }

    #[test]
    fn names_and_addresses_are_checked() {
        assert!(check_name("node-1").is_ok());
        assert!(check_name("node-1.lan").is_ok());
        assert!(check_name("a..b").is_err());
        assert!(check_name("a b").is_err());
        assert!(check_name("").is_err());
        assert!(check_address("h:7631").is_ok());
        assert!(check_address("h").is_err());
        assert!(check_address(":1").is_err());
        assert!(check_address("a\0b:1").is_err());
        let of = |links: &[&str]| Addresses {
            address: "a:1".into(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
        };
        assert!(of(&["b:1", "a:2"]).check().is_ok());
        assert!(of(&["b:1", "a:1"]).check().unwrap_err().contains("twice"));
        assert!(of(&["b"]).check().is_err());
        let many: Vec<String> = (0..8).map(|n| format!("b{n}:1")).collect();
        assert!(
            Addresses { links: many, ..of(&[]) }.check().unwrap_err().contains("8 links at most")
        );
    }
}
