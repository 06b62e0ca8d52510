//! A bundle with a signature of today: the same files, packed again behind one JWT that lists them with its date (`iat`).
//!
//! Whoever holds the key signs; nothing here sees it. Never: changes a file; takes over what an earlier signature said beside.
//! Source: OPA's documentation, "Bundles: Signing"; RFC 7519 §4.1.6.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coffer_verifier::{P384PublicKey, SIGNATURE_SIZE, UnixTime};
use serde_json::json;

use super::{
    archive,
    entry::{Entry, SIGNATURES},
    error::BundleError,
    signature,
};

/// The files of a bundle and what is to be signed of them.
#[derive(Clone, Debug)]
pub struct Endorsement {
    bundle: String,
    entries: Vec<Entry>,
    message: String,
}

impl Endorsement {
    /// Of a bundle's files, dated `at`, for a signature by this key. `first`: when its author signed it, where this dates that anew. What
    /// signature it has is its caller's to have asked for.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn new(
        name: &str,
        bytes: &[u8],
        key: &P384PublicKey,
        at: UnixTime,
        first: Option<UnixTime>,
    ) -> Result<Self, BundleError> {
        let mut entries = archive::entries(name, bytes)?;
        entries.retain(|entry| entry.path != SIGNATURES);
        let listed = entries.iter().map(|entry| {
            Ok(json!({ "name": entry.path, "hash": signature::hash(entry, "SHA-256")?, "algorithm": "SHA-256" }))
        });
        let listed: Result<Vec<_>, _> = listed.collect();
        let files = listed.map_err(|source| BundleError::Signature { bundle: name.into(), source })?;
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": "ES384", "typ": "JWT", "kid": key.spki_digest().to_string() });
        let mut claims = json!({ "files": files, "iat": at.0 });
        if let Some(first) = first {
            claims["first_iat"] = json!(first.0);
        }
        let message = format!("{}.{}", part(header), part(claims));
        Ok(Self { bundle: name.into(), entries, message })
    }

    /// What is to be signed: ECDSA with SHA-384.
    pub fn signing_input(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// The bundle: the same files and this signature, R and then S.
    ///
    /// # Errors
    /// [`BundleError`] of one that would be longer than a bundle may be.
    pub fn with_signature(self, signature: &[u8; SIGNATURE_SIZE]) -> Result<Vec<u8>, BundleError> {
        let Self { bundle, mut entries, message } = self;
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        let bytes = json!({ "signatures": [token] }).to_string().into_bytes();
        entries.push(Entry { path: SIGNATURES.into(), bytes });
        let packed = packed(&entries).map_err(|error| BundleError::Archive {
            bundle: bundle.clone(),
            message: format!("cannot be packed: {error}"),
        })?;
        // Read as whoever gets it reads it, its bounds among the rest.
        archive::entries(&bundle, &packed)?;
        Ok(packed)
    }
}

/// The same bytes for the same files.
fn packed(entries: &[Entry]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(entry.bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, &entry.path, &entry.bytes[..])?;
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&tar.into_inner()?)?;
    gzip.finish()
}
