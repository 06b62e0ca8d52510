//! What is left in the files once a value was destroyed or the root key changed, while the broker runs.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::common::{Kbs, PATH, TENANT};
use coffer_kbs::{Intent, Kind, NewSecret, Tenant, Witness, open_rows, open_store, open_store_watched};
use rusqlite::Connection;

/// Of each version of every secret, what it is encrypted with and to: random bytes that are nowhere else.
async fn encrypted(state: &Path) -> Vec<Vec<u8>> {
    let rows = open_rows(state).await.unwrap();
    let mut transaction = rows.begin(Intent::Read).await.unwrap();
    let rows = transaction.from(Kind::SecretVersion, &[], 1000).await.unwrap();
    let random = rows.into_iter().map(|(_, row)| {
        let mut fields = row.body.as_slice();
        let mut next = || {
            let (length, rest) = fields.split_first_chunk::<4>().unwrap();
            let (field, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            fields = rest;
            field.to_vec()
        };
        // Allowed for simulated, policy, when; salt, nonce, ciphertext.
        drop((next(), next(), next()));
        let (salt, _, ciphertext) = (next(), next(), next());
        assert_eq!(salt.len(), 32);
        [salt, ciphertext].concat()
    });
    random.collect()
}

fn log(state: &Path) -> Vec<u8> {
    fs::read(state.join("kbs.db-wal")).unwrap_or_default()
}

fn holds(file: &[u8], what: &[u8]) -> bool {
    file.windows(what.len()).any(|window| window == what)
}

/// Of some bytes, how many stretches still lie in the database or its log.
fn left(state: &Path, gone: &[Vec<u8>]) -> usize {
    // Not opened by this process: closing it would let go of the locks that the broker has.
    let read = std::process::Command::new("cat").arg(state.join("kbs.db")).output().unwrap().stdout;
    let files = [read, log(state)];
    assert!(files[0].len() > 4096);
    let stretches = gone.iter().flat_map(|one| one.chunks_exact(16));
    stretches.filter(|stretch| files.iter().any(|file| holds(file, stretch))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_beginning_of_the_log_brings_anything_back_under_the_old_key() {
    let kbs = Kbs::start().await;
    let state = kbs.state();
    for _ in 0..3 {
        kbs.put(PATH, true).await;
    }
    let (gone, before, old) = (encrypted(&state).await, log(&state), fs::read(state.join("root.key")).unwrap());
    assert!(gone.len() == 3 && left(&state, &gone) > 0 && before.len() > 4096);
    kbs.rotation.apply().await.unwrap();
    kbs.put("kbs:///default/app/other", false).await;
    assert_eq!(left(&state, &gone), 0);
    let after = log(&state);
    for end in (0..=after.len()).step_by(4120) {
        let thief = tempfile::tempdir().unwrap();
        assert!(
            std::process::Command::new("cp").arg(state.join("kbs.db")).arg(thief.path()).status().unwrap().success()
        );
        fs::write(thief.path().join("kbs.db-wal"), &after[..end]).unwrap();
        fs::copy(state.join("root.key"), thief.path().join("root.key")).unwrap();
        assert!(open_store_watched(thief.path(), Witness::OlderDatabaseIsNotNoticed).await.is_ok(), "whole at {end}");
        fs::write(thief.path().join("root.key"), &old).unwrap();
        assert!(open_store_watched(thief.path(), Witness::OlderDatabaseIsNotNoticed).await.is_err(), "at {end}");
    }
    kbs.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_destroyed_is_in_neither_file_before_anybody_is_told() {
    let kbs = Kbs::start().await;
    let (state, path) = (kbs.state(), PATH.parse().unwrap());
    kbs.put(PATH, true).await;
    let gone = encrypted(&state).await;
    kbs.put(PATH, true).await;
    assert!(left(&state, &gone) > 0);
    let admin = kbs.admin().await;
    assert!(admin.destroy_secret(TENANT, &path, 1).await.unwrap());
    assert_eq!(left(&state, &gone), 0);

    // While somebody reads it cannot be: that is said, and it is done once nobody does.
    let gone = encrypted(&state).await.split_off(1);
    kbs.put(PATH, true).await;
    let reader = Connection::open(state.join("kbs.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM rows").unwrap();
    let said = admin.destroy_secret(TENANT, &path, 2).await.unwrap_err().to_string();
    assert!(left(&state, &gone) > 0, "the reader holds the log");
    let lines = kbs.lines.lock().unwrap().concat();
    assert!(lines.contains("\"version\":2") && lines.contains("secret.destroy"), "it is done: {said}");
    drop(reader);
    let began = Instant::now();
    while left(&state, &gone) > 0 {
        assert!(began.elapsed() < Duration::from_mins(1), "nobody tried again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!admin.destroy_secret(TENANT, &path, 2).await.unwrap());
    kbs.stop().await;
}

#[tokio::test]
async fn what_a_server_that_was_killed_left_goes_at_the_next_start() {
    let outer = tempfile::tempdir().unwrap();
    let state = outer.path().join("state");
    coffer_kbs::init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let (tenant, path) = (Tenant::parse(TENANT).unwrap(), PATH.parse().unwrap());
    let keeps_the_log = Connection::open(state.join("kbs.db")).unwrap();
    keeps_the_log.query_row("SELECT count(*) FROM rows", [], |_| Ok(())).unwrap();
    let store = open_store(&state).await.unwrap();
    let mut ledger = store.write().await.unwrap();
    ledger.put_secret(NewSecret::plain(&tenant, &path, &[7; 500]), 1).await.unwrap();
    ledger.commit().await.unwrap();
    let gone = encrypted(&state).await;
    let mut ledger = store.write().await.unwrap();
    assert!(ledger.destroy_secret(&tenant, &path, 1).await.unwrap());
    ledger.commit().await.unwrap();
    drop(store);
    assert!(left(&state, &gone) > 0);
    let _served = coffer_kbs::State::open(&state).await.unwrap();
    assert_eq!(left(&state, &gone), 0);
}
