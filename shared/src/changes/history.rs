//! The history of tags: what follows from the events that set or removed them.

use super::Changes;
use crate::domain::{Repository, TagName};
use crate::store::rows::{Event, EventKind, Pending, Row, TagMove, TagThen};
use crate::store::table::{Condition, Write};
use crate::store::{StoreError, keys};
use std::collections::BTreeMap;

/// What an event adds to the history of tags in a repository, as long as that exists. Written again, it is the same.
pub(crate) fn of_event(repository: &Repository, event: &Event) -> Result<Changes, StoreError> {
    // What is said of a tag last is what it leads to.
    let mut led: BTreeMap<&TagName, &TagMove> = BTreeMap::new();
    for kind in &event.what {
        if let EventKind::TagSet(to) | EventKind::TagRemoved(to) = kind {
            led.insert(&to.tag, to);
        }
    }
    let mut changes = Changes::unrecorded().with([Write::check(keys::container(repository), Condition::Present)]);
    for led in led.into_values() {
        let row = TagThen {
            repository: repository.clone(),
            led: led.clone(),
            by: event.actor.clone(),
            millis: event.millis,
            random: event.random,
        };
        changes.add(Write::put(&row, Condition::None)?);
    }
    Ok(changes)
}

/// Deletes entries of the outbox: everything that follows from their events is done.
pub(crate) fn followed(entries: &[Pending]) -> Changes {
    Changes::unrecorded().with(entries.iter().map(|entry| Write::delete(entry.key(), Condition::None)))
}

/// Forgets some of the history of a tag.
pub(crate) fn forgotten(row: &TagThen) -> Changes {
    Changes::unrecorded().with([Write::delete(row.key(), Condition::None)])
}
