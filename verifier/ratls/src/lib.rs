//! RA-TLS: TLS 1.3 whose peer has shown, after the handshake and for this very connection, a report of its guest.
//!
//! A server runs [`serve`] with an [`AttestationService`] that either verifies its clients (the key broker) or attests to
//! them (the guest agent). A client calls [`connect_and_attest`] or [`connect_and_verify`]. Attestation is the state of one
//! connection object; nothing here redials, and nothing is keyed by a token, a session or a key.
//! Trusts: the connection's own TLS state, the [`Appraiser`]'s verdict. Believes nothing the peer says about either.
//! Never: opens a socket, reads the wall clock, resumes a session, decides what evidence is acceptable.
//! Source: DESIGN §4; docs/ra-tls.md.
#![forbid(unsafe_code)]

mod appraisal;
mod client;
mod denial;
mod facts;
mod hpke;
mod identity;
mod server;
mod service;
mod state;
mod tls;
mod wire;

pub use appraisal::{Appraiser, Attested, Attester, AttesterError, RESULT_LIFETIME, Refusal};
pub use client::{
    AttestedConnection, AttestingConnection, ConnectError, connect_and_attest, connect_and_verify, connect_pinned,
};
pub use denial::{Denial, denied};
pub use facts::{FactsError, Purpose, TlsFacts};
pub use hpke::{HpkeError, HpkeSealed};
pub use identity::{Identity, IdentityError, IdentityKey, IdentityPem, certificate_cmw, certificate_spki};
pub use server::{ServeError, ServeLimits, serve, serve_pinned};
pub use service::AttestationService;
pub use state::{CHALLENGE_LIFETIME, ConnectionState, attested, connection};
pub use tls::{ClientRule, ClientTls, PeerPin, ServerTls, TlsConfigError};
pub use wire::{MAX_CERT_TABLE, MAX_CRL, MAX_CRLS, MAX_MESSAGE, MAX_SPEC};

/// The protocol's generated types; not the types we compute with.
#[allow(missing_docs, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("coffer.attestation.v1");
}
