//! Keys that sign results ([`coffer_verifier::ear`]), and the file they are in.
//!
//! A set has the key that signs, the next one, and the public halves of those before for as long as their tokens last. The next
//! is listed before it signs anything: whoever fetched the list then believes the tokens after a rotation, too. Replicas share
//! the file.
//! Trusts: the file, which must be private. Never: prints a private key, or keeps one that signs no more.
#![forbid(unsafe_code)]

mod key;
mod key_set;

pub use key::{KeyFailure, TokenKey};
pub use key_set::{KeySet, KeySetError};
