//! Exports in the words of exports(5): the lines of `/etc/exports` and of `exportfs` resources, as NFS-Ganesha's EXPORT blocks.

use super::context::Failure;
use crm_core::status::rc;
use std::path::PathBuf;

/// Exports of the machine's administrator.
const TABLE: &str = "/etc/exports";
const TABLE_DIR: &str = "/etc/exports.d";

/// A directory that is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    /// Directory.
    pub(super) directory: String,
    /// Number of the export, the same on every node; `None` = made from the directory's name.
    pub(super) id: Option<u16>,
    /// Clients (address, network, name or `*`) and their options.
    pub(super) clients: Vec<(String, String)>,
}

/// The exports of `/etc/exports` and `/etc/exports.d/*.exports`.
pub(super) fn read() -> Result<Vec<Export>, Failure> {
    let mut files = vec![PathBuf::from(TABLE)];
    let mut more: Vec<PathBuf> = std::fs::read_dir(TABLE_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "exports"))
        .collect();
    more.sort();
    files.extend(more);
    let mut all = Vec::new();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => all.extend(parse(&text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::io(&format!("read {}", file.display()), &e)),
        }
    }
    Ok(all)
}

fn parse(text: &str) -> Vec<Export> {
    let joined = text.replace("\\\n", " ");
    joined.lines().filter_map(|l| line(l.split('#').next().unwrap_or_default())).collect()
}

fn line(text: &str) -> Option<Export> {
    let text = text.trim();
    let (directory, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    if !directory.starts_with('/') {
        return None;
    }
    let (mut default, mut clients, mut id) = (String::new(), Vec::new(), None);
    for word in rest.split_whitespace() {
        if let Some(options) = word.strip_prefix('-') {
            options.clone_into(&mut default);
            continue;
        }
        let (client, own) =
            word.split_once('(').map_or((word, ""), |(c, o)| (c, o.trim_end_matches(')')));
        let options = [default.as_str(), own].join(",");
        id = id.or_else(|| options.split(',').find_map(|o| o.strip_prefix("fsid=")?.parse().ok()));
        clients.push((if client.is_empty() { "*" } else { client }.to_owned(), options));
    }
    if clients.is_empty() {
        clients.push(("*".to_owned(), default));
    }
    let directory = if directory == "/" { directory } else { directory.trim_end_matches('/') };
    Some(Export { directory: directory.to_owned(), id, clients })
}

impl Export {
    /// A number made from the directory's name (FNV-1a), the same on every node.
    fn number(&self) -> u16 {
        self.id.filter(|id| *id != 0).unwrap_or_else(|| {
            let hash = self.directory.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
            });
            u16::try_from(hash % 60_000 + 5000).unwrap_or(5000)
        })
    }

    /// The export in Ganesha's words.
    pub(super) fn block(&self) -> Result<String, Failure> {
        let (id, directory) = (self.number(), &self.directory);
        if directory.contains(['"', '\n']) {
            return Err(Failure::new(rc::ERR_CONFIGURED, format!("{directory}: odd characters")));
        }
        let mut text = format!(
            "EXPORT {{\n  Export_Id = {id};\n  Filesystem_Id = {id}.{id};\n  Path = \"{directory}\";\n  Pseudo = \"{directory}\";\n  \
             Protocols = 3,4;\n  Transports = TCP;\n  SecType = sys;\n  Access_Type = None;\n"
        );
        for (client, options) in &self.clients {
            if client.contains(['"', '\n', ';', '}', '{', ' ']) {
                return Err(Failure::new(rc::ERR_CONFIGURED, format!("{client}: odd characters")));
            }
            let has = |word: &str| options.split(',').any(|o| o.trim() == word);
            // exports(5): read-only unless said otherwise.
            let access = if has("rw") { "RW" } else { "RO" };
            let squash = match (has("all_squash"), has("no_root_squash")) {
                (true, _) => "All_Squash",
                (false, true) => "No_Root_Squash",
                (false, false) => "Root_Squash",
            };
            let port = if has("insecure") { "" } else { " PrivilegedPort = true;" };
            text += &format!(
                "  CLIENT {{ Clients = {client}; Access_Type = {access}; Squash = {squash};{port} }}\n"
            );
        }
        Ok(text + "  FSAL { Name = VFS; }\n}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_line_becomes_an_export_of_its_network() {
        let all = parse(
            "# mine\n/srv               192.168.7.0/24(rw,nohide,insecure,no_subtree_check,async)\n",
        );
        assert_eq!(all.len(), 1);
        let block = all[0].block().unwrap();
        assert!(
            block.contains("Path = \"/srv\"")
                && block.contains(
                    "Clients = 192.168.7.0/24; Access_Type = RW; Squash = Root_Squash; }"
                ),
            "{block}"
        );
        assert_eq!(all[0].number(), all[0].number());
    }

    #[test]
    fn defaults_quotes_and_continuations_are_understood() {
        let all = parse("\"/a b\" -rw,fsid=7 10.0.0.1 \\\n 10.0.0.2(no_root_squash)\n/empty\n");
        assert_eq!(all[0].directory, "/a b");
        assert_eq!(all[0].id, Some(7));
        assert_eq!(all[0].clients.len(), 2);
        assert!(
            all[0]
                .block()
                .unwrap()
                .contains("Clients = 10.0.0.2; Access_Type = RW; Squash = No_Root_Squash")
        );
        assert!(all[1].block().unwrap().contains("Clients = *; Access_Type = RO"));
    }
}
