//! An issuer of certificates for tests: whoever asks gets one for the key of the request, for a name and a time of the test's choice.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PublicKeyData, SignatureAlgorithm};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

/// The key of a request.
struct Requested(Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Issuer, with its own certificate.
pub struct TestIssuer {
    root: rcgen::Issuer<'static, KeyPair>,
    pub root_der: Vec<u8>,
}

impl TestIssuer {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_der = params.self_signed(&key).unwrap().der().to_vec();
        Self { root: rcgen::Issuer::new(params, key), root_der }
    }

    /// A chain for a PKCS #10 request, which ends so long from now.
    pub fn issue(&self, request: &[u8], name: &str, lasts: Duration) -> Vec<Vec<u8>> {
        let (_, request) = X509CertificationRequest::from_der(request).unwrap();
        let key = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - Duration::from_mins(1)).into();
        params.not_after = (SystemTime::now() + lasts).into();
        let leaf = params.signed_by(&Requested(key), &self.root).unwrap();
        vec![leaf.der().to_vec(), self.root_der.clone()]
    }
}
