//! What this guest answers.

use std::sync::Arc;

use coffer_kbs_client::{BrokerClient, ClientError};
use coffer_ratls::{Attester, IdentityKey, pem, signing_request_spki};
use coffer_seal::{Header, Scope, SealPolicy};
use coffer_spec::SecretPath;
use coffer_verifier::{
    abi::ReportData,
    binding::workload_report_data,
    ear::{Nonce, Word},
    evidence::Evidence,
};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{
    Answer, Guest,
    call::{Call, Counted},
    coco,
    refusal::Refusal,
};
use crate::{
    agent::Agent,
    broker::{self, questions::Whose},
    processor::SharedProcessor,
    sealing::{Counter, Means, Sealed, SealingError},
};

const BYTES: &str = "application/octet-stream";

/// This guest, its processor and its broker.
pub struct OwnGuest {
    /// What it was launched with.
    pub agent: Arc<Agent>,
    /// Its own.
    pub processor: SharedProcessor,
    /// Makes its evidence.
    pub attester: Arc<dyn Attester>,
}

impl Guest for OwnGuest {
    async fn answer(&self, call: Call, body: Zeroizing<Vec<u8>>) -> Result<Answer, Refusal> {
        match tokio::time::timeout(broker::PATIENCE, Box::pin(self.work(call, &body))).await {
            Ok(answered) => answered,
            Err(_) => Err(Refusal::late(broker::PATIENCE.as_secs())),
        }
    }
}

impl OwnGuest {
    async fn work(&self, call: Call, body: &[u8]) -> Result<Answer, Refusal> {
        match call {
            Call::Secret { path, version } => self.secret(&path, version).await,
            Call::Seal { policy, context, counted } => {
                let (counter, body) = to_seal(&counted, body)?;
                let broker = self.broker_for(&[policy]).await?;
                sealed(self.means(broker.as_ref()).seal(policy, &context, counter, body).await)
            }
            Call::Unseal { context } => {
                let broker = self.broker_for(&[policy_of(body)?]).await?;
                let opened =
                    self.means(broker.as_ref()).unseal(&context, body).await.map_err(|error| Refusal::from(&error))?;
                Ok(file(opened.plaintext.to_vec(), opened.rollback_protected))
            }
            Call::Reseal { policy, context } => {
                let before = policy_of(body)?;
                let broker = self.broker_for(&[before, policy.unwrap_or(before)]).await?;
                sealed(self.means(broker.as_ref()).reseal(policy, &context, body).await)
            }
            Call::Evidence => {
                let evidence = self.evidence(workload_report_data(&self.attester.workload(), body)).await?;
                Ok(Answer { content_type: "application/cmw+cbor", headers: Vec::new(), body: evidence.to_cmw() })
            }
            Call::CocoEvidence(report_data) => {
                let body = coco::evidence_json(&self.evidence(report_data).await?)?;
                Ok(Answer { content_type: "application/json", headers: Vec::new(), body })
            }
            Call::Token { audience, nonce } => {
                let token = self.token(&audience, nonce.as_ref(), body).await?;
                Ok(Answer { content_type: "application/eat+jwt", headers: Vec::new(), body: token.into_bytes() })
            }
            Call::CocoToken => self.coco_token().await,
            Call::Certificate { profile } => self.certificate(&profile, body).await,
        }
    }

    async fn secret(&self, path: &SecretPath, version: Option<u64>) -> Result<Answer, Refusal> {
        let broker = self.broker().await?;
        let found = match version {
            None => broker.secret(path).await,
            Some(version) => broker.secret_version(path, version).await,
        };
        let secret = found.map_err(|error| Refusal::from(&error))?;
        Ok(Answer {
            content_type: BYTES,
            headers: vec![("coffer-secret-version", secret.version.to_string())],
            body: secret.value.expose_secret().clone(),
        })
    }

    async fn evidence(&self, report_data: ReportData) -> Result<Evidence, Refusal> {
        let attester = self.attester.clone();
        let made = tokio::task::spawn_blocking(move || attester.evidence(&report_data)).await;
        let failed = |error: &dyn std::fmt::Display| Refusal::processor(format!("secure processor: {error}"));
        made.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    async fn token(&self, audience: &Word, nonce: Option<&Nonce>, csr: &[u8]) -> Result<String, Refusal> {
        if !self.agent.document.spec().audiences.iter().any(|one| one == audience.as_str()) {
            let message = "the workload spec does not name this audience".to_owned();
            return Err(Refusal::new(StatusCode::FORBIDDEN, "audience", message));
        }
        is_request(csr, "a signing request (PKCS #10, DER) of a P-384 key")?;
        let failed = |refusal: Refusal| ClientError::Own { cause: refusal.to_string() };
        let report = async |report_data| Ok(self.evidence(report_data).await.map_err(failed)?.report);
        let token = self.broker().await?.token(audience, nonce, csr, &self.attester.workload(), report).await;
        token.map_err(|error| Refusal::from(&error))
    }

    /// There nobody names an audience, so that it is one only where the spec has no other.
    async fn coco_token(&self) -> Result<Answer, Refusal> {
        let [audience] = self.agent.document.spec().audiences.as_slice() else {
            let message = "the workload spec names no audience, or several, and this route takes none".to_owned();
            return Err(Refusal::new(StatusCode::CONFLICT, "audience", message));
        };
        let audience = Word::parse(audience).map_err(|_| Refusal::field("audience", "one of the workload spec"))?;
        let own = |_| Refusal::processor("no key for a token".into());
        let key = IdentityKey::generate().map_err(own)?;
        let token = self.token(&audience, None, &key.signing_request().map_err(own)?).await?;
        let body = coco::token_json(&token, &key.to_pem())?;
        Ok(Answer { content_type: "application/json", headers: Vec::new(), body })
    }

    async fn certificate(&self, profile: &str, csr: &[u8]) -> Result<Answer, Refusal> {
        is_request(csr, "a signing request (PKCS #10, DER)")?;
        let chain = self.broker().await?.certificate(profile, csr).await.map_err(|error| Refusal::from(&error))?;
        let text: String = chain.iter().map(|der| pem("CERTIFICATE", der).to_string()).collect();
        Ok(Answer { content_type: "application/pem-certificate-chain", headers: Vec::new(), body: text.into_bytes() })
    }

    fn means<'a>(&'a self, broker: Option<&'a BrokerClient>) -> Means<'a> {
        Means { processor: &self.processor, spec: self.agent.document.spec(), broker, scope: Scope::Workload }
    }

    async fn broker_for(&self, policies: &[SealPolicy]) -> Result<Option<BrokerClient>, Refusal> {
        let spec = self.agent.document.spec();
        if broker::is_asked(spec, policies) {
            self.agent.questions.workload().map_err(Refusal::share_is_spent)?;
        }
        let connected = broker::for_policies(self.agent.places.host, spec, policies, &self.attester).await;
        Ok(connected.map_err(|(_, cause)| Refusal::from(&cause))?.map(|broker| self.metered(broker)))
    }

    async fn broker(&self) -> Result<BrokerClient, Refusal> {
        let spec = self.agent.document.spec();
        let kbs = spec.kbs.as_ref().ok_or_else(Refusal::no_broker)?;
        self.agent.questions.workload().map_err(Refusal::share_is_spent)?;
        let connected = broker::connect_anew(self.agent.places.host, spec, kbs, self.attester.clone()).await;
        Ok(self.metered(connected.map_err(|error| Refusal::from(&error))?))
    }

    fn metered(&self, broker: BrokerClient) -> BrokerClient {
        broker.metered(self.agent.questions.meter(Whose::Workload))
    }
}

/// What is no signing request at all is said here: of a broker it would be one refusal among others.
fn is_request(csr: &[u8], expected: &str) -> Result<(), Refusal> {
    if signing_request_spki(csr).is_some() {
        return Ok(());
    }
    let is_pem = csr.trim_ascii_start().starts_with(b"-----BEGIN");
    let found = if is_pem { ", and not its PEM: `openssl req -outform DER`" } else { "" };
    Err(Refusal::field("body", &format!("{expected}{found}")))
}

fn shorter() -> Refusal {
    Refusal::field("replaces", "at most as many bytes as the body has")
}

fn policy_of(sealed: &[u8]) -> Result<SealPolicy, Refusal> {
    Header::peek(sealed).map(|header| header.policy).map_err(|error| Refusal::from(&SealingError::from(error)))
}

/// How, and what. Nothing at all takes no file's place.
fn to_seal<'a>(counted: &Counted, body: &'a [u8]) -> Result<(Counter<'a>, &'a [u8]), Refusal> {
    let (counter, plain) = match counted {
        Counted::No => (Counter::None, body),
        Counted::First => (Counter::Begin, body),
        Counted::Replaces(length) => {
            let (head, rest) = body.split_at_checked(*length).ok_or_else(shorter)?;
            (Counter::Replace(head), rest)
        }
    };
    if plain.is_empty() {
        return Err(Refusal::field("body", "what is to be sealed; nothing at all is not"));
    }
    Ok((counter, plain))
}

fn sealed(result: Result<Sealed, SealingError>) -> Result<Answer, Refusal> {
    let Sealed { bytes, rollback_protected } = result.map_err(|error| Refusal::from(&error))?;
    Ok(file(bytes, rollback_protected))
}

fn file(body: Vec<u8>, rollback_protected: bool) -> Answer {
    let headers = vec![("coffer-rollback-protected", rollback_protected.to_string())];
    Answer { content_type: BYTES, headers, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_not_sealed_and_takes_no_files_place() {
        for counted in [Counted::No, Counted::First, Counted::Replaces(4)] {
            let head: &[u8] = if matches!(counted, Counted::Replaces(_)) { b"head" } else { b"" };
            assert!(
                to_seal(&counted, head).unwrap_err().to_string().starts_with("body: expected what is to be sealed")
            );
            assert_eq!(to_seal(&counted, &[head, b"state"].concat()).unwrap().1, b"state");
        }
    }

    #[test]
    fn what_is_no_signing_request_is_said_before_a_broker_is_asked_and_pem_by_its_name() {
        let said = |csr: &[u8]| is_request(csr, "a signing request (PKCS #10, DER)").unwrap_err().to_string();
        assert_eq!(said(b"x"), "body: expected a signing request (PKCS #10, DER)");
        assert!(said(b"-----BEGIN CERTIFICATE REQUEST-----\nAA\n").contains("openssl req -outform DER"));
        let request = IdentityKey::generate().unwrap().signing_request().unwrap();
        is_request(&request, "one").unwrap();
        assert!(is_request(&[request.as_slice(), b"x"].concat(), "one").is_err());
    }
}
