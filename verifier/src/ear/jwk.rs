//! Public keys as JSON: those of an issuer, and the one a guest holds.
//!
//! An issuer's key is named by its thumbprint (RFC 7638) and by nothing else, so that a name never stands for two keys.
//! Never: reads a private key; one that stands where a public one should is refused.
//! Source: RFC 7517 §4, §5; RFC 7518 §6.2, §6.3; RFC 7638 §3.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::once;
use crate::{P384PublicKey, hcl::TpmKey, said};

/// The thumbprint of an issuer's key, which is its `kid`: 43 characters.
pub fn thumbprint(key: &P384PublicKey) -> String {
    let (x, y) = coordinates(key);
    BASE64URL.encode(Sha256::digest(format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#)))
}

fn coordinates(key: &P384PublicKey) -> (String, String) {
    (BASE64URL.encode(key.x()), BASE64URL.encode(key.y()))
}

/// The keys of an issuer whose tokens may still be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks(Vec<P384PublicKey>);

/// Why bytes are no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Longer than any set.
    #[error("key set of {found} bytes is longer than {MAX_JWKS}")]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// Not JSON, or a key of an object twice.
    #[error("key set: {0}")]
    Json(String),
    /// No list of objects under `keys`, or more than [`Jwks::MOST`].
    #[error("key set has no `keys`, or more than {}", Jwks::MOST)]
    Keys,
    /// A private or a secret key.
    #[error("keys[{at}] holds a private key; a key set is public")]
    Private {
        /// Which.
        at: usize,
    },
    /// Its name is not its thumbprint.
    #[error("keys[{at}].kid is not the key's thumbprint {expected}")]
    Name {
        /// Which.
        at: usize,
        /// What it should be.
        expected: String,
    },
    /// The same key twice.
    #[error("keys[{at}] stands there twice")]
    Twice {
        /// Which.
        at: usize,
    },
    /// A P-384 key that is none.
    #[error("keys[{at}] is no point on P-384")]
    Point {
        /// Which.
        at: usize,
    },
    /// None that signs ES384.
    #[error("key set has no key for ES384")]
    Empty,
}

const MAX_JWKS: usize = 64 * 1024;
/// Members of private and secret keys.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl Jwks {
    /// Keys of one set.
    pub const MOST: usize = 64;

    /// From keys, each once.
    pub fn new(keys: impl IntoIterator<Item = P384PublicKey>) -> Self {
        let mut all = Vec::new();
        for key in keys {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        Self(all)
    }

    /// Reads a set. Keys of other kinds and uses are passed over (RFC 7517 §5).
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        if bytes.len() > MAX_JWKS {
            return Err(JwksError::TooLong { found: bytes.len() });
        }
        let json = |error: serde_json::Error| JwksError::Json(said::json_error(bytes, &error));
        once::check(bytes).map_err(json)?;
        let document: Value = serde_json::from_slice(bytes).map_err(json)?;
        let list = document.get("keys").and_then(Value::as_array).filter(|list| list.len() <= Self::MOST);
        let mut keys = Vec::new();
        for (at, key) in list.ok_or(JwksError::Keys)?.iter().enumerate() {
            let key = key.as_object().ok_or(JwksError::Keys)?;
            if PRIVATE.iter().any(|name| key.contains_key(*name)) {
                return Err(JwksError::Private { at });
            }
            let is = |name: &str, value: &str| key.get(name).is_none_or(|found| found == value);
            let ours = key.contains_key("kty") && is("kty", "EC") && key.contains_key("crv") && is("crv", "P-384");
            if !ours || !is("use", "sig") || !is("alg", "ES384") {
                continue;
            }
            let public = point(key).ok_or(JwksError::Point { at })?;
            let expected = thumbprint(&public);
            if key.get("kid").is_none_or(|kid| *kid != expected) {
                return Err(JwksError::Name { at, expected });
            }
            if keys.contains(&public) {
                return Err(JwksError::Twice { at });
            }
            keys.push(public);
        }
        if keys.is_empty() { Err(JwksError::Empty) } else { Ok(Self(keys)) }
    }

    /// Writes the set, as it stands at `/.well-known/jwks.json`.
    pub fn to_json(&self) -> String {
        let keys = self.0.iter().map(|key| {
            let mut jwk = p384_members(key);
            jwk.insert("use".into(), "sig".into());
            jwk.insert("alg".into(), "ES384".into());
            jwk.insert("kid".into(), thumbprint(key).into());
            Value::Object(jwk)
        });
        format!("{:#}\n", json!({ "keys": keys.collect::<Vec<_>>() }))
    }

    /// The keys.
    pub fn keys(&self) -> &[P384PublicKey] {
        &self.0
    }

    /// The key of this name.
    pub fn find(&self, kid: &str) -> Option<&P384PublicKey> {
        self.0.iter().find(|key| thumbprint(key) == kid)
    }
}

fn p384_members(key: &P384PublicKey) -> Map<String, Value> {
    let (x, y) = coordinates(key);
    [("kty", "EC"), ("crv", "P-384"), ("x", &x), ("y", &y)]
        .map(|(name, value)| (name.into(), value.into()))
        .into_iter()
        .collect()
}

fn bytes(key: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(key.get(name)?.as_str()?).ok()
}

fn point(key: &Map<String, Value>) -> Option<P384PublicKey> {
    let half = |name| -> Option<[u8; 48]> { bytes(key, name)?.try_into().ok() };
    P384PublicKey::from_point(half("x")?, half("y")?).ok()
}

/// A key that a guest holds, as `cnf` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestKey {
    /// Of its RA-TLS certificate.
    P384(P384PublicKey),
    /// Of its vTPM on Azure, which signs quotes.
    Tpm(TpmKey),
}

impl GuestKey {
    /// The JWK, members of the public key and no other.
    pub(super) fn to_jwk(&self) -> Value {
        match self {
            Self::P384(key) => p384_members(key).into(),
            Self::Tpm(TpmKey { modulus, exponent }) => {
                json!({ "kty": "RSA", "n": BASE64URL.encode(modulus), "e": BASE64URL.encode(exponent) })
            }
        }
    }

    /// Reads a JWK of one of the kinds there are.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn from_jwk(value: &Value) -> Result<Self, JwksError> {
        let key = value.as_object().ok_or(JwksError::Keys)?;
        if PRIVATE.iter().any(|name| key.contains_key(*name)) {
            return Err(JwksError::Private { at: 0 });
        }
        let is = |name: &str, value: &str| key.get(name).is_some_and(|found| found == value);
        if is("kty", "EC") && is("crv", "P-384") {
            return point(key).map(Self::P384).ok_or(JwksError::Point { at: 0 });
        }
        let rsa = is("kty", "RSA").then(|| Some(TpmKey { modulus: bytes(key, "n")?, exponent: bytes(key, "e")? }));
        rsa.flatten().map(Self::Tpm).ok_or(JwksError::Empty)
    }
}

impl core::fmt::Display for GuestKey {
    /// Its thumbprint.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::P384(key) => f.write_str(&thumbprint(key)),
            // Sorted members, as RFC 7638 wants them.
            Self::Tpm(TpmKey { modulus, exponent }) => {
                let (n, e) = (BASE64URL.encode(modulus), BASE64URL.encode(exponent));
                f.write_str(&BASE64URL.encode(Sha256::digest(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> P384PublicKey {
        let secret = p384::ecdsa::SigningKey::from_slice(&[seed; 48]).unwrap();
        P384PublicKey::from_sec1(secret.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // The RSA key of its section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL\
5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = GuestKey::from_jwk(&json!({ "kty": "RSA", "n": n, "e": "AQAB" })).unwrap();
        assert_eq!(key.to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_set_is_read_as_it_is_written_and_other_keys_are_passed_over() {
        let set = Jwks::new([key(7), key(8), key(7)]);
        assert_eq!(set.keys().len(), 2);
        assert_eq!(Jwks::parse(set.to_json().as_bytes()).unwrap(), set);
        assert_eq!(set.find(&thumbprint(&key(8))), Some(&key(8)));
        assert_eq!((set.find(""), set.find(&thumbprint(&key(9)))), (None, None));

        let mut document: Value = serde_json::from_str(&set.to_json()).unwrap();
        let list = document["keys"].as_array_mut().unwrap();
        list.push(json!({ "kty": "RSA", "n": "AQ", "e": "AQAB" }));
        list.push(json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ" }));
        list.push(json!({ "use": "enc", "kty": "EC", "crv": "P-384", "x": "AQ", "y": "AQ" }));
        assert_eq!(Jwks::parse(document.to_string().as_bytes()).unwrap(), set);
    }

    #[test]
    fn private_keys_other_names_and_doubles_are_refused() {
        let spoiled = |spoil: &dyn Fn(&mut Value)| {
            let mut document: Value = serde_json::from_str(&Jwks::new([key(7)]).to_json()).unwrap();
            spoil(&mut document);
            Jwks::parse(document.to_string().as_bytes()).unwrap_err()
        };
        for name in PRIVATE {
            assert_eq!(spoiled(&|set| set["keys"][0][name] = "AQ".into()), JwksError::Private { at: 0 });
        }
        let expected = thumbprint(&key(7));
        assert_eq!(
            spoiled(&|set| set["keys"][0]["kid"] = "1".into()),
            JwksError::Name { at: 0, expected: expected.clone() }
        );
        let nameless = |set: &mut Value| drop(set["keys"][0].as_object_mut().unwrap().remove("kid"));
        assert_eq!(spoiled(&nameless), JwksError::Name { at: 0, expected });
        assert_eq!(spoiled(&|set| set["keys"][0]["x"] = set["keys"][0]["y"].clone()), JwksError::Point { at: 0 });
        assert_eq!(spoiled(&|set| set["keys"][0]["x"] = "AQ".into()), JwksError::Point { at: 0 });
        let twice = |set: &mut Value| {
            let first = set["keys"][0].clone();
            set["keys"].as_array_mut().unwrap().push(first);
        };
        assert_eq!(spoiled(&twice), JwksError::Twice { at: 1 });
        assert_eq!(spoiled(&|set| set["keys"][0]["alg"] = "HS384".into()), JwksError::Empty);
        assert_eq!(spoiled(&|set| set["keys"] = json!([])), JwksError::Empty);
        assert_eq!(spoiled(&|set| *set = json!([])), JwksError::Keys);
        assert_eq!(Jwks::parse(&vec![b' '; MAX_JWKS + 1]), Err(JwksError::TooLong { found: MAX_JWKS + 1 }));
        assert!(matches!(Jwks::parse(br#"{"keys":[],"keys":[]}"#), Err(JwksError::Json(_))));
    }
}
