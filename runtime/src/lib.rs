//! coffer: runs OCI images in attested microVMs.
//!
//! A box is a folder, a record and, while it runs, a supervisor process that holds the folder's lock. Commands talk to the
//! supervisor over a socket in that folder and to the guest over its vsock.
//! Trusts: the operator's files under [`Home`]. Believes nothing a guest says beyond its own fate.
//! Never: lets a VMM outlive its supervisor, falls back from hardware to simulation.

mod bounded;
pub mod boxes;
pub mod health;
pub mod home;
pub mod id;
pub mod lock;
pub mod state;
pub mod trail;

pub mod binds;
pub mod changes;
pub mod image_settings;
pub mod images;
pub mod networks;
pub mod owner_list;
pub mod platform_folder;
mod process;
pub mod publish;
pub mod published;
mod removal;
pub mod request;
pub mod restart_policy;
pub mod tools;
pub mod volumes;

pub mod endpoint;
pub mod host;
pub mod id_block;
pub mod ingress;
pub mod launch;
pub mod monitor;
pub mod signing_key;
pub mod supervisor;

pub mod agent;
pub mod attach;
pub mod engine;
pub mod owner_access;
pub mod sim_check;
pub mod simulator;
mod socket;
mod spec_file;
mod sys;

pub use coffer_rim::{Class, Failure};
pub use home::{Home, HomeError};
pub use id::BoxId;
pub use restart_policy::RestartPolicy;
pub use state::{BoxRecord, BoxState, State, StateError};
pub use sys::standard_output::was_closed as standard_output_was_closed;
