//! Who is attested and admitted just now: what `coffer kbs guests` shows, and what a revocation reaches.
//!
//! An entry lives as long as the attestation of its connection, and holds nothing of it alive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use coffer_ratls::ConnectionState;
use coffer_verifier::abi::SpkiDigest;

use crate::{revoked::Marks, store::GuestFacts, tenant::Tenant};

/// One attested connection.
#[derive(Clone)]
pub struct Present {
    /// The guest's key of this connection.
    pub peer: SpkiDigest,
    /// Tenant its spec names.
    pub tenant: Tenant,
    /// What its evidence says.
    pub facts: GuestFacts,
    /// What a revocation can name.
    pub marks: Marks,
    /// References, manifests and authors that admitted it.
    pub admitted_by: Vec<String>,
    /// Since when.
    pub since_unix: i64,
    /// Where from.
    pub source: String,
    /// Its connection.
    pub connection: Weak<ConnectionState>,
}

/// Everybody.
#[derive(Clone, Default)]
pub struct Guests(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    present: BTreeMap<u64, Present>,
}

/// That one is there; dropped, it is not.
pub struct Presence {
    guests: Guests,
    number: u64,
}

/// How long a guest that a revocation touches has to attest anew.
pub const RECALL: Duration = Duration::from_secs(5);

impl Guests {
    /// One more.
    pub fn enter(&self, present: Present) -> Presence {
        let mut inner = self.inner();
        let number = inner.next;
        inner.next += 1;
        inner.present.insert(number, present);
        Presence { guests: self.clone(), number }
    }

    /// Those of a tenant, or all, those that came first before the others.
    pub fn list(&self, tenant: Option<&Tenant>) -> Vec<Present> {
        let inner = self.inner();
        inner.present.values().filter(|one| tenant.is_none_or(|tenant| one.tenant == *tenant)).cloned().collect()
    }

    /// Takes the attestation of everybody this touches: who is not admitted anew within [`RECALL`] is closed. Gives their number.
    pub fn recall(&self, touches: impl Fn(&Present) -> bool) -> usize {
        let touched: Vec<_> = self.list(None).into_iter().filter(touches).collect();
        // Without the lock: what is recalled leaves this list.
        for one in &touched {
            if let Some(connection) = one.connection.upgrade() {
                connection.recall(RECALL);
            }
        }
        touched.len()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves a whole list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.guests.inner().present.remove(&self.number);
    }
}
