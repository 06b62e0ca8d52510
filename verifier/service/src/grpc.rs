//! The same interface over gRPC, on the same listener and behind the same guard.
//!
//! A refusal is a status with the same sentence and code as over HTTP; evidence that is refused is an answer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use coffer_verifier::ExpectedReportData;
use coffer_verifier::abi::ReportData;
use coffer_verifier::ear::Nonce;
use tonic::{Code, Request, Response, Status};

use crate::access::Caller;
use crate::appraiser::Answer;
use crate::challenge::{Challenge, LIFETIME};
use crate::few::AppraiseBatchRequest;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::request::{Asked, Demanded, MAX_BATCH, MAX_CERTIFICATES, MAX_CRLS, Words};
use crate::service::Service;
use crate::wire;
use crate::wire::verifier_server::{Verifier, VerifierServer};

/// Answers calls.
pub struct Grpc(Arc<Service>);

/// The service, with the bound on a message that requests have over HTTP.
pub fn server(service: &Arc<Service>) -> VerifierServer<Grpc> {
    let limit = service.limits.request_bytes;
    VerifierServer::new(Grpc(Arc::clone(service))).max_decoding_message_size(limit)
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        Self::new(code(refusal), format!("{}: {}", refusal.code(), coffer_rim::chain(refusal)))
    }
}

fn code(refusal: &Refusal) -> Code {
    match refusal.status() {
        401 => Code::Unauthenticated,
        404 => Code::NotFound,
        409 => Code::FailedPrecondition,
        500 => Code::Internal,
        503 => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

/// The same of one request of several: the words that the document over HTTP has.
impl From<Refusal> for wire::Error {
    fn from(refusal: Refusal) -> Self {
        let failure = refusal.failure();
        Self {
            status: code(&refusal).into(),
            code: refusal.code().to_owned(),
            message: failure.message,
            hint: failure.hint.unwrap_or_default(),
        }
    }
}

fn answered(answer: Answer) -> Result<wire::AppraiseResponse, Refusal> {
    Ok(wire::AppraiseResponse {
        verdict: answer.appraisal.verdict().to_string(),
        policy_id: answer.policy.name.to_string(),
        policy_revision: answer.policy.revision.to_string(),
        appraisal_json: answer.appraisal_json()?,
        request_nonce: answer.request_nonce.map(|nonce| nonce.as_bytes().to_vec()).unwrap_or_default(),
        token: answer.token.unwrap_or_default(),
    })
}

/// Lets calls through, whose messages are of the one form that is read here.
pub async fn calls(
    State(service): State<Arc<Service>>,
    request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media_type.is_some_and(is_call) {
        return next.run(request).await;
    }
    service.metrics.refused(&Refusal::CallType);
    Refusal::CallType.into_response()
}

/// Protobuf, by its short name or its full one.
fn is_call(media_type: &str) -> bool {
    let name = media_type.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Counts an answer that is an error, be it of ours or of what reads messages; the latter calls a message that it cannot read our fault.
pub fn counted(mut response: axum::response::Response, metrics: &Metrics) -> axum::response::Response {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let ours = status.message().starts_with(&format!("{}: ", Refusal::Internal.code()));
    let code = if status.code() == Code::Internal && !ours { Code::InvalidArgument } else { status.code() };
    match code {
        Code::Ok => return response,
        Code::Internal => metrics.refused_with(500),
        Code::Unavailable => metrics.refused_with(503),
        _ => metrics.refused_with(400),
    }
    response.headers_mut().insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
    response
}

fn asked(request: wire::AppraiseRequest) -> Result<Asked, Refusal> {
    use wire::appraise_request::Demanded as Wire;
    for (field, limit, count) in
        [("certificates", MAX_CERTIFICATES, request.certificates.len()), ("crls", MAX_CRLS, request.crls.len())]
    {
        if count > limit {
            return Err(Refusal::TooMany { field, limit });
        }
    }
    let nonce =
        |field, bytes: &[u8]| Nonce::new(bytes).map_err(|_| Refusal::Field { field, expected: "8 to 64 bytes" });
    let demanded = match request.demanded {
        None => None,
        Some(Wire::Any(wire::Any {})) => Some(Demanded::Stated(ExpectedReportData::Any)),
        Some(Wire::ReportData(bytes)) => {
            let bytes = <[u8; 64]>::try_from(bytes);
            let bytes = bytes.map_err(|_| Refusal::Field { field: "report_data", expected: "64 bytes" })?;
            Some(Demanded::Stated(ExpectedReportData::Exactly(ReportData::new(bytes))))
        }
        Some(Wire::Nonce(bytes)) => Some(Demanded::Nonce(nonce("nonce", &bytes)?)),
        Some(Wire::Challenge(bytes)) => {
            let challenge = Challenge::new(&bytes);
            Some(Demanded::Challenge(challenge.ok_or(Refusal::Field { field: "challenge", expected: "64 bytes" })?))
        }
    };
    let seconds = |token: &wire::TokenRequest| (token.lifetime_seconds > 0).then_some(token.lifetime_seconds.into());
    Asked::of(Words {
        evidence: request.evidence,
        cert_table: request.cert_table,
        certificates: request.certificates,
        crls: request.crls,
        demanded,
        policy: Some(request.policy).filter(|name| !name.is_empty()),
        request_nonce: (!request.request_nonce.is_empty())
            .then(|| nonce("request_nonce", &request.request_nonce))
            .transpose()?,
        token: request.token.map(|token| (token.audience.clone(), seconds(&token))),
    })
}

#[tonic::async_trait]
impl Verifier for Grpc {
    async fn appraise(
        &self,
        request: Request<wire::AppraiseRequest>,
    ) -> Result<Response<wire::AppraiseResponse>, Status> {
        let caller = request.extensions().get::<Caller>().map(ToString::to_string).unwrap_or_default();
        let answer = match asked(request.into_inner()) {
            Ok(asked) => self.0.appraise(asked, &caller).await,
            Err(refusal) => Err(refusal),
        };
        answer.and_then(answered).map(Response::new).map_err(|refusal| Status::from(&refusal))
    }

    async fn appraise_batch(
        &self,
        request: Request<AppraiseBatchRequest>,
    ) -> Result<Response<wire::AppraiseBatchResponse>, Status> {
        let caller = request.extensions().get::<Caller>().map(ToString::to_string).unwrap_or_default();
        let AppraiseBatchRequest { requests, too_many } = request.into_inner();
        if too_many {
            return Err(Status::from(&Refusal::TooMany { field: "requests", limit: MAX_BATCH }));
        }
        if requests.is_empty() {
            return Err(Status::from(&Refusal::NO_BATCH));
        }
        let requests = requests.into_iter().map(asked).collect();
        let results = self.0.appraise_each(requests, &caller, |answer| answer.and_then(answered)).await;
        let one = |result: Result<wire::AppraiseResponse, Refusal>| wire::Result {
            result: Some(match result {
                Ok(answer) => wire::result::Result::Answer(answer),
                Err(refusal) => wire::result::Result::Error(refusal.into()),
            }),
        };
        Ok(Response::new(wire::AppraiseBatchResponse { results: results.into_iter().map(one).collect() }))
    }

    async fn challenge(&self, _: Request<wire::ChallengeRequest>) -> Result<Response<wire::ChallengeResponse>, Status> {
        let challenge = self.0.challenge().map_err(|refusal| Status::from(&refusal))?;
        let expires_in = u32::try_from(LIFETIME).unwrap_or_default();
        Ok(Response::new(wire::ChallengeResponse { challenge: challenge.0.to_vec(), expires_in }))
    }

    async fn policies(&self, _: Request<wire::PoliciesRequest>) -> Result<Response<wire::PoliciesResponse>, Status> {
        let live = self.0.live();
        let policies = &live.appraiser.policies;
        let one = |policy: &crate::policies::Policy| wire::Policy {
            id: policy.name.to_string(),
            revision: policy.revision.to_string(),
            rego: policy.has_rego(),
            simulated_roots: policy.simulated_roots().iter().map(|root| root.as_bytes().to_vec()).collect(),
        };
        let default_policy = policies.default_name().to_owned();
        Ok(Response::new(wire::PoliciesResponse { default_policy, policies: policies.iter().map(one).collect() }))
    }
}
