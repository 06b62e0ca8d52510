//! What whoever writes to the rows does to them: named, and stopping only what it touches.

use super::*;

on_every_store!(
    every_row_edited_removed_swapped_or_set_back_is_named_and_stops_only_itself,
    a_row_that_was_added_is_named_and_admits_nothing,
    a_damaged_entry_of_the_record_hides_nothing,
    rows_set_back_under_a_running_server_stop_it,
    audit_shows_changed_cut_and_swapped_lines,
);

async fn every_row_edited_removed_swapped_or_set_back_is_named_and_stops_only_itself(keeper: Keeper) {
    let (fixture, old) = furnished(keeper).await;
    let all = fixture.dump().await;
    // Old versions are kept, but no question of this test leads to them.
    let asked = |kind: Kind, key: &[u8]| kind.decides() && !(kind == Kind::SecretVersion && key.ends_with(&[1]));
    for (kind, key, row) in all.iter().filter(|(kind, key, _)| asked(*kind, key)) {
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        let mut forms: Vec<Option<Row>> = vec![None];
        for at in (0..row.body.len()).step_by(11) {
            forms.push(Some(Row { body: flipped(&row.body, at), mac: row.mac.clone() }));
        }
        forms.push(Some(Row { body: row.body.clone(), mac: flipped(&row.mac, 0) }));
        forms.push(Some(Row { body: row.body.clone(), mac: Vec::new() }));
        forms.extend(old.iter().filter(|(k, n, r)| k == kind && n == key && r != row).map(|(_, _, r)| Some(r.clone())));
        forms.extend(all.iter().filter(|(k, n, _)| k == kind && n != key).map(|(_, _, r)| Some(r.clone())));
        for form in forms {
            fixture.tamper(*kind, key, form.clone()).await;
            // The running server, and one that starts now.
            for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
                let said = complaints(store).await;
                assert_eq!(said.len(), 1, "{kind:?} as {form:?}: {said:?}");
                assert!(said[0].contains("changed behind the server's back"), "{}", said[0]);
                let verified = store.verify_audit().await;
                assert!(matches!(verified, Err(StoreError::Tampered { .. })), "{kind:?} as {form:?}: {verified:?}");
            }
        }
        fixture.tamper(*kind, key, Some(row.clone())).await;
    }
    assert!(complaints(&fixture.store).await.is_empty());
    fixture.store.verify_audit().await.unwrap();
}

async fn a_row_that_was_added_is_named_and_admits_nothing(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let pair = reference(1);
    let taken_out = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::Reference).unwrap();
    let mut ledger = fixture.store.write().await.unwrap();
    ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload).await.unwrap();
    ledger.commit().await.unwrap();
    // A removed reference is a genuine row.
    fixture.tamper(taken_out.0, &taken_out.1, Some(taken_out.2)).await;
    for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
        let mut ledger = store.read().await.unwrap();
        let listed = ledger.references(&tenant()).await.unwrap();
        assert_eq!(
            listed.into_iter().map(|row| row.unwrap().measurement).collect::<Vec<_>>(),
            [reference(3).measurement]
        );
        let near = ledger.references_near(&tenant(), &pair.measurement, &pair.workload).await.unwrap();
        assert!(near.into_iter().all(|row| row.unwrap().measurement != pair.measurement));
        let read = ledger.record::<Reference>(&references::key(&tenant(), &pair.measurement, &pair.workload)).await;
        assert!(matches!(read, Err(StoreError::Tampered { source: crate::keys::KeyError::Unknown, .. })));
    }
}

async fn a_damaged_entry_of_the_record_hides_nothing(keeper: Keeper) {
    let (fixture, _) = furnished(keeper).await;
    let all = fixture.dump().await;
    let entries: Vec<_> = all.iter().filter(|(kind, ..)| *kind == Kind::StateEntry).collect();
    let (_, key_of_c, head_of_c) = all.iter().find(|(kind, ..)| *kind == Kind::SecretHead).unwrap();
    for (at, (kind, key, row)) in entries.iter().enumerate() {
        let next = entries[(at + 1) % entries.len()].2.clone();
        let mut edited = row.clone();
        edited.body[6] ^= 1;
        for form in [None, Some(edited), Some(next)] {
            fixture.tamper(*kind, key, form).await;
            // The rows are whole, and show it: everything works, and the entry is named.
            let store = fixture.reopened().await.unwrap();
            assert!(complaints(&store).await.is_empty(), "entry {at}");
            let faults = store.verify_state().await.unwrap().faults;
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].what.starts_with(&format!("change {} ", at + 1)), "{faults:?}");
        }
        // With a row gone as well nobody can know any more what was there.
        fixture.tamper(Kind::SecretHead, key_of_c, None).await;
        if let Ok(store) = fixture.reopened().await {
            assert_eq!(complaints(&store).await.len(), 1, "entry {at}");
        }
        fixture.tamper(Kind::SecretHead, key_of_c, Some(head_of_c.clone())).await;
        fixture.tamper(*kind, key, Some(row.clone())).await;
    }
    fixture.reopened().await.unwrap();
    // A record that is gone as a whole is no record.
    for (kind, key, _) in &entries {
        fixture.tamper(*kind, key, None).await;
    }
    for number in 0..100_u64 {
        fixture.tamper(Kind::StateEntry, &(1000 + number).to_be_bytes(), Some(entries[0].2.clone())).await;
    }
    if let Ok(store) = fixture.reopened().await {
        assert!(complaints(&store).await.is_empty(), "if it opens at all, then because the rows are whole");
    }
}

async fn rows_set_back_under_a_running_server_stop_it(keeper: Keeper) {
    let (fixture, old) = furnished(keeper).await;
    for (kind, key, _) in fixture.dump().await {
        fixture.tamper(kind, &key, None).await;
    }
    for (kind, key, row) in old {
        fixture.tamper(kind, &key, Some(row)).await;
    }
    assert!(matches!(fixture.store.read().await.err(), Some(StoreError::State(StateFault::SetBack { .. }))));
    assert!(matches!(fixture.store.write().await.err(), Some(StoreError::State(StateFault::SetBack { .. }))));
}

async fn audit_shows_changed_cut_and_swapped_lines(keeper: Keeper) {
    let number = |n: u64| n.to_be_bytes();
    let fixture = Fixture::new(keeper).await;
    for id in ["1", "2", "3"] {
        fixture.append(id).await;
    }
    let lines: Vec<Row> =
        fixture.dump().await.into_iter().filter(|(kind, ..)| *kind == Kind::AuditLine).map(|(.., row)| row).collect();
    let mut changed = lines[1].clone();
    changed.body[3] ^= 1;
    for (n, form, fault) in [
        (2, Some(changed), AuditFault::Line { sequence: 2 }),
        (2, Some(lines[0].clone()), AuditFault::Line { sequence: 2 }),
        (2, None, AuditFault::Gap { expected: 2, found: 3 }),
        (3, None, AuditFault::End { expected: 3, found: 2 }),
    ] {
        fixture.tamper(Kind::AuditLine, &number(n), form).await;
        match fixture.store.verify_audit().await {
            Err(StoreError::Audit(found)) => assert_eq!(found, fault),
            other => panic!("{other:?}"),
        }
        fixture.tamper(Kind::AuditLine, &number(n), Some(lines[n as usize - 1].clone())).await;
    }
    fixture.store.verify_audit().await.unwrap();
    fixture.tamper(Kind::Head, &[], None).await;
    assert!(matches!(fixture.store.write().await.err(), Some(StoreError::Audit(AuditFault::Head))));
}
