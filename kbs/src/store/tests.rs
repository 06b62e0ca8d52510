//! One behaviour suite for every store of rows, and the rollback kit: what whoever writes to the rows can do.

/// Runs each story on each store.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory { $(#[tokio::test] async fn $name() { super::$name(super::Keeper::Memory).await; })* }
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Keeper::Sqlite).await; })* }
    };
}

mod archive;
mod batch;
mod checkpoint;
mod failures;
mod faulty;
mod gone;
mod kit;
mod lost;
mod operators;
mod repair;
mod rotated;
mod tampered;
mod versions;

use std::sync::Arc;

use coffer_kbs_client::ResourcePath;
use coffer_verifier::{
    Expiry, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest, Measurement, SpkiDigest, WorkloadDigest},
};
use zeroize::Zeroizing;

use super::secrets::Put;
use super::*;
use crate::{Tenant, keys::RootKey, terms::Terms};

pub(super) fn root() -> RootKey {
    RootKey::new(&Zeroizing::new([7; 32]))
}

/// A store, and its rows in the hand of somebody else.
pub(super) struct Fixture {
    pub(super) store: Store,
    pub(super) rows: Arc<dyn Rows>,
    /// Where the file lies, for rows in one.
    folder: Option<tempfile::TempDir>,
}

#[derive(Clone, Copy)]
pub(super) enum Keeper {
    Memory,
    Sqlite,
}

impl Fixture {
    pub(super) async fn new(keeper: Keeper) -> Self {
        let (rows, folder): (Arc<dyn Rows>, _) = match keeper {
            Keeper::Memory => (Arc::new(MemoryRows::default()), None),
            Keeper::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                (Arc::new(SqliteRows::create(&folder.path().join("kbs.db")).unwrap()), Some(folder))
            }
        };
        let store = Store::create(rows.clone(), root(), Witness::OlderDatabaseIsNotNoticed).await.unwrap();
        Self { store, rows, folder }
    }

    /// A store with a checkpoint.
    pub(super) async fn watched(keeper: Keeper) -> (Self, MemoryCheckpoint) {
        let mut fixture = Self::new(keeper).await;
        for (kind, key, _) in fixture.dump().await {
            fixture.tamper(kind, &key, None).await;
        }
        let checkpoint = MemoryCheckpoint::default();
        let witness = Witness::Kept(Arc::new(checkpoint.clone()));
        fixture.store = Store::create(fixture.rows.clone(), root(), witness).await.unwrap();
        (fixture, checkpoint)
    }

    /// What is there in place of all rows.
    pub(super) async fn replace_all(&self, rows: &[(Kind, Vec<u8>, Row)]) {
        let mut transaction = self.rows.begin(Intent::Write).await.unwrap();
        for (kind, key, _) in self.dump_in(&mut *transaction).await {
            transaction.remove(kind, &key).await.unwrap();
        }
        for (kind, key, row) in rows {
            transaction.put(*kind, key, row.clone()).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }

    async fn reopened(&self) -> Result<Store, StoreError> {
        Store::open(self.rows.clone(), root(), Witness::OlderDatabaseIsNotNoticed).await
    }

    async fn put(&self, path: &str, value: &[u8], expected_version: Option<u64>) -> Result<Put, StoreError> {
        let mut ledger = self.store.write().await?;
        let (tenant, path) = (tenant(), path_of(path));
        let new = NewSecret { expected_version, ..NewSecret::plain(&tenant, &path, value) };
        let put = ledger.put_secret(new, 1000).await?;
        ledger.commit().await?;
        Ok(put)
    }

    async fn value(&self, path: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut ledger = self.store.read().await?;
        let Some(secret) = ledger.secret(&tenant(), &path_of(path)).await? else { return Ok(None) };
        let value = ledger.open_secret(&tenant(), &path_of(path), &secret)?;
        Ok(Some((secret.version, value.to_vec())))
    }

    async fn append(&self, id: &str) -> String {
        let entry = AuditEntry { event: "test", outcome: "done", id: id.into(), ..AuditEntry::default() };
        let mut ledger = self.store.write().await.unwrap();
        let line = ledger.append_audit(&entry, 1000).await.unwrap();
        ledger.commit().await.unwrap();
        line
    }

    async fn add_reference(&self, tenant: &Tenant, reference: &Reference) -> bool {
        let mut ledger = self.store.write().await.unwrap();
        let added = ledger.add_reference(tenant, reference).await.unwrap();
        ledger.commit().await.unwrap();
        added
    }

    async fn add_signer(&self, name: &str) {
        let mut ledger = self.store.write().await.unwrap();
        ledger.add_signer(&tenant(), &signer(name)).await.unwrap();
        ledger.commit().await.unwrap();
    }

    /// Every row of every kind.
    async fn dump(&self) -> Vec<(Kind, Vec<u8>, Row)> {
        self.dump_in(&mut *self.rows.begin(Intent::Read).await.unwrap()).await
    }

    async fn dump_in(&self, transaction: &mut dyn Transaction) -> Vec<(Kind, Vec<u8>, Row)> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let rows = transaction.from(kind, &[], usize::MAX).await.unwrap();
            all.extend(rows.into_iter().map(|(key, row)| (kind, key, row)));
        }
        all
    }

    async fn tamper(&self, kind: Kind, key: &[u8], row: Option<Row>) {
        let mut transaction = self.rows.begin(Intent::Write).await.unwrap();
        match row {
            Some(row) => transaction.put(kind, key, row).await.unwrap(),
            None => transaction.remove(kind, key).await.unwrap(),
        }
        transaction.commit().await.unwrap();
    }
}

pub(super) fn tenant() -> Tenant {
    Tenant::parse("acme").unwrap()
}

fn path_of(path: &str) -> ResourcePath {
    format!("kbs:///{path}").parse().unwrap()
}

fn signer(name: &str) -> Signer {
    let rule = SignerRule {
        author_key: KeyDigest::new([1; 48]),
        family_id: FamilyId::new([2; 16]),
        image_id: ImageId::new([3; 16]),
        minimum_guest_svn: 4,
    };
    Signer { name: name.into(), rule, expires: Expiry::Never }
}

fn reference(number: u8) -> Reference {
    Reference {
        measurement: Measurement::new([number; 48]),
        workload: WorkloadDigest::new([2; 32]),
        name: "r".into(),
        expires: Expiry::At(UnixTime(5)),
    }
}

on_every_store!(
    counts_versions_and_checks_before_it_sets,
    a_deleted_secret_is_gone_and_its_numbers_are_not_used_again,
    tells_what_a_put_took_the_place_of,
    survives_being_closed_and_opened,
    does_not_open_under_another_root_key,
    holds_no_value_in_clear,
    lists_what_it_knows_in_order,
    references_belong_to_their_tenant,
    audit_lines_chain_and_verify,
    forged_audit_lines_are_not_served,
    a_transaction_that_is_dropped_or_fails_leaves_nothing,
    a_decision_stands_only_while_its_basis_does,
    two_processes_follow_each_other,
    keeps_the_highest_crl_number,
);

async fn counts_versions_and_checks_before_it_sets(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    assert_eq!(fixture.put("a/b/c", b"one", Some(0)).await.unwrap().now.stated.version, 1);
    let again = fixture.put("a/b/c", b"two", Some(0)).await;
    assert!(matches!(again, Err(StoreError::Version { expected: 0, found: 1 })));
    assert_eq!(fixture.put("a/b/c", b"two", Some(1)).await.unwrap().now.stated.version, 2);
    assert_eq!(fixture.put("a/b/c", b"three", None).await.unwrap().now.stated.version, 3);
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((3, b"three".to_vec())));
}

async fn a_deleted_secret_is_gone_and_its_numbers_are_not_used_again(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    let delete = async || {
        let mut ledger = fixture.store.write().await.unwrap();
        let existed = ledger.delete_secret(&tenant(), &path_of("a/b/c"), None, 5).await.unwrap();
        ledger.commit().await.unwrap();
        existed
    };
    assert!(delete().await);
    assert!(!delete().await);
    assert_eq!(fixture.value("a/b/c").await.unwrap(), None);
    let Put { now, before, .. } = fixture.put("a/b/c", b"two", Some(0)).await.unwrap();
    assert_eq!((now.stated.version, before), (2, None));
}

async fn tells_what_a_put_took_the_place_of(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    assert_eq!(fixture.put("a/b/c", b"one", None).await.unwrap().before, None);
    let Put { now, before, .. } = fixture.put("a/b/c", b"two", None).await.unwrap();
    let terms = Terms::default();
    assert_eq!(before.map(|one| one.stated), Some(Stated { version: 1, terms: terms.clone(), labels: Labels::new() }));
    assert_eq!(now.stated, Stated { version: 2, terms, labels: Labels::new() });
}

async fn survives_being_closed_and_opened(keeper: Keeper) {
    let mut fixture = Fixture::new(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    fixture.store = fixture.reopened().await.unwrap();
    fixture.put("a/b/c", b"two", Some(1)).await.unwrap();
    fixture.store = fixture.reopened().await.unwrap();
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((2, b"two".to_vec())));
}

async fn does_not_open_under_another_root_key(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let other = RootKey::new(&Zeroizing::new([8; 32]));
    let opened = Store::open(fixture.rows.clone(), other, Witness::OlderDatabaseIsNotNoticed).await;
    assert!(matches!(opened, Err(StoreError::Audit(AuditFault::Head))));
}

async fn holds_no_value_in_clear(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let value = b"a-very-recognisable-value";
    fixture.put("a/b/c", value, None).await.unwrap();
    let shows = |bytes: &[u8]| bytes.windows(value.len()).any(|window| window == value);
    assert!(!fixture.dump().await.iter().any(|(_, key, row)| shows(key) || shows(&row.body)));
    let Some(folder) = &fixture.folder else { return };
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!shows(&std::fs::read(&path).unwrap()), "{}", path.display());
    }
}

async fn lists_what_it_knows_in_order(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    fixture.put("a/b/d", b"12345", None).await.unwrap();
    fixture.put("a/b/c", b"1", None).await.unwrap();
    let list = fixture.store.read().await.unwrap().secrets(&tenant()).await.unwrap();
    let list: Vec<_> = list.iter().flatten().map(|info| (info.path.as_str(), info.length)).collect();
    assert_eq!(list, [("kbs:///a/b/c", 1), ("kbs:///a/b/d", 5)]);
    let other = Tenant::parse("other").unwrap();
    assert!(fixture.store.read().await.unwrap().secrets(&other).await.unwrap().is_empty());
}

async fn references_belong_to_their_tenant(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    assert!(fixture.add_reference(&tenant(), &reference(1)).await);
    let renamed = Reference { name: "s".into(), expires: Expiry::Never, ..reference(1) };
    assert!(!fixture.add_reference(&tenant(), &renamed).await);
    let near = async |tenant: &Tenant| {
        let mut ledger = fixture.store.read().await.unwrap();
        let (measurement, workload) = (Measurement::new([1; 48]), WorkloadDigest::new([9; 32]));
        ledger.references_near(tenant, &measurement, &workload).await.unwrap()
    };
    let found: Vec<_> = near(&tenant()).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(found, [renamed]);
    assert!(near(&Tenant::parse("other").unwrap()).await.is_empty());
    let mut ledger = fixture.store.write().await.unwrap();
    let pair = reference(1);
    assert!(ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload).await.unwrap());
    assert!(!ledger.remove_reference(&tenant(), &pair.measurement, &pair.workload).await.unwrap());
    assert!(ledger.references(&tenant()).await.unwrap().is_empty(), "also before the commit");
}

async fn audit_lines_chain_and_verify(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let first = fixture.append("1").await;
    let second = fixture.append("2").await;
    assert!(first.contains(&"0".repeat(64)));
    assert_eq!(fixture.store.verify_audit().await.unwrap().lines, 2);
    assert_eq!(fixture.store.read().await.unwrap().audit_lines(2, 10).await.unwrap(), [second]);
}

async fn forged_audit_lines_are_not_served(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let mut lines = Vec::new();
    for id in ["1", "2", "3", "4"] {
        lines.push(fixture.append(id).await);
    }
    let serve = async |from, limit| fixture.store.read().await.unwrap().audit_lines(from, limit).await;
    assert_eq!(serve(0, 10).await.unwrap(), lines);
    assert_eq!(serve(3, 1).await.unwrap(), lines[2..3]);
    assert!(serve(5, 10).await.unwrap().is_empty());
    let key = |sequence: u64| sequence.to_be_bytes();
    let rows = fixture.dump().await;
    let line = |sequence| {
        let found = rows.iter().find(|(kind, at, _)| *kind == Kind::AuditLine && at[..] == key(sequence));
        found.unwrap().2.clone()
    };
    let edited = Row { body: String::from_utf8(line(3).body).unwrap().replace("test", "tess").into_bytes(), ..line(3) };
    // An edited line, one that is gone, one in another's place, one behind the end: what is before it is served, it is not.
    for (at, row) in [(3, Some(edited)), (3, None), (3, Some(line(2))), (5, Some(line(4)))] {
        let before = line(at.min(4));
        fixture.tamper(Kind::AuditLine, &key(at), row).await;
        let good = usize::try_from(at).unwrap() - 1;
        assert_eq!(serve(0, 10).await.unwrap(), lines[..good], "{at}");
        assert!(matches!(serve(at, 10).await, Err(StoreError::Audit(_))), "{at}");
        fixture.tamper(Kind::AuditLine, &key(at), (at < 5).then_some(before)).await;
        assert_eq!(serve(0, 10).await.unwrap(), lines);
    }
    fixture.tamper(Kind::AuditLine, &key(4), None).await;
    assert!(matches!(serve(4, 10).await, Err(StoreError::Audit(AuditFault::End { expected: 4, found: 3 }))));
}

async fn a_transaction_that_is_dropped_or_fails_leaves_nothing(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let mut ledger = fixture.store.write().await.unwrap();
    ledger.append_audit(&AuditEntry::default(), 1).await.unwrap();
    ledger.add_reference(&tenant(), &reference(1)).await.unwrap();
    drop(ledger);
    assert_eq!(fixture.store.verify_audit().await.unwrap().lines, 0);
    assert!(fixture.store.read().await.unwrap().references(&tenant()).await.unwrap().is_empty());
    let mut reading = fixture.store.read().await.unwrap();
    if reading.add_reference(&tenant(), &reference(1)).await.is_ok() {
        // SQLite lets a reader become a writer; what counts is that nothing half done stays.
        drop(reading);
        assert!(fixture.store.read().await.unwrap().references(&tenant()).await.unwrap().is_empty());
    }
}

async fn a_decision_stands_only_while_its_basis_does(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    fixture.put("a/b/c", b"one", None).await.unwrap();
    fixture.add_reference(&tenant(), &reference(1)).await;
    let see = async || {
        let mut ledger = fixture.store.read().await.unwrap();
        ledger.secret(&tenant(), &path_of("a/b/c")).await.unwrap();
        let (measurement, workload) = (Measurement::new([1; 48]), WorkloadDigest::new([2; 32]));
        ledger.references_near(&tenant(), &measurement, &workload).await.unwrap();
        ledger.into_seen()
    };
    let stands = async |seen: &Seen| fixture.store.write().await.unwrap().is_as(seen);
    let seen = see().await;
    fixture.append("1").await;
    assert!(stands(&seen).await, "a line of the trail decides nothing");
    fixture.put("a/b/other", b"one", None).await.unwrap();
    fixture.add_reference(&Tenant::parse("other").unwrap(), &reference(1)).await;
    assert!(stands(&seen).await, "nor does what others have");
    fixture.put("a/b/c", b"two", None).await.unwrap();
    assert!(!stands(&seen).await);
    let seen = see().await;
    fixture.add_reference(&tenant(), &reference(3)).await;
    assert!(!stands(&seen).await, "a list has grown");
    let seen = see().await;
    let mut ledger = fixture.store.write().await.unwrap();
    ledger.remove_reference(&tenant(), &reference(1).measurement, &reference(1).workload).await.unwrap();
    ledger.commit().await.unwrap();
    assert!(!stands(&seen).await);
}

async fn two_processes_follow_each_other(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let other = Fixture { store: fixture.reopened().await.unwrap(), rows: fixture.rows.clone(), folder: None };
    fixture.put("a/b/c", b"one", None).await.unwrap();
    assert_eq!(other.put("a/b/c", b"two", Some(1)).await.unwrap().now.stated.version, 2);
    assert_eq!(fixture.value("a/b/c").await.unwrap(), Some((2, b"two".to_vec())));
    fixture.append("1").await;
    assert_eq!(other.store.verify_audit().await.unwrap().lines, 1);
}

async fn keeps_the_highest_crl_number(keeper: Keeper) {
    let fixture = Fixture::new(keeper).await;
    let root = SpkiDigest::new([1; 32]);
    let mut ledger = fixture.store.write().await.unwrap();
    assert_eq!(ledger.crl_number(&root).await.unwrap(), None);
    assert_eq!(ledger.raise_crl_number(&root, 5).await.unwrap(), 5);
    assert_eq!(ledger.raise_crl_number(&root, 4).await.unwrap(), 5);
    ledger.commit().await.unwrap();
    assert_eq!(fixture.reopened().await.unwrap().read().await.unwrap().crl_number(&root).await.unwrap(), Some(5));
}

/// Asks for everything. Gives what is said about each thing that is not believed.
async fn complaints(store: &Store) -> Vec<String> {
    let mut ledger = store.read().await.unwrap();
    let mut found = Vec::new();
    let mut note = |result: Result<(), StoreError>| match result {
        Ok(()) => {}
        Err(error @ StoreError::Tampered { .. }) => found.push(error.to_string()),
        Err(other) => panic!("{other:?}"),
    };
    for path in ["a/b/c", "a/b/d"] {
        match ledger.secret(&tenant(), &path_of(path)).await {
            Ok(Some(secret)) => note(ledger.open_secret(&tenant(), &path_of(path), &secret).map(|_| ())),
            Ok(None) => note(Err(StoreError::Tampered { what: path.into(), source: crate::keys::KeyError::Missing })),
            Err(error) => note(Err(error)),
        }
    }
    for row in ledger.references(&tenant()).await.unwrap() {
        note(row.map(|_| ()));
    }
    for row in ledger.signers(&tenant()).await.unwrap() {
        note(row.map(|_| ()));
    }
    note(ledger.crl_number(&SpkiDigest::new([1; 32])).await.map(|_| ()));
    for row in operators::rows(&mut ledger).await {
        note(row);
    }
    found
}

/// Two of everything, each once in an older form. Gives the older forms.
async fn furnished(keeper: Keeper) -> (Fixture, Vec<(Kind, Vec<u8>, Row)>) {
    let fixture = Fixture::new(keeper).await;
    for name in ["c", "d"] {
        fixture.put(&format!("a/b/{name}"), b"old", None).await.unwrap();
        fixture.add_signer(name).await;
    }
    fixture.add_reference(&tenant(), &Reference { name: "old".into(), ..reference(1) }).await;
    fixture.add_reference(&tenant(), &reference(3)).await;
    raise(&fixture.store, 4).await;
    operators::furnish(&fixture.store, 4).await;
    let old = fixture.dump().await;
    fixture.put("a/b/c", b"new", None).await.unwrap();
    fixture.put("a/b/d", b"new", None).await.unwrap();
    fixture.add_reference(&tenant(), &reference(1)).await;
    fixture.add_signer("c").await;
    raise(&fixture.store, 5).await;
    operators::furnish(&fixture.store, 5).await;
    fixture.append("1").await;
    assert!(complaints(&fixture.store).await.is_empty());
    (fixture, old)
}

async fn raise(store: &Store, number: u64) {
    let mut ledger = store.write().await.unwrap();
    ledger.raise_crl_number(&SpkiDigest::new([1; 32]), number).await.unwrap();
    ledger.commit().await.unwrap();
}
