//! AMD's own certificates and lists, as a service without a network would serve them.

use coffer_kds::{Item, Kds, Options};
use coffer_verifier::abi::{ProductLine, Report, SigningKey};
use coffer_verifier::{Endorsements, TrustAnchors, Verdict};

use crate::common::{NOW, Reply, Service, collect, judge};
use crate::vectors;

/// With a list for its product.
const GENUINE: &[&str] = &["milan-v2-kvm", "milan-v3", "milan-v3-oak", "genoa-v3", "genoa-v5-siena", "turin-v5"];

#[tokio::test]
async fn amds_own_certificates_and_lists_are_taken_by_their_item_and_hold() {
    let Some(vectors) = vectors::folder("snp") else { return };
    for name in GENUINE {
        let folder = vectors.join(name);
        let report = std::fs::read(folder.join("report.bin")).unwrap();
        let (vcek, crl) =
            (std::fs::read(folder.join("vcek.der")).unwrap(), std::fs::read(folder.join("crl.der")).unwrap());
        let line = Report::parse(&report).unwrap().product();
        let service = Service::new(move |path, _| {
            let known = line.is_none_or(|line| path.contains(line.name()));
            let is_milan = path.contains("/Milan/");
            Some(match (path.ends_with("/crl"), known && (line.is_some() || is_milan)) {
                (true, true) => Reply::Body(crl.clone()),
                (false, true) => Reply::Body(vcek.clone()),
                (_, false) => Reply::Status(404, ""),
            })
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let kds = Kds::open(Options::mirror(service.base.clone()).kept_in(dir.path())).unwrap();
        let found = collect(&kds, &report).await;
        assert_eq!(found.failures, [], "{name}");
        // AMD's chains are part of the program: nobody is asked for them.
        assert_eq!(service.asked("cert_chain"), 0, "{name}");
        assert_ne!(judge(&report, &found.endorsements, TrustAnchors::amd(), NOW), Verdict::NotAuthentic, "{name}");
        let asked = service.asked("");
        let again = Kds::open(Options::mirror(service.base.clone()).kept_in(dir.path())).unwrap();
        let found = collect(&again, &report).await;
        assert_eq!((found.failures.len(), service.asked("")), (0, asked), "{name}");
    }
}

#[tokio::test]
async fn a_folder_of_genuine_files_is_imported_under_any_names_and_forged_ones_are_not() {
    let Some(vectors) = vectors::folder("snp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let kds = Kds::open(Options::amd().offline().kept_in(dir.path())).unwrap();
    let done = kds.import(std::slice::from_ref(&vectors), NOW).await.unwrap();
    for product in ProductLine::ALL {
        assert!(done.items.contains(&Item::Crl { product, key: SigningKey::Vcek }), "{product}");
        assert!(done.items.contains(&Item::Chain { product, key: SigningKey::Vlek }), "{product}");
    }
    // An impostor's chain, two edited certificates and a VLEK that ran out are among them.
    assert!(!done.refused.is_empty());
    for name in GENUINE {
        let report = std::fs::read(vectors.join(name).join("report.bin")).unwrap();
        let found = kds.collect(&Report::parse(&report).unwrap(), &Endorsements::new(), NOW).await;
        assert_eq!(found.failures, [], "{name}");
        assert_ne!(judge(&report, &found.endorsements, TrustAnchors::amd(), NOW), Verdict::NotAuthentic, "{name}");
    }
    let impostor = std::fs::read(vectors.join("neg-impostor-chain/report.bin")).unwrap();
    let found = kds.collect(&Report::parse(&impostor).unwrap(), &Endorsements::new(), NOW).await;
    assert_eq!(judge(&impostor, &found.endorsements, TrustAnchors::amd(), NOW), Verdict::NotAuthentic);
    assert!(kds.kept(NOW).await.iter().all(|one| one.state.is_ok()));
}

#[tokio::test]
async fn a_simulators_service_has_nothing_for_a_client_of_amds() {
    let service = Service::honest().await;
    let kds = Kds::open(Options::mirror(service.base.clone())).unwrap();
    let report = crate::common::report(ProductLine::Milan);
    let found = collect(&kds, &report).await;
    assert_eq!(found.failures.len(), 2, "{:?}", found.failures);
    assert_eq!((found.endorsements.certificates().len(), found.endorsements.crls().len()), (0, 0));
}

#[tokio::test]
async fn amds_service_has_nothing_for_a_client_of_a_simulators() {
    let Some(vectors) = vectors::folder("snp") else { return };
    let folder = vectors.join("milan-v3");
    let (vcek, crl) = (std::fs::read(folder.join("vcek.der")).unwrap(), std::fs::read(folder.join("crl.der")).unwrap());
    let service =
        Service::new(move |path, _| Some(Reply::Body(if path.ends_with("/crl") { crl.clone() } else { vcek.clone() })))
            .await;
    let report = std::fs::read(folder.join("report.bin")).unwrap();
    let found = collect(&service.client(), &report).await;
    assert_eq!(found.endorsements.certificates().filter(|one| one.leaf().is_some()).count(), 0);
    assert_eq!(found.endorsements.crls().len(), 0);
}
