//! `Owner`: inject, seal, unseal. Served to owners on port 4091 alone.
//!
//! What an owner sends in is an HPKE message to the key of the report that opened this connection, so a stolen TLS key
//! gives nothing.

use std::sync::{Arc, PoisonError};

use coffer_guest_proto::{
    InjectRequest, InjectResponse, SealRequest, SealResponse, Sealed, UnsealRequest, UnsealResponse,
    owner_server::Owner,
};
use coffer_ratls::{HpkeSealed, connection};
use coffer_spec::Act;
use coffer_verifier::binding::length_prefixed;
use secrecy::{ExposeSecret, SecretBox};
use tonic::{Request, Response, Status};

use super::{Agent, authority::Door, request};
use crate::{processor::SharedProcessor, sealing, secrets, workload::resolve_user};

pub(super) struct OwnerService {
    pub(super) agent: Arc<Agent>,
    pub(super) processor: SharedProcessor,
}

#[tonic::async_trait]
impl Owner for OwnerService {
    async fn inject(&self, request: Request<InjectRequest>) -> Result<Response<InjectResponse>, Status> {
        let spec = self.agent.document.spec();
        Door::Owners.admit(request.extensions(), spec, Act::Inject)?;
        let (name, value) = request::inject(request.get_ref(), spec)?;
        let aad = length_prefixed(&[spec.tenant.as_str().as_bytes(), name.as_str().as_bytes(), b"inject"]);
        let value = open(&request, "coffer.agent.v1.Owner/Inject", &aad, value)?;
        let value = value.expose_secret();
        if value.is_empty() {
            return Err(Status::invalid_argument("empty-value"));
        }
        let user = resolve_user(&self.agent.places.root, &spec.process.user)
            .map_err(|error| Status::failed_precondition(format!("workload user: {error}")))?;
        secrets::write(&self.agent.places.secrets, name, value, &user)
            .map_err(|error| Status::internal(format!("the value was not written: {error}")))?;
        Ok(Response::new(InjectResponse {}))
    }

    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        let spec = self.agent.document.spec();
        Door::Owners.admit(request.extensions(), spec, Act::Unseal)?;
        let (policy, context, plaintext) = request::seal(request.get_ref())?;
        let aad = length_prefixed(&[spec.tenant.as_str().as_bytes(), context, b"seal"]);
        let plaintext = open(&request, "coffer.agent.v1.Owner/Seal", &aad, plaintext)?;
        let (policy, context) = (policy.to_owned(), context.to_owned());
        let sealed = self.with_processor(move |processor, spec| {
            sealing::seal(processor, spec, &policy, &context, plaintext.expose_secret())
        });
        Ok(Response::new(SealResponse { sealed: sealed.await?, rollback_protected: false }))
    }

    async fn unseal(&self, request: Request<UnsealRequest>) -> Result<Response<UnsealResponse>, Status> {
        Door::Owners.admit(request.extensions(), self.agent.document.spec(), Act::Unseal)?;
        let (sealed, context) = request::unseal(request.get_ref())?;
        let (sealed, context) = (sealed.to_owned(), context.to_owned());
        let plaintext = self.with_processor(move |processor, spec| sealing::unseal(processor, spec, &context, &sealed));
        Ok(Response::new(UnsealResponse { plaintext: plaintext.await?.to_vec(), rollback_protected: false }))
    }
}

impl OwnerService {
    /// Runs what blocks on the secure processor away from the event loop.
    async fn with_processor<T: Send + 'static>(
        &self,
        work: impl FnOnce(
            &mut dyn coffer_verifier::abi::SecureProcessor,
            &coffer_spec::WorkloadSpec,
        ) -> Result<T, sealing::SealingError>
        + Send
        + 'static,
    ) -> Result<T, Status> {
        let (processor, agent) = (self.processor.clone(), self.agent.clone());
        tokio::task::spawn_blocking(move || {
            let mut processor = processor.lock().unwrap_or_else(PoisonError::into_inner);
            work(processor.as_mut(), agent.document.spec())
        })
        .await
        .map_err(|_| Status::internal("the secure processor's line failed"))?
        .map_err(|error| Status::failed_precondition(error.to_string()))
    }
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn open<R>(request: &Request<R>, method: &str, aad: &[u8], sealed: &Sealed) -> Result<SecretBox<Vec<u8>>, Status> {
    let sealed = HpkeSealed { enc: sealed.enc.clone(), ciphertext: sealed.ciphertext.clone() };
    connection(request)?
        .open(method, aad, &sealed)
        .map_err(|_| Status::invalid_argument("the value does not open: it was sealed for another connection or name"))
}
