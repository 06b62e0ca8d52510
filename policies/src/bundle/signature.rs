//! `.signatures.json`: one JWT that lists every file with its hash, by a key that the caller holds.
//!
//! Trusts: the key. Believes nothing of the token but its signature: not the key it names, nor an algorithm that is not the key's. Never:
//! takes a file that is not listed, or a list with a file that is not there.
//! Source: OPA's documentation, "Bundles: Signing"; RFC 7515; RFC 7518 §3.4.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use coffer_verifier::{P384PublicKey, UnixTime};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{entry::Entry, json::once};

/// Whose signature a bundle must have: ES256 or ES384, as the key is of one curve or the other.
#[derive(Clone, Debug)]
pub struct BundleKey(Curve);

#[derive(Clone, Debug)]
enum Curve {
    P256([u8; 65]),
    P384(P384PublicKey),
}

/// A text is no key for bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PEM block PUBLIC KEY with a key on P-256 or P-384")]
pub struct KeyError;

/// Why a signature is not what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is none.
    #[error("it has no .signatures.json, and a key is given")]
    None,
    /// There is one, and no key.
    #[error("it is signed, and no key is given")]
    NoKey,
    /// Not the form.
    #[error(".signatures.json: {0}")]
    Form(String),
    /// Not by this key.
    #[error(".signatures.json: the signature does not verify under the given key")]
    Invalid,
    /// A file that the signature does not name, or names otherwise.
    #[error("{file}: {what}")]
    File {
        /// Which.
        file: String,
        /// How it differs.
        what: String,
    },
}

impl SignatureError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None => {
                "get the one that its author signed; whoever is its author signs it with `coffer policy sign FILE --sign KEY`"
            }
            Self::NoKey => {
                "name the signer's public key with --bundle-key FILE, or waive the signature with --no-bundle-signature"
            }
            Self::Form(_) => {
                "`opa sign` makes it: one JWT, ES256 or ES384 as the key is, hashes SHA-256, SHA-384 or SHA-512"
            }
            Self::Invalid | Self::File { .. } => {
                "get the bundle anew from whoever signed it, or the key of whoever did"
            }
        }
    }
}

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// A SubjectPublicKeyInfo of P-256 up to its uncompressed point (RFC 5480 §2).
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl BundleKey {
    /// From PEM with one block `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if let Ok(key) = P384PublicKey::from_pem(text) {
            return Ok(Self(Curve::P384(key)));
        }
        let (_, body) = text.split_once(PEM_BEGIN).ok_or(KeyError)?;
        let (body, _) = body.split_once(PEM_END).ok_or(KeyError)?;
        let der = STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).map_err(|_| KeyError)?;
        let point: [u8; 65] = der.strip_prefix(&SPKI_P256[..]).and_then(|rest| rest.try_into().ok()).ok_or(KeyError)?;
        let key = aws_lc_rs::signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        if point[0] == 4 && key.is_ok() { Ok(Self(Curve::P256(point))) } else { Err(KeyError) }
    }

    /// The same key, for bundles.
    pub fn of_p384(key: P384PublicKey) -> Self {
        Self(Curve::P384(key))
    }

    fn algorithm(&self) -> &'static str {
        match self.0 {
            Curve::P256(_) => "ES256",
            Curve::P384(_) => "ES384",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Curve::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Curve::P384(key) => signature.try_into().is_ok_and(|signature| key.verifies(message, signature)),
        }
    }
}

/// `.signatures.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    signatures: Vec<String>,
}

/// The token's header: what else could stand there would be somebody's wish for another key or check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(default)]
    #[allow(dead_code, reason = "the key is the caller's, whatever it is called")]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
}

/// What is signed. Claims of the signer's own may stand beside.
#[derive(Deserialize)]
struct Payload {
    files: Vec<Listed>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    exp: Option<Value>,
    #[serde(default)]
    nbf: Option<Value>,
    #[serde(default)]
    iat: Option<Value>,
    #[serde(default)]
    first_iat: Option<Value>,
}

/// What a signature says of time, in its signer's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dates {
    /// When it was made (`iat`).
    pub(super) signed_at: Option<UnixTime>,
    /// When its author made the first one (`first_iat`), where this one dates that anew; else the same.
    pub(super) first_at: Option<UnixTime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    hash: String,
    algorithm: String,
}

/// Refuses files that this key did not sign, all of them and no other. Gives the dates it says, if it says any.
pub(super) fn verify(signatures: &[u8], entries: &[&Entry], key: &BundleKey) -> Result<Dates, SignatureError> {
    let form = |what: &str| SignatureError::Form(what.into());
    let Signatures { signatures } = parsed(signatures)?;
    let [token] = &signatures[..] else { return Err(form("there must be exactly one signature")) };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { return Err(form("the signature is no JWT")) };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| form("the signature is no base64url"));
    let Header { alg, typ, .. } = parsed(&decode(header)?)?;
    if alg != key.algorithm() {
        return Err(form(&format!("alg is {alg:?}, and the key is one for {}", key.algorithm())));
    }
    if typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(form("typ is not JWT"));
    }
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    if !key.verifies(signed, &decode(signature)?) {
        return Err(SignatureError::Invalid);
    }
    let Payload { files, scope, exp, nbf, iat, first_iat } = parsed(&decode(payload)?)?;
    if scope.is_some_and(|scope| !scope.is_empty()) {
        return Err(form("it has a scope, and none is asked for"));
    }
    if exp.is_some() || nbf.is_some() {
        return Err(form("it has exp or nbf, and nothing here looks at a clock for them"));
    }
    let seconds = |name: &str, date: Option<Value>| {
        let wrong = || form(&format!("{name} is no whole number of seconds since 1970"));
        date.map(|date| date.as_i64().filter(|seconds| *seconds >= 0).map(UnixTime).ok_or_else(wrong)).transpose()
    };
    let (signed_at, first_at) = (seconds("iat", iat)?, seconds("first_iat", first_iat)?);
    if first_at.is_some_and(|first| signed_at.is_none_or(|signed| first > signed)) {
        return Err(form("first_iat is later than iat"));
    }
    let dates = Dates { signed_at, first_at: first_at.or(signed_at) };
    let mut listed: BTreeMap<&str, &Listed> = BTreeMap::new();
    for file in &files {
        if listed.insert(&file.name, file).is_some() {
            return Err(differs(&file.name, "is listed twice"));
        }
    }
    for entry in entries {
        let Some(file) = listed.remove(entry.path.as_str()) else {
            return Err(differs(&entry.path, "is not what was signed: the signature does not list it"));
        };
        if hash(entry, &file.algorithm)? != file.hash.to_ascii_lowercase() {
            return Err(differs(&entry.path, "is not what was signed: its hash is another"));
        }
    }
    match listed.keys().next() {
        Some(name) => Err(differs(name, "was signed, and is not there")),
        None => Ok(dates),
    }
}

fn differs(file: &str, what: &str) -> SignatureError {
    SignatureError::File { file: file.chars().take(256).flat_map(char::escape_default).collect(), what: what.into() }
}

pub(super) fn hash(entry: &Entry, algorithm: &str) -> Result<String, SignatureError> {
    let bytes = entry.said().map_err(|message| differs(&entry.path, &message))?;
    match algorithm {
        "SHA-256" => Ok(hex::encode(Sha256::digest(bytes))),
        "SHA-384" => Ok(hex::encode(Sha384::digest(bytes))),
        "SHA-512" => Ok(hex::encode(Sha512::digest(bytes))),
        other => Err(differs(&entry.path, &format!("is hashed by {other:?}, not by SHA-256, SHA-384 or SHA-512"))),
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, SignatureError> {
    let value = once(bytes).map_err(SignatureError::Form)?;
    serde_json::from_value(value).map_err(|error| SignatureError::Form(error.to_string()))
}
