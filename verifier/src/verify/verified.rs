//! A report whose authenticity is established.

use std::{borrow::Cow, sync::Arc};

use super::{VerifiedChain, lines_at};
use crate::{
    CheckLine, Code, Cost, ExpectedReportData, UnixTime, VerifyError,
    abi::{ChipId, ProductLine, Report, ReportTcbs, SpkiDigest, WorkloadDigest},
    anchors::Anchor,
    chain::LeafFacts,
    trail::Trail,
};

/// What was done about revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum CrlStatus {
    /// A fresh list by the root names no certificate of the chain.
    Checked {
        /// CRL number.
        number: u64,
        /// When it was made.
        this_update: UnixTime,
        /// When it goes stale.
        next_update: UnixTime,
    },
    /// The caller waived it.
    Waived,
}

/// What REPORT_DATA was shown to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportBinding {
    /// What the verifier demanded: the report was made for it.
    Demanded,
    /// The hash of what the report travelled with: they belong together, and may be of any time and for anybody.
    Attachment,
    /// Not looked at.
    Waived,
}

impl From<&ExpectedReportData> for ReportBinding {
    fn from(expected: &ExpectedReportData) -> Self {
        match expected {
            ExpectedReportData::Exactly(_) => Self::Demanded,
            ExpectedReportData::Attachment(_) => Self::Attachment,
            ExpectedReportData::Any => Self::Waived,
        }
    }
}

/// An authentic report. Only [`crate::verify()`] makes one; it does not say that its guest is what anybody wants.
#[derive(Clone, Debug)]
pub struct VerifiedReport {
    pub(super) report: Report,
    pub(super) tcbs: ReportTcbs,
    pub(super) leaf: LeafFacts,
    pub(super) leaf_spki: SpkiDigest,
    pub(super) anchor: Anchor,
    pub(super) valid: (UnixTime, UnixTime),
    pub(super) crl: CrlStatus,
    pub(super) binding: ReportBinding,
    pub(super) verified_at: UnixTime,
    pub(super) leaf_validity: (UnixTime, UnixTime),
    /// Of the kept chain, shared with it; none where the chain was verified for this report.
    pub(super) of_chain: Arc<[CheckLine]>,
    pub(super) lines: Vec<CheckLine>,
    pub(super) cost: Cost,
    pub(super) workload: Option<WorkloadDigest>,
}

impl VerifiedReport {
    /// The report.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The root it rests on.
    pub const fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// True iff the root is none of the pinned AMD roots.
    pub const fn simulated(&self) -> bool {
        self.anchor.simulated
    }

    /// Product line, as certified.
    pub const fn product(&self) -> ProductLine {
        self.leaf.product
    }

    /// Current, reported, committed and launch TCB.
    pub const fn tcbs(&self) -> &ReportTcbs {
        &self.tcbs
    }

    /// What the leaf certifies.
    pub const fn leaf(&self) -> &LeafFacts {
        &self.leaf
    }

    /// The processor that reports: the hwID its leaf certifies, else CHIP_ID; nothing where neither shows it, as under a VLEK that
    /// masks it. Where both are there they are one: a report for which they are not is not verified.
    pub fn chip(&self) -> Option<ChipId> {
        let certified = self.leaf.hwid.as_deref().and_then(ChipId::of_hwid);
        certified.or_else(|| Some(self.report.chip_id()).filter(|chip| !chip.is_zero()))
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub const fn leaf_spki(&self) -> SpkiDigest {
        self.leaf_spki
    }

    /// First and last second at which certificates and revocation list are valid.
    pub const fn validity(&self) -> (UnixTime, UnixTime) {
        self.valid
    }

    /// What was done about revocation.
    pub const fn crl(&self) -> CrlStatus {
        self.crl
    }

    /// True only if REPORT_DATA is a value the verifier demanded: see [`Self::binding`] for what else it may be.
    pub const fn is_bound(&self) -> bool {
        matches!(self.binding, ReportBinding::Demanded)
    }

    /// What REPORT_DATA was shown to be.
    pub const fn binding(&self) -> ReportBinding {
        self.binding
    }

    /// Digest of the workload spec that came with the evidence, if one came: it is the one HOST_DATA names.
    pub const fn workload(&self) -> Option<WorkloadDigest> {
        self.workload
    }

    /// First and last second of the leaf's own validity.
    pub const fn leaf_validity(&self) -> (UnixTime, UnixTime) {
        self.leaf_validity
    }

    /// Public-key operations it took.
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// The `now` it was verified at.
    pub const fn verified_at(&self) -> UnixTime {
        self.verified_at
    }

    /// The checks that were made, as they were made; those of a kept chain first. None failed, or there would be no such value.
    pub fn checks(&self) -> impl Iterator<Item = Cow<'_, CheckLine>> {
        lines_at(&self.of_chain, self.verified_at).chain(self.lines.iter().map(Cow::Borrowed))
    }

    /// The workload spec sent with the evidence, if one was, is the one HOST_DATA names.
    pub(crate) fn with_spec(mut self, spec: &[u8], trail: &mut Trail) -> Result<Self, VerifyError> {
        let stated = self.report.host_data();
        if spec.is_empty() {
            trail.skip(Code::WorkloadSpec, "no workload spec came with the evidence");
        } else {
            let computed = WorkloadDigest::of(spec);
            if computed.host_data() != stated {
                return Err(VerifyError::WorkloadSpec { computed, stated });
            }
            self.workload = Some(computed);
            trail.pass(Code::WorkloadSpec, computed, format_args!("{stated}, as HOST_DATA states"));
        }
        Ok(self)
    }

    /// With what was checked when its chain was kept.
    pub(crate) fn under(self, chain: &VerifiedChain) -> Self {
        Self { of_chain: Arc::clone(&chain.lines), ..self }
    }

    /// With the checks that led to it.
    pub(crate) fn with_trail(mut self, trail: Trail) -> Self {
        (self.lines, self.cost) = (trail.lines, trail.cost);
        self
    }
}
