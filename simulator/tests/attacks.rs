//! The attack kit against our own verifier: every attack gets the answer it says it must get, and good evidence passes.

use crate::common::{NOW, installation};
use coffer_simulator::attack::{ATTACKS, AttackError, EvidenceSet, Expect, Scene, find, forge, genuine};
use coffer_verifier::abi::ProductLine;
use coffer_verifier::{
    CrlPolicy, Endorsements, EvidencePolicy, ExpectedReportData, TrustAnchors, UnixTime, VerifyError, appraise,
    verify_evidence,
};

/// `accepted`, `not-authentic`, or the codes of the reasons to refuse.
fn answer(scene: &Scene, set: &EvidenceSet) -> Result<Vec<String>, VerifyError> {
    let anchor = installation().anchor(scene.options.product).unwrap().spki;
    let verified = verify_evidence(
        &set.evidence(),
        &Endorsements::new(),
        &TrustAnchors::amd().with_simulated(anchor),
        &ExpectedReportData::Exactly(scene.report_data),
        &CrlPolicy::Required,
        UnixTime(NOW.cast_signed()),
    )?;
    let policy = EvidencePolicy::from_toml(&scene.policy_toml(installation())).unwrap();
    Ok(match appraise(&verified, &policy) {
        Ok(_) => Vec::new(),
        Err(rejection) => rejection.reasons().iter().map(|reason| reason.code.to_string()).collect(),
    })
}

#[test]
fn good_evidence_is_accepted_for_every_product_and_key() {
    for product in ProductLine::ALL {
        let mut scene = Scene::new(product, NOW);
        assert_eq!(answer(&scene, &genuine(installation(), &scene).unwrap()).unwrap(), Vec::<String>::new());
        scene.options.vlek = Some("CN=cc-test.example".to_owned());
        assert_eq!(answer(&scene, &genuine(installation(), &scene).unwrap()).unwrap(), Vec::<String>::new());
    }
}

/// Codes under which our verifier refuses by the policy of that name.
fn codes_of(policy: &str) -> &'static [&'static str] {
    match policy {
        "tcb" => &["tcb-minimum"],
        "provisional-firmware" => &["provisional-firmware"],
        "chips" => &["chip-not-listed"],
        "floor" => &["debug", "migration-agent", "vmpl"],
        "platform" => &["platform-info"],
        "measurement" => &["measurement"],
        "host-data" => &["host-data"],
        _ => &[],
    }
}

fn every_attack(product: ProductLine) {
    let scene = Scene::new(product, NOW);
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        let set = forge(installation(), &scene, attack.name).unwrap();
        let found = answer(&scene, &set);
        let right = match (&attack.expect, &found) {
            (Expect::NotAuthentic, Err(_)) => true,
            // One thing is wrong, so one reason is given, and it is that of the policy named.
            (Expect::Refused(policy), Ok(reasons)) => {
                reasons.len() == 1 && codes_of(policy).contains(&reasons[0].as_str())
            }
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: expected {:?}, found {found:?}", attack.name, attack.expect));
        }
    }
    assert!(wrong.is_empty(), "{product}:\n{}", wrong.join("\n"));
}

#[test]
fn every_attack_on_milan_gets_its_answer() {
    every_attack(ProductLine::Milan);
}

#[test]
fn every_attack_on_genoa_gets_its_answer() {
    every_attack(ProductLine::Genoa);
}

#[test]
fn every_attack_on_turin_gets_its_answer() {
    every_attack(ProductLine::Turin);
}

#[test]
fn names_are_unique_and_there_are_enough() {
    assert!(ATTACKS.len() >= 30);
    for (index, attack) in ATTACKS.iter().enumerate() {
        assert!(ATTACKS[index + 1..].iter().all(|other| other.name != attack.name), "{}", attack.name);
        assert_eq!(find(attack.name), Some(attack));
    }
    let unknown = forge(installation(), &Scene::new(ProductLine::Milan, NOW), "nosuch");
    assert!(matches!(unknown, Err(AttackError::Unknown(name)) if name == "nosuch"));
}
