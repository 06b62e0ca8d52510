//! coffer: runs OCI images in attested microVMs.
//!
//! A box is a folder, a record and, while it runs, a supervisor process that holds the folder's lock. Commands talk to the
//! supervisor over a socket in that folder and to the guest over its vsock.
//! Trusts: the operator's files under [`Home`]. Believes nothing a guest says beyond its own fate.
//! Never: lets a VMM outlive its supervisor, falls back from hardware to simulation.

pub mod boxes;
pub mod home;
pub mod hybrid;
pub mod id;
pub mod lock;
pub mod request;
pub mod state;
mod sys;

pub use home::{Home, HomeError};
pub use id::BoxId;
pub use state::{BoxRecord, BoxState, State, StateError};
