//! Decides whether SEV-SNP evidence is authentic ([`verify()`]) and acceptable ([`appraise()`]).
//!
//! Takes bytes, roots, policy and time; gives a result or every reason against it.
//! Trusts: AMD's pinned roots, and the anchors its caller lists. Believes nothing else.
//! Never: fetches, reads a file or a clock, draws randomness, logs. `now` and `rng` are arguments.
//! Source: AMD 56860 (SNP firmware ABI), AMD 57230 (VCEK certificate and KDS interface), RFC 9334.
#![forbid(unsafe_code)]

pub mod abi;
pub mod binding;
pub mod evidence;
pub mod hcl;
pub mod manifest;
pub mod measure;

mod der;
mod public_key;
mod unix_time;

mod anchors;
pub mod chain;
mod endorsements;
mod reason;
mod verify;

mod appraise;
mod claims;

pub use anchors::{Anchor, TrustAnchors, amd_root};
pub use appraise::{
    Accept, AttestationResult, BitRule, Chips, EvidencePolicy, FirmwareRule, Pair, PlatformRules, PolicyFileError,
    PolicyRules, Rejection, STRICT, SignerRule, TcbMinimum, TcbRule, appraise,
};
pub use claims::{Claims, LeafClaims, PlatformClaims, PolicyClaims, ReportClaims};
pub use endorsements::{EndorsementError, EndorsementKind, EndorsementRequest, Endorsements};
pub use evidence::{CmwError, Evidence};
pub use hcl::{HclBlob, HclError};
pub use public_key::{P384PublicKey, PublicKeyError, SIGNATURE_SIZE};
pub use reason::{CheckLine, Reason};
pub use unix_time::{TimeError, UnixTime};
pub use verify::{
    ChainError, CrlPolicy, CrlStatus, ExpectedReportData, VerifiedChain, VerifiedReport, VerifyError, verify,
    verify_evidence,
};
