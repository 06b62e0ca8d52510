//! The guest's API over an attested connection. What is refused and what is missing look alike from there.

use std::{sync::Arc, time::Instant};

use coffer_kbs_client::kbs::v1 as wire;
use coffer_ratls::{Attested, ConnectionState, Denial, attested, connection, denied};
use coffer_verifier::abi::ReportId;
use tonic::{Code, Request, Response, Status};

use crate::{
    asked::Question,
    door::{Asker, Door},
    guest::{self, Judged},
    limits::Buckets,
    permit::Released,
    release::{NotReleased, Releaser},
    standing::NotListed,
    store::{AuditEntry, StoreError},
};

/// The service behind the guest listener.
#[derive(Clone)]
pub struct BrokerService {
    pub(crate) releaser: Releaser,
    pub(crate) door: Arc<Door>,
    /// Requests of one guest instance.
    pub(crate) rate: Arc<Buckets<ReportId>>,
}

impl BrokerService {
    async fn ask<R: Into<Question>>(&self, request: Request<R>) -> Result<Released, Status> {
        let (connection, attested) = (connection(&request)?, attested::<Judged, _>(&request));
        let question: Question = request.into_inner().into();
        let attested = attested.inspect_err(|status| self.not_attested(&connection, &question, status))?;
        match self.door.asker(&connection, &attested).await {
            Ok(Asker::Known) => {}
            Ok(Asker::Stranger(no)) => return Err(self.turn_away(&connection, &attested, &question, no)),
            Ok(Asker::TooFast) => return Err(denied(Code::ResourceExhausted, "too-many-requests").0),
            Err(error) => return Err(failed(&error)),
        }
        if !self.rate.take(*attested.report_id(), Instant::now()) {
            return Err(denied(Code::ResourceExhausted, "too-many-requests").0);
        }
        // The id exists before the decision, so that the line and the answer carry the same one.
        let (status, id) = denied(Code::PermissionDenied, "not-released");
        match self.releaser.release(attested.clone(), question, &id).await {
            Ok(released) => Ok(released),
            Err(NotReleased::Refused(reasons)) => {
                tracing::warn!(id, reasons = reasons.join("; "), "not released");
                self.door.reconsider(&connection, &attested).await;
                Err(status)
            }
            Err(NotReleased::Failed(error)) => Err(failed(&error)),
            Err(NotReleased::NotSealed(error)) => {
                let (status, answer) = denied(Code::Unavailable, "broker-failed");
                tracing::error!(id = answer, line = id, error = %coffer_rim::chain(&error), "what was released was not sent");
                Err(status)
            }
        }
    }

    /// Sums the question of somebody who has shown nothing on this connection. That an attestation has run out is no news.
    fn not_attested(&self, connection: &ConnectionState, question: &Question, status: &Status) {
        const CODE: &str = "attestation-required";
        let Some(denial) = Denial::of(status).filter(|denial| denial.code == CODE) else { return };
        let entry = AuditEntry {
            outcome: "refused",
            id: denial.id,
            peer: connection.peer_spki().to_string(),
            code: Some(CODE),
            reasons: vec!["attestation: there is none on this connection".to_owned()],
            ..question.entry()
        };
        self.door.turned_away(connection, entry);
    }

    /// The answer to a genuine guest that nothing admits: the same as to anybody, and summed in the trail.
    fn turn_away(
        &self,
        connection: &ConnectionState,
        attested: &Attested<Judged>,
        question: &Question,
        no: NotListed,
    ) -> Status {
        let (status, id) = denied(Code::PermissionDenied, "not-released");
        let judged = attested.admitted();
        let entry = AuditEntry {
            outcome: "refused",
            id,
            peer: attested.peer_spki().to_string(),
            tenant: Some(judged.tenant.to_string()),
            guest: Some(guest::facts(&judged.verified)),
            reasons: no.reasons,
            checks: no.checks,
            ..question.entry()
        };
        self.door.turned_away(connection, entry);
        status
    }
}

fn failed(error: &StoreError) -> Status {
    let (status, id) = denied(Code::Unavailable, "broker-failed");
    tracing::error!(id, error = %coffer_rim::chain(error), hint = error.hint(), "no decision could be recorded");
    status
}

#[tonic::async_trait]
impl wire::broker_server::Broker for BrokerService {
    async fn get_secret(
        &self,
        request: Request<wire::GetSecretRequest>,
    ) -> Result<Response<wire::GetSecretResponse>, Status> {
        match self.ask(request).await? {
            Released::Secret { version, sealed } => {
                Ok(Response::new(wire::GetSecretResponse { version, value: Some(sealed.into()) }))
            }
            _ => Err(other_kind()),
        }
    }

    async fn get_sealing_key(
        &self,
        request: Request<wire::GetSealingKeyRequest>,
    ) -> Result<Response<wire::GetSealingKeyResponse>, Status> {
        match self.ask(request).await? {
            Released::SealingKey(sealed) => Ok(Response::new(wire::GetSealingKeyResponse { key: Some(sealed.into()) })),
            _ => Err(other_kind()),
        }
    }

    async fn generation(
        &self,
        request: Request<wire::GenerationRequest>,
    ) -> Result<Response<wire::GenerationResponse>, Status> {
        match self.ask(request).await? {
            Released::Generation { set, sealed, .. } => {
                Ok(Response::new(wire::GenerationResponse { set, current: Some(sealed.into()) }))
            }
            _ => Err(other_kind()),
        }
    }

    async fn issue_certificate(
        &self,
        request: Request<wire::IssueCertificateRequest>,
    ) -> Result<Response<wire::IssueCertificateResponse>, Status> {
        match self.ask(request).await? {
            Released::Certificate(issued) => Ok(Response::new(wire::IssueCertificateResponse { chain: issued.chain })),
            _ => Err(other_kind()),
        }
    }

    async fn issue_token(
        &self,
        request: Request<wire::IssueTokenRequest>,
    ) -> Result<Response<wire::IssueTokenResponse>, Status> {
        match self.ask(request).await? {
            Released::Token(token) => Ok(Response::new(wire::IssueTokenResponse { token: token.text })),
            _ => Err(other_kind()),
        }
    }
}

/// What is released answers what was asked: else it is a defect of ours.
fn other_kind() -> Status {
    denied(Code::Internal, "internal").0
}
