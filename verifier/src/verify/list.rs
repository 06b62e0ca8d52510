//! A revocation list by itself: whose it is, before any evidence asks for it.

use super::error::ChainError;
use crate::{
    UnixTime,
    anchors::{Anchor, TrustAnchors},
    chain::{CertificateRole, Crl},
    endorsements::Endorsements,
};

/// Why a revocation list is nobody's who is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlIssuerError {
    /// The certificate of its root is not at hand.
    #[error("the certificate of the root that issued it is not at hand")]
    NoRoot,
    /// Its root is not believed, or the list does not hold under it now.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The anchor whose list this is, if it signed it and it is fresh. Roots are looked for in `roots`, then among AMD's own.
///
/// # Errors
/// [`CrlIssuerError`].
pub fn verify_crl(
    list: &Crl,
    roots: &Endorsements,
    anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<Anchor, CrlIssuerError> {
    let bags = [roots, Endorsements::amd()];
    let mut failed = None;
    for root in bags.iter().flat_map(|bag| bag.certificates()) {
        let CertificateRole::Root(product) = root.role() else { continue };
        if root.subject() != list.issuer() || root.issuer() != root.subject() {
            continue;
        }
        let (from, to) = list.validity();
        let error = match (anchors.find(root.spki_digest(), product), root.authority_key()) {
            (None, _) => ChainError::UntrustedRoot { spki: root.spki_digest(), product },
            (Some(_), None) => ChainError::Key { certificate: root.role() },
            (Some(_), Some(key)) if !list.is_signed_by(key) => ChainError::CrlSignature { issuer: root.role() },
            (Some(_), Some(_)) if now < from || now > to => {
                ChainError::CrlDates { number: list.number(), from, to, now }
            }
            (Some(anchor), Some(_)) => return Ok(anchor),
        };
        failed.get_or_insert(error);
    }
    Err(failed.map_or(CrlIssuerError::NoRoot, CrlIssuerError::from))
}
