//! Reading the logs of changes: who did what, when, from where and with which token.

use super::access::{Access, entity_at};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::events;
use crate::domain::{Actor, EntityName, Time, UserName};
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::keys;
use crate::store::rows::{Entity, Event};
use crate::store::table::Page;

/// The most events of a page.
pub const PAGE: usize = 100;
/// How many events are read at a time, and the most for one page, whether they are wanted or not.
const AT_A_TIME: usize = 250;
const MOST: usize = 2000;

/// Whose log it is.
#[derive(Debug, Clone)]
pub enum Log {
    /// An entity's, for those who manage it.
    Entity(EntityName),
    /// A user's account's, for the user and for site admins.
    User(UserName),
    /// The installation's, for site admins.
    Installation,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this actor.
    pub actor: Option<Actor>,
    /// Only those of this action, by its name in events.
    pub action: Option<String>,
    /// Only those since then.
    pub since: Option<Time>,
    /// Only those before then.
    pub until: Option<Time>,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        self.actor.as_ref().is_none_or(|actor| *actor == event.actor)
            && self.action.as_ref().is_none_or(|action| *action == event.action)
    }
}

fn millis(time: Time) -> u64 {
    u64::try_from(time.0).unwrap_or(0).saturating_mul(1000)
}

/// A page of a log, the latest events first. A page may be empty and not the last one, if nothing on it is wanted.
pub async fn list(
    app: &App,
    credential: &Credential,
    log: &Log,
    filter: &Filter,
    before: Option<String>,
) -> Result<Page<Event>, Error> {
    let (entity, place) = match log {
        Log::Entity(name) => (Some(name), Place::Entity(name.clone())),
        Log::User(name) => (None, Place::User(name.clone())),
        Log::Installation => (None, Place::Installation),
    };
    // A user's own entity was made with the user.
    let key = match log {
        Log::Entity(name) => Some(keys::entity(name)),
        Log::User(name) => Some(keys::entity(&name.into())),
        Log::Installation => None,
    };
    let mut access = Access::load(app, credential, entity, key.clone()).await?;
    // What happened to an entity or user who was deleted is for site admins, whoever has the name now.
    let row: Option<Entity> = key.map(|key| access.take(&key)).transpose()?.flatten();
    let all = access.probe(Action::Manage, &Resource::Installation).is_ok();
    let resource = match log {
        Log::Entity(name) if all => Resource::Entity(name.clone()),
        Log::Entity(name) => entity_at(name, row.as_ref()),
        Log::User(name) => Resource::User(name.clone()),
        Log::Installation => Resource::Installation,
    };
    access.require(Action::Manage, &resource, "log", "read this log")?;
    let from = row.filter(|_| !all).map_or(0, |row| millis(row.created));
    let _turn = app.long_read().await?;
    let range = keys::events(&events::log(&place));
    let since = filter.since.map_or(0, millis).max(from);
    let mut past = before.or_else(|| filter.until.map(|until| keys::event_time(millis(until))));
    let mut rows = Vec::new();
    let mut read = 0;
    loop {
        let page: Page<Event> = app.table.query_last(range.clone(), past, AT_A_TIME).await?;
        for event in page.rows {
            let next = keys::event_place(event.millis, event.random);
            if event.millis < since {
                return Ok(Page { rows, next: None });
            }
            read += 1;
            if filter.takes(&event) {
                rows.push(event);
            }
            if rows.len() >= PAGE || read >= MOST {
                return Ok(Page { rows, next: Some(next) });
            }
        }
        past = page.next;
        if past.is_none() {
            return Ok(Page { rows, next: None });
        }
    }
}
