//! Roots and intermediates that believed chains have led over, kept as they were read.
//!
//! They are the same for every guest of a product line, and to read one, with what a library reckons before the first use of an RSA key,
//! takes as long as to check a signature by it. Reading depends on nothing but the bytes: what is kept is what would be read again.
//! Never: keeps what no believed root vouches for, or more than [`MOST`]; believes anything because it is here.

use std::sync::{Arc, PoisonError, RwLock};

use super::certificate::{Certificate, CertificateError};

/// AMD's roots and intermediates of three product lines, and those of a few simulators.
const MOST: usize = 32;

static KEPT: RwLock<Vec<Arc<Certificate>>> = RwLock::new(Vec::new());

/// Reads a certificate, or finds it read.
///
/// # Errors
/// [`CertificateError`].
pub fn read(der: &[u8]) -> Result<Arc<Certificate>, CertificateError> {
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.iter().find(|known| known.der() == der) {
        return Ok(Arc::clone(known));
    }
    drop(kept);
    Certificate::parse(der).map(Arc::new)
}

/// Keeps the root and the intermediate of a chain that holds. The oldest goes where there are too many.
pub fn keep(chain: [&Certificate; 2]) {
    for certificate in chain {
        let is_this = |known: &Arc<Certificate>| known.der() == certificate.der();
        if KEPT.read().unwrap_or_else(PoisonError::into_inner).iter().any(is_this) {
            continue;
        }
        let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have kept it meanwhile.
        if kept.iter().any(is_this) {
            continue;
        }
        if kept.len() == MOST {
            kept.remove(0);
        }
        kept.push(Arc::new(certificate.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_and_nothing_else_is() {
        let (ark, ask): (&[u8], &[u8]) =
            (include_bytes!("../../data/turin_ark.der"), include_bytes!("../../data/turin_ask.der"));
        let [root, intermediate] = [ark, ask].map(|der| Certificate::parse(der).unwrap());
        keep([&root, &intermediate]);
        let [once, again] = [(); 2].map(|()| read(ask).unwrap());
        assert!(Arc::ptr_eq(&once, &again) && once.der() == ask);
        // One bit apart is another certificate, which is read anew and refused or not as if nothing were kept.
        let mut other = ask.to_vec();
        let last = other.len() - 1;
        other[last] ^= 1;
        let [once, again] = [(); 2].map(|()| read(&other).unwrap());
        assert!(!Arc::ptr_eq(&once, &again) && once.der() == other);
        assert!(read(&ask[..last]).is_err());
    }
}
