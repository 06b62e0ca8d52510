//! The gRPC service that opens every connection: hands out challenges, takes evidence, or gives it.

use std::{any::Any, sync::Arc, time::Instant};

use coffer_verifier::abi::ReportId;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use crate::{
    appraisal::{self, Appraiser, Attester, Bound, Completer, RESULT_LIFETIME},
    denial::denied,
    hpke::Ahead,
    off_loop::off_loop,
    proto::{
        self, AttestRequest, AttestResponse, ChallengeRequest, ChallengeResponse, attest_request, attest_response,
        attestation_server::Attestation,
    },
    reception::{Everybody, Reception},
    refusal::Refusal,
    state::{ConnectionState, connection},
    wire,
};

/// Appraisals and reports at work at once, over all connections; the rest wait their turn.
const AT_ONCE: usize = 8;
/// Bytes of a message that holds a challenge, with room for fields of versions to come.
const CHALLENGE_MESSAGE: usize = 4 << 10;

/// Which half of attestation a server does.
#[derive(Clone)]
pub struct AttestationService {
    side: Side,
    completer: Option<Arc<dyn Completer>>,
    at_once: Arc<Semaphore>,
    /// For the next report of this end.
    ahead: Ahead,
}

#[derive(Clone)]
enum Side {
    Attester(Arc<dyn Attester>),
    Verifier(Arc<dyn Verify>),
    Both(Arc<dyn Attester>, Arc<dyn Verify>),
}

impl AttestationService {
    /// This server shows evidence to whoever sends a challenge (the guest agent).
    pub fn attester(attester: Arc<dyn Attester>) -> Self {
        Self::new(Side::Attester(attester))
    }

    /// This server demands evidence; whoever attests is one of the known.
    pub fn verifier<A: Appraiser>(appraiser: Arc<A>) -> Self {
        Self::verifier_with(appraiser, Arc::new(Everybody))
    }

    /// This server demands evidence, and `reception` says who is one of the known (the key broker).
    pub fn verifier_with<A: Appraiser>(appraiser: Arc<A>, reception: Arc<dyn Reception<A::Admitted>>) -> Self {
        let verifies = Verifies { appraiser, reception };
        Self::new(Side::Verifier(Arc::new(verifies)))
    }

    /// This server shows evidence to whoever sends a challenge, and demands evidence too; `reception` says who is one of the known.
    /// That it has shown its own makes nobody one.
    pub fn mutual<A: Appraiser>(
        attester: Arc<dyn Attester>,
        appraiser: Arc<A>,
        reception: Arc<dyn Reception<A::Admitted>>,
    ) -> Self {
        Self::new(Side::Both(attester, Arc::new(Verifies { appraiser, reception })))
    }

    /// Has evidence completed before it is judged.
    #[must_use]
    pub fn completed_by(self, completer: Option<Arc<dyn Completer>>) -> Self {
        Self { completer, ..self }
    }

    /// Bytes of the longest message that this side takes. What asks for evidence is a challenge and no more.
    pub(crate) const fn longest_message(&self) -> usize {
        match self.side {
            Side::Attester(_) => CHALLENGE_MESSAGE,
            Side::Verifier(_) | Side::Both(..) => wire::MAX_MESSAGE,
        }
    }

    fn new(side: Side) -> Self {
        let ahead = Ahead::default();
        if !matches!(side, Side::Verifier(_)) {
            ahead.make();
        }
        Self { side, completer: None, at_once: Arc::new(Semaphore::new(AT_ONCE)), ahead }
    }

    /// Runs `work` off the event loop, a bounded number at once.
    #[allow(clippy::result_large_err)]
    async fn work<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Status> {
        let permit = self.at_once.clone().acquire_owned().await.map_err(|_| internal("closing", &"no permits"))?;
        let done = off_loop(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| internal("internal", &error))
    }

    async fn give(
        &self,
        state: &ConnectionState,
        attester: &Arc<dyn Attester>,
        challenge: &[u8],
    ) -> Result<AttestResponse, Status> {
        let challenge =
            wire::challenge_from_wire(challenge).map_err(|refusal| Status::invalid_argument(refusal.code))?;
        let (attester, facts, ahead) = (attester.clone(), state.facts().clone(), self.ahead.clone());
        let answer = self.work(move || appraisal::answer(&*attester, &facts, &challenge, ahead.take()?)).await?;
        // While the client looks at this one.
        let ahead = self.ahead.clone();
        tokio::task::spawn_blocking(move || ahead.make());
        let (opener, answer) = answer.map_err(|error| internal("attester-failed", &error))?;
        match self.side {
            Side::Both(..) => state.shown(opener),
            Side::Attester(_) | Side::Verifier(_) => state.answered(opener),
        }
        Ok(AttestResponse { side: Some(attest_response::Side::Answer(answer)) })
    }

    async fn take(
        &self,
        state: &Arc<ConnectionState>,
        verifier: &Arc<dyn Verify>,
        side: Option<attest_request::Side>,
    ) -> Result<AttestResponse, Status> {
        // Spent first: no road below leads back to this challenge. And a peer that fails has nothing left.
        let challenge = state.spend(Instant::now()).map_err(|code| {
            state.withdraw();
            refused(state, verifier, &Refusal::new(code, "no live challenge on this connection".to_owned()))
        })?;
        let Some(attest_request::Side::Answer(answer)) = side else {
            state.withdraw();
            let refusal = Refusal::new("expected-answer", "the message holds no answer to a challenge".to_owned());
            return Err(refused(state, verifier, &refusal));
        };
        match self.verdict(state, verifier, challenge, answer).await {
            Ok(Ok(verified)) => {
                state.admit(verified.at, verified.attested);
                verifier.attested(state);
                info!(peer = %state.peer_spki(), report_id = %verified.report_id, "peer attested");
                Ok(AttestResponse {
                    side: Some(attest_response::Side::Admission(proto::Admission {
                        report_id: verified.report_id.as_bytes().to_vec(),
                        valid_seconds: RESULT_LIFETIME.as_secs(),
                        unix_seconds: verifier.unix_seconds(),
                    })),
                })
            }
            Ok(Err(refusal)) => {
                state.withdraw();
                Err(refused(state, verifier, &refusal))
            }
            Err(status) => {
                state.withdraw();
                Err(status)
            }
        }
    }

    #[allow(clippy::result_large_err)]
    async fn verdict(
        &self,
        state: &ConnectionState,
        verifier: &Arc<dyn Verify>,
        challenge: [u8; 32],
        answer: proto::AttestedEvidence,
    ) -> Result<Result<Verified, Refusal>, Status> {
        let (checks, facts) = (verifier.clone(), state.facts().clone());
        let bind = move || appraisal::bind(&facts, &challenge, answer);
        let Some(completer) = &self.completer else {
            return self.work(move || bind().and_then(|bound| checks.judge(bound))).await;
        };
        let mut bound = match self.work(bind).await? {
            Ok(bound) => bound,
            Err(refusal) => return Ok(Err(refusal)),
        };
        completer.complete(&mut bound.evidence).await;
        self.work(move || checks.judge(bound)).await
    }
}

#[tonic::async_trait]
impl Attestation for AttestationService {
    async fn challenge(&self, request: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        let state = connection(&request)?;
        if let Side::Attester(_) = self.side {
            return Err(Status::unimplemented("this end attests; send it a challenge"));
        }
        let challenge = fresh_challenge().map_err(|error| internal("internal", &error))?;
        state.issue(challenge, Instant::now());
        Ok(Response::new(ChallengeResponse { challenge: challenge.to_vec() }))
    }

    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        let state = connection(&request)?;
        let side = request.into_inner().side;
        let response = match (&self.side, side) {
            (Side::Attester(attester) | Side::Both(attester, _), Some(attest_request::Side::Challenge(challenge))) => {
                self.give(&state, attester, &challenge).await
            }
            (Side::Attester(_), _) => Err(Status::invalid_argument("expected-challenge")),
            (Side::Verifier(verifier) | Side::Both(_, verifier), side) => self.take(&state, verifier, side).await,
        };
        response.map(Response::new)
    }
}

/// 32 bytes nobody could have known before.
pub(crate) fn fresh_challenge() -> Result<[u8; 32], getrandom::Error> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge)?;
    Ok(challenge)
}

struct Verified {
    at: Instant,
    report_id: ReportId,
    attested: Arc<dyn Any + Send + Sync>,
}

/// [`appraisal::judge`] without its type parameter.
trait Verify: Send + Sync {
    fn judge(&self, bound: Bound) -> Result<Verified, Refusal>;

    fn unix_seconds(&self) -> u64;

    /// Evidence was installed.
    fn attested(&self, state: &Arc<ConnectionState>);

    /// A peer was refused.
    fn refused(&self, state: &ConnectionState, refusal: &Refusal, id: &str);
}

struct Verifies<A: Appraiser> {
    appraiser: Arc<A>,
    reception: Arc<dyn Reception<A::Admitted>>,
}

impl<A: Appraiser> Verify for Verifies<A> {
    fn judge(&self, bound: Bound) -> Result<Verified, Refusal> {
        let attested = appraisal::judge(&*self.appraiser, bound)?;
        Ok(Verified { at: attested.at(), report_id: *attested.report_id(), attested: Arc::new(attested) })
    }

    fn unix_seconds(&self) -> u64 {
        self.appraiser.unix_seconds()
    }

    fn attested(&self, state: &Arc<ConnectionState>) {
        // Taken back in this moment, it is nobody's any more.
        if let Ok(attested) = state.attested::<A::Admitted>() {
            self.reception.attested(state, &attested);
        }
    }

    fn refused(&self, state: &ConnectionState, refusal: &Refusal, id: &str) {
        self.reception.refused(state, refusal, id);
    }
}

fn refused(state: &ConnectionState, verifier: &Arc<dyn Verify>, refusal: &Refusal) -> Status {
    let (status, id) = denied(Code::PermissionDenied, refusal.code);
    verifier.refused(state, refusal, &id);
    warn!(id, peer = %state.peer_spki(), code = refusal.code, detail = refusal.detail, "evidence refused");
    status
}

fn internal(code: &'static str, cause: &dyn core::fmt::Display) -> Status {
    let (status, id) = denied(Code::Internal, code);
    warn!(id, code, %cause, "attestation failed on this end");
    status
}
