//! Making the search index anew, while people push and search.
//!
//! 1. Go through all rows of the library, and index each thing as the outbox does after a change of it.
//! 2. Go through all rows of the index: index each thing in it, so that what is gone from the library goes; and forget the
//!    words that no thing has.
//! 3. Note that the index is whole.
//!
//! After each page it is noted how far it is. *Dies*: whoever is next goes on from there. *Twice at once*: both do the
//! same. What changes meanwhile is in the outbox, and so in the index soon after.

use super::index::{forget_spelled, index as take_in};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::search;
use crate::domain::Thing;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::{Access, system};
use crate::store::Table;
use crate::store::index::{self, Indexed, Kind, Made, Spelled};
use crate::store::keys::{self, Key};
use crate::store::rows::Pending;
use crate::store::table::{Page, Written};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeSet;
use std::time::Instant;

/// How many things are indexed at a time.
const AT_ONCE: usize = 8;

/// The state of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Whether all that was there when it was last made is in it.
    pub whole: bool,
    /// For how long the oldest change has been waiting to be followed, in seconds; `None` if none waits.
    pub behind: Option<u64>,
}

/// The state of the index, for a site admin.
pub async fn state(app: &App, credential: &Credential) -> Result<State, Error> {
    let access = Access::load(app, credential, None, []).await?;
    access.require(Action::Sweep, &Resource::Installation, "installation", "look at the search index")?;
    let (mut oldest, now) = (None, app.now());
    for part in 0..keys::OUTBOX_PARTS {
        let page: Page<Pending> = app.table.query(keys::outbox(part), None, 1).await?;
        oldest = page.rows.first().map(|entry| entry.millis / 1000).into_iter().chain(oldest).min();
    }
    let behind = oldest.map(|at| u64::try_from(now.0).unwrap_or(0).saturating_sub(at));
    Ok(State { whole: app.index.get(index::made()).await? == Some(Made::Whole), behind })
}

/// Has the index made anew, for a site admin: [`make`] does it.
pub async fn renew(app: &App, credential: &Credential) -> Result<(), Error> {
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.require(Action::Sweep, &Resource::Installation, "installation", "make the search index anew")?;
    // Without a condition, so it is never lost.
    app.commit_index(&grant, search::unmade()).await.map(drop)
}

/// Makes the index, unless it is whole. Returns whether it is now: if there is no time left, whoever is next goes on.
///
/// # Errors
/// If a row can't be read or written. What is done stays.
pub async fn make(app: &App, until: Option<Instant>) -> Result<bool, Error> {
    let grant = system(Action::Sweep, &Resource::Installation)?;
    let mut made: Made = app.index.get(index::made()).await?.unwrap_or(Made::Library(None));
    loop {
        if until.is_some_and(|until| until <= Instant::now()) {
            return Ok(made == Made::Whole);
        }
        made = match made {
            Made::Library(after) => {
                let (rows, next) = app.table.scan(after).await?;
                all(app, &grant, rows.iter().filter_map(|row| keys::thing_at(&row.key))).await?;
                next.map_or(Made::Index(None), |next| Made::Library(Some(next)))
            }
            Made::Index(after) => {
                let (things, spelled, next) = some(&app.index, after).await?;
                all(app, &grant, things).await?;
                for word in spelled {
                    forget_spelled(app, &grant, &word).await?;
                }
                next.map_or(Made::Whole, |next| Made::Index(Some(next)))
            }
            Made::Whole => return Ok(true),
        };
        // Without a condition, so it is never lost.
        let _: Written = app.commit_index(&grant, search::made(&made)?).await?;
    }
}

/// The things and the whole words among some rows of the index.
async fn some(table: &Table, start: Option<Key>) -> Result<(BTreeSet<Thing>, Vec<Spelled>, Option<Key>), Error> {
    let (rows, next) = table.scan(start).await?;
    let (mut things, mut spelled) = (BTreeSet::new(), Vec::new());
    for row in rows {
        match index::kind(&row.key) {
            Kind::Indexed => drop(things.insert(row.read::<Indexed>()?.thing)),
            Kind::Spelled => spelled.extend(Some(row.read::<Spelled>()?).filter(|row| row.end == row.word)),
            Kind::Other => {}
        }
    }
    Ok((things, spelled, next))
}

async fn all(app: &App, grant: &Grant, things: impl IntoIterator<Item = Thing>) -> Result<(), Error> {
    let indexed: Vec<_> = things.into_iter().map(|thing| async move { take_in(app, grant, &thing).await }).collect();
    stream::iter(indexed).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}
