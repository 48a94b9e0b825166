//! Events: who did what, where and when. An event is written in the transaction that it describes.

use super::Changes;
use crate::domain::{Actor, Time};
use crate::rules::{Grant, Place};
use crate::store::rows::{Event, EventEnd, EventKind, Pending};
use crate::store::table::{Condition, Write};
use crate::store::{StoreError, keys};
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

/// The writes of an event, done with this grant: the event itself, which is forgotten after `life`, and its entry in the
/// outbox, if something follows from it.
pub(crate) fn event(
    grant: &Grant,
    Noted { place, what, by }: Noted,
    at: Moment,
    life: Duration,
) -> Result<Vec<Write>, StoreError> {
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
    let mut writes = vec![Write::put(&row, Condition::Absent)?];
    if row.what.iter().any(EventKind::has_consequences) {
        let pending = Pending { log: row.log, millis: row.millis, random: row.random };
        writes.push(Write::put(&pending, Condition::Absent)?);
    }
    Ok(writes)
}

/// Forgets an expired event.
pub(crate) fn forgotten(event: &EventEnd) -> Changes {
    let key = keys::event(&event.log, event.millis, event.random);
    Changes::unrecorded().with([Write::delete(key, Condition::None)])
}
