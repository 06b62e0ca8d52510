//! The attacks on evidence, one by one, on a port between guests and on one for anybody: each by an attacker who has a genuine guest
//! that signs whatever he wants, and each refused by its name.
//!
//! The same fields on native RA-TLS: verifier/ratls/tests/attestation.rs. Who is which guest: box_to_box.rs.

#[path = "../../tests/attacker_tls.rs"]
mod attacker_tls;
mod guests;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use attacker_tls::{attacker_server, begins_anew, certified, with_tickets};

use coffer_guest::peers::Road as _;
use coffer_ratls::{
    AttestationService, Attester, AttesterError, ClientRule, ClientTls, Denial, Identity, PeerPin, Purpose,
    ServeLimits, ServerTls, StreamError, StreamRefusal, TlsFacts, connect_listed, open_stream,
    proto::{
        self, AttestRequest, AttestedEvidence, ChallengeRequest, attest_request, attestation_client::AttestationClient,
    },
};
use coffer_spec::{IngressClients, Tee, sample::workload};
use coffer_verifier::{
    abi::{CertKind, CertTable, ReportData, SpkiDigest, WorkloadDigest},
    binding::{ConnectionBinding, EncryptionKey, Role, nonce_report_data, workload_report_data},
    evidence::Evidence,
};
use guests::{CLIENT, Client, Guest, Launch, OwnersPort, SERVER, Server, client_spec, dialler, guests_alone, signed};
use rustls::HandshakeKind;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use tonic::{Status, service::Routes, transport::Channel};

/// What a client's report binds, and what is sent beside it.
#[derive(Clone)]
struct Fields {
    role: Role,
    purpose: Vec<u8>,
    exporter: [u8; 32],
    challenge: [u8; 32],
    own: SpkiDigest,
    peer: SpkiDigest,
    bound: EncryptionKey,
    workload: WorkloadDigest,
    sent: EncryptionKey,
}

impl Fields {
    fn report_data(&self) -> ReportData {
        ConnectionBinding {
            role: self.role,
            purpose: &self.purpose,
            exporter: &self.exporter,
            challenge: &self.challenge,
            own_spki: &self.own,
            peer_spki: &self.peer,
            encryption_key: &self.bound,
            workload: &self.workload,
        }
        .report_data()
    }
}

/// A client of a port for guests, who speaks the protocol by hand and has a guest that the port would admit.
struct Attacker {
    client: AttestationClient<Channel>,
    channel: Channel,
    facts: TlsFacts,
    guest: Arc<Guest>,
}

impl Attacker {
    async fn of(server: &Server) -> Self {
        let tls = ClientTls::new(
            &Identity::generate("attacker").unwrap(),
            PeerPin::AttestedAfter,
            Purpose::Ingress(server.port),
        );
        let (channel, facts) = connect_listed(server.road().open().await.unwrap(), &tls.unwrap()).await.unwrap();
        let guest = CLIENT.start(&client_spec(server.port, signed(SERVER)));
        let mut client = AttestationClient::new(channel.clone());
        // Who is given no evidence is given no stream for that alone.
        let asked = AttestRequest { side: Some(attest_request::Side::Challenge(vec![7; 32])) };
        client.attest(asked).await.unwrap();
        Self { client, channel, facts, guest }
    }

    async fn challenge(&mut self) -> [u8; 32] {
        self.client.challenge(ChallengeRequest {}).await.unwrap().into_inner().challenge.try_into().unwrap()
    }

    fn honest(&self, challenge: [u8; 32]) -> Fields {
        let (facts, role) = (&self.facts, self.facts.role());
        let key = EncryptionKey { kem: 0x11, kdf: 2, aead: 2, public_key: [&[4][..], &[9; 96]].concat() };
        Fields {
            role,
            purpose: facts.alpn().to_vec(),
            exporter: *facts.exporter(role),
            challenge,
            own: *facts.own_spki(),
            peer: *facts.peer_spki(),
            bound: key.clone(),
            workload: self.guest.workload(),
            sent: key,
        }
    }

    /// The guest's evidence for these fields, or for what stands in their place.
    fn evidence(&self, report_data: &ReportData, fields: &Fields) -> AttestedEvidence {
        let made = self.guest.evidence(report_data).unwrap();
        let Evidence { report, cert_table, crls, workload_spec } = made;
        let key = &fields.sent;
        AttestedEvidence {
            evidence: Some(proto::Evidence { report, cert_table, crls, workload_spec }),
            encryption_key: Some(proto::EncryptionKey {
                kem: key.kem.into(),
                kdf: key.kdf.into(),
                aead: key.aead.into(),
                public_key: key.public_key.clone(),
            }),
        }
    }

    /// The word of its refusal.
    async fn answer(&mut self, answer: AttestedEvidence) -> String {
        let request = AttestRequest { side: Some(attest_request::Side::Answer(answer)) };
        match self.client.attest(request).await {
            Ok(_) => "admitted".to_owned(),
            Err(status) => word(&status),
        }
    }

    async fn gets_no_stream(&self) -> bool {
        let refused = open_stream::<DuplexStream>(self.channel.clone()).await.err();
        matches!(refused, Some(StreamError::Refused(StreamRefusal::NotAdmitted)))
    }
}

fn word(status: &Status) -> String {
    Denial::of(status).map_or_else(|| status.message().to_owned(), |denial| denial.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_of_a_clients_evidence_is_checked_against_the_ports_own_end() {
    type Change = fn(&mut Fields, &TlsFacts);
    let changes: [(&str, Change); 12] = [
        ("reflected: the server's role", |fields, _| fields.role = Role::Server),
        ("reflected: the server's exporter", |fields, facts| fields.exporter = *facts.exporter(Role::Server)),
        ("own and peer exchanged", |fields, _| std::mem::swap(&mut fields.own, &mut fields.peer)),
        ("of another connection", |fields, _| fields.exporter[0] ^= 1),
        ("for another port", |fields, _| fields.purpose = Purpose::Ingress(1).alpn()),
        ("for an agent", |fields, _| fields.purpose = Purpose::Control.alpn()),
        ("no purpose", |fields, _| fields.purpose.clear()),
        ("another challenge", |fields, _| fields.challenge[31] ^= 1),
        ("swapped client key", |fields, _| fields.own = SpkiDigest::new([2; 32])),
        ("another server key", |fields, _| fields.peer = SpkiDigest::new([2; 32])),
        ("another encryption key", |fields, _| fields.sent.public_key[50] ^= 1),
        ("another workload", |fields, _| fields.workload = WorkloadDigest::of(b"other")),
    ];
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    for (name, change) in changes {
        let mut attacker = Attacker::of(&server).await;
        let challenge = attacker.challenge().await;
        let mut fields = attacker.honest(challenge);
        change(&mut fields, &attacker.facts);
        let answer = attacker.evidence(&fields.report_data(), &fields);
        assert_eq!(attacker.answer(answer).await, "report-data", "{name}");
        assert!(attacker.gets_no_stream().await, "{name}");
    }
    assert_eq!(server.streams(), 0);
    // He can do it right, too.
    let mut attacker = Attacker::of(&server).await;
    let challenge = attacker.challenge().await;
    let fields = attacker.honest(challenge);
    let answer = attacker.evidence(&fields.report_data(), &fields);
    assert_eq!(attacker.answer(answer).await, "admitted");
    assert!(open_stream::<DuplexStream>(attacker.channel.clone()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_shows_something_else_in_evidences_place_is_refused_by_name() {
    type Change = fn(&mut proto::Evidence);
    let changes: [(&str, Change, &str); 6] = [
        ("a truncated report", |evidence| evidence.report.truncate(1183), "evidence-malformed"),
        ("no report", |evidence| evidence.report.clear(), "evidence-malformed"),
        ("no spec", |evidence| evidence.workload_spec.clear(), "evidence-malformed"),
        ("another spec", |evidence| evidence.workload_spec.push(b'\n'), "report-data"),
        ("no certificates", |evidence| evidence.cert_table.clear(), "endorsement-missing"),
        (
            "no revocation list",
            |evidence| evidence.cert_table = without_list(&evidence.cert_table),
            "endorsement-missing",
        ),
    ];
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    for (name, change, expected) in changes {
        let mut attacker = Attacker::of(&server).await;
        let challenge = attacker.challenge().await;
        let fields = attacker.honest(challenge);
        let mut answer = attacker.evidence(&fields.report_data(), &fields);
        change(answer.evidence.as_mut().unwrap());
        assert_eq!(attacker.answer(answer).await, expected, "{name}");
        assert!(attacker.gets_no_stream().await, "{name}");
    }
    // Evidence that is genuine and has another label, or none: what a workload, or anybody over a nonce, can have of its agent.
    for (name, other) in [
        ("empty", (|_: &Fields| ReportData::new([0; 64])) as fn(&Fields) -> ReportData),
        ("of a workload", |fields| workload_report_data(&fields.workload, &fields.challenge)),
        ("over a nonce", |fields| nonce_report_data(&fields.workload, &fields.challenge)),
    ] {
        let mut attacker = Attacker::of(&server).await;
        let challenge = attacker.challenge().await;
        let fields = attacker.honest(challenge);
        let answer = attacker.evidence(&other(&fields), &fields);
        assert_eq!(attacker.answer(answer).await, "report-data", "{name}");
    }
    assert_eq!(server.streams(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_of_a_port_is_answered_once_and_the_last_one_counts() {
    let server = Server::start(SERVER, guests_alone(CLIENT)).await;
    let mut attacker = Attacker::of(&server).await;
    let stale = attacker.challenge().await;
    let _newer = attacker.challenge().await;
    let fields = attacker.honest(stale);
    let answer = attacker.evidence(&fields.report_data(), &fields);
    assert_eq!(attacker.answer(answer.clone()).await, "report-data", "a challenge that another replaced");
    assert_eq!(attacker.answer(answer).await, "challenge-missing", "spent on failure, too");

    let mut attacker = Attacker::of(&server).await;
    let challenge = attacker.challenge().await;
    let fields = attacker.honest(challenge);
    let answer = attacker.evidence(&fields.report_data(), &fields);
    assert_eq!(attacker.answer(answer.clone()).await, "admitted");
    assert_eq!(attacker.answer(answer).await, "challenge-missing", "reused");
    assert!(attacker.gets_no_stream().await, "a refused answer leaves nothing");
}

fn without_list(table: &[u8]) -> Vec<u8> {
    let table = CertTable::parse(table).unwrap();
    let kept: Vec<_> = table.entries().iter().copied().filter(|(kind, _)| *kind != CertKind::Crl).collect();
    assert!(kept.len() < table.entries().len());
    CertTable::write(&kept)
}

/// A guest's evidence, changed on its way by whoever answers for it.
struct Twisted {
    guest: Arc<Guest>,
    data: Data,
    change: Change,
}

type Data = fn(&ReportData) -> ReportData;
type Change = fn(&mut Evidence);

impl Attester for Twisted {
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, AttesterError> {
        let mut evidence = self.guest.evidence(&(self.data)(report_data))?;
        (self.change)(&mut evidence);
        Ok(evidence)
    }

    fn workload(&self) -> WorkloadDigest {
        self.guest.workload()
    }
}

/// A port of an ingress as an attacker would have it, who has a guest of this launch.
async fn meets(launch: Launch, data: Data, change: Change) -> Client {
    let port = 8080;
    let guest = launch.start(&workload(Tee::Simulated));
    let (sender, incoming) = mpsc::unbounded_channel();
    let identity = Identity::generate("attacker").unwrap();
    let tls = ServerTls::new(&identity, ClientRule::AuthorizedPerCall, Purpose::Ingress(port)).unwrap();
    tokio::spawn(coffer_ratls::serve(
        tokio_stream::wrappers::UnboundedReceiverStream::new(incoming),
        tls,
        AttestationService::attester(Arc::new(Twisted { guest, data, change })),
        Routes::default(),
        ServeLimits::default(),
        std::future::pending(),
    ));
    Client::start(dialler(Pipes(sender), CLIENT, port, signed(SERVER)), 8).await
}

struct Pipes(mpsc::UnboundedSender<std::io::Result<DuplexStream>>);

impl coffer_guest::peers::Road for Pipes {
    type Io = DuplexStream;

    async fn open(&self) -> std::io::Result<Self::Io> {
        let (near, far) = duplex(64 << 10);
        self.0.send(Ok(far)).map_err(std::io::Error::other)?;
        Ok(near)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_an_ingress_refuses_each_twist_by_name_before_a_byte_of_its_own() {
    let same: Data = |data| *data;
    let twists: [(&str, Data, Change, &str); 8] = [
        ("of another connection", |_| ReportData::new([9; 64]), |_| {}, "report-data"),
        ("empty", |_| ReportData::new([0; 64]), |_| {}, "report-data"),
        ("a truncated report", same, |evidence| evidence.report.truncate(1183), "evidence-malformed"),
        ("no report", same, |evidence| evidence.report.clear(), "evidence-malformed"),
        ("no spec", same, |evidence| evidence.workload_spec.clear(), "evidence-malformed"),
        ("another spec", same, |evidence| evidence.workload_spec.push(b'\n'), "report-data"),
        ("no certificates", same, |evidence| evidence.cert_table.clear(), "endorsement-missing"),
        (
            "no revocation list",
            same,
            |evidence| evidence.cert_table = without_list(&evidence.cert_table),
            "endorsement-missing",
        ),
    ];
    for (name, data, change, expected) in twists {
        println!("{name}");
        meets(SERVER, data, change).await.is_refused(&["coffer: peer db: it is not admitted", expected]).await;
    }
    // The attacker's own guest, genuine in all but who it is.
    meets(CLIENT, same, |_| {}).await.is_refused(&["coffer: peer db: it is not admitted", "signer"]).await;
    let anybody = Server::start(SERVER, IngressClients::Anyone).await;
    assert_eq!(Client::to(&anybody, CLIENT, signed(SERVER)).await.ask(b"hello").await.unwrap(), b"hello");
}

/// TLS alone, and in front of whatever a port is for: a session that is resumed shows nothing of its peer's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_resumes_a_session_or_gives_a_ticket_for_one() {
    for clients in [IngressClients::Anyone, guests_alone(CLIENT)] {
        let server = Server::start(SERVER, clients).await;
        let alpn = Purpose::Ingress(server.port).alpn();
        let connector = with_tickets(&Identity::generate("attacker").unwrap(), alpn).await;
        for _ in 0..3 {
            begins_anew(&connector, server.road().open().await.unwrap()).await;
        }
        assert_eq!(server.streams(), 0);
    }
}

/// The same at the port of the agent's owners, as init opens it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_the_port_of_owners() {
    let owners = OwnersPort::of(&workload(Tee::Simulated));
    let connector = with_tickets(&Identity::generate("attacker").unwrap(), Purpose::Control.alpn()).await;
    for _ in 0..3 {
        begins_anew(&connector, owners.road().open().await.unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_guest_comes_back_to_a_peer_with_a_ticket() {
    let (sender, mut incoming) = mpsc::unbounded_channel::<std::io::Result<DuplexStream>>();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let (noted, peer) = (kinds.clone(), Identity::generate("attacker").unwrap());
    tokio::spawn(async move {
        while let Some(Ok(stream)) = incoming.recv().await {
            attacker_server(certified(&peer, None), vec![Purpose::Ingress(8080).alpn()], stream, true, &noted).await;
        }
    });
    let client = Client::start(dialler(Pipes(sender), CLIENT, 8080, signed(SERVER)), 8).await;
    for _ in 0..2 {
        assert!(client.ask(b"secret").await.is_err());
        // It does not dial again at once.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let kinds = kinds.lock().unwrap();
    assert!(kinds.len() > 1 && kinds.iter().all(|kind| *kind == HandshakeKind::Full), "{kinds:?}");
}
