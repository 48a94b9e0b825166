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

impl Quota {
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
    fn a_number_below_zero_is_read_as_zero() {
        let read = |charged: i64| serde_json::from_value(json!({ "charged": charged, "reserved": -1, "limit": 9 }));
        assert_eq!(read(-307_200).ok(), Some(Quota { limit: 9, ..Quota::default() }));
        assert_eq!(read(7).ok(), Some(Quota { charged: 7, limit: 9, ..Quota::default() }));
    }
}
