//! Evidence as somebody hands it over: a bare report, Azure's HCL blob, a CMW record or a TSM report, told apart by length and
//! first bytes. `coffer verify` and the verifier's service take the same forms, and judge them by the same steps.
//!
//! Trusts: nothing. Never: says that what it read is authentic.

use crate::{
    Appraisal, ConnectionChain, Endorsements, Evidence, Expected, ExpectedGuest, ExpectedReportData, Look, UnixTime,
    Verdict, Verifier,
    abi::{HostData, REPORT_LEN, Report, ReportData, WorkloadDigest},
    binding::{nonce_report_data, workload_report_data},
    ear::Nonce,
    evidence::CmwError,
    hcl::{HclBlob, HclError},
    tsm::{TsmError, TsmReport},
};

/// Evidence that was read, and what its wrapping says REPORT_DATA must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    evidence: Evidence,
    /// The whole blob; empty where it was none.
    hcl: Vec<u8>,
    attachment: Option<ExpectedReportData>,
}

/// Why bytes are no evidence in any form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresentedError {
    /// Of no form.
    #[error("{look}, length {found}, where a report, HCL blob, CMW record or TSM report is due")]
    Form {
        /// Bytes given.
        found: usize,
        /// What they look like.
        look: Look,
    },
    /// Begins as an HCL blob.
    #[error(transparent)]
    Hcl(#[from] HclError),
    /// Begins as a CMW record.
    #[error(transparent)]
    Cmw(#[from] CmwError),
    /// Begins as a TSM report.
    #[error(transparent)]
    Tsm(#[from] TsmError),
}

impl PresentedError {
    /// What helps.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Form { look: Look::Certificate | Look::RevocationList, .. } => {
                "a certificate or list stands beside evidence, and is none itself; a report has 1184 bytes"
            }
            Self::Form { look: Look::CertTable, .. } => {
                "a certificate table stands beside the report it came with, as auxblob of a TSM report, `--cert-table FILE` of a command \
                 and cert_table of a request; a report has 1184 bytes"
            }
            Self::Form { look: Look::Hex, .. } => "these are the digits of bytes: `xxd -r -p` makes bytes of them",
            Self::Form { look: Look::Base64, .. } => {
                "this is a spelling of bytes: `base64 -d` makes bytes of it (of base64url, once `-` is `+` and `_` is `/`)"
            }
            Self::Tsm(_) => {
                "a TSM report is an object with provider (\"sev_guest\"), outblob (the report) and auxblob (the host's certificate table, \
                 which may be left out), both in base64"
            }
            Self::Form { look: Look::Html, .. } => "a page came in place of a file: look at where it was got",
            Self::Form { look: Look::Empty, .. } => "whoever was to write it wrote nothing; a report has 1184 bytes",
            Self::Form { look: Look::Token, .. } => {
                "a token is checked with the keys of its issuer, and is no evidence itself"
            }
            _ => "a report has 1184 bytes; check that the file is complete and binary",
        }
    }
}

impl Presented {
    /// Tells the forms apart. A report whose bytes break the form is the judge's to name.
    ///
    /// # Errors
    /// [`PresentedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PresentedError> {
        let of = |evidence| Self { evidence, hcl: Vec::new(), attachment: None };
        let bare = |report: &[u8]| Evidence { report: report.to_vec(), ..Evidence::default() };
        if bytes.len() == REPORT_LEN {
            return Ok(of(bare(bytes)));
        }
        if HclBlob::is_hcl(bytes) {
            let blob = HclBlob::parse(bytes)?;
            let attachment = Some(blob.expected_report_data());
            return Ok(Self { evidence: bare(blob.report()), hcl: bytes.to_vec(), attachment });
        }
        if Evidence::is_cmw(bytes) {
            return Ok(of(Evidence::from_cmw(bytes)?));
        }
        if TsmReport::is_tsm(bytes) {
            let TsmReport { outblob, auxblob } = TsmReport::parse(bytes)?;
            return Ok(of(Evidence { report: outblob, cert_table: auxblob, ..Evidence::default() }));
        }
        Err(PresentedError::Form { found: bytes.len(), look: Look::of(bytes) })
    }

    /// The evidence inside.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// With this certificate table beside it. False, and as it was, where it brought one itself.
    #[must_use]
    pub fn with_cert_table(&mut self, cert_table: Vec<u8>) -> bool {
        let none = self.evidence.cert_table.is_empty();
        if none {
            self.evidence.cert_table = cert_table;
        }
        none
    }

    /// What REPORT_DATA must be where this evidence was made over a nonce: of the workload that its own HOST_DATA names.
    pub fn over_nonce(&self, nonce: &Nonce) -> ReportData {
        nonce_report_data(&self.workload(), nonce.as_bytes())
    }

    /// What REPORT_DATA must be where its workload had this evidence made over data of its own.
    pub fn over_workload_data(&self, data: &[u8]) -> ReportData {
        workload_report_data(&self.workload(), data)
    }

    /// The workload that its own HOST_DATA names; not believed before it is judged.
    pub fn workload(&self) -> WorkloadDigest {
        // Of a report that breaks the form nothing is taken, whatever it must hold.
        let host_data =
            Report::parse(&self.evidence.report).map_or(HostData::new([0; 32]), |report| report.host_data());
        WorkloadDigest::stated(host_data)
    }

    /// The HCL blob, if it was one: for what it binds.
    pub fn hcl(&self) -> Option<HclBlob<'_>> {
        HclBlob::parse(&self.hcl).ok()
    }
}

impl Verifier {
    /// Decides about evidence as it was handed over. An HCL blob states the hash of its runtime data; what the caller demands of
    /// REPORT_DATA then comes on top.
    pub fn judge_presented(
        &self,
        chain: &ConnectionChain,
        presented: &Presented,
        endorsements: &Endorsements,
        demanded: &ExpectedReportData,
        now: UnixTime,
    ) -> Appraisal {
        let guest = ExpectedGuest::WhateverThePolicyAdmits;
        let expected = Expected { report_data: demanded.clone(), guest };
        self.judge_presented_guest(chain, presented, endorsements, &expected, now)
    }

    /// The same, where it is known which guests it may be of.
    pub fn judge_presented_guest(
        &self,
        chain: &ConnectionChain,
        presented: &Presented,
        endorsements: &Endorsements,
        expected: &Expected,
        now: UnixTime,
    ) -> Appraisal {
        let demanded = &expected.report_data;
        let judge = |report_data: &ExpectedReportData| {
            let expected = Expected { report_data: report_data.clone(), guest: expected.guest.clone() };
            self.judge_on(chain, &presented.evidence, endorsements, &expected, now)
        };
        match &presented.attachment {
            Some(attachment) => {
                let appraisal = judge(attachment);
                if appraisal.verdict() == Verdict::NotAuthentic || *demanded == ExpectedReportData::Any {
                    appraisal
                } else {
                    judge(demanded)
                }
            }
            None => judge(demanded),
        }
    }
}
