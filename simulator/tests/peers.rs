//! Crate `sev` as a judge that is not ours: it accepts simulated evidence of every product, and refuses the attacks on chain,
//! signature and TCB. `make peers` has `snpguest` judge the same.

use crate::common::{NOW, installation, launch};
use coffer_simulator::LaunchOptions;
use coffer_simulator::attack::{ATTACKS, EvidenceSet, Group, Scene, forge, genuine};
use coffer_verifier::abi::{ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use x509_parser::prelude::*;

/// Chain, then the report's signature, then the leaf's patch levels against the reported ones as `sev` reads them: what
/// `snpguest verify` does.
fn judge(report: &[u8], ark: &[u8], intermediate: &[u8], leaf: &[u8]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let chain = Chain::from_der(ark, intermediate, leaf).map_err(text)?;
    let report = AttestationReport::from_bytes(report).map_err(text)?;
    (&chain, &report).verify().map_err(text)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let certified = |arc: u64| {
        let found =
            leaf.extensions().iter().find(|one| one.oid.to_id_string() == format!("1.3.6.1.4.1.3704.1.3.{arc}"));
        found.and_then(|one| one.value.last().copied())
    };
    let tcb = report.reported_tcb;
    for (arc, stated) in
        [(1, Some(tcb.bootloader)), (2, Some(tcb.tee)), (3, Some(tcb.snp)), (8, Some(tcb.microcode)), (9, tcb.fmc)]
    {
        if certified(arc) != stated {
            return Err(format!("TCB part {arc}: certified {:?}, reported {stated:?}", certified(arc)));
        }
    }
    Ok(())
}

fn judge_set(set: &EvidenceSet) -> Result<(), String> {
    judge(&set.report, &set.ark, &set.intermediate, &set.leaf)
}

#[test]
fn it_accepts_good_evidence_of_every_product_version_and_key() {
    for product in ProductLine::ALL {
        let versions: &[u32] = if product == ProductLine::Turin { &[3, 5] } else { &[2, 3, 5] };
        for &version in versions {
            for vlek in [None, Some("CN=cc-test.example".to_owned())] {
                let mut scene = Scene::new(product, NOW);
                scene.options.report_version = version;
                scene.options.vlek = vlek;
                judge_set(&genuine(installation(), &scene).unwrap())
                    .unwrap_or_else(|error| panic!("{product} version {version}: {error}"));
            }
        }
    }
}

#[test]
fn it_reads_in_a_launched_guests_report_what_was_asked_and_refuses_it_changed() {
    let data = ReportData::new([0x5a; 64]);
    for product in ProductLine::ALL {
        let guest = launch(LaunchOptions::new(product, NOW));
        let (ends, measurement) = (guest.endorsements().clone(), guest.measurement());
        let got = guest.into_processor().report(&ReportRequest::new(data)).unwrap().report;
        judge(&got, &ends.ark, &ends.intermediate, &ends.leaf).unwrap_or_else(|error| panic!("{product}: {error}"));
        let parsed = AttestationReport::from_bytes(&got).unwrap();
        assert_eq!(parsed.report_data.as_slice(), data.as_bytes());
        assert_eq!(parsed.measurement.as_slice(), measurement.as_bytes());
        for at in [0x8, 0x50, 0x90, 0xc0, 0x180, 0x1a0] {
            let mut changed = got.clone();
            changed[at] ^= 1;
            assert!(judge(&changed, &ends.ark, &ends.intermediate, &ends.leaf).is_err(), "{product} {at:#x}");
        }
    }
}

/// What it cannot see: it pins no root, reads no dates, extensions or revocation list, and not what was asked for.
const BEYOND_IT: [&str; 7] = [
    "impostor-root",
    "intermediate-without-ca",
    "intermediate-missing",
    "salt-of-32",
    "algorithms-differ",
    "critical-extension",
    "product-name",
];

#[test]
fn it_refuses_the_attacks_on_chain_signature_and_tcb() {
    let mut wrong = Vec::new();
    for product in ProductLine::ALL {
        let scene = Scene::new(product, NOW);
        let mut refused = 0;
        for attack in ATTACKS {
            let tcb = ["tcb-not-certified", "tcb-overstated"].contains(&attack.name);
            let signature = attack.name.ends_with("-bit") || attack.name.starts_with("signature-");
            // Not about the signature's value: the algorithm word and the padding are fields it does not look at.
            let signature = signature && !["signature-algorithm", "signature-padding"].contains(&attack.name);
            if !(attack.group == Group::Chain || tcb || signature) {
                continue;
            }
            let set = forge(installation(), &scene, attack.name).unwrap();
            let accepted = judge_set(&set).is_ok();
            if accepted != BEYOND_IT.contains(&attack.name) {
                wrong.push(format!("{product} {}: {}", attack.name, if accepted { "accepted" } else { "refused" }));
            }
            refused += usize::from(!accepted);
        }
        assert!(refused >= 10, "{product}: {refused}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
