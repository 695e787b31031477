//! MD5 in hexadecimal: Pacemaker's histories name parameters by it. Not used for anything that has to be safe.

use md5::{Digest, Md5};

/// The digest of a text, in hexadecimal.
pub(super) fn hex(text: &str) -> String {
    format!("{:x}", Md5::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn known_digests() {
        assert_eq!(hex(""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(" <parameters/>\n"), "f2317cad3d54cec5d7d7aa7d0bf35cf8");
    }
}
