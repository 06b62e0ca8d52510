//! Keeps what policies saw of the last decisions of each tenant, so that another policy can be tried on them.
//!
//! Never: keeps a value of a secret, which no policy sees; keeps more than so many.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    store::{KEPT_INPUTS, KeptInput, Ledger, StoreError},
    tenant::Tenant,
};

/// Longest input that is kept, in bytes.
pub const LONGEST: usize = 32 * 1024;

/// Which are there: so that the oldest is known without a look at all.
pub struct Inputs {
    kept: usize,
    lines: Mutex<HashMap<Tenant, VecDeque<u64>>>,
}

impl Default for Inputs {
    fn default() -> Self {
        Self { kept: KEPT_INPUTS, lines: Mutex::default() }
    }
}

impl Inputs {
    /// Keeps one in the transaction of its decision, and throws away what is too old.
    ///
    /// # Errors
    /// As the store.
    pub async fn keep(&self, ledger: &mut Ledger, tenant: &Tenant, input: &KeptInput) -> Result<(), StoreError> {
        if !self.lines().contains_key(tenant) {
            let mut lines = VecDeque::new();
            loop {
                let from = lines.back().map_or(0, |last: &u64| last.saturating_add(1));
                let found = ledger.inputs(tenant, from, STRETCH).await?;
                if found.is_empty() {
                    break;
                }
                lines.extend(found.iter().map(|one| one.line));
            }
            self.lines().entry(tenant.clone()).or_insert(lines);
        }
        ledger.put_input(tenant, input).await?;
        let old: Vec<u64> = {
            let mut all = self.lines();
            let lines = all.entry(tenant.clone()).or_default();
            // A transaction that failed gave the same number before.
            if lines.back() != Some(&input.line) {
                lines.push_back(input.line);
            }
            let too_many = lines.len().saturating_sub(self.kept);
            lines.drain(..too_many).collect()
        };
        for line in old {
            ledger.drop_input(tenant, line).await?;
        }
        Ok(())
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Tenant, VecDeque<u64>>> {
        // A list of numbers that decides nothing.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STRETCH: usize = 100;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        keys::RootKey,
        store::{AuditEntry, MemoryRows, Store, Witness},
    };

    async fn keep(store: &Store, inputs: &Inputs, tenant: &Tenant, line: u64) {
        let mut ledger = store.write().await.unwrap();
        while ledger.next_line() < line {
            ledger.append_audit(&AuditEntry::default(), 0).await.unwrap();
        }
        let input = KeptInput { line, refused_beside: line < 5, json: format!("{{\"n\":{line}}}") };
        inputs.keep(&mut ledger, tenant, &input).await.unwrap();
        if ledger.next_line() == line {
            ledger.append_audit(&AuditEntry::default(), 0).await.unwrap();
        }
        ledger.commit().await.unwrap();
    }

    #[tokio::test]
    async fn so_many_are_kept_of_each_tenant_also_over_a_restart() {
        let root = RootKey::new(&Zeroizing::new([7; 32]));
        let witness = Witness::OlderDatabaseIsNotNoticed;
        let store = Store::create(Arc::new(MemoryRows::default()), root, witness).await.unwrap();
        let (acme, other) = (Tenant::parse("acme").unwrap(), Tenant::parse("acme2").unwrap());
        let few = || Inputs { kept: 3, ..Inputs::default() };
        let inputs = few();
        keep(&store, &inputs, &other, 1).await;
        for line in 2..=5 {
            keep(&store, &inputs, &acme, line).await;
        }
        let again = few();
        keep(&store, &again, &acme, 300).await;
        keep(&store, &again, &acme, 300).await;
        let mut view = store.read().await.unwrap();
        let lines = |found: Vec<KeptInput>| found.iter().map(|one| one.line).collect::<Vec<_>>();
        let found = view.inputs(&acme, 0, 100).await.unwrap();
        assert_eq!((found[0].refused_beside, found[1].json.as_str()), (true, "{\"n\":5}"));
        assert_eq!(lines(found), [4, 5, 300]);
        assert_eq!(lines(view.inputs(&other, 0, 100).await.unwrap()), [1]);
        assert_eq!(lines(view.inputs(&acme, 5, 1).await.unwrap()), [5]);
    }
}
