//! What is noted of a caller beside the purpose of their request: the use of a token, and what a site admin sees.

use super::{Access, system};
use crate::app::App;
use crate::app::looks::{self, Look};
use crate::changes::people;
use crate::domain::{Actor, Caller, Time};
use crate::error::Error;
use crate::rules::{self, Action, Grant, Resource, Subject};
use crate::store::rows::Token;
use std::time::Duration;

/// How exactly it is known when a token was last used: the first use after that is written down.
const USED: Duration = Duration::from_hours(24);

/// Whether the use of a token is to be noted: its first one, and then one a day.
pub(super) fn unnoted(token: &Token, now: Time) -> bool {
    token.used.is_none_or(|used| used.plus(USED) <= now)
}

/// Notes that a token is in use. What it is used for does not depend on that.
pub(super) async fn note_use(app: &App, token: &Token) -> Result<(), Error> {
    let now = app.now();
    // Many requests may show the same token at once: one of them is enough.
    let Some(_turn) = app.noting() else { return Ok(()) };
    let resource = match &token.actor {
        Actor::User(name) => Resource::User(name.clone()),
        Actor::Robot(entity, _) => Resource::Entity(entity.clone()),
        Actor::System => return Ok(()),
    };
    let noted = app.commit(&system(Action::Manage, &resource)?, people::token_used(token, now)?).await;
    if let Err(error) = noted {
        tracing::warn!(%error, "the use of a token is not noted");
    }
    Ok(())
}

impl Access {
    /// Notes what a site admin is shown, if they may see it for no other reason.
    pub(super) fn note(&self, app: &App, grant: &Grant, resource: &Resource) {
        let mut caller = self.caller.clone();
        if let Caller::Known { admin, .. } = &mut caller {
            *admin = false;
        }
        if rules::decide(Subject { caller: &caller, roles: &self.roles }, grant.action(), resource).is_err() {
            looks::note(Look { app: app.clone(), grant: grant.clone() });
        }
    }
}
