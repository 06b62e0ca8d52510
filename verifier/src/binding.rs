//! What REPORT_DATA must hold for evidence to belong to one use: a certificate, one TLS connection, a workload's own data.
//!
//! Pure functions over bytes both ends know. Each use has its own label, so evidence made for one never passes for
//! another. Every field is mandatory and of fixed type: there is no empty nonce and no absent key.
//! Source: docs/design/protocol.md §4.

use sha2::{Digest, Sha512};

use crate::abi::{ReportData, SpkiDigest, WorkloadDigest};

/// `EXPORTER-coffer-attestation-<role>`: the TLS exporter label when the attester is the TLS client.
pub const EXPORTER_CLIENT: &[u8] = b"EXPORTER-coffer-attestation-client";
/// The TLS exporter label when the attester is the TLS server.
pub const EXPORTER_SERVER: &[u8] = b"EXPORTER-coffer-attestation-server";
/// ALPN of the agent's port 4091.
pub const ALPN_CONTROL: &[u8] = b"coffer-control/1";
/// ALPN of the key broker.
pub const ALPN_KBS: &[u8] = b"coffer-kbs/1";

/// Side of the TLS connection on which the attester stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
}

impl Role {
    /// The word that is hashed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// TLS exporter label for evidence of this side.
    pub const fn exporter_label(self) -> &'static [u8] {
        match self {
            Self::Client => EXPORTER_CLIENT,
            Self::Server => EXPORTER_SERVER,
        }
    }
}

/// HPKE key a report binds: algorithm ids of RFC 9180 and the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionKey {
    /// KEM id.
    pub kem: u16,
    /// KDF id.
    pub kdf: u16,
    /// AEAD id.
    pub aead: u16,
    /// Serialised public key.
    pub public_key: Vec<u8>,
}

/// Everything a report made for one TLS connection is bound to. Each verifier fills it from its own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionBinding<'a> {
    /// Attester's side of the connection.
    pub role: Role,
    /// ALPN of the connection.
    pub purpose: &'a [u8],
    /// TLS exporter under [`Role::exporter_label`], empty context.
    pub exporter: &'a [u8; 32],
    /// The verifier's challenge.
    pub challenge: &'a [u8; 32],
    /// Attester's own key.
    pub own_spki: &'a SpkiDigest,
    /// The key on the other end.
    pub peer_spki: &'a SpkiDigest,
    /// HPKE key of the attester.
    pub encryption_key: &'a EncryptionKey,
    /// Digest of the attester's workload spec.
    pub workload: &'a WorkloadDigest,
}

impl ConnectionBinding<'_> {
    /// REPORT_DATA of evidence for this connection.
    pub fn report_data(&self) -> ReportData {
        let key = self.encryption_key;
        let mut key_field = Vec::with_capacity(6 + key.public_key.len());
        for id in [key.kem, key.kdf, key.aead] {
            key_field.extend_from_slice(&id.to_be_bytes());
        }
        key_field.extend_from_slice(&key.public_key);
        hash_fields(&[
            b"coffer/ra-tls/v1",
            self.role.as_str().as_bytes(),
            self.purpose,
            self.exporter,
            self.challenge,
            self.own_spki.as_bytes(),
            self.peer_spki.as_bytes(),
            &key_field,
            self.workload.as_bytes(),
        ])
    }
}

/// REPORT_DATA of the evidence in an attester's certificate. It identifies; it never releases.
///
/// ```
/// use coffer_verifier::{abi::{SpkiDigest, WorkloadDigest}, binding};
///
/// let (key, spec) = (SpkiDigest::of(b"a key"), WorkloadDigest::of(b"a spec"));
/// let certificate = binding::certificate_report_data(&key, &spec);
/// assert_ne!(certificate, binding::workload_report_data(&spec, key.as_bytes()), "each use has its label");
/// ```
pub fn certificate_report_data(spki: &SpkiDigest, workload: &WorkloadDigest) -> ReportData {
    hash_fields(&[b"coffer/ra-tls/cert/v1", spki.as_bytes(), workload.as_bytes()])
}

/// REPORT_DATA of evidence a workload asked for over data of its own.
pub fn workload_report_data(workload: &WorkloadDigest, data: &[u8]) -> ReportData {
    hash_fields(&[b"coffer/workload/v1", workload.as_bytes(), data])
}

/// REPORT_DATA of evidence that an owner asked for over a nonce, for whoever chose that: it was made after the nonce was, by a guest of
/// this workload. It is of no connection, and nothing is released for it.
///
/// ```
/// use coffer_verifier::{abi::WorkloadDigest, binding};
///
/// let (spec, nonce) = (WorkloadDigest::of(b"a spec"), b"chosen by somebody");
/// assert_ne!(binding::nonce_report_data(&spec, nonce), binding::workload_report_data(&spec, nonce));
/// ```
pub fn nonce_report_data(workload: &WorkloadDigest, nonce: &[u8]) -> ReportData {
    hash_fields(&[b"coffer/nonce/v1", workload.as_bytes(), nonce])
}

/// Everything a report made for a token is bound to: the connection it is asked for on, and what the token is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBinding<'a> {
    /// REPORT_DATA of the evidence that opened the connection, which no other connection has.
    pub connection: &'a ReportData,
    /// The key the token is for.
    pub key: &'a SpkiDigest,
    /// For whom.
    pub audience: &'a str,
    /// What is to be repeated as `eat_nonce`; empty: nothing.
    pub nonce: &'a [u8],
    /// Digest of the attester's workload spec.
    pub workload: &'a WorkloadDigest,
}

impl TokenBinding<'_> {
    /// REPORT_DATA of evidence for this token.
    pub fn report_data(&self) -> ReportData {
        hash_fields(&[
            b"coffer/token/v1",
            self.connection.as_bytes(),
            self.key.as_bytes(),
            self.audience.as_bytes(),
            self.nonce,
            self.workload.as_bytes(),
        ])
    }
}

/// Length-prefixes and joins fields: u32 big-endian length, then the bytes, each.
///
/// # Panics
/// If a field is 4 GiB or longer, which no caller can hold in one message.
pub fn length_prefixed(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| field.len() + 4).sum());
    for field in fields {
        let length = u32::try_from(field.len()).expect("fields are far below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

fn hash_fields(fields: &[&[u8]]) -> ReportData {
    ReportData::new(Sha512::digest(length_prefixed(fields)).into())
}
