//! A P-384 key with its self-signed certificate: how every end of an RA-TLS connection names itself.
//!
//! Peers pin the key (SHA-256 of its SubjectPublicKeyInfo), never the certificate's text or dates.
//! Source: docs/design/protocol.md §4.1; RFC 9999 (id-pe-cmw).

use base64::{Engine, engine::general_purpose::STANDARD};
use coffer_verifier::abi::SpkiDigest;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::{
    SignatureScheme,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::{certification_request::X509CertificationRequest, oid_registry::Oid, prelude::FromDer};
use zeroize::Zeroizing;

use crate::provider::provider;

/// id-pe-cmw, 1.3.6.1.5.5.7.1.35 (RFC 9999).
const ID_PE_CMW: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 35];
/// Evidence that fits a TLS Certificate message with room to spare.
pub const MAX_CERTIFICATE_EVIDENCE: usize = 48 * 1024;

/// Why a key or certificate is not an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate could not be made.
    #[error("certificate could not be made: {0}")]
    Make(String),
    /// No PEM block of that kind.
    #[error("no {what} in PEM form found")]
    Pem {
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// Key and certificate do not belong together, or the key is unreadable.
    #[error("key does not belong to the certificate, or cannot be read")]
    Key(#[source] rustls::Error),
    /// Another kind of key.
    #[error("key is not a P-384 ECDSA key")]
    NotP384,
    /// The certificate is not X.509 v3.
    #[error("certificate cannot be parsed")]
    Certificate,
    /// Evidence too long for a certificate.
    #[error("evidence for the certificate is {found} bytes, at most {MAX_CERTIFICATE_EVIDENCE} fit")]
    EvidenceTooLong {
        /// Length given.
        found: usize,
    },
}

/// A fresh P-384 key that has no certificate yet; a report can already be bound to [`IdentityKey::spki`].
pub struct IdentityKey(KeyPair);

impl IdentityKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`IdentityError::Make`] if the random source fails.
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map(Self).map_err(make)
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn spki(&self) -> SpkiDigest {
        SpkiDigest::of(&self.0.subject_public_key_info())
    }

    /// A signing request (PKCS #10, DER) that shows who holds the key, and names nobody.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0).map_err(make)?.der().to_vec())
    }

    /// `PRIVATE KEY` block (PKCS #8), wiped on drop.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem("PRIVATE KEY", &Zeroizing::new(self.0.serialize_der()))
    }
}

/// Key and certificate as text. The key is wiped on drop.
pub struct IdentityPem {
    /// `CERTIFICATE` block.
    pub certificate: String,
    /// `PRIVATE KEY` block (PKCS #8); a file for it has mode 0600.
    pub key: Zeroizing<String>,
}

/// P-384 key and certificate. Not `Debug`, not `Clone` by accident: [`Identity::to_pem`] is the one way out.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Zeroizing<Vec<u8>>,
    spki: SpkiDigest,
    /// For handshakes: to read a key costs as much as to make one.
    certified: CertifiedKey,
}

impl Identity {
    /// Makes a key and a self-signed certificate that says nothing but a name. The name is for people.
    ///
    /// ```
    /// let owner = coffer_ratls::Identity::generate("owner")?;
    /// let again = coffer_ratls::Identity::from_pem(&owner.to_pem().certificate, &owner.to_pem().key)?;
    /// assert_eq!(again.spki(), owner.spki(), "peers know it by the digest of its key");
    /// # Ok::<(), coffer_ratls::IdentityError>(())
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn generate(common_name: &str) -> Result<Self, IdentityError> {
        Self::certify(&IdentityKey::generate()?, common_name, None)
    }

    /// An attester's identity: the certificate carries `evidence_cmw`, a CMW record in CBOR whose report binds
    /// `binding::certificate_report_data(key.spki(), workload)`. It identifies; it never releases.
    ///
    /// # Errors
    /// [`IdentityError::EvidenceTooLong`], [`IdentityError::Make`].
    pub fn attested(key: &IdentityKey, common_name: &str, evidence_cmw: &[u8]) -> Result<Self, IdentityError> {
        if evidence_cmw.len() > MAX_CERTIFICATE_EVIDENCE {
            return Err(IdentityError::EvidenceTooLong { found: evidence_cmw.len() });
        }
        Self::certify(key, common_name, Some(evidence_cmw))
    }

    /// Reads what [`Identity::to_pem`] wrote, or any P-384 certificate with its key (PKCS #8 or SEC 1).
    ///
    /// # Errors
    /// [`IdentityError`]; also if key and certificate do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| IdentityError::Pem { what: "certificate" })?;
        let pair = Zeroizing::new(key.to_owned());
        let pair = KeyPair::from_pem(&pair).map_err(|_| IdentityError::Pem { what: "private key" })?;
        if pair.algorithm() != &rcgen::PKCS_ECDSA_P384_SHA384 {
            return Err(IdentityError::NotP384);
        }
        Self::new(certificate, &pair)
    }

    /// Both as PEM.
    pub fn to_pem(&self) -> IdentityPem {
        IdentityPem {
            certificate: pem("CERTIFICATE", &self.certificate).to_string(),
            key: pem("PRIVATE KEY", &self.key),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what peers pin, and what workload specs list.
    pub fn spki(&self) -> SpkiDigest {
        self.spki
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    pub(crate) fn certified_key(&self) -> CertifiedKey {
        self.certified.clone()
    }

    fn certify(key: &IdentityKey, common_name: &str, cmw: Option<&[u8]>) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(cmw) = cmw {
            params.custom_extensions.push(CustomExtension::from_oid_content(&ID_PE_CMW, octet_string(cmw)));
        }
        let certificate = params.self_signed(&key.0).map_err(make)?;
        Self::new(certificate.der().clone(), &key.0)
    }

    fn new(certificate: CertificateDer<'static>, pair: &KeyPair) -> Result<Self, IdentityError> {
        let spki = certificate_spki(&certificate).ok_or(IdentityError::Certificate)?;
        let key = Zeroizing::new(pair.serialize_der());
        let copy = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        // Checks that key and certificate belong together, before any peer finds out.
        let certified =
            CertifiedKey::from_der(vec![certificate.clone()], copy, &provider()).map_err(IdentityError::Key)?;
        match certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]) {
            Some(_) => Ok(Self { certificate, key, spki, certified }),
            None => Err(IdentityError::NotP384),
        }
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, by the parser that also checks the handshake signature.
pub fn certificate_spki(certificate_der: &[u8]) -> Option<SpkiDigest> {
    let certificate = CertificateDer::from(certificate_der);
    let parsed = ParsedCertificate::try_from(&certificate).ok()?;
    Some(SpkiDigest::of(&parsed.subject_public_key_info()))
}

/// SHA-256 of the SubjectPublicKeyInfo in a signing request (PKCS #10, DER). Whether its sender holds the key is not looked at.
pub fn signing_request_spki(der: &[u8]) -> Option<SpkiDigest> {
    let (rest, request) = X509CertificationRequest::from_der(der).ok()?;
    rest.is_empty().then(|| SpkiDigest::of(request.certification_request_info.subject_pki.raw))
}

/// The CMW record (CBOR) in a certificate's id-pe-cmw extension, if there is exactly one. Nobody believes it yet.
pub fn certificate_cmw(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate_der).ok()?;
    let oid = Oid::from(&ID_PE_CMW).ok()?;
    let extension = certificate.get_extension_unique(&oid).ok()??;
    // CMW ::= CHOICE { json UTF8String, cbor OCTET STRING }: we write and read CBOR.
    let (rest, value) = <&[u8]>::from_der(extension.value).ok()?;
    rest.is_empty().then(|| value.to_vec())
}

fn octet_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x04];
    match bytes.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let start = length.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | (length.len() - start) as u8);
            out.extend_from_slice(&length[start..]);
        }
    }
    out.extend_from_slice(bytes);
    out
}

/// DER as PEM (RFC 7468), under a label such as `CERTIFICATE`.
pub fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut out = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 64));
    for part in ["-----BEGIN ", label, "-----\n"] {
        out.push_str(part);
    }
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    for part in ["-----END ", label, "-----\n"] {
        out.push_str(part);
    }
    out
}

#[allow(clippy::needless_pass_by_value)] // shape of map_err
fn make(error: rcgen::Error) -> IdentityError {
    IdentityError::Make(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_pem() {
        let identity = Identity::generate("owner").unwrap();
        let pem = identity.to_pem();
        let again = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
        assert_eq!(again.spki(), identity.spki());
        assert_eq!(again.certificate_der(), identity.certificate_der());
        assert_eq!(*again.to_pem().key, *pem.key);
    }

    #[test]
    fn refuses_a_key_of_another_certificate_and_what_is_no_key() {
        let (one, two) = (Identity::generate("a").unwrap().to_pem(), Identity::generate("b").unwrap().to_pem());
        assert!(matches!(Identity::from_pem(&one.certificate, &two.key), Err(IdentityError::Key(_))));
        assert!(matches!(Identity::from_pem(&one.certificate, "nonsense"), Err(IdentityError::Pem { .. })));
        assert!(matches!(Identity::from_pem("nonsense", &one.key), Err(IdentityError::Pem { .. })));
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&p256).unwrap();
        let result = Identity::from_pem(&certificate.pem(), &p256.serialize_pem());
        assert!(matches!(result, Err(IdentityError::NotP384)));
    }

    #[test]
    fn an_attesters_certificate_carries_its_evidence() {
        let key = IdentityKey::generate().unwrap();
        for length in [0, 1, 127, 128, 255, 256, 20_000] {
            let cmw = vec![0xA5; length];
            let identity = Identity::attested(&key, "guest", &cmw).unwrap();
            assert_eq!(identity.spki(), key.spki());
            assert_eq!(certificate_cmw(identity.certificate_der()), Some(cmw));
        }
        assert_eq!(certificate_cmw(Identity::generate("plain").unwrap().certificate_der()), None);
        let too_long = Identity::attested(&key, "guest", &vec![0; MAX_CERTIFICATE_EVIDENCE + 1]);
        assert!(matches!(too_long, Err(IdentityError::EvidenceTooLong { .. })));
    }

    #[test]
    fn a_certificate_with_any_byte_changed_or_cut_off_is_read_or_not_and_is_no_defect() {
        let cmw = vec![0xA5; 300];
        let identity = Identity::attested(&IdentityKey::generate().unwrap(), "guest", &cmw).unwrap();
        let good = identity.certificate_der();
        let mut read = 0;
        for at in 0..good.len() {
            for to in [0, 0xff, good[at] ^ 1, good[at] ^ 0x80] {
                let mut bent = good.to_vec();
                bent[at] = to;
                // What is read is no longer than what was given: lengths inside are not believed.
                read += certificate_cmw(&bent).map_or(0, |found| usize::from(found.len() < bent.len()));
                certificate_spki(&bent);
            }
            assert_eq!(certificate_cmw(&good[..at]), None);
        }
        assert!(read > 0);
    }

    #[test]
    fn digests_the_same_key_before_and_after_certification() {
        let identity = Identity::generate("x").unwrap();
        assert_eq!(certificate_spki(identity.certificate_der()), Some(identity.spki()));
        assert_eq!(certificate_spki(b"not a certificate"), None);
    }
}
