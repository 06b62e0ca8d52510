//! What `state verify` names, and what `state repair` makes of it: never more than there was.

use super::*;

on_every_store!(
    every_row_of_every_kind_is_named_and_mended_without_giving_more,
    all_rows_set_back_at_once_but_the_trail_are_named_one_by_one,
    rows_that_were_added_are_named_and_thrown_away,
    a_repaired_store_opens_and_goes_on,
);

async fn every_row_of_every_kind_is_named_and_mended_without_giving_more(keeper: Keeper) {
    let (fixture, old) = furnished(keeper).await;
    let all = fixture.dump().await;
    let rows: Vec<_> = all.iter().filter(|(kind, ..)| kind.decides()).collect();
    for (at, (kind, key, row)) in rows.iter().enumerate() {
        let older = old.iter().find(|(k, n, r)| k == kind && n == key && r != row).map(|(.., row)| row.clone());
        let swapped = rows[(at + 1) % rows.len()].2.clone();
        for form in [None, Some(swapped), older] {
            fixture.tamper(*kind, key, form).await;
            let store = fixture.reopened().await.unwrap();
            let summary = store.verify_state().await.unwrap();
            assert_eq!(summary.faults.len(), 1, "{kind:?}: {:?}", summary.faults);
            let forget = if *kind == Kind::CrlNumber { Forget::CrlNumbers } else { Forget::Nothing };
            if forget == Forget::CrlNumbers {
                assert_eq!(store.repair(Forget::Nothing, 5).await.unwrap().faults.len(), 1);
                assert_eq!(store.verify_state().await.unwrap().faults.len(), 1, "it goes on refusing");
            }
            let repaired = store.repair(forget, 5).await.unwrap();
            assert_eq!(repaired.faults.len(), 1);
            assert!(store.verify_state().await.unwrap().faults.is_empty(), "{kind:?}");
            let reopened = fixture.reopened().await.unwrap();
            assert!(reopened.verify_state().await.unwrap().faults.is_empty(), "{kind:?}");
            let line = reopened.read().await.unwrap().audit_lines(summary.lines + 1, 10).await.unwrap();
            assert!(line.iter().any(|line| line.contains("state.repair")), "{line:?}");
            gives_no_more(&reopened, *kind).await;
            fixture.replace_all(&all).await;
        }
    }
    let summary = fixture.reopened().await.unwrap().verify_state().await.unwrap();
    assert!(summary.faults.is_empty() && summary.rows == rows.len() as u64, "{summary:?}");
}

/// Each secret in its newest version or not at all; each list as it was or shorter; no version number given twice.
async fn gives_no_more(store: &Store, mended: Kind) {
    let mut ledger = store.write().await.unwrap();
    for path in ["a/b/c", "a/b/d"] {
        if let Ok(Some(secret)) = ledger.secret(&tenant(), &path_of(path)).await {
            assert_eq!(secret.version, 2, "{mended:?}");
        }
        let (tenant, path) = (tenant(), path_of(path));
        let new = NewSecret::plain(&tenant, &path, b"again");
        assert_eq!(ledger.put_secret(new, 1).await.unwrap().now.stated.version, 3, "{mended:?}");
    }
    assert!(ledger.references(&tenant()).await.unwrap().len() <= 2);
    assert!(ledger.signers(&tenant()).await.unwrap().len() <= 2);
    assert!(ledger.admins().await.unwrap().len() <= 2 && ledger.tenants().len() == 2);
    assert_eq!(ledger.revocation_count(None), 2, "what refuses goes on refusing");
}

async fn all_rows_set_back_at_once_but_the_trail_are_named_one_by_one(keeper: Keeper) {
    let (fixture, old) = furnished(keeper).await;
    let own = |kind: Kind| !kind.decides();
    let mut mixed: Vec<_> = fixture.dump().await.into_iter().filter(|(kind, ..)| own(*kind)).collect();
    mixed.extend(old.into_iter().filter(|(kind, ..)| !own(*kind)));
    fixture.replace_all(&mixed).await;
    for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
        let faults = store.verify_state().await.unwrap().faults;
        // Two heads, two new versions that are gone, a reference, a signer, a number, an operator, a revocation; the rest is as it was.
        assert_eq!(faults.len(), 9, "{faults:#?}");
        assert_eq!(complaints(store).await.len(), 7);
    }
}

async fn rows_that_were_added_are_named_and_thrown_away(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let (kind, key, row) = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::Reference).unwrap();
    let mut other = key.clone();
    let end = other.len() - 1;
    other[end] ^= 1;
    fixture.tamper(kind, &other, Some(row.clone())).await;
    fixture.tamper(Kind::Signer, b"no key at all", Some(row.clone())).await;
    fixture.tamper(Kind::StateEntry, &u64::MAX.to_be_bytes(), Some(row)).await;
    let faults = fixture.store.verify_state().await.unwrap().faults;
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults.iter().all(|fault| !fault.loses));
    assert_eq!(fixture.store.repair(Forget::Nothing, 5).await.unwrap().faults.len(), 3);
    assert!(fixture.store.verify_state().await.unwrap().faults.is_empty());
    assert!(complaints(&fixture.store).await.is_empty());
}

async fn a_repaired_store_opens_and_goes_on(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let entry = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::StateEntry).unwrap();
    fixture.tamper(entry.0, &entry.1, None).await;
    let store = fixture.reopened().await.unwrap();
    let repaired = store.repair(Forget::Nothing, 5).await.unwrap();
    assert_eq!(repaired.faults.len(), 1);
    for store in [&store, &fixture.reopened().await.unwrap()] {
        assert!(complaints(store).await.is_empty());
        let summary = store.verify_state().await.unwrap();
        assert!(summary.faults.is_empty(), "{summary:?}");
        store.verify_audit().await.unwrap();
    }
    drop(store);
    let fixture = Fixture { store: fixture.reopened().await.unwrap(), ..fixture };
    assert_eq!(fixture.put("a/b/c", b"next", Some(2)).await.unwrap().now.stated.version, 3);
    assert_eq!(fixture.reopened().await.unwrap().repair(Forget::Nothing, 6).await.unwrap().faults, []);
}
