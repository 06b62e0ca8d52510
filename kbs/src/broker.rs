//! The guest's API over an attested connection. What is refused and what is missing look alike from there.

use std::{sync::Arc, time::Instant};

use coffer_kbs_client::kbs::v1 as wire;
use coffer_ratls::{attested, denied};
use coffer_verifier::abi::ReportId;
use tonic::{Code, Request, Response, Status};

use crate::{
    asked::Question,
    guest::Judged,
    limits::Buckets,
    permit::Released,
    release::{NotReleased, Releaser},
};

/// The service behind the guest listener.
#[derive(Clone)]
pub struct BrokerService {
    pub(crate) releaser: Releaser,
    /// Requests of one guest instance.
    pub(crate) rate: Arc<Buckets<ReportId>>,
}

impl BrokerService {
    async fn ask<R: Into<Question>>(&self, request: Request<R>) -> Result<Released, Status> {
        let attested = attested::<Judged, _>(&request)?;
        if !self.rate.take(*attested.report_id(), Instant::now()) {
            return Err(denied(Code::ResourceExhausted, "too-many-requests").0);
        }
        // The id exists before the decision, so that the line and the answer carry the same one.
        let (status, id) = denied(Code::PermissionDenied, "not-released");
        match self.releaser.release(attested, request.into_inner().into(), &id).await {
            Ok(released) => Ok(released),
            Err(NotReleased::Refused(reasons)) => {
                tracing::warn!(id, reasons = reasons.join("; "), "not released");
                Err(status)
            }
            Err(NotReleased::Failed(error)) => {
                let (status, id) = denied(Code::Unavailable, "broker-failed");
                tracing::error!(id, error = %coffer_rim::chain(&error), hint = error.hint(), "no decision could be recorded");
                Err(status)
            }
        }
    }
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
}

/// What is released answers what was asked: else it is a defect of ours.
fn other_kind() -> Status {
    denied(Code::Internal, "internal").0
}
