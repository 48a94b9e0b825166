//! What is to be written: rows in, writes out. Pure functions without a clock, without waiting, without a store.
//!
//! A use case reads rows, decides, and hands them to a function here with the time and whatever had to be drawn at
//! random. It gets back what one transaction is to do, which [`App::commit`](crate::App::commit) does as a whole or
//! not at all. Each kind of row that must agree with others is made in one file: [`accounts`] is the only code that
//! changes what an entity is charged, [`tags`] the only one that makes tags, [`manifests`] the only one that makes
//! manifests.

pub(crate) mod accounts;
pub(crate) mod blobs;
pub(crate) mod entities;
pub(crate) mod events;
pub(crate) mod images;
pub(crate) mod manifests;
pub(crate) mod people;
pub(crate) mod streams;
pub(crate) mod tags;
pub(crate) mod uploads;

use self::events::Noted;
use crate::rules::Place;
use crate::store::rows::What;
use crate::store::table::{MOST_WRITES, Write};

/// The writes of one transaction, and what is noted of them.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    writes: Vec<Write>,
    noted: Option<Noted>,
}

impl Changes {
    /// The most writes of a transaction: all that the table takes, but for the event's.
    pub const MOST: usize = MOST_WRITES - 1;

    /// Changes that are noted as an event at a place.
    pub fn noted(place: Place, what: What) -> Self {
        Self { writes: Vec::new(), noted: Some(Noted { place, what: vec![what] }) }
    }

    /// Steps on the way to a change or behind it, of which nobody has to hear: how far an upload is, when something
    /// was last asked for, what is counted. Noted is what they lead to.
    pub fn unnoted() -> Self {
        Self::default()
    }

    /// Notes one more thing. All of a transaction is noted at the place that was named first.
    pub fn note(&mut self, place: &Place, what: What) {
        let empty = || Noted { place: place.clone(), what: Vec::new() };
        self.noted.get_or_insert_with(empty).what.push(what);
    }

    /// Adds a write, unless another one does the same.
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

    /// Adds all that others do, and notes it.
    pub fn merge(&mut self, other: Self) {
        self.extend(other.writes);
        if let Some(Noted { place, what }) = other.noted {
            for what in what {
                self.note(&place, what);
            }
        }
    }

    /// Whether one transaction holds these and so many more.
    pub fn have_room_for(&self, more: usize) -> bool {
        self.writes.len() + more <= Self::MOST
    }

    /// The writes, in the order in which they were added, and what is noted of them.
    pub(crate) fn into_parts(self) -> (Vec<Write>, Option<Noted>) {
        (self.writes, self.noted)
    }
}

/// Joins writes, each once, where there is no transaction of them yet.
pub(crate) fn joined(writes: impl IntoIterator<Item = Write>) -> Vec<Write> {
    let mut all = Vec::new();
    for write in writes {
        write.join(&mut all);
    }
    all
}
