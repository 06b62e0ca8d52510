//! The policies that come with Coffer. Both refuse simulated evidence unless its owner says otherwise in typed words.

/// One policy of ours with its unit tests.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// File name below `policies/`.
    pub name: &'static str,
    /// Rego text.
    pub text: &'static str,
    /// Rego unit tests.
    pub tests: &'static str,
}

/// Appraisal policy for attestation results: releases a secret. The key broker calls it `default`.
pub const RELEASE: Shipped = Shipped {
    name: "results/release.rego",
    text: include_str!("../results/release.rego"),
    tests: include_str!("../results/release_test.rego"),
};

/// Appraisal policy for evidence: production SNP guests under AMD's roots.
pub const EVIDENCE_SNP: Shipped = Shipped {
    name: "evidence/snp.rego",
    text: include_str!("../evidence/snp.rego"),
    tests: include_str!("../evidence/snp_test.rego"),
};
