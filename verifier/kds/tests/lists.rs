//! Revocation lists do not go back.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use coffer_kds::{FetchError, Item, Kds, Unfit};
use coffer_simulator::attack::{Scene, forge};
use coffer_verifier::abi::{ProductLine, Report, SigningKey};
use coffer_verifier::{CrlPolicy, Endorsements, Verdict};

use crate::common::{DAY, NOW, SECONDS, Service, anchors, installation, judge_under, report};

const MILAN: ProductLine = ProductLine::Milan;
const LIST: Item = Item::Crl { product: MILAN, key: SigningKey::Vcek };
/// Whose name says nothing is kept for both services.
const BOTH: [Item; 2] = [LIST, Item::Crl { product: MILAN, key: SigningKey::Vlek }];

async fn file_of_list(kds: &Kds) -> PathBuf {
    kds.kept(NOW).await.into_iter().find(|one| one.item == LIST).unwrap().file
}

#[tokio::test]
async fn a_kept_list_below_the_number_seen_is_of_no_use() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let open = || Kds::open(service.options().kept_in(kept.path())).unwrap();
    let found = open().get(&[LIST], NOW).await;
    let number = found.endorsements.crls().next().unwrap().number();
    let file = file_of_list(&open()).await;
    fs::write(file.with_file_name("crl.number"), "999").unwrap();
    let offline = Kds::open(service.options().kept_in(kept.path()).offline()).unwrap();
    assert_eq!(offline.get(&[LIST], NOW).await.failures, [(LIST, FetchError::Offline)]);
    let older = Unfit::Older { found: number, least: 999 };
    let listed = offline.kept(NOW).await.into_iter().find(|one| one.item == LIST).unwrap();
    assert_eq!(listed.state, Err(older.clone()));
    let out = tempfile::tempdir().unwrap();
    assert_eq!(offline.export(out.path(), NOW).await.unwrap().files.len(), 1, "the chain alone");
    assert_eq!(
        open().get(&[LIST], NOW).await.failures,
        [(LIST, FetchError::Unfit(older))],
        "nor is that of the service"
    );
    assert!(file.exists(), "what holds is not removed for a number that may be wrong");
}

#[tokio::test]
async fn a_list_that_came_with_the_report_is_no_older_than_one_seen() {
    let service = Service::honest().await;
    let kept = tempfile::tempdir().unwrap();
    let options = service.options().kept_in(kept.path());
    let bytes = report(MILAN);
    let parsed = Report::parse(&bytes).unwrap();
    let online = Kds::open(options.clone()).unwrap();
    let whole = online.collect(&parsed, &Endorsements::new(), NOW).await;
    let newest = whole.endorsements.crls().next().unwrap().number();
    assert_eq!((whole.list_floor, whole.crl_policy(&CrlPolicy::Required)), (0, CrlPolicy::Required));
    fs::remove_file(file_of_list(&online).await).unwrap();
    let mut carried = Endorsements::new();
    carried.add_crl(&installation().crl(MILAN, SECONDS - DAY.unsigned_abs()).unwrap()).unwrap();

    // Offline it does not count.
    let found = Kds::open(options.clone().offline()).unwrap().collect(&parsed, &carried, NOW).await;
    assert_eq!(found.list_floor, newest);
    let mut all = carried.clone();
    all.merge(&found.endorsements);
    let judged = |policy: CrlPolicy| judge_under(&bytes, &all, anchors(), policy, NOW);
    assert_eq!(judged(CrlPolicy::Required), Verdict::Accepted, "it would");
    assert_eq!(judged(found.crl_policy(&CrlPolicy::Required)), Verdict::NotAuthentic);
    let policies = [CrlPolicy::Waived, CrlPolicy::AtLeast(1), CrlPolicy::AtLeast(newest + 1)];
    let expected = [CrlPolicy::Waived, CrlPolicy::AtLeast(newest), CrlPolicy::AtLeast(newest + 1)];
    assert_eq!(policies.map(|policy| found.crl_policy(&policy)), expected);

    // Online the newer one is waited for.
    let found = Kds::open(options).unwrap().collect(&parsed, &carried, NOW).await;
    assert_eq!((found.list_floor, found.endorsements.crls().next().unwrap().number()), (0, newest));
}

#[tokio::test]
async fn of_two_lists_of_one_number_the_one_that_revokes_stays() {
    let service = Service::honest().await;
    let (kept, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let revokes = forge(installation(), &Scene::new(MILAN, SECONDS), "intermediate-revoked").unwrap().crl.unwrap();
    let clean = installation().crl(MILAN, SECONDS).unwrap();
    let [revokes, clean] = [("revokes", revokes), ("clean", clean)].map(|(name, bytes)| {
        fs::write(from.path().join(name), bytes).unwrap();
        vec![from.path().join(name)]
    });
    let open = || Kds::open(service.options().kept_in(kept.path())).unwrap();
    open().get(&[Item::Chain { product: MILAN, key: SigningKey::Vcek }], NOW).await;
    assert_eq!(open().import(&clean, NOW).await.unwrap().items, BOTH);
    assert_eq!(open().import(&revokes, NOW).await.unwrap().items, BOTH, "more is revoked");
    let held = fs::read(file_of_list(&open()).await).unwrap();
    let done = open().import(&clean, NOW).await.unwrap();
    assert!(matches!(done.refused[..], [(_, Unfit::Unrevoked { .. })]), "{:?}", done.refused);
    assert_eq!(open().import(&revokes, NOW).await.unwrap().items, BOTH, "the same again");
    // Nor does a service bring the clean one back, before there is a newer one.
    let found = open().refresh(&[LIST], NOW).await;
    assert!(matches!(found.failures[..], [(LIST, FetchError::Unfit(Unfit::Unrevoked { .. }))]), "{:?}", found.failures);
    assert_eq!(fs::read(file_of_list(&open()).await).unwrap(), held);
    service.days.fetch_add(1, Ordering::Relaxed);
    let later = coffer_verifier::UnixTime::from_secs(NOW.0 + DAY);
    assert_eq!(open().refresh(&[LIST], later).await.failures, []);
}
