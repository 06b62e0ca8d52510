//! HPKE to the encryption key a report binds: what is sealed opens on that connection, for that call, or nowhere.
//!
//! Source: RFC 9180 base mode, DHKEM(P-384, HKDF-SHA384) / HKDF-SHA384 / AES-256-GCM; docs/design/protocol.md §4.5.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coffer_verifier::{
    abi::ReportData,
    binding::{EncryptionKey, length_prefixed},
};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P384_HKDF_SHA384_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use secrecy::SecretBox;

/// DHKEM(P-384, HKDF-SHA384), RFC 9180 §7.1.
pub(crate) const KEM: u16 = 0x0011;
/// HKDF-SHA384, RFC 9180 §7.2.
pub(crate) const KDF: u16 = 0x0002;
/// AES-256-GCM, RFC 9180 §7.3.
pub(crate) const AEAD: u16 = 0x0002;
/// Uncompressed P-384 point, RFC 9180 §7.1 (Npk).
pub(crate) const PUBLIC_KEY_LEN: usize = 97;

/// One HPKE message. `info` and AAD are rebuilt by the receiver, never taken from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpkeSealed {
    /// Encapsulated key.
    pub enc: Vec<u8>,
    /// Ciphertext with tag.
    pub ciphertext: Vec<u8>,
}

/// Why a message was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HpkeError {
    /// The message is for another key, report, method or AAD, or was changed.
    #[error("message does not open with this connection's key, report, method and names")]
    Open,
    /// The encryption key is unusable.
    #[error("message cannot be sealed to the peer's encryption key")]
    Seal,
    /// No key pair.
    #[error("encryption key could not be made")]
    Generate,
    /// This end has shown no evidence yet, so nobody can have sealed anything to it.
    #[error("no report of this connection has an encryption key yet")]
    NoKey,
    /// The peer's attestation is too old to send anything to it.
    #[error("peer's attestation is older than 15 minutes; attest again")]
    Stale,
    /// The peer's last evidence was refused: it gets nothing more on this connection.
    #[error("peer's last evidence was refused")]
    Lost,
}

/// Private half, with the report that binds the public one. Fresh for every report.
pub(crate) struct Opener {
    key: HpkePrivateKey,
    report_data: ReportData,
}

/// Makes a key pair; [`Opener`] needs the report data, which needs the public key first.
pub(crate) fn key_pair() -> Result<(EncryptionKey, HpkePrivateKey), HpkeError> {
    let (public, private) = DH_KEM_P384_HKDF_SHA384_AES_256.generate_key_pair().map_err(|_| HpkeError::Generate)?;
    Ok((EncryptionKey { kem: KEM, kdf: KDF, aead: AEAD, public_key: public.0 }, private))
}

/// A key pair that was made while nobody waited for it. Each is given once.
#[derive(Clone, Default)]
pub(crate) struct Ahead(Arc<Mutex<Option<(EncryptionKey, HpkePrivateKey)>>>);

impl Ahead {
    /// The one that is there, or one that is made now.
    pub(crate) fn take(&self) -> Result<(EncryptionKey, HpkePrivateKey), HpkeError> {
        let kept = self.kept().take();
        kept.map_or_else(key_pair, Ok)
    }

    /// Makes the next. Without one, whoever takes it makes one.
    pub(crate) fn make(&self) {
        if self.kept().is_none()
            && let Ok(made) = key_pair()
        {
            *self.kept() = Some(made);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<(EncryptionKey, HpkePrivateKey)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opener {
    pub(crate) fn new(key: HpkePrivateKey, report_data: ReportData) -> Self {
        Self { key, report_data }
    }

    pub(crate) const fn report_data(&self) -> &ReportData {
        &self.report_data
    }

    pub(crate) fn open(&self, method: &str, aad: &[u8], sealed: &HpkeSealed) -> Result<SecretBox<Vec<u8>>, HpkeError> {
        let enc = EncapsulatedSecret(sealed.enc.clone());
        DH_KEM_P384_HKDF_SHA384_AES_256
            .open(&enc, &info(&self.report_data, method), aad, &sealed.ciphertext, &self.key)
            .map(|plaintext| SecretBox::new(Box::new(plaintext)))
            .map_err(|_| HpkeError::Open)
    }
}

pub(crate) fn seal(
    key: &EncryptionKey,
    report_data: &ReportData,
    method: &str,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<HpkeSealed, HpkeError> {
    let public = HpkePublicKey(key.public_key.clone());
    let (enc, ciphertext) = DH_KEM_P384_HKDF_SHA384_AES_256
        .seal(&info(report_data, method), aad, plaintext, &public)
        .map_err(|_| HpkeError::Seal)?;
    Ok(HpkeSealed { enc: enc.0, ciphertext })
}

fn info(report_data: &ReportData, method: &str) -> Vec<u8> {
    length_prefixed(&[b"coffer/hpke/v1", report_data.as_bytes(), method.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn no_key_pair_is_given_twice() {
        let ahead = Ahead::default();
        let taken: Vec<_> = (0..2)
            .map(|_| {
                let (first, second) = (ahead.take().unwrap().0.public_key, ahead.take().unwrap().0.public_key);
                ahead.make();
                ahead.make();
                [first, second]
            })
            .collect();
        let mut all = taken.concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    const METHOD: &str = "coffer.kbs.v1.Broker/GetSecret";

    fn pair(report: u8) -> (EncryptionKey, Opener) {
        let (public, private) = key_pair().unwrap();
        (public, Opener::new(private, ReportData::new([report; 64])))
    }

    #[test]
    fn opens_what_was_sealed_to_this_report_method_and_names() {
        let (key, opener) = pair(1);
        let sealed = seal(&key, &ReportData::new([1; 64]), METHOD, b"names", b"value").unwrap();
        let opened = opener.open(METHOD, b"names", &sealed).unwrap();
        assert_eq!(opened.expose_secret().as_slice(), b"value");
    }

    #[test]
    fn opens_nothing_sealed_to_another_key_report_method_or_names() {
        let (key, opener) = pair(1);
        let report = ReportData::new([1; 64]);
        let sealed = seal(&key, &report, METHOD, b"names", b"value").unwrap();
        let fails = |opener: &Opener, method: &str, aad: &[u8], sealed: &HpkeSealed| {
            assert_eq!(opener.open(method, aad, sealed).err(), Some(HpkeError::Open));
        };
        fails(&pair(1).1, METHOD, b"names", &sealed);
        fails(&opener, "coffer.kbs.v1.Broker/GetSealingKey", b"names", &sealed);
        fails(&opener, METHOD, b"other names", &sealed);
        let other_report = seal(&key, &ReportData::new([2; 64]), METHOD, b"names", b"value").unwrap();
        fails(&opener, METHOD, b"names", &other_report);
        for position in 0..sealed.ciphertext.len() {
            let mut bent = sealed.clone();
            bent.ciphertext[position] ^= 1;
            fails(&opener, METHOD, b"names", &bent);
        }
        fails(&opener, METHOD, b"names", &HpkeSealed { enc: vec![], ciphertext: vec![] });
    }

    #[test]
    fn seals_to_no_point_off_the_curve() {
        let mut point = vec![4];
        point.resize(PUBLIC_KEY_LEN, 9);
        let key = EncryptionKey { kem: KEM, kdf: KDF, aead: AEAD, public_key: point };
        assert_eq!(seal(&key, &ReportData::new([1; 64]), METHOD, b"", b"value"), Err(HpkeError::Seal));
    }

    #[test]
    fn every_key_pair_is_new_and_of_the_stated_suite() {
        let (one, two) = (pair(1).0, pair(1).0);
        assert_ne!(one.public_key, two.public_key);
        assert_eq!(one.public_key.len(), PUBLIC_KEY_LEN);
        let suite = DH_KEM_P384_HKDF_SHA384_AES_256.suite();
        assert_eq!(u16::from(suite.kem), KEM);
        assert_eq!(u16::from(suite.sym.kdf_id), KDF);
        assert_eq!(u16::from(suite.sym.aead_id), AEAD);
    }
}
