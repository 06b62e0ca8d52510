//! `Owner`: inject, seal, unseal, reseal, evidence. Served to owners on port 4091 alone, behind [`super::gate`], which asks who may.
//!
//! What an owner sends in is an HPKE message to the key of the report that opened this connection, so a stolen TLS key
//! gives nothing.

use std::sync::Arc;

use coffer_guest_proto::{
    EvidenceRequest, EvidenceResponse, InjectRequest, InjectResponse, OwnersRequest, OwnersResponse, PutOwnersRequest,
    PutOwnersResponse, REASON, RefreshRequest, RefreshResponse, ResealRequest, ResealResponse, SealRequest,
    SealResponse, Sealed as Encrypted, UnsealRequest, UnsealResponse, owner_server::Owner,
};
use coffer_kbs_client::{BrokerClient, ClientError};
use coffer_ratls::{Attester, HpkeSealed, connection};
use coffer_seal::{Header, Scope, SealError, SealPolicy};
use coffer_verifier::{
    binding::{length_prefixed, nonce_report_data},
    evidence::Evidence,
};
use secrecy::{ExposeSecret, SecretBox};
use tonic::{Code, Request, Response, Status, metadata::MetadataValue};

use super::{
    Agent, refresh,
    request::{self, Inject, Seal},
};
use crate::{
    broker::{self, questions::Whose},
    owners::is_context_of_lists,
    processor::SharedProcessor,
    sealing::{Means, Sealed, SealingError, Unsealed},
    secrets::{self, FileAs},
    workload::resolve_user,
};

pub(super) struct OwnerService {
    pub(super) agent: Arc<Agent>,
    pub(super) processor: SharedProcessor,
    pub(super) attester: Arc<dyn Attester>,
}

#[tonic::async_trait]
impl Owner for OwnerService {
    async fn inject(&self, request: Request<InjectRequest>) -> Result<Response<InjectResponse>, Status> {
        let spec = self.agent.document.spec();
        let Inject { name, value, set_env } = request::inject(request.get_ref(), spec)?;
        let aad = length_prefixed(&[spec.tenant.as_str().as_bytes(), name.as_str().as_bytes(), b"inject"]);
        let value = open(&request, "coffer.agent.v1.Owner/Inject", &aad, value)?;
        let value = value.expose_secret();
        if value.is_empty() {
            return Err(Status::invalid_argument("empty-value"));
        }
        let user = resolve_user(&self.agent.places.root, &spec.process.user, &[])
            .map_err(|error| Status::failed_precondition(format!("workload user: {error}")))?;
        if set_env {
            // First: what no environment holds is refused whole.
            let set = self.agent.secret_env.write().await.set(name, value);
            set.map_err(|error| Status::invalid_argument(format!("the value of {name} {error}")))?;
        }
        secrets::write(&self.agent.places.secrets, name, value, &FileAs::usual(&user))
            .map_err(|error| Status::internal(format!("the value of {name} was not written: {error}")))?;
        Ok(Response::new(InjectResponse {}))
    }

    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let round = refresh::for_owner(&self.agent).await.unwrap_or_default();
        match round.broken {
            Some(ClientError::TooOften) => Err(too_often(ClientError::TooOften.to_string())),
            None => {
                let owners = self.agent.owners.in_force();
                Ok(Response::new(RefreshResponse { secrets: round.found, owners }))
            }
            Some(error @ ClientError::Refused { .. }) => Err(Status::permission_denied(error.to_string())),
            Some(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn put_owners(&self, request: Request<PutOwnersRequest>) -> Result<Response<PutOwnersResponse>, Status> {
        let list = request::put_owners(request.get_ref())?;
        match self.agent.owners.brought(list) {
            Ok(sequence) => Ok(Response::new(PutOwnersResponse { sequence })),
            Err(error) => {
                let code = if error.is_unauthentic() { Code::DataLoss } else { Code::FailedPrecondition };
                let mut status = Status::new(code, error.to_string());
                status.metadata_mut().insert(REASON, MetadataValue::from_static(error.word()));
                Err(status)
            }
        }
    }

    async fn owners(&self, _: Request<OwnersRequest>) -> Result<Response<OwnersResponse>, Status> {
        Ok(Response::new(OwnersResponse { owners: self.agent.owners.in_force() }))
    }

    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        let spec = self.agent.document.spec();
        let Seal { policy, context, counter, plaintext } = request::seal(request.get_ref())?;
        self.is_for_owners(context)?;
        let aad = length_prefixed(&[spec.tenant.as_str().as_bytes(), context, b"seal"]);
        let plaintext = open(&request, "coffer.agent.v1.Owner/Seal", &aad, plaintext)?;
        let broker = self.broker(&[policy]).await?;
        let means = self.means(broker.as_ref());
        let sealed = in_time(means.seal(policy, context, counter, plaintext.expose_secret())).await?;
        let Sealed { bytes, rollback_protected } = sealed;
        Ok(Response::new(SealResponse { sealed: bytes, rollback_protected }))
    }

    async fn unseal(&self, request: Request<UnsealRequest>) -> Result<Response<UnsealResponse>, Status> {
        let (sealed, context) = request::unseal(request.get_ref())?;
        self.is_for_owners(context)?;
        let broker = self.broker(&[policy_of(sealed)?]).await?;
        let opened = in_time(self.means(broker.as_ref()).unseal(context, sealed)).await?;
        let Unsealed { plaintext, rollback_protected } = opened;
        Ok(Response::new(UnsealResponse { plaintext: plaintext.to_vec(), rollback_protected }))
    }

    async fn reseal(&self, request: Request<ResealRequest>) -> Result<Response<ResealResponse>, Status> {
        let (sealed, context, policy) = request::reseal(request.get_ref())?;
        // What another guest sealed would begin a counter here each time.
        self.is_for_owners(context)?;
        let before = policy_of(sealed)?;
        let broker = self.broker(&[before, policy.unwrap_or(before)]).await?;
        let sealed = in_time(self.means(broker.as_ref()).reseal(policy, context, sealed)).await?;
        let Sealed { bytes, rollback_protected } = sealed;
        Ok(Response::new(ResealResponse { sealed: bytes, rollback_protected }))
    }

    async fn evidence(&self, request: Request<EvidenceRequest>) -> Result<Response<EvidenceResponse>, Status> {
        let nonce = request::evidence(request.get_ref())?;
        let report_data = nonce_report_data(&self.agent.document.digest(), nonce.as_bytes());
        let attester = self.attester.clone();
        let made = tokio::task::spawn_blocking(move || attester.evidence(&report_data)).await;
        let Ok(Ok(Evidence { report, cert_table, crls, workload_spec: _ })) = made else {
            return Err(Status::unavailable("the secure processor gave no report"));
        };
        Ok(Response::new(EvidenceResponse { report, cert_table, crls }))
    }
}

impl OwnerService {
    fn means<'a>(&'a self, broker: Option<&'a BrokerClient>) -> Means<'a> {
        Means { processor: &self.processor, spec: self.agent.document.spec(), broker, scope: Scope::Agent }
    }

    #[allow(clippy::result_large_err)] // tonic's own error type
    fn is_for_owners(&self, context: &[u8]) -> Result<(), Status> {
        if is_context_of_lists(self.agent.document.spec(), context) {
            return Err(Status::invalid_argument("context: the guest counts its lists of owners there"));
        }
        Ok(())
    }

    async fn broker(&self, policies: &[SealPolicy]) -> Result<Option<BrokerClient>, Status> {
        let spec = self.agent.document.spec();
        if broker::is_asked(spec, policies) {
            self.agent.questions.owners(0).await;
        }
        let connected = broker::for_policies(self.agent.places.host, spec, policies, &self.attester);
        let connected = async { connected.await.map_err(|(policy, cause)| SealingError::Broker { policy, cause }) };
        Ok(in_time(connected).await?.map(|broker| broker.metered(self.agent.questions.meter(Whose::Owners))))
    }
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn policy_of(sealed: &[u8]) -> Result<SealPolicy, Status> {
    let header = Header::peek(sealed).map_err(|error| status(&error.into()))?;
    Ok(header.policy)
}

async fn in_time<T>(work: impl Future<Output = Result<T, SealingError>>) -> Result<T, Status> {
    match tokio::time::timeout(broker::PATIENCE, work).await {
        Ok(done) => done.map_err(|error| status(&error)),
        Err(_) => {
            Err(Status::unavailable(format!("the key broker did not answer within {} s", broker::PATIENCE.as_secs())))
        }
    }
}

/// What the owner hears, who is on the other end of an attested connection.
fn status(error: &SealingError) -> Status {
    let text = error.to_string();
    let mut status = match error {
        SealingError::Broker { cause: ClientError::TooOften, .. } => return too_often(text),
        SealingError::Broker { cause: ClientError::Refused { .. }, .. } => Status::permission_denied(text),
        SealingError::Broker {
            cause: ClientError::Unreachable { .. } | ClientError::Slow { .. } | ClientError::Undecided { .. },
            ..
        } => Status::unavailable(text),
        // What is in the file is not what was sealed, or not what was sealed last.
        SealingError::Seal(SealError::Closed | SealError::Older { .. } | SealError::Format { .. }) => {
            Status::data_loss(text)
        }
        SealingError::Context { .. } | SealingError::CounterNeedsBroker { .. } => Status::invalid_argument(text),
        _ => Status::failed_precondition(text),
    };
    status.metadata_mut().insert(REASON, MetadataValue::from_static(error.word()));
    status
}

/// The broker wants fewer questions: for later, and no refusal.
fn too_often(text: String) -> Status {
    let mut status = Status::unavailable(text);
    status.metadata_mut().insert(REASON, MetadataValue::from_static("too-many-requests"));
    status
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn open<R>(request: &Request<R>, method: &str, aad: &[u8], sealed: &Encrypted) -> Result<SecretBox<Vec<u8>>, Status> {
    let sealed = HpkeSealed { enc: sealed.enc.clone(), ciphertext: sealed.ciphertext.clone() };
    connection(request)?
        .open(method, aad, &sealed)
        .map_err(|_| Status::invalid_argument("the value does not open: it was sealed for another connection or name"))
}
