//! A software AMD secure processor with a root of its own; no I/O.
//!
//! [`Installation`] is the chip and its manufacturer: a chip secret and, per product line, ARK, ASK and ASVK. [`SecureProcessor`]
//! launches a guest page by page and gives a [`SimulatedGuest`], which answers SNP guest messages and signs reports in AMD's
//! layout under a VCEK certified in AMD's encodings.
//! Takes bytes, options and the time; draws keys from the library's random source.
//! Trusts: whoever holds the installation, who can forge everything it certifies.
//! Never: passes for AMD. Its anchor is none of the pinned ones, and only who lists that anchor believes it.
//! Source: docs/design/boot.md §3.3; AMD 56860 (SNP firmware ABI), AMD 57230 (VCEK certificate and KDS interface).
#![forbid(unsafe_code)]

pub mod attack;
pub mod behaviour;

mod derive;
mod endorsements;
mod guest;
mod installation;
pub mod kds;
mod launch;
mod options;
mod refusal;
mod report;
mod x509;

pub use endorsements::SimulatedEndorsements;
pub use guest::{LocalProcessor, SimulatedGuest};
pub use installation::{Anchor, Installation, InstallationError};
pub use launch::{IdEvidence, SecureProcessor};
pub use options::{LaunchOptions, TcbState, default_cpuid, default_tcb};
pub use refusal::LaunchFailure;
pub use x509::pem;
