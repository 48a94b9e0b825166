//! The outbox: what follows from changes, and is done after them.
//!
//! 1. A change writes its event and, if something follows from it, an entry of the outbox in the same transaction.
//! 2. Entries of a part of the outbox are read, the oldest first, and their events with them. *Twice at once*: both do
//!    what follows, with one result. *The event was forgotten*: nothing follows.
//! 3. What follows is done: the history of tags gets its rows. Each is named after its event, so doing it again changes
//!    nothing. *The repository is gone*: nothing follows. The search index takes in the things that were changed, as they
//!    are now.
//! 4. The entries are deleted. *Dies before*: they are read again.
//!
//! An entry that can't be followed stays, with those of the same log, and is tried again. All others go on.

use super::access::system;
use super::search;
use crate::app::App;
use crate::changes::history;
use crate::domain::{Repository, Thing};
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{Event, Pending};
use crate::store::table::{Page, Written};
use futures::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// How many entries are read at a time, and deleted in one transaction.
const AT_A_TIME: usize = 90;
/// How many repositories or things are worked on at the same time.
const AT_ONCE: usize = 16;

/// Does what follows from all changes so far. Returns how many there were.
///
/// # Errors
/// The first one, after everything else was done.
pub async fn follow(app: &App) -> Result<u64, Error> {
    follow_parts(app, 0..keys::OUTBOX_PARTS).await
}

/// The same for some parts of the outbox.
///
/// # Errors
/// The first one, after everything else was done.
pub async fn follow_parts(app: &App, parts: impl IntoIterator<Item = u8>) -> Result<u64, Error> {
    let grant = system(Action::Sweep, &Resource::Installation)?;
    let (mut followed, mut failed) = (0, None);
    for part in parts {
        if let Err(error) = (Outbox { app, grant: &grant, part }).follow(&mut followed, &mut failed).await {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(followed), Err)
}

/// A part of the outbox.
struct Outbox<'a> {
    app: &'a App,
    grant: &'a Grant,
    part: u8,
}

/// What could not be done.
#[derive(Default)]
struct Undone<'a> {
    /// Of which logs the history.
    logs: BTreeSet<String>,
    /// What is not found anew.
    things: BTreeSet<&'a Thing>,
    failed: Option<Error>,
}

impl Undone<'_> {
    /// Whether something that follows from the entry is not done.
    fn concern(&self, entry: &Pending) -> bool {
        self.logs.contains(&entry.log) || entry.things.iter().any(|thing| self.things.contains(thing))
    }

    fn failed(&mut self, error: impl Into<Error>) {
        self.failed.get_or_insert(error.into());
    }
}

impl Outbox<'_> {
    /// Works through it, and counts what it has done. What can't be done stays; the first reason is left in `failed`.
    async fn follow(&self, followed: &mut u64, failed: &mut Option<Error>) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page: Page<Pending> = self.app.table.query(keys::outbox(self.part), after, AT_A_TIME).await?;
            let things: BTreeSet<&Thing> = page.rows.iter().flat_map(|entry| &entry.things).collect();
            let mut undone = Undone::default();
            self.histories(&page.rows, &mut undone).await?;
            let indexed: Vec<_> = things.into_iter().map(|thing| self.indexed(thing)).collect();
            let mut indexed = stream::iter(indexed).buffer_unordered(AT_ONCE);
            while let Some((thing, done)) = indexed.next().await {
                if let Err(error) = done {
                    undone.things.insert(thing);
                    undone.failed(error);
                }
            }
            let done: Vec<Pending> = page.rows.iter().filter(|entry| !undone.concern(entry)).cloned().collect();
            if !done.is_empty() {
                // Whoever else followed them may have deleted them first.
                let _: Written = self.app.commit(self.grant, history::followed(&done)).await?;
            }
            *followed += done.len() as u64;
            *failed = failed.take().or(undone.failed);
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Writes the history of tags that follows from some entries.
    async fn histories(&self, entries: &[Pending], undone: &mut Undone<'_>) -> Result<(), Error> {
        let at = |entry: &Pending| keys::event(&entry.log, entry.millis, entry.random);
        let mut rows = self.app.table.batch(entries.iter().map(at)).await?;
        let mut events: BTreeMap<Repository, Vec<Event>> = BTreeMap::new();
        for entry in entries {
            match rows.take::<Event>(&at(entry)) {
                Ok(Some(event)) => {
                    if let Ok(repository) = event.place.parse() {
                        events.entry(repository).or_default().push(event);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    undone.logs.insert(entry.log.clone());
                    undone.failed(error);
                }
            }
        }
        let history: Vec<_> = events.iter().map(|(repository, events)| self.history(repository, events)).collect();
        let mut history = stream::iter(history).buffer_unordered(AT_ONCE);
        while let Some((repository, done)) = history.next().await {
            if let Err(error) = done {
                undone.logs.insert(repository.entity().to_string());
                undone.failed(error);
            }
        }
        Ok(())
    }

    /// Writes the history of the tags of a repository, in few transactions: each holds the row of the repository, and
    /// whoever pushes there meanwhile has to wait for it.
    async fn history<'a>(&self, repository: &'a Repository, events: &[Event]) -> (&'a Repository, Result<(), Error>) {
        let write = async {
            for changes in history::of_events(repository, events)? {
                // Lost: the repository is gone.
                let _: Written = self.app.commit(self.grant, changes).await?;
            }
            Ok(())
        };
        (repository, write.await)
    }

    /// Brings the search index up to date.
    async fn indexed<'a>(&self, thing: &'a Thing) -> (&'a Thing, Result<(), Error>) {
        (thing, search::index(self.app, self.grant, thing).await)
    }
}
