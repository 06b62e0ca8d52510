//! The simulated key distribution service answers AMD's paths, and fails on demand.

use crate::common::{NOW, guest, installation};
use coffer_simulator::default_tcb;
use coffer_simulator::kds::{Fault, answer};
use coffer_verifier::abi::{ProductLine, ReportData, ReportRequest, SecureProcessor as _};
use coffer_verifier::{CrlPolicy, Endorsements, ExpectedReportData, TrustAnchors, UnixTime, VerifyError, verify};

fn vcek_path(product: ProductLine) -> String {
    let chip = hex::encode(&installation().chip_id(product).as_bytes()[..product.hwid_len()]);
    let tcb = default_tcb(product);
    let fmc = tcb.fmc.map_or(String::new(), |fmc| format!("fmcSPL={fmc:02}&"));
    let (bl, tee, snp, ucode) = (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    format!("/vcek/v1/{product}/{chip}?{fmc}blSPL={bl:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={ucode:02}")
}

fn outcome(product: ProductLine, fault: Fault) -> Result<(), VerifyError> {
    let data = ReportData::new([2; 64]);
    let report = guest(product).into_processor().report(&ReportRequest::new(data)).unwrap().report;
    let mut all = Endorsements::new();
    for path in [vcek_path(product), format!("/vcek/v1/{product}/cert_chain")] {
        let got = answer(installation(), &path, fault, NOW);
        assert_eq!(got.status, 200, "{path}");
        all.add_certificates(&got.body).unwrap();
    }
    let crl = answer(installation(), &format!("/vcek/v1/{product}/crl"), fault, NOW);
    assert_eq!((crl.status, crl.content_type), (200, "application/pkix-crl"));
    all.add_crl(&crl.body).unwrap();
    let anchors = TrustAnchors::amd().with_simulated(installation().anchor(product).unwrap().spki);
    let expected = ExpectedReportData::Exactly(data);
    verify(&report, &all, &anchors, &expected, &CrlPolicy::Required, UnixTime(NOW.cast_signed())).map(|_| ())
}

#[test]
fn its_answers_endorse_reports_of_every_product() {
    for product in ProductLine::ALL {
        outcome(product, Fault::None).unwrap_or_else(|error| panic!("{product}: {error:?}"));
    }
}

#[test]
fn a_wrong_certificate_and_a_stale_list_are_noticed() {
    assert!(outcome(ProductLine::Milan, Fault::WrongCertificate).is_err());
    assert!(outcome(ProductLine::Milan, Fault::StaleCrl).is_err());
}

#[test]
fn unknown_things_are_not_found_and_faults_have_their_status() {
    let status = |path: &str, fault| answer(installation(), path, fault, NOW).status;
    for path in ["/", "/vcek/v1/Rome/crl", "/vcek/v1/milan/crl", "/vcek/v1/Milan/00ff?blSPL=1", "/vlek/v1/Milan/cert"] {
        assert_eq!(status(path, Fault::None), 404, "{path}");
    }
    let chip = hex::encode(installation().chip_id(ProductLine::Milan).as_bytes());
    for query in
        ["", "?blSPL=1", "?blSPL=1&teeSPL=0&snpSPL=1&ucodeSPL=256", "?blSPL=1&blSPL=2&teeSPL=0&snpSPL=1&ucodeSPL=1"]
    {
        assert_eq!(status(&format!("/vcek/v1/Milan/{chip}{query}"), Fault::None), 400, "{query}");
    }
    assert_eq!(status("/vcek/v1/Milan/crl", Fault::TooManyRequests), 429);
    assert_eq!(status("/vcek/v1/Milan/crl", Fault::ServerError), 500);
    assert_eq!(status("/vlek/v1/Milan/cert_chain", Fault::None), 200);
    let turin = answer(installation(), "/vcek/v1/Turin/cert_chain", Fault::None, NOW).body;
    assert!(turin.windows(2).any(|pair| pair == b"\r\n"));
}
