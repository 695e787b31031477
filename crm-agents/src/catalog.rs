//! The agents of this machine, for checking configurations: natives by their tables, scripts by their own `meta-data`.

use crate::native;
use crate::{exec, fence};
use crm_core::cib::AgentName;
use crm_core::text::{AgentCatalog, AgentInfo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const RESOURCE_D: &str = "/usr/lib/ocf/resource.d";

/// Agents that are installed here.
#[derive(Debug, Default)]
pub struct Catalog;

impl Catalog {
    /// The catalog of this machine. Nothing is read until it is asked.
    #[must_use]
    pub const fn installed() -> Self {
        Self
    }
}

impl AgentCatalog for Catalog {
    fn agent(&self, name: &AgentName) -> Option<AgentInfo> {
        match (name.class.as_str(), name.provider.as_deref()) {
            ("ocf", Some("crm")) => native_info(&name.kind),
            ("ocf", Some(provider)) => {
                script_info(provider, &name.kind).or_else(|| stand_in(provider, &name.kind))
            }
            ("systemd", None) => Some(AgentInfo::default()),
            ("stonith", None) => fence_info(&name.kind),
            ("lsb", None) => {
                Path::new("/etc/init.d").join(&name.kind).exists().then(AgentInfo::default)
            }
            _ => None,
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            native::AGENTS.iter().map(|a| format!("ocf:crm:{}", a.name)).collect();
        names.push("ocf:linbit:drbd".to_owned());
        for provider in list(Path::new(RESOURCE_D)) {
            for kind in list(&Path::new(RESOURCE_D).join(&provider)) {
                names.push(format!("ocf:{provider}:{kind}"));
            }
        }
        for (provider, kind, _) in STAND_INS {
            names.push(format!("ocf:{provider}:{kind}"));
        }
        names.extend(fence::installed(&fence::dir()).map(|name| format!("stonith:{name}")));
        names.sort();
        names.dedup();
        names
    }
}

/// What a fence agent wants. The action and the machine are the cluster's to name; what has an older name too may be given by that.
fn fence_info(kind: &str) -> Option<AgentInfo> {
    if kind == fence::WATCHDOG {
        return Some(AgentInfo::default());
    }
    let path = fence::path(&fence::dir(), kind).filter(|path| path.is_file())?;
    let text = cached("stonith", kind, &path, || {
        exec::call(&path.display().to_string(), &["-o", "metadata"]).ok()
    })?;
    let metadata = fence::Metadata::parse(&text).ok()?;
    let need = |p: &fence::Parameter| p.required && p.aliases.is_empty() && !p.by_cluster;
    let params = metadata.params.iter().map(|(name, p)| (name.clone(), need(p))).collect();
    Some(AgentInfo { params })
}

/// Agents of others that a native one answers for, also where the others are not installed.
const STAND_INS: &[(&str, &str, &str)] = &[
    ("linbit", "drbd", "volume"),
    ("heartbeat", "Filesystem", "Filesystem"),
    ("heartbeat", "IPaddr2", "VIP"),
    ("heartbeat", "nfsserver", "nfsserver"),
    ("heartbeat", "exportfs", "exportfs"),
    ("heartbeat", "Dummy", "Dummy"),
    ("pacemaker", "Dummy", "Dummy"),
    ("pacemaker", "Stateful", "Stateful"),
];

fn stand_in(provider: &str, kind: &str) -> Option<AgentInfo> {
    let (_, _, native) = STAND_INS.iter().find(|(p, k, _)| *p == provider && *k == kind)?;
    native_info(native)
}

fn native_info(kind: &str) -> Option<AgentInfo> {
    let agent = native::AGENTS.iter().find(|a| a.name == kind)?;
    let params = agent.params.iter().map(|p| (p.name.to_owned(), p.required)).collect();
    Some(AgentInfo { params })
}

fn list(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| !n.starts_with('.') && !n.ends_with(".sh"))
        .collect();
    names.sort();
    names
}

fn cache_file(provider: &str, kind: &str, script: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(script).ok()?;
    let run_dir =
        std::env::var_os("CRM_RUN_DIR").map_or_else(|| PathBuf::from("/run/crm"), PathBuf::from);
    Some(run_dir.join("metadata").join(format!(
        "{provider}-{kind}-{}-{}",
        found.mtime(),
        found.size()
    )))
}

/// Runs `meta-data` of a script, or takes what it said the last time (by its date and size).
fn script_info(provider: &str, kind: &str) -> Option<AgentInfo> {
    if provider.contains(['/', '.']) || kind.contains('/') {
        return None;
    }
    let script = Path::new(RESOURCE_D).join(provider).join(kind);
    if !script.is_file() {
        return None;
    }
    let path = script.display().to_string();
    let env = "OCF_ROOT=/usr/lib/ocf";
    let ask = || exec::call("env", &[env, "HA_SBIN_DIR=/usr/sbin", &path, "meta-data"]).ok();
    let text = cached(provider, kind, &script, ask)?;
    Some(AgentInfo { params: parameters(&text) })
}

/// What an agent says of itself, from the last time when it is still the same file.
fn cached(
    provider: &str,
    kind: &str,
    script: &Path,
    ask: impl FnOnce() -> Option<String>,
) -> Option<String> {
    let cache = cache_file(provider, kind, script);
    if let Some(text) = cache.as_ref().and_then(|c| std::fs::read_to_string(c).ok()) {
        return Some(text);
    }
    let text = ask()?;
    if let Some(cache) = cache {
        let stored = cache.parent().map(std::fs::create_dir_all);
        if matches!(stored, Some(Ok(()))) && std::fs::write(&cache, &text).is_err() {
            tracing::debug!(path = %cache.display(), "metadata not cached");
        }
    }
    Some(text)
}

/// Names of `<parameter>` elements and whether they are required. Agents' metadata is flat enough to be read by its tags.
fn parameters(xml: &str) -> BTreeMap<String, bool> {
    let attribute = |tag: &str, name: &str| {
        let from = tag
            .split_once(&format!(" {name}=\""))
            .or_else(|| tag.split_once(&format!("\n{name}=\"")))?
            .1;
        from.split_once('"').map(|(value, _)| value.to_owned())
    };
    let mut params = BTreeMap::new();
    for tag in xml.split("<parameter ").skip(1) {
        let tag = format!(" {}", tag.split_once('>').map_or(tag, |(tag, _)| tag));
        if let Some(name) = attribute(&tag, "name") {
            let required = attribute(&tag, "required").is_some_and(|r| r == "1" || r == "true");
            params.insert(name, required);
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_natives_names_their_parameters() {
        let info = native_info("Filesystem").unwrap();
        assert_eq!(info.params.get("device"), Some(&true));
        assert_eq!(info.params.get("options"), Some(&false));
    }

    #[test]
    fn parameters_are_read_from_xml() {
        let xml = "<parameters><parameter name=\"ip\" unique=\"1\" required=\"1\"><content/></parameter>\
                   <parameter unique=\"0\" name=\"nic\"></parameter></parameters>";
        let params = parameters(xml);
        assert_eq!(params.get("ip"), Some(&true));
        assert_eq!(params.get("nic"), Some(&false));
    }
}
