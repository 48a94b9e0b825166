//! What a transaction writes, and under which conditions, in words that both sides of the seam understand.

use super::StoreError;
use super::backend::Text;
use crate::domain::{EntityName, Repository, ShareId, TagName, Thing, Time};
use crate::store::keys::{self, Key};
use crate::store::rows::Row;

/// The condition for a write.
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    /// Nothing.
    None,
    /// The row does not exist yet.
    Absent,
    /// The row exists.
    Present,
    /// The row exists and has this version.
    Version(u64),
    /// The repository exists and has this epoch.
    Epoch(u64),
    /// The repository exists, and so much has been removed in it.
    Removals(u64),
    /// The link exists and was last asked for at this time.
    Seen(Time),
    /// The account exists and has this limit.
    Limit(u64),
    /// The account exists, and nothing counts in it.
    Unused,
    /// The account exists, has this limit, and no more bytes than these.
    Room {
        /// The limit, in bytes.
        limit: u64,
        /// The most bytes that may be charged already.
        charged_at_most: u64,
        /// The most bytes that may be in surplus already.
        surplus_at_most: u64,
    },
    /// The share exists, was used fewer times than this, and ends later than this.
    Usable {
        /// The number of uses that it must not have reached.
        below: u64,
        /// The time.
        now: Time,
    },
}

/// The difference in the numbers of an account: bytes, and rows of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// All that is charged.
    pub charged: i128,
    /// Of these, for uploads that are not committed.
    pub reserved: i128,
    /// What is in the bucket and not charged.
    pub surplus: i128,
    /// What is in the table. If there are more afterwards than before, there must be room for them.
    pub rows: i128,
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub struct Write(Operation);

/// What a [`Write`] does, for the side that does it.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Writes a row.
    Put(Key, Text, Condition),
    /// Writes a row, and leaves those attributes of an existing one that it does not have.
    Overlay(Key, Text),
    /// Deletes a row, which need not exist if the condition does not ask for it.
    Delete(Key, Condition),
    /// Only requires the condition to hold.
    Check(Key, Condition),
    /// Adds to numeric attributes of a row, which must have them: only [`VERSION`] begins with 0. If more [`ROWS`] come,
    /// there must be fewer than [`MOST_ROWS`].
    Add(Key, Vec<(&'static str, i128)>, Condition),
    /// Adds words to the set [`TAGS`] of a row or removes them, sets [`NAMED`], and increments its version. The row must
    /// exist, and have an object as [`CONTENT`].
    Label(Key, Labels),
}

/// What happens to the set of tags.
#[derive(Debug, Clone)]
pub enum Labels {
    /// These come, at least one.
    Add(Vec<String>),
    /// These go, at least one.
    Remove(Vec<String>),
}

impl Operation {
    /// The row that it writes or asks for.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, ..)
            | Self::Overlay(key, _)
            | Self::Delete(key, _)
            | Self::Check(key, _)
            | Self::Add(key, ..)
            | Self::Label(key, _) => key,
        }
    }

    /// Takes another operation in, if both do the same to one row and one of the two demands nothing of it that the other
    /// doesn't. The stronger condition stays.
    fn takes(&mut self, other: &Self) -> bool {
        let (before, after) = match (&mut *self, other) {
            (Self::Put(key, row, before), Self::Put(at, same, after)) if key == at && row == same => (before, after),
            (Self::Overlay(key, row), Self::Overlay(at, same)) => return key == at && row == same,
            (Self::Delete(key, before), Self::Delete(at, after)) if key == at => (before, after),
            (Self::Add(key, _, before), Self::Add(at, _, after)) if key == at => (before, after),
            _ => return false,
        };
        let adds = matches!(other, Self::Add(..));
        let weak = |condition: &Condition| match condition {
            Condition::None => true,
            // An addition needs the row in any case.
            Condition::Present => adds,
            _ => false,
        };
        if !(weak(before) || weak(after)) {
            return false;
        }
        if weak(before) {
            *before = *after;
        }
        if let (Self::Add(_, numbers, _), Self::Add(_, more, _)) = (self, other) {
            for (name, number) in more {
                match numbers.iter_mut().find(|(same, _)| same == name) {
                    Some((_, sum)) => *sum += number,
                    None => numbers.push((name, *number)),
                }
            }
        }
        true
    }
}

impl Write {
    /// Writes the row.
    pub fn put<R: Row>(row: &R, condition: Condition) -> Result<Self, StoreError> {
        Ok(Self(Operation::Put(row.key(), text(row)?, condition)))
    }

    /// Writes the row without a condition. Attributes of an existing one that the row does not have stay.
    pub fn overlay<R: Row>(row: &R) -> Result<Self, StoreError> {
        Ok(Self(Operation::Overlay(row.key(), text(row)?)))
    }

    /// Deletes the row.
    pub fn delete(key: Key, condition: Condition) -> Self {
        Self(Operation::Delete(key, condition))
    }

    /// Only requires the condition to hold.
    pub fn check(key: Key, condition: Condition) -> Self {
        Self(Operation::Check(key, condition))
    }

    /// Changes the numbers of the account of an entity.
    pub fn charge(entity: &EntityName, by: AccountChange, condition: Condition) -> Self {
        let AccountChange { charged, reserved, surplus, rows } = by;
        let all = [("charged", charged), ("reserved", reserved), ("surplus", surplus), (ROWS, rows), (VERSION, 1)];
        let numbers = all.into_iter().filter(|(_, number)| *number != 0).collect();
        Self(Operation::Add(keys::account(entity), numbers, condition))
    }

    /// Changes the limit of an entity's account from its old value, and the most rows that it may have.
    pub fn limit(entity: &EntityName, before: u64, after: u64, more_rows: i128) -> Self {
        let more = i128::from(after) - i128::from(before);
        let numbers = vec![("limit", more), (MOST_ROWS, more_rows), (VERSION, 1)];
        Self(Operation::Add(keys::account(entity), numbers, Condition::Limit(before)))
    }

    /// The account that must have room for more rows, if this needs some.
    pub(crate) fn needs_rows(&self) -> Option<&Key> {
        match &self.0 {
            Operation::Add(key, numbers, _) if adds_rows(numbers) => Some(key),
            _ => None,
        }
    }

    /// Increments the epoch of a repository.
    pub fn epoch(repository: &Repository, condition: Condition) -> Self {
        Self(Operation::Add(keys::container(repository), vec![("epoch", 1), (VERSION, 1)], condition))
    }

    /// Increments the epoch of a repository, which must be `epoch`, and the number of removals in it.
    pub fn removal(repository: &Repository, epoch: u64) -> Self {
        let numbers = vec![("epoch", 1), ("removals", 1), (VERSION, 1)];
        Self(Operation::Add(keys::container(repository), numbers, Condition::Epoch(epoch)))
    }

    /// Increments the version of a row that must exist, because there is something new in it.
    pub fn advance(key: Key) -> Self {
        Self(Operation::Add(key, vec![("version", 1)], Condition::Present))
    }

    /// Counts a use of a share that can be used.
    pub fn used(share: ShareId, below: u64, now: Time) -> Self {
        Self(Operation::Add(keys::share(share), vec![("uses", 1)], Condition::Usable { below, now }))
    }

    /// Records on the image's row that the tags, at least one, name it. The image must have been committed.
    pub fn tagged<'a>(image: Key, tags: impl IntoIterator<Item = &'a TagName>) -> Self {
        Self(Operation::Label(image, Labels::Add(tags.into_iter().map(ToString::to_string).collect())))
    }

    /// Records on the image's row that the tags, at least one, no longer name it.
    pub fn untagged<'a>(image: Key, tags: impl IntoIterator<Item = &'a TagName>) -> Self {
        Self(Operation::Label(image, Labels::Remove(tags.into_iter().map(ToString::to_string).collect())))
    }

    /// Appends a write to others, unless one of them does the same. Several changes may require the same immutable row
    /// to exist, or add to one row that only has to exist. Other writes of the same row are real conflicts and are
    /// kept, so that the table refuses them with an error.
    pub fn join(self, writes: &mut Vec<Self>) {
        if !writes.iter_mut().any(|other| other.0.takes(&self.0)) {
            writes.push(self);
        }
    }

    /// The row that is written; `None` if it is only checked.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.0 {
            Operation::Check(..) => None,
            other => Some(other.key()),
        }
    }

    /// What a search finds, if this makes it, changes more of it than its numbers, or deletes it.
    pub(crate) fn thing(&self) -> Option<Thing> {
        match &self.0 {
            Operation::Put(key, ..)
            | Operation::Overlay(key, _)
            | Operation::Delete(key, _)
            | Operation::Label(key, _) => keys::thing_at(key),
            Operation::Check(..) | Operation::Add(..) => None,
        }
    }

    /// The same, if this deletes it.
    pub(crate) fn gone(&self) -> Option<Thing> {
        self.thing().filter(|_| matches!(self.0, Operation::Delete(..)))
    }

    /// What it does.
    pub(super) fn into_operation(self) -> Operation {
        self.0
    }
}

/// The text of a row.
pub(super) fn text<R: Row>(row: &R) -> Result<Text, StoreError> {
    let text = serde_json::to_string(row).map_err(StoreError::Row)?;
    // `DynamoDB` has attributes, and nothing else.
    if text.starts_with('{') { Ok(text) } else { Err(StoreError::Mistake(format!("a row that is no object: {text}"))) }
}

/// The attribute of an account that counts its rows.
pub const ROWS: &str = "rows";
/// The attribute of an account with the most rows that it may have.
pub const MOST_ROWS: &str = "most_rows";
/// The attribute that counts the changes of a row. A row that has none yet begins with 0.
pub const VERSION: &str = "version";
/// The attribute of an image with its tags: the only one that is a set. A row without any does not have it.
pub const TAGS: &str = "tags";
/// The attribute of an image that says whether it ever had a tag.
pub const NAMED: &str = "named";
/// The attribute of an image with the facts about its bytes, once they were verified.
pub const CONTENT: &str = "content";

/// Whether additions are such that there must be room for more rows.
pub fn adds_rows(numbers: &[(&'static str, i128)]) -> bool {
    numbers.iter().any(|(name, more)| *name == ROWS && *more > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::quota::Quota;
    use crate::store::rows::{Account, Container, Link};

    #[test]
    fn additions_to_a_row_that_only_has_to_be_there_become_one() {
        let charge = |entity: &str, charged, condition| {
            let by = AccountChange { charged, ..AccountChange::default() };
            Write::charge(&entity.parse().unwrap(), by, condition)
        };
        let present = |charged| charge("alice", charged, Condition::Present);
        let limited = |charged| charge("alice", charged, Condition::Limit(9));
        let joined = |writes: Vec<Write>| {
            let mut all = Vec::new();
            for write in writes {
                write.join(&mut all);
            }
            let shown = |write: Write| match write.0 {
                Operation::Add(_, numbers, condition) => Some((numbers, matches!(condition, Condition::Present))),
                _ => None,
            };
            all.into_iter().filter_map(shown).collect::<Vec<_>>()
        };
        assert_eq!(joined(vec![present(1), present(-3)]), [(vec![("charged", -2), (VERSION, 2)], true)]);
        // The stronger condition stays.
        assert_eq!(joined(vec![present(1), limited(2)]), [(vec![("charged", 3), (VERSION, 2)], false)]);
        assert_eq!(joined(vec![limited(2), present(1)]), [(vec![("charged", 3), (VERSION, 2)], false)]);
        assert_eq!(joined(vec![limited(1), limited(2)]).len(), 2);
        assert_eq!(joined(vec![present(1), charge("bob", 1, Condition::Present)]).len(), 2);
        let by = AccountChange { reserved: 5, ..AccountChange::default() };
        let reserved = Write::charge(&"alice".parse().unwrap(), by, Condition::Present);
        assert_eq!(joined(vec![present(1), reserved]), [(vec![("charged", 1), (VERSION, 2), ("reserved", 5)], true)]);
    }

    #[test]
    fn of_two_writes_that_do_the_same_the_stronger_condition_stays() {
        let row = |size| Link {
            repository: "a/b".parse().unwrap(),
            name: crate::domain::Digest::of(b"").into(),
            digest: crate::domain::Digest::of(b""),
            object: String::new(),
            size,
            seen: Time(0),
        };
        let put = |size, condition| Write::put(&row(size), condition).unwrap();
        let delete = |condition| Write::delete(row(0).key(), condition);
        let joined = |writes: Vec<Write>| {
            let mut all = Vec::new();
            for write in writes {
                write.join(&mut all);
            }
            let conditions = all.into_iter().map(|write| match write.0 {
                Operation::Put(.., condition) | Operation::Delete(_, condition) => format!("{condition:?}"),
                other => panic!("{other:?}"),
            });
            conditions.collect::<Vec<_>>()
        };
        let (none, absent, version) = (Condition::None, Condition::Absent, Condition::Version(1));
        assert_eq!(joined(vec![put(1, none), put(1, absent)]), ["Absent"]);
        assert_eq!(joined(vec![put(1, absent), put(1, none)]), ["Absent"]);
        assert_eq!(joined(vec![delete(none), delete(version)]), ["Version(1)"]);
        // What can't both be meant stays, so that the table refuses it.
        assert_eq!(joined(vec![put(1, none), put(2, none)]).len(), 2);
        assert_eq!(joined(vec![put(1, absent), put(1, version)]).len(), 2);
        assert_eq!(joined(vec![put(1, none), delete(none)]).len(), 2);
    }

    /// Conditions and additions spell the names of attributes, and no compiler compares them with the rows.
    #[test]
    fn what_conditions_and_additions_name_is_a_number_in_the_row() {
        let named = |row: serde_json::Result<serde_json::Value>, names: &[&str]| {
            let row = row.unwrap();
            for name in names {
                assert!(row[name].is_u64(), "{name}: {row}");
            }
        };
        let repository: Repository = "a/b/c".parse().unwrap();
        let account = Account { entity: repository.entity().clone(), quota: Quota::default(), version: 0 };
        let account = serde_json::to_value(account);
        named(account, &["charged", "reserved", "surplus", "limit", ROWS, MOST_ROWS, VERSION]);
        let (id, digest) = (crate::domain::Id::from_random([0; 12]), crate::domain::Digest::of(b""));
        let container = Container {
            id,
            repository: repository.clone(),
            collection_id: None,
            entity_id: id,
            description: crate::domain::Description::default(),
            visibility: crate::domain::Visibility::Public,
            read_only: false,
            created_by: None,
            created: Time(0),
            epoch: 0,
            removals: 0,
            version: 0,
        };
        named(serde_json::to_value(container), &["epoch", "removals", VERSION]);
        let object = String::new();
        let link = Link { repository, name: digest.into(), digest, object, size: 0, seen: Time(0) };
        named(serde_json::to_value(link), &["seen"]);
        let share = crate::store::rows::tests::share();
        named(serde_json::to_value(share), &["uses", "expires", "gone"]);
    }
}
