//! The metadata file of one replica: who it is, which generation it holds, which extents are hot, what each peer lacks.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0, 4096 | 4096 | superblock, slots A and B: the valid one with the larger `seq` counts |
//! | 8192, 12288 | 4096 | activity log, slots A and B, same rule |
//! | 16384 | 4096 × pages, for each replica | bitmap of what that replica lacks, bit = 4 KiB, little endian |
//!
//! Superblock: 0 magic `CRMBLK01`, 8 crc32c of bytes 12.., 12 version u32, 16 seq u64, 24 size u64, 32 day0 u64, 40 current u64,
//! 48 epoch u64, 56 flags u32 (1 consistent, 2 was up to date, 4 primary, 8 clean), 60 index u8, 61 replicas u8, 62 sync source u8 (255 none),
//! 63 mask of peers that need everything u8, 64 bitmap generation u64 × 8, 128 history u64 × 32,
//! 384 base of a generation that not all have stored yet u64 (0 = none),
//! 392 generation a torn replica has parts of u64 (0 = none), 400 mask of peers that the record has left behind u8.
//! Activity log: 0 magic `CRMALOG1`, 8 crc32c of bytes 12.., 12 count u32, 16 seq u64, 24 extent u32 × count,
//! 4092 mask of replicas about which, after a crash, these extents leave no doubt u32.

use crate::activity::MOST_HOT;
use crate::bitmap::{BLOCK, Bitmap, PAGE, PAGE_BLOCKS, index, number};
use crate::lineage::HISTORY;

/// Most replicas of a volume.
pub const MOST_REPLICAS: usize = 8;
const SLOT: usize = 4096;
const BITMAPS: u64 = 16384;
const SUPER_MAGIC: &[u8; 8] = b"CRMBLK01";
const LOG_MAGIC: &[u8; 8] = b"CRMALOG1";
const VERSION: u32 = 1;
/// No resync was going on.
pub const NOBODY: u8 = 255;

/// Bytes to write at an offset of the metadata file.
pub type Piece = (u64, Vec<u8>);

/// Why metadata cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Both superblocks are damaged or the file is something else.
    #[error("no valid superblock in the metadata file")]
    NoSuperblock,
    /// Written by a later version.
    #[error("metadata version {0} is not known")]
    Version(u32),
    /// Belongs to another definition.
    #[error("metadata contradicts the definition: {0} differs")]
    Contradicts(&'static str),
}

/// What the superblock holds.
#[expect(clippy::struct_excessive_bools, reason = "flags of the stored superblock")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Super {
    /// Counts writes; tells the newer slot.
    pub seq: u64,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Day-0 generation.
    pub day0: u64,
    /// Generation of the data.
    pub current: u64,
    /// Epoch of the in-sync record.
    pub epoch: u64,
    /// Index of this replica.
    pub index: u8,
    /// Whole, not torn by a sync.
    pub consistent: bool,
    /// Had every acknowledged write when last written.
    pub up_to_date: bool,
    /// Is or was primary.
    pub primary: bool,
    /// Detached cleanly: the bitmaps are exact.
    pub clean: bool,
    /// Being synced from this replica ([`NOBODY`] = none).
    pub sync_from: u8,
    /// For every replica: generation since which its lacks are tracked, 0 = lacks nothing.
    pub bitmap: Vec<u64>,
    /// For every replica: needs everything.
    pub full: Vec<bool>,
    /// Ancestors, newest first.
    pub history: Vec<u64>,
    /// Generation before `current`, while not all that take part have stored `current` (0 = they have).
    pub base: u64,
    /// While torn: the generation of which it has parts; only who knows that one may make it whole (0 = none).
    pub goal: u64,
    /// While primary: mask of peers that the in-sync record does not name. Another word than [`Self::behind`]: one that is being synced
    /// lacks something and may be named.
    pub left: u8,
}

impl Super {
    /// Puts a generation among the ancestors.
    pub fn remember(&mut self, generation: u64) {
        if generation != 0 && self.history.first() != Some(&generation) {
            self.history.retain(|g| *g != generation);
            self.history.insert(0, generation);
            self.history.truncate(HISTORY);
        }
    }

    /// Whether the replica is known to lack something.
    #[must_use]
    pub fn behind(&self, peer: usize) -> bool {
        self.bitmap.get(peer).is_some_and(|g| *g != 0)
            || self.full.get(peer).copied().unwrap_or(false)
    }

    /// Whether the record is known not to name the replica.
    #[must_use]
    pub fn left(&self, peer: usize) -> bool {
        self.left >> peer & 1 == 1
    }

    /// Next write: new `seq`, goes to the other slot.
    pub fn next_write(&mut self) -> Piece {
        self.seq += 1;
        (self.seq % 2 * number(SLOT), self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SLOT];
        bytes[..8].copy_from_slice(SUPER_MAGIC);
        let flags = u32::from(self.consistent)
            | u32::from(self.up_to_date) << 1
            | u32::from(self.primary) << 2
            | u32::from(self.clean) << 3;
        put32(&mut bytes, 12, VERSION);
        for (at, value) in
            [(16, self.seq), (24, self.size), (32, self.day0), (40, self.current), (48, self.epoch)]
        {
            put64(&mut bytes, at, value);
        }
        put32(&mut bytes, 56, flags);
        bytes[60] = self.index;
        bytes[61] = u8::try_from(self.bitmap.len()).unwrap_or(u8::MAX);
        bytes[62] = self.sync_from;
        for (bit, full) in self.full.iter().take(MOST_REPLICAS).enumerate() {
            bytes[63] |= u8::from(*full) << bit;
        }
        for (i, generation) in self.bitmap.iter().take(MOST_REPLICAS).enumerate() {
            put64(&mut bytes, 64 + 8 * i, *generation);
        }
        for (i, generation) in self.history.iter().take(HISTORY).enumerate() {
            put64(&mut bytes, 128 + 8 * i, *generation);
        }
        put64(&mut bytes, 384, self.base);
        put64(&mut bytes, 392, self.goal);
        bytes[400] = self.left;
        seal(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        if !sealed(bytes, SUPER_MAGIC) {
            return Err(MetaError::NoSuperblock);
        }
        let version = get32(bytes, 12);
        if version != VERSION {
            return Err(MetaError::Version(version));
        }
        let replicas = usize::from(bytes[61]);
        if replicas == 0 || replicas > MOST_REPLICAS || usize::from(bytes[60]) >= replicas {
            return Err(MetaError::NoSuperblock);
        }
        let flags = get32(bytes, 56);
        Ok(Self {
            seq: get64(bytes, 16),
            size: get64(bytes, 24),
            day0: get64(bytes, 32),
            current: get64(bytes, 40),
            epoch: get64(bytes, 48),
            index: bytes[60],
            consistent: flags & 1 != 0,
            up_to_date: flags & 2 != 0,
            primary: flags & 4 != 0,
            clean: flags & 8 != 0,
            sync_from: bytes[62],
            bitmap: (0..replicas).map(|i| get64(bytes, 64 + 8 * i)).collect(),
            full: (0..replicas).map(|i| bytes[63] >> i & 1 == 1).collect(),
            history: (0..HISTORY).map(|i| get64(bytes, 128 + 8 * i)).filter(|g| *g != 0).collect(),
            base: get64(bytes, 384),
            goal: get64(bytes, 392),
            left: bytes[400],
        })
    }
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn seal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c(&bytes[12..]);
    put32(bytes, 8, crc);
}

fn sealed(bytes: &[u8], magic: &[u8; 8]) -> bool {
    bytes.len() == SLOT && &bytes[..8] == magic && get32(bytes, 8) == crc32c::crc32c(&bytes[12..])
}

/// Stored form of the hot extents and of the replicas from which they may differ after a crash; `seq` picks the slot.
#[must_use]
pub fn encode_log(seq: u64, extents: &[u32], doubt: u32) -> Piece {
    let mut bytes = vec![0; SLOT];
    bytes[..8].copy_from_slice(LOG_MAGIC);
    let extents = &extents[..extents.len().min(MOST_HOT)];
    put32(&mut bytes, 12, u32::try_from(extents.len()).unwrap_or(0));
    put64(&mut bytes, 16, seq);
    for (i, extent) in extents.iter().enumerate() {
        put32(&mut bytes, 24 + 4 * i, *extent);
    }
    put32(&mut bytes, SLOT - 4, !doubt);
    seal(&mut bytes);
    ((2 + seq % 2) * number(SLOT), bytes)
}

fn decode_log(bytes: &[u8]) -> Option<(u64, Vec<u32>, u32)> {
    if !sealed(bytes, LOG_MAGIC) {
        return None;
    }
    let count = index(u64::from(get32(bytes, 12)));
    let hot = || (0..count).map(|i| get32(bytes, 24 + 4 * i)).collect();
    (count <= MOST_HOT).then(|| (get64(bytes, 16), hot(), !get32(bytes, SLOT - 4)))
}

/// Blocks of a volume.
#[must_use]
pub fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

fn pages(size: u64) -> u64 {
    blocks(size).div_ceil(PAGE_BLOCKS)
}

/// Offset of a page of the bitmap of a replica.
#[must_use]
pub fn page_offset(size: u64, replica: usize, page: usize) -> u64 {
    BITMAPS + (number(replica) * pages(size) + number(page)) * number(PAGE)
}

/// Length of the metadata file.
#[must_use]
pub fn length(size: u64, replicas: usize) -> u64 {
    page_offset(size, replicas, 0)
}

/// All that is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Superblock.
    pub head: Super,
    /// Sequence number of the activity log.
    pub log_seq: u64,
    /// Hot extents.
    pub hot: Vec<u32>,
    /// Replicas from which these may differ after a crash.
    pub doubt: u32,
    /// What every replica lacks.
    pub bitmaps: Vec<Bitmap>,
}

/// What to write into an empty metadata file (of [`length`], zero filled).
#[must_use]
pub fn format(config: &crate::Config) -> Vec<Piece> {
    let n = usize::from(config.replicas);
    let first = config.index == 0;
    let has_data = config.assume_clean || first;
    let mut head = Super {
        seq: 0,
        size: config.size,
        day0: config.day0,
        current: if has_data { config.day0 } else { crate::lineage::NEVER },
        epoch: 0,
        index: config.index,
        consistent: has_data,
        up_to_date: has_data,
        primary: false,
        clean: true,
        sync_from: NOBODY,
        bitmap: vec![0; n],
        full: (0..n).map(|p| !config.assume_clean && first && p != 0).collect(),
        history: Vec::new(),
        base: 0,
        goal: 0,
        left: 0,
    };
    let (_, slot) = head.next_write();
    // Both slots: a torn first write leaves the other.
    vec![(0, slot.clone()), (number(SLOT), slot), encode_log(0, &[], 0), encode_log(1, &[], 0)]
}

/// Reads the metadata file.
///
/// # Errors
/// When no superblock is valid or it belongs to another definition.
pub fn read(config: &crate::Config, bytes: &[u8]) -> Result<Stored, MetaError> {
    let slot = |i: usize| bytes.get(i * SLOT..(i + 1) * SLOT).unwrap_or(&[]);
    let head = match (Super::decode(slot(0)), Super::decode(slot(1))) {
        (Ok(a), Ok(b)) => {
            if a.seq >= b.seq {
                a
            } else {
                b
            }
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
        (Err(why), Err(_)) => return Err(why),
    };
    let differs = if head.size != config.size {
        Some("size")
    } else if head.day0 != config.day0 {
        Some("day-0 generation")
    } else if head.index != config.index || head.bitmap.len() != usize::from(config.replicas) {
        Some("order or number of replicas")
    } else {
        None
    };
    if let Some(what) = differs {
        return Err(MetaError::Contradicts(what));
    }
    let (log_seq, hot, doubt) = match (decode_log(slot(2)), decode_log(slot(3))) {
        (Some(a), Some(b)) => {
            if a.0 >= b.0 {
                a
            } else {
                b
            }
        }
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(MetaError::NoSuperblock),
    };
    let extents = head.size.div_ceil(crate::activity::EXTENT);
    let hot = hot.into_iter().filter(|e| u64::from(*e) < extents).collect();
    let bitmaps = (0..head.bitmap.len())
        .map(|replica| {
            let from = index(page_offset(head.size, replica, 0)).min(bytes.len());
            let to = index(page_offset(head.size, replica + 1, 0)).min(bytes.len());
            Bitmap::from_bytes(blocks(head.size), &bytes[from..to])
        })
        .collect();
    Ok(Stored { head, log_seq, hot, doubt, bitmaps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> crate::Config {
        crate::Config {
            index: 0,
            replicas: 2,
            size: 64 << 20,
            day0: 77,
            assume_clean: true,
            hot: 8,
            grace_ms: 0,
        }
    }

    fn apply(file: &mut [u8], pieces: &[Piece]) {
        for (at, bytes) in pieces {
            let at = index(*at);
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    #[test]
    fn the_newer_valid_slot_counts() {
        let config = config();
        let mut file = vec![0; index(length(config.size, 2))];
        apply(&mut file, &format(&config));
        let mut head = read(&config, &file).unwrap().head;
        head.current = 99;
        let piece = head.next_write();
        let at = index(piece.0);
        apply(&mut file, &[piece, encode_log(2, &[3, 5], 6)]);
        let stored = read(&config, &file).unwrap();
        assert_eq!((stored.head.current, stored.hot, stored.doubt), (99, vec![3, 5], 6));
        file[at + 40] ^= 1;
        assert_eq!(read(&config, &file).unwrap().head.current, 77);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40000)) {
            prop_assert!(read(&config(), &bytes).is_err());
        }

        #[test]
        fn superblock_comes_back(seq in 0u64..9, current: u64, epoch: u64, flags: [bool; 4], gens in proptest::collection::vec(any::<u64>(), 1..=8),
            history in proptest::collection::vec(1u64.., 0..=32)) {
            let full = gens.iter().map(|g| g % 2 == 0).collect();
            let head = Super { seq, size: 8192, day0: 1, current, epoch, index: 0, consistent: flags[0], up_to_date: flags[1], primary: flags[2],
                clean: flags[3], sync_from: 3, bitmap: gens, full, history, base: current, goal: epoch, left: 5 };
            prop_assert_eq!(Super::decode(&head.encode()), Ok(head));
        }
    }
}
