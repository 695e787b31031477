//! Digest of instance attributes: tells whether a running resource was started with other parameters.

use std::collections::BTreeMap;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over names and values in name order; `CRM_meta_*` values and per-operation `OCF_*` ones do not count. Never zero.
#[must_use]
pub fn digest(params: &BTreeMap<String, String>) -> u64 {
    let mut hash = OFFSET;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        // A byte that no UTF-8 text has keeps ("ab","c") and ("a","bc") apart.
        hash = (hash ^ 0xff).wrapping_mul(PRIME);
    };
    for (name, value) in params {
        if name.starts_with("CRM_meta_") || name.starts_with("OCF_") {
            continue;
        }
        eat(name.as_bytes());
        eat(value.as_bytes());
    }
    if hash == 0 { 1 } else { hash }
}

#[cfg(test)]
mod tests {
    use super::digest;
    use std::collections::BTreeMap;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn digest_separates_names_from_values_and_ignores_meta() {
        assert_ne!(digest(&map(&[("ab", "c")])), digest(&map(&[("a", "bc")])));
        assert_eq!(
            digest(&map(&[("a", "b")])),
            digest(&map(&[("a", "b"), ("CRM_meta_timeout", "20000"), ("OCF_CHECK_LEVEL", "10")]))
        );
        assert_ne!(digest(&map(&[])), 0);
    }

    #[test]
    fn digest_is_stable_across_versions() {
        assert_eq!(digest(&map(&[("device", "/dev/drbd0")])), 0x5ed8_929f_6172_a8e0);
    }
}
