//! Workload certificates: a key from the CSR, everything else from the tenant's profile.
//!
//! Trusts: the profile, and the tenant's certificate key. Believes of a CSR its key, once its signature shows that the
//! sender holds it.
//! Never: reads a name, usage, lifetime or extension from a CSR; makes a CA; signs a key it was not shown.
//! Source: docs/design/broker.md §6; RFC 2986; RFC 5280.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey, VerificationAlgorithm};
use coffer_verifier::{
    P384PublicKey,
    abi::{ReportId, SpkiDigest},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use time::OffsetDateTime;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::{
    store::{CertificateProfile, OpenKey},
    tenant::Tenant,
};

/// Longest CSR that is looked at.
const LONGEST: usize = 8 * 1024;
/// How long a tenant's own certificate is valid: ten years.
const ROOT_LIFETIME: i64 = 10 * 365 * 86_400;
/// Clocks differ.
const BEFORE: i64 = 60;

/// A key whose holder asked for a certificate.
pub struct Requested {
    point: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: SpkiDigest,
}

/// Why a CSR shows no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not a CSR, or longer than any.
    #[error("csr: not a PKCS #10 request in DER, of at most {LONGEST} bytes")]
    Malformed,
    /// RSA, or another curve.
    #[error("csr: its key is not ECDSA on P-256 or P-384")]
    Key,
    /// Its signature is not by its key.
    #[error("csr: no proof of possession: its signature is not by its key")]
    Possession,
}

/// A certificate, and the one that signed it.
pub struct Issued {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Serial number of the leaf, hex.
    pub serial: String,
}

impl Requested {
    /// Takes the key from a CSR whose signature it made.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > LONGEST {
            return Err(CsrError::Malformed);
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &csr.certification_request_info;
        let curve = info.subject_pki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let is_ecdsa = info.subject_pki.algorithm.algorithm.to_id_string() == EC_PUBLIC_KEY;
        let curve = curve.filter(|_| is_ecdsa).map(|oid| oid.to_id_string()).unwrap_or_default();
        let signed_with = csr.signature_algorithm.algorithm.to_id_string();
        let (verify, algorithm, digest): (&dyn VerificationAlgorithm, _, _) = match curve.as_str() {
            P256 => (&ECDSA_P256_SHA256_ASN1, &rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256),
            P384 => (&ECDSA_P384_SHA384_ASN1, &rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384),
            _ => return Err(CsrError::Key),
        };
        if signed_with != digest || csr.signature_value.unused_bits != 0 {
            return Err(CsrError::Possession);
        }
        let point = info.subject_pki.subject_public_key.data.to_vec();
        UnparsedPublicKey::new(verify, &point)
            .verify(info.raw, &csr.signature_value.data)
            .map_err(|_| CsrError::Possession)?;
        Ok(Self { spki: SpkiDigest::of(info.subject_pki.raw), point, algorithm })
    }
}

impl Requested {
    /// The key, if it is one on P-384.
    pub fn p384(&self) -> Option<P384PublicKey> {
        let p384 = self.algorithm == &rcgen::PKCS_ECDSA_P384_SHA384;
        p384.then(|| P384PublicKey::from_sec1(&self.point).ok()).flatten()
    }
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Makes a tenant's certificate key, and the certificate by which others believe it.
///
/// # Errors
/// If the random source fails.
pub fn make_root(tenant: &Tenant, now: i64) -> Result<OpenKey, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    let certificate = root_params(tenant, now).self_signed(&key)?;
    Ok(OpenKey { public: certificate.der().to_vec(), key: Zeroizing::new(key.serialize_der()) })
}

/// Signs a certificate for a key. It names the guest's report in its subject's serial number.
///
/// # Errors
/// In words, for the trail: the random source, or a profile that another version wrote.
pub fn issue(
    root: &OpenKey,
    tenant: &Tenant,
    profile: &CertificateProfile,
    requested: &Requested,
    report: &ReportId,
    now: i64,
) -> Result<Issued, String> {
    let failed = |error: rcgen::Error| format!("certificate: {error}");
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| "certificate: no random bytes".to_owned())?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = moment(now - BEFORE);
    params.not_after = moment(now + i64::from(profile.lifetime));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = named(tenant, &profile.name);
    params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), report.to_string());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for name in &profile.dns {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
    }
    for uri in &profile.uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(failed)?));
    }
    if profile.server_auth {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if profile.client_auth {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::try_from(root.key.as_slice()).map_err(failed)?;
    let leaf = params.signed_by(requested, &Issuer::new(root_params(tenant, now), key)).map_err(failed)?;
    Ok(Issued { chain: vec![leaf.der().to_vec(), root.public.clone()], serial: hex::encode(serial) })
}

fn root_params(tenant: &Tenant, now: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = moment(now - BEFORE);
    params.not_after = moment(now + ROOT_LIFETIME);
    params.distinguished_name = named(tenant, "Coffer workload certificates");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(tenant: &Tenant, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, tenant.as_str());
    name.push(DnType::CommonName, common);
    name
}

fn moment(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
/// id-at-serialNumber: of the subject, not of the certificate.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{GeneralName, X509Certificate};

    use super::*;
    use crate::terms::Terms;

    fn csr(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root of everything");
        params.subject_alt_names.push(SanType::DnsName("bank.example".try_into().unwrap()));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn profile() -> CertificateProfile {
        CertificateProfile {
            name: "web".into(),
            dns: vec!["web.acme.example".into()],
            uris: vec!["spiffe://acme.example/web".into()],
            server_auth: true,
            client_auth: false,
            lifetime: 3600,
            terms: Terms::default(),
            tokens: None,
        }
    }

    #[test]
    fn only_the_key_comes_from_the_request() {
        let tenant = Tenant::parse("acme").unwrap();
        let now = 1_800_000_000;
        let root = make_root(&tenant, now).unwrap();
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let requested = Requested::parse(&csr(&key)).unwrap();
            assert_eq!(requested.spki, SpkiDigest::of(&key.subject_public_key_info()));
            let issued = issue(&root, &tenant, &profile(), &requested, &ReportId::new([7; 32]), now).unwrap();
            let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
            let (_, ca) = X509Certificate::from_der(&issued.chain[1]).unwrap();
            assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
            assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
            let signed = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &ca.public_key().subject_public_key.data);
            signed.verify(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data).unwrap();
            assert!(!leaf.is_ca() && ca.is_ca());
            assert_eq!(leaf.validity().not_after.timestamp(), now + 3600);
            let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
            let expected = [GeneralName::DNSName("web.acme.example"), GeneralName::URI("spiffe://acme.example/web")];
            assert_eq!(names, expected);
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.server_auth && !usage.client_auth && !usage.any);
            let usage = leaf.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
            assert!(leaf.subject().to_string().contains(&"07".repeat(32)), "{}", leaf.subject());
            assert!(!leaf.subject().to_string().contains("everything"));
        }
    }

    #[test]
    fn a_key_that_is_not_held_gets_nothing() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let good = csr(&key);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // The frame around what is signed may differ; whose key it is may not.
            let same = |one: Requested| one.spki == SpkiDigest::of(&key.subject_public_key_info());
            assert!(Requested::parse(&bad).map_or(true, same), "byte {at}");
        }
        assert_eq!(Requested::parse(&[]).err(), Some(CsrError::Malformed));
        assert_eq!(Requested::parse(&[good.as_slice(), &[0]].concat()).err(), Some(CsrError::Malformed));
        assert_eq!(Requested::parse(&vec![0x30; LONGEST + 1]).err(), Some(CsrError::Malformed));
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(Requested::parse(&csr(&other)).err(), Some(CsrError::Key));
    }
}
