//! The policies that come with Coffer. All refuse simulated evidence unless its owner says otherwise in typed words.

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

/// Appraisal policy for evidence: confidential VMs of Azure, by the report that the paravisor brings.
pub const EVIDENCE_AZURE_CVM: Shipped = Shipped {
    name: "evidence/azure_cvm.rego",
    text: include_str!("../evidence/azure_cvm.rego"),
    tests: include_str!("../evidence/azure_cvm_test.rego"),
};

/// All of them.
pub const SHIPPED: [Shipped; 3] = [RELEASE, EVIDENCE_SNP, EVIDENCE_AZURE_CVM];

/// Whether a policy of somebody's own would read as one that is built in, or as several: the names of the typed ones and the words of
/// those here, in any case, and what has a `+`, which stands between names.
pub fn reads_as_built_in(name: &str) -> bool {
    let is = |word: &str| word.eq_ignore_ascii_case(name);
    name.is_empty() || name.contains('+') || TYPED.into_iter().any(is) || SHIPPED.iter().any(|one| is(&one.word()))
}

/// The typed policies that are built in, by the names that tokens have of them.
const TYPED: [&str; 2] = ["strict", "default-floor"];

impl Shipped {
    /// What it is called on a command line: `release`, `snp`, `azure-cvm`.
    pub fn word(&self) -> String {
        let file = self.name.rsplit_once('/').map_or(self.name, |(_, file)| file);
        file.trim_end_matches(".rego").replace('_', "-")
    }

    /// It decides about evidence; else about what a key broker is asked for.
    pub fn is_for_evidence(&self) -> bool {
        self.name.starts_with("evidence/")
    }

    /// The one of this word.
    pub fn named(word: &str) -> Option<Self> {
        SHIPPED.into_iter().find(|shipped| shipped.word() == word)
    }
}
