//! What `state verify` names, and what `state repair` makes of it: never more than there was.

use super::*;

on_every_store!(
    every_row_of_every_kind_is_named_and_mended_without_giving_more,
    all_rows_set_back_at_once_but_the_trail_are_named_one_by_one,
    rows_that_were_added_are_named_and_thrown_away,
    a_repaired_store_opens_and_goes_on,
    a_version_that_was_given_up_counts_as_destroyed_and_is_listed,
    a_secret_whose_head_is_damaged_is_mended_by_another_put,
    a_plan_names_what_is_given_up_with_a_lost_end_mark_and_changes_nothing,
    no_repair_after_another_gives_a_number_twice_or_brings_an_old_version_back,
    what_a_record_written_anew_loses_is_named_before,
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
            let forget = Forget { crl_numbers: *kind == Kind::CrlNumber, ..Forget::default() };
            if forget.crl_numbers {
                assert_eq!(store.repair(Forget::default(), 5).await.unwrap().faults.len(), 1);
                assert_eq!(store.verify_state().await.unwrap().faults.len(), 1, "it goes on refusing");
            }
            let repaired = store.repair(forget, 5).await.unwrap();
            assert_eq!(repaired.faults.len(), 1);
            assert!(store.verify_state().await.unwrap().faults.is_empty(), "{kind:?}");
            let reopened = fixture.reopened().await.unwrap();
            assert!(reopened.verify_state().await.unwrap().faults.is_empty(), "{kind:?}");
            // What was given up is asked for like the rest: nobody is sent to a repair that has nothing to do.
            let listed = reopened.read().await.unwrap().all_secrets(&tenant()).await.unwrap();
            assert!(listed.len() == 2 && listed.iter().all(Result::is_ok), "{kind:?}: {listed:?}");
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
    assert_eq!(fixture.store.repair(Forget::default(), 5).await.unwrap().faults.len(), 3);
    assert!(fixture.store.verify_state().await.unwrap().faults.is_empty());
    assert!(complaints(&fixture.store).await.is_empty());
}

async fn a_repaired_store_opens_and_goes_on(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let entry = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::StateEntry).unwrap();
    fixture.tamper(entry.0, &entry.1, None).await;
    let store = fixture.reopened().await.unwrap();
    let repaired = store.repair(Forget::default(), 5).await.unwrap();
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
    assert_eq!(fixture.reopened().await.unwrap().repair(Forget::default(), 6).await.unwrap().faults, []);
}

async fn a_version_that_was_given_up_counts_as_destroyed_and_is_listed(keeper: Keeper) {
    let (tenant, path) = (tenant(), path_of("a/b/c"));
    let fixture = Fixture::new(keeper).await;
    fixture.put("a/b/c", b"only", None).await.unwrap();
    let row = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::SecretVersion).unwrap();
    fixture.tamper(row.0, &row.1, None).await;
    fixture.store.repair(Forget::default(), 5).await.unwrap();
    for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
        let mut ledger = store.read().await.unwrap();
        let found = ledger.secrets(&tenant).await.unwrap();
        let [Ok(only)] = &found[..] else { panic!("{found:?}") };
        assert!((only.secret.version, only.length) == (1, 0) && only.secret.is_destroyed(), "{only:?}");
        for version in [None, Some(1)] {
            let absent = ledger.find_secret(&tenant, &path, version).await.unwrap();
            assert_eq!(absent, Err(Absent::GivenUp(1)));
        }
    }
    let mut ledger = fixture.store.write().await.unwrap();
    assert!(!ledger.destroy_secret(&tenant, &path, 1).await.unwrap());
    assert!(ledger.delete_secret(&tenant, &path, None, 6).await.unwrap());
    assert!(ledger.secrets(&tenant).await.unwrap().is_empty());
    assert!(ledger.undelete_secret(&tenant, &path, None).await.unwrap());
    // On what terms it was released nobody knows: whoever puts the next one may widen them.
    let put = ledger.put_secret(NewSecret::plain(&tenant, &path, b"again"), 7).await.unwrap();
    assert_eq!((put.now.stated.version, put.before, put.widens), (2, None, true));
    assert_eq!(ledger.find_secret(&tenant, &path, Some(1)).await.unwrap(), Err(Absent::GivenUp(1)));
}

async fn a_secret_whose_head_is_damaged_is_mended_by_another_put(keeper: Keeper) {
    let (tenant, path) = (tenant(), path_of("a/b/c"));
    let fixture = Fixture::new(keeper).await;
    for value in [b"one", b"two"] {
        fixture.put("a/b/c", value, None).await.unwrap();
    }
    let all = fixture.dump().await;
    let row = all.iter().find(|(kind, ..)| *kind == Kind::SecretHead).unwrap();
    for form in [None, Some(Row { body: row.2.body.clone(), mac: vec![0; 32] })] {
        fixture.replace_all(&all).await;
        fixture.tamper(row.0, &row.1, form).await;
        let store = fixture.reopened().await.unwrap();
        let mut ledger = store.write().await.unwrap();
        let put = ledger.put_secret(NewSecret::plain(&tenant, &path, b"three"), 7).await.unwrap();
        // The newest version is there, and says what widens.
        assert_eq!((put.now.stated.version, put.widens), (3, false));
        ledger.commit().await.unwrap();
        let mut ledger = store.read().await.unwrap();
        assert_eq!(ledger.secret(&tenant, &path).await.unwrap().unwrap().version, 3);
        // What may have been below the least that is released stays away.
        let old = ledger.find_secret(&tenant, &path, Some(2)).await.unwrap();
        assert_eq!(old, Err(Absent::BelowMinimum { found: 2, least: 3 }));
        drop(ledger);
        assert_eq!(store.verify_state().await.unwrap().faults, []);
    }
}

async fn no_repair_after_another_gives_a_number_twice_or_brings_an_old_version_back(keeper: Keeper) {
    let (tenant, path) = (tenant(), path_of("a/b/c"));
    let fixture = Fixture::new(keeper).await;
    for value in [b"one", b"two", b"six"] {
        fixture.put("a/b/c", value, None).await.unwrap();
    }
    let mut ledger = fixture.store.write().await.unwrap();
    let least = SecretUpdate { minimum_version: Some(2), ..SecretUpdate::default() };
    ledger.update_secret(&tenant, &path, least).await.unwrap().unwrap();
    ledger.commit().await.unwrap();
    for (kind, last) in [(Kind::SecretVersion, &[2_u8, 3][..]), (Kind::SecretHead, b"c")] {
        for (_, key, _) in fixture.dump().await.into_iter().filter(|(one, ..)| *one == kind) {
            if last.contains(key.last().unwrap()) {
                fixture.tamper(kind, &key, None).await;
            }
        }
        let store = fixture.reopened().await.unwrap();
        assert!(!store.repair(Forget::default(), 5).await.unwrap().faults.is_empty(), "{kind:?}");
    }
    let store = fixture.reopened().await.unwrap();
    let mut ledger = store.write().await.unwrap();
    assert!(ledger.undelete_secret(&tenant, &path, None).await.unwrap());
    assert_eq!(ledger.find_secret(&tenant, &path, None).await.unwrap(), Err(Absent::GivenUp(3)));
    let first = ledger.find_secret(&tenant, &path, Some(1)).await.unwrap();
    assert_eq!(first, Err(Absent::BelowMinimum { found: 1, least: 3 }));
    let put = ledger.put_secret(NewSecret::plain(&tenant, &path, b"next"), 7).await.unwrap();
    assert_eq!((put.now.stated.version, put.widens), (4, true));
}

async fn a_plan_names_what_is_given_up_with_a_lost_end_mark_and_changes_nothing(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    fixture.add_reference(&tenant(), &reference(1)).await;
    fixture.store.settle().await.unwrap();
    for kind in [Kind::Head, Kind::Reference] {
        let (_, key, _) = fixture.dump().await.into_iter().find(|(one, ..)| *one == kind).unwrap();
        fixture.tamper(kind, &key, None).await;
    }
    let before = fixture.dump().await;
    let keeper = Arc::new(checkpoint.clone());
    let plan = Store::rebuild_plan(fixture.rows.clone(), root(), keeper.clone()).await.unwrap();
    assert_eq!(plan.faults.len(), 2, "{:?}", plan.faults);
    assert!(!plan.faults[0].loses && plan.faults[1].loses, "{:?}", plan.faults);
    assert_eq!(fixture.dump().await, before);
    // As it is done then.
    let store = Store::rebuild_head(fixture.rows.clone(), root(), keeper, 77).await.unwrap();
    assert_eq!(store.repair(Forget::default(), 78).await.unwrap().faults, plan.faults[1..]);
}

/// Of a row that nothing may take the place of: it goes on refusing, and whether its own row mends it again depends on the record.
async fn what_a_record_written_anew_loses_is_named_before(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let all = fixture.dump().await;
    let (_, number, row) = all.iter().find(|(kind, ..)| *kind == Kind::CrlNumber).unwrap();
    let (_, entry, _) = all.iter().find(|(kind, ..)| *kind == Kind::StateEntry).unwrap();
    let bent = Row { body: vec![0], ..row.clone() };
    for record_is_whole in [true, false] {
        fixture.replace_all(&all).await;
        fixture.tamper(Kind::CrlNumber, number, Some(bent.clone())).await;
        if !record_is_whole {
            fixture.tamper(Kind::StateEntry, entry, None).await;
        }
        let store = fixture.reopened().await.unwrap();
        let faults = store.verify_state().await.unwrap().faults;
        let lost = faults.iter().any(|fault| fault.loses && fault.repair.contains("it is lost"));
        assert_eq!(lost, !record_is_whole, "{faults:?}");
        store.repair(Forget::default(), 5).await.unwrap();
        fixture.tamper(Kind::CrlNumber, number, Some(row.clone())).await;
        let mended = fixture.reopened().await.unwrap().verify_state().await.unwrap().faults.is_empty();
        assert_eq!(mended, record_is_whole);
    }
}
