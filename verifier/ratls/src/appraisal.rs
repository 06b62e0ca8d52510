//! One answer to one challenge: made by the attester, checked by the verifier from its own end of the connection.
//!
//! Blocking: reports come from firmware, and appraisal is cryptography. Callers run both off the event loop.

use std::time::{Duration, Instant};

use coffer_verifier::{
    Code, P384PublicKey,
    abi::{HostData, ProcessorError, ReportData, ReportId, SpkiDigest, WorkloadDigest, report::offset},
    binding::{ConnectionBinding, EncryptionKey, Role},
    evidence::Evidence,
};
use rustls::crypto::hpke::HpkePrivateKey;

use crate::{
    facts::TlsFacts,
    hpke::{self, HpkeError, HpkeSealed, Opener},
    proto,
    refusal::Refusal,
    wire,
};

/// How long an admitted answer counts; after it, a new challenge (docs/design/protocol.md §4.6).
pub const RESULT_LIFETIME: Duration = Duration::from_mins(15);

/// How long the other end admits this one. Its word only decides when we ask again; a silly one is cut to something harmless.
pub(crate) fn valid(admission: &proto::Admission) -> Duration {
    Duration::from_secs(admission.valid_seconds).min(RESULT_LIFETIME)
}

/// Makes evidence of the guest it runs in.
pub trait Attester: Send + Sync + 'static {
    /// A new report over `report_data`, with what travels beside it. Blocks.
    ///
    /// # Errors
    /// [`AttesterError`]; no evidence was made.
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError>;

    /// Digest of the workload spec this guest was launched with.
    fn workload(&self) -> WorkloadDigest;
}

/// Decides whether evidence is authentic and acceptable.
pub trait Appraiser: Send + Sync + 'static {
    /// What admitted evidence gives.
    type Admitted: Send + Sync + 'static;

    /// Judges evidence whose report must state `expected` as REPORT_DATA. Blocks.
    ///
    /// This layer has checked that the report's REPORT_DATA is `expected` and its HOST_DATA the digest of the spec;
    /// that the report is AMD's, and of an acceptable guest, is this function's to say.
    ///
    /// # Errors
    /// [`Refusal`]: the peer learns its code, the log its detail.
    fn appraise(&self, evidence: &Evidence, expected: &ReportData) -> Result<Self::Admitted, Refusal>;

    /// What time this side tells a peer that it admits: seconds since the epoch, 0 for one that tells none.
    fn unix_seconds(&self) -> u64 {
        0
    }
}

/// Gets what evidence lacks from elsewhere, before it is judged.
#[tonic::async_trait]
pub trait Completer: Send + Sync + 'static {
    /// Completes evidence that is of its connection, and that nobody has judged yet. Whoever waits here holds no place among those
    /// whose evidence is judged; how long it may wait is this function's to bound.
    async fn complete(&self, evidence: &mut Evidence);
}

/// Why no evidence was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttesterError {
    /// The secure processor did not answer.
    #[error("secure processor gave no report")]
    Processor(#[from] ProcessorError),
    /// No encryption key.
    #[error(transparent)]
    Key(#[from] HpkeError),
    /// Anything else, in the attester's words.
    #[error("{0}")]
    Other(String),
}

/// A peer whose evidence for this connection was admitted. Only this crate makes one.
pub struct Attested<T> {
    admitted: T,
    bound: Bound,
}

impl<T> Attested<T> {
    /// What the appraiser gave.
    pub fn admitted(&self) -> &T {
        &self.admitted
    }

    /// The evidence, kept so that each release can appraise it again under today's policy.
    pub fn evidence(&self) -> &Evidence {
        &self.bound.evidence
    }

    /// REPORT_DATA, recomputed from this end of the connection and found in the report.
    pub fn report_data(&self) -> &ReportData {
        &self.bound.report_data
    }

    /// REPORT_ID of the admitted report.
    pub fn report_id(&self) -> &ReportId {
        &self.bound.report_id
    }

    /// Digest of the workload spec in the evidence, equal to HOST_DATA.
    pub fn workload(&self) -> &WorkloadDigest {
        &self.bound.workload
    }

    /// The peer's TLS key.
    pub fn peer_spki(&self) -> &SpkiDigest {
        &self.bound.peer_spki
    }

    /// Time since admission.
    pub fn age(&self) -> Duration {
        self.bound.at.elapsed()
    }

    /// Encrypts `plaintext` to the key this peer's report binds. `method`: full gRPC method, as
    /// `coffer.kbs.v1.Broker/GetSecret`. `aad`: length-prefixed names the receiver rebuilds.
    ///
    /// # Errors
    /// [`HpkeError::Stale`] after [`RESULT_LIFETIME`]; [`HpkeError::Seal`] if the peer's key is no curve point.
    pub fn seal(&self, method: &str, aad: &[u8], plaintext: &[u8]) -> Result<HpkeSealed, HpkeError> {
        if self.is_stale(Instant::now()) {
            return Err(HpkeError::Stale);
        }
        hpke::seal(&self.bound.encryption_key, &self.bound.report_data, method, aad, plaintext)
    }

    /// Whether something can be sealed to this peer now, without doing so.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn can_seal(&self) -> Result<(), HpkeError> {
        if self.is_stale(Instant::now()) {
            return Err(HpkeError::Stale);
        }
        P384PublicKey::from_sec1(&self.bound.encryption_key.public_key).map(|_| ()).map_err(|_| HpkeError::Seal)
    }

    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.bound.at) > RESULT_LIFETIME
    }

    pub(crate) fn at(&self) -> Instant {
        self.bound.at
    }

    #[cfg(test)]
    pub(crate) fn for_tests(admitted: T, encryption_key: EncryptionKey, at: Instant) -> Self {
        let bound = Bound {
            evidence: Evidence::default(),
            report_data: ReportData::new([0; 64]),
            report_id: ReportId::new([0; 32]),
            workload: WorkloadDigest::of(b""),
            encryption_key,
            peer_spki: SpkiDigest::new([0; 32]),
            at,
        };
        Self { admitted, bound }
    }
}

/// The attester's half: a report that binds a key pair of its own to this connection and challenge.
pub(crate) fn answer(
    attester: &dyn Attester,
    facts: &TlsFacts,
    challenge: &[u8; 32],
    (encryption_key, private): (EncryptionKey, HpkePrivateKey),
) -> Result<(Opener, proto::AttestedEvidence), AttesterError> {
    let report_data = ConnectionBinding {
        role: facts.role(),
        purpose: facts.alpn(),
        exporter: facts.exporter(facts.role()),
        challenge,
        own_spki: facts.own_spki(),
        peer_spki: facts.peer_spki(),
        encryption_key: &encryption_key,
        workload: &attester.workload(),
    }
    .report_data();
    let evidence = attester.evidence(&report_data)?;
    Ok((Opener::new(private, report_data), wire::to_wire(evidence, encryption_key)))
}

/// Evidence that states what this connection and challenge give, and whose workload spec is the guest's by its word. Nobody has
/// judged it.
pub(crate) struct Bound {
    pub evidence: Evidence,
    report_data: ReportData,
    report_id: ReportId,
    workload: WorkloadDigest,
    encryption_key: EncryptionKey,
    peer_spki: SpkiDigest,
    at: Instant,
}

/// The verifier's half.
pub(crate) fn check<A: Appraiser + ?Sized>(
    appraiser: &A,
    facts: &TlsFacts,
    challenge: &[u8; 32],
    answer: proto::AttestedEvidence,
) -> Result<Attested<A::Admitted>, Refusal> {
    judge(appraiser, bind(facts, challenge, answer)?)
}

/// Its first part. Everything but the evidence and the encryption key comes from `facts`, this end's own.
pub(crate) fn bind(facts: &TlsFacts, challenge: &[u8; 32], answer: proto::AttestedEvidence) -> Result<Bound, Refusal> {
    let at = Instant::now();
    let (evidence, encryption_key) = wire::from_wire(answer)?;
    let workload = WorkloadDigest::of(&evidence.workload_spec);
    let role = other(facts.role());
    let expected = ConnectionBinding {
        role,
        purpose: facts.alpn(),
        exporter: facts.exporter(role),
        challenge,
        own_spki: facts.peer_spki(),
        peer_spki: facts.own_spki(),
        encryption_key: &encryption_key,
        workload: &workload,
    }
    .report_data();
    // The report is 1184 bytes: `from_wire` said so.
    let found: ReportData = word(&evidence, offset::REPORT_DATA, ReportData::LEN)?;
    if found != expected {
        let detail = format!("REPORT_DATA is {found}, this connection and challenge give {expected}");
        return Err(Refusal::new(Code::ReportData.as_str(), detail));
    }
    let host_data: HostData = word(&evidence, offset::HOST_DATA, HostData::LEN)?;
    if host_data != workload.host_data() {
        let detail = format!("HOST_DATA is {host_data}, the spec's digest {workload}");
        return Err(Refusal::new(Code::WorkloadSpec.as_str(), detail));
    }
    let report_id = word(&evidence, offset::REPORT_ID, ReportId::LEN)?;
    let peer_spki = *facts.peer_spki();
    Ok(Bound { evidence, report_data: expected, report_id, workload, encryption_key, peer_spki, at })
}

/// Its second part.
pub(crate) fn judge<A: Appraiser + ?Sized>(appraiser: &A, bound: Bound) -> Result<Attested<A::Admitted>, Refusal> {
    let admitted = appraiser.appraise(&bound.evidence, &bound.report_data)?;
    Ok(Attested { admitted, bound })
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

fn word<'a, W: TryFrom<&'a [u8]>>(evidence: &'a Evidence, at: usize, length: usize) -> Result<W, Refusal> {
    evidence
        .report
        .get(at..at + length)
        .and_then(|bytes| W::try_from(bytes).ok())
        .ok_or_else(|| Refusal::new(Code::EvidenceMalformed.as_str(), "report is cut short".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sealed_to_a_result_older_than_its_lifetime() {
        let (key, _) = hpke::key_pair().unwrap();
        let now = Instant::now();
        let fresh = Attested::for_tests((), key.clone(), now);
        fresh.can_seal().unwrap();
        fresh.seal("m", b"", b"value").unwrap();
        assert!(!fresh.is_stale(now + RESULT_LIFETIME));
        assert!(fresh.is_stale(now + RESULT_LIFETIME + Duration::from_secs(1)));
        // A machine that has run for less than 15 minutes has no such instant.
        if let Some(then) = now.checked_sub(RESULT_LIFETIME + Duration::from_secs(1)) {
            let old = Attested::for_tests((), key, then);
            assert_eq!((old.can_seal(), old.seal("m", b"", b"value")), (Err(HpkeError::Stale), Err(HpkeError::Stale)));
        }
    }

    #[test]
    fn that_nothing_can_be_sealed_to_a_point_off_the_curve_is_known_before() {
        let (mut key, _) = hpke::key_pair().unwrap();
        key.public_key[50] ^= 1;
        let peer = Attested::for_tests((), key, Instant::now());
        assert_eq!((peer.can_seal(), peer.seal("m", b"", b"value")), (Err(HpkeError::Seal), Err(HpkeError::Seal)));
    }
}
