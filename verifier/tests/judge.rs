//! The one judge: what it expects no policy widens, every check is listed as it was made, one defect has one code, and a
//! connection's chain is verified once.

use crate::forge;
use crate::forge::World;
use crate::vectors;
use coffer_verifier::{
    Appraisal, Code, ConnectionChain, Cost, CrlPolicy, Endorsements, Evidence, EvidencePolicy, Expected, ExpectedGuest,
    ExpectedReportData, HclBlob, Outcome, Pair, SignerRule, Stage, TrustAnchors, UnixTime, Verdict, Verifier,
    abi::{CertKind, CertTable, FamilyId, HostData, ImageId, KeyDigest, Measurement, ReportData, report::offset},
};

fn pair(measurement: u8, host_data: u8) -> Pair {
    Pair { measurement: Measurement::new([measurement; 48]), host_data: HostData::new([host_data; 32]) }
}

/// What the worlds of `forge` are.
fn usual() -> Pair {
    pair(0x11, 0x22)
}

fn expected(guest: ExpectedGuest) -> Expected {
    Expected { report_data: ExpectedReportData::Exactly(ReportData::new([0x5a; 64])), guest }
}

fn verifier(world: &World) -> Verifier {
    Verifier { anchors: world.anchors(), crl: world.crl.clone(), policy: EvidencePolicy::default_floor() }
}

/// Evidence that brings its chain and its list, as guests send it.
fn evidence(world: &World) -> Evidence {
    let table = CertTable::write(&[
        (CertKind::Vcek, &world.leaf.encode(&world.ask_key)),
        (CertKind::Ask, &world.ask.encode(&world.root_key)),
        (CertKind::Ark, &world.root.encode(&world.root_key)),
    ]);
    let crls = world.list.iter().map(|list| list.encode(&world.root_key)).collect();
    Evidence { report: world.signed_report(), cert_table: table, crls, workload_spec: Vec::new() }
}

fn judge_with(world: &World, policy: EvidencePolicy, guest: ExpectedGuest) -> Appraisal {
    let verifier = Verifier { policy, ..verifier(world) };
    verifier.judge(&evidence(world), &Endorsements::new(), &expected(guest), world.now)
}

fn judge(world: &World) -> Appraisal {
    judge_with(world, EvidencePolicy::default_floor(), ExpectedGuest::Exactly(usual()))
}

fn codes(appraisal: &Appraisal) -> Vec<&'static str> {
    appraisal.reasons().iter().map(|reason| reason.code.as_str()).collect()
}

#[test]
fn a_policy_never_widens_what_is_expected() {
    let mut world = World::new();
    world.patch(offset::KEY_INFO, &[1]);
    world.patch(offset::AUTHOR_KEY_DIGEST, &[0x66; 48]);
    let author = SignerRule {
        author_key: KeyDigest::new([0x66; 48]),
        family_id: FamilyId::new([0; 16]),
        image_id: ImageId::new([0; 16]),
        minimum_guest_svn: 0,
    };
    let floor = EvidencePolicy::default_floor;
    let other = ExpectedGuest::Exactly(pair(0x11, 0x23));
    for (policy, what) in [
        (floor().with_pairs(vec![]).with_signers(vec![author]), "an author of both"),
        (floor().with_signers(vec![author]), "an author of both, beside any pair"),
        (floor().with_pairs(vec![usual()]), "the pair that runs"),
        (floor().with_measurements(vec![usual().measurement]).with_host_data(vec![usual().host_data]), "each half"),
        (floor(), "nothing"),
    ] {
        let said = judge_with(&world, policy.clone(), other.clone());
        assert_eq!((said.verdict(), codes(&said)), (Verdict::Refused, vec!["measurement-and-workload"]), "{what}");
        let said = judge_with(&world, policy, ExpectedGuest::Exactly(usual()));
        assert_eq!(said.verdict(), Verdict::Accepted, "{what}: {}", said.why());
    }
    let narrower = floor().with_pairs(vec![pair(0x44, 0x22)]);
    assert_eq!(codes(&judge_with(&world, narrower, ExpectedGuest::Exactly(usual()))), ["measurement-and-workload"]);
    let by_author = ExpectedGuest::Admitted { pairs: vec![], signers: vec![author] };
    assert_eq!(judge_with(&world, floor(), by_author.clone()).verdict(), Verdict::Accepted);
    let nobody = floor().with_pairs(vec![]);
    assert_eq!(
        codes(&judge_with(&world, nobody, by_author)),
        ["measurement-and-workload"],
        "a policy narrows authors too"
    );
}

#[test]
fn every_check_is_listed_as_it_was_made_also_after_a_failure() {
    type Spoil = fn(&mut World);
    let cases: [(Spoil, &str); 9] = [
        (|_| {}, ""),
        (|w| w.patch(offset::VERSION, &[9]), "report-malformed"),
        (|w| w.patch(offset::VMPL, &[0xff; 4]), "host-requested"),
        (|w| w.leaf.spki[0] = 0, "certificate-form"),
        (|w| w.anchored = false, "untrusted-root"),
        (|w| w.list = None, "endorsement-missing"),
        (|w| w.list().revoked = vec![vec![1, 0, 1]], "revoked"),
        (|w| w.leaf_key = forge::leaf_key(9), "signature"),
        (|w| w.patch(offset::POLICY + 2, &[0x0b]), "debug"),
    ];
    for (spoil, code) in cases {
        let mut world = World::new();
        spoil(&mut world);
        let said = judge(&world);
        let checks = said.checks();
        for listed in Code::ALL.iter().filter(|code| code.stage() != Stage::Elsewhere) {
            assert!(checks.iter().any(|check| check.code == *listed), "{code}: no line for {listed}");
        }
        let failed: Vec<_> = checks.iter().filter(|check| check.outcome == Outcome::Failed).collect();
        assert_eq!(failed.iter().map(|check| check.code.as_str()).collect::<String>(), code);
        assert_eq!(codes(&said).concat(), code);
        for check in &checks {
            let said = !check.hint.is_empty();
            assert_eq!(said, matches!(check.outcome, Outcome::Failed | Outcome::NotRun), "{check}");
        }
        if said.verdict() == Verdict::NotAuthentic {
            let later = checks.iter().filter(|check| check.code.stage() > failed[0].code.stage());
            assert!(later.clone().all(|check| check.outcome == Outcome::NotRun), "{code}: nothing later was made");
            let policy = checks.iter().find(|check| check.code == Code::Vmpl).unwrap();
            assert_eq!(policy.hint, format!("not made, because {code} failed"));
        }
    }
}

#[test]
fn an_appraisal_is_written_in_one_form() {
    let mut world = World::new();
    let keys = ["anchor", "checks", "claims", "missing", "reasons", "simulated", "verdict", "workload_digest"];
    let form = |said: &Appraisal| {
        let value = serde_json::to_value(said).unwrap();
        let object = value.as_object().unwrap();
        let mut names: Vec<_> = object.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, keys);
        for check in value["checks"].as_array().unwrap() {
            let mut names: Vec<_> = check.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["code", "expected", "found", "hint", "outcome"]);
        }
        value
    };
    let accepted = form(&judge(&world));
    assert_eq!((&accepted["verdict"], &accepted["simulated"]), (&"accepted".into(), &true.into()));
    world.list = None;
    let missing = form(&judge(&world));
    assert_eq!((&missing["verdict"], &missing["claims"]), (&"not-authentic".into(), &serde_json::Value::Null));
    assert_eq!(missing["missing"][0]["kind"], "certificate revocation list");
    assert_eq!(missing["missing"][0]["simulated"], true, "AMD has no list of this root's");
}

#[test]
fn found_is_the_reports_side_and_a_tcb_mismatch_names_the_part() {
    let reason = |spoil: fn(&mut World)| {
        let mut world = World::new();
        spoil(&mut world);
        let said = judge(&world);
        let reason = &said.reasons()[0];
        (reason.code.as_str(), reason.found.clone(), reason.expected.clone())
    };
    let text = |code, found: &str, expected: &str| (code, found.to_owned(), expected.to_owned());
    let tcb = reason(|w| w.patch(offset::REPORTED_TCB + 6, &[0x17]));
    assert_eq!(tcb, text("tcb", "snp 23 in the report", "snp 24, as the VCEK certifies"));
    let tcb = reason(|w| w.patch(offset::REPORTED_TCB, &[5, 1]));
    assert_eq!(tcb, text("tcb", "bootloader 5 tee 1 in the report", "bootloader 4 tee 0, as the VCEK certifies"));
    let product = reason(|w| w.patch(offset::CPUID, &[0x19, 0x11, 1]));
    assert_eq!(product, text("product", "Genoa in the report", "Milan, as the leaf certifies"));
    let (code, found, expected) = reason(|w| w.patch(offset::CHIP_ID, &[0xff]));
    assert_eq!(code, "chip-id");
    assert!(found.starts_with("ff02") && expected.starts_with("0102"), "{found} {expected}");
}

#[test]
fn what_was_not_compared_is_not_called_passed() {
    let line = |world: &World, code: Code| judge(world).checks().into_iter().find(|check| check.code == code).unwrap();
    let mut world = World::new();
    assert_eq!(line(&world, Code::Product).outcome, Outcome::Passed);
    assert_eq!(line(&world, Code::Measurement).outcome, Outcome::Waived, "the policy names none");
    assert_eq!(line(&world, Code::WorkloadSpec).outcome, Outcome::NotRun, "none was sent");
    world.patch(offset::VERSION, &[2]);
    world.patch(offset::CPUID, &[0; 3]);
    let product = line(&world, Code::Product);
    assert_eq!(product.outcome, Outcome::NotRun);
    assert_eq!(product.hint, "a version 2 report does not state its product; its VCEK says Milan");
    world.patch(offset::CHIP_ID, &[0; 64]);
    assert_eq!(line(&world, Code::ChipId).outcome, Outcome::NotRun, "masked");
    world.crl = CrlPolicy::Waived;
    assert_eq!(line(&world, Code::Revoked).outcome, Outcome::Waived);
}

#[test]
fn zero_says_that_it_matches_no_rule() {
    let mut world = World::new();
    world.patch(offset::MEASUREMENT, &[0; 48]);
    let zero = pair(0, 0x22);
    let policy = EvidencePolicy::default_floor().with_measurements(vec![zero.measurement]);
    let said = judge_with(&world, policy, ExpectedGuest::Exactly(zero));
    assert_eq!(codes(&said), ["measurement-and-workload", "measurement"]);
    for reason in said.reasons() {
        assert!(reason.found.contains("zero, which matches no rule"), "{reason}");
    }
}

#[test]
fn a_leafs_dates_are_its_own() {
    let mut world = World::new();
    world.leaf.to = "270101000000Z".into();
    let claims = judge(&world).verified().unwrap().claims();
    assert_eq!(claims.leaf.valid_to, UnixTime::parse("2027-01-01T00:00:00Z").unwrap());
    assert_eq!(claims.valid.to, UnixTime::parse("2026-10-01T00:00:00Z").unwrap(), "the list ends first");
}

#[test]
fn no_hint_about_a_simulators_chain_points_at_amd() {
    let spoils: [fn(&mut World); 4] = [
        |w| w.list = None,
        |w| w.list().to = Some("260919235959Z".into()),
        |w| w.list().spoil_signature = true,
        |w| w.list().revoked = vec![vec![1, 0, 1]],
    ];
    for spoil in spoils {
        let mut world = World::new();
        spoil(&mut world);
        let said = judge(&world);
        assert_eq!(said.verdict(), Verdict::NotAuthentic);
        assert!(said.reasons().iter().all(|reason| !reason.hint.contains("AMD")), "{:?}", said.reasons());
        assert!(said.missing().iter().all(|request| request.simulated));
    }
}

#[test]
fn endorsements_that_are_none_have_the_code_of_the_file() {
    let world = World::new();
    let broken = |change: fn(&mut Evidence)| {
        let mut evidence = evidence(&world);
        change(&mut evidence);
        let guest = ExpectedGuest::Exactly(usual());
        codes(&verifier(&world).judge(&evidence, &Endorsements::new(), &expected(guest), world.now)).concat()
    };
    assert_eq!(broken(|e| e.cert_table = vec![1; 50]), "certificate-table");
    assert_eq!(broken(|e| e.crls = vec![vec![0; 9]]), "crl-form");
    assert_eq!(broken(|e| e.cert_table = CertTable::write(&[(CertKind::Ark, b"x")])), "certificate-form");
    assert_eq!(broken(|e| e.workload_spec = vec![1]), "workload-spec");
    assert_eq!(broken(|e| e.report.truncate(1183)), "report-malformed");
}

#[test]
fn a_connections_chain_is_verified_once_and_again_when_anything_under_it_changes() {
    let world = World::new();
    let (one, none) = (evidence(&world), Endorsements::new());
    let want = expected(ExpectedGuest::Exactly(usual()));
    let verifier = verifier(&world);
    let connection = ConnectionChain::new();
    let ask = |verifier: &Verifier, evidence: &Evidence, given: &Endorsements, now| {
        verifier.judge_on(&connection, evidence, given, &want, now)
    };
    let (chain, known, report) = (Cost { rsa: 4, ecdsa: 1 }, Cost::default(), Cost { rsa: 0, ecdsa: 1 });
    let first = ask(&verifier, &one, &none, world.now);
    assert_eq!((first.verdict(), first.cost()), (Verdict::Accepted, chain));
    for _ in 0..10 {
        let again = ask(&verifier, &one, &none, world.now);
        assert_eq!((again.verdict(), again.cost()), (Verdict::Accepted, known));
        assert_eq!(again.checks(), first.checks(), "the same is said of it");
    }
    // Its dates are asked of the time that it is.
    let later = UnixTime(world.now.0 + 1);
    let again = ask(&verifier, &one, &none, later);
    assert_eq!((again.verdict(), again.cost()), (Verdict::Accepted, known));
    for code in [Code::CertificateDates, Code::CrlDates] {
        let checks = again.checks();
        let line = checks.iter().find(|line| line.code == code).unwrap();
        assert_eq!(line.expected, format!("valid at {later}"));
    }
    // Any other report is checked in full, whichever bit makes it another.
    for at in [offset::MEASUREMENT, offset::R, offset::S] {
        let mut altered = one.clone();
        altered.report[at] ^= 1;
        assert_eq!(codes(&ask(&verifier, &altered, &none, world.now)), ["signature"], "{at:#x}");
    }
    // What fails under a kept chain is said with all that was checked of it, as under a chain of its own.
    let (mut signature, mut spec) = (one.clone(), one.clone());
    signature.report[offset::S] ^= 1;
    spec.workload_spec = vec![1];
    for (failing, code) in [(signature, "signature"), (spec, "workload-spec")] {
        let (kept, alone) =
            (ask(&verifier, &failing, &none, world.now), verifier.judge(&failing, &none, &want, world.now));
        assert_eq!((codes(&kept), kept.cost().rsa), (vec![code], 0));
        assert_eq!(kept.checks(), alone.checks(), "{code}");
    }
    // Another anchor, another demand, a list more, another certificate table: another chain.
    let fewer = Verifier { anchors: TrustAnchors::amd(), ..verifier.clone() };
    assert_eq!(codes(&ask(&fewer, &one, &none, world.now)), ["untrusted-root"]);
    let newer = Verifier { crl: CrlPolicy::AtLeast(8), ..verifier.clone() };
    assert_eq!(codes(&ask(&newer, &one, &none, world.now)), ["crl-number"]);
    let mut revoking = World::new();
    revoking.list().extensions = vec![forge::Extension::new(forge::CRL_NUMBER, false, forge::integer(8))];
    revoking.list().revoked = vec![vec![1, 0, 1]];
    let mut given = Endorsements::new();
    given.add_crl(&revoking.list.as_ref().unwrap().encode(&world.root_key)).unwrap();
    assert_eq!(codes(&ask(&verifier, &one, &given, world.now)), ["revoked"]);
    let mut bare = one.clone();
    bare.cert_table = Vec::new();
    assert_eq!(codes(&ask(&verifier, &bare, &none, world.now)), ["endorsement-missing"]);
    let mut no_list = one.clone();
    no_list.crls.clear();
    assert_eq!(codes(&ask(&verifier, &no_list, &none, world.now)), ["endorsement-missing"]);
    assert_eq!(ask(&verifier, &one, &none, world.now).cost(), known, "what failed was not kept");
    // Another report of the same guest takes the place of the first.
    let mut another = World::new();
    another.patch(offset::REPORT_DATA, &[9; 64]);
    let other = Evidence { report: another.signed_report(), ..one.clone() };
    let anything = Expected { report_data: ExpectedReportData::Any, ..want.clone() };
    let ask_other = || verifier.judge_on(&connection, &other, &none, &anything, world.now);
    assert_eq!((ask_other().cost(), ask_other().cost()), (report, known));
    assert_eq!(
        codes(&ask(&verifier, &other, &none, world.now)),
        ["report-data"],
        "what else is demanded is asked each time"
    );
    assert_eq!(ask(&verifier, &one, &none, world.now).cost(), report);
    // It ends with the first date that passes: the list's.
    let late = ask(&verifier, &one, &none, UnixTime::parse("2026-10-01T00:00:01Z").unwrap());
    assert_eq!(codes(&late), ["crl-dates"]);
}

/// Who looks at signatures beside each other says the same of everything.
#[test]
fn the_soonest_answer_is_the_same_answer() {
    let world = World::new();
    let want = expected(ExpectedGuest::Exactly(usual()));
    let changed = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = evidence(&world);
        change(&mut evidence);
        evidence
    };
    let flipped = |at: usize| changed(&move |e| e.report[at] ^= 1);
    let foreign = Verifier { anchors: TrustAnchors::amd(), ..verifier(&world) };
    let newer = Verifier { crl: CrlPolicy::AtLeast(8), ..verifier(&world) };
    let usual_one = verifier(&world);
    let cases = [
        (&usual_one, evidence(&world), ""),
        (&usual_one, flipped(offset::MEASUREMENT), "signature"),
        (&usual_one, flipped(offset::R), "signature"),
        (&usual_one, flipped(offset::S), "signature"),
        (&usual_one, changed(&|e| e.report[offset::R..offset::R + 72].fill(0)), "signature"),
        (&usual_one, changed(&|e| e.report[offset::S..offset::S + 72].fill(0xff)), "report-malformed"),
        (&usual_one, changed(&|e| e.crls.clear()), "endorsement-missing"),
        (&usual_one, changed(&|e| e.cert_table.clear()), "endorsement-missing"),
        (&usual_one, changed(&|e| e.workload_spec.push(1)), "workload-spec"),
        (&usual_one, changed(&|e| e.report.truncate(100)), "report-malformed"),
        (&foreign, evidence(&world), "untrusted-root"),
        (&foreign, flipped(offset::S), "untrusted-root"),
        (&newer, evidence(&world), "crl-number"),
    ];
    for (verifier, evidence, code) in cases {
        let none = Endorsements::new();
        let kept = ConnectionChain::new();
        let plain = verifier.judge(&evidence, &none, &want, world.now);
        let soonest = verifier.judge_soonest(&kept, &evidence, &none, &want, world.now);
        assert_eq!(codes(&plain).concat(), code);
        let mut text = Vec::new();
        plain.write_json(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&plain).unwrap(), "{code}");
        assert_eq!((soonest.verdict(), codes(&soonest)), (plain.verdict(), codes(&plain)));
        assert_eq!(soonest.checks(), plain.checks(), "{code}");
        assert_eq!(soonest.cost().rsa, plain.cost().rsa, "{code}");
        assert!(soonest.cost().ecdsa >= plain.cost().ecdsa, "what was looked at is counted: {code}");
        // What is kept is what was verified, and nothing that was not.
        let again = verifier.judge_on(&kept, &evidence, &none, &want, world.now);
        assert_eq!(again.checks(), plain.checks(), "{code}");
        if code.is_empty() {
            assert_eq!((soonest.cost(), again.cost()), (Cost { rsa: 4, ecdsa: 1 }, Cost::default()));
        }
    }
}

#[test]
fn leaf_and_list_are_all_a_relying_party_needs() {
    let Some(root) = vectors::root() else { return };
    for name in ["milan-v2-kvm", "genoa-v3", "turin-v5"] {
        let folder = root.join(name);
        let mut given = Endorsements::new();
        given.add_certificates(&vectors::read(&folder, "vcek.der")).unwrap();
        let verifier = Verifier {
            anchors: TrustAnchors::amd(),
            crl: CrlPolicy::Required,
            policy: EvidencePolicy::default_floor(),
        };
        let report = vectors::read(&folder, "report.bin");
        let evidence = Evidence { report, ..Evidence::default() };
        let want = Expected { report_data: ExpectedReportData::Any, guest: ExpectedGuest::WhateverThePolicyAdmits };
        let now = vectors::at(vectors::NOW);
        let without = verifier.judge(&evidence, &given, &want, now);
        assert_eq!(codes(&without), ["endorsement-missing"], "{name}: embedded certificates bring no list");
        assert_eq!(without.missing().len(), 1, "{name}");
        given.add_crl(&vectors::read(&folder, "crl.der")).unwrap();
        let said = verifier.judge(&evidence, &given, &want, now);
        assert_eq!(said.verdict(), Verdict::Accepted, "{name}: {}", said.why());
        let report_data = said.checks().into_iter().find(|check| check.code == Code::ReportData).unwrap();
        assert_eq!(report_data.outcome, Outcome::Waived, "{name}");
    }
}

#[test]
fn an_azure_blob_is_bound_to_its_attachment_and_to_nobody() {
    let Some(root) = vectors::root() else { return };
    let folder = root.join("milan-v2-azure-hcl");
    let bytes = vectors::read(&folder, "hcl.bin");
    let blob = HclBlob::parse(&bytes).unwrap();
    let evidence = Evidence { report: blob.report().to_vec(), ..Evidence::default() };
    let verifier =
        Verifier { anchors: TrustAnchors::amd(), crl: CrlPolicy::Required, policy: EvidencePolicy::default_floor() };
    let want = Expected { report_data: blob.expected_report_data(), guest: ExpectedGuest::WhateverThePolicyAdmits };
    let said = verifier.judge(&evidence, &vectors::endorsements(&folder), &want, vectors::at(vectors::NOW));
    assert_eq!(said.verdict(), Verdict::Accepted, "{}", said.why());
    let claims = serde_json::to_value(&said).unwrap()["claims"].clone();
    assert_eq!((&claims["report_data_bound"], &claims["report_data_binding"]), (&false.into(), &"attachment".into()));
    let outcome = |code| said.checks().into_iter().find(|check| check.code == code).unwrap().outcome;
    assert_eq!((outcome(Code::RuntimeData), outcome(Code::ReportData)), (Outcome::Passed, Outcome::Waived));
}

#[test]
fn an_acceptance_is_taken_away_and_nothing_is_ever_given() {
    use coffer_verifier::Reason;
    let world = World::new();
    let because = || vec![Reason::new(Code::Rego, "it is Sunday", "policy p to allow it", "wait")];
    let (cost, checks) = (judge(&world).cost(), judge(&world).checks());
    let lowered = judge(&world).lowered(because());
    assert_eq!((lowered.verdict(), codes(&lowered)), (Verdict::Refused, vec!["rego"]));
    assert!(lowered.verified().is_some() && lowered.result().is_none());
    let (last, before) = lowered.checks().split_last().map(|(last, all)| (last.code, all.to_vec())).unwrap();
    assert_eq!((lowered.cost(), before, last), (cost, checks, Code::Rego), "every check that was made is still there");
    assert_eq!(judge(&world).lowered(Vec::new()).verdict(), Verdict::Accepted);

    let mut bad = World::new();
    bad.patch(offset::POLICY, &0xb_0000_u64.to_le_bytes());
    let refused = judge(&bad);
    let lower = judge(&bad).lowered(because());
    assert_eq!((lower.verdict(), codes(&lower)), (Verdict::Refused, [codes(&refused), vec!["rego"]].concat()));
    assert_eq!(codes(&judge(&bad).lowered(Vec::new())), codes(&refused), "no reason is no consent");
    bad.leaf_key = forge::leaf_key(9);
    let forged = judge(&bad).lowered(because());
    assert_eq!((forged.verdict(), codes(&forged)), (Verdict::NotAuthentic, codes(&judge(&bad))));
}

#[test]
fn evidence_in_every_form_gets_the_same_answer() {
    use coffer_verifier::Presented;
    let world = World::new();
    let full = evidence(&world);
    let crls = {
        let mut all = Endorsements::new();
        full.crls.iter().for_each(|crl| all.add_crl(crl).unwrap());
        all
    };
    let text = |word: &str| [&[0x60 | word.len() as u8], word.as_bytes()].concat();
    let blob = |bytes: &[u8]| [&[0x59], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let tsm = [
        vec![0xa3],
        text("provider"),
        text("sev_guest"),
        text("outblob"),
        blob(&full.report),
        text("auxblob"),
        blob(&full.cert_table),
    ]
    .concat();
    let mut bare = Presented::parse(&full.report).unwrap();
    assert!(bare.with_cert_table(full.cert_table.clone()) && !bare.with_cert_table(vec![1]));
    let record = Presented::parse(&full.to_cmw()).unwrap();
    let demanded = ExpectedReportData::Exactly(ReportData::new([0x5a; 64]));
    let other = ExpectedReportData::Exactly(ReportData::new([0x5b; 64]));
    for presented in [bare, record, Presented::parse(&tsm).unwrap()] {
        let judge = |demanded| {
            let chain = ConnectionChain::new();
            verifier(&world).judge_presented(&chain, &presented, &crls, demanded, world.now)
        };
        assert_eq!(judge(&demanded).verdict(), Verdict::Accepted, "{}", judge(&demanded).why());
        assert_eq!(codes(&judge(&other)), ["report-data"]);
    }
    for none in [&[][..], b"x", &[0x84], &full.report[1..]] {
        assert!(Presented::parse(none).is_err());
    }
}
