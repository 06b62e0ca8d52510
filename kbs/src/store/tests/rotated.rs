//! A new root key: everything opens under it, nothing under the old one, and whatever fails in between leaves one of both.

use std::time::Duration;

use super::{super::tenant_keys::OpenKey, batch::after, faulty::Faulty, *};

on_every_store!(
    a_new_root_key_opens_everything_and_the_old_one_nothing,
    a_failure_at_any_step_leaves_a_store_that_one_key_opens,
    what_is_damaged_is_not_carried_over,
    whoever_writes_at_that_time_is_committed_under_the_key_so_far,
    whoever_reads_between_the_commit_and_its_answer_waits_for_the_new_key,
    a_lost_answer_is_asked_for,
);

fn another(number: u8) -> RootKey {
    RootKey::new(&Zeroizing::new([number; 32]))
}

async fn key_of(store: &Store, used: KeyUse) -> Vec<u8> {
    let mut ledger = store.read().await.unwrap();
    ledger.tenant_key(&tenant(), used).await.unwrap().unwrap().key.to_vec()
}

async fn a_new_root_key_opens_everything_and_the_old_one_nothing(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let mut ledger = fixture.store.write().await.unwrap();
    for (used, byte) in [(KeyUse::Sealing, 1), (KeyUse::Certificates, 2)] {
        let new = OpenKey { public: Vec::new(), key: Zeroizing::new(vec![byte; 32]) };
        ledger.keep_tenant_key(&tenant(), used, &new).await.unwrap();
    }
    ledger.delete_secret(&tenant(), &path_of("a/b/d"), Some(1), 5).await.unwrap();
    ledger.destroy_secret(&tenant(), &path_of("a/b/d"), 1).await.unwrap();
    ledger.commit().await.unwrap();
    let before = fixture.dump().await;
    let lines = fixture.store.verify_audit().await.unwrap().lines;
    fixture.store.rotate_root(another(8), 77).await.unwrap();
    let fresh =
        async || Store::open(fixture.rows.clone(), another(8), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    for store in [&fixture.store, &fresh().await] {
        assert!(complaints(store).await.is_empty());
        let summary = store.verify_state().await.unwrap();
        assert!(summary.faults.is_empty(), "{:?}", summary.faults);
        assert_eq!(store.verify_audit().await.unwrap().lines, lines + 1);
        let line = store.read().await.unwrap().audit_lines(lines + 1, 1).await.unwrap().concat();
        assert!(line.contains("root.rotate"), "{line}");
        // What guests sealed, and what certificates hang from, is what it was.
        assert_eq!(key_of(store, KeyUse::Sealing).await, [1; 32]);
        assert_eq!(key_of(store, KeyUse::Certificates).await, [2; 32]);
    }
    assert!(matches!(fixture.reopened().await.err(), Some(StoreError::Audit(AuditFault::Head))));
    for (kind, key, row) in fixture.dump().await {
        let old = before.iter().find(|(k, n, _)| *k == kind && *n == key);
        assert!(old.is_none_or(|(.., old)| old.mac != row.mac), "{kind:?} is still bound to the old key");
        if matches!(kind, Kind::TenantKey) {
            assert!(old.is_some_and(|(.., old)| old.body != row.body), "still wrapped by the old key");
        }
    }
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((2, b"new".to_vec())));
    assert_eq!(fixture.put("a/b/c", b"next", Some(2)).await.unwrap().now.stated.version, 3);
    assert!(complaints(&fresh().await).await.is_empty());
}

async fn a_failure_at_any_step_leaves_a_store_that_one_key_opens(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    for (kind, key, _) in fixture.dump().await {
        fixture.tamper(kind, &key, None).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let witness = || Witness::Kept(Arc::new(FileCheckpoint::new(folder.path().join("checkpoint"))));
    let store = Store::create(fixture.rows.clone(), root(), witness()).await.unwrap();
    let fixture = Fixture { store, ..fixture };
    fixture.put("a/b/c", b"kept", None).await.unwrap();
    fixture.append("1").await;
    let before = fixture.dump().await;
    let faulty = Faulty::new(fixture.rows.clone());
    for step in 0.. {
        let store = Store::open(Arc::new(faulty.clone()), root(), witness()).await.unwrap();
        faulty.fail(step);
        let done = store.rotate_root(another(8), 77).await;
        faulty.mend();
        if done.is_ok() {
            assert!(step > 10, "{step} steps");
            break;
        }
        assert!(fixture.dump().await == before, "step {step}");
        assert!(Store::open(fixture.rows.clone(), another(8), witness()).await.is_err(), "step {step}");
    }
    assert!(Store::open(fixture.rows.clone(), root(), witness()).await.is_err());
    // Killed before the commit, with the checkpoint of the next key kept already.
    let store = Store::open(fixture.rows.clone(), another(8), witness()).await.unwrap();
    let ledger = store.write().await.unwrap();
    let (now, mut next) = (ledger.head, ledger.head);
    drop(ledger);
    (next.lines, next.changes) = (next.lines + 1, next.changes + 9);
    store.shared.follower.keep_both((&another(8), &now), (&another(9), &next)).await.unwrap();
    drop(store);
    // Killed after it, before anybody heard of it.
    let store = Arc::new(Store::open(Arc::new(faulty.clone()), another(8), witness()).await.unwrap());
    let held = faulty.hold_the_answer().await;
    let rotating = tokio::spawn({
        let store = store.clone();
        async move { store.rotate_root(another(9), 78).await }
    });
    while !opens(&*fixture.rows, &another(9)).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rotating.abort();
    assert!(rotating.await.unwrap_err().is_cancelled());
    drop((held, store));
    assert!(Store::open(fixture.rows.clone(), another(8), witness()).await.is_err());
    let store = Store::open(fixture.rows.clone(), another(9), witness()).await.unwrap();
    assert!(store.verify_state().await.unwrap().faults.is_empty());
    let fixture = Fixture { store, ..fixture };
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((1, b"kept".to_vec())));
}

async fn what_is_damaged_is_not_carried_over(keeper: Keeper) {
    let (fixture, old) = furnished(keeper).await;
    let now = fixture.dump().await;
    for (kind, key, row) in now.iter().filter(|(kind, ..)| kind.decides()) {
        let form = old.iter().find(|(k, n, r)| k == kind && n == key && r != row).map(|(.., row)| row.clone());
        fixture.tamper(*kind, key, form).await;
        let before = fixture.dump().await;
        let refused = fixture.store.rotate_root(another(8), 77).await;
        assert!(matches!(refused, Err(StoreError::Tampered { .. })), "{kind:?}: {refused:?}");
        assert!(fixture.dump().await == before);
        fixture.tamper(*kind, key, Some(row.clone())).await;
    }
    // A line of the trail that was edited stays one that was edited.
    let (_, _, mut line) = now.iter().find(|(kind, ..)| *kind == Kind::AuditLine).unwrap().clone();
    line.body[3] ^= 1;
    fixture.tamper(Kind::AuditLine, &1_u64.to_be_bytes(), Some(line)).await;
    fixture.store.rotate_root(another(8), 77).await.unwrap();
    let found = fixture.store.verify_audit().await;
    assert!(matches!(found, Err(StoreError::Audit(AuditFault::Line { sequence: 1 }))), "{found:?}");
}

async fn whoever_writes_at_that_time_is_committed_under_the_key_so_far(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let rows = Faulty::new(fixture.rows.clone());
    let store = Store::open(Arc::new(rows.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    let store = Arc::new(store);
    let mut first = store.write().await.unwrap();
    first.add_reference(&tenant(), &reference(1)).await.unwrap();
    // It waits for the first, with that one in the batch.
    let rotating = tokio::spawn({
        let store = store.clone();
        async move { store.rotate_root(another(8), 77).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (first, rotated) = tokio::join!(first.commit(), rotating);
    first.unwrap();
    rotated.unwrap().unwrap();
    assert_eq!(rows.commits(), 2, "neither came into the commit of the other");
    let (mut second, first) = {
        let mut ledger = store.write().await.unwrap();
        ledger.add_reference(&tenant(), &reference(2)).await.unwrap();
        after(&store, ledger).await
    };
    // A view in a batch that others wait for takes none of theirs along.
    assert!(second.transaction.hand_down().await.is_err());
    assert!(second.commit_unwitnessed().await.is_err());
    first.await.unwrap().unwrap();
    let fresh = Store::open(fixture.rows.clone(), another(8), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    for store in [&*store, &fresh] {
        assert_eq!(store.read().await.unwrap().references(&tenant()).await.unwrap().len(), 2);
        assert!(store.verify_state().await.unwrap().faults.is_empty());
    }
}

async fn whoever_reads_between_the_commit_and_its_answer_waits_for_the_new_key(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    fixture.add_reference(&tenant(), &reference(1)).await;
    let rows = Faulty::new(fixture.rows.clone());
    let store = Store::open(Arc::new(rows.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    let store = Arc::new(store);
    let held = rows.hold_the_answer().await;
    let rotating = tokio::spawn({
        let store = store.clone();
        async move { store.rotate_root(another(8), 77).await }
    });
    while !opens(&*fixture.rows, &another(8)).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.read().await?.references(&tenant()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!reading.is_finished());
    drop(held);
    rotating.await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap().unwrap().len(), 1);
}

async fn a_lost_answer_is_asked_for(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let rows = Faulty::new(fixture.rows.clone());
    let store = Store::open(Arc::new(rows.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    rows.lose_the_answer();
    store.rotate_root(another(8), 77).await.unwrap();
    rows.mend();
    let mut ledger = store.write().await.unwrap();
    ledger.add_reference(&tenant(), &reference(1)).await.unwrap();
    ledger.commit().await.unwrap();
    assert!(store.verify_state().await.unwrap().faults.is_empty());
    assert!(Store::open(fixture.rows.clone(), another(8), Witness::OlderDatabaseIsNotNoticed).await.is_ok());
}
