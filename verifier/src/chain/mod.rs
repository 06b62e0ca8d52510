//! AMD's certificates and revocation lists: parsed strictly, signatures by aws-lc-rs.
//!
//! Source: AMD 57230, "VCEK Certificate and KDS Interface"; RFC 5280; RFC 4055 for RSASSA-PSS.

pub(crate) mod authorities;
mod certificate;
mod crl;

pub use certificate::{Certificate, CertificateError, CertificateRole, LeafFacts};
pub use crl::{Crl, CrlError};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PSS_2048_8192_SHA384};

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and salt 48, with the default trailer field spelled out (until 2024).
const PSS_WITH_TRAILER: &[u8] = b"\x30\x46\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x39\
\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";
/// The same without it (2024 on, and every CRL).
const PSS: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa2\x03\x02\x01\x30";

/// True for the two encodings AMD uses.
fn is_amd_pss(algorithm: &[u8]) -> bool {
    algorithm == PSS || algorithm == PSS_WITH_TRAILER
}

/// Parses an RSA-4096 key with exponent 65537 from its SubjectPublicKeyInfo.
fn rsa_key(spki: &[u8]) -> Option<ParsedPublicKey> {
    const HEAD: &[u8] =
        b"\x30\x82\x02\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x02\x0f\x00\
\x30\x82\x02\x0a\x02\x82\x02\x01\x00";
    const TAIL: &[u8] = b"\x02\x03\x01\x00\x01";
    // HEAD fixes the length of the modulus between the two. That it needs all of it, aws-lc checks: DER integers are minimal.
    spki.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    // The RSAPublicKey inside the BIT STRING, at offset 24 of this fixed form.
    ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &spki[24..]).ok()
}
