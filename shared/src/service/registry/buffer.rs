//! Bytes of a stream that wait to be sent to the store, and the memory that they may use.
//!
//! Memory is taken from the process's budget before bytes are accepted, so that clients wait for the store and bytes
//! don't pile up.

use super::Refused;
use crate::app::App;
use crate::error::Error;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

pub(super) const MIB: u64 = 1 << 20;
/// When a client that got no memory may try again.
const COME_BACK: Duration = Duration::from_secs(10);
/// A client that holds memory for a part may take the patience for each of its MiB, so others wait for memory at least
/// that long.
const LEAST_WAIT: u32 = 8;

/// Bytes in memory.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: BytesMut,
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Appends bytes for which there is memory.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes, and the permit for their memory, which lasts until it is dropped.
    pub(super) fn freeze(self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        (self.bytes.freeze(), self.permit)
    }

    /// Waits for memory for a part, or for `length` more bytes if that is less. A client that has sent little holds
    /// little: the first MiB of a part takes memory for one, and only further bytes take memory for the whole part.
    pub(super) async fn reserve(&mut self, app: &App, part: u64, length: Option<u64>) -> Result<(), Refused> {
        let held = self.len();
        let most = length.map_or(part, |length| held.saturating_add(length).min(part));
        if held < MIB {
            return self.acquire(app, MIB).await;
        }
        self.acquire(app, most).await?;
        // All at once: a buffer that grows by doubling would exceed the memory reserved for it.
        self.bytes.reserve(usize::try_from(most.saturating_sub(held)).unwrap_or(0));
        Ok(())
    }

    /// Waits for memory for so many bytes in all, in whole MiB, for as long as the current holders may keep it; more
    /// means a longer wait.
    pub(super) async fn acquire(&mut self, app: &App, bytes: u64) -> Result<(), Refused> {
        let has = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).clamp(1, app.config.buffers);
        if has as u64 >= u64::from(wanted) {
            return Ok(());
        }
        // Memory is given back before more is requested: if all kept what they have, nobody might get what they need.
        drop(self.permit.take());
        let patience = app.config.patience.saturating_mul(wanted.max(LEAST_WAIT));
        let permit = tokio::time::timeout(patience, app.buffers().acquire_many_owned(wanted)).await;
        let busy = |_| Error::Busy { why: "too many uploads at once, continue later".to_owned(), after: COME_BACK };
        let permit = permit.map_err(busy)?;
        self.permit = Some(permit.map_err(|error| Error::Internal(error.to_string()))?);
        Ok(())
    }
}
