//! The history of tags: what follows from the events that set or removed them.

use super::Changes;
use crate::domain::{Repository, TagName};
use crate::store::rows::{Event, EventKind, Pending, Row, TagMove, TagThen};
use crate::store::table::{Condition, Write};
use crate::store::{StoreError, keys};
use std::collections::BTreeMap;

/// What events add to the history of tags in a repository, as long as that exists: as few transactions as possible.
/// Written again, they are the same.
pub(crate) fn of_events<'a>(
    repository: &Repository,
    events: impl IntoIterator<Item = &'a Event>,
) -> Result<Vec<Changes>, StoreError> {
    let mut writes = Vec::new();
    for event in events {
        for row in of_event(repository, event) {
            writes.push(Write::put(&row, Condition::None)?);
        }
    }
    let there = || Write::check(keys::container(repository), Condition::Present);
    let some = |some: &[Write]| Changes::unrecorded().with([there()]).with(some.iter().cloned());
    Ok(writes.chunks(Changes::MAX - 1).map(some).collect())
}

/// The rows of the history that an event adds.
fn of_event(repository: &Repository, event: &Event) -> Vec<TagThen> {
    // What is said of a tag last is what it leads to.
    let mut led: BTreeMap<&TagName, &TagMove> = BTreeMap::new();
    for kind in &event.what {
        if let EventKind::TagSet(to) | EventKind::TagRemoved(to) = kind {
            led.insert(&to.tag, to);
        }
    }
    let row = |led: &TagMove| TagThen {
        repository: repository.clone(),
        led: led.clone(),
        by: event.actor.clone(),
        millis: event.millis,
        random: event.random,
    };
    led.into_values().map(row).collect()
}

/// Deletes entries of the outbox: everything that follows from their events is done.
pub(crate) fn followed(entries: &[Pending]) -> Changes {
    Changes::unrecorded().with(entries.iter().map(|entry| Write::delete(entry.key(), Condition::None)))
}

/// Forgets some of the history of a tag.
pub(crate) fn forgotten(row: &TagThen) -> Changes {
    Changes::unrecorded().with([Write::delete(row.key(), Condition::None)])
}
