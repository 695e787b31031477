//! Whether the log's file is what was written to it, before anything in it is believed.
//!
//! redb has a checksum on every page and looks at none of them when it opens a file that was closed in good order: a page whose bytes have
//! changed since makes it panic, or shows other keys than were written, a vote that nobody finds among them. When it looks (after a crash)
//! it takes the newest state that is whole, which may be one that forgets the last vote. So it is made to look at a copy of the file in
//! memory, and may not mend it: what was closed in good order and is not whole now is refused, and stays as it is.

use redb::backends::InMemoryBackend;
use redb::{DatabaseError, StorageBackend};
use std::io;
use std::path::Path;

/// Where the flags are in the file, and what they are (redb, `docs/design.md`: the "god byte").
const FLAGS_AT: usize = 9;
/// The newest state is in the second of two slots.
const SECOND_SLOT: u8 = 1;
/// The file is open, or was when its process ended.
const RECOVERY_REQUIRED: u8 = 2;
/// The last commit has left the map of free pages behind: nothing has to be walked through.
const TWO_PHASE_COMMIT: u8 = 4;
/// The slots.
const SLOTS_AT: usize = 64;
const SLOT_LENGTH: usize = 128;
/// The number of its transaction, in a slot.
const NUMBER_AT: std::ops::Range<usize> = 104..112;

/// Progress that redb reports when the newest state is not whole, and not otherwise.
const NOT_WHOLE: f64 = 0.3;

/// Looks through the file; `Err` says what is wrong with it. What ended in a crash is for redb to mend.
pub(super) fn look(path: &Path) -> io::Result<Result<(), String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(judge(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(())),
        Err(error) => Err(error),
    }
}

fn judge(mut bytes: Vec<u8>) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let numbers = [0, 1].map(|slot| number(&bytes, slot));
    let Some(flags) = bytes.get_mut(FLAGS_AT) else { return Err("it is cut off".to_owned()) };
    if *flags & RECOVERY_REQUIRED != 0 {
        return Ok(());
    }
    let second = usize::from(*flags & SECOND_SLOT);
    if numbers.get(second) < numbers.get(1 - second) {
        return Err("its header names the older of two states".to_owned());
    }
    *flags &= !TWO_PHASE_COMMIT;
    let copy = InMemoryBackend::new();
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    copy.set_len(length).and_then(|()| copy.write(0, &bytes)).map_err(|e| e.to_string())?;
    let mut builder = redb::Builder::new();
    builder.set_repair_callback(|session| {
        if session.progress() >= NOT_WHOLE && session.progress() < 2.0 * NOT_WHOLE {
            session.abort();
        }
    });
    match builder.create_with_backend(copy) {
        Ok(_) => Ok(()),
        Err(DatabaseError::RepairAborted) => {
            Err("a page's checksum does not match: its bytes have changed on the disk".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn number(bytes: &[u8], slot: usize) -> Option<u64> {
    let slot = bytes.get(SLOTS_AT + slot * SLOT_LENGTH..)?.get(..SLOT_LENGTH)?;
    Some(u64::from_le_bytes(slot.get(NUMBER_AT)?.try_into().ok()?))
}
