//! What REPORT_DATA was made of, by name: what may be said of a guest's key and of a nonce.
//!
//! Whoever has somebody's report can show it beside a key of his own. So a key or a nonce counts only where hashing it again, in
//! the way the binding's name fixes, gives the REPORT_DATA of this very report.

use crate::{
    HclBlob, P384PublicKey, VerifiedReport,
    abi::{ReportData, SpkiDigest, WorkloadDigest},
    binding::{ConnectionBinding, TokenBinding, certificate_report_data, nonce_report_data, workload_report_data},
    verify::ExpectedReportData,
};

use super::{jwk::GuestKey, words::Nonce};

/// What a caller says REPORT_DATA was made of.
#[derive(Clone, Debug)]
pub enum NamedBinding<'a> {
    /// Nothing that has a name. It yields neither nonce nor key.
    Raw,
    /// `coffer/ra-tls/v1`: the challenge is the nonce, the attester's key is the key.
    Connection {
        /// The connection, as the verifier saw it.
        connection: &'a ConnectionBinding<'a>,
        /// The key whose digest is `own_spki` there.
        key: &'a P384PublicKey,
    },
    /// `coffer/ra-tls/cert/v1`: a key, and no nonce.
    Certificate {
        /// The certificate's key.
        key: &'a P384PublicKey,
        /// The workload spec's digest.
        workload: WorkloadDigest,
    },
    /// `coffer/workload/v1`: the workload's own data is the nonce where it has the length of one, and no key.
    Workload {
        /// The workload spec's digest.
        workload: WorkloadDigest,
        /// What the workload asked to be bound.
        data: &'a [u8],
    },
    /// `coffer/nonce/v1`: the nonce that somebody chose, over the workload that HOST_DATA names, and no key.
    Nonce(&'a Nonce),
    /// `coffer/token/v1`: a key of the workload's, and the nonce it names, where there is one.
    Token {
        /// What the report was made for.
        binding: &'a TokenBinding<'a>,
        /// The key whose digest is `key` there.
        key: &'a P384PublicKey,
    },
    /// Azure's runtime data: the vTPM's attestation key, and no nonce.
    AzureHcl(&'a HclBlob<'a>),
}

/// Why a binding yields nothing: it is not what REPORT_DATA holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotShown {
    /// REPORT_DATA is something else.
    #[error("REPORT_DATA is {found}, and {binding} of what was given is {expected}")]
    ReportData {
        /// The binding's name.
        binding: &'static str,
        /// The report's.
        found: Box<ReportData>,
        /// What was computed.
        expected: Box<ReportData>,
    },
    /// The key given is not the one that was bound.
    #[error("the report was bound to key {bound}, and the key given is {given}")]
    Key {
        /// SHA-256 of the SubjectPublicKeyInfo that is bound.
        bound: SpkiDigest,
        /// That of the key.
        given: SpkiDigest,
    },
}

/// Nonce and key that are inside the REPORT_DATA of one report. Only [`Shown::inside`] and [`Shown::nothing`] make one.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    name: &'static str,
    nonce: Option<Nonce>,
    key: Option<GuestKey>,
}

impl NamedBinding<'_> {
    /// The name in tokens.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Connection { .. } => "coffer/ra-tls/v1",
            Self::Certificate { .. } => "coffer/ra-tls/cert/v1",
            Self::Workload { .. } => "coffer/workload/v1",
            Self::Nonce(_) => "coffer/nonce/v1",
            Self::Token { .. } => "coffer/token/v1",
            Self::AzureHcl(_) => "azure-hcl",
        }
    }
}

impl Shown {
    /// Of evidence that is not authentic, nothing is.
    pub(super) const fn nothing() -> Self {
        Self { name: "raw", nonce: None, key: None }
    }

    /// Hashes it again, and compares with the report.
    pub(super) fn inside(verified: &VerifiedReport, binding: &NamedBinding<'_>) -> Result<Self, NotShown> {
        let name = binding.name();
        let (expected, nonce, key) = match binding {
            NamedBinding::Raw => return Ok(Self::nothing()),
            NamedBinding::Connection { connection, key } => {
                same_key(connection.own_spki, key)?;
                (connection.report_data(), Nonce::new(connection.challenge).ok(), Some(GuestKey::P384(**key)))
            }
            NamedBinding::Certificate { key, workload } => {
                (certificate_report_data(&key.spki_digest(), workload), None, Some(GuestKey::P384(**key)))
            }
            NamedBinding::Workload { workload, data } => {
                (workload_report_data(workload, data), Nonce::new(data).ok(), None)
            }
            NamedBinding::Nonce(nonce) => {
                let workload = WorkloadDigest::stated(verified.report().host_data());
                (nonce_report_data(&workload, nonce.as_bytes()), Some((*nonce).clone()), None)
            }
            NamedBinding::Token { binding, key } => {
                same_key(binding.key, key)?;
                (binding.report_data(), Nonce::new(binding.nonce).ok(), Some(GuestKey::P384(**key)))
            }
            NamedBinding::AzureHcl(blob) => {
                let (ExpectedReportData::Attachment(expected) | ExpectedReportData::Exactly(expected)) =
                    blob.expected_report_data()
                else {
                    return Ok(Self::nothing());
                };
                (expected, None, blob.attestation_key().cloned().map(GuestKey::Tpm))
            }
        };
        let found = verified.report().report_data();
        if found != expected {
            return Err(NotShown::ReportData { binding: name, found: Box::new(found), expected: Box::new(expected) });
        }
        Ok(Self { name, nonce, key })
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn nonce(&self) -> Option<&Nonce> {
        self.nonce.as_ref()
    }

    pub(super) const fn key(&self) -> Option<&GuestKey> {
        self.key.as_ref()
    }
}

fn same_key(bound: &SpkiDigest, key: &P384PublicKey) -> Result<(), NotShown> {
    let (bound, given) = (*bound, key.spki_digest());
    if bound == given { Ok(()) } else { Err(NotShown::Key { bound, given }) }
}
