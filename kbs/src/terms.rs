//! On what terms something is released: what a version of a secret, a sealing context and a certificate profile carry alike.
//!
//! Typed rules only narrow: whoever they name must still be admitted, and the Rego policy must still say yes.
//! Never: admits anybody by itself.

use coffer_verifier::{
    Accept, EvidencePolicy, TcbMinimum, TcbRule, VerifiedReport,
    abi::{ChipId, HostData, KeyDigest, Measurement, ProductLine, WorkloadDigest},
};

use crate::policies::DEFAULT;

/// The terms of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// May simulated evidence have it, where the tenant lists the root too.
    pub allow_simulated: bool,
    /// Name of the Rego policy that must say yes.
    pub policy: String,
    /// Who may have it, of those that are admitted.
    pub rules: Rules,
}

impl Default for Terms {
    /// The shipped policy, for hardware alone.
    fn default() -> Self {
        Self { allow_simulated: false, policy: DEFAULT.to_owned(), rules: Rules::default() }
    }
}

/// An author, and the least version of what it signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorRule {
    /// AUTHOR_KEY_DIGEST.
    pub author_key: KeyDigest,
    /// Least GUEST_SVN.
    pub minimum_guest_svn: u32,
}

/// Typed rules. A list that names nothing asks for nothing; one that does is met by any of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Launch digests.
    pub measurements: Vec<Measurement>,
    /// Workload digests.
    pub workloads: Vec<WorkloadDigest>,
    /// Authors.
    pub authors: Vec<AuthorRule>,
    /// Chips.
    pub chips: Vec<ChipId>,
    /// Least REPORTED_TCB by product; a product without an entry is refused where there is any.
    pub tcb: Vec<(ProductLine, TcbRule)>,
}

/// Most entries of one list.
pub const RULES: usize = 64;

impl Rules {
    /// True if nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What holds of the report, beside the floor and admission.
    pub fn as_policy(&self) -> EvidencePolicy {
        fn only<T>(list: Vec<T>) -> Accept<T> {
            if list.is_empty() { Accept::Any } else { Accept::Only(list) }
        }
        let mut policy = EvidencePolicy::default_floor();
        policy.measurements = only(self.measurements.clone());
        policy.host_data = only(self.workloads.iter().map(WorkloadDigest::host_data).collect::<Vec<HostData>>());
        policy.chips.allow = only(self.chips.clone());
        let minimum = |(product, reported): &(ProductLine, TcbRule)| TcbMinimum {
            product: *product,
            model: None,
            stepping: None,
            reported: *reported,
            committed: None,
            launch: None,
            source: "rule".into(),
        };
        policy.tcb = only(self.tcb.iter().map(minimum).collect());
        policy
    }

    /// Why no author of the list signed this launch; nothing if one did, or none is asked for.
    pub fn author_missing(&self, verified: &VerifiedReport) -> Option<String> {
        let report = verified.report();
        let signed = |one: &AuthorRule| {
            report.key_info().author_key_en
                && !one.author_key.is_zero()
                && report.author_key_digest() == one.author_key
                && report.guest_svn() >= one.minimum_guest_svn
        };
        if self.authors.is_empty() || self.authors.iter().any(signed) {
            return None;
        }
        let (author, svn) = (report.author_key_digest(), report.guest_svn());
        let enabled = if report.key_info().author_key_en { "" } else { ", which is not enabled" };
        Some(format!("author: found author {author}{enabled} at svn {svn}, which no rule names"))
    }
}
