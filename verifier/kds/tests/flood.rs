//! A thousand chips that are not there.

use std::time::{Duration, Instant};

use coffer_kds::{FetchError, Item, Kds, Rate};
use coffer_verifier::abi::ProductLine;
use futures_util::future::join_all;

use crate::common::{Reply, Service, collect, fake, holds, report};

const MILAN: ProductLine = ProductLine::Milan;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_fake_chips_while_an_honest_one_verifies_at_once() {
    let honest = report(MILAN);
    let chip = hex::encode(&coffer_verifier::abi::Report::parse(&honest).unwrap().chip_id().as_bytes()[..]);
    // Of chips that are not there the service takes its time to say so.
    let service = Service::new(move |path, _| {
        (path.contains("?blSPL") && !path.contains(&chip)).then_some(Reply::Late(Duration::from_millis(300)))
    })
    .await;
    let mut options = service.options();
    options.strangers = Rate { burst: 20, every: Duration::from_mins(1) };
    let kds = Kds::open(options).unwrap();
    assert!(holds(&honest, &collect(&kds, &honest).await));
    let flood: Vec<_> = (0..1000)
        .map(|number| {
            let kds = kds.clone();
            tokio::spawn(async move { collect(&kds, &fake(number)).await })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let found = collect(&kds, &honest).await;
        longest = longest.max(start.elapsed());
        assert!(found.failures.is_empty() && holds(&honest, &found));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("longest of a known chip during the flood: {longest:?}");
    // One that had to wait for a stranger's answer would wait for 300 ms.
    assert!(longest < Duration::from_millis(250), "{longest:?}");
    let (mut none, mut budget) = (0, 0);
    for one in flood {
        match one.await.unwrap().failures.as_slice() {
            [(Item::Vcek { .. }, FetchError::None { status: 404 })] => none += 1,
            [(Item::Vcek { .. }, FetchError::Budget { .. } | FetchError::Slow)] => budget += 1,
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
    let service =
        Service::new(move |path, _| (path.contains("?blSPL") && !path.contains(&name)).then_some(Reply::Hang)).await;
    let mut options = service.options();
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
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut tcb = coffer_simulator::default_tcb(product);
    let items: Vec<_> = (1..=10)
        .map(|_| {
            tcb.microcode -= 1;
            Item::Vcek { product, chip, tcb }
        })
        .collect();
    let start = Instant::now();
    let found = join_all(items.iter().map(|item| kds.get(std::slice::from_ref(item), crate::common::NOW))).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // Anybody may name a chip that is known, so each has a budget as well.
    assert_eq!(found.iter().filter(|one| one.failures.is_empty()).count(), 3);
    assert!(found.iter().flat_map(|one| &one.failures).all(|(_, why)| matches!(why, FetchError::Budget { .. })));
    for one in hanging {
        assert_eq!(one.await.unwrap(), 1);
    }
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
