//! Tokens: what the judge said stands in them and no more, and what is wrong with one is found, by us and by somebody else's
//! library. `ear.py` is the other library's half.

use std::{
    convert::Infallible,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{forge::World, vectors};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use coffer_verifier::{
    Appraisal, Code, CrlPolicy, EvidencePolicy, Expected, ExpectedGuest, ExpectedReportData, HclBlob, P384PublicKey,
    Pair, Reason, TrustAnchors, UnixTime, VerifiedReport, Verifier,
    abi::{ReportData, SpkiDigest, WorkloadDigest, report::offset},
    appraise,
    binding::{ALPN_KBS, ConnectionBinding, EncryptionKey, Role, certificate_report_data, workload_report_data},
    ear::{
        Demands, EarClaims, EarError, GuestKey, Issuer, IssuerRule, Judged, Jwks, KeyRule, Lifetime, NamedBinding,
        Nonce, NonceRule, NotShown, PROFILE, PolicyRule, SimulatedRule, Skew, Status, Terms, Token, TokenError,
        TokenId, TokenReason, TokenSigner, VerifiedToken, VerifierBuild, WarningRule, Word, thumbprint,
    },
};
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_json::{Value, json};

struct Signer(SigningKey, P384PublicKey);

fn signer(seed: u8) -> Signer {
    let key = SigningKey::from_slice(&[seed; 48]).unwrap();
    let public = P384PublicKey::from_sec1(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    Signer(key, public)
}

impl TokenSigner for Signer {
    type Error = Infallible;

    fn public(&self) -> &P384PublicKey {
        &self.1
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 96], Infallible> {
        let signature: Signature = self.0.sign(message);
        Ok(signature.to_bytes().as_slice().try_into().unwrap())
    }
}

fn word(text: &str) -> Word {
    Word::parse(text).unwrap()
}

fn nonce(byte: u8) -> Nonce {
    Nonce::new(&[byte; 32]).unwrap()
}

const ISSUER: &str = "https://verifier.example";
const AUDIENCE: &str = "https://bank.example";
const NOW: UnixTime = UnixTime(1_789_862_400);

/// Claims of what was judged, with this binding.
fn claims(judged: &Judged<'_>, binding: &NamedBinding<'_>, now: UnixTime) -> Result<EarClaims, EarError> {
    EarClaims::of(
        judged,
        binding,
        &Terms {
            issuer: &Issuer::parse(ISSUER).unwrap(),
            audience: &word(AUDIENCE),
            verifier: &VerifierBuild { developer: word("coffer"), build: word("coffer-verifier/0.1.0") },
            policy: &word("fleet"),
            revision: &word("7"),
            lifetime: Lifetime::DEFAULT,
            request_nonce: Some(&nonce(9)),
            id: TokenId::new([1; 16]),
            now,
        },
    )
}

fn token(judged: &Judged<'_>, binding: &NamedBinding<'_>) -> String {
    claims(judged, binding, NOW).unwrap().sign(&signer(7)).unwrap()
}

fn demands(keys: &Jwks) -> Demands<'_> {
    Demands {
        keys,
        issuer: IssuerRule::Exactly(Issuer::parse(ISSUER).unwrap()),
        audience: word(AUDIENCE),
        nonce: NonceRule::NotAsked,
        request_nonce: NonceRule::NotAsked,
        key: KeyRule::NotAsked,
        policy: PolicyRule::IssuersOwn,
        simulated: SimulatedRule::Allowed,
        warnings: WarningRule::Accepted,
        skew: Skew::DEFAULT,
    }
}

fn keys() -> Jwks {
    Jwks::new([signer(7).1, signer(8).1])
}

fn verify(token: &str) -> Result<VerifiedToken, TokenError> {
    Token::parse(token)?.verify(&demands(&keys()), NOW)
}

fn reasons(token: &str, change: impl FnOnce(&mut Demands<'_>), now: UnixTime) -> Vec<TokenReason> {
    let keys = keys();
    let mut demands = demands(&keys);
    change(&mut demands);
    match Token::parse(token).unwrap().verify(&demands, now) {
        Ok(_) => Vec::new(),
        Err(TokenError::Refused(refusal)) => refusal.reasons().to_vec(),
        Err(error) => panic!("{error}"),
    }
}

/// First words of reasons.
fn heads(reasons: &[TokenReason]) -> Vec<String> {
    reasons.iter().map(|reason| reason.to_string().split(':').next().unwrap().to_owned()).collect()
}

fn judge(world: &World, policy: EvidencePolicy) -> Appraisal {
    let (anchors, crl) = (world.anchors(), world.crl.clone());
    let expected = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
    let evidence = coffer_verifier::Evidence { report: world.signed_report(), ..Default::default() };
    Verifier { anchors, crl, policy }.judge(&evidence, &world.endorsements().unwrap(), &expected, world.now)
}

fn floor() -> EvidencePolicy {
    EvidencePolicy::default_floor()
}

fn world(report_data: ReportData) -> World {
    let mut world = World::new();
    world.patch(offset::REPORT_DATA, report_data.as_bytes());
    world
}

fn accepted(world: &World) -> Appraisal {
    let appraisal = judge(world, floor());
    assert!(appraisal.result().is_some(), "{}", appraisal.why());
    appraisal
}

/// A token with a nonce, and the keys it is believed by, for the fuzzing corpus.
pub fn seeds() -> (String, String) {
    let world = world(workload_report_data(&WORKLOAD, &[5; 32]));
    let binding = NamedBinding::Workload { workload: WORKLOAD, data: &[5; 32] };
    (token(&(&accepted(&world)).into(), &binding), keys().to_json())
}

/// The vector, as it stands in a token.
fn vector(token: &str) -> Value {
    Token::parse(token).unwrap().unverified().unwrap()["submods"]["cpu0"]["ear.trustworthiness-vector"].clone()
}

fn status(token: &str) -> Value {
    Token::parse(token).unwrap().unverified().unwrap()["submods"]["cpu0"]["ear.status"].clone()
}

#[test]
fn a_token_says_what_the_judge_said() {
    let world = World::new();
    let appraisal = accepted(&world);
    let token = token(&(&appraisal).into(), &NamedBinding::Raw);
    let read = verify(&token).unwrap();
    assert_eq!((read.issuer(), read.audience(), read.policy(), read.revision()), (ISSUER, AUDIENCE, "fleet", "7"));
    assert_eq!((read.issued(), read.expires(), read.id()), (NOW, UnixTime(NOW.0 + 300), "AQEBAQEBAQEBAQEBAQEBAQ"));
    assert_eq!((read.simulated(), read.verdict(), read.request_nonce()), (true, "accepted", Some(&nonce(9))));
    assert_eq!((read.nonce(), read.key()), (None, None));
    assert_eq!(read.anchor(), Some(SpkiDigest::of(&world.root.spki)));
    let verified = appraisal.verified().unwrap();
    assert_eq!(read.claims(), &serde_json::to_value(verified.claims()).unwrap());
    assert_eq!(read.to_json()["eat_profile"], PROFILE);
    assert_eq!(read.to_json()["submods"]["cpu0"]["ear.coffer.binding"], "raw");
}

/// Genuine evidence, judged by a policy that asks about all of it.
fn genuine() -> (VerifiedReport, EvidencePolicy) {
    let milan = vectors::milan();
    let verified = coffer_verifier::verify(
        &milan.report,
        &milan.endorsements,
        &TrustAnchors::amd(),
        &ExpectedReportData::Any,
        &milan.crl,
        NOW,
    );
    let verified = verified.unwrap();
    let policy = format!(
        "measurements = [\"{}\"]\n[[tcb]]\nproduct = \"Milan\"\nsource = \"a test\"\n\
reported = {{ bootloader = 3, tee = 0, snp = 8, microcode = 0x73 }}\n",
        verified.report().measurement()
    );
    (verified, EvidencePolicy::from_toml(&policy).unwrap())
}

#[test]
fn genuine_evidence_is_affirmed_if_nothing_was_waived() {
    let (verified, policy) = genuine();
    let result = appraise(&verified, &policy).unwrap();
    let whole = token(&(&result).into(), &NamedBinding::Raw);
    let hardware = if vectors::milan().crl == CrlPolicy::Waived { 32 } else { 2 };
    assert_eq!(
        vector(&whole),
        json!({ "configuration": 2, "executables": 2, "hardware": hardware, "runtime-opaque": 2 })
    );
    if hardware == 2 {
        let strict = |demands: &mut Demands<'_>| {
            (demands.simulated, demands.warnings) = (SimulatedRule::Refused, WarningRule::Refused);
        };
        assert_eq!((status(&whole), reasons(&whole, strict, NOW)), (json!("affirming"), vec![]));
    }
    // Any measurement, and no minimum: two warnings, and a relying party that takes none of them.
    let result = appraise(&verified, &floor()).unwrap();
    let waived = token(&(&result).into(), &NamedBinding::Raw);
    assert_eq!(vector(&waived), json!({ "configuration": 2, "executables": 33, "hardware": 32, "runtime-opaque": 2 }));
    assert_eq!(status(&waived), "warning");
    assert_eq!(reasons(&waived, |_| {}, NOW), []);
    let found = reasons(&waived, |demands| demands.warnings = WarningRule::Refused, NOW);
    assert_eq!(found, [TokenReason::Status { found: Status::Warning, expected: Status::Affirming }]);
}

#[test]
fn simulated_evidence_is_never_affirmed_and_refused_unless_allowed() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    assert_eq!(vector(&token), json!({ "configuration": 2, "executables": 33, "hardware": 97, "runtime-opaque": 96 }));
    assert_eq!(status(&token), "contraindicated");
    let found = reasons(&token, |demands| demands.simulated = SimulatedRule::Refused, NOW);
    assert_eq!(heads(&found), ["simulated", "status"]);
    // What else is waived is not forgiven with it.
    let found = reasons(&token, |demands| demands.warnings = WarningRule::Refused, NOW);
    assert_eq!(found, [TokenReason::Status { found: Status::Warning, expected: Status::Affirming }]);
}

#[test]
fn what_was_refused_is_contraindicated_for_its_reasons() {
    let mut debugged = World::new();
    debugged.patch(offset::POLICY, &0xb0000_u64.to_le_bytes());
    let mut spoiled = World::new();
    spoiled.leaf.spoil_signature = true;
    let toml = |text: &str| EvidencePolicy::from_toml(text).unwrap();
    let other_pair = Pair {
        measurement: coffer_verifier::abi::Measurement::new([0x44; 48]),
        host_data: coffer_verifier::abi::HostData::new([0x22; 32]),
    };
    let no_chip = format!("measurements = \"any\"\nchips = [\"{}\"]\n", "ab".repeat(64));
    for (world, policy, claim, value) in [
        (&debugged, floor(), "configuration", 96),
        (&debugged, floor(), "runtime-opaque", 96),
        (&World::new(), floor().with_pairs(vec![other_pair]), "executables", 96),
        (&World::new(), toml("measurements = \"any\"\nproducts = [\"Genoa\"]\n"), "hardware", 97),
        (&World::new(), toml(&no_chip), "instance-identity", 97),
        (&spoiled, floor(), "hardware", 99),
        (&spoiled, floor(), "executables", 99),
    ] {
        let appraisal = judge(world, policy);
        assert!(appraisal.result().is_none());
        let token = token(&(&appraisal).into(), &NamedBinding::Raw);
        assert_eq!((&vector(&token)[claim], status(&token)), (&json!(value), json!("contraindicated")), "{claim}");
        let heads = heads(&reasons(&token, |_| {}, NOW));
        // What a simulator cannot be, genuine hardware, is left out of the status: the verdict stands all the same.
        let expected = if value == 97 && claim == "hardware" { &["verdict"][..] } else { &["verdict", "status"] };
        assert_eq!(heads, expected, "{claim}");
        let said = Token::parse(&token).unwrap().unverified().unwrap();
        let cpu0 = &said["submods"]["cpu0"];
        assert_eq!(cpu0["ear.coffer.verdict"], appraisal.verdict().as_str());
        assert_eq!(cpu0["ear.coffer.reasons"], serde_json::to_value(appraisal.reasons()).unwrap());
        assert_eq!(cpu0["ear.coffer.claims"].is_null(), appraisal.verified().is_none());
    }
}

#[test]
fn a_policy_that_accepts_debugging_does_not_make_memory_opaque() {
    let mut world = World::new();
    world.patch(offset::POLICY, &0xb0000_u64.to_le_bytes());
    let policy = "measurements = \"any\"\n[guest_policy]\ndebug = \"any\"\n";
    let appraisal = judge(&world, EvidencePolicy::from_toml(policy).unwrap());
    let token = token(&(&appraisal).into(), &NamedBinding::Raw);
    assert_eq!((&vector(&token)["runtime-opaque"], &vector(&token)["configuration"]), (&json!(96), &json!(32)));
}

#[test]
fn a_downgraded_result_and_a_rejection_are_refusals() {
    let (verified, policy) = genuine();
    let mut result = appraise(&verified, &policy).unwrap();
    result.downgrade(Reason::new(Code::Rego, "false", "true", ""));
    let rejection = appraise(&verified, &EvidencePolicy::from_toml("measurements = []\n").unwrap()).unwrap_err();
    for judged in [Judged::from(&result), Judged::rejected(&verified, &rejection)] {
        let token = token(&judged, &NamedBinding::Raw);
        assert_eq!(status(&token), "contraindicated");
        assert_eq!(heads(&reasons(&token, |_| {}, NOW)), ["verdict", "status"]);
    }
}

const WORKLOAD: WorkloadDigest = WorkloadDigest::new([3; 32]);
const PEER: SpkiDigest = SpkiDigest::new([2; 32]);

fn hpke() -> EncryptionKey {
    EncryptionKey { kem: 0x11, kdf: 1, aead: 2, public_key: vec![6; 97] }
}

fn connection<'a>(own: &'a SpkiDigest, challenge: &'a [u8; 32], key: &'a EncryptionKey) -> ConnectionBinding<'a> {
    ConnectionBinding {
        role: Role::Client,
        purpose: ALPN_KBS,
        exporter: &[4; 32],
        challenge,
        own_spki: own,
        peer_spki: &PEER,
        encryption_key: key,
        workload: &WORKLOAD,
    }
}

#[test]
fn nonce_and_key_stand_in_a_token_only_by_a_binding_inside_the_report() {
    let guest = signer(21).1;
    let (own, hpke) = (guest.spki_digest(), hpke());
    let bound = connection(&own, &[5; 32], &hpke);
    let appraisal = accepted(&world(bound.report_data()));
    let binding = NamedBinding::Connection { connection: &bound, key: &guest };
    let read = verify(&token(&(&appraisal).into(), &binding)).unwrap();
    assert_eq!((read.nonce(), read.key()), (Some(&nonce(5)), Some(&GuestKey::P384(guest))));
    let cnf = &read.to_json()["cnf"]["jwk"];
    assert_eq!((&cnf["kty"], &cnf["crv"], cnf.as_object().unwrap().len()), (&json!("EC"), &json!("P-384"), 4));

    // The same report, with the words of another: somebody's public evidence and one's own key or challenge.
    let thief = signer(22).1;
    let (stolen, stale) = (thief.spki_digest(), connection(&own, &[6; 32], &hpke));
    let laundered = connection(&stolen, &[5; 32], &hpke);
    for binding in [
        NamedBinding::Connection { connection: &laundered, key: &thief },
        NamedBinding::Connection { connection: &stale, key: &guest },
        NamedBinding::Certificate { key: &thief, workload: WORKLOAD },
        NamedBinding::Certificate { key: &guest, workload: WORKLOAD },
        NamedBinding::Workload { workload: WORKLOAD, data: &[5; 32] },
    ] {
        let error = claims(&(&appraisal).into(), &binding, NOW).unwrap_err();
        assert!(matches!(error, EarError::NotShown(NotShown::ReportData { .. })), "{binding:?}: {error}");
    }
    let binding = NamedBinding::Connection { connection: &bound, key: &thief };
    let error = claims(&(&appraisal).into(), &binding, NOW).unwrap_err();
    assert!(matches!(error, EarError::NotShown(NotShown::Key { .. })), "{error}");

    // The thief gets a token without a key, and whoever asks for one refuses it.
    let raw = token(&(&appraisal).into(), &NamedBinding::Raw);
    let said = Token::parse(&raw).unwrap().unverified().unwrap();
    assert_eq!((said.get("cnf"), said.get("eat_nonce")), (None, None));
    let found = reasons(
        &raw,
        |demands| {
            demands.key = KeyRule::Exactly(GuestKey::P384(thief));
            demands.nonce = NonceRule::Exactly(nonce(5));
        },
        NOW,
    );
    assert_eq!(heads(&found), ["nonce", "key"]);
}

#[test]
fn each_binding_yields_what_it_holds_and_no_more() {
    let guest = signer(21).1;
    let certificate = accepted(&world(certificate_report_data(&guest.spki_digest(), &WORKLOAD)));
    let read = verify(&token(&(&certificate).into(), &NamedBinding::Certificate { key: &guest, workload: WORKLOAD }));
    let read = read.unwrap();
    assert_eq!((read.nonce(), read.key()), (None, Some(&GuestKey::P384(guest))));

    for (data, expected) in [(&[5; 32][..], Some(nonce(5))), (b"short", None), (&[5; 65], None)] {
        let appraisal = accepted(&world(workload_report_data(&WORKLOAD, data)));
        let binding = NamedBinding::Workload { workload: WORKLOAD, data };
        let read = verify(&token(&(&appraisal).into(), &binding)).unwrap();
        assert_eq!((read.nonce(), read.key()), (expected.as_ref(), None));
    }

    let json = br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qQ"}],"user-data":"00"}"#;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let length = json.len() as u32;
    let blob = |report: &[u8]| {
        let tail = words(&[length + 20, 1, 2, 1, length]);
        [b"HCLA".to_vec(), words(&[2, 1236 + length, 2, 0, 0, 0, 0]), report.to_vec(), tail, json.to_vec()].concat()
    };
    let unsigned = blob(&[0; 1184]);
    let ExpectedReportData::Attachment(bound) = HclBlob::parse(&unsigned).unwrap().expected_report_data() else {
        panic!("an attachment");
    };
    let world = world(bound);
    let blob = blob(&world.signed_report());
    let blob = HclBlob::parse(&blob).unwrap();
    let read = verify(&token(&(&accepted(&world)).into(), &NamedBinding::AzureHcl(&blob))).unwrap();
    let key = GuestKey::from_jwk(&json!({ "kty": "RSA", "e": "AQAB", "n": "qQ" })).unwrap();
    assert_eq!((read.nonce(), read.key()), (None, Some(&key)));
    let error = claims(&(&accepted(&World::new())).into(), &NamedBinding::AzureHcl(&blob), NOW).unwrap_err();
    assert!(matches!(error, EarError::NotShown(_)), "{error}");
}

#[test]
fn evidence_that_is_not_authentic_shows_nothing() {
    let guest = signer(21).1;
    let mut world = world(certificate_report_data(&guest.spki_digest(), &WORKLOAD));
    world.leaf.spoil_signature = true;
    let appraisal = judge(&world, floor());
    let token = token(&(&appraisal).into(), &NamedBinding::Certificate { key: &guest, workload: WORKLOAD });
    let said = Token::parse(&token).unwrap().unverified().unwrap();
    assert_eq!((said.get("cnf"), &said["submods"]["cpu0"]["ear.coffer.anchor"]), (None, &Value::Null));
}

#[test]
fn a_token_ends_with_what_its_evidence_rests_on_and_is_issued_when_it_is_judged() {
    let world = World::new();
    let appraisal = accepted(&world);
    let judged = Judged::from(&appraisal);
    for now in [UnixTime(NOW.0 - 1), UnixTime(NOW.0 + 301)] {
        assert_eq!(claims(&judged, &NamedBinding::Raw, now).unwrap_err(), EarError::Age { judged: NOW, now });
    }
    let (_, until) = appraisal.verified().unwrap().validity();
    let mut late = World::new();
    late.now = UnixTime(until.0 - 100);
    let appraisal = accepted(&late);
    let token = claims(&(&appraisal).into(), &NamedBinding::Raw, late.now).unwrap().sign(&signer(7)).unwrap();
    let said = Token::parse(&token).unwrap().unverified().unwrap();
    assert_eq!(said["exp"], until.0, "the list goes stale in 100 s");
    let error = claims(&(&appraisal).into(), &NamedBinding::Raw, until).unwrap_err();
    assert_eq!(error, EarError::Outlived { until, now: until });
}

#[test]
fn each_demand_refuses_what_does_not_meet_it() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    type Change<'a> = &'a dyn Fn(&mut Demands<'_>);
    let cases: [(&str, Change<'_>); 8] = [
        ("issuer", &|demands| demands.issuer = IssuerRule::Exactly(Issuer::parse("https://other.example").unwrap())),
        ("audience", &|demands| demands.audience = word("https://shop.example")),
        ("nonce", &|demands| demands.nonce = NonceRule::Exactly(nonce(9))),
        ("request-nonce", &|demands| demands.request_nonce = NonceRule::Exactly(nonce(8))),
        ("key", &|demands| demands.key = KeyRule::Exactly(GuestKey::P384(signer(7).1))),
        ("policy", &|demands| demands.policy = PolicyRule::Exactly { policy: word("other"), revision: None }),
        ("policy-revision", &|demands| {
            demands.policy = PolicyRule::Exactly { policy: word("fleet"), revision: Some(word("8")) };
        }),
        ("simulated", &|demands| {
            (demands.simulated, demands.warnings) = (SimulatedRule::Refused, WarningRule::Accepted);
        }),
    ];
    for (head, change) in cases {
        let found = heads(&reasons(&token, change, NOW));
        assert_eq!(found.first().map(String::as_str), Some(head));
        assert!(found.len() == 1 || head == "simulated", "{found:?}");
    }
    let met = |demands: &mut Demands<'_>| {
        demands.request_nonce = NonceRule::Exactly(nonce(9));
        demands.policy = PolicyRule::Exactly { policy: word("fleet"), revision: Some(word("7")) };
    };
    assert_eq!(reasons(&token, met, NOW), []);
    assert_eq!(reasons(&token, |demands| demands.issuer = IssuerRule::HolderOfAKey, NOW), []);
    // Every reason, not the first.
    let both = |demands: &mut Demands<'_>| {
        (demands.audience, demands.request_nonce) = (word("x"), NonceRule::Exactly(nonce(8)));
    };
    assert_eq!(heads(&reasons(&token, both, UnixTime(NOW.0 + 10_000))), ["audience", "expired", "request-nonce"]);
}

#[test]
fn time_counts_with_a_bounded_skew() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    for (skew, from, to) in [(0, NOW.0, NOW.0 + 299), (60, NOW.0 - 60, NOW.0 + 359), (300, NOW.0 - 300, NOW.0 + 599)] {
        let set = |demands: &mut Demands<'_>| demands.skew = Skew::from_secs(skew).unwrap();
        for good in [from, to] {
            assert_eq!(reasons(&token, set, UnixTime(good)), [], "{skew} {good}");
        }
        assert_eq!(heads(&reasons(&token, set, UnixTime(from - 1))), ["issued"]);
        assert_eq!(heads(&reasons(&token, set, UnixTime(to + 1))), ["expired"]);
    }
    assert_eq!((Skew::from_secs(301), Skew::from_secs(-1)), (None, None));
}

/// Signs any header and any payload, as no issuer of ours does.
fn raw(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let signature = signer(7).sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature))
}

fn header() -> String {
    format!(r#"{{"alg":"ES384","kid":"{}","typ":"eat+jwt"}}"#, thumbprint(&signer(7).1))
}

/// The payload of a good token, changed.
fn payload(change: impl FnOnce(&mut Value)) -> String {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    let payload = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut payload: Value = serde_json::from_slice(&payload).unwrap();
    change(&mut payload);
    payload.to_string()
}

#[test]
fn a_header_names_one_algorithm_one_type_one_listed_key_and_nothing_else() {
    let good = payload(|_| {});
    verify(&raw(&header(), &good)).unwrap();
    let kid = thumbprint(&signer(7).1);
    let with = |name: &str, value: Value| {
        let mut header: Value = serde_json::from_str(&header()).unwrap();
        header[name] = value;
        verify(&raw(&header.to_string(), &good)).unwrap_err()
    };
    for algorithm in ["none", "None", "HS384", "HS256", "ES256", "es384", "RS256", ""] {
        assert_eq!(with("alg", algorithm.into()), TokenError::Algorithm { found: algorithm.into() });
    }
    for kind in ["JWT", "jwt", "EAT+JWT", "application/eat+jwt", "at+jwt"] {
        assert_eq!(with("typ", kind.into()), TokenError::Type { found: kind.into() });
    }
    let own: Value = serde_json::from_str(&Jwks::new([signer(30).1]).to_json()).unwrap();
    for (name, value) in [
        ("jwk", own["keys"][0].clone()),
        ("x5c", json!(["MIIB"])),
        ("jku", json!("https://verifier.example/.well-known/jwks.json")),
        ("x5u", json!("https://verifier.example/a.pem")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        assert_eq!(with(name, value), TokenError::Header { name: name.into() });
    }
    let stranger = thumbprint(&signer(30).1);
    assert_eq!(with("kid", stranger.clone().into()), TokenError::UnknownKey { kid: stranger });
    // A listed key that did not sign.
    assert!(matches!(with("kid", thumbprint(&signer(8).1).into()), TokenError::Signature { .. }));
    for header in [
        format!(r#"{{"alg":"ES384","kid":"{kid}"}}"#),
        format!(r#"{{"kid":"{kid}","typ":"eat+jwt"}}"#),
        r#"{"alg":"ES384","typ":"eat+jwt"}"#.to_owned(),
        format!(r#"{{"alg":"none","alg":"ES384","kid":"{kid}","typ":"eat+jwt"}}"#),
        format!(r#"{{"alg":["ES384"],"kid":"{kid}","typ":"eat+jwt"}}"#),
        "[]".to_owned(),
        "ES384".to_owned(),
    ] {
        assert!(matches!(verify(&raw(&header, &good)), Err(TokenError::Json { part: "header", .. })), "{header}");
    }
}

#[test]
fn claims_are_typed_stand_once_and_are_all_there() {
    let json = |payload: &str| {
        let said = verify(&raw(&header(), payload));
        assert!(matches!(said, Err(TokenError::Json { part: "payload", .. })), "{payload}");
    };
    for name in ["eat_profile", "iss", "aud", "iat", "exp", "jti", "simulated", "submods", "ear.verifier-id"] {
        json(&payload(|claims| drop(claims.as_object_mut().unwrap().remove(name))));
    }
    let good = payload(|_| {});
    json(&good.replacen('{', r#"{"simulated":false,"#, 1));
    json(&good.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1));
    json(&payload(|claims| claims["exp"] = json!(1.8e9)));
    json(&payload(|claims| claims["exp"] = json!("1789862700")));
    json(&payload(|claims| claims["aud"] = json!([AUDIENCE])));
    json(&payload(|claims| claims["simulated"] = json!("false")));
    json(&payload(|claims| claims["submods"]["cpu1"] = claims["submods"]["cpu0"].clone()));
    json(&payload(|claims| claims["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"] = json!(200)));
    json(&payload(|claims| claims["submods"]["cpu0"]["ear.status"] = json!("fine")));
    let profile = verify(&raw(&header(), &payload(|claims| claims["eat_profile"] = "tag:other".into())));
    assert_eq!(profile.unwrap_err(), TokenError::Profile { found: "tag:other".into() });
    let nonce = verify(&raw(&header(), &payload(|claims| claims["eat_nonce"] = "AAAA".into())));
    assert_eq!(nonce.unwrap_err(), TokenError::Nonce { claim: "eat_nonce" });
    for jwk in
        [json!({ "kty": "oct", "k": "AAAA" }), json!({ "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" }), json!(1)]
    {
        let key = verify(&raw(&header(), &payload(|claims| claims["cnf"] = json!({ "jwk": jwk }))));
        assert!(matches!(key, Err(TokenError::Key(_))));
    }
    // A claim nobody knows is passed over.
    verify(&raw(&header(), &payload(|claims| claims["later"] = json!({ "a": 1 })))).unwrap();
    // A span no token of ours has, and a status better than its vector.
    let long = raw(&header(), &payload(|claims| claims["exp"] = json!(NOW.0 + 86_401)));
    assert_eq!(heads(&reasons(&long, |_| {}, NOW)), ["lifetime"]);
    let praised = raw(
        &header(),
        &payload(|claims| {
            claims["simulated"] = json!(false);
            claims["submods"]["cpu0"]["ear.status"] = json!("affirming");
        }),
    );
    assert_eq!(heads(&reasons(&praised, |_| {}, NOW)), ["status"]);
    let silent = raw(
        &header(),
        &payload(|claims| {
            claims["simulated"] = json!(false);
            claims["submods"]["cpu0"]["ear.status"] = json!("none");
            claims["submods"]["cpu0"]["ear.trustworthiness-vector"] = json!({});
        }),
    );
    assert_eq!(heads(&reasons(&silent, |_| {}, NOW)), ["status"]);
}

#[test]
fn one_text_is_one_token_and_any_bit_flipped_is_refused() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    let good = verify(&token).unwrap().to_json();
    let (head, signature) = token.rsplit_once('.').unwrap();
    for bad in [
        head.to_owned(),
        format!("{token}."),
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{head}."),
        format!("{head}.{}", &signature[..127]),
        format!("{head}.{signature}AAAA"),
        String::new(),
        "..".to_owned(),
        "a".repeat(65 * 1024),
    ] {
        assert!(verify(&bad).is_err(), "{bad:.100}");
    }
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bytes).unwrap();
        assert!(verify(&bent).map(|token| token.to_json()).is_err(), "byte {at}: {good}");
    }
}

/// Speaks with the other library: a JSON document in, one out.
fn other(request: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ear.py");
    let mut child = Command::new("/usr/bin/python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3; `make setup` installs it");
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "jwcrypto; `make setup` installs it");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn another_library_believes_our_tokens_and_names_our_keys_as_we_do() {
    let tokens: Vec<_> = (0..20)
        .map(|seed| {
            let world = world(workload_report_data(&WORKLOAD, &[seed; 32]));
            let data = [seed; 32];
            token(&(&accepted(&world)).into(), &NamedBinding::Workload { workload: WORKLOAD, data: &data })
        })
        .collect();
    let bent = format!("{}A", tokens[0].strip_suffix(|_: char| true).unwrap());
    let all: Vec<_> = tokens.iter().chain([&bent]).collect();
    let said = other(&json!({ "do": "read", "jwks": keys().to_json(), "tokens": all, "aud": AUDIENCE, "iss": ISSUER }));
    let read = said["claims"].as_array().unwrap();
    for (token, claims) in tokens.iter().zip(read) {
        assert_eq!(*claims, verify(token).unwrap().to_json());
    }
    assert_eq!((read.len(), &read[20]), (21, &Value::Null), "a bent one is not believed there either");
    let thumbprints: Vec<_> = keys().keys().iter().map(thumbprint).collect();
    assert_eq!(said["thumbprints"], json!(thumbprints));
}

#[test]
fn what_another_library_makes_is_believed_if_it_is_right_and_refused_if_it_is_wrong() {
    let secret = BASE64URL.encode([7; 48]);
    let payload: Value = serde_json::from_str(&payload(|_| {})).unwrap();
    let said = other(&json!({
        "do": "make", "jwks": keys().to_json(), "d": secret, "claims": payload,
    }));
    let made = said["tokens"].as_object().unwrap();
    assert!(made.len() >= 12, "{:?}", made.keys());
    for (name, token) in made {
        let said = verify(token.as_str().unwrap());
        match name.as_str() {
            "good" => assert_eq!(said.unwrap().to_json(), payload),
            "expired" | "early" | "wrong-audience" | "wrong-issuer" => {
                let error = said.err().unwrap_or_else(|| panic!("{name} was believed"));
                assert!(error.is_authentic(), "{name}: {error}");
            }
            _ => {
                let error = said.err().unwrap_or_else(|| panic!("{name} was believed"));
                assert!(!error.is_authentic(), "{name}: {error}");
            }
        }
    }
}
