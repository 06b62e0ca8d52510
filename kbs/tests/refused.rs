//! Who gets nothing, in one table: the word the peer hears, and the one the trail has for it.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    common::{self, Guest, Kbs, Launch, PATH, Replay, TENANT, VALUE, anchor, ask, spec},
    guest_api::workload_identity,
    operation::with_floor,
    trust::{MANIFEST_KEY, add, contents, list_key, sign},
};
use coffer_kbs::State;
use coffer_kbs_client::{AdminClient, AdminProfile, BrokerClient, ClientError, kbs::v1 as wire};
use coffer_ratls::{
    AttestationService, Attester, ClientRule, ClientTls, Denial, Identity, PeerPin, Purpose, ServeLimits, ServerTls,
    TlsFacts, connect_pinned,
    proto::{
        self, AttestRequest, AttestedEvidence, ChallengeRequest, attest_request, attestation_client::AttestationClient,
    },
    serve,
};
use coffer_simulator::LaunchOptions;
use coffer_verifier::{
    Expiry, UnixTime,
    abi::{ProductLine, SpkiDigest},
    binding::{ConnectionBinding, EncryptionKey, Role},
};
use tokio::net::TcpStream;
use tonic::{service::Routes, transport::Channel};

/// Who; the word the peer hears; with what a reason in the trail begins, where {m} and {w} are the guest's measurement and workload,
/// {M} and {W} the listed ones.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "wrong measurement",
        "not-released",
        "measurement-and-workload: found {m} for {w}, expected a pair listed for it; there is none",
    ),
    ("wrong workload", "not-released", "measurement-and-workload: found {m} for {w}, expected {m} for {W}"),
    (
        "right HOST_DATA on a foreign kernel",
        "not-released",
        "measurement-and-workload: found {m} for {w}, expected {M} for {w}",
    ),
    ("simulated anchor not listed", "evidence-not-authentic", "untrusted-root: "),
    ("listed, but the secret without allow_simulated", "not-released", "anchor: evidence is simulated"),
    ("workload certificate offered as a broker", "pin-mismatch", NOT_ASKED),
    ("another broker in its place", "pin-mismatch", NOT_ASKED),
    ("workload certificate offered as an operator", "key-not-admitted", "key: no operator has it"),
    ("silent reconnect", "attestation-required", "attestation: there is none on this connection"),
    ("old TCB", "evidence-refused", "tcb-minimum: "),
    ("denied chip", "evidence-refused", "chip-denied: "),
    ("revoked chip", "not-released", "revoked: chip "),
    ("debug guest", "evidence-refused", "debug: "),
    ("replayed evidence", "report-data", ONE_HASH),
    ("relayed evidence", "report-data", ONE_HASH),
    ("reflected evidence", "report-data", ONE_HASH),
    ("swapped client key", "report-data", ONE_HASH),
    ("stale challenge", "challenge-missing", "challenge-missing: "),
    ("expired reference", "not-released", "reference: test expired at "),
    ("expired manifest", "not-released", "manifest web sequence 5: expired at "),
    ("manifest too old", "not-released", "manifest web sequence 5: revoked"),
    ("manifest past its greatest age", "not-released", "manifest web sequence 5: made at "),
    ("missing policy", "not-released", "policy: the secret's policy lax is not loaded"),
    ("other tenant", "not-released", "secret: there is none at this path"),
    ("deleted version", "not-released", "secret: version 1 was deleted"),
    ("lower CRL number after a restart", "evidence-not-authentic", "crl-number: "),
];

/// Broker and guest never came to terms: the guest is who refuses.
const NOT_ASKED: &str = "";
/// REPORT_DATA is one hash over all that evidence is bound to: which of it differs cannot be said.
const ONE_HASH: &str = "report-data: REPORT_DATA is ";

/// What came of it: the broker, the word that was heard, the id that came with it, and the guest.
struct Heard {
    kbs: Kbs,
    word: String,
    id: String,
    guest: Arc<Guest>,
}

impl Heard {
    fn new<T>(kbs: Kbs, guest: Arc<Guest>, result: Result<T, ClientError>) -> Self {
        let (word, id) = match result {
            Err(ClientError::Refused { code, id }) => (code, id),
            Err(ClientError::PinMismatch { .. }) => ("pin-mismatch".to_owned(), String::new()),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it got something"),
        };
        Self { kbs, word, id, guest }
    }

    /// A guest that connects and asks for the secret.
    async fn by(kbs: Kbs, guest: Arc<Guest>) -> Self {
        let result = match kbs.connect(guest.clone()).await {
            Ok(client) => ask(&client, PATH).await,
            Err(error) => Err(error),
        };
        Self::new(kbs, guest, result)
    }

    fn of_status(kbs: Kbs, guest: Arc<Guest>, status: &tonic::Status) -> Self {
        let Denial { code: word, id } = Denial::of(status).unwrap_or_else(|| panic!("no refusal: {status:?}"));
        Self { kbs, word, id, guest }
    }
}

/// A broker that admits the usual guest, which has just got its secret there.
async fn ready() -> (Kbs, Arc<Guest>, BrokerClient) {
    let (kbs, guest) = (Kbs::start().await, Guest::usual());
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    (kbs, guest, client)
}

/// A client that speaks the protocol by hand.
struct Raw {
    channel: Channel,
    client: AttestationClient<Channel>,
    facts: TlsFacts,
}

impl Raw {
    async fn connect(kbs: &Kbs, identity: &Identity) -> Self {
        let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
        let tls = ClientTls::new(identity, PeerPin::Spki(vec![kbs.addresses.pin]), Purpose::Kbs).unwrap();
        let (channel, facts) = connect_pinned(stream, &tls).await.unwrap();
        Self { client: AttestationClient::new(channel.clone()), channel, facts }
    }

    async fn challenge(&mut self) -> [u8; 32] {
        let response = self.client.challenge(ChallengeRequest {}).await.unwrap();
        response.into_inner().challenge.try_into().unwrap()
    }

    async fn answer(&mut self, answer: AttestedEvidence) -> Result<(), tonic::Status> {
        let request = AttestRequest { side: Some(attest_request::Side::Answer(answer)) };
        self.client.attest(request).await.map(|_| ())
    }
}

/// What a genuine guest answers on a connection, as which end, with which key.
fn evidence(guest: &Guest, facts: &TlsFacts, challenge: &[u8; 32], role: Role, own: &SpkiDigest) -> AttestedEvidence {
    let secret = p384::ecdsa::SigningKey::from_slice(&[9; 48]).unwrap();
    let public_key = secret.verifying_key().to_sec1_point(false).as_bytes().to_vec();
    let key = EncryptionKey { kem: 0x11, kdf: 2, aead: 2, public_key: public_key.clone() };
    let bound = ConnectionBinding {
        role,
        purpose: facts.alpn(),
        exporter: facts.exporter(role),
        challenge,
        own_spki: own,
        peer_spki: facts.peer_spki(),
        encryption_key: &key,
        workload: &guest.document.digest(),
    };
    let made = guest.evidence(&bound.report_data()).unwrap();
    AttestedEvidence {
        evidence: Some(proto::Evidence {
            report: made.report,
            cert_table: made.cert_table,
            crls: made.crls,
            workload_spec: made.workload_spec,
        }),
        encryption_key: Some(proto::EncryptionKey { kem: 0x11, kdf: 2, aead: 2, public_key }),
    }
}

/// One whose evidence is genuine, and bound to something else than the connection it is shown on.
async fn bound_elsewhere(make: impl AsyncFnOnce(&Kbs, &Guest, &Raw, [u8; 32]) -> AttestedEvidence) -> Heard {
    let (kbs, guest, _) = ready().await;
    let mut raw = Raw::connect(&kbs, &Identity::generate("guest").unwrap()).await;
    // The tool works when nothing is wrong.
    let (challenge, own) = (raw.challenge().await, *raw.facts.own_spki());
    raw.answer(evidence(&guest, &raw.facts, &challenge, Role::Client, &own)).await.unwrap();
    let challenge = raw.challenge().await;
    let answer = make(&kbs, &guest, &raw, challenge).await;
    let status = raw.answer(answer).await.unwrap_err();
    Heard::of_status(kbs, guest, &status)
}

/// A broker that admits the guest by a manifest of sequence 5, from now on for ten minutes.
async fn by_manifest(kbs: Kbs) -> (Kbs, Arc<Guest>) {
    let guest = Guest::usual();
    kbs.put(PATH, true).await;
    assert!(list_key(&kbs, MANIFEST_KEY).await);
    let manifest = contents(5, guest.measurement, guest.document.digest());
    assert_eq!(add(&kbs, sign(manifest, MANIFEST_KEY)).await, Ok(true));
    let client = kbs.connect(guest.clone()).await.unwrap();
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    (kbs, guest)
}

fn other_workload() -> Launch {
    let mut changed = spec(&[PATH]);
    changed.process.argv = vec!["/bin/sh".into()];
    Launch { spec: changed, ..Launch::default() }
}

async fn offered_as_a_broker() -> Heard {
    let (kbs, guest, client) = ready().await;
    let certified = workload_identity(&kbs, &client).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let tls = ServerTls::new(&certified, ClientRule::AttestedAfter, Purpose::Kbs).unwrap();
    let service = AttestationService::attester(guest.clone());
    let incoming = tokio_stream::StreamExt::chain(
        tokio_stream::once(Ok::<_, std::io::Error>(far)),
        tokio_stream::pending::<Result<_, std::io::Error>>(),
    );
    let serving =
        tokio::spawn(serve(incoming, tls, service, Routes::default(), ServeLimits::default(), std::future::pending()));
    let identity = Identity::generate("guest").unwrap();
    let met = BrokerClient::connect(near, &identity, TENANT, vec![kbs.addresses.pin], guest.clone()).await;
    serving.abort();
    Heard::new(kbs, guest, met)
}

/// The host leads the guest to a broker of its own, which would admit it and has a value under the path.
async fn exchanged() -> Heard {
    let (kbs, guest, client) = ready().await;
    let other = Kbs::start().await;
    other.put(PATH, true).await;
    other.admit(guest.measurement, guest.document.digest()).await;
    let made = guest.made.lock().unwrap().len();
    let lines = other.lines.lock().unwrap().len();
    let identity = Identity::generate("guest").unwrap();
    let stream = TcpStream::connect(other.addresses.listen).await.unwrap();
    let met = BrokerClient::connect(stream, &identity, TENANT, vec![kbs.addresses.pin], guest.clone()).await;
    assert!(matches!(&met, Err(ClientError::PinMismatch { found, .. }) if *found == other.addresses.pin));
    // It is shown no evidence, and whoever was there before goes on.
    assert_eq!(guest.made.lock().unwrap().len(), made);
    assert_eq!(ask(&client, PATH).await.unwrap(), VALUE);
    assert!(other.lines.lock().unwrap()[lines..].iter().all(|line| !line.contains("measurement")));
    Heard::new(kbs, guest, met)
}

async fn offered_as_an_operator() -> Heard {
    let (kbs, guest, client) = ready().await;
    let identity = workload_identity(&kbs, &client).await;
    let key = identity.spki().to_string();
    let profile = AdminProfile { identity, ..AdminProfile::read(&kbs.state().join("admin.toml")).unwrap() };
    let result = match AdminClient::connect(&profile).await {
        Ok(admin) => admin.list_secrets(TENANT, false).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let lines = kbs.admin().await.audit(0, 0).await.unwrap();
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["event"] == "admin.connect" && line["peer"] == *key);
    let id = line.unwrap_or_else(|| panic!("no line about {key}: {lines:#?}"))["id"].as_str().unwrap().to_owned();
    // TLS says it; no id comes with it.
    let word = match result {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    Heard { kbs, word, id, guest }
}

async fn reconnects_in_silence() -> Heard {
    let (kbs, guest) = (Kbs::start().await, Guest::usual());
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let identity = Identity::generate("guest").unwrap();
    let stream = TcpStream::connect(kbs.addresses.listen).await.unwrap();
    let client = BrokerClient::connect(stream, &identity, TENANT, vec![kbs.addresses.pin], guest.clone()).await;
    assert_eq!(ask(&client.unwrap(), PATH).await.unwrap(), VALUE);
    // The same key again, which was attested a moment ago.
    let raw = Raw::connect(&kbs, &identity).await;
    let request = wire::GetSecretRequest { path: PATH.into(), version: None };
    let asked = wire::broker_client::BrokerClient::new(raw.channel).get_secret(request).await;
    Heard::of_status(kbs, guest, &asked.unwrap_err())
}

async fn with_an_older_list_after_a_restart() -> Heard {
    const LATER: i64 = 2 * 86_400;
    let now = common::unix();
    let newer = LaunchOptions::new(ProductLine::Milan, now + LATER.unsigned_abs());
    let (older, newer) = (Guest::usual(), Guest::launch_with(&Launch::default(), newer));
    let kbs = Kbs::start().await;
    kbs.skew.store(LATER, Ordering::Relaxed);
    kbs.put(PATH, true).await;
    kbs.admit(older.measurement, older.document.digest()).await;
    assert_eq!(ask(&kbs.connect(older.clone()).await.unwrap(), PATH).await.unwrap(), VALUE);
    kbs.connect(newer).await.unwrap();
    let folder = kbs.stop().await;
    let list = |config: &mut coffer_kbs::ConfigFile| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    };
    let kbs = Kbs::start_in(folder, list, async |state| State::open(state).await.unwrap()).await;
    kbs.skew.store(LATER, Ordering::Relaxed);
    Heard::by(kbs, older).await
}

async fn without_its_policy() -> Heard {
    let folder = tempfile::tempdir().unwrap();
    let lax = folder.path().join("lax.rego");
    std::fs::write(&lax, "package lax\nallow := true\n").unwrap();
    let list = |config: &mut coffer_kbs::ConfigFile| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
    };
    let kbs = Kbs::start_with(|config| {
        list(config);
        config.policies.insert("lax".into(), lax);
    })
    .await;
    let guest = Guest::usual();
    kbs.put_under(PATH, true, "lax").await.unwrap();
    kbs.admit(guest.measurement, guest.document.digest()).await;
    assert_eq!(ask(&kbs.connect(guest.clone()).await.unwrap(), PATH).await.unwrap(), VALUE);
    // A running broker keeps a policy that is named; the next start may lack it.
    let folder = kbs.stop().await;
    let kbs = Kbs::start_in(folder, list, async |state| State::open(state).await.unwrap()).await;
    Heard::by(kbs, guest).await
}

async fn of_another_tenant() -> Heard {
    let kbs = Kbs::start_with(|config| {
        for tenant in [TENANT, "other"] {
            config.tenants.entry(tenant.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        }
    })
    .await;
    let mut others = spec(&[PATH]);
    others.tenant = "other".parse().unwrap();
    let guest = Guest::launch(&Launch { spec: others, ..Launch::default() });
    kbs.put(PATH, true).await;
    // Listed for both; the spec says whose it is.
    for tenant in [TENANT, "other"] {
        let (measurement, workload) = (guest.measurement, guest.document.digest());
        let reference = coffer_kbs_client::Reference {
            tenant: tenant.into(),
            measurement,
            workload,
            name: "test".into(),
            expires: Expiry::Never,
        };
        kbs.admin().await.add_reference(&reference).await.unwrap();
    }
    Heard::by(kbs, guest).await
}

async fn heard(who: &str) -> Heard {
    match who {
        "wrong measurement" => {
            let (kbs, _, _) = ready().await;
            Heard::by(kbs, Guest::launch(&Launch { platform: 2, ..other_workload() })).await
        }
        "wrong workload" => {
            let (kbs, _, _) = ready().await;
            Heard::by(kbs, Guest::launch(&other_workload())).await
        }
        "right HOST_DATA on a foreign kernel" => {
            let (kbs, usual, _) = ready().await;
            let guest = Guest::launch(&Launch { platform: 2, ..Launch::default() });
            assert_eq!(guest.document.digest(), usual.document.digest());
            Heard::by(kbs, guest).await
        }
        "simulated anchor not listed" => Heard::by(Kbs::start_with(|_| ()).await, Guest::usual()).await,
        "listed, but the secret without allow_simulated" => {
            let (kbs, guest, _) = ready().await;
            kbs.put(PATH, false).await;
            Heard::by(kbs, guest).await
        }
        "workload certificate offered as a broker" => offered_as_a_broker().await,
        "another broker in its place" => exchanged().await,
        "workload certificate offered as an operator" => offered_as_an_operator().await,
        "silent reconnect" => reconnects_in_silence().await,
        "old TCB" => {
            let (_folder, kbs) = with_floor("[[tcb]]\nproduct = \"Milan\"\nreported = { snp = 255 }", false).await;
            Heard::by(kbs, Guest::usual()).await
        }
        "denied chip" => {
            let guest = Guest::usual();
            let (_folder, kbs) = with_floor(&format!("denied_chips = [\"{}\"]", guest.chip()), false).await;
            Heard::by(kbs, guest).await
        }
        "revoked chip" => {
            let (kbs, guest, _) = ready().await;
            assert!(kbs.admin().await.revoke(None, "chip", &guest.chip(), None).await.unwrap().0);
            Heard::by(kbs, guest).await
        }
        "debug guest" => {
            let (kbs, _, _) = ready().await;
            Heard::by(kbs, Guest::launch(&Launch { policy: 0x3_0000 | 1 << 19, ..Launch::default() })).await
        }
        "replayed evidence" => {
            let (kbs, guest, _) = ready().await;
            let recorded = guest.made.lock().unwrap().last().unwrap().clone();
            let refused = kbs.connect(Arc::new(Replay(recorded))).await;
            Heard::new(kbs, guest, refused)
        }
        "relayed evidence" => {
            // The guest answers the broker's challenge on its own connection, to whoever passed it on.
            bound_elsewhere(async |kbs, guest, _, challenge| {
                let its_own = Raw::connect(kbs, &Identity::generate("guest").unwrap()).await;
                evidence(guest, &its_own.facts, &challenge, Role::Client, its_own.facts.own_spki())
            })
            .await
        }
        "reflected evidence" => {
            bound_elsewhere(async |_, guest, raw, challenge| {
                evidence(guest, &raw.facts, &challenge, Role::Server, raw.facts.own_spki())
            })
            .await
        }
        "swapped client key" => {
            bound_elsewhere(async |_, guest, raw, challenge| {
                evidence(guest, &raw.facts, &challenge, Role::Client, &SpkiDigest::new([7; 32]))
            })
            .await
        }
        "stale challenge" => {
            let (kbs, guest, _) = ready().await;
            let mut raw = Raw::connect(&kbs, &Identity::generate("guest").unwrap()).await;
            let (challenge, own) = (raw.challenge().await, *raw.facts.own_spki());
            let answer = evidence(&guest, &raw.facts, &challenge, Role::Client, &own);
            raw.answer(answer.clone()).await.unwrap();
            let status = raw.answer(answer).await.unwrap_err();
            Heard::of_status(kbs, guest, &status)
        }
        "expired reference" => {
            let (kbs, guest) = (Kbs::start().await, Guest::usual());
            kbs.put(PATH, true).await;
            let end = Expiry::At(UnixTime(i64::try_from(common::unix()).unwrap() + 600));
            kbs.admit_until(guest.measurement, guest.document.digest(), end).await;
            assert_eq!(ask(&kbs.connect(guest.clone()).await.unwrap(), PATH).await.unwrap(), VALUE);
            kbs.skew.store(601, Ordering::Relaxed);
            Heard::by(kbs, guest).await
        }
        "expired manifest" => {
            let (kbs, guest) = by_manifest(Kbs::start().await).await;
            kbs.skew.store(601, Ordering::Relaxed);
            Heard::by(kbs, guest).await
        }
        "manifest too old" => {
            let (kbs, guest) = by_manifest(Kbs::start().await).await;
            assert_eq!(kbs.admin().await.revoke_manifest(TENANT, "web").await.unwrap().map(|it| it.through), Some(5));
            Heard::by(kbs, guest).await
        }
        "manifest past its greatest age" => {
            let (_folder, kbs) = with_floor("max_manifest_age = \"1m\"", false).await;
            let (kbs, guest) = by_manifest(kbs).await;
            kbs.skew.store(61, Ordering::Relaxed);
            Heard::by(kbs, guest).await
        }
        "missing policy" => without_its_policy().await,
        "other tenant" => of_another_tenant().await,
        "deleted version" => {
            let (kbs, guest, client) = ready().await;
            kbs.put(PATH, true).await;
            let path = PATH.parse().unwrap();
            assert!(kbs.admin().await.delete_secret(TENANT, &path, Some(1)).await.unwrap());
            let refused = client.secret_version(&path, 1).await;
            Heard::new(kbs, guest, refused)
        }
        "lower CRL number after a restart" => with_an_older_list_after_a_restart().await,
        other => panic!("{other} is a row, and nobody says how"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_these_gets_nothing_and_the_trail_says_why() {
    let usual = Guest::usual();
    for (who, hears, trail) in ROWS {
        let Heard { kbs, word, id, guest } = Box::pin(heard(who)).await;
        assert_eq!(word, *hears, "{who}");
        if *trail == NOT_ASKED {
            continue;
        }
        let expected = trail
            .replace("{m}", &guest.measurement.to_string())
            .replace("{w}", &guest.document.digest().to_string())
            .replace("{M}", &usual.measurement.to_string())
            .replace("{W}", &usual.document.digest().to_string());
        // Whoever reads the trail finds what was refused until now.
        kbs.admin().await.audit(0, 0).await.unwrap();
        let line = kbs.line_of(&id);
        assert_eq!(line["outcome"], "refused", "{who}: {line}");
        let reasons: Vec<_> = line["reasons"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
        assert!(reasons.iter().any(|one| one.starts_with(&expected)), "{who}: no {expected:?} in {reasons:#?}");
    }
    let mut seen = BTreeSet::new();
    for (who, hears, trail) in ROWS.iter().filter(|(_, _, trail)| ![ONE_HASH, NOT_ASKED].contains(trail)) {
        assert!(seen.insert((hears, trail)), "{who} looks like another in the trail");
    }
}
