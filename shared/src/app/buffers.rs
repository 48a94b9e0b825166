//! Memory for bytes on their way to the store.
//!
//! Whoever waits for memory holds at most a beginning, and that is counted too: so bytes that wait are within the
//! budget, like those that don't. Whoever holds memory for a part waits for no other memory, so somebody always goes on.

use crate::config::Config;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of memory, and the most of a stream that needs none for a part: 1 MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// The memory that is there.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// For the first MiB of a part, or a whole one that is no longer: one permit each, a quarter of the budget.
    beginnings: Arc<Semaphore>,
    /// For parts, one permit for each MiB: the rest.
    parts: Arc<Semaphore>,
    /// The number of permits for parts.
    most: u32,
    patience: Duration,
}

/// Memory that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The number of bytes that it is for.
    pub(crate) bytes: u64,
    _permit: OwnedSemaphorePermit,
}

/// A client that holds memory for a part may take the patience for each of its MiB, so others wait for memory at least
/// that long.
const LEAST_WAIT: u32 = 8;

impl Buffers {
    pub(super) fn new(config: &Config) -> Self {
        let beginnings = config.buffers / 4;
        let most = config.buffers - beginnings;
        let permits = |count: u32| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { beginnings: permits(beginnings), parts: permits(most), most, patience: config.patience }
    }

    /// Waits for memory for so many bytes, in whole MiB, for as long as its holders may keep it; more means a longer
    /// wait. A part that is longer than all memory for parts takes all of it. `None` if nobody gave back enough.
    pub(crate) async fn memory(&self, bytes: u64) -> Option<Memory> {
        let wanted = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).clamp(1, self.most);
        let of = if wanted == 1 { &self.beginnings } else { &self.parts };
        let waiting = Arc::clone(of).acquire_many_owned(wanted);
        let permit = tokio::time::timeout(self.patience.saturating_mul(wanted.max(LEAST_WAIT)), waiting).await;
        Some(Memory { bytes: bytes.next_multiple_of(MIB).max(MIB), _permit: permit.ok()?.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_holds_a_beginning_at_most_and_who_has_a_part_waits_for_nothing() {
        let set = |name: &str| (name == "STACKROOM_BUFFERS").then(|| "8".to_owned());
        let buffers = Buffers::new(&Config::read("http://localhost", set).unwrap());
        let waits = async |bytes| tokio::time::timeout(Duration::from_millis(20), buffers.memory(bytes)).await.is_err();
        let first = buffers.memory(MIB + 1).await.unwrap();
        let part = buffers.memory(4 * MIB).await.unwrap();
        let beginnings = [buffers.memory(0).await.unwrap(), buffers.memory(MIB).await.unwrap()];
        // 8 MiB are held, and nobody gets more, however small.
        assert!(waits(1).await && waits(2 * MIB).await);
        drop(beginnings);
        assert!(waits(2 * MIB).await && !waits(1).await);
        // A part that is longer than all there is.
        assert!(waits(128 * MIB).await);
        drop((first, part));
        assert_eq!(buffers.memory(128 * MIB).await.unwrap().bytes, 128 * MIB);
    }
}
