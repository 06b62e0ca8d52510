//! The verifier on a network: evidence in, appraisals and signed tokens out, over HTTP and gRPC.
//!
//! [`Appraiser`] is the whole of it without a network: what is asked in, an answer out, time and randomness as arguments. Around it
//! stand callers with their keys and certificates, limits, and the two protocols, which decide nothing.
//!
//! Trusts: its configuration, its keys, AMD's pinned roots. A caller may ask and is believed nothing; evidence is believed what its
//! signatures show.
//! Never: judges under no policy; believes a simulator that a policy does not list by name; keeps anything between requests but
//! what was fetched, chains that were verified, the challenges of a minute, and what the last 1,000 decisions were.
#![forbid(unsafe_code)]

mod refusal;

mod access;
mod callers;
mod challenge;
mod limits;
mod secret_file;

mod policies;
mod request;

mod appraiser;
mod decisions;

mod tls;
mod traces;
mod waiting;

mod known;
mod places;

mod config;

mod metrics;
mod routes;

mod service;

mod guard;

mod openapi;
mod page;

mod few;
mod grpc;
mod http;
mod linger;
mod listener;

mod init;
mod server;

/// Generated from `proto/verifier.proto`.
pub mod wire {
    #![allow(missing_docs, clippy::pedantic, clippy::all, reason = "generated")]
    tonic::include_proto!("coffer.verifier.v1");
}

pub use access::{Access, Caller, new_key};
pub use appraiser::{Admitted, Answer, Appraiser, TokenIssuer};
pub use challenge::{Challenge, Challenges, KEY_LEN, LIFETIME};
pub use config::{Config, ConfigError, ConfigFile, KeyEntry, PolicyEntry, caller_name, config_path};
pub use few::AppraiseBatchRequest;
pub use init::{InitError, Initialized, Wanted, init};
pub use limits::{Limits, LimitsEntry};
pub use openapi::text as openapi;
pub use policies::{Parts, Policies, Policy, STRICT_NAME};
pub use refusal::Refusal;
pub use request::{Asked, Demanded, MAX_BATCH, TokenAsked, Words, batch, one};
pub use server::{Reload, Server, ServerError};
pub use tls::TlsEntry;
