//! Signed reference manifests: which measurements a workload may have, said by somebody a tenant lists.
//!
//! A manifest is a JSON document ([`ReferenceManifest`]) inside a signed envelope ([`SignedManifest`]): base64 of the exact
//! bytes, and ES384 signatures over those bytes behind the type of the payload, as DSSE has it. The bytes that were
//! signed are the bytes that are checked and parsed; nothing is written out again.
//! Trusts: the manifest keys its caller lists. Believes nothing of a manifest before [`SignedManifest::verify`].
//! Never: reads a clock or holds a private key; revocation and the order of sequences are the caller's, who remembers.
//! Source: DSSE v1.0.2, "Pre-Authentication Encoding"; RFC 9334 §8.3 (Reference Values); docs/design/broker.md §6.

mod corim;
mod document;
mod envelope;
mod revocations;

pub use corim::{CORIM_PROFILE, Corim, UNSAID};
pub use document::{Component, Contents, MAX_SEQUENCE, ManifestError, MeasuredLaunch, ReferenceManifest};
pub use envelope::{CLOCKS_DIFFER_BY, ManifestRefusal, PAYLOAD_TYPE, SignedManifest, VerifiedManifest, signing_input};
pub use revocations::Revocations;
