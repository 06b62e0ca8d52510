use zeroize::Zeroizing;

use super::*;
use crate::tenant::Tenant;
use coffer_kbs_client::ResourcePath;
use coffer_verifier::abi::{Measurement, WorkloadDigest};

struct Fixture {
    store: Store,
    folder: tempfile::TempDir,
}

fn root() -> RootKey {
    RootKey::new(&Zeroizing::new([7; 32]))
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(&folder.path().join("kbs.db"), root()).unwrap();
    Fixture { store, folder }
}

impl Fixture {
    /// What somebody with write access to the file can do.
    fn tamper(&self, sql: &str) {
        let changed = Connection::open(self.folder.path().join("kbs.db")).unwrap().execute(sql, []).unwrap();
        assert!(changed > 0, "{sql} changed nothing");
    }

    fn put(&self, path: &str, value: &[u8], expected_version: Option<u64>) -> Result<u64, StoreError> {
        let (tenant, path) = (tenant(), format!("kbs:///{path}").parse::<ResourcePath>().unwrap());
        self.store.transact(|ledger| {
            let new = NewSecret {
                tenant: &tenant,
                path: &path,
                value,
                allow_simulated: false,
                policy: "default",
                expected_version,
            };
            ledger.put_secret(new, 1000)
        })
    }

    fn read(&self, path: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let (tenant, path) = (tenant(), format!("kbs:///{path}").parse::<ResourcePath>().unwrap());
        self.store.transact(|ledger| {
            let Some(secret) = ledger.secret(&tenant, &path)? else { return Ok(None) };
            let value = ledger.open_secret(&tenant, &path, &secret)?;
            Ok(Some((secret.version, value.to_vec())))
        })
    }

    fn append(&self, id: &str) -> String {
        let entry = AuditEntry { event: "test", outcome: "done", id: id.into(), ..AuditEntry::default() };
        self.store.transact(|ledger| ledger.append_audit(&entry, 1000)).unwrap()
    }
}

fn tenant() -> Tenant {
    Tenant::parse("acme").unwrap()
}

fn reference(expires_unix: i64) -> Reference {
    Reference {
        measurement: Measurement::new([1; 48]),
        workload: WorkloadDigest::new([2; 32]),
        name: "r".into(),
        expires_unix,
    }
}

#[test]
fn counts_versions_and_checks_before_it_sets() {
    let fixture = fixture();
    assert_eq!(fixture.put("a/b/c", b"one", Some(0)).unwrap(), 1);
    assert!(matches!(fixture.put("a/b/c", b"two", Some(0)), Err(StoreError::Version { expected: 0, found: 1 })));
    assert_eq!(fixture.put("a/b/c", b"two", Some(1)).unwrap(), 2);
    assert_eq!(fixture.put("a/b/c", b"three", None).unwrap(), 3);
    assert_eq!(fixture.read("a/b/c").unwrap(), Some((3, b"three".to_vec())));
}

#[test]
fn a_deleted_secret_is_gone_and_its_numbers_are_not_used_again() {
    let fixture = fixture();
    fixture.put("a/b/c", b"one", None).unwrap();
    let path = "kbs:///a/b/c".parse::<ResourcePath>().unwrap();
    let delete = || fixture.store.transact(|ledger| ledger.delete_secret(&tenant(), &path, 5)).unwrap();
    assert!(delete());
    assert!(!delete());
    assert_eq!(fixture.read("a/b/c").unwrap(), None);
    assert_eq!(fixture.put("a/b/c", b"two", Some(0)).unwrap(), 2);
}

#[test]
fn survives_being_closed_and_opened() {
    let Fixture { store, folder } = fixture();
    drop(store);
    let store = Store::open(&folder.path().join("kbs.db"), root()).unwrap();
    let fixture = Fixture { store, folder };
    fixture.put("a/b/c", b"one", None).unwrap();
    let Fixture { store, folder } = fixture;
    drop(store);
    let store = Store::open(&folder.path().join("kbs.db"), root()).unwrap();
    assert_eq!(Fixture { store, folder }.read("a/b/c").unwrap(), Some((1, b"one".to_vec())));
}

#[test]
fn a_database_from_before_signers_and_manifests_is_brought_up_to_date_by_its_own_key() {
    let Fixture { store, folder } = fixture();
    drop(store);
    let path = folder.path().join("kbs.db");
    let back = "DROP TABLE signers; DROP TABLE manifest_keys; DROP TABLE manifests; PRAGMA user_version = 1";
    Connection::open(&path).unwrap().execute_batch(back).unwrap();
    let version = || -> i64 {
        Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    };
    assert!(Store::open(&path, RootKey::new(&Zeroizing::new([8; 32]))).is_err());
    assert_eq!(version(), 1, "another key changes nothing");
    let store = Store::open(&path, root()).unwrap();
    assert!(store.transact(|ledger| ledger.signers(&tenant())).unwrap().is_empty());
    assert!(store.transact(|ledger| ledger.manifests(&tenant())).unwrap().is_empty());
    assert_eq!(version(), FORMAT);
}

#[test]
fn does_not_open_under_another_root_key_nor_make_a_file_twice() {
    let Fixture { store, folder } = fixture();
    drop(store);
    let path = folder.path().join("kbs.db");
    let other = RootKey::new(&Zeroizing::new([8; 32]));
    assert!(matches!(Store::open(&path, other), Err(StoreError::Audit(AuditFault::Head))));
    assert!(Store::create(&path, root()).is_err());
}

#[test]
fn holds_no_value_in_clear() {
    let fixture = fixture();
    fixture.put("a/b/c", b"a-very-recognisable-value", None).unwrap();
    for name in ["kbs.db", "kbs.db-wal"] {
        let bytes = std::fs::read(fixture.folder.path().join(name)).unwrap();
        assert!(!bytes.windows(25).any(|window| window == b"a-very-recognisable-value"), "{name}");
    }
}

#[test]
fn refuses_changed_moved_and_relabelled_ciphertexts() {
    for sql in [
        "UPDATE secret_versions SET ciphertext = zeroblob(20) WHERE path = 'kbs:///a/b/c'",
        "UPDATE secret_versions SET allow_simulated = 1 WHERE path = 'kbs:///a/b/c'",
        "UPDATE secret_versions SET policy = 'lax' WHERE path = 'kbs:///a/b/c'",
        "UPDATE secret_versions SET (salt, nonce, ciphertext) =
            (SELECT salt, nonce, ciphertext FROM secret_versions WHERE path = 'kbs:///a/b/d')
         WHERE path = 'kbs:///a/b/c'",
        "DELETE FROM secret_versions WHERE path = 'kbs:///a/b/c'",
    ] {
        let fixture = fixture();
        fixture.put("a/b/c", b"one", None).unwrap();
        fixture.put("a/b/d", b"other", None).unwrap();
        fixture.tamper(sql);
        assert!(matches!(fixture.read("a/b/c"), Err(StoreError::Tampered { .. })), "{sql}");
    }
}

#[test]
fn an_older_version_cannot_be_made_current_and_a_deletion_not_undone() {
    let fixture = fixture();
    fixture.put("a/b/c", b"one", None).unwrap();
    fixture.put("a/b/c", b"two", None).unwrap();
    fixture.tamper("UPDATE secret_heads SET version = 1");
    assert!(matches!(fixture.read("a/b/c"), Err(StoreError::Tampered { .. })));
    let path = "kbs:///a/b/d".parse::<ResourcePath>().unwrap();
    fixture.put("a/b/d", b"one", None).unwrap();
    fixture.store.transact(|ledger| ledger.delete_secret(&tenant(), &path, 5)).unwrap();
    fixture.tamper("UPDATE secret_heads SET deleted_unix = 0 WHERE path = 'kbs:///a/b/d'");
    assert!(matches!(fixture.read("a/b/d"), Err(StoreError::Tampered { .. })));
}

#[test]
fn lists_secrets_without_values() {
    let fixture = fixture();
    fixture.put("a/b/d", b"12345", None).unwrap();
    fixture.put("a/b/c", b"1", None).unwrap();
    let list = fixture.store.transact(|ledger| ledger.secrets(&tenant())).unwrap();
    assert_eq!(
        list.iter().map(|info| (info.path.as_str(), info.length)).collect::<Vec<_>>(),
        [("kbs:///a/b/c", 1), ("kbs:///a/b/d", 5)]
    );
}

#[test]
fn references_belong_to_their_tenant_and_their_mac() {
    let fixture = fixture();
    let add = |expires| fixture.store.transact(|ledger| ledger.add_reference(&tenant(), &reference(expires))).unwrap();
    let near = |tenant: &str| {
        let tenant = Tenant::parse(tenant).unwrap();
        fixture
            .store
            .transact(|ledger| {
                ledger.references_near(&tenant, &Measurement::new([1; 48]), &WorkloadDigest::new([9; 32]))
            })
            .unwrap()
    };
    assert!(add(5));
    assert!(!add(6));
    assert_eq!(near("acme").into_iter().map(Result::unwrap).collect::<Vec<_>>(), [reference(6)]);
    assert!(near("other").is_empty());
    for sql in [
        "UPDATE reference_pairs SET expires_unix = 0",
        "UPDATE reference_pairs SET tenant = 'other'",
        "UPDATE reference_pairs SET tenant = 'acme', workload = zeroblob(32)",
        "UPDATE reference_pairs SET workload = zeroblob(3)",
    ] {
        fixture.tamper(sql);
        let rows = [near("acme"), near("other")].into_iter().flatten().collect::<Vec<_>>();
        assert!(matches!(rows[..], [Err(StoreError::Tampered { .. })]), "{sql}");
    }
}

#[test]
fn removes_references() {
    let fixture = fixture();
    let pair = reference(0);
    fixture
        .store
        .transact::<_, StoreError>(|ledger| {
            assert!(!ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload)?);
            ledger.add_reference(&tenant(), &pair)?;
            assert!(ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload)?);
            assert!(ledger.references(&tenant())?.is_empty());
            Ok(())
        })
        .unwrap();
}

#[test]
fn audit_lines_chain_and_verify() {
    let fixture = fixture();
    let first = fixture.append("1");
    let second = fixture.append("2");
    assert!(first.contains(&"0".repeat(64)));
    let summary = fixture.store.verify_audit().unwrap();
    assert_eq!(summary.lines, 2);
    assert_eq!(fixture.store.transact(|ledger| ledger.audit_lines(2, 10)).unwrap(), [second]);
}

#[test]
fn audit_shows_changed_cut_and_swapped_lines() {
    for (sql, fault) in [
        (
            r#"UPDATE audit_lines SET line = replace(line, '"2"', '"9"') WHERE sequence = 2"#,
            AuditFault::Line { sequence: 2 },
        ),
        ("DELETE FROM audit_lines WHERE sequence = 2", AuditFault::Gap { expected: 2, found: 3 }),
        ("DELETE FROM audit_lines WHERE sequence = 3", AuditFault::End { expected: 3, found: 2 }),
        ("UPDATE audit_head SET sequence = 2", AuditFault::Head),
        ("DELETE FROM audit_head", AuditFault::Head),
        (
            "UPDATE audit_lines SET (line, mac) = (SELECT line, mac FROM audit_lines WHERE sequence = 1) WHERE sequence = 2",
            AuditFault::Line { sequence: 2 },
        ),
    ] {
        let fixture = fixture();
        for id in ["1", "2", "3"] {
            fixture.append(id);
        }
        fixture.tamper(sql);
        match fixture.store.verify_audit() {
            Err(StoreError::Audit(found)) => assert_eq!(found, fault, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn nothing_is_appended_behind_a_forged_end() {
    let fixture = fixture();
    fixture.append("1");
    fixture.tamper("UPDATE audit_head SET sequence = 0");
    let entry = AuditEntry::default();
    let result = fixture.store.transact(|ledger| ledger.append_audit(&entry, 1));
    assert!(matches!(result, Err(StoreError::Audit(AuditFault::Head))));
}

#[test]
fn a_failed_transaction_leaves_no_audit_line() {
    let fixture = fixture();
    let result: Result<(), StoreError> = fixture.store.transact(|ledger| {
        ledger.append_audit(&AuditEntry::default(), 1)?;
        Err(StoreError::Range { what: "test" })
    });
    assert!(result.is_err());
    assert_eq!(fixture.store.verify_audit().unwrap().lines, 0);
}
