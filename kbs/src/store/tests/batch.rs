//! Several that write share one commit: all of it lasts or none, and each is told.

use tokio::task::{JoinHandle, yield_now};

use super::{faulty::Faulty, *};

on_every_store!(
    many_at_once_share_commits,
    a_commit_that_fails_fails_everybody_in_it,
    whoever_is_alone_is_committed_at_once,
    who_gives_up_takes_nothing_of_the_others_along,
    what_is_not_committed_is_seen_by_those_who_write_after_it_alone,
    a_view_shows_what_was_written_and_removed_before_it,
    an_operator_waits_for_few_commits_while_many_write,
    what_belongs_to_somebody_who_went_away_is_committed,
);

/// A store whose commits are counted, and fail when they are told to.
async fn counted(keeper: Keeper) -> (Fixture, Arc<Store>, Faulty) {
    let fixture = Fixture::new(keeper).await;
    let faulty = Faulty::new(fixture.rows.clone());
    let store = Store::open(Arc::new(faulty.clone()), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    (fixture, Arc::new(store), faulty)
}

fn entry(id: usize) -> AuditEntry {
    AuditEntry { event: "test", outcome: "done", id: id.to_string(), ..AuditEntry::default() }
}

/// Tasks that each write a line, all at once.
fn at_once(store: &Arc<Store>, many: usize) -> Vec<JoinHandle<Result<(), StoreError>>> {
    let one = |id| {
        let store = store.clone();
        tokio::spawn(async move { store.write().await?.record_decision(entry(id), 1000, |_| ()).await })
    };
    (0..many).map(one).collect()
}

/// A ledger that stands on what `first` wrote, and the commit of `first`, which waits for it.
pub(super) async fn after(store: &Arc<Store>, first: Ledger) -> (Ledger, JoinHandle<Result<(), StoreError>>) {
    let next = tokio::spawn({
        let store = store.clone();
        async move { store.write().await.unwrap() }
    });
    for _ in 0..10 {
        yield_now().await;
    }
    let committed = tokio::spawn(first.commit());
    (next.await.unwrap(), committed)
}

pub(super) async fn with_reference(store: &Store) -> Ledger {
    let mut ledger = store.write().await.unwrap();
    assert!(ledger.add_reference(&tenant(), &reference(1)).await.unwrap());
    ledger
}

async fn many_at_once_share_commits(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    // One more than three times what shares one.
    for writer in at_once(&store, 193) {
        writer.await.unwrap().unwrap();
    }
    assert!((4..=10).contains(&rows.commits()), "193 lines took {} commits", rows.commits());
    assert_eq!(store.verify_audit().await.unwrap().lines, 193, "each stands in the chain");
}

async fn a_commit_that_fails_fails_everybody_in_it(keeper: Keeper) {
    let (fixture, store, rows) = counted(keeper).await;
    let before = fixture.dump().await;
    rows.fill_the_disk();
    for writer in at_once(&store, 50) {
        let error = writer.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Rows(RowsError::Full)), "each is told why: {error:?}");
    }
    assert!(fixture.dump().await == before);
    rows.mend();
    for writer in at_once(&store, 50) {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(store.verify_audit().await.unwrap().lines, 50);
}

async fn whoever_is_alone_is_committed_at_once(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    for id in 1..=5 {
        store.write().await.unwrap().record_decision(entry(id), 1000, |_| ()).await.unwrap();
        assert_eq!(rows.commits(), id);
    }
    drop(store.write().await.unwrap());
    store.write().await.unwrap().commit().await.unwrap();
    assert_eq!(rows.commits(), 5, "nothing was written");
}

async fn who_gives_up_takes_nothing_of_the_others_along(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    let (mut second, first) = after(&store, with_reference(&store).await).await;
    // It writes something, and is then refused for what it finds.
    assert!(second.add_signer(&tenant(), &signer("second")).await.is_ok());
    let (tenant_of, path) = (tenant(), path_of("a/b/c"));
    let new = NewSecret { expected_version: Some(9), ..NewSecret::plain(&tenant_of, &path, b"v") };
    assert!(matches!(second.put_secret(new, 1000).await, Err(StoreError::Version { .. })));
    drop(second);
    first.await.unwrap().unwrap();
    let mut ledger = store.read().await.unwrap();
    assert_eq!(ledger.references(&tenant()).await.unwrap().len(), 1);
    assert!(ledger.signers(&tenant()).await.unwrap().is_empty());
    assert_eq!(rows.commits(), 1);
    store.verify_audit().await.unwrap();
}

async fn what_is_not_committed_is_seen_by_those_who_write_after_it_alone(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    let mut early = store.read().await.unwrap();
    assert!(early.references(&tenant()).await.unwrap().is_empty());
    let seen = early.into_seen();
    let (mut second, first) = after(&store, with_reference(&store).await).await;
    assert!(!second.is_as(&seen), "what it rests on was changed by the one before it");
    assert_eq!(second.references(&tenant()).await.unwrap().len(), 1);
    // Whoever reads neither waits nor sees it.
    assert!(store.read().await.unwrap().references(&tenant()).await.unwrap().is_empty());
    assert!(!first.is_finished());
    // An operator, who is told at once what is found, waits for it.
    let lasting = tokio::spawn({
        let store = store.clone();
        async move { store.write_on_what_lasts().await.unwrap().references(&tenant()).await.unwrap().len() }
    });
    second.others_are_done().await;
    first.await.unwrap().unwrap();
    let mut late = store.read().await.unwrap();
    assert_eq!(late.references(&tenant()).await.unwrap().len(), 1, "a new view shows it");
    let seen = late.into_seen();
    assert!(store.write().await.unwrap().is_as(&seen));
    assert_eq!((lasting.await.unwrap(), rows.commits()), (1, 1));

    // The same for an operator who comes while it is open, and whose turn it is.
    let mut third = store.write().await.unwrap();
    third.remove_reference(&tenant(), &reference(1).measurement, &reference(1).workload).await.unwrap();
    let operator = tokio::spawn({
        let store = store.clone();
        async move { store.write_on_what_lasts().await.unwrap().references(&tenant()).await.unwrap().len() }
    });
    yield_now().await;
    rows.fill_the_disk();
    assert!(third.commit().await.is_err());
    rows.mend();
    assert_eq!(operator.await.unwrap(), 1, "what failed was never there");
}

async fn a_view_shows_what_was_written_and_removed_before_it(keeper: Keeper) {
    let (fixture, store, _rows) = counted(keeper).await;
    let all = async |ledger: &mut Ledger, limit| {
        let lines = ledger.lines(1, limit).await.unwrap();
        lines.into_iter().map(|(key, _)| u64::from_be_bytes(key.try_into().unwrap())).collect::<Vec<_>>()
    };
    for id in ["1", "2", "3", "4"] {
        fixture.append(id).await;
    }
    let mut first = store.write().await.unwrap();
    first.append_audit(&entry(5), 1000).await.unwrap();
    first.transaction.remove(Kind::AuditLine, &2_u64.to_be_bytes()).await.unwrap();
    let (mut second, committed) = after(&store, first).await;
    second.append_audit(&entry(6), 1000).await.unwrap();
    second.transaction.remove(Kind::AuditLine, &1_u64.to_be_bytes()).await.unwrap();
    for (limit, expected) in [(9, &[3_u64, 4, 5, 6][..]), (4, &[3, 4, 5, 6]), (3, &[3, 4, 5]), (1, &[3]), (0, &[])] {
        assert_eq!(all(&mut second, limit).await, expected, "{limit}");
    }
    assert_eq!(second.transaction.get(Kind::AuditLine, &2_u64.to_be_bytes()).await.unwrap(), None);
    drop(second);
    committed.await.unwrap().unwrap();
    assert_eq!(all(&mut store.read().await.unwrap(), 9).await, [1, 3, 4, 5]);
}

async fn an_operator_waits_for_few_commits_while_many_write(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    let busy: Vec<_> = (0..150)
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    store.write().await.unwrap().record_decision(entry(id), 1000, |_| ()).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let before = rows.commits();
        let mut ledger = store.write_on_what_lasts().await.unwrap();
        ledger.add_reference(&tenant(), &reference(1)).await.unwrap();
        ledger.commit().await.unwrap();
        let waited = rows.commits() - before;
        assert!(waited <= 8, "an operator waited for {waited} commits");
    }
    for one in busy {
        one.abort();
    }
}

async fn what_belongs_to_somebody_who_went_away_is_committed(keeper: Keeper) {
    let (_fixture, store, rows) = counted(keeper).await;
    let (second, first) = after(&store, with_reference(&store).await).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    drop(second);
    // Its turn comes without anybody asking for it.
    while rows.commits() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(store.write().await.unwrap().references(&tenant()).await.unwrap().len(), 1);
    store.verify_audit().await.unwrap();
}
