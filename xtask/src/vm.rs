//! `cargo xtask vm-drain` and `cargo xtask vm-watchdog`: what only a machine of its own can show.
//!
//! Three virtual machines each, of Debian packages, made by the scripts of the lab-vm folder (`LAB_VM`).
//!
//! The drain: seed 002 on real 6.12 kernels, where the volume's device is ublk (or NBD) and the server is the kernel's nfsd. Two nodes and
//! a client; two clients write over the service address all the while: our own (NFS 3, every record counted) and the client's kernel
//! (NFS 4.2, holding a lock).
//!
//! The watchdog: three nodes with softdog; a daemon that hangs, its node resets itself before another one starts what ran there.
//!
//! What was typed and answered is written to docs/ops/.

mod image;
mod machine;
mod play;
mod scenes;
mod watchdog;

use crate::exec::{command, read, root, say};
use crate::setup;
use image::Images;
use machine::Reset;
use play::{Cast, Play};
use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

/// How the volume is to be shown as a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// As blockd chooses by itself on this kernel.
    Ublk,
    /// Forced.
    Nbd,
}

impl Front {
    /// Its name, as `crm volume status` shows it.
    const fn name(self) -> &'static str {
        match self {
            Self::Ublk => "ublk",
            Self::Nbd => "nbd",
        }
    }

    /// The word after `vm-drain`.
    pub(crate) fn parse(word: Option<&str>) -> Result<Self, String> {
        match word {
            None | Some("ublk") => Ok(Self::Ublk),
            Some("nbd") => Ok(Self::Nbd),
            Some(other) => Err(format!("vm-drain: `{other}` is neither `ublk` nor `nbd`")),
        }
    }
}

/// What a play was and where its page goes.
struct Page {
    title: String,
    /// What was typed after `cargo xtask`.
    words: String,
    /// In docs/ops.
    file: &'static str,
}

/// `cargo xtask vm-drain [ublk|nbd]`.
pub(crate) fn drain(front: Front) -> Result<(), String> {
    let page = Page {
        title: format!("The drain in virtual machines: {}", front.name()),
        words: format!("vm-drain {}", front.name()),
        file: match front {
            Front::Ublk => "vm-drain.md",
            Front::Nbd => "vm-drain-nbd.md",
        },
    };
    perform(&page, &scenes::MACHINES, Reset::Ends, |play, images| scenes::run(play, front, images))
}

/// `cargo xtask vm-watchdog`.
pub(crate) fn watchdog() -> Result<(), String> {
    let page = Page {
        title: "A daemon that hangs, and its node's watchdog, in virtual machines".to_owned(),
        words: "vm-watchdog".to_owned(),
        file: "vm-watchdog.md",
    };
    perform(&page, &watchdog::MACHINES, Reset::Boots, |play, _| watchdog::run(play))
}

fn perform(
    page: &Page,
    cast: Cast,
    reset: Reset,
    scenes: impl FnOnce(&mut Play, &Images) -> Result<(), String>,
) -> Result<(), String> {
    setup::run()?;
    let images = image::prepare()?;
    let start = Instant::now();
    let mut play = Play::new(&page.title, cast);
    let result = play.boot(&images, reset).and_then(|()| scenes(&mut play, &images));
    let seconds = start.elapsed().as_secs();
    let verdict = match &result {
        Ok(()) => "passed".to_owned(),
        Err(why) => {
            play.postmortem();
            format!("FAILED: {}", why.lines().next().unwrap_or_default())
        }
    };
    fs::write(images.told(), play.story())
        .map_err(|e| format!("{}: {e}", images.told().display()))?;
    let commit = read(command("git").args(["describe", "--always", "--dirty"]))?;
    let date = read(command("date").args(["-u", "+%F %H:%M UTC"]))?;
    let mut text = format!(
        "# {}\n\nWritten by `cargo xtask {}`.\n\n| | |\n|---|---|\n",
        page.title, page.words,
    );
    let facts = [
        ("date", date.trim().to_owned()),
        ("commit", commit.trim().to_owned()),
        ("machines", "three, emulated (QEMU, TCG), one CPU each".to_owned()),
        ("took", format!("{seconds} s")),
    ];
    let found = play.findings.iter().map(|(key, value)| (*key, value.clone()));
    for (key, value) in facts.into_iter().chain(found).chain([("result", verdict)]) {
        say(&format!("{key:<20} {value}"));
        writeln!(text, "| {key} | {value} |").map_err(|e| e.to_string())?;
    }
    write!(text, "\nWhat was typed, and the answers:\n\n```\n{}```\n", play.record)
        .map_err(|e| e.to_string())?;
    let path = root().join("docs/ops").join(page.file);
    fs::create_dir_all(root().join("docs/ops")).map_err(|e| format!("docs/ops: {e}"))?;
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    say(&format!("written: {}", path.display()));
    result
}
