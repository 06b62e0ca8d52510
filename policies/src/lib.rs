//! Rego policies and the engine that runs them, without I/O and within limits.
//!
//! Takes a policy text and a JSON input, gives a [`Decision`]: yes, or every reason against.
//! Trusts: the policy (the operator's). Believes nothing in the input that the policy does not test.
//! Never: reads a file or a clock, draws randomness, opens a socket; says yes to anything undefined.
//! Source: docs/design/verification.md §5, docs/design/broker.md §6.
#![forbid(unsafe_code)]

mod engine;
mod policy;
pub mod rego_test;
mod shipped;

pub use engine::{INPUT_LIMIT, POLICY_LIMIT, TIME_LIMIT};
pub use policy::{Decision, Policy, PolicyError};
pub use shipped::{EVIDENCE_SNP, RELEASE, Shipped};
