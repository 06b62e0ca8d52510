#![allow(dead_code, reason = "each target uses its part")]
//! What the targets of policies do with their input; the stable replay of the corpora includes this file too.

use coffer_policies::{Bundle, BundleTrust, File, Policy, lint};

/// A bundle, with and without a signature that is waived.
pub fn bundle(data: &[u8]) {
    for trust in [BundleTrust::Unsigned, BundleTrust::SignatureWaived] {
        match Bundle::read("b", data, trust) {
            Ok(bundle) => {
                let _ = (bundle.policy(), lint::lint("b", bundle.files(), bundle.data()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A text of Rego: parsed, asked, and looked at.
pub fn rego(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(policy) = Policy::parse("p.rego", text) {
        let _ = policy.decide_text("{}");
    }
    if let Ok(findings) = lint::lint("p.rego", &[File::new("p.rego", text)], None) {
        assert!(findings.iter().all(|one| one.line > 0), "{findings:?}");
    }
}
