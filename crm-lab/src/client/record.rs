//! One record: fixed size, its own number, the time, bytes made from the number, a checksum over all.
//!
//! ```text
//! 0 magic  8 number  16 time (microseconds)  24 payload  508 crc32c
//! ```

/// Bytes of a record.
pub const RECORD_BYTES: usize = 512;
const SIZE: u64 = 512;
const MAGIC: &[u8; 8] = b"crmlab01";
const CRC_AT: usize = RECORD_BYTES - 4;

/// Where record `number` lies in the file.
pub(crate) fn offset(number: u64) -> u64 {
    number * SIZE
}

/// How many records fit into `bytes` of the file.
pub(crate) fn count(bytes: u64) -> u64 {
    bytes / SIZE
}

/// The bytes of record `number`.
pub(crate) fn make(number: u64, time_us: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&time_us.to_le_bytes());
    let mut word = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < CRC_AT {
        // xorshift64: every record's payload differs in every word.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let room = CRC_AT - bytes.len();
        bytes.extend(word.to_le_bytes().into_iter().take(room));
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checksum of a record's bytes, as noted in the log of acknowledged records.
pub(crate) fn checksum(bytes: &[u8]) -> Option<u32> {
    let tail: [u8; 4] = bytes.get(CRC_AT..RECORD_BYTES)?.try_into().ok()?;
    let said = u32::from_le_bytes(tail);
    (crc32c::crc32c(bytes.get(..CRC_AT)?) == said).then_some(said)
}

/// Whether the bytes are record `number`, whole, with the checksum that was acknowledged.
pub(crate) fn is_intact(bytes: &[u8], number: u64, crc: u32) -> bool {
    let numbered = bytes.get(..8) == Some(MAGIC) && bytes.get(8..16) == Some(&number.to_le_bytes());
    numbered && checksum(bytes) == Some(crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says_and_intact() {
        let bytes = make(7, 1_000);
        assert_eq!(bytes.len(), RECORD_BYTES);
        assert!(is_intact(&bytes, 7, checksum(&bytes).unwrap()));
    }

    #[test]
    fn a_changed_byte_or_another_number_is_seen() {
        let mut bytes = make(7, 1_000);
        let crc = checksum(&bytes).unwrap();
        assert!(!is_intact(&bytes, 8, crc));
        bytes[100] ^= 1;
        assert!(!is_intact(&bytes, 7, crc));
    }

    #[test]
    fn an_old_version_of_a_record_is_not_taken_for_the_acknowledged_one() {
        let (old, new) = (make(7, 1_000), make(7, 2_000));
        assert!(!is_intact(&old, 7, checksum(&new).unwrap()));
    }
}
