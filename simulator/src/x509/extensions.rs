//! Extensions that certificates and revocation lists share.

use sha2::{Digest as _, Sha256};

use super::DerError;
use super::certificate::Extension;
use super::der::{implicit, sequence};

/// A list of them.
pub(super) fn extension_list(extensions: &[Extension]) -> Result<Vec<u8>, DerError> {
    let parts = extensions.iter().map(Extension::to_der).collect::<Result<Vec<_>, _>>()?;
    sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Content of an AuthorityKeyIdentifier extension.
pub(super) fn authority_key_id(spki: &[u8]) -> Result<Vec<u8>, DerError> {
    sequence(&[&implicit(0, &key_id(spki))?])
}

/// First 160 bits of SHA-256 over the SubjectPublicKeyInfo (RFC 7093 §2, method 4).
pub(super) fn key_id(spki: &[u8]) -> [u8; 20] {
    let digest: [u8; 32] = Sha256::digest(spki).into();
    let mut id = [0; 20];
    id.copy_from_slice(&digest[..20]);
    id
}
