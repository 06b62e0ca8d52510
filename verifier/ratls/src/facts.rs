//! What one end of a finished TLS connection knows about it, read from the connection object itself.

use core::fmt;

use coffer_verifier::{
    abi::SpkiDigest,
    binding::{ALPN_CONTROL, ALPN_KBS, EXPORTER_CLIENT, EXPORTER_SERVER, Role},
};
use rustls::{ClientConnection, CommonState, HandshakeKind, ProtocolVersion, ServerConnection};

use crate::identity::certificate_spki;

/// What a connection is for; its word is the ALPN string, and it is hashed into the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The agent's port 4091.
    Control,
    /// The key broker.
    Kbs,
    /// TLS in front of a port of the workload.
    Ingress(u16),
}

impl Purpose {
    /// The ALPN protocol name.
    pub fn alpn(self) -> Vec<u8> {
        match self {
            Self::Control => ALPN_CONTROL.to_vec(),
            Self::Kbs => ALPN_KBS.to_vec(),
            Self::Ingress(port) => format!("coffer-ingress/1/{port}").into_bytes(),
        }
    }
}

/// Why a finished handshake does not give a connection we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// Only TLS 1.3 is spoken.
    #[error("connection is not TLS 1.3")]
    Version,
    /// Resumed sessions carry no fresh proof of the peer's key.
    #[error("connection resumes an older session")]
    Resumed,
    /// No ALPN, or another one.
    #[error("connection was opened for {found:?}, expected {expected:?}")]
    Alpn {
        /// What was negotiated; empty if nothing was.
        found: String,
        /// What this end speaks.
        expected: String,
    },
    /// The peer showed no certificate, or one that cannot be parsed.
    #[error("peer presented no usable certificate")]
    PeerCertificate,
    /// No keying material.
    #[error("connection exports no keying material")]
    Exporter,
}

/// Facts of one TLS connection, the same on both ends but for own and peer.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFacts {
    role: Role,
    alpn: Vec<u8>,
    exporter_client: [u8; 32],
    exporter_server: [u8; 32],
    own_spki: SpkiDigest,
    peer_spki: SpkiDigest,
}

impl TlsFacts {
    pub(crate) fn of_client(conn: &ClientConnection, own: SpkiDigest, alpn: &[u8]) -> Result<Self, FactsError> {
        Self::read(Role::Client, conn, own, alpn, |out, label| conn.export_keying_material(out, label, Some(&[])))
    }

    pub(crate) fn of_server(conn: &ServerConnection, own: SpkiDigest, alpn: &[u8]) -> Result<Self, FactsError> {
        Self::read(Role::Server, conn, own, alpn, |out, label| conn.export_keying_material(out, label, Some(&[])))
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            role: Role::Server,
            alpn: ALPN_KBS.to_vec(),
            exporter_client: [1; 32],
            exporter_server: [2; 32],
            own_spki: SpkiDigest::new([3; 32]),
            peer_spki: SpkiDigest::new([4; 32]),
        }
    }

    fn read(
        role: Role,
        common: &CommonState,
        own_spki: SpkiDigest,
        alpn: &[u8],
        export: impl Fn([u8; 32], &[u8]) -> Result<[u8; 32], rustls::Error>,
    ) -> Result<Self, FactsError> {
        if common.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(FactsError::Version);
        }
        match common.handshake_kind() {
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {}
            _ => return Err(FactsError::Resumed),
        }
        // A peer that offers no ALPN at all passes the handshake; it stops here.
        let found = common.alpn_protocol().unwrap_or_default();
        if found != alpn {
            return Err(FactsError::Alpn {
                found: String::from_utf8_lossy(found).into_owned(),
                expected: String::from_utf8_lossy(alpn).into_owned(),
            });
        }
        let peer_spki = common
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|certificate| certificate_spki(certificate))
            .ok_or(FactsError::PeerCertificate)?;
        let export = |label| export([0; 32], label).map_err(|_| FactsError::Exporter);
        Ok(Self {
            role,
            alpn: alpn.to_vec(),
            exporter_client: export(EXPORTER_CLIENT)?,
            exporter_server: export(EXPORTER_SERVER)?,
            own_spki,
            peer_spki,
        })
    }

    /// Which side of the TLS connection this end is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The negotiated ALPN protocol, checked to be the expected one.
    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// Keying material for evidence of `role`; equal on both ends of one connection, and of no other.
    pub fn exporter(&self, role: Role) -> &[u8; 32] {
        match role {
            Role::Client => &self.exporter_client,
            Role::Server => &self.exporter_server,
        }
    }

    /// This end's key.
    pub fn own_spki(&self) -> &SpkiDigest {
        &self.own_spki
    }

    /// The key the peer proved to hold.
    pub fn peer_spki(&self) -> &SpkiDigest {
        &self.peer_spki
    }
}

impl fmt::Debug for TlsFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFacts")
            .field("role", &self.role)
            .field("alpn", &String::from_utf8_lossy(&self.alpn))
            .field("own_spki", &self.own_spki)
            .field("peer_spki", &self.peer_spki)
            .finish_non_exhaustive()
    }
}
