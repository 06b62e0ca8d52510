//! Who may ask: whoever has a key that is listed by its digest, or a client certificate under a root that is listed.
//!
//! A key is 32 random bytes, so its digest needs no salt and no slow hash. Every listed digest is compared, each in constant time.
//! Never: keeps or prints a key; tells which part of it was wrong.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use sha2::{Digest as _, Sha256};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever has the key of this name.
    Key(String),
    /// Whoever has the key of this certificate: SHA-256 of it, hexadecimal.
    Certificate(String),
    /// Anybody, where the operator said so.
    Anyone,
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Name and SHA-256 of each key.
    pub keys: Vec<(String, [u8; 32])>,
    /// Anybody may.
    pub anyone: bool,
    /// Only who asks for a name or an address of the loopback: plain HTTP and anyone, which a page in a browser could ask otherwise.
    pub loopback_names_alone: bool,
}

/// What a key begins with, so that one that went astray is found.
const PREFIX: &str = "coffer-verifier-";

/// A new key, of 32 random bytes, and its digest.
pub fn new_key(random: [u8; 32]) -> (String, [u8; 32]) {
    let key = format!("{PREFIX}{}", BASE64URL.encode(random));
    let digest = Sha256::digest(&key).into();
    (key, digest)
}

impl Access {
    /// Who it is, if that is somebody who may ask. `authorization`: the header; `certificate`: SHA-256 of the client certificate that TLS
    /// has checked.
    pub fn caller(&self, authorization: Option<&[u8]>, certificate: Option<&str>) -> Option<Caller> {
        if let Some(certificate) = certificate {
            return Some(Caller::Certificate(certificate.to_owned()));
        }
        let given = authorization.and_then(bearer).map(|key| <[u8; 32]>::from(Sha256::digest(key)));
        if let Some(given) = given {
            let mut found = None;
            for (name, digest) in &self.keys {
                if verify_slices_are_equal(digest, &given).is_ok() {
                    found = Some(name);
                }
            }
            return found.map(|name| Caller::Key(name.clone()));
        }
        self.anyone.then_some(Caller::Anyone)
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(name) => write!(f, "key {name}"),
            Self::Certificate(digest) => write!(f, "certificate {digest}"),
            Self::Anyone => f.write_str("anyone"),
        }
    }
}

/// RFC 6750: the scheme in any case, one space or more.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_and_nothing_near_it_does() {
        let (one, digest) = new_key([1; 32]);
        let (two, other) = new_key([2; 32]);
        let access = Access { keys: vec![("ci".into(), digest), ("web".into(), other)], ..Access::default() };
        let caller = |header: &str| access.caller(Some(header.as_bytes()), None);
        assert_eq!(caller(&format!("Bearer {one}")), Some(Caller::Key("ci".into())));
        assert_eq!(caller(&format!("bearer  {two} ")), Some(Caller::Key("web".into())));
        let bent = format!("{}{}", &one[..one.len() - 1], "A");
        for header in ["", "Bearer", "Bearer ", &one, &format!("Basic {one}"), &format!("Bearer {bent}")] {
            assert_eq!(caller(header), None, "{header}");
        }
        assert_eq!(caller(&format!("Bearer {}", hex::encode(digest))), None, "what is stored opens nothing");
        assert_eq!(access.caller(None, None), None);
        assert_eq!(access.caller(None, Some("ab")), Some(Caller::Certificate("ab".into())));
    }

    #[test]
    fn where_anybody_may_ask_a_wrong_key_is_wrong_all_the_same() {
        let access = Access { anyone: true, ..Access::default() };
        assert_eq!(access.caller(None, None), Some(Caller::Anyone));
        assert_eq!(access.caller(Some(b"Bearer x"), None), None);
    }
}
