//! What one operator takes, others have left: connections by key, and lists that are long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common::{self, Kbs, TENANT};
use coffer_kbs::{Intent, Kind, Row, Rows, RowsError, Transaction};
use coffer_kbs_client::{AdminClient, AdminProfile, Grant, PutSecret};
use coffer_ratls::Identity;
use coffer_verifier::abi::{Measurement, WorkloadDigest};
use secrecy::SecretBox;

fn profile(kbs: &Kbs) -> AdminProfile {
    AdminProfile::read(&kbs.state().join("admin.toml")).unwrap()
}

#[tokio::test]
async fn a_hostile_operators_connections_leave_the_owner_its_own() {
    let kbs = Kbs::start().await;
    let owner = kbs.admin().await;
    let mut hostile = Vec::new();
    for name in ["mallory", "oscar", "trudy", "eve"] {
        let identity = Identity::generate("operator").unwrap();
        let grant = Grant { role: "auditor".into(), tenant: Some(TENANT.into()) };
        owner.add_admin(name, &identity.spki(), &[grant]).await.unwrap();
        hostile.push(AdminProfile { identity, ..profile(&kbs) });
    }
    drop(owner);
    // Each as many as it can have and more: together all places of those that the configuration does not name.
    let (mut held, mut closed) = (Vec::new(), 0);
    for one in &hostile {
        for _ in 0..18 {
            let client = AdminClient::connect(one).await;
            match client {
                Ok(client) if client.list_secrets(TENANT, false).await.is_ok() => held.push(client),
                _ => closed += 1,
            }
        }
    }
    assert_eq!((held.len(), closed), (64, 8));
    for _ in 0..4 {
        kbs.admin().await.list_admins(None).await.unwrap();
    }
    drop(held);
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_message_usually_is_comes_through() {
    let kbs = Kbs::start().await;
    let (admin, value) = (kbs.admin().await, SecretBox::new(Box::new(b"v".to_vec())));
    let labels: std::collections::BTreeMap<String, String> =
        (0..32).map(|at| (format!("label-{at}-{}", "k".repeat(40)), "v".repeat(120))).collect();
    for at in 0..800 {
        let path = format!("kbs:///many/secret/number-{at}").parse().unwrap();
        let put = PutSecret { labels: Some(labels.clone()), ..common::put(&path, &value) };
        admin.put_secret(put).await.unwrap();
    }
    assert_eq!(admin.list_secrets(TENANT, false).await.unwrap().rows.len(), 800);
}

/// Rows of which references are read slowly, and how many are read at once.
#[derive(Clone, Default)]
struct Reading {
    slow: Arc<AtomicBool>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Slow {
    rows: Arc<dyn Rows>,
    reading: Reading,
}

struct SlowOne {
    inner: Box<dyn Transaction>,
    reading: Reading,
}

#[tonic::async_trait]
impl Rows for Slow {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        Ok(Box::new(SlowOne { inner: self.rows.begin(intent).await?, reading: self.reading.clone() }))
    }
}

#[tonic::async_trait]
impl Transaction for SlowOne {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        let Reading { slow, now, most } = &self.reading;
        if kind == Kind::Reference && slow.load(Ordering::SeqCst) {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
        }
        self.inner.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.inner.put(kind, key, row).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.inner.remove(kind, key).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        self.inner.from(kind, from, limit).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        self.inner.commit().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_lists_that_are_asked_for_at_once_few_are_made_at_once() {
    let reading = Reading::default();
    let around = reading.clone();
    let kbs = Kbs::start_in_memory(move |rows| Arc::new(Slow { rows, reading: around })).await;
    kbs.admit(Measurement::new([1; 48]), WorkloadDigest::new([2; 32])).await;
    // Those of one connection come one at a time.
    let mut admins = Vec::new();
    for _ in 0..10 {
        admins.push(Arc::new(kbs.admin().await));
    }
    reading.slow.store(true, Ordering::SeqCst);
    let mut all = tokio::task::JoinSet::new();
    for at in 0..40 {
        let admin = admins[at % admins.len()].clone();
        all.spawn(async move { admin.list_references(TENANT).await.unwrap().rows.len() });
    }
    assert_eq!(all.join_all().await, [1; 40]);
    assert_eq!(reading.most.load(Ordering::SeqCst), 4, "of one tenant");
}
