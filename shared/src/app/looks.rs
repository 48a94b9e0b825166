//! What site admins see only because they are site admins: collected while a request runs, so that it is written down
//! before the request is answered.

use crate::app::App;
use crate::domain::{Actor, Time};
use crate::rules::{Action, Grant, Place};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

tokio::task_local! {
    static LOOKS: Arc<Mutex<Vec<Look>>>;
}

/// Something that a site admin may see for no other reason.
#[derive(Debug, Clone)]
pub struct Look {
    /// The installation.
    pub app: App,
    /// What they may do, and where.
    pub grant: Grant,
}

/// Runs `work`, and returns its result with what a site admin looked at in it.
pub async fn collected<T>(work: impl Future<Output = T>) -> (T, Vec<Look>) {
    let looks = Arc::default();
    let result = LOOKS.scope(Arc::clone(&looks), work).await;
    let looks = std::mem::take(&mut *lock(&looks));
    (result, looks)
}

/// Notes that a site admin looks at something. Outside a request, nothing is noted.
pub(crate) fn note(look: Look) {
    let _ = LOOKS.try_with(|looks| lock(looks).push(look));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one look of an admin at a place stands for further ones.
const AGAIN: Duration = Duration::from_hours(1);
/// The most looks that a process remembers. It is better to write one down twice than to fill the memory.
const MOST: usize = 10_000;

type Key = (Option<Actor>, Place, Action);

/// The looks that this process wrote down lately. Another process writes its own: that is once too often, not too few.
#[derive(Debug, Default)]
pub struct Lately(Mutex<HashMap<Key, Time>>);

fn key(grant: &Grant) -> Key {
    (grant.by().cloned(), grant.place().clone(), grant.action())
}

impl Lately {
    /// Whether the same was written down so lately that it need not be again.
    pub(crate) fn has(&self, grant: &Grant, now: Time) -> bool {
        lock(&self.0).get(&key(grant)).is_some_and(|at| at.plus(AGAIN) > now && *at <= now)
    }

    /// Remembers that it was written down.
    pub(crate) fn add(&self, grant: &Grant, now: Time) {
        let mut all = lock(&self.0);
        if all.len() >= MOST {
            all.retain(|_, at| at.plus(AGAIN) > now);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key(grant), now);
    }
}
