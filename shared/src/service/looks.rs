//! Writing down what site admins look at: whoever manages a place can read in its log that somebody who has no role there
//! saw it.
//!
//! 1. While a request runs, each decision that only a site admin gets is noted, with its place.
//! 2. Before it is answered, an event is written for each, once an hour for the same admin, action and place. *Fails*:
//!    the request fails, and shows nothing. *Dies*: it was not answered.
//!
//! Nobody else's request does any of this.

use super::access::system;
use crate::app::looks::Look;
use crate::changes::Changes;
use crate::error::Error;
use crate::rules::{Action, Place, Resource};
use crate::store::table::Written;

/// Writes down what a request looked at. If it changes something, only what it also read: a change leaves its own event.
pub async fn write_down(looks: Vec<Look>, changing: bool) -> Result<(), Error> {
    for Look { app, grant } in looks {
        if (changing && !grant.action().is_read()) || app.looks().has(&grant, app.now()) {
            continue;
        }
        let resource = match grant.place() {
            Place::User(name) => Resource::User(name.clone()),
            place => match place.entity() {
                Some(entity) => Resource::Entity(entity.clone()),
                // That of the installation is nobody's.
                None => continue,
            },
        };
        let ours = system(Action::Manage, &resource)?;
        match app.commit(&ours, Changes::looked(grant.clone())).await? {
            Written::Done => app.looks().add(&grant, app.now()),
            Written::Lost(_) => return Err(Error::Internal("two events have the same key".to_owned())),
        }
    }
    Ok(())
}
