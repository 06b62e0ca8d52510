//! The guest's API over an attested connection. What is refused and what is missing look alike from there.

use std::{sync::Arc, time::Instant};

use coffer_kbs_client::kbs::v1 as wire;
use coffer_ratls::{attested, denied};
use coffer_verifier::abi::ReportId;
use tonic::{Code, Request, Response, Status};

use crate::{
    guest::Judged,
    limits::Buckets,
    release::{NotReleased, Releaser},
};

/// The service behind the guest listener.
#[derive(Clone)]
pub struct BrokerService {
    pub(crate) releaser: Releaser,
    /// Requests of one guest instance.
    pub(crate) rate: Arc<Buckets<ReportId>>,
}

#[tonic::async_trait]
impl wire::broker_server::Broker for BrokerService {
    async fn get_secret(
        &self,
        request: Request<wire::GetSecretRequest>,
    ) -> Result<Response<wire::GetSecretResponse>, Status> {
        let attested = attested::<Judged, _>(&request)?;
        if !self.rate.take(*attested.report_id(), Instant::now()) {
            return Err(denied(Code::ResourceExhausted, "too-many-requests").0);
        }
        let path = request.into_inner().path;
        // The id exists before the decision, so that the line and the answer carry the same one.
        let (status, id) = denied(Code::PermissionDenied, "not-released");
        match self.releaser.release(attested, &path, &id).await {
            Ok(released) => Ok(Response::new(wire::GetSecretResponse {
                version: released.version,
                value: Some(released.sealed.into()),
            })),
            Err(NotReleased::Refused(reasons)) => {
                tracing::warn!(id, reasons = reasons.join("; "), "secret not released");
                Err(status)
            }
            Err(NotReleased::Failed(error)) => {
                let (status, id) = denied(Code::Unavailable, "broker-failed");
                tracing::error!(id, error = %coffer_rim::chain(&error), hint = error.hint(), "no decision could be recorded");
                Err(status)
            }
        }
    }

    async fn get_sealing_key(
        &self,
        _: Request<wire::GetSealingKeyRequest>,
    ) -> Result<Response<wire::GetSealingKeyResponse>, Status> {
        Err(Status::unimplemented("this key broker gives no sealing keys yet; seal with policy measurement-and-chip"))
    }

    async fn generation(
        &self,
        _: Request<wire::GenerationRequest>,
    ) -> Result<Response<wire::GenerationResponse>, Status> {
        Err(Status::unimplemented(
            "this key broker keeps no generation counters yet; sealed data has no rollback protection",
        ))
    }

    async fn issue_certificate(
        &self,
        _: Request<wire::IssueCertificateRequest>,
    ) -> Result<Response<wire::IssueCertificateResponse>, Status> {
        Err(Status::unimplemented("this key broker issues no workload certificates yet"))
    }
}
