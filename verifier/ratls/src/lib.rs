//! RA-TLS: TLS 1.3 whose peer has shown, after the handshake and for this very connection, a report of its guest.
//!
//! A server runs [`serve`] with an [`AttestationService`] that either verifies its clients (the key broker) or attests to
//! them (the guest agent). A client calls [`connect_and_attest`] or [`connect_and_verify`]. Attestation is the state of one
//! connection object; nothing here redials, and nothing is keyed by a token, a session or a key.
//! Trusts: the connection's own TLS state, the [`Appraiser`]'s verdict. Believes nothing the peer says about either.
//! Never: opens a socket, reads the wall clock, resumes a session, decides what evidence is acceptable.
//! Source: docs/design/protocol.md §4; docs/ra-tls.md.
//!
//! An owner's whole program, over any byte stream to a guest's agent: the verifier's judge says who is admitted, and the secret
//! is encrypted to the key that the guest's report binds to this very connection.
//!
//! ```
//! use std::{sync::Arc, time::SystemTime};
//!
//! use coffer_ratls::{Appraiser, ConnectError, HpkeSealed, Identity, Purpose, Refusal, connect_and_verify};
//! use coffer_verifier::{AttestationResult, Endorsements, Evidence, Expected, ExpectedGuest, ExpectedReportData, Verifier};
//! use coffer_verifier::abi::ReportData;
//! use tokio::io::DuplexStream;
//!
//! struct Owner { verifier: Verifier, guest: ExpectedGuest }
//!
//! impl Appraiser for Owner {
//!     type Admitted = AttestationResult;
//!     fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<AttestationResult, Refusal> {
//!         let expected = Expected { report_data: ExpectedReportData::Exactly(*expected), guest: self.guest.clone() };
//!         let said = self.verifier.judge(evidence, &Endorsements::new(), &expected, SystemTime::now().into());
//!         said.into_result().map_err(|no| Refusal::new(no.verdict().as_str(), no.why()))
//!     }
//! }
//!
//! async fn send(stream: DuplexStream, owner: Owner, secret: &[u8]) -> Result<HpkeSealed, ConnectError> {
//!     let me = Identity::generate("me").expect("a random source");
//!     let guest = connect_and_verify(stream, &me, Purpose::Control, Arc::new(owner)).await?;
//!     Ok(guest.seal("coffer.agent.v1.Owner/Inject", b"names", secret).expect("a fresh result"))
//! }
//! ```
#![forbid(unsafe_code)]

mod appraisal;
mod busy;

mod client;
mod connect_error;
mod defects;
mod denial;
mod facts;
mod first_word;
mod forward;
#[doc(hidden)]
pub mod heard;
mod hpke;
mod identity;
mod keep;
mod key_places;
mod lapse;
mod last_word;
mod lifetime;
mod load;
mod off_loop;
mod one_by_one;
mod peer_certificate;
mod places;
mod plain;
mod provider;
mod reception;
mod refusal;
mod server;
mod service;
mod state;
mod streams;
mod tls;
mod wire;

pub use appraisal::{Appraiser, Attested, Attester, AttesterError, Completer, RESULT_LIFETIME};
pub use client::{
    AttestedConnection, AttestingConnection, ToldTime, connect_and_attest, connect_and_verify, connect_listed,
    connect_pinned, one_channel,
};
pub use connect_error::{ConnectError, Foreign};
pub use defects::named;
pub use denial::{Denial, denied};
pub use facts::{FactsError, Purpose, TlsFacts};
pub use forward::{Dial, ForwardError, Forwarder};
pub use hpke::{HpkeError, HpkeSealed};
pub use identity::{
    Identity, IdentityError, IdentityKey, IdentityPem, MAX_CERTIFICATE_EVIDENCE, certificate_cmw, certificate_spki,
    pem, signing_request_spki,
};
pub use keep::{CHALLENGE_AGAIN_AFTER, Pace};
pub use key_places::KeyShares;
pub use lapse::Lapsed;
pub use load::Load;
pub use one_by_one::OneByOne;
pub use peer_certificate::{PeerCertificate, peer_certificate};
pub use places::Source;
pub use plain::{PlainError, PlainKey, PlainTls};
pub use reception::Reception;
pub use refusal::{Claim, Refusal};
pub use rustls::AlertDescription;
pub use server::{
    ServeError, ServeLimits, Sourced, serve, serve_known, serve_pinned, serve_pinned_shared, serve_shared,
};
pub use service::AttestationService;
pub use state::{CHALLENGE_LIFETIME, ConnectionState, attested, connection};
pub use streams::{Behind, OpenStream, StreamError, StreamRefusal, Streams, open_stream};
pub use tls::{ClientRule, ClientTls, KeyList, PeerPin, ServerTls, TlsConfigError};
pub use wire::{MAX_CERT_TABLE, MAX_CRL, MAX_CRLS, MAX_MESSAGE, MAX_SPEC};

/// The protocol's generated types; not the types we compute with.
#[allow(missing_docs, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("coffer.attestation.v1");
}
