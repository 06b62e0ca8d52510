//! A report whose authenticity is established.

use crate::{
    CheckLine, UnixTime,
    abi::{ProductLine, Report, ReportTcbs, SpkiDigest},
    anchors::Anchor,
    chain::LeafFacts,
};

/// What was done about revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum CrlStatus {
    /// A fresh list by the root names no certificate of the chain.
    Checked {
        /// CRL number.
        number: u64,
        /// When it goes stale.
        next_update: UnixTime,
    },
    /// The caller waived it.
    Waived,
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
    pub(super) bound: bool,
    pub(super) verified_at: UnixTime,
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

    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub const fn leaf_spki(&self) -> SpkiDigest {
        self.leaf_spki
    }

    /// First and last second at which certificates and revocation list are valid.
    pub const fn validity(&self) -> (UnixTime, UnixTime) {
        self.valid
    }

    /// Revocation.
    pub const fn crl(&self) -> CrlStatus {
        self.crl
    }

    /// True if REPORT_DATA was compared with a value the verifier computed; false if that was waived.
    pub const fn is_bound(&self) -> bool {
        self.bound
    }

    /// The `now` it was verified at.
    pub const fn verified_at(&self) -> UnixTime {
        self.verified_at
    }

    /// The checks that were made, in order. All passed, or there would be no such value.
    pub fn checks(&self) -> Vec<CheckLine> {
        let report = &self.report;
        let chip = if report.chip_id().is_zero() { "masked".to_owned() } else { report.chip_id().to_string() };
        let certified = match (&self.leaf.hwid, &self.leaf.csp_id) {
            (Some(hwid), _) if !report.chip_id().is_zero() => hex::encode(hwid),
            (Some(_), _) => "by the signature alone".to_owned(),
            (None, csp) => format!("any chip of {}", csp.as_deref().unwrap_or("the provider")),
        };
        let crl = match self.crl {
            CrlStatus::Checked { number, next_update } => CheckLine::passed(
                "revocation",
                format!("nothing listed, list {number} valid to {next_update}"),
                "a fresh list",
            ),
            CrlStatus::Waived => CheckLine::passed("revocation", "not checked", "waived by the caller"),
        };
        let data = if self.bound { "the value this verifier computed" } else { "any: waived by the caller" };
        vec![
            CheckLine::passed("report-form", format!("version {}", report.version()), "2 to 5, reserved bytes zero"),
            CheckLine::passed("anchor", self.anchor, "a listed root"),
            CheckLine::passed("certificate-dates", format!("{} to {}", self.valid.0, self.valid.1), self.verified_at),
            CheckLine::passed("certificate-signatures", "ARK, intermediate, leaf", "RSA-PSS SHA-384, one by the other"),
            crl,
            CheckLine::passed("signing-key", self.leaf.key, report.signing_key()),
            CheckLine::passed("product", self.leaf.product, self.leaf.product),
            CheckLine::passed("tcb", self.tcbs.reported, self.leaf.tcb),
            CheckLine::passed("chip-id", chip, certified),
            CheckLine::passed("signature", "verifies", format!("ECDSA P-384 by the {}", self.leaf.key)),
            CheckLine::passed("report-data", report.report_data(), data),
        ]
    }
}
