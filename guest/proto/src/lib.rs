//! The agent's control protocol: protobuf, gRPC and vsock port numbers.
//!
//! The generated messages are at the root of the crate; [`ports`] says where they travel [`event`] how the guest tells
//! the host its state, and [`Told`] what the host may use of it.
//! Trusts: nothing. What comes out of a frame is as believable as the line it came over.
#![forbid(unsafe_code)]

#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
mod generated {
    tonic::include_proto!("coffer.agent.v1");
}

pub mod event;
pub mod ports;
mod vocabulary;

/// Metadata of an answer of Exec: bytes of standard input that are taken before the first of them is read.
pub const STDIN_ROOM: &str = "stdin-room";

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

pub use generated::*;
pub use vocabulary::{FailureCode, REASON, REFUSALS, Speech, Told, ToldFailure, refusal_word};
