//! Signed envelopes: base64 of the exact bytes, and ES384 signatures over those bytes behind their type, as DSSE has it.
//!
//! The bytes that were signed are the bytes that are checked and parsed; nothing is written out again. The type is signed with them, so
//! that no signature over one kind of document passes for one over another.
//! Trusts: the keys its caller lists. Never: reads a clock or holds a private key; knows what is inside.
//! Source: DSSE v1.0.2, "Pre-Authentication Encoding".

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    abi::SpkiDigest,
    public_key::{P384PublicKey, SIGNATURE_SIZE},
    said,
};

/// One kind of document that is signed.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeKind {
    /// Its media type.
    pub payload_type: &'static str,
    /// Longest document, in bytes.
    pub longest: usize,
}

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than any of its kind.
    #[error("envelope has {found} bytes, more than {limit}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, an unknown or missing key, or a value of another kind.
    #[error("envelope: {0}")]
    Json(String),
    /// A value that means nothing.
    #[error("{field}: expected {expected}")]
    Field {
        /// Which field.
        field: String,
        /// What stands there in a good one.
        expected: &'static str,
    },
}

/// Why no signature counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureRefusal {
    /// None is by a key that is listed.
    #[error("it is signed by {}, and that is none of those listed ({listed})", list(.found))]
    UnknownKey {
        /// Keys that the envelope names.
        found: Vec<SpkiDigest>,
        /// Number of keys listed.
        listed: usize,
    },
    /// A listed key's is wrong.
    #[error("signature of key {key} does not verify")]
    Signature {
        /// Which key.
        key: SpkiDigest,
    },
}

/// An envelope, parsed; nobody believes it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<(SpkiDigest, [u8; SIGNATURE_SIZE])>,
}

impl EnvelopeKind {
    /// The bytes that are signed: DSSE's pre-authentication encoding of the type and the document.
    pub fn signing_input(self, payload: &[u8]) -> Vec<u8> {
        let kind = self.payload_type;
        let mut input = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        input.extend_from_slice(payload);
        input
    }

    /// Base64 of the longest document, and room for the signatures.
    pub const fn longest_envelope(self) -> usize {
        self.longest / 3 * 4 + 16 * 1024
    }
}

impl Envelope {
    /// Around a document, without signatures.
    pub fn of(payload: Vec<u8>) -> Self {
        Self { payload, signatures: Vec::new() }
    }

    /// Adds a signature over [`EnvelopeKind::signing_input`].
    #[must_use]
    pub fn with_signature(mut self, key: &P384PublicKey, signature: [u8; SIGNATURE_SIZE]) -> Self {
        self.signatures.push((key.spki_digest(), signature));
        self
    }

    /// Reads one of this kind.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(bytes: &[u8], kind: EnvelopeKind) -> Result<Self, EnvelopeError> {
        let limit = kind.longest_envelope();
        if bytes.len() > limit {
            return Err(EnvelopeError::TooLong { found: bytes.len(), limit });
        }
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Json(said::json_error(bytes, &error)))?;
        let field = |field: String, expected| EnvelopeError::Field { field, expected };
        if wire.payload_type != kind.payload_type {
            return Err(field("payload_type".into(), kind.payload_type));
        }
        if !(1..=MAX_SIGNATURES).contains(&wire.signatures.len()) {
            return Err(field("signatures".into(), "1 to 8 entries"));
        }
        let payload = STANDARD.decode(&wire.payload).map_err(|_| field("payload".into(), "base64"))?;
        let mut signatures: Vec<(SpkiDigest, [u8; SIGNATURE_SIZE])> = Vec::with_capacity(wire.signatures.len());
        for (at, one) in wire.signatures.iter().enumerate() {
            if one.algorithm != ALGORITHM {
                return Err(field(format!("signatures[{at}].algorithm"), ALGORITHM));
            }
            if signatures.iter().any(|(key, _)| *key == one.key) {
                return Err(field(format!("signatures[{at}].key"), "each key once"));
            }
            let signature = STANDARD.decode(&one.signature).ok().and_then(|bytes| bytes.try_into().ok());
            let signature =
                signature.ok_or_else(|| field(format!("signatures[{at}].signature"), "base64 of 96 bytes"))?;
            signatures.push((one.key, signature));
        }
        Ok(Self { payload, signatures })
    }

    /// Writes it.
    pub fn to_json(&self, kind: EnvelopeKind) -> String {
        let one = |(key, signature): &(SpkiDigest, [u8; SIGNATURE_SIZE])| WireSignature {
            key: *key,
            algorithm: ALGORITHM.into(),
            signature: STANDARD.encode(signature),
        };
        let wire = Wire {
            payload_type: kind.payload_type.into(),
            payload: STANDARD.encode(&self.payload),
            signatures: self.signatures.iter().map(one).collect(),
        };
        serde_json::to_string_pretty(&wire).expect("strings are JSON")
    }

    /// The signed bytes, as they came: to show, never to rely on.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Keys it names.
    pub fn keys(&self) -> impl Iterator<Item = &SpkiDigest> {
        self.signatures.iter().map(|(key, _)| key)
    }

    /// The listed key that signed it. One of them must be there, and each that is there must be right.
    ///
    /// # Errors
    /// [`SignatureRefusal`].
    pub fn signer(&self, kind: EnvelopeKind, listed: &[P384PublicKey]) -> Result<SpkiDigest, SignatureRefusal> {
        let input = kind.signing_input(&self.payload);
        let mut signer = None;
        for (name, signature) in &self.signatures {
            let Some(key) = listed.iter().find(|key| key.spki_digest() == *name) else { continue };
            if !key.verifies(&input, signature) {
                return Err(SignatureRefusal::Signature { key: *name });
            }
            signer = signer.or(Some(*name));
        }
        signer
            .ok_or_else(|| SignatureRefusal::UnknownKey { found: self.keys().copied().collect(), listed: listed.len() })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    key: SpkiDigest,
    algorithm: String,
    signature: String,
}

fn list(keys: &[SpkiDigest]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const ALGORITHM: &str = "ES384";
const MAX_SIGNATURES: usize = 8;
