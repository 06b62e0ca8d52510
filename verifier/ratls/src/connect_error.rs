//! Why a client has no attested connection.

use std::{io, time::Duration};

use coffer_verifier::abi::SpkiDigest;
use rustls::AlertDescription;
use tonic::Status;

use crate::{appraisal::AttesterError, denial::Denial, facts::FactsError, refusal::Refusal, tls::TlsConfigError};

/// Why there is no attested connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This end's configuration.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// The stream ended, or the peer broke the handshake off.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// Nobody answered in time.
    #[error("peer did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The peer's key is none of the pinned ones.
    #[error("peer key {found} is none of the {} pinned", expected.len())]
    PinMismatch {
        /// The key it showed.
        found: SpkiDigest,
        /// The keys it might have shown.
        expected: Vec<SpkiDigest>,
    },
    /// The peer said in TLS that it does not take our key.
    #[error("peer does not take our key")]
    KeyNotTaken(#[source] io::Error),
    /// The peer, whose key is a pinned one, ended the connection behind the handshake, before a word of its own.
    #[error("peer ended the connection without a word once it had seen our key")]
    HungUp(#[source] io::Error),
    /// The peer, whose key is a pinned one, took ours and ended the connection in order, before a word of its own.
    #[error("peer has no place for another connection of our key")]
    NoPlace,
    /// The handshake gave something we do not use.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// HTTP/2 did not start.
    #[error("HTTP/2 did not start on the connection")]
    Transport(#[from] tonic::transport::Error),
    /// The peer refused our evidence.
    #[error(transparent)]
    Refused(#[from] Denial),
    /// We refused the peer's evidence.
    #[error("peer's evidence is not admitted")]
    Rejected(#[from] Refusal),
    /// We could not make evidence.
    #[error("no evidence of our own")]
    Attester(#[from] AttesterError),
    /// The peer speaks another protocol, or the connection was lost.
    #[error("attestation call failed: {}", .0.code())]
    Call(Box<Status>),
    /// An answer that no version of the protocol gives.
    #[error("peer's answer is malformed: {0}")]
    Malformed(&'static str),
    /// This end failed.
    #[error("internal: {0}")]
    Internal(String),
}

/// What a peer does that speaks no RA-TLS, or not the one that is meant, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It answers something that is no TLS.
    NoTls,
    /// It takes the connection and says nothing.
    Silent,
    /// It ends the connection before a word that is TLS's own.
    HungUp,
    /// It refuses the handshake in TLS's own words.
    Refuses,
}

impl ConnectError {
    /// What the peer does instead, where it came to no word of its own.
    pub fn foreign(&self) -> Option<Foreign> {
        match self {
            Self::Timeout(_) => Some(Foreign::Silent),
            Self::HungUp(_) => Some(Foreign::HungUp),
            Self::Handshake(_) if self.alert().is_some() => Some(Foreign::Refuses),
            Self::Handshake(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => Some(Foreign::NoTls),
                Some(_) => None,
                None => Some(Foreign::HungUp),
            },
            _ => None,
        }
    }

    /// What the peer broke the handshake off with, if it said so in TLS.
    pub fn alert(&self) -> Option<AlertDescription> {
        let Self::Handshake(error) = self else { return None };
        match error.get_ref()?.downcast_ref()? {
            rustls::Error::AlertReceived(alert) => Some(*alert),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_that_speaks_no_ra_tls_is_told_apart() {
        let tls = |error: rustls::Error| ConnectError::Handshake(io::Error::new(io::ErrorKind::InvalidData, error));
        let no_tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let cases = [
            (tls(no_tls), Some(Foreign::NoTls)),
            (tls(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)), Some(Foreign::Refuses)),
            (tls(rustls::Error::DecryptError), None),
            (ConnectError::Handshake(io::ErrorKind::UnexpectedEof.into()), Some(Foreign::HungUp)),
            (ConnectError::Handshake(io::Error::new(io::ErrorKind::UnexpectedEof, "eof")), Some(Foreign::HungUp)),
            (ConnectError::Timeout(Duration::ZERO), Some(Foreign::Silent)),
            (ConnectError::HungUp(io::ErrorKind::ConnectionReset.into()), Some(Foreign::HungUp)),
            (ConnectError::NoPlace, None),
        ];
        for (error, foreign) in cases {
            assert_eq!(error.foreign(), foreign, "{error:?}");
        }
    }
}
