//! What goes wrong, and what does not go wrong with it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coffer_kds::{FetchError, Item, Kds, Unfit};
use coffer_simulator::kds::{Fault, answer};
use coffer_verifier::UnixTime;
use coffer_verifier::abi::{ProductLine, SigningKey};

use crate::common::{DAY, NOW, Reply, SECONDS, Service, collect, holds, installation, report};

const MILAN: ProductLine = ProductLine::Milan;
const LIST: Item = Item::Crl { product: MILAN, key: SigningKey::Vcek };

fn is_leaf(path: &str) -> bool {
    path.contains("?blSPL")
}

async fn failure(kds: &Kds, item: Item, now: UnixTime) -> FetchError {
    kds.get(&[item], now).await.failures.remove(0).1
}

#[tokio::test]
async fn a_429_and_a_503_that_names_its_pause_are_waited_out_and_are_no_negatives() {
    for status in [429, 503] {
        let service = Service::new(move |path, before| {
            (is_leaf(path) && before == 0).then_some(Reply::Status(status, "retry-after: 1\r\n"))
        })
        .await;
        let kds = service.client();
        let start = Instant::now();
        let found = collect(&kds, &report(MILAN)).await;
        assert!(holds(&report(MILAN), &found) && found.failures.is_empty(), "{status}: {:?}", found.failures);
        assert!(start.elapsed() >= Duration::from_secs(1), "{status}: {:?}", start.elapsed());
        assert_eq!(service.asked("?blSPL"), 2, "{status}");
    }
}

#[tokio::test]
async fn a_pause_is_kept_by_everybody_and_is_bounded() {
    let service = Service::new(|path, _| is_leaf(path).then_some(Reply::Status(429, "retry-after: 999999\r\n"))).await;
    let mut options = service.options();
    options.patience = Duration::from_mins(5);
    options.longest_pause = Duration::from_mins(10);
    let kds = Kds::open(options).unwrap();
    // What is held before goes on.
    assert!(kds.get(&[LIST], NOW).await.failures.is_empty());
    // Nobody waits for what does not come: the pause is longer than this client's patience.
    let found = collect(&kds, &report(MILAN)).await;
    let (item, error) = &found.failures[0];
    assert!(matches!(item, Item::Vcek { .. }));
    let pause = error.retry_after().unwrap();
    assert!(pause > Duration::from_secs(590) && pause <= Duration::from_mins(10), "{pause:?}");
    let asked = service.asked("");
    let other = Item::Crl { product: ProductLine::Turin, key: SigningKey::Vcek };
    assert!(matches!(failure(&kds, other, NOW).await, FetchError::Busy { status: 429, .. }));
    assert_eq!(service.asked(""), asked, "asked within its pause");
    assert!(kds.get(&[LIST], NOW).await.failures.is_empty());
}

#[tokio::test]
async fn a_500_is_no_negative_and_a_404_is() {
    for (status, again) in [(500, true), (404, false)] {
        let service =
            Service::new(move |path, before| (is_leaf(path) && before == 0).then_some(Reply::Status(status, ""))).await;
        let mut options = service.options();
        options.rest = (Duration::ZERO, Duration::ZERO);
        let kds = Kds::open(options).unwrap();
        assert_eq!(collect(&kds, &report(MILAN)).await.failures.len(), 1, "{status}");
        let found = collect(&kds, &report(MILAN)).await;
        assert_eq!(found.failures.is_empty(), again, "{status}");
        assert_eq!(service.asked("?blSPL"), if again { 2 } else { 1 }, "{status}");
    }
}

#[tokio::test]
async fn a_service_that_fails_has_a_rest_and_is_not_asked_in_a_circle() {
    let service = Service::new(|path, _| is_leaf(path).then_some(Reply::Status(500, ""))).await;
    let mut options = service.options();
    options.rest = (Duration::from_hours(1), Duration::from_hours(1));
    let kds = Kds::open(options).unwrap();
    for _ in 0..3 {
        assert_eq!(collect(&kds, &report(MILAN)).await.failures.len(), 1);
    }
    assert_eq!(service.asked("?blSPL"), 1);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_a_hang_ends() {
    let service = Service::new(|path, _| is_leaf(path).then_some(Reply::Late(Duration::from_millis(1200)))).await;
    let kds = Kds::open(service.patient()).unwrap();
    assert!(holds(&report(MILAN), &collect(&kds, &report(MILAN)).await));
    for reply in [|| Reply::Hang, || Reply::Drip, || Reply::DripHead] {
        let service = Service::new(move |path, _| is_leaf(path).then(reply)).await;
        let found = collect(&service.client(), &report(MILAN)).await;
        assert!(matches!(found.failures[0].1, FetchError::Slow { .. }));
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_cut() {
    let service = Service::new(|path, _| is_leaf(path).then_some(Reply::Endless)).await;
    let found = collect(&service.client(), &report(MILAN)).await;
    assert_eq!(found.failures[0].1, FetchError::TooLong { limit: 16 << 10 });
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Service::honest().await;
    let to: &'static str = Box::leak(format!("location: {}/vcek/v1/Milan/crl\r\n", other.base).into_boxed_str());
    let service = Service::new(move |path, _| path.ends_with("/crl").then_some(Reply::Status(302, to))).await;
    let said = failure(&service.client(), LIST, NOW).await;
    assert!(
        matches!(&said, FetchError::Redirect { status: 302, to } if to.ends_with("/vcek/v1/Milan/crl")),
        "{said:?}"
    );
    assert_eq!(other.asked(""), 0);
}

#[tokio::test]
async fn the_certificate_of_another_tcb_chip_or_issuer_is_not_taken() {
    for (name, body) in [
        ("another TCB", None),
        ("another product", Some(leaf(ProductLine::Genoa))),
        ("no certificate", Some(b"hello".to_vec())),
        ("a chain", Some(answer(installation(), "/vcek/v1/Milan/cert_chain", Fault::None, SECONDS).body)),
        ("one bit", Some(flipped(leaf(MILAN)))),
    ] {
        let service = Service::new(move |path, _| {
            is_leaf(path).then(|| {
                let wrong = || answer(installation(), path, Fault::WrongCertificate, SECONDS).body;
                Reply::Body(body.clone().unwrap_or_else(wrong))
            })
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let kds = Kds::open(service.options().kept_in(dir.path())).unwrap();
        let found = collect(&kds, &report(MILAN)).await;
        assert!(matches!(found.failures[0].1, FetchError::Unfit(_)), "{name}: {:?}", found.failures);
        assert_eq!(found.endorsements.certificates().filter(|one| one.leaf().is_some()).count(), 0, "{name}");
        let kept = kds.kept(NOW).await;
        assert!(kept.iter().all(|one| !matches!(one.item, Item::Vcek { .. })), "{name}: {kept:?}");
    }
}

fn leaf(product: ProductLine) -> Vec<u8> {
    installation().issue_vcek(product, coffer_simulator::default_tcb(product), SECONDS).unwrap()
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes
}

#[tokio::test]
async fn a_stale_list_is_not_taken_and_one_that_is_valid_serves_while_there_is_no_better() {
    let service = Service::new(|path, before| {
        let stale = || Reply::Body(answer(installation(), path, Fault::StaleCrl, SECONDS).body);
        (path.ends_with("/crl") && before > 0).then(stale)
    })
    .await;
    let kds = service.client();
    assert!(kds.get(&[LIST], NOW).await.failures.is_empty());
    let anew = kds.refresh(&[LIST], NOW).await;
    assert!(matches!(anew.failures[0].1, FetchError::Unfit(Unfit::Crl(_))), "{:?}", anew.failures);
    assert!(kds.get(&[LIST], NOW).await.failures.is_empty(), "the held one is valid");
    // When it is no more, nothing is in its place.
    let later = UnixTime::from_secs(NOW.0 + 60 * DAY);
    assert_eq!(kds.get(&[LIST], later).await.endorsements.crls().len(), 0);
}

#[tokio::test]
async fn a_list_never_goes_back() {
    let service = Service::honest().await;
    let dir = tempfile::tempdir().unwrap();
    let kds = Kds::open(service.options().kept_in(dir.path())).unwrap();
    let first = kds.get(&[LIST], NOW).await;
    let number = first.endorsements.crls().next().unwrap().number();
    service.days.fetch_sub(1, Ordering::Relaxed);
    let anew = kds.refresh(&[LIST], NOW).await;
    assert_eq!(anew.failures[0].1, FetchError::Unfit(Unfit::Older { found: number - 1, least: number }));
    assert_eq!(kds.get(&[LIST], NOW).await.endorsements.crls().next().unwrap().number(), number);
    // Nor after a restart, with the list itself damaged.
    let kept = kds.kept(NOW).await;
    let file = &kept.iter().find(|one| one.item == LIST).unwrap().file;
    std::fs::write(file, b"damage").unwrap();
    let mut options = service.options().kept_in(dir.path());
    options.rest = (Duration::ZERO, Duration::ZERO);
    let kds = Kds::open(options).unwrap();
    let again = failure(&kds, LIST, NOW).await;
    assert_eq!(again, FetchError::Unfit(Unfit::Older { found: number - 1, least: number }));
    service.days.fetch_add(1, Ordering::Relaxed);
    assert!(kds.get(&[LIST], NOW).await.failures.is_empty());
}
