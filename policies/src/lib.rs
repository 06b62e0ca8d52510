//! Rego policies and the engine that runs them, without I/O and within limits.
//!
//! Takes a policy text and a JSON input, gives a [`Decision`]: yes, or every reason against.
//! Trusts: the policy to say who may have what, and nothing else: its time, memory, words and stack are bounded. Believes nothing in the input that the policy does not test.
//! Never: reads a file, draws randomness, opens a socket, lets a policy see a clock; says yes to anything undefined.
//! Source: docs/design/verification.md §5, docs/design/broker.md §6.
#![forbid(unsafe_code)]

#[cfg(test)]
mod bounds_tests;
mod builtins;
mod engine;
mod nesting;
mod policy;
mod reach;
pub mod rego_test;
mod shipped;
mod stack;
mod time;

pub use builtins::MEMORY_LIMIT;
pub use engine::{INPUT_LIMIT, POLICY_LIMIT};
pub use policy::{Decision, Policy, PolicyError, REASON_LIMIT, REASONS_LIMIT};
pub use shipped::{EVIDENCE_SNP, RELEASE, Shipped};
pub use stack::{STACK, thread_has_stack};
pub use time::{TIME_LIMIT, WALL_LIMIT};
