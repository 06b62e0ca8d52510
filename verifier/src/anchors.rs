//! Whom we believe in the end: roots by the SHA-256 of their SubjectPublicKeyInfo.
//!
//! AMD's are in this source. Any other must be listed by the caller, and whatever rests on it is `simulated`.

use crate::{
    abi::{ProductLine, SpkiDigest},
    chain::{CertificateError, CertificateRole},
    endorsements::{EndorsementError, Endorsements},
};

/// AMD's roots. Source: `cert_chain` of the KDS for each product; the certificates' own digests are
/// 69d063b4... (Milan), 4c6598d1... (Genoa), 1f084161... (Turin).
const AMD: [(ProductLine, [u8; 32]); 3] = [
    (ProductLine::Milan, digest(b"9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9")),
    (ProductLine::Genoa, digest(b"429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831")),
    (ProductLine::Turin, digest(b"4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08")),
];

/// The roots a caller accepts. AMD's are always among them; there is no empty set to fall back from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustAnchors {
    simulated: Vec<SpkiDigest>,
}

/// The root a result rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Anchor {
    /// SHA-256 of the root's SubjectPublicKeyInfo.
    pub spki_sha256: SpkiDigest,
    /// Product line it certifies.
    pub product: ProductLine,
    /// True iff it is none of the pinned AMD roots.
    pub simulated: bool,
}

impl core::fmt::Display for Anchor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let whose = if self.simulated { "simulated" } else { "AMD" };
        write!(f, "{whose} ARK-{} ({})", self.product, self.spki_sha256)
    }
}

impl TrustAnchors {
    /// AMD's roots and no other.
    pub fn amd() -> Self {
        Self::default()
    }

    /// Accepts one more root, by the SHA-256 of its SubjectPublicKeyInfo. Evidence under it is `simulated`.
    #[must_use]
    pub fn with_simulated(mut self, spki: SpkiDigest) -> Self {
        if !self.simulated.contains(&spki) {
            self.simulated.push(spki);
        }
        self
    }

    /// Accepts the root in this certificate, DER or PEM.
    ///
    /// # Errors
    /// As [`root_digest`].
    pub fn with_simulated_ark(self, bytes: &[u8]) -> Result<Self, EndorsementError> {
        Ok(self.with_simulated(root_digest(bytes)?))
    }

    /// The roots listed beside AMD's.
    pub fn simulated(&self) -> &[SpkiDigest] {
        &self.simulated
    }

    /// True if evidence that is not AMD's may pass.
    pub fn accepts_simulated(&self) -> bool {
        !self.simulated.is_empty()
    }

    /// The anchor a root certificate is, if it is one. A pinned root of another product line is none.
    pub(crate) fn find(&self, spki: SpkiDigest, product: ProductLine) -> Option<Anchor> {
        match AMD.iter().find(|(_, pinned)| pinned == spki.as_bytes()) {
            Some((line, _)) => (*line == product).then_some(Anchor { spki_sha256: spki, product, simulated: false }),
            None => self.simulated.contains(&spki).then_some(Anchor { spki_sha256: spki, product, simulated: true }),
        }
    }
}

/// SPKI digest of the root in this certificate, DER or PEM; of a PEM text with a chain, of the one root in it.
///
/// # Errors
/// [`EndorsementError`] if there is not one root certificate in AMD's form.
pub fn root_digest(bytes: &[u8]) -> Result<SpkiDigest, EndorsementError> {
    let mut given = Endorsements::new();
    given.add_certificates(bytes)?;
    let mut roots = given.certificates().filter(|one| matches!(one.role(), CertificateRole::Root(_)));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root.spki_digest()),
        _ => Err(EndorsementError::Certificate { index: 0, source: CertificateError::Name }),
    }
}

/// SPKI digest of AMD's root for a product line.
pub fn amd_root(product: ProductLine) -> SpkiDigest {
    let (ProductLine::Milan | ProductLine::Genoa | ProductLine::Turin) = product;
    SpkiDigest::new(AMD[product as usize].1)
}

const fn digest(hex: &[u8; 64]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut i = 0;
    while i < 32 {
        out[i] = nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]);
        i += 1;
    }
    out
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("lower-case hexadecimal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_named_by_its_certificate_in_der_and_in_pem() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let [ask, ark] = [include_bytes!("../data/milan_ask.der").as_slice(), include_bytes!("../data/milan_ark.der")];
        let pem =
            |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
        let milan = amd_root(ProductLine::Milan);
        for given in [ark.to_vec(), pem(ark).into_bytes(), (pem(ask) + &pem(ark)).into_bytes()] {
            assert_eq!(root_digest(&given), Ok(milan));
        }
        for given in [ask.to_vec(), pem(ask).into_bytes(), b"x".to_vec(), Vec::new()] {
            assert!(root_digest(&given).is_err());
        }
    }

    #[test]
    fn a_root_is_pinned_for_its_own_product_and_listing_it_changes_nothing() {
        let milan = amd_root(ProductLine::Milan);
        for anchors in [TrustAnchors::amd(), TrustAnchors::amd().with_simulated(milan)] {
            let found = anchors.find(milan, ProductLine::Milan).unwrap();
            assert!(!found.simulated);
            assert_eq!(anchors.find(milan, ProductLine::Genoa), None);
        }
        assert_eq!(TrustAnchors::amd().find(SpkiDigest::new([1; 32]), ProductLine::Milan), None);
        let listed = TrustAnchors::amd().with_simulated(SpkiDigest::new([1; 32]));
        assert!(listed.find(SpkiDigest::new([1; 32]), ProductLine::Milan).unwrap().simulated);
    }
}
