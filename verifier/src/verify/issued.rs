//! A certificate by itself: whose it is, before any report asks for it.

use super::error::ChainError;
use crate::{
    UnixTime,
    anchors::{Anchor, TrustAnchors},
    chain::{Certificate, CertificateRole},
    endorsements::Endorsements,
};

/// Why a certificate is nobody's who is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateIssuerError {
    /// The certificate of its issuer is not at hand.
    #[error("the issuer of {certificate} is not at hand")]
    NoIssuer {
        /// Whose.
        certificate: CertificateRole,
    },
    /// Its root is not believed, or a signature or date on the way to it does not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// AMD replaced an intermediate under its name; nobody has many of one name.
const MAX_ISSUERS: usize = 4;

/// Roots and intermediates among these that a list among these revokes, with the list's number. Signatures are not asked: the caller
/// has verified each ([`verify_certificate`], [`crate::verify_crl`]).
pub fn revoked_issuers(endorsements: &Endorsements) -> Vec<(CertificateRole, u64)> {
    let mut revoked = Vec::new();
    for certificate in endorsements.certificates() {
        if matches!(certificate.role(), CertificateRole::Leaf(_)) {
            continue;
        }
        // A serial is its issuer's: roots of other lines count theirs by themselves.
        let mut lists = endorsements.crls().filter(|list| list.issuer() == certificate.issuer());
        if let Some(list) = lists.find(|list| list.revokes(certificate.serial())) {
            revoked.push((certificate.role(), list.number()));
        }
    }
    revoked
}

/// The anchor this certificate rests on: every signature up to it holds, and every date. Issuers are looked for in `others`, then
/// among AMD's own. Revocation is not asked: whoever verifies a report does that.
///
/// # Errors
/// [`CertificateIssuerError`], of the first issuer tried.
pub fn verify_certificate(
    certificate: &Certificate,
    others: &Endorsements,
    anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<Anchor, CertificateIssuerError> {
    let role = certificate.role();
    let (from, to) = certificate.validity();
    if now < from || now > to {
        return Err(ChainError::Dates { certificate: role, from, to, now }.into());
    }
    let issuer = match role {
        CertificateRole::Root(product) => {
            let spki = certificate.spki_digest();
            let anchor = anchors.find(spki, product).ok_or(ChainError::UntrustedRoot { spki, product })?;
            let key = certificate.authority_key().ok_or(ChainError::Key { certificate: role })?;
            if certificate.issuer() != certificate.subject() || !certificate.is_signed_by(key) {
                return Err(ChainError::Signature { certificate: role, issuer: role }.into());
            }
            return Ok(anchor);
        }
        CertificateRole::Intermediate(product, _) => CertificateRole::Root(product),
        CertificateRole::Leaf(key) => {
            let facts = certificate.leaf().ok_or(ChainError::Key { certificate: role })?;
            CertificateRole::Intermediate(facts.product, key)
        }
    };
    let bags = [others, Endorsements::amd()];
    let named = bags
        .iter()
        .flat_map(|bag| bag.certificates())
        .filter(|one| one.role() == issuer && one.subject() == certificate.issuer());
    let mut failed = None;
    for one in named.take(MAX_ISSUERS) {
        let signed = one.authority_key().is_some_and(|key| certificate.is_signed_by(key));
        let found = if signed {
            verify_certificate(one, others, anchors, now)
        } else {
            Err(ChainError::Signature { certificate: role, issuer }.into())
        };
        match found {
            Ok(anchor) => return Ok(anchor),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or(CertificateIssuerError::NoIssuer { certificate: role }))
}
