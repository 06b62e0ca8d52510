//! Places that whoever has a key shares: so many for each guest, or for each tenant. Who finds none waits.
//!
//! Never: keeps anything of a key that nobody holds or waits for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

type Held<K> = Arc<Mutex<BTreeMap<K, Arc<Semaphore>>>>;

/// The places of every key.
pub struct Places<K> {
    each: usize,
    held: Held<K>,
}

/// One place of one key, given back when dropped.
pub struct Place<K: Ord> {
    key: K,
    semaphore: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
    held: Held<K>,
}

fn lock<K>(held: &Held<K>) -> MutexGuard<'_, BTreeMap<K, Arc<Semaphore>>> {
    // Nothing is left half done by a panic.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Ord> Places<K> {
    /// So many for each.
    pub fn new(each: usize) -> Self {
        Self { each, held: Arc::default() }
    }

    /// One more for a key, when it has one left.
    pub async fn take(&self, key: K) -> Result<Place<K>, AcquireError> {
        let new = || Arc::new(Semaphore::new(self.each));
        let semaphore = lock(&self.held).entry(key.clone()).or_insert_with(new).clone();
        // There before it waits: whoever goes away meanwhile leaves nothing.
        let mut place = Place { key, semaphore: Some(semaphore.clone()), permit: None, held: self.held.clone() };
        place.permit = Some(semaphore.acquire_owned().await?);
        Ok(place)
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        (self.permit, self.semaphore) = (None, None);
        if held.get(&self.key).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            held.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_key_has_its_own_and_nothing_is_left_behind_also_by_who_stops_waiting() {
        let places = Places::new(2);
        let held = (places.take('a').await.unwrap(), places.take('a').await.unwrap());
        let _other = places.take('b').await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), places.take('a')).await.is_err());
        drop(held);
        assert_eq!(lock(&places.held).keys().collect::<Vec<_>>(), [&'b']);
        places.take('a').await.unwrap();
        assert_eq!(lock(&places.held).len(), 1);
    }
}
