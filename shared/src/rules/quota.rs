//! What things cost an entity, and whether its account has room.

use crate::domain::quota::Quota;

/// The result of reserving some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is room for anything.
    Free,
    /// There is room: the write must require the limit, and at most so many bytes charged and in surplus.
    Room {
        /// The highest number of bytes already charged at which the write may succeed.
        charged_at_most: u64,
        /// The highest number of bytes already in surplus.
        surplus_at_most: u64,
    },
    /// There is none.
    Full,
    /// Too much that was deleted lately, or is uploaded several times, is still in the bucket.
    Surplus,
}

/// How many times its limit an entity may have in the bucket beyond what it is charged for. Together with what it is
/// charged, and one more upload that may become surplus, it has at most five times its limit there.
pub const MAX_SURPLUS: u64 = 3;

/// Whether `bytes` more fit into the account, and `surplus` more bytes that are not charged. It may be filled exactly; a
/// limit of 0 admits everything.
pub fn admit(quota: Quota, bytes: u64, surplus: u64) -> Admission {
    if quota.limit == 0 || (bytes == 0 && surplus == 0) {
        return Admission::Free;
    }
    let Some(charged_at_most) = quota.limit.checked_sub(bytes).filter(|most| bytes == 0 || quota.charged <= *most)
    else {
        return Admission::Full;
    };
    // Nothing is charged: whatever is charged already stays.
    let charged_at_most = if bytes == 0 { u64::MAX } else { charged_at_most };
    match quota.limit.saturating_mul(MAX_SURPLUS).checked_sub(surplus) {
        Some(surplus_at_most) if quota.surplus <= surplus_at_most => {
            Admission::Room { charged_at_most, surplus_at_most }
        }
        _ => Admission::Surplus,
    }
}

/// Manifests up to this many bytes cost nothing: they are metadata, as tags are. The ones that we write are shorter.
pub const FREE_MANIFEST: u64 = 16 << 10;

/// Bytes that a manifest of `size` bytes costs its entity, in each repository that has it.
pub fn manifest_cost(size: u64) -> u64 {
    if size > FREE_MANIFEST { size } else { 0 }
}

/// Rows that every entity may have, whatever its limit.
pub const FREE_ROWS: u64 = 10_000;
/// One more for each so many bytes of its limit.
pub const BYTES_OF_A_ROW: u64 = 4 << 10;

/// How many rows an entity with a limit of `limit` bytes may have in the table. An entity without a limit may have any
/// number.
pub fn most_rows(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { FREE_ROWS + limit / BYTES_OF_A_ROW }
}

/// How many rows a manifest counts as: the bytes that it costs nothing for take room in the table, in its own row and
/// once more among the referrers of its subject. What says what it names is about as long as itself.
pub fn manifest_rows(size: u64, has_subject: bool) -> u64 {
    let free = if manifest_cost(size) == 0 { size } else { 0 };
    (1 + free / 1024) * (1 + u64::from(has_subject))
}

/// How many rows texts of so many bytes count as that people say about something; none if there are none.
pub fn about_rows(size: u64) -> u64 {
    if size == 0 { 0 } else { 1 + size / 1024 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_grow_with_the_limit_and_with_the_bytes_that_cost_nothing() {
        assert_eq!([1, 4 << 10, 1 << 30].map(most_rows), [10_000, 10_001, 10_000 + (1 << 18)]);
        assert_eq!(most_rows(0), u64::MAX);
        assert!(most_rows(u64::MAX) < u64::MAX);
        for (size, subject, rows) in [(0, false, 1), (1023, false, 1), (1024, false, 2), (FREE_MANIFEST, true, 34)] {
            assert_eq!(manifest_rows(size, subject), rows, "{size}");
        }
        assert_eq!([0, 1, 1023, 1024, 64 << 10].map(about_rows), [0, 1, 1, 2, 65]);
        // Its bytes are charged.
        assert_eq!(manifest_rows(FREE_MANIFEST + 1, false), 1);
    }

    #[test]
    fn a_manifest_costs_all_its_bytes_or_none() {
        assert_eq!([0, FREE_MANIFEST, FREE_MANIFEST + 1].map(manifest_cost), [0, 0, FREE_MANIFEST + 1]);
    }

    #[test]
    fn an_account_can_be_filled_exactly_and_not_beyond() {
        let quota = |charged, limit| Quota { charged, limit, ..Quota::default() };
        let room = |charged_at_most| Admission::Room { charged_at_most, surplus_at_most: 30 };
        for (quota, bytes, admission) in [
            (quota(0, 10), 10, room(0)),
            (quota(4, 10), 6, room(4)),
            (quota(5, 10), 6, Admission::Full),
            (quota(0, 10), 11, Admission::Full),
            (quota(20, 10), 1, Admission::Full),
            (quota(20, 10), 0, Admission::Free),
            (quota(u64::MAX, 0), u64::MAX, Admission::Free),
            (quota(1, u64::MAX), u64::MAX, Admission::Full),
        ] {
            assert_eq!(admit(quota, bytes, 0), admission, "{quota:?} + {bytes}");
        }
    }

    #[test]
    fn what_is_kept_beyond_the_charged_bytes_is_bounded() {
        let quota = |surplus| Quota { charged: 10, limit: 10, surplus, ..Quota::default() };
        let room = |surplus_at_most| Admission::Room { charged_at_most: u64::MAX, surplus_at_most };
        assert_eq!(admit(quota(20), 0, 10), room(20));
        assert_eq!(admit(quota(21), 0, 10), Admission::Surplus);
        let emptied = |surplus| Quota { charged: 0, ..quota(surplus) };
        assert_eq!(admit(emptied(30), 10, 0), Admission::Room { charged_at_most: 0, surplus_at_most: 30 });
        assert_eq!(admit(emptied(31), 10, 0), Admission::Surplus);
        assert_eq!(admit(Quota { limit: 0, ..quota(99) }, 5, 5), Admission::Free);
    }
}
