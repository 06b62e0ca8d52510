//! Our parse and verdict against crate `sev`'s, on every genuine report and on mutated ones.
//!
//! Ours is the stricter: it refuses reserved bits that `sev` skips. Where ours accepts, `sev` must agree in every field.

use crate::vectors::{Genuine, NOW, at, endorsements, milan, read, root, sev_milan, sev_package};
use coffer_verifier::{
    CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, VerifiedChain, VerifyError,
    abi::{PlatformBit, PolicyBit, ProductLine, Report, TcbVersion},
    amd_root, verify,
};
use sev::{
    certs::snp::{Certificate, Verifiable},
    firmware::guest::AttestationReport,
    parser::ByteParser as _,
};

struct Case {
    report: Vec<u8>,
    chain: VerifiedChain,
    leaf: Certificate,
    now: &'static str,
}

impl Case {
    fn new(report: Vec<u8>, all: &Endorsements, leaf: &[u8], now: &'static str) -> Self {
        let parsed = Report::parse(&report).unwrap();
        let chain = VerifiedChain::verify(&parsed, all, &TrustAnchors::amd(), &CrlPolicy::Waived, at(now)).unwrap();
        Self { report, chain, leaf: Certificate::from_der(leaf).unwrap(), now }
    }
}

fn cases() -> Vec<Case> {
    let Some(root) = root() else {
        let Genuine { report, leaf, endorsements, .. } = milan();
        return vec![Case::new(report, &endorsements, &leaf, NOW)];
    };
    let names = [
        ("milan-v2-kvm", "vcek.der"),
        ("milan-v2-debug", "vcek.der"),
        ("milan-v3-vlek-vmpl1", "vlek.der"),
        ("milan-v2-azure-hcl", "vcek.der"),
        ("genoa-v3-azure-hcl", "vcek.der"),
        ("milan-v3", "vcek.der"),
        ("genoa-v3", "vcek.der"),
        ("turin-v5", "vcek.der"),
        ("genoa-v5-siena", "vcek.der"),
        ("milan-v3-oak", "vcek.der"),
        ("genoa-v3-certtable", "vcek.der"),
    ];
    let case = |(name, leaf)| {
        let folder = root.join(name);
        let now = if leaf == "vlek.der" { "2025-06-01T00:00:00Z" } else { NOW };
        Case::new(read(&folder, "report.bin"), &endorsements(&folder), &read(&folder, leaf), now)
    };
    names.map(case).into()
}

fn agree(ours: &Report, theirs: &AttestationReport) {
    assert_eq!(ours.version(), theirs.version);
    assert_eq!(ours.guest_svn(), theirs.guest_svn);
    assert_eq!(ours.policy().raw(), u64::from(theirs.policy));
    assert_eq!(ours.policy().abi(), (theirs.policy.abi_major() as u8, theirs.policy.abi_minor() as u8));
    assert_eq!(ours.policy().has(PolicyBit::Smt), theirs.policy.smt_allowed());
    assert_eq!(ours.policy().has(PolicyBit::MigrateMa), theirs.policy.migrate_ma_allowed());
    assert_eq!(ours.policy().has(PolicyBit::Debug), theirs.policy.debug_allowed());
    assert_eq!(ours.family_id().as_bytes(), &theirs.family_id);
    assert_eq!(ours.image_id().as_bytes(), &theirs.image_id);
    assert_eq!(ours.vmpl(), theirs.vmpl);
    assert_eq!(ours.platform_info().has(PlatformBit::Smt), theirs.plat_info.smt_enabled());
    assert_eq!(ours.platform_info().has(PlatformBit::Tsme), theirs.plat_info.tsme_enabled());
    assert_eq!(ours.platform_info().has(PlatformBit::Ecc), theirs.plat_info.ecc_enabled());
    assert_eq!(ours.key_info().author_key_en, theirs.key_info.author_key_en());
    assert_eq!(ours.key_info().mask_chip_key, theirs.key_info.mask_chip_key());
    assert_eq!(ours.report_data().as_bytes(), &theirs.report_data);
    assert_eq!(ours.measurement().as_bytes(), &theirs.measurement);
    assert_eq!(ours.host_data().as_bytes(), &theirs.host_data);
    assert_eq!(ours.id_key_digest().as_bytes(), &theirs.id_key_digest);
    assert_eq!(ours.author_key_digest().as_bytes(), &theirs.author_key_digest);
    assert_eq!(ours.report_id().as_bytes(), &theirs.report_id);
    assert_eq!(ours.report_id_ma().as_bytes(), &theirs.report_id_ma);
    assert_eq!(ours.cpuid().map(|cpu| cpu.family), theirs.cpuid_fam_id);
    assert_eq!(ours.cpuid().map(|cpu| cpu.model), theirs.cpuid_mod_id);
    assert_eq!(ours.cpuid().map(|cpu| cpu.stepping), theirs.cpuid_step);
    assert_eq!(ours.chip_id().as_bytes(), &theirs.chip_id);
    assert_eq!(ours.launch_mit_vector(), theirs.launch_mit_vector);
    assert_eq!(ours.current_mit_vector(), theirs.current_mit_vector);
    let firmware = ours.current_firmware();
    assert_eq!((firmware.major, firmware.minor, firmware.build), version(theirs.current));
    let firmware = ours.committed_firmware();
    assert_eq!((firmware.major, firmware.minor, firmware.build), version(theirs.committed));
    if let Some(tcbs) = ours.product().and_then(|product| ours.tcbs(product).ok()) {
        assert_eq!(parts(tcbs.current), sev_parts(theirs.current_tcb));
        assert_eq!(parts(tcbs.reported), sev_parts(theirs.reported_tcb));
        assert_eq!(parts(tcbs.committed), sev_parts(theirs.committed_tcb));
        assert_eq!(parts(tcbs.launch), sev_parts(theirs.launch_tcb));
    }
}

fn version(version: sev::firmware::guest::Version) -> (u8, u8, u8) {
    (version.major, version.minor, version.build)
}

fn parts(tcb: TcbVersion) -> (Option<u8>, u8, u8, u8, u8) {
    (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
}

fn sev_parts(tcb: sev::firmware::host::TcbVersion) -> (Option<u8>, u8, u8, u8, u8) {
    (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
}

/// xorshift64*: the same reports in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

#[test]
fn agrees_with_crate_sev_on_genuine_reports() {
    for case in cases() {
        let theirs = AttestationReport::from_bytes(&case.report).unwrap();
        agree(&Report::parse(&case.report).unwrap(), &theirs);
        (&case.leaf, &theirs).verify().unwrap();
    }
}

#[test]
fn agrees_with_crate_sev_on_ten_thousand_mutated_reports() {
    let cases = cases();
    let mut rng = Rng(0x5eed);
    let (mut parsed, mut verdicts) = (0, 0);
    for round in 0..10_000 {
        let case = &cases[rng.next(cases.len())];
        let mut report = case.report.clone();
        for _ in 0..=rng.next(3) {
            let at = rng.next(report.len());
            report[at] = if rng.next(2) == 0 { report[at] ^ 1 << rng.next(8) } else { rng.next(256) as u8 };
        }
        let theirs = AttestationReport::from_bytes(&report);
        let ours = Report::parse(&report);
        if let Ok(ours) = &ours {
            match &theirs {
                Ok(theirs) => agree(ours, theirs),
                // They need a product line to parse at all; we parse first and refuse in `verify`.
                Err(error) => assert!(ours.product().is_none(), "round {round}: {error}"),
            }
            parsed += 1;
        }
        // Their signature check is slow; every tenth report is enough to see a disagreement.
        if round % 10 == 0 {
            let us = case.chain.verify_report(&report, &ExpectedReportData::Any, at(case.now));
            let them = theirs.ok().is_some_and(|theirs| (&case.leaf, &theirs).verify().is_ok());
            match us {
                Ok(_) => assert!(them, "round {round}: we accept, they refuse"),
                // They write the report out again before they check it, and look at no reserved byte.
                Err(VerifyError::Report(_)) => {}
                Err(error) => assert!(!them, "round {round}: they accept, we refuse: {error}"),
            }
            verdicts += 1;
        }
    }
    println!("{parsed} of 10000 mutated reports parse and agree; {verdicts} verdicts compared");
    assert!(parsed > 1000 && verdicts == 1000);
}

/// Holds without our vectors too: crate sev's package has a Milan report, its VCEK and AMD's roots.
#[test]
fn the_milan_report_and_the_roots_inside_crate_sev_are_amds() {
    let Genuine { mut report, endorsements, crl, .. } = sev_milan();
    let verdict =
        |report: &[u8]| verify(report, &endorsements, &TrustAnchors::amd(), &ExpectedReportData::Any, &crl, at(NOW));
    assert!(!verdict(&report).unwrap().simulated());
    report[0x60] ^= 0x10;
    assert_eq!(verdict(&report).unwrap_err().reason().code, "signature");
    for line in ProductLine::ALL {
        let folder = sev_package().join("src/certs/snp/builtin").join(line.name().to_lowercase());
        let mut bag = Endorsements::new();
        for name in ["ark.pem", "ask.pem"] {
            bag.add_certificates(&read(&folder, name)).unwrap();
        }
        assert_eq!(bag.certificates().next().unwrap().spki_digest(), amd_root(line), "{line}");
    }
}
