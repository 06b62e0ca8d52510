//! The service without a network: policies, challenges, tokens, and that its answer is the judge's.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_kds::Collected;
use coffer_verifier::ear::{
    Demands, Issuer, IssuerRule, KeyRule, Nonce, NonceRule, PolicyRule, SimulatedRule, Skew, Token, WarningRule, Word,
};
use coffer_verifier::{
    ConnectionChain, CrlPolicy, Endorsements, Evidence, EvidencePolicy, ExpectedReportData, Presented, TrustAnchors,
    UnixTime, Verdict, Verifier,
};
use coffer_verifier_service::{Answer, Appraiser, Challenges, Refusal, one};
use serde_json::{Value, json};

use crate::common::{ISSUER, asks, codes, config, evidence, with, without};
use crate::simulated::{SECONDS, installation};
use crate::vectors;

const NOW: UnixTime = UnixTime(SECONDS.cast_signed());
const DAY: i64 = 86_400;

struct World {
    appraiser: Appraiser,
    challenges: Challenges,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = config(folder.path());
        Self {
            appraiser: file.resolve(folder.path()).unwrap().appraiser,
            challenges: Challenges::new(&[1; 32], [1; 8], NOW),
        }
    }

    fn ask(&self, request: &Value, now: UnixTime) -> Result<Answer, Refusal> {
        self.ask_with(request, &Collected::default(), now)
    }

    fn ask_with(&self, request: &Value, found: &Collected, now: UnixTime) -> Result<Answer, Refusal> {
        let asked = one(request.to_string().as_bytes())?;
        let admitted = self.appraiser.admit(asked, &self.challenges, now)?;
        self.appraiser.answer(admitted, found, now, [3; 16])
    }

    fn answer(&self, request: &Value) -> Value {
        read(&self.ask(request, NOW).unwrap_or_else(|refusal| panic!("{refusal}")))
    }
}

fn read(answer: &Answer) -> Value {
    if answer.appraisal.missing().is_empty() {
        assert_eq!(answer.appraisal_json().unwrap(), serde_json::to_string(&answer.appraisal).unwrap());
    }
    serde_json::from_slice(&answer.to_json().unwrap()).unwrap()
}

fn verdict(answer: &Value) -> &str {
    answer["appraisal"]["verdict"].as_str().unwrap()
}

#[test]
fn simulated_evidence_is_refused_unless_the_policy_lists_its_root() {
    let world = World::new();
    let request = asks(&evidence(SECONDS, [5; 64]));
    for policy in [json!({}), json!({ "policy": "strict" })] {
        let answer = world.answer(&with(request.clone(), policy));
        assert_eq!((verdict(&answer), codes(&answer)), ("not-authentic", vec!["untrusted-root"]));
        assert_eq!(answer["policy"]["id"], "strict", "no name is the default, never no policy");
        assert_eq!(answer["appraisal"]["claims"], Value::Null);
    }
    let answer = world.answer(&with(request.clone(), json!({ "policy": "lab" })));
    assert_eq!((verdict(&answer), &answer["appraisal"]["simulated"]), ("accepted", &json!(true)));
    let unknown = world.ask(&with(request, json!({ "policy": "none" })), NOW).err();
    assert_eq!(unknown, Some(Refusal::Policy("none".into())));
}

#[test]
fn what_may_take_long_is_judged_where_nobody_waits_for_it() {
    let world = World::new();
    let soon = |request: &Value| {
        let asked = one(request.to_string().as_bytes()).unwrap();
        world.appraiser.admit(asked, &world.challenges, NOW).unwrap().is_soon_judged()
    };
    let request = with(asks(&evidence(SECONDS, [5; 64])), json!({ "policy": "lab" }));
    assert!(soon(&request), "a report, its chain and its list");
    let spec = Evidence { workload_spec: vec![b' '; 32 << 10], ..evidence(SECONDS, [5; 64]) };
    assert!(!soon(&with(asks(&spec), json!({ "policy": "lab" }))), "and nothing that is so long");
    assert!(!soon(&with(request, json!({ "policy": "gated" }))), "nor what a text of the operator's is asked about");
}

#[test]
fn a_list_that_came_with_the_evidence_is_no_older_than_one_that_was_seen() {
    let world = World::new();
    let request = with(asks(&evidence(SECONDS, [5; 64])), json!({ "policy": "lab" }));
    for (list_floor, expected) in [(0, "accepted"), (1, "accepted"), (u64::MAX, "not-authentic")] {
        let found = Collected { list_floor, ..Collected::default() };
        let answer = read(&world.ask_with(&request, &found, NOW).ok().unwrap());
        assert_eq!(verdict(&answer), expected, "{list_floor}");
        assert_eq!(codes(&answer).contains(&"crl-number"), expected != "accepted");
    }
}

#[test]
fn the_answer_is_the_judges_in_the_judges_shape() {
    let world = World::new();
    let (good, mut bent) = (evidence(SECONDS, [5; 64]), evidence(SECONDS, [5; 64]));
    bent.report[0x90] ^= 1;
    let anchors = installation().anchors().fold(TrustAnchors::amd(), |all, anchor| all.with_simulated(anchor.spki));
    for (evidence, at) in [(&good, NOW), (&bent, NOW), (&good, UnixTime(NOW.0 + 200 * DAY))] {
        let policy = EvidencePolicy::default_floor();
        let verifier = Verifier { anchors: anchors.clone(), crl: CrlPolicy::Required, policy };
        let presented = Presented::parse(&evidence.to_cmw()).unwrap();
        let judge = |report_data: &ExpectedReportData| {
            verifier.judge_presented(&ConnectionChain::new(), &presented, &Endorsements::new(), report_data, at)
        };
        for (stated, meant) in [
            ("any".to_owned(), ExpectedReportData::Any),
            ("05".repeat(64), ExpectedReportData::Exactly(coffer_verifier::abi::ReportData::new([5; 64]))),
            ("06".repeat(64), ExpectedReportData::Exactly(coffer_verifier::abi::ReportData::new([6; 64]))),
        ] {
            let request = with(asks(evidence), json!({ "policy": "lab", "report_data": stated }));
            let answer = read(&world.ask(&request, at).ok().unwrap());
            assert_eq!(answer["appraisal"], coffer_kds::appraisal_json(&judge(&meant), false), "{stated}");
        }
    }
}

#[test]
fn a_challenge_is_what_report_data_must_be_and_is_spent_also_in_vain() {
    let world = World::new();
    let challenge = world.challenges.issue([9; 16], NOW);
    let fresh = without(asks(&evidence(SECONDS, challenge.0)), "report_data");
    let fresh = with(fresh, json!({ "policy": "lab", "challenge": challenge.text() }));
    let answer = world.answer(&fresh);
    assert_eq!(verdict(&answer), "accepted");
    assert_eq!(answer["appraisal"]["claims"]["report_data_binding"], "demanded");
    assert_eq!(world.ask(&fresh, NOW).err(), Some(Refusal::ChallengeSpent));

    // Somebody's report, shown again under a challenge it was not made for.
    let challenge = world.challenges.issue([10; 16], NOW);
    let laundered = without(asks(&evidence(SECONDS, [5; 64])), "report_data");
    let laundered = with(laundered, json!({ "policy": "lab", "challenge": challenge.text() }));
    let answer = world.answer(&laundered);
    assert_eq!((verdict(&answer), codes(&answer)), ("not-authentic", vec!["report-data"]));
    assert_eq!(world.ask(&laundered, NOW).err(), Some(Refusal::ChallengeSpent), "there is no second try");

    let late = world.challenges.issue([11; 16], NOW);
    let late = with(without(fresh, "challenge"), json!({ "challenge": late.text() }));
    assert_eq!(world.ask(&late, UnixTime(NOW.0 + 60)).err(), Some(Refusal::ChallengeExpired));
}

#[test]
fn evidence_that_has_run_out_is_not_authentic() {
    let world = World::new();
    let request = with(asks(&evidence(SECONDS, [5; 64])), json!({ "policy": "lab", "token": { "audience": "me" } }));
    let answer = read(&world.ask(&request, UnixTime(NOW.0 + 200 * DAY)).ok().unwrap());
    assert_eq!((verdict(&answer), codes(&answer)), ("not-authentic", vec!["crl-dates"]));
    let token = answer["token"].as_str().unwrap();
    assert!(demand(&world, token, UnixTime(NOW.0 + 200 * DAY), SimulatedRule::Allowed).is_err());
    // A chain that held before is asked for its dates each time.
    assert_eq!(verdict(&world.answer(&request)), "accepted");
    let later = world.ask(&request, UnixTime(NOW.0 + 200 * DAY)).ok().unwrap();
    assert_eq!(later.appraisal.verdict(), Verdict::NotAuthentic);
}

fn demand(world: &World, token: &str, now: UnixTime, simulated: SimulatedRule) -> Result<(), String> {
    let keys = world.appraiser.issuer.as_ref().unwrap().keys.jwks(NOW);
    let demands = Demands {
        keys: &keys,
        issuer: IssuerRule::Exactly(Issuer::parse(ISSUER).unwrap()),
        audience: Word::parse("https://bank.example").unwrap(),
        nonce: NonceRule::NotAsked,
        request_nonce: NonceRule::Exactly(Nonce::new(&[8; 32]).unwrap()),
        key: KeyRule::NotAsked,
        policy: PolicyRule::Exactly { policy: Word::parse("lab").unwrap(), revision: None },
        simulated,
        warnings: WarningRule::Accepted,
        skew: Skew::DEFAULT,
    };
    let parsed = Token::parse(token).map_err(|error| error.to_string())?;
    parsed.verify(&demands, now).map(drop).map_err(|refusal| refusal.to_string())
}

#[test]
fn a_token_says_the_same_and_is_for_whoever_asked_alone() {
    let world = World::new();
    let wanted = json!({
        "policy": "lab",
        "report_data": "05".repeat(64),
        "request_nonce": Nonce::new(&[8; 32]).unwrap().to_string(),
        "token": { "audience": "https://bank.example", "lifetime_seconds": 120 },
    });
    let answer = world.answer(&with(asks(&evidence(SECONDS, [5; 64])), wanted.clone()));
    assert_eq!(answer["request_nonce"], wanted["request_nonce"]);
    let token = answer["token"].as_str().unwrap();
    assert_eq!(demand(&world, token, NOW, SimulatedRule::Allowed), Ok(()));
    assert!(demand(&world, token, NOW, SimulatedRule::Refused).is_err(), "it says that it is a simulator's");
    assert!(demand(&world, token, UnixTime(NOW.0 + 121 + 60), SimulatedRule::Allowed).is_err(), "it has ended");
    let other = World::new();
    assert!(demand(&other, token, NOW, SimulatedRule::Allowed).is_err(), "of another issuer's keys");

    // Evidence that is refused has a token that says so.
    let refused = with(wanted.clone(), json!({ "report_data": "06".repeat(64) }));
    let answer = world.answer(&with(asks(&evidence(SECONDS, [5; 64])), refused));
    assert!(demand(&world, answer["token"].as_str().unwrap(), NOW, SimulatedRule::Allowed).is_err());

    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = config(folder.path());
    (file.issuer, file.token_keys) = (None, None);
    let silent = World { appraiser: file.resolve(folder.path()).unwrap().appraiser, ..World::new() };
    assert_eq!(silent.ask(&with(asks(&evidence(SECONDS, [5; 64])), wanted), NOW).err(), Some(Refusal::NoTokens));
}

/// What the answer's token says.
fn claims(answer: &Value) -> Value {
    let claims = answer["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[test]
fn evidence_over_a_nonce_counts_for_that_one_and_its_token_has_it() {
    let world = World::new();
    let nonce = Nonce::new(&[8; 32]).unwrap();
    let presented = Presented::parse(&evidence(SECONDS, [0; 64]).to_cmw()).unwrap();
    let over =
        |nonce: &Nonce| without(asks(&evidence(SECONDS, *presented.over_nonce(nonce).as_bytes())), "report_data");
    let more = |nonce: &Nonce| json!({ "policy": "lab", "nonce": nonce.to_string(), "token": { "audience": "a" } });
    let answer = world.answer(&with(over(&nonce), more(&nonce)));
    assert_eq!((verdict(&answer), &claims(&answer)["eat_nonce"]), ("accepted", &json!(nonce.to_string())));
    assert_eq!(answer["appraisal"]["claims"]["report_data_binding"], "demanded");
    // An older one's evidence, and one whose REPORT_DATA is the nonce itself.
    let other = Nonce::new(&[9; 32]).unwrap();
    let raw = without(asks(&evidence(SECONDS, [8; 64])), "report_data");
    for asked in [with(over(&other), more(&nonce)), with(raw, more(&Nonce::new(&[8; 64]).unwrap()))] {
        let answer = world.answer(&asked);
        assert_eq!((verdict(&answer), codes(&answer)), ("not-authentic", vec!["report-data"]));
        assert_eq!(claims(&answer)["eat_nonce"], Value::Null);
    }
}

#[test]
fn rego_refuses_what_the_floor_accepts_and_nothing_else_changes() {
    let world = World::new();
    let ask = |policy: &str, first: u8| {
        let request =
            with(asks(&evidence(SECONDS, [first; 64])), json!({ "policy": policy, "token": { "audience": "a" } }));
        world.answer(&request)
    };
    assert_eq!(verdict(&ask("gated", 0xfe)), "accepted");
    assert_eq!(verdict(&ask("lab", 0xff)), "accepted");
    let refused = ask("gated", 0xff);
    assert_eq!((verdict(&refused), codes(&refused)), ("refused", vec!["rego"]));
    assert_eq!(refused["appraisal"]["reasons"][0]["found"], "gate: it begins with ff");
    assert_ne!(refused["policy"]["revision"], ask("lab", 0xff)["policy"]["revision"]);
    let claims = refused["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["submods"]["cpu0"]["ear.coffer.verdict"], "refused");
    assert_eq!(claims["submods"]["cpu0"]["ear.appraisal-policy-id"], "gated");
}

#[test]
fn every_form_gets_the_same_answer() {
    let world = World::new();
    let full = evidence(SECONDS, [5; 64]);
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    let tsm =
        json!({ "outblob": encoded(&full.report), "auxblob": encoded(&full.cert_table), "provider": "sev_guest" });
    let table = coffer_verifier::abi::CertTable::parse(&full.cert_table).unwrap();
    let (mut certificates, mut crls) = (Vec::new(), Vec::new());
    for (kind, bytes) in table.entries() {
        let list = if *kind == coffer_verifier::abi::CertKind::Crl { &mut crls } else { &mut certificates };
        list.push(encoded(bytes));
    }
    assert_eq!((certificates.len(), crls.len()), (3, 1));
    for evidence in [
        json!({ "evidence": encoded(&full.to_cmw()) }),
        json!({ "evidence": encoded(tsm.to_string().as_bytes()) }),
        json!({ "evidence": encoded(&full.report), "cert_table": encoded(&full.cert_table) }),
        json!({ "evidence": encoded(&full.report), "certificates": certificates, "crls": crls }),
    ] {
        let answer = world.answer(&with(evidence, json!({ "report_data": "05".repeat(64), "policy": "lab" })));
        assert_eq!(verdict(&answer), "accepted", "{answer}");
    }
    let bare = json!({ "evidence": encoded(&full.report), "report_data": "any", "policy": "lab" });
    let answer = world.answer(&bare);
    assert_eq!(codes(&answer), ["endorsement-missing"]);
    assert!(!answer["appraisal"]["missing"].as_array().unwrap().is_empty());
}

#[test]
fn one_that_is_a_certificate_and_must_not_be_used_is_the_judges_to_name() {
    let world = World::new();
    let full = evidence(SECONDS, [5; 64]);
    let table = coffer_verifier::abi::CertTable::parse(&full.cert_table).unwrap();
    let (_, leaf) = table.entries().iter().find(|(kind, _)| *kind == coffer_verifier::abi::CertKind::Vcek).unwrap();
    let mut bent = leaf.to_vec();
    // The version, from 3 to 2: still a certificate, and none of AMD's form.
    let at = bent.windows(5).position(|five| five == [0xa0, 3, 2, 1, 2]).unwrap();
    bent[at + 4] = 1;
    let request = with(asks(&full), json!({ "policy": "lab", "certificates": [STANDARD.encode(&bent)] }));
    match world.ask(&request, NOW) {
        Ok(answer) => assert_eq!(answer.appraisal.verdict(), Verdict::NotAuthentic, "{}", answer.appraisal.why()),
        Err(refusal) => assert_eq!(refusal.code(), "malformed-endorsement"),
    }
}

#[test]
fn genuine_evidence_is_judged_as_the_command_judges_it() {
    let mut seen = 0;
    for name in ["milan-v2-kvm", "genoa-v3", "turin-v5", "genoa-v3-azure-hcl", "milan-v2-azure-hcl"] {
        let Some(folder) = vectors::folder(&format!("snp/{name}")) else { return };
        let read = |file: &str| std::fs::read(folder.join(file));
        let file = ["report.bin", "hcl.bin"].into_iter().find_map(|file| read(file).ok()).unwrap();
        let of = |names: &[&str]| -> Vec<String> {
            let found = names.iter().flat_map(|name| ["der", "pem"].map(|end| read(&format!("{name}.{end}"))));
            found.flatten().map(|bytes| STANDARD.encode(bytes)).collect()
        };
        let request = json!({
            "evidence": STANDARD.encode(&file),
            "certificates": of(&["vcek", "vlek", "ask", "asvk", "ark"]),
            "crls": of(&["crl"]),
            "report_data": "any",
            "policy": "plain",
            "token": { "audience": "a" },
        });
        let folder = tempfile::tempdir().unwrap();
        let (mut config, _) = config(folder.path());
        let plain = coffer_verifier_service::PolicyEntry {
            floor: Some("vmpl-and-debug-alone".into()),
            ..coffer_verifier_service::PolicyEntry::default()
        };
        config.policies.insert("plain".into(), plain);
        let world = World { appraiser: config.resolve(folder.path()).unwrap().appraiser, ..World::new() };
        let answer = world.ask(&request, NOW).ok().unwrap();
        assert_eq!(answer.appraisal.verdict(), Verdict::Accepted, "{name}: {}", answer.appraisal.why());
        let claims = answer.token.unwrap();
        let claims =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["simulated"], false);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn of_an_azure_blob_the_token_has_the_key_that_is_bound_and_a_challenge_stands_above_it() {
    let world = World::new();
    let runtime = br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"qQ"}],"user-data":"00"}"#;
    let blob = |report_data: [u8; 64]| {
        let full = evidence(SECONDS, report_data);
        let words = |words: &[usize]| words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect::<Vec<_>>();
        let length = runtime.len();
        let header = [b"HCLA".to_vec(), words(&[2, 1236 + length, 2, 0, 0, 0, 0])].concat();
        let blob = [header, full.report, words(&[length + 20, 1, 2, 1, length]), runtime.to_vec()].concat();
        let table = STANDARD.encode(&full.cert_table);
        json!({ "evidence": STANDARD.encode(blob), "cert_table": table, "policy": "lab", "token": { "audience": "a" } })
    };
    let mut bound = [0; 64];
    bound[..32].copy_from_slice(&<sha2::Sha256 as sha2::Digest>::digest(runtime));
    let answer = world.answer(&with(blob(bound), json!({ "report_data": "any" })));
    assert_eq!(answer["appraisal"]["claims"]["report_data_binding"], "attachment");
    assert_eq!((verdict(&answer), &claims(&answer)["cnf"]["jwk"]["n"]), ("accepted", &json!("qQ")));
    let foreign = world.answer(&with(blob([5; 64]), json!({ "report_data": "any" })));
    assert_eq!((verdict(&foreign), codes(&foreign)), ("not-authentic", vec!["runtime-data"]));
    assert_eq!(claims(&foreign)["cnf"], Value::Null);
    let demanded = world.answer(&with(blob(bound), json!({ "report_data": "05".repeat(64) })));
    assert_eq!(codes(&demanded), ["report-data"]);
}

#[test]
fn evidence_default_is_judged_and_not_believed() {
    let world = World::new();
    let request = with(asks(&Evidence::default()), json!({ "policy": "lab" }));
    let answer = world.answer(&request);
    assert_eq!((verdict(&answer), codes(&answer)), ("not-authentic", vec!["report-malformed"]));
}
