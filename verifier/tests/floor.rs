//! The typed floor: each rule refuses what it is for, alone, and all reasons come at once.

use crate::forge::{AMD, Extension, World, tlv};
use coffer_verifier::{
    Accept, BitRule, Code, CrlPolicy, EvidencePolicy, FirmwareRule, Outcome, Pair, Rejection, SignerRule, TcbMinimum,
    TcbRule, UnixTime,
    abi::{
        ChipId, FamilyId, HostData, ImageId, KeyDigest, Measurement, PlatformBit, PolicyBit, ProductLine,
        report::offset,
    },
    appraise,
};

fn refused(spoil: impl FnOnce(&mut World), policy: &EvidencePolicy) -> Vec<&'static str> {
    let mut world = World::new();
    spoil(&mut world);
    let verified = world.verify().unwrap();
    let codes = |rejection: Rejection| rejection.reasons().iter().map(|reason| reason.code.as_str()).collect();
    appraise(&verified, policy).map_or_else(codes, |_| Vec::new())
}

fn with(change: impl FnOnce(&mut EvidencePolicy)) -> EvidencePolicy {
    let mut policy = EvidencePolicy::default_floor();
    change(&mut policy);
    policy
}

fn same(_: &mut World) {}

#[test]
fn the_default_floor_asks_for_vmpl_0_no_debug_and_no_migration_agent() {
    let floor = EvidencePolicy::default_floor();
    assert_eq!(refused(same, &floor), [""; 0]);
    assert_eq!(refused(|w| w.patch(offset::VMPL, &[1]), &floor), ["vmpl"]);
    assert_eq!(refused(|w| w.patch(offset::POLICY + 2, &[0x0b]), &floor), ["debug"]);
    assert_eq!(refused(|w| w.patch(offset::POLICY + 2, &[0x07]), &floor), ["migration-agent"]);
}

#[test]
fn all_reasons_come_at_once_each_with_a_hint() {
    let mut world = World::new();
    world.patch(offset::VMPL, &[2]);
    world.patch(offset::POLICY + 2, &[0x0f]);
    let policy = with(|p| p.measurements = Accept::Only(vec![]));
    let rejection = appraise(&world.verify().unwrap(), &policy).unwrap_err();
    let codes: Vec<_> = rejection.reasons().iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(codes, ["vmpl", "migration-agent", "debug", "measurement"]);
    for reason in rejection.reasons() {
        assert!(!reason.hint.is_empty() && !reason.found.is_empty() && !reason.expected.is_empty(), "{reason}");
    }
    assert!(rejection.checks().iter().any(|check| check.outcome == Outcome::Passed));
    assert_eq!(rejection.checks().iter().filter(|check| check.outcome == Outcome::Failed).count(), 4);
}

#[test]
fn every_policy_and_platform_bit_can_be_required_and_forbidden() {
    for bit in PolicyBit::ALL {
        for (rule, set) in [(BitRule::Required, false), (BitRule::Forbidden, true)] {
            let value = 0x20000_u64 | u64::from(set) << bit as u8;
            let policy = with(|p| {
                for any in PolicyBit::ALL {
                    p.guest_policy = p.guest_policy.with(any, BitRule::Any);
                }
                p.guest_policy = p.guest_policy.with(bit, rule);
            });
            let report = |value: u64| move |w: &mut World| w.patch(offset::POLICY, &value.to_le_bytes());
            assert_eq!(refused(report(value), &policy).len(), 1, "{} {rule:?}", bit.name());
            assert_eq!(refused(report(value ^ 1 << bit as u8), &policy).len(), 0, "{} {rule:?}", bit.name());
        }
    }
    for bit in PlatformBit::ALL {
        for (rule, value) in [(BitRule::Required, 0_u64), (BitRule::Forbidden, 1 << bit as u8)] {
            let policy = with(|p| p.platform = p.platform.with(bit, rule));
            let report = |value: u64| move |w: &mut World| w.patch(offset::PLATFORM_INFO, &value.to_le_bytes());
            assert_eq!(refused(report(value), &policy), ["platform-info"], "{} {rule:?}", bit.name());
            assert_eq!(refused(report(value ^ 1 << bit as u8), &policy), [""; 0], "{} {rule:?}", bit.name());
        }
    }
    let unknown = with(|p| p.platform.unknown = BitRule::Forbidden);
    assert_eq!(refused(|w| w.patch(offset::PLATFORM_INFO + 1, &[1]), &unknown), ["platform-info-unknown"]);
    let some = with(|p| p.platform.unknown = BitRule::Required);
    assert_eq!(refused(|w| w.patch(offset::PLATFORM_INFO, &[0xff]), &some), ["platform-info-unknown"]);
    assert_eq!(refused(|w| w.patch(offset::PLATFORM_INFO, &[0xff]), &unknown), [""; 0]);
    let abi = with(|p| p.minimum_abi = (1, 55));
    assert_eq!(refused(|w| w.patch(offset::POLICY, &[54, 1]), &abi), ["minimum-abi"]);
    assert_eq!(refused(|w| w.patch(offset::POLICY, &[55, 1]), &abi), [""; 0]);
}

#[test]
fn identities_match_exactly_and_zero_matches_nothing() {
    let zero_measurement = |w: &mut World| w.patch(offset::MEASUREMENT, &[0; 48]);
    let measurements = |byte| with(|p| p.measurements = Accept::Only(vec![Measurement::new([byte; 48])]));
    assert_eq!(refused(same, &measurements(0x11)), [""; 0]);
    assert_eq!(refused(same, &measurements(0x12)), ["measurement"]);
    assert_eq!(refused(zero_measurement, &measurements(0)), ["measurement"]);
    let host_data = |byte| with(|p| p.host_data = Accept::Only(vec![HostData::new([byte; 32])]));
    assert_eq!(refused(same, &host_data(0x22)), [""; 0]);
    assert_eq!(refused(same, &host_data(0x23)), ["host-data"]);
    assert_eq!(refused(|w| w.patch(offset::HOST_DATA, &[0; 32]), &host_data(0)), ["host-data"]);
    let pair = |m, h| Pair { measurement: Measurement::new([m; 48]), host_data: HostData::new([h; 32]) };
    let pairs = |list: Vec<Pair>| with(|p| p.pairs = Accept::Only(list));
    assert_eq!(refused(same, &pairs(vec![pair(0x11, 0x22)])), [""; 0]);
    let crossed = pairs(vec![pair(0x11, 0x33), pair(0x44, 0x22)]);
    assert_eq!(refused(same, &crossed), ["measurement-and-workload"], "each half listed, but not together");
    let no_host_data = |w: &mut World| w.patch(offset::HOST_DATA, &[0; 32]);
    assert_eq!(refused(no_host_data, &pairs(vec![pair(0x11, 0)])), ["measurement-and-workload"]);
    assert_eq!(refused(zero_measurement, &pairs(vec![pair(0, 0x22)])), ["measurement-and-workload"]);

    let key = KeyDigest::new([0x66; 48]);
    let id_key = with(|p| p.id_keys = Accept::Only(vec![key, KeyDigest::new([0; 48])]));
    assert_eq!(refused(same, &id_key), ["id-key"], "no ID block");
    assert_eq!(refused(|w| w.patch(offset::ID_KEY_DIGEST, &[0x66; 48]), &id_key), [""; 0]);
    let author = with(|p| p.author_keys = Accept::Only(vec![key]));
    let digest = |w: &mut World| w.patch(offset::AUTHOR_KEY_DIGEST, &[0x66; 48]);
    assert_eq!(refused(digest, &author), ["author-key"], "without AUTHOR_KEY_EN the digest says nothing");
    assert_eq!(
        refused(
            |w| {
                digest(w);
                w.patch(offset::KEY_INFO, &[1]);
            },
            &author
        ),
        [""; 0]
    );
    let zero_author = with(|p| p.author_keys = Accept::Only(vec![KeyDigest::new([0; 48])]));
    assert_eq!(refused(|w| w.patch(offset::KEY_INFO, &[1]), &zero_author), ["author-key"], "enabled, and zero");
    assert_eq!(refused(|w| w.patch(offset::GUEST_SVN, &[5]), &with(|p| p.minimum_guest_svn = 5)), [""; 0]);
    assert_eq!(refused(|w| w.patch(offset::GUEST_SVN, &[4]), &with(|p| p.minimum_guest_svn = 5)), ["guest-svn"]);
}

#[test]
fn a_signer_admits_what_it_signed_under_its_names_from_its_version_on() {
    let rule = SignerRule {
        author_key: KeyDigest::new([0x66; 48]),
        family_id: FamilyId::new([7; 16]),
        image_id: ImageId::new([8; 16]),
        minimum_guest_svn: 5,
    };
    let policy = |rules: &[SignerRule]| EvidencePolicy::default_floor().with_pairs(vec![]).with_signers(rules.to_vec());
    let signed = |w: &mut World| {
        w.patch(offset::KEY_INFO, &[1]);
        w.patch(offset::AUTHOR_KEY_DIGEST, &[0x66; 48]);
        w.patch(offset::FAMILY_ID, &[7; 16]);
        w.patch(offset::IMAGE_ID, &[8; 16]);
        w.patch(offset::GUEST_SVN, &[5]);
    };
    let also = |at: usize, bytes: &'static [u8]| {
        move |w: &mut World| {
            signed(w);
            w.patch(at, bytes);
        }
    };
    assert_eq!(refused(signed, &policy(&[rule])), [""; 0]);
    assert_eq!(refused(also(offset::GUEST_SVN, &[6]), &policy(&[rule])), [""; 0], "an upgrade");
    assert_eq!(refused(also(offset::MEASUREMENT, &[9; 48]), &policy(&[rule])), [""; 0], "an upgrade");
    for (at, bytes) in [
        (offset::GUEST_SVN, &[4][..]),
        (offset::AUTHOR_KEY_DIGEST, &[0x67]),
        (offset::AUTHOR_KEY_DIGEST, &[0; 48]),
        (offset::KEY_INFO, &[0]),
        (offset::FAMILY_ID, &[6]),
        (offset::IMAGE_ID, &[6]),
        (offset::MEASUREMENT, &[0; 48]),
        (offset::HOST_DATA, &[0; 32]),
    ] {
        assert_eq!(refused(also(at, bytes), &policy(&[rule])), ["signer"], "{at:#x} {bytes:?}");
    }
    assert_eq!(refused(same, &policy(&[rule])), ["signer"]);
    // A zero digest is no author, whatever the report says.
    let nobody = SignerRule { author_key: KeyDigest::new([0; 48]), ..rule };
    assert_eq!(refused(also(offset::AUTHOR_KEY_DIGEST, &[0; 48]), &policy(&[nobody])), ["signer"]);
    // Names and author of two rules make no third rule.
    let crossed = [
        SignerRule { author_key: KeyDigest::new([0x67; 48]), ..rule },
        SignerRule { family_id: FamilyId::new([6; 16]), ..rule },
    ];
    assert_eq!(refused(signed, &policy(&crossed)), ["signer"]);
    // A pair admits beside it; where neither fits both say why.
    let pair = |byte| Pair { measurement: Measurement::new([byte; 48]), host_data: HostData::new([0x22; 32]) };
    assert_eq!(refused(same, &policy(&[rule]).with_pairs(vec![pair(0x11)])), [""; 0]);
    assert_eq!(refused(same, &policy(&[rule]).with_pairs(vec![pair(0x12)])), ["measurement-and-workload", "signer"]);
}

#[test]
fn chips_are_listed_or_denied_and_a_masked_one_is_neither() {
    let mine = ChipId::new(core::array::from_fn(|i| i as u8 + 1));
    let masked = |w: &mut World| w.patch(offset::CHIP_ID, &[0; 64]);
    let allow = with(|p| p.chips.allow = Accept::Only(vec![mine, ChipId::new([0; 64])]));
    assert_eq!(refused(same, &allow), [""; 0]);
    assert_eq!(refused(masked, &allow), ["chip-not-listed"]);
    assert_eq!(refused(same, &with(|p| p.chips.allow = Accept::Only(vec![]))), ["chip-not-listed"]);
    assert_eq!(refused(same, &with(|p| p.chips.deny = vec![mine])), ["chip-denied"]);
    let deny_other = with(|p| p.chips.deny = vec![ChipId::new([9; 64])]);
    assert_eq!(refused(same, &deny_other), [""; 0]);
    assert_eq!(refused(masked, &deny_other), [""; 0], "the leaf says which it is");
    assert_eq!(refused(masked, &with(|p| p.chips.deny = vec![mine])), ["chip-denied"], "by the leaf's hwID");
    let chipless = |w: &mut World| {
        masked(w);
        w.patch(offset::KEY_INFO, &[4]);
        (w.leaf.subject, w.leaf.issuer) = ("SEV-VLEK".into(), "SEV-VLEK-Milan".into());
        w.ask.subject = "SEV-VLEK-Milan".into();
        w.leaf.remove(&format!("{AMD}04"));
        w.leaf.set(Extension::amd("05", tlv(0x16, b"CN=cloud.example")));
    };
    assert_eq!(refused(chipless, &EvidencePolicy::default_floor()), [""; 0]);
    assert_eq!(refused(chipless, &deny_other), ["chip-denied"], "it may be the denied one");
    assert_eq!(refused(same, &with(|p| p.products = Accept::Only(vec![ProductLine::Genoa]))), ["product-refused"]);
    assert_eq!(refused(same, &with(|p| p.denied_products = vec![ProductLine::Milan])), ["product-denied"]);
    assert_eq!(refused(same, &with(|p| p.denied_products = vec![ProductLine::Genoa])), [""; 0]);
}

#[test]
fn minimum_tcbs_go_by_part_model_and_stepping() {
    let entry = |rule: TcbRule| TcbMinimum {
        product: ProductLine::Milan,
        model: Some(1),
        stepping: Some(1),
        reported: rule,
        committed: None,
        launch: None,
        source: "AMD-SB-0000".into(),
    };
    let tcb = |entries: Vec<TcbMinimum>| with(|p| p.tcb = Accept::Only(entries));
    let reached = TcbRule { snp: 0x18, microcode: 0xdb, ..TcbRule::default() };
    assert_eq!(refused(same, &tcb(vec![entry(reached)])), [""; 0]);
    for rule in [
        TcbRule { bootloader: 5, ..reached },
        TcbRule { tee: 1, ..reached },
        TcbRule { snp: 0x19, ..reached },
        TcbRule { microcode: 0xdc, ..reached },
    ] {
        assert_eq!(refused(same, &tcb(vec![entry(rule)])), ["tcb-minimum"], "{rule:?}");
        let committed = TcbMinimum { committed: Some(rule), ..entry(reached) };
        assert_eq!(refused(same, &tcb(vec![committed])), ["tcb-minimum-committed"]);
        let launch = TcbMinimum { launch: Some(rule), ..entry(reached) };
        assert_eq!(refused(same, &tcb(vec![launch])), ["tcb-minimum-launch"]);
    }
    let stricter = TcbMinimum { model: None, ..entry(TcbRule { snp: 0x19, ..reached }) };
    assert_eq!(
        refused(same, &tcb(vec![entry(reached), stricter])),
        ["tcb-minimum"],
        "every entry that matches applies"
    );
    for other in [
        TcbMinimum { stepping: Some(2), ..entry(reached) },
        TcbMinimum { model: Some(2), ..entry(reached) },
        TcbMinimum { product: ProductLine::Genoa, ..entry(reached) },
    ] {
        assert_eq!(refused(same, &tcb(vec![other])), ["tcb-no-minimum"], "no entry is no consent");
    }
    let fmc = |level| TcbMinimum {
        product: ProductLine::Turin,
        model: None,
        stepping: None,
        ..entry(TcbRule { fmc: level, ..TcbRule::default() })
    };
    let turin = |level| {
        let verified = World::turin().verify().unwrap();
        appraise(&verified, &tcb(vec![fmc(level)])).is_ok()
    };
    assert!(turin(1) && !turin(2), "the FMC level counts on Turin");
    let misplaced = TcbRule { fmc: 1, ..TcbRule::default() };
    assert_eq!(
        refused(same, &tcb(vec![entry(misplaced)])),
        ["tcb-minimum"],
        "Milan has no FMC level to reach one with"
    );
    assert_eq!(refused(same, &tcb(vec![])), ["tcb-no-minimum"]);
    let version_2 = |w: &mut World| {
        w.patch(offset::VERSION, &[2]);
        w.patch(offset::CPUID, &[0; 3]);
    };
    assert_eq!(refused(version_2, &tcb(vec![entry(reached)])), ["tcb-no-minimum"], "its model is not stated");
    let any_model = TcbMinimum { model: None, stepping: None, ..entry(reached) };
    assert_eq!(refused(version_2, &tcb(vec![any_model])), [""; 0]);
}

#[test]
fn provisional_firmware_and_missing_mitigations_can_be_refused() {
    let committed = with(|p| p.provisional_firmware = FirmwareRule::Refused);
    assert_eq!(refused(same, &committed), [""; 0]);
    assert_eq!(refused(|w| w.patch(offset::COMMITTED_TCB + 7, &[0xda]), &committed), ["provisional-firmware"]);
    assert_eq!(refused(|w| w.patch(offset::CURRENT_VERSION, &[1]), &committed), ["provisional-firmware"]);
    let launch = with(|p| p.launch_mitigations = 0b11);
    let current = with(|p| p.current_mitigations = 0b11);
    assert_eq!(refused(same, &launch), ["launch-mitigations"], "version 3 has none: absent, not zero");
    let version_5 = |bits: u8| {
        move |w: &mut World| {
            w.patch(offset::VERSION, &[5]);
            w.patch(offset::LAUNCH_MIT_VECTOR, &[bits]);
            w.patch(offset::CURRENT_MIT_VECTOR, &[bits]);
        }
    };
    assert_eq!(refused(version_5(0b1011), &launch), [""; 0]);
    assert_eq!(refused(version_5(0b1001), &launch), ["launch-mitigations"]);
    assert_eq!(refused(version_5(0b1001), &current), ["current-mitigations"]);
}

#[test]
fn a_revocation_list_is_no_older_than_the_policy_says_and_is_there() {
    let at_most = |age: &str| with(|p| p.max_crl_age = age.parse().unwrap());
    let made = UnixTime::parse("2026-09-01T00:00:00Z").unwrap();
    let later = |seconds: i64| move |w: &mut World| w.now = UnixTime(made.0 + seconds);
    let day = 86_400;
    assert_eq!(refused(later(day), &at_most("1d")), [""; 0]);
    assert_eq!(refused(later(day + 1), &at_most("1d")), ["crl-age"]);
    assert_eq!(refused(later(day + 1), &at_most("25h")), [""; 0]);
    let waived = |w: &mut World| w.crl = CrlPolicy::Waived;
    assert_eq!(refused(waived, &EvidencePolicy::default_floor()), [""; 0]);
    assert_eq!(refused(waived, &at_most("1d")), ["crl-age"], "none is no young one");
}

#[test]
fn a_downgraded_result_says_why_and_stays_downgraded() {
    let verified = World::new().verify().unwrap();
    let mut result = appraise(&verified, &EvidencePolicy::default_floor()).unwrap();
    assert!(result.is_affirming());
    result.downgrade(coffer_verifier::Reason::new(Code::Rego, "false", "true", "see the policy"));
    assert!(!result.is_affirming());
    assert!(result.checks().iter().any(|check| check.code == "rego" && !check.is_fine()));
}
