//! A thousand chips that are not there.

use std::time::Duration;

use coffer_kds::{FetchError, Item, Kds, Rate};
use coffer_verifier::abi::ProductLine;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::common::{Reply, Service, collect, fake, holds, report};

const MILAN: ProductLine = ProductLine::Milan;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_fake_chips_while_an_honest_one_verifies_at_once() {
    let honest = report(MILAN);
    let chip = hex::encode(&coffer_verifier::abi::Report::parse(&honest).unwrap().chip_id().as_bytes()[..]);
    // Of chips that are not there the service says so when the honest one has what it came for.
    let (gate, gated) = watch::channel(false);
    let service = Service::new(move |path, _| {
        (path.contains("?blSPL") && !path.contains(&chip)).then_some(Reply::Held(gated.clone()))
    })
    .await;
    let mut options = service.patient();
    options.strangers = Rate { burst: 20, every: Duration::from_mins(1) };
    let kds = Kds::open(options).unwrap();
    assert!(holds(&honest, &collect(&kds, &honest).await));
    let flood: Vec<_> = (0..1000)
        .map(|number| {
            let kds = kds.clone();
            tokio::spawn(async move { collect(&kds, &fake(number)).await })
        })
        .collect();
    // One of the strangers waits for its answer at least.
    service.is_asked("?blSPL", 2).await;
    for _ in 0..50 {
        let found = collect(&kds, &honest).await;
        assert!(found.failures.is_empty() && holds(&honest, &found));
    }
    gate.send_replace(true);
    let (mut none, mut budget) = (0, 0);
    for one in flood {
        match one.await.unwrap().failures.as_slice() {
            [(Item::Vcek { .. }, FetchError::None { status: 404 })] => none += 1,
            [(Item::Vcek { .. }, FetchError::Budget { .. } | FetchError::Slow { .. })] => budget += 1,
            other => panic!("{other:?}"),
        }
    }
    // The honest chip was a stranger once.
    assert!(none <= 19 && none + budget == 1000, "{none} {budget}");
    assert!(service.asked("?blSPL") <= 20, "{}", service.asked("?blSPL"));
}

#[tokio::test]
async fn a_chip_that_is_known_gets_its_new_certificate_while_strangers_wait() {
    let honest = report(MILAN);
    let product = MILAN;
    let chip = coffer_verifier::abi::Report::parse(&honest).unwrap().chip_id();
    let name = hex::encode(chip.as_bytes());
    let (gate, gated) = watch::channel(false);
    let service = Service::new(move |path, _| {
        (path.contains("?blSPL") && !path.contains(&name)).then_some(Reply::Held(gated.clone()))
    })
    .await;
    let mut options = service.patient();
    options.strangers = Rate { burst: 5, every: Duration::from_mins(1) };
    options.each_chip = Rate { burst: 3, every: Duration::from_mins(1) };
    let kds = Kds::open(options).unwrap();
    assert!(holds(&honest, &collect(&kds, &honest).await));
    let hanging: Vec<_> = (0..10)
        .map(|number| {
            let kds = kds.clone();
            tokio::spawn(async move { collect(&kds, &fake(number)).await.failures.len() })
        })
        .collect();
    // The honest one was a stranger once; then nothing is left for any.
    service.is_asked("?blSPL", 5).await;
    let mut tcb = coffer_simulator::default_tcb(product);
    let items: Vec<_> = (1..=10)
        .map(|_| {
            tcb.microcode -= 1;
            Item::Vcek { product, chip, tcb }
        })
        .collect();
    let found = join_all(items.iter().map(|item| kds.get(std::slice::from_ref(item), crate::common::NOW))).await;
    // Anybody may name a chip that is known, so each has a budget as well, and beyond it is a stranger.
    assert_eq!(found.iter().filter(|one| one.failures.is_empty()).count(), 3);
    assert!(found.iter().flat_map(|one| &one.failures).all(|(_, why)| matches!(why, FetchError::Budget { .. })));
    gate.send_replace(true);
    for one in hanging {
        assert_eq!(one.await.unwrap(), 1);
    }
}

#[tokio::test]
async fn reports_that_nobody_signed_do_not_use_up_what_a_known_chip_has_for_its_new_tcb() {
    let service = Service::honest().await;
    let mut options = service.options();
    options.strangers = Rate { burst: 20, every: Duration::from_mins(1) };
    options.each_chip = Rate { burst: 2, every: Duration::from_hours(1) };
    let kds = Kds::open(options).unwrap();
    let honest = report(MILAN);
    assert!(holds(&honest, &collect(&kds, &honest).await));
    let mut forged = honest.clone();
    // REPORTED_TCB, its microcode: as many TCBs as the chip has for itself, and then some.
    for microcode in 1..=10 {
        forged[0x187] = microcode;
        assert!(!holds(&forged, &collect(&kds, &forged).await));
    }
    let product = MILAN;
    let mut tcb = coffer_simulator::default_tcb(product);
    tcb.microcode -= 1;
    let item = Item::Vcek { product, chip: crate::common::installation().chip_id(product), tcb };
    assert_eq!(kds.get(&[item], crate::common::NOW).await.failures, []);
    // Who uses up both keeps it waiting, as it keeps strangers.
    let mut last = Vec::new();
    for microcode in 11..=40 {
        forged[0x187] = microcode;
        last = collect(&kds, &forged).await.failures;
    }
    assert!(matches!(last[..], [(Item::Vcek { .. }, FetchError::Budget { .. })]), "{last:?}");
    assert!(service.asked("?blSPL") <= 22, "{}", service.asked("?blSPL"));
}

#[tokio::test]
async fn what_is_held_in_memory_and_in_the_folder_is_bounded() {
    let service = Service::honest().await;
    let dir = tempfile::tempdir().unwrap();
    let mut options = service.options().kept_in(dir.path());
    options.max_leaves = 8;
    options.each_chip = Rate { burst: 100, every: Duration::from_mins(1) };
    let kds = Kds::open(options).unwrap();
    let (product, mut tcb) = (MILAN, coffer_simulator::default_tcb(MILAN));
    let chip = crate::common::installation().chip_id(product);
    for _ in 0..20 {
        tcb.microcode -= 1;
        assert!(kds.get(&[Item::Vcek { product, chip, tcb }], crate::common::NOW).await.failures.is_empty());
        let leaves =
            kds.kept(crate::common::NOW).await.iter().filter(|one| matches!(one.item, Item::Vcek { .. })).count();
        assert!(leaves <= 8, "{leaves}");
    }
    // The last one is there still.
    let asked = service.asked("");
    assert!(kds.get(&[Item::Vcek { product, chip, tcb }], crate::common::NOW).await.failures.is_empty());
    assert_eq!(service.asked(""), asked);
}
