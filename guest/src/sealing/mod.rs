//! Sealing with this guest's own keys: what the agent does between an owner's request and `coffer_seal`.
//!
//! Trusts: the secure processor; the broker behind the pinned key, for its keys and for where a counter is. A sealed file is
//! hostile, its header included.
//! Never: seals or opens under fewer secrets than the policy has, because one of them was not to be had; opens a file with a
//! counter without asking where it is.
//! Source: docs/design/sealing.md §7.

mod error;
mod file;
mod means;
mod volume;

pub use self::{
    error::SealingError,
    file::{Counter, HEAD, Sealed, Unsealed},
    means::Means,
    volume::VolumeKeys,
};

#[cfg(test)]
mod tests;
