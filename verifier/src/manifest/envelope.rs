//! The signed envelope, and what may be believed of it.

use super::document::{Contents, MAX_PAYLOAD, ManifestError, ReferenceManifest};
use crate::{
    UnixTime,
    abi::SpkiDigest,
    envelope::{Envelope, EnvelopeError, EnvelopeKind, SignatureRefusal},
    public_key::{P384PublicKey, SIGNATURE_SIZE},
};

/// Type of the payload; it is signed with the payload, so no signature over something else passes for one of these.
pub const PAYLOAD_TYPE: &str = "application/vnd.coffer.reference-manifest.v1+json";
const KIND: EnvelopeKind = EnvelopeKind { payload_type: PAYLOAD_TYPE, longest: MAX_PAYLOAD };

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestRefusal {
    /// No signature is by a key that is listed.
    #[error("manifest is signed by {}, and that is none of the manifest keys listed ({listed})", list(.found))]
    UnknownKey {
        /// Keys that the envelope names.
        found: Vec<SpkiDigest>,
        /// Number of keys listed.
        listed: usize,
    },
    /// A listed key's signature is wrong.
    #[error("signature of manifest key {key} does not verify")]
    Signature {
        /// Which key.
        key: SpkiDigest,
    },
    /// Its time is over.
    #[error("manifest expired at {at}, it is {now}")]
    Expired {
        /// The end of its validity.
        at: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// It was made later than it is.
    #[error("manifest was made at {created}, it is {now}")]
    FromTheFuture {
        /// When it says it was made.
        created: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// Signed, and no manifest.
    #[error("signed payload is no manifest")]
    Payload(#[source] ManifestError),
}

/// An envelope, parsed; nobody believes it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest(Envelope);

/// A manifest that a listed key signed. Only [`SignedManifest::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: ReferenceManifest,
    signer: SpkiDigest,
}

/// The bytes a manifest key signs: DSSE's pre-authentication encoding of [`PAYLOAD_TYPE`] and the payload.
pub fn signing_input(payload: &[u8]) -> Vec<u8> {
    KIND.signing_input(payload)
}

impl From<EnvelopeError> for ManifestError {
    fn from(error: EnvelopeError) -> Self {
        let part = "envelope";
        match error {
            EnvelopeError::TooLong { found, limit } => Self::TooLong { part, found, limit },
            EnvelopeError::Json(message) => Self::Json { part, message },
            EnvelopeError::Field { field, expected } => Self::Field { field, expected },
        }
    }
}

impl From<SignatureRefusal> for ManifestRefusal {
    fn from(refusal: SignatureRefusal) -> Self {
        match refusal {
            SignatureRefusal::UnknownKey { found, listed } => Self::UnknownKey { found, listed },
            SignatureRefusal::Signature { key } => Self::Signature { key },
        }
    }
}

impl SignedManifest {
    /// An envelope around a manifest, without signatures.
    pub fn of(manifest: &ReferenceManifest) -> Self {
        Self(Envelope::of(manifest.to_bytes()))
    }

    /// The bytes to sign: [`signing_input`] of the payload.
    pub fn signing_input(&self) -> Vec<u8> {
        signing_input(self.payload())
    }

    /// Adds a signature over [`SignedManifest::signing_input`].
    #[must_use]
    pub fn with_signature(self, key: &P384PublicKey, signature: [u8; SIGNATURE_SIZE]) -> Self {
        Self(self.0.with_signature(key, signature))
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self(Envelope::parse(bytes, KIND)?))
    }

    /// Writes the envelope.
    pub fn to_json(&self) -> String {
        self.0.to_json(KIND)
    }

    /// The signed bytes, as they came.
    pub fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    /// Keys the envelope names.
    pub fn keys(&self) -> impl Iterator<Item = &SpkiDigest> {
        self.0.keys()
    }

    /// What it says, whoever wrote it: to show, never to rely on.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn unverified(&self) -> Result<ReferenceManifest, ManifestError> {
        ReferenceManifest::parse(self.payload())
    }

    /// Checks the signatures by listed keys. One of them must be there, and each that is there must be right.
    ///
    /// # Errors
    /// [`ManifestRefusal`]. Whether its time is over is asked with [`VerifiedManifest::current`].
    pub fn verify(&self, listed: &[P384PublicKey]) -> Result<VerifiedManifest, ManifestRefusal> {
        let signer = self.0.signer(KIND, listed)?;
        let manifest = ReferenceManifest::parse(self.payload()).map_err(ManifestRefusal::Payload)?;
        Ok(VerifiedManifest { manifest, signer })
    }
}

impl VerifiedManifest {
    /// What the listed key signed.
    pub fn manifest(&self) -> &ReferenceManifest {
        &self.manifest
    }

    /// The listed key.
    pub fn signer(&self) -> &SpkiDigest {
        &self.signer
    }

    /// What it says, from when it was made until its time is over. Clocks may differ by [`CLOCKS_DIFFER_BY`].
    ///
    /// # Errors
    /// [`ManifestRefusal::Expired`] or [`ManifestRefusal::FromTheFuture`].
    pub fn current(&self, now: UnixTime) -> Result<&ReferenceManifest, ManifestRefusal> {
        let Contents { created, expires: at, .. } = *self.manifest.contents();
        if created.0 > now.0.saturating_add(CLOCKS_DIFFER_BY) {
            return Err(ManifestRefusal::FromTheFuture { created, now });
        }
        if now < at { Ok(&self.manifest) } else { Err(ManifestRefusal::Expired { at, now }) }
    }
}

fn list(keys: &[SpkiDigest]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Seconds by which the clock of who made a manifest may be ahead.
pub const CLOCKS_DIFFER_BY: i64 = 300;

#[cfg(test)]
mod tests {
    use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};

    use super::super::document::tests::contents;
    use super::*;

    fn pair(seed: u8) -> (SigningKey, P384PublicKey) {
        let key = SigningKey::from_slice(&[seed; 48]).unwrap();
        let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
        (key, public)
    }

    fn sign(envelope: SignedManifest, seed: u8) -> SignedManifest {
        let (key, public) = pair(seed);
        let signature: Signature = key.sign(&envelope.signing_input());
        envelope.with_signature(&public, signature.to_bytes().into())
    }

    fn signed(seed: u8) -> SignedManifest {
        sign(SignedManifest::of(&ReferenceManifest::new(contents()).unwrap()), seed)
    }

    #[test]
    fn the_signed_bytes_are_dsse_with_our_type() {
        let text = String::from_utf8(signing_input(b"{}")).unwrap();
        assert_eq!(text, "DSSEv1 49 application/vnd.coffer.reference-manifest.v1+json 2 {}");
    }

    #[test]
    fn a_listed_keys_manifest_is_believed_until_it_expires() {
        let envelope = SignedManifest::parse(signed(5).to_json().as_bytes()).unwrap();
        assert_eq!(envelope, SignedManifest::parse(envelope.to_json().as_bytes()).unwrap());
        let verified = envelope.verify(&[pair(4).1, pair(5).1]).unwrap();
        assert_eq!(verified.signer(), &pair(5).1.spki_digest());
        assert_eq!(verified.manifest().contents(), &contents());
        assert!(verified.current(UnixTime(1_999)).is_ok());
        // Made at 1,000; clocks may differ, by so much.
        assert!(verified.current(UnixTime(700)).is_ok());
        let early = ManifestRefusal::FromTheFuture { created: UnixTime(1_000), now: UnixTime(699) };
        assert_eq!(verified.current(UnixTime(699)), Err(early));
        let expired = ManifestRefusal::Expired { at: UnixTime(2_000), now: UnixTime(2_000) };
        assert_eq!(verified.current(UnixTime(2_000)), Err(expired));
    }

    #[test]
    fn other_keys_and_no_keys_are_refused() {
        let found = vec![pair(5).1.spki_digest()];
        for listed in [vec![], vec![pair(4).1]] {
            let refusal = ManifestRefusal::UnknownKey { found: found.clone(), listed: listed.len() };
            assert_eq!(signed(5).verify(&listed), Err(refusal));
        }
        assert!(matches!(
            SignedManifest::of(&ReferenceManifest::new(contents()).unwrap()).verify(&[pair(5).1]),
            Err(ManifestRefusal::UnknownKey { .. })
        ));
    }

    #[test]
    fn one_listed_key_is_enough_and_a_wrong_listed_signature_is_too_much() {
        let both = sign(signed(5), 6);
        assert_eq!(both.verify(&[pair(6).1]).unwrap().signer(), &pair(6).1.spki_digest());
        let (six, input) = (pair(6), both.signing_input());
        let signature: Signature = six.0.sign(&input);
        let mut signature: [u8; SIGNATURE_SIZE] = signature.to_bytes().into();
        signature[95] ^= 1;
        let bad = signed(5).with_signature(&six.1, signature);
        assert!(bad.verify(&[pair(5).1]).is_ok());
        let key = pair(6).1.spki_digest();
        assert_eq!(bad.verify(&[pair(5).1, pair(6).1]), Err(ManifestRefusal::Signature { key }));
    }

    #[test]
    fn any_changed_byte_of_the_payload_is_refused() {
        let good = signed(5);
        let listed = [pair(5).1];
        let (key, public) = pair(5);
        let signature: Signature = key.sign(&good.signing_input());
        let over = |payload: Vec<u8>| {
            SignedManifest(Envelope::of(payload)).with_signature(&public, signature.to_bytes().into()).verify(&listed)
        };
        for at in 0..good.payload().len() {
            let mut bad = good.payload().to_vec();
            bad[at] ^= 1;
            assert!(matches!(over(bad), Err(ManifestRefusal::Signature { .. })), "byte {at}");
        }
        let longer = [good.payload(), b" "].concat();
        assert!(matches!(over(longer), Err(ManifestRefusal::Signature { .. })));
    }

    #[test]
    fn a_signature_over_the_bare_payload_is_no_signature() {
        let (key, public) = pair(5);
        let envelope = SignedManifest::of(&ReferenceManifest::new(contents()).unwrap());
        let signature: Signature = key.sign(envelope.payload());
        let envelope = envelope.with_signature(&public, signature.to_bytes().into());
        assert!(matches!(envelope.verify(&[public]), Err(ManifestRefusal::Signature { .. })));
    }

    #[test]
    fn a_signed_payload_that_is_no_manifest_is_refused() {
        let envelope = sign(SignedManifest(Envelope::of(b"{}".to_vec())), 5);
        assert!(matches!(envelope.verify(&[pair(5).1]), Err(ManifestRefusal::Payload(_))));
        assert!(envelope.unverified().is_err());
    }

    #[test]
    fn envelopes_of_another_form_are_refused() {
        let good = sign(signed(5), 6).to_json();
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            SignedManifest::parse(good.replace(from, to).as_bytes()).unwrap_err()
        };
        let field = |error: ManifestError| match error {
            ManifestError::Field { field, .. } => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(with("manifest.v1", "manifest.v2")), "payload_type");
        assert_eq!(field(with("ES384", "none")), "signatures[0].algorithm");
        assert_eq!(field(with("\"signature\": \"", "\"signature\": \"AAAA")), "signatures[0].signature");
        assert_eq!(field(with("\"payload\": \"", "\"payload\": \" ")), "payload");
        let (five, six) = (pair(5).1.spki_digest().to_string(), pair(6).1.spki_digest().to_string());
        assert_eq!(field(with(&six, &five)), "signatures[1].key");
        assert!(matches!(with("\"algorithm\"", "\"kid\": 1, \"algorithm\""), ManifestError::Json { .. }));
        assert!(matches!(with("\"payload\":", "\"extra\": 1, \"payload\":"), ManifestError::Json { .. }));
        let none = SignedManifest::of(&ReferenceManifest::new(contents()).unwrap()).to_json();
        assert_eq!(field(SignedManifest::parse(none.as_bytes()).unwrap_err()), "signatures");
        let long = vec![b' '; KIND.longest_envelope() + 1];
        assert!(matches!(SignedManifest::parse(&long), Err(ManifestError::TooLong { .. })));
    }
}
