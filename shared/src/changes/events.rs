//! Events: who did what, where and when. An event is written in the transaction that it describes, and so is what is to
//! follow from it.

use super::Changes;
use crate::domain::{Actor, Time};
use crate::rules::{Grant, Place};
use crate::store::rows::{Event, EventEnd, EventKind, Pending};
use crate::store::table::{Condition, Write};
use crate::store::{StoreError, keys};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// The time of an event, and a random number of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub(crate) millis: u64,
    /// Keeps events of the same millisecond apart.
    pub(crate) random: u32,
    /// The address from which it was asked for, if it is known.
    pub(crate) from: Option<IpAddr>,
}

/// The action, and its place.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    pub(crate) place: Place,
    pub(crate) what: Vec<EventKind>,
    /// The grant of whoever did it, if it is not that of the write: Stackroom writes down what others look at.
    pub(crate) by: Option<Grant>,
}

/// The log that has the events of a place.
pub(crate) fn log(place: &Place) -> String {
    match place {
        Place::User(name) => format!("+{name}"),
        place => place.entity().map_or_else(|| "-".to_owned(), ToString::to_string),
    }
}

/// An event, done with this grant, which is forgotten after `life`.
pub(crate) fn event(
    grant: &Grant,
    Noted { place, what, by }: Noted,
    at: Moment,
    life: Duration,
) -> Result<Write, StoreError> {
    let grant = by.as_ref().unwrap_or(grant);
    let seconds = i64::try_from(at.millis / 1000).unwrap_or(i64::MAX);
    let row = Event {
        place: place.to_string(),
        log: log(&place),
        millis: at.millis,
        random: at.random,
        actor: grant.by().cloned().unwrap_or(Actor::System),
        token: grant.token(),
        from: at.from,
        action: grant.action().word().to_owned(),
        what,
        gone: Time(seconds).plus(life),
    };
    Write::put(&row, Condition::Absent)
}

/// The entry in the outbox of a change with this grant, if something follows from it: a tag leads elsewhere, or a search
/// is to find something else than before.
pub(crate) fn pending(
    grant: &Grant,
    noted: Option<&Noted>,
    writes: &[Write],
    at: Moment,
) -> Result<Option<Write>, StoreError> {
    let things = match noted {
        // Steps on the way to something that is recorded; but what is removed piece by piece is recorded first.
        None => writes.iter().filter_map(Write::gone).collect(),
        Some(noted) if noted.what.iter().all(EventKind::is_hidden) => BTreeSet::new(),
        Some(_) => writes.iter().filter_map(Write::thing).collect(),
    };
    let history = noted.is_some_and(|noted| noted.what.iter().any(EventKind::is_history));
    let place = noted.map_or_else(|| grant.place(), |noted| &noted.place);
    if !history && things.is_empty() {
        return Ok(None);
    }
    let pending = Pending { log: log(place), millis: at.millis, random: at.random, things };
    Write::put(&pending, Condition::Absent).map(Some)
}

/// Forgets an expired event.
pub(crate) fn forgotten(event: &EventEnd) -> Changes {
    let key = keys::event(&event.log, event.millis, event.random);
    Changes::unrecorded().with([Write::delete(key, Condition::None)])
}
