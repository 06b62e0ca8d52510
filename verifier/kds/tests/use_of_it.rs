//! Cold, warm, together.

use std::time::Duration;

use coffer_kds::{FetchError, Item, Kds};
use coffer_verifier::abi::{ProductLine, Report, SigningKey};
use coffer_verifier::{Endorsements, UnixTime};
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::common::{NOW, Reply, Service, collect, holds, installation, report};

#[tokio::test]
async fn a_miss_costs_one_round_trip_and_a_hit_none() {
    let (gate, gated) = watch::channel(false);
    let service = Service::new(move |_, _| Some(Reply::Held(gated.clone()))).await;
    let kds = Kds::open(service.patient()).unwrap();
    for product in ProductLine::ALL {
        let report = report(product);
        let before = service.asked("");
        gate.send_replace(false);
        let (cold, ()) = tokio::join!(collect(&kds, &report), async {
            // Leaf, chain and list are asked for before any of them is answered.
            service.is_asked("", before + 3).await;
            gate.send_replace(true);
        });
        assert_eq!((service.asked("") - before, cold.failures.len()), (3, 0), "{product}");
        assert!(holds(&report, &cold), "{product}");
        gate.send_replace(false);
        let warm = collect(&kds, &report).await;
        assert!(holds(&report, &warm) && service.asked("") - before == 3, "{product}");
    }
}

#[tokio::test]
async fn fifty_verifications_of_one_chip_are_one_request() {
    let service = Service::new(|_, _| Some(Reply::Late(Duration::from_millis(100)))).await;
    let kds = service.client();
    let report = report(ProductLine::Genoa);
    let found = join_all((0..50).map(|_| collect(&kds, &report))).await;
    assert!(found.iter().all(|one| one.failures.is_empty() && holds(&report, one)));
    for part in ["?blSPL", "cert_chain", "/crl"] {
        assert_eq!(service.asked(part), 1, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_while_an_answer_arrives_does_not_ask_again() {
    for _ in 0..20 {
        let service = Service::honest().await;
        let kds = service.client();
        let report = report(ProductLine::Milan);
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let (kds, report) = (kds.clone(), report.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_micros(200 * number)).await;
                    collect(&kds, &report).await.failures.len()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
        assert_eq!(service.asked("?blSPL"), 1);
    }
}

#[tokio::test]
async fn what_is_carried_is_not_asked_for() {
    let service = Service::honest().await;
    let (kds, product) = (service.client(), ProductLine::Milan);
    let bytes = report(product);
    let parsed = Report::parse(&bytes).unwrap();
    let tcb = parsed.tcbs(product).unwrap().reported;
    let mut carried = Endorsements::new();
    carried.add_certificates(&installation().issue_vcek(product, tcb, crate::common::SECONDS).unwrap()).unwrap();
    let found = kds.collect(&parsed, &carried, NOW).await;
    assert_eq!((service.asked("?blSPL"), found.failures.len()), (0, 0));
    carried.merge(&found.endorsements);
    assert_eq!(crate::common::judged(&bytes, &carried, NOW), coffer_verifier::Verdict::Accepted);
    // Nor is a chain.
    let other = Service::honest().await;
    carried.add_certificates(installation().ask(product).unwrap()).unwrap();
    other.client().collect(&parsed, &carried, NOW).await;
    assert_eq!((other.asked("cert_chain"), other.asked("")), (0, 0));
    // One that does not fit is no reason not to ask.
    let mut other = tcb;
    other.microcode -= 1;
    let mut foreign = Endorsements::new();
    foreign.add_certificates(&installation().issue_vcek(product, other, crate::common::SECONDS).unwrap()).unwrap();
    kds.collect(&parsed, &foreign, NOW).await;
    assert_eq!(service.asked("?blSPL"), 1);
}

#[tokio::test]
async fn a_carried_list_is_not_waited_for_and_the_held_one_goes_with_it() {
    let service = Service::new(|path, _| path.ends_with("/crl").then_some(Reply::Hang)).await;
    let kds = Kds::open(service.patient()).unwrap();
    let bytes = report(ProductLine::Milan);
    let mut carried = Endorsements::new();
    carried.add_crl(&installation().crl(ProductLine::Milan, crate::common::SECONDS).unwrap()).unwrap();
    let found = kds.collect(&Report::parse(&bytes).unwrap(), &carried, NOW).await;
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    carried.merge(&found.endorsements);
    assert_eq!(crate::common::judged(&bytes, &carried, NOW), coffer_verifier::Verdict::Accepted);
}

#[tokio::test]
async fn a_carried_list_of_another_line_or_root_stands_for_none() {
    let product = ProductLine::Milan;
    let bytes = report(product);
    let parsed = Report::parse(&bytes).unwrap();
    let other = installation().crl(ProductLine::Genoa, crate::common::SECONDS).unwrap();
    // Its root at hand says that it is nobody's.
    let mut forged = installation().crl(product, crate::common::SECONDS).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    for list in [other, forged] {
        let service =
            Service::new(|path, _| path.ends_with("/crl").then_some(Reply::Late(Duration::from_millis(300)))).await;
        let mut carried = Endorsements::new();
        carried.add_crl(&list).unwrap();
        carried.add_certificates(installation().anchor(product).unwrap().ark).unwrap();
        let found = service.client().collect(&parsed, &carried, NOW).await;
        assert_eq!(found.endorsements.crls().len(), 1, "waited for");
        carried.merge(&found.endorsements);
        assert_eq!(crate::common::judged(&bytes, &carried, NOW), coffer_verifier::Verdict::Accepted);
    }
}

#[tokio::test]
async fn a_list_of_some_age_is_asked_for_anew_beside_its_use() {
    let (gate, gated) = watch::channel(false);
    let service =
        Service::new(move |path, before| (path.ends_with("/crl") && before > 0).then_some(Reply::Held(gated.clone())))
            .await;
    let mut options = service.patient();
    options.refresh = Duration::from_millis(100);
    let kds = Kds::open(options).unwrap();
    let list = [Item::Crl { product: ProductLine::Milan, key: SigningKey::Vcek }];
    let number = |found: &coffer_kds::Collected| found.endorsements.crls().next().unwrap().number();
    let first = number(&kds.get(&list, NOW).await);
    tokio::time::sleep(Duration::from_millis(150)).await;
    service.days.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let later = UnixTime::from_secs(NOW.0 + crate::common::DAY);
    assert_eq!(number(&kds.get(&list, later).await), first, "not waited for");
    gate.send_replace(true);
    kds.settle(Duration::from_mins(1)).await;
    assert_eq!(number(&kds.get(&list, later).await), first + 1);
}

#[tokio::test]
async fn nobody_is_asked_for_what_nobody_serves() {
    let service = Service::honest().await;
    let kds = service.client();
    let tcb = coffer_simulator::default_tcb(ProductLine::Milan);
    let found = kds.get(&[Item::Vlek { product: ProductLine::Milan, tcb }], NOW).await;
    assert_eq!(found.failures[0].1, FetchError::NoAddress);
    assert_eq!(service.asked(""), 0);
}
