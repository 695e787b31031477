//! Join tokens: an invitation for one node, good once and for a while. The file of issued tokens is on
//! the node that issued them.

use crate::durable;
use crate::tls::{hex, unhex};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

const FILE: &str = "tokens.json";
/// An expired token is remembered for a day, so that its user is told why it fails.
const EXPIRED_KEPT_S: u64 = 86_400;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why a token was refused or could not be made.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The text is not a token.
    #[error("the join token is damaged; copy the whole line that `crm cluster token` printed")]
    Damaged,
    /// Its time is over.
    #[error("the join token has expired; make a new one with `crm cluster token`")]
    Expired,
    /// It was used, or never issued by this node.
    #[error(
        "the join token was used already or is not of this node; make a new one with `crm cluster token`"
    )]
    Unknown,
    /// The request was not signed with the token's secret.
    #[error("the join request is not signed with the token's secret")]
    BadSignature,
    /// Only the node with the CA key can admit others.
    #[error(
        "this node has no CA key (`{path}`); make the token on the node where the cluster was founded"
    )]
    NoCaKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The list of issued tokens cannot be read or written.
    #[error("cannot keep the list of issued tokens")]
    Keep(#[source] io::Error),
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) cluster: String,
    /// SHA-256 of the CA certificate (DER), hex.
    pub(crate) ca: String,
    /// Where to ask.
    pub(crate) addresses: Vec<String>,
    pub(crate) id: String,
    pub(crate) secret: String,
    /// Seconds since the epoch.
    pub(crate) expires: u64,
}

impl Token {
    pub(crate) fn text(&self) -> String {
        let json = serde_json::to_vec(self).expect("a token of strings and numbers is JSON");
        base64(&json)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let json = unbase64(text.trim()).ok_or(TokenError::Damaged)?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)
    }
}

/// The signature of a join request.
pub(crate) fn sign(secret: &str, request: &crm_proto::pb::JoinRequest) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, &signed(request)).as_ref().to_vec()
}

/// What is signed of a request: all of it but the token's name, as words with a zero between, which none of them can have. The links come
/// last, as there may be any number of them.
fn signed(request: &crm_proto::pb::JoinRequest) -> Vec<u8> {
    let role = if request.witness { "witness" } else { "node" };
    let level = request.level.to_string();
    let words = [&request.name, &request.address, &request.csr_pem, role, &level];
    let words: Vec<&[u8]> = words
        .into_iter()
        .chain(request.links.iter().map(String::as_str))
        .map(str::as_bytes)
        .collect();
    words.join(&0)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(bytes)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Issued {
    secret: String,
    expires: u64,
}

/// The tokens that this node has issued and that are still good.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    issued: Mutex<BTreeMap<String, Issued>>,
}

impl Tokens {
    pub(crate) fn open(dir: &Path) -> Result<Self, TokenError> {
        let path = dir.join(FILE);
        let issued = match std::fs::read(&path) {
            Ok(json) => {
                serde_json::from_slice(&json).map_err(|e| TokenError::Keep(io::Error::other(e)))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(TokenError::Keep(error)),
        };
        Ok(Self { path, issued: Mutex::new(issued) })
    }

    /// Makes a token and keeps it until it is used or its time is over.
    pub(crate) fn issue(
        &self,
        cluster: &str,
        ca: &str,
        addresses: Vec<String>,
        ttl: Duration,
    ) -> Result<Token, TokenError> {
        let token = Token {
            cluster: cluster.to_owned(),
            ca: ca.to_owned(),
            addresses,
            id: hex(&random::<8>()?),
            secret: hex(&random::<16>()?),
            expires: now_s().saturating_add(ttl.as_secs()),
        };
        let entry = Issued { secret: token.secret.clone(), expires: token.expires };
        self.change(|issued| {
            issued.insert(token.id.clone(), entry);
        })?;
        Ok(token)
    }

    /// Checks a request against the token that it names and burns the token.
    pub(crate) fn redeem(&self, request: &crm_proto::pb::JoinRequest) -> Result<(), TokenError> {
        let found = self.issued().get(&request.token_id).cloned();
        let token = found.ok_or(TokenError::Unknown)?;
        if token.expires <= now_s() {
            return Err(TokenError::Expired);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes());
        hmac::verify(&key, &signed(request), &request.hmac)
            .map_err(|_| TokenError::BadSignature)?;
        let mut burnt = false;
        self.change(|issued| burnt = issued.remove(&request.token_id).is_some())?;
        if burnt { Ok(()) } else { Err(TokenError::Unknown) }
    }

    fn issued(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the list, drops what has expired long ago, and writes it before anybody sees it.
    fn change(&self, act: impl FnOnce(&mut BTreeMap<String, Issued>)) -> Result<(), TokenError> {
        let mut issued = self.issued();
        let mut next = issued.clone();
        act(&mut next);
        let now = now_s();
        next.retain(|_, token| token.expires.saturating_add(EXPIRED_KEPT_S) > now);
        let json = serde_json::to_vec(&next).map_err(|e| TokenError::Keep(io::Error::other(e)))?;
        durable::replace(&self.path, &json, 0o600).map_err(TokenError::Keep)?;
        *issued = next;
        Ok(())
    }
}

/// Base64url without padding (RFC 4648, section 5).
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let digit = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(char::from(DIGITS[digit]));
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut word = 0_u32;
        for byte in chunk {
            let digit = DIGITS.iter().position(|digit| digit == byte)?;
            word = word << 6 | u32::try_from(digit).ok()?;
        }
        word <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// The secret and other hex fields of a token are well formed.
pub(crate) fn ca_pin(token: &Token) -> Result<[u8; 32], TokenError> {
    unhex(&token.ca).and_then(|bytes| bytes.try_into().ok()).ok_or(TokenError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: &Token) -> crm_proto::pb::JoinRequest {
        let mut request = crm_proto::pb::JoinRequest {
            name: "n2".into(),
            address: "10.0.0.2:7631".into(),
            token_id: token.id.clone(),
            witness: true,
            level: 2,
            csr_pem: "csr".into(),
            links: vec!["10.1.0.2:7631".into()],
            ..crm_proto::pb::JoinRequest::default()
        };
        request.hmac = sign(&token.secret, &request);
        request
    }

    /// What somebody on the way could do to a request.
    const CHANGES: [fn(&mut crm_proto::pb::JoinRequest); 9] = [
        |r| r.name = "evil".into(),
        |r| r.address = "10.6.6.6:7631".into(),
        |r| r.csr_pem = "his".into(),
        |r| r.links = vec!["10.6.6.6:7631".into()],
        |r| r.links.clear(),
        |r| r.witness = false,
        |r| r.level = 3,
        |r| r.level = 0,
        |r| (r.witness, r.level) = (false, 0),
    ];

    #[test]
    fn base64_survives_every_length() {
        for length in 0..70_u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37)).collect();
            let text = base64(&bytes);
            assert_eq!(unbase64(&text), Some(bytes));
        }
        assert_eq!(base64(b"hello?>"), "aGVsbG8_Pg");
        assert_eq!(unbase64("a"), None);
        assert_eq!(unbase64("a!bc"), None);
    }

    #[test]
    fn token_is_good_once_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let ttl = Duration::from_secs(60);
        let token = tokens.issue("u", "00", vec!["10.0.0.1:7631".into()], ttl).unwrap();
        let again = Token::parse(&token.text()).unwrap();
        assert_eq!(again, token);
        let tokens = Tokens::open(dir.path()).unwrap();
        for change in CHANGES {
            let mut changed = request(&token);
            change(&mut changed);
            assert_ne!(changed, request(&token));
            let told = tokens.redeem(&changed);
            assert!(matches!(told, Err(TokenError::BadSignature)), "{changed:?}: {told:?}");
        }
        tokens.redeem(&request(&token)).unwrap();
        assert!(matches!(tokens.redeem(&request(&token)), Err(TokenError::Unknown)));
        let tokens = Tokens::open(dir.path()).unwrap();
        assert!(matches!(tokens.redeem(&request(&token)), Err(TokenError::Unknown)));
    }

    #[test]
    fn expired_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let token = tokens.issue("u", "00", vec![], Duration::ZERO).unwrap();
        assert!(matches!(tokens.redeem(&request(&token)), Err(TokenError::Expired)));
        assert!(matches!(Token::parse("rubbish!"), Err(TokenError::Damaged)));
    }
}
