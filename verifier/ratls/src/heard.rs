//! What an end makes of the other's messages before anything is judged, for whoever tries all of them: fuzzing, and its replay.
//!
//! The roads of the service and of its clients from bytes to the types we compute with, and no others.

use std::time::Duration;

use coffer_verifier::{binding::EncryptionKey, evidence::Evidence};
use prost::Message as _;

use crate::{
    appraisal,
    proto::{AttestRequest, AttestResponse, AttestedEvidence, ChallengeResponse, attest_request, attest_response},
    refusal::Refusal,
    wire,
};

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A challenge to answer.
    Challenge([u8; 32]),
    /// Evidence to judge, and the key that its report has to bind.
    Evidence(Box<Evidence>, EncryptionKey),
    /// How long the other end admits this one.
    Admission(Duration),
}

/// A server's reading of an Attest request; nothing where it is none, or empty.
pub fn request(bytes: &[u8]) -> Option<Result<Heard, Refusal>> {
    Some(match AttestRequest::decode(bytes).ok()?.side? {
        attest_request::Side::Challenge(challenge) => wire::challenge_from_wire(&challenge).map(Heard::Challenge),
        attest_request::Side::Answer(answer) => evidence(answer),
    })
}

/// A client's reading of an Attest response; nothing where it is none, or empty.
pub fn response(bytes: &[u8]) -> Option<Result<Heard, Refusal>> {
    Some(match AttestResponse::decode(bytes).ok()?.side? {
        attest_response::Side::Answer(answer) => evidence(answer),
        attest_response::Side::Admission(admission) => Ok(Heard::Admission(appraisal::valid(&admission))),
    })
}

/// A client's reading of a Challenge response; nothing where it is none.
pub fn challenge(bytes: &[u8]) -> Option<Result<Heard, Refusal>> {
    let challenge = ChallengeResponse::decode(bytes).ok()?.challenge;
    Some(wire::challenge_from_wire(&challenge).map(Heard::Challenge))
}

fn evidence(answer: AttestedEvidence) -> Result<Heard, Refusal> {
    let (evidence, key) = wire::from_wire(answer)?;
    Ok(Heard::Evidence(Box::new(evidence), key))
}
