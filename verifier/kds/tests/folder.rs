//! Restart, damage, and sites without a network.

use std::fs;
use std::path::{Path, PathBuf};

use coffer_kds::{FetchError, Item, Kds};
use coffer_simulator::kds::{Fault, answer};
use coffer_verifier::abi::{ProductLine, SigningKey};

use crate::common::{NOW, Reply, SECONDS, Service, collect, holds, installation, report};

const MILAN: ProductLine = ProductLine::Milan;

/// All but locks, in which nothing stands.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !entry.file_name().to_string_lossy().starts_with('.') {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn it_survives_a_restart_without_a_request() {
    let service = Service::honest().await;
    let dir = tempfile::tempdir().unwrap();
    let open = || Kds::open(service.options().kept_in(dir.path())).unwrap();
    let report = report(ProductLine::Turin);
    assert!(holds(&report, &collect(&open(), &report).await));
    let asked = service.asked("");
    let again = open();
    let found = collect(&again, &report).await;
    assert!(holds(&report, &found) && found.failures.is_empty());
    assert_eq!(service.asked(""), asked);
    let offline = Kds::open(service.options().kept_in(dir.path()).offline()).unwrap();
    assert!(holds(&report, &collect(&offline, &report).await));
    let other = crate::common::report(MILAN);
    let found = collect(&offline, &other).await;
    assert!(!found.failures.is_empty() && found.failures.iter().all(|(_, error)| *error == FetchError::Offline));
}

#[tokio::test]
async fn it_survives_damage_of_any_file() {
    let service = Service::honest().await;
    let dir = tempfile::tempdir().unwrap();
    let report = report(MILAN);
    let open = || Kds::open(service.options().kept_in(dir.path())).unwrap();
    collect(&open(), &report).await;
    let all = files(dir.path());
    assert_eq!(all.len(), 4, "{all:?}");
    for file in &all {
        let good = fs::read(file).unwrap();
        let mut flip = good.clone();
        let middle = flip.len() / 2;
        flip[middle] ^= 0x10;
        for bad in [&b""[..], b"damage", &good[..good.len() / 2], &flip, &vec![0; 1 << 20]] {
            fs::write(file, bad).unwrap();
            let found = collect(&open(), &report).await;
            assert!(holds(&report, &found), "{}: {:?}", file.display(), found.failures);
        }
        fs::remove_file(file).ok();
        assert!(holds(&report, &collect(&open(), &report).await), "{}", file.display());
        fs::write(file, good).unwrap();
    }
    // Another's certificate under this one's name.
    let leaf = all.iter().find(|file| file.components().any(|part| part.as_os_str() == "chips")).unwrap();
    let mut tcb = coffer_simulator::default_tcb(MILAN);
    tcb.microcode -= 1;
    fs::write(leaf, installation().issue_vcek(MILAN, tcb, SECONDS).unwrap()).unwrap();
    let asked = service.asked("?blSPL");
    assert!(holds(&report, &collect(&open(), &report).await));
    assert_eq!(service.asked("?blSPL"), asked + 1);
}

#[tokio::test]
async fn a_site_without_a_network_takes_amds_names_and_ours() {
    let tcb = coffer_simulator::default_tcb(MILAN);
    let chip = installation().chip_id(MILAN);
    let leaf = Item::Vcek { product: MILAN, chip, tcb };
    let body = |path: &str| answer(installation(), path, Fault::None, SECONDS).body;
    // Each answer of the service is signed anew.
    let list = body("/vcek/v1/Milan/crl");
    let amd = tempfile::tempdir().unwrap();
    for path in [&*leaf.path().unwrap(), "/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"] {
        let file = amd.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, if path.ends_with("/crl") { list.clone() } else { body(path) }).unwrap();
    }
    let ours = tempfile::tempdir().unwrap();
    let ark = installation().anchor(MILAN).unwrap().ark;
    for (name, bytes) in [
        ("vcek.der", &*body(&leaf.path().unwrap())),
        ("ask.der", installation().ask(MILAN).unwrap()),
        ("ark.der", ark),
        ("crl.der", &*list),
        ("README", b"not a certificate"),
    ] {
        fs::write(ours.path().join(name), bytes).unwrap();
    }
    let dead = Service::new(|_, _| Some(Reply::Status(500, ""))).await;
    let report = report(MILAN);
    // A list that does not say which service gave it is there for both.
    for (from, items, refused) in [(amd.path(), 3, 0), (ours.path(), 4, 1)] {
        let kept = tempfile::tempdir().unwrap();
        let kds = Kds::open(dead.options().kept_in(kept.path()).offline()).unwrap();
        let done = kds.import(&[from.to_owned()], NOW).await.unwrap();
        assert_eq!((done.items.len(), done.refused.len()), (items, refused), "{done:?}");
        let of_vlek = kds.get(&[Item::Crl { product: MILAN, key: SigningKey::Vlek }], NOW).await;
        assert_eq!(of_vlek.endorsements.crls().len(), items - 3);
        assert!(holds(&report, &collect(&kds, &report).await));
        // And out again, and in again.
        let out = tempfile::tempdir().unwrap();
        assert_eq!(kds.export(out.path(), NOW).await.unwrap().files.len(), items);
        assert_eq!(fs::read(out.path().join("vcek/v1/Milan/crl")).unwrap(), list);
        assert_eq!(files(out.path()).len(), items);
        let third = tempfile::tempdir().unwrap();
        let kds = Kds::open(dead.options().kept_in(third.path()).offline()).unwrap();
        assert_eq!(kds.import(&[out.path().to_owned()], NOW).await.unwrap().items.len(), items);
        assert!(holds(&report, &collect(&kds, &report).await));
    }
    assert_eq!(dead.asked(""), 0);
}

#[tokio::test]
async fn what_goes_onto_a_medium_goes_through_no_link_of_its() {
    let service = Service::honest().await;
    let (kept, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kds = Kds::open(service.options().kept_in(kept.path())).unwrap();
    let (medium, elsewhere) = (dir.path().join("medium"), dir.path().join("elsewhere"));
    let nothing = kds.export(&medium, NOW).await.unwrap();
    assert!(nothing.files.is_empty() && !medium.exists(), "{nothing:?}");
    collect(&kds, &report(MILAN)).await;
    kds.get(&[Item::Chain { product: ProductLine::Genoa, key: SigningKey::Vcek }], NOW).await;
    fs::create_dir(&elsewhere).unwrap();
    for (made, link) in [("", "vcek"), ("vcek", "vcek/v1"), ("vcek/v1", "vcek/v1/Milan")] {
        fs::create_dir_all(medium.join(made)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, medium.join(link)).unwrap();
        let error = kds.export(&medium, NOW).await.unwrap_err();
        let said = error.source.to_string();
        assert_eq!(said, format!("{link} is a symbolic link, which is not followed"));
        assert!(error.path.starts_with(&medium), "{}", error.path.display());
        fs::remove_file(medium.join(link)).unwrap();
    }
    assert_eq!(files(&elsewhere), [] as [PathBuf; 0]);
    // The medium itself was named, and what was written is what is said.
    let named = dir.path().join("named");
    std::os::unix::fs::symlink(&medium, &named).unwrap();
    let done = kds.export(&named, NOW).await.unwrap();
    assert_eq!((done.files.len(), done.without_list), (4, vec![ProductLine::Genoa]));
    assert_eq!(files(&medium).len(), 4);
}

#[tokio::test]
async fn a_vlek_is_imported_and_found_by_its_tcb() {
    let service = Service::honest().await;
    let (kept, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tcb = coffer_simulator::default_tcb(MILAN);
    fs::write(from.path().join("vlek.der"), installation().issue_vlek(MILAN, "example", tcb, SECONDS).unwrap())
        .unwrap();
    let kds = Kds::open(service.options().kept_in(kept.path())).unwrap();
    // Its chain is not at hand, and nothing is asked for a file.
    let long = from.path().join("long.der");
    fs::write(&long, vec![b' '; (96 << 10) + 1]).unwrap();
    let mut refused = kds.import(&[from.path().to_owned()], NOW).await.unwrap().refused;
    refused.sort_by(|(one, _), (other, _)| one.cmp(other));
    let named: Vec<_> = refused.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(named, [long, from.path().join("vlek.der")], "each by its file");
    kds.get(&[Item::Chain { product: MILAN, key: SigningKey::Vlek }], NOW).await;
    assert_eq!(kds.import(&[from.path().to_owned()], NOW).await.unwrap().items, [Item::Vlek { product: MILAN, tcb }]);
    let again = Kds::open(service.options().kept_in(kept.path()).offline()).unwrap();
    let found = again.get(&[Item::Vlek { product: MILAN, tcb }], NOW).await;
    assert_eq!(found.failures, [], "found by a restarted client");
    assert_eq!(found.endorsements.certificates().len(), 1);
}

#[tokio::test]
async fn a_re_issued_certificate_takes_the_place_of_the_old_one() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let kds = Kds::open(service.options().kept_in(kept.path())).unwrap();
    let item =
        Item::Vcek { product: MILAN, chip: installation().chip_id(MILAN), tcb: coffer_simulator::default_tcb(MILAN) };
    kds.get(&[item], NOW).await;
    service.days.fetch_sub(3, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(kds.refresh(&[item], NOW).await.failures, []);
    let leaves = kds.kept(NOW).await.into_iter().filter(|one| one.item == item).count();
    assert_eq!(leaves, 1);
}

#[tokio::test]
async fn a_program_that_runs_now_and_then_gets_newer_lists_too() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let list = [Item::Crl { product: MILAN, key: SigningKey::Vcek }];
    let mut options = service.options().kept_in(kept.path());
    options.refresh = std::time::Duration::ZERO;
    let mut numbers = Vec::new();
    for day in 0..3 {
        let kds = Kds::open(options.clone()).unwrap();
        let now = coffer_verifier::UnixTime::from_secs(NOW.0 + day * crate::common::DAY);
        numbers.push(kds.get(&list, now).await.endorsements.crls().next().unwrap().number());
        kds.settle(std::time::Duration::from_secs(5)).await;
        service.days.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    // Each run has what the one before it asked for.
    assert_eq!((numbers[1], numbers[2]), (numbers[0], numbers[0] + 1));
}
