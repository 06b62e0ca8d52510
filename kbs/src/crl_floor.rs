//! No revocation list is believed that is older than one believed before, also after a restart: a list that a host holds back
//! could hide what was revoked since.
//!
//! Trusts: lists whose signature was verified; the ledger. Never: lowers a number, goes on when it cannot be stored.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use coffer_verifier::{Code, Reason, abi::SpkiDigest};

use crate::store::{Store, StoreError, drive};

/// Why a list is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CrlFloorError {
    /// A newer one was seen.
    #[error("revocation list has number {number}, one with {highest} was seen before")]
    Older {
        /// Its number.
        number: u64,
        /// The highest seen.
        highest: u64,
    },
    /// What was seen cannot be read or stored.
    #[error("revocation list numbers cannot be kept")]
    Store(#[from] StoreError),
}

/// Why a list is not believed, as reasons have it.
pub fn older(number: u64, highest: u64) -> String {
    let hint = "a newer list was seen before: send the current one";
    Reason::new(Code::CrlNumber, number, format!("{highest} or higher"), hint).to_string()
}

/// The highest numbers, stored in the ledger.
pub struct CrlFloor {
    store: Arc<Store>,
    /// What is known to be stored: most evidence brings a list that is.
    stored: Mutex<HashMap<SpkiDigest, u64>>,
}

impl CrlFloor {
    /// Over this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, stored: Mutex::default() }
    }

    /// Admits a verified list's number, and stores it if it is the highest. Blocks where the ledger must be asked: call it
    /// from a thread that may.
    ///
    /// # Errors
    /// [`CrlFloorError`].
    pub fn admit(&self, root: SpkiDigest, number: u64) -> Result<(), CrlFloorError> {
        let known = self.known(&root);
        let highest = match known {
            Some(highest) if number <= highest => highest,
            _ => {
                let highest = drive(self.raise(root, number))?;
                self.remember(root, highest);
                highest
            }
        };
        if number < highest { Err(CrlFloorError::Older { number, highest }) } else { Ok(()) }
    }

    async fn raise(&self, root: SpkiDigest, number: u64) -> Result<u64, StoreError> {
        let stored = self.store.read().await?.crl_number(&root).await?;
        if let Some(stored) = stored
            && stored >= number
        {
            return Ok(stored);
        }
        let mut ledger = self.store.write().await?;
        let highest = ledger.raise_crl_number(&root, number).await?;
        ledger.commit().await?;
        Ok(highest)
    }

    fn known(&self, root: &SpkiDigest) -> Option<u64> {
        // Whole numbers in a map: nothing is left half done by a panic.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(root).copied()
    }

    /// One of this number is stored: nobody needs to store it again.
    pub fn remember(&self, root: SpkiDigest, highest: u64) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = stored.entry(root).or_insert(highest);
        *entry = highest.max(*entry);
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        keys::RootKey,
        store::{MemoryRows, Witness},
    };

    fn root_key() -> RootKey {
        RootKey::new(&Zeroizing::new([7; 32]))
    }

    async fn admit(floor: &Arc<CrlFloor>, root: u8, number: u64) -> Result<(), CrlFloorError> {
        let floor = floor.clone();
        tokio::task::spawn_blocking(move || floor.admit(SpkiDigest::new([root; 32]), number)).await.unwrap()
    }

    #[tokio::test]
    async fn an_older_list_is_refused_also_after_a_restart() {
        let rows = MemoryRows::default();
        let store = Arc::new(
            Store::create(Arc::new(rows.clone()), root_key(), Witness::OlderDatabaseIsNotNoticed).await.unwrap(),
        );
        let floor = Arc::new(CrlFloor::new(store));
        admit(&floor, 1, 5).await.unwrap();
        admit(&floor, 1, 5).await.unwrap();
        admit(&floor, 2, 3).await.unwrap();
        assert!(matches!(admit(&floor, 1, 4).await, Err(CrlFloorError::Older { number: 4, highest: 5 })));
        let store =
            Arc::new(Store::open(Arc::new(rows), root_key(), Witness::OlderDatabaseIsNotNoticed).await.unwrap());
        let floor = Arc::new(CrlFloor::new(store));
        assert!(matches!(admit(&floor, 1, 4).await, Err(CrlFloorError::Older { number: 4, highest: 5 })));
        admit(&floor, 1, 6).await.unwrap();
        assert!(matches!(admit(&floor, 1, 5).await, Err(CrlFloorError::Older { .. })));
        admit(&floor, 2, 3).await.unwrap();
    }
}
