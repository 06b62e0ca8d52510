//! Lines that were archived: what is left proves what went, and nothing is hidden by saying that it went.

use super::*;
use crate::store::{Archive, ArchiveFile, TrailStart};

on_every_store!(
    lines_that_are_archived_are_gone_and_the_rest_holds,
    an_archive_that_was_cut_off_leaves_rows_that_nobody_reads,
    nobody_hides_lines_by_an_archive,
    a_lost_record_is_named_and_the_trail_goes_on,
    the_checkpoint_of_before_or_after_opens_what_is_left,
    an_archive_of_what_is_not_there_is_not_recorded,
    a_new_root_key_keeps_what_is_archived_apart,
);

/// Records that the lines up to this one are in a file.
async fn record(store: &Store, last: u64) -> Result<Option<String>, StoreError> {
    let mut ledger = store.read().await?;
    let start = ledger.trail_start();
    let line = ledger.audit_line(last).await?.unwrap();
    drop(ledger);
    let file = ArchiveFile { name: format!("to-{last}"), sha256: [9; 32], at_unix: 7 };
    let head = hash(&line);
    store.record_archive(&Archive { first: start.archived + 1, last, head, file: Some(file) }, 7).await
}

fn hash(line: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(line).into()
}

async fn archived(keeper: Keeper, last: u64) -> Fixture {
    let fixture = Fixture::new(keeper).await;
    for id in 1..=6 {
        fixture.append(&id.to_string()).await;
    }
    assert!(record(&fixture.store, last).await.unwrap().unwrap().contains("audit.archive"));
    fixture
}

async fn numbers(store: &Store, from: u64) -> Vec<u64> {
    let lines = store.read().await.unwrap().audit_lines(from, 100).await.unwrap();
    let number = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap();
    lines.iter().map(number).collect()
}

async fn faults(store: &Store) -> Vec<String> {
    store.verify_state().await.unwrap().faults.into_iter().map(|fault| fault.what).collect()
}

async fn lines_that_are_archived_are_gone_and_the_rest_holds(keeper: Keeper) {
    let fixture = archived(keeper, 4).await;
    assert_eq!(fixture.store.remove_archived().await.unwrap(), 4);
    assert_eq!(fixture.store.remove_archived().await.unwrap(), 0);
    for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
        let AuditSummary { lines, archived, .. } = store.verify_audit().await.unwrap();
        assert_eq!((lines, archived), (7, 4));
        let summary = store.verify_state().await.unwrap();
        assert_eq!((summary.archived, summary.faults), (4, vec![]));
        assert_eq!(numbers(store, 1).await, [5, 6, 7]);
        assert_eq!(numbers(store, 6).await, [6, 7]);
        for (order, wanted) in [(AuditOrder::Oldest, [5, 6, 7]), (AuditOrder::Newest, [7, 6, 5])] {
            let all = store.audit_search(&AuditFilter::default(), None, 100, order).await.unwrap();
            let found: Vec<_> = all.lines.iter().map(|line| line[12..13].parse::<u64>().unwrap()).collect();
            assert_eq!((found, all.start.archived, all.next), (wanted.to_vec(), 4, None));
            let files: Vec<_> = all.archived.iter().map(|one| (one.first, one.last)).collect();
            assert_eq!(files, [(1, 4)], "where older lines are");
        }
        let later = store.audit_search(&AuditFilter::default(), Some(5), 100, AuditOrder::Oldest).await.unwrap();
        assert!(later.archived.is_empty(), "nobody asked for older lines");
    }
    // It goes on from there.
    fixture.append("8").await;
    record(&fixture.store, 8).await.unwrap().unwrap();
    fixture.store.remove_archived().await.unwrap();
    let store = fixture.reopened().await.unwrap();
    let found: Vec<_> = store.read().await.unwrap().archives().await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(found.iter().map(|one| (one.first, one.last)).collect::<Vec<_>>(), [(1, 4), (5, 8)]);
    assert_eq!((numbers(&store, 1).await, faults(&store).await), (vec![9], vec![]));
}

async fn an_archive_that_was_cut_off_leaves_rows_that_nobody_reads(keeper: Keeper) {
    let fixture = archived(keeper, 4).await;
    let left = |rows: &[(Kind, Vec<u8>, Row)]| rows.iter().filter(|(kind, ..)| *kind == Kind::AuditLine).count();
    assert_eq!(left(&fixture.dump().await), 7);
    let store = fixture.reopened().await.unwrap();
    assert_eq!((numbers(&store, 1).await, faults(&store).await), (vec![5, 6, 7], vec![]));
    assert_eq!(store.read().await.unwrap().audit_line(4).await.unwrap(), None);
    // Somebody else's row is no line that was left.
    fixture.tamper(Kind::AuditLine, &3_u64.to_be_bytes(), Some(Row { body: b"{}".to_vec(), mac: vec![0; 32] })).await;
    assert_eq!(faults(&store).await, ["a line before the first, which this server did not write"]);
    // Also where many of them sort first.
    assert_eq!(store.remove_archived().await.unwrap(), 3);
    store.repair(Forget::default(), 8).await.unwrap();
    assert_eq!(store.remove_archived().await.unwrap(), 0);
    assert_eq!((left(&fixture.dump().await), faults(&store).await), (4, vec![]));
}

async fn nobody_hides_lines_by_an_archive(keeper: Keeper) {
    let fixture = archived(keeper, 2).await;
    fixture.store.remove_archived().await.unwrap();
    record(&fixture.store, 4).await.unwrap().unwrap();
    fixture.store.remove_archived().await.unwrap();
    let all = fixture.dump().await;
    let lines = |number: u64| number.to_be_bytes().to_vec();
    // A line behind what is archived is taken away as if it had been.
    fixture.tamper(Kind::AuditLine, &lines(5), None).await;
    assert_eq!(faults(&fixture.reopened().await.unwrap()).await, ["line 5 is missing, found line 6; lost: line 5"]);
    fixture.replace_all(&all).await;
    // The record of an archive, in any other form.
    let records: Vec<_> = all.iter().filter(|(kind, ..)| *kind == Kind::AuditArchive).cloned().collect();
    assert_eq!(records.len(), 2);
    let mut moved = records[1].1.clone();
    moved[15] = 6;
    for (key, row) in [
        (records[1].1.clone(), None),
        (records[1].1.clone(), Some(Row { body: Vec::new(), mac: records[1].2.mac.clone() })),
        (records[1].1.clone(), Some(records[0].2.clone())),
        (moved, Some(records[1].2.clone())),
    ] {
        fixture.tamper(Kind::AuditArchive, &key, row).await;
        for store in [&fixture.store, &fixture.reopened().await.unwrap()] {
            let found = faults(store).await;
            assert!(found.len() == 1 && found[0].contains("record of the archive of lines"), "{found:?}");
            assert_eq!(store.read().await.unwrap().trail_start().archived, 4, "what the ledger knows counts");
            assert_eq!(numbers(store, 1).await, [5, 6, 7, 8]);
        }
        fixture.replace_all(&all).await;
    }
    // Lines that were archived are put back, with the end mark and all: they are only left over.
    assert!(faults(&fixture.reopened().await.unwrap()).await.is_empty());
}

async fn a_lost_record_is_named_and_the_trail_goes_on(keeper: Keeper) {
    let fixture = archived(keeper, 4).await;
    fixture.store.remove_archived().await.unwrap();
    let (_, key, _) = fixture.dump().await.into_iter().find(|(kind, ..)| *kind == Kind::AuditArchive).unwrap();
    fixture.tamper(Kind::AuditArchive, &key, None).await;
    let store = fixture.reopened().await.unwrap();
    assert!(matches!(store.verify_audit().await, Err(StoreError::Tampered { .. })));
    let repaired = store.repair(Forget::default(), 8).await.unwrap();
    assert!(repaired.faults.len() == 1 && repaired.faults[0].loses, "{repaired:?}");
    let archives = store.read().await.unwrap().archives().await.unwrap();
    let archive = archives[0].as_ref().unwrap();
    assert_eq!((archive.first, archive.last, &archive.file), (1, 4, &None), "its lines are known by their chain");
    assert!(faults(&store).await.is_empty());
    assert_eq!(store.verify_audit().await.unwrap().archived, 4);
}

async fn the_checkpoint_of_before_or_after_opens_what_is_left(keeper: Keeper) {
    let (fixture, checkpoint) = Fixture::watched(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    fixture.append("0").await;
    fixture.store.settle().await.unwrap();
    let early = checkpoint.get();
    for id in 1..=6 {
        fixture.append(&id.to_string()).await;
    }
    // It lags: all lines after it go, and its own.
    let lagging = checkpoint.get();
    let open = async || {
        let witness = Witness::Kept(Arc::new(checkpoint.clone()));
        Store::open(fixture.rows.clone(), root(), witness).await.map(|_| ())
    };
    checkpoint.full(true);
    assert!(matches!(record(&fixture.store, 7).await, Err(StoreError::Checkpoint(_))), "not without a checkpoint");
    checkpoint.full(false);
    assert_eq!((fixture.store.read().await.unwrap().trail_start(), lagging), (TrailStart::default(), checkpoint.get()));
    // As it is between the commit and the move of the checkpoint.
    fixture.store.settle().await.unwrap();
    let settled = checkpoint.get();
    record(&fixture.store, 7).await.unwrap().unwrap();
    fixture.store.remove_archived().await.unwrap();
    let after = checkpoint.get();
    for (kept, is_served) in [(after, true), (settled, true), (early, false)] {
        checkpoint.set(kept);
        assert_eq!(open().await.is_ok(), is_served);
    }
}

async fn an_archive_of_what_is_not_there_is_not_recorded(keeper: Keeper) {
    let fixture = archived(keeper, 2).await;
    let line = fixture.store.read().await.unwrap().audit_line(4).await.unwrap().unwrap();
    let good = Archive { first: 3, last: 4, head: hash(&line), file: None };
    for bad in [
        Archive { first: 1, ..good.clone() },
        Archive { first: 4, ..good.clone() },
        Archive { head: [1; 32], ..good.clone() },
        Archive { last: 5, ..good.clone() },
        Archive { last: 99, ..good.clone() },
    ] {
        assert_eq!(fixture.store.record_archive(&bad, 8).await.unwrap(), None, "{bad:?}");
    }
    assert!(fixture.store.record_archive(&good, 8).await.unwrap().is_some());
    assert_eq!(fixture.store.record_archive(&good, 8).await.unwrap(), None, "once");
}

async fn a_new_root_key_keeps_what_is_archived_apart(keeper: Keeper) {
    let fixture = archived(keeper, 4).await;
    let new = || RootKey::new(&Zeroizing::new([8; 32]));
    fixture.store.rotate_root(new(), 9).await.unwrap();
    let store = Store::open(fixture.rows.clone(), new(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
    assert_eq!((numbers(&store, 1).await, faults(&store).await), (vec![5, 6, 7, 8], vec![]));
    assert_eq!(store.remove_archived().await.unwrap(), 4);
    assert!(faults(&store).await.is_empty());
}

#[tokio::test]
async fn one_answer_looks_at_so_many_lines_and_says_where_to_go_on() {
    let fixture = Fixture::new(Keeper::Memory).await;
    for id in 0..30 {
        fixture.append(if id == 3 { "wanted" } else { "other" }).await;
    }
    let wanted = AuditFilter { id: Some("wanted".into()), ..AuditFilter::default() };
    for (order, asked) in [(AuditOrder::Oldest, 1), (AuditOrder::Newest, 4)] {
        let (mut from, mut answers, mut found) = (None, 0, Vec::new());
        loop {
            let answer = fixture.store.audit_search_within(&wanted, from, 1, order, (7, usize::MAX)).await.unwrap();
            answers += 1;
            found.extend(answer.lines);
            let Some(next) = answer.next.filter(|_| found.is_empty()) else { break };
            from = Some(next);
        }
        assert_eq!((found.len(), answers), (1, asked), "{order:?}");
    }
    let bytes = fixture.store.audit_search_within(&wanted, None, 1, AuditOrder::Newest, (1000, 300)).await.unwrap();
    assert!(bytes.lines.is_empty() && bytes.next.is_some_and(|next| next > 20), "{bytes:?}");
    let none = AuditFilter { id: Some("none".into()), ..AuditFilter::default() };
    let all = fixture.store.audit_search(&none, None, 1, AuditOrder::Newest).await.unwrap();
    assert_eq!((all.lines.len(), all.next), (0, None));
}
