//! What stands in a token, of what was judged and shown.

use super::*;

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
    let said = StatedStatus { stated: Status::Warning, but_for_hardware: None };
    assert_eq!(found, [TokenReason::Status { found: said, expected: Status::Affirming }]);
}

#[test]
fn simulated_evidence_is_never_affirmed_and_refused_unless_allowed() {
    let token = token(&(&accepted(&World::new())).into(), &NamedBinding::Raw);
    // No minimum TCB was asked about, for which hardware that is none has no room.
    assert_eq!(vector(&token), json!({ "configuration": 32, "executables": 33, "hardware": 97, "runtime-opaque": 97 }));
    assert_eq!(status(&token), "contraindicated");
    let found = reasons(&token, |demands| demands.simulated = SimulatedRule::Refused, NOW);
    assert_eq!(heads(&found), ["simulated"]);
    // What else is waived is not forgiven with it.
    let found = reasons(&token, |demands| demands.warnings = WarningRule::Refused, NOW);
    let said = StatedStatus { stated: Status::Contraindicated, but_for_hardware: Some(Status::Warning) };
    let status = TokenReason::Status { found: said, expected: Status::Affirming };
    assert_eq!(found, std::slice::from_ref(&status));
    assert_eq!(
        status.to_string(),
        "status: found contraindicated (warning but for its simulated hardware), expected affirming"
    );
    // One token has one status, whether or not simulators are believed.
    let refused = |demands: &mut Demands<'_>| {
        (demands.simulated, demands.warnings) = (SimulatedRule::Refused, WarningRule::Refused);
    };
    assert_eq!(reasons(&token, refused, NOW), [TokenReason::Simulated, status]);
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
        (&World::new(), toml("measurements = \"any\"\nproducts = [\"Genoa\"]\n"), "hardware", 96),
        (&World::new(), toml(&no_chip), "instance-identity", 97),
        (&spoiled, floor(), "hardware", 99),
        (&spoiled, floor(), "executables", 99),
    ] {
        let appraisal = judge(world, policy);
        assert!(appraisal.result().is_none());
        let token = token(&(&appraisal).into(), &NamedBinding::Raw);
        assert_eq!((&vector(&token)[claim], status(&token)), (&json!(value), json!("contraindicated")), "{claim}");
        assert_eq!(heads(&reasons(&token, |_| {}, NOW)), ["verdict", "status"], "{claim}");
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
    // Nor is it forgiven to a simulated guest where it is to none.
    assert_eq!(heads(&reasons(&token, |_| {}, NOW)), ["status"]);
}

#[test]
fn what_is_waived_for_simulated_evidence_warns_as_it_does_for_genuine() {
    let floor = "measurements = \"any\"\n[guest_policy]\nmigrate_ma = \"any\"\n[[tcb]]\nproduct = \"Milan\"\n\
        reported = { bootloader = 1, tee = 0, snp = 0, microcode = 0 }\n";
    let configuration = |world: &World| {
        let appraisal = judge(world, EvidencePolicy::from_toml(floor).unwrap());
        assert!(appraisal.result().is_some(), "{}", appraisal.why());
        vector(&token(&(&appraisal).into(), &NamedBinding::Raw))["configuration"].clone()
    };
    let mut migrating = World::new();
    migrating.patch(offset::POLICY, &0x70000_u64.to_le_bytes());
    let waived = World { crl: CrlPolicy::Waived, ..World::new() };
    assert_eq!(configuration(&World::new()), 2);
    assert_eq!(configuration(&migrating), 32, "a migration agent");
    assert_eq!(configuration(&waived), 32, "no revocation list");
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

const PEER: SpkiDigest = SpkiDigest::new([2; 32]);

pub(super) fn hpke() -> EncryptionKey {
    EncryptionKey { kem: 0x11, kdf: 1, aead: 2, public_key: vec![6; 97] }
}

pub(super) fn connection<'a>(
    own: &'a SpkiDigest,
    challenge: &'a [u8; 32],
    key: &'a EncryptionKey,
) -> ConnectionBinding<'a> {
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

    // Over the workload that the report states, whatever somebody says of it; and no other nonce's, nor another label's.
    let stated = WorkloadDigest::new([0x22; 32]);
    let over = accepted(&world(nonce_report_data(&stated, &[5; 32])));
    let of_another = accepted(&world(nonce_report_data(&WORKLOAD, &[5; 32])));
    let read = verify(&token(&(&over).into(), &NamedBinding::Nonce(&nonce(5)))).unwrap();
    assert_eq!((read.nonce(), read.key()), (Some(&nonce(5)), None));
    let of_workload = accepted(&world(workload_report_data(&stated, &[5; 32])));
    for (appraisal, other) in [(&over, 6), (&of_workload, 5), (&of_another, 5)] {
        let error = claims(&appraisal.into(), &NamedBinding::Nonce(&nonce(other)), NOW).unwrap_err();
        assert!(
            matches!(error, EarError::NotShown(NotShown::ReportData { binding: "coffer/nonce/v1", .. })),
            "{error}"
        );
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
