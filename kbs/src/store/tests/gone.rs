//! Who goes away in the middle of an operation takes along what is theirs alone. In a real file: there the operation goes on
//! off the event loop.

use std::sync::mpsc;

use tokio::task::yield_now;

use super::{
    batch::{after, with_reference},
    *,
};

/// Runs a story where one piece of work at a time leaves the event loop, so that [`busy`] keeps the next one waiting.
fn with_one_thread(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap().block_on(story);
}

/// Keeps that one thread busy until it is dropped.
fn busy() -> mpsc::Sender<()> {
    let (until, ended) = mpsc::channel();
    tokio::task::spawn_blocking(move || ended.recv());
    until
}

/// Begins an operation, and goes away before it is done.
async fn leave(operation: impl Future) {
    // What was left before is done: an operation that still waits for it would never begin.
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    let busy = busy();
    tokio::select! {
        biased;
        _ = operation => panic!("it was done at once"),
        () = async {} => {}
    }
    drop(busy);
}

fn row(number: u8) -> Row {
    Row { body: vec![number], mac: vec![number] }
}

const KIND: Kind = Kind::AuditLine;

#[test]
fn who_is_aborted_in_a_read_takes_nothing_of_the_others_along() {
    with_one_thread(async {
        for in_a_list in [false, true] {
            let fixture = Fixture::new(Keeper::Sqlite).await;
            let store = Arc::new(fixture.reopened().await.unwrap());
            let first = with_reference(&store).await;
            let second_done = tokio::spawn({
                let store = store.clone();
                async move {
                    let mut second = store.write().await?;
                    second.add_signer(&tenant(), &signer("second")).await?;
                    second.commit().await
                }
            });
            let (mut third, first_done) = after(&store, first).await;

            let busy = busy();
            let reading = tokio::spawn(async move {
                if in_a_list {
                    third.lines(1, 9).await.map(|_| ())
                } else {
                    third.transaction.get(KIND, b"1").await.map(|_| ()).map_err(StoreError::from)
                }
            });
            yield_now().await;
            assert!(!reading.is_finished() && !first_done.is_finished() && !second_done.is_finished());
            reading.abort();
            assert!(reading.await.unwrap_err().is_cancelled());
            drop(busy);

            first_done.await.unwrap().unwrap();
            second_done.await.unwrap().unwrap();
            let reopened = fixture.reopened().await.unwrap();
            let mut ledger = reopened.read().await.unwrap();
            assert_eq!(ledger.references(&tenant()).await.unwrap().len(), 1, "what the first was told lasts");
            assert_eq!(ledger.signers(&tenant()).await.unwrap().len(), 1, "and the second");
            take_the_reference_back(&store).await;
        }
    });
}

/// The next change works, too.
async fn take_the_reference_back(store: &Store) {
    let mut ledger = store.write().await.unwrap();
    let Reference { measurement, workload, .. } = reference(1);
    assert!(ledger.remove_reference(&tenant(), &measurement, &workload).await.unwrap());
    ledger.commit().await.unwrap();
}

#[test]
fn a_transaction_goes_on_after_an_operation_that_was_left() {
    with_one_thread(async {
        let folder = tempfile::tempdir().unwrap();
        let rows = SqliteRows::create(&folder.path().join("kbs.db")).unwrap();
        let mut transaction = rows.begin(Intent::Write).await.unwrap();
        transaction.put(KIND, b"first", row(1)).await.unwrap();
        transaction.put(KIND, b"gone", row(1)).await.unwrap();
        leave(transaction.get(KIND, b"first")).await;
        assert_eq!(transaction.get(KIND, b"first").await.unwrap(), Some(row(1)));
        leave(transaction.from(KIND, b"", 9)).await;
        assert_eq!(transaction.from(KIND, b"", 9).await.unwrap().len(), 2);
        // Whoever comes next sees all of what was left, never half of it.
        leave(transaction.put(KIND, b"second", row(2))).await;
        leave(transaction.remove(KIND, b"gone")).await;
        let many = (0..200_u8).map(|number| (Kind::SecretVersion, vec![number], Some(row(number)))).collect();
        leave(transaction.write(many)).await;
        assert_eq!(transaction.from(Kind::SecretVersion, b"", 999).await.unwrap().len(), 200);
        transaction.commit().await.unwrap();
        let mut transaction = rows.begin(Intent::Read).await.unwrap();
        let expected = [(b"first".to_vec(), row(1)), (b"second".to_vec(), row(2))];
        assert_eq!(transaction.from(KIND, b"", 9).await.unwrap(), expected);
    });
}

#[test]
fn a_transaction_that_is_let_go_within_an_operation_is_rolled_back() {
    with_one_thread(async {
        let folder = tempfile::tempdir().unwrap();
        let rows = SqliteRows::create(&folder.path().join("kbs.db")).unwrap();
        let mut transaction = rows.begin(Intent::Write).await.unwrap();
        leave(transaction.put(KIND, b"first", row(1))).await;
        drop(transaction);
        // The one connection that writes is free again, and in no transaction.
        let mut transaction = rows.begin(Intent::Write).await.unwrap();
        assert_eq!(transaction.get(KIND, b"first").await.unwrap(), None);
        transaction.put(KIND, b"second", row(2)).await.unwrap();
        // Whoever goes away within a commit does not know whether it happened. It does.
        leave(transaction.commit()).await;
        let mut transaction = rows.begin(Intent::Write).await.unwrap();
        assert_eq!(transaction.get(KIND, b"second").await.unwrap(), Some(row(2)));
        drop(transaction);
        // More readers than there are places.
        for _ in 0..20 {
            let mut transaction = rows.begin(Intent::Read).await.unwrap();
            leave(transaction.get(KIND, b"second")).await;
        }
    });
}
