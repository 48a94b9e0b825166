//! Stores that die: after some more calls they answer nothing any more.

use crate::layered::{Answer, Around, Call, gone};
use aws_smithy_runtime_api::client::http::HttpConnectorFuture;
use futures::future::BoxFuture;
use shared::store::StoreError;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How long stores live. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mortal {
    /// How many calls are left. Negative: they are dead.
    left: Arc<AtomicI64>,
    counted: fn(Call) -> bool,
}

impl Mortal {
    /// Stores that live until [`Self::dies_after`] says when they die: at one of the calls that are counted.
    pub fn counting(counted: fn(Call) -> bool) -> Self {
        Self { left: Arc::new(AtomicI64::new(i64::MAX)), counted }
    }

    /// Only transactions are counted.
    pub fn at_a_write() -> Self {
        Self::counting(|call| call == Call::Transact)
    }

    /// They answer this many more of the calls that are counted, and then none.
    pub fn dies_after(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// They answer again.
    pub fn lives(&self) {
        self.dies_after(i64::MAX);
    }

    /// Whether they died.
    pub fn died(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Whether they are dead at this call.
    fn is_dead_at(&self, call: Call) -> bool {
        let left = if (self.counted)(call) {
            self.left.fetch_sub(1, Ordering::SeqCst) - 1
        } else {
            self.left.load(Ordering::SeqCst)
        };
        if left < 0 {
            // However many calls follow, they stay dead.
            self.dies_after(-1);
        }
        left < 0
    }
}

impl Around for Mortal {
    fn rows<'a, T: Send + 'a>(&'a self, call: Call, inner: BoxFuture<'a, Answer<T>>) -> BoxFuture<'a, Answer<T>> {
        if self.is_dead_at(call) {
            return Box::pin(async { Err(StoreError::Unavailable("the store is dead".to_owned())) });
        }
        inner
    }

    fn bucket(&self, inner: HttpConnectorFuture) -> HttpConnectorFuture {
        if self.is_dead_at(Call::Bucket) { HttpConnectorFuture::ready(gone()) } else { inner }
    }
}
