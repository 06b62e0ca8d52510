//! A state folder of the format before this one opens; what was not believed then is named, not forgotten.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use coffer_kbs::{RowsError, State, StateError, StoreError, Tenant, init, open_store};

async fn old() -> tempfile::TempDir {
    let outer = tempfile::tempdir().unwrap();
    let state = outer.path().join("state");
    init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-2");
    for name in ["kbs.db", "root.key"] {
        fs::copy(data.join(name), state.join(name)).unwrap();
        fs::set_permissions(state.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    outer
}

#[tokio::test]
async fn a_database_of_the_format_before_opens_with_all_it_holds() {
    let outer = old().await;
    let state = State::open(&outer.path().join("state")).await.unwrap();
    let tenant = Tenant::parse("acme").unwrap();
    let mut ledger = state.store.read().await.unwrap();
    let secrets = ledger.secrets(&tenant).await.unwrap();
    assert_eq!(secrets.len(), 1, "the other was deleted");
    let secret = &secrets[0].secret;
    assert_eq!((secret.version, secret.allow_simulated, secret.policy.as_str()), (2, true, "strict"));
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
async fn only_the_server_and_only_the_right_key_change_it() {
    let outer = old().await;
    let state = outer.path().join("state");
    let before = fs::read(state.join("kbs.db")).unwrap();
    let old_format = |result| matches!(result, Err(StateError::Store(StoreError::Rows(RowsError::Old { found: 2 }))));
    assert!(old_format(open_store(&state).await.map(|_| ())));
    fs::write(state.join("root.key"), "08".repeat(32)).unwrap();
    assert!(matches!(State::open(&state).await.map(|_| ()), Err(StateError::Store(StoreError::Audit(_)))));
    fs::write(state.join("root.key"), "07".repeat(32)).unwrap();
    // Opening turns on the write-ahead log, and changes nothing else.
    assert_eq!(fs::read(state.join("kbs.db")).unwrap().len(), before.len());
    State::open(&state).await.unwrap();
    open_store(&state).await.unwrap();
}
