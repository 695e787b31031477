//! First words on a connection: who is there, for which volume, and proof of the shared key from both sides.
//!
//! The caller sends magic, features, volume, its name, the name it calls and a nonce; the called one answers with features, a nonce and its
//! proof; the caller sends its proof. A proof is HMAC-SHA256 over a role word and everything said so far.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"CRMBLK1\n";
/// Capabilities of this version.
const FEATURES: u32 = 0;
const NONCE: usize = 32;
const PROOF: usize = 32;
const MOST_NAME: usize = 255;

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The key file is missing or unreadable.
    #[error("key {path}: {why}")]
    Key { path: String, why: String },
    /// The connection failed.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// Something else is at the other end.
    #[error("the other side does not speak this protocol")]
    Protocol,
    /// Wrong key.
    #[error("the other side has another key")]
    Proof,
    /// No such volume, or it is down.
    #[error("volume `{0}` is not up here")]
    Volume(String),
}

/// Who calls whom about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) volume: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The shared key: 64 hexadecimal digits in a file.
pub(crate) fn key(path: &Path) -> Result<hmac::Key, AuthError> {
    let fail = |why: String| AuthError::Key { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let text = text.trim();
    let digits: Option<Vec<u8>> =
        (text.len() == 64).then(|| text.as_bytes().chunks(2).map(hex_pair).collect()).flatten();
    digits
        .map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        .ok_or_else(|| fail("is not 64 hexadecimal digits".to_owned()))
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

fn nonce() -> Result<[u8; NONCE], AuthError> {
    let mut bytes = [0; NONCE];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(bytes)
}

fn proof(key: &hmac::Key, role: &str, said: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(role.as_bytes());
    context.update(said);
    context.sign()
}

fn check(key: &hmac::Key, role: &str, said: &[u8], tag: &[u8]) -> Result<(), AuthError> {
    let mut text = role.as_bytes().to_vec();
    text.extend_from_slice(said);
    hmac::verify(key, &text, tag).map_err(|_| AuthError::Proof)
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Result<(), AuthError> {
    let len = u8::try_from(name.len()).map_err(|_| AuthError::Protocol)?;
    out.push(len);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn get_name(stream: &mut impl Read, said: &mut Vec<u8>) -> Result<String, AuthError> {
    let mut len = [0];
    stream.read_exact(&mut len)?;
    let mut name = [0; MOST_NAME];
    let name = &mut name[..usize::from(len[0])];
    stream.read_exact(name)?;
    said.push(len[0]);
    said.extend_from_slice(name);
    String::from_utf8(name.to_vec()).map_err(|_| AuthError::Protocol)
}

/// The calling side.
pub(crate) fn call(
    stream: &mut (impl Read + Write),
    key: &hmac::Key,
    call: &Call,
) -> Result<(), AuthError> {
    let mut said = MAGIC.to_vec();
    said.extend_from_slice(&FEATURES.to_le_bytes());
    for name in [&call.volume, &call.from, &call.to] {
        put_name(&mut said, name)?;
    }
    said.extend_from_slice(&nonce()?);
    stream.write_all(&said)?;
    let mut answer = [0; 4 + NONCE + PROOF];
    stream.read_exact(&mut answer)?;
    said.extend_from_slice(&answer[..4 + NONCE]);
    check(key, "called", &said, &answer[4 + NONCE..])?;
    stream.write_all(proof(key, "caller", &said).as_ref())?;
    Ok(())
}

/// The called side; `known` says whether such a call is expected.
pub(crate) fn answer(
    stream: &mut (impl Read + Write),
    key: &hmac::Key,
    known: impl FnOnce(&Call) -> bool,
) -> Result<Call, AuthError> {
    let mut said = vec![0; MAGIC.len() + 4];
    stream.read_exact(&mut said)?;
    if said[..MAGIC.len()] != MAGIC[..] {
        return Err(AuthError::Protocol);
    }
    let volume = get_name(stream, &mut said)?;
    let from = get_name(stream, &mut said)?;
    let to = get_name(stream, &mut said)?;
    let call = Call { volume, from, to };
    let mut theirs = [0; NONCE];
    stream.read_exact(&mut theirs)?;
    said.extend_from_slice(&theirs);
    if !known(&call) {
        return Err(AuthError::Volume(call.volume));
    }
    let mut reply = FEATURES.to_le_bytes().to_vec();
    reply.extend_from_slice(&nonce()?);
    said.extend_from_slice(&reply);
    reply.extend_from_slice(proof(key, "called", &said).as_ref());
    stream.write_all(&reply)?;
    let mut tag = [0; PROOF];
    stream.read_exact(&mut tag)?;
    check(key, "caller", &said, &tag)?;
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn meet(
        caller_key: [u8; 32],
        called_key: [u8; 32],
    ) -> (Result<(), AuthError>, Result<Call, AuthError>) {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let words = Call { volume: "v".into(), from: "a".into(), to: "b".into() };
            call(&mut a, &hmac::Key::new(hmac::HMAC_SHA256, &caller_key), &words)
        });
        let answered =
            answer(&mut b, &hmac::Key::new(hmac::HMAC_SHA256, &called_key), |c| c.volume == "v");
        drop(b);
        (thread.join().unwrap(), answered)
    }

    #[test]
    fn same_key_meets() {
        let (call, answer) = meet([7; 32], [7; 32]);
        call.unwrap();
        assert_eq!(answer.unwrap().from, "a");
    }

    #[test]
    fn other_key_is_refused_by_both() {
        let (call, answer) = meet([7; 32], [8; 32]);
        assert!(matches!(call, Err(AuthError::Proof)));
        assert!(answer.is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn nobody_meets_without_the_key_whatever_he_says(
            names in proptest::array::uniform3("[a-z]{0,40}"),
            magic: bool,
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let (mut stranger, mut server) = UnixStream::pair().unwrap();
            let mut said = if magic { MAGIC.to_vec() } else { Vec::new() };
            said.extend(FEATURES.to_le_bytes());
            for name in &names {
                put_name(&mut said, name).unwrap();
            }
            said.extend(rest);
            stranger.write_all(&said).unwrap();
            stranger.shutdown(std::net::Shutdown::Write).unwrap();
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
            assert!(answer(&mut server, &key, |_| true).is_err());
        }
    }
}
