//! What to write: rows in, writes out. These are pure functions without a clock, without waiting, without a store.
//!
//! A use case reads rows, decides, and passes them to a function here, with the time and any random values. The
//! function returns the changes of one transaction. [`App::commit`](crate::App::commit) makes them all or none. Rows
//! that must agree with others are made in one file for each kind: [`accounts`] is the only code that changes charges,
//! [`tags`] the only one that makes tags, [`manifests`] the only one that makes manifests.

pub(crate) mod about;
pub(crate) mod accounts;
pub(crate) mod backlinks;
pub(crate) mod blobs;
pub(crate) mod downloads;
pub(crate) mod entities;
pub(crate) mod events;
pub(crate) mod frozen;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod manifests;
pub(crate) mod members;
pub(crate) mod people;
pub(crate) mod removal;
pub(crate) mod search;
pub(crate) mod shares;
pub(crate) mod stars;
pub(crate) mod streams;
pub(crate) mod tags;
pub(crate) mod uploads;

use self::events::Noted;
use crate::error::Error;
use crate::rules::{Grant, Place};
use crate::store::rows::{EventKind, Installation};
use crate::store::table::{Condition, MAX_WRITES, Write};

/// The writes of one transaction, and what its event records.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    writes: Vec<Write>,
    noted: Option<Noted>,
}

impl Changes {
    /// The most writes of a transaction: the table's limit, minus two for the event and its entry in the outbox.
    pub const MAX: usize = MAX_WRITES - 2;

    /// Changes that are recorded as an event at a place.
    pub fn recorded(place: Place, what: EventKind) -> Self {
        Self { writes: Vec::new(), noted: Some(Noted { place, what: vec![what], by: None }) }
    }

    /// No change: a site admin sees what this grant shows for no other reason.
    pub fn looked(grant: Grant) -> Self {
        let (place, what) = (grant.place().clone(), vec![EventKind::Looked]);
        Self { writes: Vec::new(), noted: Some(Noted { place, what, by: Some(grant) }) }
    }

    /// Marks a new installation.
    pub(crate) fn installation_marked(row: &Installation) -> Result<Self, Error> {
        Ok(Self::unrecorded().with([Write::put(row, Condition::Absent)?]))
    }

    /// Intermediate steps that no event records: the progress of an upload, the time of the last request for
    /// something, a counter. The final change is recorded.
    pub fn unrecorded() -> Self {
        Self::default()
    }

    /// Records one more change. A transaction records everything at the place that was named first.
    pub fn record(&mut self, place: &Place, what: EventKind) {
        let empty = || Noted { place: place.clone(), what: Vec::new(), by: None };
        self.noted.get_or_insert_with(empty).what.push(what);
    }

    /// Adds a write, unless the same one is there already.
    pub fn add(&mut self, write: Write) {
        write.join(&mut self.writes);
    }

    /// Adds writes, each once.
    pub fn extend(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            self.add(write);
        }
    }

    /// The same with more writes.
    #[must_use]
    pub fn with(mut self, writes: impl IntoIterator<Item = Write>) -> Self {
        self.extend(writes);
        self
    }

    /// The same with all changes of another set, and what it records.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.merge(other);
        self
    }

    /// Adds all changes of another set, and what it records.
    pub fn merge(&mut self, other: Self) {
        self.extend(other.writes);
        if let Some(Noted { place, what, .. }) = other.noted {
            for what in what {
                self.record(&place, what);
            }
        }
    }

    /// Whether these and so many more fit into one transaction.
    pub fn have_room_for(&self, more: usize) -> bool {
        self.writes.len() + more <= Self::MAX
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The writes, in the order in which they were added, and what the event records.
    pub(crate) fn into_parts(self) -> (Vec<Write>, Option<Noted>) {
        (self.writes, self.noted)
    }
}

/// Joins writes without duplicates, before there is a transaction for them.
pub(crate) fn joined(writes: impl IntoIterator<Item = Write>) -> Vec<Write> {
    let mut all = Vec::new();
    for write in writes {
        write.join(&mut all);
    }
    all
}
