//! Rows that fail when they are told to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::super::rows::{Intent, Kind, Row, Rows, RowsError, Transaction};

#[derive(Clone)]
pub struct Faulty {
    rows: Arc<dyn Rows>,
    plan: Arc<Mutex<Plan>>,
    commits: Arc<AtomicUsize>,
    /// Who commits waits here before the answer.
    answer: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, Default)]
struct Plan {
    /// Steps until one fails.
    left: Option<usize>,
    /// The commit happens, and nobody hears of it.
    lost: bool,
    /// No commit happens.
    full: bool,
}

struct Fails {
    inner: Box<dyn Transaction>,
    plan: Arc<Mutex<Plan>>,
    commits: Arc<AtomicUsize>,
    answer: Arc<tokio::sync::Mutex<()>>,
}

impl Faulty {
    pub fn new(rows: Arc<dyn Rows>) -> Self {
        Self { rows, plan: Arc::default(), commits: Arc::default(), answer: Arc::default() }
    }

    pub fn fail(&self, step: usize) {
        *self.plan.lock().unwrap() = Plan { left: Some(step), ..Plan::default() };
    }

    pub fn lose_the_answer(&self) {
        *self.plan.lock().unwrap() = Plan { lost: true, ..Plan::default() };
    }

    pub fn fill_the_disk(&self) {
        *self.plan.lock().unwrap() = Plan { full: true, ..Plan::default() };
    }

    /// Commits happen, and nobody hears of them while this is held.
    pub async fn hold_the_answer(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.answer.clone().lock_owned().await
    }

    /// Commits that were tried.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn mend(&self) {
        *self.plan.lock().unwrap() = Plan::default();
    }
}

fn step(plan: &Mutex<Plan>) -> Result<(), RowsError> {
    let mut plan = plan.lock().unwrap();
    match &mut plan.left {
        None => Ok(()),
        Some(0) => Err(broken()),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    }
}

fn broken() -> RowsError {
    RowsError::Failed("told to fail".into())
}

#[tonic::async_trait]
impl Rows for Faulty {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        step(&self.plan)?;
        let (inner, plan) = (self.rows.begin(intent).await?, self.plan.clone());
        Ok(Box::new(Fails { inner, plan, commits: self.commits.clone(), answer: self.answer.clone() }))
    }
}

#[tonic::async_trait]
impl Transaction for Fails {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        step(&self.plan)?;
        self.inner.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        step(&self.plan)?;
        self.inner.put(kind, key, row).await
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        step(&self.plan)?;
        self.inner.remove(kind, key).await
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        step(&self.plan)?;
        self.inner.from(kind, from, limit).await
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        step(&self.plan)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        let Plan { lost, full, .. } = *self.plan.lock().unwrap();
        if full {
            return Err(RowsError::Full);
        }
        self.inner.commit().await?;
        drop(self.answer.lock().await);
        if lost { Err(broken()) } else { Ok(()) }
    }
}
