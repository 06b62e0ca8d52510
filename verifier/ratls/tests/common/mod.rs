//! A guest without a secure processor, a verifier that believes every report, and a network made of pipes.
//!
//! The appraiser here never looks at what it is told to expect: whatever these tests see refused was refused by the
//! connection layer itself.
#![allow(dead_code)] // each test binary uses its part

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use coffer_ratls::{
    Appraiser, AttestationService, Attester, AttesterError, ClientRule, ClientTls, HpkeError, Identity, PeerPin,
    Purpose, Refusal, ServeLimits, ServerTls, TlsFacts, connect_pinned,
    proto::{
        self, AttestRequest, AttestResponse, AttestedEvidence, ChallengeRequest, attest_request,
        attestation_client::AttestationClient,
    },
    serve,
};
use coffer_verifier::{
    abi::{ReportData, SpkiDigest, WorkloadDigest},
    binding::{ConnectionBinding, EncryptionKey, Role},
    evidence::Evidence,
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, service::Routes, transport::Channel};

pub const SPEC: &[u8] = b"a workload spec document";

/// A report that states what it is told to, unsigned.
pub fn report(report_data: &ReportData, host_data: &[u8; 32]) -> Vec<u8> {
    let mut report = vec![0; 1184];
    report[0x50..0x90].copy_from_slice(report_data.as_bytes());
    report[0xC0..0xE0].copy_from_slice(host_data);
    report[0x140..0x160].copy_from_slice(&[7; 32]);
    report
}

/// An honest guest.
pub struct Guest;

impl Attester for Guest {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let report = report(report_data, self.workload().as_bytes());
        Ok(Evidence { report, workload_spec: SPEC.to_vec(), ..Evidence::default() })
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(SPEC)
    }
}

/// A guest whose secure processor does not answer.
pub struct BrokenGuest;

impl Attester for BrokenGuest {
    fn evidence(&self, _: &ReportData) -> Result<Evidence, AttesterError> {
        Err(AttesterError::Key(HpkeError::Generate))
    }

    fn workload(&self) -> WorkloadDigest {
        WorkloadDigest::of(SPEC)
    }
}

/// Admits everything, and numbers what it admits; can be told to refuse.
#[derive(Default)]
pub struct Credulous {
    pub seen: AtomicUsize,
    pub refuse_from: Option<usize>,
}

impl Appraiser for Credulous {
    type Admitted = usize;

    fn appraise(&self, _: &Evidence, _: &ReportData) -> Result<usize, Refusal> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.refuse_from {
            Some(limit) if number >= limit => Err(Refusal::new("not-admitted", "told so".to_owned())),
            _ => Ok(number),
        }
    }
}

/// A server on a network of pipes.
pub struct Server {
    dial: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
    pub spki: SpkiDigest,
}

impl Server {
    pub fn start(attestation: AttestationService, rule: ClientRule, purpose: Purpose) -> Self {
        Self::with_limits(attestation, rule, purpose, ServeLimits::default())
    }

    pub fn with_limits(
        attestation: AttestationService,
        rule: ClientRule,
        purpose: Purpose,
        limits: ServeLimits,
    ) -> Self {
        Self::with_services(attestation, rule, purpose, limits, Routes::default())
    }

    pub fn with_services(
        attestation: AttestationService,
        rule: ClientRule,
        purpose: Purpose,
        limits: ServeLimits,
        services: Routes,
    ) -> Self {
        let identity = Identity::generate("server").unwrap();
        let tls = ServerTls::new(&identity, rule, purpose).unwrap();
        let (dial, incoming) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            let incoming = UnboundedReceiverStream::new(incoming);
            serve(incoming, tls, attestation, services, limits, shutdown).await.unwrap();
        });
        Self { dial, stop: Some(stop), task, spki: identity.spki() }
    }

    pub fn broker(appraiser: Arc<Credulous>) -> Self {
        Self::start(AttestationService::verifier(appraiser), ClientRule::AttestedAfter, Purpose::Kbs)
    }

    pub fn agent() -> Self {
        Self::start(AttestationService::attester(Arc::new(Guest)), ClientRule::AuthorizedPerCall, Purpose::Control)
    }

    pub fn dial(&self) -> DuplexStream {
        let (near, far) = duplex(64 * 1024);
        self.dial.send(Ok(far)).unwrap();
        near
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        drop(self.dial);
        self.task.await.unwrap();
    }
}

/// A client that speaks the protocol by hand.
pub struct Raw {
    pub client: AttestationClient<Channel>,
    pub channel: Channel,
    pub facts: TlsFacts,
}

impl Raw {
    pub async fn connect(server: &Server, purpose: Purpose) -> Self {
        Self::connect_as(&Identity::generate("attacker").unwrap(), server, purpose).await
    }

    pub async fn connect_as(identity: &Identity, server: &Server, purpose: Purpose) -> Self {
        let tls = ClientTls::new(identity, PeerPin::Spki(vec![server.spki]), purpose).unwrap();
        let (channel, facts) = connect_pinned(server.dial(), &tls).await.unwrap();
        Self { client: AttestationClient::new(channel.clone()), channel, facts }
    }

    pub async fn challenge(&mut self) -> [u8; 32] {
        let response = self.client.challenge(ChallengeRequest {}).await.unwrap().into_inner();
        response.challenge.try_into().unwrap()
    }

    pub async fn answer(&mut self, answer: AttestedEvidence) -> Result<AttestResponse, Status> {
        let request = AttestRequest { side: Some(attest_request::Side::Answer(answer)) };
        Ok(self.client.attest(request).await?.into_inner())
    }

    /// Takes a challenge and answers it with fields of the attacker's choice.
    pub async fn attempt(&mut self, change: impl FnOnce(&mut Fields)) -> Result<AttestResponse, Status> {
        let challenge = self.challenge().await;
        let mut fields = Fields::honest(&self.facts, challenge);
        change(&mut fields);
        self.answer(fields.answer()).await
    }
}

/// Everything a report binds, each field open to change, and what is sent beside it.
#[derive(Clone)]
pub struct Fields {
    pub role: Role,
    pub purpose: Vec<u8>,
    pub exporter: [u8; 32],
    pub challenge: [u8; 32],
    pub own: SpkiDigest,
    pub peer: SpkiDigest,
    pub bound_key: EncryptionKey,
    pub bound_workload: WorkloadDigest,
    pub sent_key: EncryptionKey,
    pub sent_spec: Vec<u8>,
    pub host_data: [u8; 32],
}

impl Fields {
    pub fn honest(facts: &TlsFacts, challenge: [u8; 32]) -> Self {
        let mut point = vec![4];
        point.resize(97, 9);
        let key = EncryptionKey { kem: 0x11, kdf: 2, aead: 2, public_key: point };
        Self {
            role: facts.role(),
            purpose: facts.alpn().to_vec(),
            exporter: *facts.exporter(facts.role()),
            challenge,
            own: *facts.own_spki(),
            peer: *facts.peer_spki(),
            bound_key: key.clone(),
            bound_workload: WorkloadDigest::of(SPEC),
            sent_key: key,
            sent_spec: SPEC.to_vec(),
            host_data: *WorkloadDigest::of(SPEC).as_bytes(),
        }
    }

    pub fn answer(&self) -> AttestedEvidence {
        let report_data = ConnectionBinding {
            role: self.role,
            purpose: &self.purpose,
            exporter: &self.exporter,
            challenge: &self.challenge,
            own_spki: &self.own,
            peer_spki: &self.peer,
            encryption_key: &self.bound_key,
            workload: &self.bound_workload,
        }
        .report_data();
        AttestedEvidence {
            evidence: Some(proto::Evidence {
                report: report(&report_data, &self.host_data),
                cert_table: vec![],
                crls: vec![],
                workload_spec: self.sent_spec.clone(),
            }),
            encryption_key: Some(proto::EncryptionKey {
                kem: self.sent_key.kem.into(),
                kdf: self.sent_key.kdf.into(),
                aead: self.sent_key.aead.into(),
                public_key: self.sent_key.public_key.clone(),
            }),
        }
    }
}

/// The stable word of a refusal.
pub fn code<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "admitted".to_owned(),
        Err(status) => status.message().to_owned(),
    }
}
