//! Numbers of downloads.

use super::Changes;
use crate::store::StoreError;
use crate::store::keys::{self, Key};
use crate::store::rows::{BatchCounted, Downloaded, Row};
use crate::store::table::{Condition, Write};

/// A number of downloads that changes.
#[derive(Debug)]
pub(crate) struct Counting {
    /// With the new numbers.
    pub(crate) row: Downloaded,
    /// The version of the row that it was read from, if there was one.
    pub(crate) read: Option<u64>,
}

/// Numbers of downloads, and what says that they were counted, as long as their repository is there. No event records
/// it: whoever pulls changes nothing.
pub(crate) fn counted(mark: &BatchCounted, counting: &[Counting]) -> Result<Changes, StoreError> {
    let there = Write::check(keys::container(&mark.repository), Condition::Present);
    let mut changes = Changes::unrecorded().with([there, Write::put(mark, Condition::Absent)?]);
    for Counting { row, read } in counting {
        changes.add(Write::put(row, read.map_or(Condition::Absent, Condition::Version))?);
    }
    Ok(changes)
}

/// Forgets a number, unless it changed meanwhile.
pub(crate) fn forgotten(row: &Downloaded) -> Changes {
    Changes::unrecorded().with([Write::delete(row.key(), Condition::Version(row.version))])
}

/// Forgets that a batch was counted.
pub(crate) fn batch_forgotten(key: Key) -> Changes {
    Changes::unrecorded().with([Write::delete(key, Condition::None)])
}
