//! The workload spec: what runs, who may talk to it, where its secrets come from; and its digest.
//!
//! A CoCo *initdata* document (TOML) whose `data."workload.toml"` member holds [`WorkloadSpec`]. The *workload digest* is
//! SHA-256 over the document's raw bytes; it stands in HOST_DATA and, exactly once, on the measured command line.
//! Trusts: nothing. A document is what it says only after its digest was checked against both.
//! Never: holds a secret value, accepts an unknown key or version, fills in what is absent with something weaker.
//! Source: docs/design/boot.md §3.1; Confidential Containers initdata 0.1.0.
#![forbid(unsafe_code)]

mod check;
mod command_line;
mod document;
#[doc(hidden)]
pub mod sample;
mod workload;

pub use command_line::{CommandLineError, MeasuredCommandLine, TeeWord, workload_argument};
pub use document::{Document, SpecError};
pub use workload::{
    Capability, Floors, HostMay, Image, KbsPin, Mount, Owner, Process, Root, Scratch, SealFloors, SecretTarget,
    SecretWanted, SvnFloor, Tee, VerityTable, Volume, VolumeKind, WorkloadSpec,
};
