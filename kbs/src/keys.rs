//! The key hierarchy at rest: root key, one key per tenant, one per secret version; and the keys that authenticate rows.
//!
//! Root (32 random bytes) → HKDF-SHA256 → tenant key → HKDF-SHA256 with a random salt → key of one secret version.
//! Every label and field is length-prefixed, so no two uses share a key.
//! Trusts: the root key. Believes nothing that comes out of the database before its tag or MAC holds.
//! Source: docs/design/broker.md §6; RFC 5869; NIST SP 800-38D.

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use coffer_verifier::binding::length_prefixed;
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::Sha256;
use static_assertions::assert_not_impl_any;
use zeroize::Zeroizing;

/// Why a stored value is not believed, or none could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The tag does not hold: changed, moved, or written under another root key.
    #[error("stored secret does not decrypt under its tenant, path and version")]
    Ciphertext,
    /// A row's MAC does not hold.
    #[error("stored row does not carry this server's MAC")]
    Mac,
    /// The row is gone.
    #[error("stored row is missing")]
    Missing,
    /// There is a row where this server wrote none.
    #[error("there is a row that this server did not write")]
    Unknown,
    /// The MAC holds, the content is none this version writes.
    #[error("stored row was written by another version")]
    Encoding,
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// The key everything at rest hangs from. Wiped on drop, never printed.
pub struct RootKey(SecretBox<[u8; 32]>);

assert_not_impl_any!(RootKey: core::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// What a MAC is for: one of one kind is never one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// A row that decides something, at the change that wrote it.
    Row,
    /// One change of one row.
    StateEntry,
    /// A line of the audit trail.
    AuditLine,
    /// Where trail and changes end.
    Head,
    /// The same, outside the database.
    Checkpoint,
    /// One term of the sum over all rows that count.
    Live,
    /// In format 3: where trail and changes end.
    OldHead,
    /// In formats 1 and 2: newest version and deletion mark of a secret.
    OldSecretHead,
    /// In formats 1 and 2: an admitted pair.
    OldReference,
    /// In format 2: an author.
    OldSigner,
    /// In format 2: a key whose manifests count.
    OldManifestKey,
    /// In format 2: a manifest.
    OldManifest,
    /// In formats 1 and 2: the end of the audit trail.
    OldAuditHead,
}

impl RowKind {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Row => b"coffer/kbs/row/v2",
            Self::StateEntry => b"coffer/kbs/state-entry/v1",
            Self::AuditLine => b"coffer/kbs/row/audit-line/v1",
            Self::Head => b"coffer/kbs/head/v3",
            Self::Checkpoint => b"coffer/kbs/checkpoint/v1",
            Self::Live => b"coffer/kbs/live/v1",
            Self::OldHead => b"coffer/kbs/head/v2",
            Self::OldSecretHead => b"coffer/kbs/row/secret-head/v1",
            Self::OldReference => b"coffer/kbs/row/reference/v1",
            Self::OldSigner => b"coffer/kbs/row/signer/v1",
            Self::OldManifestKey => b"coffer/kbs/row/manifest-key/v1",
            Self::OldManifest => b"coffer/kbs/row/manifest/v1",
            Self::OldAuditHead => b"coffer/kbs/row/audit-head/v1",
        }
    }
}

/// What a ciphertext belongs to. All of it is authenticated with the value.
#[derive(Clone, Copy, Debug)]
pub struct SecretContext<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Path in full.
    pub path: &'a str,
    /// Version, from 1.
    pub version: u64,
    /// May simulated evidence have it.
    pub allow_simulated: bool,
    /// Name of its release policy.
    pub policy: &'a str,
}

/// One encrypted version as it lies in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCiphertext {
    /// Salt of the version's key.
    pub salt: [u8; 32],
    /// AES-GCM nonce.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

impl RootKey {
    /// Takes the key's bytes.
    pub fn new(bytes: &Zeroizing<[u8; 32]>) -> Self {
        Self(SecretBox::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(bytes.as_slice())))
    }

    /// Encrypts one version.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn encrypt(&self, context: SecretContext<'_>, value: &[u8]) -> Result<StoredCiphertext, KeyError> {
        let (mut salt, mut nonce) = ([0; 32], [0; 12]);
        getrandom::fill(&mut salt).map_err(|_| KeyError::Random)?;
        getrandom::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let ciphertext = self
            .version_cipher(context, &salt)
            .encrypt(&Nonce::from(nonce), Payload { msg: value, aad: &additional_data(context) })
            .map_err(|_| KeyError::Ciphertext)?;
        Ok(StoredCiphertext { salt, nonce, ciphertext })
    }

    /// Decrypts one version; fails if it was stored for anything but `context`.
    ///
    /// # Errors
    /// [`KeyError::Ciphertext`].
    pub fn decrypt(
        &self,
        context: SecretContext<'_>,
        stored: &StoredCiphertext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.version_cipher(context, &stored.salt)
            .decrypt(&Nonce::from(stored.nonce), Payload { msg: &stored.ciphertext, aad: &additional_data(context) })
            .map(Zeroizing::new)
            .map_err(|_| KeyError::Ciphertext)
    }

    /// MAC of a row's fields.
    pub fn mac(&self, kind: RowKind, fields: &[&[u8]]) -> [u8; 32] {
        self.row_mac(kind, fields).finalize().into_bytes().into()
    }

    /// Checks a row's MAC in constant time.
    ///
    /// # Errors
    /// [`KeyError::Mac`].
    pub fn check_mac(&self, kind: RowKind, fields: &[&[u8]], mac: &[u8]) -> Result<(), KeyError> {
        self.row_mac(kind, fields).verify_slice(mac).map_err(|_| KeyError::Mac)
    }

    fn row_mac(&self, kind: RowKind, fields: &[&[u8]]) -> Hmac<Sha256> {
        let key = derive(self.0.expose_secret(), None, &[kind.label()]);
        let mut mac =
            <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key.as_slice()).expect("HMAC takes keys of any length");
        mac.update(&length_prefixed(fields));
        mac
    }

    fn version_cipher(&self, context: SecretContext<'_>, salt: &[u8; 32]) -> Aes256Gcm {
        let tenant = derive(self.0.expose_secret(), None, &[b"coffer/kbs/tenant/v1", context.tenant.as_bytes()]);
        let version = context.version.to_be_bytes();
        let key = derive(&tenant, Some(salt), &[b"coffer/kbs/secret-version/v1", context.path.as_bytes(), &version]);
        Aes256Gcm::new_from_slice(key.as_slice()).expect("the derived key has 32 bytes")
    }
}

fn derive(key: &[u8; 32], salt: Option<&[u8]>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(salt, key)
        .expand(&length_prefixed(info), out.as_mut_slice())
        .expect("32 bytes are one block of SHA-256");
    out
}

fn additional_data(context: SecretContext<'_>) -> Vec<u8> {
    length_prefixed(&[
        b"coffer/kbs/at-rest/v1",
        context.tenant.as_bytes(),
        context.path.as_bytes(),
        &context.version.to_be_bytes(),
        &[u8::from(context.allow_simulated)],
        context.policy.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: SecretContext<'_> =
        SecretContext { tenant: "acme", path: "kbs:///a/b/c", version: 3, allow_simulated: false, policy: "default" };

    fn root(byte: u8) -> RootKey {
        RootKey::new(&Zeroizing::new([byte; 32]))
    }

    #[test]
    fn decrypts_only_for_the_same_place_and_permissions() {
        let stored = root(1).encrypt(CONTEXT, b"value").unwrap();
        assert_eq!(root(1).decrypt(CONTEXT, &stored).unwrap().as_slice(), b"value");
        for other in [
            SecretContext { tenant: "other", ..CONTEXT },
            SecretContext { path: "kbs:///a/b/d", ..CONTEXT },
            SecretContext { version: 4, ..CONTEXT },
            SecretContext { allow_simulated: true, ..CONTEXT },
            SecretContext { policy: "lax", ..CONTEXT },
        ] {
            assert_eq!(root(1).decrypt(other, &stored), Err(KeyError::Ciphertext), "{other:?}");
        }
        assert_eq!(root(2).decrypt(CONTEXT, &stored), Err(KeyError::Ciphertext));
    }

    #[test]
    fn refuses_any_changed_part() {
        let stored = root(1).encrypt(CONTEXT, b"value").unwrap();
        for byte in 0..stored.ciphertext.len() {
            let mut bad = stored.clone();
            bad.ciphertext[byte] ^= 1;
            assert!(root(1).decrypt(CONTEXT, &bad).is_err());
        }
        let mut bad = stored.clone();
        bad.salt[0] ^= 1;
        assert!(root(1).decrypt(CONTEXT, &bad).is_err());
        let mut bad = stored;
        bad.nonce[0] ^= 1;
        assert!(root(1).decrypt(CONTEXT, &bad).is_err());
    }

    #[test]
    fn macs_of_one_kind_or_field_split_are_not_those_of_another() {
        let mac = root(1).mac(RowKind::Row, &[b"ab", b"c"]);
        assert!(root(1).check_mac(RowKind::Row, &[b"ab", b"c"], &mac).is_ok());
        assert_eq!(root(1).check_mac(RowKind::Head, &[b"ab", b"c"], &mac), Err(KeyError::Mac));
        assert_eq!(root(1).check_mac(RowKind::Row, &[b"a", b"bc"], &mac), Err(KeyError::Mac));
        assert_eq!(root(2).check_mac(RowKind::Row, &[b"ab", b"c"], &mac), Err(KeyError::Mac));
        assert_eq!(root(1).check_mac(RowKind::Row, &[b"ab", b"c"], &mac[..31]), Err(KeyError::Mac));
    }
}
