//! What counts for the account of each entity: the sums of the rows that were read.

use crate::domain::Digest;
use crate::domain::quota::Numbers;
use crate::error::Error;
use crate::store::keys::{self, Key, RowKind};
use crate::store::rows::{About, Charge, Condemned, Manifest, Row as _, Session, Stream, Surplus};
use crate::store::table::Scanned;
use std::collections::{BTreeMap, BTreeSet};

/// The sum of what counts for one entity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::service) struct Sum {
    /// The numbers.
    pub(in crate::service) numbers: Numbers,
    /// Depends on all rows that were added, and on what each of them counts, but not on their order.
    mark: u128,
}

/// The sums of the entities.
#[derive(Default)]
pub(in crate::service) struct Tally {
    sums: BTreeMap<String, Sum>,
    /// Only these, with marks.
    only: Option<BTreeSet<String>>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Tally {
    /// One for some entities, whose sums are marked.
    pub(in crate::service) fn of(entities: &BTreeSet<String>) -> Self {
        Self { only: Some(entities.clone()), ..Self::default() }
    }

    /// The sum of an entity.
    pub(in crate::service) fn sum(&self, entity: &str) -> Sum {
        self.sums.get(entity).copied().unwrap_or_default()
    }

    fn add(&mut self, entity: &str, key: &Key, numbers: Numbers) {
        let marked = match &self.only {
            Some(only) if !only.contains(entity) => return,
            only => only.is_some(),
        };
        let sum = self.sums.entry(entity.to_owned()).or_default();
        sum.numbers += numbers;
        if marked {
            let digest = Digest::of(format!("{} {} {numbers:?}", key.pk, key.sk).as_bytes());
            let mark = digest.hex().get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok());
            sum.mark = sum.mark.wrapping_add(mark.unwrap_or(0));
        }
    }

    /// Adds a row that counts by its key alone, if it does.
    pub(in crate::service) fn row(&mut self, key: &Key) {
        if let Some(entity) = keys::counted(key) {
            self.add(entity, key, Numbers { rows: 1, ..Numbers::default() });
        }
    }

    pub(in crate::service) fn manifest(&mut self, row: &Manifest) {
        let (used, rows) = (signed(row.cost), signed(row.rows));
        self.add(row.repository.entity().as_str(), &row.key(), Numbers { used, rows, ..Numbers::default() });
    }

    pub(in crate::service) fn about(&mut self, row: &About) {
        self.add(row.of.entity().as_str(), &row.key(), Numbers { rows: signed(row.rows), ..Numbers::default() });
    }

    pub(in crate::service) fn charge(&mut self, row: &Charge) {
        let (size, surplus) = (signed(row.size), signed(row.kept));
        let (used, reserved) = if row.links == 0 { (0, size) } else { (size, 0) };
        self.add(row.entity.as_str(), &row.key(), Numbers { used, reserved, surplus, rows: 0 });
    }

    pub(in crate::service) fn stream(&mut self, row: &Stream) {
        let reserved = signed(row.reserved);
        self.add(row.repository.entity().as_str(), &row.key(), Numbers { reserved, rows: 1, ..Numbers::default() });
    }

    pub(in crate::service) fn session(&mut self, row: &Session) {
        let surplus = if row.surplus { signed(row.size) } else { 0 };
        self.add(row.repository.entity().as_str(), &row.key(), Numbers { surplus, rows: 1, ..Numbers::default() });
    }

    pub(in crate::service) fn condemned(&mut self, row: &Condemned) {
        if let Some(Surplus { entity, size }) = &row.of {
            self.add(entity.as_str(), &row.key(), Numbers { surplus: signed(*size), rows: 1, ..Numbers::default() });
        }
    }

    /// Adds a row of any kind.
    pub(in crate::service) fn scanned(&mut self, row: Scanned) -> Result<(), Error> {
        self.row(&row.key);
        match keys::kind(&row.key) {
            RowKind::Manifest => self.manifest(&row.read()?),
            RowKind::About => self.about(&row.read()?),
            RowKind::Charge => self.charge(&row.read()?),
            RowKind::Stream => self.stream(&row.read()?),
            RowKind::Session => self.session(&row.read()?),
            RowKind::Condemned => self.condemned(&row.read()?),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_depends_on_the_rows_and_not_on_their_order() {
        let key = |sk: &str| Key { pk: "E#a".to_owned(), sk: sk.to_owned() };
        let sum = |rows: &[&str]| {
            let mut tally = Tally::of(&["a".to_owned()].into());
            for sk in rows {
                tally.row(&key(sk));
            }
            tally.sum("a")
        };
        assert_eq!(sum(&["C#a", "C#b"]), sum(&["C#b", "C#a"]));
        assert_eq!(sum(&["C#a", "C#b"]).numbers, sum(&["C#a", "C#c"]).numbers);
        assert_ne!(sum(&["C#a", "C#b"]), sum(&["C#a", "C#c"]));
        assert_eq!(sum(&["-", "Q"]), Sum::default());
    }
}
