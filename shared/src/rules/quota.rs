//! What things cost an entity, and whether its account has room.

use crate::domain::quota::Quota;

/// The result of reserving some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is room: the write must require `limit`, and at most `charged_at_most` bytes charged (`None`: any
    /// number).
    Room {
        /// The highest number of bytes already charged at which the write may succeed.
        charged_at_most: Option<u64>,
    },
    /// There is not.
    Full,
}

/// Whether `bytes` more fit into the account. It may be filled exactly; a limit of 0 admits everything.
pub fn admit(quota: Quota, bytes: u64) -> Admission {
    if quota.limit == 0 || bytes == 0 {
        return Admission::Room { charged_at_most: None };
    }
    match quota.limit.checked_sub(bytes) {
        Some(most) if quota.charged <= most => Admission::Room { charged_at_most: Some(most) },
        _ => Admission::Full,
    }
}

/// Manifests up to this many bytes cost nothing: they are metadata, as tags are. The ones that we write are shorter.
pub const FREE_MANIFEST: u64 = 16 << 10;

/// Bytes that a manifest of `size` bytes costs its entity, in each repository that has it.
pub fn manifest_cost(size: u64) -> u64 {
    if size > FREE_MANIFEST { size } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_costs_all_its_bytes_or_none() {
        assert_eq!([0, FREE_MANIFEST, FREE_MANIFEST + 1].map(manifest_cost), [0, 0, FREE_MANIFEST + 1]);
    }

    #[test]
    fn an_account_can_be_filled_exactly_and_not_beyond() {
        let quota = |charged, limit| Quota { charged, reserved: 0, limit };
        let room = |most| Admission::Room { charged_at_most: most };
        for (quota, bytes, admission) in [
            (quota(0, 10), 10, room(Some(0))),
            (quota(4, 10), 6, room(Some(4))),
            (quota(5, 10), 6, Admission::Full),
            (quota(0, 10), 11, Admission::Full),
            (quota(20, 10), 1, Admission::Full),
            (quota(20, 10), 0, room(None)),
            (quota(u64::MAX, 0), u64::MAX, room(None)),
            (quota(1, u64::MAX), u64::MAX, Admission::Full),
        ] {
            assert_eq!(admit(quota, bytes), admission, "{quota:?} + {bytes}");
        }
    }
}
