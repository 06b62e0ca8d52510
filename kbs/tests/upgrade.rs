//! A state folder of an earlier format opens on somebody's word; what was not believed then is named, not forgotten.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::common::Kbs;
use coffer_kbs::{NewSecret, RowsError, State, StateError, StoreError, Tenant, init, open_store, upgrade};
use coffer_kbs_client::Grant;
use coffer_verifier::abi::SpkiDigest;

async fn old() -> tempfile::TempDir {
    of_format("format-2").await
}

async fn of_format(format: &str) -> tempfile::TempDir {
    let outer = tempfile::tempdir().unwrap();
    let state = outer.path().join("state");
    init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format);
    for name in ["kbs.db", "root.key"] {
        fs::copy(data.join(name), state.join(name)).unwrap();
        fs::set_permissions(state.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    // Formats before the present one had no checkpoint.
    fs::remove_file(state.join("checkpoint")).unwrap();
    outer
}

#[tokio::test]
async fn a_database_of_the_format_before_opens_with_all_it_holds() {
    let outer = old().await;
    upgrade(&outer.path().join("state")).await.unwrap();
    let state = State::open(&outer.path().join("state")).await.unwrap();
    let tenant = Tenant::parse("acme").unwrap();
    let mut ledger = state.store.read().await.unwrap();
    let secrets: Vec<_> = ledger.secrets(&tenant).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(secrets.len(), 1, "the other was deleted");
    let secret = &secrets[0].secret;
    assert_eq!((secret.version, secret.terms.allow_simulated, secret.terms.policy.as_str()), (2, true, "strict"));
    let path = secrets[0].path.parse().unwrap();
    assert_eq!(ledger.open_secret(&tenant, &path, secret).unwrap().as_slice(), b"current");
    let references = ledger.references(&tenant).await.unwrap();
    let names: Vec<_> = references.iter().flatten().map(|one| (one.name.as_str(), one.expires.to_secs())).collect();
    assert_eq!(names, [("web-1", 0), ("web-3", 4_102_444_800)]);
    assert!(matches!(references[2], Err(StoreError::Tampered { .. })));
    assert_eq!(ledger.signers(&tenant).await.unwrap().into_iter().flatten().next().unwrap().rule.minimum_guest_svn, 4);
    assert_eq!(ledger.manifest_keys(&tenant).await.unwrap().into_iter().flatten().next().unwrap().name, "ci");
    let manifest = ledger.manifests(&tenant).await.unwrap().into_iter().flatten().next().unwrap();
    assert_eq!((manifest.name.as_str(), manifest.sequence, manifest.revoked_through), ("web", 6, 5));
    let lines = ledger.audit_lines(1, 10).await.unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines[2].contains("store.upgrade") && lines[2].contains("reference of measurement 0505"), "{}", lines[2]);
    drop(ledger);
    // The row that was not believed is still one that is not.
    assert!(matches!(state.store.verify_audit().await, Err(StoreError::Tampered { .. })));
}

#[tokio::test]
async fn only_somebodys_word_and_only_the_right_key_change_it() {
    let outer = old().await;
    let state = outer.path().join("state");
    let before = fs::read(state.join("kbs.db")).unwrap();
    let old_format = |result| matches!(result, Err(StateError::Store(StoreError::Rows(RowsError::Old { found: 2 }))));
    assert!(old_format(open_store(&state).await.map(|_| ())));
    assert!(old_format(State::open(&state).await.map(|_| ())));
    fs::write(state.join("root.key"), "08".repeat(32)).unwrap();
    assert!(matches!(upgrade(&state).await, Err(StateError::Store(StoreError::Audit(_)))));
    fs::write(state.join("root.key"), "07".repeat(32)).unwrap();
    // Opening turns on the write-ahead log, and changes nothing else.
    assert_eq!(fs::read(state.join("kbs.db")).unwrap().len(), before.len());
    assert!(!state.join("checkpoint").exists());
    let ends = upgrade(&state).await.unwrap();
    assert_eq!(upgrade(&state).await.unwrap(), ends, "once");
    State::open(&state).await.unwrap();
    open_store(&state).await.unwrap();
}

#[tokio::test]
async fn a_database_from_before_an_upgrade_is_not_served_in_place_of_the_present_one() {
    for (format, number) in [("format-2", 2), ("format-3", 3)] {
        let outer = of_format(format).await;
        let folder = outer.path().join("state");
        let before = fs::read(folder.join("kbs.db")).unwrap();
        upgrade(&folder).await.unwrap();
        let state = State::open(&folder).await.unwrap();
        let mut ledger = state.store.write().await.unwrap();
        let (tenant, path) = (Tenant::parse("acme").unwrap(), "kbs:///default/app/password".parse().unwrap());
        assert!(ledger.destroy_secret(&tenant, &path, 2).await.unwrap());
        ledger.commit().await.unwrap();
        drop(state);
        for name in ["kbs.db-wal", "kbs.db-shm"] {
            let _ = fs::remove_file(folder.join(name));
        }
        fs::write(folder.join("kbs.db"), &before).unwrap();
        // With the checkpoint nobody upgrades it either.
        assert!(matches!(upgrade(&folder).await, Err(StateError::Store(StoreError::Checkpoint(_)))));
        fs::remove_file(folder.join("checkpoint")).unwrap();
        for _ in 0..2 {
            match State::open(&folder).await.map(|_| ()) {
                Err(StateError::Store(StoreError::Rows(RowsError::Old { found }))) => assert_eq!(found, number),
                other => panic!("{other:?}"),
            }
        }
        assert!(!folder.join("checkpoint").exists(), "nobody begins one");
    }
}

#[tokio::test]
async fn a_database_of_format_3_opens_with_all_it_holds_and_is_watched_from_then_on() {
    let outer = of_format("format-3").await;
    let folder = outer.path().join("state");
    let before = fs::read(folder.join("kbs.db")).unwrap();
    let old_format = |result| matches!(result, Err(StateError::Store(StoreError::Rows(RowsError::Old { found: 3 }))));
    assert!(old_format(open_store(&folder).await.map(|_| ())));
    upgrade(&folder).await.unwrap();
    let state = State::open(&folder).await.unwrap();
    let tenant = Tenant::parse("acme").unwrap();
    let mut ledger = state.store.write().await.unwrap();
    assert_eq!(ledger.secrets(&tenant).await.unwrap().len(), 1);
    assert_eq!(ledger.references(&tenant).await.unwrap().into_iter().flatten().count(), 2);
    let lines = ledger.audit_lines(1, 10).await.unwrap();
    assert!(lines.len() == 4 && lines[3].contains("store.upgrade"), "{lines:?}");
    assert!(ledger.delete_secret(&tenant, &"kbs:///default/app/key".parse().unwrap(), None, 5).await.is_ok());
    ledger.commit().await.unwrap();
    drop(state);
    // One thing was not believed before, and is not now.
    assert_eq!(open_store(&folder).await.unwrap().verify_state().await.unwrap().faults.len(), 1);
    // The old file again: it had no checkpoint then, but there is one now.
    for name in ["kbs.db-wal", "kbs.db-shm"] {
        let _ = fs::remove_file(folder.join(name));
    }
    fs::write(folder.join("kbs.db"), before).unwrap();
    let upgraded = upgrade(&folder).await;
    assert!(matches!(upgraded, Err(StateError::Store(StoreError::Checkpoint(_)))), "{upgraded:?}");
    assert!(old_format(State::open(&folder).await.map(|_| ())));
}

/// What a broker from before roles and tenants left behind is served: its operators are owners of everything, as they were,
/// and its tenants are those that its rows name.
async fn goes_on(outer: tempfile::TempDir) {
    let kbs = Kbs::start_in(outer, |_| (), async |state| State::open(state).await.unwrap()).await;
    let owner = kbs.admin().await;
    assert_eq!(owner.list_tenants().await.unwrap(), ["acme", "default"]);
    assert_eq!(owner.list_secrets("acme", false).await.unwrap().rows.len(), 1);
    assert!(owner.list_secrets("acne", false).await.is_err());
    let everything = [Grant { role: "owner".into(), tenant: None }];
    assert!(owner.add_admin("second", &SpkiDigest::new([4; 32]), &everything).await.unwrap());
    let lines = owner.audit(0, 0).await.unwrap();
    let adopted = |lines: &[String]| lines.iter().filter(|line| line.contains("tenant.adopt")).count();
    assert!(adopted(&lines) == 1 && lines.concat().contains("tenant: acme is there"), "{lines:?}");

    // Once: a tenant that comes later was created.
    let kbs = Kbs::start_in(kbs.stop().await, |_| (), async |state| State::open(state).await.unwrap()).await;
    assert_eq!(adopted(&kbs.admin().await.audit(0, 0).await.unwrap()), 1);
    assert_eq!(kbs.admin().await.list_admins(None).await.unwrap().rows.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_tenants_of_an_older_broker_go_on() {
    let outer = of_format("format-3").await;
    upgrade(&outer.path().join("state")).await.unwrap();
    goes_on(outer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_tenants_of_a_broker_before_roles_go_on() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("state");
    init(&folder, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    // Rows of a tenant, and no row that says that there is one: what such a broker wrote.
    let state = State::open(&folder).await.unwrap();
    let mut ledger = state.store.write().await.unwrap();
    let (tenant, path) = (Tenant::parse("acme").unwrap(), "kbs:///default/app/key".parse().unwrap());
    ledger.put_secret(NewSecret::plain(&tenant, &path, b"value"), 5).await.unwrap();
    ledger.commit().await.unwrap();
    drop(state);
    goes_on(outer).await;
}
