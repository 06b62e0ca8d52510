//! A verified chain taken for many reports, and bags with more in them than one chain: nothing rides along unchecked.

use crate::forge;
use crate::forge::{AMD, Extension, NOW, World, integer, rsa_spki};
use coffer_verifier::{
    ChainError, Endorsements, Evidence, ExpectedReportData, TrustAnchors, UnixTime, VerifiedChain, VerifyError,
    abi::{Report, WorkloadDigest, report::offset},
    chain::CertificateRole,
    verify, verify_evidence,
};

fn at(text: &str) -> UnixTime {
    UnixTime::parse(text).unwrap()
}

fn chain(world: &World) -> Result<VerifiedChain, VerifyError> {
    let report = Report::parse(&world.signed_report()).unwrap();
    VerifiedChain::verify(&report, &world.endorsements().unwrap(), &world.anchors(), &world.crl, world.now)
}

/// The code that a report of a world spoiled after its chain was verified is refused with.
fn cached(spoil: impl FnOnce(&mut World)) -> &'static str {
    let mut world = World::new();
    let chain = chain(&world).unwrap();
    spoil(&mut world);
    chain
        .verify_report(&world.signed_report(), &world.expected, world.now)
        .map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
}

#[test]
fn a_cached_chain_outlives_none_of_its_dates() {
    let world = World::new();
    let verified = chain(&world).unwrap();
    let report = world.signed_report();
    let dated = |chain: &VerifiedChain, now| chain.verify_report(&report, &ExpectedReportData::Any, at(now));
    dated(&verified, NOW).unwrap();
    let late = dated(&verified, "2026-10-01T00:00:01Z").unwrap_err();
    assert!(matches!(late, VerifyError::Chain(ChainError::CrlDates { .. })), "the list went stale: {late}");
    assert!(dated(&verified, "2026-08-31T23:59:59Z").is_ok(), "a list bounds the future only");
    assert!(dated(&verified, "2023-12-31T23:59:59Z").is_err());
    for which in 0..3 {
        let mut world = World::new();
        let cert = [&mut world.root, &mut world.ask, &mut world.leaf].into_iter().nth(which).unwrap();
        cert.from = "260919000000Z".into();
        cert.to = "260921000000Z".into();
        let verified = chain(&world).unwrap();
        assert!(dated(&verified, "2026-09-21T00:00:00Z").is_ok());
        assert!(dated(&verified, "2026-09-21T00:00:01Z").is_err(), "certificate {which} expired");
        assert!(dated(&verified, "2026-09-18T23:59:59Z").is_err(), "certificate {which} is not yet valid");
    }
}

#[test]
fn no_chain_is_made_of_a_certificate_out_of_its_dates() {
    for (from, to) in [("240101000000Z", "260919235959Z"), ("260920000001Z", "490101000000Z")] {
        let mut world = World::new();
        (world.ask.from, world.ask.to) = (from.into(), to.into());
        let error = chain(&world).err().unwrap();
        let VerifyError::Chain(ChainError::Dates { certificate, .. }) = error else { panic!("{error}") };
        assert!(matches!(certificate, CertificateRole::Intermediate(..)), "the one that is meant: {certificate:?}");
    }
}

#[test]
fn every_report_under_a_cached_chain_is_checked_in_full() {
    assert_eq!(cached(|_| {}), "accepted");
    assert_eq!(cached(|w| w.patch(offset::VMPL, &[0xff; 4])), "host-requested");
    assert_eq!(cached(|w| w.patch(offset::KEY_INFO, &[2])), "not-signed");
    assert_eq!(cached(|w| w.patch(offset::KEY_INFO, &[4])), "signing-key", "a VLEK report under a VCEK");
    assert_eq!(cached(|w| w.patch(offset::CPUID, &[0x19, 0x11, 1])), "product");
    assert_eq!(cached(|w| w.patch(offset::REPORTED_TCB, &[5])), "tcb");
    assert_eq!(cached(|w| w.patch(offset::CHIP_ID, &[0xff])), "chip-id");
    assert_eq!(cached(|w| w.leaf_key = forge::leaf_key(9)), "signature");
    assert_eq!(
        cached(|w| w.expected = ExpectedReportData::Exactly(coffer_verifier::abi::ReportData::new([0; 64]))),
        "report-data"
    );
}

#[test]
fn a_chain_is_verified_for_a_report_that_fits_it_and_for_no_other() {
    let code = |spoil: fn(&mut World)| {
        let mut world = World::new();
        spoil(&mut world);
        chain(&world).map_or_else(|error| error.reason().code.as_str(), |_| "verified")
    };
    assert_eq!(code(|_| {}), "verified");
    assert_eq!(code(|w| w.patch(offset::VMPL, &[0xff; 4])), "host-requested");
    assert_eq!(code(|w| w.patch(offset::CHIP_ID, &[0xff])), "chip-id");
    assert_eq!(code(|w| w.patch(offset::REPORTED_TCB, &[5])), "tcb");
}

#[test]
fn a_workload_spec_in_evidence_must_be_the_one_host_data_names() {
    let spec = b"version = \"0.1.0\"".to_vec();
    let mut world = World::new();
    world.patch(offset::HOST_DATA, WorkloadDigest::of(&spec).as_bytes());
    let endorsements = world.endorsements().unwrap();
    let code = |workload_spec: &[u8]| {
        let evidence =
            Evidence { report: world.signed_report(), workload_spec: workload_spec.to_vec(), ..Evidence::default() };
        verify_evidence(&evidence, &endorsements, &world.anchors(), &world.expected, &world.crl, world.now)
            .map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
    };
    assert_eq!(code(&spec), "accepted");
    assert_eq!(code(b""), "accepted", "none sent");
    assert_eq!(code(b"version = \"0.1.1\""), "workload-spec");
}

#[test]
fn the_leaf_that_fits_is_found_among_others() {
    let world = World::new();
    let mut bag = Endorsements::new();
    for microcode in [1, 2, 3] {
        let mut other = world.leaf.clone();
        other.set(Extension::amd("0308", integer(microcode)));
        bag.add_certificates(&other.encode(&world.ask_key)).unwrap();
    }
    bag.merge(&world.endorsements().unwrap());
    verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now).unwrap();
}

#[test]
fn where_two_leaves_fit_a_masked_chip_the_signature_decides() {
    let mut world = World::new();
    world.patch(offset::CHIP_ID, &[0; 64]);
    let mut other = world.leaf.clone();
    other.spki = forge::leaf_spki(&forge::leaf_key(9));
    let mut bag = Endorsements::new();
    bag.add_certificates(&other.encode(&world.ask_key)).unwrap();
    bag.merge(&world.endorsements().unwrap());
    verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now).unwrap();
}

#[test]
fn an_intermediate_that_was_replaced_does_not_hide_the_right_one() {
    let world = World::new();
    let mut old = world.ask.clone();
    old.spki = rsa_spki(&world.root_key);
    let mut bag = Endorsements::new();
    bag.add_certificates(&old.encode(&world.root_key)).unwrap();
    let judge = |bag: &_| verify(&world.signed_report(), bag, &world.anchors(), &world.expected, &world.crl, world.now);
    let mut alone = bag.clone();
    for cert in [world.leaf.encode(&world.ask_key), world.root.encode(&world.root_key)] {
        alone.add_certificates(&cert).unwrap();
    }
    assert_eq!(judge(&alone).unwrap_err().reason().code, "certificate-signature");
    bag.merge(&world.endorsements().unwrap());
    judge(&bag).unwrap();
}

#[test]
fn the_newest_list_that_holds_decides() {
    let mut world = World::new();
    let older = world.endorsements().unwrap();
    world.list().extensions = vec![Extension::new(forge::CRL_NUMBER, false, integer(8))];
    world.list().revoked = vec![vec![1, 0, 1]];
    let code = |world: &World| {
        let mut bag = older.clone();
        bag.add_crl(&world.list.as_ref().unwrap().encode(&world.root_key)).unwrap();
        verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now)
            .map_or_else(|error| error.reason().code.as_str(), |_| "accepted")
    };
    assert_eq!(code(&world), "revoked");
    world.list().spoil_signature = true;
    assert_eq!(code(&world), "accepted", "a forged list hides no genuine one");
}

#[test]
fn of_lists_of_one_number_one_that_revokes_counts() {
    let mut world = World::new();
    let good = world.list.as_ref().unwrap().encode(&world.root_key);
    world.list().revoked = vec![vec![1, 0, 1]];
    let revoking = world.list.as_ref().unwrap().encode(&world.root_key);
    world.list = None;
    for lists in [[&good, &revoking], [&revoking, &good]] {
        let mut bag = world.endorsements().unwrap();
        for list in lists {
            bag.add_crl(list).unwrap();
        }
        let judged = verify(&world.signed_report(), &bag, &world.anchors(), &world.expected, &world.crl, world.now);
        assert_eq!(judged.unwrap_err().reason().code, "revoked", "in whichever order they come");
    }
}

#[test]
fn only_a_root_can_be_listed() {
    let world = World::new();
    let root = TrustAnchors::amd().with_simulated_ark(&world.root.encode(&world.root_key)).unwrap();
    assert_eq!(root, world.anchors());
    assert!(TrustAnchors::amd().with_simulated_ark(&world.ask.encode(&world.root_key)).is_err());
    assert!(TrustAnchors::amd().with_simulated_ark(&world.leaf.encode(&world.ask_key)).is_err());
}

#[test]
fn turin_certifies_eight_bytes_of_chip_and_an_fmc_level() {
    let code = |spoil: &dyn Fn(&mut World)| {
        let mut world = World::turin();
        spoil(&mut world);
        world.code()
    };
    assert_eq!(code(&|_| {}), "accepted");
    assert_eq!(code(&|w| w.patch(offset::CHIP_ID, &[9])), "chip-id");
    assert_eq!(code(&|w| w.patch(offset::CHIP_ID + 8, &[1])), "chip-id", "behind the eight bytes");
    assert_eq!(code(&|w| w.leaf.remove(&format!("{AMD}0309"))), "certificate-form", "no fmcSPL");
    assert_eq!(code(&|w| w.leaf.set(Extension::amd("0309", integer(2)))), "tcb");
    assert_eq!(code(&|w| w.leaf.set(Extension::amd("01", integer(0)))), "certificate-form", "structVersion");
    assert_eq!(code(&|w| w.leaf.set(Extension::amd("04", vec![1; 64]))), "certificate-form", "hwID of 64 bytes");
    assert_eq!(code(&|w| w.leaf.set(Extension::amd("0304", integer(0)))), "accepted", "spl4 that is zero");
    for at in [offset::CURRENT_TCB, offset::REPORTED_TCB, offset::COMMITTED_TCB, offset::LAUNCH_TCB] {
        assert_eq!(code(&|w| w.patch(at + 4, &[1])), "report-malformed", "reserved bytes of a Turin TCB");
    }
}
