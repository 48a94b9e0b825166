//! The quota accounting of entities: the only code that changes accounts and charges.
//!
//! An account's row is changed by addition, on condition that its limit still admits the sum. Conditions can't add, so
//! the inequality is rearranged: `charged <= limit - more`.

use super::Changes;
use crate::domain::quota::{Numbers, Quota};
use crate::domain::{Digest, EntityName};
use crate::error::Error;
use crate::rules::Place;
use crate::rules::quota::{Admission, admit, most_rows};
use crate::store::keys;
use crate::store::rows::{Account, Charge, EventKind, ManifestLinks, Row};
use crate::store::table::{AccountChange, Condition, Write};

/// The difference in a charge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChargeChange {
    /// The blob.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// More or fewer links.
    pub(crate) links: i64,
    /// The difference in open sessions.
    pub(crate) sessions: i64,
    /// Bytes that are no longer reserved for a stream whose digest was not known.
    pub(crate) released: u64,
    /// More bytes in surplus.
    pub(crate) surplus: u64,
    /// Where the version of a new charge begins: drawn at random, so that one that went and came back is not taken for
    /// the old one.
    pub(crate) first_version: u32,
}

/// The result of changing a charge.
#[derive(Debug)]
pub(crate) struct Charged {
    /// The writes of charge and account.
    pub(crate) writes: Vec<Write>,
    /// The account's numbers after the change.
    pub(crate) quota: Quota,
}

/// The most open uploads of one blob into one entity. They share one reservation.
const MAX_SESSIONS: u64 = 100;

/// Changes what a blob costs an entity, and the entity's account with it.
///
/// The charge is reserved while it has no links, used while it has some, and gone when it has neither links nor
/// sessions.
///
/// # Errors
/// [`Error::QuotaExceeded`]; [`Error::Conflict`] if too many uploads of the blob are open.
pub(crate) fn charge(account: &Account, charge: Option<Charge>, by: ChargeChange) -> Result<Charged, Error> {
    let fresh = charge.is_none();
    let Step { before, after } = step(&account.entity, charge, by)?;
    let reserved = |charge: &Charge| if charge.links == 0 { i128::from(charge.size) } else { 0 };
    let released = i128::from(by.released);
    let more = i128::from(after.size) - i128::from(before.size) - released;
    let more_reserved = reserved(&after) - reserved(&before) - released;
    let more_surplus = i128::from(by.surplus) + i128::from(after.kept) - i128::from(before.kept);
    // Each link is a row.
    let rows = i128::from(after.links) - i128::from(before.links);

    let mut writes = Vec::new();
    let condition = if fresh { Condition::Absent } else { Condition::Version(before.version) };
    if after.links == 0 && after.sessions == 0 {
        if !fresh {
            writes.push(Write::delete(before.key(), condition));
        }
    } else {
        writes.push(Write::put(&after, condition)?);
    }
    let numbers = AccountChange { charged: more, reserved: more_reserved, surplus: more_surplus, rows };
    if numbers != AccountChange::default() {
        writes.push(Write::charge(&account.entity, numbers, admitted(account.quota, more, by.surplus)?));
    }
    let sum = |number: u64, change: i128| u64::try_from(i128::from(number) + change).unwrap_or(0);
    let quota = Quota {
        charged: sum(account.quota.charged, more),
        reserved: sum(account.quota.reserved, more_reserved),
        ..account.quota
    };
    Ok(Charged { writes, quota })
}

/// A charge before and after a change.
struct Step {
    before: Charge,
    after: Charge,
}

fn step(entity: &EntityName, charge: Option<Charge>, by: ChargeChange) -> Result<Step, Error> {
    let version = u64::from(by.first_version);
    let new = || Charge { entity: entity.clone(), digest: by.digest, size: 0, links: 0, sessions: 0, kept: 0, version };
    let before = charge.unwrap_or_else(new);
    let mut after = before.clone();
    after.links = before.links.saturating_add_signed(by.links);
    after.sessions = before.sessions.saturating_add_signed(by.sessions);
    after.version = before.version + 1;
    if by.sessions > 0 && after.sessions > MAX_SESSIONS {
        return Err(Error::Conflict("too many uploads of this image are open, wait until some of them end".to_owned()));
    }
    // A reservation is as large as the largest size announced; used is the actual size.
    after.size = match (before.links, after.links, after.sessions) {
        (_, 0, 0) => 0,
        (_, 0, _) => before.size.max(by.size),
        (0, ..) => by.size,
        _ => before.size,
    };
    // The others may still bring as many bytes as were reserved, however few it has turned out to have.
    after.kept = match (before.links, after.links, after.sessions) {
        (.., 0) => 0,
        (0, 1.., _) => before.kept.max(before.size),
        _ => before.kept,
    };
    Ok(Step { before, after })
}

/// Charges an account for a new manifest.
pub(crate) fn manifest_charged(account: &Account, cost: u64) -> Result<Write, Error> {
    let charged = i128::from(cost);
    let by = AccountChange { charged, ..AccountChange::default() };
    Ok(Write::charge(&account.entity, by, admitted(account.quota, charged, 0)?))
}

/// Gives back the cost of a manifest that the same transaction removes, and its rows.
pub(crate) fn manifest_refunded(row: &ManifestLinks) -> Option<Write> {
    let (charged, rows) = (-i128::from(row.cost), -i128::from(row.rows));
    let by = AccountChange { charged, rows, ..AccountChange::default() };
    (by != AccountChange::default()).then(|| Write::charge(row.repository.entity(), by, Condition::Present))
}

/// More rows of an entity in the table, or fewer. If a transaction leaves more than before, it needs room for them; so
/// nothing that only removes is ever refused. At most one transaction goes beyond that.
///
/// What counts: collections, containers, images, tags, links, upload sessions and streams as one row each, manifests
/// that clients push and what people say about things as the row says, and condemned objects that are somebody's. All
/// others come with one of these, or with an event.
pub(crate) fn rows(entity: &EntityName, more: i64) -> Option<Write> {
    let by = AccountChange { rows: more.into(), ..AccountChange::default() };
    (more != 0).then(|| Write::charge(entity, by, Condition::Present))
}

/// Reserves bytes for a stream. `None` if there are none to reserve.
pub(crate) fn reserved(account: &Account, bytes: u64) -> Result<Option<Write>, Error> {
    let more = i128::from(bytes);
    let condition = admitted(account.quota, more, 0)?;
    let by = AccountChange { charged: more, reserved: more, ..AccountChange::default() };
    Ok((more > 0).then(|| Write::charge(&account.entity, by, condition)))
}

/// Gives back what a stream reserved.
pub(crate) fn released(entity: &EntityName, bytes: u64) -> Option<Write> {
    let less = -i128::from(bytes);
    let by = AccountChange { charged: less, reserved: less, ..AccountChange::default() };
    (bytes > 0).then(|| Write::charge(entity, by, Condition::Present))
}

/// More bytes in surplus, or fewer: whatever is deleted must go on being deleted, so there is no limit here.
pub(crate) fn surplus(entity: &EntityName, more: i128) -> Option<Write> {
    let by = AccountChange { surplus: more, ..AccountChange::default() };
    (more != 0).then(|| Write::charge(entity, by, Condition::Present))
}

/// Refuses bytes for which the account has no room.
pub(crate) fn fits(account: &Account, bytes: u64) -> Result<(), Error> {
    admitted(account.quota, bytes.into(), 0).map(drop)
}

/// The row of a new entity's account.
pub(crate) fn opened(entity: &EntityName, limit: u64) -> Result<Write, Error> {
    let quota = Quota { limit, most_rows: most_rows(limit), ..Quota::default() };
    let account = Account { entity: entity.clone(), quota, version: 0 };
    Ok(Write::put(&account, Condition::Absent)?)
}

/// Removes the row of an account in which nothing counts.
pub(crate) fn closed(entity: &EntityName) -> Write {
    Write::delete(keys::account(entity), Condition::Unused)
}

/// Sets the limit of an account.
pub(crate) fn limited(account: &Account, limit: u64) -> Changes {
    let (entity, before) = (account.entity.clone(), account.quota.limit);
    let more_rows = i128::from(most_rows(limit)) - i128::from(most_rows(before));
    let write = Write::limit(&entity, before, limit, more_rows);
    let what = EventKind::LimitSet { entity: entity.clone(), before, after: limit };
    Changes::recorded(Place::Entity(entity), what).with([write])
}

/// Corrects the numbers of an account that was not changed since they were read.
pub(crate) fn corrected(account: &Account, before: Numbers, sum: Numbers) -> Result<Changes, Error> {
    let (entity, version) = (account.entity.clone(), account.version);
    let row = Account { entity: entity.clone(), quota: account.quota.with(sum), version: version + 1 };
    let what = EventKind::AccountCorrected { entity: entity.clone(), before, after: sum };
    Ok(Changes::recorded(Place::Entity(entity), what).with([Write::put(&row, Condition::Version(version))?]))
}

/// The condition under which `more` bytes may be charged, and `surplus` more be in surplus.
fn admitted(quota: Quota, more: i128, surplus: u64) -> Result<Condition, Error> {
    // What takes no room needs none. So several of these in one transaction are one change of the account.
    if more <= 0 && surplus == 0 {
        return Ok(Condition::Present);
    }
    let more = u64::try_from(more).unwrap_or(0);
    let limit = quota.limit;
    match admit(quota, more, surplus) {
        Admission::Full => Err(Error::QuotaExceeded { charged: quota.charged, limit }),
        Admission::Surplus => Err(Error::TooMuchKept { surplus: quota.surplus, limit }),
        Admission::Free => Ok(Condition::Limit(limit)),
        Admission::Room { charged_at_most, surplus_at_most } => {
            Ok(Condition::Room { limit, charged_at_most, surplus_at_most })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_sessions_reserved_stays_in_surplus_until_the_last_of_them_ends() {
        let entity: EntityName = "alice".parse().unwrap();
        let by = |size, links, sessions| ChargeChange {
            digest: Digest::of(b""),
            size,
            links,
            sessions,
            released: 0,
            surplus: 0,
            first_version: 0,
        };
        let one = step(&entity, None, by(100, 0, 1)).unwrap().after;
        let two = step(&entity, Some(one.clone()), by(1, 0, 1)).unwrap().after;
        assert_eq!((two.size, two.kept), (100, 0));
        let committed = step(&entity, Some(two), by(1, 1, -1)).unwrap().after;
        assert_eq!((committed.size, committed.kept), (1, 100));
        let unlinked = step(&entity, Some(committed.clone()), by(1, -1, 0)).unwrap().after;
        assert_eq!((unlinked.size, unlinked.kept), (1, 100));
        let ended = step(&entity, Some(committed), by(1, 0, -1)).unwrap().after;
        assert_eq!((ended.size, ended.kept), (1, 0));
        let alone = step(&entity, Some(one), by(1, 1, -1)).unwrap().after;
        assert_eq!((alone.size, alone.kept), (1, 0));
    }

    #[test]
    fn a_charge_that_went_and_came_back_is_not_taken_for_the_old_one() {
        let entity: EntityName = "alice".parse().unwrap();
        let by = |size, sessions, first_version| ChargeChange {
            digest: Digest::of(b""),
            size,
            links: 0,
            sessions,
            released: 0,
            surplus: 0,
            first_version,
        };
        let old = step(&entity, None, by(20, 1, 7)).unwrap().after;
        let ended = step(&entity, Some(old.clone()), by(20, -1, 8)).unwrap().after;
        assert_eq!((ended.links, ended.sessions, ended.size), (0, 0, 0));
        let new = step(&entity, None, by(1, 1, 9)).unwrap().after;
        // Or a request that read the old one would write over the new one, and refund bytes that were never charged.
        assert_ne!(old.version, new.version);
    }
}
