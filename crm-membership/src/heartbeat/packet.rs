//! A heartbeat on the wire: one datagram, sealed with the cluster's heartbeat key. Integers are little endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `CRMH` |
//! | 4 | 1 | version, 3 |
//! | 5 | 1 | mode hint |
//! | 6 | 1 | link that it is sent over, from 0: it counts on no other |
//! | 7 | 8 | sender's raft id |
//! | 15 | 8 | receiver's raft id |
//! | 23 | 8 | sender's incarnation |
//! | 31 | 8 | sequence: microseconds since the sender's thread began; one sequence for all links |
//! | 39 | 8 | receiver's incarnation as the sender last heard it, 0 = not yet |
//! | 47 | 8 | sender's session |
//! | 55 | 8 | sequence of the newest beat of the receiver that the sender has heard on any link, 0 = none |
//! | 63 | 8 | sequence of the newest beat of the receiver that the sender has heard on this link, 0 = none |
//! | 71 | 8 | microseconds between that one's arrival and this sending |
//! | 79 | n | what the sender says of service quorum (`crate::ballot`): nothing where no option of it is set |
//! | 79 + n | 32 | HMAC-SHA256 of the above with the cluster's heartbeat key |
//!
//! Another version is not listened to.

use ring::hmac;

const MAGIC: &[u8; 4] = b"CRMH";
const VERSION: u8 = 3;
const SIGNED: usize = 79;
const TAG: usize = 32;
pub(super) const LENGTH: usize = SIGNED + TAG;
/// Bytes of what a node says of service quorum at most: two ballots of 32 nodes with long names.
pub(crate) const WORD_MAX: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) mode_hint: u8,
    pub(super) link: u8,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) incarnation: u64,
    pub(super) seq: u64,
    pub(super) echo: u64,
    pub(super) session: u64,
    pub(super) heard: u64,
    pub(super) link_heard: u64,
    pub(super) link_held_us: u64,
}

impl Packet {
    pub(super) fn seal(&self, key: &hmac::Key, word: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH + word.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.mode_hint, self.link]);
        for word in [
            self.from,
            self.to,
            self.incarnation,
            self.seq,
            self.echo,
            self.session,
            self.heard,
            self.link_heard,
            self.link_held_us,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(word);
        let tag = hmac::sign(key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// What a datagram says, and what its sender says of service quorum.
    pub(super) fn open<'a>(datagram: &'a [u8], key: &hmac::Key) -> Option<(Self, &'a [u8])> {
        if !(LENGTH..=LENGTH + WORD_MAX).contains(&datagram.len()) {
            return None;
        }
        let (signed, tag) = datagram.split_at_checked(datagram.len() - TAG)?;
        hmac::verify(key, signed, tag).ok()?;
        let (head, word) = signed.split_at_checked(SIGNED)?;
        let rest = head.strip_prefix(MAGIC.as_slice())?;
        let ([version, mode_hint, link], words) = rest.split_first_chunk::<3>()?;
        if *version != VERSION {
            return None;
        }
        let mut words =
            words.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
        let packet = Self {
            mode_hint: *mode_hint,
            link: *link,
            from: words.next()?,
            to: words.next()?,
            incarnation: words.next()?,
            seq: words.next()?,
            echo: words.next()?,
            session: words.next()?,
            heard: words.next()?,
            link_heard: words.next()?,
            link_held_us: words.next()?,
        };
        Some((packet, word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        mode_hint: 3,
        link: 1,
        from: 1,
        to: 2,
        incarnation: 9,
        seq: 4,
        echo: 8,
        session: 77,
        heard: 6,
        link_heard: 5,
        link_held_us: 12,
    };

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    #[test]
    fn packet_survives_the_wire_and_any_flipped_bit_is_noticed() {
        for word in [b"".as_slice(), b"what it says of quorum"] {
            let sealed = PACKET.seal(&key(1), word);
            assert_eq!(sealed.len(), LENGTH + word.len());
            assert_eq!(Packet::open(&sealed, &key(1)), Some((PACKET, word)));
            assert_eq!(Packet::open(&sealed, &key(2)), None);
            for position in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[position] ^= 1;
                assert_eq!(Packet::open(&bad, &key(1)), None, "byte {position}");
            }
            assert_eq!(Packet::open(&sealed[..sealed.len() - 1], &key(1)), None);
        }
        assert_eq!(Packet::open(&PACKET.seal(&key(1), &[0; WORD_MAX + 1]), &key(1)), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn no_datagram_is_read_without_the_key_and_with_it_any_is_read_or_refused(
            signed in proptest::collection::vec(proptest::prelude::any::<u8>(), SIGNED..SIGNED + 40),
            tag in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            begun: bool,
        ) {
            let mut signed = signed;
            if begun {
                signed[..5].copy_from_slice(&[MAGIC.as_slice(), &[VERSION]].concat());
            }
            assert_eq!(Packet::open(&[signed.clone(), tag].concat(), &key(1)), None);
            let seal = |key| [signed.as_slice(), hmac::sign(&key, &signed).as_ref()].concat();
            assert_eq!(Packet::open(&seal(key(2)), &key(1)), None);
            match Packet::open(&seal(key(1)), &key(1)) {
                Some((packet, word)) => assert_eq!(packet.seal(&key(1), word), seal(key(1))),
                None => assert!(!begun),
            }
        }
    }
}
