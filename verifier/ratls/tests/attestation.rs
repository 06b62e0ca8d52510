//! Evidence counts on the connection, for the challenge, the keys, the role and the workload it was made for; nowhere else.

mod common;

use std::sync::{Arc, atomic::Ordering};

use coffer_ratls::{
    AttestationService, Attester, ClientRule, ConnectError, Denial, Identity, Pace, Purpose, connect_and_attest,
    connect_and_verify,
    proto::{AttestRequest, ChallengeRequest, attest_request, attest_response},
};
use coffer_verifier::{
    abi::{SpkiDigest, WorkloadDigest},
    binding::{EncryptionKey, Role},
};
use common::{BrokenGuest, Credulous, Fields, Guest, Raw, SPEC, Server, code};
use tonic::Code;

fn broker() -> (Server, Arc<Credulous>) {
    let appraiser = Arc::new(Credulous::default());
    (Server::broker(appraiser.clone()), appraiser)
}

#[tokio::test]
async fn a_client_that_attests_honestly_is_admitted_and_can_renew() {
    let (server, appraiser) = broker();
    let identity = Identity::generate("guest").unwrap();
    let guest: Arc<dyn Attester> = Arc::new(Guest);
    let pins = vec![SpkiDigest::new([1; 32]), server.spki];
    let connection = connect_and_attest(server.dial(), &identity, Purpose::Kbs, pins, guest).await.unwrap();
    assert_eq!(appraiser.seen.load(Ordering::SeqCst), 1);
    connection.renew().await.unwrap();
    assert_eq!(appraiser.seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_attests_honestly_is_admitted_and_can_be_challenged_again() {
    let server = Server::agent();
    let identity = Identity::generate("owner").unwrap();
    let appraiser = Arc::new(Credulous::default());
    let connection = connect_and_verify(server.dial(), &identity, Purpose::Control, appraiser).await.unwrap();
    let first = connection.attested();
    assert_eq!(*first.admitted(), 0);
    assert_eq!(*first.workload(), WorkloadDigest::of(SPEC));
    assert_eq!(*first.peer_spki(), server.spki);
    connection.renew().await.unwrap();
    assert_eq!(*connection.attested().admitted(), 1);
    assert_ne!(connection.attested().report_data(), first.report_data());
}

#[tokio::test]
async fn every_bound_field_is_checked_against_the_servers_own_end() {
    let (server, appraiser) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    let other_exporter = *raw.facts.exporter(Role::Server);
    type Change = Box<dyn FnOnce(&mut Fields)>;
    let changes: Vec<(&str, Change)> = vec![
        ("reflected role", Box::new(|f| f.role = Role::Server)),
        ("other side's exporter", Box::new(move |f| f.exporter = other_exporter)),
        ("another purpose", Box::new(|f| f.purpose = b"coffer-control/1".to_vec())),
        ("no purpose", Box::new(|f| f.purpose.clear())),
        ("another exporter", Box::new(|f| f.exporter[0] ^= 1)),
        ("another challenge", Box::new(|f| f.challenge[31] ^= 1)),
        ("swapped client key", Box::new(|f| f.own = SpkiDigest::new([2; 32]))),
        ("another server key", Box::new(|f| f.peer = SpkiDigest::new([2; 32]))),
        ("own and peer exchanged", Box::new(|f| std::mem::swap(&mut f.own, &mut f.peer))),
        ("another encryption key", Box::new(|f| f.sent_key.public_key[50] ^= 1)),
        (
            "encryption key not bound",
            Box::new(|f| f.bound_key = EncryptionKey { kem: 0, kdf: 0, aead: 0, public_key: vec![] }),
        ),
        ("another workload bound", Box::new(|f| f.bound_workload = WorkloadDigest::of(b"other"))),
        ("another spec sent", Box::new(|f| f.sent_spec = b"other".to_vec())),
    ];
    for (name, change) in changes {
        assert_eq!(code(raw.attempt(change).await), "report-data", "{name}");
    }
    assert_eq!(appraiser.seen.load(Ordering::SeqCst), 0, "refused before any appraisal");
    assert_eq!(code(raw.attempt(|_| {}).await), "admitted");
}

#[tokio::test]
async fn a_spec_that_is_not_host_data_is_refused() {
    let (server, _) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    let other = b"another spec, bound as if it were this guest's".to_vec();
    let result = raw
        .attempt(|fields| {
            fields.bound_workload = WorkloadDigest::of(&other);
            fields.sent_spec = other;
        })
        .await;
    assert_eq!(code(result), "workload-spec");
}

#[tokio::test]
async fn evidence_of_another_connection_is_refused_even_with_the_same_keys() {
    let (server, _) = broker();
    let identity = Identity::generate("guest").unwrap();
    let mut first = Raw::connect_as(&identity, &server, Purpose::Kbs).await;
    let challenge = first.challenge().await;
    let genuine = Fields::honest(&first.facts, challenge).answer();
    assert_eq!(code(first.answer(genuine.clone()).await), "admitted");

    let mut second = Raw::connect_as(&identity, &server, Purpose::Kbs).await;
    assert_eq!(code(second.answer(genuine.clone()).await), "challenge-missing");
    second.challenge().await;
    assert_eq!(code(second.answer(genuine).await), "report-data");
    // The exporter alone tells the connections apart: same challenge, same keys.
    let challenge = second.challenge().await;
    let elsewhere = Fields::honest(&first.facts, challenge).answer();
    assert_eq!(code(second.answer(elsewhere).await), "report-data");
}

#[tokio::test]
async fn an_agents_evidence_reflected_to_the_broker_is_refused() {
    // The attacker lets a genuine agent answer the broker's challenge, and passes the answer on.
    let (server, _) = broker();
    let agent = Server::agent();
    let mut to_broker = Raw::connect(&server, Purpose::Kbs).await;
    let mut to_agent = Raw::connect(&agent, Purpose::Control).await;
    let challenge = to_broker.challenge().await;
    let request = AttestRequest { side: Some(attest_request::Side::Challenge(challenge.to_vec())) };
    let response = to_agent.client.attest(request).await.unwrap().into_inner();
    let Some(attest_response::Side::Answer(answer)) = response.side else { panic!("no answer") };
    assert_eq!(code(to_broker.answer(answer).await), "report-data");
}

#[tokio::test]
async fn a_challenge_is_spent_by_its_first_answer_good_or_bad() {
    let (server, _) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    let challenge = raw.challenge().await;
    let good = Fields::honest(&raw.facts, challenge).answer();
    let mut bad = Fields::honest(&raw.facts, challenge);
    bad.role = Role::Server;
    assert_eq!(code(raw.answer(bad.answer()).await), "report-data");
    assert_eq!(code(raw.answer(good).await), "challenge-missing");

    let challenge = raw.challenge().await;
    let good = Fields::honest(&raw.facts, challenge).answer();
    assert_eq!(code(raw.answer(good.clone()).await), "admitted");
    assert_eq!(code(raw.answer(good).await), "challenge-missing");
}

#[tokio::test]
async fn an_answer_without_content_spends_the_challenge() {
    let (server, _) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    let challenge = raw.challenge().await;
    let empty = raw.client.attest(AttestRequest { side: None }).await.unwrap_err();
    let denial = Denial::of(&empty).unwrap();
    assert!(
        empty.code() == Code::PermissionDenied && denial.code == "expected-answer" && !denial.id.is_empty(),
        "{empty:?}"
    );
    let good = Fields::honest(&raw.facts, challenge).answer();
    assert_eq!(code(raw.answer(good).await), "challenge-missing");
}

#[tokio::test]
async fn a_new_challenge_voids_the_one_before() {
    let (server, _) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    let older = raw.challenge().await;
    let newer = raw.challenge().await;
    assert_ne!(older, newer);
    let stale = Fields::honest(&raw.facts, older).answer();
    assert_eq!(code(raw.answer(stale).await), "report-data");
}

#[tokio::test]
async fn truncated_absent_and_oversized_fields_are_refused() {
    type Change = fn(&mut coffer_ratls::proto::AttestedEvidence);
    let changes: [(&str, Change); 10] = [
        ("no evidence", |a| a.evidence = None),
        ("no encryption key", |a| a.encryption_key = None),
        ("report one byte short", |a| a.evidence.as_mut().unwrap().report.truncate(1183)),
        ("report one byte long", |a| a.evidence.as_mut().unwrap().report.push(0)),
        ("no report", |a| a.evidence.as_mut().unwrap().report.clear()),
        ("no spec", |a| a.evidence.as_mut().unwrap().workload_spec.clear()),
        ("spec too long", |a| a.evidence.as_mut().unwrap().workload_spec = vec![0; 256 * 1024 + 1]),
        ("table too long", |a| a.evidence.as_mut().unwrap().cert_table = vec![0; 64 * 1024 + 1]),
        ("too many lists", |a| a.evidence.as_mut().unwrap().crls = vec![vec![]; 5]),
        ("list too long", |a| a.evidence.as_mut().unwrap().crls = vec![vec![0; 64 * 1024 + 1]]),
    ];
    let (server, appraiser) = broker();
    let mut raw = Raw::connect(&server, Purpose::Kbs).await;
    for (name, change) in changes {
        let challenge = raw.challenge().await;
        let mut answer = Fields::honest(&raw.facts, challenge).answer();
        change(&mut answer);
        assert_eq!(code(raw.answer(answer).await), "evidence-malformed", "{name}");
    }
    // A key of another suite or length is refused although the report binds it.
    type KeyChange = fn(&mut EncryptionKey);
    let keys: [(&str, KeyChange); 5] = [
        ("other KEM", |k| k.kem = 0x20),
        ("other KDF", |k| k.kdf = 1),
        ("other AEAD", |k| k.aead = 3),
        ("key one byte short", |k| k.public_key.truncate(96)),
        ("compressed point", |k| k.public_key[0] = 2),
    ];
    for (name, change) in keys {
        let result = raw
            .attempt(|fields| {
                change(&mut fields.bound_key);
                fields.sent_key = fields.bound_key.clone();
            })
            .await;
        assert_eq!(code(result), "evidence-malformed", "{name}");
    }
    assert_eq!(appraiser.seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_client_learns_a_stable_word_and_an_id_and_no_detail() {
    let appraiser = Arc::new(Credulous { refuse_from: Some(0), ..Credulous::default() });
    let server = Server::broker(appraiser);
    let identity = Identity::generate("guest").unwrap();
    let result = connect_and_attest(server.dial(), &identity, Purpose::Kbs, vec![server.spki], Arc::new(Guest)).await;
    let Err(ConnectError::Refused(Denial { code, id })) = result else { panic!("not refused") };
    assert_eq!(code, "not-admitted");
    assert_eq!(id.len(), 16);
}

#[tokio::test]
async fn a_client_refuses_a_server_whose_evidence_is_not_admitted() {
    let server = Server::agent();
    let appraiser = Arc::new(Credulous { refuse_from: Some(1), ..Credulous::default() });
    let identity = Identity::generate("owner").unwrap();
    let connection = connect_and_verify(server.dial(), &identity, Purpose::Control, appraiser).await.unwrap();
    connection.seal("m", b"a", b"value").unwrap();
    assert!(matches!(connection.renew().await, Err(ConnectError::Rejected(_))));
    assert_eq!(connection.seal("m", b"a", b"value"), Err(coffer_ratls::HpkeError::Lost));
}

#[tokio::test]
async fn a_client_refuses_evidence_a_relay_fetched_from_another_guest() {
    // The relay ends the owner's TLS connection itself and lets a genuine agent answer the owner's challenge.
    struct Relay(tokio::sync::Mutex<Raw>, tokio::runtime::Handle);
    impl Attester for Relay {
        fn evidence(
            &self,
            _: &coffer_verifier::abi::ReportData,
        ) -> Result<coffer_verifier::evidence::Evidence, coffer_ratls::AttesterError> {
            // It cannot even choose the challenge's context: the agent binds its own connection.
            let request = AttestRequest { side: Some(attest_request::Side::Challenge(vec![5; 32])) };
            let response = self.1.block_on(async { self.0.lock().await.client.attest(request).await }).unwrap();
            let Some(attest_response::Side::Answer(answer)) = response.into_inner().side else { panic!("no answer") };
            let evidence = answer.evidence.unwrap();
            Ok(coffer_verifier::evidence::Evidence {
                report: evidence.report,
                workload_spec: evidence.workload_spec,
                ..Default::default()
            })
        }
        fn workload(&self) -> WorkloadDigest {
            WorkloadDigest::of(SPEC)
        }
    }
    let agent = Server::agent();
    let raw = Raw::connect(&agent, Purpose::Control).await;
    let relay = Relay(tokio::sync::Mutex::new(raw), tokio::runtime::Handle::current());
    let front =
        Server::start(AttestationService::attester(Arc::new(relay)), ClientRule::AuthorizedPerCall, Purpose::Control);
    let identity = Identity::generate("owner").unwrap();
    let result = connect_and_verify(front.dial(), &identity, Purpose::Control, Arc::new(Credulous::default())).await;
    let Err(ConnectError::Rejected(refusal)) = result else { panic!("not rejected") };
    assert_eq!(refusal.code, "report-data");
}

#[tokio::test]
async fn each_server_does_only_its_half() {
    let agent = Server::agent();
    let mut raw = Raw::connect(&agent, Purpose::Control).await;
    assert_eq!(raw.client.challenge(ChallengeRequest {}).await.unwrap_err().code(), Code::Unimplemented);
    let answer = Fields::honest(&raw.facts, [0; 32]).answer();
    assert_eq!(raw.answer(answer).await.unwrap_err().code(), Code::InvalidArgument);
    for length in [0, 31, 33] {
        let request = AttestRequest { side: Some(attest_request::Side::Challenge(vec![0; length])) };
        assert_eq!(raw.client.attest(request).await.unwrap_err().code(), Code::InvalidArgument);
    }

    let (broker, _) = broker();
    let mut raw = Raw::connect(&broker, Purpose::Kbs).await;
    let request = AttestRequest { side: Some(attest_request::Side::Challenge(vec![0; 32])) };
    assert!(raw.client.attest(request).await.is_err());
}

#[tokio::test]
async fn an_agent_without_a_secure_processor_says_so_and_nothing_more() {
    let attestation = AttestationService::attester(Arc::new(BrokenGuest));
    let server = Server::start(attestation, ClientRule::AuthorizedPerCall, Purpose::Control);
    let identity = Identity::generate("owner").unwrap();
    let appraiser = Arc::new(Credulous::default());
    let result = connect_and_verify(server.dial(), &identity, Purpose::Control, appraiser).await;
    let Err(ConnectError::Call(status)) = result else { panic!("not a failed call") };
    assert_eq!((status.code(), status.message()), (Code::Internal, "attester-failed"));
}

#[tokio::test]
async fn a_lost_connection_is_never_dialled_again() {
    let server = Server::agent();
    let identity = Identity::generate("owner").unwrap();
    let appraiser = Arc::new(Credulous::default());
    let connection = connect_and_verify(server.dial(), &identity, Purpose::Control, appraiser).await.unwrap();
    server.stop().await;
    for _ in 0..3 {
        assert!(connection.renew().await.is_err());
    }
}

/// Counts the reports of an honest guest, and makes some of them alone.
struct Tiring {
    reports: std::sync::atomic::AtomicUsize,
    not: std::ops::Range<usize>,
}

impl Attester for Tiring {
    fn evidence(
        &self,
        report_data: &coffer_verifier::abi::ReportData,
    ) -> Result<coffer_verifier::evidence::Evidence, coffer_ratls::AttesterError> {
        if !self.not.contains(&self.reports.fetch_add(1, Ordering::SeqCst)) {
            return Guest.evidence(report_data);
        }
        BrokenGuest.evidence(report_data)
    }

    fn workload(&self) -> WorkloadDigest {
        Guest.workload()
    }
}

async fn owner_of(tiring: &Arc<Tiring>, appraiser: Credulous) -> (Server, coffer_ratls::AttestedConnection<usize>) {
    let attestation = AttestationService::attester(tiring.clone());
    let server = Server::start(attestation, ClientRule::AuthorizedPerCall, Purpose::Control);
    let identity = Identity::generate("owner").unwrap();
    let connection = connect_and_verify(server.dial(), &identity, Purpose::Control, Arc::new(appraiser)).await.unwrap();
    (server, connection)
}

fn tiring(last: usize) -> Arc<Tiring> {
    Arc::new(Tiring { reports: 0.into(), not: last..usize::MAX })
}

const SOON: std::time::Duration = std::time::Duration::from_millis(20);
const PACE: Pace = Pace { every: SOON, again: SOON, most: std::time::Duration::from_millis(400) };

#[tokio::test]
async fn a_long_call_is_challenged_again_and_again() {
    let guest = tiring(usize::MAX);
    let (_server, connection) = owner_of(&guest, Credulous::default()).await;
    let call = async {
        while guest.reports.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(SOON / 4).await;
        }
        "done"
    };
    let kept = tokio::time::timeout(std::time::Duration::from_secs(20), connection.kept_at(PACE, call));
    assert_eq!(kept.await.expect("nobody was challenged again").unwrap(), "done");
    assert!(*connection.attested().admitted() >= 2, "the new result replaces the old");
}

#[tokio::test]
async fn a_call_ends_when_its_peer_proves_itself_no_more() {
    let never = std::future::pending::<()>;
    let within = std::time::Duration::from_secs(20);
    let (_server, connection) = owner_of(&tiring(2), Credulous::default()).await;
    let lapsed = tokio::time::timeout(within, connection.kept_at(PACE, never())).await.expect("it went on");
    let why = lapsed.unwrap_err().0;
    assert!(
        matches!(*why, ConnectError::Call(_) | ConnectError::Timeout(_)),
        "the guest makes no more evidence: {why}"
    );

    let refusing = Credulous { refuse_from: Some(2), ..Credulous::default() };
    let (_server, connection) = owner_of(&tiring(usize::MAX), refusing).await;
    let lapsed = tokio::time::timeout(within, connection.kept_at(PACE, never())).await.expect("it went on");
    assert!(matches!(*lapsed.unwrap_err().0, ConnectError::Rejected(_)), "what it shows is not what was wanted");
    assert!(connection.seal("m", b"a", b"v").is_err(), "and no secret goes there any more");
}

#[tokio::test]
async fn a_single_silence_ends_no_call_whose_result_still_counts() {
    let guest = Arc::new(Tiring { reports: 0.into(), not: 2..4 });
    let (_server, connection) = owner_of(&guest, Credulous::default()).await;
    let patient = Pace { most: std::time::Duration::from_mins(1), ..PACE };
    let call = async {
        while guest.reports.load(Ordering::SeqCst) < 6 {
            tokio::time::sleep(SOON / 4).await;
        }
    };
    let kept = tokio::time::timeout(std::time::Duration::from_secs(20), connection.kept_at(patient, call));
    kept.await.expect("nobody asked again").expect("two failures ended it");
}

#[test]
fn the_next_challenge_comes_before_the_last_result_is_too_old() {
    let third = coffer_ratls::CHALLENGE_AGAIN_AFTER + 3 * coffer_ratls::CHALLENGE_LIFETIME;
    assert!(third <= coffer_ratls::RESULT_LIFETIME && Pace::USUAL.most == coffer_ratls::RESULT_LIFETIME);
}
