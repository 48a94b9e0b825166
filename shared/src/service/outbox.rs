//! The outbox: what follows from changes, and is done after them.
//!
//! 1. A change writes its event and, if something follows from it, an entry of the outbox in the same transaction.
//! 2. Entries of a part of the outbox are read, the oldest first, and their events with them. *Twice at once*: both do
//!    what follows, with one result. *The event was forgotten*: nothing follows.
//! 3. What follows is done: the history of tags gets its rows. Each is named after its event, so doing it again changes
//!    nothing. *The repository is gone*: nothing follows.
//! 4. The entries are deleted. *Dies before*: they are read again.
//!
//! An entry that can't be followed stays, with those after it in its part, and is tried again.

use super::access::system;
use crate::app::App;
use crate::changes::history;
use crate::domain::Repository;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::store::keys;
use crate::store::rows::{Event, Pending};
use crate::store::table::{Page, Written};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;

/// How many entries are read at a time, and deleted in one transaction.
const AT_A_TIME: usize = 90;
/// How many repositories are worked on at the same time.
const AT_ONCE: usize = 16;

/// Does what follows from all changes so far. Returns how many there were.
///
/// # Errors
/// The first one, after all parts of the outbox were tried.
pub async fn follow(app: &App) -> Result<u64, Error> {
    let grant = system(Action::Sweep, &Resource::Installation)?;
    let (mut followed, mut failed) = (0, None);
    for part in 0..keys::OUTBOX_PARTS {
        let part = Outbox { app, grant: &grant, part };
        match part.follow().await {
            Ok(count) => followed += count,
            Err(error) => failed = failed.or(Some(error)),
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

impl Outbox<'_> {
    async fn follow(&self) -> Result<u64, Error> {
        let mut followed = 0;
        loop {
            let page: Page<Pending> = self.app.table.query(keys::outbox(self.part), None, AT_A_TIME).await?;
            if page.rows.is_empty() {
                return Ok(followed);
            }
            let at = |entry: &Pending| keys::event(&entry.log, entry.millis, entry.random);
            let mut rows = self.app.table.batch(page.rows.iter().map(at)).await?;
            let mut events: Vec<Event> = Vec::new();
            for entry in &page.rows {
                events.extend(rows.take::<Event>(&at(entry))?);
            }
            let following: Vec<_> =
                by_repository(&events).into_iter().map(|(at, events)| self.followed(at, events)).collect();
            stream::iter(following).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
            // Whoever else followed them may have deleted them first.
            let _: Written = self.app.commit(self.grant, history::followed(&page.rows)).await?;
            followed += page.rows.len() as u64;
        }
    }

    /// Does what follows from events of one repository, in few transactions: each holds the row of the repository, and
    /// whoever pushes there meanwhile has to wait for it.
    async fn followed(&self, repository: Repository, events: Vec<&Event>) -> Result<(), Error> {
        for changes in history::of_events(&repository, events)? {
            // Lost: the repository is gone.
            let _: Written = self.app.commit(self.grant, changes).await?;
        }
        Ok(())
    }
}

/// The events of each repository. Those of no repository are left out: nothing follows from them.
fn by_repository(events: &[Event]) -> BTreeMap<Repository, Vec<&Event>> {
    let mut here: BTreeMap<Repository, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if let Ok(repository) = event.place.parse() {
            here.entry(repository).or_default().push(event);
        }
    }
    here
}
