//! Sealing keys: HKDF over the tenant's sealing root and what the report was shown to say.
//!
//! Trusts: the verified report, for the subject; the tenant's sealing root. Believes of a request only which of its own
//! keys the guest wants.
//! Never: takes a subject from a request, derives without a subject, uses a public field as key material.
//! Source: docs/design/sealing.md §7; RFC 5869.

use coffer_kbs_client::{SealingName, SealingPolicy};
use coffer_verifier::{SignerRule, VerifiedReport, abi::SpkiDigest, binding::length_prefixed};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// First field of every derivation.
const LABEL: &[u8] = b"coffer/kbs/sealing-key/v1";

/// Whose key it is: bytes that only the report of the right guest gives.
///
/// # Errors
/// Why this report has no such subject, for the trail.
pub fn subject(name: &SealingName, verified: &VerifiedReport) -> Result<Vec<u8>, String> {
    let report = verified.report();
    let least = |svn: u32| -> Result<u32, String> {
        let wanted = name.minimum_svn.unwrap_or(svn);
        if wanted > svn {
            return Err(format!("sealing: found svn {svn}, asked for a key of svn {wanted} or higher"));
        }
        Ok(wanted)
    };
    if name.minimum_svn.is_some() && name.policy != SealingPolicy::Signer {
        return Err(format!("sealing: policy {} knows no minimum svn", name.policy.name()));
    }
    match name.policy {
        SealingPolicy::Chip if verified.leaf().hwid.is_none() => {
            Err("sealing: the endorsement key names no chip, so policy chip has no subject".to_owned())
        }
        SealingPolicy::Chip if report.chip_id().is_zero() => {
            Err("sealing: the report shows no chip, so policy chip has no subject".to_owned())
        }
        SealingPolicy::Chip => Ok(report.chip_id().as_bytes().to_vec()),
        SealingPolicy::Measurement => Ok(report.measurement().as_bytes().to_vec()),
        SealingPolicy::Workload => Ok(report.host_data().as_bytes().to_vec()),
        SealingPolicy::Signer => {
            let author = report.author_key_digest();
            if !report.key_info().author_key_en || author.is_zero() {
                return Err("sealing: no author signed this launch, so policy signer has no subject".to_owned());
            }
            let svn = least(report.guest_svn())?;
            let (family, image) = (report.family_id(), report.image_id());
            Ok([author.as_bytes().as_slice(), family.as_bytes(), image.as_bytes(), &svn.to_be_bytes()].concat())
        }
    }
}

/// Policy `signer` is for authors the tenant lists, whatever else admits the guest: the host chooses who signs a launch.
///
/// # Errors
/// Why not, for the trail.
pub fn author_listed(name: &SealingName, verified: &VerifiedReport, authors: &[SignerRule]) -> Result<(), String> {
    if name.policy != SealingPolicy::Signer || authors.iter().any(|one| one.admits(verified.report())) {
        return Ok(());
    }
    Err("sealing: policy signer needs an author that the tenant lists".to_owned())
}

/// The key of one subject.
pub fn derive(root: &[u8; 32], anchor: &SpkiDigest, name: &SealingName, subject: &[u8]) -> Zeroizing<[u8; 32]> {
    let SealingName { policy, scope, context, .. } = name;
    let info = length_prefixed(&[
        LABEL,
        anchor.as_bytes(),
        policy.name().as_bytes(),
        subject,
        scope.name().as_bytes(),
        context,
    ]);
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, root).expand(&info, key.as_mut_slice()).expect("32 bytes are one block of SHA-256");
    key
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use coffer_kbs_client::Scope;

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sealing.md");

    fn bytes<const N: usize>(first: u8) -> [u8; N] {
        core::array::from_fn(|at| first + at as u8)
    }

    #[test]
    fn keys_are_those_of_the_page() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let table = page.split("### Vectors").nth(1).unwrap().split("\n## ").next().unwrap();
        let mut policies = std::collections::BTreeSet::new();
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let name = SealingName {
                policy: cells[0].parse().unwrap(),
                scope: cells[1].parse::<Scope>().unwrap(),
                context: cells[2].as_bytes().to_vec(),
                minimum_svn: None,
            };
            let subject = hex::decode(cells[3]).unwrap();
            let key = derive(&bytes(0), &SpkiDigest::new(bytes(0x20)), &name, &subject);
            assert_eq!(hex::encode(key.as_slice()), cells[4], "{row}");
            policies.insert(name.policy);
        }
        assert_eq!(policies.len(), SealingPolicy::ALL.len());
    }

    #[test]
    fn a_script_that_shares_no_code_says_the_same() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/sealing-key.py");
        let output = Command::new("python3").arg(script).arg(PAGE).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("6 vectors hold"), "{output:?}");
    }
}
