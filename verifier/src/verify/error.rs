//! Why a report is not authentic.

use crate::{
    Code, Reason, UnixTime,
    abi::{ChipId, HostData, ProductLine, ReportData, ReportError, SigningKey, SpkiDigest, TcbVersion, WorkloadDigest},
    chain::CertificateRole,
    endorsement_request::MissingEndorsements,
    endorsements::EndorsementError,
};

/// Why a report is not authentic. Nothing here depends on what its owner wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The bytes are no report.
    #[error("not an attestation report")]
    Report(#[from] ReportError),
    /// SNP_HV_REPORT_REQ: the host asked for it, so it says nothing a guest said.
    #[error("report was asked for by the host, not by a guest")]
    HostRequested,
    /// SIGNING_KEY none, or zeros in place of a VCEK signature.
    #[error("report is not signed")]
    NotSigned,
    /// CPUID words of no product line with a known root.
    #[error("processor family {family:#x} model {model:#x} is of no known product line")]
    UnknownProduct {
        /// Combined family.
        family: u8,
        /// Combined model.
        model: u8,
    },
    /// Endorsements are not at hand: all of them, at once.
    #[error("missing {0}")]
    Missing(Box<MissingEndorsements>),
    /// The certificate chain.
    #[error("certificate chain does not hold")]
    Chain(#[from] ChainError),
    /// The leaf certifies the other kind of key.
    #[error("report states it is signed by a {stated}, its certificate is of a {certified}")]
    SigningKey {
        /// By the report.
        stated: SigningKey,
        /// The leaf.
        certified: SigningKey,
    },
    /// The leaf certifies another product line.
    #[error("report is of a {stated}, its certificate of a {certified}")]
    Product {
        /// CPUID words.
        stated: ProductLine,
        /// By the leaf.
        certified: ProductLine,
    },
    /// The leaf certifies another TCB.
    #[error("report states TCB {reported}, its {key} certifies {certified}")]
    Tcb {
        /// Leaf kind.
        key: SigningKey,
        /// By the report.
        reported: TcbVersion,
        /// SPL extensions.
        certified: TcbVersion,
    },
    /// The leaf certifies another chip.
    #[error("report is of chip {reported}, its certificate of another")]
    ChipId {
        /// By the report.
        reported: Box<ChipId>,
        /// By the leaf.
        certified: Vec<u8>,
    },
    /// The signature.
    #[error("report signature does not verify under its {key}")]
    Signature {
        /// Leaf kind.
        key: SigningKey,
    },
    /// What came with the evidence is no endorsement.
    #[error("endorsements sent with the evidence cannot be used")]
    Endorsement(#[from] EndorsementError),
    /// The workload spec sent with the evidence is not the one HOST_DATA names.
    #[error("workload spec has digest {computed}, HOST_DATA states {stated}")]
    WorkloadSpec {
        /// SHA-256 of the spec.
        computed: WorkloadDigest,
        /// By the report.
        stated: HostData,
    },
    /// REPORT_DATA is not the hash of what the report travelled with.
    #[error("REPORT_DATA is not the hash of the runtime data")]
    Attachment {
        /// In the report.
        found: Box<ReportData>,
        /// The hash.
        expected: Box<ReportData>,
    },
    /// REPORT_DATA is not what this use binds to.
    #[error("REPORT_DATA is not what was expected")]
    ReportData {
        /// In the report.
        found: Box<ReportData>,
        /// Computed by the verifier.
        expected: Box<ReportData>,
    },
}

/// What is wrong with the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The root is no anchor of the caller's.
    #[error("root of {product} with key {spki} is not a trusted anchor")]
    UntrustedRoot {
        /// SHA-256 of its SubjectPublicKeyInfo.
        spki: SpkiDigest,
        /// Product line it claims.
        product: ProductLine,
    },
    /// The leaf names an issuer of another product line.
    #[error("leaf of a {leaf} names {issuer} as its issuer")]
    ForeignIssuer {
        /// productName of the leaf.
        leaf: ProductLine,
        /// The issuer.
        issuer: CertificateRole,
    },
    /// A public key is none.
    #[error("public key of {certificate} is not on its curve or of its size")]
    Key {
        /// Whose.
        certificate: CertificateRole,
    },
    /// A certificate's signature.
    #[error("{certificate} is not signed by {issuer}")]
    Signature {
        /// Whose.
        certificate: CertificateRole,
        /// By whom it should be.
        issuer: CertificateRole,
    },
    /// Outside its validity.
    #[error("{certificate} is valid from {from} to {to}, not at {now}")]
    Dates {
        /// Whose.
        certificate: CertificateRole,
        /// notBefore.
        from: UnixTime,
        /// notAfter.
        to: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// The list names a certificate of the chain.
    #[error("{certificate} is revoked by list {number}")]
    Revoked {
        /// Whose.
        certificate: CertificateRole,
        /// CRL number.
        number: u64,
    },
    /// The list's signature.
    #[error("revocation list is not signed by {issuer}")]
    CrlSignature {
        /// By whom it should be.
        issuer: CertificateRole,
    },
    /// The list is stale or from the future.
    #[error("revocation list {number} is valid from {from} to {to}, not at {now}")]
    CrlDates {
        /// CRL number.
        number: u64,
        /// thisUpdate.
        from: UnixTime,
        /// nextUpdate.
        to: UnixTime,
        /// The caller's time.
        now: UnixTime,
    },
    /// A newer list has been seen.
    #[error("revocation list {found} is older than {least}, which was seen before")]
    CrlNumber {
        /// Number of the list.
        found: u64,
        /// Least number accepted.
        least: u64,
    },
}

impl VerifyError {
    /// Code, found, expected and hint.
    pub fn reason(&self) -> Reason {
        const OTHER_CERT: &str = "give the certificate issued for this chip at this TCB, not another one";
        const OTHER_VLEK: &str = "give the VLEK certificate that the host's provider has for this TCB, as it stands in the certificate table \
            of the extended report";
        let other = |key: SigningKey| if key == SigningKey::Vlek { OTHER_VLEK } else { OTHER_CERT };
        let none = "there is nothing to mend: do not trust this evidence";
        match self {
            Self::Report(error) => {
                let (found, expected) = error.found_and_expected();
                Reason::new(
                    Code::ReportMalformed,
                    found,
                    expected,
                    "check that it is a whole report, as the guest got it",
                )
            }
            Self::HostRequested => Reason::new(Code::HostRequested, "VMPL 0xffffffff", "VMPL 0 to 3", none),
            Self::NotSigned => Reason::new(
                Code::NotSigned,
                "no signature",
                "a VCEK or VLEK signature",
                "the platform masks its chip key; ask its operator to unmask it or to load a VLEK",
            ),
            Self::UnknownProduct { family, model } => Reason::new(
                Code::ProductUnknown,
                format!("family {family:#x} model {model:#x}"),
                "Milan, Genoa or Turin",
                "a newer verifier may know this processor",
            ),
            Self::Missing(missing) => missing.reason(),
            Self::Chain(error) => error.reason(),
            Self::SigningKey { stated, certified } => Reason::new(
                Code::SigningKey,
                format!("{stated} in the report"),
                format!("{certified}, as the leaf is one"),
                other(*stated),
            ),
            Self::Product { stated, certified } => Reason::new(
                Code::Product,
                format!("{stated} in the report"),
                format!("{certified}, as the leaf certifies"),
                OTHER_CERT,
            ),
            Self::Tcb { key, reported, certified } => {
                let (found, expected) = differing(*reported, *certified);
                Reason::new(
                    Code::Tcb,
                    format!("{found} in the report"),
                    format!("{expected}, as the {key} certifies"),
                    other(*key),
                )
            }
            Self::ChipId { reported, certified } => Reason::new(
                Code::ChipId,
                format!("{reported} in the report"),
                format!("{}, as the VCEK certifies", hex::encode(certified)),
                OTHER_CERT,
            ),
            Self::Signature { key } => Reason::new(
                Code::Signature,
                "does not verify",
                format!("a signature by the {key}"),
                if *key == SigningKey::Vlek {
                    "the report was altered, or the certificate is of another provider's key"
                } else {
                    "the report was altered, or the certificate is of another chip"
                },
            ),
            Self::Endorsement(error) => error.reason(),
            Self::WorkloadSpec { computed, stated } => Reason::new(
                Code::WorkloadSpec,
                format!("a spec with digest {computed}"),
                format!("{stated}, as HOST_DATA states"),
                "the spec sent is not the one the guest was launched for",
            ),
            Self::Attachment { found, expected } => Reason::new(
                Code::RuntimeData,
                found,
                format!("{expected}, the hash of the runtime data"),
                "report and runtime data are not of one blob, or were altered",
            ),
            Self::ReportData { found, expected } => Reason::new(
                Code::ReportData,
                found,
                expected,
                "the report was made for another use, connection or challenge; ask for a new one",
            ),
        }
    }
}

/// The parts in which two TCBs differ: of the first, and of the second.
fn differing(found: TcbVersion, expected: TcbVersion) -> (String, String) {
    let parts = |tcb: TcbVersion| {
        [
            ("fmc", tcb.fmc),
            ("bootloader", Some(tcb.bootloader)),
            ("tee", Some(tcb.tee)),
            ("snp", Some(tcb.snp)),
            ("microcode", Some(tcb.microcode)),
        ]
    };
    let word = |(name, level): (&str, Option<u8>)| match level {
        Some(level) => format!("{name} {level}"),
        None => format!("no {name}"),
    };
    let differing = || parts(found).into_iter().zip(parts(expected)).filter(|(one, other)| one != other);
    (
        differing().map(|(one, _)| word(one)).collect::<Vec<_>>().join(" "),
        differing().map(|(_, other)| word(other)).collect::<Vec<_>>().join(" "),
    )
}

impl ChainError {
    /// Code, found, expected and hint.
    pub fn reason(&self) -> Reason {
        let newer = "fetch the current list from its issuer's key distribution service (KDS)";
        let altered = "the certificate was altered, or another issued it under that name";
        match self {
            Self::UntrustedRoot { spki, product } => Reason::new(
                Code::UntrustedRoot,
                spki,
                crate::amd_root(*product),
                "not AMD's root; a simulator's root is accepted only where it is listed",
            ),
            Self::ForeignIssuer { leaf, issuer } => Reason::new(
                Code::Issuer,
                issuer,
                format!("the issuer for {leaf}"),
                "give the chain of the chip's product",
            ),
            Self::Key { certificate } => Reason::new(Code::CertificateKey, certificate, "a usable public key", altered),
            Self::Signature { certificate, issuer } => Reason::new(
                Code::CertificateSignature,
                format!("{certificate} does not verify"),
                format!("signed by {issuer}"),
                altered,
            ),
            Self::Dates { certificate, from, to, now } => Reason::new(
                Code::CertificateDates,
                format!("{certificate} valid {from} to {to}"),
                format!("valid at {now}"),
                "fetch a new certificate, or check the clock",
            ),
            Self::Revoked { certificate, number } => Reason::new(
                Code::Revoked,
                format!("{certificate} on revocation list {number}"),
                "not revoked",
                "its issuer withdrew this certificate: fetch the chain that replaced it",
            ),
            Self::CrlSignature { issuer } => {
                Reason::new(Code::CrlSignature, "does not verify", format!("signed by {issuer}"), newer)
            }
            Self::CrlDates { number, from, to, now } => Reason::new(
                Code::CrlDates,
                format!("list {number} valid {from} to {to}"),
                format!("valid at {now}"),
                newer,
            ),
            Self::CrlNumber { found, least } => {
                Reason::new(Code::CrlNumber, found, format!("{least} or higher"), newer)
            }
        }
    }
}
