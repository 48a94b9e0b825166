//! The numbers of a quota account.

use serde::{Deserialize, Deserializer, Serialize};

/// The usage and the limit of an entity, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Used and reserved bytes together: the number that the limit applies to.
    #[serde(deserialize_with = "or_zero")]
    pub charged: u64,
    /// The part of `charged` that belongs to uploads not yet committed.
    #[serde(deserialize_with = "or_zero")]
    pub reserved: u64,
    /// The most that may be charged; 0 means unlimited.
    pub limit: u64,
    /// Bytes in the bucket beyond those that are charged: of deleted objects that are still kept, and of further uploads
    /// of bytes that are charged once.
    #[serde(default, deserialize_with = "or_zero")]
    pub surplus: u64,
    /// What the entity has in the table, in rows. A long manifest counts as several.
    #[serde(default, deserialize_with = "or_zero")]
    pub rows: u64,
    /// No row is added once there are so many. It follows from the limit, and is kept beside the number that it is
    /// compared with.
    #[serde(default)]
    pub most_rows: u64,
}

/// What an account should be the sum of. A sum is never below zero; what an account says may be, by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// Bytes of committed blobs and long manifests.
    pub used: i64,
    /// Bytes of uploads that are not committed.
    pub reserved: i64,
    /// Bytes in the bucket that are not charged.
    pub surplus: i64,
    /// What is in the table.
    pub rows: i64,
}

impl std::ops::AddAssign for Numbers {
    fn add_assign(&mut self, more: Self) {
        self.used = self.used.saturating_add(more.used);
        self.reserved = self.reserved.saturating_add(more.reserved);
        self.surplus = self.surplus.saturating_add(more.surplus);
        self.rows = self.rows.saturating_add(more.rows);
    }
}

/// A number that is below zero by mistake is read as 0. Its count is wrong, but that must not make the rest of the
/// entity's data unreadable. The sweeper reports it.
fn or_zero<'de, D: Deserializer<'de>>(number: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Plus(u64),
        Minus(i64),
    }
    Ok(match Number::deserialize(number)? {
        Number::Plus(number) => number,
        Number::Minus(number) => u64::try_from(number).unwrap_or(0),
    })
}

/// How far an account is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// There is room.
    Free,
    /// It is filled so far that whoever pushes is warned.
    Warning,
    /// There is no room for a single byte.
    Full,
}

impl Quota {
    /// The same limits with these numbers; 0 where one is below zero.
    #[must_use]
    pub fn with(self, Numbers { used, reserved, surplus, rows }: Numbers) -> Self {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            charged: number(used.saturating_add(reserved)),
            reserved: number(reserved),
            surplus: number(surplus),
            rows: number(rows),
            ..self
        }
    }

    /// How much of the limit is charged, in whole percent; `None` if there is no limit.
    pub fn percent(&self) -> Option<u64> {
        let percent = (u128::from(self.charged) * 100).checked_div(self.limit.into())?;
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// How far it is filled, if pushes are to be warned from `warning` percent on; 0 for no warning.
    pub fn level(&self, warning: u64) -> Level {
        match self.percent() {
            Some(_) if self.charged >= self.limit => Level::Full,
            Some(percent) if warning > 0 && percent >= warning => Level::Warning,
            _ => Level::Free,
        }
    }

    /// Bytes of committed blobs.
    pub fn used(&self) -> u64 {
        self.charged.saturating_sub(self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_account_is_free_then_warned_of_then_full() {
        let level = |charged, limit, warning| Quota { charged, limit, ..Quota::default() }.level(warning);
        for (charged, limit, warning, expected) in [
            (0, 10, 90, Level::Free),
            (8, 10, 90, Level::Free),
            (9, 10, 90, Level::Warning),
            (899, 1000, 90, Level::Free),
            (900, 1000, 90, Level::Warning),
            (10, 10, 90, Level::Full),
            (11, 10, 0, Level::Full),
            (9, 10, 0, Level::Free),
            (9, 10, 100, Level::Free),
            (u64::MAX, 0, 1, Level::Free),
            (u64::MAX - 1, u64::MAX, 99, Level::Warning),
        ] {
            assert_eq!(level(charged, limit, warning), expected, "{charged} of {limit}, {warning} %");
        }
    }

    #[test]
    fn a_number_below_zero_is_read_as_zero() {
        let read = |charged: i64| serde_json::from_value(json!({ "charged": charged, "reserved": -1, "limit": 9 }));
        assert_eq!(read(-307_200).ok(), Some(Quota { limit: 9, ..Quota::default() }));
        assert_eq!(read(7).ok(), Some(Quota { charged: 7, limit: 9, ..Quota::default() }));
    }
}
