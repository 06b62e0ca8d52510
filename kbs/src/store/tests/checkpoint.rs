//! A whole older database, a forked one, and a checkpoint that is gone, full or somebody else's.

use super::*;

on_every_store!(
    a_whole_older_database_is_not_served,
    a_database_ahead_of_its_checkpoint_is_served,
    a_database_with_another_history_is_not_served,
    a_missing_or_foreign_checkpoint_is_not_consent,
    an_older_state_is_accepted_by_name_and_never_slides_back,
    nothing_changes_while_the_checkpoint_cannot_move,
    what_is_committed_is_printed_whatever_becomes_of_the_checkpoint,
    lines_that_change_nothing_may_lag_and_are_settled,
    a_lost_end_mark_comes_back_from_the_checkpoint,
    no_repair_accepts_a_whole_older_database,
    a_checkpoint_of_an_earlier_epoch_is_called_older_than_the_database,
);

/// A history of three steps, with what lay there after each.
async fn history(keeper: Keeper) -> (Fixture, MemoryCheckpoint, Vec<(Vec<(Kind, Vec<u8>, Row)>, Vec<u8>)>) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    let mut states = Vec::new();
    for value in [b"one", b"two", b"six"] {
        fixture.put("a/b/c", value, None).await.unwrap();
        fixture.append("1").await;
        fixture.store.settle().await.unwrap();
        states.push((fixture.dump().await, checkpoint.get().unwrap()));
    }
    (fixture, checkpoint, states)
}

async fn opened(fixture: &Fixture, checkpoint: &MemoryCheckpoint) -> Result<Store, StoreError> {
    Store::open(fixture.rows.clone(), root(), Witness::Kept(Arc::new(checkpoint.clone()))).await
}

fn refused(opened: Result<Store, StoreError>) -> CheckpointError {
    match opened {
        Err(StoreError::Checkpoint(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("served"),
    }
}

async fn a_whole_older_database_is_not_served(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    opened(&fixture, &checkpoint).await.unwrap();
    for (older, _) in &states[..2] {
        fixture.replace_all(older).await;
        let error = refused(opened(&fixture, &checkpoint).await);
        assert!(matches!(error, CheckpointError::Behind { .. }), "{error:?}");
        assert!(error.hint().contains("restore --state DIR --accept-rollback"));
        // Everything but the trail, which goes on to its end: still another history than the head says.
        let mut mixed = states[2].0.clone();
        mixed.retain(|(kind, ..)| *kind == Kind::AuditLine);
        mixed.extend(older.iter().filter(|(kind, ..)| *kind != Kind::AuditLine).cloned());
        fixture.replace_all(&mixed).await;
        refused(opened(&fixture, &checkpoint).await);
    }
    // Out of reach, and said so in docs/kbs.md: database and checkpoint old together while no broker runs.
    fixture.replace_all(&states[1].0).await;
    checkpoint.set(Some(states[1].1.clone()));
    opened(&fixture, &checkpoint).await.unwrap();
}

async fn a_database_ahead_of_its_checkpoint_is_served(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    for (_, older) in &states {
        checkpoint.set(Some(older.clone()));
        let store = opened(&fixture, &checkpoint).await.unwrap();
        assert!(store.verify_state().await.unwrap().faults.is_empty());
    }
    // Also where the very line or entry of the checkpoint is damaged: that stops nothing else.
    checkpoint.set(Some(states[1].1.clone()));
    for (kind, number) in [(Kind::AuditLine, 2_u64), (Kind::StateEntry, 4)] {
        fixture.tamper(kind, &number.to_be_bytes(), None).await;
    }
    let store = opened(&fixture, &checkpoint).await.unwrap();
    assert_eq!(store.verify_state().await.unwrap().faults.len(), 2);
}

async fn a_database_with_another_history_is_not_served(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    // As long as the other, and longer, from the same beginning: two brokers of one root key.
    for more in [1, 3] {
        fixture.replace_all(&states[1].0).await;
        let other = Fixture { store: fixture.reopened().await.unwrap(), rows: fixture.rows.clone(), folder: None };
        for _ in 0..more {
            other.put("a/b/c", b"fork", None).await.unwrap();
            other.append("2").await;
        }
        let error = refused(opened(&fixture, &checkpoint).await);
        assert!(matches!(error, CheckpointError::Beside { .. }), "{error:?}");
    }
}

async fn a_missing_or_foreign_checkpoint_is_not_consent(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    checkpoint.set(None);
    assert!(matches!(refused(opened(&fixture, &checkpoint).await), CheckpointError::Missing { .. }));
    let newest = states[2].1.clone();
    for at in 0..newest.len() {
        let mut edited = newest.clone();
        edited[at] ^= 1;
        checkpoint.set(Some(edited));
        assert!(matches!(refused(opened(&fixture, &checkpoint).await), CheckpointError::Foreign { .. }), "byte {at}");
    }
}

async fn an_older_state_is_accepted_by_name_and_never_slides_back(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    fixture.replace_all(&states[0].0).await;
    let accept = async || {
        let keeper = Arc::new(checkpoint.clone());
        Store::accept_rollback(fixture.rows.clone(), root(), keeper, 77).await.unwrap()
    };
    let (store, accepted) = accept().await;
    assert_eq!((accepted.epoch, accepted.seen.unwrap().epoch, accepted.found.lines), (2, 1, 1));
    let restored = store.read().await.unwrap().restored().await.unwrap().unwrap();
    assert_eq!(restored, Restored { epoch: 2, at_unix: 77, confirmed_unix: None }, "counters stay closed");
    let lines = store.read().await.unwrap().audit_lines(2, 10).await.unwrap();
    assert!(lines[0].contains("state.restore") && lines[0].contains("line 3 and change 6 of epoch 1"), "{lines:?}");
    drop(store);
    let store = opened(&fixture, &checkpoint).await.unwrap();
    let mut ledger = store.write().await.unwrap();
    assert!(ledger.confirm_restored(78).await.unwrap());
    assert!(!ledger.confirm_restored(79).await.unwrap());
    ledger.commit().await.unwrap();
    drop(store);
    let (now, kept) = (fixture.dump().await, checkpoint.get().unwrap());
    // What was newer before is another history now.
    fixture.replace_all(&states[2].0).await;
    refused(opened(&fixture, &checkpoint).await);
    fixture.replace_all(&now).await;
    checkpoint.set(Some(kept));
    opened(&fixture, &checkpoint).await.unwrap();
    checkpoint.set(None);
    let (_, accepted) = accept().await;
    assert_eq!((accepted.epoch, accepted.seen), (3, None), "also where the checkpoint is lost");
    opened(&fixture, &checkpoint).await.unwrap();
}

async fn nothing_changes_while_the_checkpoint_cannot_move(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    checkpoint.full(true);
    // The first change stands in the database, but nobody is told that it does.
    let error = fixture.put("a/b/c", b"two", None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unwitnessed(_)) && error.is_committed(), "{error:?}");
    let before = fixture.dump().await;
    assert!(matches!(fixture.put("a/b/c", b"three", None).await, Err(StoreError::Checkpoint(_))));
    assert!(fixture.dump().await == before, "nothing is committed while it cannot move");
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((2, b"two".to_vec())), "reading goes on");
    checkpoint.full(false);
    assert_eq!(fixture.put("a/b/c", b"three", Some(2)).await.unwrap().now.stated.version, 3);
    opened(&fixture, &checkpoint).await.unwrap();
}

async fn what_is_committed_is_printed_whatever_becomes_of_the_checkpoint(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    let printed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = async |number: u8| {
        let mut ledger = fixture.store.write().await.unwrap();
        assert!(ledger.add_reference(&tenant(), &reference(number)).await.unwrap());
        let sink = printed.clone();
        let entry = AuditEntry { event: "test", outcome: "done", id: number.to_string(), ..AuditEntry::default() };
        ledger.record_decision(entry, 1000, move |line| sink.lock().unwrap().push(line.to_owned())).await
    };
    recorded(1).await.unwrap();
    checkpoint.full(true);
    assert!(matches!(recorded(2).await, Err(StoreError::Unwitnessed(_))));
    assert!(matches!(recorded(3).await, Err(StoreError::Checkpoint(_))), "not committed, and not printed");
    checkpoint.full(false);
    recorded(4).await.unwrap();
    let lines = fixture.store.read().await.unwrap().audit_lines(1, 10).await.unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(*printed.lock().unwrap(), lines);
}

async fn lines_that_change_nothing_may_lag_and_are_settled(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    let writes = checkpoint.writes();
    for id in ["1", "2", "3", "4"] {
        fixture.append(id).await;
    }
    assert_eq!(checkpoint.writes(), writes, "releases do not wait for it");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(checkpoint.writes(), writes + 1, "but a second later it has moved");
    fixture.append("5").await;
    fixture.append("6").await;
    fixture.store.settle().await.unwrap();
    let kept = checkpoint.get().unwrap();
    fixture.store.settle().await.unwrap();
    assert_eq!(checkpoint.get().unwrap(), kept);
    assert!(checkpoint.writes() >= writes + 2);
}

async fn a_lost_end_mark_comes_back_from_the_checkpoint(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    fixture.append("a line the checkpoint has not seen").await;
    checkpoint.set(Some(states[2].1.clone()));
    let head = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::Head).unwrap();
    for form in [None, states[0].0.iter().find(|(kind, ..)| *kind == Kind::Head).map(|(.., row)| row.clone())] {
        fixture.tamper(Kind::Head, &[], form).await;
        assert!(opened(&fixture, &checkpoint).await.is_err());
    }
    let rebuild = async || {
        let keeper = Arc::new(checkpoint.clone());
        Store::rebuild_head(fixture.rows.clone(), root(), keeper, 77).await
    };
    let store = rebuild().await.unwrap();
    let summary = store.verify_state().await.unwrap();
    assert!(summary.faults.is_empty(), "{summary:?}");
    assert_eq!(summary.lines, 5, "three, the one after, and the one that says so");
    drop(store);
    // A checkpoint that is behind the changes is not where they end.
    fixture.tamper(Kind::Head, &[], Some(head.2)).await;
    checkpoint.set(Some(states[1].1.clone()));
    fixture.tamper(Kind::Head, &[], None).await;
    assert!(matches!(rebuild().await, Err(StoreError::Audit(AuditFault::Head))));
}

async fn no_repair_accepts_a_whole_older_database(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    // Nothing was changed since but the trail: releases are what the older one has not.
    fixture.append("a release").await;
    fixture.append("another").await;
    fixture.store.settle().await.unwrap();
    for (older, _) in &states {
        fixture.replace_all(older).await;
        assert!(matches!(refused(opened(&fixture, &checkpoint).await), CheckpointError::Behind { .. }));
        let keeper = Arc::new(checkpoint.clone());
        let rebuilt = Store::rebuild_head(fixture.rows.clone(), root(), keeper, 77).await;
        assert!(matches!(rebuilt, Err(StoreError::Audit(AuditFault::Head))));
        // Nor where the end mark is taken away as well.
        fixture.tamper(Kind::Head, &[], None).await;
        let rebuilt = Store::rebuild_head(fixture.rows.clone(), root(), Arc::new(checkpoint.clone()), 77).await;
        assert!(rebuilt.is_err());
    }
}

async fn a_checkpoint_of_an_earlier_epoch_is_called_older_than_the_database(keeper: Keeper) {
    let (fixture, checkpoint, states) = history(keeper).await;
    fixture.replace_all(&states[0].0).await;
    Store::accept_rollback(fixture.rows.clone(), root(), Arc::new(checkpoint.clone()), 77).await.unwrap();
    // It saw more lines and changes than the database has now, or fewer.
    for (_, older) in &states {
        checkpoint.set(Some(older.clone()));
        let error = refused(opened(&fixture, &checkpoint).await);
        assert!(matches!(error, CheckpointError::Earlier { .. }), "{error:?}");
        assert!(error.to_string().contains("checkpoint is older than the database"), "{error}");
        assert!(error.hint().starts_with("put back the checkpoint"), "{}", error.hint());
    }
}
