//! The verifier for programs in C, and for whatever language calls C: `include/coffer_verifier.h`.
//!
//! The same question and the same judge as everywhere ([`coffer_verifier::Question`]); here are only pointers, lengths and who
//! frees what.
//! Trusts: that its caller's pointers are what the header says. Believes nothing else.
//! Never: lets a panic cross the boundary, keeps global state, reads bytes after the call they came with.

mod sys;

pub use sys::abi;
