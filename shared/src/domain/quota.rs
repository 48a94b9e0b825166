//! The numbers of a quota account.

use serde::{Deserialize, Serialize};

/// What an entity has and may have, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Used and reserved together: the number that the limit binds.
    pub charged: u64,
    /// The part of `charged` that belongs to uploads not yet committed.
    pub reserved: u64,
    /// The most that may be charged; 0 means unlimited.
    pub limit: u64,
}

impl Quota {
    /// Bytes of committed blobs.
    pub fn used(&self) -> u64 {
        self.charged.saturating_sub(self.reserved)
    }
}
