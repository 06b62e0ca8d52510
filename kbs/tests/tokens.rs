//! Tokens of the broker's: what they say of a guest, for whom, and who gets none.

use std::sync::Arc;

use coffer_kbs_client::{
    BrokerClient, CertificateProfile, ClientError,
    kbs::{admin::v1::Terms, v1::IssueTokenRequest, v1::broker_client},
};
use coffer_ratls::{Attester as _, Denial, signing_request_spki};
use coffer_verifier::{
    P384PublicKey, UnixTime,
    abi::{ReportData, SpkiDigest, report::offset},
    binding::{TokenBinding, workload_report_data},
    ear::{
        Demands, GuestKey, Issuer, IssuerRule, Jwks, KeyRule, Nonce, NonceRule, PolicyRule, SimulatedRule, Skew, Token,
        WarningRule, Word,
    },
};
use sha2::{Digest as _, Sha256};

use crate::common::{Guest, Kbs, Launch, PATH, TENANT, has_reason, refused, spec, unix};

const AUDIENCE: &str = "https://payments.example";
const ISSUER: &str = "https://kbs.example/acme";
const NONCE: &[u8] = b"a relying party's";

fn word(text: &str) -> Word {
    Word::parse(text).unwrap()
}

fn profile(allow_simulated: bool) -> CertificateProfile {
    CertificateProfile {
        tenant: TENANT.into(),
        name: "tokens".into(),
        lifetime_seconds: 300,
        terms: Some(Terms { allow_simulated, policy: None, rules: None }),
        audiences: vec![AUDIENCE.into(), "other".into()],
        issuer: Some(ISSUER.into()),
        ..CertificateProfile::default()
    }
}

/// A guest whose spec names the audience, in a state in which it may have secrets.
async fn ready(platform: u8) -> (Kbs, Arc<Guest>, BrokerClient) {
    let kbs = Kbs::start().await;
    let (guest, client) = another(&kbs, platform).await;
    (kbs, guest, client)
}

async fn another(kbs: &Kbs, platform: u8) -> (Arc<Guest>, BrokerClient) {
    let mut spec = spec(&[PATH]);
    spec.audiences = vec![AUDIENCE.into()];
    let guest = Guest::launch(&Launch { platform, spec, ..Launch::default() });
    kbs.admit(guest.measurement, guest.document.digest()).await;
    let client = kbs.connect(guest.clone()).await.unwrap();
    (guest, client)
}

/// A key, and the request that shows who holds it.
fn key() -> (P384PublicKey, Vec<u8>) {
    let key = coffer_ratls::IdentityKey::generate().unwrap();
    let pair = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
    (P384PublicKey::from_sec1(rcgen::PublicKeyData::der_bytes(&pair)).unwrap(), key.signing_request().unwrap())
}

async fn token(guest: &Guest, client: &BrokerClient, audience: &str, csr: &[u8]) -> Result<String, ClientError> {
    let nonce = Nonce::new(NONCE).unwrap();
    let made = async |report_data: ReportData| Ok(guest.evidence(&report_data).unwrap().report);
    client.token(&word(audience), Some(&nonce), csr, &guest.document.digest(), made).await
}

async fn keys(kbs: &Kbs) -> Jwks {
    let pem = kbs.admin().await.list_certificate_profiles(TENANT).await.unwrap().token_key;
    Jwks::new([P384PublicKey::from_pem(&pem).unwrap()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_says_to_one_audience_what_the_guest_is_and_whose_key_it_holds() {
    let (kbs, guest, client) = ready(1).await;
    kbs.admin().await.put_certificate_profile(profile(true)).await.unwrap();
    let (public, csr) = key();
    let text = token(&guest, &client, AUDIENCE, &csr).await.unwrap();

    let jwks = keys(&kbs).await;
    let demands = |simulated| Demands {
        keys: &jwks,
        issuer: IssuerRule::Exactly(Issuer::parse(ISSUER).unwrap()),
        audience: word(AUDIENCE),
        nonce: NonceRule::Exactly(Nonce::new(NONCE).unwrap()),
        request_nonce: NonceRule::NotAsked,
        key: KeyRule::Exactly(GuestKey::P384(public)),
        policy: PolicyRule::Exactly {
            policy: word("default"),
            revision: Some(word(&format!("sha256:{}", hex::encode(Sha256::digest(coffer_policies::RELEASE.text))))),
        },
        simulated,
        warnings: WarningRule::Accepted,
        skew: Skew::DEFAULT,
    };
    let now = UnixTime(i64::try_from(unix()).unwrap());
    let read = Token::parse(&text).unwrap();
    let verified = read.verify(&demands(SimulatedRule::Allowed), now).unwrap();
    assert!(verified.simulated());
    assert!(verified.expires().0 - verified.issued().0 <= 300);
    let refused = read.verify(&demands(SimulatedRule::Refused), now).unwrap_err();
    assert!(refused.is_authentic(), "a relying party that wants hardware is told the truth: {refused}");
    let claims = read.unverified().unwrap();
    assert_eq!(claims["submods"]["cpu0"]["ear.coffer.binding"], "coffer/token/v1");
    assert_eq!(claims["submods"]["cpu0"]["ear.coffer.verdict"], "accepted");
    assert_ne!(claims["submods"]["cpu0"]["ear.status"], "affirming", "simulated evidence never is");

    let line = kbs.admin().await.audit(0, 0).await.unwrap().pop().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["event"], &line["outcome"]), (&"token.issue".into(), &"released".into()));
    assert_eq!(line["serial"], verified.id());
    assert_eq!(line["key"], signing_request_spki(&csr).unwrap().to_string());

    // Without a nonce there is none in it.
    let made = async |report_data: ReportData| Ok(guest.evidence(&report_data).unwrap().report);
    let text = client.token(&word(AUDIENCE), None, &csr, &guest.document.digest(), made).await.unwrap();
    assert!(Token::parse(&text).unwrap().unverified().unwrap().get("eat_nonce").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_token_that_spec_and_tenant_do_not_both_name() {
    let (kbs, guest, client) = ready(1).await;
    let (_, csr) = key();
    let why = async |audience: &str, csr: &[u8], reason: &str| {
        let line = kbs.line_of(&refused(token(&guest, &client, audience, csr).await));
        assert!(has_reason(&line, reason), "{reason}: {line}");
        assert_eq!(line["event"], "token.issue");
    };
    why(AUDIENCE, &csr, "no profile has this audience").await;
    let admin = kbs.admin().await;
    admin.put_certificate_profile(profile(false)).await.unwrap();
    why(AUDIENCE, &csr, "does not carry allow_simulated").await;
    admin.put_certificate_profile(profile(true)).await.unwrap();
    why("other", &csr, "the workload spec does not name this audience").await;
    why("nobody", &csr, "no profile has this audience").await;
    let mut unproven = csr.clone();
    *unproven.last_mut().unwrap() ^= 1;
    why(AUDIENCE, &unproven, "csr: ").await;
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let other = rcgen::CertificateParams::default().serialize_request(&other).unwrap();
    why(AUDIENCE, other.der(), "not ECDSA on P-384").await;
    // A profile of tokens gives no certificates, and one of certificates no tokens.
    let line = kbs.line_of(&refused(client.certificate("tokens", &csr).await));
    assert!(has_reason(&line, "names nobody"), "{line}");
    let named = CertificateProfile { dns: vec!["a.example".into()], server_auth: true, ..profile(true) };
    admin.put_certificate_profile(CertificateProfile { audiences: Vec::new(), issuer: None, ..named }).await.unwrap();
    why(AUDIENCE, &csr, "no profile has this audience").await;
    token(&guest, &client, AUDIENCE, &csr).await.unwrap_err();
    client.certificate("tokens", &csr).await.unwrap();
}

/// What a report was made over, each time but one thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_is_of_this_guest_over_this_connection_key_audience_and_nonce() {
    let (kbs, guest, client) = ready(1).await;
    kbs.admin().await.put_certificate_profile(profile(true)).await.unwrap();
    let (_, csr) = key();
    let (own, workload) = (signing_request_spki(&csr).unwrap(), guest.document.digest());
    let connection = client.connection().report_data();
    let good =
        TokenBinding { connection: &connection, key: &own, audience: AUDIENCE, nonce: NONCE, workload: &workload };
    let ask = async |report: Vec<u8>| {
        let mut broker = broker_client::BrokerClient::new(client.connection().channel());
        let request =
            IssueTokenRequest { audience: AUDIENCE.into(), csr: csr.clone(), report, nonce: Some(NONCE.to_vec()) };
        broker.issue_token(request).await
    };
    let of = |guest: &Guest, report_data: &ReportData| guest.evidence(report_data).unwrap().report;
    ask(of(&guest, &good.report_data())).await.unwrap();

    let (twin, its) = another(&kbs, 1).await;
    let (elsewhere, strange) = (its.connection().report_data(), SpkiDigest::new([9; 32]));
    for (what, report) in [
        ("another connection", of(&guest, &TokenBinding { connection: &elsewhere, ..good.clone() }.report_data())),
        ("another key", of(&guest, &TokenBinding { key: &strange, ..good.clone() }.report_data())),
        ("another audience", of(&guest, &TokenBinding { audience: "other", ..good.clone() }.report_data())),
        ("another nonce", of(&guest, &TokenBinding { nonce: b"", ..good.clone() }.report_data())),
        ("what a workload may have bound", of(&guest, &workload_report_data(&workload, own.as_bytes()))),
        ("the connection itself", of(&guest, &connection)),
        ("the same, by another guest of the same platform and spec", of(&twin, &good.report_data())),
    ] {
        let status = ask(report).await.expect_err(what);
        let line = kbs.line_of(&Denial::of(&status).expect("a denial").id);
        assert_eq!((&line["event"], &line["outcome"]), (&"token.issue".into(), &"refused".into()), "{what}: {line}");
    }
    let mut forged = of(&guest, &good.report_data());
    forged[offset::R] ^= 1;
    let status = ask(forged).await.expect_err("a report that nobody signed");
    let line = kbs.line_of(&Denial::of(&status).expect("a denial").id);
    assert!(has_reason(&line, "signature: found does not verify"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audiences_and_issuer_come_together_and_an_audience_stands_in_one_profile() {
    let kbs = Kbs::start().await;
    let admin = kbs.admin().await;
    admin.put_certificate_profile(profile(true)).await.unwrap();
    let listed = admin.list_certificate_profiles(TENANT).await.unwrap();
    assert_eq!(listed.profiles[0].audiences, [AUDIENCE, "other"]);
    assert_eq!(listed.profiles[0].issuer.as_deref(), Some(ISSUER));
    assert!(listed.root.is_empty(), "no key of certificates is made for a profile without any");
    let second =
        |name: &str| CertificateProfile { name: name.into(), audiences: vec!["third".into()], ..profile(true) };
    for (wrong, words) in [
        (CertificateProfile { issuer: None, ..second("b") }, "issuer"),
        (CertificateProfile { audiences: Vec::new(), ..second("b") }, "issuer"),
        (CertificateProfile { issuer: Some("http://kbs.example".into()), ..second("b") }, "issuer"),
        (CertificateProfile { audiences: vec!["a b".into()], ..second("b") }, "audiences"),
        (CertificateProfile { audiences: vec!["a".into(), "a".into()], ..second("b") }, "twice"),
        (CertificateProfile { audiences: vec!["other".into()], ..second("b") }, "profile tokens has one of them"),
        (CertificateProfile { server_auth: true, ..second("b") }, "server_auth"),
    ] {
        let error = admin.put_certificate_profile(wrong).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    admin.put_certificate_profile(second("b")).await.unwrap();
    let after = admin.list_certificate_profiles(TENANT).await.unwrap().token_key;
    assert_eq!(after, listed.token_key, "one key, made once");
}
