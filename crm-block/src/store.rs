//! Files of the data plane: definitions, metadata, and the note that survives this process but not a reboot.

use crm_block_engine::bitmap::{index, number};
use crm_block_engine::{Config, Resume, meta};
use crm_proto::block::VolumeSpec;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How long a resumed primary waits for its peers before it asks.
const GRACE_MS: u64 = 2000;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    data: PathBuf,
    run: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct RunNote {
    boot: String,
    primary: bool,
    up_to_date: bool,
}

impl Places {
    /// From `CRM_DATA_DIR` and `CRM_RUN_DIR`.
    pub(crate) fn from_environment() -> Self {
        let data = std::env::var_os("CRM_DATA_DIR")
            .map_or_else(|| PathBuf::from("/var/lib/crm"), PathBuf::from);
        Self { data, run: crate::front::run_dir() }
    }

    /// In these directories.
    #[cfg(test)]
    pub(crate) fn at(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for dir in [self.data.join("volumes"), self.data.join("block"), self.run.join("block")] {
            fs::create_dir_all(dir)?;
        }
        Ok(())
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.run
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.data.join("data.key")
    }

    fn definition(&self, volume: &str) -> PathBuf {
        self.data.join("volumes").join(format!("{volume}.json"))
    }

    fn up_mark(&self, volume: &str) -> PathBuf {
        self.data.join("volumes").join(format!("{volume}.up"))
    }

    pub(crate) fn meta(&self, volume: &str) -> PathBuf {
        self.data.join("block").join(format!("{volume}.meta"))
    }

    fn note(&self, volume: &str) -> PathBuf {
        self.run.join("block").join(format!("{volume}.run"))
    }

    /// All definitions, each with whether the volume is to be up.
    pub(crate) fn definitions(&self) -> io::Result<Vec<(VolumeSpec, bool)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.data.join("volumes"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let spec: VolumeSpec =
                    serde_json::from_slice(&fs::read(&path)?).map_err(|error| {
                        io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("{}: {error}", path.display()),
                        )
                    })?;
                let up = self.up_mark(&spec.name).exists();
                all.push((spec, up));
            }
        }
        all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(all)
    }

    pub(crate) fn save(&self, spec: &VolumeSpec) -> io::Result<()> {
        replace(&self.definition(&spec.name), &serde_json::to_vec_pretty(spec)?)
    }

    pub(crate) fn mark_up(&self, volume: &str, up: bool) -> io::Result<()> {
        if up { replace(&self.up_mark(volume), b"") } else { remove(&self.up_mark(volume)) }
    }

    /// Forgets definition, metadata and note.
    pub(crate) fn forget(&self, volume: &str) -> io::Result<()> {
        for path in
            [self.up_mark(volume), self.definition(volume), self.meta(volume), self.note(volume)]
        {
            remove(&path)?;
        }
        Ok(())
    }

    /// Makes the metadata file when there is none.
    pub(crate) fn create_meta(&self, volume: &str, config: &Config) -> io::Result<()> {
        let path = self.meta(volume);
        if path.exists() {
            return Ok(());
        }
        let new = path.with_extension("new");
        let file = File::create(&new)?;
        file.set_len(meta::length(config.size, usize::from(config.replicas)))?;
        for (offset, bytes) in meta::format(config) {
            file.write_all_at(&bytes, offset)?;
        }
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_dir(&path)
    }

    /// The metadata file and all its bytes.
    pub(crate) fn open_meta(&self, volume: &str, config: &Config) -> io::Result<(File, Vec<u8>)> {
        let mut file = OpenOptions::new().read(true).write(true).open(self.meta(volume))?;
        let mut bytes =
            Vec::with_capacity(index(meta::length(config.size, usize::from(config.replicas))));
        file.read_to_end(&mut bytes)?;
        Ok((file, bytes))
    }

    /// What the last process of this boot was, if there was one.
    pub(crate) fn resume(&self, volume: &str) -> io::Result<Option<Resume>> {
        let bytes = match fs::read(self.note(volume)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(note) = serde_json::from_slice::<RunNote>(&bytes) else {
            tracing::warn!(volume, "unreadable note of the last run: taken for a reboot");
            return Ok(None);
        };
        let resume = Resume { primary: note.primary, up_to_date: note.up_to_date };
        Ok((note.boot == boot_id()?).then_some(resume))
    }

    pub(crate) fn keep_note(&self, volume: &str, boot: &str, resume: Resume) -> io::Result<()> {
        let note = RunNote {
            boot: boot.to_owned(),
            primary: resume.primary,
            up_to_date: resume.up_to_date,
        };
        let path = self.note(volume);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&note)?)?;
        fs::rename(&new, &path)
    }

    pub(crate) fn drop_note(&self, volume: &str) -> io::Result<()> {
        remove(&self.note(volume))
    }
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// What the state machine needs to know of a definition; `Err` says what is wrong with it.
pub(crate) fn config(spec: &VolumeSpec) -> Result<Config, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if spec.name.is_empty() || spec.name.starts_with('.') || !spec.name.chars().all(good) {
        return Err(format!(
            "volume name `{}` has other characters than letters, digits, `-`, `_`, `.`",
            spec.name
        ));
    }
    if spec.size_bytes == 0 || !spec.size_bytes.is_multiple_of(4096) {
        return Err(format!("a size of {} bytes is no multiple of 4096", spec.size_bytes));
    }
    if spec.day0 == 0 {
        return Err("day-0 generation is zero".to_owned());
    }
    let mut names: Vec<&str> = spec.replicas.iter().map(|r| r.node.as_str()).collect();
    let me = names.iter().position(|n| *n == spec.me);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() != count || count == 0 || count > meta::MOST_REPLICAS {
        return Err(format!("{count} replicas, or two on one node"));
    }
    let me = me.ok_or_else(|| format!("node `{}` is none of the replicas", spec.me))?;
    Ok(Config {
        index: u8::try_from(me).map_err(|e| e.to_string())?,
        replicas: u8::try_from(count).map_err(|e| e.to_string())?,
        size: spec.size_bytes,
        day0: spec.day0,
        assume_clean: spec.assume_clean,
        hot: crm_block_engine::activity::MOST_HOT,
        grace_ms: GRACE_MS,
    })
}

/// A random number.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes pieces of metadata and makes them durable.
pub(crate) fn write_meta(file: &File, pieces: &[(u64, Vec<u8>)]) -> io::Result<()> {
    if pieces.is_empty() {
        return Ok(());
    }
    let mut written = 0;
    for (offset, bytes) in pieces {
        file.write_all_at(bytes, *offset)?;
        written += number(bytes.len());
    }
    tracing::trace!(written, "metadata");
    file.sync_data()
}
