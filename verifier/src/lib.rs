//! Decides whether SEV-SNP evidence is authentic, of the guest that is expected, and acceptable: [`Verifier::judge`].
//!
//! Takes bytes, roots, policy and time; gives an [`Appraisal`], with every reason against it and every check that was made.
//! A relying party's whole program, given a report, its leaf certificate and the revocation list of AMD's KDS:
//!
//! ```
//! use coffer_verifier::{CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData};
//! use coffer_verifier::{Pair, TrustAnchors, Verdict, Verifier, abi::ReportData};
//!
//! fn admit(report: Vec<u8>, vcek: &[u8], crl: &[u8], nonce: ReportData, guest: Pair) -> Result<bool, Box<dyn std::error::Error>> {
//!     let mut endorsements = Endorsements::new();
//!     endorsements.add_certificates(vcek)?;
//!     endorsements.add_crl(crl)?;
//!     let (anchors, crl, policy) = (TrustAnchors::amd(), CrlPolicy::Required, EvidencePolicy::strict());
//!     let expected = Expected { report_data: ExpectedReportData::Exactly(nonce), guest: ExpectedGuest::Exactly(guest) };
//!     let evidence = Evidence { report, ..Evidence::default() };
//!     let now = std::time::SystemTime::now().into();
//!     let appraisal = Verifier { anchors, crl, policy }.judge(&evidence, &endorsements, &expected, now);
//!     eprintln!("{}: {}", appraisal.verdict(), appraisal.why());
//!     Ok(appraisal.verdict() == Verdict::Accepted)
//! }
//! # use coffer_verifier::abi::{HostData, Measurement};
//! # let guest = Pair { measurement: Measurement::new([1; 48]), host_data: HostData::new([2; 32]) };
//! # assert!(admit(vec![0; 1184], b"no certificate", b"", ReportData::new([0; 64]), guest).is_err());
//! ```
//!
//! Trusts: AMD's pinned roots, and the anchors its caller lists. Believes nothing else.
//! Never: fetches, reads a file or a clock, draws randomness, logs. `now` and `rng` are arguments.
//! Source: AMD 56860 (SNP firmware ABI), AMD 57230 (VCEK certificate and KDS interface), RFC 9334.
#![forbid(unsafe_code)]

pub mod abi;
pub mod binding;
pub mod envelope;
pub mod evidence;
pub mod hcl;
pub mod manifest;
pub mod measure;
pub mod tsm;

mod cbor;
mod der;
mod expiry;
mod look;
mod public_key;
pub mod said;
mod unix_time;

mod code;
mod reason;
mod trail;

mod anchors;
pub mod chain;
mod endorsement_request;
mod endorsements;
mod verify;

mod appraise;
mod claims;

mod appraisal;
pub mod ear;
mod judge;
mod presented;
mod question;

pub use anchors::{Anchor, TrustAnchors, amd_root, root_digest};
pub use appraisal::{Appraisal, Verdict};
pub use appraise::{
    Accept, AgeError, AttestationResult, BitRule, Chips, EvidencePolicy, ExpectedGuest, FirmwareRule, MaxAge, Pair,
    PlatformRules, PolicyFileError, PolicyRules, Rejection, STRICT, SignerRule, TcbMinimum, TcbRule, appraise,
};
pub use claims::{Claims, LeafClaims, PlatformClaims, PolicyClaims, ReportClaims, Validity};
pub use code::{Code, Stage};
pub use endorsement_request::{EndorsementKind, EndorsementRequest, MissingEndorsements};
pub use endorsements::{EndorsementError, Endorsements};
pub use evidence::{CmwError, Evidence};
pub use expiry::{Expiry, ExpiryError};
pub use hcl::{HclBlob, HclError};
pub use judge::{ConnectionChain, Expected, Verifier};
pub use look::Look;
pub use presented::{Presented, PresentedError};
pub use public_key::{P384PublicKey, PublicKeyError, SIGNATURE_SIZE};
pub use question::{Question, QuestionError};
pub use reason::{CheckLine, Outcome, Reason};
pub use trail::Cost;
pub use tsm::{TsmError, TsmReport};
pub use unix_time::{TimeError, UnixTime};
pub use verify::{
    CertificateIssuerError, ChainError, CrlIssuerError, CrlPolicy, CrlStatus, ExpectedReportData, ReportBinding,
    VerifiedChain, VerifiedReport, VerifyError, revoked_issuers, verify, verify_certificate, verify_crl,
    verify_evidence,
};
