//! Rego policies and the engine that runs them, without I/O and within limits.
//!
//! Takes a policy text and a JSON input, gives a [`Decision`]: yes, or every reason against.
//! Trusts: the policy to say who may have what, and nothing else: its time, memory, words and stack are bounded. Believes nothing in the input that the policy does not test.
//! Never: reads a file, draws randomness, opens a socket, lets a policy see a clock; says yes to anything undefined.
//! Source: docs/design/verification.md §5, docs/design/broker.md §6.
#![forbid(unsafe_code)]

mod bounds;
#[cfg(test)]
mod bounds_tests;
mod builtins;
mod bundle;
mod calls;
mod deciding;
pub mod decision_log;
mod digest;
mod engine;
mod error;
pub mod explain;
pub mod folder;
mod input;
pub mod lint;
mod nesting;
mod policy;
mod reach;
mod reads;
pub mod rego_test;
mod shipped;
mod stack;
mod syntax;
mod time;
pub mod trial;
pub mod typed;
mod visit;

pub use bounds::File;
pub use builtins::MEMORY_LIMIT;
pub use bundle::{
    BUNDLE_FILES, BUNDLE_LIMIT, Bundle, BundleError, BundleKey, BundleTrust, Endorsement, KeyError, SignatureError,
    UNPACKED_LIMIT,
};
pub use deciding::deciding;
pub use digest::files_digest;
pub use engine::{INPUT_LIMIT, POLICY_LIMIT};
pub use error::PolicyError;
pub use input::{Field, INPUT_SCHEMA, evidence_input, fields, lower};
pub use policy::{Decision, Policy, REASON_LIMIT, REASONS_LIMIT};
pub use shipped::{EVIDENCE_AZURE_CVM, EVIDENCE_SNP, RELEASE, SHIPPED, Shipped, reads_as_built_in};
pub use stack::{STACK, thread_has_stack};
pub use time::{TIME_LIMIT, WALL_LIMIT};
