//! Places: how much of something each user or address may have at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

type Open<K> = Arc<Mutex<HashMap<K, Arc<Semaphore>>>>;

/// The same number of places for each key. A key that has none open costs nothing.
#[derive(Debug, Clone)]
pub struct Places<K> {
    each: usize,
    open: Open<K>,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// So many places for each key.
    pub fn new(each: usize) -> Self {
        Self { each: each.min(Semaphore::MAX_PERMITS), open: Arc::default() }
    }

    /// A place for the key until it is dropped; `None` if it has no more.
    pub fn now(&self, key: &K) -> Option<Place<K>> {
        let mut place = self.place(key);
        place.permit = Some(place.all.clone()?.try_acquire_owned().ok()?);
        Some(place)
    }

    /// The same, once there is one; `None` if there is none for that long.
    pub async fn wait(&self, key: &K, patience: Duration) -> Option<Place<K>> {
        let mut place = self.place(key);
        let permit = tokio::time::timeout(patience, place.all.clone()?.acquire_owned()).await.ok()?;
        place.permit = Some(permit.ok()?);
        Some(place)
    }

    fn place(&self, key: &K) -> Place<K> {
        let mut open = lock(&self.open);
        let all = open.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        Place { key: key.clone(), all: Some(Arc::clone(all)), permit: None, open: Arc::clone(&self.open) }
    }
}

/// A place that is taken, or waited for.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    key: K,
    all: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
    open: Open<K>,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        (self.permit, self.all) = (None, None);
        // Nobody else has a place there or waits for one: that would be under this lock, too.
        if open.get(&self.key).is_some_and(|all| Arc::strong_count(all) == 1) {
            open.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_key_has_its_places_and_no_more() {
        let places = Places::new(2);
        let soon = Duration::from_millis(1);
        let (one, two) = (places.now(&1), places.now(&1));
        assert!(one.is_some() && two.is_some() && places.now(&1).is_none());
        assert!(places.wait(&1, soon).await.is_none());
        assert!(places.wait(&2, soon).await.is_some());
        let (waited, ()) = tokio::join!(places.wait(&1, Duration::from_mins(1)), async { drop(one) });
        assert!(waited.is_some() && places.now(&1).is_none());
        drop((two, waited));
        assert!(lock(&places.open).is_empty());
    }
}
