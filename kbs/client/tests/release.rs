//! A secret reaches the guest whose connection attested, under its tenant, path and version; and nobody else.

mod common;

use std::{
    io,
    sync::{Arc, Mutex},
};

use coffer_kbs_client::{
    BrokerClient, ClientError, GET_SECRET, Meter, ResourcePath,
    kbs::v1::{
        GenerationRequest, GenerationResponse, GetSealingKeyRequest, GetSealingKeyResponse, GetSecretRequest,
        GetSecretResponse, IssueCertificateRequest, IssueCertificateResponse, IssueTokenRequest, IssueTokenResponse,
        Sealed, broker_client,
        broker_server::{Broker, BrokerServer},
    },
    secret_aad,
};
use coffer_ratls::{
    AttestationService, Attested, ClientRule, ClientTls, Identity, PeerPin, Purpose, ServeLimits, ServerTls, attested,
    connect_pinned, denied, serve,
};
use coffer_verifier::abi::SpkiDigest;
use common::{Everything, Guest};
use secrecy::ExposeSecret;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Response, Status, service::Routes};

/// How the fake broker seals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Rightly,
    ForAnotherTenant,
    ForAnotherPath,
    ForAnotherVersion,
    ForAnotherMethod,
    ToTheFirstConnection,
    StaleOnce,
    Refusing,
    TooOften,
    Empty,
}

struct FakeBroker {
    manner: Manner,
    first: Mutex<Option<Arc<Attested<()>>>>,
    calls: Mutex<usize>,
}

#[tonic::async_trait]
impl Broker for FakeBroker {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let mut peer = attested::<(), _>(&request)?;
        let first_call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls == 1
        };
        match self.manner {
            Manner::Refusing => return Err(denied(Code::PermissionDenied, "not-released").0),
            Manner::TooOften => return Err(denied(Code::ResourceExhausted, "too-many-requests").0),
            Manner::StaleOnce if first_call => return Err(denied(Code::Unauthenticated, "attestation-stale").0),
            Manner::Empty => return Ok(Response::new(GetSecretResponse { version: 3, value: None })),
            Manner::ToTheFirstConnection => peer = self.first.lock().unwrap().get_or_insert(peer).clone(),
            _ => {}
        }
        let path: ResourcePath = request.get_ref().path.parse().unwrap();
        let other: ResourcePath = "kbs:///other/other/other".parse().unwrap();
        let aad = match self.manner {
            Manner::ForAnotherTenant => secret_aad("globex", &path, 3),
            Manner::ForAnotherPath => secret_aad("acme", &other, 3),
            Manner::ForAnotherVersion => secret_aad("acme", &path, 4),
            _ => secret_aad("acme", &path, 3),
        };
        let method = if self.manner == Manner::ForAnotherMethod { "coffer.kbs.v1.Broker/Other" } else { GET_SECRET };
        let value: Sealed = peer.seal(method, &aad, b"hunter2").unwrap().into();
        Ok(Response::new(GetSecretResponse { version: 3, value: Some(value) }))
    }

    async fn get_sealing_key(
        &self,
        _: Request<GetSealingKeyRequest>,
    ) -> Result<Response<GetSealingKeyResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn generation(&self, _: Request<GenerationRequest>) -> Result<Response<GenerationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue_certificate(
        &self,
        _: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<IssueTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Network {
    dial: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    spki: SpkiDigest,
}

impl Network {
    fn start(manner: Manner) -> Self {
        let identity = Identity::generate("broker").unwrap();
        let tls = ServerTls::new(&identity, ClientRule::AttestedAfter, Purpose::Kbs).unwrap();
        let (dial, incoming) = mpsc::unbounded_channel();
        let broker = FakeBroker { manner, first: Mutex::default(), calls: Mutex::default() };
        tokio::spawn(serve(
            UnboundedReceiverStream::new(incoming),
            tls,
            AttestationService::verifier(Arc::new(Everything)),
            Routes::new(BrokerServer::new(broker)),
            ServeLimits::default(),
            std::future::pending(),
        ));
        Self { dial, spki: identity.spki() }
    }

    fn dial(&self) -> DuplexStream {
        let (near, far) = duplex(64 * 1024);
        self.dial.send(Ok(far)).unwrap();
        near
    }

    async fn guest(&self) -> BrokerClient {
        let identity = Identity::generate("guest").unwrap();
        BrokerClient::connect(self.dial(), &identity, "acme", vec![self.spki], Arc::new(Guest)).await.unwrap()
    }
}

fn path() -> ResourcePath {
    "kbs:///default/app/password".parse().unwrap()
}

#[tokio::test]
async fn an_attested_guest_gets_its_secret() {
    let network = Network::start(Manner::Rightly);
    let guest = network.guest().await;
    let secret = guest.secret(&path()).await.unwrap();
    assert_eq!((secret.value.expose_secret().as_slice(), secret.version), (b"hunter2".as_slice(), 3));
    guest.connection().renew().await.unwrap();
    assert_eq!(guest.secret(&path()).await.unwrap().value.expose_secret().as_slice(), b"hunter2");
}

#[tokio::test]
async fn a_client_that_did_not_attest_on_this_connection_gets_nothing() {
    let network = Network::start(Manner::Rightly);
    let identity = Identity::generate("guest").unwrap();
    // The same key attests on another connection; that is worth nothing here.
    let elsewhere =
        BrokerClient::connect(network.dial(), &identity, "acme", vec![network.spki], Arc::new(Guest)).await.unwrap();
    let tls = ClientTls::new(&identity, PeerPin::Spki(vec![network.spki]), Purpose::Kbs).unwrap();
    let (channel, _) = connect_pinned(network.dial(), &tls).await.unwrap();
    let request = GetSecretRequest { path: path().to_string(), version: None };
    let status = broker_client::BrokerClient::new(channel).get_secret(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation-required"));
    elsewhere.secret(&path()).await.unwrap();
}

#[tokio::test]
async fn what_was_sealed_otherwise_does_not_open() {
    for manner in
        [Manner::ForAnotherTenant, Manner::ForAnotherPath, Manner::ForAnotherVersion, Manner::ForAnotherMethod]
    {
        let network = Network::start(manner);
        let guest = network.guest().await;
        assert!(matches!(guest.secret(&path()).await, Err(ClientError::Sealed(_))));
    }
}

#[tokio::test]
async fn a_secret_sealed_to_another_connection_does_not_open() {
    let network = Network::start(Manner::ToTheFirstConnection);
    let (first, second) = (network.guest().await, network.guest().await);
    first.secret(&path()).await.unwrap();
    assert!(matches!(second.secret(&path()).await, Err(ClientError::Sealed(_))));
    first.connection().renew().await.unwrap();
    assert!(matches!(first.secret(&path()).await, Err(ClientError::Sealed(_))), "nor on the same one after renewal");
}

#[tokio::test]
async fn a_guest_whose_report_is_too_old_attests_again_once() {
    let network = Network::start(Manner::StaleOnce);
    let guest = network.guest().await;
    assert_eq!(guest.secret(&path()).await.unwrap().version, 3);
}

/// Questions, and how often the broker wanted fewer.
#[derive(Default)]
struct Counted(Mutex<(u32, u32)>);

impl Meter for Counted {
    fn asked(&self) {
        self.0.lock().unwrap().0 += 1;
    }

    fn too_often(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

#[tokio::test]
async fn each_question_is_counted_also_the_second_after_a_new_report() {
    for (manner, expected) in
        [(Manner::Rightly, (1, 0)), (Manner::StaleOnce, (2, 0)), (Manner::Refusing, (1, 0)), (Manner::TooOften, (1, 1))]
    {
        let counted = Arc::new(Counted::default());
        let network = Network::start(manner);
        let guest = network.guest().await.metered(counted.clone());
        let _ = guest.secret(&path()).await;
        assert_eq!(*counted.0.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn refusal_absence_and_silence_are_told_apart() {
    let network = Network::start(Manner::Refusing);
    let refused = network.guest().await.secret(&path()).await.err().unwrap();
    assert!(matches!(&refused, ClientError::Refused { code, id } if code == "not-released" && id.len() == 16));
    let network = Network::start(Manner::TooOften);
    let later = network.guest().await.secret(&path()).await.err().unwrap();
    assert!(matches!(later, ClientError::TooOften), "{later:?}");
    let network = Network::start(Manner::Empty);
    let empty = network.guest().await.secret(&path()).await.err().unwrap();
    assert!(matches!(empty, ClientError::Protocol { .. }));

    let identity = Identity::generate("guest").unwrap();
    let (near, far) = duplex(64);
    drop(far);
    let gone = BrokerClient::connect(near, &identity, "acme", vec![identity.spki()], Arc::new(Guest)).await;
    assert!(matches!(gone.err(), Some(ClientError::Unreachable { .. })));

    let network = Network::start(Manner::Rightly);
    let other = vec![SpkiDigest::new([1; 32])];
    let result = BrokerClient::connect(network.dial(), &identity, "acme", other, Arc::new(Guest)).await;
    assert!(matches!(result.err(), Some(ClientError::PinMismatch { found, .. }) if found == network.spki));
}
