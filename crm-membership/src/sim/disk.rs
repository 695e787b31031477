//! A disk whose power fails: of what was written after the last sync, any part may be lost.

use super::Dice;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Inside {
    /// What survives.
    synced: Vec<u8>,
    /// What the program sees.
    seen: Vec<u8>,
    /// Written since the last sync, oldest first.
    pending: Vec<(usize, Vec<u8>)>,
    /// Counts the power failures: who opened the disk before the last one writes into the void.
    life: u64,
    /// Says that it has synced, and has not.
    lies: bool,
}

/// The disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Inside>>);

/// The disk as opened by one life of a node.
#[derive(Debug)]
pub(super) struct Opened {
    disk: Disk,
    life: u64,
}

impl Disk {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> Opened {
        Opened { disk: self.clone(), life: self.inside().life }
    }

    pub(super) fn lie(&self) {
        self.inside().lies = true;
    }

    /// The power fails: of each pending write all, nothing, or a part reached the disk, in any order.
    pub(super) fn fail(&self, dice: &mut Dice) {
        let mut inside = self.inside();
        inside.life += 1;
        for (place, bytes) in std::mem::take(&mut inside.pending) {
            let survives = match dice.below(3) {
                0 => 0,
                1 => usize::try_from(dice.below(bytes.len() as u64 + 1)).unwrap(),
                _ => bytes.len(),
            };
            let end = place + survives;
            if survives > 0 && !inside.lies {
                let length = inside.synced.len().max(end);
                inside.synced.resize(length, 0);
                inside.synced[place..end].copy_from_slice(&bytes[..survives]);
            }
        }
        inside.seen = inside.synced.clone();
    }
}

impl Opened {
    fn powered(&self) -> io::Result<MutexGuard<'_, Inside>> {
        let inside = self.disk.inside();
        if inside.life == self.life {
            Ok(inside)
        } else {
            Err(io::Error::other("the power is off"))
        }
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl redb::StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.powered()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inside = self.powered()?;
        let found = inside.seen.get(at(offset)..at(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// A change of length is in a journal of the file system: it is taken as durable at once.
    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inside = self.powered()?;
        inside.seen.resize(at(length), 0);
        if !inside.lies {
            inside.synced.resize(at(length), 0);
            let ends = |(place, bytes): &(usize, Vec<u8>)| place + bytes.len() <= at(length);
            inside.pending.retain(ends);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inside = self.powered()?;
        if inside.lies {
            return Ok(());
        }
        for (place, bytes) in std::mem::take(&mut inside.pending) {
            inside.synced[place..place + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inside = self.powered()?;
        let place = at(offset);
        let end = place + data.len();
        if inside.seen.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inside.seen[place..end].copy_from_slice(data);
        inside.pending.push((place, data.to_vec()));
        Ok(())
    }
}
