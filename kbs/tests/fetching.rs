//! What guests do not bring is got from a key distribution service, where the configuration names one.

use std::sync::{Arc, atomic::Ordering};
use std::time::{Duration, Instant};

use coffer_kbs::{ConfigFile, KdsEntry, State};
use coffer_simulator::{Installation, LaunchOptions};
use coffer_spec::Tee;
use coffer_verifier::abi::ProductLine;

use crate::common::{Guest, Kbs, Launch, PATH, TENANT, VALUE, anchor, ask, installation, not_admitted, spec, unix};
use crate::endorsements::Bare;

#[path = "../../tests/kds_service.rs"]
mod kds_service;

use kds_service::{Reply, Service};

const DAY: u64 = 86_400;

fn names(service: &Service) -> impl FnOnce(&mut ConfigFile) + use<> {
    let simulated_service = Some(service.base.to_string());
    move |config| {
        config.tenants.entry(TENANT.into()).or_default().simulated_anchors = vec![anchor().to_string()];
        config.kds = Some(KdsEntry { simulated_service, ..KdsEntry::default() });
    }
}

/// A broker that admits this guest, and asks this service.
async fn broker(service: &Service, guest: &Guest) -> Kbs {
    let kbs = Kbs::start_with(names(service)).await;
    kbs.put(PATH, true).await;
    kbs.admit(guest.measurement, guest.document.digest()).await;
    kbs
}

fn bare(guest: &Arc<Guest>) -> Arc<Bare> {
    Arc::new(Bare(guest.clone()))
}

async fn gets_its_secret(kbs: &Kbs, guest: &Arc<Guest>) {
    assert_eq!(ask(&kbs.connect(bare(guest)).await.unwrap(), PATH).await.unwrap(), VALUE);
}

/// A guest on another chip of the same manufacturer.
fn elsewhere(number: u8) -> Arc<Guest> {
    let mut stored: serde_json::Value = serde_json::from_slice(&installation().to_bytes().unwrap()).unwrap();
    stored["chip_secret"] = hex::encode([number; 32]).into();
    let installation = Installation::from_bytes(stored.to_string().as_bytes()).unwrap();
    Guest::launch_on(&installation, &Launch::default(), LaunchOptions::new(ProductLine::Milan, unix()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_does_not_bring_is_got_once_also_over_a_restart() {
    let service = Service::start(installation(), unix(), |_, _| None).await;
    let guest = Guest::usual();
    let kbs = broker(&service, &guest).await;
    for _ in 0..3 {
        gets_its_secret(&kbs, &guest).await;
    }
    assert_eq!(service.asked(""), 3, "leaf, chain and list");
    let kbs = Kbs::start_in(kbs.stop().await, names(&service), async |state| State::open(state).await.unwrap()).await;
    gets_its_secret(&kbs, &guest).await;
    assert_eq!(service.asked(""), 3, "it keeps them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_got_is_lacking_and_nothing_is_asked_of_the_wrong_service() {
    let service = Service::start(installation(), unix(), |_, _| Some(Reply::Status(500, ""))).await;
    let guest = Guest::usual();
    let kbs = broker(&service, &guest).await;
    assert_eq!(not_admitted(kbs.connect(bare(&guest)).await), "evidence-not-authentic");
    let asked = service.asked("");
    assert!(asked > 0);
    // A simulator has nothing for a guest that asks for hardware.
    let mut wants_hardware = Launch { spec: spec(&[PATH]), ..Launch::default() };
    wants_hardware.spec.tee = Tee::Snp;
    not_admitted(kbs.connect(bare(&Guest::launch(&wants_hardware))).await);
    assert_eq!(service.asked(""), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_ran_out_is_got_anew() {
    let service = Service::start(installation(), unix(), |_, _| None).await;
    let guest = Guest::usual();
    let kbs = broker(&service, &guest).await;
    gets_its_secret(&kbs, &guest).await;
    for days in [60, 120] {
        kbs.skew.store((days * DAY).cast_signed(), Ordering::Relaxed);
        service.days.store(days, Ordering::Relaxed);
        gets_its_secret(&kbs, &guest).await;
    }
    assert_eq!((service.asked("/crl"), service.asked("")), (3, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_wait_for_an_answer_keep_nobody_waiting() {
    let guest = Guest::usual();
    let chip = guest.chip();
    let others = move |path: &str, _: u64| (path.contains("?blSPL") && !path.contains(&chip)).then_some(Reply::Hang);
    let service = Service::start(installation(), unix(), others).await;
    let kbs = Arc::new(broker(&service, &guest).await);
    gets_its_secret(&kbs, &guest).await;
    // More than can be judged at once.
    let waiting: Vec<_> = (1..=24)
        .map(|number| {
            let kbs = kbs.clone();
            tokio::spawn(async move { kbs.connect(bare(&elsewhere(number))).await.map(drop) })
        })
        .collect();
    let start = Instant::now();
    while service.asked("?blSPL") < 5 {
        assert!(start.elapsed() < Duration::from_mins(1), "nobody waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One that is known, and one that needs nothing.
    gets_its_secret(&kbs, &guest).await;
    kbs.connect(elsewhere(100)).await.unwrap();
    assert!(waiting.iter().all(|one| !one.is_finished()), "they wait");
    for one in waiting {
        let end = one.await.unwrap();
        assert!(matches!(&end, Err(coffer_kbs_client::ClientError::Refused { .. })), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_answers_keeps_no_broker_from_starting_nor_a_guest_from_its_secret() {
    let service = Service::start(installation(), unix(), |_, _| Some(Reply::Hang)).await;
    let guest = Guest::usual();
    let kbs = broker(&service, &guest).await;
    assert_eq!(service.asked(""), 0, "nothing is asked before there is a guest");
    assert_eq!(ask(&kbs.connect(guest.clone()).await.unwrap(), PATH).await.unwrap(), VALUE);
}
